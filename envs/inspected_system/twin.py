"""The twin of an inspected system: beliefs over crack sizes, year by year; keeps the
:class:`~twinloop.envs.twin.Twin` contract.

The belief is what a plant's integrity record holds, so it is measured, not hidden; the only draws are inspections'
findings. Inside, a bin is the first axis and a lane (replica and component) the last. Every number comes by the same
additions in the same order whatever the batch, so no bit depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from .. import noise
from ..errors import ContractError
from ..nameplate import Nameplate
from ..twin import Parameter, Readings, Tensors
from .config import InspectedSystemConfig
from .crack_model import crack_model
from .nameplate import COMPONENT, CRACK, INSPECT, NO_CRACK, NOT_INSPECTED, REPAIR, YEAR_S, system_nameplate

Tensor = torch.Tensor
_FINDING_STREAM = 61
_SMALLEST_CHANCE = 1e-14
_NO_EVIDENCE = 1e-5


class InspectedSystemTwin:
    """``n_replicas`` systems of one configuration.

    A year: growth or repair, then findings. A repaired component is as new, and does not grow in that year. Raises
    :class:`ContractError` when there is no replica.
    """

    parameter_specs: tuple[Parameter, ...] = ()

    def __init__(
        self, config: InspectedSystemConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if n_replicas < 1:
            raise ContractError(f"n_replicas {n_replicas}: a twin has at least one replica")
        self._config, self._n_replicas = config, n_replicas
        self._device, self._dtype = torch.device(device), dtype
        self._nameplate = system_nameplate(config)
        model = crack_model(config)
        self._bands = [(row, self._tensor(band)) for row, band in _bands(model.growth)]
        self._failing = self._tensor(model.growth[:, :, -1].T)
        self._found = self._tensor(model.found)[:, None]
        self._new = self._tensor(model.initial)
        n, j = n_replicas * config.components, config.belief.bins
        self._belief = self._new[:, None].expand(j, n).contiguous()
        self._age = torch.zeros(n, dtype=torch.int64, device=self._device)
        self._finding = torch.zeros(n, dtype=dtype, device=self._device)
        self._expected = torch.zeros(n, dtype=dtype, device=self._device)
        self._year = torch.zeros(n_replicas, dtype=torch.int64, device=self._device)
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64, device=self._device)
        statics = torch.from_numpy(self._nameplate.group(COMPONENT).statics_array()).to(self._device, dtype)
        self._statics = statics.expand(n_replicas, -1, -1)

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def n_replicas(self) -> int:
        return self._n_replicas

    @property
    def dt_s(self) -> float:
        return YEAR_S

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def parameters(self) -> dict[str, Tensor]:
        """None; the tables follow from the configuration."""
        return {}

    def set_parameters(self, values: Tensors) -> None:
        for name in values:
            raise ContractError(f"parameter {name!r}: this twin has none; change growth in the site's configuration")

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        """Begin new episodes from ``seeds`` for ``rows`` (all when None), with new components; other rows keep every
        bit."""
        target = torch.arange(self._n_replicas, device=self._device) if rows is None else rows.to(self._device)
        if tuple(seeds.shape) != (len(target),):
            raise ContractError(f"reset: {tuple(seeds.shape)} seeds for {len(target)} rows; give one int64 a row")
        n = self._config.components
        lanes = (target[:, None] * n + torch.arange(n, device=self._device)).reshape(-1)
        fresh = self._new[:, None].expand(-1, len(lanes))
        self._belief = self._belief.index_copy(1, lanes, fresh)
        self._age = self._age.index_fill(0, lanes, 0)
        self._finding = self._finding.index_fill(0, lanes, NOT_INSPECTED)
        self._expected = self._expected.index_copy(0, lanes, fresh[-1])
        self._year = self._year.index_fill(0, target, 0)
        self._seeds = self._seeds.index_copy(0, target, seeds.to(self._device, torch.int64))
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        """Advance a year. ``commands["component"]``: ``[B, N, 1]``; each acts as the nearest of its levels."""
        expected = (self._n_replicas, self._config.components, 1)
        given = commands[COMPONENT]
        if tuple(given.shape) != expected:
            raise ContractError(f"step: commands[{COMPONENT!r}] is {tuple(given.shape)}, expected {expected} (B, N, A)")
        action = given.to(self._device, torch.float64).reshape(-1)
        repaired, inspected = action >= 0.5 * (INSPECT + REPAIR), action >= 0.5 * INSPECT
        inspected = inspected & ~repaired
        belief = torch.where(repaired, self._new[:, None], self._grown())
        self._expected = belief[-1].clone()
        self._belief, self._finding = self._after_inspection(belief, inspected)
        self._age = torch.where(repaired, 0, self._age + 1)
        self._year = self._year + 1
        return self._readings()

    def snapshot(self) -> dict[str, Tensor]:
        return {name: getattr(self, f"_{name}").clone() for name in _STATE}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        for name in _STATE:
            setattr(self, f"_{name}", snapshot[name].clone())

    def _grown(self) -> Tensor:
        """The beliefs ``[bins, lanes]`` a year later, if nothing is done: sums over the table's diagonals."""
        rows = self._rows()
        later = torch.zeros_like(self._belief)
        for offset, (first, band) in enumerate(self._bands):
            part = band.index_select(1, rows)
            last = first + len(part)
            later[first + offset : last + offset] += part.mul_(self._belief[first:last])
        return later

    def _rows(self) -> Tensor:
        """The table's year ``[lanes]`` for each age."""
        return self._age.clamp(max=self._config.years)

    def _after_inspection(self, belief: Tensor, inspected: Tensor) -> tuple[Tensor, Tensor]:
        """Beliefs given a drawn finding (Bayes), and the findings ``[lanes]``."""
        hits = belief * self._found
        found_pu = _added(hits)
        draw = noise.uniform(self._seeds, self._year, _FINDING_STREAM, self._config.components, torch.float64)
        cracked = (draw.reshape(-1) < found_pu) & (found_pu > _NO_EVIDENCE)
        seen = torch.where(cracked, hits, belief - hits)
        seen = seen / _added(seen)
        finding = torch.where(cracked, CRACK, NO_CRACK).to(self._dtype)
        return torch.where(inspected, seen, belief), torch.where(inspected, finding, NOT_INSPECTED)

    def _readings(self) -> Readings:
        b, n = self._n_replicas, self._config.components
        next_pu = _added(self._failing.index_select(1, self._rows()).mul_(self._belief)).clamp(max=1.0)
        year = self._year.to(self._dtype).repeat_interleave(n)
        plain = torch.stack([year, self._age.to(self._dtype), self._finding, self._belief[-1], next_pu])
        measured = torch.cat((plain, self._belief)).T.reshape(b, n, -1)
        return Readings(
            measured={COMPONENT: measured.contiguous()},
            hidden={COMPONENT: self._expected.reshape(b, n, 1).clone()},
            statics={COMPONENT: self._statics},
            present={COMPONENT: torch.ones(b, n, dtype=torch.bool, device=self._device)},
            time_s=self._year * YEAR_S,
        )

    def _tensor(self, array: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._dtype)


_STATE = ("belief", "age", "finding", "expected", "year", "seeds")


def _bands(growth: NDArray[np.float64]) -> list[tuple[int, NDArray[np.float64]]]:
    """The diagonals of ``[years, bins, bins]`` from the main one upwards, as (first bin, ``[bins, years]``), each cut
    to the bins whose chance ever exceeds 1e-14. Cracks never shrink, and few grow far in a year."""
    found = []
    for offset in range(growth.shape[1]):
        band = np.diagonal(growth, offset, 1, 2).T
        used = np.flatnonzero((band > _SMALLEST_CHANCE).any(1))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        found.append((first, band[first:last]))
    while len(found[-1][1]) == 0:
        found.pop()
    return found


def _added(rows: Tensor) -> Tensor:
    """The sum over the first axis, in its order: the same bits for any number of lanes."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total
