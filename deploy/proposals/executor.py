"""Carries out approved proposals in control: checks, stages, measures, and goes back. No torch.

What is asked for in slot 14 is, to the bit, the approved writes, the approved policy's output, or the approved rollback
values, of the assets whose stage has begun; everything else is left to the slots below. All of it is what was read and
checked once, when the order came: files that change afterwards change nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.policy import Memory
from ...envs.constraint import Declaration
from ...envs.errors import ConfigurationError, TwinloopError
from ...envs.plant import Arrays
from ...envs.twin import Observation
from ..arbitration.priority_array import Slot
from ..arbitration.request import Circumstances, Request
from ..shield import Mode
from ..station.executor_seat import Verdict
from ..station.folder import StationFolder
from ..station.order import Order
from ..station.people import People
from .burnt import FOLDER, Burnt
from .carried_policy import CarriedPolicy
from .checks import SENDING, Cleared, Ours, Refused, cleared
from .folder import ENDED, Execution, ProposalFolder, Status, proposal_ids
from .measuring import Measuring
from .propose import commands_of

_LOG = logging.getLogger(__name__)

Floats = NDArray[np.float64]

STANDS_PERIODS = 3.0
"""How long a request stands should the executor itself fail to answer."""
POLICY_PU = 0.2
MOST_FAILED_TURNS = 3


@dataclass
class _RollOut:
    """One execution under way. Times are the plant's."""

    cleared: Cleared
    begun_s: float
    begun_utc_s: float
    measuring: Measuring
    writes: Arrays
    rollback: Arrays
    status: Status = "rolling out"
    why: str = ""
    stage: int = 0
    stage_begun_s: float = 0.0
    rolling_back_s: float = 0.0
    fallback_periods: int = 0
    was_paused: bool = False
    resumes_as: Status = "rolling out"
    effects: list[float | None] = field(default_factory=list)
    number: int | None = None
    policy: CarriedPolicy | None = None
    starts: bool = False
    memory: Memory | None = None
    last: dict[str, Floats] | None = None
    failed_turns: int = 0

    @property
    def agents(self) -> tuple[str, ...]:
        """Assets of the stages begun."""
        stages = self.cleared.proposal.stages[: self.stage + 1]
        return tuple(agent for stage in stages for agent in stage.agents)


class Executor:
    """Sits in control's :class:`~..station.executor_seat.Executor` seat. One proposal at a time.

    ``declaration``: control's own nameplate and limits. ``wall_period_s``: how long a period lasts on the wall, None
    for the nameplate's; a policy may take a fifth of it. ``clock_s``: UTC, seconds. ``policy_process``: an approved
    policy is evaluated in a process of its own; the roll-out begins when that runs.
    """

    def __init__(
        self,
        station: StationFolder,
        declaration: Declaration,
        *,
        wall_period_s: float | None = None,
        clock_s: Callable[[], float] = time.time,
        policy_process: bool = False,
    ) -> None:
        self._station = station
        self._policy_process = policy_process
        self._plate = declaration.nameplate
        self._wall_period_s = self._plate.period_s if wall_period_s is None else wall_period_s
        self._clock_s = clock_s
        self._burnt = Burnt(station.proposals / FOLDER)
        self._ours = Ours(self._plate, self._plate.hash, declaration.hash, frozenset())
        self._now: _RollOut | None = None
        self._told: dict[str, dict[str, Any]] = {}
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._statics = {g.name: g.statics_array()[None] for g in self._plate.groups}
        self._columns = {
            agent: (g.name, i) for g in self._plate.groups for i, agent in enumerate(f"{g.name}/{a}" for a in g.assets)
        }

    def start(self) -> None:
        """Take the administrators of now for granted, and end on paper what an earlier run of control left half done.

        Raises :class:`ConfigurationError` where people.json is damaged.
        """
        roots = People.read(self._station.people).administrators()
        self._ours = replace(self._ours, roots=roots)
        for id in proposal_ids(self._station):
            try:
                folder = ProposalFolder(self._station, id)
                left = folder.execution()
                if left is not None and left.status not in ENDED:
                    why = "control was started anew, and nothing that stood before counts; propose anew"
                    folder.write_execution(left.model_copy(update={"status": "rolled back", "why": why}))
            except (ConfigurationError, OSError) as error:
                _LOG.warning("proposal %s: %s", id, error)

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        """Follow or refuse ``execute``, ``pause``, ``resume`` or ``rollback``."""
        with self._lock:
            try:
                if not order.proposal:
                    raise Refused(f"{order.kind}: of which proposal? Give its id")
                if order.kind == "execute":
                    return self._execute(order.proposal, seen)
                return self._steer(order, seen)
            except Refused as refused:
                return Verdict(False, str(refused))
            except Exception as error:  # noqa: BLE001 - whatever lies in a folder, the loop goes on and nothing is sent
                _LOG.exception("order %s of proposal %s", order.kind, order.proposal)
                return Verdict(False, f"{order.kind} of {order.proposal}: {type(error).__name__}: {error}")

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        """What is to stand in slot 14 now."""
        with self._lock:
            now = self._now
            if now is None or now.status in ENDED:
                return ()
            if now.starts and not self._has_started(now, seen):
                return ()
            if now.number != seen.number:  # once a period, however often it is asked
                now.number = seen.number
                self._go_on(now, seen)
            if now.status in ENDED:
                return ()
            values = self._values(now, seen)
            masked = {name: np.full_like(value, np.nan) for name, value in values.items()}
            for agent in now.agents:
                group, row = self._columns[agent]
                masked[group][row] = values[group][row]
            lasts_s = STANDS_PERIODS * self._wall_period_s
            return (Request(int(Slot.APPROVED), masked, lasts_s, now.cleared.proposal.id),)

    def executions(self) -> Mapping[str, Mapping[str, Any]]:
        """By proposal, how its roll-out stands; those of this run."""
        return dict(self._told)

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """What happened since the last call."""
        with self._lock:
            found, self._rows = self._rows, []
            return found

    def _execute(self, id: str, seen: Circumstances) -> Verdict:
        if self._now is not None and self._now.status not in ENDED:
            running = self._now.cleared.proposal.id
            if running == id:
                raise Refused(f"proposal {id} is being carried out already: {self._now.status}")
            raise Refused(f"proposal {running} is being carried out; one at a time: roll it back, or wait")
        try:
            found = cleared(
                self._station, id, self._ours, seen, self._clock_s(), self._burnt.used, graphs=not self._policy_process
            )
        except OSError as error:
            raise Refused(
                f"proposal {id}: nobody knows what was carried out before ({error}); look at the disk"
            ) from error
        proposal, approval = found.proposal, found.approval
        begun_s = seen.now_s
        now = _RollOut(
            found, begun_s, self._clock_s(), Measuring(proposal, found.recheck, self._plate, begun_s),
            commands_of(self._plate, proposal.writes), commands_of(self._plate, proposal.rollback),
            stage_begun_s=begun_s, number=None,
        )  # fmt: skip
        try:
            self._burnt.burn(proposal.hash, approval.nonce)
        except FileExistsError:
            raise Refused(
                f"proposal {id}: it was carried out before, and an approval is good once; propose anew"
            ) from None
        except OSError as error:
            raise Refused(
                f"proposal {id}: that it is used up cannot be put on disk ({error}); nothing is sent"
            ) from error
        self._now = now
        if found.policy is None:
            self._say(now, "rolling out", _first_stage(now))
        else:
            folder = Path(proposal.policy.path) if self._policy_process and proposal.policy is not None else None
            now.policy, now.starts = CarriedPolicy(found.policy, folder, POLICY_PU * self._wall_period_s), True
            self._say(now, "rolling out", "the approved policy starts")
        return Verdict(
            True,
            f"proposal {id} of {proposal.by}, approved by {approval.by}, begins with {', '.join(now.agents)}",
            {
                "proposal": proposal.hash, "nonce": approval.nonce, "by": proposal.by, "approved_by": approval.by,
                "recheck_utc_s": found.recheck.utc_s,
            },
        )  # fmt: skip

    def _steer(self, order: Order, seen: Circumstances) -> Verdict:
        now = self._now
        if now is None or now.status in ENDED or now.cleared.proposal.id != order.proposal:
            raise Refused(f"{order.kind}: proposal {order.proposal} is not being carried out")
        if now.status == "rolling back":
            raise Refused(f"{order.kind}: proposal {order.proposal} is being rolled back; wait for its end")
        if order.kind == "rollback":
            self._roll_back(now, seen.now_s, f"ordered by {order.by}")
        elif order.kind == "pause":
            if now.status == "paused":
                raise Refused(f"proposal {order.proposal} is paused already: {now.why}")
            self._pause(now, f"ordered by {order.by}")
        elif order.kind == "resume":
            if now.status != "paused":
                raise Refused(f"resume: proposal {order.proposal} is not paused, it is {now.status}")
            now.stage_begun_s, now.fallback_periods = seen.now_s, 0
            self._say(now, now.resumes_as, f"resumed by {order.by}; its effect is told, and no longer judged")
        else:
            raise Refused(f"{order.kind} is no order about a proposal; give execute, pause, resume or rollback")
        return Verdict(
            True, f"proposal {order.proposal}: {now.status}: {now.why}", {"proposal": now.cleared.proposal.hash}
        )

    def _has_started(self, now: _RollOut, seen: Circumstances) -> bool:
        """Whether the policy can be asked; if so, the roll-out begins now."""
        assert now.policy is not None  # nothing else starts
        if now.status != "rolling out" or now.policy.fault:
            self._say(now, "rolled back", now.policy.fault or f"{now.why}; nothing was sent yet")
            self._close(now)
            return False
        if not now.policy.is_ready:
            return False
        try:
            now.memory = now.policy.start()
        except TwinloopError as error:  # its process ended as soon as it ran
            self._say(now, "rolled back", f"{error}; nothing was sent yet")
            self._close(now)
            return False
        now.starts = False
        now.begun_s = now.stage_begun_s = seen.now_s
        now.measuring = Measuring(now.cleared.proposal, now.cleared.recheck, self._plate, seen.now_s)
        self._say(now, "rolling out", _first_stage(now))
        return True

    def _go_on(self, now: _RollOut, seen: Circumstances) -> None:
        """What this period changes."""
        proposal = now.cleared.proposal
        if now.status == "rolling back":
            gone_s = seen.now_s - now.rolling_back_s
            if gone_s >= proposal.stage_s or self._is_back(now, seen):
                self._say(now, "rolled back", now.why)
                self._close(now)
            return
        if seen.now_s > now.begun_s:
            now.measuring.read(seen.now_s, seen.values, seen.trusted)
        lost = next((agent for agent in now.agents if seen.mode.get(agent) not in SENDING), None)
        if lost is not None:
            mode = seen.mode.get(lost)
            if mode is Mode.TRIPPED:
                self._say(now, "rolled back", f"{lost} is tripped; what was approved is used up")
                self._close(now)
            else:
                self._pause(now, f"{lost} is in mode {mode}, where nothing approved is sent")
        if now.status in ENDED:
            return
        if seen.now_s - now.begun_s >= proposal.lasts_s - 0.5 * self._plate.period_s:
            if now.status == "standing":
                self._say(now, "done", f"its {proposal.lasts_s:g} s are over; the slot is released")
                self._close(now)
            else:
                self._roll_back(now, seen.now_s, f"its {proposal.lasts_s:g} s are over")
            return
        if now.status in ("rolling out", "measuring"):
            self._judge(now, seen)

    def _judge(self, now: _RollOut, seen: Circumstances) -> None:
        """Whether the stage holds, and is over; then whether the next one may begin."""
        proposal = now.cleared.proposal
        now.fallback_periods += not all(self._is_trusted(agent, seen) for agent in now.agents)
        if now.fallback_periods > proposal.most_fallback_periods:
            self._pause(now, f"fallback acted for {now.fallback_periods} periods where the change should")
            return
        length_s = proposal.stage_s if now.status == "rolling out" else proposal.measure_s
        if seen.now_s - now.stage_begun_s < length_s - 0.5 * self._plate.period_s:
            return
        effect = (
            None
            if now.was_paused
            else now.measuring.effect(now.stage if now.status == "rolling out" else len(proposal.stages))
        )
        now.effects.append(effect)
        unit = proposal.gain.unit
        if now.status == "measuring":
            self._settle(now, seen, effect)
            return
        check = proposal.stages[now.stage]
        if not now.was_paused and effect is None:
            self._pause(now, f"too little of stage {now.stage + 1} could be read to tell its effect")
        elif effect is not None and not check.low <= effect <= check.high:
            self._pause(
                now,
                f"stage {now.stage + 1} had an effect of {effect:.4g} {unit}, promised were {check.low:.4g} to "
                f"{check.high:.4g}",
            )
        now.stage_begun_s, now.fallback_periods = seen.now_s, 0
        is_last = now.stage + 1 == len(proposal.stages)
        if not is_last and now.status != "paused":
            now.stage += 1
            agents = ", ".join(proposal.stages[now.stage].agents)
            self._say(now, "rolling out", f"stage {now.stage + 1} of {len(proposal.stages)}: {agents}")
        elif is_last and now.status != "paused":
            self._say(now, "measuring", f"all assets act; the effect is measured for {proposal.measure_s:g} s")
        elif is_last:
            now.resumes_as = "measuring"

    def _settle(self, now: _RollOut, seen: Circumstances, effect: float | None) -> None:
        gain = now.cleared.proposal.gain
        promised = f"promised were {gain.low:.4g} to {gain.high:.4g} {gain.unit}"
        if now.was_paused:
            self._say(now, "standing", "it was paused, so that its effect cannot be compared with what was promised")
        elif effect is None:
            self._roll_back(now, seen.now_s, f"too little could be read to tell its effect; {promised}")
        elif gain.low <= effect <= gain.high:
            self._say(now, "standing", f"measured {effect:.4g} {gain.unit}; {promised}")
        else:
            self._roll_back(now, seen.now_s, f"measured {effect:.4g} {gain.unit}; {promised}")

    def _values(self, now: _RollOut, seen: Circumstances) -> Arrays:
        """Commands ``[N, A]`` a group, of all assets."""
        if now.status == "rolling back":
            return now.rollback
        if now.policy is None or now.memory is None:
            return now.writes
        observation = Observation(
            measured={n: v[None].copy() for n, v in seen.values.items()},
            statics=self._statics,
            present={n: t[None].copy() for n, t in seen.trusted.items()},
            dt_s=self._plate.period_s,
        )
        try:
            commands, memory = now.policy.ask(observation, now.memory)
            now.last = {g.name: _one_row(commands[g.name], g.n_assets, len(g.commanded)) for g in self._plate.groups}
            now.memory, now.failed_turns = memory, 0
            return now.last
        except (TypeError, ValueError, KeyError) as wrong:
            error = str(wrong) or type(wrong).__name__
        now.failed_turns += 1
        _LOG.warning("proposal %s: its policy: %s", now.cleared.proposal.id, error)
        if now.failed_turns >= MOST_FAILED_TURNS:
            self._roll_back(now, seen.now_s, f"its policy failed {now.failed_turns} turns in a row: {error}")
            return now.rollback
        return now.last if now.last is not None else commands_of(self._plate, {})

    def _is_trusted(self, agent: str, seen: Circumstances) -> bool:
        group, row = self._columns[agent]
        return bool(seen.trusted[group][row]) and seen.mode.get(agent) in SENDING

    def _is_back(self, now: _RollOut, seen: Circumstances) -> bool:
        for agent in now.agents:
            group, row = self._columns[agent]
            wanted, obeyed = now.rollback[group][row], seen.state.applied[group][row]
            asked = ~np.isnan(wanted)
            if not np.array_equal(wanted[asked], obeyed[asked]):
                return False
        return True

    def _pause(self, now: _RollOut, why: str) -> None:
        if now.status != "paused":
            now.resumes_as = now.status
            now.was_paused = True
        self._say(now, "paused", why)

    def _roll_back(self, now: _RollOut, now_s: float, why: str) -> None:
        now.rolling_back_s = now_s
        self._say(now, "rolling back", why)

    def _close(self, now: _RollOut) -> None:
        if now.policy is not None:
            now.policy.close()

    def _say(self, now: _RollOut, status: Status, why: str) -> None:
        """Change the status, for people, the journal and the pages."""
        if (status, why) == (now.status, now.why):
            return
        now.status, now.why = status, why
        proposal, approval = now.cleared.proposal, now.cleared.approval
        told = Execution(
            proposal=proposal.hash, nonce=approval.nonce, approved_by=approval.by, status=status, why=why,
            stage=now.stage + 1, n_stages=len(proposal.stages), agents=now.agents, begun_utc_s=now.begun_utc_s,
            changed_utc_s=self._clock_s(), effects=tuple(now.effects),
        )  # fmt: skip
        pid = None if now.policy is None else now.policy.pid
        self._told[proposal.id] = {**told.model_dump(mode="json"), **({} if pid is None else {"policy_pid": pid})}
        self._rows.append({"id": proposal.id, **self._told[proposal.id]})
        _LOG.warning("proposal %s: %s: %s", proposal.id, status, why)
        try:
            ProposalFolder(self._station, proposal.id).write_execution(told)
        except (OSError, TwinloopError) as error:
            _LOG.error("proposal %s: its execution.json cannot be written: %s", proposal.id, error)


def _first_stage(now: _RollOut) -> str:
    stages = now.cleared.proposal.stages
    return f"stage 1 of {len(stages)}: {', '.join(stages[0].agents)}"


def _one_row(commands: Any, n_assets: int, n_commands: int) -> Floats:
    """The one row of ``[1, N, A]``; raises ValueError for another shape or an infinity."""
    array: Floats = np.asarray(commands, dtype=np.float64)
    if array.shape != (1, n_assets, n_commands) or np.isinf(array).any():
        raise ValueError(f"commands {array.shape}, expected finite numbers, {(1, n_assets, n_commands)}")
    return np.array(array[0])
