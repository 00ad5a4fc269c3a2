"""The acting half of a learner in torch: the arithmetic of :mod:`twinloop.agents.actor` where the twin and the learner
are, on any device, without a number that passes through the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .action_layout import ActionLayout
from .action_sampling import HALF_LOG_TWO_PI
from .actor import ActorWeights
from .networks import ActorCritic

Tensor = torch.Tensor


class TorchStep(NamedTuple):
    """``actions`` ``[B, N, K]``, continuous ones not clipped; ``memory`` ``[B, N, H]``; ``density`` ``[B, N, X]``."""

    actions: Tensor
    memory: Tensor
    density: Tensor


@dataclass(frozen=True, eq=False)
class TorchActor:
    """As :class:`~twinloop.agents.actor.ActorWeights`, in tensors of one device; ``gru`` holds input and recurrent
    weights and both biases."""

    feature_mean: Tensor
    feature_std: Tensor
    feature_clip: float
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    log_std: Tensor
    level_counts: tuple[int, ...] = ()
    gru: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @staticmethod
    def of(actor: ActorWeights, device: torch.device | str = "cpu") -> TorchActor:
        """A copy of a numpy actor on a device."""

        def put(array: object) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32).clone().to(device)

        cell = actor.gru
        return TorchActor(
            feature_mean=put(actor.feature_mean),
            feature_std=put(actor.feature_std),
            feature_clip=actor.feature_clip,
            weights=tuple(map(put, actor.weights)),
            biases=tuple(map(put, actor.biases)),
            log_std=put(actor.log_std),
            level_counts=actor.level_counts,
            gru=None
            if cell is None
            else (put(cell.input), put(cell.recurrent), put(cell.input_bias), put(cell.recurrent_bias)),
        )

    @staticmethod
    def of_network(network: ActorCritic, mean: Tensor, std: Tensor, feature_clip: float) -> TorchActor:
        """The acting half of a learner's network, as views of its parameters: it acts as they are at that moment."""
        s, layer = network.n_stacks, network.gru
        gru = None
        if layer is not None:
            gru = (
                layer.input_weight.view(s, layer.n_inputs, -1),
                layer.recurrent_weight.view(s, layer.width, -1),
                layer.input_bias.view(s, -1),
                layer.recurrent_bias.view(s, -1),
            )
        return TorchActor(
            feature_mean=mean,
            feature_std=std,
            feature_clip=feature_clip,
            weights=tuple(w.view(s, *w.shape[-2:]) for w in network.actor.weights),
            biases=tuple(b.view(s, b.shape[-1]) for b in network.actor.biases),
            log_std=network.log_std.view(s, -1),
            level_counts=network.distribution.level_counts,
            gru=gru,
        )

    @property
    def n_stacks(self) -> int:
        return len(self.weights[0])

    @property
    def n_memory(self) -> int:
        return 0 if self.gru is None else self.gru[1].shape[1]

    @property
    def n_normal(self) -> int:
        return self.log_std.shape[-1]

    @property
    def n_uniform(self) -> int:
        return sum(self.level_counts)

    def head(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Head ``[B, N, M]`` and new memory ``[B, N, H]`` of raw features ``[B, N, F]``."""
        n_assets = features.shape[1]
        x = ((features - self.feature_mean) / self.feature_std).clamp(-self.feature_clip, self.feature_clip)
        h = self._rows(x)
        if self.gru is not None:
            after = self._remember(h, self._rows(memory))
            h, memory = torch.cat([h, after], -1), self._unrowed(after, n_assets)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = _affine(h, weight, bias)
            if i < last:
                h = torch.tanh(h)
        return self._unrowed(h, n_assets), memory

    def act(
        self, features: Tensor, memory: Tensor, normal: Tensor | None, uniform: Tensor | None, legal: Tensor | None
    ) -> TorchStep:
        """Decide once; arguments as :meth:`twinloop.agents.actor.Actor.act`. Waits for no device."""
        head, memory = self.head(features, memory)
        n = self.n_normal
        means = head[..., :n]
        if normal is not None:
            means = normal * torch.exp(self.log_std) + means
        if not self.level_counts:
            return TorchStep(means, memory, head[..., :0])
        chosen, log_prob = choose_levels(head[..., n:], self.level_counts, uniform, legal)
        return TorchStep(torch.cat([means, chosen], -1), memory, log_prob[..., None])

    def log_prob(self, normal: Tensor | None, density: Tensor) -> Tensor:
        """As :meth:`twinloop.agents.actor.Actor.log_prob`."""
        shift = self.log_std.sum(-1, dtype=torch.float64) + HALF_LOG_TWO_PI * self.n_normal
        found = -shift.to(torch.float32).expand(density.shape[:-1])
        if normal is not None:
            found = -0.5 * (normal * normal).sum(-1) + found
        return found + density[..., 0] if self.level_counts else found

    def _remember(self, x: Tensor, h: Tensor) -> Tensor:
        if self.gru is None:
            return h
        given, kept = _affine(x, self.gru[0], self.gru[2]), _affine(h, self.gru[1], self.gru[3])
        n = self.n_memory
        reset, update = torch.sigmoid(given[..., : 2 * n] + kept[..., : 2 * n]).chunk(2, -1)
        new = torch.tanh(given[..., 2 * n :] + reset * kept[..., 2 * n :])
        return new + update * (h - new)

    def _rows(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1) if self.n_stacks == 1 else x.transpose(0, 1)

    def _unrowed(self, rows: Tensor, n_assets: int) -> Tensor:
        return rows.reshape(-1, n_assets, rows.shape[-1]) if self.n_stacks == 1 else rows.transpose(0, 1)


class TorchLayout:
    """:meth:`~twinloop.agents.action_layout.ActionLayout.commands` and ``legal`` in torch, on one device."""

    def __init__(self, layout: ActionLayout, device: torch.device, dtype: torch.dtype) -> None:
        self.n_actions = layout.n_actions
        self._layout = layout
        self._middle, self._half, self._neutral = (
            torch.from_numpy(a).to(device) for a in (layout.middle, layout.half, layout.neutral)
        )
        self._levels = [torch.tensor(v, dtype=torch.float32, device=device) for v in layout.levels]
        # Lists as indices would be copied to the device at every call.
        self._legal_columns = torch.tensor(layout.legal_columns, dtype=torch.int64, device=device)
        self._motions = torch.tensor(layout.motions, dtype=torch.int64, device=device)
        self._weight_middle, self._weight_half = (
            torch.tensor(w, dtype=torch.float32, device=device) for w in (layout.weight_middle, layout.weight_half)
        )
        self._dtype = dtype
        order = sorted(range(len(layout.columns)), key=layout.columns.__getitem__)
        n = layout.neutral.size
        wanted = dict(zip(sorted(layout.columns), order, strict=True))
        self._sources = [wanted.get(column) for column in range(n)]

    def commands(self, actions: Tensor, features: Tensor | None = None) -> Tensor:
        """Commands ``[B, N, A]`` in the twin's type of actions ``[B, N, K]``, and with motions of raw features
        ``[B, N, F]``."""
        n = len(self._layout.continuous)
        shares = actions[..., : self._layout.n_means].clamp(-1.0, 1.0)
        if self._layout.motions and features is not None:
            weights = shares * self._weight_half + self._weight_middle
            proposed = features.index_select(-1, self._motions.flatten())
            proposed = proposed.reshape(*features.shape[:-1], *self._motions.shape)
            shares = (weights[..., None] * proposed).sum(-2).clamp(-1.0, 1.0)
        scaled = shares * self._half + self._middle
        if self._sources == list(range(n)):
            return scaled.to(self._dtype)
        parts = [scaled[..., k : k + 1] for k in range(n)]
        parts += [levels[actions[..., n + d, None].long()] for d, levels in enumerate(self._levels)]
        neutral = self._neutral.expand(*actions.shape[:-1], -1)
        columns = [neutral[..., c : c + 1] if k is None else parts[k] for c, k in enumerate(self._sources)]
        return torch.cat(columns, -1).to(self._dtype)

    def legal(self, flags: Tensor, present: Tensor) -> Tensor:
        """As :meth:`~twinloop.agents.action_layout.ActionLayout.legal`."""
        return flags.index_select(-1, self._legal_columns) | ~present[..., None]


def choose_levels(
    logits: Tensor, level_counts: Sequence[int], uniform: Tensor | None, legal: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As :func:`twinloop.agents.action_sampling.choose_levels`."""
    if legal is not None:
        logits = logits.masked_fill(~legal, -math.inf)
    keys = logits if uniform is None else logits - torch.log(-torch.log(uniform))
    chosen, log_prob = [], torch.zeros_like(logits[..., 0])
    widths = list(level_counts)
    for part, key in zip(torch.split(logits, widths, -1), torch.split(keys, widths, -1), strict=True):
        index = key.argmax(-1, keepdim=True)
        log_prob = log_prob + torch.log_softmax(part, -1).gather(-1, index)[..., 0]
        chosen.append(index.to(logits.dtype))
    return torch.cat(chosen, -1), log_prob


def _affine(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if len(weight) == 1:
        return torch.addmm(bias[0], rows, weight[0])
    return torch.baddbmm(bias[:, None], rows, weight)
