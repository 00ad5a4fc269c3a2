"""Actor and critic of one group for short-horizon policy gradients (Xu et al. 2022, arXiv 2204.07137).

Both are stacks of ``tanh`` networks: one shared by all assets, or one an asset. The actor is followed by automatic
differentiation, because its output goes through a twin; the critic learns with its gradient in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .action_layout import Float32
from .actor import ActorWeights
from .analytic_settings import AnalyticConfiguration, ShortHorizonConfiguration
from .networks import ACTOR_HEAD_GAIN, CRITIC_HEAD_GAIN, Mlp


class ShortHorizonGroup:
    """What one group learns; features are normalised, ``[B, N, F]``. ``dtype`` float64 is for checking gradients."""

    def __init__(
        self,
        n_features: int,
        n_actions: int,
        n_assets: int,
        settings: AnalyticConfiguration,
        window: ShortHorizonConfiguration,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings, self.window, self.n_assets, self.n_actions = settings, window, n_assets, n_actions
        self.n_stacks = n_assets if window.weights == "separate" else 1
        self._actor_sizes = (n_features, *settings.hidden, n_actions)
        self._critic_sizes = (n_features, *(window.critic_hidden or settings.hidden), 1)
        self.actor_values, self._actor_slopes, self._actor_adam = self._make(self._actor_sizes, settings.lr, dtype)
        self._critic_values, critic_slopes, self._critic_adam = self._make(self._critic_sizes, window.critic_lr, dtype)
        self._critic = Mlp(self._critic_sizes, self._critic_values, critic_slopes)
        self._export = Mlp(self._actor_sizes, self.actor_values, self._actor_slopes)
        for stack in range(self.n_stacks):
            self._export.initialise(stack, ACTOR_HEAD_GAIN, generator)
            self._critic.initialise(stack, CRITIC_HEAD_GAIN, generator)
        self._target_values = self._critic_values.clone()
        self._target = Mlp(self._critic_sizes, self._target_values, torch.empty_like(self._target_values))
        self._actor = self._export

    def _make(
        self, sizes: tuple[int, ...], lr: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor, torch.optim.Adam]:
        """Parameters and gradients ``[S, P]`` with their Adam."""
        values = torch.zeros(self.n_stacks, Mlp.n_parameters(sizes), dtype=dtype)
        parameter = torch.nn.Parameter(values, requires_grad=False)
        parameter.grad = slopes = torch.zeros_like(values)
        return values, slopes, torch.optim.Adam([parameter], lr=lr, eps=self.settings.adam_epsilon, fused=True)

    def follow(self) -> torch.Tensor:
        """From here to :meth:`learn_actor` means have a gradient by what is returned, the actor's parameters
        ``[S, P]``."""
        followed = self.actor_values.detach().requires_grad_()
        self._actor = Mlp(self._actor_sizes, followed, self._actor_slopes)
        return followed

    def means(self, x: torch.Tensor) -> torch.Tensor:
        """Mean actions ``[B, N, K]``, not cut."""
        return self._assets(self._actor.forward(self._rows(x.to(self.actor_values.dtype)))[-1])

    def target_values(self, x: torch.Tensor) -> torch.Tensor:
        """The target critic's values ``[B, N]``."""
        return self._assets(self._target.forward(self._rows(x.to(self.actor_values.dtype)))[-1])[..., 0]

    def learn_actor(self, slope: torch.Tensor, lr: float) -> float:
        """One Adam step up ``slope``, each stack's norm cut by itself; returns the largest norm before the cut."""
        norm = torch.linalg.vector_norm(slope, dim=1, keepdim=True)
        self._actor_slopes.copy_(-slope * (self.settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        self._actor_adam.param_groups[0]["lr"] = lr
        self._actor_adam.step()
        self._actor = self._export
        return float(norm.max())

    def learn_critic(self, x: torch.Tensor, wanted: torch.Tensor, present: torch.Tensor, seed: int) -> float:
        """Fit the critic to ``wanted`` in minibatches of steps; returns the mean squared error of the last epoch.

        ``x`` ``[n, N, F]``; ``wanted``, ``present`` ``[n, N]``: rows of absent assets weigh nothing.
        """
        generator = torch.Generator().manual_seed(seed)
        dtype = self.actor_values.dtype
        x, wanted, present = x.to(dtype), wanted.to(dtype)[..., None], present.to(dtype)[..., None]
        total = torch.zeros(())
        for _ in range(self.window.critic_epochs):
            total = torch.zeros(())
            for part in torch.randperm(len(x), generator=generator).chunk(self.window.critic_minibatches):
                outputs = self._critic.forward(self._rows(x[part]))
                here = self._rows(present[part])
                error = (outputs[-1] - self._rows(wanted[part])) * here
                count = here.sum(-2, keepdim=True).clamp(min=1.0)
                self._critic.backward(outputs, error / count)
                self._critic_adam.step()
                total = total + error.square().sum()
        self._target_values.lerp_(self._critic_values, self.window.tau)
        return float(total / present.sum().clamp(min=1.0))

    def is_finite(self) -> bool:
        """Whether all weights still are."""
        return bool(torch.isfinite(self.actor_values).all() and torch.isfinite(self._critic_values).all())

    def actor_weights(self, mean: Float32, std: Float32) -> ActorWeights:
        """A copy of the acting half, as numpy arrays; without noise of its own."""

        def copies(tensors: list[torch.Tensor], n_axes: int) -> tuple[Float32, ...]:
            arrays = (np.array(t.numpy(), np.float32) for t in tensors)
            return tuple(a.reshape(self.n_stacks, *a.shape[a.ndim - n_axes :]) for a in arrays)

        return ActorWeights(
            feature_mean=mean.copy(),
            feature_std=std.copy(),
            feature_clip=self.settings.feature_clip,
            weights=copies(self._export.weights, 2),
            biases=copies(self._export.biases, 1),
            log_std=np.zeros((self.n_stacks, self.n_actions), np.float32),
            n_continuous=self.n_actions,
        )

    def state(self) -> dict[str, Any]:
        """All that further updates depend on, copied."""
        return {
            "actor": self.actor_values.clone(),
            "critic": self._critic_values.clone(),
            "target": self._target_values.clone(),
            "actor_adam": _moments(self._actor_adam),
            "critic_adam": _moments(self._critic_adam),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.actor_values.copy_(state["actor"])
        self._critic_values.copy_(state["critic"])
        self._target_values.copy_(state["target"])
        for adam, moments in ((self._actor_adam, state["actor_adam"]), (self._critic_adam, state["critic_adam"])):
            adam.state.clear()
            if moments:
                adam.state[adam.param_groups[0]["params"][0]] = {k: v.clone() for k, v in moments.items()}

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, N, W]`` as a network's rows: ``[n N, W]``, or ``[S, n, W]`` where each asset has its own weights."""
        return x.reshape(-1, x.shape[-1]) if self.n_stacks == 1 else x.transpose(0, 1)

    def _assets(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(-1, self.n_assets, rows.shape[-1]) if self.n_stacks == 1 else rows.transpose(0, 1)


def _moments(adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in adam.state.get(adam.param_groups[0]["params"][0], {}).items()}
