"""Explorations whose answers are known: the exact chain by brute force, and a row of turbines that can step aside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from twinloop.envs.production_line.exact_line import ExactMachine, solve_line
from twinloop.training.exploration.configuration import ExploreConfiguration
from twinloop.training.exploration.evaluation import Evaluator
from twinloop.training.exploration.exploration import Found, explore

EFFICIENCIES = (0.9, 0.7, 0.8)
TOTAL = 8
LINE: dict[str, Any] = {
    "site": {
        "kind": "production_line",
        "line": {
            "kind": "fixed",
            "machines": [{"model": {"kind": "bernoulli", "efficiency_pu": p}} for p in EFFICIENCIES],
            "capacities": [4, 4],
        },
        "slots_per_period": 100,
    },
    "ranges": {"buffer1_capacity": {"randint": [1, 7]}, "buffer2_capacity": {"randint": [1, 7]}},
    "limits": [{"sum": {"buffer1_capacity": 1, "buffer2_capacity": 1}, "at_least": TOTAL, "at_most": TOTAL}],
    "objectives": {"throughput": {"kind": "signal", "signal": "machine/M3/parts", "scale": 0.01}},
    "rounds": [
        {"periods": 4, "warm_up_periods": 1, "seeds": 24, "keep": 4},
        {"periods": 9, "warm_up_periods": 2, "seeds": 256},
    ],
}


def found_by(data: dict[str, Any]) -> Found:
    config = ExploreConfiguration.model_validate(data)
    return explore(config, Evaluator(config), lambda stage, done, of: None)


def exact(first: int, second: int) -> float:
    machines = [ExactMachine(p) for p in EFFICIENCIES]
    return solve_line(machines, [first, second], looks_through=True).production


@pytest.mark.parametrize(
    "search",
    [
        {"kind": "sobol", "prototypes": 64},
        {"kind": "random", "prototypes": 64},
        {"kind": "cma", "instances": 4, "population": 8, "generations": 6},
        {"kind": "optuna", "sampler": "tpe", "population": 20, "generations": 5},
        {"kind": "optuna", "sampler": "nsga2", "population": 20, "generations": 5},
    ],
)
def test_the_best_split_of_a_fixed_total_is_the_exact_chains(search: dict[str, Any]) -> None:
    found = found_by(LINE | {"search": search})
    brute_force = {split: exact(split, TOTAL - split) for split in range(1, TOTAL)}
    best = max(brute_force, key=lambda split: brute_force[split])
    first = found.candidates[0]
    assert first.values == {"buffer1_capacity": float(best), "buffer2_capacity": float(TOTAL - best)}
    assert first.on_front
    half = (first.figures[0].high - first.figures[0].low) / 2.0
    assert abs(first.figures[0].estimate - brute_force[best]) < 1.5 * half  # some 3 standard errors
    gain = first.gain[0]
    assert abs(gain.estimate - (brute_force[best] - exact(4, 4))) < 1.5 * (gain.high - gain.low) / 2.0
    assert gain.high - gain.low < 0.3 * (first.figures[0].high - first.figures[0].low)  # the same seeds for all


def test_the_front_over_money_has_the_best_split_of_every_total() -> None:
    buffers = {"buffer1_capacity": 1.0, "buffer2_capacity": 1.0}
    throughput = LINE["objectives"]["throughput"]
    found = found_by(
        LINE
        | {
            "limits": [{"sum": buffers, "at_most": 6}],
            "objectives": {"throughput": throughput, "money": {"kind": "price", "of": buffers}},
            "search": {"kind": "sobol", "prototypes": 64},
            "rounds": [{"periods": 9, "warm_up_periods": 2, "seeds": 384}],
        }
    )
    assert len(found.values) == 15  # all pairs with a sum of at most 6, each once
    best = {t: max((exact(k, t - k), k) for k in range(1, t))[1] for t in range(2, 7)}
    front = {int(c.figures[1].estimate): c.values["buffer1_capacity"] for c in found.candidates if c.on_front}
    assert front == {t: float(k) for t, k in best.items()}
    assert np.isfinite(found.figures).all()


def test_the_slowest_machine_goes_where_the_exact_chain_puts_it() -> None:
    found = found_by(
        LINE
        | {
            "ranges": {"M2_place": {"choice": [0.0, 1.0, 3.0]}, "M1_place": {"choice": [0.5]}},
            "limits": [],
            "search": {"kind": "sobol", "prototypes": 3},
        }
    )
    orders = {0.0: (0.7, 0.9, 0.8), 1.0: (0.9, 0.7, 0.8), 3.0: (0.9, 0.8, 0.7)}
    known = {
        place: solve_line([ExactMachine(p) for p in order], [4, 4], looks_through=True).production
        for place, order in orders.items()
    }
    assert found.candidates[0].values["M2_place"] == max(known, key=lambda place: known[place])
    for candidate in found.candidates:
        figure = candidate.figures[0]
        assert abs(figure.estimate - known[candidate.values["M2_place"]]) < 0.75 * (figure.high - figure.low)


def test_turbines_in_a_row_step_out_of_each_others_wakes() -> None:
    places = {name: {"uniform": [-400.0, 400.0]} for name in ("WT01_y_m", "WT02_y_m")}
    found = found_by({
        "site": {
            "kind": "wind_farm",
            "layout": {"kind": "coordinates", "x_m": [0.0, 630.0], "y_m": [0.0, 0.0]},
            "inflow": {"wind_direction_deg": [265.0, 275.0]},
        },
        "ranges": places,
        "objectives": {"power": {"kind": "signal", "signal": "turbine/power_kw", "scale": 0.001, "unit": "MW"}},
        "search": {"kind": "cma", "instances": 2, "population": 12, "generations": 6},
        "rounds": [{"periods": 1, "seeds": 4, "keep": 8}, {"periods": 1, "seeds": 32}],
    })  # fmt: skip
    best = found.candidates[0]
    apart_m = abs(best.values["WT01_y_m"] - best.values["WT02_y_m"])
    assert apart_m > 300.0
    assert best.gain[0].low > 0.2 * found.today[0].estimate  # the second turbine stood in the first one's wake
