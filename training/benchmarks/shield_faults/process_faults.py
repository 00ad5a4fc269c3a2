"""Two processes, messages and clocks between them: a watchdog that dies, a loop that dies, beats that come late, leases
that lapse."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ....deploy.heartbeat import Silence, Watched
from ....deploy.leases import Assignment, Coordinator, Holder, LeaseTerms, Ledger
from ....deploy.leases import Report as DemandReport
from ....deploy.watchdog import Report, Watchdog
from ....envs.plant import Telemetry
from ....envs.wind_farm.nameplate import GROUP
from .judge import Judge
from .plants import FarmPlant
from .scene import site_of

BEAT_S = 0.05
PERIODS = 3
STRANGER = "import sys, json\nprint(json.dumps({'ready': 'farm'}), flush=True)\n"


@dataclass(frozen=True)
class ProcessCase:
    """``check`` says what is wrong, in words."""

    family: str
    name: str
    check: Callable[[], Iterable[str]] = field(repr=False)

    def run(self) -> list[str]:
        """What is wrong; empty for a case that is passed."""
        return list(self.check())


def cases() -> Iterable[ProcessCase]:
    """All of them."""
    for gap, stops in ((PERIODS - 1, False), (PERIODS, False), (PERIODS + 1, True)):
        yield ProcessCase(
            "process", f"beats {gap} periods apart at a threshold of {PERIODS}", partial(_gap, gap, stops)
        )
        for jitter in (-0.4, 0.4):
            late = gap + jitter > PERIODS + 0.5
            yield ProcessCase(
                "process",
                f"beats {gap} periods apart, {jitter:+g} of jitter",
                partial(_gap, gap + jitter, late),
            )
    for name, number in (
        ("the same number again", 1),
        ("an older number", 0),
        ("no number", None),
        ("text", "2"),
        ("true", True),
    ):
        yield ProcessCase("process", f"a beat with {name}", partial(_stale, number))
    for name, end in (
        ("closes without a good-bye", b""),
        ("sends nonsense for ever", b"{]\n"),
        ("repeats itself", b'{"beat": 1}\n'),
    ):
        yield ProcessCase("process", f"a loop that {name}", partial(_loop_dies, end))
    yield ProcessCase("process", "a loop that says good-bye", _good_bye)
    yield ProcessCase("process", "a loop that dies while its plant is gone", lambda: _loop_dies(b"", dead=True))
    yield ProcessCase("process", "a standby out of reach", lambda: _loop_dies(b"", standby=[[40.0, 0.1]] * 3))
    yield ProcessCase("process", "a standby that is none", lambda: _loop_dies(b"", standby="left"))
    yield ProcessCase("process", "the watchdog is killed", lambda: _watchdog_dies(signal.SIGKILL))
    yield ProcessCase("process", "the watchdog is stopped", lambda: _watchdog_dies(signal.SIGSTOP))
    yield from _leases()


def _gap(gap: float, stops: bool) -> Iterable[str]:
    """One beat, and the next one ``gap`` periods later."""
    silence, period_s = Silence(10.0, PERIODS), 10.0
    silence.heard(1, 0.0)
    stopped = silence.has_stopped(gap * period_s)
    if stopped is not stops:
        yield f"stopped: {stopped}, expected {stops}"


def _stale(number: Any) -> Iterable[str]:
    """What is no new beat does not count as one."""
    silence = Silence(1.0, PERIODS)
    silence.heard(1, 0.0)
    if silence.heard(number, 3.0):
        yield "it was taken for a new beat"
    if not silence.has_stopped(4.0):
        yield "it kept the watchdog content"


class _Turbines(FarmPlant):
    """A farm that tells what it obeys, and is at yaw 12 degrees."""

    dead = False

    def read(self) -> Telemetry:
        from ....envs.errors import PlantError

        if self.dead:
            raise PlantError("no answer")
        reading = super().read()
        return Telemetry(
            reading.values, reading.source_time_s, reading.quality, reading.received_time_s, reading.sequence,
            {"obeyed": {n: c.copy() for n, c in self.commands.items()}},
        )  # fmt: skip


def _loop_dies(last: bytes, *, dead: bool = False, standby: Any = None) -> Iterable[str]:
    """A watchdog in this process, on a pipe whose other end goes silent, is nonsense or closes."""
    plant = _Turbines(site_of("farm"))
    plant.commands[GROUP][:] = [12.0, 0.8]
    started = {n: c.copy() for n, c in plant.commands.items()}
    report, acted_s = _watched(plant, last, dead, standby)
    if report is None or not report.why:
        yield "the watchdog did not act"
        return
    if acted_s > (PERIODS + 0.5) * BEAT_S + 1.0:
        yield f"it acted after {acted_s:.2f} s"
    if dead:
        if report.safe or plant.history:
            yield "it claims to have brought a dead plant to safety"
        return
    if not report.safe:
        yield f"not safe: {report}"
    if not np.allclose(plant.commands[GROUP], plant.nameplate.group(GROUP).neutral()):
        yield f"the farm is left at {plant.commands[GROUP].tolist()}"
    judge, before = Judge(site_of("farm")), started
    for k, sent in enumerate(plant.history):
        found = judge.complaints(before, sent, 10.0 * k, 10.0)
        yield from (f"step {k}: {text}" for text in found)
        judge.follow(before, sent, 10.0 * k)
        before = sent


def _watched(plant: _Turbines, last: bytes, dead: bool, standby: Any) -> tuple[Report | None, float]:
    reading, writing = os.pipe()
    answers: list[Mapping[str, Any]] = []
    silence = Silence(BEAT_S, PERIODS)
    dog = Watchdog(plant, silence, reading, answers.append, patience=2, declaration=site_of("farm"))
    found: list[Report] = []
    thread = threading.Thread(target=lambda: found.append(dog.watch()))
    thread.start()
    told = standby if standby is not None else plant.commands[GROUP].tolist()
    os.write(writing, json.dumps({"beat": 1, "standby": {GROUP: told}}).encode() + b"\n")
    while not any("heard" in a for a in answers):
        time.sleep(0.005)
    plant.dead = dead
    begun_s = time.monotonic()
    try:
        if last:
            while thread.is_alive() and time.monotonic() - begun_s < 5.0:
                os.write(writing, last)
                time.sleep(BEAT_S / 2)
        else:
            os.close(writing)
        thread.join(10.0)
    finally:
        if last:
            os.close(writing)
        os.close(reading)
    acted_s = time.monotonic() - begun_s - (found[0].took_s if found else 0.0)
    return (found[0] if found else None), acted_s


def _good_bye() -> Iterable[str]:
    """An orderly end is no reason to act."""
    plant = _Turbines(site_of("farm"))
    report, _ = _watched(plant, b'{"bye": true}\n', False, None)
    if report is None or report.why or plant.history:
        yield f"it acted all the same: {report}"


def _watchdog_dies(with_signal: signal.Signals) -> Iterable[str]:
    """A process of its own that is ended or stopped is noticed within its time-out, and never blocks the loop."""
    script = (
        STRANGER + "for line in sys.stdin: print(json.dumps({'heard': json.loads(line).get('beat')}), flush=True)\n"
    )
    with Watched([sys.executable, "-c", script], BEAT_S, PERIODS) as heartbeat:
        for _ in range(4):
            heartbeat.beat({GROUP: np.zeros((3, 2))})
            time.sleep(BEAT_S)
        if heartbeat.lost:
            yield f"lost before it died: {heartbeat.lost}"
        pid = heartbeat.pid
        if pid is None:
            yield "it has no process"
            return
        os.kill(pid, with_signal)
        died_s = time.monotonic()
        longest_s = 0.0
        while not heartbeat.lost and time.monotonic() - died_s < 5.0:
            begun_s = time.monotonic()
            heartbeat.beat({GROUP: np.zeros((3, 2))})
            longest_s = max(longest_s, time.monotonic() - begun_s)
            time.sleep(BEAT_S)
        noticed_s = time.monotonic() - died_s
        if with_signal == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        if not heartbeat.lost:
            yield "its death was not noticed"
        elif noticed_s > heartbeat.timeout_s + 1.0:
            yield f"noticed after {noticed_s:.2f} s of {heartbeat.timeout_s}"
        if longest_s > 0.5:
            yield f"a beat kept the loop for {longest_s:.2f} s"


# Leases: two assets, one cap


TERMS = LeaseTerms(grant_s=10.0, pledge_s=30.0)
SHARES = (1.0, 1.0)
CAP = 2.0


def _leases() -> Iterable[ProcessCase]:
    table: tuple[tuple[str, dict[str, Any]], ...] = (
        ("no fault", {}),
        ("half of the messages lost", {"loss": 0.5}),
        ("all messages lost", {"loss": 1.0, "helped": False}),
        ("messages late, some by more than a lease", {"delay": 15}),
        ("messages repeated and in another order", {"delay": 4, "repeat": True}),
        ("cut off in mid-lease", {"cut": (30, 60)}),
        ("two coordinators at once", {"coordinators": 2}),
        ("a coordinator that begins again", {"restart": 30}),
        ("an asset that begins again", {"reboot": 30}),
    )
    for name, faults in table:
        yield ProcessCase("process", f"leases: {name}", partial(_leased, **faults))


def _leased(
    loss: float = 0.0, delay: int = 0, repeat: bool = False, cut: tuple[int, int] = (0, 0), coordinators: int = 1,
    restart: int = -1, reboot: int = -1, helped: bool = True,
) -> Iterable[str]:  # fmt: skip
    """A second a step; what both may use never adds up to more than the cap. ``helped``: leases come about at all."""
    rng = np.random.default_rng(3)
    holders = [Holder(i, share, 0.1, TERMS) for i, share in enumerate(SHARES)]
    states = [h.start(1, 0.0, 0.5) for h in holders]
    rule = Coordinator(Ledger(SHARES, TERMS), (0.0, 0.0))
    chiefs = [rule.begin(1 + k) for k in range(coordinators)]
    mail: list[tuple[int, int, DemandReport | Assignment]] = []
    used, most, boot = [0.5, 0.5], 0.0, 1
    for second in range(160):
        now_s = float(second)
        if second == restart:
            chiefs = [rule.begin(100 + k) for k in range(coordinators)]
        if second == reboot:
            boot += 1
            states[0] = holders[0].start(boot, now_s, used[0])
        demands = (0.2, 1.6) if second < 80 else (1.6, 0.2)
        posts: list[tuple[int, DemandReport | Assignment]] = []
        ceilings = [h.ceiling(s, now_s) for h, s in zip(holders, states, strict=True)]
        used = [min(d, c) for d, c in zip(demands, ceilings, strict=True)]
        for i, holder in enumerate(holders):
            states[i], report = holder.report(states[i], now_s, used[i], demands[i])
            posts += [(-1 - k, report) for k in range(coordinators)]
        due, mail = [m for m in mail if m[0] <= second], [m for m in mail if m[0] > second]
        for _, to, message in due:
            if isinstance(message, Assignment):
                states[to] = holders[to].take(states[to], message, now_s)
            else:
                chiefs[-1 - to], answer = rule.answer(chiefs[-1 - to], message, now_s)
                posts += [] if answer is None else [(answer.asset, answer)]
        for to, message in posts:
            lost = rng.random() < loss or cut[0] <= second < cut[1]
            for _ in range(0 if lost else 2 if repeat else 1):
                mail.append((second + 1 + int(rng.integers(0, delay + 1)), to, message))
        ceilings = [h.ceiling(s, now_s) for h, s in zip(holders, states, strict=True)]
        most = max(most, *ceilings)
        if sum(ceilings) > CAP + 1e-9:
            yield f"second {second}: ceilings {ceilings} add up to more than {CAP}"
    leased = most > max(SHARES) + 0.3
    if leased is not helped:
        yield f"the highest ceiling was {most}, with shares of {SHARES}"
