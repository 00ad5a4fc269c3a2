"""A tank battery: heated tanks in a row, each losing heat to the room and to its neighbours.

A whole site in one file (nameplate, twin, task, plant, encoder, policy), small enough to know by heart. Tests of
adapters and conformance use it, so that they do not depend on any real site.

Heat balance of tank i: ``C dT_i/dt = P_i - h (T_i - T_room) + k sum_j (T_j - T_i)``, j its neighbours; ``C`` in kJ/K,
``h`` and ``k`` in kW/K. The optional pump, a group of one asset with three speeds, scales ``k``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.agents.policy import Commands, Memory
from twinloop.envs import noise
from twinloop.envs.errors import ContractError, PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Quality, Telemetry
from twinloop.envs.task import Score
from twinloop.envs.twin import Observation, Parameter, Readings, Snapshot, Tensors

DT_S = 10.0
ROOM_DEGC = 20.0
RATE_KW_PER_S = 0.5
TANK_MEASURED = (
    Signal("temperature_degc", "degC", 0.0, 100.0, "thermometer"),
    Signal("heater_kw", "kW", 0.0, 20.0, "power that the heater draws"),
)
TANK_HIDDEN = (Signal("true_temperature_degc", "degC", 0.0, 100.0), Signal("room_degc", "degC", -50.0, 100.0))
TANK_COMMANDED = (Signal("heater_kw", "kW", 0.0, 20.0, "heater set-point", rate_limit_per_s=RATE_KW_PER_S),)
TANK_STATICS = (Signal("heat_capacity_kj_per_k", "kJ/K", 1.0, 1e4),)
PUMP_SPEEDS = (0.0, 0.5, 1.0)
PUMP = Group(
    name="pump",
    assets=("P1",),
    measured=(Signal("speed_pu", "pu", 0.0, 1.0),),
    commanded=(Signal("speed_pu", "pu", 0.0, 1.0, neutral=0.5, levels=PUMP_SPEEDS),),
)


def tank_nameplate(n_tanks: int = 3, *, pump: bool = False) -> Nameplate:
    tanks = Group(
        name="tank",
        assets=tuple(f"T{i + 1}" for i in range(n_tanks)),
        measured=TANK_MEASURED,
        hidden=TANK_HIDDEN,
        commanded=TANK_COMMANDED,
        statics=TANK_STATICS,
        static_values=tuple((400.0 + 50.0 * i,) for i in range(n_tanks)),
    )
    return Nameplate(site="tank_battery", period_s=DT_S, groups=(tanks, PUMP) if pump else (tanks,))


class TankTwin:
    """Batched battery; with ``n_min`` below ``n_tanks`` each episode draws how many tanks there are."""

    parameter_specs = (
        Parameter("loss_kw_per_k", "kW/K", 0.01, 1.0, "h", explorable=True),
        Parameter("coupling_kw_per_k", "kW/K", 0.0, 1.0, "k"),
    )
    device = torch.device("cpu")
    dt_s = DT_S

    def __init__(
        self,
        n_replicas: int,
        n_tanks: int = 3,
        *,
        n_min: int | None = None,
        pump: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.nameplate = tank_nameplate(n_tanks, pump=pump)
        self.n_replicas, self.n_tanks, self.n_min, self.dtype = n_replicas, n_tanks, n_min or n_tanks, dtype
        shape = (n_replicas, n_tanks)
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)
        self._tank_degc = torch.zeros(shape, dtype=dtype)
        self._heater_kw = torch.zeros(shape, dtype=dtype)
        self._room_degc = torch.zeros(n_replicas, dtype=dtype)
        self._present = torch.ones(shape, dtype=torch.bool)
        self._speed_pu = torch.zeros(n_replicas, 1, dtype=dtype)
        self._loss = torch.full((n_replicas,), 0.05, dtype=dtype)
        self._coupling = torch.full((n_replicas,), 0.1, dtype=dtype)
        self._last: Readings | None = None

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        at = torch.arange(self.n_replicas) if rows is None else rows
        zero = torch.zeros_like(seeds)
        self._seeds[at], self._steps[at] = seeds, zero
        draws = noise.uniform(seeds, zero, 0, self.n_tanks, self.dtype)
        count = self.n_min + noise.bits(seeds, zero, 1, 1)[:, 0].remainder(self.n_tanks - self.n_min + 1)
        self._tank_degc[at] = 20.0 + 40.0 * draws
        self._heater_kw[at], self._speed_pu[at] = 0.0, 0.5
        self._room_degc[at] = ROOM_DEGC
        self._present[at] = torch.arange(self.n_tanks) < count[:, None]
        return self._read(at)

    def step(self, commands: Tensors) -> Readings:
        change = RATE_KW_PER_S * DT_S
        wanted = commands["tank"][..., 0].to(self.dtype)
        self._heater_kw = (self._heater_kw + (wanted - self._heater_kw).clamp(-change, change)).clamp(0.0, 20.0)
        coupling = self._coupling[:, None].expand(-1, self.n_tanks)
        if "pump" in commands:
            self._speed_pu = commands["pump"][..., 0].to(self.dtype).clamp(0.0, 1.0)
            coupling = coupling * self._speed_pu
        gust = noise.normal(self._seeds, self._steps, 2, 1, self.dtype)[:, 0]
        self._room_degc = ROOM_DEGC + 0.95 * (self._room_degc - ROOM_DEGC) + 0.3 * gust
        flow_kw = coupling[:, 1:] * (self._tank_degc[:, 1:] - self._tank_degc[:, :-1])
        flow_kw = flow_kw * (self._present[:, 1:] & self._present[:, :-1])
        power_kw = self._heater_kw - self._loss[:, None] * (self._tank_degc - self._room_degc[:, None])
        power_kw = power_kw + torch.nn.functional.pad(flow_kw, (0, 1)) - torch.nn.functional.pad(flow_kw, (1, 0))
        self._tank_degc = (self._tank_degc + DT_S / self._capacity() * power_kw).clamp(0.0, 100.0)
        self._steps = self._steps + 1
        return self._read(torch.arange(self.n_replicas))

    def snapshot(self) -> Snapshot:
        return {name: getattr(self, name).clone() for name in self._state()} | {
            f"last.{kind}.{group}": tensor.clone() for kind, group, tensor in self._last_tensors()
        }

    def restore(self, snapshot: Snapshot) -> None:
        for name in self._state():
            setattr(self, name, snapshot[name].clone())
        kinds: dict[str, dict[str, torch.Tensor]] = {"measured": {}, "hidden": {}, "statics": {}, "present": {}}
        for key, tensor in snapshot.items():
            if key.startswith("last."):
                _, kind, group = key.split(".")
                kinds[kind][group] = tensor.clone()
        self._last = Readings(**kinds, time_s=self._steps.to(self.dtype) * DT_S)

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"loss_kw_per_k": self._loss.clone(), "coupling_kw_per_k": self._coupling.clone()}

    def set_parameters(self, values: Tensors) -> None:
        places = {"loss_kw_per_k": "_loss", "coupling_kw_per_k": "_coupling"}
        for name, value in values.items():
            if name not in places:
                raise ContractError(f"parameter {name!r} is not known; known: {', '.join(places)}")
            setattr(self, places[name], value.to(self.dtype).clone())

    def _capacity(self) -> torch.Tensor:
        return torch.as_tensor(self.nameplate.group("tank").statics_array()[:, 0], dtype=self.dtype)

    def _state(self) -> tuple[str, ...]:
        tanks = ("_tank_degc", "_heater_kw", "_room_degc", "_present", "_speed_pu")
        return ("_seeds", "_steps", *tanks, "_loss", "_coupling")

    def _last_tensors(self) -> list[tuple[str, str, torch.Tensor]]:
        if self._last is None:
            return []
        kinds = ("measured", "hidden", "statics", "present")
        return [(kind, group, tensor) for kind in kinds for group, tensor in getattr(self._last, kind).items()]

    def _read(self, fresh: torch.Tensor) -> Readings:
        """Readings of all rows: new ones for ``fresh``, the last ones again for the others."""
        error_degc = 0.1 * noise.normal(self._seeds, self._steps, 3, self.n_tanks, self.dtype)
        thermometer = (self._tank_degc + error_degc).clamp(0.0, 100.0)
        room = self._room_degc[:, None].expand(-1, self.n_tanks)
        everyone = torch.ones(self.n_replicas, 1, dtype=torch.bool)
        kinds: dict[str, dict[str, torch.Tensor]] = {
            "measured": {"tank": torch.stack([thermometer, self._heater_kw], dim=-1)},
            "hidden": {"tank": torch.stack([self._tank_degc, room], dim=-1)},
            "statics": {"tank": self._capacity()[None, :, None].repeat(self.n_replicas, 1, 1)},
            "present": {"tank": self._present.clone()},
        }
        if len(self.nameplate.groups) > 1:
            kinds["measured"]["pump"] = self._speed_pu[..., None].clone()
            kinds["hidden"]["pump"] = torch.zeros(self.n_replicas, 1, 0, dtype=self.dtype)
            kinds["statics"]["pump"] = torch.zeros(self.n_replicas, 1, 0, dtype=self.dtype)
            kinds["present"]["pump"] = everyone
        if self._last is not None:
            for kind, tensors in kinds.items():
                for group, tensor in tensors.items():
                    merged = getattr(self._last, kind)[group].clone()
                    merged[fresh] = tensor[fresh]
                    tensors[group] = merged
        self._last = Readings(**kinds, time_s=self._steps.to(self.dtype) * DT_S)
        return self._last


class HoldTemperature:
    """Stay at ``target_degc``; a tank above ``trip_degc`` ends the episode."""

    name = "hold_temperature"

    def __init__(self, horizon: int = 20, target_degc: float = 60.0, trip_degc: float = 200.0) -> None:
        self.horizon, self.target_degc, self.trip_degc = horizon, target_degc, trip_degc

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        tank_degc, present = after.hidden["tank"][..., 0], after.present["tank"]
        reward = {"tank": -(tank_degc - self.target_degc).abs() / 10.0}
        if "pump" in after.measured:
            reward["pump"] = -0.1 * after.measured["pump"][..., 0]
        excess = (tank_degc - 80.0).clamp(min=0.0)
        tripped = ((tank_degc > self.trip_degc) & present).any(dim=1)
        return Score(reward=reward, terminated=tripped, costs={"tank/excess_k": excess})


class TankPlant:
    """The battery as a plant: one-second steps, its own noise, a set-point register with the heater's rate limit."""

    def __init__(self, n_tanks: int = 3, seed: int = 0) -> None:
        self.nameplate = tank_nameplate(n_tanks)
        self.clock_s = 1.7e9
        self._noise = np.random.default_rng(seed)
        self._tank_degc = np.full(n_tanks, 30.0)
        self._heater_kw = np.zeros(n_tanks)
        self._set_point_kw = np.zeros(n_tanks)
        self._sequence = 0
        self._open = True

    def read(self) -> Telemetry:
        self._sequence += 1
        thermometer = np.clip(self._tank_degc + self._noise.normal(0.0, 0.1, self._tank_degc.shape), 0.0, 100.0)
        values = np.stack([thermometer, self._heater_kw], axis=-1)
        return Telemetry(
            values={"tank": values},
            source_time_s={"tank": np.full(values.shape, self.clock_s - 0.5)},
            quality={"tank": np.full(values.shape, Quality.GOOD, dtype=np.int8)},
            received_time_s=self.clock_s,
            sequence=self._sequence,
        )

    def write(self, commands: Arrays) -> Arrays:
        if not self._open:
            raise PlantError("tank battery: the connection is closed; make a new plant")
        wanted = np.asarray(commands["tank"], dtype=np.float64)[:, 0]
        if not np.isfinite(wanted).all():
            raise PlantError(f"tank battery: heater_kw {wanted} is not finite; nothing was written")
        self._set_point_kw = np.clip(wanted, 0.0, 20.0)
        return {"tank": self._set_point_kw[:, None].copy()}

    def advance(self) -> None:
        capacity = self.nameplate.group("tank").statics_array()[:, 0]
        for _ in range(int(DT_S)):
            self._heater_kw = self._heater_kw + np.clip(
                self._set_point_kw - self._heater_kw, -RATE_KW_PER_S, RATE_KW_PER_S
            )
            flow_kw = 0.12 * np.diff(self._tank_degc)
            neighbours_kw = np.pad(flow_kw, (0, 1)) - np.pad(flow_kw, (1, 0))
            loss_kw = 0.04 * (self._tank_degc - ROOM_DEGC)
            self._tank_degc = self._tank_degc + (self._heater_kw + neighbours_kw - loss_kw) / capacity
        self.clock_s += DT_S

    def close(self) -> None:
        self._open = False


class TankEncoder:
    """Own temperature and heater, the left neighbour's temperature, and the change since the last call."""

    name, group, n_features = "tank", "tank", 4

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        shape = (n_rows, n_assets)
        return {
            "before": torch.zeros(shape, dtype=like.dtype)
            if isinstance(like, torch.Tensor)
            else np.zeros(shape, like.dtype),
            "asked": torch.zeros(n_rows, dtype=torch.bool)
            if isinstance(like, torch.Tensor)
            else np.zeros(n_rows, bool),
        }

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        xp: Any = torch if isinstance(measured, torch.Tensor) else np
        warm = xp.where(present, measured[..., 0] / 50.0 - 1.0, 0.0 * measured[..., 0])
        left = xp.concatenate([warm[:, :1], warm[:, :-1]], 1)
        change = xp.where(memory["asked"][:, None], warm - memory["before"], 0.0 * warm)
        features = xp.stack([warm, measured[..., 1] / 10.0 - 1.0, left, change], -1)
        features = xp.where(present[..., None], features, 0.0 * features)
        return features, {"before": warm, "asked": xp.ones_like(memory["asked"])}


class Thermostat:
    """Proportional-integral heater control; what it remembers is the integral, per row."""

    name = "thermostat"

    def __init__(self, nameplate: Nameplate, target_degc: float = 60.0) -> None:
        self.nameplate, self.target_degc = nameplate, target_degc

    def start(self, n_rows: int) -> Memory:
        return {"integral": np.zeros((n_rows, self.nameplate.group("tank").n_assets))}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        error: NDArray[np.float64] = self.target_degc - observation.measured["tank"][..., 0].astype(np.float64)
        integral = np.clip(memory["integral"] + error * observation.dt_s / 3600.0, -5.0, 5.0)
        return {"tank": np.clip(0.5 * error + integral, 0.0, 20.0)[..., None]}, {"integral": integral}
