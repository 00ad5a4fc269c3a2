"""Rules of replacement replayed on lives that are known."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.prognosis.decision import (
    at_the_last_chance,
    best_age,
    by_age,
    by_threshold,
    choose_threshold,
    to_failure,
)

LIVES = [25, 40, 33]
KNOWN = [np.arange(n - 1, -1, -1.0) for n in LIVES]
"""Remaining life as somebody knows who sees the end."""


def test_a_threshold_replaces_at_the_first_look_that_passes_it() -> None:
    found = by_threshold(KNOWN, 12.0, 10)
    assert found.cycles.tolist() == [20, 30, 30]
    assert not found.failed.any()
    assert found.cost(10.0) == pytest.approx(3 / 80)
    assert found.wasted == pytest.approx((5 + 10 + 3) / 3)


def test_a_threshold_below_the_time_between_looks_comes_too_late() -> None:
    found = by_threshold(KNOWN, 3.0, 10)
    assert found.failed.tolist() == [True, True, False]
    assert found.cycles.tolist() == [25, 40, 30]
    assert found.cost(10.0) == pytest.approx((3 + 9 * 2) / 95)


def test_the_last_chance_is_the_look_before_the_last_cycle() -> None:
    assert at_the_last_chance([25, 40, 33, 7], 10).cycles.tolist() == [20, 30, 30, 7]
    assert at_the_last_chance([25, 40, 33, 7], 10).failed.tolist() == [False, False, False, True]
    assert to_failure(LIVES).cost(5.0) == pytest.approx(15 / 98)


def test_the_best_age_costs_least_of_all_ages() -> None:
    age = best_age(LIVES, 10.0)
    assert age == 24
    assert by_age(LIVES, age).cost(10.0) == min(by_age(LIVES, a).cost(10.0) for a in range(1, 41))


def test_the_chosen_threshold_holds_on_whatever_day_looks_begin() -> None:
    # a look in the very last cycle is too late, so that looks 10 cycles apart need a threshold of 10
    assert choose_threshold(KNOWN, 10.0, 10, [5.0, 8.0, 9.0, 10.0, 12.0, 20.0]) == 10.0
