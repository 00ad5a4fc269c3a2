"""Do the safe states keep what was declared, and can every asset get there in time?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ..errors import nearest
from ..nameplate import Group, Nameplate
from .coupled import ConflictConstraint, SumConstraint
from .kinds import Constraint
from .limits import Limit
from .local import ExclusiveConstraint
from .safe_state import SafeState

SLACK = 1e-9
KINDS = ("hold", "neutral", "values", "ramp_to")
Targets = dict[str, tuple[float, ...] | None]


def safe_state_faults(
    nameplate: Nameplate,
    constraints: Sequence[Constraint],
    safe_states: Mapping[str, SafeState],
    limits: Mapping[tuple[str, str], Limit],
) -> list[str]:
    """Return everything that is wrong, for constraints that are sound by themselves and their effective limits."""
    found: list[str] = []
    targets: Targets = {}
    known = {g.name for g in nameplate.groups} | set(nameplate.agents)
    for key in safe_states.keys() - known:
        found.append(
            f"safe state of {key!r}: no such group or group/asset{nearest(key, known)}; name one of the site's"
        )
    for group in nameplate.groups:
        for asset in group.assets:
            agent = f"{group.name}/{asset}"
            key = agent if agent in safe_states else group.name
            state = safe_states.get(key, SafeState())
            complaints = list(_of_one(nameplate, group, state, limits))
            found += [f"safe state of {key!r}: {text}" for text in complaints]
            targets[agent] = None if complaints else state.target(group)
    found = list(dict.fromkeys(found))  # a group's state is wrong once, not once an asset
    return found or [text for c in constraints if c.priority is None for text in _together(nameplate, c, targets)]


def _of_one(
    nameplate: Nameplate, group: Group, state: SafeState, limits: Mapping[tuple[str, str], Limit]
) -> Iterator[str]:
    if state.kind not in KINDS:
        yield f"kind {state.kind!r}; must be one of {', '.join(KINDS)}{nearest(str(state.kind), KINDS)}"
        return
    names = [s.name for s in group.commanded]
    for name in state.values.keys() - set(names):
        yield f"{name!r} is no command; there: {', '.join(names)}{nearest(name, names)}"
    if bool(state.values) != (state.kind in ("values", "ramp_to")):
        yield f"kind {state.kind!r} with values {dict(state.values)}; values go with values and ramp_to, and only there"
    if state.kind == "ramp_to" and state.within_s is None:
        yield "ramp_to has no within_s; give the seconds that the ramp takes"
    if state.within_s is not None and not (math.isfinite(state.within_s) and state.within_s > 0):
        yield f"within_s {state.within_s} must be finite and positive"
        return
    if state.kind == "hold":
        if state.within_s is not None:
            yield "hold arrives at once; leave within_s out"
        return
    for signal, value in zip(group.commanded, state.target(group) or (), strict=True):
        limit = limits[group.name, signal.name]
        if not limit.minimum <= value <= limit.maximum:
            yield (
                f"{signal.name} {value:g} is outside [{limit.minimum:g}, {limit.maximum:g}] {signal.unit}; "
                "choose a value inside the limits"
            )
            continue
        if signal.levels is not None:
            if value not in signal.levels:
                yield f"{signal.name} {value:g} is none of the levels {signal.levels}; choose one of them"
            elif stranded := limit.stranded(value, nameplate.period_s):
                levels = ", ".join(f"{v:g}" for v in stranded)
                yield (
                    f"{signal.name} {value:g} {signal.unit} can't be reached from {levels} "
                    "by rate and legal changes; allow a way, or choose another value"
                )
            continue
        least_s = limit.time_s(max(value - limit.minimum, limit.maximum - value), nameplate.period_s)
        if state.within_s is not None and least_s > state.within_s:
            yield (
                f"{signal.name} needs up to {least_s:g} s to reach {value:g} {signal.unit} within its rate, "
                f"and within_s is {state.within_s:g}; give it more time"
            )


def _together(nameplate: Nameplate, c: Constraint, targets: Targets) -> Iterator[str]:
    """Hard constraints that the safe states of all assets together would break; ``hold`` breaks none that was kept."""
    if not isinstance(c, SumConstraint | ConflictConstraint | ExclusiveConstraint):
        return
    group = nameplate.group(c.group)
    rows = {asset: targets[f"{c.group}/{asset}"] for asset in group.assets}
    remedy = "declare safe states that keep it"
    match c:
        case SumConstraint():
            held = [row for row in rows.values() if row is not None]
            if len(held) < group.n_assets:  # holding assets keep their share of a sum that was kept
                return
            column, weights = group.index("commanded", c.signal), c.weights or (1.0,) * group.n_assets
            total = math.fsum(w * row[column] for w, row in zip(weights, held, strict=True))
            slack = SLACK * (1.0 + abs(total))
            low = -math.inf if c.minimum is None else c.minimum
            high = math.inf if c.maximum is None else c.maximum
            if not low - slack <= total <= high + slack:
                yield f"constraint {c.name!r}: the safe states sum up to {total:g} {c.unit}, {c.describe()}; {remedy}"
        case ConflictConstraint():
            for one, other in c.pairs:
                at = [
                    (row := rows[asset]) is not None and row[group.index("commanded", signal)] == level
                    for asset, signal, level in (one, other)
                ]
                if all(at):
                    yield f"constraint {c.name!r}: the safe states bring {one} and {other} together; {remedy}"
        case ExclusiveConstraint():
            for asset, row in rows.items():
                if row is None:
                    continue
                columns = [group.index("commanded", s) for s in c.signals]
                off = [group.commanded[k].name for k in columns if row[k] != group.commanded[k].neutral]
                if len(off) > 1:
                    yield f"constraint {c.name!r}: the safe state of {asset} has {', '.join(off)} off neutral; {remedy}"
