"""From what rollouts brought home to what a learner of a group takes: values, advantages, and who saw what.

Rows of a group's samples are ``[S, R]``: with shared weights all assets of all steps in one stack, else a stack an
asset. Whatever lies in an absent asset's data is replaced by zeros before any arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..agents.actor import normalise
from ..agents.advantages import generalised_advantages
from ..agents.minibatches import Samples, View
from ..agents.ppo import GroupLearner
from ..agents.ppo_settings import PpoConfiguration
from ..envs.errors import ContractError
from .rollout import GroupRollout, Rollout

Flags = NDArray[np.bool_]
Floats = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Seen:
    """Normalised features of one group, zero where an asset is absent: ``steps`` ``[T, B, N, F]``, ``last``
    ``[B, N, F]``, ``final`` ``[E, N, F]``."""

    steps: Float32
    last: Float32
    final: Float32


@dataclass(frozen=True, eq=False)
class CentralTable:
    """What central critics see, ``[T B + B + E, V]``: the rows of the steps, of what comes next, of final moments.

    ``offsets``: the column where a group's own features begin, None where own features are not among the columns.
    """

    table: torch.Tensor
    offsets: Mapping[str, int] | None


def seen(group: GroupRollout, batch: Rollout, standard: tuple[Float32, Float32], clip: float) -> Seen:
    """The features of a group as its learner sees them."""
    last, final = _what_follows(batch, group)
    parts = (
        (group.features, group.present),
        (group.last_features, last),
        (group.final_features, final),
    )
    return Seen(*(where(present, normalise(x, *standard, clip)) for x, present in parts))


def joint_table(everyone: Mapping[str, Seen]) -> CentralTable:
    """The features of all learning assets side by side, group by group."""

    def flat(part: str) -> Float32:
        arrays = [getattr(x, part) for x in everyone.values()]
        return np.concatenate([a.reshape(math.prod(a.shape[:-2]), math.prod(a.shape[-2:])) for a in arrays], -1)

    offsets, at = {}, 0
    for name, x in everyone.items():
        offsets[name] = at
        at += x.last.shape[1] * x.last.shape[2]
    table = np.concatenate([flat("steps"), flat("last"), flat("final")])
    return CentralTable(torch.from_numpy(table), offsets)


def state_table(batch: Rollout, standard: tuple[Float32, Float32], clip: float) -> CentralTable:
    """The site's state, normalised."""
    if batch.state is None or batch.last_state is None or batch.final_state is None:
        raise ContractError("a critic that sees the state needs rollouts that hold it; set wants_state in their plan")
    rows = np.concatenate([batch.state.reshape(-1, batch.state.shape[-1]), batch.last_state, batch.final_state])
    return CentralTable(torch.from_numpy(normalise(rows, *standard, clip)), None)


def rewards(batch: Rollout, names: tuple[str, ...], settings: PpoConfiguration) -> dict[str, Float32]:
    """What each asset of the named groups learns from, ``[T, B, N]``: zero where absent, penalties taken off, scaled,
    and the mean over the team if so asked."""
    own: dict[str, Float32] = {}
    for name in names:
        group = batch.groups[name]
        reward = group.reward if group.penalty is None else group.reward - group.penalty
        own[name] = where(group.present, reward * np.float32(settings.reward_scale))
    if not settings.team_reward:
        return own
    count = sum(batch.groups[name].present.sum(-1) for name in names)
    team = sum(reward.sum(-1) for reward in own.values()) / np.maximum(count, 1).astype(np.float32)
    return {
        name: where(batch.groups[name].present, np.broadcast_to(team[..., None], reward.shape))
        for name, reward in own.items()
    }


@dataclass(frozen=True, eq=False)
class _Remembered:
    """``first``: ``[S, n, H]``; ``keep``: ``[S, T, n, 1]``; ``after`` each step: ``[S, T, n, H]``."""

    first: torch.Tensor
    keep: torch.Tensor
    after: torch.Tensor

    def starts(self, sequence_steps: int) -> torch.Tensor:
        """``[S, T / steps * n, H]``: what each sequence begins with."""
        later = self.after[:, sequence_steps - 1 : -1 : sequence_steps]
        return torch.cat([self.first[:, None], later], 1).flatten(1, 2)


class Sampling:
    """Makes the samples of one group; ``is_shared``: one stack for all its assets."""

    def __init__(self, name: str, settings: PpoConfiguration) -> None:
        self._name = name
        self._settings = settings
        self._is_shared = settings.weights == "shared"

    def make(
        self, batch: Rollout, own: Seen, central: CentralTable | None, reward: Float32, learner: GroupLearner
    ) -> tuple[Samples, float]:
        """The samples, and the share of the returns' variance that the critic explains."""
        group, settings = batch.groups[self._name], self._settings
        features = self._rows(own.steps)
        view = None if central is None else self._view(central, own, 0, own.steps.shape[0] * own.steps.shape[1])
        memory = self._remembered(group, features, learner) if settings.gru is not None else None
        value, next_value = self._values(batch, own, central, features, view, memory, learner)
        done = batch.terminated | batch.truncated
        # An asset that is gone after the step has nothing to come, unless it was cut; one that is back starts afresh.
        terminated = ~group.goes_on(batch.terminated)
        ended = done[..., None] | ~group.present_after
        value = where(group.present, value)
        advantage, returns = generalised_advantages(
            reward, value, next_value, terminated, ended, settings.gamma, settings.gae_lambda
        )
        all_present = bool(group.present.all())
        samples = Samples(
            features=features,
            actions=self._rows(where(group.present, group.actions)),
            log_prob=self._rows(where(group.present, group.log_prob)),
            advantages=self._rows(where(group.present, advantage)),
            returns=self._rows(where(group.present, returns)),
            present=None if all_present else self._rows(group.present),
            legal=None if group.legal is None else self._rows(group.legal | ~group.present[..., None]),
            view=view,
            keep=None if memory is None else memory.keep.flatten(1, 2),
            memory=None if memory is None else memory.starts(settings.gradient_steps),
            sequence_steps=1 if memory is None else settings.gradient_steps,
            rows_per_step=features.shape[1] // len(own.steps),
        )
        kept = group.present
        spread = returns[kept].var(dtype=np.float64) if kept.any() else 0.0
        left = (returns[kept] - value[kept]).var(dtype=np.float64) if kept.any() else 0.0
        return samples, float(1.0 - left / spread) if spread > 0 else 0.0

    def _values(
        self,
        batch: Rollout,
        own: Seen,
        central: CentralTable | None,
        features: torch.Tensor,
        view: View | None,
        memory: _Remembered | None,
        learner: GroupLearner,
    ) -> tuple[Float32, Float32]:
        """Values ``[T, B, N]`` of every step and of what followed it."""
        n_steps, n_rows, n_assets = own.steps.shape[:3]

        def follow(x: Float32, first: int, before: torch.Tensor | None) -> Float32:
            rows = self._rows(x, 1)
            beside = None if central is None else self._view(central, own, first, len(x))
            after = None
            if before is not None:
                after = learner.remember(rows[:, None], before, before.new_ones(*rows.shape[:2], 1)[:, None])[:, 0]
            return self._unrowed(learner.values(rows, beside, after), len(x), n_assets)

        after = None if memory is None else memory.after.flatten(1, 2)
        value = self._unrowed(learner.values(features, view, after), n_steps * n_rows, n_assets)
        value = value.reshape(n_steps, n_rows, n_assets)
        last = follow(own.last, n_steps * n_rows, None if memory is None else memory.after[:, -1])
        next_value = np.concatenate([value[1:], last[None]])
        if len(own.final):
            # the memory of a final observation is that after the step which led there
            t, b = batch.final_index[:, 0], batch.final_index[:, 1]
            before = None
            if memory is not None:
                everywhere = self._unrowed(memory.after.flatten(1, 2), n_steps * n_rows, n_assets)
                before = self._rows(everywhere.reshape(n_steps, n_rows, n_assets, -1)[t, b], 1)
            final = follow(own.final, (n_steps + 1) * n_rows, before)
            next_value[t, b] = np.where(batch.valued_at_end(batch.groups[self._name]), final, next_value[t, b])
        return value, next_value

    def _remembered(self, group: GroupRollout, features: torch.Tensor, learner: GroupLearner) -> _Remembered:
        """What the recurrent layer remembers along the rollout, under the weights that acted."""
        if group.first_memory is None or group.fresh is None:
            raise ContractError(f"group {self._name!r}: a recurrent learner needs rollouts that hold the memory")
        first = self._rows(group.first_memory, 1)
        n_steps = len(group.fresh)
        keep = self._rows((~group.fresh).astype(np.float32)[..., None])
        n_stacks = len(keep)
        keep = keep.view(n_stacks, n_steps, -1, 1)
        after = learner.remember(features.view(n_stacks, n_steps, -1, features.shape[-1]), first, keep)
        return _Remembered(first, keep, after)

    def _view(self, central: CentralTable, own: Seen, first: int, count: int) -> View:
        """Which rows of the table, from ``first`` on, the samples of ``count`` moments see."""
        n_assets, width = own.last.shape[1:]
        moments, assets = torch.arange(first, first + count), torch.arange(n_assets)
        if self._is_shared:
            row, slot = moments.repeat_interleave(n_assets)[None], assets.repeat(count)[None]
        else:
            row, slot = moments.expand(n_assets, -1), assets[:, None].expand(-1, count)
        if central.offsets is None:
            return View(central.table, row)
        return View(central.table, row, slot, central.offsets[self._name], width)

    def _rows(self, array: NDArray[Any], asset_axis: int = 2) -> torch.Tensor:
        """``[T, B, N, ...]``, or ``[moments, N, ...]`` with ``asset_axis`` 1, as ``[S, R, ...]``."""
        rest = array.shape[asset_axis + 1 :]
        if self._is_shared:
            return torch.from_numpy(np.ascontiguousarray(array.reshape(1, -1, *rest)))
        moved = np.moveaxis(array, asset_axis, 0)
        return torch.from_numpy(np.ascontiguousarray(moved.reshape(len(moved), -1, *rest)))

    def _unrowed(self, rows: torch.Tensor, count: int, n_assets: int) -> NDArray[Any]:
        """``[S, R, ...]`` as ``[count, N, ...]``."""
        array: NDArray[Any] = rows.numpy()
        if self._is_shared:
            return array.reshape(count, n_assets, *array.shape[2:])
        return np.moveaxis(array, 0, 1)


def where(present: Flags, array: Floats) -> NDArray[Any]:
    """``array`` ``[..., N]`` or ``[..., N, X]`` with zeros where no asset is, whatever lay there."""
    if present.all():
        return array
    return np.where(present if present.ndim == array.ndim else present[..., None], array, array.dtype.type(0))


def _what_follows(batch: Rollout, group: GroupRollout) -> tuple[Flags, Flags]:
    """Who is there in the last features ``[B, N]`` and the final ones ``[E, N]``.

    Where an episode ended with the last step nobody is said to be: the value of what comes next is then not used.
    """
    ended = batch.terminated[-1] | batch.truncated[-1]
    valued = group.present_after if group.cut is None else group.present_after | group.cut
    return group.present_after[-1] & ~ended[:, None], valued[batch.final_index[:, 0], batch.final_index[:, 1]]
