"""Parts of an exploration: spaces, fronts, rows whose figures do not depend on who runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from twinloop.envs.errors import ConfigurationError, RunError
from twinloop.training.exploration.configuration import ExploreConfiguration, Limit
from twinloop.training.exploration.evaluation import Evaluator
from twinloop.training.exploration.exploration import explore
from twinloop.training.exploration.pareto import best, front
from twinloop.training.exploration.space import DesignSpace
from twinloop.training.exploration.workforce import Workforce
from twinloop.training.tune_space import Space

DOMAINS = {
    "a": {"uniform": [-2.0, 3.0]},
    "b": {"uniform": [0.1, 0.9], "step": 0.1},
    "c": {"loguniform": [1.0, 1000.0]},
    "d": {"randint": [2, 9], "step": 3},
    "e": {"choice": [0.6, 0.8, 1.0]},
}
LINE: dict[str, Any] = {
    "site": {
        "kind": "production_line",
        "line": {
            "kind": "fixed",
            "machines": [{"model": {"kind": "bernoulli", "efficiency_pu": p}} for p in (0.9, 0.7, 0.8)],
            "capacities": [3, 3],
        },
        "speeds": [0.6, 1.0],
        "slots_per_period": 20,
    },
    "ranges": {"buffer1_capacity": {"randint": [1, 9]}, "machine/M1/speed_pu": {"choice": [0.6, 1.0]}},
    "objectives": {
        "throughput": {"kind": "signal", "signal": "machine/M3/parts"},
        "money": {"kind": "price", "of": {"buffer1_capacity": 2.0}, "constant": 1.0},
    },
    "rounds": [{"periods": 4, "seeds": 2}],
}


def configured(**changes: Any) -> ExploreConfiguration:
    return ExploreConfiguration.model_validate(LINE | changes)


def silent(stage: str, done: int, of: int) -> None:
    """Says nothing."""


@given(shares=arrays(np.float64, (7, len(DOMAINS)), elements=st.floats(0.0, 1.0, exclude_max=True)))
def test_values_are_those_that_tune_has_one_by_one(shares: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    domains = Space.of(DOMAINS, "ranges").domains
    values = DesignSpace(tuple(domains), tuple(domains.values())).values(shares)
    want = [[float(d.at(s)) for d, s in zip(domains.values(), row, strict=True)] for row in shares]
    np.testing.assert_allclose(values, want, rtol=1e-12, atol=1e-12)


def test_limits_are_broken_by_their_share_and_not_by_rounding() -> None:
    domains = Space.of({"a": DOMAINS["a"], "e": DOMAINS["e"]}, "ranges").domains
    limits = (Limit(sum={"a": 1.0, "e": 2.0}, at_most=2.0), Limit(sum={"a": 1.0}, at_least=-1.0))
    space = DesignSpace(tuple(domains), tuple(domains.values()), limits)
    excess = space.excess(np.array([[0.4, 0.8], [0.4 + 1e-12, 0.8], [2.0, 1.0], [-2.0, 1.0]]))
    np.testing.assert_allclose(excess, [0.0, 0.0, 1.0, 1.0])


@given(
    losses=arrays(
        np.float64,
        st.tuples(st.integers(1, 25), st.integers(1, 3)),
        elements=st.one_of(st.integers(0, 4).map(float), st.just(np.inf)),
    )
)
def test_the_front_is_who_nobody_beats(losses: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    usable = np.isfinite(losses).all(1)

    def beaten(k: int) -> bool:
        others = losses[usable]
        return bool(((others <= losses[k]).all(1) & (others < losses[k]).any(1)).any())

    want = [bool(usable[k]) and not beaten(k) for k in range(len(losses))]
    assert front(losses).tolist() == want
    chosen = best(losses, 5)
    assert len(set(chosen.tolist())) == len(chosen) == min(5, int(usable.sum()))
    assert not any(want[k] for k in range(len(losses)) if k not in chosen) or all(want[k] for k in chosen)


def test_figures_do_not_depend_on_the_width_of_the_batch_or_on_who_runs_them() -> None:
    values = np.array([[1.0, 1.0], [4.0, 0.6], [9.0, 1.0], [2.0, 0.6], [7.0, 1.0]])
    found = []
    for changes in ({}, {"replicas": 3}, {"workers": 2, "replicas": 2}):
        config = configured(**changes)
        with Workforce(config, Evaluator(config)) as workforce:
            found.append(workforce.run(values, (3, 4), 4, 1, lambda done, of: None))
            assert workforce.cpu_s > 0.0
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0].shape == (5, 2, 2)
    assert found[0][:, :, 1].tolist() == [[1.0 + 2.0 * v] * 2 for v in values[:, 0]]
    assert (found[0][1, :, 0] < found[0][2, :, 0]).all()  # the first machine at 60 %


def test_a_ratio_is_that_of_the_means_and_energy_a_part_is_a_tasks_cost_over_parts() -> None:
    config = configured(
        task={"name": "line_profit"},
        objectives={
            "per_part": {"kind": "signal", "signal": "machine/power_kw", "per": "machine/M3/parts", "scale": 1 / 3},
            "energy": {"kind": "cost", "name": "energy_kwh"},
            "parts": {"kind": "signal", "signal": "machine/finished"},
            "profit": {"kind": "reward", "scale": 2.0},
        },
    )
    figures = Evaluator(config).run(_rows(config)).of
    per_part, energy, parts, profit = figures.T
    np.testing.assert_allclose(per_part, energy / parts, rtol=1e-6)  # kW over 20 minutes is a third of a kWh
    np.testing.assert_allclose(profit, 2.0 * (parts - energy), rtol=1e-5)  # a kWh costs 1, a part brings 1


def _rows(config: ExploreConfiguration) -> Any:
    from twinloop.training.exploration.evaluation import Rows

    return Rows(np.array([[3.0, 1.0], [8.0, 1.0]]), np.array([5, 5]), config.rounds[0].periods, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": {"buffer9_capacity": {"randint": [1, 2]}}, "objectives": LINE["objectives"] | {"money": LINE[
            "objectives"]["throughput"]}}, "buffer9_capacity: no parameter of site 'production_line'"),
        ({"ranges": LINE["ranges"] | {"M1_efficiency_pu": {"uniform": [0.5, 2.0]}}}, r"M1_efficiency_pu: \[0.5, 2\]"),
        ({"ranges": LINE["ranges"] | {"machine/M7/speed_pu": {"choice": [1.0]}}}, "has no asset 'M7'"),
        ({"commands": {"machine/sped_pu": 1.0}}, "has no commanded signal 'sped_pu'"),
        ({"objectives": LINE["objectives"] | {"x": {"kind": "signal", "signal": "machine/prts"}}},
         "no measured or hidden signal 'prts'"),
    ],
)  # fmt: skip
def test_what_the_site_lacks_is_named_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Evaluator(configured(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": [{"periods": 4, "keep": 3}]}, "leave keep out"),
        ({"rounds": [{"periods": 4}, {"periods": 9}]}, r"rounds\[0\]: say how many go on"),
        ({"objectives": {"r": {"kind": "reward"}}}, "needs a task"),
        ({"task": {"name": "line_profit"}}, "no objective is of kind reward or cost"),
        ({"ray_address": "auto"}, "needs workers above 0"),
        ({"limits": [{"sum": {"buffer1_capacity": 1}}]}, "give at_least, at_most or both"),
        ({"limits": [{"sum": {"buffer7_capacity": 1}, "at_most": 3}]}, "'buffer7_capacity' is not in ranges"),
        ({"ranges": {"buffer1_capacity": {"choice": ["big"]}}}, "parameters and commands are numbers"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(**changes)


def test_a_space_in_which_nothing_can_be_built_says_so() -> None:
    limit = {"sum": {"buffer1_capacity": 1}, "at_least": 50}
    config = configured(limits=[limit], search={"kind": "random", "prototypes": 8})
    with pytest.raises(RunError, match="could be built; widen the ranges or loosen the limits"):
        explore(config, Evaluator(config), silent)
