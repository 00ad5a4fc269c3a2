"""Sensitivities of a row: the exact derivative against differences of the referee's chain, replicas against both."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.analysis.arrow import arrows
from twinloop.envs.production_line.analysis.chain import RowChain
from twinloop.envs.production_line.analysis.efficiency import as_configured
from twinloop.envs.production_line.analysis.gains import Model, chain_gains, gains, replica_gains, stop_losses
from twinloop.envs.production_line.analysis.sensitivity import Effects, effects_of_replicas
from twinloop.envs.production_line.analysis.settings import LineDiagnosisSettings
from twinloop.envs.production_line.config import BernoulliMachine, FixedLine, GeometricMachine, LineConfig, Machine
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line

FEW = LineDiagnosisSettings(replicas=48, slots=1000)


def row(efficiency: tuple[float, ...], capacities: tuple[int, ...]) -> LineConfig:
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in efficiency)
    return LineConfig(line=FixedLine(machines=machines, capacities=capacities))


@pytest.mark.parametrize("looks_through", [True, False])
@pytest.mark.parametrize(
    ("efficiency", "capacities"), [((0.8, 0.9), (2,)), ((0.9, 0.75, 0.85), (1, 3)), ((0.7, 0.9, 0.8, 0.95), (2, 1, 4))]
)
def test_the_derivative_is_that_of_the_referees_chain(
    efficiency: tuple[float, ...], capacities: tuple[int, ...], looks_through: bool
) -> None:
    def production(p: np.ndarray) -> float:
        return solve_line([ExactMachine(v) for v in p], capacities, looks_through=looks_through).production

    at, step = np.array(efficiency), 1e-5
    made, slope = RowChain.of(capacities, looks_through).solve(at)
    assert made == pytest.approx(production(at), abs=1e-12)
    for i, direction in enumerate(np.eye(len(at))):
        numeric = (production(at + step * direction) - production(at - step * direction)) / (2 * step)
        assert slope[i] == pytest.approx(numeric, abs=1e-7)


@pytest.mark.parametrize(
    ("efficiency", "capacity", "published"),
    [
        ((0.9,) * 5, 2, 2), ((0.9,) * 5, 3, 2), ((0.9, 0.9, 0.7, 0.9, 0.9), 3, 2), ((0.7, 0.75, 0.8, 0.85, 0.9), 3, 0),
        ((0.9, 0.8, 0.7, 0.8, 0.9), 3, 2),
    ],
)  # fmt: skip
def test_the_arrow_rule_names_the_published_machine(
    efficiency: tuple[float, ...], capacity: int, published: int
) -> None:
    solved = solve_line([ExactMachine(p) for p in efficiency], (capacity,) * 4, looks_through=True)
    found = arrows(solved.blocked, solved.starved, (0, 1, 2, 3), (1, 2, 3, 4))
    assert found.primary == published
    assert found.severity[published] > 0


def test_of_two_bottlenecks_the_arrow_rule_takes_the_severer() -> None:
    found = arrows(np.array([0.1, 0.05, 0.3, 0.0]), np.array([0.0, 0.2, 0.1, 0.1]), (0, 1, 2), (1, 2, 3))
    assert found.forward == (False, False, True)
    assert found.bottlenecks == (0, 3)
    np.testing.assert_allclose(found.severity, [0.1, 0.0, 0.0, 0.2], atol=1e-12)
    assert found.primary == 3


def test_replicas_agree_with_the_chain_within_their_intervals() -> None:
    model = Model(row((0.85, 0.75, 0.9), (2, 3)), as_configured(row((0.85, 0.75, 0.9), (2, 3))), 0, True)
    exact, simulated = chain_gains(model, FEW), replica_gains(model, FEW)
    assert exact.titles == simulated.titles
    assert not exact.by_change.half_width.any()  # nothing is left open
    for name in ("production", "by_rate", "by_change"):
        truth, found = getattr(exact, name), getattr(simulated, name)
        assert (found.half_width > 0).all()
        # 4 standard errors, of nine figures; a difference over a finite step is no derivative, within 0.02
        room = 4.0 / 1.96 * found.half_width + (0.02 if name == "by_rate" else 0.0)
        assert (np.abs(found.mean - truth.mean) <= room).all(), (name, found.mean, truth.mean, found.half_width)


def test_intervals_of_replicas_hold_what_telemetry_leaves_open() -> None:
    rng = np.random.default_rng(1)
    lines = rng.normal(0.0, 0.1, (400, 2))
    values = lines @ np.array([[1.0, 0.0], [2.0, 3.0]]) + rng.normal(0.0, 1.0, (400, 2))
    found = effects_of_replicas(values, lines)
    # variance of the effects: 0.01 (1 + 4) and 0.01 * 9, and a 400th of chance's
    np.testing.assert_allclose(np.diag(found.covariance), [0.05 + 0.0025, 0.09 + 0.0025], rtol=0.35)


def test_chances_follow_from_the_intervals() -> None:
    assert Effects(np.array([1.0, 0.0]), np.zeros((2, 2))).chances(0).tolist() == [1.0, 0.0]
    even = Effects(np.zeros(2), np.eye(2)).chances(0)
    assert even[0] == pytest.approx(0.5, abs=0.03)
    apart = Effects(np.array([1.0, 0.0]), np.diag([0.5, 0.5])).chances(0)  # one standard deviation: 0.841
    assert apart[0] == pytest.approx(0.8413, abs=0.015)


def test_a_stop_of_a_line_without_slack_loses_a_part_a_slot() -> None:
    config = row((1.0, 1.0, 1.0), (2, 2))
    lost = stop_losses(Model(config, as_configured(config), 0, True), FEW)
    np.testing.assert_allclose(lost.mean, [30.0, 30.0, 30.0])
    assert not lost.half_width.any()


def test_the_chain_is_refused_where_machines_stop() -> None:
    line = FixedLine(machines=(Machine(model=GeometricMachine()), Machine()), capacities=(2,))
    config = LineConfig(line=line)
    model = Model(config, as_configured(config), 0, True)
    with pytest.raises(ConfigurationError, match="method: replicas"):
        gains(model, LineDiagnosisSettings(method="chain"))
    assert gains(model, LineDiagnosisSettings(replicas=24, slots=200)).method == "replicas"
