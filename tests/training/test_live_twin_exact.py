"""The posterior without a filter's approximations, beside which the live twin's benchmark puts a seed that missed."""

from __future__ import annotations

from twinloop.training.benchmarks.live_twin_exact import known
from twinloop.training.benchmarks.live_twin_scene import CASES, Scene, Settling


def test_a_scene_is_the_same_each_time_and_its_prior_holds_the_truth() -> None:
    first, second = Scene(CASES[0], 6), Scene(CASES[0], 6)
    for a, b in zip(first.readings(15.0), second.readings(15.0), strict=True):
        assert (a.read == b.read).all()
        assert a.wind == b.wind
    low, high = first.prior().inflow.wind_direction_deg
    assert low < first.direction_deg < high


def test_settled_is_since_the_last_error_over_a_bar() -> None:
    settling = Settling()
    for at_s, direction_deg in ((5.0, 3.0), (10.0, 0.5), (15.0, 1.2), (20.0, 0.9), (25.0, 0.1)):
        settling.add(at_s, 0.0, direction_deg, 0.0)
    assert settling.since_s == 20.0
    settling.add(30.0, 0.0, 0.0, 51.0)
    assert settling.since_s == float("inf")


def test_readings_narrow_the_direction_down_around_the_truth_as_far_as_they_tell_of_it() -> None:
    found = known(CASES[0], 6, 400, until_s=400.0)
    assert 5.0 < found.n_effective < 200.0
    assert 0.3 < found.direction_std_deg < 0.5 * 14.0 / 12.0**0.5  # half the prior's, uniform over 14 deg
    assert found.direction_error_deg < 3.0 * found.direction_std_deg
