"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, equation 7), one network a group of assets.

Losses, clipping and early stop are those of Stable-Baselines3's PPO; gradients are in closed form (see
:mod:`twinloop.agents.networks`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .analytic_settings import AnalyticConfiguration
from .distributions import entropy, log_prob
from .networks import ActorCritic
from .ppo_settings import PpoConfiguration


@dataclass(frozen=True)
class Samples:
    """What one group did in one iteration, present assets alone, ``n`` agent-steps.

    ``features``: ``[n, F]``, normalised; ``actions``: ``[n, K]``, not clipped; ``log_prob``, ``advantages``,
    ``returns``: ``[n]``.
    """

    features: torch.Tensor
    actions: torch.Tensor
    log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: torch.Tensor | slice) -> Samples:
        return Samples(*(t[rows] for t in vars(self).values()))


@dataclass(frozen=True)
class Losses:
    """Scalars of one minibatch."""

    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    approximate_kl: torch.Tensor
    clip_fraction: torch.Tensor


def learning_rate(settings: PpoConfiguration | AnalyticConfiguration, progress: float) -> float:
    """Step size after a share ``progress`` in [0, 1] of the iterations."""
    match settings.lr_schedule:
        case "constant":
            return settings.lr
        case "linear":
            return settings.lr * (1.0 - progress)
        case "cosine":
            return settings.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def loss_and_gradients(network: ActorCritic, batch: Samples, settings: PpoConfiguration, full: bool = True) -> Losses:
    """Write the gradient of policy + c_v value - c_e entropy into ``network.gradients``; return the parts.

    Advantages are used as they come. The surrogate's gradient flows where the unclipped term is the smaller one.
    ``full=False`` leaves the three figures that only reports need at zero.
    """
    n = len(batch)
    actor, critic = network.actor.forward(batch.features), network.critic.forward(batch.features)
    inverse_std = torch.exp(-network.log_std)
    z = (batch.actions - actor[-1]) * inverse_std
    log_ratio = log_prob(z, network.log_std) - batch.log_prob
    ratio = torch.exp(log_ratio)
    unclipped = ratio * batch.advantages
    clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip) * batch.advantages
    # d/d log_prob of -min(unclipped, clipped) / n; where the clipped term is smaller it is constant
    d_log_prob = torch.where(unclipped <= clipped, unclipped, 0.0).mul_(-1.0 / n)
    d_log_prob_z = d_log_prob[:, None] * z
    torch.sum(d_log_prob_z * z, 0, out=network.log_std_gradient)
    network.log_std_gradient.sub_(d_log_prob.sum() + settings.entropy_coefficient)
    network.actor.backward(actor, d_log_prob_z * inverse_std)
    error = critic[-1] - batch.returns[:, None]
    network.critic.backward(critic, error * (2.0 * settings.value_coefficient / n))
    zero = ratio.new_zeros(())
    return Losses(
        policy=-torch.minimum(unclipped, clipped).mean() if full else zero,
        value=error.square().mean() if full else zero,
        entropy=entropy(network.log_std),
        approximate_kl=((ratio - 1.0) - log_ratio).mean() if full or settings.target_kl is not None else zero,
        clip_fraction=((ratio - 1.0).abs() > settings.clip).float().mean() if full else zero,
    )


class GroupLearner:
    """Network and Adam of one group."""

    def __init__(self, network: ActorCritic, settings: PpoConfiguration) -> None:
        self.network = network
        self.settings = settings
        self._parameter = torch.nn.Parameter(network.parameters, requires_grad=False)
        self._parameter.grad = network.gradients
        self._adam = torch.optim.Adam([self._parameter], lr=settings.lr, eps=settings.adam_epsilon, fused=True)

    def update(self, samples: Samples, progress: float, generator: torch.Generator) -> dict[str, float]:
        """Run the epochs over shuffled minibatches; return the figures of the last epoch that ran."""
        if len(samples) == 0:
            return {}
        s = self.settings
        lr = learning_rate(s, progress)
        self._adam.param_groups[0]["lr"] = lr
        if s.advantage_normalisation == "batch":
            samples = Samples(**{**vars(samples), "advantages": _standardise(samples.advantages)})
        bounds = [len(samples) * k // s.minibatches for k in range(s.minibatches + 1)]
        chunks = [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]
        seen: list[Losses] = []
        epochs, stop = 0, False
        while epochs < s.epochs and not stop:
            shuffled = samples.take(torch.randperm(len(samples), generator=generator))
            epochs += 1
            full = epochs == s.epochs or s.target_kl is not None
            seen = []
            for chunk in chunks:
                losses, stop = self._step(shuffled.take(chunk), full)
                seen.append(losses)
                if stop:
                    break
        means = {name: float(torch.stack([getattr(x, name) for x in seen]).mean()) for name in vars(seen[0])}
        return {**means, "epochs": float(epochs), "lr": lr, "std": float(self.network.log_std.exp().mean())}

    def _step(self, batch: Samples, full: bool) -> tuple[Losses, bool]:
        s = self.settings
        if s.advantage_normalisation == "minibatch" and len(batch) > 1:
            batch = Samples(**{**vars(batch), "advantages": _standardise(batch.advantages)})
        losses = loss_and_gradients(self.network, batch, s, full)
        if s.target_kl is not None and float(losses.approximate_kl) > 1.5 * s.target_kl:
            return losses, True
        gradients = self.network.gradients
        norm = float(torch.linalg.vector_norm(gradients))
        gradients.mul_(min(1.0, s.max_grad_norm / (norm + 1e-6)))
        self._adam.step()
        self.network.log_std.clamp_(min=s.log_std_minimum)
        return losses, False

    def state(self) -> dict[str, Any]:
        """Copies of the parameters and of Adam's moments."""
        adam = self._adam.state.get(self._parameter, {})
        return {"parameters": self.network.parameters.clone(), "adam": {k: v.clone() for k, v in adam.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.network.parameters.copy_(state["parameters"])
        self._adam.state.clear()
        if state["adam"]:
            self._adam.state[self._parameter] = {k: v.clone() for k, v in state["adam"].items()}


def _standardise(advantages: torch.Tensor) -> torch.Tensor:
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)
