"""What watches a policy while it acts; each monitor can degrade an asset, put it on backup or trip it, by its cause.

============  ===================================================  ==============================================
monitor       alarm                                                needs
============  ===================================================  ==============================================
robustness    a requirement over time is broken                    hard measured constraints, or formulas
residual      the plant departs from the twin's prediction         a calibration of residuals, and a live twin
distribution  the policy's input is unlike its training            ``inputs.npz`` of its artifact
drift         the shield intervenes more often than it used to     the rates found at commissioning
============  ===================================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from ....envs.constraint import Declaration
from ....envs.constraint.temporal import Formula
from ....envs.encoder import Encoder
from .distribution import DistributionMonitor, InputCalibration, Sample, calibrate_inputs
from .drift import CusumDesign, DriftMonitor, average_run_length, design
from .monitor import SITE, Alarms, Memory, Monitor, Seen
from .persistence import Persistence
from .residual import ResidualCalibration, ResidualMonitor, calibrate_residuals
from .robustness import RobustnessMonitor, measured_requirements
from .settings import MonitorSettings

__all__ = [
    "SITE",
    "Alarms",
    "CusumDesign",
    "DistributionMonitor",
    "DriftMonitor",
    "InputCalibration",
    "Memory",
    "Monitor",
    "MonitorSettings",
    "Persistence",
    "ResidualCalibration",
    "ResidualMonitor",
    "RobustnessMonitor",
    "Sample",
    "Seen",
    "Watched",
    "average_run_length",
    "calibrate_inputs",
    "calibrate_residuals",
    "design",
    "measured_requirements",
    "monitors_of",
]


@runtime_checkable
class Watched(Protocol):
    """A policy whose inputs can be watched, such as an artifact's; ``inputs`` may be empty. One that answers for some
    agents alone names them in ``own``, and they alone are watched."""

    @property
    def inputs(self) -> Mapping[str, Sample]: ...
    @property
    def encoders(self) -> Mapping[str, Encoder]: ...


def monitors_of(
    declaration: Declaration,
    settings: MonitorSettings | None = None,
    *,
    formulas: Mapping[str, Formula] | None = None,
    policy: Watched | None = None,
    residuals: ResidualCalibration | None = None,
    intervention_rates: Mapping[str, float] | None = None,
) -> tuple[Monitor, ...]:
    """The monitors that there is something to watch with.

    ``formulas``: required besides the hard measured constraints; ``policy``: an artifact's, whose inputs are watched
    where it carries a sample; ``intervention_rates``: share of periods with a changed proposal at commissioning, by
    group or agent name. Raises :class:`~twinloop.envs.errors.ConfigurationError` for what does not fit the site or is
    too little for the settings.

    Example::

        policy = load_artifact(folder, nameplate)
        shield = Shield(declaration, monitors=monitors_of(declaration, policy=policy))
    """
    chosen = settings or MonitorSettings()
    plate = declaration.nameplate
    found: list[Monitor] = []
    required = {**measured_requirements(declaration, chosen.robustness_window_periods), **(formulas or {})}
    if required:
        found.append(RobustnessMonitor(declaration, required))
    if residuals is not None:
        mine = chosen.residual
        found.append(ResidualMonitor(plate, residuals, mine.alpha, Persistence(mine.k, mine.m), mine.adaptation))
    if policy is not None and policy.inputs:
        given = chosen.inputs
        calibration, patience = calibrate_inputs(policy.inputs, given.score), Persistence(given.k, given.m)
        own = getattr(policy, "own", None)
        found.append(DistributionMonitor(plate, policy.encoders, calibration, given.alpha, patience, own))
    if intervention_rates:
        told = chosen.drift
        designs = {
            name: design(rate, told.factor, told.run_length_periods, told.least_rate)
            for name, rate in intervention_rates.items()
        }
        found.append(DriftMonitor(plate, designs))
    return tuple(found)
