"""Classical control of a line's power: always on, hysteresis on a buffer, break-even time-out, one speed for all.

All read the levels next to a machine and its state, and remember nothing but an idle time, so that they can be started,
stopped and handed over at any moment. Rules by buffer levels and by idle time are those of Mashaei & Lennartson,
"Energy reduction in a pallet-constrained flow shop through on-off control of idle machines" (2013), and Frigerio &
Matta, "Energy-efficient control strategies for machine tools with stochastic arrivals" (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError, ContractError
from ...envs.nameplate import Nameplate
from ...envs.production_line.nameplate import MACHINE
from ...envs.twin import Observation
from ..policy import Commands, Memory
from .reference import NeutralPolicy, neutral_commands

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
OFF, ON = 0.0, 2.0
_RESTS = (5, 6)
"""States in which a machine is not on: stand-by, off."""
_BESIDE_NO_BUFFER = 1e5


class AlwaysOn(NeutralPolicy):
    """Every machine is on, at full speed: what a line without energy control does."""

    def __init__(self, nameplate: Nameplate) -> None:
        super().__init__(nameplate, name="always_on")


class OneSpeed:
    """Every machine is on, at ``speed_pu``; :class:`ContractError` where the line has no such speed."""

    def __init__(self, nameplate: Nameplate, speed_pu: float, name: str = "one_speed") -> None:
        signal = nameplate.group(MACHINE).commanded[_at(nameplate, "speed_pu")]
        if signal.levels is None or speed_pu not in signal.levels:
            raise ContractError(f"one speed of {speed_pu}: this line has {signal.levels}")
        self._nameplate, self._speed_pu, self._name = nameplate, speed_pu, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands = neutral_commands(self._nameplate, len(observation.measured[MACHINE]))
        commands[MACHINE][:, :, _at(self._nameplate, "speed_pu")] = self._speed_pu
        return commands, memory


@dataclass(frozen=True)
class Switch:
    """When one machine sleeps. ``behind``: it fills the buffer behind it, is off from ``off_at`` parts there, and on
    again at ``on_at`` or fewer. ``before``: the same of the room in the buffer before it. ``never``: it stays on."""

    watches: Literal["never", "before", "behind"] = "never"
    on_at: int = 0
    off_at: int = 1


class Hysteresis:
    """Each machine by its :class:`Switch`; ``switches``: one a machine, or such a row for each row of the batch, by
    which rules are compared side by side.

    Raises :class:`ContractError` unless there is one a machine, with ``on_at`` below ``off_at``.
    """

    def __init__(
        self,
        nameplate: Nameplate,
        switches: Sequence[Switch] | Sequence[Sequence[Switch]],
        name: str = "hysteresis",
    ) -> None:
        rows = [[s] if isinstance(s, Switch) else list(s) for s in switches]
        n, alone = nameplate.group(MACHINE).n_assets, all(isinstance(s, Switch) for s in switches)
        rows = [[s for row in rows for s in row]] if alone else rows
        for row in rows:
            if len(row) != n:
                raise ContractError(f"hysteresis: {len(row)} switches for {n} machines; give one a machine")
            for k, s in enumerate(row):
                if not 0 <= s.on_at < s.off_at:
                    raise ContractError(
                        f"hysteresis: switch {k + 1}: on at {s.on_at}, off at {s.off_at}; the first must be 0 or more "
                        "and below the second"
                    )
        self._nameplate, self._name = nameplate, name
        self._on_at = np.array([[s.on_at for s in row] for row in rows])
        self._off_at = np.array([[s.off_at for s in row] for row in rows])
        self._behind = np.array([[s.watches == "behind" for s in row] for row in rows])
        self._never = np.array([[s.watches == "never" for s in row] for row in rows])

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        is_on = _is_on(observation, self._nameplate)
        parts, room = _levels(observation, self._nameplate)
        capacity_before, capacity_behind = (
            _static(observation, self._nameplate, name) for name in ("capacity_before", "capacity_behind")
        )
        full = np.where(self._behind, capacity_behind - room, capacity_before - parts)
        stays_on = np.where(is_on, full < self._off_at, full <= self._on_at) | self._never
        return _commands(self._nameplate, stays_on), memory


class TimeOut:
    """A machine that has been starved or blocked for longer than ``idle_slots`` goes off, and on again when it is
    neither. The break-even time is the energy of a warm-up over the power saved: :func:`break_even_slots`."""

    def __init__(self, nameplate: Nameplate, idle_slots: float, slot_s: float, name: str = "time_out") -> None:
        if idle_slots < 0:
            raise ContractError(f"time-out of {idle_slots} slots; give 0 or more")
        self._nameplate, self._idle_s, self._name = nameplate, idle_slots * slot_s, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """``idle_s`` ``[B, N]``: how long a machine has had nothing to do."""
        return {"idle_s": np.zeros((n_rows, self._nameplate.group(MACHINE).n_assets))}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        parts, room = _levels(observation, self._nameplate)
        idle = (parts < 0.5) | (room < 0.5)
        idle_s = np.where(idle, memory["idle_s"] + observation.dt_s, 0.0)
        return _commands(self._nameplate, idle_s <= self._idle_s), {"idle_s": idle_s}


def break_even_slots(warm_up_slots: int, warm_up_kw: float, idle_kw: float, off_kw: float) -> float:
    """Idle slots that cost as much as to be off in them and warm up in the last; infinite where off saves nothing."""
    saved_kw = idle_kw - off_kw
    return (warm_up_kw - off_kw) * warm_up_slots / saved_kw if saved_kw > 0 else float("inf")


def switches_about(bottleneck: int, capacities: Sequence[int], on_at_pu: float, off_at_pu: float) -> tuple[Switch, ...]:
    """Of a row whose slowest machine, from 0, stays on: those before it watch the buffer behind them, those after it
    the one before them, at shares of its capacity."""

    def switch(watches: Literal["before", "behind"], capacity: int) -> Switch:
        off_at = max(1, round(off_at_pu * capacity))
        return Switch(watches, min(off_at - 1, int(on_at_pu * capacity)), off_at)

    n = len(capacities) + 1
    return tuple(
        Switch() if i == bottleneck else switch("behind", capacities[i]) if i < bottleneck
        else switch("before", capacities[i - 1]) for i in range(n)
    )  # fmt: skip


def usual_hysteresis(nameplate: Nameplate) -> Hysteresis:
    """For a row as its nameplate tells it: all but the slowest machine sleep where the buffer towards it is full (those
    before it) or empty (those behind), until it is at 40 % (60 %). Raises :class:`ConfigurationError` for other sites.
    """
    groups = {group.name: group for group in nameplate.groups}
    group = groups.get(MACHINE)
    names = [] if group is None else [s.name for s in group.statics]
    if group is None or "capacity_behind" not in names or not group.static_values:
        raise ConfigurationError(
            f"hysteresis: site {nameplate.site!r} tells of no row of machines; it is for a fixed production line"
        )
    statics = group.statics_array()
    capacities = [int(c) for c in statics[:-1, names.index("capacity_behind")]]
    if min(capacities, default=1) < 1:
        raise ConfigurationError(
            f"hysteresis: site {nameplate.site!r}: buffers behind machines hold {capacities}; give a row of machines"
        )
    slowest = int(statics[:, names.index("efficiency_pu")].argmin())
    return Hysteresis(nameplate, switches_about(slowest, capacities, on_at_pu=0.4, off_at_pu=1.0))


def _at(nameplate: Nameplate, command: str) -> int:
    return nameplate.group(MACHINE).index("commanded", command)


def _commands(nameplate: Nameplate, is_on: Flags) -> dict[str, Floats]:
    commands = neutral_commands(nameplate, len(is_on))
    commands[MACHINE][:, :, _at(nameplate, "mode")] = np.where(is_on, ON, OFF)
    return commands


def _measured(observation: Observation, nameplate: Nameplate, name: str) -> Floats:
    column = nameplate.group(MACHINE).index("measured", name)
    return np.asarray(observation.measured[MACHINE][:, :, column], dtype=np.float64)


def _static(observation: Observation, nameplate: Nameplate, name: str) -> Floats:
    names = [s.name for s in nameplate.group(MACHINE).statics]
    return np.asarray(observation.statics[MACHINE][:, :, names.index(name)], dtype=np.float64)


def _is_on(observation: Observation, nameplate: Nameplate) -> Flags:
    return ~np.isin(_measured(observation, nameplate, "state").round(), _RESTS)


def _levels(observation: Observation, nameplate: Nameplate) -> tuple[Floats, Floats]:
    """Parts before and room behind, ``[B, N]``; what is not known counts as neither empty nor full."""
    parts, room = (_measured(observation, nameplate, name) for name in ("parts_before", "room_behind"))
    return np.nan_to_num(parts, nan=_BESIDE_NO_BUFFER), np.nan_to_num(room, nan=_BESIDE_NO_BUFFER)
