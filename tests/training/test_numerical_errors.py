"""A number that is none is an error of every learner, and names the replica, the asset and the signal."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.lever_site import LeverConfig, LeverSite, LeverTwin, lever_configuration

from twinloop.envs.errors import NumericalError
from twinloop.envs.twin import Readings, Tensors
from twinloop.training.learning import make_learning
from twinloop.training.problem import Problem

LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"kind": "ppo"},
    "mappo": {"kind": "mappo"},
    "happo": {"kind": "happo"},
    "masac": {"kind": "masac", "warm_up": 1},
    "analytic": {"kind": "analytic"},
    "short horizon": {"kind": "analytic", "short_horizon": {}},
}


class BrokenTwin(LeverTwin):
    """In step 8, the last of an iteration, the second lever of the second replica says nothing."""

    def step(self, commands: Tensors) -> Readings:
        after = super().step(commands)
        levers = after.measured["lever"].clone()
        if self._steps[1] == 8:
            levers[1, 1, 1] = torch.inf
        return replace(after, measured={**after.measured, "lever": levers})


class BrokenSite(LeverSite):
    def twin(self, config: LeverConfig, n_replicas: int, device: str, dtype: torch.dtype) -> LeverTwin:
        return BrokenTwin(config, n_replicas)


def learn(kind: str, site: LeverSite, task_options: dict[str, Any]) -> None:
    config = lever_configuration(LEARNERS[kind], task_options=task_options)
    with ExitStack() as stack:
        make_learning(config, Problem.of(config, site), stack).iterate()


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_reward(kind: str) -> None:
    with pytest.raises(NumericalError, match=r"replica 0, lever/L1/reward: the task gave nan at step \d+ of episode 0"):
        learn(kind, LeverSite(), {"nan_at_step": 8, "horizon": 20})


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_measured_signal(kind: str) -> None:
    with pytest.raises(NumericalError, match=r"replica 1, lever/L2/last: the twin gave inf at step \d+ of episode 0"):
        learn(kind, BrokenSite(), {"horizon": 20})
