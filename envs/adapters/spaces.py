"""Spaces and action maps, derived from the nameplate.

Observations are measured signals in physical units. Actions are commands in physical units, or, for learners that
expect it, scaled to [-1, 1]. A command with ``levels`` is an index into them; where discrete and continuous commands
share one vector, the discrete ones are numbers too and go to the nearest level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ..errors import NumericalError
from ..nameplate import Group, Nameplate, Signal
from ..twin import Readings

Float32 = NDArray[np.float32]
Space = spaces.Space[Any]


def signal_box(signals: Sequence[Signal]) -> spaces.Box:
    """Ranges of ``signals`` as a float32 Box ``(signals,)``."""
    lower = np.array([s.minimum for s in signals], dtype=np.float32)
    return spaces.Box(lower, np.array([s.maximum for s in signals], dtype=np.float32), dtype=np.float32)


def empty_slot(signals: Sequence[Signal]) -> Float32:
    """What an empty slot shows: zero, or where a range excludes zero its end nearest to zero."""
    return np.array([min(max(0.0, s.minimum), s.maximum) for s in signals], dtype=np.float32)


class SignalView:
    """Kinds of signals of all assets as float32 arrays; empty slots show :func:`empty_slot`."""

    def __init__(self, nameplate: Nameplate, kinds: Sequence[str] = ("measured",)) -> None:
        self._nameplate, self._kinds = nameplate, tuple(kinds)
        self._empty = {g.name: empty_slot(self._signals(g)) for g in nameplate.groups}

    def _signals(self, group: Group) -> tuple[Signal, ...]:
        return tuple(s for kind in self._kinds for s in getattr(group, kind))

    def space(self) -> spaces.Box:
        """Of the joint vector: assets in the order of :attr:`Nameplate.agents`, the signals of each side by side."""
        return signal_box([s for g in self._nameplate.groups for _ in g.assets for s in self._signals(g)])

    def group_space(self, group: str) -> spaces.Box:
        """Of one asset of ``group``."""
        return signal_box(self._signals(self._nameplate.group(group)))

    def groups(self, readings: Readings) -> dict[str, Float32]:
        """New arrays ``[B, N, signals]`` per group; raises :class:`NumericalError` for a NaN or infinity."""
        found = {}
        for group in self._nameplate.groups:
            parts = [getattr(readings, kind)[group.name].detach().cpu().numpy() for kind in self._kinds]
            values = np.concatenate(parts, axis=-1, dtype=np.float32, casting="same_kind")
            present = readings.present[group.name].cpu().numpy()
            if not present.all():
                values[~present] = self._empty[group.name]
            if not np.isfinite(values.sum(dtype=np.float64)):
                self._raise_not_finite(group, values)
            found[group.name] = values
        return found

    def joint(self, readings: Readings) -> Float32:
        """New array ``[B, all signals of all assets]``."""
        parts = [values.reshape(len(values), -1) for values in self.groups(readings).values()]
        return np.concatenate(parts, axis=1)

    def _raise_not_finite(self, group: Group, values: Float32) -> None:
        row, asset, column = np.argwhere(~np.isfinite(values))[0]
        name = f"{group.name}/{group.assets[asset]}/{self._signals(group)[column].name}"
        raise NumericalError(
            f"{name} of replica {row} is {values[row, asset, column]}; the twin must give finite numbers, "
            "check its parameters and commands (twinloop.envs.conformance.check_twin finds the step)"
        )


def split_by_group(nameplate: Nameplate, joint: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Commands ``[B, all]`` of all assets as ``[B, N, A]`` per group."""
    found, start = {}, 0
    for group in nameplate.groups:
        width = group.n_assets * len(group.commanded)
        found[group.name] = joint[:, start : start + width].reshape(-1, group.n_assets, len(group.commanded))
        start += width
    return found


class ActionMap:
    """From a learner's actions to commands in physical units, for ``commands`` side by side in one vector.

    Where all commands have levels the space is MultiDiscrete, or Discrete for one command, whose actions have no last
    axis. Else it is a float32 Box of the signals' ranges, or of [-1, 1] where ``normalised``, ends to ends.
    """

    def __init__(self, commands: Sequence[Signal], names: Sequence[str], *, normalised: bool = False) -> None:
        self._commands, self._names = tuple(commands), tuple(names)
        self._lower = np.array([s.minimum for s in commands], dtype=np.float64)
        self._upper = np.array([s.maximum for s in commands], dtype=np.float64)
        self._levels = [(i, np.sort(np.array(s.levels))) for i, s in enumerate(commands) if s.levels is not None]
        self.discrete = len(self._levels) == len(self._commands) > 0
        self.normalised = normalised and not self.discrete

    @staticmethod
    def of_asset(group: Group, *, normalised: bool = False) -> ActionMap:
        """Commands of one asset of ``group``."""
        return ActionMap(group.commanded, [f"{group.name}/{s.name}" for s in group.commanded], normalised=normalised)

    @staticmethod
    def of_site(nameplate: Nameplate, *, normalised: bool = False) -> ActionMap:
        """Commands of all assets, in the order of :attr:`Nameplate.agents`."""
        commands = [s for g in nameplate.groups for _ in g.assets for s in g.commanded]
        return ActionMap(commands, nameplate.signal_names("commanded"), normalised=normalised)

    def space(self) -> Space:
        """A new space; each has a random generator of its own."""
        if self.discrete:
            counts = [len(levels) for _, levels in self._levels]
            return spaces.Discrete(counts[0]) if len(counts) == 1 else spaces.MultiDiscrete(counts)
        if self.normalised:
            return spaces.Box(-1.0, 1.0, (len(self._commands),), dtype=np.float32)
        return signal_box(self._commands)

    def commands(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Commands ``[..., A]`` of ``actions`` ``[..., A]``, or ``[...]`` where the space is Discrete.

        Normalised actions outside [-1, 1] count as the nearer end. Raises :class:`NumericalError` for a NaN.
        """
        if self.discrete:
            return self._from_indices(np.asarray(actions))
        values = np.array(actions, dtype=np.float64)
        if not np.isfinite(values.sum()):
            bad = np.argwhere(~np.isfinite(values))[0]
            raise NumericalError(
                f"action for {self._names[bad[-1]]} (index {bad.tolist()}) is {values[tuple(bad)]}; "
                "actions are finite numbers, look for a diverged network or a division by zero"
            )
        if self.normalised:
            share = 0.5 * (np.clip(values, -1.0, 1.0) + 1.0)
            values = np.clip(self._lower + share * (self._upper - self._lower), self._lower, self._upper)
        for column, levels in self._levels:
            middles = 0.5 * (levels[1:] + levels[:-1])
            values[..., column] = levels[np.searchsorted(middles, values[..., column])]
        return values

    def _from_indices(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        indices = actions[..., None] if len(self._levels) == 1 else actions
        return np.stack([levels[indices[..., column]] for column, levels in self._levels], axis=-1)
