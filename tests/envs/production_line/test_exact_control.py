"""The exact decision process of a line: published optima, the chain of the uncontrolled line, and the twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from twinloop.agents.controllers.line_optimum import ExactPolicy, rule_of
from twinloop.agents.controllers.production_line import AlwaysOn, Hysteresis, OneSpeed, switches_about
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    Power,
    RandomLine,
    Tariff,
)
from twinloop.envs.production_line.exact_control import ControlledLine, long_run
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line
from twinloop.envs.production_line.nameplate import line_nameplate
from twinloop.training.line_trial import earn


def row(rates: tuple[float, ...], capacity: int, warm_up: int, power: Power | None = None, **more: Any) -> LineConfig:
    machines = tuple(
        Machine(model=BernoulliMachine(efficiency_pu=p), warm_up_slots=warm_up, power=power or Power()) for p in rates
    )
    line = FixedLine(machines=machines, capacities=(capacity,) * (len(rates) - 1))
    return LineConfig(line=line, **{"modes": ("off", "on"), **more})


def machine(rate: float) -> Machine:
    return Machine(model=BernoulliMachine(efficiency_pu=rate), warm_up_slots=1)


def process(config: LineConfig, part_value: float) -> ControlledLine:
    return ControlledLine.of(config, part_value=part_value, energy_weight=60.0)  # a slot is 1/60 h: kW a slot


DEEP, SHALLOW, SPEED = (0.95, 0.6, 0.95), (0.9, 0.75, 0.9), (0.95, 0.85, 0.95)
CUBIC = Power(off_kw=5, idle_kw=5, linear_kw=0, cubic_kw=10, draws="loaded")
PROPORTIONAL = Power(off_kw=9, idle_kw=9, linear_kw=6, draws="loaded")


# A warm-up of W slots after the one in which a machine is told to be on is W + 1 of the twin's.
@pytest.mark.parametrize(
    ("rates", "capacity", "warm_up", "value", "optimum", "always_on", "on_at", "off_at", "hysteresis"),
    [
        (DEEP, 10, 2, 400.0, 206.4344, 202.2, 4, 10, 206.3537),
        (DEEP, 10, 3, 400.0, 205.5542, 202.2, 4, 10, 205.5541),
        (SHALLOW, 5, 1, 120.0, 50.2636, 49.3983, 3, 5, 50.2620),
        (SHALLOW, 5, 2, 120.0, 49.3997, 49.3983, 3, 5, 48.8001),
    ],
)
def test_energy_rows_have_their_published_gains(
    rates: tuple[float, ...], capacity: int, warm_up: int, value: float, optimum: float, always_on: float,
    on_at: int, off_at: int, hysteresis: float,
) -> None:  # fmt: skip
    config = row(rates, capacity, warm_up)
    line, plate = process(config, value), line_nameplate(config)
    switches = switches_about(1, (capacity, capacity), on_at / capacity, off_at / capacity)
    found = [
        line.best().gain,
        line.worth_of(rule_of(AlwaysOn(plate), config)).gain,
        line.worth_of(rule_of(Hysteresis(plate, switches), config)).gain,
    ]
    assert found == pytest.approx([optimum, always_on, hysteresis], abs=6e-5)


@pytest.mark.parametrize(
    ("power", "optimum", "full", "best_static"),
    [(CUBIC, 12.16, 7.03, 10.07), (PROPORTIONAL, 7.23, 6.61, 6.61)],
)
def test_speed_rows_have_their_published_gains(power: Power, optimum: float, full: float, best_static: float) -> None:
    config = row(SPEED, 5, 0, power, speeds=(0.6, 0.8, 1.0))
    line, plate = process(config, 60.0), line_nameplate(config)
    static = {s: line.worth_of(rule_of(OneSpeed(plate, s), config)).gain for s in config.speeds}
    assert [line.best().gain, static[1.0], max(static.values())] == pytest.approx(
        [optimum, full, best_static], abs=5e-3
    )


def test_always_on_is_the_uncontrolled_chain() -> None:
    config = row((0.8, 0.7, 0.9, 0.75), 2, 2)
    line = process(config, 100.0)
    worth = line.worth_of(rule_of(AlwaysOn(line_nameplate(config)), config))
    chain = solve_line([ExactMachine(p) for p in (0.8, 0.7, 0.9, 0.75)], [2, 2, 2], looks_through=True)
    assert worth.production == pytest.approx(chain.production, abs=1e-10)
    assert worth.power_kw == pytest.approx(4 * 9.0 + 6.0 * 4 * chain.production, abs=1e-9)


def test_no_stationary_policy_beats_the_optimum() -> None:
    line = process(row((0.9, 0.5), 1, 1), 30.0)
    best, rng = line.best(), np.random.default_rng(0)
    drawn = [rng.integers(0, 4, line.n_states) for _ in range(300)]
    one_off = [np.where(np.arange(line.n_states) == s, k, best.choice) for s in range(line.n_states) for k in range(4)]
    gains = [line.worth(choice).gain for choice in drawn + one_off]
    assert max(gains) == pytest.approx(best.gain, abs=1e-7)  # the optimum is one of the last


def test_a_discount_costs_one_line_more_than_another() -> None:
    """What a learner with a discount can earn at most; configs/production_line/train_*.yaml rest on it."""
    counts: dict[str, Any] = {"energy_weight": 60.0, "parts_count": "slowest"}
    close = LineConfig(
        line=FixedLine(machines=tuple(machine(p) for p in (0.88, 0.5, 0.71)), capacities=(10, 10)), modes=("off", "on")
    )
    for config, value, at_98, at_99 in ((row(DEEP, 10, 2), 400.0, 0.9984, 1.0), (close, 200.0, 0.988, 0.997)):
        line = ControlledLine.of(config, part_value=value, **counts)
        best = line.best(1e-6).gain
        assert best == pytest.approx(process(config, value).best(1e-6).gain, abs=1e-5)
        shares = [line.best_discounted(discount).gain / best for discount in (0.98, 0.99)]
        assert shares == pytest.approx([at_98, at_99], abs=1e-3)
        assert line.best_discounted(0.999).gain == pytest.approx(best, rel=1e-4)


def test_a_discount_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a discount of 1"):
        process(row(SHALLOW, 2, 1), 120.0).best_discounted(1.0)


@pytest.mark.parametrize("modes", [("off", "on"), ("off", "standby", "on")])
def test_the_twin_earns_with_the_optimal_policy_what_the_process_says(modes: tuple[str, ...]) -> None:
    config = row(DEEP, 4, 2, modes=modes, speeds=(0.7, 1.0))
    line = process(config, 400.0)
    best = line.best()
    earned = earn(
        config, ExactPolicy(line_nameplate(config), line, best),
        {"part_value": 400.0, "energy_weight": 60.0}, range(400), periods=300, warm_up=60,
    )  # fmt: skip
    for found, exact in (
        (earned.profit, best.gain), (earned.expected_profit, best.gain), (earned.parts, best.production),
        (earned.power_kw, best.power_kw),
    ):  # fmt: skip
        assert abs(found.mean() - exact) < 3.0 * found.std(ddof=1) / np.sqrt(len(found))


def test_a_policy_that_ends_in_several_classes_is_weighed_by_how_it_gets_there() -> None:
    chain = sparse.csr_matrix([[0.5, 0.3, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    assert long_run(chain, 0) == pytest.approx([0.0, 0.6, 0.2, 0.2])
    assert long_run(chain, 2) == pytest.approx([0.0, 0.0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (LineConfig(line=RandomLine()), "fixed"),
        (LineConfig(line=FixedLine(machines=(Machine(model=GeometricMachine()),), capacities=())), "bernoulli"),
        (row(DEEP, 4, 1, tariff=Tariff(prices_per_kwh=(1.0, 2.0))), "prices"),
        (row(DEEP, 4, 1, slots_per_period=2), "slots_per_period 2"),
        (row((0.9,) * 8, 9, 3), "transitions"),
    ],
)
def test_lines_that_it_does_not_know_are_refused_with_the_reason(config: LineConfig, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        process(config, 1.0)
