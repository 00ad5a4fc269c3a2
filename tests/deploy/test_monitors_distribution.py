"""The input monitor: its scores against scikit-learn's and plain search, its false-alarm rate by simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.agents.artifact_inputs import InputSample
from twinloop.agents.own_signals import OwnSignalsEncoder
from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.monitors.conformal import p_values as odds
from twinloop.deploy.shield.monitors.distribution import (
    DistributionMonitor,
    InputCalibration,
    NearestNeighbours,
    calibrate_inputs,
    shrunk_covariance,
)
from twinloop.deploy.shield.monitors.monitor import Monitor, Seen
from twinloop.deploy.shield.monitors.persistence import Persistence
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
N = 3
PLATE = Nameplate(
    site="ovens",
    period_s=1.0,
    groups=(
        Group(
            "oven",
            tuple(f"O{i}" for i in range(N)),
            (
                Signal("inlet_degc", "degC", 0.0, 100.0),
                Signal("outlet_degc", "degC", 0.0, 100.0),
                Signal("drum_deg", "deg", 0.0, 360.0, circular=True),
            ),
            (Signal("heat_pu", "1", 0.0, 1.0),),
        ),
    ),
)
ENCODER = OwnSignalsEncoder(PLATE, "oven")
KINDS: tuple[Literal["mahalanobis", "knn"], ...] = ("mahalanobis", "knn")


def draws(rng: np.random.Generator, n: int) -> Floats:
    """Measured, ``[n, 3]``: two operating points, outlet tied to inlet, the drum near 0 deg from both sides."""
    inlet = np.where(rng.random(n) < 0.5, 25.0, 70.0) + 3.0 * rng.normal(size=n)
    outlet = 0.5 * inlet + 20.0 + rng.normal(size=n)
    drum = (10.0 * rng.normal(size=n)) % 360.0
    return np.stack([inlet, outlet, drum], axis=-1)


def sample(rng: np.random.Generator, n: int) -> dict[str, InputSample]:
    return {"oven": InputSample(features(draws(rng, n)).astype(np.float32), np.arange(n))}


def features(measured: Floats) -> Floats:
    everywhere = np.ones((1, len(measured)), np.bool_)
    found: Floats = ENCODER.encode(measured[None], measured[None, :, :0], everywhere, {}, 1.0)[0][0]
    return found


def watch(
    calibration: Mapping[str, InputCalibration], alpha: float = 0.001, k: int = 1, m: int = 1
) -> DistributionMonitor:
    return DistributionMonitor(PLATE, {"oven": ENCODER}, calibration, alpha, Persistence(k, m))


def p_values(watching: DistributionMonitor, row: list[float]) -> float:
    """Of one reading that all ovens share."""
    _, p = watching.p_values(watching.start(), seen(np.tile(row, (N, 1))))
    return float(p["oven"][0])


def seen(measured: Floats, present: NDArray[np.bool_] | None = None) -> Seen:
    return Seen(
        measured={"oven": measured},
        commands={"oven": np.zeros((N, 1))},
        proposed=None,
        changed={"oven": np.zeros(N, np.bool_)},
        prediction=None,
        present={"oven": np.ones(N, np.bool_) if present is None else present},
        clock_s=0.0,
    )


def test_the_shrunk_covariance_is_scikit_learns() -> None:
    rows = np.array(
        [
            [-0.8, -3.05, -0.42], [0.42, 2.48, 0.35], [-0.55, -1.85, -0.16], [1.63, 1.36, -0.04],
            [-0.96, 2.72, 0.5], [-1.73, -1.03, -0.14], [-0.63, -1.29, -0.22], [0.55, 0.15, -0.08], [0.41, 1.86, 0.08],
            [-0.26, -2.09, -0.31], [-1.29, -0.6, 0.0], [-0.3, -2.25, -0.35],
        ]
    )  # fmt: skip
    expected = [  # sklearn.covariance.ledoit_wolf, assume_centered=True
        [0.8741931431729467, 0.6113239096597016, 0.025206133000382498],
        [0.6113239096597016, 3.301290855398007, 0.39722274823195713],
        [0.025206133000382498, 0.39722274823195713, 0.2598000292068233],
    ]
    np.testing.assert_allclose(shrunk_covariance(rows - rows.mean(0)), expected, rtol=1e-12)


def test_one_row_alone_has_a_covariance() -> None:
    assert np.isfinite(shrunk_covariance(np.zeros((1, 3)))).all()


def test_nearest_neighbours_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    rows, asked = rng.normal(size=(200, 4)), rng.normal(size=(30, 4))
    found = NearestNeighbours.fit(rows, k=5)
    distance = np.sqrt((((asked[:, None] - rows[None]) / rows.std(0)) ** 2).sum(-1))
    np.testing.assert_allclose(found(asked), np.sort(distance, axis=1)[:, 4], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_come_at_the_stated_rate(kind: Literal["mahalanobis", "knn"]) -> None:
    rng, alpha, rates = np.random.default_rng(1), 0.05, []
    for _ in range(250):
        watching = watch(calibrate_inputs(sample(rng, 240), kind), alpha)
        n_alarms, memory = 0, watching.start()
        for _ in range(20):
            memory, alarms = watching.step(memory, seen(draws(rng, N)))
            n_alarms += len(alarms)
        rates.append(n_alarms / (20 * N))
    stated = math.floor(alpha * 121) / 121
    error = np.std(rates, ddof=1) / math.sqrt(len(rates))
    assert error < alpha / 10
    assert abs(np.mean(rates) - stated) <= 3 * error


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_unlike_training_is_alarmed_after_k_of_m_and_others_are_not(
    kind: Literal["mahalanobis", "knn"],
) -> None:
    calibration = calibrate_inputs(sample(np.random.default_rng(2), 4000), kind)
    watching = watch(calibration, 0.01, k=2, m=3)
    assert isinstance(watching, Monitor)
    usual = np.full((N, 3), [25.0, 32.5, 0.0])
    odd = usual.copy()
    odd[1] = [25.0, 55.0, 0.0]  # each signal in its usual range, but not both together
    memory, raised = watching.start(), []
    for x in (usual, odd, odd, usual, usual, usual):
        memory, alarms = watching.step(memory, seen(x))
        raised.append(alarms)
    alarm = {"oven/O1": Cause.OUT_OF_DISTRIBUTION}
    assert raised == [{}, {}, alarm, alarm, {}, {}]


def test_neighbours_see_the_gap_between_operating_points_where_a_mean_sees_none() -> None:
    samples = sample(np.random.default_rng(3), 4000)
    p = {kind: p_values(watch(calibrate_inputs(samples, kind)), [47.5, 43.75, 0.0]) for kind in KINDS}
    assert p["knn"] < 0.01
    assert p["mahalanobis"] > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_none_is_as_odd_as_can_be(kind: Literal["mahalanobis", "knn"]) -> None:
    fitted = calibrate_inputs(sample(np.random.default_rng(4), 4000), kind)["oven"]
    rows = features(np.tile([25.0, 32.5, 0.0], (3, 1)))
    rows[0, 0], rows[1, 2], rows[2] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):  # infinity less infinity; the shield filters under the same setting
        p = odds(fitted.score(rows), fitted.calibration)
    np.testing.assert_allclose(p, 1.0 / (len(fitted.calibration) + 1))


def test_an_asset_whose_readings_cannot_be_believed_keeps_its_judgement() -> None:
    calibration = calibrate_inputs(sample(np.random.default_rng(5), 4000))
    watching = watch(calibration)
    memory, alarms = watching.step(watching.start(), seen(np.full((N, 3), [99.0, 1.0, 180.0])))
    assert len(alarms) == N
    usual = np.full((N, 3), [25.0, 32.5, 0.0])
    _, still = watching.step(memory, seen(usual, np.array([True, False, True])))
    assert set(still) == {"oven/O1"}


def test_only_the_assets_that_the_policy_answers_for_are_judged() -> None:
    calibration = calibrate_inputs(sample(np.random.default_rng(5), 4000))
    watching = replace(watch(calibration), own=frozenset({"oven/O1"}))
    _, alarms = watching.step(watching.start(), seen(np.full((N, 3), [99.0, 1.0, 180.0])))
    assert set(alarms) == {"oven/O1"}


def test_rows_of_one_episode_stand_on_one_side_only() -> None:
    rows = np.random.default_rng(6).normal(size=(400, 3)).astype(np.float32)
    episode = np.repeat(np.arange(4), 100)
    rows[np.isin(episode, [1, 3])] = 9.0  # what is calibrated on is one point, far from what is fitted on
    found = calibrate_inputs({"oven": InputSample(rows, episode)})["oven"]
    assert len(found.calibration) == 200
    assert np.ptp(found.calibration) == 0.0
    assert found.calibration[0] > 5.0


class Remembering:
    """Features: the inlet, and the one before it."""

    name, group, n_features = "remembering", "oven", 2

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        return {"last": np.zeros((n_rows, n_assets))}

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        now = measured[..., 0] / 100.0
        return np.stack([now, memory["last"]], -1) * present[..., None], {"last": now}


def test_what_the_encoder_remembers_is_the_monitors_own_memory() -> None:
    rng = np.random.default_rng(8)
    inlet = rng.uniform(0.2, 0.4, 4000)
    calm = np.stack([inlet, inlet + 0.005 * rng.normal(size=4000)], -1)  # from one reading to the next little changes
    calibration = calibrate_inputs({"oven": InputSample(calm.astype(np.float32), np.arange(4000))})
    watching = DistributionMonitor(PLATE, {"oven": Remembering()}, calibration, 0.001, Persistence(1, 1))
    memory = watching.start()
    jumps = {}
    for inlet_degc in (30.0, 30.5, 38.0, 38.1):
        memory, alarms = watching.step(memory, seen(np.tile([inlet_degc, 0.0, 0.0], (N, 1))))
        jumps[inlet_degc] = len(alarms)
    assert jumps == {30.0: N, 30.5: 0, 38.0: N, 38.1: 0}


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (InputSample(np.zeros((9, 3), np.float32), np.arange(8)), r"\(9, 3\) with 8 episode numbers"),
        (InputSample(np.full((9, 3), np.nan, np.float32), np.arange(9)), "it needs finite features"),
        (InputSample(np.zeros((9, 3), np.float32), np.zeros(9, np.int64)), "1 episodes; give at least two"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused(samples: InputSample, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        calibrate_inputs({"oven": samples})


def test_a_sample_too_small_for_the_rate_is_refused() -> None:
    calibration = calibrate_inputs(sample(np.random.default_rng(7), 100))
    with pytest.raises(ConfigurationError, match=r"50 calibration scores can't tell .* 0\.001, which needs 999"):
        watch(calibration)


def test_a_sample_of_other_features_is_refused() -> None:
    calibration = calibrate_inputs({"oven": InputSample(np.eye(9, dtype=np.float32), np.arange(9))})
    with pytest.raises(ConfigurationError, match="the encoder of group 'oven' makes 4 features, the sample has 9"):
        watch(calibration, alpha=0.5)
