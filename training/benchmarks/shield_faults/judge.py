"""The suite's own arithmetic: is what a plant is told within what its site declares?

Written a third time on purpose, from the meaning of each kind and with nothing of the shield's, since a mistake that
filter and second look shared would otherwise pass. What no command within reach could keep is no complaint, as long as
the site comes no farther from it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    ConflictConstraint,
    Constraint,
    Declaration,
    DwellConstraint,
    ExclusiveConstraint,
    LookAheadConstraint,
    RangeConstraint,
    RateConstraint,
    RowsConstraint,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
)

Floats = NDArray[np.float64]
Limits = Mapping[str, tuple[float | None, float | None]]
SLACK = 1e-6
HOUR_S = 3600.0


@dataclass
class Track:
    """What one command did so far: its last change, when it last changed, and all the times of its changes."""

    change: float = 0.0
    since_s: float = -math.inf
    times_s: list[float] = field(default_factory=list)


class Judge:
    """Follows what a plant obeys and complains, in words, about what it is told."""

    def __init__(self, declaration: Declaration) -> None:
        self._plate = declaration.nameplate
        self._hard: tuple[Constraint, ...] = declaration.hard
        self._tracks: dict[tuple[str, int, int], Track] = {}

    def complaints(
        self, before: Mapping[str, Floats], sent: Mapping[str, Floats], now_s: float, dt_s: float,
        limits: Limits | None = None, *, known: bool = True, acts: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> list[str]:  # fmt: skip
        """What is wrong with ``sent`` ``[N, A]`` a group after ``before``, told at ``now_s``.

        ``known`` False: the shield can't know ``before``, so that changes are not judged. ``acts`` ``[N]`` a group:
        False for an asset that is told nothing.
        """
        found = list(self._shapes(sent))
        if found:
            return found
        for c in self._hard:
            told = list(self._of(c, before, sent, now_s, dt_s, limits or {}, known, acts))
            found += [f"{c.name}: {text}" for text in told]
        for group in self._plate.groups:
            for (i, asset), (k, s) in itertools.product(enumerate(group.assets), enumerate(group.commanded)):
                value = float(sent[group.name][i, k])
                if s.levels is not None and value not in s.levels:
                    found.append(f"{group.name}/{asset}/{s.name}: {value} is none of {s.levels}")
        return found

    def follow(self, before: Mapping[str, Floats], obeyed: Mapping[str, Floats], now_s: float) -> None:
        """Take note of what the plant obeys from ``now_s`` on."""
        for group in self._plate.groups:
            for i, k in itertools.product(range(group.n_assets), range(len(group.commanded))):
                track = self._tracks.setdefault((group.name, i, k), Track())
                then, now = float(before[group.name][i, k]), float(obeyed[group.name][i, k])
                track.change = now - then
                if now != then:
                    track.since_s = now_s
                    track.times_s.append(now_s)

    def _shapes(self, sent: Mapping[str, Floats]) -> list[str]:
        found = []
        for g in self._plate.groups:
            array = sent.get(g.name)
            if not isinstance(array, np.ndarray) or array.shape != (g.n_assets, len(g.commanded)):
                found.append(f"{g.name}: {type(array).__name__} of shape {getattr(array, 'shape', '-')}")
            elif not np.isfinite(array).all():
                found.append(f"{g.name}: not finite")
        return found

    def _of(
        self, c: Constraint, before: Mapping[str, Floats], sent: Mapping[str, Floats], now_s: float, dt_s: float,
        limits: Limits, known: bool, acts: Mapping[str, NDArray[np.bool_]] | None,
    ) -> list[str]:  # fmt: skip
        """What one constraint has to say."""
        group = getattr(c, "group", "")
        if isinstance(c, SumConstraint | SumRateConstraint):
            return self._sum(c, before[group], sent[group], dt_s, limits, known)
        if isinstance(c, ConflictConstraint):
            return self._conflict(c, sent[group])
        if isinstance(c, ExclusiveConstraint):
            return self._exclusive(c, before[group], sent[group])
        if isinstance(c, SeparationConstraint | BarrierConstraint | RowsConstraint | LookAheadConstraint):
            return []  # rows on what is measured: the plant's own state tells whether they were kept
        plate = self._plate.group(group)
        if c.signal not in [s.name for s in plate.commanded]:
            return []
        k = plate.index("commanded", c.signal)
        found = []
        for i, asset in enumerate(plate.assets):
            if acts is not None and not acts[group][i]:
                continue
            v, b = float(sent[group][i, k]), float(before[group][i, k])
            track = self._tracks.get((group, i, k), Track())
            text = self._one(c, v, b, track, now_s, dt_s, known)
            if text:
                found.append(f"{asset}: {text}")
        return found

    def _one(self, c: Constraint, v: float, b: float, track: Track, now_s: float, dt_s: float, known: bool) -> str:
        if isinstance(c, RangeConstraint):
            return "" if c.minimum <= v <= c.maximum else f"{v} outside {c.minimum} to {c.maximum}"
        if not known:
            return ""
        low, high = self._range(c)
        inside = min(max(b, low), high)
        if isinstance(c, RateConstraint):
            step = c.per_second * dt_s
            return "" if abs(v - inside) <= step + SLACK else f"changed by {v - inside} where {step} is allowed"
        if inside != b:
            return ""  # the way back into the range is free
        if isinstance(c, AccelerationConstraint):
            q = c.per_second2 * dt_s * dt_s
            step = self._rate(c) * dt_s
            reach = max(low, b - step), min(high, b + step)
            near = max(reach[0], b + track.change - q), min(reach[1], b + track.change + q)
            fine = near[0] > near[1] or near[0] - SLACK <= v <= near[1] + SLACK
            return "" if fine else f"changed by {v - b} after {track.change} where {q} apart is allowed"
        if v == b:
            return ""
        if isinstance(c, DwellConstraint):
            bound = c.level is None or abs(b - c.level) < SLACK
            held_s = now_s - track.since_s
            return f"changed after {held_s} s of {c.minimum_s}" if bound and held_s < c.minimum_s - SLACK else ""
        if isinstance(c, SwitchesConstraint):
            recent = sum(now_s - t < HOUR_S - SLACK for t in track.times_s)
            return f"{recent + 1} changes in an hour" if recent + 1 > c.per_hour else ""
        if isinstance(c, TransitionConstraint):
            known = any(abs(b - level) < SLACK for level in self._levels(c))  # from between levels any one is legal
            legal = any(abs(b - p) < SLACK and v == q for p, q in c.legal)
            return "" if legal or not known else f"{b} to {v} is not legal"
        return ""

    def _levels(self, c: TransitionConstraint) -> tuple[float, ...]:
        plate = self._plate.group(c.group)
        return plate.commanded[plate.index("commanded", c.signal)].levels or ()

    def _range(self, c: Constraint) -> tuple[float, float]:
        return self._limits_of(c)[:2]

    def _rate(self, c: Constraint) -> float:
        return self._limits_of(c)[2]

    def _limits_of(self, c: Constraint) -> tuple[float, float, float]:
        plate = self._plate.group(c.group)  # type: ignore[union-attr]  # asked of constraints on a command only
        s = plate.commanded[plate.index("commanded", c.signal)]  # type: ignore[union-attr]  # as above
        low, high, rate = s.minimum, s.maximum, s.rate_limit_per_s or math.inf
        for other in self._hard:
            if (getattr(other, "group", ""), getattr(other, "signal", "")) != (plate.name, s.name):
                continue
            if isinstance(other, RangeConstraint):
                low, high = max(low, other.minimum), min(high, other.maximum)
            elif isinstance(other, RateConstraint):
                rate = min(rate, other.per_second)
        return low, high, rate

    def _sum(
        self, c: SumConstraint | SumRateConstraint, before: Floats, sent: Floats, dt_s: float, limits: Limits,
        known: bool,
    ) -> list[str]:  # fmt: skip
        k = self._plate.group(c.group).index("commanded", c.signal)
        weights = np.ones(len(sent)) if c.weights is None else np.array(c.weights)
        now, then = float(weights @ sent[:, k]), float(weights @ before[:, k])
        if isinstance(c, SumRateConstraint):
            up = math.inf if c.up_per_second is None else c.up_per_second * dt_s
            down = math.inf if c.down_per_second is None else c.down_per_second * dt_s
            fine = not known or -down - SLACK <= now - then <= up + SLACK
            return [] if fine else [f"changed by {now - then}"]
        least, most = limits.get(c.name, (None, None))
        high = min(x for x in (math.inf, c.maximum, most) if x is not None)
        low = max(x for x in (-math.inf, c.minimum, least) if x is not None)
        # beyond a limit that was tightened, or at a start outside, the sum must come back as far as its ranges let it
        least_one, most_one = self._limits_of(c)[:2]
        floor = float(np.minimum(weights * least_one, weights * most_one).sum())
        ceiling = float(np.maximum(weights * least_one, weights * most_one).sum())
        if now > max(high, floor) + SLACK and not now < then - SLACK:
            return [f"{now} above {high}"]
        return [f"{now} below {low}"] if now < min(low, ceiling) - SLACK and not now > then + SLACK else []

    def _conflict(self, c: ConflictConstraint, sent: Floats) -> list[str]:
        plate, found = self._plate.group(c.group), []
        for pair in c.pairs:
            at = [sent[plate.assets.index(a), plate.index("commanded", s)] == level for a, s, level in pair]
            if all(at):
                found.append(f"{pair} stand together")
        return found

    def _exclusive(self, c: ExclusiveConstraint, before: Floats, sent: Floats) -> list[str]:
        plate, found = self._plate.group(c.group), []
        columns = [plate.index("commanded", s) for s in c.signals]
        rest = np.array([plate.commanded[k].neutral for k in columns])
        for i, asset in enumerate(plate.assets):
            off = np.abs(sent[i, columns] - rest) > SLACK
            was_off = np.abs(before[i, columns] - rest) > SLACK
            if off.sum() > 1 and was_off.sum() <= 1:
                found.append(f"{asset}: {int(off.sum())} off neutral")
        return found
