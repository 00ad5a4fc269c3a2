"""A turbine's view of its farm in the wind's frame: itself, and its nearest neighbours up and down the wind.

The features do not depend on the number or the order of the turbines, nor on where north is, so that one policy
serves any farm. They need the farm's shared estimate of the wind, which the encoder keeps: the mean direction of
all turbines' readings, the speed and turbulence of those that stand in no wake, each low-passed.

Runs on numpy and on torch alike (see :mod:`twinloop.envs.encoder`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from ..nameplate import Nameplate
from .nameplate import GROUP, MEASURED, STATICS

Array = Any

_MEASURED = {signal.name: k for k, signal in enumerate(MEASURED)}
_STATIC = {signal.name: k for k, signal in enumerate(STATICS)}
_FAR = 1e9
_PER_NEIGHBOUR = 6
_SIDE_FIRST = 1e-3
"""Distance, per distance sideways, by which of two neighbours equally far the one with the lower coordinate across the
wind comes first. Well above rounding, so that float32 in training and float64 on the edge list them in one order."""


class RelationalEncoder:
    """Own state, ``n_downstream`` and ``n_upstream`` nearest neighbours in the wind's frame.

    Features, in order: wind speed / 10, turbulence / 0.1, whether the turbine stands in the open, whether anything
    stands behind it; then for each neighbour behind it, nearest first: presence, distance / 10 D, sideways / 2 D,
    closeness, and on which side it stands, finely (the best offset changes its sign where two turbines are in
    line, within a few hundredths of a diameter); then the same for each neighbour in front. ``filter_s`` is the
    time constant of the wind estimate. With ``exposure``, for farms of many rows: how much of a turbine stands in
    wakes, and to which side, up and down the wind (sums over all neighbours that fade over 8 D), and the same
    first sum of each listed neighbour, which tells how much of its loss a turbine has to answer for.
    """

    name = "relational"
    group = GROUP

    def __init__(
        self,
        nameplate: Nameplate,
        n_downstream: int = 6,
        n_upstream: int = 4,
        reach_d: float = 25.0,
        filter_s: float = 60.0,
        exposure: bool = False,
    ) -> None:
        self._nameplate = nameplate
        self._n_downstream, self._n_upstream = n_downstream, n_upstream
        self._reach_d, self._filter_s = reach_d, filter_s
        self._exposure = exposure

    @property
    def n_features(self) -> int:
        own, each = (8, _PER_NEIGHBOUR + 1) if self._exposure else (4, _PER_NEIGHBOUR)
        return own + each * (self._n_downstream + self._n_upstream)

    def settings(self) -> dict[str, Any]:
        return {
            "n_downstream": self._n_downstream,
            "n_upstream": self._n_upstream,
            "reach_d": self._reach_d,
            "filter_s": self._filter_s,
            "exposure": self._exposure,
        }

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Memory of fresh rows: the estimate ``[B, 4]`` (east, north, speed, turbulence), not yet set."""
        del n_assets
        xp = _namespace(like)
        return {"wind": _zeros(xp, (n_rows, 4), like), "started": _zeros(xp, (n_rows, 1), like)}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        xp = _namespace(measured)
        here = xp.where(present, xp.ones_like(measured[..., 0]), xp.zeros_like(measured[..., 0]))
        working = here * measured[..., _MEASURED["available_pu"]]
        working = xp.where(working.sum(-1)[:, None] > 0, working, here)
        east_now, north_now = _mean_heading(xp, measured, working)

        keep = math.exp(-dt_s / self._filter_s) if self._filter_s > 0 else 0.0
        keep = keep * memory["started"]
        old = memory["wind"]
        east = old[:, 0:1] * keep + east_now * (1.0 - keep)
        north = old[:, 1:2] * keep + north_now * (1.0 - keep)
        length = xp.sqrt(east * east + north * north) + 1e-6
        downstream, sideways = self._frame(xp, statics, east / length, north / length)

        both = here[:, :, None] * here[:, None, :]
        width = 2.0 + 0.1 * abs(downstream)
        near = both * (abs(sideways) < width) * (abs(downstream) < self._reach_d)
        behind, ahead = near * (downstream > 0.1), near * (downstream < -0.1)
        open_air = here * (ahead.sum(-1) == 0)
        open_working = open_air * working
        open_working = xp.where(open_working.sum(-1)[:, None] > 0, open_working, working)
        count = open_working.sum(-1)[:, None] + 1e-6
        speed_now = (measured[..., _MEASURED["wind_speed_mps"]] * open_working).sum(-1)[:, None] / count
        turbulence_now = (measured[..., _MEASURED["turbulence_pu"]] * open_working).sum(-1)[:, None] / count
        speed = old[:, 2:3] * keep + speed_now * (1.0 - keep)
        turbulence = old[:, 3:4] * keep + turbulence_now * (1.0 - keep)

        own: tuple[Array, ...] = (
            speed / 10.0 + 0.0 * here,
            turbulence / 0.1 + 0.0 * here,
            open_air,
            here * (behind.sum(-1) > 0),
        )
        exposed = None
        if self._exposure:
            weight = xp.exp(-0.5 * sideways * sideways - abs(downstream) / 8.0)
            exposed = (ahead * weight).sum(-1)
            shading = behind * weight
            sides = ((ahead * weight * sideways).sum(-1), (shading * sideways).sum(-1))
            own = (*own, exposed, shading.sum(-1), *sides)
        features = [xp.stack(own, -1)]
        for mask, count_of, sign in ((behind, self._n_downstream, 1.0), (ahead, self._n_upstream, -1.0)):
            features.append(self._nearest(xp, mask, sign * downstream, sideways, exposed, count_of))
        encoded = _join(xp, features) * here[..., None]
        wind = _join(xp, [east, north, speed, turbulence])
        return encoded, {"wind": wind, "started": xp.ones_like(memory["started"])}

    def _frame(self, xp: Any, statics: Array, east: Array, north: Array) -> tuple[Array, Array]:
        """Offsets ``[B, I, J]`` of J from I along and across the wind, in rotor diameters."""
        x, y = statics[..., _STATIC["x_m"]], statics[..., _STATIC["y_m"]]
        diameter = statics[..., _STATIC["rotor_diameter_m"]]
        diameter = xp.where(diameter > 1.0, diameter, xp.ones_like(diameter))[:, :, None]
        along, across = x * east + y * north, y * east - x * north
        return (
            (along[:, None, :] - along[:, :, None]) / diameter,
            (across[:, None, :] - across[:, :, None]) / diameter,
        )

    def _nearest(
        self, xp: Any, mask: Array, distance: Array, sideways: Array, exposed: Array | None, count: int
    ) -> Array:
        """Features ``[B, N, F]`` of the ``count`` nearest masked neighbours; zeros where there are fewer."""
        key = xp.where(mask > 0, distance + _SIDE_FIRST * sideways, xp.full_like(distance, _FAR))
        order = xp.argsort(key, stable=True)[..., :count]
        take = getattr(xp, "take_along_dim", None) or xp.take_along_axis
        near, lateral, there = take(distance, order, -1), take(sideways, order, -1), take(mask, order, -1)
        parts = [
            there,
            near / 10.0 * there,
            lateral / 2.0 * there,
            xp.exp(-0.5 * lateral * lateral) * there,
            xp.tanh(4.0 * lateral) * there,
            xp.tanh(30.0 * (lateral + 0.02)) * there,
        ]
        if exposed is not None:
            parts.append(take(exposed[:, None, :] + xp.zeros_like(distance), order, -1) * there)
        stacked = xp.stack(parts, -1)
        rows, assets, found, each = stacked.shape
        flat = stacked.reshape(rows, assets, each * found)
        if found == count:
            return flat
        return _join(xp, [flat, _zeros(xp, (rows, assets, each * (count - found)), flat)])


def _mean_heading(xp: Any, measured: Array, weight: Array) -> tuple[Array, Array]:
    """East and north parts ``[B, 1]`` of the unit vector along which the wind blows, over the working turbines."""
    angle = measured[..., _MEASURED["wind_direction_deg"]] * (math.pi / 180.0)
    total = weight.sum(-1)[:, None] + 1e-6
    return (-(xp.sin(angle) * weight).sum(-1)[:, None] / total, -(xp.cos(angle) * weight).sum(-1)[:, None] / total)


def _zeros(xp: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Zeros of the type, and on the device, of ``like``."""
    return xp.zeros(shape, dtype=like.dtype, device=like.device)


def _join(xp: Any, parts: list[Array]) -> Array:
    return xp.concatenate(parts, -1)


def _namespace(array: Array) -> Any:
    """The module, numpy or torch, that an array belongs to; torch is never imported for it."""
    return sys.modules["torch" if type(array).__module__.startswith("torch") else "numpy"]
