"""The return of each episode, over the borders of rollouts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..agents.action_layout import Float32
from .rollout_batch import Flags, GroupRollout


class EpisodeReturns:
    """Sums rewards of ``n_replicas`` replicas until their episodes end."""

    def __init__(self, n_replicas: int) -> None:
        self.running: Float32 = np.zeros(n_replicas, np.float32)

    def add(self, groups: Iterable[GroupRollout], done: Flags) -> Float32:
        """Returns of the episodes that ended, in order: each step's mean over present assets, summed. ``done``:
        ``[T, B]``."""
        groups = list(groups)
        reward, present = (np.concatenate([getattr(g, key) for g in groups], axis=2) for key in ("reward", "present"))
        per_step = np.where(present, reward, np.float32(0)).sum(2) / np.maximum(present.sum(2), 1).astype(np.float32)
        ended: list[Float32] = []
        start = 0
        for t in map(int, np.flatnonzero(done.any(axis=1))):
            self.running += per_step[start : t + 1].sum(axis=0)
            ended.append(self.running[done[t]].copy())
            self.running[done[t]] = 0.0
            start = t + 1
        self.running += per_step[start:].sum(axis=0)
        return np.concatenate([np.empty(0, np.float32), *ended])
