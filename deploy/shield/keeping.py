"""From what is asked of each command to what is sent: limits, coupling, look-ahead, the second look and the ladder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import ConflictConstraint, Declaration, ExclusiveConstraint
from .causes import Cause
from .choice import FALLBACK, PLAN, SAFE_STATE, Choice
from .command_memory import CommandMemory
from .compiled import FlatCommands
from .coupled import Coupled
from .coupling import Coupling
from .decision import Code, Reason, ShieldState
from .explanation import Explainer
from .inputs import Guarded
from .ladder import Rung, StoredPlan, descend
from .local import LocalLimits
from .local_reasons import Why
from .lookahead import Foreseen, LookAhead
from .program import Status
from .sum_braking import SumBraking
from .sum_rows import Limits
from .verification import Verdict, Verifier

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LANDED = {
    Rung.PLAN: (PLAN, Code.LADDER_PLAN),
    Rung.BACKUP: (FALLBACK, Code.LADDER_BACKUP),
    Rung.SAFE_STATE: (SAFE_STATE, Code.LADDER_SAFE_STATE),
}
_HALVINGS = 20  # of a step of the last resort, until what assets keep together is kept on it
_FOLLOWED = 1e-9  # how far what is applied may be from the stored plan, relative to one plus its size


class Period(NamedTuple):
    """What the stages of one period share. ``applied``: ``[n]``; ``elapsed_s``: what rates may use, and ``verified_s``
    the same by the verifier's own reckoning; ``limits``: ends of sums at run time."""

    state: ShieldState
    guarded: Guarded
    applied: Floats
    memory: CommandMemory
    elapsed_s: float
    verified_s: float
    limits: Limits


class Kept(NamedTuple):
    """What became of what was asked: after the commands' own limits (``local``), after all stages (``u``), ``[n]``."""

    u: Floats
    local: Floats
    low: Floats
    high: Floats
    coupled: Coupled
    foreseen: Foreseen | None


class Sent(NamedTuple):
    """``u``: ``[n]``; ``source``: ``[agents]`` codes; ``codes``: by agent, why it does not follow its policy; ``plan``:
    to be stored; ``pending``: causes by agent ``[agents]`` for the next period's modes."""

    u: Floats
    source: NDArray[np.int8]
    codes: list[Code | None] | None
    plan: StoredPlan | None
    reasons: list[Reason]
    pending: dict[str, Bools]


class Keeping:
    """The stages of one declaration."""

    def __init__(self, declaration: Declaration, flat: FlatCommands) -> None:
        plate = declaration.nameplate
        self.flat = flat
        self.local = LocalLimits(declaration, flat)
        self.coupling = Coupling(declaration, flat)
        self._sum_braking = SumBraking(declaration, flat)
        self.look_ahead = LookAhead(declaration, flat)
        self.verifier = Verifier(declaration)
        self.explainer = Explainer(plate.agents, flat.asset, flat.names)
        kinds = (ConflictConstraint, ExclusiveConstraint)
        self._pins = any(isinstance(c, kinds) for c in declaration.constraints)
        self._settles = self._pins or bool(self.local.discrete.any())
        self._place = {
            (g.name, i): plate.agents.index(f"{g.name}/{a}") for g in plate.groups for i, a in enumerate(g.assets)
        }
        self._agents = plate.agents

    def keep(self, choice: Choice, period: Period, *, foresee: bool = True) -> Kept:
        """The nearest commands to what is asked that keep every constraint, as far as this period's reach lets."""
        kept = self._within(choice, period, choice.share)
        slowed = not isinstance(choice.share, float) or choice.share < 1.0
        if slowed and kept.coupled.status in (Status.INFEASIBLE, Status.UNSOLVED):
            # half the rates are for what a policy asks; what a hard row needs takes all that the commands can do
            kept = self._within(choice, period, 1.0)
        if not (foresee and self.look_ahead.constraints):
            return kept
        foreseen = self.look_ahead.keep(
            kept.u, period.guarded.values, period.applied, period.state.plan, lambda v: self._verdict(v, period).fine,
            choice.fixed,
        )  # fmt: skip
        u = kept.u if foreseen.u is None else np.array(foreseen.u, dtype=np.float64)
        return kept._replace(u=u, foreseen=foreseen)

    def _within(self, choice: Choice, period: Period, share: float | Floats) -> Kept:
        """Own limits and what is shared, with that share of the commands' rates."""
        low, high = self._reach(choice, period, share)
        local = self._alone(choice, period, low, high)
        limits = period.limits
        if self._sum_braking.any:
            low, high, limits = self._sum_braking.narrowed(local, low, high, period.applied, limits)
            if ((local < low) | (local > high)).any():  # what is exclusive may then need another choice
                local = np.minimum(np.maximum(self._alone(choice, period, low, high), low), high)
        told = period if limits is period.limits else period._replace(limits=limits)
        coupled = self._coupled(local, low, high, choice, told)
        return Kept(coupled.u, local, low, high, coupled, None)

    def _reach(self, choice: Choice, period: Period, share: float | Floats) -> tuple[Floats, Floats]:
        """Where commands may go this period with that share of their rates, ``[n]``; those that are not ours stay."""
        low, high = self.local.reach(period.memory, period.applied, period.elapsed_s, share)
        if choice.fixed is None:
            return low, high
        return np.where(choice.fixed, period.applied, low), np.where(choice.fixed, period.applied, high)

    def _alone(self, choice: Choice, period: Period, low: Floats, high: Floats) -> Floats:
        """What the commands' own limits make of what is asked, ``[n]``; deadbands wait for what is shared."""
        resting = not self.coupling.any
        local = self.local.keep(
            choice.asked, period.memory, period.applied, low, high, period.elapsed_s, resting=resting
        )
        return local if choice.fixed is None else np.where(choice.fixed, period.applied, local)

    def verified(
        self, kept: Kept, choice: Choice, period: Period, acts: Bools | None,
        backup: Callable[[], Floats], safe: Callable[[], Floats],
    ) -> Sent:  # fmt: skip
        """Look once more; what fails at one asset is replaced there, what fails together goes down the ladder.

        ``acts``: ``[agents]``, None for all; ``backup`` and ``safe`` give commands ``[n]`` before any limit.
        """
        plan = None if kept.foreseen is None else kept.foreseen.plan
        sent = Sent(kept.u, choice.source, choice.codes, plan, [], {})
        status = kept.coupled.status
        if status is Status.INFEASIBLE:
            self._tell_unreachable(kept.coupled, sent)
        if status is not Status.UNSOLVED and (kept.foreseen is None or kept.foreseen.u is not None):
            if kept.foreseen is not None and kept.foreseen.constraint:
                sent = self._foreseen(kept, kept.foreseen, sent)
            verdict = self._verdict(sent.u, period)
            if verdict.fine:
                return sent
            verdict, sent = self._replaced(verdict, sent, period, acts)
            if not verdict.coupled:
                return sent
            if status is Status.INFEASIBLE and acts is not None and not acts.all():
                return sent  # those that are ours do what they can for those that are not
        return self._descended(kept, sent, choice, period, acts, backup, safe)

    def reasons(self, raw: Floats, which: NDArray[np.intp], kept: Kept, sent: Sent, period: Period) -> list[Reason]:
        """Why the commands ``which`` are not sent as they came, ``raw`` ``[n]``."""

        def why(i: int) -> Why | None:
            return self.local.why(i, raw, sent.u, period.memory, period.applied, kept.low, kept.high)

        return self.explainer.reasons(raw, kept.local, sent.u, which, sent.codes, kept.coupled, why)

    def last_resort(self, applied: Mapping[str, Floats], elapsed_s: float, memory: CommandMemory | None) -> Floats:
        """Commands ``[n]`` that need nothing but those applied, and not even these."""
        rows = self.verifier.last_resorts(applied, self._place, elapsed_s, memory)
        return np.array([v for row in rows for v in row], dtype=np.float64)

    def together(
        self, walked: Floats, applied: Mapping[str, Floats], elapsed_s: float, memory: CommandMemory | None
    ) -> Floats:
        """``walked`` ``[n]``, or the same way in steps so short that what assets keep together is kept on it too.

        Each asset walks for itself, so that all of them together may be too fast for a sum's ramp, or leave a sum on
        their way. Where standing still breaks as much, or what is applied is unknown, ``walked`` stays as it is.
        """

        def verdict(u: Floats) -> Verdict:
            return self.verifier.failures(self.flat.grouped(u), applied, elapsed_s, memory)

        first, here = verdict(walked), self.flat.flat(applied)
        if not first.coupled or not np.isfinite(here).all():
            return walked
        share = 1.0
        for _ in range(_HALVINGS):
            share *= 0.5
            shorter = np.where(self.local.discrete, here, here + share * (walked - here))
            found = verdict(shorter)
            if not found.coupled and len(found.local) <= len(first.local):
                return shorter
        stays = verdict(here)
        return here if len(stays.coupled) < len(first.coupled) and len(stays.local) <= len(first.local) else walked

    def _verdict(self, u: Floats, period: Period) -> Verdict:
        return self.verifier.failures(
            self.flat.grouped(u),
            period.state.applied,
            period.verified_s,
            period.memory,
            period.guarded.values,
            period.limits,
            period.guarded.seen,
        )

    def _coupled(self, local: Floats, low: Floats, high: Floats, choice: Choice, period: Period) -> Coupled:
        """First only those that follow their policy make room; where they can't make enough, all do."""
        if not self.coupling.any:
            return Coupled(local, Status.UNCHANGED)

        def keep(u: Floats, least: Floats, most: Floats) -> Coupled:
            try:
                return self.coupling.keep(
                    u, least, most, period.applied, period.elapsed_s, period.guarded.values, period.guarded.seen,
                    period.limits, wished,
                )  # fmt: skip
            except Exception:  # noqa: BLE001 - a site's barrier is foreign code: what it can't tell is not known
                return Coupled(u, Status.UNSOLVED)

        def wished() -> Floats:
            """What was merely cut off is wished for where it was asked, inside the range, so that no asset gains by
            asking for more; other commands are wished for where their own limits put them."""
            cut = np.minimum(np.maximum(choice.asked, low), high) == local
            return np.where(cut, np.minimum(np.maximum(choice.asked, self.local.lower), self.local.upper), local)

        def together(u: Floats, least: Floats, most: Floats) -> Coupled:
            own, found = choice.own, None
            if own is not None and own.any() and not own.all():
                found = keep(u, np.where(own, u, least), np.where(own, u, most))
            if found is None or found.status in (Status.INFEASIBLE, Status.UNSOLVED):
                found = keep(u, least, most)
            return found

        least, most = hard = self.local.pinned(local, low, high) if self._pins else (low, high)
        found = together(local, least, most)
        if found.status is Status.UNCHANGED:
            return self._rested(found, keep, *hard, period)
        # soft limits of single commands give way only where the others can't make the room
        for lowest, highest in self.local.preferred(period.memory, period.applied, least, most, period.elapsed_s):
            inside = together(np.minimum(np.maximum(local, lowest), highest), lowest, highest)
            if inside.status in (Status.UNCHANGED, Status.OPTIMAL):
                found, least, most = inside, lowest, highest
                break
        found = self._rested(found, keep, *hard, period)
        if not self._settles or not found.active:
            return found
        settled = self.local.settle(found.u, period.memory, period.applied, low, high, found.relief())
        if np.array_equal(settled, found.u):
            return found
        # with levels chosen, the others make no more room than is still needed
        at = self.local.discrete | (settled != found.u)
        again = keep(np.where(at, settled, local), np.where(at, settled, least), np.where(at, settled, most))
        status = Status.OPTIMAL if again.status is Status.UNCHANGED else again.status
        return Coupled(again.u, status, again.active + found.active)

    def _rested(
        self, found: Coupled, keep: Callable[[Floats, Floats, Floats], Coupled], least: Floats, most: Floats,
        period: Period,
    ) -> Coupled:  # fmt: skip
        """Take back changes inside deadbands that nothing shared asks for: all at once, else one by one."""
        small = self.local.restless(found.u, period.memory, period.applied, least, most, period.elapsed_s)
        if not len(small) or found.status in (Status.INFEASIBLE, Status.UNSOLVED):
            return found
        u = found.u.copy()
        u[small] = period.applied[small]
        if keep(u, u, u).status is Status.UNCHANGED:
            return found._replace(u=u)
        u, left = found.u, small.tolist()
        for _ in range(len(left)):
            taken = []
            for i in left:
                tried = u.copy()
                tried[i] = period.applied[i]
                if keep(tried, tried, tried).status is Status.UNCHANGED:
                    u = tried
                    taken.append(i)
            left = [i for i in left if i not in taken]
            if not taken or not left:
                break
        return found._replace(u=u)

    def _tell_unreachable(self, coupled: Coupled, sent: Sent) -> None:
        """Sums go to a limit as fast as they can; barriers and distances that can't be kept end the policy's part."""
        sent.reasons.extend(self.explainer.unreachable(coupled))
        affected = np.zeros(len(self._agents), dtype=np.bool_)
        for row in coupled.active:
            if row.left > 0 and row.hard and row.code in (Code.CONSTRAINT_BARRIER, Code.CONSTRAINT_SEPARATION):
                affected[self.flat.asset[row.at]] = True
        if affected.any():
            sent.pending[Cause.CONSTRAINT_INFEASIBLE] = affected

    def _foreseen(self, kept: Kept, foreseen: Foreseen, sent: Sent) -> Sent:
        """Tell what the look-ahead refused, and whose commands it took instead."""
        moved = kept.u != kept.coupled.u
        if not moved.any():  # a soft condition that nothing keeps
            sent.reasons.append(
                Reason("", "", Code.CONSTRAINT_LOOK_AHEAD, constraint=foreseen.constraint, margin=foreseen.asked_margin)
            )
            return sent
        source, codes = sent.source.copy(), list(sent.codes or [None] * len(self._agents))
        for i in set(self.flat.asset[np.flatnonzero(moved)].tolist()):
            codes[i] = Code.CONSTRAINT_LOOK_AHEAD
            if foreseen.from_plan:
                source[i] = PLAN
        sent.reasons.append(
            Reason("", "", Code.CONSTRAINT_LOOK_AHEAD, constraint=foreseen.constraint, margin=foreseen.asked_margin)
        )
        return sent._replace(source=source, codes=codes)

    def _replaced(self, verdict: Verdict, sent: Sent, period: Period, acts: Bools | None) -> tuple[Verdict, Sent]:
        """The limiter of last resort at every asset that fails by itself, and what is broken together after that."""
        failed = [(p, f) for p, f in verdict.local.items() if acts is None or acts[self._place[p]]]
        if not failed:
            return verdict, sent
        u, source, codes = sent.u.copy(), sent.source.copy(), list(sent.codes or [None] * len(self._agents))
        affected = np.zeros(len(self._agents), dtype=np.bool_)
        views = self.flat.grouped(u)
        rows = self.verifier.last_resorts(
            period.state.applied, [place for place, _ in failed], period.verified_s, period.memory
        )
        for ((name, number), failure), row in zip(failed, rows, strict=True):
            agent = self._place[name, number]
            asked = float(views[name][number, failure.column])
            views[name][number] = row
            source[agent], codes[agent], affected[agent] = FALLBACK, Code.VERIFICATION_FAILED, True
            sent.reasons.append(
                Reason(
                    self._agents[agent], self.explainer.signal(self._agents[agent], failure.column),
                    Code.VERIFICATION_FAILED, asked, float(views[name][number, failure.column]),
                    constraint=failure.constraint,
                )
            )  # fmt: skip
        sent.pending[Cause.VERIFICATION_FAILED] = affected
        return self._verdict(u, period), sent._replace(u=u, source=source, codes=codes, plan=None)

    def _descended(
        self, kept: Kept, sent: Sent, choice: Choice, period: Period, acts: Bools | None,
        backup: Callable[[], Floats], safe: Callable[[], Floats],
    ) -> Sent:  # fmt: skip
        """The ladder. Where it is proved that nothing within reach keeps the hard rows, what passes them least is sent
        before a safe state that passes them too."""

        def limited(give: Callable[[], Floats]) -> Floats:
            asked = give()
            if choice.fixed is not None:
                asked = np.where(choice.fixed, period.applied, asked)
            return self.keep(choice._replace(asked=asked, own=None), period, foresee=False).u

        def judge(u: Floats) -> bool:
            verdict = self._verdict(u, period)
            alone = [p for p in verdict.local if acts is None or acts[self._place[p]]]
            return not alone and not verdict.coupled

        plan = period.state.plan
        if plan is not None and not _followed(plan, period.applied):
            plan = None
        landing = descend(judge, limited(safe), plan=plan, backup=lambda: limited(backup))
        ours = np.ones(len(self._agents), dtype=np.bool_) if acts is None else acts
        sent.pending[Cause.CONSTRAINT_INFEASIBLE] = ours
        if landing.rung is Rung.SAFE_STATE and kept.coupled.status is Status.INFEASIBLE and not judge(landing.commands):
            return sent
        place, code = _LANDED[landing.rung]
        source = np.where(ours, np.int8(place), sent.source)
        codes = [code if mine else c for mine, c in zip(ours.tolist(), sent.codes or [None] * len(ours), strict=True)]
        sent.reasons.append(Reason("", "", code))
        u = landing.commands
        local = self._verdict(u, period)
        _, sent = self._replaced(Verdict(local.local, ()), sent._replace(u=u, source=source, codes=codes), period, acts)
        return sent._replace(plan=landing.plan)


def _followed(plan: StoredPlan, applied: Floats) -> bool:
    if not 1 <= plan.used <= len(plan.commands):
        return False
    last = plan.commands[plan.used - 1]
    return last.shape == applied.shape and bool((np.abs(last - applied) <= _FOLLOWED * (1.0 + np.abs(last))).all())
