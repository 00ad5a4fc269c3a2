"""Optimal yaw offsets of a farm, found by FLORIS, as a table over direction, speed and turbulence.

Method: serial-refine (Fleming, Stanley, Bay, King, Simley, Doekemeijer & Mudafort 2022, "Serial-Refine method for
fast wake-steering yaw optimization", J. Phys.: Conf. Ser. 2265 032109) as shipped with FLORIS, and after it, where
asked, a coordinate search with ever smaller steps, because serial-refine stops on a coarse grid. Every condition
of the table is optimised in the same batched FLORIS call.

Cost, measured on one 2.5 GHz core with passes 5 and 4: 0.02 CPU s a condition for 7 turbines where many conditions are
solved together (0.8 s for a single one), growing with about the square of the number of turbines.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .yaw_table import YawTable

if TYPE_CHECKING:
    from .config import WindFarmConfig

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (conditions done, conditions in all)."""

INDUSTRIAL_BOUNDS_DEG = (-25.0, 25.0)
_MOST_CONDITIONS_PER_CALL = 128
_PAIRS_PER_CALL = 8192
_POLISH_STEPS_DEG = (2.0, 1.0, 0.5, 0.25)


def build_table(
    config: WindFarmConfig,
    directions_deg: Sequence[float] | FloatArray,
    speeds_mps: Sequence[float] | FloatArray,
    turbulence_pu: Sequence[float] | FloatArray = (0.06,),
    bounds_deg: tuple[float, float] = INDUSTRIAL_BOUNDS_DEG,
    passes: tuple[int, ...] = (5, 4),
    polish: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> YawTable:
    """Optimise the farm of ``config`` over a grid of conditions with FLORIS.

    ``passes`` is serial-refine's ``Ny_passes``; the bounds are industrial practice (FLORIS' own default, 0 to 25,
    misses every optimum with a negative offset). With ``cache`` a finished table is kept there, and read when it was
    made for the same farm and grid. Raises :class:`ConfigurationError` for an empty or unordered grid.
    """
    from .farm import fixed_layout
    from .floris_model import build_model

    grids = [_grid(name, v) for name, v in zip(("directions_deg", "speeds_mps", "turbulence_pu"),
                                               (directions_deg, speeds_mps, turbulence_pu), strict=True)]  # fmt: skip
    key = _key(config, grids, bounds_deg, passes, polish)
    if cache is not None and (found := YawTable.load(cache, key)) is not None:
        return found
    started_s = time.process_time()
    shape = tuple(len(g) for g in grids)
    conditions = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, 3)
    coordinates = fixed_layout(config)
    n_turbines = 1 if coordinates is None else len(coordinates[0])  # build_model refuses a farm without coordinates
    per_call = max(16, min(_MOST_CONDITIONS_PER_CALL, _PAIRS_PER_CALL // n_turbines**2))
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for start in range(0, len(conditions), per_call):
        part = conditions[start : start + per_call]
        model = build_model(config, wind_directions=part[:, 0], wind_speeds=part[:, 1], turbulence=part[:, 2])
        offsets, baseline_kw, optimum_kw = optimise(model, bounds_deg, passes)
        if polish:
            offsets, optimum_kw = refine(model, offsets, bounds_deg)
        parts.append((offsets, baseline_kw, optimum_kw))
        if progress is not None:
            progress(min(start + per_call, len(conditions)), len(conditions))
    offsets, baseline_kw, optimum_kw = (np.concatenate([p[k] for p in parts]) for k in range(3))
    table = YawTable(
        directions_deg=grids[0],
        speeds_mps=grids[1],
        turbulence_pu=grids[2],
        offsets_deg=offsets.reshape(*shape, -1),
        baseline_kw=baseline_kw.reshape(shape),
        optimum_kw=optimum_kw.reshape(shape),
        bounds_deg=bounds_deg,
        method=f"FLORIS serial-refine, passes {list(passes)}" + (", polished to 0.25 deg" if polish else ""),
        cpu_s=time.process_time() - started_s,
    )
    if cache is not None:
        table.save(cache, key)
    return table


def optimise(
    model: Any, bounds_deg: tuple[float, float], passes: tuple[int, ...] = (5, 4)
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Serial-refine on every condition that ``model`` (a FLORIS model) is set to.

    Returns offsets ``[conditions, N]`` in deg, and the farm's power without and with them, ``[conditions]`` in kW.
    """
    from floris.optimization.yaw_optimization.yaw_optimizer_sr import YawOptimizationSR

    low, high = bounds_deg
    model.reset_operation()  # else the baseline is whatever the model was last asked to do
    optimizer = YawOptimizationSR(model, minimum_yaw_angle=low, maximum_yaw_angle=high, Ny_passes=list(passes))
    found = optimizer.optimize(print_progress=False)
    offsets = np.vstack([np.asarray(row, dtype=np.float64) for row in found["yaw_angles_opt"]])
    baseline_kw = np.array(found["farm_power_baseline"], dtype=np.float64) / 1e3
    return offsets, baseline_kw, np.array(found["farm_power_opt"], dtype=np.float64) / 1e3


def refine(model: Any, offsets_deg: FloatArray, bounds_deg: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Coordinate search from ``offsets_deg`` ``[conditions, N]``, turbine by turbine from upstream, halving the step.

    Returns the better offsets and the farm's power with them in kW; never worse than where it starts.
    """
    best = np.array(offsets_deg, dtype=np.float64)
    best_kw = farm_power_kw(model, best)
    direction = np.deg2rad(np.asarray(model.wind_directions, dtype=np.float64) - 270.0)
    along = np.cos(direction)[:, None] * model.layout_x - np.sin(direction)[:, None] * model.layout_y
    order = np.argsort(along, axis=1)
    rows = np.arange(len(best))
    for step_deg in _POLISH_STEPS_DEG:
        for depth in range(best.shape[1]):
            for sign in (1.0, -1.0):
                trial = best.copy()
                column = order[:, depth]
                trial[rows, column] = np.clip(trial[rows, column] + sign * step_deg, *bounds_deg)
                trial_kw = farm_power_kw(model, trial)
                better = trial_kw > best_kw
                best[better], best_kw[better] = trial[better], trial_kw[better]
    return best, best_kw


def farm_power_kw(model: Any, offsets_deg: FloatArray) -> FloatArray:
    """Farm power by FLORIS for offsets ``[conditions, N]`` in deg; ``[conditions]`` in kW."""
    model.set_operation(yaw_angles=np.asarray(offsets_deg, dtype=np.float64))
    model.run()
    power_kw: FloatArray = np.asarray(model.get_turbine_powers(), dtype=np.float64).sum(axis=1) / 1e3
    return power_kw


def _grid(name: str, values: Sequence[float] | FloatArray) -> FloatArray:
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or len(grid) == 0 or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise ConfigurationError(f"{name}: {grid.tolist()} must be a list of finite, strictly ascending numbers")
    return grid


def _key(
    config: WindFarmConfig,
    grids: list[FloatArray],
    bounds_deg: tuple[float, float],
    passes: tuple[int, ...],
    polish: bool,
) -> str:
    """Digest of all that decides a table's content."""
    from importlib.metadata import version

    made_of = {
        "layout": config.layout.model_dump(),
        "turbine": config.turbine,
        "shear": config.inflow.shear_exponent,
        "density": config.inflow.air_density_kgpm3,
        "grids": [g.tolist() for g in grids],
        "bounds": bounds_deg,
        "passes": passes,
        "polish": polish,
        "floris": version("floris"),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
