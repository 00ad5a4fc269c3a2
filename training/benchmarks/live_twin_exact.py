"""What can be known of nine turbines' wind from their power at all: Bayes' rule without a filter's approximations.

A filter that misses a bar may be at fault, or the bar may ask for more than the readings hold. Members drawn from the
prior, never mixed, each weighted by the likelihood of all readings until now, tell the two apart (importance sampling;
Robert & Casella 2004, 3.3). Wind and parameters must stay as they are, so drifting wind is none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...envs.wind_farm.nameplate import GROUP
from ...envs.wind_farm.twin import WindFarmTwin
from .live_twin_scene import CONVERGED_S, DT_S, NOISE_KW, POWER, Case, Scene, Settling, turned_deg, winds

PARAMETER_STDS = {"expansion_turbulence": 0.08, "expansion_offset": 0.002}
# Of the prior's 4 m/s, what is left of it after a minute and a half is a hundredth; the rest would carry no weight.
_SPEED_HALF_WIDTH_MPS = 0.02


@dataclass(frozen=True)
class Known:
    """``settled_s`` as of a filter's; at :data:`CONVERGED_S`: error and standard deviation of the direction, and how
    many members still carry weight (Kish's effective size)."""

    settled_s: float
    direction_error_deg: float
    direction_std_deg: float
    n_effective: float


def known(case: Case, seed: int, n_members: int, until_s: float = 600.0) -> Known:
    """What the exact posterior's mean says of one seed; of the first minute and a half it is not exact."""
    scene = Scene(case, seed)
    around = (scene.speed_mps - _SPEED_HALF_WIDTH_MPS, scene.speed_mps + _SPEED_HALF_WIDTH_MPS)
    members = WindFarmTwin(scene.prior(around), n_members, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for spec in members.parameter_specs:
        if spec.name in PARAMETER_STDS:
            draws = torch.randn(n_members, generator=generator, dtype=torch.float64)
            value = members.parameters()[spec.name] + PARAMETER_STDS[spec.name] * draws
            members.set_parameters({spec.name: value.clamp(spec.minimum, spec.maximum)})
    members.reset(torch.arange(n_members) + 1_000_003)
    speed, direction = winds(members)
    every = {GROUP: torch.from_numpy(scene.commands).expand(n_members, -1, -1)}
    log_weight = torch.zeros(n_members, dtype=torch.float64)
    settling, at_bar = Settling(), (0.0, 0.0, 0.0)
    for k, (read, true, wind) in enumerate(scene.readings(until_s), start=1):
        with torch.no_grad():
            power = members.step(every).measured[GROUP][:, :, POWER].double()
        forecast = torch.softmax(log_weight, 0) @ power
        log_weight -= 0.5 * ((torch.from_numpy(read[:, POWER]) - power) / NOISE_KW).square().sum(1)
        weight = torch.softmax(log_weight, 0)
        mean = float(weight @ direction)
        turned = abs(turned_deg(mean, wind[1]))
        off_kw = float((forecast - torch.from_numpy(true[:, POWER])).square().mean().sqrt())
        settling.add(k * DT_S, abs(float(weight @ speed) - wind[0]), turned, off_kw)
        if k * DT_S == CONVERGED_S:
            std = float((weight @ (direction - mean).square()).sqrt())
            at_bar = (turned, std, 1.0 / float(weight.square().sum()))
    return Known(settling.since_s, *at_bar)
