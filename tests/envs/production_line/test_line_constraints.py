"""What a line declares as safe, what its encoders mask, and a fleet behind the shield."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from twinloop.deploy.shield import Shield
from twinloop.envs.conformance import check_encoder
from twinloop.envs.constraint import declaration_of_site
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import CREW, MACHINE
from twinloop.envs.registry import load_site
from twinloop.training.shielded_twin import ShieldedTwin

SITE: Any = load_site("production_line")
WEIBULL = {"kind": "weibull", "shape": 2.5, "scale_slots": 30.0}


def fleet(n: int = 4, crews: int = 1, limits: dict[str, Any] | None = None, **more: Any) -> LineConfig:
    upkeep = {"wear": WEIBULL, "preventive_slots": 2, "corrective_slots": 5}
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "warm_up_slots": 2, "upkeep": upkeep}
    line = {"kind": "fixed", "parallel": True, "machines": [machine] * n, "capacities": []}
    return LineConfig.model_validate({"line": line, "service": {"crews": crews}, "limits": limits or {}, **more})


def wild(twin: Any, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    commands = {}
    for group in twin.nameplate.groups:
        columns = [rng.choice(s.levels, (twin.n_replicas, group.n_assets)) for s in group.commanded]
        commands[group.name] = torch.from_numpy(np.stack(columns, -1)).to(twin.dtype)
    return commands


def test_a_line_without_limits_declares_nothing_of_its_own() -> None:
    assert SITE.constraints(fleet()) == ()
    assert dict(SITE.safe_states(fleet())) == {}


def test_the_declared_limits_hang_together() -> None:
    one = fleet(limits={"on_slots": 3, "rest_slots": 2, "starts_per_hour": 4, "calls": 1})
    other = fleet(limits={"rest_slots": 2, "calls": 2, "lock_out": True})
    kinds = [[c.kind for c in declaration_of_site(SITE, config).constraints] for config in (one, other)]
    assert kinds[0].count("dwell") == 3
    assert {"switches", "sum"} <= set(kinds[0])
    assert kinds[1].count("dwell") == 1
    assert "barrier" in kinds[1]


@pytest.mark.parametrize(
    ("limits", "more", "what"),
    [
        ({"lock_out": True, "on_slots": 2}, {}, "lock_out"),
        ({"lock_out": True}, {"modes": ["on"]}, "modes has no off"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: Any, more: Any, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        fleet(limits=limits, **more)


def test_behind_the_shield_a_machine_in_service_is_off_and_calls_stay_within_their_limit() -> None:
    config = fleet(6, 2, {"calls": 2, "lock_out": True, "rest_slots": 2})
    twin = ShieldedTwin(SITE.twin(config, 3, "cpu", torch.float64), Shield(declaration_of_site(SITE, config)))
    readings = twin.reset(torch.arange(3))
    rng = np.random.default_rng(0)
    served = 0
    for _ in range(60):
        in_service = readings.measured[MACHINE][..., 0].round() == 7
        readings = twin.step(wild(twin, rng))
        sent = twin.last().sent[MACHINE]
        assert not (in_service & (sent[..., 0] > 0.5)).any()
        assert float(sent[..., 2].sum(-1).max()) <= 2.0
        served += int(in_service.sum())
    assert served > 20


def test_no_more_machines_are_in_service_than_there_are_crews_whatever_is_commanded() -> None:
    config = fleet(8, 2)
    twin = SITE.twin(config, 64, "cpu", torch.float64)
    readings, rng = twin.reset(torch.arange(64)), np.random.default_rng(1)
    most = 0
    for _ in range(200):
        readings = twin.step(wild(twin, rng))
        most = max(most, int((readings.measured[MACHINE][..., 0].round() == 7).sum(-1).max()))
    assert most == 2


def test_as_many_machines_may_call_as_crews_are_free_and_those_likeliest_to_fail() -> None:
    config = fleet(5, 2, modes=["on"])
    twin = SITE.twin(config, 16, "cpu", torch.float64)
    encoder = SITE.encoder("fleet", twin.nameplate, {})
    readings, rng = twin.reset(torch.arange(16)), np.random.default_rng(2)
    column = 1 + 1 + 1  # one mode, one speed, then no service; the next is preventive
    calls = 0
    for _ in range(120):
        seen = [part[MACHINE] for part in (readings.measured, readings.statics, readings.present)]
        legal = encoder.legal(*seen)
        as_numpy = encoder.legal(*(part.numpy() for part in seen))
        assert (legal.numpy() == as_numpy).all()
        may = legal[..., column]
        age, state = seen[0][..., 9], seen[0][..., 0].round()
        free = seen[0][..., 14]
        assert (may.sum(-1) <= free[:, 0]).all()
        assert not (may & ((state == 7) | (state == 3))).any()
        assert not legal[..., column + 1].any()  # a Weibull life has nothing to inspect
        works = (state != 7) & (state != 3)
        oldest = torch.where(works, age, -1.0).max(-1, keepdim=True).values
        alone = may & (may.sum(-1, keepdim=True) == 1)
        assert (age[alone] == oldest.expand_as(age)[alone]).all()
        calls += int(may.sum())
        commands = wild(twin, rng)
        commands[MACHINE][..., 2] = torch.where(may, commands[MACHINE][..., 2].clamp(max=1.0), 0.0)
        readings = twin.step(commands)
    assert calls > 100


def test_in_a_window_of_ages_service_is_forbidden_then_free_then_the_only_choice() -> None:
    plate = SITE.nameplate(fleet(4, 1, modes=["on"]))
    group = plate.group(MACHINE)
    encoder = SITE.encoder("fleet", plate, {"window_pu": [0.4, 0.8]})
    life = group.static_values[0][group.index("statics", "mean_life_slots")]
    measured = torch.zeros(4, 4, len(group.measured), dtype=torch.float64)
    measured[..., group.index("measured", "crews_free")] = 1.0
    ages = [[0.1, 0.2, 0.3, 0.39], [0.1, 0.5, 0.41, 0.0], [0.5, 0.81, 0.7, 0.0], [0.81, 0.9, 0.0, 0.0]]
    measured[..., group.index("measured", "age_slots")] = torch.tensor(ages, dtype=torch.float64) * life
    measured[3, 2, group.index("measured", "state")] = 3.0
    measured[3, :, group.index("measured", "calls")] = 1.0  # a failed machine waits: the crew is its own
    measured[3, 2, group.index("measured", "waits_for_crew")] = 1.0
    statics = torch.tensor(group.static_values, dtype=torch.float64).expand(4, -1, -1)
    legal = encoder.legal(measured, statics, torch.ones(4, 4, dtype=torch.bool))[..., 2:]  # one mode, one speed
    none, preventive, inspection = legal.unbind(-1)
    assert preventive.tolist() == [[False] * 4, [False, True, False, False], [False, True, False, False], [False] * 4]
    assert none.tolist() == [[True] * 4, [True] * 4, [True, False, True, True], [True] * 4]
    assert not inspection.any()


def test_the_first_in_a_window_is_the_likeliest_to_fail_of_those_inside() -> None:
    machines = [{"upkeep": {"wear": WEIBULL | {"scale_slots": scale}}} for scale in (30.0, 90.0)]
    line = {"kind": "fixed", "parallel": True, "machines": machines, "capacities": []}
    plate = SITE.nameplate(LineConfig.model_validate({"line": line, "modes": ["on"]}))
    group = plate.group(MACHINE)
    statics = torch.tensor(group.static_values, dtype=torch.float64)[None]
    life = statics[..., group.index("statics", "mean_life_slots")]
    measured = torch.zeros(1, 2, len(group.measured), dtype=torch.float64)
    measured[..., group.index("measured", "crews_free")] = 1.0
    measured[..., group.index("measured", "age_slots")] = torch.tensor([[0.39, 0.45]]) * life
    here = torch.ones(1, 2, dtype=torch.bool)
    # the first is not inside; then it is, and likelier to fail; then the second is past the end
    for window, first in (((0.4, 0.8), [False, True]), ((0.3, 0.8), [True, False]), ((0.3, 0.42), [False, True])):
        encoder = SITE.encoder("fleet", plate, {"window_pu": window})
        assert encoder.legal(measured, statics, here)[0, :, 3].tolist() == first


def test_a_window_that_never_opens_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="window_pu"):
        SITE.encoder("fleet", SITE.nameplate(fleet()), {"window_pu": [0.8, 0.4]})


@pytest.mark.parametrize("limits", [{}, {"on_slots": 3, "rest_slots": 2}])
@pytest.mark.parametrize("group", [MACHINE, CREW])
def test_the_encoders_of_a_fleet_keep_their_contract(group: str, limits: dict[str, Any]) -> None:
    plate = SITE.nameplate(fleet(4, 2, limits=limits))
    if not limits:
        check_encoder(SITE.encoder("fleet", plate, {"group": group, "window_pu": [0.3, 0.7]}), plate)
    check_encoder(SITE.encoder("fleet", plate, {"group": group, **limits, "lock_out": False}), plate)


def test_the_dispatchers_board_says_who_waits_for_what_and_masks_all_others() -> None:
    twin = SITE.twin(fleet(4, 1), 1, "cpu", torch.float64)
    crew = SITE.encoder("fleet", twin.nameplate, {"group": CREW})
    twin.reset(torch.arange(1))
    commands = {g.name: torch.from_numpy(np.tile(g.neutral(), (1, g.n_assets, 1))) for g in twin.nameplate.groups}
    commands[MACHINE][0, [1, 3], 2] = 1.0
    readings = twin.step(commands)
    board = readings.measured[CREW][0, 0]
    assert board[:3].tolist() == [0.0, 1.0, 1e6]
    assert board[3:7].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert board[7:11].tolist() == [0.0, 0.0, 0.0, 1.0]
    legal = crew.legal(readings.measured[CREW], readings.statics[CREW], readings.present[CREW])
    assert legal[0, 0].tolist() == [True, False, False, False, True]
    assert readings.measured[MACHINE][0, :, 14:16].tolist() == [[0.0, 1.0]] * 4


def test_a_machine_that_warms_up_or_must_rest_keeps_its_mode() -> None:
    config = fleet(1, limits={"on_slots": 3, "rest_slots": 2})
    twin = SITE.twin(config, 1, "cpu", torch.float64)
    settings = {"on_slots": 3, "rest_slots": 2}
    encoder = SITE.encoder("fleet", twin.nameplate, settings)
    readings = twin.reset(torch.arange(1))
    modes = []
    for mode in (0.0, 0.0, 2.0, 2.0, 2.0, 2.0):
        commands = {g.name: torch.from_numpy(np.tile(g.neutral(), (1, g.n_assets, 1))) for g in twin.nameplate.groups}
        commands[MACHINE][..., 0] = mode
        readings = twin.step(commands)
        seen = [part[MACHINE] for part in (readings.measured, readings.statics, readings.present)]
        modes.append(encoder.legal(*seen)[0, 0, :3].tolist())
    off, free, on = [True, False, False], [True, True, True], [False, False, True]
    assert modes == [off, free, on, on, free, free]


def test_machines_side_by_side_each_make_all_parts_they_can() -> None:
    twin = SITE.twin(fleet(3), 2, "cpu", torch.float64)
    twin.reset(torch.arange(2))
    neutral = {g.name: torch.from_numpy(np.tile(g.neutral(), (2, g.n_assets, 1))) for g in twin.nameplate.groups}
    readings = twin.step(neutral)
    assert readings.hidden[MACHINE][..., 0].tolist() == [[1.0] * 3] * 2
    with pytest.raises(ValidationError, match="side by side"):
        LineConfig.model_validate({"line": {"kind": "fixed", "parallel": True}})
