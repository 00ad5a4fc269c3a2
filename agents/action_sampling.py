"""How a decision is drawn from a head, in numpy: Gaussians from normal draws, levels from uniform ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def log_prob_of_normal(normal: NDArray[Any], log_std: NDArray[Any]) -> NDArray[Any]:
    """Log density ``[..., N]`` of ``mean + exp(log_std) * normal``, from standard normal draws ``[..., N, Kc]``.

    ``log_std``: ``[S, Kc]``, S being 1 or N.
    """
    shift = log_std.sum(-1, dtype=np.float64) + HALF_LOG_TWO_PI * log_std.shape[-1]
    density: NDArray[Any] = -0.5 * np.einsum("...k,...k->...", normal, normal) - shift.astype(np.float32)
    return density


def choose_levels(
    logits: NDArray[Any], level_counts: Sequence[int], uniform: NDArray[Any] | None, legal: NDArray[Any] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a level of each discrete command; the likeliest one without ``uniform``.

    ``logits``, ``uniform`` in (0, 1), ``legal`` (False: never chosen; None: all may be): ``[..., L]``, the levels of
    all commands side by side. Returns the indices ``[..., Kd]`` as floats and the log-probability ``[...]`` of all of
    them together. Draws are by the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030).
    """
    if legal is not None:
        logits = np.where(legal, logits, np.float32(-np.inf))
    keys = logits if uniform is None else logits - np.log(-np.log(uniform))
    chosen = np.empty((*logits.shape[:-1], len(level_counts)), np.float32)
    log_prob = np.zeros(logits.shape[:-1], np.float32)
    start = 0
    for k, n_levels in enumerate(level_counts):
        part = logits[..., start : start + n_levels]
        index = keys[..., start : start + n_levels].argmax(-1)
        chosen[..., k] = index
        top = part.max(-1, keepdims=True)
        of_chosen = np.take_along_axis(part, index[..., None], -1) - top
        log_prob += of_chosen[..., 0] - np.log(np.exp(part - top).sum(-1))
        start += n_levels
    return chosen, log_prob
