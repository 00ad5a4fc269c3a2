"""The shield: an answer every period, never the raw command when in doubt.

    guard inputs -> monitors -> modes -> proposal, fallback or safe state of each asset -> its own limits
    -> what assets keep together -> look-ahead -> verify -> ladder -> last resort

:meth:`Shield.filter` is a pure function of its arguments, lets no exception out and carries its state
explicitly, so that a journal replays bit for bit. It is a software layer above the equipment's own certified
safety function, and no substitute for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Constraint, Declaration, SafeState, constraints_of, declare
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from .arrays import some
from .between_periods import BetweenPeriods, acting, landing_s, seconds
from .causes import Cause
from .choice import FALLBACK, Choice, Chooser, Inputs
from .compiled import flat_commands
from .decision import BoolArrays, Code, Decision, Mode, Reason, ShieldState
from .explanation import changed
from .failed_shield import FailedShield
from .inputs import Ahead, Guarded, InputGuard
from .keeping import Keeping, Period, Sent
from .modes import ModeMachine
from .monitors.monitor import Monitor
from .orders import NOTHING, judge
from .period_causes import MonitorWatch, period_causes
from .program import warmup
from .proposal import Proposal, read_proposal
from .read_back import ReadBack
from .safe_way import SafeWay
from .settings import ShieldSettings
from .site_fallback import Fallback, SiteFallback
from .standby import StandBy
from .tightening import tightened
from .told import Teller

_LOG = logging.getLogger(__name__)

Floats = NDArray[np.float64]


class Shield:
    """Stands between every policy and every actuator of one site.

    ``site`` is what it declares as safe (:func:`~twinloop.envs.constraint.declaration_of_site`); a nameplate alone
    declares its own ranges and rates, and ``constraints`` then come to it, the tighter of the two in force.
    ``fallback`` gives an asset's commands when its policy cannot be used; without one, assets go to neutral, which
    hands them back to their own controller. Whatever the fallback says is limited and verified like any other command.
    """

    def __init__(
        self,
        site: Declaration | Nameplate,
        constraints: Iterable[Constraint] | None = None,
        settings: ShieldSettings | None = None,
        fallback: Fallback | None = None,
        monitors: Sequence[Monitor] = (),
    ) -> None:
        if isinstance(site, Nameplate):
            declaration = _declared(site, tuple(constraints or ()))
        elif constraints is None:
            declaration = site
        else:
            raise TypeError("constraints belong to a nameplate; a declaration has its own, so add them there")
        self.declaration = declaration
        self.nameplate = plate = declaration.nameplate
        self.settings = settings or ShieldSettings()
        self.flat = flat = flat_commands(plate)
        self._fallback = SiteFallback(flat, fallback)
        self._guard = InputGuard(plate, self.settings)
        self._modes = ModeMachine(plate, self.settings)
        self._modes_at_start = self._modes.start()
        self._read_back = ReadBack(plate, self.settings.read_back_tolerance_pu)
        self._chooser = Chooser(flat, plate.agents)
        self._safe_way = SafeWay(declaration, flat)
        self._keeping = Keeping(declaration, flat)
        self._between = BetweenPeriods(plate, flat, self._keeping)
        self._teller = Teller(plate, flat)
        self._watch = MonitorWatch(monitors, plate.agents, self._teller.none_changed)
        self._standby = StandBy(flat, self._keeping, self._between, self._fallback, self._safe_way, plate.period_s)
        self._failed = FailedShield(
            plate, flat, self._keeping, self._between, self._modes, self._modes_at_start, self._teller
        )
        self._agents = frozenset(plate.agents)
        self._ahead: Ahead | None = None  # what was last told of a reading, which is mostly asked for again

    def warmup(self) -> None:
        """Import the solver and run every stage once, so that the first period is as fast as the rest.

        Raises :class:`~twinloop.envs.errors.ConfigurationError` where constraints need a solver that is not installed.
        """
        if self._keeping.coupling.any:
            warmup()
        state = self.start()
        for _ in range(3):
            state = self.filter(None, state.applied, 0.0, state).state

    def start(
        self, applied: Arrays | None = None, mode: Mode = Mode.AUTONOMOUS, assets: Collection[str] | None = None
    ) -> ShieldState:
        """The state before the first period; ``applied`` is what the plant obeys now, neutral if that is unknown.

        ``mode``: the authority that every asset starts with, one of those that people may give; with ``assets`` only
        these, and the others are in shadow.
        """
        state = ShieldState(
            applied=self.flat.grouped(self.flat.neutral.copy()),
            inputs=self._guard.start(),
            memory=self._between.memory_at_start,
            modes=self._modes_at_start
            if mode is Mode.AUTONOMOUS and assets is None
            else self._modes.start(mode, assets=assets),
            monitors=tuple(m.start() for m in self._watch.monitors),
        )
        return state if applied is None else self.accepted(state, applied)

    def guard(
        self,
        telemetry: Telemetry | None,
        now_s: float,
        state: ShieldState,
        *,
        clock_s: float | None = None,
        prediction: Arrays | None = None,
    ) -> Guarded:
        """What a policy may see of this reading; :meth:`filter` judges the same reading the same way."""
        with np.errstate(all="ignore"):  # infinities are judged here, not warned of
            found = self._guarded(telemetry, now_s, state, clock_s, prediction)
        self._ahead = Ahead(telemetry, now_s, clock_s, state.inputs, found) if prediction is None else None
        # whoever changes what is told here changes nothing that is decided by
        values = {name: v.copy() for name, v in found.values.items()}
        seen = values if found.seen is found.values else {name: v.copy() for name, v in found.seen.items()}
        return found._replace(values=values, seen=seen)

    def filter(
        self,
        telemetry: Telemetry | None,
        proposed: Any,
        now_s: float,
        state: ShieldState,
        *,
        absent: Code = Code.COMMAND_MISSING,
        orders: Any = None,
        clock_s: float | None = None,
        prediction: Arrays | None = None,
        causes: Iterable[Cause] = (),
    ) -> Decision:
        """Return commands that are safe to send, changed as little as possible, with a reason for each change.

        ``proposed`` is ``[N, A]`` per group, or None when there is no proposal; ``absent`` says why. ``now_s`` is the
        plant's UTC clock, ``clock_s`` one that never steps back (None: the former stands in). ``orders``: what people
        and the grid ask (:class:`~.orders.Orders`). ``prediction``: ``[N, O]`` per group, what a twin expected this
        reading to be. ``causes``: what the caller found that all assets must heed. Never raises.

        The returned state takes the commands as applied; correct it with :meth:`accepted`, :meth:`unconfirmed` or
        :meth:`unsent` once the plant has answered, or has not been asked.
        """
        now_s, clock_s = seconds(now_s), None if clock_s is None else seconds(clock_s)
        try:
            with np.errstate(all="ignore"):  # infinities are judged here, not warned of
                return self._filter(telemetry, proposed, now_s, state, absent, orders, clock_s, prediction, causes)
        except Exception:  # noqa: BLE001 - last line of defence: a fault in the shield itself must not reach the plant
            _LOG.exception("the shield failed; its last resort answers")
            readable = isinstance(state, ShieldState) and isinstance(state.applied, Mapping)
            return self._failed.decision(now_s, clock_s, state if readable else self.start(), orders)

    def accepted(self, state: ShieldState, accepted: Any) -> ShieldState:
        """The state after the plant said what it accepted; what it did not say, or said wrongly, stays as sent.

        Where it says something else than an asset of ours was sent, the next period hears of it
        (``read_back_wrong``). Whatever ``accepted`` is, it is no reason to raise.
        """
        after = self._between.obeying(state, accepted)
        if not state.confirmed or state.time_s is None:  # nothing was sent, or nobody knows what arrived
            return after
        wrong = self._read_back.wrong(state.applied, after.applied)
        if wrong.any():
            wrong &= acting(state.modes or self._modes_at_start)
            found = wrong | state.pending.get(Cause.READ_BACK_WRONG, False)
            after = replace(after, pending={**state.pending, Cause.READ_BACK_WRONG: found})
        return after

    def unconfirmed(self, before: ShieldState, after: ShieldState) -> ShieldState:
        """The state when a write may or may not have arrived.

        The plant obeys either the commands of ``before`` or those just sent; repeating the former is within the rate
        of both, so commands with a rate do not change until a write is confirmed.
        """
        return replace(self.unsent(before, after), confirmed=False)

    def unsent(self, before: ShieldState, after: ShieldState) -> ShieldState:
        """The state when the commands of ``after`` were not sent: the plant obeys what it obeyed ``before``.

        It stood still for this period, which limits on change count, and which ends a stored plan. With ``before`` for
        ``after``, nothing was decided at all.
        """
        stood = before.before if after is before else before.applied
        return replace(after, applied=before.applied, before=stood, confirmed=before.confirmed, plan=None)

    def stood_in(self, state: ShieldState, sent: Arrays, now_s: float, clock_s: float | None = None) -> ShieldState:
        """The state after a period without a decision, in which ``sent`` went out, such as the last one's standby.

        It counts as a missed deadline: after some in a row, the modes trip.
        """
        now_s, clock_s = seconds(now_s), None if clock_s is None else seconds(clock_s)
        modes, _, _ = self._modes.step(
            state.modes or self._modes_at_start,
            {Cause.DEADLINE_MISSED: True},
            NOTHING,
            now_s if clock_s is None else clock_s,
        )
        return self._between.undecided(state, sent, modes, now_s, clock_s)

    def last_resort(self, state: ShieldState, now_s: float, clock_s: float | None = None) -> Arrays:
        """One step towards the safe states from what ``state`` says is applied, by the limiter of last resort alone."""
        now_s, clock_s = seconds(now_s), None if clock_s is None else seconds(clock_s)
        elapsed_s = self._keeping.verifier.elapsed_s(state.time_s, now_s, state.confirmed)
        memory = self._between.memory(state, now_s, clock_s)
        walked = self._keeping.last_resort(state.applied, elapsed_s, memory)
        return self.flat.grouped(self._keeping.together(walked, state.applied, elapsed_s, memory))

    def _filter(
        self, telemetry: Telemetry | None, proposed: Any, now_s: float, state: ShieldState, absent: Code,
        orders: Any, clock_s: float | None, prediction: Arrays | None, causes: Iterable[Cause],
    ) -> Decision:  # fmt: skip
        own_clock_s = now_s if clock_s is None else clock_s
        guarded = self._guarded(telemetry, now_s, state, clock_s, prediction, self._ahead)
        inputs = None if guarded.clean else Inputs(guarded.agents_trusted, guarded.agents_substituted)
        proposal = read_proposal(proposed, self.flat, absent)
        asks = judge(orders, self._agents, self._keeping.coupling.sums.declared)
        before = state.modes or self._modes_at_start
        raised = period_causes(inputs, proposal, guarded.clock_wrong, now_s, state, before, causes)
        memories = state.monitors
        if self._watch.monitors:
            asked = self.flat.grouped(proposal.raw)
            memories = self._watch.step(raised, state, guarded, asked, prediction, own_clock_s)
        modes_state, modes, told = self._modes.step(before, raised, asks, own_clock_s)

        limits, outside = self._keeping.coupling.sums.within(asks.limits)
        applied, passed_s = self._between.applied(state), self._between.passed_s(now_s, state, clock_s)
        memory = self._between.remembered(state, applied, passed_s)
        elapsed_s = passed_s if state.confirmed else 0.0
        verified_s = self._keeping.verifier.elapsed_s(state.time_s, now_s, state.confirmed)
        period = Period(state, guarded, applied, memory, elapsed_s, verified_s, limits)
        fallback = partial(self._fallback.commands, guarded)
        safe = partial(self._safe_way.toward, applied, state.landing_s, elapsed_s)
        choice = self._chooser.choose(proposal, inputs, modes, asks.approved, applied, fallback, safe, asks.manual)
        mode_told = self._teller.of_modes(modes)
        acts = None if modes.plain else modes.acts
        if acts is None or some(acts):
            kept = self._keeping.keep(choice, period)
            sent = self._keeping.verified(kept, choice, period, acts, fallback, safe)
        else:  # nothing is ours to command: what the plant obeys is repeated, and not sent
            kept, sent = None, Sent(applied.copy(), choice.source, choice.codes, None, [], {})
        moved = changed(proposal.raw, sent.u)
        if acts is not None:
            moved &= mode_told.ours
        reasons: list[Reason] = [*guarded.reasons, *told, *sent.reasons]
        reasons += [Reason("", "limits", Code.ORDER_INVALID, constraint=name) for name in outside]
        changes: BoolArrays = self._teller.none_changed
        if kept is not None and some(moved):
            which = moved.nonzero()[0]
            changes = self._teller.changes(which, choice)
            reasons += self._keeping.reasons(proposal.raw, which, kept, sent, period)
        commands = self.flat.grouped(sent.u)
        after = ShieldState(
            applied=commands,
            inputs=guarded.state,
            time_s=now_s,
            clock_s=clock_s,
            before=state.applied,
            memory=memory,
            modes=modes_state,
            plan=sent.plan,
            monitors=memories,
            changed=changes,
            landing_s=None
            if choice.plain and sent.source is choice.source
            else landing_s(state, sent.source, passed_s),
            pending=sent.pending,
        )
        advised: Arrays = commands
        if self.settings.advises and not choice.plain and bool((choice.source >= FALLBACK).any()):
            advised = self._advised(proposal, choice, period, fallback)
        return Decision(
            commands,
            tuple(reasons),
            self._teller.sources(choice, sent),
            after,
            mode_told.named,
            mode_told.acts,
            advised,
            partial(self._standby.commands, after, guarded, mode_told, limits),
        )

    def _guarded(
        self, telemetry: Any, now_s: float, state: ShieldState, clock_s: float | None, prediction: Arrays | None,
        ahead: Ahead | None = None,
    ) -> Guarded:  # fmt: skip
        try:
            again = ahead if prediction is None else None
            if again is not None and self._guard.knows(again, telemetry, now_s, clock_s, state.inputs):
                return again.guarded
            return self._guard.guard(telemetry, now_s, state.inputs, clock_s=clock_s, estimate=prediction)
        except Exception:  # noqa: BLE001 - whatever came in: no reading is worth the loop
            return self._guard.guard(None, now_s, state.inputs)

    def _advised(self, proposal: Proposal, choice: Choice, period: Period, fallback: Callable[[], Floats]) -> Arrays:
        """What would be sent if every asset were autonomous."""
        usable = np.isfinite(proposal.raw)
        asked = proposal.raw if usable.all() else np.where(usable, proposal.raw, fallback())
        kept = self._keeping.keep(Choice(asked, choice.source, False), period)
        return self.flat.grouped(kept.u)


def _declared(plate: Nameplate, constraints: tuple[Constraint, ...]) -> Declaration:
    """A nameplate is coherent by itself; what comes to it is checked, and may be wider than it."""
    if constraints:
        return declare(plate, tightened(plate, constraints))
    return Declaration(plate, constraints_of(plate), dict.fromkeys(plate.agents, SafeState()))
