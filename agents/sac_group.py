"""Soft actor-critic of one group: losses and their gradients in closed form, for all assets in one batched product.

Rows: a group's samples are ``[S, R, width]``. With shared weights ``S = 1`` and ``R = batch x N``; with separate ones
``S = N`` and ``R = batch``. The twin critics are ``2 S`` networks of one stack, the first ``S`` being the first twin.
Every mean runs over present assets alone, for each set of weights by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .adam import StackedAdam
from .relu_network import ReluNetwork
from .sac_settings import SacConfiguration
from .squashed_actor import LOG_STD_MAXIMUM, LOG_STD_MINIMUM, SQUASH_EPSILON

_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class Draw:
    """Actions drawn from a policy, with what the gradient needs; rows ``[S, R, K]`` save ``log_prob`` ``[S, R]``."""

    action: torch.Tensor
    log_prob: torch.Tensor
    noise: torch.Tensor
    std: torch.Tensor
    is_free: torch.Tensor


def squash(head: torch.Tensor, noise: torch.Tensor) -> Draw:
    """Actions ``tanh(mean + std noise)`` and their log density (arXiv 1812.05905, equation 26)."""
    mean, raw = head.chunk(2, -1)
    log_std = raw.clamp(LOG_STD_MINIMUM, LOG_STD_MAXIMUM)
    std = log_std.exp()
    action = torch.addcmul(mean, std, noise).tanh_()
    terms = torch.log(1.0 + SQUASH_EPSILON - action.square()) + 0.5 * noise.square() + log_std + _HALF_LOG_2_PI
    return Draw(action, -terms.sum(-1), noise, std, log_std == raw)


class SacGroup:
    """Actor, twin critics, their targets and temperatures of one group; ``view_width`` numbers of other assets beside
    an asset's own features and action in the critic."""

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        n_assets: int,
        view_width: int,
        settings: SacConfiguration,
        generator: torch.Generator,
    ) -> None:
        self.settings, self.n_assets, self.n_actions = settings, n_assets, n_actions
        self.is_separate = settings.weights == "separate"
        s = self.n_stacks = n_assets if self.is_separate else 1
        self._entropy_target = n_actions * (-1.0 if settings.entropy_target is None else settings.entropy_target)
        actor_sizes = (n_features, *settings.hidden, 2 * n_actions)
        critic_sizes = (n_features + n_actions + view_width, *(settings.critic_hidden or settings.hidden), 1)
        self.own_width = n_features + n_actions
        n_actor, n_critics = ReluNetwork.n_parameters(s, actor_sizes), ReluNetwork.n_parameters(2 * s, critic_sizes)
        n_temperatures = n_assets if settings.temperature_per == "asset" else 1
        # the logarithms of the temperatures lie behind the actor's weights and share their Adam
        self._policy, self._critics = _Learnt(n_actor + n_temperatures, settings.lr), _Learnt(n_critics, settings.lr)
        self.actor = ReluNetwork(s, actor_sizes, self._policy.values[:n_actor], self._policy.gradients[:n_actor])
        self.log_temperature = self._policy.values[n_actor:]
        self.log_temperature_gradient = self._policy.gradients[n_actor:]
        self.critics = ReluNetwork(2 * s, critic_sizes, self._critics.values, self._critics.gradients)
        self.actor.initialise(generator)
        self.critics.initialise(generator)
        self.log_temperature.fill_(math.log(settings.temperature_initial))
        self._target_values = self._critics.values.clone()
        self.targets = ReluNetwork(2 * s, critic_sizes, self._target_values)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, N, ...]`` as rows ``[S, R, ...]``."""
        return x.transpose(0, 1).contiguous() if self.is_separate else x.reshape(1, -1, *x.shape[2:])

    def assets(self, rows: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`rows`, ``[b, N, ...]``."""
        return rows.transpose(0, 1) if self.is_separate else rows.reshape(-1, self.n_assets, *rows.shape[2:])

    def shares(self, present: torch.Tensor) -> torch.Tensor:
        """What each row weighs in its network's mean ``[S, R]``; rows of absent assets weigh nothing."""
        rows = self.rows(present)
        return rows / rows.sum(1, keepdim=True).clamp(min=1.0)

    def temperatures(self, batch: int) -> torch.Tensor:
        """Of each row, broadcastable over ``[S, R]``."""
        found = self.log_temperature.exp()
        return found if len(found) == 1 else self.rows(found.expand(batch, -1))

    def target_values(self, own: torch.Tensor, action: torch.Tensor, view: torch.Tensor | None) -> torch.Tensor:
        """The lesser of both twins' targets ``[S, R]``."""
        first, second = self.targets.forward(_critic_input(own, action, view))[-1].squeeze(-1).chunk(2)
        return torch.minimum(first, second)

    def learn_critics(
        self,
        own: torch.Tensor,
        action: torch.Tensor,
        view: torch.Tensor | None,
        wanted: torch.Tensor,
        share: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One Adam step of both twins towards ``wanted`` ``[S, R]``; returns their loss and their mean value."""
        outputs = self.critics.forward(_critic_input(own, action, view))
        value = outputs[-1].squeeze(-1)
        error = value - _twice(wanted)
        slope = error * _twice(share)
        self.critics.backward(outputs, slope.unsqueeze(-1))
        self._critics.step()
        n = self.n_stacks
        return 0.5 * (slope * error).sum() / n, (value[:n] * share).sum() / n

    def learn_policy(
        self,
        layers: list[torch.Tensor],
        draw: Draw,
        own: torch.Tensor,
        view: torch.Tensor | None,
        share: torch.Tensor,
        present: torch.Tensor,
    ) -> torch.Tensor:
        """One Adam step of actor and temperature; ``layers``: the actor's outputs where ``draw`` comes from. Returns
        the actor's loss.

        That loss, ``share (temperature log_prob - min Q)``, is followed through ``a = tanh(u)``, ``u = mean + std
        noise``.
        """
        outputs = self.critics.forward(_critic_input(own, draw.action, view))
        first, second = outputs[-1].squeeze(-1).chunk(2)
        is_first = (first <= second).to(share.dtype)
        slope = torch.cat([-share * is_first, share * (is_first - 1.0)]).unsqueeze(-1)
        at = own.shape[-1]
        by_twin = self.critics.input_gradient(outputs, slope)[..., at : at + self.n_actions]
        square = draw.action.square()
        price = (share * self.temperatures(len(present))).unsqueeze(-1)
        by_action = by_twin[: self.n_stacks] + by_twin[self.n_stacks :]
        by_action = by_action + price * 2.0 * draw.action / (1.0 + SQUASH_EPSILON - square)
        by_mean = by_action * (1.0 - square)
        by_log_std = (by_mean * draw.std * draw.noise - price) * draw.is_free
        self.actor.backward(layers, torch.cat([by_mean, by_log_std], -1))
        loss = (price.squeeze(-1) * draw.log_prob - share * torch.minimum(first, second)).sum() / self.n_stacks
        if self.settings.temperature_learnt:
            self._slope_of_temperature(self.assets(draw.log_prob), present)
        self._policy.step()
        return loss

    def _slope_of_temperature(self, log_prob: torch.Tensor, present: torch.Tensor) -> None:
        """Gradient of ``-log_temperature (log_prob + entropy_target)``, both arguments ``[b, N]``."""
        gap = (log_prob + self._entropy_target) * present
        if self.settings.temperature_per == "asset":
            torch.div(gap.sum(0), -present.sum(0).clamp(min=1.0), out=self.log_temperature_gradient)
        else:
            self.log_temperature_gradient.fill_(-float(gap.sum() / present.sum().clamp(min=1.0)))

    def move_targets(self) -> None:
        """``targets += tau (critics - targets)``."""
        self._target_values.lerp_(self._critics.values, self.settings.tau)

    def is_finite(self) -> bool:
        """Whether all weights still are."""
        return all(bool(torch.isfinite(part.values).all()) for part in (self._policy, self._critics))

    def state(self) -> dict[str, Any]:
        """All that further updates depend on, copied."""
        return {
            "policy": self._policy.state(),
            "critics": self._critics.state(),
            "targets": self._target_values.clone(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._policy.restore(state["policy"])
        self._critics.restore(state["critics"])
        self._target_values.copy_(state["targets"])


class _Learnt:
    """A flat vector of weights with its gradient and its Adam."""

    def __init__(self, n: int, lr: float) -> None:
        self.values, self.gradients = torch.zeros(n), torch.zeros(n)
        self._adam, self._lr = StackedAdam(self.values[None], epsilon=1e-8), lr

    def step(self) -> None:
        self._adam.step(None, self.gradients[None], self._lr)

    def state(self) -> dict[str, Any]:
        return {"values": self.values.clone(), "adam": self._adam.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.values.copy_(state["values"])
        self._adam.restore(state["adam"])


def _critic_input(own: torch.Tensor, action: torch.Tensor, view: torch.Tensor | None) -> torch.Tensor:
    """``[2 S, R, width]``: the same for both twins."""
    return _twice(torch.cat([own, action] if view is None else [own, action, view], -1))


def _twice(x: torch.Tensor) -> torch.Tensor:
    return x.expand(2, *x.shape[1:]) if len(x) == 1 else torch.cat([x, x])
