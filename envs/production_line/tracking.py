"""How a line is tracked by its live twin: what is measured how well, and what its machines may be. No torch here.

Levels, states, ages and crews are told by the plant's controllers and are simply taken over; what has to be learnt is
what no sensor shows: each machine's efficiency, how often it stops and how long it takes to come up again, how fast it
wears, how long work on it takes, and true wear between inspections. Counts have conjugate posteriors, so that no
ensemble Kalman filter is needed for them, and no mixture of members would mean anything: half a part is none
(:mod:`.line_tracker`).

A machine of the plant holds the part that it works on and is blocked after it: so are the members.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..estimation.settings import FilterSettings, Prior, SignalError
from ..estimation.site import TwinPlan
from .config import (
    BernoulliMachine,
    ExponentialMachine,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    WeibullWear,
)
from .line_plan import plan_of
from .nameplate import MACHINE, long_run_efficiency
from .plant_config import LinePlantConfig

if TYPE_CHECKING:
    from ..estimation.contract import Tracker
    from ..twin import Twin

N_MEMBERS = 64
EFFICIENCY, FAILS, REPAIRS, PACE = "_efficiency_pu", "_fails_pu", "_repairs_pu", "_wear_pace"
SERVICE = "_service_factor"
_EFFICIENCY_STD, _RATE_SHARE, _PACE_STD, _SERVICE_STD = 0.1, 0.5, 0.3, 0.3
_STOP_STD, _REPAIR_MEAN, _REPAIR_STD = 0.002, 0.2, 0.4
"""Of machines that are declared without stops: what is expected of them once one has been seen. Worth a quarter of a
repair, since stops may last a slot or a shift."""


def track_line(config: LineConfig, plant: LinePlantConfig) -> TwinPlan:
    """Members as the plant is built; noise as its meters have it.

    A cycle's end falls into this period or into the next: counts of a period are off by a part now and then, means over
    many periods are not. That is the counts' model error, and with it the power's. It was found on the plant: largest
    where machines wait for each other, nearly nothing for one that makes a part each slot and waits for nobody.
    """
    if not isinstance(config.line, FixedLine) or config.is_exponential:
        kind = "random lines" if not isinstance(config.line, FixedLine) else "exponential machines"
        raise ConfigurationError(
            f"live_twin: {kind} are not tracked; give a fixed line of bernoulli or geometric machines"
        )
    members = config.model_copy(update={"blocking": "after", "looks_through": False})
    machines = config.line.machines
    working_kw = max(m.power.idle_kw + m.power.linear_kw + m.power.cubic_kw for m in machines)
    swing_kw = max(m.power.linear_kw + m.power.cubic_kw for m in machines)
    varies = max(_spread(m) for m in machines) if not plan_of(config).capacities else 1.0
    off = 0.2 if config.slots_per_period == 1 else 0.35
    settings = FilterSettings(
        signals={
            f"{MACHINE}/parts": SignalError(noise=0.01, model_error=0.25 + off * varies, lag_pu=0.0, stays_pu=0.0),
            f"{MACHINE}/power_kw": SignalError(
                noise=max(plant.meter_noise_pu * working_kw, 1e-3),
                model_error=(0.02 + (0.15 + off) * varies) * swing_kw / config.slots_per_period,
                lag_pu=0.0,
                stays_pu=0.0,
            ),
        },
        parameters=_priors(config),
        memory_s=14.0 * 86_400.0,
    )
    return TwinPlan(members, settings, N_MEMBERS, _tracker_of(members))


def _spread(machine: Machine) -> float:
    """Of what a machine makes in a slot, from 0 for always the same to 1 for now a part and now none."""
    p = long_run_efficiency(machine.model)
    return 2.0 * math.sqrt(p * (1.0 - p))


def _priors(config: LineConfig) -> dict[str, Prior]:
    plan = plan_of(config)
    found = {}
    for name, machine in zip(plan.names, plan.machines, strict=True):
        model = machine.model
        assert not isinstance(model, ExponentialMachine)  # narrows the type; track_line has refused them
        if isinstance(model, BernoulliMachine):
            found[f"{name}{EFFICIENCY}"] = Prior(std=_EFFICIENCY_STD)
            found[f"{name}{FAILS}"] = Prior(std=_STOP_STD)
            found[f"{name}{REPAIRS}"] = Prior(std=_REPAIR_STD, mean=_REPAIR_MEAN)
        else:
            assert isinstance(model, GeometricMachine)
            found[f"{name}{FAILS}"] = Prior(std=_RATE_SHARE * model.fails_pu)
            found[f"{name}{REPAIRS}"] = Prior(std=_RATE_SHARE * model.repairs_pu)
        if machine.upkeep is not None and isinstance(machine.upkeep.wear, WeibullWear | GammaWear):
            found[f"{name}{PACE}"] = Prior(std=_PACE_STD)
        if machine.upkeep is not None and config.slots_per_period <= machine.upkeep.corrective_slots:
            found[f"{name}{SERVICE}"] = Prior(std=_SERVICE_STD)
    return found


class _Maker:
    """Makes the tracker of one configuration; imports torch only then."""

    def __init__(self, config: LineConfig) -> None:
        self._config = config

    def __call__(self, twin: Twin, settings: FilterSettings) -> Tracker:
        from .line_tracker import LineTracker

        return LineTracker(twin, settings, self._config)


def _tracker_of(config: LineConfig) -> _Maker:
    return _Maker(config)
