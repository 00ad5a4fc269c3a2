"""By how much each constraint is kept, in its own unit: positive inside, negative outside.

One set of formulas for training (a batch of numpy or torch arrays, where violations are costs) and for the monitor (one
site). The shield's rows and its verification have their own arithmetic on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from ..errors import ContractError
from ..nameplate import Group
from .coupled import ConflictConstraint, SeparationConstraint, SumConstraint, SumRateConstraint
from .declaration import Declaration
from .kinds import Constraint
from .limits import effective_limits
from .local import (
    AccelerationConstraint,
    DeadbandConstraint,
    DwellConstraint,
    ExclusiveConstraint,
    RangeConstraint,
    RateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
)
from .moment import History, Moment, library
from .state import BarrierConstraint, LookAheadConstraint, MeasuredConstraint, RowsConstraint


class Worst(NamedTuple):
    """The smallest margin of a constraint, and the asset that has it; None where assets keep it together."""

    margin: float
    asset: str | None


class Margins:
    """Compiled once from a declaration; a call is pure. ``names``: only these constraints; None is all.

    Look-ahead conditions have no margin in one moment and are left out: they need their foresight.
    """

    def __init__(self, declaration: Declaration, names: Collection[str] | None = None) -> None:
        self.declaration = declaration
        self._limits = effective_limits(declaration.nameplate, declaration.constraints)
        asked = [c for c in declaration.constraints if names is None or c.name in names]
        self._of = {c.name: c for c in asked if not isinstance(c, LookAheadConstraint)}

    def __call__(self, moment: Moment) -> dict[str, Any]:
        """Margin of each constraint by name: ``[..., N]``, or ``[...]`` where the assets keep it together.

        An absent asset has infinite margin. Raises :class:`ContractError` where a history is needed and missing.
        """
        return {name: self._margin(c, moment) for name, c in self._of.items()}

    def violations(self, moment: Moment) -> dict[str, Any]:
        """How far each constraint is broken, in its unit, 0 where it is kept; shapes as the margins."""
        return {name: (-margin).clip(0.0, None) for name, margin in self(moment).items()}

    def costs(self, moment: Moment) -> dict[str, Any]:
        """Violations as training costs, by ``constraint/NAME``: in shares of :meth:`scale`, so that units compare."""
        return {f"constraint/{n}": v / self.scale(n) for n, v in self.violations(moment).items()}

    def worst(self, moment: Moment) -> dict[str, Worst]:
        """The monitor's view of one site (numpy, no leading ``B``); what is not a number counts as broken."""
        found: dict[str, Worst] = {}
        for name, margin in self(moment).items():
            values = np.asarray(margin, dtype=np.float64)
            values = np.where(np.isnan(values), -math.inf, values)
            if values.ndim == 0:
                found[name] = Worst(float(values), None)
                continue
            index = int(values.argmin())
            found[name] = Worst(float(values[index]), self._group(self._of[name]).assets[index])
        return found

    def scale(self, name: str) -> float:
        """What a violation is measured against: the span of the command or sum, a time, a number or a distance."""
        c = self._of[name]
        match c:
            case DwellConstraint():
                return c.minimum_s
            case SwitchesConstraint():
                return float(c.per_hour)
            case SeparationConstraint():
                return c.distance
            case RangeConstraint() | RateConstraint() | AccelerationConstraint() | DeadbandConstraint():
                return self._span(c.group, "commanded", c.signal)
            case MeasuredConstraint():
                return self._span(c.group, "measured", c.signal)
            case SumConstraint() | SumRateConstraint():
                weights = c.weights or (1.0,) * self._group(c).n_assets
                return self._span(c.group, "commanded", c.signal) * sum(abs(w) for w in weights)
        return 1.0

    def _span(self, group: str, kind: str, signal: str) -> float:
        declared = self.declaration.nameplate.group(group)
        found = getattr(declared, kind)[declared.index(kind, signal)]
        return float(found.maximum - found.minimum)

    def _group(self, c: Any) -> Group:
        return self.declaration.nameplate.group(c.group)

    def _margin(self, c: Constraint, moment: Moment) -> Any:
        group = self._group(c)
        present = None if moment.present is None else moment.present[group.name]
        match c:
            case SumConstraint() | SumRateConstraint():
                return _sum(group, c, moment, present)
            case ConflictConstraint():
                return _conflict(group, c, moment, present)
            case SeparationConstraint():
                return _separation(group, c, moment, present)
        margin = self._of_asset(group, c, moment)
        return margin if present is None else library(margin).where(present, margin, math.inf)

    def _of_asset(self, group: Group, c: Any, moment: Moment) -> Any:
        def column(arrays: Any, kind: str = "commanded") -> Any:
            return arrays[group.name][..., group.index(kind, c.signal)]

        match c:
            case RangeConstraint():
                return _inside(column(moment.commands), c.minimum, c.maximum)
            case MeasuredConstraint():
                return _inside(column(moment.measured, "measured"), c.minimum, c.maximum)
            case BarrierConstraint():
                return _barrier(c, moment.measured[group.name])
            case RowsConstraint():
                return c.rows.margin(moment.measured)
            case ExclusiveConstraint():
                return _exclusive(group, c, moment.commands[group.name])
        return self._of_change(c, column, moment)

    def _of_change(self, c: Any, column: Callable[[Any], Any], moment: Moment) -> Any:
        """Constraints on how a command changes from what was applied before."""
        now, before = column(moment.commands), column(moment.before)
        where, moved = library(now).where, now != before
        match c:
            case RateConstraint():
                limit = self._limits[c.group, c.signal]
                start = before.clip(limit.minimum, limit.maximum)  # the way back into the range is free
                return c.per_second * moment.dt_s - abs(now - start)
            case AccelerationConstraint():
                change = column(_history(c, moment).change)
                return c.per_second2 * moment.dt_s**2 - abs(now - before - change)
            case DeadbandConstraint():
                return where(moved, abs(now - before) - c.width, c.width)
            case DwellConstraint():
                held_s = column(_history(c, moment).held_s)
                bound = moved if c.level is None else moved & _at(before, c.level)
                return where(bound, held_s - c.minimum_s, c.minimum_s)
            case SwitchesConstraint():
                return c.per_hour - column(_history(c, moment).n_changes) - where(moved, 1.0, 0.0)
            case TransitionConstraint():
                legal = now == before
                for a, b in c.legal:
                    legal = legal | (_at(before, a) & _at(now, b))
                return where(legal, now * 0.0 + 1.0, -1.0)
        raise ContractError(f"constraint {c.name!r}: kind {c.kind!r} has no margin; give it one in {__name__}")


def _history(c: Constraint, moment: Moment) -> History:
    if moment.history is None:
        raise ContractError(
            f"constraint {c.name!r}: kind {c.kind!r} looks back further than one period; give the moment a history, "
            "kept with History.start and History.after"
        )
    return moment.history


def _at(value: Any, level: float) -> Any:
    return abs(value - level) <= 1e-6 * (1.0 + abs(level))


def _inside(value: Any, minimum: float | None, maximum: float | None) -> Any:
    if minimum is None:
        return maximum - value
    if maximum is None:
        return value - minimum
    return library(value).minimum(value - minimum, maximum - value)


def _sum(group: Group, c: SumConstraint | SumRateConstraint, moment: Moment, present: Any) -> Any:
    column = group.index("commanded", c.signal)

    def total(commands: Any) -> Any:
        values = commands[group.name][..., column]
        if present is not None:
            values = library(values).where(present, values, 0.0)
        if c.weights is None:
            return values.sum(-1)
        return (values * library(values).asarray(c.weights, dtype=values.dtype, device=values.device)).sum(-1)

    if isinstance(c, SumConstraint):
        return _inside(total(moment.commands), c.minimum, c.maximum)
    change = total(moment.commands) - total(moment.before)
    down = None if c.down_per_second is None else -c.down_per_second * moment.dt_s
    return _inside(change, down, None if c.up_per_second is None else c.up_per_second * moment.dt_s)


def _conflict(group: Group, c: ConflictConstraint, moment: Moment, present: Any) -> Any:
    """1 where no pair stands together, else -1."""
    commands = moment.commands[group.name]
    margin = commands[..., 0, 0] * 0.0 + 1.0
    for pair in c.pairs:
        both: Any = True
        for asset, signal, level in pair:
            i = group.assets.index(asset)
            both = both & _at(commands[..., i, group.index("commanded", signal)], level)
            if present is not None:
                both = both & present[..., i]
        margin = library(commands).where(both, -1.0, margin)
    return margin


def _separation(group: Group, c: SeparationConstraint, moment: Moment, present: Any) -> Any:
    """Distance to the nearest other asset, less the distance to keep."""
    measured = moment.measured[group.name]
    lib = library(measured)
    square: Any = 0.0
    for name in c.positions:
        x = measured[..., group.index("measured", name)]
        square = square + (x[..., :, None] - x[..., None, :]) ** 2
    alone = lib.eye(group.n_assets, device=measured.device) > 0
    if present is not None:
        alone = alone | ~(present[..., :, None] & present[..., None, :])
    # The root is taken where it has a gradient: an asset is at distance 0 of itself.
    distance = lib.where(alone, math.inf, lib.sqrt(lib.where(alone, 1.0, square)))
    return lib.amin(distance, -1) - c.distance


def _exclusive(group: Group, c: ExclusiveConstraint, commands: Any) -> Any:
    """1 less the number of signals off neutral."""
    margin: Any = 1.0
    for name in c.signals:
        column = group.index("commanded", name)
        margin = margin - library(commands).where(_at(commands[..., column], group.commanded[column].neutral), 0.0, 1.0)
    return margin


def _barrier(c: BarrierConstraint, measured: Any) -> Any:
    """Barriers are numpy's: torch tensors go there and back, without a gradient."""
    lib = library(measured)
    values = measured if lib is np else measured.detach().cpu().numpy()
    h = c.barrier(values.reshape(-1, values.shape[-1]).astype(np.float64)).h.reshape(values.shape[:-1])
    return h if lib is np else lib.asarray(h, dtype=measured.dtype, device=measured.device)
