"""Conformal p-values and the residual monitor: false-alarm rates by simulation, adaptation by its theorem."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.monitors.conformal import p_values, threshold
from twinloop.deploy.shield.monitors.monitor import Monitor, Seen
from twinloop.deploy.shield.monitors.persistence import Persistence
from twinloop.deploy.shield.monitors.residual import ResidualCalibration, ResidualMonitor, calibrate_residuals
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
N = 4
PLATE = Nameplate(
    site="pumps",
    period_s=1.0,
    groups=(
        Group(
            "pump",
            tuple(f"P{i}" for i in range(N)),
            (
                Signal("flow_m3h", "m3/h", 0.0, 100.0),
                Signal("pressure_bar", "bar", 0.0, 10.0),
                Signal("vane_deg", "deg", 0.0, 360.0, circular=True),
            ),
            (Signal("speed_pu", "1", 0.0, 1.0),),
        ),
    ),
)
SPREAD = np.array([2.0, 0.05, 3.0])  # of the twin's errors, in three units


def readings(rng: np.random.Generator, n_periods: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    predicted = rng.uniform([10.0, 2.0, 0.0], [90.0, 8.0, 360.0], (n_periods, N, 3))
    measured = predicted + SPREAD * rng.standard_t(5, (n_periods, N, 3))
    measured[..., 2] %= 360.0
    return {"pump": measured}, {"pump": predicted}


def seen(measured: Floats, predicted: Floats | None, present: NDArray[np.bool_] | None = None) -> Seen:
    return Seen(
        measured={"pump": measured},
        commands={"pump": np.zeros((N, 1))},
        proposed=None,
        changed={"pump": np.zeros(N, np.bool_)},
        prediction=None if predicted is None else {"pump": predicted},
        present={"pump": np.ones(N, np.bool_) if present is None else present},
        clock_s=0.0,
    )


def monitor(alpha: float = 0.05, k: int = 1, m: int = 1, adaptation: float = 0.0, n: int = 400) -> ResidualMonitor:
    calibration = calibrate_residuals(PLATE, *readings(np.random.default_rng(7), n))
    return ResidualMonitor(PLATE, calibration, alpha, Persistence(k, m), adaptation)


def test_p_values_count_the_calibration_scores_that_are_as_odd() -> None:
    calibration = np.array([1.0, 2.0, 2.0, 3.0])
    # by crepes 0.9.1, ConformalClassifier.predict_p without smoothing
    np.testing.assert_allclose(
        p_values(np.array([0.5, 1.0, 2.0, 2.5, 3.0, 3.5]), calibration), [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]
    )
    assert p_values(np.array([np.nan]), calibration)[0] == pytest.approx(0.2)


def test_the_threshold_is_where_p_values_reach_alpha() -> None:
    rng = np.random.default_rng(0)
    for n in (9, 19, 100):
        calibration = np.sort(rng.normal(size=n))
        for alpha in (0.05, 0.1, 0.5, 0.99):
            scores = rng.normal(size=500)
            np.testing.assert_array_equal(
                p_values(scores, calibration) <= alpha, scores > threshold(calibration, alpha)
            )
    assert threshold(np.arange(9.0), 0.05) == math.inf
    assert threshold(np.arange(9.0), 1.0) == -math.inf


@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_false_alarms_come_at_the_stated_rate(alpha: float) -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(300):
        calibration = calibrate_residuals(PLATE, *readings(rng, 60))
        watching = ResidualMonitor(PLATE, calibration, alpha, Persistence(1, 1))
        measured, predicted = readings(rng, 25)
        memory, n_alarms = watching.start(), 0
        for x, expected in zip(measured["pump"], predicted["pump"], strict=True):
            memory, alarms = watching.step(memory, seen(x, expected))
            n_alarms += len(alarms)
        rates.append(n_alarms / (25 * N))
    n = 30 * N
    stated = math.floor(alpha * (n + 1)) / (n + 1)
    error = np.std(rates, ddof=1) / math.sqrt(len(rates))
    assert error < alpha / 10
    assert abs(np.mean(rates) - stated) <= 3 * error


def test_limits_are_in_the_signals_units_and_hold_together() -> None:
    calibration = calibrate_residuals(PLATE, *readings(np.random.default_rng(2), 4000))
    limits = calibration.limits(0.1)["pump"]
    np.testing.assert_allclose(limits / SPREAD, (limits / SPREAD)[0], rtol=0.1)  # each signal counts alike
    measured, predicted = readings(np.random.default_rng(3), 4000)
    off = np.abs((measured["pump"] - predicted["pump"] + 180.0) % 360.0 - 180.0)
    assert np.mean((off > limits).any(-1)) == pytest.approx(0.1, abs=0.01)


def test_an_asset_is_alarmed_after_k_of_m_periods_and_others_are_not() -> None:
    watching = monitor(alpha=0.01, k=2, m=4)
    assert isinstance(watching, Monitor)
    expected = np.full((N, 3), [50.0, 5.0, 359.0])
    off = expected.copy()
    off[2, 1] += 3.0
    memory, raised = watching.start(), []
    for x in (off, expected, off, expected, expected, expected, expected):
        memory, alarms = watching.step(memory, seen(x, expected))
        raised.append(alarms)
    alarm = {"pump/P2": Cause.RESIDUAL}
    assert raised == [{}, {}, alarm, alarm, {}, {}, {}]


def test_an_angle_is_compared_the_short_way_round() -> None:
    watching = monitor(alpha=0.01)
    expected = np.full((N, 3), [50.0, 5.0, 359.5])
    _, alarms = watching.step(watching.start(), seen(np.full((N, 3), [50.0, 5.0, 0.5]), expected))
    assert alarms == {}


def test_a_prediction_that_is_no_number_counts_as_odd() -> None:
    watching = monitor(alpha=0.01)
    expected = np.full((N, 3), [50.0, 5.0, 180.0])
    broken = expected.copy()
    broken[1, 0] = np.nan
    _, alarms = watching.step(watching.start(), seen(expected, broken))
    assert alarms == {"pump/P1": Cause.RESIDUAL}


def test_without_a_prediction_nothing_is_said_and_nothing_forgotten() -> None:
    watching = monitor(alpha=0.01, k=1, m=2)
    expected = np.full((N, 3), [50.0, 5.0, 180.0])
    off = expected + np.array([40.0, 0.0, 0.0])
    memory, alarms = watching.step(watching.start(), seen(off, expected))
    assert len(alarms) == N
    silent, still = watching.step(memory, seen(expected, None))
    assert still == alarms
    untrusted, still = watching.step(silent, seen(expected, expected, np.zeros(N, np.bool_)))
    assert still == alarms
    memory, _ = watching.step(untrusted, seen(expected, expected))
    assert watching.step(memory, seen(expected, expected))[1] == {}


def test_a_step_leaves_the_memory_before_it_as_it_was() -> None:
    watching = monitor(alpha=0.1, k=2, m=3, adaptation=0.01)
    measured, predicted = readings(np.random.default_rng(4), 20)
    memory = watching.start()
    kept = []
    for x, expected in zip(measured["pump"], predicted["pump"], strict=True):
        kept.append((memory, {k: a.copy() for k, a in memory.items()}))
        memory, _ = watching.step(memory, seen(x, expected))
    for now, then in kept:
        assert all(np.array_equal(now[key], then[key]) for key in then)


def test_adaptation_keeps_the_share_of_odd_periods_as_stated_while_the_plant_drifts() -> None:
    alpha, gamma, n_periods = 0.1, 0.01, 3000
    rng = np.random.default_rng(5)
    measured, predicted = readings(rng, n_periods)
    drift = 1.0 + 3.0 * np.arange(n_periods) / n_periods  # errors become four times as large
    off = (measured["pump"] - predicted["pump"] + 180.0) % 360.0 - 180.0
    shares = {}
    for adaptation in (0.0, gamma):
        watching = monitor(alpha=alpha, k=3, m=5, adaptation=adaptation)
        memory, odd = watching.start(), np.zeros(N)
        for k in range(n_periods):
            memory, _ = watching.step(memory, seen(predicted["pump"][k] + drift[k] * off[k], predicted["pump"][k]))
            odd += memory["odd/pump"][:, 0]
        shares[adaptation] = odd / n_periods
    # Gibbs & Candes 2021, proposition 4.1: for any sequence whatever
    assert (np.abs(shares[gamma] - alpha) <= (max(alpha, 1.0 - alpha) + gamma) / (gamma * n_periods)).all()
    assert (shares[0.0] > 3 * alpha).all()


def test_a_sudden_fault_is_alarmed_although_limits_adapt() -> None:
    watching = monitor(alpha=0.05, k=3, m=5, adaptation=0.005)
    expected = np.full((N, 3), [50.0, 5.0, 180.0])
    memory = watching.start()
    for _ in range(200):
        memory, alarms = watching.step(memory, seen(expected, expected))
    assert alarms == {}
    for _ in range(3):
        memory, alarms = watching.step(memory, seen(expected + np.array([60.0, 0.0, 0.0]), expected))
    assert len(alarms) == N


def test_a_calibration_is_saved_and_read_back_exactly(tmp_path: Path) -> None:
    calibration = calibrate_residuals(PLATE, *readings(np.random.default_rng(6), 50))
    calibration.save(tmp_path / "residuals.json")
    again = ResidualCalibration.load(tmp_path / "residuals.json")
    np.testing.assert_array_equal(again.scale["pump"], calibration.scale["pump"])
    np.testing.assert_array_equal(again.scores["pump"], calibration.scores["pump"])
    (tmp_path / "other.json").write_text('{"scale": {}}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"other\.json: no calibration of residuals"):
        ResidualCalibration.load(tmp_path / "other.json")


def test_settings_that_could_never_alarm_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"40 calibration scores can't tell a false-alarm rate of 0\.001"):
        monitor(alpha=0.001, n=20)
    with pytest.raises(ConfigurationError, match=r"adaptation 0\.05 would take a fault for drift"):
        monitor(alpha=0.05, k=3, m=5, adaptation=0.05)
    with pytest.raises(ConfigurationError, match="false-alarm rate 1"):
        monitor(alpha=1.0)
    with pytest.raises(ConfigurationError, match="no calibration of the 3 measured signals of group 'pump'"):
        ResidualMonitor(PLATE, ResidualCalibration({}, {}))
    with pytest.raises(ConfigurationError, match="alarm after 3 of 2 periods"):
        Persistence(3, 2)
    measured, predicted = readings(np.random.default_rng(8), 10)
    measured["pump"][3, 1, 0] = np.nan
    with pytest.raises(ConfigurationError, match="finite values"):
        calibrate_residuals(PLATE, measured, predicted)
