"""Foresight by a twin: a tank that must not run over, whose last moment to close the valve is known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.deploy.shield.compiled import flat_commands
from twinloop.deploy.shield.ladder import StoredPlan
from twinloop.deploy.shield.lookahead import LookAhead
from twinloop.envs.constraint import Declaration, LookAheadConstraint, MeasuredConstraint, declare
from twinloop.envs.errors import ContractError
from twinloop.envs.foresight import TwinForesight
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import uniform
from twinloop.envs.twin import Parameter, Readings, Snapshot, Tensors, Twin

Floats = NDArray[np.float64]
FULL_M, AREA_M2 = 3.0, 2.0
HORIZON = 12
PLATE = Nameplate(
    "tank",
    1.0,
    (
        Group(
            "tank",
            ("T1", "T2"),
            (Signal("level_m", "m", 0.0, 4.0),),
            (Signal("inflow_m3ps", "m3/s", 0.0, 0.4, rate_limit_per_s=0.1),),
        ),
    ),
)


class TankTwin:
    """``level' = (inflow + rain) / area``, ``rain`` uniform in 0 to ``most``, a new one each period."""

    nameplate = PLATE
    dt_s = 1.0
    device = torch.device("cpu")
    dtype = torch.float64
    parameter_specs: tuple[Parameter, ...] = ()

    def __init__(self, n_replicas: int, rain_m3ps: float) -> None:
        self.n_replicas, self._rain = n_replicas, rain_m3ps
        self._state: dict[str, torch.Tensor] = {}

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        assert rows is None
        self._state = {
            "level": torch.ones(self.n_replicas, 2, dtype=self.dtype),
            "seed": seeds,
            "step": torch.zeros(self.n_replicas, dtype=torch.int64),
        }
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        s = self._state
        rain = self._rain * uniform(s["seed"], s["step"], 0, 2, self.dtype)
        level = s["level"] + (commands["tank"][..., 0] + rain) * self.dt_s / AREA_M2
        self._state = s | {"level": level, "step": s["step"] + 1}
        return self._readings()

    def snapshot(self) -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in self._state.items()}

    def restore(self, snapshot: Snapshot) -> None:
        self._state = {k: v.clone() for k, v in snapshot.items()}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        raise NotImplementedError("a tank has none")

    def _readings(self) -> Readings:
        shape = (self.n_replicas, 2)
        return Readings(
            {"tank": self._state["level"][..., None]},
            {"tank": torch.zeros(*shape, 0)},
            {"tank": torch.zeros(*shape, 0)},
            {"tank": torch.ones(shape, dtype=torch.bool)},
            self._state["step"].to(self.dtype),
        )


@dataclass(frozen=True)
class TankForesight(TwinForesight):
    rain_m3ps: float = 0.0

    def declaration(self) -> Declaration:
        return declare(PLATE, [MeasuredConstraint("not over", "tank", "level_m", "m", maximum=FULL_M)])

    def twin(self, n_replicas: int) -> Twin:
        return TankTwin(n_replicas, self.rain_m3ps)

    def place(self, fresh: Snapshot, measured: Mapping[str, Floats], first: Mapping[str, Floats]) -> Snapshot:
        level = torch.tensor(measured["tank"][..., 0]).expand(fresh["level"].shape)
        return {**fresh, "level": level}

    def act(self, backup: str, measured: Tensors) -> Tensors:
        return {"tank": torch.full_like(measured["tank"], {"close": 0.0, "open": 1.0}[backup])}


def highest_exact(level: Floats, inflow: Floats) -> Floats:
    """The level in the end when the valve closes by 0.1 a period after one period of ``inflow``."""
    total = np.zeros_like(inflow)
    while (inflow > 0).any():
        total += inflow
        inflow = np.maximum(inflow - 0.1, 0.0)
    return level + total / AREA_M2


@pytest.mark.parametrize("inflow", [0.0, 0.15, 0.4])
def test_the_margin_is_the_exact_one_and_the_plan_closes_as_fast_as_the_rate_lets(inflow: float) -> None:
    level = np.array([[1.2], [2.1]])
    first = {"tank": np.array([[inflow], [0.25]])}
    margin, plan = TankForesight(("close",))({"tank": level}, first, "close", HORIZON)
    assert margin == pytest.approx((FULL_M - highest_exact(level, first["tank"])).min(), abs=1e-12)
    assert len(plan) == HORIZON
    assert plan[0] is first
    steps = np.stack([p["tank"] for p in plan])
    assert steps[-1].tolist() == [[0.0], [0.0]]
    assert (-np.diff(steps, axis=0)).max() <= 0.1 + 1e-12


def test_backups_together_answer_as_each_alone() -> None:
    measured, first = {"tank": np.full((2, 1), 2.0)}, {"tank": np.full((2, 1), 0.2)}
    both = TankForesight(("open", "close"), n_samples=5, rain_m3ps=0.05)
    for backup in ("open", "close", "open"):
        alone = TankForesight((backup,), n_samples=5, rain_m3ps=0.05)
        told, expected = both(measured, first, backup, HORIZON), alone(measured, first, backup, HORIZON)
        assert told[0] == expected[0]
        assert [p["tank"].tolist() for p in told[1]] == [p["tank"].tolist() for p in expected[1]]


def test_more_samples_see_worse_rain_and_never_worse_than_the_worst() -> None:
    measured, first = {"tank": np.full((2, 1), 2.0)}, {"tank": np.full((2, 1), 0.2)}
    dry = TankForesight(("close",))(measured, first, "close", HORIZON)[0]
    margins = [TankForesight(("close",), n, rain_m3ps=0.05)(measured, first, "close", HORIZON)[0] for n in (1, 8, 64)]
    assert dry > margins[0] > margins[1] > margins[2]
    assert margins[2] >= dry - HORIZON * 0.05 / AREA_M2


def test_the_answer_depends_on_the_arguments_alone() -> None:
    foresight = TankForesight(("close",), 3, rain_m3ps=0.05)
    a, b = {"tank": np.full((2, 1), 1.0)}, {"tank": np.full((2, 1), 2.5)}
    first = {"tank": np.full((2, 1), 0.2)}
    told = [foresight(m, first, "close", HORIZON)[0] for m in (a, b, a)]
    assert told[0] == told[2] != told[1]
    a["tank"][:] = 2.5  # the same array with other numbers is another question
    assert foresight(a, first, "close", HORIZON)[0] == told[1]


def test_a_tank_behind_it_is_filled_to_the_brim_and_not_over() -> None:
    condition = LookAheadConstraint("not over", TankForesight(("close",)), ("close",), HORIZON)
    declaration = declare(PLATE, [condition])
    assert declaration.hash == declare(PLATE, [replace(condition)]).hash
    look = LookAhead(declaration, flat_commands(PLATE))
    twin = TankTwin(1, 0.0)
    level = twin.reset(torch.zeros(1, dtype=torch.int64)).measured["tank"][0].numpy()
    applied, plan = np.zeros(2), None
    highest = 0.0
    for _ in range(40):
        asked = np.minimum(applied + 0.1, 0.4)  # the rate is kept before the look-ahead is asked
        answer = look.keep(asked, {"tank": level}, applied, plan)
        assert answer.u is not None
        assert (np.abs(answer.u - applied) <= 0.1 + 1e-12).all()
        applied, plan = answer.u, answer.plan
        assert isinstance(plan, StoredPlan)
        level = twin.step({"tank": torch.tensor(applied)[None, :, None]}).measured["tank"][0].numpy()
        highest = max(highest, float(level.max()))
    assert FULL_M - 0.02 <= highest <= FULL_M


def test_wrong_questions_are_refused() -> None:
    measured, first = {"tank": np.full((2, 1), 1.0)}, {"tank": np.zeros((2, 1))}
    with pytest.raises(ContractError, match="knows close"):
        TankForesight(("close",))(measured, first, "shut", HORIZON)
    with pytest.raises(ContractError, match="give one of each"):
        TankForesight(("close",), 0)(measured, first, "close", HORIZON)
