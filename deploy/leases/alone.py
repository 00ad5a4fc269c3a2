"""One asset of a site on its own: what it must keep so that all assets together keep the site's declaration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    ConflictConstraint,
    Constraint,
    Declaration,
    DwellConstraint,
    LookAheadConstraint,
    RowsConstraint,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    constraints_of,
    declare,
    effective_limits,
)
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Group
from .budget import row_shares

Floats = NDArray[np.float64]

FALL_PART = 0.4
"""Part of its own rate at which a lease counts on an asset to come down: below half, the rate of a degraded asset, and
less by what a late period costs."""


@dataclass(frozen=True)
class LeasedRow:
    """A sum of a site, ``sum_i weights_i u_i <= maximum``, ready to be leased; all in the row's unit, ``[N]`` by asset.

    ``shares``: safe with no communication; ``floors``: the least that an asset is asked to come down to; ``most``: what
    the largest lease could allow; ``falls_per_s``: how fast its use surely comes down.
    """

    name: str
    group: str
    signal: str
    weights: tuple[float, ...]
    shares: tuple[float, ...]
    floors: tuple[float, ...]
    most: tuple[float, ...]
    falls_per_s: tuple[float, ...]


def leased_row(declaration: Declaration, name: str) -> LeasedRow:
    """The row of the declared sum ``name``; raises :class:`ConfigurationError` where it can't be leased."""
    row = declaration.constraint(name)
    if not isinstance(row, SumConstraint) or row.maximum is None or row.priority is not None:
        raise ConfigurationError(f"lease of {name!r}: a {row.kind}; only a hard sum with a maximum can be leased")
    for c in declaration.hard:
        jumps = DwellConstraint | SwitchesConstraint | TransitionConstraint | AccelerationConstraint
        if isinstance(c, jumps) and (c.group, c.signal) == (row.group, row.signal):
            raise ConfigurationError(
                f"lease of {name!r}: {c.name!r} could keep {row.signal} from coming down evenly as a lease ends; "
                "lease a command without it"
            )
    group = declaration.nameplate.group(row.group)
    signal = group.commanded[group.index("commanded", row.signal)]
    if signal.levels is not None:
        raise ConfigurationError(f"lease of {name!r}: {row.signal} has levels; only an even command comes down evenly")
    weights, low_u, high_u, low, high = _uses(declaration, row)
    shares = row_shares(weights, low_u, high_u, row.maximum)
    floors = low if row.minimum is None else -row_shares(-weights, low_u, high_u, -row.minimum)
    limit = effective_limits(declaration.nameplate, declaration.constraints)[row.group, row.signal]
    falls = limit.per_second * np.abs(weights)
    for c in declaration.hard:
        if isinstance(c, SumRateConstraint) and (c.group, c.signal) == (row.group, row.signal):
            _, down = _ramps(declaration, c)
            own = np.abs(weights) / np.abs(_weights(c.weights, group))
            falls = falls if down is None else np.minimum(falls, down * own)
    return LeasedRow(
        name,
        row.group,
        row.signal,
        tuple(map(float, weights)),
        tuple(map(float, shares)),
        tuple(map(float, np.minimum(floors, shares))),
        tuple(map(float, np.minimum(high, shares.sum() - (floors.sum() - floors)))),
        tuple(map(float, FALL_PART * falls)),
    )


def alone(declaration: Declaration, row: LeasedRow, asset: str) -> Declaration:
    """The declaration of one asset of the row's group, for a shield of its own.

    The leased sum becomes the asset's own, as wide as any lease could be: its ceiling is an order of each period
    (:mod:`.edge`). Other sums and ramps of sums are cut into fixed shares. Raises :class:`ConfigurationError` where the
    asset alone can't keep its part: distances between assets, conflicts between them, conditions on the whole site, or
    a safe state that needs more than its share.
    """
    plate = declaration.nameplate
    group = plate.group(row.group)
    if asset not in group.assets:
        raise ConfigurationError(f"{asset!r} is no asset of group {row.group!r}; there: {', '.join(group.assets)}")
    place, agent = group.assets.index(asset), f"{row.group}/{asset}"
    safe = declaration.safe_states[agent]
    target = safe.target(group)
    if target is None or row.weights[place] * target[group.index("commanded", row.signal)] > row.shares[place]:
        raise ConfigurationError(
            f"safe state of {agent!r}: {safe.describe()} may use more of {row.name!r} than the share "
            f"{row.shares[place]:g}, which holds when a lease has ended; declare one that does not"
        )
    own = replace(group, assets=(asset,), static_values=group.static_values[place : place + 1])
    small = replace(plate, site=f"{plate.site}.{asset}", groups=(own,))
    implied = constraints_of(plate)
    kept = [c for c in declaration.constraints if c not in implied]
    parts = [part for c in kept for part in _part(declaration, row, group, place, c)]
    return declare(small, parts, {agent: safe})


def _part(declaration: Declaration, row: LeasedRow, group: Group, place: int, c: Constraint) -> Iterator[Constraint]:
    """What one constraint of the site asks of the asset; nothing where it is another group's."""
    if isinstance(c, LookAheadConstraint):
        raise ConfigurationError(
            f"constraint {c.name!r} ({c.kind}) is about the whole site; an asset can't keep it alone"
        )
    if c.group != group.name:
        return
    asset = group.assets[place]
    match c:
        case SumConstraint() if c.name == row.name:
            least = None if c.minimum is None else row.floors[place]
            yield replace(c, weights=(row.weights[place],), minimum=least, maximum=row.most[place])
        case SumConstraint():
            weights, low_u, high_u, _, _ = _uses(declaration, c)
            high = None if c.maximum is None else float(row_shares(weights, low_u, high_u, c.maximum)[place])
            low = None if c.minimum is None else -float(row_shares(-weights, low_u, high_u, -c.minimum)[place])
            yield replace(c, weights=(float(weights[place]),), minimum=low, maximum=high)
        case SumRateConstraint():
            up, down = _ramps(declaration, c)
            yield replace(
                c,
                weights=(float(_weights(c.weights, group)[place]),),
                up_per_second=None if up is None else float(up[place]),
                down_per_second=None if down is None else float(down[place]),
            )
        case ConflictConstraint():
            own = tuple(pair for pair in c.pairs if all(asset == named for named, _, _ in pair))
            if len(own) < sum(any(asset == named for named, _, _ in pair) for pair in c.pairs):
                raise ConfigurationError(
                    f"constraint {c.name!r}: {asset} can't keep a conflict with another asset alone"
                )
            if own:
                yield replace(c, pairs=own)
        case SeparationConstraint() | BarrierConstraint() | RowsConstraint():
            raise ConfigurationError(f"constraint {c.name!r} ({c.kind}) is about a whole group; an asset can't keep it")
        case _:
            yield c


def _weights(weights: tuple[float, ...] | None, group: Group) -> Floats:
    return np.array(weights or (1.0,) * group.n_assets, dtype=np.float64)


def _uses(declaration: Declaration, c: SumConstraint | SumRateConstraint) -> tuple[Floats, ...]:
    """Weights, ranges of the command, and least and largest use, each ``[N]``."""
    group = declaration.nameplate.group(c.group)
    limit = effective_limits(declaration.nameplate, declaration.constraints)[c.group, c.signal]
    weights = _weights(c.weights, group)
    low_u, high_u = np.full(group.n_assets, limit.minimum), np.full(group.n_assets, limit.maximum)
    ends = weights * low_u, weights * high_u
    return weights, low_u, high_u, np.minimum(*ends), np.maximum(*ends)


def _ramps(declaration: Declaration, c: SumRateConstraint) -> tuple[Floats | None, Floats | None]:
    """Fixed shares ``[N]`` of a ramp up and down, by how much each asset's use can move."""
    _, _, _, low, high = _uses(declaration, c)
    part = (high - low) / math.fsum(high - low)
    up, down = c.up_per_second, c.down_per_second
    return None if up is None else up * part, None if down is None else down * part
