"""A small site that answers at once and writes down every command it got, and a policy that always wants something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.controllers.reference import NeutralPolicy
from ...envs.errors import PlantError
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Arrays, Telemetry
from ...envs.twin import Observation

PERIOD_S = 1.0
EPOCH_S = 1_767_225_600.0
KETTLES = Nameplate(
    "kettles",
    PERIOD_S,
    (
        Group(
            "kettle",
            ("K1", "K2", "K3"),
            measured=(Signal("temperature_degc", "degC", 0.0, 150.0),),
            commanded=(
                Signal("heat_kw", "kW", 0.0, 100.0, neutral=0.0, rate_limit_per_s=5.0),
                Signal("valve_pu", "pu", 0.0, 1.0, neutral=0.0, rate_limit_per_s=0.1),
            ),
        ),
        Group(
            "fan",
            ("F1",),
            measured=(Signal("flow_pu", "pu", 0.0, 1.0),),
            commanded=(Signal("stage", "", 0.0, 2.0, neutral=0.0, levels=(0.0, 1.0, 2.0)),),
        ),
    ),
)
"""Seven commands of four assets: with rates, and with levels."""


class KettlePlant:
    """Obeys at once and says what it obeys. ``log`` has ``(period, commands)`` of every write that arrived.

    ``is_lost``: every call raises; ``holds``: its own watchdog has put its commands to neutral, which it says.
    """

    def __init__(self) -> None:
        self.nameplate = KETTLES
        self.commands: dict[str, NDArray[np.float64]] = neutral()
        self.log: list[tuple[int, dict[str, NDArray[np.float64]]]] = []
        self.period = 0
        self.is_lost = self.holds = False
        self.in_control = True

    @property
    def clock_s(self) -> float:
        return EPOCH_S + PERIOD_S * self.period

    def read(self) -> Telemetry:
        self._answer("read")
        values = {
            "kettle": np.full((3, 1), 20.0 + 1e-3 * (self.period % 7)) + 0.1 * self.commands["kettle"][:, :1],
            "fan": np.full((1, 1), 0.5 + 1e-3 * (self.period % 5)),
        }
        notes: dict[str, Any] = {"obeyed": {n: c.copy() for n, c in self.commands.items()}}
        notes["watchdog_tripped"] = self.holds
        times = {n: np.full(v.shape, self.clock_s) for n, v in values.items()}
        quality = {n: np.zeros(v.shape, dtype=np.int8) for n, v in values.items()}
        return Telemetry(values, times, quality, self.clock_s, self.period + 1, notes)

    def write(self, commands: Arrays) -> Arrays:
        self._answer("write")
        self.log.append((self.period, {n: c.copy() for n, c in commands.items()}))
        self.commands = neutral() if self.holds else {n: c.copy() for n, c in commands.items()}
        return {n: c.copy() for n, c in self.commands.items()}

    def advance(self) -> None:
        self.period += 1

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, call: str) -> None:
        if self.is_lost:
            raise PlantError(f"no answer to {call} in period {self.period}")


class Eager(NeutralPolicy):
    """Wants ``wants_pu`` of every command's range; raises while it ``fails``."""

    def __init__(self, wants_pu: float = 1.0) -> None:
        super().__init__(KETTLES, name="eager")
        self.wants_pu = wants_pu
        self.fails = False

    def start(self, n_rows: int) -> Mapping[str, NDArray[Any]]:
        return {"kettle/turns": np.zeros((n_rows, 3, 1)), "fan/turns": np.zeros((n_rows, 1, 1))}

    def act(self, observation: Observation, memory: Mapping[str, NDArray[Any]]) -> Any:
        if self.fails:
            raise RuntimeError("no answer")
        commands = {
            "kettle": np.tile([100.0 * self.wants_pu, self.wants_pu], (1, 3, 1)),
            "fan": np.full((1, 1, 1), float(round(2.0 * self.wants_pu))),
        }
        return commands, {name: turns + 1.0 for name, turns in memory.items()}


def neutral() -> dict[str, NDArray[np.float64]]:
    """Neutral commands ``[N, A]`` a group."""
    return {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in KETTLES.groups}
