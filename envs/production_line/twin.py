"""The production-line twin: a batch of lines, slot by slot; keeps the :class:`~twinloop.envs.twin.Twin` contract.

This is the contract's side: rows, seeds, snapshots, readings; a slot is in :mod:`.physics`. Inside, the replica is the
last axis, outside the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch

from .. import noise
from ..errors import ContractError
from ..nameplate import Nameplate
from ..twin import Parameter, Readings, Tensors
from .config import FixedLine, GammaWear, LineConfig, Machine, WeibullWear
from .line_plan import plan_of
from .nameplate import CREW, MACHINE, line_nameplate
from .physics import OFF, LinePhysics
from .sensing import crew_readings, machine_readings, random_statics
from .structure import Structure, draw_structure

Tensor = torch.Tensor
_HOUR_STREAM = 43
_EFFICIENCY, _FAILS, _REPAIRS, _CAPACITY = "_efficiency_pu", "_fails_pu", "_repairs_pu", "_capacity"
_PACE, _SERVICE = "_wear_pace", "_service_factor"
_UPKEEP = {_PACE: "pace", _SERVICE: "lasts"}
_RATES = {_EFFICIENCY: "efficiency", _FAILS: "fails", _REPAIRS: "repairs"}


class ProductionLineTwin:
    """``n_replicas`` lines of one configuration. Numbers of the model are in float64 and integers; ``dtype`` is that of
    readings.

    Raises :class:`ContractError` when there is no replica.
    """

    def __init__(
        self, config: LineConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if n_replicas < 1:
            raise ContractError(f"n_replicas {n_replicas}: a twin has at least one replica")
        self._config, self._n_replicas = config, n_replicas
        self._device, self._dtype = torch.device(device), dtype
        self._plan = plan_of(config)
        self._nameplate = line_nameplate(config)
        self._physics = LinePhysics(config, self._plan, self._device)
        self._levels = {
            g.name: [torch.tensor(s.levels, dtype=torch.float64, device=self._device) for s in g.commanded]
            for g in self._nameplate.groups
        }
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64, device=self._device)
        self._structure, self._state = self._drawn(self._seeds)
        self._parameters = self._own_parameters()

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def n_replicas(self) -> int:
        return self._n_replicas

    @property
    def dt_s(self) -> float:
        return self._config.dt_s

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        """A fixed line's efficiencies and, but of exponential machines, stops and repairs; and its capacities, which
        may be explored; names ``M2_efficiency_pu``, ``M2_fails_pu``, ``M2_repairs_pu``, ``M2_wear_pace``,
        ``M2_service_factor``, ``buffer1_capacity``."""
        if not isinstance(self._config.line, FixedLine):
            return ()
        found = [
            Parameter(f"{name}{_EFFICIENCY}", "pu", 1e-3, 1.0, "chance to process in a slot at full speed")
            for name in self._plan.names
        ]
        if not self._config.is_exponential:
            for name in self._plan.names:
                found += [
                    Parameter(f"{name}{_FAILS}", "pu", 0.0, 0.9, "chance to stop in a slot in which it could work"),
                    Parameter(f"{name}{_REPAIRS}", "pu", 1e-3, 1.0, "chance to come up again in a slot"),
                ]
        found += [
            Parameter(f"{name}{_PACE}", "1", 0.01, 100.0, "how fast it wears, of what is declared")
            for name, machine in zip(self._plan.names, self._plan.machines, strict=True)
            if _paced(machine)
        ]
        found += [
            Parameter(f"{name}{_SERVICE}", "1", 0.1, 10.0, "how long work on it takes, of what is declared")
            for name, machine in zip(self._plan.names, self._plan.machines, strict=True)
            if machine.upkeep is not None
        ]
        least = 0.0 if self._config.blocking == "after" else 1.0
        found += [
            Parameter(f"buffer{k + 1}{_CAPACITY}", "parts", least, 1000.0, "whole parts", explorable=True)
            for k in range(len(self._plan.capacities))
        ]
        return tuple(found)

    def parameters(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._parameters.items()}

    def set_parameters(self, values: Tensors) -> None:
        """Set some, each ``[B]`` or a scalar; capacities act as whole numbers.

        Parts above a smaller capacity stay until they are used up.
        """
        capacity = self._structure.capacity.clone()
        rates = {kind: getattr(self._structure, field).clone() for kind, field in _RATES.items()}
        for name, value in values.items():
            if name not in self._parameters:
                known = ", ".join(self._parameters) or "none"
                raise ContractError(f"parameter {name!r}: unknown; this twin has {known}")
            given = value.to(self._device, self._dtype).expand(self._n_replicas).clone()
            same = given == self._parameters[name]  # a row that is given what it has keeps every bit
            self._parameters[name] = given
            kind = next((k for k in rates if name.endswith(k)), "")
            upkeep = next((k for k in _UPKEEP if name.endswith(k)), "")
            if upkeep:
                i = self._plan.names.index(name.removesuffix(upkeep))
                rows = self._state[_UPKEEP[upkeep]].clone()
                rows[i] = torch.where(same, rows[i], given.to(torch.float64))
                self._state = self._state | {_UPKEEP[upkeep]: rows}
            elif kind:
                i = self._plan.names.index(name.removesuffix(kind))
                rates[kind][i] = torch.where(same, rates[kind][i], given.to(torch.float64))
            else:
                capacity[int(name.removeprefix("buffer").removesuffix(_CAPACITY)) - 1] = given.round().to(torch.int64)
        changed = {field: rates[kind] for kind, field in _RATES.items()}
        self._structure = self._with(**changed, capacity=capacity)

    def _own_parameters(self) -> dict[str, Tensor]:
        if not isinstance(self._config.line, FixedLine):
            return {}
        s = self._structure
        kinds = (_EFFICIENCY,) if self._config.is_exponential else tuple(_RATES)
        found = {f"{n}{kind}": getattr(s, _RATES[kind])[i] for i, n in enumerate(self._plan.names) for kind in kinds}
        if self._plan.wears:
            for i, (name, machine) in enumerate(zip(self._plan.names, self._plan.machines, strict=True)):
                if machine.upkeep is not None:
                    found |= {f"{name}{_PACE}": self._state["pace"][i]} if _paced(machine) else {}
                    found[f"{name}{_SERVICE}"] = self._state["lasts"][i]
        found |= {f"buffer{k + 1}{_CAPACITY}": row for k, row in enumerate(s.capacity)}
        return {name: value.to(self._dtype) for name, value in found.items()}

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        """Begin new episodes from ``seeds`` for ``rows`` (all when None); other rows keep every bit. Parameters that
        were set stay."""
        target = torch.arange(self._n_replicas, device=self._device) if rows is None else rows.to(self._device)
        if tuple(seeds.shape) != (len(target),):
            raise ContractError(f"reset: {tuple(seeds.shape)} seeds for {len(target)} rows; give one int64 a row")
        if len(target):
            given = seeds.to(self._device, torch.int64)
            structure, state = self._drawn(given)
            if isinstance(self._config.line, FixedLine):
                structure = self._structure
            else:
                structure = self._with(**_put(_table(self._structure), _table(structure), target))
            for kept in _UPKEEP.values():
                if kept in state:
                    state[kept] = self._state[kept][:, target]
            self._state = _put(self._state, state, target)
            self._structure = structure
            self._seeds = self._seeds.index_copy(0, target, given)
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        """Advance one period. ``commands["machine"]``: ``[B, N, A]``; each acts as the nearest of its levels."""
        machine = self._snapped(commands, MACHINE)
        first = torch.zeros_like(self._seeds)
        service = torch.zeros_like(machine[0])
        if self._plan.wears:
            service = machine[2]
            first = self._snapped(commands, CREW)[0][0].to(torch.int64)
        mode, speed = machine[0].to(torch.int64), machine[1]
        speed = torch.where(mode == OFF, 0.0, speed)
        state, period = self._physics.begin(self._state, self._structure, mode, speed, service, first)
        slots = self._config.slots_per_period
        self._state = self._physics.advance(state, self._structure, self._seeds, period, slots)
        return self._readings()

    def snapshot(self) -> dict[str, Tensor]:
        kept = {f"state/{k}": v.clone() for k, v in self._state.items()}
        kept |= {f"structure/{k}": v.clone() for k, v in _table(self._structure).items()}
        kept |= {f"parameter/{k}": v.clone() for k, v in self._parameters.items()}
        return kept | {"seeds": self._seeds.clone()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v.clone() for k, v in snapshot.items() if k.startswith(prefix)}

        self._state = part("state/")
        self._structure = self._with(**part("structure/"))
        self._parameters = part("parameter/")
        self._seeds = snapshot["seeds"].clone()

    def _drawn(self, seeds: Tensor) -> tuple[Structure, dict[str, Tensor]]:
        structure = draw_structure(self._config, self._plan, seeds)
        low, high = self._config.start_hour
        drawn = noise.uniform(seeds, torch.zeros_like(seeds), _HOUR_STREAM, 1, torch.float64)[:, 0]
        return structure, self._physics.fresh(structure, low + (high - low) * drawn)

    def _with(self, **changed: Tensor) -> Structure:
        if "fails" in changed:
            self._physics.stops = bool((changed["fails"] > 0).any())
        return Structure(**{**vars(self._structure), **changed})

    def _snapped(self, commands: Tensors, group: str) -> list[Tensor]:
        """Commands of a group as the nearest of their levels, ``[N, B]`` each."""
        levels = self._levels[group]
        expected = (self._n_replicas, self._nameplate.group(group).n_assets, len(levels))
        given = commands[group].to(self._device, torch.float64)
        if tuple(given.shape) != expected:
            raise ContractError(f"step: commands[{group!r}] is {tuple(given.shape)}, expected {expected} (B, N, A)")
        found = []
        for k, values in enumerate(levels):
            nearest = (given[..., k, None] - values).abs().argmin(-1)
            found.append(values[nearest].T.contiguous())
        return found

    def _readings(self) -> Readings:
        s, structure, b = self._state, self._structure, self._n_replicas
        price = self._physics.price(s)
        measured, hidden = machine_readings(self._config, self._plan, s, structure, price, self._physics.doing(s))
        groups = {MACHINE: (measured, hidden, structure.present.T)}
        statics = {MACHINE: random_statics(self._config, self._plan, structure, self._nameplate)}
        if self._plan.wears:
            everybody = torch.ones(b, 1, dtype=torch.bool, device=self._device)
            groups[CREW] = (*crew_readings(self._config, s), everybody)
            statics[CREW] = torch.zeros(b, 1, 0, device=self._device)
        return Readings(
            measured={g: m.to(self._dtype) for g, (m, _, _) in groups.items()},
            hidden={g: h.to(self._dtype) for g, (_, h, _) in groups.items()},
            statics={g: v.to(self._dtype) for g, v in statics.items()},
            present={g: p.contiguous() for g, (_, _, p) in groups.items()},
            time_s=s["slot"] * self._config.slot_s,
        )


def _paced(machine: Machine) -> bool:
    """Whether a machine wears in a way that may go faster or slower; wear in stages has rates of its own."""
    return machine.upkeep is not None and isinstance(machine.upkeep.wear, WeibullWear | GammaWear)


def _table(structure: Structure) -> dict[str, Tensor]:
    """What differs from replica to replica."""
    kept = [f.name for f in fields(structure) if f.name not in ("producer", "consumer")]
    return {name: getattr(structure, name) for name in kept}


def _put(old: Mapping[str, Tensor], new: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """``old`` with ``new`` in ``rows`` of the last axis."""
    return {name: value.index_copy(value.dim() - 1, rows, new[name]) for name, value in old.items()}
