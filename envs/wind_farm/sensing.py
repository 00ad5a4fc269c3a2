"""What the instruments say of a farm's state: noise per reading, bias per episode."""

from __future__ import annotations

import torch

from .. import noise
from . import machine, weather
from .config import Sensors
from .nameplate import MEASURED

Tensor = torch.Tensor
State = dict[str, Tensor]

_BIAS_STREAM, _READING_STREAM = 501, 511


def draw_biases(sensors: Sensors, seeds: Tensor, n: int) -> State:
    """Constant errors of each turbine's vane (deg) and anemometer (share), ``[N, B]`` float64."""
    z = noise.normal(seeds, torch.zeros_like(seeds), _BIAS_STREAM, 2 * n, torch.float64).T.contiguous()
    return {"vane_bias_deg": z[:n] * sensors.vane_bias_deg, "anemometer_bias": z[n:] * sensors.wind_speed_bias_pu}


def measure(sensors: Sensors, s: State, rated_kw: Tensor, dtype: torch.dtype) -> Tensor:
    """Measured signals ``[O, N, B]`` in the nameplate's order and inside its ranges; zero for absent turbines."""
    n, b = s["present"].shape
    _, direction = weather.free_wind(s)
    wind = s["rotor_speed_mps"] * (1.0 + s["gust"])
    seen_direction = direction + s["vane_bias_deg"]
    power = s["power_kw"]
    if sensors.wind_speed_noise_pu or sensors.wind_speed_bias_pu or sensors.vane_noise_deg or sensors.power_noise_pu:
        z = noise.normal(s["seed"], s["step"], _READING_STREAM, 3 * n, dtype).T.contiguous()
        wind = wind * (1.0 + s["anemometer_bias"].to(dtype) + z[:n] * sensors.wind_speed_noise_pu)
        seen_direction = seen_direction + z[n : 2 * n] * sensors.vane_noise_deg
        power = power + z[2 * n :] * sensors.power_noise_pu * rated_kw
    available = (s["outage_left_s"] <= 0).to(dtype)
    rows = (
        wind,
        _compass(seen_direction, dtype),
        _compass(s["heading_deg"].expand(n, b), dtype),
        power,
        s["seen_turbulence"],
        s["duty_used"].to(dtype),
        s["pitch_deg"],
        available,
    )
    inside = [
        torch.clamp(row.to(dtype), signal.minimum, signal.maximum) for row, signal in zip(rows, MEASURED, strict=True)
    ]
    return torch.stack(inside) * s["present"]


def reveal(s: State, dtype: torch.dtype) -> Tensor:
    """Hidden signals ``[H, N, B]`` in the nameplate's order; zero for absent turbines."""
    n, b = s["present"].shape
    speed, direction = weather.free_wind(s)
    flap, tower = machine.loads(s["thrust"], s["rotor_speed_mps"], s["rotor_turbulence"], s["yaw_rad"])
    rows = (
        speed.to(dtype).expand(n, b),
        _compass(direction.expand(n, b), dtype),
        s["turbulence"].to(dtype).expand(n, b),
        s["rotor_speed_mps"],
        s["rotor_turbulence"],
        torch.rad2deg(s["yaw_rad"]),
        s["power_kw"],
        s["thrust"],
        flap,
        tower,
        s["travel_deg"].to(dtype),
        s["aligned_power_kw"],
    )
    return torch.stack([row.to(dtype) for row in rows]) * s["present"]


def _compass(angle_deg: Tensor, dtype: torch.dtype) -> Tensor:
    """Angle in [0, 360) that stays below 360 when it is rounded to ``dtype``."""
    wrapped = torch.remainder(angle_deg, 360.0).to(dtype)
    return torch.where(wrapped >= 360.0, torch.zeros_like(wrapped), wrapped)
