"""Commands from which a backup still keeps the site safe, and the plan that proves it.

Commands are accepted where some backup, started one period later, keeps every look-ahead condition over its horizon.
The plan that showed it (those commands, then the backup's) is stored. That makes the argument recursive:

* accepted commands leave a plan whose rest is safe;
* where the next proposal is refused, the rest of that plan needs no new proof;
* so there is a safe answer every period from the first accepted one on, until the horizon of the last one ends. Where
  the backup stays safe beyond its horizon (a standstill, a steady state), it never ends.

This is implicit Simplex (Bak, Chivukula, Adekunle, Sun, Caccamo & Sha 2009, RTAS) and model predictive shielding
(Bastani 2021, arXiv 1905.10691). It is as good as the foresight: the model, the disturbances that it tries, and what
the backup does beyond the horizon. A plan that was not followed to the letter proves nothing and is dropped.

Several conditions must be kept by one plan: that one backup keeps the first and another one the second helps nobody,
who can follow only one. So a backup counts where all conditions name it, as far as they foresee the same commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from ...envs.configuration import Strict
from ...envs.constraint import Declaration, LookAheadConstraint
from ...envs.errors import ConfigurationError
from .compiled import FlatCommands
from .ladder import Judge, StoredPlan

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FOLLOWED = 1e-9
"""How far what the plant obeys may be from the plan and still count as following it, relative to one plus its size."""


class LookAheadSettings(Strict):
    """How much foresight a period may cost."""

    bisections: NonNegativeInt = Field(
        default=4, description="commands tried between what is refused and what is safe, so that the change is small"
    )
    most_foresights: PositiveInt = Field(
        default=64, description="calls of foresights a period; what could not be asked counts as unsafe"
    )


class Foreseen(NamedTuple):
    """``u``: ``[n]``, None where nothing acceptable was found; ``plan``: to store, None where there is none.

    ``backup``: the one whose plan it is; ``margin``: the least over hard conditions and the plan's time, -inf where
    nothing was found, NaN where the stored plan is followed that today's foresight no longer confirms.
    ``constraint``, ``asked_margin``: which condition refused what was asked, and its margin; empty and None where it
    was accepted. ``from_plan``: whether ``u`` is the stored plan's. ``n_foresights``: calls that it took.
    """

    u: Floats | None
    plan: StoredPlan | None
    backup: str
    margin: float
    constraint: str = ""
    asked_margin: float | None = None
    from_plan: bool = False
    n_foresights: int = 0


class _View(NamedTuple):
    """Commands as the conditions see them: ``kept`` says of each whether it holds, the hard ones first."""

    u: Floats
    backup: str
    commands: Floats | None
    margin: float
    kept: tuple[bool, ...]
    refused_by: str
    refused_margin: float


class LookAhead:
    """The look-ahead conditions of one site. Pure: all memory is the plan that it is given and gives back.

    Raises :class:`ConfigurationError` where no backup is named by all conditions, or where ``settings`` do not even let
    what is asked and the stored plan be judged once each.
    """

    def __init__(self, declaration: Declaration, flat: FlatCommands, settings: LookAheadSettings | None = None) -> None:
        ranked = (*declaration.hard, *declaration.soft)
        self.constraints = tuple(c for c in ranked if isinstance(c, LookAheadConstraint))
        self.settings = settings or LookAheadSettings()
        self.backups = self._common()
        self._n_hard = sum(c.priority is None for c in self.constraints)
        self._flat = flat
        levels = [s.levels is not None for g in declaration.nameplate.groups for _ in g.assets for s in g.commanded]
        self._discrete = np.array(levels, dtype=np.bool_)
        least = 2 * len(self.constraints) * len(self.backups)
        if self.constraints and self.settings.most_foresights < least:
            raise ConfigurationError(
                f"most_foresights {self.settings.most_foresights} is below {least}, what it takes to judge the asked "
                f"commands and the stored plan under {len(self.backups)} backups and {len(self.constraints)} "
                "conditions; raise it"
            )

    def keep(
        self,
        u: Floats,
        measured: Mapping[str, Floats],
        applied: Floats,
        plan: StoredPlan | None,
        acceptable: Judge | None = None,
        fixed: Bools | None = None,
    ) -> Foreseen:
        """``u`` ``[n]`` if a backup keeps the site safe after it, else something near it, or the way to safety.

        In this order: ``u``; what lies between it and the stored plan's next commands; these; what a backup would do
        from here; the stored plan's next commands even though today's foresight does not confirm them; nothing.
        ``measured``: ``[N, O]`` a group; ``applied``: ``[n]``, what the plant obeys; ``plan``: as it came back last
        period. ``acceptable`` judges all other hard constraints and is asked of everything but ``u``. ``fixed``:
        ``[n]``, commands that are not ours and stay as they are in ``u``. Never raises.
        """
        if not self.constraints:
            return Foreseen(u, None, "", math.inf)
        budget = _Budget(self.settings.most_foresights)
        seen = _frozen(measured)
        asked = self._view(u, seen, budget)
        if all(asked.kept):
            return self._taken(asked, asked, budget)
        views = [asked]  # in the order in which they are preferred among equals
        planned = self._planned(u, plan, applied, acceptable, fixed)
        if planned is not None:
            at_plan = self._view(planned, seen, budget)
            if self._safe(at_plan):
                views += self._between(u, asked, at_plan, seen, budget, acceptable)
                views.append(at_plan)
        if not any(all(v.kept) for v in views):
            views += self._from_here(u, applied, seen, budget, acceptable, fixed)
        safe = [v for v in views if self._safe(v)]
        if safe:
            best = max(safe, key=lambda v: v.kept)  # the first of equals: soft conditions in their order
            return self._taken(best, asked, budget, planned)
        if planned is not None and plan is not None:
            return Foreseen(
                planned, plan.advanced(), "", math.nan, asked.refused_by, asked.refused_margin, True, budget.spent
            )
        return Foreseen(None, None, "", -math.inf, asked.refused_by, asked.refused_margin, False, budget.spent)

    def _common(self) -> tuple[str, ...]:
        if not self.constraints:
            return ()
        first, *others = self.constraints
        common = tuple(b for b in first.backups if all(b in c.backups for c in others))
        if not common:
            told = "; ".join(f"{c.name!r}: {', '.join(c.backups)}" for c in self.constraints)
            raise ConfigurationError(
                f"look-ahead conditions share no backup ({told}); one plan must keep them all, so name one in each"
            )
        return common

    def _safe(self, view: _View) -> bool:
        return all(view.kept[: self._n_hard]) and view.commands is not None

    def _view(self, u: Floats, measured: Mapping[str, Floats], budget: _Budget) -> _View:
        """``u`` under the backup that keeps most; the first that keeps all ends the search."""
        best = self._under(u, self.backups[0], measured, budget)
        for backup in self.backups[1:]:
            if all(best.kept):
                break
            found = self._under(u, backup, measured, budget)
            best = found if found.kept > best.kept else best
        return best

    def _under(self, u: Floats, backup: str, measured: Mapping[str, Floats], budget: _Budget) -> _View:
        kept: list[bool] = []
        margin, commands = math.inf, None
        refused_by, refused_margin = "", math.inf
        for place, c in enumerate(self.constraints):
            hard = place < self._n_hard
            worst, plan = self._ask(c, u, backup, measured, budget)
            if plan is not None and commands is not None:
                plan = _agreed(commands, plan)
            fine = plan is not None and worst >= 0.0
            if plan is not None and (hard or fine):
                commands = plan  # of several, the part that all foresee
            kept.append(fine)
            if hard:
                margin = min(margin, worst if plan is not None else -math.inf)
            if not fine and not refused_by:
                refused_by, refused_margin = c.name, worst
            if hard and not fine:
                kept += [False] * (len(self.constraints) - len(kept))
                break
        return _View(u, backup, commands, margin, tuple(kept), refused_by, refused_margin)

    def _ask(
        self, c: LookAheadConstraint, u: Floats, backup: str, measured: Mapping[str, Floats], budget: _Budget
    ) -> tuple[float, Floats | None]:
        """Worst margin and commands ``[K, n]``; ``-inf`` and None for whatever is no answer."""
        if not budget.take():
            return -math.inf, None
        try:
            worst, told = c.foresight(measured, self._flat.grouped(u.copy()), backup, c.horizon_periods)
            plan = np.array([self._flat.flat(step) for step in told], dtype=np.float64)
            margin = float(worst)
        except Exception:  # noqa: BLE001 - a foresight that fails has foreseen nothing
            return -math.inf, None
        sound = (
            not math.isnan(margin)
            and 1 <= len(plan) <= c.horizon_periods + 1
            and bool(np.isfinite(plan).all())
            and _same(plan[0], u)  # else it judged something else than what it was asked
        )
        return (margin, plan) if sound else (-math.inf, None)

    def _planned(
        self, u: Floats, plan: StoredPlan | None, applied: Floats, acceptable: Judge | None, fixed: Bools | None
    ) -> Floats | None:
        """The stored plan's next commands, where it was followed so far and other constraints let them pass."""
        if plan is None or not 1 <= plan.used <= len(plan.commands) or not _same(plan.commands[plan.used - 1], applied):
            return None
        following = plan.next()
        if following is None:
            return None
        following = _ours(following, u, fixed)
        return following if _passes(acceptable, following) else None

    def _between(
        self, u: Floats, asked: _View, at_plan: _View, measured: Mapping[str, Floats], budget: _Budget,
        acceptable: Judge | None,
    ) -> list[_View]:  # fmt: skip
        """Safe commands on the way from the plan's to ``u``, by bisection, the nearest to ``u`` first.

        Commands with levels stay at the plan's: there is nothing between two levels.
        """
        if not np.isfinite(u).all() or asked.kept >= at_plan.kept:
            return []
        found: list[_View] = []
        there = np.where(self._discrete, at_plan.u, u)
        near, far = 0.0, 1.0
        for _ in range(self.settings.bisections):
            share = 0.5 * (near + far)
            tried = at_plan.u + share * (there - at_plan.u)
            view = self._view(tried, measured, budget) if _passes(acceptable, tried) else None
            if view is not None and self._safe(view) and view.kept >= at_plan.kept:
                near = share
                found.insert(0, view)
            else:
                far = share
        return found

    def _from_here(
        self, u: Floats, applied: Floats, measured: Mapping[str, Floats], budget: _Budget, acceptable: Judge | None,
        fixed: Bools | None,
    ) -> list[_View]:  # fmt: skip
        """What the backups would do from here, each judged as anything else.

        A foresight tells a backup's commands only after a first period of given ones, so it is first asked what would
        follow today's: what it would do in one period is tried now.
        """
        found: list[_View] = []
        for backup in self.backups:
            _, commands = self._ask(self.constraints[0], applied, backup, measured, budget)
            if commands is None or len(commands) < 2:
                continue
            tried = _ours(commands[1], u, fixed)
            if not _passes(acceptable, tried):
                continue
            found.append(self._view(tried, measured, budget))
            if all(found[-1].kept):
                break
        return found

    def _taken(self, view: _View, asked: _View, budget: _Budget, planned: Floats | None = None) -> Foreseen:
        plan = None if view.commands is None else StoredPlan(view.commands, used=1)
        changed = view is not asked
        # What was asked may break a soft condition that nothing else keeps either; that is told as well.
        return Foreseen(
            view.u, plan, view.backup, view.margin, asked.refused_by,
            asked.refused_margin if asked.refused_by else None, changed and view.u is planned, budget.spent,
        )  # fmt: skip


@dataclass
class _Budget:
    """Calls that are left this period."""

    most: int
    spent: int = 0

    def take(self) -> bool:
        if self.spent >= self.most:
            return False
        self.spent += 1
        return True


def _same(a: Floats, b: Floats) -> bool:
    return a.shape == b.shape and bool((np.abs(a - b) <= FOLLOWED * (1.0 + np.abs(a))).all())


def _agreed(a: Floats, b: Floats) -> Floats | None:
    """The periods that both plans foresee; None where they foresee different commands in them."""
    n = min(len(a), len(b))
    return a[:n] if _same(a[:n], b[:n]) else None


def _ours(commands: Floats, u: Floats, fixed: Bools | None) -> Floats:
    """A copy of the commands, those that are not ours as in ``u``."""
    return commands.copy() if fixed is None else np.where(fixed, u, commands)


def _passes(acceptable: Callable[[Floats], bool] | None, u: Floats) -> bool:
    if acceptable is None:
        return True
    try:
        return bool(acceptable(u.copy()))
    except Exception:  # noqa: BLE001 - a judge that fails has accepted nothing
        return False


def _frozen(measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """Views that a foresight can't write to: it is pure, and one that isn't must not mislead the next."""
    views = {name: array.view() for name, array in measured.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
