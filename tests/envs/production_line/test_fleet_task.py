"""What machines that share crews earn, and what the price of a service is written off over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.controllers.line_maintenance import AgeReplacement
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line import renewal
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import MACHINE, MEASURED
from twinloop.envs.registry import load_site

SITE: Any = load_site("production_line")
SHAPE, SCALE = 2.5, 20.0
SERVICE = 2.0 + 2  # its price, and two parts that are worth 1
_AGE, _STATE = ([s.name for s in MEASURED].index(name) for name in ("age_slots", "state"))


def fleet(**line: Any) -> LineConfig:
    upkeep = {
        "wear": {"kind": "weibull", "shape": SHAPE, "scale_slots": SCALE}, "preventive_slots": 2,
        "corrective_slots": 5, "preventive_cost": 2.0, "corrective_cost": 6.0,
    }  # fmt: skip
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "upkeep": upkeep}
    line = {"kind": "fixed", "parallel": True, "machines": [machine] * 3, "capacities": []} | line
    return LineConfig.model_validate({"line": line, "modes": ["on"], "slots_per_period": 3})


def written_off(readings: Any, age: float) -> np.ndarray[Any, Any]:
    """By the fleet, a machine, ``[B]``."""
    measured = readings.measured[MACHINE].numpy()
    share = np.where(measured[..., _STATE] == 7, 0.0, np.minimum(measured[..., _AGE] / age, 1.0))
    return np.asarray(share.mean(1))


@pytest.mark.parametrize("age", [8.0, np.inf])
def test_what_is_written_off_telescopes(age: float) -> None:
    """Over any time the two rewards differ by what machines are worth at its ends, and by nothing in the long run."""
    config = fleet()
    plain, shaped = (SITE.task("fleet_profit", config, {"write_off": told}) for told in (False, True))
    twin = SITE.twin(config, 16, "cpu", torch.float64)
    policy, readings = AgeReplacement(twin.nameplate, age), twin.reset(torch.arange(16) + 17)
    survival, prices = renewal.weibull_survival(SHAPE, SCALE), renewal.Prices(SERVICE, 11.0, 2.0, 5.0)
    best, _ = renewal.best_age(survival, prices)
    difference, largest = np.zeros(16), 0.0
    for _ in range(60):
        commands, _ = policy.act(readings.observation(config.dt_s), {})
        after = twin.step({name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in commands.items()})
        one, other = (task.score(readings, {}, after).reward[MACHINE][:, 0].numpy() for task in (plain, shaped))
        difference, largest = difference + other - one, max(largest, float(np.abs(other - one).max()))
        readings = after
        assert difference == pytest.approx(-SERVICE * written_off(readings, best), abs=1e-9)
    assert largest > 0.5  # of a service that is not charged where it was due


def test_a_memoryless_machine_writes_nothing_off() -> None:
    upkeep = {"wear": {"kind": "weibull", "shape": 1.0, "scale_slots": 20.0}}
    config = fleet(machines=[{"upkeep": upkeep}])
    twin = SITE.twin(config, 4, "cpu", torch.float64)
    before = twin.reset(torch.arange(4))
    after = twin.step({g.name: torch.tensor(g.neutral()).expand(4, g.n_assets, -1) for g in twin.nameplate.groups})
    scores = [SITE.task("fleet_profit", config, {"write_off": told}).score(before, {}, after) for told in (False, True)]
    assert torch.equal(scores[0].reward[MACHINE], scores[1].reward[MACHINE])


def test_machines_that_change_from_episode_to_episode_have_no_best_age_to_write_off_over() -> None:
    config = LineConfig.model_validate(
        {"line": {"kind": "random", "machine": {"upkeep": {"wear": {"kind": "weibull"}}}}}
    )
    with pytest.raises(ConfigurationError, match="write_off"):
        SITE.task("fleet_profit", config, {"write_off": True})
