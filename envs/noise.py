"""Draws as a hash of (seed, step, stream, index): no generator, no state.

Batch size, worker count and partial resets then cannot change a trajectory. The hash is two rounds of the
splitmix64 finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", section 4),
in int64 arithmetic that wraps, so the integer part is exact on every device.
"""

from __future__ import annotations

import math

import torch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_STREAM = -2960836687051489901  # 0xD6E8FEB86659FD93
_CACHED_DRAWS = 16384  # at a time on a CPU: their intermediate results stay in its cache
_AHEAD_DRAWS = 1 << 18  # at most 2 MiB in float64


def _wrap(value: int) -> int:
    """Python integer to the int64 that has the same low 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


def _finalise(z: torch.Tensor) -> torch.Tensor:
    """Mix the bits of ``z``, in place."""
    z ^= (z >> 30).bitwise_and_(0x3FFFFFFFF)
    z *= _MIX_1
    z ^= (z >> 27).bitwise_and_(0x1FFFFFFFFF)
    z *= _MIX_2
    z ^= (z >> 31).bitwise_and_(0x1FFFFFFFF)
    return z


def bits(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int) -> torch.Tensor:
    """Return ``[B, n]`` int64 of 64 random bits for ``seeds`` ``[B]`` and ``steps`` ``[B]`` (int64)."""
    row = _finalise(seeds * _GOLDEN + (steps + 1) * _STREAM + _wrap((stream + 1) * _MIX_1))
    index = torch.arange(1, n + 1, dtype=torch.int64, device=seeds.device) * _GOLDEN
    return _finalise(row[:, None] + index[None, :])


def uniform(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``[B, n]`` uniform in the open interval (0, 1): 23 random bits in float32, 52 in float64."""
    kept = 52 if dtype == torch.float64 else 23
    raw = bits(seeds, steps, stream, n)
    raw >>= 64 - kept
    raw &= (1 << kept) - 1
    return raw.mul_(2).add_(1).to(dtype).mul_(0.5 ** (kept + 1))


def normal(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``[B, n]`` standard normal (Box & Muller 1958), one pair of uniforms a draw.

    Evaluated in float64 whatever the result's type, so that float32 and float64 twins see the same noise.
    """
    n_rows = max(1, _CACHED_DRAWS // max(1, n))
    if len(seeds) <= n_rows or seeds.device.type != "cpu":
        return _normal(seeds, steps, stream, n).to(dtype)
    drawn = torch.empty(len(seeds), n, dtype=dtype)
    for first in range(0, len(seeds), n_rows):
        rows = slice(first, first + n_rows)
        drawn[rows] = _normal(seeds[rows], steps[rows], stream, n)
    return drawn


def _normal(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int) -> torch.Tensor:
    u = uniform(seeds, steps, stream, 2 * n, torch.float64)
    radius = torch.log(u[:, :n]).mul_(-2.0).sqrt_()
    return radius.mul_(torch.cos((2.0 * math.pi) * u[:, n:]))


class NormalsAhead:
    """What :func:`normal` gives for one step after another, drawn several steps ahead: the same bits in fewer calls.

    For twins on a CPU, where a call costs more than its numbers. Each :meth:`draw` is for the steps that follow those
    of the draw before; rows that jump (a reset, a restore) must be told to :meth:`forget` first.
    """

    def __init__(self, stream: int, n: int, dtype: torch.dtype, most_steps: int = 64) -> None:
        self._stream = stream
        self._n = n
        self._dtype = dtype
        self._most_steps = most_steps
        self._ahead: torch.Tensor | None = None  # [steps, B, n]
        self._at = 0
        self._stale: list[torch.Tensor] = []

    def forget(self, rows: torch.Tensor | None = None) -> None:
        """Draw anew, for ``rows`` or for all of them, when next asked."""
        if rows is None:
            self._ahead = None
        else:
            self._stale.append(rows)

    def draw(self, seeds: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Return ``[B, n]`` for ``seeds`` ``[B]`` and ``steps`` ``[B]``."""
        stale = sum(map(len, self._stale))
        if self._ahead is None or self._at == len(self._ahead) or stale >= len(seeds):
            n_steps = max(1, min(self._most_steps, _AHEAD_DRAWS // max(1, self._n * len(seeds))))
            self._ahead, self._at = self._block(seeds, steps, n_steps), 0
        elif stale:
            rows = torch.cat(self._stale)
            self._ahead[self._at :, rows] = self._block(seeds[rows], steps[rows], len(self._ahead) - self._at)
        self._stale.clear()
        self._at += 1
        return self._ahead[self._at - 1]

    def _block(self, seeds: torch.Tensor, steps: torch.Tensor, n_steps: int) -> torch.Tensor:
        later = torch.arange(n_steps, device=steps.device)[:, None] + steps
        drawn = normal(seeds.repeat(n_steps), later.reshape(-1), self._stream, self._n, self._dtype)
        return drawn.view(n_steps, len(seeds), self._n)
