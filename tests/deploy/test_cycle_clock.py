"""Percentiles against numpy's, and what counts as a miss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.deploy.cycle_clock import CycleClock, Histogram, steal_s

PERIOD_S = 0.1
Q = (0.5, 0.99, 0.999)


def clocked(*cycles: tuple[float, float]) -> CycleClock:
    """A clock that was told of cycles, each its start and how long it took, in seconds."""
    clock = CycleClock(PERIOD_S)
    for begun_s, took_s in cycles:
        clock.begin(begun_s)
        clock.end(begun_s + took_s)
    return clock


@given(st.lists(st.floats(1e-6, 900.0), min_size=1, max_size=400))
def test_quantiles_are_never_below_numpys_and_at_most_one_bin_above(durations: list[float]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = np.quantile(durations, Q, method="inverted_cdf")
    found = np.array(histogram.quantiles_s(Q))
    assert (found >= exact * (1 - 1e-9)).all()
    assert (found <= exact * 2.0 ** (1 / 16) * (1 + 1e-9)).all()
    assert histogram.longest_s == max(durations)


def test_what_lies_outside_the_bins_is_counted_at_their_ends() -> None:
    histogram = Histogram()
    for duration in (0.0, 1e-9, 1e6):
        histogram.add(duration)
    assert histogram.quantiles_s((0.5,))[0] < 2e-6
    assert histogram.longest_s == 1e6


def test_nothing_is_known_before_the_first_cycle() -> None:
    found = CycleClock(PERIOD_S).figures()
    assert (found.periods, found.misses) == (0, 0)
    assert math.isnan(found.p50_ms)
    assert math.isnan(found.jitter_p99_ms)


def test_a_steady_loop_has_no_jitter_and_no_miss() -> None:
    found = clocked(*((k * PERIOD_S, 0.02) for k in range(100))).figures()
    assert (found.periods, found.misses, found.slow) == (100, 0, 0)
    assert found.jitter_max_ms == pytest.approx(0.0, abs=1e-6)
    assert found.max_ms == pytest.approx(20.0)
    assert found.last_ms == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("cycles", "misses"),
    [
        ([(0.0, 0.099), (0.1, 0.02)], 0),
        ([(0.0, 0.101), (0.101, 0.02), (0.2, 0.02)], 1),  # one cycle late, and the next in time again
        ([(0.0, 0.16), (0.16, 0.02)], 1),  # late once, however the start of the next rounds
        ([(0.0, 0.25), (0.25, 0.02)], 2),
        ([(0.0, 0.02), (0.2, 0.02)], 1),  # work in time, and then a period without any
        ([(0.0, 0.02), (0.14, 0.02)], 0),  # late to start, within half a period
        ([(0.0, 0.15), (0.4, 0.02)], 3),
    ],
)
def test_a_miss_is_a_period_without_a_cycle_or_with_one_that_was_late(
    cycles: list[tuple[float, float]], misses: int
) -> None:
    assert clocked(*cycles).figures().misses == misses


def test_jitter_is_the_amount_by_which_starts_are_early_or_late() -> None:
    found = clocked((0.0, 0.01), (0.105, 0.01), (0.2, 0.01)).figures()
    assert found.jitter_max_ms == pytest.approx(5.0, rel=1e-6)


def test_slow_cycles_are_counted_with_what_the_hypervisor_took() -> None:
    found = clocked((0.0, 0.06), (0.1, 0.02)).figures()
    assert found.slow == 1
    assert found.steal_s >= 0.0
    stolen_s = steal_s()
    assert stolen_s is None or stolen_s >= 0.0


def test_a_stepped_plant_has_neither_jitter_nor_misses() -> None:
    clock = CycleClock()
    for begun_s in (0.0, 5.0, 5.1):
        clock.begin(begun_s)
        clock.end(begun_s + 1.0)
    found = clock.figures()
    assert (found.periods, found.misses, found.slow) == (3, 0, 0)
    assert math.isnan(found.jitter_max_ms)
    assert found.max_ms == pytest.approx(1000.0)


def test_a_cycle_in_which_something_was_raised_counts_until_the_next_begins() -> None:
    clock = CycleClock(PERIOD_S)
    clock.begin(0.0)
    clock.begin(0.35)
    clock.end(0.36)
    found = clock.figures()
    assert found.periods == 2
    assert found.misses == 3
