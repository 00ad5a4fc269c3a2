"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, equation 7), one learner a group of assets.

Losses, clipping and early stop are those of Stable-Baselines3's PPO; gradients are in closed form (see
:mod:`twinloop.agents.networks`). Weights that are not shared are stacked: each stack has its own minibatches,
normalised advantages, gradient clip, early stop and Adam moments, all in one batched operation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from .action_layout import Float32
from .actor import ActorWeights
from .adam import StackedAdam
from .analytic_settings import AnalyticConfiguration
from .distributions import constant
from .minibatches import Batch, Samples, View, minibatches
from .networks import ActorCritic, Workspace
from .ppo_settings import PpoConfiguration
from .taught_settings import TaughtConfiguration

VALUE_ROWS = 1024
"""Rows of a stack whose values are computed at a time: a few hidden layers of them fit the processor's cache."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Means over the rows of one minibatch, ``[S]`` each."""

    policy: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    approximate_kl: torch.Tensor
    clip_fraction: torch.Tensor


def learning_rate(settings: PpoConfiguration | AnalyticConfiguration | TaughtConfiguration, progress: float) -> float:
    """Step size after a share ``progress`` in [0, 1] of the iterations."""
    return settings.lr * _left(settings.lr_schedule, progress)


def entropy_coefficient(settings: PpoConfiguration, progress: float) -> float:
    """Weight of the entropy after a share ``progress`` in [0, 1] of the iterations."""
    return settings.entropy_coefficient * _left(settings.entropy_schedule, progress)


def _left(schedule: Literal["constant", "linear", "cosine"], progress: float) -> float:
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))


def loss_and_gradients(
    network: ActorCritic,
    batch: Batch,
    settings: PpoConfiguration,
    *,
    wants_kl: bool = True,
    full: bool = True,
    workspace: Workspace | None = None,
) -> Losses | None:
    """Write the gradient of policy + c_v value - c_e entropy into ``network.gradients``; return the parts.

    Advantages are used as they come, times the batch's factor. The surrogate's gradient flows where the unclipped term
    is the smaller one. ``full=False`` leaves figures that only reports need at zero; with neither ``full`` nor
    ``wants_kl`` there is nothing to return.
    """
    seen, unrolled = network.perceive(batch.features, batch.memory, batch.keep)
    outputs = network.actor.forward(seen, workspace)
    density = network.distribution.evaluate(outputs[-1], network.log_std, batch.actions, batch.legal)
    log_ratio = density.log_prob - batch.log_prob
    if batch.weight is not None:
        log_ratio = torch.where(batch.weight > 0, log_ratio, 0.0)
    ratio = torch.exp(log_ratio)
    advantages = batch.advantages if batch.factor is None else batch.advantages * batch.factor
    unclipped = ratio * advantages
    clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip).mul_(advantages)
    weight = batch.mean_weight
    # d/d log_prob of -min(unclipped, clipped); where the clipped term is smaller it is constant
    d_log_prob = torch.where(unclipped <= clipped, unclipped, constant(0.0)).mul_(-weight)
    c = settings.entropy_coefficient
    d_entropy = torch.full_like(ratio, -c).mul_(weight) if c and density.log_p else None
    d_head, d_log_std = network.distribution.backward(density, batch.actions, d_log_prob, d_entropy, -c)
    if d_log_std is not None:
        network.log_std_gradient.copy_(d_log_std.view_as(network.log_std_gradient))
    recurrent = unrolled is not None
    d_actor = network.actor.backward(outputs, d_head, workspace, wants_input=recurrent)
    if d_actor is not None:
        d_actor = d_actor[..., : seen.shape[-1]].clone()  # the critic takes the workspace over
    # The actor is done with before the critic begins: one network's arrays stay in the processor's cache, two do not.
    outputs = network.critic.forward(seen if batch.view is None else torch.cat([seen, batch.view], -1), workspace)
    error = outputs[-1].squeeze(-1) - batch.returns
    d_value = (error * (weight * constant(2.0 * settings.value_coefficient))).unsqueeze(-1)
    d_critic = network.critic.backward(outputs, d_value, workspace, wants_input=recurrent)
    if unrolled is not None and d_actor is not None and d_critic is not None:
        network.remember_backward(unrolled, d_actor, d_critic)
    if not (full or wants_kl):
        return None

    def mean(x: torch.Tensor) -> torch.Tensor:
        return (x.expand_as(ratio) * weight).sum(-1).reshape(-1)

    zero = ratio.new_zeros(network.n_stacks)
    return Losses(
        policy=-mean(torch.minimum(unclipped, clipped)) if full else zero,
        value=mean(error.square()) if full else zero,
        entropy=mean(density.entropy()) if full else zero,
        approximate_kl=mean((ratio - 1.0) - log_ratio),
        clip_fraction=mean(((ratio - 1.0).abs() > settings.clip).float()) if full else zero,
    )


class GroupLearner:
    """Networks and Adam of one group; needs nothing from outside but samples, so that it may live anywhere."""

    def __init__(self, network: ActorCritic, settings: PpoConfiguration) -> None:
        self.network = network
        self.settings = settings
        self._adam = StackedAdam(network.parameters, settings.adam_epsilon)
        self._workspace = Workspace(network.parameters.device)

    def actor(self, feature_mean: Float32, feature_std: Float32) -> ActorWeights:
        """A copy of the acting half, behind a normaliser."""
        return self.network.actor_weights(feature_mean, feature_std, self.settings.feature_clip)

    def remember(self, features: torch.Tensor, first: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Memory ``[S, T, n, H]`` after each step of normalised features ``[S, T, n, F]``.

        ``first``: ``[S, n, H]`` before the first step; ``keep``: ``[S, T, n, 1]``, 0 where it was zeroed before a step.
        """
        gru = self.network.gru
        if gru is None:
            return features[..., :0]
        if self.network.n_stacks == 1:
            return gru.unroll(features[0], first[0], keep[0]).memory[None]
        return gru.unroll(features, first, keep).memory

    def values(
        self, features: torch.Tensor, view: View | None = None, memory: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Values ``[S, R]`` of normalised features ``[S, R, F]``, what the critic sees beside them, and the memory
        ``[S, R, H]`` that the recurrent layer has after them."""
        n_rows = features.shape[1]
        step = max(1, VALUE_ROWS // len(features))
        found = []
        for start in range(0, max(1, n_rows), step):
            rows = slice(start, start + step)
            parts = [None if x is None else (x[0, rows] if len(x) == 1 else x[:, rows]) for x in (features, memory)]
            seen = None if view is None else view.take(rows)
            if parts[0] is not None:
                values = self.network.values(parts[0], seen, parts[1], self._workspace)
                found.append(values.reshape(len(features), -1).clone())
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def update(self, samples: Samples, progress: float, seed: int) -> dict[str, float]:
        """Run the epochs over shuffled minibatches; return the figures of the last epoch that ran."""
        return self.improve(self.network, range(self.network.n_stacks), samples, progress, seed)

    def improve(
        self, network: ActorCritic, stacks: Sequence[int], samples: Samples, progress: float, seed: int
    ) -> dict[str, float]:
        """Update ``network``, which is the stacks of that number, from their samples."""
        if len(samples) == 0:
            return {}
        s = self.settings.model_copy(update={"entropy_coefficient": entropy_coefficient(self.settings, progress)})
        generator = torch.Generator().manual_seed(seed)
        lr = learning_rate(s, progress)
        if s.advantage_normalisation == "batch":
            samples = replace(samples, advantages=_standardised(samples))
        account = _Account(network.n_stacks, network.parameters.device)
        running = torch.ones(network.n_stacks, dtype=torch.bool, device=network.parameters.device)
        has_stopped = False
        for epoch in range(s.epochs):
            account.begin(running)
            full = epoch == s.epochs - 1 or s.target_kl is not None
            for batch in minibatches(samples, s.minibatches, generator):
                if s.advantage_normalisation == "minibatch":
                    batch = replace(batch, advantages=standardise(batch.advantages, batch.weight, batch.n_rows))
                losses = loss_and_gradients(
                    network, batch, s, wants_kl=s.target_kl is not None, full=full, workspace=self._workspace
                )
                active = None if batch.n_rows is None and not has_stopped else running.clone()
                if active is not None and batch.n_rows is not None:
                    active &= batch.n_rows > 0
                if losses is not None:
                    account.add(losses, active)
                if losses is not None and s.target_kl is not None:
                    over = losses.approximate_kl > 1.5 * s.target_kl
                    if active is not None:
                        over &= active
                    if bool(over.any()):
                        has_stopped = True
                        running &= ~over
                        active = running.clone() if active is None else active & running
                    if has_stopped and not bool(running.any()):
                        break
                self._step(network, stacks, active, lr)
            if has_stopped and not bool(running.any()):
                break
        std = float(network.log_std.exp().mean()) if network.log_std.numel() else 0.0
        return {**account.figures(), "lr": lr, "std": std}

    def _step(self, network: ActorCritic, stacks: Sequence[int], active: torch.Tensor | None, lr: float) -> None:
        """Clip each stack's gradient and follow it with Adam; ``active`` ``[S]``: those that move, None for all."""
        gradients = network.gradients
        norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((self.settings.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        if active is None:
            self._adam.step(None if len(stacks) == self.network.n_stacks else stacks, gradients, lr)
        else:
            moving = active.nonzero().flatten().tolist()
            self._adam.step([stacks[k] for k in moving], gradients[moving], lr)
        if network.log_std.numel():
            network.log_std.clamp_(min=self.settings.log_std_minimum)

    def is_finite(self) -> bool:
        """Whether no weight is infinite or NaN."""
        return bool(torch.isfinite(self.network.parameters).all())

    def state(self) -> dict[str, Any]:
        """Copies of the parameters and of Adam's moments."""
        return {"parameters": self.network.parameters.clone(), "adam": self._adam.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.network.parameters.copy_(state["parameters"])
        self._adam.restore(state["adam"])


class _Account:
    """Sums of the losses of each stack's last epoch."""

    def __init__(self, n_stacks: int, device: torch.device) -> None:
        self._sums = torch.zeros(5, n_stacks, device=device)
        self._counts = torch.zeros(n_stacks, device=device)
        self._epochs = torch.zeros(n_stacks, device=device)

    def begin(self, running: torch.Tensor) -> None:
        """A new epoch of the stacks that have not stopped."""
        self._sums[:, running] = 0.0
        self._counts[running] = 0.0
        self._epochs[running] += 1.0

    def add(self, losses: Losses, active: torch.Tensor | None) -> None:
        new = torch.stack(list(vars(losses).values()))
        if active is None:
            self._sums += new
            self._counts += 1.0
        else:
            self._sums += torch.where(active, new, 0.0)
            self._counts += active

    def figures(self) -> dict[str, float]:
        """Means over minibatches, then over the stacks that had any."""
        seen = self._counts > 0
        means = (self._sums[:, seen] / self._counts[seen]).mean(1)
        names = Losses.__dataclass_fields__
        figures = {name: float(value) for name, value in zip(names, means, strict=True)}
        return {**figures, "epochs": float(self._epochs[seen].mean())}


def standardise(advantages: torch.Tensor, weight: torch.Tensor | None, n_rows: torch.Tensor | None) -> torch.Tensor:
    """Zero mean and unit deviation over the rows ``[(S,) n]`` of each stack that count; alone, a row stays as it is."""
    if weight is None or n_rows is None:
        if advantages.shape[-1] < 2:
            return advantages
        std, mean = torch.std_mean(advantages, -1, keepdim=True)
        return (advantages - mean).div_(std + 1e-8)
    n = n_rows.reshape(weight.shape[:-1]).unsqueeze(-1)
    mean = (advantages * weight).sum(-1, keepdim=True)
    squares = ((advantages - mean).square() * weight).sum(-1, keepdim=True)
    std = torch.sqrt(squares * (n / (n - 1).clamp(min=1)))
    return torch.where(n > 1, (advantages - mean) / (std + 1e-8), advantages)


def _standardised(samples: Samples) -> torch.Tensor:
    """Advantages ``[S, R]`` standardised over all rows of each stack."""
    if samples.present is None:
        return standardise(samples.advantages, None, None)
    n_rows = samples.present.sum(1)
    return standardise(samples.advantages, samples.present / n_rows.clamp(min=1)[:, None], n_rows)
