"""What the cell sees going wrong: arms that block each other, or are not heard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..nameplate import Nameplate
from ..warning import AssetWarning, Floats
from .nameplate import ARM, MEASURED

_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_STALL, _GAP, _HEARD_STALL = _AT["stall_s"], _AT["gap_m"], _AT["heard_stall_s"]
_HEARD_AGE = _AT["heard_age_s"]

BLOCKED_S = 2.0
"""An arm that makes no progress for so long is blocked: three of the retreats that arms break deadlocks with."""


UNHEARD_S = 0.2
"""What is heard of an arm is ten periods old: its link is bad, and the others begin to keep away."""


def cell_warnings(nameplate: Nameplate, measured: Mapping[str, Floats]) -> tuple[AssetWarning, ...]:
    """Arms of ``measured`` ``[N, O]`` that make no progress: blocked by each other, or alone.

    A part of a period is rounded to whole seconds, since each change of a warning is recorded.
    """
    arms = measured.get(ARM)
    if arms is None:
        return ()
    names = nameplate.group(ARM).assets
    stall = np.nan_to_num(arms[:, _STALL], nan=0.0)
    blocked = [k for k in range(len(names)) if stall[k] >= BLOCKED_S]
    found = []
    for k in blocked:
        others = [names[j] for j in blocked if j != k]
        lasts = int(stall[k])
        if others:
            both = " and ".join(sorted([names[k], *others]))
            text = f"{both} block each other, {names[k]} for {lasts} s; one must yield"
        else:
            text = f"{names[k]} makes no progress for {lasts} s; something is in its way, or its target out of reach"
        found.append(AssetWarning(f"{ARM}/{names[k]}", "blocked", text, "medium" if others else "low"))
    for k, age_s in enumerate(np.nan_to_num(arms[:, _HEARD_AGE], nan=0.0)):
        if age_s >= UNHEARD_S:
            text = f"nothing new is heard of {names[k]}; the others go no deeper into its reach: see to its link"
            found.append(AssetWarning(f"{ARM}/{names[k]}", "unheard", text, "medium"))
    return tuple(found)
