"""What a policy draws its actions from: Gaussian for continuous commands, categorical for discrete ones, or both.

Rows lie on the second last axis of a head ``[..., rows, M]``; a leading axis, where there is one, is the stack of
weights. Derivatives are in closed form, so that an update needs no automatic differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOWEST = torch.finfo(torch.float32).min


@lru_cache(maxsize=1024)
def constant(value: float) -> torch.Tensor:
    """A float32 scalar: in small products a Python number costs more to convert than to multiply with."""
    return torch.tensor(value)


@dataclass(frozen=True, eq=False)
class Density:
    """One evaluation. ``log_prob``: ``[..., rows]``; the rest is what :meth:`ActionDistribution.backward` needs of it:
    standardised Gaussian actions, and log-probabilities and entropy of each discrete command."""

    log_prob: torch.Tensor
    log_std: torch.Tensor
    z: torch.Tensor | None = None
    inverse_std: torch.Tensor | None = None
    log_p: tuple[torch.Tensor, ...] = ()
    entropies: tuple[torch.Tensor, ...] = ()

    def entropy(self) -> torch.Tensor:
        """``[..., rows]``, or what broadcasts to it."""
        total = self.log_std.sum(-1) + (0.5 + HALF_LOG_TWO_PI) * self.log_std.shape[-1]
        for entropy in self.entropies:
            total = total + entropy
        return total


class ActionDistribution:
    """Independent actions: ``n_continuous`` Gaussian ones, then one of ``level_counts[i]`` levels each.

    The head holds the means, then the logits, command by command. The Gaussian's deviation does not depend on the
    state.
    """

    def __init__(self, n_continuous: int, level_counts: Sequence[int] = ()) -> None:
        self.n_continuous = n_continuous
        self.level_counts = tuple(level_counts)
        self.n_outputs = n_continuous + sum(self.level_counts)

    def evaluate(
        self, head: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor, legal: torch.Tensor | None = None
    ) -> Density:
        """Density of ``actions`` ``[..., rows, K]`` under ``head`` ``[..., rows, M]``.

        ``log_std``: ``[Kc]`` or ``[S, 1, Kc]``; ``legal``: ``[..., rows, L]``. An illegal level has log-probability
        -inf and takes no part in the entropy.
        """
        n = self.n_continuous
        if not self.level_counts:
            return _gaussian(head, log_std, actions)
        gaussian = _gaussian(head[..., :n], log_std, actions[..., :n]) if n else None
        log_prob = head.new_zeros(head.shape[:-1]) if gaussian is None else gaussian.log_prob
        log_p, entropies = [], []
        start = n
        for k, count in enumerate(self.level_counts):
            logits = head[..., start : start + count]
            if legal is not None:
                logits = logits.masked_fill(~legal[..., start - n : start - n + count], -math.inf)
            log_p.append(torch.log_softmax(logits, -1))
            chosen = actions[..., n + k, None].long()
            log_prob = log_prob + log_p[-1].gather(-1, chosen).squeeze(-1)
            # 0 * log 0 is 0
            entropies.append(-(log_p[-1].exp() * log_p[-1].clamp_min(_LOWEST)).sum(-1))
            start += count
        return Density(
            log_prob,
            log_std,
            None if gaussian is None else gaussian.z,
            None if gaussian is None else gaussian.inverse_std,
            tuple(log_p),
            tuple(entropies),
        )

    def backward(
        self,
        density: Density,
        actions: torch.Tensor,
        d_log_prob: torch.Tensor,
        d_entropy: torch.Tensor | None,
        entropy_total: float,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Derivatives of a loss by the head ``[..., rows, M]`` and by ``log_std`` ``[..., 1, Kc]`` (rows summed).

        ``d_log_prob``, ``d_entropy``: the loss's derivatives by each row's log-probability and entropy,
        ``[..., rows]``; ``entropy_total``: the sum of ``d_entropy`` over rows, which alone counts for a Gaussian.
        """
        d_mean, d_log_std = None, None
        if density.z is not None and density.inverse_std is not None:
            d_mean = d_log_prob.unsqueeze(-1) * density.z
            # d log_prob / d log_std = z^2 - 1, d entropy / d log_std = 1
            d_log_std = (d_mean * density.z).sum(-2, keepdim=True)
            d_log_std -= d_log_prob.sum(-1, keepdim=True).unsqueeze(-1)
            if entropy_total:
                d_log_std += entropy_total
            d_mean.mul_(density.inverse_std)
            if not self.level_counts:
                return d_mean, d_log_std
        parts = [] if d_mean is None else [d_mean]
        for k, (log_p, entropy) in enumerate(zip(density.log_p, density.entropies, strict=True)):
            p = log_p.exp()
            # d log_prob / d logit_j = [j chosen] - p_j
            d_logits = p * -d_log_prob.unsqueeze(-1)
            chosen = actions[..., self.n_continuous + k, None].long()
            d_logits.scatter_add_(-1, chosen, d_log_prob.unsqueeze(-1))
            if d_entropy is not None:
                # d entropy / d logit_j = -p_j (log p_j + entropy)
                slope = p * (log_p.clamp_min(_LOWEST) + entropy.unsqueeze(-1))
                d_logits -= slope * d_entropy.unsqueeze(-1)
            parts.append(d_logits)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -1)), d_log_std


def _gaussian(mean: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor) -> Density:
    inverse_std = torch.exp(-log_std)
    z = (actions - mean).mul_(inverse_std)
    peak = torch.sub(constant(-HALF_LOG_TWO_PI * log_std.shape[-1]), log_std.sum(-1))
    return Density(torch.sub(peak, (z * z).sum(-1), alpha=0.5), log_std, z, inverse_std)
