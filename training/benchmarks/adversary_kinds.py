"""Policies and networks that mean harm, for a batch of replicas at once; each is a pure function of its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import (
    BarrierConstraint,
    Declaration,
    LookAheadConstraint,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
)
from ...envs.nameplate import Group
from ...envs.plant import Quality, Telemetry

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Measured = Mapping[str, Floats]

_BEYOND = 0.25  # share of its range by which a proposal may leave it on either side
_SWEEP = 17  # periods in which sums are pushed one way before they are pushed the other
_LONG_SWEEP = 50
_DELAY = 15  # periods after which old messages come again


class Hostile:
    """White noise beyond the range, from which the others differ; sound messages.

    ``steer`` may change proposals in place, for sites that a policy must not leave.
    """

    name = "white noise"
    faulty_messages = False

    def __init__(
        self, declaration: Declaration, n_replicas: int, seed: int,
        steer: Callable[[dict[str, Floats], Measured], None] | None = None,
    ) -> None:  # fmt: skip
        self.declaration, self.n_replicas = declaration, n_replicas
        self.rng = np.random.default_rng(seed)
        self._steer = steer
        plate = declaration.nameplate
        self.bounds = {g.name: (g.lower("commanded"), g.upper("commanded")) for g in plate.groups}
        self._good = {
            g.name: np.full((g.n_assets, len(g.measured)), int(Quality.GOOD), dtype=np.int8) for g in plate.groups
        }

    def proposals(self, step: int, measured: Measured, applied: Measured) -> list[Any]:
        chosen = {g.name: self.choose(g, step, measured, applied) for g in self.declaration.nameplate.groups}
        if self._steer is not None:
            self._steer(chosen, measured)
        return [{name: value[row] for name, value in chosen.items()} for row in range(self.n_replicas)]

    def readings(self, step: int, now_s: float, measured: Measured) -> list[Telemetry | None]:
        times = {name: np.full(value.shape[1:], now_s) for name, value in measured.items()}
        return [
            Telemetry({name: value[row] for name, value in measured.items()}, times, self._good, now_s, step)
            for row in range(self.n_replicas)
        ]

    def lost(self, step: int) -> Bools:
        return np.zeros(self.n_replicas, dtype=np.bool_)

    def choose(self, group: Group, step: int, measured: Measured, applied: Measured) -> Floats:
        """Commands ``[B, N, A]`` of a group."""
        low, high = self.bounds[group.name]
        share = self.rng.uniform(-_BEYOND, 1.0 + _BEYOND, (self.n_replicas, group.n_assets, len(low)))
        return np.asarray(low + share * (high - low))


class BangBang(Hostile):
    """One end of the range or the other, changed at random: each command on its own, or all at once."""

    name = "bang-bang"

    def choose(self, group: Group, step: int, measured: Measured, applied: Measured) -> Floats:
        low, high = self.bounds[group.name]
        shape = (self.n_replicas, group.n_assets, len(low))
        together = np.broadcast_to(self.rng.random((self.n_replicas, 1, len(low))), shape)
        share = np.where(self.rng.random((self.n_replicas, 1, 1)) < 0.5, together, self.rng.random(shape))
        return np.asarray(np.where(share < 0.5, low, high))


class Steepest(Hostile):
    """What breaks most: barriers down their gradient, assets towards their nearest neighbour, sums all the way up and
    down again, what is looked ahead for one way for long, and everything else as far from what is applied as there
    is."""

    name = "steepest violation"

    def choose(self, group: Group, step: int, measured: Measured, applied: Measured) -> Floats:
        low, high = self.bounds[group.name]
        rising = (step // _SWEEP) % 2 == 0
        if any(isinstance(c, LookAheadConstraint) for c in self.declaration.constraints):
            end = low if (step // _LONG_SWEEP) % 2 else high
            found = np.tile(end, (self.n_replicas, group.n_assets, 1))
        else:
            found = np.where(applied[group.name] > 0.5 * (low + high), low, high)
        for c in self.declaration.constraints:
            if getattr(c, "group", None) != group.name:
                continue
            match c:
                case SumConstraint() | SumRateConstraint():
                    column = group.index("commanded", c.signal)
                    weights = np.ones(group.n_assets) if c.weights is None else np.array(c.weights)
                    up = (weights > 0) == rising
                    found[..., column] = np.where(up, high[column], low[column])
                case BarrierConstraint():
                    self._down(c, group, measured, found)
                case SeparationConstraint():
                    self._towards(c, group, measured, found)
        return found

    def _down(self, c: BarrierConstraint, group: Group, measured: Measured, found: Floats) -> None:
        """Of several barriers, the one with the least value is pushed down."""
        seen = measured[group.name]
        terms = c.barrier(seen.reshape(-1, seen.shape[-1]))
        low, high = self.bounds[group.name]
        control = terms.control.reshape(found.shape)
        others = [
            o.barrier(seen.reshape(-1, seen.shape[-1])).h
            for o in self.declaration.constraints
            if isinstance(o, BarrierConstraint) and o.group == group.name and o is not c
        ]
        nearest = terms.h <= np.min([*others, np.full(len(terms.h), np.inf)], axis=0)
        pushed = np.where(control > 0, low, high)
        moves = (control != 0) & nearest.reshape(found.shape[:2])[..., None]
        found[:] = np.where(moves, pushed, found)

    def _towards(self, c: SeparationConstraint, group: Group, measured: Measured, found: Floats) -> None:
        at = np.stack([measured[group.name][..., group.index("measured", p)] for p in c.positions], axis=-1)
        apart = at[:, None, :, :] - at[:, :, None, :]
        distance = np.linalg.norm(apart, axis=-1) + np.where(np.eye(group.n_assets, dtype=bool), np.inf, 0.0)
        nearest = distance.argmin(axis=-1)
        way = np.take_along_axis(apart, nearest[..., None, None], axis=2)[..., 0, :]
        way = way / np.maximum(np.abs(way).max(axis=-1, keepdims=True), 1e-9)
        for axis, name in enumerate(c.velocities):
            column = group.index("commanded", name)
            low, high = self.bounds[group.name]
            found[..., column] = np.where(
                way[..., axis] > 0, way[..., axis] * high[column], -way[..., axis] * low[column]
            )


class Replay(Steepest):
    """Proposals of others and of earlier: what was worst for another asset some periods ago."""

    name = "replayed commands"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: dict[str, list[Floats]] = {}

    def choose(self, group: Group, step: int, measured: Measured, applied: Measured) -> Floats:
        kept = self._kept.setdefault(group.name, [])
        kept.append(super().choose(group, step, measured, applied))
        if len(kept) > _DELAY:
            kept.pop(0)
        return np.asarray(np.roll(kept[0], 1, axis=(0, 1)[step % 2]))


class NumberBursts(BangBang):
    """Bang-bang with bursts in which nothing that is proposed is a command."""

    name = "NaN bursts"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._left = np.zeros(self.n_replicas, dtype=np.int64)
        self._kind = np.zeros(self.n_replicas, dtype=np.int64)

    def proposals(self, step: int, measured: Measured, applied: Measured) -> list[Any]:
        found = super().proposals(step, measured, applied)
        starts = (self._left == 0) & (self.rng.random(self.n_replicas) < 0.1)
        self._left = np.where(starts, self.rng.integers(1, 9, self.n_replicas), np.maximum(self._left - 1, 0))
        self._kind = np.where(starts, self.rng.integers(0, 7, self.n_replicas), self._kind)
        for row in np.flatnonzero(self._left).tolist():
            found[row] = self._broken(int(self._kind[row]), found[row])
        return found

    def _broken(self, kind: int, sound: dict[str, Floats]) -> Any:
        def each(change: Callable[[Floats], Any]) -> dict[str, Any]:
            return {name: change(value) for name, value in sound.items()}

        return (
            lambda: each(lambda v: np.full_like(v, np.nan)),
            lambda: each(lambda v: np.where(self.rng.random(v.shape) < 0.5, np.nan, v)),
            lambda: each(lambda v: np.where(v > 0, np.inf, -np.inf)),
            lambda: each(lambda v: v * 1e30),
            lambda: each(lambda v: v[:-1]),
            lambda: each(lambda v: [["open"]]),
            lambda: None,
        )[kind]()


class ReplayedMessages(BangBang):
    """Bang-bang over a network that repeats old readings with new and old numbers, and loses readings and writes."""

    name = "replayed and lost messages"
    faulty_messages = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._old: list[list[Telemetry | None]] = []

    def readings(self, step: int, now_s: float, measured: Measured) -> list[Telemetry | None]:
        fresh = super().readings(step, now_s, {name: value.copy() for name, value in measured.items()})
        self._old.append(list(fresh))
        if len(self._old) > _DELAY:
            self._old.pop(0)
        fate = self.rng.random(self.n_replicas)
        for row, old in enumerate(self._old[0]):
            if fate[row] < 0.15:
                fresh[row] = old
            elif fate[row] < 0.3 and old is not None:  # dressed up as new
                times = {name: np.full(t.shape, now_s) for name, t in old.source_time_s.items()}
                fresh[row] = Telemetry(old.values, times, old.quality, now_s, step)
            elif fate[row] < 0.4:
                fresh[row] = None
        return fresh

    def lost(self, step: int) -> Bools:
        return np.asarray(self.rng.random(self.n_replicas) < 0.1)


KINDS: tuple[type[Hostile], ...] = (BangBang, Steepest, Replay, Hostile, NumberBursts, ReplayedMessages)
