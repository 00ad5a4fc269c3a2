"""The steady state of a farm: FLORIS' sequential solution, batched.

A turbine's operation needs what all turbines upstream of it shed, so the solution goes through the turbines in
downstream order once. That order is a loop over ranks, not over replicas; the dynamic twin, where wakes take time
to travel, needs no such loop (:mod:`.travel`).

Kernels run along the replica axis, whose length the twin pads to a multiple of 64: a replica's result then does not
depend on the batch that it is in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .operation import Arrival, Curves, Operation, operate
from .rotor import Rotor
from .wake import WakeParameters, effect

Tensor = torch.Tensor


@dataclass(frozen=True)
class Sorted:
    """A farm seen by the wind, upstream first: ``order`` ``[N, B]`` indices into the assets, ``downwind_m`` and
    ``crosswind_m`` ``[N, B]`` float64, ``plane_m`` ``[N, B]`` where the vortices of each rotor begin."""

    order: Tensor
    downwind_m: Tensor
    crosswind_m: Tensor
    plane_m: Tensor


def face_wind(position_m: Tensor, present: Tensor, direction_deg: Tensor, *, floris_rounding: bool = False) -> Sorted:
    """Turn a layout ``[2, N, B]`` (float64) so that the wind of ``direction_deg`` ``[B]`` blows along +x, and sort it.

    Absent assets come last. ``floris_rounding`` repeats FLORIS' arithmetic to the last bit, by the same numpy
    functions: among turbines abreast of each other its order decides, and its vortices begin at the mean of nine
    copies of a rotor's coordinate: where that mean rounds up, a turbine loses the mixing by its own vortices. A
    referee needs that; a controller does not.
    """
    angle = torch.deg2rad(torch.remainder(direction_deg - 270.0, 360.0))
    if floris_rounding:
        cos, sin = (torch.from_numpy(f(angle.cpu().numpy())).to(angle.device) for f in (np.cos, np.sin))
    else:
        cos, sin = torch.cos(angle), torch.sin(angle)
    far = torch.full_like(position_m, torch.inf)
    low = torch.where(present, position_m, far).amin(1)
    high = torch.where(present, position_m, -far).amax(1)
    centre = 0.5 * (low + high)
    x, y = position_m[0] - centre[0], position_m[1] - centre[1]
    downwind = x * cos - y * sin + centre[0]
    crosswind = x * sin + y * cos + centre[1]
    key = torch.where(present, downwind, torch.full_like(downwind, torch.inf))
    plane = downwind
    if floris_rounding:
        rows_first = np.ascontiguousarray(key.cpu().numpy().T)
        order = torch.from_numpy(np.argsort(rows_first, axis=1).T.copy()).to(key.device)
        plane = (8.0 * downwind + downwind) / 9.0
    else:
        order = torch.argsort(key, dim=0, stable=True)
    return Sorted(order, downwind.gather(0, order), crosswind.gather(0, order), plane.gather(0, order))


def solve(
    farm: Sorted,
    present: Tensor,
    yaw_rad: Tensor,
    power_limit_kw: Tensor,
    free_speed_mps: Tensor,
    ambient_turbulence: Tensor,
    running: Tensor,
    rotor: Rotor,
    curves: Curves,
    parameters: WakeParameters,
) -> Operation:
    """Equilibrium of farms ``[N, B]``; inputs and results in the order of the assets, not of the wind.

    ``present``, ``running``: 1 or 0 in the working type; ``free_speed_mps``, ``ambient_turbulence``: ``[B]``.
    """
    dtype = yaw_rad.dtype
    order = farm.order
    n, b = order.shape
    present, yaw_rad, power_limit_kw, running = (
        t.gather(0, order) for t in (present, yaw_rad, power_limit_kw, running)
    )
    downwind, crosswind = farm.downwind_m, farm.crosswind_m
    own_curl = (farm.plane_m <= downwind).to(dtype)
    zero = yaw_rad.new_zeros
    waiting = Arrival(zero((3, 2, n, b)), zero((n, b)), zero((n, b)), zero((3, n, b)))
    done: list[Operation] = []
    for k in range(n):
        here = slice(k, k + 1)
        arrival = Arrival(
            waiting.deficit_squared[:, :, :1],
            waiting.lateral[:1],
            waiting.vertical[:1],
            waiting.turbulence_squared[:, :1],
        )
        operation = operate(
            arrival,
            yaw_rad[here],
            power_limit_kw[here],
            free_speed_mps,
            ambient_turbulence,
            running[here],
            own_curl[here],
            rotor,
            curves,
        )
        done.append(operation)
        if k == n - 1:
            break
        rest = slice(k + 1, n)
        shed = effect(
            operation.emission,
            (downwind[rest] - downwind[here]).to(dtype)[None],
            (crosswind[rest] - crosswind[here]).to(dtype)[None],
            (present[here] * present[rest])[None],
            (farm.plane_m[here] <= downwind[rest])[None],
            ambient_turbulence,
            free_speed_mps,
            rotor,
            parameters,
        )
        waiting = Arrival(
            waiting.deficit_squared[:, :, 1:] + shed.deficit_squared[:, :, 0],
            waiting.lateral[1:] + shed.lateral[0],
            waiting.vertical[1:] + shed.vertical[0],
            torch.maximum(waiting.turbulence_squared[:, 1:], shed.turbulence_squared[:, 0]),
        )
    return _unsort(done, order)


def _unsort(done: list[Operation], order: Tensor) -> Operation:
    back = torch.argsort(order, dim=0)

    def joined(values: list[Tensor]) -> Tensor:
        stacked = torch.cat(values, dim=-2)
        return stacked.gather(-2, back.expand(stacked.shape))

    emissions = [o.emission for o in done]
    fields = {name: joined([getattr(e, name) for e in emissions]) for name in vars(emissions[0])}
    return Operation(
        joined([o.power_kw for o in done]),
        joined([o.speed_mps for o in done]),
        joined([o.turbulence for o in done]),
        type(emissions[0])(**fields),
    )
