"""Figures of what happened in a twin's episodes: rewards, costs, returns; present assets alone count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..envs.adapters.episodes import Outcome
from .shielded_twin import ShieldedTwin


class EpisodeTally:
    """Adds up steps of ``B`` replicas; the returns of episodes under way carry on from one :meth:`take` to the next.

    ``assets[g]``: the columns of group ``g`` that count; ``shield``: the twin, where it stands behind one, whose
    interventions are costs.
    """

    def __init__(
        self, n_replicas: int, assets: Mapping[str, Sequence[int]], shield: ShieldedTwin | None = None
    ) -> None:
        self._shield = shield
        self._assets = {name: list(columns) for name, columns in assets.items()}
        self._running = np.zeros(n_replicas)
        self._forget()

    def _forget(self) -> None:
        self._reward, self._count = 0.0, 0
        self._returns: list[float] = []
        self._costs: dict[str, tuple[float, int]] = {}

    def __call__(self, outcome: Outcome) -> None:
        """One step."""
        reward = np.concatenate([outcome.rewards[name][:, columns] for name, columns in self._assets.items()], 1)
        acted = np.concatenate([outcome.acted[name][:, columns] for name, columns in self._assets.items()], 1)
        for name, columns in self._assets.items():
            here = outcome.readings.present[name].cpu().numpy()[:, columns]
            for short, cost in outcome.costs[name].items():
                counted = cost[:, columns][here]
                self._add_cost(short, float(counted.sum()), counted.size)
        if self._shield is not None:
            for name, value in self._shield.last().costs().items():
                self._add_cost(name, value, 1)
        self._reward += float(reward.sum())
        self._count += int(acted.sum())
        self._running += reward.sum(1) / np.maximum(acted.sum(1), 1)
        self._returns += self._running[outcome.done].tolist()
        self._running[outcome.done] = 0.0

    def _add_cost(self, name: str, total: float, n: int) -> None:
        before, count = self._costs.get(name, (0.0, 0))
        self._costs[name] = (before + total, count + n)

    def take(self) -> tuple[dict[str, float], int]:
        """Figures since the last call, and how many agent-steps they are of."""
        figures = {"reward/mean": self._reward / max(1, self._count), "episodes": float(len(self._returns))}
        if self._returns:
            figures["episode_return/mean"] = float(np.mean(self._returns))
        figures |= {f"cost/{name}": total / max(1, n) for name, (total, n) in self._costs.items()}
        count = self._count
        self._forget()
        return figures, count

    def state(self) -> dict[str, Any]:
        """Returns of the episodes under way."""
        return {"running": torch.from_numpy(self._running.copy())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._running = state["running"].numpy().copy()
        self._forget()
