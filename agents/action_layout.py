"""What a policy decides, column by column: continuous commands in [-1, 1], discrete ones as the number of a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.encoder import Array
from ..envs.errors import ConfigurationError, ContractError, nearest
from ..envs.nameplate import Group

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ActionLayout:
    """From actions ``[..., K]`` to a group's commands ``[..., A]`` in physical units; what is not controlled stays
    neutral.

    The ``Kc`` continuous actions come first, in the order of their commands; then, one a discrete command, the index
    of its level (a whole number kept as a float). A network's head is ``[..., M]``: ``Kc`` means, then one logit a
    level, command by command; an action mask is ``[..., L]``, one flag a level in the same order.

    Where an encoder proposes commands (:class:`~twinloop.envs.encoder.BlendingEncoder`), the continuous actions may be
    the weights of its proposals instead: a command is the sum of the proposals' features ``[..., F]``, each times its
    weight. Then ``motions`` ``[Km][A]`` are columns of features, and ``weight_middle``, ``weight_half`` ``[Km]`` make a
    weight of an action; ``Km`` takes the place of ``Kc``.

    ``continuous``, ``discrete``: command columns; ``levels``: the allowed values of each discrete command;
    ``middle``, ``half``: ``[Kc]``; ``neutral``: ``[A]``; ``legal_columns``: where the levels of ``discrete`` lie among
    those of all discrete commands of the group, which is how a
    :class:`~twinloop.envs.encoder.MaskingEncoder` tells what is legal.
    """

    continuous: tuple[int, ...]
    discrete: tuple[int, ...]
    levels: tuple[tuple[float, ...], ...]
    middle: Float32
    half: Float32
    neutral: Float32
    legal_columns: tuple[int, ...] = ()
    motions: tuple[tuple[int, ...], ...] = ()
    weight_middle: tuple[float, ...] = ()
    weight_half: tuple[float, ...] = ()

    @staticmethod
    def of(group: Group, controlled: Sequence[str] | None) -> ActionLayout:
        """Layout of the named commands of a group, all when None; raises ConfigurationError for an unknown name."""
        names = [s.name for s in group.commanded]
        wanted = names if controlled is None else list(controlled)
        for name in wanted:
            if name not in names:
                raise ConfigurationError(
                    f"learner.controlled.{group.name}: no command {name!r}; commands here: {', '.join(names)}"
                    f"{nearest(name, names)}"
                )
        columns = [names.index(name) for name in wanted]
        if not columns or len(set(columns)) != len(columns):
            raise ConfigurationError(
                f"learner.controlled.{group.name}: {wanted} must name at least one command, each once; "
                f"commands here: {', '.join(names)}"
            )
        continuous = [c for c in columns if group.commanded[c].levels is None]
        levels = {c: told for c in columns if (told := group.commanded[c].levels) is not None}
        start, at = 0, {}
        for column, signal in enumerate(group.commanded):
            n_levels = len(signal.levels or ())
            at[column] = range(start, start + n_levels)
            start += n_levels
        lower, upper = group.lower("commanded")[continuous], group.upper("commanded")[continuous]
        return ActionLayout(
            continuous=tuple(continuous),
            discrete=tuple(levels),
            levels=tuple(levels.values()),
            middle=((upper + lower) / 2.0).astype(np.float32),
            half=((upper - lower) / 2.0).astype(np.float32),
            neutral=group.neutral().astype(np.float32),
            legal_columns=tuple(c for column in levels for c in at[column]),
        )

    def blended(
        self, group: Group, motions: Mapping[str, Sequence[int]], wanted: Mapping[str, tuple[float, float]]
    ) -> ActionLayout:
        """The layout whose actions weigh ``motions`` within ranges ``wanted``, by name.

        Raises ConfigurationError for a motion that the encoder does not have, for an empty range, and where the group
        has commands that are discrete or not controlled.
        """
        where = f"learner.blend.{group.name}"
        if not wanted or self.discrete or len(self.continuous) != self.neutral.size:
            raise ConfigurationError(
                f"{where}: needs at least one motion, and a group all of whose commands are continuous and controlled"
            )
        for name, (low, high) in wanted.items():
            if name not in motions:
                raise ConfigurationError(
                    f"{where}: the encoder proposes no motion {name!r}; it has {', '.join(motions) or 'none'}"
                    f"{nearest(name, list(motions))}"
                )
            if not low < high:
                raise ConfigurationError(f"{where}.{name}: [{low}, {high}]; the first end must be below the second")
        return replace(
            self,
            continuous=tuple(range(self.neutral.size)),
            middle=self.middle[np.argsort(self.continuous)],
            half=self.half[np.argsort(self.continuous)],
            motions=tuple(tuple(motions[name]) for name in wanted),
            weight_middle=tuple(0.5 * (high + low) for low, high in wanted.values()),
            weight_half=tuple(0.5 * (high - low) for low, high in wanted.values()),
        )

    @property
    def n_means(self) -> int:
        """``Kc``, or ``Km`` where actions weigh motions."""
        return len(self.motions) or len(self.continuous)

    @property
    def columns(self) -> tuple[int, ...]:
        """Command columns in the order of the actions."""
        return self.continuous + self.discrete

    @property
    def n_actions(self) -> int:
        """``K``: what is stored of a decision."""
        return self.n_means + len(self.discrete)

    @cached_property
    def level_counts(self) -> tuple[int, ...]:
        """Levels of each discrete command."""
        return tuple(len(values) for values in self.levels)

    @property
    def n_levels(self) -> int:
        """``L``: levels of all discrete commands together, the width of an action mask."""
        return sum(self.level_counts)

    @property
    def n_outputs(self) -> int:
        """``M``: the width of a network's head."""
        return self.n_means + self.n_levels

    @cached_property
    def _is_everything(self) -> bool:
        return not self.discrete and self.columns == tuple(range(self.neutral.size))

    def legal(self, flags: Array, present: Array) -> Array:
        """Action mask ``[..., L]`` from an encoder's flags of all discrete commands of the group; numpy or torch.

        Every level of an absent asset (``present`` ``[...]``) is legal: nobody obeys it, and it needs a choice.
        """
        return flags[..., list(self.legal_columns)] | ~present[..., None]

    def commands(self, actions: Float32, features: NDArray[Any] | None = None) -> NDArray[Any]:
        """Commands ``[..., A]`` of actions ``[..., K]``; continuous ones are clipped to [-1, 1] first. ``features``
        ``[..., F]``, as the encoder gave them, are needed with ``motions``."""
        n = self.n_means
        scaled = np.maximum(np.minimum(actions[..., :n], np.float32(1)), np.float32(-1))
        if self.motions:
            if features is None:
                raise ContractError("ActionLayout.commands: actions weigh motions, give the features that hold them")
            weights = scaled * np.asarray(self.weight_half, np.float32) + np.asarray(self.weight_middle, np.float32)
            proposed = np.asarray(features, np.float32)[..., np.asarray(self.motions)]
            scaled = np.clip((weights[..., None] * proposed).sum(-2), np.float32(-1), np.float32(1))
        scaled *= self.half
        scaled += self.middle
        if self._is_everything:
            return scaled
        commands = np.empty((*actions.shape[:-1], self.neutral.size), np.float32)
        commands[...] = self.neutral
        commands[..., self.continuous] = scaled
        for k, (column, values) in enumerate(zip(self.discrete, self.levels, strict=True)):
            commands[..., column] = np.asarray(values, np.float32)[actions[..., n + k].astype(np.intp)]
        return commands
