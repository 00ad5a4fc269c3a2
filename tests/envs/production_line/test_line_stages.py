"""Damage in stages: its life, what inspections show, and the belief, against brute-force filtering and counting."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from twinloop.agents.controllers.line_maintenance import BeliefThreshold
from twinloop.envs.errors import ContractError
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import HIDDEN, MACHINE
from twinloop.envs.registry import load_site

SITE: Any = load_site("production_line")
ADVANCE = (0.05, 0.08, 0.1)
SEES = ((0.8, 0.2, 0.0), (0.1, 0.7, 0.2), (0.0, 0.3, 0.7))
HIDDEN_AT = {s.name: k for k, s in enumerate(HIDDEN)}


def line(announces: bool = True, **upkeep: Any) -> LineConfig:
    wear = {"kind": "staged", "advance_pu": ADVANCE, "sees": SEES, "announces": announces}
    wear |= {} if announces else {"unnoticed_cost": 2.0}
    given = {"wear": wear, "preventive_slots": 2, "corrective_slots": 4, **upkeep}
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "upkeep": given}
    return LineConfig.model_validate(
        {"line": {"kind": "fixed", "parallel": True, "machines": [machine], "capacities": []}, "modes": ["on"]}
    )


def told(twin: Any, readings: Any, name: str) -> Any:
    group = twin.nameplate.group(MACHINE)
    return readings.measured[MACHINE][:, 0, group.index("measured", name)].numpy()


def beliefs(twin: Any, readings: Any) -> Any:
    return np.stack([told(twin, readings, f"belief_{k}_pu") for k in range(4)], -1)


def step(twin: Any, service: Any) -> Any:
    commands = {g.name: torch.from_numpy(np.tile(g.neutral(), (twin.n_replicas, g.n_assets, 1))) for g in
                twin.nameplate.groups}  # fmt: skip
    commands[MACHINE][:, 0, 2] = torch.as_tensor(service, dtype=torch.float64)
    return twin.step(commands)


def moved(belief: Any, announces: bool) -> Any:
    advance = np.array([*ADVANCE, 0.0])
    chain = np.diag(1.0 - advance) + np.diag(advance[:-1], 1)
    after = belief @ chain
    if announces:
        after[3] = 0.0
    return after / after.sum()


@pytest.mark.parametrize("announces", [True, False])
def test_the_belief_is_the_forward_filter_of_what_is_known(announces: bool) -> None:
    twin = SITE.twin(line(announces), 40, "cpu", torch.float64)
    readings, rng = twin.reset(torch.arange(40)), np.random.default_rng(0)
    expected = np.tile([1.0, 0.0, 0.0, 0.0], (40, 1))
    sees = np.eye(4)
    sees[:3, :3] = SEES
    compared = 0
    for _ in range(60):
        service = np.where(rng.random(40) < 0.2, 2.0, 0.0)
        before = readings
        readings = step(twin, service)
        fresh = told(twin, readings, "age_slots") < told(twin, before, "age_slots")
        state = told(twin, before, "state").round()
        for row in range(40):
            if fresh[row]:
                expected[row] = [1.0, 0.0, 0.0, 0.0]
            elif service[row] == 2.0 and state[row] not in (3, 7):
                seen = round(float(told(twin, readings, "seen_wear_pu")[row]) * 3)
                weighed = expected[row] * sees[:, seen]
                expected[row] = weighed / weighed.sum()
            worked = readings.measured[MACHINE][row, 0, 3].item() > 0.5
            if worked:
                expected[row] = moved(expected[row], announces)
        works = np.isin(told(twin, readings, "state").round(), (0,))
        np.testing.assert_allclose(beliefs(twin, readings)[works], expected[works], atol=1e-12)
        compared += int(works.sum())
    assert compared > 1000


def test_what_is_believed_happens_as_often_as_it_is_believed() -> None:
    twin = SITE.twin(line(), 4000, "cpu", torch.float64)
    readings, rng = twin.reset(torch.arange(4000)), np.random.default_rng(1)
    for _ in range(15):
        readings = step(twin, np.where(rng.random(4000) < 0.3, 2.0, 0.0))
    works = told(twin, readings, "state").round() == 0
    stage = readings.hidden[MACHINE][:, 0, HIDDEN_AT["wear"]].numpy()[works]
    believed = beliefs(twin, readings)[works]
    for k in range(3):
        happened, chance = (stage == k), believed[:, k]
        error = np.sqrt((chance * (1.0 - chance)).sum())
        assert abs(happened.sum() - chance.sum()) < 3.5 * error
        likely = chance > 0.6
        spread = np.sqrt((chance * (1.0 - chance))[likely].sum())
        assert abs(happened[likely].sum() - chance[likely].sum()) < 3.5 * spread


def test_lives_last_as_long_as_the_stages_do_and_end_at_once_or_at_an_inspection() -> None:
    config = line()
    life = config.line.machines[0].upkeep.wear.mean_life_slots  # type: ignore[union-attr]
    assert life == pytest.approx(sum(1.0 / p for p in ADVANCE))
    twin = SITE.twin(config, 1000, "cpu", torch.float64)
    readings, worked = twin.reset(torch.arange(1000)), 0.0
    for _ in range(300):
        readings = step(twin, np.zeros(1000))
        worked += float(readings.measured[MACHINE][..., 3].sum())
    failures = float(readings.hidden[MACHINE][..., HIDDEN_AT["failures"]].sum())
    assert worked / failures == pytest.approx(life, rel=0.12)  # unfinished lives lengthen it


def test_a_failure_that_does_not_announce_itself_is_paid_for_until_it_is_found() -> None:
    twin = SITE.twin(line(False), 500, "cpu", torch.float64)
    readings = twin.reset(torch.arange(500))
    for _ in range(150):
        readings = step(twin, np.zeros(500))
    failed = readings.hidden[MACHINE][:, 0, HIDDEN_AT["failures"]].numpy() > 0.5
    assert failed.mean() > 0.9
    assert (told(twin, readings, "state").round() == 0).all()  # nobody has noticed
    assert (readings.hidden[MACHINE][:, 0, HIDDEN_AT["service_cost"]].numpy()[failed] >= 0.0).all()
    paid = readings.hidden[MACHINE][:, 0, HIDDEN_AT["service_cost"]].numpy()
    readings = step(twin, np.zeros(500))
    more = readings.hidden[MACHINE][:, 0, HIDDEN_AT["service_cost"]].numpy() - paid
    assert (more[failed] == 2.0).all()
    step(twin, np.full(500, 2.0))  # an inspection in no time finds it, and calls a crew
    readings = step(twin, np.zeros(500))
    assert np.isin(told(twin, readings, "state").round()[failed], (3, 7)).all()


def test_a_limit_on_the_belief_services_before_most_failures() -> None:
    rates = []
    for risk in (0.5, 1.0):
        twin = SITE.twin(line(), 150, "cpu", torch.float64)
        policy = BeliefThreshold(twin.nameplate, 10.0, 2, risk)
        readings = twin.reset(torch.arange(150))
        for _ in range(120):
            commands, _ = policy.act(readings.observation(60.0), {})
            readings = step(twin, commands[MACHINE][:, 0, 2])
        rates.append(float(readings.hidden[MACHINE][..., HIDDEN_AT["failures"]].sum()))
    assert rates[0] < 0.6 * rates[1]


def test_stages_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match="rows of 3 chances"):
        line(wear={"kind": "staged", "advance_pu": ADVANCE, "sees": ((1.0,),)})
    with pytest.raises(ValidationError, match="unnoticed_cost"):
        line(wear={"kind": "staged", "advance_pu": ADVANCE, "unnoticed_cost": 1.0})
    weibull = line(wear={"kind": "weibull"})
    with pytest.raises(ContractError, match="damage in stages"):
        BeliefThreshold(SITE.nameplate(weibull), 10.0, 1, 0.5)
