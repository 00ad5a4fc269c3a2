"""Farms as they might be built: turbines stand elsewhere from replica to replica.

Names: ``WT02_x_m``, ``WT02_y_m``, east and north as in the configuration. Only layouts that are fixed can be explored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..errors import ConfigurationError, ContractError
from ..twin import Parameter, Readings, Tensors
from .config import CoordinateLayout, WindFarmConfig
from .farm import check_layout, fixed_layout
from .nameplate import GROUP
from .physics import FarmPhysics
from .travel import slots_needed
from .turbine import Turbine, load_turbine
from .twin import WindFarmTwin

Tensor = torch.Tensor
State = dict[str, Tensor]
_AXES = ("x_m", "y_m")
MARGIN_D = 25.0
"""How far outside the configured farm's extent a turbine may be put, rotor diameters."""


class FarmPrototypes(WindFarmTwin):
    """``n_replicas`` prototypes of a farm; those without a layout that is set stand as configured.

    A layout that is set acts from the next reset: nobody moves a turbine in the wind. Turbines must keep a rotor
    diameter between them (:func:`feasible_farms`); what the wake model says of closer ones means nothing. Raises
    :class:`ConfigurationError` where every episode draws its own layout.
    """

    def __init__(
        self, config: WindFarmConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        own = _own_layout(config)
        super().__init__(config, n_replicas, device, dtype)
        turbines = [load_turbine(name) for name in (config.turbine, *config.other_turbines)]
        slots = _ring_slots(config, turbines)
        self._physics = _PlacedPhysics(config, turbines, self._device, dtype, slots)
        self._drawing = self._physics
        self._layout_specs = _layout_specs(config)
        full = torch.ones(self._lanes, dtype=torch.float64, device=self._device)
        self._parameters |= {name: full * value for name, value in own.items()}
        seeds = torch.zeros(self._lanes, dtype=torch.int64, device=self._device)
        self._state = self._physics.fresh(seeds, self._parameters, self._newest)

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        return (*super().parameter_specs, *self._layout_specs)

    def set_parameters(self, values: Tensors) -> None:
        """Set some, each ``[B]`` or a scalar; coordinates are kept in float64 whatever the twin's type."""
        layout = {spec.name for spec in self._layout_specs}
        for name, value in values.items():
            if name not in self._parameters:
                raise ContractError(f"parameter {name!r}: unknown; this twin has {', '.join(self._parameters)}")
            if name in layout:
                self._parameters[name] = self._pad(value.to(self._device, torch.float64).expand(self._n_replicas))
        super().set_parameters({name: value for name, value in values.items() if name not in layout})

    def mix(self, transform: Tensor) -> Readings:
        """Refused with :class:`ContractError`: a mixture of farms is no farm."""
        raise ContractError("prototypes of a farm cannot be mixed; track a plant with the site's everyday twin")


class _PlacedPhysics(FarmPhysics):
    """Puts turbines where the parameters say."""

    def _place(self, seeds: Tensor, kind: Tensor, direction_deg: Tensor, parameters: State) -> State:
        placed = super()._place(seeds, kind, direction_deg, parameters)
        n = placed["present"].shape[0]
        rows = [[parameters[_name(i, axis)] for i in range(n)] for axis in _AXES]
        return placed | {"position_m": torch.stack([torch.stack(row) for row in rows]).contiguous()}


def feasible_farms(config: WindFarmConfig, values: Tensors) -> Tensor:
    """``[B]`` bool: whether all turbines stand at least a rotor diameter apart."""
    own = _own_layout(config)
    shape = next(iter(values.values())).shape
    n = len(own) // len(_AXES)

    def axis(which: str) -> Tensor:
        names = [_name(i, which) for i in range(n)]
        return torch.stack([values[k].double().expand(shape) if k in values else torch.full(shape, own[k],
                            dtype=torch.float64) for k in names])  # fmt: skip

    x, y = axis("x_m"), axis("y_m")
    least = load_turbine(config.turbine).rotor_diameter_m
    apart = torch.ones(shape, dtype=torch.bool)
    for i in range(n):
        for j in range(i):
            apart = apart & (torch.hypot(x[i] - x[j], y[i] - y[j]) >= least)
    return apart


def built_farm(config: WindFarmConfig, values: Mapping[str, float]) -> WindFarmConfig:
    """The configuration of one prototype; raises :class:`LayoutError` where turbines stand too close."""
    own = _own_layout(config)
    unknown = [name for name in values if name not in own]
    if unknown:
        raise ConfigurationError(f"parameter {unknown[0]!r}: is not of a layout; this farm has {', '.join(own)}")
    chosen = own | dict(values)
    n = len(own) // len(_AXES)
    x, y = (tuple(float(chosen[_name(i, axis)]) for i in range(n)) for axis in _AXES)
    check_layout(x, y, load_turbine(config.turbine).rotor_diameter_m)
    return config.model_copy(update={"layout": CoordinateLayout(x_m=x, y_m=y)})


def _own_layout(config: WindFarmConfig) -> dict[str, float]:
    coordinates = fixed_layout(config)
    if coordinates is None:
        raise ConfigurationError("layout: kind 'random' draws its farms itself: give named or coordinates to explore")
    rows = zip(_AXES, coordinates, strict=True)
    return {_name(i, axis): float(value) for axis, row in rows for i, value in enumerate(row)}


def _layout_specs(config: WindFarmConfig) -> tuple[Parameter, ...]:
    own = _own_layout(config)
    margin = MARGIN_D * load_turbine(config.turbine).rotor_diameter_m
    found = []
    for axis in _AXES:
        values = [v for name, v in own.items() if name.endswith(axis)]
        low, high = min(values) - margin, max(values) + margin
        found += [
            Parameter(name, "m", low, high, f"{GROUP}'s place, from the next reset", explorable=True)
            for name in own
            if name.endswith(axis)
        ]
    return tuple(found)


def _ring_slots(config: WindFarmConfig, turbines: list[Turbine]) -> int:
    """Slots for the longest way across the largest farm that may be set."""
    bounds = {s.name[-3:]: s.maximum - s.minimum for s in _layout_specs(config)}
    least = config.inflow.wind_speed_mps[0] - 3.0 * config.inflow.speed_drift_std_mps
    extent = math.hypot(*bounds.values())
    return slots_needed(extent, least, config.dynamics.advection_ratio, config.dt_s)


def _name(turbine: int, axis: str) -> str:
    return f"WT{turbine + 1:02d}_{axis}"
