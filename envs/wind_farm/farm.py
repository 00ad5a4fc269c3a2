"""From a configuration to turbines on the ground: layouts, their checks, and the nameplate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import LayoutError
from ..nameplate import Nameplate
from .config import NamedLayout, RandomLayout, WindFarmConfig
from .layouts import named_layout
from .nameplate import make_nameplate
from .turbine import Turbine, load_turbine


def check_layout(x_m: Sequence[float], y_m: Sequence[float], rotor_diameter_m: float) -> None:
    """Raise :class:`LayoutError` for coordinates that no farm could have, naming the turbines."""
    if len(x_m) != len(y_m) or not len(x_m):
        raise LayoutError(f"layout: {len(x_m)} x_m and {len(y_m)} y_m; give one of each a turbine, at least one")
    for k, (x, y) in enumerate(zip(x_m, y_m, strict=True)):
        if not (math.isfinite(x) and math.isfinite(y)):
            raise LayoutError(f"layout: turbine WT{k + 1:02d} is at ({x}, {y}); coordinates are finite metres")
    east, north = np.asarray(x_m, dtype=np.float64), np.asarray(y_m, dtype=np.float64)
    distance = np.hypot(east[:, None] - east[None, :], north[:, None] - north[None, :])
    distance[np.diag_indices(len(east))] = np.inf
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    if distance[i, j] < rotor_diameter_m:
        raise LayoutError(
            f"layout: WT{min(i, j) + 1:02d} and WT{max(i, j) + 1:02d} are {distance[i, j]:.1f} m apart, "
            f"less than one rotor diameter ({rotor_diameter_m:.1f} m); check units (metres) and duplicates"
        )


def fixed_layout(config: WindFarmConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Coordinates of a named or given layout, checked; None where every episode draws its own."""
    layout = config.layout
    if isinstance(layout, RandomLayout):
        return None
    x, y = named_layout(layout.name) if isinstance(layout, NamedLayout) else (layout.x_m, layout.y_m)
    check_layout(x, y, load_turbine(config.turbine).rotor_diameter_m)
    return x, y


def farm_nameplate(config: WindFarmConfig) -> Nameplate:
    """Nameplate of the configured farm; statics are left out where they differ per replica."""
    turbine = load_turbine(config.turbine)
    coordinates = fixed_layout(config)
    layout = config.layout
    if coordinates is None:
        assert isinstance(layout, RandomLayout)  # narrows the type; fixed_layout is None for nothing else
        return make_nameplate(config.name, config.dt_s, layout.n_max, (), f"random farms of {turbine.name}")
    rows = tuple((float(x), float(y), *turbine_statics(turbine)) for x, y in zip(*coordinates, strict=True))
    what = layout.name if isinstance(layout, NamedLayout) else "given coordinates"
    return make_nameplate(config.name, config.dt_s, len(rows), rows, f"{what}, {turbine.name}")


def turbine_statics(turbine: Turbine) -> tuple[float, float, float]:
    """The last three statics: rotor diameter, hub height, rated power."""
    return turbine.rotor_diameter_m, turbine.hub_height_m, turbine.rated_power_kw
