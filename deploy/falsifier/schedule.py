"""A schedule of what goes wrong, as a point of the unit cube: what a search moves, and what a replay needs.

The coordinates of one schedule, in order: command levels by pattern, signal and time; how often they flip; bursts of
commands that are none; writes that get lost and faulty readings, where these are searched; parameters of the twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Group, Nameplate
from ...envs.plant import Quality, Telemetry
from ...envs.twin import Parameter

Floats = NDArray[np.float64]

_BEYOND = 0.25  # share of its range by which a proposal may leave it on either side
_FLIPS = (0, 1, 2, 4, 8)  # periods after which commands flip to the other side of their range; 0: never
_COMMAND_FAULTS = ("nan", "inf", "none", "shape", "text")
_N_COMMAND_BURSTS, _N_LOSSES, _N_READING_FAULTS = 2, 2, 2
_LONGEST = 0.2  # share of the trial that one fault may last


class ReadingFault(StrEnum):
    """The seven failures of a sensor that MAVLink names, and what networks add."""

    OFF = "off"
    STUCK = "stuck"
    GARBAGE = "garbage"
    BIASED = "biased"
    SCALED = "scaled"
    NOT_A_NUMBER = "not_a_number"
    STALE = "stale"
    FUTURE = "future"
    BAD_QUALITY = "bad_quality"
    REPEATED = "repeated"


@dataclass(frozen=True)
class Event:
    """Something between two steps, the last excluded, at every ``every``-th asset from ``first`` on."""

    kind: str
    begin: int
    end: int
    first: int = 0
    every: int = 1
    size: float = 0.0

    def on(self, step: int) -> bool:
        return self.begin <= step < self.end

    def describe(self) -> str:
        return f"{self.kind} in periods {self.begin} to {self.end - 1}"


@dataclass(frozen=True, eq=False)
class Schedule:
    """``levels``: ``[K, P, S]``, in shares of the range, by time, pattern (asset index modulo P) and command signal of
    all groups; ``flips``: ``[S]``, periods; ``parameters``: of the twin, by name."""

    n_steps: int
    levels: Floats
    flips: NDArray[np.int64]
    bursts: tuple[Event, ...]
    losses: tuple[Event, ...]
    readings: tuple[Event, ...]
    parameters: Mapping[str, float]

    def share(self, step: int, n_assets: int, first: int, n_signals: int) -> Floats:
        """What a group is told, in shares of the range, ``[N, A]``; its signals stand at ``first`` among all."""
        at = self.levels[min(step * len(self.levels) // self.n_steps, len(self.levels) - 1)]
        share = at[np.arange(n_assets) % at.shape[0], first : first + n_signals]
        flips = self.flips[first : first + n_signals]
        flipped = (flips > 0) & ((step // np.maximum(flips, 1)) % 2 == 1)
        return np.asarray(np.where(flipped, 1.0 - share, share))

    def describe(self) -> str:
        """One line: the faults and how commands go."""
        events = [e.describe() for e in (*self.bursts, *self.losses, *self.readings) if e.end > e.begin]
        flips = sorted({int(f) for f in self.flips if f})
        told = f"commands {self.levels.min():.2f} to {self.levels.max():.2f} of their range"
        return "; ".join([told + (f", flipped every {flips} periods" if flips else ""), *events])


@dataclass(frozen=True)
class Space:
    """All schedules of a nameplate: ``n_knots`` command levels in time for each of ``n_patterns`` and signal."""

    nameplate: Nameplate
    n_steps: int
    parameters: tuple[Parameter, ...] = ()
    faulty_messages: bool = False
    n_knots: int = 4
    n_patterns: int = 3

    @property
    def n_signals(self) -> int:
        return sum(len(g.commanded) for g in self.nameplate.groups)

    @property
    def n_dimensions(self) -> int:
        levels = self.n_knots * self.n_patterns * self.n_signals
        messages = 3 * _N_LOSSES + 6 * _N_READING_FAULTS if self.faulty_messages else 0
        return levels + self.n_signals + 3 * _N_COMMAND_BURSTS + messages + len(self.parameters)

    def schedule(self, point: Floats) -> Schedule:
        """The schedule of a point ``[n_dimensions]`` of the unit cube; what leaves the cube counts as its edge."""
        z = np.clip(point, 0.0, 1.0)
        n = self.n_knots * self.n_patterns * self.n_signals
        levels = -_BEYOND + (1.0 + 2.0 * _BEYOND) * z[:n].reshape(self.n_knots, self.n_patterns, self.n_signals)
        flips = np.array([_FLIPS[_choice(v, len(_FLIPS))] for v in z[n : n + self.n_signals]], dtype=np.int64)
        rest = iter(z[n + self.n_signals :].tolist())
        bursts = tuple(self._event(_COMMAND_FAULTS, rest) for _ in range(_N_COMMAND_BURSTS))
        losses: tuple[Event, ...] = ()
        readings: tuple[Event, ...] = ()
        if self.faulty_messages:
            losses = tuple(self._event(("write lost",), rest) for _ in range(_N_LOSSES))
            readings = tuple(self._event(tuple(ReadingFault), rest, wide=True) for _ in range(_N_READING_FAULTS))
        parameters = {p.name: p.minimum + (p.maximum - p.minimum) * next(rest) for p in self.parameters}
        return Schedule(self.n_steps, levels, flips, bursts, losses, readings, parameters)

    def _event(self, kinds: tuple[str, ...], rest: Any, *, wide: bool = False) -> Event:
        kind = str(kinds[_choice(next(rest), len(kinds))])
        begin = int(next(rest) * self.n_steps)
        # half of the coordinate is "none at all", so that a search can drop a fault
        length = int(max(0.0, 2.0 * next(rest) - 1.0) * _LONGEST * self.n_steps + 0.5)
        if not wide:
            return Event(kind, begin, min(begin + length, self.n_steps))
        first, every, size = next(rest), next(rest), next(rest)
        n_every = 1 + _choice(every, 3)
        return Event(kind, begin, min(begin + length, self.n_steps), _choice(first, n_every), n_every, 2.0 * size - 1.0)


def proposal(schedule: Schedule, step: int, nameplate: Nameplate) -> Any:
    """What a policy that follows the schedule proposes: commands ``[N, A]`` a group, or what is none."""
    found: dict[str, Any] = {}
    first = 0
    for group in nameplate.groups:
        share = schedule.share(step, group.n_assets, first, len(group.commanded))
        first += len(group.commanded)
        low, high = group.lower("commanded"), group.upper("commanded")
        values = low + share * (high - low)
        for column, signal in enumerate(group.commanded):
            if signal.levels is not None:  # a level where the share is one, what lies beyond the range where it is not
                levels = np.sort(np.array(signal.levels, dtype=np.float64))
                at = np.clip((share[:, column] * len(levels)).astype(np.int64), 0, len(levels) - 1)
                inside = (share[:, column] >= 0.0) & (share[:, column] <= 1.0)
                values[:, column] = np.where(inside, levels[at], values[:, column])
        found[group.name] = values
    for burst in schedule.bursts:
        if burst.on(step):
            if burst.kind == "none":
                return None
            return {name: _spoiled(value, burst.kind) for name, value in found.items()}
    return found


def reading(
    schedule: Schedule, step: int, truth: Mapping[str, Floats], frozen: Mapping[str, Floats], now_s: float,
    nameplate: Nameplate, rng: np.random.Generator,
) -> Telemetry | None:  # fmt: skip
    """What arrives of the measured values ``[N, O]`` a group; ``frozen`` are those of the trial's beginning."""
    values = {name: value.copy() for name, value in truth.items()}
    times = {name: np.full(value.shape, now_s) for name, value in truth.items()}
    quality = {name: np.full(value.shape, int(Quality.GOOD), dtype=np.int8) for name, value in truth.items()}
    sequence = step
    for event in schedule.readings:
        if not event.on(step):
            continue
        match event.kind:
            case ReadingFault.OFF:
                return None
            case ReadingFault.REPEATED:
                sequence = event.begin
            case _:
                for group in nameplate.groups:
                    at = slice(event.first, None, event.every)
                    _disturb(event, group, at, values[group.name], times[group.name], quality[group.name], frozen, rng)
    return Telemetry(values, times, quality, now_s, sequence)


def _disturb(
    event: Event, group: Group, at: slice, values: Floats, times: Floats, quality: NDArray[np.int8],
    frozen: Mapping[str, Floats], rng: np.random.Generator,
) -> None:  # fmt: skip
    """Spoil rows of one group's reading in place."""
    low, high = group.lower("measured"), group.upper("measured")
    match event.kind:
        case ReadingFault.STUCK:
            values[at] = frozen[group.name][at]
        case ReadingFault.GARBAGE:
            values[at] = rng.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), values[at].shape)
        case ReadingFault.BIASED:
            values[at] += event.size * (high - low)
        case ReadingFault.SCALED:
            values[at] *= 10.0 ** (3.0 * event.size)
        case ReadingFault.NOT_A_NUMBER:
            values[at] = np.nan
        case ReadingFault.STALE:
            times[at] -= 1e4
        case ReadingFault.FUTURE:
            times[at] += 1e4
        case ReadingFault.BAD_QUALITY:
            quality[at] = int(Quality.BAD)


def _spoiled(value: Floats, kind: str) -> Any:
    match kind:
        case "nan":
            return np.full_like(value, np.nan)
        case "inf":
            return np.where(np.arange(value.size).reshape(value.shape) % 2, np.inf, -np.inf)
        case "shape":
            return value[..., None]
        case _:
            return "full speed"


def _choice(share: float, n: int) -> int:
    return min(int(share * n), n - 1)
