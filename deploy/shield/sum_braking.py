"""Room to brake before the end of a sum, for commands that cannot stop at once.

Commands with an acceleration limit go on moving after the period in which they are told to stop. With ``A = a dt^2``
and :func:`~.braking.stopping_distance` ``T(c)``, the way that a change ``c`` covers until it stands, a sum can be kept
for ever if ``total + sum |w| T(c) <= end`` over the commands that move towards that end: each brakes by ``A``, and
``T(max(c - A, 0)) = T(c) - c`` is the way that is then left. So the reach of each is narrowed to a change that leaves
this room, shared out by ``A``, and the end of the sum is moved in by what they will still cover after this period.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import AccelerationConstraint, Declaration, SumConstraint
from .braking import stopping_distance
from .compiled import FlatCommands

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Limits = Mapping[str, tuple[float | None, float | None]]

_HALVINGS = 60


class SumBraking:
    """Hard sums of one declaration in which commands have an acceleration limit; calls are pure."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
        brake = np.full(flat.n, np.inf)
        for c in declaration.hard:
            if isinstance(c, AccelerationConstraint):
                at = flat.index(plate, c.group, c.signal)
                brake[at] = np.minimum(brake[at], c.per_second2 * plate.period_s**2)
        self._rows: list[tuple[SumConstraint, Indices, Floats, Indices, Floats, Floats]] = []
        for c in declaration.hard:
            if not isinstance(c, SumConstraint):
                continue
            index = flat.index(plate, c.group, c.signal)
            weights = np.ones(len(index)) if c.weights is None else np.array(c.weights, dtype=np.float64)
            group = plate.group(c.group)
            if group.commanded[group.index("commanded", c.signal)].levels is not None:
                continue  # a level is left at once
            slow = np.isfinite(brake[index]) & (weights != 0.0)
            if slow.any():
                self._rows.append((c, index, weights, index[slow], weights[slow], brake[index[slow]]))
        self.any = bool(self._rows)

    def narrowed(
        self, asked: Floats, low: Floats, high: Floats, applied: Floats, limits: Limits
    ) -> tuple[Floats, Floats, Limits]:
        """``low``, ``high`` ``[n]`` and ends of sums by name that leave room to brake.

        ``asked``: ``[n]``, inside ``low`` to ``high``, what is wanted of a command; ``applied``: ``[n]``; ``limits``:
        ends of sums at run time. What a command can't avoid moving, it moves.
        """
        low, high, ends = low.copy(), high.copy(), dict(limits)
        for c, index, weights, slow, slow_weights, brake in self._rows:
            least, most = ends.get(c.name, (None, None))
            total = float(weights @ applied[index])
            for sign, declared, ordered in ((1.0, c.maximum, most), (-1.0, c.minimum, least)):
                given = [sign * end for end in (declared, ordered) if end is not None]
                if not given:
                    continue
                toward = np.sign(sign * slow_weights)
                size = np.abs(slow_weights)
                start = applied[slow]
                reach = np.where(toward > 0, high[slow] - start, start - low[slow])
                forced = np.maximum(np.where(toward > 0, low[slow] - start, start - high[slow]), 0.0)
                most_change = np.maximum(reach, forced)
                wanted = np.minimum(np.maximum(toward * (asked[slow] - start), forced), most_change)
                change = _allowed(forced, wanted, most_change, size, brake, min(given) - sign * total)
                narrows = bool((change < most_change).any())
                if not narrows and len(slow) == len(index):
                    continue  # whatever they do, they can still stop
                still = change if narrows else wanted
                left = float(size @ (stopping_distance(still, brake) - still))
                if left <= 0.0 and not narrows:
                    continue
                up, down = toward > 0, toward < 0
                if narrows:
                    high[slow[up]] = np.minimum(high[slow[up]], start[up] + change[up])
                    low[slow[down]] = np.maximum(low[slow[down]], start[down] - change[down])
                end = sign * (min(given) - left)
                now_least, now_most = ends.get(c.name, (None, None))
                ends[c.name] = (now_least, end) if sign > 0 else (end, now_most)
        return np.minimum(low, high), np.maximum(low, high), ends


def _allowed(forced: Floats, wanted: Floats, reach: Floats, size: Floats, brake: Floats, room: float) -> Floats:
    """The largest changes ``[k]`` towards the end that can be stopped within ``room``: ``reach`` if all of it can be,
    else at least what is ``wanted`` if that can be, else what is left of it, shared out by ``brake``."""

    def fits(changes: Floats) -> bool:
        return float(size @ stopping_distance(changes, brake)) <= room

    if fits(reach):
        return reach
    least, most = (wanted, reach) if fits(wanted) else (forced, wanted)

    def change(periods: float) -> Floats:
        return np.minimum(np.maximum(brake * periods, least), most)

    few, many = 0.0, float((most / brake).max())
    for _ in range(_HALVINGS):
        middle = 0.5 * (few + many)
        few, many = (middle, many) if fits(change(middle)) else (few, middle)
    return change(few)
