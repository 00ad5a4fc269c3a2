"""Foresight by a batched twin: all backups under all disturbance samples at once, one replica each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from .constraint import (
    Declaration,
    History,
    LookAheadConstraint,
    Margins,
    Moment,
    RangeConstraint,
    RateConstraint,
    effective_limits,
    needs_history,
)
from .errors import ContractError
from .twin import Snapshot, Tensors, Twin

Floats = NDArray[np.float64]
Told = tuple[float, tuple[Mapping[str, Floats], ...]]


@dataclass(frozen=True)
class TwinForesight(ABC):
    """A :class:`~twinloop.envs.constraint.Foresight` whose future is a twin's; a site derives a frozen dataclass.

    ``n_samples`` disturbances (the twin's noise under as many seeds, from ``seed`` on) are tried for each of
    ``backups``. A backup sees the first sample and limits itself to range and rate; all samples obey the same commands,
    so that the plan which is stored is the plan that was judged. The margin is the least over samples, periods and
    assets of the hard constraints of :meth:`declaration`; ranges and rates, which hold by then, do not count.

    The twin is made at the first call and kept; the answer depends on the arguments alone. That all backups are rolled
    out together, and remembered until something else is asked, only saves time.
    """

    backups: tuple[str, ...]
    n_samples: int = 1
    seed: int = 0

    @abstractmethod
    def declaration(self) -> Declaration:
        """What the future is judged by; look-ahead conditions in it are not."""

    @abstractmethod
    def twin(self, n_replicas: int) -> Twin:
        """A new twin."""

    @abstractmethod
    def place(self, fresh: Snapshot, measured: Mapping[str, Floats], first: Mapping[str, Floats]) -> Snapshot:
        """The snapshot of all replicas at what was measured, made from that of a twin just reset.

        ``measured`` ``[N, O]`` and ``first`` ``[N, A]`` a group, ``first`` for twins that remember commands.
        """

    @abstractmethod
    def act(self, backup: str, measured: Tensors) -> Tensors:
        """Commands ``[B, N, A]`` of a backup that sees ``[B, N, O]``."""

    def __call__(
        self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon_periods: int, /
    ) -> Told:
        """Worst margin over the horizon, and the plan; raises :class:`ContractError` for a backup it does not know."""
        if backup not in self.backups:
            raise ContractError(f"backup {backup!r}: this foresight knows {', '.join(self.backups)}")
        asked = (*measured.items(), *first.items())
        key = (horizon_periods, *((name, a.shape, np.asarray(a, np.float64).tobytes()) for name, a in asked))
        if key not in self._memory:
            self._memory.clear()
            self._memory[key] = self._roll(measured, first, horizon_periods)
        return self._memory[key][backup]

    @cached_property
    def _memory(self) -> dict[object, dict[str, Told]]:
        """The newest question and its answers by backup."""
        return {}

    @cached_property
    def _model(self) -> tuple[Twin, Snapshot, Margins, tuple[str, ...]]:
        """Twin, its fresh snapshot, margins, and the names of the constraints that count."""
        if self.n_samples < 1 or not self.backups:
            raise ContractError(f"{self.n_samples} samples of {len(self.backups)} backups; give one of each or more")
        twin = self.twin(len(self.backups) * self.n_samples)
        # the same disturbances for all backups
        twin.reset(torch.arange(self.seed, self.seed + self.n_samples).repeat(len(self.backups)))
        declaration = self.declaration()
        passed_over = LookAheadConstraint | RangeConstraint | RateConstraint
        hard = tuple(c.name for c in declaration.hard if not isinstance(c, passed_over))
        return twin, twin.snapshot(), Margins(declaration), hard

    def _roll(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], horizon: int) -> dict[str, Told]:
        twin, fresh, margins, hard = self._model
        declaration = margins.declaration
        n_backups = len(self.backups)
        with torch.no_grad():
            twin.restore(self.place(fresh, measured, first))
            commands: Tensors = {
                name: torch.tensor(np.array(array), dtype=twin.dtype, device=twin.device).expand(
                    twin.n_replicas, *array.shape
                )
                for name, array in first.items()
            }
            before, history = commands, None
            if needs_history(declaration):
                history = History.start(declaration, commands)
            worst = torch.full((n_backups,), torch.inf, dtype=twin.dtype, device=twin.device)
            plans: list[list[Mapping[str, Floats]]] = [[first] for _ in self.backups]
            for period in range(horizon):
                readings = twin.step(commands)
                moment = Moment(before, commands, readings.measured, twin.dt_s, readings.present, history)
                found = margins(moment)
                for name in hard:
                    worst = torch.minimum(worst, found[name].reshape(n_backups, -1).amin(1).to(worst))
                if history is not None:
                    history = history.after(before, commands, twin.dt_s)
                if period == horizon - 1:
                    break
                before, commands = commands, self._next(readings.measured, commands)
                for k, plan in enumerate(plans):
                    row = k * self.n_samples
                    plan.append({n: c[row].cpu().numpy().astype(np.float64) for n, c in commands.items()})
        return {b: (float(worst[k]), tuple(plans[k])) for k, b in enumerate(self.backups)}

    def _next(self, seen: Tensors, before: Tensors) -> Tensors:
        """What each backup asks of its first sample, within range and rate, for all of its samples."""
        rows = torch.arange(len(self.backups), device=next(iter(seen.values())).device) * self.n_samples
        nominal = {name: values[rows] for name, values in seen.items()}
        asked: dict[str, list[torch.Tensor]] = {name: [] for name in before}
        for k, backup in enumerate(self.backups):
            own = self.act(backup, {name: values[k : k + 1] for name, values in nominal.items()})
            for name, values in own.items():
                asked[name].append(values)
        found: dict[str, torch.Tensor] = {}
        for name, parts in asked.items():
            wanted = torch.cat(parts).repeat_interleave(self.n_samples, dim=0).to(before[name])
            low, high = self._reach(name, before[name])
            found[name] = torch.minimum(torch.maximum(wanted, low), high)
        return found

    def _reach(self, name: str, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        declaration = self._model[2].declaration
        limits = effective_limits(declaration.nameplate, declaration.constraints)
        own = [limits[name, s.name] for s in declaration.nameplate.group(name).commanded]
        lower, upper, step = (
            torch.tensor(values, dtype=before.dtype, device=before.device)
            for values in (
                [limit.minimum for limit in own],
                [limit.maximum for limit in own],
                [limit.per_second * declaration.nameplate.period_s for limit in own],
            )
        )
        return torch.maximum(before - step, lower), torch.minimum(before + step, upper)
