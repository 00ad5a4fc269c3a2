"""The system's nameplate: one group of components, whose beliefs are what is measured."""

from __future__ import annotations

from ..nameplate import Group, Nameplate, Signal
from .config import MOST_COMPONENTS, InspectedSystemConfig

COMPONENT = "component"
YEAR_S = 365.25 * 86400.0
NOTHING, INSPECT, REPAIR = 0.0, 1.0, 2.0
NOT_INSPECTED, NO_CRACK, CRACK = 0.0, 1.0, 2.0

PLAIN = (
    Signal("year", "1", 0.0, 1e4, "years since the system was new", "Year"),
    Signal("age_years", "1", 0.0, 1e4, "years since it was new or repaired", "Age"),
    Signal("finding", "1", 0.0, 2.0, "last year's inspection: 0 none, 1 no crack found, 2 a crack found", "Finding"),
    Signal("failure_pu", "pu", 0.0, 1.0, "chance that it has failed", "FailureChance"),
    Signal("failure_next_pu", "pu", 0.0, 1.0, "chance that it has failed a year from now, if left alone",
           "FailureChanceNext"),
)  # fmt: skip
"""Measured, before the bins of the belief."""
HIDDEN = (
    Signal("failure_expected_pu", "pu", 0.0, 1.0, "chance that it has failed, before the year's finding was known"),
)
STATICS = (Signal("needed", "1", 1.0, float(MOST_COMPONENTS), "components that must work"),)
ACTION = Signal("action", "1", NOTHING, REPAIR, "0 nothing, 1 inspect, 2 repair", "Action",
                levels=(NOTHING, INSPECT, REPAIR))  # fmt: skip


def system_nameplate(config: InspectedSystemConfig) -> Nameplate:
    """One row a component; the chance of each bin of crack size follows the plain signals."""
    bins = tuple(
        Signal(f"bin{k + 1}_pu", "pu", 0.0, 1.0, f"chance of crack size {k + 1} of {config.belief.bins}", f"Bin{k + 1}")
        for k in range(config.belief.bins)
    )
    group = Group(
        name=COMPONENT,
        assets=tuple(f"C{k + 1}" for k in range(config.components)),
        measured=PLAIN + bins,
        commanded=(ACTION,),
        hidden=HIDDEN,
        statics=STATICS,
        static_values=((float(config.needed),),) * config.components,
    )
    return Nameplate(
        site=config.name,
        period_s=YEAR_S,
        groups=(group,),
        description=f"{config.components} components, {config.needed} needed",
    )
