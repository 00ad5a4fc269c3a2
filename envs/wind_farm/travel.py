"""Wakes that take time to travel.

What a turbine sheds is remembered and arrives downstream when the wind has carried it there: the target sees the
source as it was when that air left it, in the frame of the path that the air took (streaklines in a uniform wind,
as in FLORIDyn, Becker et al. 2022, doi 10.5194/wes-7-2163-2022, with one observation point a pair instead of a chain).
All pairs are evaluated at once; no loop over turbines. With inflow and set-points frozen the state converges to the
equilibrium of :mod:`.equilibrium` once the last wake has arrived.

The ring of the past has ``H`` slots of ``dt_s``; older air than that is taken as old as the oldest slot.
"""

from __future__ import annotations

import math

import torch

from .operation import Arrival, Operation
from .rotor import Rotor
from .wake import Emission, WakeParameters, effect

Tensor = torch.Tensor

_FIELDS = ("thrust", "induction", "yaw_rad", "steering_rad", "speed_mps")
_COLUMNS = ("turbulence", "mixed_turbulence")
N_CHANNELS = len(_FIELDS) + 3 * len(_COLUMNS)


def slots_needed(extent_m: float, least_speed_mps: float, advection_ratio: float, dt_s: float) -> int:
    """Slots of a ring that holds the slowest wake over the longest way."""
    return math.ceil(extent_m / (advection_ratio * max(least_speed_mps, 3.0) * dt_s)) + 3


def pack(emission: Emission) -> Tensor:
    """Emission as one tensor ``[C, N, B]``."""
    singles = torch.stack([getattr(emission, name) for name in _FIELDS])
    return torch.cat((singles, *(getattr(emission, name) for name in _COLUMNS)))


def unpack(channels: Tensor) -> Emission:
    """Inverse of :func:`pack` for ``[C, ...]``."""
    k = len(_FIELDS)
    singles = {name: channels[i] for i, name in enumerate(_FIELDS)}
    columns = {name: channels[k + 3 * i : k + 3 * i + 3] for i, name in enumerate(_COLUMNS)}
    return Emission(**singles, **columns)


def channel_bounds() -> tuple[Tensor, Tensor]:
    """Least and greatest physical value of each channel of :func:`pack`, ``[C]``.

    Thrust is never zero, as in :func:`.operation.operate`: the width of a wake that nothing sheds is zero over zero.
    """
    bounds = {"thrust": (1e-6, 0.99), "induction": (0.0, 0.49), "speed_mps": (0.1, 60.0)}
    angles = (-1.5, 1.5)
    rows = [bounds.get(name, angles) for name in _FIELDS] + [(1e-3, 2.0)] * (3 * len(_COLUMNS))
    low, high = torch.tensor(rows, dtype=torch.float64).T
    return low, high


def direction_vector(direction_deg: Tensor) -> Tensor:
    """Unit vector ``[2, B]`` (east, north) along which a wind from ``direction_deg`` blows."""
    angle = torch.deg2rad(direction_deg)
    return torch.stack((-torch.sin(angle), -torch.cos(angle)))


def arrive(
    past: Tensor,
    path_m: Tensor,
    newest: int,
    position_m: Tensor,
    present: Tensor,
    curls: Tensor,
    carrying_mps: Tensor,
    direction_deg: Tensor,
    free_speed_mps: Tensor,
    ambient_turbulence: Tensor,
    dt_s: float,
    rotor: Rotor,
    parameters: WakeParameters,
) -> Arrival:
    """Sum over sources of what arrives now.

    ``past`` ``[C, H, N, B]``: emissions, the newest in slot ``newest`` (one step old); ``path_m`` ``[2, H, B]``
    float64: where a particle that started at the origin has got to, the present in slot ``newest + 1``;
    ``carrying_mps`` ``[B]``: speed of the wakes now.
    """
    n, h = present.shape[0], past.shape[1]
    way = position_m[:, None, :] - position_m[:, :, None]
    heading = direction_vector(direction_deg)
    guess = torch.clamp((way * heading[:, None, None]).sum(0) / (carrying_mps * dt_s), 1.0, h - 2.0)
    moved = _path_since(path_m, newest, guess)
    length = torch.sqrt((moved * moved).sum(0))
    along = moved / length
    downstream = (way * along).sum(0)
    crosswind = along[0] * way[1] - along[1] * way[0]
    age = torch.clamp(downstream * guess / length, 1.0, h - 1.0)
    shed = unpack(_emission_at(past, newest, age))
    dtype = past.dtype
    pairs = present.to(dtype)
    others = 1.0 - torch.eye(n, dtype=dtype, device=past.device)[:, :, None]
    return effect_of_pairs(
        shed,
        downstream.to(dtype),
        crosswind.to(dtype),
        pairs[:, None] * pairs[None, :] * others,
        curls,
        ambient_turbulence,
        free_speed_mps,
        rotor,
        parameters,
    )


def effect_of_pairs(
    shed: Emission,
    downstream_m: Tensor,
    crosswind_m: Tensor,
    feels: Tensor,
    curls: Tensor,
    ambient_turbulence: Tensor,
    free_speed_mps: Tensor,
    rotor: Rotor,
    parameters: WakeParameters,
) -> Arrival:
    """Like :func:`.wake.effect` for an emission per pair ``[..., I, J, B]``, summed over the sources."""
    n, _, b = downstream_m.shape

    def flat(t: Tensor) -> Tensor:
        return t.reshape(*t.shape[:-3], n * n, b)

    e = effect(
        shed.map(flat),
        flat(downstream_m)[:, None],
        flat(crosswind_m)[:, None],
        flat(feels)[:, None],
        flat(curls)[:, None],
        ambient_turbulence,
        free_speed_mps,
        rotor,
        parameters,
    )

    def square(t: Tensor) -> Tensor:
        return t.reshape(*t.shape[:-3], n, n, b)

    return Arrival(
        square(e.deficit_squared).sum(-3),
        square(e.lateral).sum(-3),
        square(e.vertical).sum(-3),
        square(e.turbulence_squared).amax(-3),
    )


def fill(operation: Operation, slots: int) -> Tensor:
    """A past in which the farm has always been in this state, ``[C, H, N, B]``."""
    packed = pack(operation.emission)
    return packed[:, None].expand(-1, slots, -1, -1).clone()


def straight_path(carrying_mps: Tensor, direction_deg: Tensor, slots: int, newest: int, dt_s: float) -> Tensor:
    """A past in which the wind has always been as it is, ``[2, H, B]``; zero in slot ``newest + 1``, the present."""
    ages = torch.remainder(newest + 1 - torch.arange(slots, device=carrying_mps.device), slots).to(carrying_mps.dtype)
    return direction_vector(direction_deg)[:, None] * carrying_mps * (-ages * dt_s)[None, :, None]


def _slot(newest: int, age: Tensor, slots: int) -> Tensor:
    return torch.remainder(newest + 1 - age, slots)


def _path_since(path_m: Tensor, newest: int, age: Tensor) -> Tensor:
    """Displacement over the last ``age`` steps ``[I, J, B]``, as ``[2, I, J, B]``."""
    slots, b = path_m.shape[1:]
    whole = torch.floor(age)
    part = age - whole
    column = torch.arange(b, device=path_m.device)
    flat = path_m.reshape(2, -1)

    def at(steps: Tensor) -> Tensor:
        index = _slot(newest, steps.to(torch.int64), slots) * b + column
        return flat.index_select(1, index.reshape(-1)).reshape(2, *age.shape)

    now = path_m[:, (newest + 1) % slots][:, None, None]
    return now - (at(whole) * (1.0 - part) + at(whole + 1.0) * part)


def _emission_at(past: Tensor, newest: int, age: Tensor) -> Tensor:
    """Emissions ``[C, I, J, B]`` of the sources as they were ``age`` steps ago (1 is the newest slot)."""
    channels, slots, n, b = past.shape
    whole = torch.clamp(torch.floor(age), max=slots - 2.0)
    part = (age - whole).to(past.dtype)
    column = torch.arange(b, device=past.device)
    source = torch.arange(n, device=past.device)[:, None, None]
    flat = past.reshape(channels, -1)

    def at(steps: Tensor) -> Tensor:
        index = (_slot(newest, steps.to(torch.int64), slots) * n + source) * b + column
        return flat.index_select(1, index.reshape(-1)).reshape(channels, *age.shape)

    young, old = at(whole), at(whole + 1.0)
    return young + (old - young) * part
