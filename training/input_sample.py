"""What a trained policy sees: a sample that its artifact carries, so that the shield's input monitor knows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agents.artifact_inputs import InputSample
from ..agents.forward import PolicyNetwork
from .configuration import TrainConfiguration
from .network_evaluation import evaluate_networks
from .problem import Problem

MOST_ROWS = 4096
"""Rows that are kept of each group: enough for a false-alarm rate of one in a thousand, at most some 100 kB."""
_MOST_HELD = 1 << 16
_FEWEST_ROWS, _MOST_STEPS = 2500, 200
"""An evaluation that gives fewer rows of a group is prolonged, up to so many steps."""


def sample_inputs(
    config: TrainConfiguration, problem: Problem, networks: Mapping[str, PolicyNetwork]
) -> dict[str, InputSample]:
    """Features of present assets, group by group, on the replicas of the evaluation, without exploration.

    Behind the shield where the policy learnt behind it. Rows stand in order of time, the same for the same run. A group
    of which no asset was ever present is left out.
    """
    nameplate, replicas = problem.nameplate(), config.evaluation.replicas
    n_assets = [nameplate.group(name).n_assets for name in networks]
    wanted = math.ceil(_FEWEST_ROWS / (replicas * min(n_assets)))
    n_steps = max(config.evaluation.steps or problem.task().horizon, min(wanted, _MOST_STEPS))
    longer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"steps": n_steps})})
    every = math.ceil(n_steps * replicas * max(n_assets) / _MOST_HELD)
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in networks}
    numbers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in networks}
    n_seen = dict.fromkeys(networks, 0)

    def keep(name: str, features: NDArray[Any], present: NDArray[np.bool_], episode: NDArray[np.int64]) -> None:
        if n_seen[name] % every == 0:
            rows[name].append(features[present].astype(np.float32))
            numbers[name].append(np.broadcast_to(episode[:, None], present.shape)[present])
        n_seen[name] += 1

    evaluate_networks(longer, problem, networks, keep)
    found: dict[str, InputSample] = {}
    for name in networks:
        features, episode = np.concatenate(rows[name]), np.concatenate(numbers[name])
        if len(features):
            # Drawn, because even steps could keep time with the replicas and meet the same few assets always.
            drawn = np.random.default_rng(config.seed).permutation(len(features))[:MOST_ROWS]
            found[name] = InputSample(features[np.sort(drawn)], episode[np.sort(drawn)])
    return found
