"""Commands and observations that exercise an implementation: functions of (seed, step) alone, never of the batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .. import noise
from ..nameplate import Group, Nameplate
from ..twin import Observation

_STREAM = 7001  # far from the streams that twins use


def random_commands(
    nameplate: Nameplate, seeds: torch.Tensor, steps: torch.Tensor, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Uniform inside each command's range, ``[B, N, A]`` per group, for ``seeds`` ``[B]`` and ``steps`` ``[B]``."""
    found = {}
    for number, group in enumerate(nameplate.groups):
        n, a = group.n_assets, len(group.commanded)
        # In float64, rounded once at the end.
        draws = noise.uniform(seeds, steps, _STREAM + number, n * a, torch.float64).reshape(len(seeds), n, a)
        found[group.name] = _spread(group, draws).to(dtype)
    return found


def constant_commands(
    nameplate: Nameplate, n_rows: int, share: float, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """Every command at ``share`` of its range: 0 the minimum, 1 the maximum, outside [0, 1] beyond the limits."""
    found = {}
    for group in nameplate.groups:
        draws = torch.full((n_rows, group.n_assets, len(group.commanded)), share, dtype=torch.float64, device=device)
        lower = torch.as_tensor(group.lower("commanded"), device=device)
        upper = torch.as_tensor(group.upper("commanded"), device=device)
        found[group.name] = (lower + draws * (upper - lower)).to(dtype)
    return found


def _spread(group: Group, draws: torch.Tensor) -> torch.Tensor:
    lower = torch.as_tensor(group.lower("commanded"), device=draws.device)
    upper = torch.as_tensor(group.upper("commanded"), device=draws.device)
    values = torch.clamp(lower + draws * (upper - lower), lower, upper)
    for column, signal in enumerate(group.commanded):
        if signal.levels is not None:
            levels = torch.tensor(signal.levels, dtype=torch.float64, device=draws.device)
            values[..., column] = levels[(draws[..., column] * len(signal.levels)).long()]
    return values


def random_observation(
    nameplate: Nameplate, n_rows: int, seed: int, *, absent: bool = False, dtype: type[np.floating] = np.float64
) -> Observation:
    """Measured signals uniform in their ranges; row 0 at every minimum, row 1 at every maximum.

    ``absent`` empties slots of rows 2 and on: all but the first, all but the last, then at random. Statics are the
    nameplate's, or where it has none uniform in their ranges.
    """
    generator = np.random.default_rng(seed)
    measured, statics, present = {}, {}, {}
    for group in nameplate.groups:
        share = generator.random((n_rows, group.n_assets, len(group.measured)))
        share[0:1], share[1:2] = 0.0, 1.0
        measured[group.name] = _between(group, "measured", share).astype(dtype)
        statics[group.name] = _statics(group, n_rows, generator).astype(dtype)
        slots = np.ones((n_rows, group.n_assets), dtype=np.bool_)
        if absent:
            slots[2:] = generator.random(slots[2:].shape) < 0.6
            slots[2:3], slots[3:4] = False, False
            slots[2:3, 0], slots[3:4, -1] = True, True
            slots[~slots.any(axis=1), 0] = True
        present[group.name] = slots
    return Observation(measured, statics, present, nameplate.period_s)


def rows_of(observation: Observation, rows: NDArray[np.int64]) -> Observation:
    """The same observation with ``rows`` alone."""
    return Observation(
        {g: v[rows] for g, v in observation.measured.items()},
        {g: v[rows] for g, v in observation.statics.items()},
        {g: v[rows] for g, v in observation.present.items()},
        observation.dt_s,
    )


def _statics(group: Group, n_rows: int, generator: np.random.Generator) -> NDArray[np.float64]:
    if group.static_values or not group.statics:
        return np.repeat(group.statics_array()[None], n_rows, axis=0)
    return _between(group, "statics", generator.random((n_rows, group.n_assets, len(group.statics))))


def _between(group: Group, kind: str, share: NDArray[np.float64]) -> NDArray[np.float64]:
    lower, upper = group.lower(kind), group.upper(kind)
    return np.clip(lower + share * (upper - lower), lower, upper)
