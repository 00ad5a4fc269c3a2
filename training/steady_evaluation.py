"""What a policy is worth in a wind that stands still, in FLORIS: its settled offsets against the optimiser's.

The policy sees what a plant without noise would measure: true wind direction, each rotor's own speed and turbulence,
power. It is asked again and again until its offsets settle; yaw drives are taken as instant. Its power, greedy's
and the optimiser's then come from FLORIS itself, never from the twin that the policy learnt in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agents.policy import Policy
from ..envs.nameplate import Nameplate
from ..envs.twin import Observation
from ..envs.wind_farm.config import WindFarmConfig
from ..envs.wind_farm.nameplate import GROUP

FloatArray = NDArray[np.float64]

_SETTLED_DEG = 0.05
_QUIET_TURNS = 3
_MOST_TURNS = 120
_MEAN_TURNS = 10
_AVAILABLE = 1.0

_PASSES = (5, 4)
_BOUNDS_DEG = ((-25.0, 25.0), (-40.0, 40.0))
"""Serial-refine's grid is coarse, so that wider bounds may serve it worse: the better of both is the bar."""
_POLISH_UP_TO = 12
_BOTH_BOUNDS_UP_TO = 40


@dataclass(frozen=True)
class SteadyWind:
    """Inflow of a steady case; the default is the literature's."""

    speed_mps: float = 8.0
    direction_deg: float = 270.0
    turbulence_pu: float = 0.06


@dataclass(frozen=True)
class SteadyResult:
    """Powers in kW by FLORIS; ``offsets_deg`` are the policy's, ``optimum_deg`` the optimiser's, ``[N]``.

    ``turns``: how often the policy was asked; ``settled``: False when its offsets went on moving, in which case its
    power is the mean over the last turns. ``method`` names the optimiser.
    """

    name: str
    n_turbines: int
    greedy_kw: float
    policy_kw: float
    optimum_kw: float
    offsets_deg: tuple[float, ...]
    optimum_deg: tuple[float, ...]
    turns: int
    settled: bool
    method: str

    @property
    def gain(self) -> float:
        """The policy's gain over greedy."""
        return self.policy_kw / self.greedy_kw - 1.0

    @property
    def optimum_gain(self) -> float:
        """The optimiser's gain over greedy."""
        return self.optimum_kw / self.greedy_kw - 1.0

    @property
    def share(self) -> float:
        """The policy's gain over the optimiser's; NaN where there is nothing to gain."""
        return self.gain / self.optimum_gain if self.optimum_gain > 0 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "optimum_gain": self.optimum_gain, "share": self.share}


def optimum(model: Any) -> tuple[FloatArray, float, float, str]:
    """The optimiser's offsets ``[N]``, greedy's and its own power in kW, and how it was run.

    Serial-refine with passes 5, 4 within 25 and within 40 deg, the better of both; up to 12 turbines polished by a
    coordinate search to 0.25 deg after, which raises the bar; above 40 turbines within 25 deg alone, for its cost.
    """
    from ..envs.wind_farm.yaw_optimum import optimise, refine

    n = len(model.layout_x)
    found: list[tuple[float, FloatArray, float]] = []
    bounds_used = _BOUNDS_DEG if n <= _BOTH_BOUNDS_UP_TO else _BOUNDS_DEG[:1]
    for bounds_deg in bounds_used:
        offsets, greedy_kw, power_kw = optimise(model, bounds_deg, _PASSES)
        if n <= _POLISH_UP_TO:
            offsets, power_kw = refine(model, offsets, bounds_deg)
        found.append((float(power_kw[0]), offsets[0], float(greedy_kw[0])))
    best_kw, best, baseline_kw = max(found, key=lambda f: f[0])
    method = f"serial-refine {list(_PASSES)} within {' or '.join(f'{high:g}' for _, high in bounds_used)} deg"
    return best, baseline_kw, best_kw, method + (", polished" if n <= _POLISH_UP_TO else "")


def steady_gain(
    name: str,
    config: WindFarmConfig,
    make_policy: Callable[[Nameplate], Policy],
    wind: SteadyWind | None = None,
) -> SteadyResult:
    """Gain of a policy over greedy in one farm and one wind, beside that of FLORIS' serial-refine."""
    from ..envs.wind_farm.farm import farm_nameplate
    from ..envs.wind_farm.floris_model import build_model

    blow = wind or SteadyWind()
    nameplate = farm_nameplate(config)
    model = build_model(
        config,
        wind_speeds=[blow.speed_mps],
        wind_directions=[blow.direction_deg],
        turbulence=[blow.turbulence_pu],
    )
    offsets, power_kw, turns, settled = settle(make_policy(nameplate), nameplate, model, blow)
    optimum_deg, greedy_kw, optimum_kw, method = optimum(model)
    return SteadyResult(
        name=name,
        n_turbines=len(offsets),
        greedy_kw=greedy_kw,
        policy_kw=power_kw,
        optimum_kw=optimum_kw,
        offsets_deg=tuple(float(v) for v in offsets),
        optimum_deg=tuple(float(v) for v in optimum_deg),
        turns=turns,
        settled=settled,
        method=method,
    )


def settle(policy: Policy, nameplate: Nameplate, model: Any, wind: SteadyWind) -> tuple[FloatArray, float, int, bool]:
    """Ask ``policy`` until its offsets rest: offsets ``[N]``, farm power in kW, turns taken, and whether they rest.

    ``model`` is a FLORIS model set to the one condition of ``wind``.
    """
    from ..envs.wind_farm.yaw_optimum import farm_power_kw

    group = nameplate.group(GROUP)
    column = group.index("commanded", "yaw_offset_deg")
    memory = policy.start(1)
    offsets = np.zeros(group.n_assets)
    quiet = 0
    recent_kw: list[float] = []
    for turn in range(1, _MOST_TURNS + 1):
        recent_kw.append(float(farm_power_kw(model, offsets[None])[0]))
        if quiet >= _QUIET_TURNS:
            return offsets, recent_kw[-1], turn, True
        commands, memory = policy.act(steady_observation(nameplate, model, offsets, wind), memory)
        wanted = np.asarray(commands[GROUP], dtype=np.float64)[0, :, column]
        quiet = quiet + 1 if np.abs(wanted - offsets).max() < _SETTLED_DEG else 0
        offsets = wanted
    return offsets, float(np.mean(recent_kw[-_MEAN_TURNS:])), _MOST_TURNS, False


def steady_observation(nameplate: Nameplate, model: Any, offsets_deg: FloatArray, wind: SteadyWind) -> Observation:
    """What noise-free sensors say of the state that ``model`` was last run in, with offsets ``[N]``."""
    group = nameplate.group(GROUP)
    says = {
        "wind_speed_mps": np.asarray(model.turbine_average_velocities)[0],
        "wind_direction_deg": np.full(group.n_assets, wind.direction_deg % 360.0),
        "nacelle_deg": (wind.direction_deg - offsets_deg) % 360.0,
        "power_kw": np.asarray(model.get_turbine_powers())[0] / 1e3,
        "turbulence_pu": np.asarray(model.get_turbine_TIs())[0],
        "yaw_duty_pu": np.zeros(group.n_assets),
        "pitch_deg": np.zeros(group.n_assets),
        "available_pu": np.full(group.n_assets, _AVAILABLE),
    }
    measured = np.stack([says[s.name] for s in group.measured], axis=-1)[None]
    return Observation(
        measured={GROUP: measured},
        statics={GROUP: group.statics_array()[None]},
        present={GROUP: np.ones((1, group.n_assets), dtype=bool)},
        dt_s=nameplate.period_s,
    )
