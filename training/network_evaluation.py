"""What exported networks are worth in the twin: the very arithmetic that an artifact ships, without exploration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.forward import PolicyNetwork
from ..envs.adapters.episodes import Episodes
from ..envs.encoder import Encoder, MaskingEncoder
from ..envs.twin import Readings
from .actor_evaluation import EVALUATION_REPLICA
from .collector import one_thread
from .configuration import TrainConfiguration
from .episode_tally import EpisodeTally
from .problem import Problem
from .seeds import row_seeds

OnDecision = Callable[[str, NDArray[Any], NDArray[np.bool_], NDArray[np.int64]], None]
"""Told at each decision what the network of a group sees: features ``[B, N, F]``, which assets are present ``[B, N]``,
and the number of each replica's episode ``[B]``."""


def evaluate_networks(
    config: TrainConfiguration,
    problem: Problem,
    networks: Mapping[str, PolicyNetwork],
    on_decision: OnDecision | None = None,
) -> float:
    """Mean reward an agent-step of ``networks`` (by group; all else stays neutral) on replicas of their own.

    Replicas and steps are those that ``config.evaluation`` asks for.
    """
    n_replicas, n_steps = config.evaluation.replicas, config.evaluation.steps or problem.task().horizon
    nameplate = problem.nameplate()
    encoders = {name: encoder for name, encoder in problem.encoders(nameplate).items() if name in networks}
    tally = EpisodeTally(n_replicas, {name: range(nameplate.group(name).n_assets) for name in networks})
    neutral = {g.name: np.tile(g.neutral(), (n_replicas, g.n_assets, 1)) for g in nameplate.groups}
    with one_thread(), torch.no_grad():
        episodes = Episodes(problem.twin(n_replicas), problem.task())
        seeds = row_seeds(config.seed, torch.arange(EVALUATION_REPLICA, EVALUATION_REPLICA + n_replicas))
        episodes.begin(seeds=seeds.tolist())
        actors = {name: _Actor(networks[name], encoder) for name, encoder in encoders.items()}
        for actor in actors.values():
            actor.restart(episodes.readings, np.ones(n_replicas, np.bool_))
        episode = np.arange(n_replicas, dtype=np.int64)
        for _ in range(n_steps):
            commands = {
                name: actors[name].act(episodes.readings, episodes.twin.dt_s) if name in actors else values
                for name, values in neutral.items()
            }
            if on_decision is not None:
                for name, actor in actors.items():
                    on_decision(name, actor.features, actor.present, episode)
            outcome = episodes.step(commands)
            tally(outcome)
            if outcome.done.any():
                episode = np.where(outcome.done, episode + n_replicas, episode)
                episodes.begin(np.flatnonzero(outcome.done))
                for actor in actors.values():
                    actor.restart(episodes.readings, outcome.done)
    return tally.take()[0]["reward/mean"]


class _Actor:
    """A network with its encoder and what both remember."""

    def __init__(self, network: PolicyNetwork, encoder: Encoder) -> None:
        self._network, self._encoder = network, encoder
        self._kept: dict[str, Any] = {}
        self._memory: np.ndarray[Any, Any] | None = None
        self.features: NDArray[Any] = np.empty(0)
        self.present: NDArray[np.bool_] = np.empty(0, np.bool_)

    def restart(self, readings: Readings, rows: np.ndarray[Any, Any]) -> None:
        """Forget what was seen in ``rows`` ``[B]``."""
        measured, _, present = self._arrays(readings)
        fresh = self._encoder.start(len(measured), measured.shape[1], measured)
        for key, array in fresh.items():
            chosen = rows.reshape(-1, *(1,) * (np.ndim(array) - 1))
            self._kept[key] = np.where(chosen, array, self._kept.get(key, array))
        if self._memory is None:
            self._memory = np.zeros((*present.shape, self._network.n_memory), np.float32)
        self._memory[rows] = 0.0

    def act(self, readings: Readings, dt_s: float) -> np.ndarray[Any, Any]:
        """Commands ``[B, N, A]``."""
        measured, statics, present = self._arrays(readings)
        features, kept = self._encoder.encode(measured, statics, present, self._kept, dt_s)
        features = np.where(present[..., None], features, 0.0)
        self.features, self.present = features, present
        legal = None
        if isinstance(self._encoder, MaskingEncoder) and self._network.layout.discrete:
            legal = self._network.layout.legal(self._encoder.legal(measured, statics, present), present)
        commands, memory = self._network.forward(features, self._memory, legal)
        self._kept = dict(kept)
        self._memory = np.where(present[..., None], memory, np.float32(0))
        return np.where(present[..., None], commands, self._network.layout.neutral)

    def _arrays(self, readings: Readings) -> tuple[Any, Any, Any]:
        kinds, name = (readings.measured, readings.statics, readings.present), self._encoder.group
        measured, statics, present = (tensors[name].detach().cpu().numpy() for tensors in kinds)
        return measured, statics, present
