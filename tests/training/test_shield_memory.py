"""The shield and its loop hold no more memory after many periods than after some."""

from __future__ import annotations

import pytest

from twinloop.training.benchmarks.shield_memory import (
    BLOCKS_BAR,
    Mark,
    growth,
    is_flat,
    loop_marks,
    marks_of,
    shield_marks,
)


def test_twenty_thousand_periods_with_faults_leave_no_more_blocks_than_two_hundred() -> None:
    marks = shield_marks(20_000)
    assert [m.period for m in marks] == [20, 200, 2_000, 10_000, 20_000]
    assert is_flat(marks), growth(marks)


def test_the_loop_too_is_flat() -> None:
    marks = loop_marks(2_000)
    assert len(marks) == 5
    assert growth(marks).blocks <= BLOCKS_BAR, growth(marks)


def test_a_leak_of_one_block_a_period_would_show() -> None:
    kept: list[object] = []
    marks = []
    for period in range(1, 20_001):
        kept.append(float(period))
        if period in marks_of(20_000):
            marks.append(Mark(period, 1_000 + len(kept), 100.0))
    assert not is_flat(marks)


@pytest.mark.parametrize("n_periods", [1, 7, 1_000_000])
def test_marks_end_with_the_last_period(n_periods: int) -> None:
    assert max(marks_of(n_periods)) == n_periods
    assert min(marks_of(n_periods)) >= 1
