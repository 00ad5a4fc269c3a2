"""The limiter of last resort: the simplest safe command of one asset, in plain Python, from what it obeys now.

Each command walks from the one applied towards the asset's safe state: within its range, its rate and, as far as these
two leave room, its acceleration; discrete ones hop along legal changes. It asks neither the policy nor any solver.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .command_table import LEVEL_TOLERANCE, Asset, Command


def last_resort(
    asset: Asset,
    commands: Sequence[Command],
    applied: Sequence[float],
    change: Sequence[float],
    locked: Sequence[bool],
    elapsed_s: float,
) -> list[float]:
    """Commands ``[A]`` of ``asset``; all sequences are over all commands of the site.

    ``applied``: what it obeys now, NaN where unknown; ``change``: the last change; ``locked``: no change is due yet
    (dwell, switches). Range comes first, then rate, then the rest.
    """
    row: list[float] = []
    for k in range(asset.first, asset.first + asset.n):
        c, before = commands[k], applied[k]
        target = c.safe if c.safe is not None else before
        others = [j for together in asset.exclusive if k in together.columns for j in together.columns if j != k]
        if any(not abs(applied[j] - commands[j].neutral) <= LEVEL_TOLERANCE for j in others):
            target = c.neutral  # nothing leaves neutral while its rival is off it
        if not math.isfinite(before):  # unknown: the only command that is safe to start from
            row.append(c.neutral if c.safe is None or others else c.safe)
        elif c.levels is not None:
            row.append(_hop(c, before, target, locked[k], elapsed_s))
        else:
            row.append(_walk(c, before, target, change[k], locked[k], elapsed_s))
    return row


def _walk(c: Command, before: float, target: float, change: float, locked: bool, elapsed_s: float) -> float:
    start = min(max(before, c.minimum), c.maximum)
    if start != before or locked:
        return start  # outside, the range wins: its nearest end
    move = target - before
    if c.per_second2 < math.inf:
        q, size = c.per_second2 * elapsed_s * elapsed_s, abs(move)
        # the largest step that still stops at the target, a step shorter by q each period: d + q d (d / q - 1) / 2
        stops = size if size <= q else max(q, math.sqrt(2.0 * q * size) - 0.5 * q)
        move = min(max(math.copysign(stops, move), change - q), change + q)
    step = c.per_second * elapsed_s if c.per_second < math.inf else math.inf
    move = min(max(move, -step), step)
    there = target if move == target - before else before + move  # so that rounding never misses the target
    return min(max(there, c.minimum), c.maximum)


def _hop(c: Command, before: float, target: float, locked: bool, elapsed_s: float) -> float:
    levels = c.levels or (c.neutral,)
    here = c.level(before)
    if here is None:  # between levels: the nearest one
        return min(levels, key=lambda v: (abs(v - before), v))
    there = dict(c.hops).get(here, here) if target == c.safe else target
    near = abs(there - here) <= c.per_second * elapsed_s * (1.0 + 1e-9) if c.per_second < math.inf else True
    legal = c.legal is None or (here, there) in c.legal
    return there if there in levels and near and legal and not locked else here
