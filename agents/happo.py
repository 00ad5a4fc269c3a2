"""Heterogeneous-agent PPO: assets improve one after another, each reckoning with those that moved before it.

Kuba et al. (2022, arXiv 2109.11251, algorithm 1); Zhong et al. (2024, arXiv 2304.09870, algorithm 4). The surrogate of
the m-th asset weighs the team's advantage with the product of the new to old probability ratios of the m - 1 before it,
so that the sum of the steps cannot make the team worse, which simultaneous steps can.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .minibatches import Samples, everything
from .networks import ActorCritic
from .ppo import GroupLearner
from .ppo_settings import PpoConfiguration

_ORDER = 0x5DEECE66D  # tells the generator of the order from that of the minibatches


class HappoLearner(GroupLearner):
    """One network an asset; updates them in a random order. Rows of all assets must be the same steps."""

    def __init__(self, network: ActorCritic, settings: PpoConfiguration) -> None:
        super().__init__(network, settings)
        self._alone = [network.stack(k) for k in range(network.n_stacks)]

    def update(self, samples: Samples, progress: float, seed: int) -> dict[str, float]:
        """Improve every asset once; return the mean of their figures."""
        figures, _ = self.update_after(samples, progress, seed, None)
        return figures

    def update_after(
        self, samples: Samples, progress: float, seed: int, factor: torch.Tensor | None
    ) -> tuple[dict[str, float], torch.Tensor]:
        """The same after assets of other groups: ``factor`` ``[R]`` is the product of their ratios; return the figures
        and the product with this group's."""
        n_stacks = self.network.n_stacks
        running = samples.log_prob.new_ones(samples.log_prob.shape[1]) if factor is None else factor
        order = torch.randperm(n_stacks, generator=torch.Generator().manual_seed(seed ^ _ORDER))
        told: list[dict[str, float]] = []
        for number, stack in enumerate(order.tolist()):
            network, own = self._alone[stack], samples.stack(stack)
            if number or factor is not None:
                own = replace(own, factor=running[None])
            told.append(self.improve(network, [stack], own, progress, seed))
            running = running * _ratio(network, own)
        told = [figures for figures in told if figures]
        if not told:
            return {}, running
        return {name: sum(figures[name] for figures in told) / len(told) for name in told[0]}, running


def _ratio(network: ActorCritic, samples: Samples) -> torch.Tensor:
    """New over old probability of each row's action ``[R]``; 1 where the asset was away and did nothing."""
    batch, rows = everything(replace(samples, view=None))  # what critics alone see
    seen, _ = network.perceive(batch.features, batch.memory, batch.keep)
    head = network.actor.forward(seen)[-1]
    density = network.distribution.evaluate(head, network.log_std, batch.actions, batch.legal)
    ratio = torch.empty_like(batch.log_prob)
    ratio[rows] = torch.exp(density.log_prob - batch.log_prob)
    return ratio if samples.present is None else torch.where(samples.present[0], ratio, 1.0)
