"""Pictures: the flow through a farm before and after, and energy over time; matplotlib without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..envs.wind_farm.config import WindFarmConfig
from .steady_evaluation import SteadyWind

FloatArray = NDArray[np.float64]

_RESOLUTION = (240, 120)
_MARGIN_D = 4.0
_DARKEST = 0.35


def draw_flow(
    config: WindFarmConfig, wind: SteadyWind, cases: Sequence[tuple[str, Sequence[float]]], path: Path
) -> Path:
    """Draw the hub-height wind speed by FLORIS for each (title, offsets ``[N]`` in deg), one above the other.

    Turbines are drawn as their rotors, turned by their offsets; x to the east, y to the north. Returns ``path``.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ..envs.wind_farm.floris_model import build_model

    model = build_model(
        config,
        wind_speeds=[wind.speed_mps],
        wind_directions=[wind.direction_deg],
        turbulence=[wind.turbulence_pu],
    )
    x, y = np.asarray(model.layout_x), np.asarray(model.layout_y)
    diameter = float(np.asarray(model.core.farm.rotor_diameters).max())
    height = float(np.asarray(model.core.farm.hub_heights).max())
    margin = _MARGIN_D * diameter
    east, north = np.meshgrid(
        np.linspace(x.min() - margin, x.max() + margin, _RESOLUTION[0]),
        np.linspace(y.min() - margin, y.max() + margin, _RESOLUTION[1]),
    )
    points = (east.ravel(), north.ravel(), np.full(east.size, height))
    figure = Figure(figsize=(9.0, 3.6 * len(cases)), layout="compressed")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(len(cases), 1, sharex=True))
    mesh = None
    for axis, (title, offsets) in zip(axes, cases, strict=True):
        offsets_deg = np.asarray(offsets, dtype=np.float64)
        model.set(yaw_angles=offsets_deg[None])
        model.run()
        power_mw = float(np.sum(model.get_turbine_powers())) / 1e6
        speed = np.asarray(model.sample_flow_at_points(*points))[0].reshape(east.shape)
        mesh = axis.pcolormesh(
            east, north, speed, cmap="viridis", shading="gouraud", vmin=_DARKEST * wind.speed_mps, vmax=wind.speed_mps
        )
        _draw_rotors(axis, x, y, diameter, wind.direction_deg - offsets_deg)
        axis.set_title(f"{title}: {power_mw:.3f} MW", loc="left", fontsize=10)
        axis.set_aspect("equal")
        axis.set_ylabel("north, m")
    axes[-1].set_xlabel(
        f"east, m    (wind from {wind.direction_deg:.0f} deg, {wind.speed_mps:.1f} m/s, FLORIS {_floris_version()})"
    )
    if mesh is not None:
        figure.colorbar(mesh, ax=list(axes), label="wind speed at hub height, m/s", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"savefig.dpi": 130}):
        figure.savefig(path)
    return path


def draw_energy(energy_kwh: Mapping[str, FloatArray], period_s: float, reference: str, path: Path) -> Path:
    """Draw each policy's energy less the reference's, added up over time; series are ``[T]`` or ``[seeds, T]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    base = np.atleast_2d(energy_kwh[reference])
    hours = period_s / 3600.0 * np.arange(1, base.shape[1] + 1)
    axis.axhline(0.0, color="0.4", linewidth=0.8)
    for name, series in energy_kwh.items():
        if name != reference:
            ahead = np.cumsum(np.atleast_2d(series) - base, axis=1) / 1e3
            (line,) = axis.plot(hours, ahead.mean(axis=0), label=name)
            axis.fill_between(
                hours, ahead.min(axis=0), ahead.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0
            )
    axis.set_xlabel("hours")
    axis.set_ylabel(f"energy over {reference}, MWh")
    axis.legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _draw_rotors(axis: object, x: FloatArray, y: FloatArray, diameter: float, nacelle_deg: FloatArray) -> None:
    """A line as long as the rotor, square to where the nacelle points."""
    heading = np.deg2rad(nacelle_deg)
    across_x, across_y = np.cos(heading), -np.sin(heading)
    ends_x = np.stack([x - 0.5 * diameter * across_x, x + 0.5 * diameter * across_x])
    ends_y = np.stack([y - 0.5 * diameter * across_y, y + 0.5 * diameter * across_y])
    axis.plot(ends_x, ends_y, color="black", linewidth=2.2, solid_capstyle="butt")  # type: ignore[attr-defined]  # Axes


def _floris_version() -> str:
    from importlib.metadata import version

    return version("floris")
