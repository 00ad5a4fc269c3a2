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


def _wrap(value: int) -> int:
    """Python integer to the int64 that has the same low 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


def _finalise(z: torch.Tensor) -> torch.Tensor:
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def bits(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int) -> torch.Tensor:
    """Return ``[B, n]`` int64 of 64 random bits for ``seeds`` ``[B]`` and ``steps`` ``[B]`` (int64)."""
    row = _finalise(seeds * _GOLDEN + (steps + 1) * _STREAM + _wrap((stream + 1) * _MIX_1))
    index = torch.arange(1, n + 1, dtype=torch.int64, device=seeds.device) * _GOLDEN
    return _finalise(row[:, None] + index[None, :])


def uniform(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``[B, n]`` uniform in the open interval (0, 1): 23 random bits in float32, 52 in float64."""
    kept = 52 if dtype == torch.float64 else 23
    raw = (bits(seeds, steps, stream, n) >> (64 - kept)) & ((1 << kept) - 1)
    return (2 * raw + 1).to(dtype) * 0.5 ** (kept + 1)


def normal(seeds: torch.Tensor, steps: torch.Tensor, stream: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``[B, n]`` standard normal (Box & Muller 1958), one pair of uniforms a draw.

    Evaluated in float64 whatever the result's type, so that float32 and float64 twins see the same noise.
    """
    u = uniform(seeds, steps, stream, 2 * n, torch.float64)
    radius = torch.sqrt(-2.0 * torch.log(u[:, :n]))
    return (radius * torch.cos((2.0 * math.pi) * u[:, n:])).to(dtype)
