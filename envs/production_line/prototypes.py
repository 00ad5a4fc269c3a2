"""Lines as they might be built: machines' efficiencies and order, buffers and crews differ from replica to replica.

Names: ``M2_efficiency_pu`` (a stand-in for a faster machine too), ``M2_place`` (machines stand in the order of these
numbers, equal ones in the configuration's), ``buffer1_capacity``, ``crews``. A place keeps its name and all else that
machines have but their rates; so only machines that are alike in all else may change places.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..configuration import validate
from ..errors import ConfigurationError, ContractError
from ..twin import Parameter, Readings, Tensors
from .config import (
    BernoulliMachine,
    ExponentialMachine,
    FixedLine,
    GeometricMachine,
    LineConfig,
    Machine,
    MachineModel,
)
from .line_plan import plan_of
from .twin import ProductionLineTwin

Tensor = torch.Tensor
_EFFICIENCY, _PLACE, _CAPACITY, _CREWS = "_efficiency_pu", "_place", "_capacity", "crews"
_MOST_CREWS = 100.0


class LinePrototypes(ProductionLineTwin):
    """``n_replicas`` prototypes of a fixed line; without any that is set, all are as configured.

    Raises :class:`ConfigurationError` for lines that differ from episode to episode.
    """

    def __init__(
        self, config: LineConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if not isinstance(config.line, FixedLine):
            raise ConfigurationError("line: kind 'random' draws its lines itself: give kind 'fixed' to explore one")
        super().__init__(config, n_replicas, device, dtype)
        self._configured = self._structure
        self._specs = specs_of(config)
        own = _own_values(config)
        self._parameters = {
            s.name: torch.full((n_replicas,), own[s.name], dtype=torch.float64, device=self._device)
            for s in self._specs
        }

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        return self._specs

    def set_parameters(self, values: Tensors) -> None:
        """Set some, each ``[B]`` or a scalar; capacities and crews act as whole numbers."""
        for name, value in values.items():
            if name not in self._parameters:
                raise ContractError(f"parameter {name!r}: unknown; this twin has {', '.join(self._parameters)}")
            given = value.to(self._device, torch.float64).expand(self._n_replicas).clone()
            self._parameters[name] = given
        self._build()

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        super().reset(seeds, rows)
        self._build()
        return self._readings()

    def _build(self) -> None:
        """Everything that replicas are made of, from the parameters."""
        names, p, own = self._plan.names, self._parameters, self._configured
        rates = {"efficiency": own.efficiency, "fails": own.fails, "repairs": own.repairs}
        rates["efficiency"] = torch.stack(
            [p.get(f"{name}{_EFFICIENCY}", row) for name, row in zip(names, own.efficiency, strict=True)]
        )
        if f"{names[0]}{_PLACE}" in p:
            order = torch.stack([p[f"{name}{_PLACE}"] for name in names]).argsort(dim=0, stable=True)
            rates = {k: v.gather(0, order) for k, v in rates.items()}
        capacity = own.capacity
        if len(capacity):
            capacity = torch.stack([p[f"buffer{k + 1}{_CAPACITY}"] for k in range(len(capacity))])
        self._structure = self._with(**rates, capacity=capacity.round().to(torch.int64))
        if _CREWS in p:
            self._state = self._state | {_CREWS: p[_CREWS].round().to(torch.int64)}


def specs_of(config: LineConfig) -> tuple[Parameter, ...]:
    """What may be chosen of a fixed line, all of it explorable."""
    assert isinstance(config.line, FixedLine)  # checked by who asks
    plan = plan_of(config)
    found = [
        Parameter(f"{name}{_EFFICIENCY}", "pu", 1e-3, 1.0, "chance to process in a slot at full speed", explorable=True)
        for name, machine in zip(plan.names, plan.machines, strict=True)
        if not isinstance(machine.model, GeometricMachine)
    ]
    if _may_change_places(plan.machines):
        last = float(len(plan.names))
        what = "machines stand in the order of these"
        found += [Parameter(f"{name}{_PLACE}", "1", 0.0, last, what, explorable=True) for name in plan.names]
    least = float(_least_capacity(config))
    found += [
        Parameter(f"buffer{k + 1}{_CAPACITY}", "parts", least, 1000.0, "whole parts", explorable=True)
        for k in range(len(plan.capacities))
    ]
    if plan.wears:
        found.append(Parameter(_CREWS, "1", 1.0, _MOST_CREWS, "maintenance crews, whole ones", explorable=True))
    return tuple(found)


def built_line(config: LineConfig, values: Mapping[str, float]) -> LineConfig:
    """The configuration of one prototype; raises :class:`ConfigurationError` for a parameter that the line lacks."""
    if not isinstance(config.line, FixedLine):
        raise ConfigurationError("line: kind 'random' draws its lines itself: give kind 'fixed' to build one")
    line, own = config.line, _own_values(config)
    unknown = [name for name in values if name not in own]
    if unknown:
        raise ConfigurationError(f"parameter {unknown[0]!r}: unknown; this line has {', '.join(own)}")
    chosen, names = own | dict(values), plan_of(config).names

    def model(i: int) -> MachineModel:
        there = line.machines[i].model
        if isinstance(there, BernoulliMachine):
            return there.model_copy(update={"efficiency_pu": chosen[f"{names[i]}{_EFFICIENCY}"]})
        if isinstance(there, ExponentialMachine):
            return there.model_copy(update={"rate_per_slot": chosen[f"{names[i]}{_EFFICIENCY}"]})
        return there

    order = sorted(range(len(names)), key=lambda i: chosen.get(f"{names[i]}{_PLACE}", float(i)))
    machines = [m.model_copy(update={"model": model(i)}) for i, m in zip(order, line.machines, strict=True)]
    count = len(line.buffers) or len(line.capacities)
    capacities = [max(_least_capacity(config), round(chosen[f"buffer{k + 1}{_CAPACITY}"])) for k in range(count)]
    changed = line.model_copy(update={"machines": tuple(machines)})
    if line.buffers:
        buffers = [b.model_copy(update={"capacity": c}) for b, c in zip(line.buffers, capacities, strict=True)]
        changed = changed.model_copy(update={"buffers": tuple(buffers)})
    else:
        changed = changed.model_copy(update={"capacities": tuple(capacities)})
    service = config.service
    if _CREWS in chosen:
        service = service.model_copy(update={"crews": max(1, round(chosen[_CREWS]))})
    made = config.model_copy(update={"line": changed, "service": service})
    return validate(made.model_dump(), LineConfig, "prototype")


def feasible_lines(config: LineConfig, values: Tensors) -> Tensor:
    """``[B]`` bool: whether the parts that are there from the beginning find room."""
    assert isinstance(config.line, FixedLine)  # checked where the twin was made
    shape = next(iter(values.values())).shape
    fits = torch.ones(shape, dtype=torch.bool)
    for k, buffer in enumerate(config.line.buffers):
        capacity = values.get(f"buffer{k + 1}{_CAPACITY}")
        if capacity is not None:
            fits = fits & (capacity.round() >= buffer.initial)
    return fits


def _own_values(config: LineConfig) -> dict[str, float]:
    """The configured line's value of every parameter."""
    assert isinstance(config.line, FixedLine)  # checked by who asks
    plan, found = plan_of(config), dict[str, float]()
    for name, machine in zip(plan.names, plan.machines, strict=True):
        if isinstance(machine.model, BernoulliMachine):
            found[f"{name}{_EFFICIENCY}"] = machine.model.efficiency_pu
        elif isinstance(machine.model, ExponentialMachine):
            found[f"{name}{_EFFICIENCY}"] = machine.model.rate_per_slot
    if _may_change_places(plan.machines):
        found |= {f"{name}{_PLACE}": float(i) for i, name in enumerate(plan.names)}
    found |= {f"buffer{k + 1}{_CAPACITY}": float(c) for k, c in enumerate(plan.capacities)}
    return found | ({_CREWS: float(config.service.crews)} if plan.wears else {})


def _least_capacity(config: LineConfig) -> int:
    return 0 if config.blocking == "after" else 1


def _may_change_places(machines: tuple[Machine, ...]) -> bool:
    """Whether machines are alike in all but their names and rates, which are all that differs between replicas."""
    rest = {"efficiency_pu", "fails_pu", "repairs_pu", "rate_per_slot", "fails_per_slot", "repairs_per_slot"}
    alike = [m.model_dump(exclude={"name": True, "model": rest}) for m in machines]
    return len(machines) > 1 and all(a == alike[0] for a in alike)
