"""Members of an ensemble mixed: which of a farm's state takes part, and what keeps it physical.

An analysis is linear and knows no bounds; a mixture of turbulence intensities may be negative. Wakes on their way
(``past``, ``path_m``) are mixed like all the rest: they decide what the turbines downstream will measure.
"""

from __future__ import annotations

import torch

from ..estimation.mixable import mixed
from .physics import WAKE_PARAMETERS
from .travel import channel_bounds

Tensor = torch.Tensor
State = dict[str, Tensor]

# Counts down to the end of an outage: an event of its replica, not a quantity. A plant's outages are followed.
_DISCRETE = ("outage_left_s",)
_MOST = float("inf")
_BOUNDS = {
    "mean_speed_mps": (0.5, 60.0),
    "turbulence": (0.005, 1.0),
    "gust": (-0.95, 10.0),
    "pitch_deg": (0.0, 90.0),
    "duty_used": (0.0, 1.0),
    "travel_deg": (0.0, _MOST),
    "power_kw": (0.0, _MOST),
    "steady_power_kw": (0.0, _MOST),
    "aligned_power_kw": (0.0, _MOST),
    "rotor_speed_mps": (0.0, 60.0),
    "rotor_turbulence": (0.0, 2.0),
    "seen_turbulence": (0.0, 1.0),
    "thrust": (1e-6, 0.99),
}
ADVECTION_BOUNDS = (0.3, 1.2)


def mix_state(state: State, transform: Tensor) -> State:
    """State ``[..., lanes]`` after ``transform`` ``[B, B]``; lanes beyond ``B``, which nobody reads, stay."""
    return {name: value if _stays(name, value) else _mix(name, value, transform) for name, value in state.items()}


def mix_parameters(parameters: State, transform: Tensor) -> State:
    """Parameters ``[lanes]`` likewise, inside the bounds of their specs."""
    found = {}
    for name, value in parameters.items():
        low, high = WAKE_PARAMETERS[name][1:] if name in WAKE_PARAMETERS else ADVECTION_BOUNDS
        found[name] = _lanes(value, transform).clamp(low, high)
    return found


def _stays(name: str, value: Tensor) -> bool:
    return name in _DISCRETE or not value.is_floating_point()


def _mix(name: str, value: Tensor, transform: Tensor) -> Tensor:
    after = _lanes(value, transform)
    if name == "past":
        low, high = (bound.to(after)[:, None, None, None] for bound in channel_bounds())
        return torch.maximum(torch.minimum(after, high), low)
    bounds = _BOUNDS.get(name)
    return after if bounds is None else after.clamp(*bounds)


def _lanes(value: Tensor, transform: Tensor) -> Tensor:
    n, lanes = len(transform), value.shape[-1]
    after = mixed(value[..., :n], transform)
    return after if n == lanes else torch.cat((after, value[..., n:]), dim=-1)
