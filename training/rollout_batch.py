"""What rollouts bring home: the experience of one shard, and of a whole iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agents.action_layout import Float32
from ..agents.actor import Actor

Flags = NDArray[np.bool_]
PolicyWeights = Mapping[str, Actor]


@dataclass(frozen=True, eq=False)
class GroupRollout:
    """What one group saw and did in ``T`` steps; ``B`` replicas, ``N`` assets, ``F`` features, ``K`` actions.

    ``features`` ``[T, B, N, F]`` raw; ``actions`` ``[T, B, N, K]`` not clipped; ``log_prob``, ``reward`` ``[T, B, N]``;
    ``present``, ``present_after`` ``[T, B, N]`` before and after the step (before a reset); ``last_features``
    ``[B, N, F]`` what comes next; ``final_features`` ``[E, N, F]`` what truncated episodes ended with, and what was
    seen where an asset was cut.

    Where it applies, else None: ``legal`` ``[T, B, N, L]``, the levels that could be chosen; ``first_memory``
    ``[B, N, H]``, what recurrent actors remembered before step 0; ``fresh`` ``[T, B, N]``, True where that memory was
    zero before the step (a new episode, an asset that is or was away); ``cut`` ``[T, B, N]``, True where an asset left
    with the step though nothing ended for it (:class:`~twinloop.envs.task.Score`); behind a shield ``executed``
    ``[T, B, N, K]``, the action that the twin obeyed, and ``penalty`` ``[T, B, N]``, what a learner subtracts from the
    reward.
    """

    features: Float32
    actions: Float32
    log_prob: Float32
    reward: Float32
    present: Flags
    present_after: Flags
    last_features: Float32
    final_features: Float32
    legal: Flags | None = None
    first_memory: Float32 | None = None
    fresh: Flags | None = None
    cut: Flags | None = None
    executed: Float32 | None = None
    penalty: Float32 | None = None

    def goes_on(self, terminated: Flags) -> Flags:
        """For whom something followed the step, or would have but for a limit, ``[T, B, N]``; ``terminated``
        ``[T, B]``."""
        stays: Flags = self.present_after & ~terminated[..., None]
        return stays if self.cut is None else stays | self.cut


@dataclass(frozen=True, eq=False)
class Rollout:
    """``T`` steps of ``B`` replicas.

    ``terminated``, ``truncated``: ``[T, B]``; ``final_index``: ``[E, 2]``, step and replica of each row of
    ``final_features``; ``episode_returns``: the reward's sum over an episode, mean over its assets, in order of their
    end; ``costs[name]``: mean over replicas and present assets, ``[T]``. Where a central critic wants it, else None:
    the site's ``state`` ``[T, B, D]`` before each step, ``last_state`` ``[B, D]``, ``final_state`` ``[E, D]``.
    """

    groups: Mapping[str, GroupRollout]
    terminated: Flags
    truncated: Flags
    final_index: NDArray[np.int64]
    episode_returns: Float32
    costs: Mapping[str, Float32] = field(default_factory=dict)
    state: Float32 | None = None
    last_state: Float32 | None = None
    final_state: Float32 | None = None

    def valued_at_end(self, group: GroupRollout) -> Flags:
        """Whose final features count, ``[E, N]``: all where an episode was truncated, else those who were cut alone."""
        t, b = self.final_index[:, 0], self.final_index[:, 1]
        everyone = np.broadcast_to(self.truncated[t, b][:, None], (len(t), group.present.shape[2]))
        return everyone if group.cut is None else everyone | group.cut[t, b]


_LEAD_WITH_REPLICAS = ("last_features", "final_features", "first_memory", "last_state", "final_state")


def concatenate(rollouts: Sequence[Rollout]) -> Rollout:
    """The batch of an iteration: shards side by side, in their order. A single rollout is handed on as it is."""
    if len(rollouts) == 1 and rollouts[0].terminated.flags.writeable:  # what Ray shares between processes is not
        return rollouts[0]
    first_replicas = np.cumsum([0, *(r.terminated.shape[1] for r in rollouts)])
    return Rollout(
        groups={
            name: GroupRollout(**{key: _join([r.groups[name] for r in rollouts], key) for key in vars(group)})
            for name, group in rollouts[0].groups.items()
        },
        final_index=np.concatenate(
            [np.add(r.final_index, (0, n)) for r, n in zip(rollouts, first_replicas[:-1], strict=True)]
        ),
        episode_returns=np.concatenate([r.episode_returns for r in rollouts]),
        costs={
            name: np.mean([r.costs[name] for r in rollouts], axis=0, dtype=np.float32) for name in rollouts[0].costs
        },
        **{key: _join(rollouts, key) for key in ("terminated", "truncated", "state", "last_state", "final_state")},
    )


def _join(parts: Sequence[Any], key: str) -> Any:
    arrays = [getattr(part, key) for part in parts]
    if arrays[0] is None:
        return None
    return np.concatenate(arrays, 0 if key in _LEAD_WITH_REPLICAS else 1)
