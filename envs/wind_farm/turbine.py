"""Turbine types: power and thrust tables, from FLORIS' library or a YAML of the same form."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..errors import ConfigurationError, MissingExtraError, nearest

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Turbine:
    """A turbine type. Tables: ``wind_speed_mps``, ``power_kw``, ``thrust_pu``, all ``[K]``, speeds increasing.

    ``yaw_loss_exponent`` is the exponent of the cosine in the power of a yawed rotor (FLORIS:
    ``cosine_loss_exponent_yaw``).
    """

    name: str
    rotor_diameter_m: float
    hub_height_m: float
    tip_speed_ratio: float
    reference_density_kgpm3: float
    yaw_loss_exponent: float
    wind_speed_mps: FloatArray
    power_kw: FloatArray
    thrust_pu: FloatArray

    @property
    def rated_power_kw(self) -> float:
        return float(self.power_kw.max())


def library_names() -> tuple[str, ...]:
    """Names of FLORIS' single-condition turbines that this twin can use."""
    return tuple(sorted(p.stem for p in _library().glob("*.yaml") if "multi_dim" not in p.stem))


def load_turbine(name: str) -> Turbine:
    """Load a turbine of FLORIS' library by name, or a turbine YAML by path."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigurationError(f"turbine: file {name!r} does not exist; give a path or one of {library_names()}")
    else:
        path = _library() / f"{name}.yaml"
        if name not in library_names():
            raise ConfigurationError(
                f"turbine: {name!r} is not in FLORIS' library; it has {', '.join(library_names())}"
                f"{nearest(name, library_names())}"
            )
    return _parse(yaml.safe_load(path.read_text(encoding="utf-8")), str(path.name))


def joint_table(turbines: Sequence[Turbine]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tables of several types on the union of their knots, so that linear interpolation stays exact.

    Returns knots ``[K]``, power_kw ``[T, K]``, thrust ``[T, K]``. They hold inside a type's own table; outside it
    FLORIS takes power 0 and thrust 1e-4.
    """
    grid = np.array(sorted({float(v) for t in turbines for v in t.wind_speed_mps}))
    power = np.stack([np.interp(grid, t.wind_speed_mps, t.power_kw) for t in turbines])
    thrust = np.stack([np.interp(grid, t.wind_speed_mps, t.thrust_pu) for t in turbines])
    return grid, power, thrust


def _library() -> Path:
    spec = importlib.util.find_spec("floris")
    if spec is None or spec.origin is None:
        raise MissingExtraError("floris", "wind", "the turbine library")
    return Path(spec.origin).parent / "turbine_library"


def _parse(data: dict[str, Any], where: str) -> Turbine:
    try:
        table = data["power_thrust_table"]
        turbine = Turbine(
            name=str(data["turbine_type"]),
            rotor_diameter_m=float(data["rotor_diameter"]),
            hub_height_m=float(data["hub_height"]),
            tip_speed_ratio=float(data["TSR"]),
            reference_density_kgpm3=float(table["ref_air_density"]),
            yaw_loss_exponent=float(table.get("cosine_loss_exponent_yaw", 1.88)),
            wind_speed_mps=np.asarray(table["wind_speed"], dtype=np.float64),
            power_kw=np.asarray(table["power"], dtype=np.float64),
            thrust_pu=np.asarray(table["thrust_coefficient"], dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{where}: not a FLORIS v4 turbine file ({error!r}); it needs turbine_type, rotor_diameter, hub_height, "
            "TSR and power_thrust_table with ref_air_density, wind_speed, power (kW) and thrust_coefficient"
        ) from error
    if not np.all(np.diff(turbine.wind_speed_mps) > 0):
        raise ConfigurationError(f"{where}: power_thrust_table.wind_speed must increase from row to row")
    return turbine
