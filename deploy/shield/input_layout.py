"""All measured signals of a site in one flat vector, with what the input guard knows of each.

The order is that of the nameplate: groups, in each its assets, in each its measured signals, ``M`` in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError
from ...envs.nameplate import Group, Nameplate, Signal
from .settings import ShieldSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int32]

STEPS_IN_GATE = 3.0
"""A gate is as wide as so many of the largest steps that the signal took lately."""

NEVER = 2**30
"""Periods after which something happens that never happens."""

MEASURED_RATE_SLACK = 1.1
"""How much faster than its nameplate rate a measured signal may seem to change: sampling is never exact."""


@dataclass(frozen=True)
class Part:
    """One group in the flat vector: ``n_assets`` rows of ``n_signals``, from ``first`` to before ``end``."""

    group: Group
    first: int
    end: int
    n_assets: int
    n_signals: int
    first_agent: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.end)

    @property
    def agents(self) -> slice:
        return slice(self.first_agent, self.first_agent + self.n_assets)

    def table(self, vector: NDArray[np.generic]) -> NDArray[np.generic]:
        """The group's part of a flat vector as a view ``[N, O]``."""
        return vector[self.first : self.end].reshape(self.n_assets, self.n_signals)


@dataclass(frozen=True)
class InputLayout:
    """``low``, ``high``, ``span``: the declared ranges; ``turn``: a full turn of an angle, infinite for other signals;
    ``jump``: how far a value may move in a period, infinite where nothing is declared; ``calm``: how far it may at
    least move before it is asked whether it was swapped or is in another unit; ``frozen_after``, ``stuck_after``:
    counts, ``[M]`` each. ``forgets``: what is left of a gate after a period."""

    parts: tuple[Part, ...]
    low: Floats
    high: Floats
    span: Floats
    turn: Floats
    jump: Floats
    calm: Floats
    frozen_after: Counts
    stuck_after: Counts
    counts: bool
    turns: bool
    forgets: float

    @property
    def n(self) -> int:
        return len(self.low)

    def gates(self, gate: Floats, apart: Floats) -> Floats:
        """The gates ``[M]`` after steps ``apart`` ``[M]`` that were believed: a signal that steps far does so again."""
        return np.maximum(np.maximum(gate * self.forgets, apart * STEPS_IN_GATE), self.calm)

    def distance(self, a: Floats, b: Floats) -> Floats:
        """How far values ``[M]`` are apart; angles the short way round."""
        apart = np.abs(a - b)
        return np.minimum(apart, np.abs(self.turn - apart)) if self.turns else apart


def input_layout(nameplate: Nameplate, settings: ShieldSettings) -> InputLayout:
    """Work out the flat vector. Raises :class:`ConfigurationError` for settings of signals that do not exist."""
    known = {s.name for g in nameplate.groups for s in g.measured}
    for key in ("frozen_after_periods", "stuck_after_periods", "jump_per_s", "jump_pu"):
        for name in getattr(settings, key):
            if name not in known:
                raise ConfigurationError(
                    f"shield.{key}: {name!r} is no measured signal of {nameplate.site!r}; it has {sorted(known)}"
                )
    parts: list[Part] = []
    first, agent = 0, 0
    for group in nameplate.groups:
        n_assets, n_signals = group.n_assets, len(group.measured)
        parts.append(Part(group, first, first + n_assets * n_signals, n_assets, n_signals, agent))
        first, agent = first + n_assets * n_signals, agent + n_assets

    def each(value: Callable[[Signal], float]) -> Floats:
        tiles = [np.tile(np.array([value(s) for s in p.group.measured], dtype=np.float64), p.n_assets) for p in parts]
        return np.concatenate(tiles)

    def after(periods: Mapping[str, int]) -> Counts:
        return each(lambda s: periods.get(s.name, NEVER)).astype(np.int32)

    low, high = each(lambda s: s.minimum), each(lambda s: s.maximum)
    jump = each(lambda s: _jump(s, nameplate.period_s, settings))
    step = settings.confusion_step_pu
    calm = np.full_like(jump, np.inf) if step is None else step * (high - low)
    calm = np.where(each(lambda s: float(s.relayed)) > 0.0, np.inf, calm)  # after a loss a message jumps for a reason
    turn = each(lambda s: s.maximum - s.minimum if s.circular else np.inf)
    return InputLayout(
        tuple(parts), low, high, high - low, turn, jump, calm,
        after(settings.frozen_after_periods), after(settings.stuck_after_periods),
        bool(settings.frozen_after_periods or settings.stuck_after_periods), bool(np.isfinite(turn).any()),
        1.0 if step is None else min(1.0, step) ** (1.0 / settings.confusion_learn_periods),
    )  # fmt: skip


def _jump(signal: Signal, period_s: float, settings: ShieldSettings) -> float:
    """The tightest of what is declared, per period."""
    found = [np.inf]
    if signal.rate_limit_per_s is not None:
        found.append(signal.rate_limit_per_s * MEASURED_RATE_SLACK * period_s)
    if signal.name in settings.jump_per_s:
        found.append(settings.jump_per_s[signal.name] * period_s)
    if signal.name in settings.jump_pu:
        found.append(settings.jump_pu[signal.name] * (signal.maximum - signal.minimum))
    return min(found)
