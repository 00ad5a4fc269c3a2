"""What holds for a whole run, as pages need it: the nameplate, limits, the period; read from ``control.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...envs.errors import ConfigurationError, NameplateError
from ...envs.level_names import level_names
from ...envs.nameplate import Group, Nameplate, Signal
from ..station.folder import StationFolder, read_whole

NONE = "\N{EN DASH}"
"""Stands where there is no number."""

FRESH_S = 1.5
"""The least age at which a state counts as stale, however fast the loop."""


@dataclass(frozen=True)
class Sheet:
    """``period_s`` is that of the wall clock. ``raw``: all of ``control.json``."""

    nameplate: Nameplate
    period_s: float
    raw: Mapping[str, Any]
    agents: frozenset[str] = field(default_factory=frozenset)

    @property
    def stale_after_s(self) -> float:
        """The age at which a state is stale: two periods, or :data:`FRESH_S`."""
        return max(2.0 * self.period_s, FRESH_S)

    def group_of(self, agent: str) -> tuple[Group, int]:
        """An asset's group, and its row there; raises :class:`ConfigurationError` for one that there isn't."""
        if agent not in self.agents:
            raise ConfigurationError(f"asset {agent!r}: the site {self.nameplate.site!r} has none of that name")
        group = self.nameplate.group(agent.partition("/")[0])
        return group, group.assets.index(agent.partition("/")[2])


def read_sheet(station: StationFolder) -> Sheet | None:
    """The sheet of the run that is on, or was last; None before the first."""
    try:
        raw = read_whole(station.control)
        if raw is None:
            return None
        nameplate = Nameplate.from_dict(raw["nameplate"])
        period_s = float(raw.get("wall_period_s") or raw.get("period_s") or nameplate.period_s)
    except (ValueError, KeyError, TypeError, NameplateError) as error:
        raise ConfigurationError(
            f"{station.control}: cannot be read ({error}); was it written by this version's `twinloop run`?"
        ) from error
    return Sheet(nameplate, period_s, raw, frozenset(nameplate.agents))


def main_signal(group: Group) -> Signal | None:
    """What stands for an asset at a glance: its power where it measures one, else what it measures first."""
    powers = [s for s in group.measured if "power" in s.name]
    return next(iter(powers or group.measured), None)


def unit_text(signal: Signal) -> str:
    """Its unit; nothing for a pure number and for levels with names."""
    return "" if signal.unit == "1" or level_names(signal) else signal.unit


def number_text(value: Any, signal: Signal) -> str:
    """A reading with as many decimals as its range is worth, four figures of it; a named level with its name."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return NONE
    name = level_names(signal).get(round(value)) if value == round(value) else None
    if name is not None:
        return f"{value:.0f} {name}"
    figures = 3 - math.floor(math.log10(max(abs(signal.minimum), abs(signal.maximum))))
    return f"{value:.{min(max(figures, 0), 5)}f}"
