"""Where people reach a running station: its stop file, its inbox of orders, and the orders file if there is one.

Everything that is followed is journalled before the decision that it leads to. Nothing here gives more than the run was
started with, and what is wrong, old or not of now is refused in words, into ``orders/done``. A stop needs none of that:
it is followed whatever its clocks say.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import nearest
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from ..arbitration.request import Circumstances, Request
from ..order_desk import OrderDesk
from ..shield import Mode, ShieldState
from ..shield.causes import TABLE
from ..shield.modes import MODES
from ..shield.orders import ORDERABLE, Orders
from .change import Asked
from .executor_seat import EmptySeat, Executor, Verdict
from .folder import StationFolder
from .hearing import Hearing, RollCall, told
from .inbox import Inbox, Waiting
from .manual_values import LONGEST_S, ManualValues
from .order import Order, OrderResult
from .stop_file import StopFile

_LOG = logging.getLogger(__name__)

CLOCK_ROOM_S = 2.0
"""How far ahead of this machine's clock an order may be stamped."""
MOST_WAIT_S = 60.0
"""The age from which an order is refused whatever it says of its own expiry."""

_SHOWN = 20
_NEEDS = {"mode": ("mode",), "manual": ("values",), "execute": ("proposal",), "pause": ("proposal",)}
_NEEDS |= {"resume": ("proposal",), "rollback": ("proposal",)}
_OF_PROPOSALS = frozenset({"execute", "pause", "resume", "rollback"})
_WAITS_FOR_MODES = frozenset({"manual", "execute", "resume"})


class StationDesk:
    """Asked once a period by the loop; the requester of slot 8.

    ``ceiling``: the mode that the run was started with, and the most that an order may give. ``period_s``: of the wall.
    ``sheet``: the orders file, beside all this. ``utc_s`` is what orders are stamped by; ``steady_s`` tells ages, since
    that one may step; by ``monotonic_s`` manual values expire. ``latest``: what became of the last orders; ``change``:
    the latest change in one line.
    """

    def __init__(
        self,
        station: StationFolder,
        nameplate: Nameplate,
        ceiling: Mode,
        period_s: float,
        *,
        executor: Executor | None = None,
        sheet: OrderDesk | None = None,
        utc_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nameplate, self._ceiling = nameplate, ceiling
        self.executor: Executor = executor or EmptySeat()
        self._sheet, self._utc, self._monotonic = sheet, utc_s, monotonic_s
        self._inbox, self._stop = Inbox(station), StopFile(station.stop, utc_s, steady_s)
        self._manual, self._roll = ManualValues(nameplate, period_s), RollCall(Hearing(station))
        self._agents = frozenset(nameplate.agents)
        self._steady, self._started_s = steady_s, steady_s()
        self._was_held = self._reset_due = False
        self._asking: tuple[Request, ...] = ()
        self._seen: tuple[Arrays, Mapping[str, NDArray[np.bool_]]] = ({}, {})
        self._rows: list[dict[str, Any]] = []
        self.latest: deque[OrderResult] = deque(maxlen=_SHOWN)
        self.change = ""

    @property
    def is_stopped(self) -> bool:
        """Whether the emergency stop is held."""
        return self._was_held

    @property
    def manual_signals(self) -> tuple[str, ...]:
        """Commands that a person holds by hand."""
        return self._manual.signals

    def stop(self, by: str) -> None:
        """Emergency stop, held until a reset; may be called from a signal handler or another thread."""
        self._stop.press_here(by)

    @property
    def is_pressed(self) -> bool:
        """Whether somebody has pressed the emergency stop; asks no disk."""
        return bool(self._stop.pressed_by)

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        """What operators hold by hand, for slot 8."""
        self._seen = seen.values, seen.trusted
        return self._asking

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """What is to be journalled before the next decision."""
        found, self._rows = self._rows, []
        try:
            found += [{"utc_s": self._utc(), **row, "kind": "execution"} for row in self.executor.rows()]
        except Exception:  # noqa: BLE001 - whoever carries out proposals must not end the control of a plant
            _LOG.exception("the executor's rows can't be had")
        for change in self._roll.changes():
            self._say(told(change))
            found.append({"utc_s": self._utc(), "kind": "beside", **change})
        return found

    def orders(self, number: int, now_s: float, state: ShieldState) -> Orders:
        """What people ask for the period of this ``number``. Never raises: whatever goes wrong, a stop is heeded."""
        held = self._stop.look()
        try:
            return self._gathered(held, number, now_s, state)
        except Exception as error:  # noqa: BLE001 - a fault of this desk must not end the control of a plant
            _LOG.exception("orders can't be followed")
            self._say(f"orders can't be followed: {type(error).__name__}: {error}")
            self._was_held, self._asking = held or bool(self._stop.pressed_by), ()
            return Orders(stop=self._was_held, approved=frozenset())

    def _gathered(self, held: bool, number: int, now_s: float, state: ShieldState) -> Orders:
        asked = Asked()
        sheet = Orders(approved=frozenset()) if self._sheet is None else self._sheet()
        fresh = held and not self._was_held
        reset = (sheet.reset or self._reset_due) and not sheet.stop
        self._reset_due = reset and fresh  # a stop stands for a period before a reset may end it
        reset = reset and not fresh
        if reset:
            wrong = self._stop.release(self._utc())
            if wrong:
                self._say(wrong)
                reset = False
        if sheet.mode is not None or reset:
            asked.put(sheet.mode, reset, None)
        for waiting in self._inbox.waiting():
            order = waiting.order
            if order is not None and self._must_wait(order, asked, fresh):
                continue
            self._follow(waiting, number, now_s, state, asked)
            fresh = fresh or asked.stopped
        held = bool(self._stop.pressed_by) or sheet.stop
        if held and not self._was_held:
            self._say(f"emergency stop by {self._stop.pressed_by or 'the orders file'}; held until a reset is ordered")
        self._was_held = held
        self._end_manual(state, held)
        self._asking = self._manual.requests(self._monotonic()) if self._manual.signals else ()
        return Orders(
            mode=asked.mode,
            stop=held,
            reset=asked.reset and not held,
            approved=sheet.approved,
            limits=sheet.limits,
            assets=asked.assets,
        )

    def _must_wait(self, order: Order, asked: Asked, fresh: bool) -> bool:
        """Whether an order stays in the inbox for the next period, because another one comes before it.

        The shield takes one change of authority a period; what depends on modes waits until they are changed; and a
        stop stands for a period before a reset may end it.
        """
        if order.kind == "stop":
            return False
        if asked.waits:
            return True
        if order.kind == "reset" and (fresh or asked.stopped):
            asked.waits = True
        elif order.kind in ("mode", "reset"):
            asked.waits = not asked.fits(order)
        elif order.kind in _WAITS_FOR_MODES:
            asked.waits = asked.is_event
        return asked.waits

    def _follow(self, waiting: Waiting, number: int, now_s: float, state: ShieldState, asked: Asked) -> None:
        order = waiting.order
        verdict = Verdict(False, waiting.fault)
        if order is not None:
            wrong = self._fault(order)
            verdict = Verdict(False, wrong) if wrong else self._obey(order, number, now_s, state, asked)
        result = OrderResult(
            id=waiting.id,
            kind="unreadable" if order is None else order.kind,
            by="unknown" if order is None else order.by,
            accepted=verdict.accepted,
            why=verdict.why,
            period=number,
            utc_s=self._utc(),
        )
        row = {"kind": "order", "utc_s": result.utc_s, "period": result.period, "id": result.id}
        row |= {"order": None if order is None else order.model_dump(mode="json", exclude={"id"})}
        self._rows.append({**row, "accepted": result.accepted, "why": result.why, "record": dict(verdict.record)})
        self._inbox.answer(waiting, result)
        self.latest.append(result)
        self._say(f"{result.kind} by {result.by}: {'' if result.accepted else 'refused: '}{result.why}")

    def _fault(self, order: Order) -> str:
        """What is wrong with an order, whatever is running; empty if nothing is."""
        if order.kind == "stop":
            return ""
        now_s = self._utc()
        ahead_s, age_s = order.utc_s - now_s, now_s - order.utc_s
        if ahead_s > CLOCK_ROOM_S:
            return (
                f"stamped {_span(ahead_s)} ahead of this machine's clock; set the clocks of both machines right, and "
                "order again"
            )
        if order.expires_utc_s <= now_s or age_s > MOST_WAIT_S:
            return (
                f"asked for {_span(age_s)} ago by this machine's clock, and lapsed; order again, and if it was just "
                "now, compare the clocks of both machines"
            )
        if age_s > self._steady() - self._started_s:  # and not by stamps: the wall's clock may have been set back
            return "asked for before this control process started; look at the plant, and order again"
        for part in ("mode", "values", "proposal"):
            given, needed = bool(getattr(order, part)), part in _NEEDS.get(order.kind, ())
            if needed and not given:
                return f"an order {order.kind} needs {part}; give it"
            if given and not needed:
                return f"an order {order.kind} has no {part}; leave it out"
        for agent in order.assets or ():
            if agent not in self._agents:
                return f"{agent}: no such asset here{nearest(agent, self._agents)}"
        if order.assets is not None and (not order.assets or order.kind in _OF_PROPOSALS):
            return "assets name nobody, or are none of this order's matter; leave them out"
        return ""

    def _obey(self, order: Order, number: int, now_s: float, state: ShieldState, asked: Asked) -> Verdict:
        assets = None if order.assets is None else frozenset(order.assets)
        if order.kind == "stop":
            self._stop.press(order.by, order.utc_s)
            asked.stopped = True
            return Verdict(True, "stopped: all assets go to their safe states, until a reset")
        if order.kind == "reset":
            wrong = self._stop.release(order.utc_s)
            if wrong:
                return Verdict(False, wrong)
            asked.put(None, True, assets)
            return Verdict(True, "cleared what is latched and stands no longer; assets that were tripped are in shadow")
        if order.kind == "mode":
            return self._mode(order, assets, state, asked)
        if order.kind == "manual":
            return self._hold(order, assets, state)
        if order.kind == "release":
            names = self._manual.release(assets)
            return Verdict(True, f"released {', '.join(names)}" if names else "nothing was held by hand")
        if self._stop.pressed_by and order.kind in ("execute", "resume"):
            return Verdict(False, f"stopped by {self._stop.pressed_by}; order reset and a mode first")
        seen = Circumstances(number, now_s, *self._seen, state, self._modes(state))
        try:
            return self.executor.order(order, seen)
        except Exception as error:  # noqa: BLE001 - whoever carries out proposals must not end the control of a plant
            _LOG.exception("the executor failed")
            return Verdict(False, f"the executor failed ({type(error).__name__}: {error}); nothing is carried out")

    def _mode(self, order: Order, assets: frozenset[str] | None, state: ShieldState, asked: Asked) -> Verdict:
        mode = Mode(str(order.mode))
        if ORDERABLE.index(mode) > ORDERABLE.index(self._ceiling):
            return Verdict(
                False,
                f"{mode.value} is above {self._ceiling.value}, the most that this run was started with; start it again "
                f"with --mode {mode.value}",
            )
        if self._stop.pressed_by and mode in (Mode.APPROVED, Mode.AUTONOMOUS):
            return Verdict(False, f"stopped by {self._stop.pressed_by}; order reset first")
        wrong = "" if asked.reset else self._standing(mode, assets, state)
        if wrong:
            return Verdict(False, wrong)
        asked.put(mode, False, assets)
        return Verdict(True, f"mode {mode.value} for {'all assets' if assets is None else ', '.join(sorted(assets))}")

    def _standing(self, mode: Mode, assets: frozenset[str] | None, state: ShieldState) -> str:
        """Why the shield would deny more authority to some of the assets; empty where it would not."""
        modes = state.modes
        if modes is None:
            return ""
        standing = modes.latched | (modes.left > 0)
        raising = MODES.index(mode) > modes.requested
        for i, agent in enumerate(self._nameplate.agents):
            if (assets is None or agent in assets) and raising[i] and standing[:, i].any():
                cause = TABLE[int(standing[:, i].argmax())].cause.value
                remedy = "order reset first" if modes.latched[:, i].any() else "order again when that is over"
                return f"{agent} is in {MODES[int(modes.mode[i])].value} because of {cause}; {remedy}"
        return ""

    def _hold(self, order: Order, assets: frozenset[str] | None, state: ShieldState) -> Verdict:
        if assets is not None and not all(name.rpartition("/")[0] in assets for name in order.values):
            return Verdict(False, "values are of other assets than the order names; leave assets out")
        if self._stop.pressed_by:
            return Verdict(False, f"stopped by {self._stop.pressed_by}; order reset and a mode first")
        if order.lasts_s > LONGEST_S:
            return Verdict(False, f"lasts {order.lasts_s:g} s; at most {LONGEST_S:g} s, then a person renews it")
        wrong = self._manual.fault(order.values, state)
        if wrong:
            return Verdict(False, wrong)
        self._manual.hold(order.values, order.by, self._monotonic() + order.lasts_s)
        told = ", ".join(f"{name} {value:g}" for name, value in sorted(order.values.items()))
        return Verdict(True, f"held for {order.lasts_s:g} s, within the shield's limits: {told}")

    def _end_manual(self, state: ShieldState, held: bool) -> None:
        if not self._manual.signals:
            return
        for ended in self._manual.end(state, held, self._monotonic()):
            row = {"kind": "manual", "utc_s": self._utc(), "why": ended.why, "signals": ended.signals}
            self._rows.append({**row, "who": ended.who})
            self._say(f"manual values ended ({ended.why}): {', '.join(ended.signals)}")

    def _modes(self, state: ShieldState) -> dict[str, Mode]:
        if state.modes is None:
            return {}
        return {a: MODES[c] for a, c in zip(self._nameplate.agents, state.modes.mode.tolist(), strict=True)}

    def _say(self, change: str) -> None:
        if change != self.change:
            self.change = change
            _LOG.warning("%s", change)


def _span(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size_s in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2.0 * size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{max(seconds, 0.0):.1f} seconds"
