"""Does the shield intervene more often than it did at commissioning? A cumulative sum of surprises (Page 1954).

A shield that acts often says that the policy, the plant or the constraints are no longer what they were. For an asset
whose proposals were changed in a share ``rate`` of the periods, to notice a share of ``factor * rate``, each period
adds the log-likelihood ratio of the two. Where a change is worth a whole number ``m`` of quiet periods (Reynolds &
Stoumbos 1999) the sum is an integer, ``S' = max(0, S + (m - 1 if changed else -1))``, alarm at ``S' >= H``, and its
average run length is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.errors import ConfigurationError
from ....envs.nameplate import Nameplate
from ..causes import Cause
from .monitor import Alarms, Memory, Seen

Floats = NDArray[np.float64]

_HIGHEST = 100_000


@dataclass(frozen=True)
class CusumDesign:
    """``worth``: ``m``, quiet periods that one change is worth; ``height``: ``H``; ``run_length``: periods to a false
    alarm at ``rate``, on average; ``delay``: periods to the alarm at ``factor`` times the rate, on average."""

    rate: float
    worth: int
    height: int
    run_length: float
    delay: float


def design(rate: float, factor: float = 3.0, run_length: float = 1e5, least_rate: float = 0.005) -> CusumDesign:
    """The lowest alarm height with an average run length of at least ``run_length`` periods at ``rate``.

    A ``rate`` below ``least_rate`` counts as that: a policy that was never changed must not be alarmed by the first
    change. Raises :class:`ConfigurationError` for rates that leave nothing to detect.
    """
    low = max(rate, least_rate)
    high = factor * low
    if not (rate >= 0.0 and low > 0.0 and factor > 1.0 and high < 1.0 and run_length > 1.0):
        raise ConfigurationError(
            f"intervention drift: rate {rate:g}, times {factor:g}, run length {run_length:g}; the rate at "
            "commissioning and its multiple must be shares below 1, the factor and the run length above 1"
        )
    quiet = -math.log((1.0 - high) / (1.0 - low))
    worth = max(2, round(math.log(high * (1.0 - low) / (low * (1.0 - high))) / quiet))
    for height in _heights(run_length):
        found = average_run_length(low, worth, height)
        if found >= run_length:
            break
    least, most = height // 2, height
    while most - least > 1:
        middle = (least + most) // 2
        enough = average_run_length(low, worth, middle) >= run_length
        least, most = (least, middle) if enough else (middle, most)
    return CusumDesign(low, worth, most, average_run_length(low, worth, most), average_run_length(high, worth, most))


def _heights(run_length: float) -> Any:
    height = 1
    while height <= _HIGHEST:
        yield height
        height *= 2
    raise ConfigurationError(
        f"intervention drift: no sum of up to {_HIGHEST} reaches a run length of {run_length:g}; ask for a shorter "
        "one, or for a larger factor"
    )


def average_run_length(rate: float, worth: int, height: int) -> float:
    """Periods until the alarm, on average, from a sum of 0, where a share ``rate`` of the periods has a change.

    The sum falls by one a quiet period, so that it must pass every level on its way down. The chance to meet the alarm
    before a level is left downwards, and the expected time until either, follow from those of higher levels by sums and
    products of positive terms, so that nothing cancels (the Markov chain of Brook & Evans 1972, solved by its
    structure).
    """
    jump = worth - 1
    alarm, time = np.zeros(height + 1), np.zeros(height + 1)
    for s in range(height - 1, 0, -1):
        met, spent = _descent(alarm, time, s + jump, s, height)
        leaves = 1.0 - rate + rate * met
        alarm[s], time[s] = rate * met / leaves, (1.0 + rate * spent) / leaves
    met, spent = _descent(alarm, time, jump, 0, height)
    return float((1.0 + rate * spent) / (rate * met)) if met > 0.0 else math.inf


def _descent(alarm: Floats, time: Floats, start: int, end: int, height: int) -> tuple[float, float]:
    """From level ``start`` down to ``end``: the chance to meet the alarm before, and the expected time until either."""
    if start >= height:
        return 1.0, 0.0
    levels = slice(start, end, -1)
    fine = np.cumsum(np.log1p(-alarm[levels]))
    return float(-np.expm1(fine[-1])), float(time[start] + (time[levels][1:] * np.exp(fine[:-1])).sum())


class DriftMonitor:
    """Alarms an asset whose proposals are changed more often than at commissioning.

    ``designs``: one an agent name ``group/asset`` or a group's name, from :func:`design`. The sum stops at twice the
    alarm height, so that an alarm ends once the shield has been quiet long enough.
    """

    name = "drift"

    def __init__(
        self, nameplate: Nameplate, designs: Mapping[str, CusumDesign], cause: Cause = Cause.INTERVENTION_DRIFT
    ) -> None:
        self._groups = nameplate.groups
        self._cause = cause
        known = {g.name for g in nameplate.groups} | set(nameplate.agents)
        wrong = sorted(set(designs) - known)
        if wrong:
            raise ConfigurationError(
                f"intervention drift: {', '.join(wrong)} are not of this site; give groups or agents: {sorted(known)}"
            )
        self._worth: dict[str, NDArray[np.int64]] = {}
        self._height: dict[str, NDArray[np.int64]] = {}
        for g in nameplate.groups:
            own = [designs.get(f"{g.name}/{asset}", designs.get(g.name)) for asset in g.assets]
            self._worth[g.name] = np.array([0 if d is None else d.worth for d in own], np.int64)
            self._height[g.name] = np.array([2**31 if d is None else d.height for d in own], np.int64)

    def start(self) -> Memory:
        return {f"sum/{g.name}": np.zeros(g.n_assets, np.int64) for g in self._groups}

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        after: dict[str, NDArray[Any]] = {}
        alarms: Alarms = {}
        for group in self._groups:
            name, height = group.name, self._height[group.name]
            surprise = np.where(seen.changed[name], self._worth[name], 0) - 1
            total = np.clip(memory[f"sum/{name}"] + surprise, 0, 2 * height)
            after[f"sum/{name}"] = np.where(seen.present[name], total, memory[f"sum/{name}"])
            raised = after[f"sum/{name}"] >= height
            alarms |= {f"{name}/{group.assets[i]}": self._cause for i in np.flatnonzero(raised)}
        return after, alarms
