"""What machines that share crews earn: failures that happened, and failures that were to be expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.controllers.line_maintenance import AgeReplacement
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import HIDDEN, MACHINE
from twinloop.envs.registry import load_site

SITE: Any = load_site("production_line")
SHAPE, SCALE, REPAIR_COST, REPAIR_SLOTS = 2.5, 20.0, 6.0, 5
PRICE = REPAIR_COST + REPAIR_SLOTS  # a part is worth 1


def fleet(wear: dict[str, Any] | None = None, **more: Any) -> LineConfig:
    upkeep = {
        "wear": wear or {"kind": "weibull", "shape": SHAPE, "scale_slots": SCALE}, "preventive_slots": 2,
        "corrective_slots": REPAIR_SLOTS, "preventive_cost": 2.0, "corrective_cost": REPAIR_COST,
    }  # fmt: skip
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "upkeep": upkeep}
    line = {"kind": "fixed", "parallel": True, "machines": [machine] * 3, "capacities": []}
    return LineConfig.model_validate({"line": line, "modes": ["on"], "slots_per_period": 3, **more})


def rewards(config: LineConfig, age: float, n_periods: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Counted, and expected, of the fleet's mean; ``[T, B]`` each."""
    tasks = [SITE.task("fleet_profit", config, {"failures": kind}) for kind in ("counted", "expected")]
    twin = SITE.twin(config, 128, "cpu", torch.float64)
    policy, readings = AgeReplacement(twin.nameplate, age), twin.reset(torch.arange(128) + 17)
    found: list[list[torch.Tensor]] = [[], []]
    for _ in range(n_periods):
        commands, _ = policy.act(readings.observation(config.dt_s), {})
        after = twin.step({name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in commands.items()})
        for rows, task in zip(found, tasks, strict=True):
            rows.append(task.score(readings, {}, after).reward[MACHINE][:, 0])
        readings = after
    counted, expected = (torch.stack(rows).numpy() for rows in found)
    return counted, expected


def test_what_is_expected_of_failures_is_on_average_what_is_counted() -> None:
    counted, expected = rewards(fleet(), 12.0, 400)
    difference = (expected - counted).mean(0)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 3.0 * error
    assert error < 0.02 * abs(counted.mean() - 3.0)  # of all that is lost: a wrong chance would be seen


def test_a_slot_of_work_is_charged_with_the_chance_of_its_age() -> None:
    """New machines that nobody services: in period k the chances of ages 3 k to 3 k + 2."""
    config = fleet()
    counted, expected = rewards(config, np.inf, 1)
    alive = np.exp(-((np.arange(4) / SCALE) ** SHAPE))
    chance = (1.0 - alive[1:] / alive[:-1]).sum()
    twin = SITE.twin(config, 128, "cpu", torch.float64)
    before = twin.reset(torch.arange(128) + 17)
    plain = {g.name: torch.tensor(g.neutral()).expand(128, g.n_assets, -1) for g in twin.nameplate.groups}
    failed = twin.step(plain).hidden[MACHINE][..., [s.name for s in HIDDEN].index("failures")].sum(1).numpy()
    assert before.hidden[MACHINE].sum() == 0
    whole = failed == 0
    assert 0 < whole.sum() < 128
    assert (expected - counted)[0, whole] == pytest.approx(-PRICE * chance, rel=1e-12)


@pytest.mark.parametrize(
    "wear", [{"kind": "gamma", "shape_per_slot": 0.5, "failure_level": 10.0}, {"kind": "staged", "advance_pu": [0.1]}]
)
def test_failures_that_age_alone_does_not_foretell_are_not_expected(wear: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="weibull"):
        SITE.task("fleet_profit", fleet(wear), {"failures": "expected"})
