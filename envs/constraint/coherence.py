"""Does a declaration make sense? All faults at once, each with where, what came, what is allowed and what to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass

from ..errors import nearest
from ..nameplate import Group, Nameplate, Signal
from .coupled import ConflictConstraint, SeparationConstraint, SumConstraint, SumRateConstraint
from .kinds import Constraint
from .limits import Limit, effective_limits
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
from .safe_state import SafeState
from .safe_state_faults import safe_state_faults
from .state import BarrierConstraint, LookAheadConstraint, MeasuredConstraint, RowsConstraint


def faults(nameplate: Nameplate, constraints: Sequence[Constraint], safe_states: Mapping[str, SafeState]) -> list[str]:
    """Return everything that is wrong; empty for a declaration that can be kept as far as data tell.

    What a constraint says alone comes first; only when that is sound is it asked whether all can be kept together and
    whether the safe states keep them.
    """
    found = [f"constraint {c.name!r}: {fault}" for c in constraints for fault in _of_one(nameplate, c)]
    for name, times in Counter(c.name for c in constraints).items():
        if times > 1:
            found.append(f"constraint {name!r}: the name stands {times} times; give each its own name or priority")
    if found:
        return found
    limits = effective_limits(nameplate, constraints)
    sums = [f"constraint {c.name!r}: {text}" for c in constraints for text in _empty_sum(nameplate, c, limits)]
    return [*sums, *safe_state_faults(nameplate, constraints, safe_states, limits)]


def _of_one(nameplate: Nameplate, c: Constraint) -> Iterator[str]:
    if c.priority is not None and (isinstance(c.priority, bool) or not isinstance(c.priority, int) or c.priority < 0):
        yield f"priority {c.priority!r}; give a whole number from 0 on, the smallest is kept longest, or None if hard"
    if isinstance(c, LookAheadConstraint):
        yield from _look_ahead(c)
        return
    group = next((g for g in nameplate.groups if g.name == c.group), None)
    if group is None:
        names = [g.name for g in nameplate.groups]
        yield f"group {c.group!r} is not on the nameplate; groups: {', '.join(names)}{nearest(c.group, names)}"
        return
    match c:
        case ExclusiveConstraint():
            yield from _exclusive(group, c)
        case ConflictConstraint():
            yield from _conflict(group, c)
        case SeparationConstraint():
            yield from _separation(group, c)
        case BarrierConstraint():
            yield from _barrier(c)
        case RowsConstraint():
            yield from _named("rows", c.rows)
        case MeasuredConstraint():
            yield from _measured(group, c)
        case SumConstraint() | SumRateConstraint():
            yield from _sum(group, c)
        case _:
            yield from _local(group, c)


def _signal(group: Group, kind: str, name: str) -> tuple[Signal | None, str]:
    """The signal, or None and what is wrong."""
    signals: tuple[Signal, ...] = getattr(group, kind)
    for s in signals:
        if s.name == name:
            return s, ""
    names = [s.name for s in signals]
    return (
        None,
        f"{kind} signal {name!r} is not in group {group.name!r}; there: {', '.join(names)}{nearest(name, names)}",
    )


def _unit(came: str, signal: Signal) -> Iterator[str]:
    if came != signal.unit:
        yield f"unit {came!r}, but {signal.name} is in {signal.unit!r}; convert the limit"


def _positive(what: str, value: float, unit: str) -> Iterator[str]:
    if not (math.isfinite(value) and value > 0):
        yield f"{what} {value} {unit} must be finite and positive; give a limit, or leave the constraint out"


def _local(
    group: Group,
    c: RangeConstraint
    | RateConstraint
    | AccelerationConstraint
    | DeadbandConstraint
    | DwellConstraint
    | SwitchesConstraint
    | TransitionConstraint,
) -> Iterator[str]:
    signal, missing = _signal(group, "commanded", c.signal)
    if signal is None:
        yield missing
        return
    yield from _unit(c.unit, signal)
    match c:
        case RangeConstraint():
            yield from _range(signal, c)
        case RateConstraint():
            yield from _positive("rate", c.per_second, f"{c.unit}/s")
            if signal.rate_limit_per_s is not None and c.per_second > signal.rate_limit_per_s:
                yield (
                    f"rate {c.per_second:g} {c.unit}/s is above the nameplate's {signal.rate_limit_per_s:g}; "
                    "a constraint may only tighten, so lower it or mend the nameplate"
                )
        case AccelerationConstraint():
            yield from _positive("acceleration", c.per_second2, f"{c.unit}/s2")
        case DeadbandConstraint():
            yield from _positive("width", c.width, c.unit)
            if c.priority is None:
                yield "a deadband must give way to hard limits; give it a priority"
            if c.width >= signal.maximum - signal.minimum:
                yield f"width {c.width:g} {c.unit} is the whole range or more, so nothing could change; make it smaller"
        case DwellConstraint():
            yield from _positive("minimum_s", c.minimum_s, "s")
            if c.level is not None:
                yield from _level(signal, c.level)
        case SwitchesConstraint():
            if isinstance(c.per_hour, bool) or not isinstance(c.per_hour, int) or c.per_hour < 1:
                yield f"per_hour {c.per_hour!r} must be a whole number from 1 on"
        case TransitionConstraint():
            if not c.legal:
                yield "legal () lets nothing ever change; list the legal pairs (from, to)"
            for level in sorted({v for pair in c.legal for v in pair}):
                yield from _level(signal, level)


def _range(signal: Signal, c: RangeConstraint) -> Iterator[str]:
    if not c.minimum <= c.maximum:
        yield f"range [{c.minimum}, {c.maximum}] is inverted or not a number; give minimum <= maximum"
        return
    if c.minimum < signal.minimum or c.maximum > signal.maximum:
        yield (
            f"range [{c.minimum:g}, {c.maximum:g}] {c.unit} leaves the nameplate's "
            f"[{signal.minimum:g}, {signal.maximum:g}]; narrow it, since a constraint may only tighten"
        )
    if c.priority is None and not c.minimum <= signal.neutral <= c.maximum:
        yield (
            f"the neutral command {signal.neutral:g} is outside [{c.minimum:g}, {c.maximum:g}] {c.unit}; "
            "neutral must be allowed at all times, so widen the range or mend the nameplate"
        )
    if signal.levels is not None and not any(c.minimum <= v <= c.maximum for v in signal.levels):
        yield f"none of the levels {signal.levels} is in [{c.minimum:g}, {c.maximum:g}]; widen the range"


def _level(signal: Signal, level: float) -> Iterator[str]:
    if signal.levels is None:
        yield f"{signal.name} has no levels, and the constraint names {level:g}; declare levels on the nameplate"
    elif level not in signal.levels:
        yield f"level {level:g} is none of {signal.name}'s {signal.levels}; take one of these"


def _exclusive(group: Group, c: ExclusiveConstraint) -> Iterator[str]:
    if len(set(c.signals)) < 2 or len(set(c.signals)) != len(c.signals):
        yield f"signals {c.signals}; name two or more, each once"
    for name in c.signals:
        signal, missing = _signal(group, "commanded", name)
        if signal is None:
            yield missing


def _conflict(group: Group, c: ConflictConstraint) -> Iterator[str]:
    if not c.pairs:
        yield "pairs () forbid nothing; list pairs of (asset, signal, level), or leave the constraint out"
    for first, second in c.pairs:
        if first[:2] == second[:2]:
            yield f"{first} and {second} are of one command, which has one level at a time; name two commands"
        for asset, name, level in (first, second):
            if asset not in group.assets:
                yield f"asset {asset!r} is not in group {group.name!r}; name its own{nearest(asset, group.assets)}"
            signal, missing = _signal(group, "commanded", name)
            if signal is None:
                yield missing
            else:
                yield from _level(signal, level)


def _sum(group: Group, c: SumConstraint | SumRateConstraint) -> Iterator[str]:
    signal, missing = _signal(group, "commanded", c.signal)
    if signal is None:
        yield missing
        return
    if c.weights is None:
        yield from _unit(c.unit, signal)
    elif len(c.weights) != group.n_assets:
        yield f"{len(c.weights)} weights for {group.n_assets} assets; give one an asset"
        return
    elif not all(math.isfinite(w) for w in c.weights) or not any(c.weights):
        yield f"weights {c.weights} must be finite, and one of them not zero"
        return
    if isinstance(c, SumRateConstraint):
        if c.up_per_second is None and c.down_per_second is None:
            yield "neither up_per_second nor down_per_second; give one of them"
        for what, value in (("up_per_second", c.up_per_second), ("down_per_second", c.down_per_second)):
            if value is not None:
                yield from _positive(what, value, f"{c.unit}/s")
        return
    yield from _ends(c.minimum, c.maximum)


def _empty_sum(nameplate: Nameplate, c: Constraint, limits: Mapping[tuple[str, str], Limit]) -> Iterator[str]:
    """A sum that no commands within the hard ranges can keep; what is soft needn't be possible."""
    if not isinstance(c, SumConstraint) or c.priority is not None:
        return
    limit, weights = limits[c.group, c.signal], c.weights or (1.0,) * nameplate.group(c.group).n_assets
    least = math.fsum(w * (limit.minimum if w > 0 else limit.maximum) for w in weights)
    most = math.fsum(w * (limit.maximum if w > 0 else limit.minimum) for w in weights)
    if c.maximum is not None and least > c.maximum:
        yield f"maximum {c.maximum:g} {c.unit}, but the least sum that the ranges allow is {least:g}; raise it"
    if c.minimum is not None and most < c.minimum:
        yield f"minimum {c.minimum:g} {c.unit}, but the most that the ranges allow is {most:g}; lower it"


def _ends(minimum: float | None, maximum: float | None) -> Iterator[str]:
    if minimum is None and maximum is None:
        yield "neither minimum nor maximum; give one of them"
    for what, value in (("minimum", minimum), ("maximum", maximum)):
        if value is not None and not math.isfinite(value):
            yield f"{what} {value} must be finite; leave it out if there is none"
    if minimum is not None and maximum is not None and minimum > maximum:
        yield f"minimum {minimum:g} is above maximum {maximum:g}; swap or widen them"


def _separation(group: Group, c: SeparationConstraint) -> Iterator[str]:
    yield from _positive("distance", c.distance, c.unit)
    yield from _positive("gain_per_s", c.gain_per_s, "1/s")
    if c.braking is not None:
        yield from _positive("braking", c.braking, f"{c.unit}/s2")
    if not c.positions or len(c.positions) != len(c.velocities):
        yield f"{len(c.positions)} positions and {len(c.velocities)} velocities; give one of each an axis"
    if group.n_assets < 2:
        yield f"group {group.name!r} has one asset; separation needs two"
    for kind, names, unit in (("measured", c.positions, c.unit), ("commanded", c.velocities, f"{c.unit}/s")):
        for name in names:
            signal, missing = _signal(group, kind, name)
            if signal is None:
                yield missing
            elif signal.unit != unit:
                yield f"{name} is in {signal.unit!r}; a distance in {c.unit!r} needs {unit!r}, so convert one of them"


def _measured(group: Group, c: MeasuredConstraint) -> Iterator[str]:
    signal, missing = _signal(group, "measured", c.signal)
    if signal is None:
        yield missing
        return
    yield from _unit(c.unit, signal)
    yield from _ends(c.minimum, c.maximum)
    if signal.circular:
        yield f"{c.signal} wraps around, so it has no largest value; take a signal that does not"


def _barrier(c: BarrierConstraint) -> Iterator[str]:
    yield from _positive("gain_per_s", c.gain_per_s, "1/s")
    if c.gain2_per_s is not None:
        yield from _positive("gain2_per_s", c.gain2_per_s, "1/s")
    if not (math.isfinite(c.margin) and c.margin >= 0):
        yield f"margin {c.margin} must be finite and not negative"
    yield from _named("barrier", c.barrier)


def _look_ahead(c: LookAheadConstraint) -> Iterator[str]:
    if not c.backups or len(set(c.backups)) != len(c.backups):
        yield f"backups {c.backups}; name one or more, each once, in the order to try them"
    if isinstance(c.horizon_periods, bool) or not isinstance(c.horizon_periods, int) or c.horizon_periods < 1:
        yield f"horizon_periods {c.horizon_periods!r} must be a whole number from 1 on"
    yield from _named("foresight", c.foresight)


def _named(what: str, function: object) -> Iterator[str]:
    """The declaration's hash tells functions by name, so a name must mean one function."""
    if is_dataclass(function) and not isinstance(function, type):
        return
    name = getattr(function, "__qualname__", "")
    if not name or "<" in name:
        yield f"{what} is {name or type(function).__name__}; give a function of a module, or a frozen dataclass"
