"""Every random number of a run as a hash of the run's seed and of what it is for: no generator is carried along."""

from __future__ import annotations

import torch

from ..envs.noise import bits

_ROW, _EPISODE, _SHUFFLE, _INITIAL, _REPLAY, _LESSON = 101, 102, 103, 104, 105, 106
ACTION_STREAM = 1000  # and as many more as there are groups, like the next
LEVEL_STREAM = 2000
_POSITIVE = 0x7FFFFFFFFFFFFFFF


def row_seeds(run_seed: int, replicas: torch.Tensor) -> torch.Tensor:
    """Seeds ``[B]`` of replicas ``[B]`` of a run: their action noise and, with a number, their episodes."""
    return bits(torch.full_like(replicas, run_seed), replicas, _ROW, 1)[:, 0] & _POSITIVE


def episode_seeds(row_seed: torch.Tensor, episode: torch.Tensor) -> torch.Tensor:
    """Twin seeds ``[B]`` of the ``episode``-th reset ``[B]`` of rows."""
    return bits(row_seed, episode, _EPISODE, 1)[:, 0] & _POSITIVE


def update_seed(run_seed: int, iteration: int, group: int) -> int:
    """Seed of one group's minibatches, and of the order of its assets, in one iteration."""
    return _seed(run_seed, iteration, _SHUFFLE, group)


def replay_generator(run_seed: int, update: int) -> torch.Generator:
    """Generator of what an off-policy learner draws in one of its gradient steps."""
    return torch.Generator().manual_seed(_seed(run_seed, update, _REPLAY, 0))


def initial_seed(run_seed: int, group: int) -> int:
    """Seed of a group's initial weights."""
    return _seed(run_seed, group, _INITIAL, 0)


def lesson_seed(run_seed: int, number: int) -> int:
    """Seed of the layout and the states of one lesson."""
    return _seed(run_seed, number, _LESSON, 0)


def initial_generator(run_seed: int, group: int) -> torch.Generator:
    """Generator of a group's initial weights."""
    return torch.Generator().manual_seed(initial_seed(run_seed, group))


def _seed(run_seed: int, number: int, stream: int, index: int) -> int:
    drawn = bits(torch.tensor([run_seed]), torch.tensor([number]), stream, index + 1) & _POSITIVE
    return int(drawn[0, index])
