"""What the checks of a twin share: how to make one, which episodes, and each episode run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..twin import Readings, Twin
from .comparison import copy_of
from .excitation import random_commands


@dataclass
class TwinCase:
    """``alone[seed]`` is filled on demand: readings after 0, 1, ... ``steps`` steps of a twin of one replica."""

    make_twin: Callable[[int], Twin]
    steps: int
    seeds: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    alone: dict[int, list[Readings]] = field(default_factory=dict)

    def seed_tensor(self, twin: Twin, turn: int = 0) -> torch.Tensor:
        """A seed for each replica, ``[B]``, from the case's seeds in turn."""
        picked = [self.seeds[(i + turn) % len(self.seeds)] for i in range(twin.n_replicas)]
        return torch.tensor(picked, dtype=torch.int64, device=twin.device)

    def commands(self, twin: Twin, seeds: torch.Tensor, step: int | torch.Tensor) -> dict[str, torch.Tensor]:
        """Commands of step ``step`` of the episodes ``seeds``: the same wherever those episodes run."""
        steps = torch.as_tensor(step, dtype=torch.int64, device=twin.device).expand(seeds.shape)
        return random_commands(twin.nameplate, seeds, steps, twin.dtype)

    def run_alone(self, seed: int) -> list[Readings]:
        """Trajectory of ``seed`` in a new twin of one replica."""
        if seed not in self.alone:
            twin = self.make_twin(1)
            seeds = torch.tensor([seed], dtype=torch.int64, device=twin.device)
            found = [copy_of(twin.reset(seeds))]
            for step in range(self.steps):
                found.append(copy_of(twin.step(self.commands(twin, seeds, step))))
            self.alone[seed] = found
        return self.alone[seed]
