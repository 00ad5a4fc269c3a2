"""Carries a plan out, group by group, in a file that a crash can't confuse: what was done is looked up, not believed.

A target is installed, then watched. Installing the same package twice changes nothing, so that after a crash every step
is simply done again. Pausing and aborting are asked for in a file beside, by whatever process.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ...envs.configuration import Strict
from ...envs.errors import PackageError, TwinloopError
from ..audit.signing import load_public
from ..proposals.approval import Approval
from ..station.folder import StationFolder, read_whole, write_whole
from ..station.people import People
from .here import of_plant, of_station
from .installation import Installation
from .package import Package, open_package
from .rollout_plan import Group, Plan, Target, fault_of_approval, plan_hash

Stand = Literal["waiting", "installed", "succeeded", "failed", "taken back", "left"]
Status = Literal["waiting", "running", "paused", "finished", "stopped", "aborted"]
POLL_S = 0.5


class TargetState(Strict):
    """``begun``: this roll-out is about to install here, or has; ``before``: SHA-256 of the package that was current
    then, empty for none; ``since_utc_s``: from when it has held, None while it does not."""

    stand: Stand = "waiting"
    begun: bool = False
    before: str = ""
    installed_utc_s: float = 0.0
    since_utc_s: float | None = None
    why: str = ""


class State(Strict):
    """``plan``: the hash that was approved; ``group``: the number of the one that goes on, from 0."""

    format: Literal[1] = 1
    plan: str
    status: Status = "waiting"
    why: str = ""
    group: int = 0
    approved_by: str = ""
    nonce: str = ""
    targets: dict[str, TargetState] = Field(default_factory=dict)


class Rollout:
    """One plan on its way. ``folder`` holds ``state.json``, ``request.json`` and ``approval.json``."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        utc_s: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.plan, self.folder = plan, Path(folder)
        self._utc, self._wait = utc_s, wait

    def state(self) -> State:
        """How it stands; a new one waits."""
        path = self.folder / "state.json"
        try:
            found = read_whole(path)
            return State(plan=plan_hash(self.plan)) if found is None else State.model_validate(found)
        except (ValueError, OSError, ValidationError) as error:
            raise PackageError(f"{path}: cannot be read ({error}); restore it from a copy, or begin anew") from error

    def file_approval(self, approval: Approval) -> None:
        """Put an approval there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "approval.json", approval.model_dump(mode="json"))

    def ask(self, want: Literal["pause", "abort"]) -> None:
        """Ask whoever carries it out to pause, or to take everything back."""
        status = self.state().status
        if status in ("finished", "stopped", "aborted"):
            raise PackageError(f"{self.plan.name}: is {status}, so there is nothing to {want}")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "request.json", {"want": want, "utc_s": self._utc()})

    def carry_out(self, told: Callable[[str], None], *, resume: bool = False) -> State:
        """Begin, or go on after a crash or, with ``resume``, after a pause; returns how it stands at the end.

        Raises :class:`PackageError` without an approval that holds, with a package that is not sound, when the plan has
        changed since it began, and while another process carries it out.
        """
        with self._alone():
            state = self._begun(resume)
            keys = [load_public(path) for path in self.plan.public]
            package = open_package(self.plan.package, keys)
            while state.status == "running":
                if self._request() == "abort":
                    state = self._take_back(state, "aborted", "a person aborted it", told)
                    break
                if self._request() == "pause":
                    (self.folder / "request.json").unlink(missing_ok=True)
                    state = self._kept(state, status="paused", why="a person paused it")
                    break
                state, settled = self._group(state, self.plan.groups[state.group], package, told)
                if state.status == "running" and not settled:
                    self._wait(POLL_S)
            if state.status == "paused" and self._request() == "abort":
                state = self._take_back(state, "aborted", "a person aborted it", told)
            return state

    def abort(self, told: Callable[[str], None]) -> State:
        """Take everything back here and now, where nobody carries it out any more."""
        with self._alone():
            return self._take_back(self.state(), "aborted", "a person aborted it", told)

    def _begun(self, resume: bool) -> State:
        state = self.state()
        if state.plan != plan_hash(self.plan):
            raise PackageError(
                f"{self.plan.name}: plan, package or keys have changed since it began; put back what was approved, or "
                "give the changed plan another name and have it approved"
            )
        if state.status in ("finished", "stopped", "aborted"):
            raise PackageError(f"{self.plan.name}: is {state.status} ({state.why}); a new one needs another name")
        if state.status == "paused" and not resume:
            raise PackageError(f"{self.plan.name}: is paused ({state.why}); go on with `rollout resume`, or abort it")
        if state.status == "waiting":
            approval = self._approval()
            targets = {name: TargetState() for name in self.plan.targets}
            state = state.model_copy(
                update={"approved_by": approval.by, "nonce": approval.nonce, "targets": targets, "group": 0}
            )
        if resume:
            (self.folder / "request.json").unlink(missing_ok=True)
            # What failed is tried again; what succeeded stays.
            again = {n: TargetState() if t.stand == "failed" else t for n, t in state.targets.items()}
            state = state.model_copy(update={"targets": again})
        return self._kept(state, status="running", why="")

    def _approval(self) -> Approval:
        path = self.folder / "approval.json"
        try:
            found = read_whole(path)
            approval = None if found is None else Approval.model_validate(found)
        except (ValueError, OSError, ValidationError) as error:
            raise PackageError(f"{path}: cannot be read ({error}); have the roll-out approved again") from error
        if approval is None:
            raise PackageError(
                f"{self.plan.name}: nobody has approved it; another person than {self.plan.by} does, with `twinloop "
                "package rollout approve`"
            )
        fault = fault_of_approval(self.plan, _vouched(self.plan.people), approval, self._utc())
        if fault:
            raise PackageError(f"{self.plan.name}: {fault}")
        return approval

    def _group(self, state: State, group: Group, package: Package, told: Callable[[str], None]) -> tuple[State, bool]:
        """One look at a group; returns the state, and whether anything moved, so that another look is due at once."""
        moved = False
        for name in group.targets:
            found = self._target(state.targets[name], self.plan.targets[name], package)
            if found != state.targets[name]:
                if found.stand != state.targets[name].stand:
                    told(f"{group.name}: {name}: {found.stand}{f': {found.why}' if found.why else ''}")
                state = self._kept(state, targets={**state.targets, name: found})
                moved = True
        stands = [state.targets[name].stand for name in group.targets]
        failed, done = stands.count("failed"), stands.count("succeeded")
        if failed and (failed > group.errors_n and failed / len(stands) > group.errors_pu):
            why = f"{failed} of {len(stands)} targets of {group.name} failed"
            return self._take_back(state, "stopped", why, told), True
        if done + failed < len(stands):
            return state, moved
        if done < group.success_pu * len(stands):
            why = f"{done} of {len(stands)} targets of {group.name} succeeded, needed are {group.success_pu:.0%}"
            told(f"paused: {why}")
            return self._kept(state, status="paused", why=why), True
        if state.group + 1 == len(self.plan.groups):
            return self._kept(state, status="finished", why="all groups are through"), True
        return self._kept(state, group=state.group + 1), True

    def _target(self, now: TargetState, target: Target, package: Package) -> TargetState:
        """One look at a target."""
        if now.stand not in ("waiting", "installed"):
            return now
        try:
            now = self._installed(now, target, package)
            if now.stand == "waiting":
                return now
            fault = "" if target.station is None else _amiss(StationFolder(target.station), package, self._fresh())
        except TwinloopError as error:
            return now.model_copy(update={"stand": "failed", "why": str(error)})
        waited_s = self._utc() - now.installed_utc_s
        if fault.startswith("tripped") or (fault and waited_s > self.plan.timeout_s):
            return now.model_copy(
                update={"stand": "failed", "why": f"{fault}, {waited_s:.0f} s after it was installed"}
            )
        if fault:
            return now.model_copy(update={"since_utc_s": None, "why": fault})
        since_s = self._utc() if now.since_utc_s is None else now.since_utc_s
        held = target.station is None or self._utc() - since_s >= self.plan.hold_s
        return now.model_copy(update={"since_utc_s": since_s, "why": "", "stand": "succeeded" if held else "installed"})

    def _installed(self, now: TargetState, target: Target, package: Package) -> TargetState:
        """Install in two looks: what is about to be done is on disk before it is, so that a crash can't hide it."""
        machine = _machine(target)
        current = machine.current()
        is_there = current is not None and current.sha256 == package.sha256
        if now.stand == "installed":
            if not is_there:
                raise PackageError(f"{machine.folder}: somebody installed another package since; see what it is")
            return now
        if not is_there and not now.begun:
            return now.model_copy(update={"begun": True, "before": "" if current is None else current.sha256})
        if not is_there:
            here = of_plant(target.plant) if target.station is None else of_station(StationFolder(target.station))
            keys = [load_public(path) for path in self.plan.public]
            machine.install(self.plan.package, keys, here, allow_older=self.plan.allow_older)
        return now.model_copy(update={"stand": "installed", "installed_utc_s": self._utc()})

    def _take_back(self, state: State, status: Status, why: str, told: Callable[[str], None]) -> State:
        """Put the release before back on every target that has the new one."""
        package = open_package(self.plan.package, [load_public(path) for path in self.plan.public])
        targets = dict(state.targets)
        for name, now in targets.items():
            machine = _machine(self.plan.targets[name])
            try:
                current = machine.current()
                if not now.begun or current is None or current.sha256 != package.sha256:
                    continue  # nothing of this roll-out stands here
                if current.before:
                    machine.rollback()
                else:
                    machine.remove_first()
                targets[name] = now.model_copy(update={"stand": "taken back"})
            except TwinloopError as error:
                targets[name] = now.model_copy(update={"stand": "left", "why": f"cannot be taken back: {error}"})
            told(f"{name}: {targets[name].stand}")
            state = self._kept(state, targets=dict(targets))
        (self.folder / "request.json").unlink(missing_ok=True)
        return self._kept(state, targets=targets, status=status, why=why)

    def _request(self) -> str:
        try:
            found = read_whole(self.folder / "request.json")
        except (OSError, ValueError):
            return "pause"  # whoever wrote that did not want it to go on
        return "" if found is None else str(found.get("want", "pause"))

    def _fresh(self) -> tuple[float, float]:
        return self._utc(), self.plan.stale_s

    def _kept(self, state: State, **changes: Any) -> State:
        """The changed state, once the disk has it."""
        after = state.model_copy(update=changes)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "state.json", after.model_dump(mode="json"))
        return after

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PackageError(
                    f"{self.folder}: another process carries this roll-out out; ask it with `rollout pause` or `abort`"
                ) from None
            yield


def _vouched(path: Path) -> People:
    """Only people whom an administrator of the file vouches for."""
    people = People.read(path)
    return people.vouched(people.administrators())


def _machine(target: Target) -> Installation:
    if target.station is not None:
        return Installation(StationFolder(target.station).path / "packages")
    assert target.folder is not None  # a target has one of both
    return Installation(target.folder)


def _amiss(station: StationFolder, package: Package, fresh: tuple[float, float]) -> str:
    """Why a station does not run the package's policy well just now, in words; empty where it does."""
    now_utc_s, stale_s = fresh
    try:
        sheet, state = read_whole(station.control), read_whole(station.state)
    except (OSError, ValueError) as error:
        return f"its state cannot be read ({error})"
    if sheet is None or state is None:
        return "no control process has run there yet; start `twinloop run STATION/packages/current/artifact --station`"
    if (sheet.get("policy") or {}).get("hash") != package.about.policy:
        return "its control still runs another policy; restart it on STATION/packages/current/artifact"
    modes = state.get("modes") or {}
    tripped = sorted(agent for agent, mode in modes.items() if mode == "tripped")
    if state.get("stop") or tripped:
        return f"tripped: {', '.join(tripped) or 'emergency stop'}"
    if state.get("ended"):
        return f"its control has ended ({state['ended']}); start it again"
    age_s = now_utc_s - float(state.get("utc_s") or 0.0)
    if not age_s <= stale_s:
        return f"its news are {age_s:.0f} s old, allowed are {stale_s:g}"
    return ""
