"""The standby: what is sent in the period after a decision, should nothing be worked out then."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...envs.plant import Arrays
from .between_periods import BetweenPeriods
from .choice import Choice
from .compiled import FlatCommands
from .decision import ShieldState
from .inputs import Guarded
from .keeping import Keeping, Period
from .safe_way import SafeWay
from .site_fallback import SiteFallback
from .sum_rows import Limits
from .told import Told


class StandBy:
    """The parts of one site's shield that a standby is made of."""

    def __init__(
        self, flat: FlatCommands, keeping: Keeping, between: BetweenPeriods, fallback: SiteFallback, safe_way: SafeWay,
        period_s: float,
    ) -> None:  # fmt: skip
        self._flat, self._keeping, self._between = flat, keeping, between
        self._fallback, self._safe_way, self._period_s = fallback, safe_way, period_s

    def commands(self, after: ShieldState, guarded: Guarded, told: Told, limits: Limits) -> Arrays:
        """Commands ``[N, A]`` a group for the period after the one that left ``after``: the stored plan's next ones,
        else the fallback's, the safe state's where an asset is tripped; kept and verified like all others. ``limits``:
        ends of sums at run time, which stand until there is a next order."""
        applied, period_s = self._between.applied(after), self._period_s
        memory = self._between.remembered(after, applied, period_s)
        try:
            with np.errstate(all="ignore"):
                period = Period(after, guarded, applied, memory, period_s, period_s, limits)
                fallback = partial(self._fallback.commands, guarded)
                safe = partial(self._safe_way.toward, applied, after.landing_s, period_s)
                planned = None if after.plan is None else after.plan.next()
                asked = fallback() if planned is None else planned
                if told.tripped is not None:
                    asked = np.where(told.tripped, safe(), asked)
                choice = Choice(np.where(told.ours, asked, applied), told.source, False, None, told.fixed)
                kept = self._keeping.keep(choice, period, foresee=False)
                sent = self._keeping.verified(kept, choice, period, told.modes.acts, fallback, safe)
                return self._flat.grouped(sent.u)
        except Exception:  # noqa: BLE001 - as in the shield's filter
            return self._flat.grouped(self._keeping.last_resort(after.applied, period_s, memory))
