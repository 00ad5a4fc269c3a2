"""Variants of a line on the twin's replicas, by common random numbers: what a change brings, and what a stop costs.

Every variant has the same replicas: replica ``r`` of all of them is one line that telemetry allows and one stream of
chance, so that differences between variants are the change's and hardly chance's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import FixedLine, GeometricMachine, LineConfig
from ..line_plan import plan_of
from ..physics import ON, LinePhysics, State
from ..structure import Structure, draw_structure
from .efficiency import Machines

Floats = NDArray[np.float64]
Tensor = torch.Tensor
WARM_UP_SLOTS = 400


@dataclass(frozen=True)
class Variant:
    """A line that differs in one thing: a machine's ``efficiency`` or ``repairs``, chances in a slot, times ``factor``,
    its ``fails`` likewise, or a buffer's ``capacity`` plus ``more``; ``none``: the line itself."""

    kind: Literal["none", "efficiency", "fails", "repairs", "capacity"] = "none"
    place: int = 0
    factor: float = 1.0
    more: int = 0


@dataclass(frozen=True)
class Ran:
    """``parts`` ``[V, R]``, made a slot by each variant's replicas; ``blocked``, ``starved`` ``[M]``, shares of slots
    in which the first variant's machines would have processed."""

    parts: Floats
    blocked: Floats
    starved: Floats


class Replicas:
    """The lines that ``machines`` ``[R, M]`` allow, with ``extra_room`` more in each buffer."""

    def __init__(self, config: LineConfig, machines: Machines, extra_room: int, looks_through: bool, seed: int) -> None:
        assert isinstance(config.line, FixedLine)  # whoever analyses a line has checked it
        fixed, plan = config.line, plan_of(config)
        stops = np.any(machines.fails > 0, axis=0)
        models = [
            m.model if isinstance(m.model, GeometricMachine) else GeometricMachine() if stops[i] else m.model
            for i, m in enumerate(plan.machines)
        ]
        changed = tuple(
            m.model_copy(update={"model": model, "upkeep": None})
            for m, model in zip(plan.machines, models, strict=True)
        )
        line = fixed.model_copy(update={"machines": changed})
        self._config = config.model_copy(update={"line": line, "looks_through": looks_through})
        self._plan = plan_of(self._config)
        self._physics = LinePhysics(self._config, self._plan, torch.device("cpu"))
        self._machines, self._extra_room, self._seed = machines, extra_room, seed
        self._sinks = [i for i in range(len(plan.names)) if i not in plan.producer]
        self._n_replicas = len(machines.efficiency)

    def run(self, variants: Sequence[Variant], n_slots: int) -> Ran:
        """Simulate all variants side by side."""
        structure, seeds = self._structure(variants), self._seeds(len(variants))
        state = self._went(self._fresh(structure), structure, seeds, WARM_UP_SLOTS)
        state = self._went(state, structure, seeds, n_slots)
        first = slice(0, self._n_replicas)
        return Ran(
            (state["worked"][self._sinks].sum(0).reshape(len(variants), -1) / n_slots).numpy(),
            (state["blocked"][:, first].mean(1) / n_slots).numpy(),
            (state["starved"][:, first].mean(1) / n_slots).numpy(),
        )

    def stopped(self, stop_slots: int, recovery_slots: int) -> Floats:
        """Parts ``[R, M]`` lost for good when each machine is stopped for ``stop_slots``, counted ``recovery_slots``
        on: those that the same line, undisturbed, has made by then, less those that this one has."""
        n_machines = len(self._plan.names)
        variants = [Variant()] * (n_machines + 1)
        structure, seeds = self._structure(variants), self._seeds(len(variants))
        still = structure.efficiency.clone()
        for i in range(n_machines):
            still[i, (i + 1) * self._n_replicas : (i + 2) * self._n_replicas] = 0.0
        halted = Structure(**{**vars(structure), "efficiency": still})
        state = self._went(self._fresh(structure), structure, seeds, WARM_UP_SLOTS)
        made = torch.zeros(len(seeds), dtype=torch.float64)
        for lines, slots in ((halted, stop_slots), (structure, recovery_slots)):
            state = self._went(state, lines, seeds, slots)
            made += state["worked"][self._sinks].sum(0)
        by_machine = made.reshape(n_machines + 1, -1)
        return np.asarray((by_machine[0] - by_machine[1:]).T.numpy(), dtype=np.float64)

    def _fresh(self, structure: Structure) -> State:
        return self._physics.fresh(structure, torch.zeros(structure.present.shape[1], dtype=torch.float64))

    def _went(self, state: State, structure: Structure, seeds: Tensor, n_slots: int) -> State:
        """The state after so many slots with every machine on, totals counted from here."""
        shape = structure.present.shape
        mode = torch.full(shape, ON, dtype=torch.int64)
        nothing = torch.zeros(shape, dtype=torch.float64)
        state, period = self._physics.begin(state, structure, mode, nothing + 1.0, nothing, torch.zeros_like(seeds))
        for _ in range(n_slots):
            state = self._physics.slot(state, structure, seeds, period)
        return state

    def _seeds(self, n_variants: int) -> Tensor:
        first = self._seed * 1_000_003
        return torch.arange(first, first + self._n_replicas, dtype=torch.int64).repeat(n_variants)

    def _structure(self, variants: Sequence[Variant]) -> Structure:
        plain = draw_structure(self._config, self._plan, self._seeds(len(variants)))
        rows = {
            name: torch.from_numpy(np.tile(getattr(self._machines, name).T, (1, len(variants)))).contiguous()
            for name in ("efficiency", "fails", "repairs")
        }
        capacity = plain.capacity + self._extra_room
        for v, variant in enumerate(variants):
            mine = slice(v * self._n_replicas, (v + 1) * self._n_replicas)
            if variant.kind == "capacity":
                capacity[variant.place, mine] += variant.more
            elif variant.kind != "none":
                row = rows[variant.kind]
                row[variant.place, mine] = (row[variant.place, mine] * variant.factor).clamp(max=1.0)
        return Structure(**{**vars(plain), **rows, "capacity": capacity})
