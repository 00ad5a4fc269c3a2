from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from twinloop.deploy.proposals.effect import Meter, Window, interval, near, promise
from twinloop.deploy.proposals.proposal import Reference
from twinloop.envs.nameplate import Group, Nameplate, Signal


def drawn(
    rng: np.random.Generator, n: int, gain: float, slope: float, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Members ``[1, n, 2]``: a signal that follows a reference, under both policies, and errors of reading it."""
    wind = rng.normal(8.0, 1.0, n)
    own = noise * rng.standard_normal(n)
    today = np.stack((slope * wind + own, wind), axis=-1)[None]
    return today, today + np.array([gain, 0.0]), np.zeros_like(today)


def test_the_interval_is_students_prediction_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 64)
    half = stats.t.ppf(0.95, 63) * values.std(ddof=1) * np.sqrt(1 + 1 / 64)
    assert interval(values, 0.9) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-5)


def test_what_a_reference_explains_is_neither_effect_nor_uncertainty() -> None:
    today, proposed, errors = drawn(np.random.default_rng(1), 64, gain=5.0, slope=100.0, noise=0.0)
    found = promise(today, proposed, errors, [0.9])
    assert found.windows[0].slopes[0] == pytest.approx(100.0)
    assert found.means[0] == pytest.approx(5.0)
    assert found.highs[0] - found.lows[0] < 1e-9
    read = 100.0 * 9.7 + 5.0  # windier than any forecast's mean
    assert found.windows[0].effect(read, [9.7]) == pytest.approx(5.0)


def test_without_a_reference_the_drift_stays_in_the_interval() -> None:
    today, proposed, errors = drawn(np.random.default_rng(1), 64, gain=5.0, slope=100.0, noise=0.0)
    found = promise(today[..., :1], proposed[..., :1], errors[..., :1], [0.9])
    assert 250.0 < found.highs[0] - found.lows[0] < 420.0
    assert found.surely == pytest.approx((5.0, 5.0))


def test_a_reference_that_never_varies_gets_no_slope() -> None:
    today, proposed, errors = drawn(np.random.default_rng(2), 32, gain=5.0, slope=0.0, noise=1.0)
    today[..., 1] = proposed[..., 1] = 3.0
    assert promise(today, proposed, errors, [0.9]).windows[0].slopes == (0.0,)


@pytest.mark.parametrize("n_members", [16, 64])
def test_the_next_plant_lies_inside_as_often_as_promised(n_members: int) -> None:
    rng, inside, n = np.random.default_rng(3), 0, 2000
    for _ in range(n):
        today, proposed, errors = drawn(rng, n_members + 1, gain=5.0, slope=100.0, noise=20.0)
        errors = 10.0 * rng.standard_normal(errors.shape) * np.array([1.0, 0.02])
        members = slice(0, n_members)
        found = promise(today[:, members], proposed[:, members], errors[:, members], [0.9])
        plant = proposed[0, -1] + errors[0, -1]
        inside += found.lows[0] <= found.windows[0].effect(float(plant[0]), plant[1:].tolist()) <= found.highs[0]
    assert abs(inside / n - 0.9) < 3.0 * np.sqrt(0.9 * 0.1 / n) + 0.005  # the widening is right on average only


def test_angles_are_read_within_half_a_turn_of_their_origin() -> None:
    assert near(np.array([359.0, 1.0, 180.0]), 0.0, 360.0).tolist() == [-1.0, 1.0, -180.0]
    plate = Nameplate(
        "vanes", 1.0, (Group("vane", ("A", "B"), (Signal("angle_deg", "deg", 0.0, 360.0, circular=True),),
                             (Signal("x_pu", "pu", 0.0, 1.0),)),)
    )  # fmt: skip
    reference = Reference(signal="vane/angle_deg", agents=("vane/A", "vane/B"), origin=2.0, turn=360.0)
    meter = Meter(plate, "vane/angle_deg", [reference])
    assert meter({"vane": np.array([[358.0], [4.0]])}).tolist() == [362.0, 1.0]


def test_a_meter_reads_only_where_all_that_it_needs_is_believed() -> None:
    plate = Nameplate(
        "pumps", 1.0, (Group("pump", ("A", "B"), (Signal("flow", "l", 0.0, 9.0),), (Signal("x_pu", "pu", 0.0, 1.0),)),)
    )
    meter = Meter(plate, "pump/flow", [])
    assert meter.can_read({"pump": np.array([True, True])})
    assert not meter.can_read({"pump": np.array([True, False])})


def test_a_window_needs_a_slope_for_each_expectation() -> None:
    with pytest.raises(ValueError, match="one slope for each"):
        Window(today=1.0, expected=(1.0,), slopes=())
