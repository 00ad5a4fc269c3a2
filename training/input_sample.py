"""What a trained policy sees: a sample that its artifact carries, so that the shield's input monitor knows it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..agents.artifact_inputs import InputSample
from ..agents.forward import PolicyNetwork
from ..envs.twin import Readings
from .configuration import TrainConfiguration
from .network_evaluation import evaluate_networks
from .problem import Problem

MOST_ROWS = 4096
"""Rows that are kept of each group: enough for a false-alarm rate of one in a thousand, at most some 100 kB."""
_MOST_HELD = 1 << 16


def sample_inputs(
    config: TrainConfiguration, problem: Problem, networks: Mapping[str, PolicyNetwork]
) -> dict[str, InputSample]:
    """Measurements of present assets, group by group, on the replicas of the evaluation, without exploration.

    Behind the shield where the policy learnt behind it. Rows stand in order of time, the same for the same run. A group
    of which no asset was ever present is left out.
    """
    n_steps = config.evaluation.steps or problem.task().horizon
    nameplate = problem.nameplate()
    n_assets = max(nameplate.group(name).n_assets for name in networks)
    every = math.ceil(n_steps * config.evaluation.replicas * n_assets / _MOST_HELD)
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in networks}
    numbers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in networks}
    step = 0

    def keep(readings: Readings, episode: NDArray[np.int64]) -> None:
        nonlocal step
        step += 1
        if (step - 1) % every:
            return
        for name in networks:
            present = readings.present[name].cpu().numpy()
            rows[name].append(readings.measured[name].detach().cpu().numpy()[present].astype(np.float32))
            numbers[name].append(np.broadcast_to(episode[:, None], present.shape)[present])

    evaluate_networks(config, problem, networks, keep)
    found: dict[str, InputSample] = {}
    for name in networks:
        measured, episode = np.concatenate(rows[name]), np.concatenate(numbers[name])
        if len(measured):
            # Drawn, because even steps could keep time with the replicas and meet the same few assets always.
            drawn = np.random.default_rng(config.seed).permutation(len(measured))[:MOST_ROWS]
            found[name] = InputSample(measured[np.sort(drawn)], episode[np.sort(drawn)])
    return found
