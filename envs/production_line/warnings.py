"""What a line warns of: machines that may fail before service can be planned. No torch; SciPy's gamma function."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..nameplate import Nameplate
from ..warning import AssetWarning
from .nameplate import MACHINE, MEASURED, UPKEEP_STATICS
from .remaining_life import ALARM_CHANCE, chance_within, planning_horizon_slots

Floats = NDArray[np.float64]
LIKELY = 0.5
_GRADES = (ALARM_CHANCE, 0.2, LIKELY, 0.8, 0.95)
"""A text changes at these alone: each change of an alarm is recorded."""
_READ = ("state", "age_slots", "seen_wear_pu", "seen_ago_slots", "waits_for_crew")
_AT = {signal.name: k for k, signal in enumerate(MEASURED)}


def line_warnings(nameplate: Nameplate, measured: Mapping[str, Floats]) -> tuple[AssetWarning, ...]:
    """Of machines that wear, have not failed, and are read well; ``medium`` from an even chance on."""
    group = nameplate.group(MACHINE)
    at = [k for k, signal in enumerate(group.statics) if signal.name == UPKEEP_STATICS[0].name]
    if not at or not group.static_values:
        return ()
    wear = group.statics_array()[:, at[0] : at[0] + len(UPKEEP_STATICS)]
    told = np.asarray(measured[MACHINE], dtype=np.float64)
    readings = told[:, [_AT[name] for name in _READ]]
    failed = (np.abs(told[:, _AT["state"]] - 3.0) < 0.5) & (told[:, _AT["waits_for_crew"]] > 0.5)
    rows = np.flatnonzero((wear[:, 0] > 0) & np.isfinite(readings).all(1) & ~failed)
    if not len(rows):
        return ()
    horizon = planning_horizon_slots(wear[rows])
    chances = np.asarray(chance_within(told[rows], wear[rows], horizon))
    return tuple(
        AssetWarning(
            f"{MACHINE}/{group.assets[row]}", "failure",
            f"fails within {horizon:,.0f} slots of work with a chance above {_grade(chance):.0%}: plan its service; "
            "twinloop diagnose tells its remaining life",
            "medium" if chance >= LIKELY else "low",
        )
        for row, chance in zip(rows, chances, strict=True) if chance >= ALARM_CHANCE
    )  # fmt: skip


def _grade(chance: float) -> float:
    return max(grade for grade in _GRADES if grade <= chance)
