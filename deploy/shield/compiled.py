"""All commands of a site in one flat vector, with the indices into it worked out once.

The order is that of the nameplate: groups, in each its assets, in each its commanded signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from .sums import Filled, fill

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class FlatCommands:
    """The flat vector of ``n`` commands: its parts ``(group, first, N, A)``, full names, and limits ``[n]`` each.

    ``rate`` is per second, infinite where there is none; a command's range is always finite.
    """

    parts: tuple[tuple[str, int, int, int], ...]
    names: tuple[str, ...]
    lower: Floats
    upper: Floats
    rate: Floats
    neutral: Floats
    asset: Indices
    """Which agent (in the nameplate's order) a command belongs to."""

    @property
    def n(self) -> int:
        return len(self.names)

    def flat(self, commands: Mapping[str, Floats]) -> Floats:
        """Commands ``[N, A]`` a group as one vector ``[n]``. Raises ``KeyError`` or ``ValueError`` for others."""
        if len(self.parts) == 1:
            name, _, n_assets, n_signals = self.parts[0]
            alone = commands[name]
            if type(alone) is np.ndarray and alone.dtype.char == "d" and alone.shape == (n_assets, n_signals):
                return alone.reshape(-1).copy()
        vector = np.empty(self.n)
        for name, part, shape in self._views:
            vector[part].reshape(shape)[:] = commands[name]
        return vector

    def grouped(self, vector: Floats) -> dict[str, Floats]:
        """The inverse: views ``[N, A]`` into ``vector`` by group."""
        if len(self.parts) == 1:
            name, _, n_assets, n_signals = self.parts[0]
            return {name: vector.reshape(n_assets, n_signals)}
        return {name: vector[part].reshape(shape) for name, part, shape in self._views}

    @cached_property
    def _views(self) -> tuple[tuple[str, slice, tuple[int, int]], ...]:
        return tuple((name, slice(first, first + n * a), (n, a)) for name, first, n, a in self.parts)

    def index(self, nameplate: Nameplate, group: str, signal: str) -> Indices:
        """Where a signal of all assets of a group stands, ``[N]``."""
        column = nameplate.group(group).index("commanded", signal)
        for name, first, n_assets, n_signals in self.parts:
            if name == group:
                return np.asarray(first + column + n_signals * np.arange(n_assets), dtype=np.intp)
        raise ConfigurationError(f"group {group!r} has no commands; it stands in no sum")

    def reach(self, applied: Floats, elapsed_s: float) -> tuple[Floats, Floats]:
        """Lowest and highest commands ``[n]`` within range and rate; the range wins where ``applied`` is outside it."""
        step = np.where(np.isinf(self.rate), np.inf, self.rate * elapsed_s)
        low = np.maximum(self.lower, np.minimum(applied - step, self.upper))
        high = np.minimum(self.upper, np.maximum(applied + step, self.lower))
        return low, high


def flat_commands(nameplate: Nameplate) -> FlatCommands:
    """Work out the flat vector of a nameplate."""
    parts: list[tuple[str, int, int, int]] = []
    lower, upper, rate, neutral, asset = [], [], [], [], []
    first, agent = 0, 0
    for group in nameplate.groups:
        n_assets, n_signals = group.n_assets, len(group.commanded)
        parts.append((group.name, first, n_assets, n_signals))
        rates = [np.inf if s.rate_limit_per_s is None else s.rate_limit_per_s for s in group.commanded]
        lower.append(np.tile(group.lower("commanded"), n_assets))
        upper.append(np.tile(group.upper("commanded"), n_assets))
        rate.append(np.tile(np.array(rates, dtype=np.float64), n_assets))
        neutral.append(np.tile(group.neutral(), n_assets))
        asset.append(np.repeat(np.arange(agent, agent + n_assets), n_signals))
        first += n_assets * n_signals
        agent += n_assets
    return FlatCommands(
        tuple(parts), nameplate.signal_names("commanded"), np.concatenate(lower), np.concatenate(upper),
        np.concatenate(rate), np.concatenate(neutral), np.concatenate(asset),
    )  # fmt: skip


class DeclaredSum(Protocol):
    """What a sum limit declares: weights one an asset (None: ones), ends in the signal's unit (None: no end)."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def signal(self) -> str: ...
    @property
    def weights(self) -> tuple[float, ...] | None: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...


@dataclass(frozen=True)
class SumRow:
    """A sum limit over the flat vector: ``minimum <= weights @ u[index] <= maximum``, infinite where there is no
    end."""

    name: str
    index: Indices
    weights: Floats
    minimum: float
    maximum: float

    def tightened(self, maximum: float | None = None, minimum: float | None = None) -> SumRow:
        """The row with ends from run time; an end that would widen it, or is no number, is not taken."""
        # so asked, a NaN never wins
        most = maximum if maximum is not None and maximum < self.maximum else self.maximum
        least = minimum if minimum is not None and minimum > self.minimum else self.minimum
        return SumRow(self.name, self.index, self.weights, least, most)

    def keep(self, asked: Floats, low: Floats, high: Floats) -> Filled:
        """The nearest commands ``[1, N]`` of this row to ``asked`` ``[n]`` inside ``low`` to ``high`` ``[n]``."""
        at = self.index
        return fill(asked[at], low[at], high[at], self.weights, self.minimum, self.maximum)

    def margin(self, u: Floats) -> float:
        """How far commands ``[n]`` are from the nearer end, below 0 beyond it."""
        total = float(self.weights @ u[self.index])
        return min(self.maximum - total, total - self.minimum)


def sum_rows(nameplate: Nameplate, flat: FlatCommands, declared: Iterable[DeclaredSum]) -> tuple[SumRow, ...]:
    """The rows of declared sum limits.

    Raises :class:`ConfigurationError` for weights that do not fit or are no numbers, for limits that exclude each
    other, and for limits that no commands in range can keep.
    """
    found: list[SumRow] = []
    for d in declared:
        index = flat.index(nameplate, d.group, d.signal)
        weights = np.ones(len(index)) if d.weights is None else np.array(d.weights, dtype=np.float64)
        where = f"sum limit {d.name!r}"
        if weights.shape != index.shape or not np.isfinite(weights).all():
            raise ConfigurationError(
                f"{where}: weights {weights.shape}, expected {len(index)} finite numbers, one an asset of {d.group!r}"
            )
        least = -np.inf if d.minimum is None else d.minimum
        most = np.inf if d.maximum is None else d.maximum
        if not least <= most:
            raise ConfigurationError(f"{where}: minimum {d.minimum} is above maximum {d.maximum}; swap or widen them")
        ends = np.stack([weights * flat.lower[index], weights * flat.upper[index]])
        lowest, highest = float(ends.min(axis=0).sum()), float(ends.max(axis=0).sum())
        if lowest > most or highest < least:
            raise ConfigurationError(
                f"{where}: no commands in range keep it; their sum is {lowest:g} to {highest:g}, "
                f"allowed is {least:g} to {most:g}"
            )
        found.append(SumRow(d.name, index, weights, float(least), float(most)))
    return tuple(found)
