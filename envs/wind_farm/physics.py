"""One step of a batch of farms, as a function from state to state.

How a step flows::

    commands -> drift -> outages -> yaw drives -> pitch -> wakes (solve | arrive) -> operate -> lags

The state is a dictionary of tensors whose last axis is the replica (see :mod:`.wake`); nothing else is remembered.
Coordinates, directions and paths are float64 whatever the working type.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import noise
from . import machine, travel, weather
from .config import RandomLayout, WindFarmConfig
from .equilibrium import Sorted, face_wind, solve
from .farm import fixed_layout
from .nameplate import COMMANDED
from .operation import Arrival, Curves, Operation, make_curves, operate
from .random_layouts import draw_layouts
from .rotor import Rotor, cast, make_rotor
from .sensing import draw_biases
from .turbine import Turbine
from .wake import WakeParameters

Tensor = torch.Tensor
State = dict[str, Tensor]

WAKE_PARAMETERS = {
    "near_wake_turbulence": (0.58, 0.1, 2.0),
    "near_wake_thrust": (0.077, 0.0, 0.5),
    "expansion_turbulence": (0.38, 0.05, 1.0),
    "expansion_offset": (0.004, 0.0, 0.05),
    "deflection_gain": (1.0, 0.3, 2.0),
    "added_turbulence_gain": (0.5, 0.0, 2.0),
}
"""FLORIS' defaults and plausible bounds."""

_KIND_STREAM, _GUST_STREAM = 401, 402
_GUST_TIME_S = 20.0
_TURBULENCE_TIME_S = 600.0


@dataclass(frozen=True)
class Types:
    """Constants of the replicas' turbine types, made once per reset."""

    rotor: Rotor
    curves: Curves
    rated_kw: Tensor


class FarmPhysics:
    """Draws episodes and advances them; holds the configuration, not the state."""

    def __init__(
        self, config: WindFarmConfig, turbines: list[Turbine], device: torch.device, dtype: torch.dtype, slots: int
    ) -> None:
        self.config, self.turbines = config, turbines
        self.device, self.dtype, self.slots = device, dtype, slots

    def types(self, kind: Tensor) -> Types:
        """Constants for replicas of the types ``kind`` ``[B]``."""

        def per_row(name: str) -> Tensor:
            values = [getattr(t, name) for t in self.turbines]
            return torch.tensor(values, dtype=torch.float64, device=self.device)[kind]

        inflow = self.config.inflow
        rotor = make_rotor(
            per_row("rotor_diameter_m"), per_row("hub_height_m"), per_row("tip_speed_ratio"), inflow.shear_exponent
        )
        curves = make_curves(self.turbines, kind, inflow.air_density_kgpm3, self.dtype)
        return Types(cast(rotor, self.dtype), curves, per_row("rated_power_kw").to(self.dtype))

    def fresh(self, seeds: Tensor, parameters: State, newest: int) -> State:
        """State at the start of episodes ``seeds`` ``[B]``: aligned, settled, wakes developed."""
        zeros = torch.zeros_like(seeds)
        u = noise.uniform(seeds, zeros, _KIND_STREAM, 1, torch.float64)[:, 0]
        s: State = {"seed": seeds, "step": zeros, "kind": (u * len(self.turbines)).to(torch.int64)}
        s |= weather.draw_weather(self.config.inflow, seeds)
        s |= self._place(seeds, s["kind"], weather.free_wind(s)[1], parameters)
        _, direction = weather.free_wind(s)
        n = s["present"].shape[0]
        s |= machine.parked(direction.expand(n, -1).clone(), direction)
        s |= draw_biases(self.config.sensors, seeds, n)
        flat = torch.zeros((n, seeds.shape[0]), dtype=self.dtype, device=self.device)
        neutral = {"offset_deg": COMMANDED[0].neutral, "power_limit_pu": COMMANDED[1].neutral}
        s |= {k: flat + v for k, v in neutral.items()} | {"pitch_deg": flat, "gust": flat}
        types = self.types(s["kind"])
        operation = self._solve(s, types, parameters, flat, flat + 1.0)
        s |= _operated(operation)
        s |= {
            "power_kw": operation.power_kw,
            "aligned_power_kw": operation.power_kw,
            "seen_turbulence": operation.turbulence,
        }
        if self.config.dynamics.kind == "dynamic":
            speed, direction = weather.free_wind(s)
            carrying = speed * parameters["advection_ratio"].to(speed.dtype)
            s["past"] = travel.fill(operation, self.slots)
            s["path_m"] = travel.straight_path(carrying, direction, self.slots, newest - 1, self.config.dt_s)
        return s

    def _place(self, seeds: Tensor, kind: Tensor, direction_deg: Tensor, parameters: State) -> State:
        del parameters  # those of prototypes say where turbines stand
        coordinates = fixed_layout(self.config)
        if coordinates is None:
            layout = self.config.layout
            assert isinstance(layout, RandomLayout)  # narrows the type; fixed_layout is None for nothing else
            diameter = torch.tensor(
                [t.rotor_diameter_m for t in self.turbines], dtype=torch.float64, device=self.device
            )
            position, present = draw_layouts(layout, seeds, diameter[kind], direction_deg)
            return {"position_m": position.permute(2, 1, 0).contiguous(), "present": present.T.contiguous()}
        fixed = torch.tensor(coordinates, dtype=torch.float64, device=self.device)
        shape = (*fixed.shape, seeds.shape[0])
        present = torch.ones(shape[1:], dtype=torch.bool, device=self.device)
        return {"position_m": fixed[..., None].expand(shape).contiguous(), "present": present}

    def advance(self, state: State, types: Types, parameters: State, newest: int) -> State:
        """The next state; ``state`` already holds the commands ``offset_deg`` and ``power_limit_pu``.

        ``newest`` is the ring's slot of the last step; the new emission goes into the slot after it.
        """
        s = state | {"step": state["step"] + 1}
        dt = self.config.dt_s
        if weather.is_drifting(self.config.inflow):
            s |= weather.drift(self.config.inflow, s, s["seed"], s["step"], dt)
        s |= machine.outages(s, s["seed"], s["step"], self.config.dynamics, dt)
        if self.config.dynamics.kind == "dynamic":
            return self._advance_dynamic(s, types, parameters, newest)
        return self._advance_steady(s, types, parameters)

    def _advance_steady(self, s: State, types: Types, parameters: State) -> State:
        _, direction = weather.free_wind(s)
        heading = direction - s["offset_deg"]
        moved = torch.abs(weather.wrap_deg(heading - s["heading_deg"]))
        s |= {"heading_deg": heading, "travel_deg": s["travel_deg"] + moved}
        s |= {"pitch_deg": machine.pitch_target_deg(s["power_limit_pu"])}
        operation = self._solve(s, types, parameters, torch.deg2rad(s["offset_deg"]), s["power_limit_pu"])
        s |= _operated(operation) | self._gusts(s)
        s |= {"power_kw": self._gusty_power(s, types), "seen_turbulence": operation.turbulence}
        if weather.is_drifting(self.config.inflow) or self.config.dynamics.outage_rate_per_day > 0:
            s["aligned_power_kw"] = self._aligned(s, types, parameters)
        return s

    def _advance_dynamic(self, s: State, types: Types, parameters: State, newest: int) -> State:
        dynamics, dt = self.config.dynamics, self.config.dt_s
        speed, direction = weather.free_wind(s)
        seen = direction + s["vane_bias_deg"] + self._noise(s, 2) * self.config.sensors.vane_noise_deg
        s |= machine.yaw(s, seen, s["offset_deg"].to(torch.float64), dynamics, dt)
        wanted = machine.lag(s["pitch_deg"], machine.pitch_target_deg(s["power_limit_pu"]), dynamics.power_lag_s, dt)
        reach = dynamics.pitch_rate_degps * dt
        s["pitch_deg"] = s["pitch_deg"] + torch.clamp(wanted - s["pitch_deg"], -reach, reach)

        carrying = speed * parameters["advection_ratio"].to(speed.dtype)
        slot = (newest + 1) % self.slots
        path = _writable(s["path_m"], carrying)
        path[:, slot] = path[:, newest] + travel.direction_vector(direction) * carrying * dt
        facing = self._facing(s)
        arrival = travel.arrive(
            s["past"],
            path,
            newest,
            s["position_m"],
            s["present"],
            facing.curls,
            carrying,
            direction,
            speed.to(self.dtype),
            s["turbulence"].to(self.dtype),
            dt,
            types.rotor,
            _wake(parameters),
        )
        misalignment = torch.deg2rad(weather.wrap_deg(direction - s["heading_deg"])).to(self.dtype)
        limit = machine.power_limit_at(s["pitch_deg"])
        operation = self._operate(s, types, arrival, misalignment, limit, facing.own_curl)
        past = _writable(s["past"], operation.emission.thrust)
        past[:, slot] = travel.pack(operation.emission)
        s |= {"path_m": path, "past": past} | _operated(operation) | self._gusts(s)
        s["power_kw"] = machine.lag(s["power_kw"], self._gusty_power(s, types), dynamics.power_lag_s, dt)
        s["seen_turbulence"] = machine.lag(s["seen_turbulence"], operation.turbulence, _TURBULENCE_TIME_S, dt)
        due = s["step"] % max(1, round(dynamics.aligned_refresh_s / dt)) == 0
        if bool(due.any()):
            s["aligned_power_kw"] = torch.where(due, self._aligned(s, types, parameters), s["aligned_power_kw"])
        return s

    def _sorted(self, s: State) -> Sorted:
        _, direction = weather.free_wind(s)
        rounding = self.config.dynamics.floris_rounding
        return face_wind(s["position_m"], s["present"], direction, floris_rounding=rounding)

    def _facing(self, s: State) -> _Facing:
        by_rank = self._sorted(s)
        rank = torch.argsort(by_rank.order, dim=0)
        plane, downwind = by_rank.plane_m.gather(0, rank), by_rank.downwind_m.gather(0, rank)
        behind = (plane[:, None] <= downwind[None, :]) & (rank[:, None] < rank[None, :])
        return _Facing(behind, (plane <= downwind).to(self.dtype))

    def _solve(self, s: State, types: Types, parameters: State, yaw_rad: Tensor, limit: Tensor) -> Operation:
        speed, _ = weather.free_wind(s)
        running = (s["present"] & (s["outage_left_s"] <= 0)).to(self.dtype)
        return solve(
            self._sorted(s),
            s["present"].to(self.dtype),
            yaw_rad.to(self.dtype),
            limit * types.rated_kw,
            speed.to(self.dtype),
            s["turbulence"].to(self.dtype),
            running,
            types.rotor,
            types.curves,
            _wake(parameters),
        )

    def _operate(
        self, s: State, types: Types, arrival: Arrival, yaw_rad: Tensor, limit: Tensor, own_curl: Tensor
    ) -> Operation:
        speed, _ = weather.free_wind(s)
        running = (s["present"] & (s["outage_left_s"] <= 0)).to(self.dtype)
        return operate(
            arrival,
            yaw_rad,
            limit * types.rated_kw,
            speed.to(self.dtype),
            s["turbulence"].to(self.dtype),
            running,
            own_curl,
            types.rotor,
            types.curves,
        )

    def _aligned(self, s: State, types: Types, parameters: State) -> Tensor:
        straight = torch.zeros_like(s["offset_deg"])
        return self._solve(s, types, parameters, straight, straight + 1.0).power_kw

    def _noise(self, s: State, stream: int) -> Tensor:
        """Standard normal ``[N, B]`` for a sensor stream, contiguous in the replica."""
        n = s["present"].shape[0]
        return noise.normal(s["seed"], s["step"], _GUST_STREAM + stream, n, self.dtype).T.contiguous()

    def _gusts(self, s: State) -> State:
        """Gust over mean speed at each rotor: first-order filtered noise with the rotor's turbulence intensity."""
        if not self.config.inflow.turbulent:
            return {}
        keep = float(torch.exp(torch.tensor(-self.config.dt_s / _GUST_TIME_S, dtype=torch.float64)))
        fresh = (1.0 - keep * keep) ** 0.5
        return {"gust": s["gust"] * keep + self._noise(s, 1) * fresh * s["rotor_turbulence"]}

    def _gusty_power(self, s: State, types: Types) -> Tensor:
        if not self.config.inflow.turbulent:
            return s["steady_power_kw"]
        speed = s["rotor_speed_mps"] * torch.clamp(1.0 + s["gust"], min=0.05)
        cos = torch.clamp(torch.cos(s["yaw_rad"]), min=0.01)
        power = types.curves.power(speed * types.curves.density_factor * cos**types.curves.yaw_exponent)
        limit = machine.power_limit_at(s["pitch_deg"]) * types.rated_kw
        return torch.where(s["steady_power_kw"] > 0, torch.minimum(power, limit), s["steady_power_kw"])


@dataclass(frozen=True)
class _Facing:
    curls: Tensor
    own_curl: Tensor


def _wake(parameters: State) -> WakeParameters:
    return WakeParameters(**{name: parameters[name] for name in WAKE_PARAMETERS})


def _operated(operation: Operation) -> State:
    e = operation.emission
    return {
        "steady_power_kw": operation.power_kw,
        "rotor_speed_mps": operation.speed_mps,
        "rotor_turbulence": operation.turbulence,
        "thrust": e.thrust,
        "yaw_rad": e.yaw_rad,
    }


def _writable(ring: Tensor, written: Tensor) -> Tensor:
    """The ring itself, or a copy where a gradient needs its old content."""
    return ring.clone() if ring.requires_grad or written.requires_grad else ring
