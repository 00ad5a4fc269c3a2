"""What operators hold by hand: values in slot 8, each until it is released, replaced or runs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...envs.nameplate import Nameplate
from ..arbitration.priority_array import Slot
from ..arbitration.request import Request
from ..shield import Mode, ShieldState
from ..shield.modes import MODES

LONGEST_S = 24.0 * 3600.0
"""How long a manual value may be asked to stand; it is renewed by a person, or control falls back."""

_BRIDGE_PERIODS = 3.0


class _Held(NamedTuple):
    value: float
    until_s: float
    who: str


class Ended(NamedTuple):
    """Manual values that ended without an order. ``why``: expired, or the mode that lets nobody command the asset."""

    why: str
    signals: tuple[str, ...]
    who: tuple[str, ...]


class ManualValues:
    """``period_s``: of the wall, for how long a value stands should this process fail to ask for it again."""

    def __init__(self, nameplate: Nameplate, period_s: float) -> None:
        self._nameplate, self._bridge_s = nameplate, _BRIDGE_PERIODS * period_s
        self._held: dict[str, _Held] = {}
        self._places = {
            f"{g.name}/{asset}/{s.name}": (g.name, i, k)
            for g in nameplate.groups
            for i, asset in enumerate(g.assets)
            for k, s in enumerate(g.commanded)
        }
        self._agents = {agent: i for i, agent in enumerate(nameplate.agents)}

    @property
    def signals(self) -> tuple[str, ...]:
        """Full names of the commands that are held."""
        return tuple(self._held)

    def fault(self, values: Mapping[str, float], state: ShieldState) -> str:
        """Why these can't be held, and what to do; empty if they can."""
        if not values:
            return "no values; give group/asset/signal: value"
        for name, value in values.items():
            if name not in self._places:
                return f"{name}: no such command here; there are {', '.join(list(self._places)[:6])}, ..."
            group, _, column = self._places[name]
            signal = self._nameplate.group(group).commanded[column]
            if not signal.minimum <= value <= signal.maximum:  # so asked, a NaN is outside
                return f"{name}: {value:g} is outside {signal.minimum:g} to {signal.maximum:g} {signal.unit}".rstrip()
            if signal.levels is not None and value not in signal.levels:
                return f"{name}: {value:g} is no level of it; allowed are {', '.join(f'{v:g}' for v in signal.levels)}"
        for agent in sorted({name.rpartition("/")[0] for name in values}):
            mode = self.closed(agent, state)
            if mode is Mode.TRIPPED:
                return f"{agent} is tripped, so that nothing but its safe state is sent; order reset and a mode first"
            if mode is not None:
                return f"{agent} is in {mode.value}, where nothing is sent; order mode approved or autonomous first"
        return ""

    def closed(self, agent: str, state: ShieldState) -> Mode | None:
        """The mode in which nobody commands the asset; None where somebody may."""
        if state.modes is None:
            return None
        place = self._agents[agent]
        mode = MODES[int(state.modes.mode[place])]
        if mode is Mode.TRIPPED:
            return mode
        requested = MODES[int(state.modes.requested[place])]
        return requested if requested in (Mode.SHADOW, Mode.ADVISE) else None

    def hold(self, values: Mapping[str, float], who: str, until_s: float) -> None:
        """Hold values that :meth:`fault` finds nothing wrong with; what was held of these signals is replaced."""
        for name, value in values.items():
            self._held[name] = _Held(float(value), until_s, who)

    def release(self, agents: frozenset[str] | None) -> tuple[str, ...]:
        """Let go of the values of some assets, or of all; gives the signals that were held."""
        found = tuple(n for n in self._held if agents is None or n.rpartition("/")[0] in agents)
        for name in found:
            del self._held[name]
        return found

    def end(self, state: ShieldState, stopped: bool, clock_s: float) -> list[Ended]:
        """Let go of what has run out, and of assets that nobody may command now."""
        gone: dict[str, list[str]] = {}
        for name, held in self._held.items():
            mode = Mode.TRIPPED if stopped else self.closed(name.rpartition("/")[0], state)
            if mode is not None:
                gone.setdefault(mode.value, []).append(name)
            elif not held.until_s > clock_s:
                gone.setdefault("expired", []).append(name)
        found = [Ended(why, tuple(n), tuple(sorted({self._held[m].who for m in n}))) for why, n in gone.items()]
        for ended in found:
            for name in ended.signals:
                del self._held[name]
        return found

    def requests(self, clock_s: float) -> tuple[Request, ...]:
        """What is to stand in slot 8 now, one request a person and time."""
        together: dict[tuple[str, float], list[str]] = {}
        for name, held in self._held.items():
            together.setdefault((held.who, held.until_s), []).append(name)
        found = []
        for (who, until_s), names in together.items():
            values = {g.name: np.full((g.n_assets, len(g.commanded)), np.nan) for g in self._nameplate.groups}
            for name in names:
                group, row, column = self._places[name]
                values[group][row, column] = self._held[name].value
            lasts_s = min(max(until_s - clock_s, 1e-6), self._bridge_s)
            found.append(Request(Slot.OPERATOR, values, lasts_s, who))
        return tuple(found)
