"""The discrete stopping distance and its inverse, against the sum that defines them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield.braking import changes_within_reach, largest_change, stopping_distance

BRAKE = st.floats(1e-3, 1e3)


def summed(change: float, brake: float) -> float:
    total = 0.0
    while change > 0.0:
        total += change
        change -= brake
    return total


@given(st.floats(0.0, 200.0), BRAKE)
def test_the_closed_form_is_the_sum_of_the_shortest_stop(n_brakes: float, brake: float) -> None:
    change = n_brakes * brake
    found = float(stopping_distance(np.array([change]), np.array([brake]))[0])
    assert found == pytest.approx(summed(change, brake), rel=1e-9, abs=1e-12 * brake)


@given(st.floats(0.0, 2e4), BRAKE)
def test_the_largest_change_is_the_inverse(n_brakes: float, brake: float) -> None:
    distance, a = np.array([n_brakes * brake]), np.array([brake])
    change = largest_change(distance, a)
    assert stopping_distance(change, a)[0] == pytest.approx(distance[0], rel=1e-9, abs=1e-12 * brake)
    assert stopping_distance(change * (1.0 + 1e-6) + 1e-9 * brake, a)[0] > distance[0]


def test_at_whole_brakes_the_distance_is_triangular() -> None:
    k = np.arange(8.0)
    np.testing.assert_array_equal(stopping_distance(k, np.ones(8)), k * (k + 1) / 2)
    np.testing.assert_array_equal(largest_change(k * (k + 1) / 2, np.ones(8)), k)


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 20.0), st.floats(0.01, 20.0), st.booleans())
def test_from_any_state_under_the_rule_range_rate_and_acceleration_can_be_kept_again(
    seed: int, brake: float, step: float, whole: bool
) -> None:
    """Hostile and random choices inside the reach; uneven periods may demand harder braking, by their rate."""
    rng = np.random.default_rng(seed)
    low, high = np.array([-10.0]), np.array([7.0])
    a, x, change = np.array([brake]), np.array([rng.uniform(-10.0, 7.0)]), np.zeros(1)
    for _ in range(40):
        share = 1.0 if whole else float(rng.choice([0.0, 0.3, 1.0]))
        now = np.array([step * share])
        least, most = changes_within_reach(x, change, low, high, now, a, None if whole else (now, now, share))
        assert least[0] <= most[0]
        chosen = rng.choice([least[0], most[0], rng.uniform(least[0], most[0])])
        assert abs(chosen) <= now[0]
        if whole:
            assert abs(chosen - change[0]) <= brake * (1.0 + 1e-9) + 1e-9
        beyond, change = x + chosen, np.array([chosen])
        x = np.clip(beyond, low, high)  # rounding, no more
        assert abs(beyond[0] - x[0]) <= 1e-12
