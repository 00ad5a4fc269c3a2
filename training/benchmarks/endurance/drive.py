"""Drives one piece of the run: serves the plant to control, gives orders, calls the audit, kills, takes notes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from ....deploy.station.folder import StationFolder, write_whole
from ....deploy.station.order import LASTS_S, Order, OrderKind, new_id, place
from ....envs.constraint import Declaration, SumConstraint
from ....envs.errors import PlantError, RunError
from .audit_side import audit_side
from .control import SHEET, control
from .schedule import Fault
from .world import World

AUDIT_PERIODS = 360
SAMPLE_PERIODS = 100
PATIENCE_S = 120.0
"""Longest silence of the control process before the run is given up."""
BUSY_S = 1.3
"""How long somebody else keeps the journal, beyond SQLite's own patience of 1 s."""
_RESET_AFTER, _MODE_AFTER = 5, 3
_KILL_WITHIN_S = 0.02
MIB = 2.0**20


@dataclass
class Notes:
    """What was seen, over all pieces. Samples are ``(period, value)``; those of memory by life of a process."""

    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    rss_mib: list[list[tuple[int, float]]] = field(default_factory=list)
    blocks: list[list[tuple[int, float]]] = field(default_factory=list)
    audit_rss_mib: list[list[tuple[int, float]]] = field(default_factory=list)
    sizes: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    audit_errors: list[str] = field(default_factory=list)


class Piece:
    """The run up to a period, from wherever the world stands."""

    def __init__(self, world: World, declaration: Declaration, notes: Notes, folder: Path) -> None:
        self._world, self._declaration, self._notes = world, declaration, notes
        self._station, self._keys = StationFolder(folder / "station"), folder / "keys"
        self._journal, self._sheet_file = self._station.journal, self._station.path / SHEET
        self._context = multiprocessing.get_context("spawn")
        self._tripped = self._amiss = 0
        self._modes: set[str] = set()
        self._by_hand = False
        self._sheet: dict[str, Any] = {}
        self._audit_due = False

    def run(self, until: int, progress: Callable[[int], None]) -> None:
        """Go on until the plant's period ``until``; raises :class:`RunError` for control that stands still."""
        self._station.make()
        self._put_sheet({})
        mine, theirs = self._context.Pipe()
        audit = self._context.Process(target=audit_side, args=(theirs, self._station.path, self._keys), daemon=True)
        audit.start()
        self._notes.audit_rss_mib.append([])
        try:
            while self._world.period < until:
                self._life(until, progress, mine, audit.pid or 0)
            self._hear_audit(mine, wait=True)
            mine.send(None)
            audit.join(PATIENCE_S)
        finally:
            if audit.is_alive():
                audit.kill()

    def _life(self, until: int, progress: Callable[[int], None], audit: Connection, audit_pid: int) -> None:
        """One process of control, to its end or until it is killed."""
        world, notes = self._world, self._notes
        pipe, theirs = self._context.Pipe()
        arguments = (theirs, self._declaration, world.schedule, self._station.path, until)
        process = self._context.Process(target=control, args=arguments, daemon=True)
        process.start()
        theirs.close()
        told = psutil.Process(process.pid)
        notes.rss_mib.append([])
        notes.blocks.append([])
        notes.counts["lives"] += 1
        what = ""
        kill_at = min(world.schedule.within("kill", world.period + 1), default=-1)
        try:
            while True:
                if not pipe.poll(PATIENCE_S):
                    raise RunError(f"control has been silent for {PATIENCE_S:g} s in period {world.period}")
                what, said = pipe.recv()
                if what == "done":
                    break
                if what == "advance":
                    world.advance()
                    self._between(told, audit, audit_pid)
                    progress(world.period)
                self._answer(pipe, what, said)
                if what == "advance" and world.period == kill_at:
                    time.sleep(_KILL_WITHIN_S * world.acting["kill"].share)  # wherever in its period it is by then
                    notes.counts["kills"] += 1
                    break
        except EOFError as error:
            raise RunError(f"control died in period {world.period} without being killed") from error
        finally:
            if what != "done":
                process.kill()
            process.join()
            pipe.close()

    def _answer(self, pipe: Connection, what: str, said: Any) -> None:
        world = self._world
        if what in ("begin", "read", "write", "advance"):
            answer, error = None, ""
            try:
                answer = world.read() if what == "read" else world.write(said) if what == "write" else None
            except PlantError as failure:
                error = str(failure)
            pipe.send((answer, world.period, world.plant.clock_s, error))
        elif what == "period":
            self._note(*said)
        elif what == "blocks":
            self._notes.blocks[-1].append((world.period, float(said)))
        elif what == "ended":
            self._notes.endings[said] += 1

    def _note(self, codes: list[str], modes: list[str], sources: list[str], latency_ms: float, wrote: bool) -> None:
        notes = self._notes
        notes.counts["periods"] += 1
        notes.counts["periods with a write"] += wrote
        notes.counts["missed"] += "deadline_missed" in codes
        notes.counts["on fallback or safe state"] += bool({"fallback", "safe_state", "plan"} & set(sources))
        notes.codes.update(codes)
        notes.modes.update(modes)
        notes.latencies_ms.append(latency_ms)
        self._modes = set(modes)
        self._tripped = self._tripped + 1 if "tripped" in modes else 0

    def _between(self, told: psutil.Process, audit: Connection, audit_pid: int) -> None:
        """What happens beside control from one period to the next."""
        world, acting = self._world, self._world.acting
        self._people(acting)
        if "journal kept busy" in acting and self._journal.exists():
            self._keep_busy()
        if world.period % SAMPLE_PERIODS == 0:
            self._notes.rss_mib[-1].append((world.period, told.memory_info().rss / MIB))
            self._notes.audit_rss_mib[-1].append((world.period, psutil.Process(audit_pid).memory_info().rss / MIB))
        self._hear_audit(audit, wait=False)
        if world.period % AUDIT_PERIODS == 0 and self._journal.exists():
            self._hear_audit(audit, wait=True)
            audit.send(world.period)
            self._audit_due = True

    def _people(self, acting: Mapping[str, Fault]) -> None:
        """What people order: by the inbox, the stop file and the orders file."""
        plate, sheet = self._declaration.nameplate, dict[str, Any]()
        if (fault := acting.get("approved")) is not None:
            sheet["approved"] = [plate.agents[fault.asset]]
        if (fault := acting.get("limit tightened")) is not None:
            sums = [c for c in self._declaration.constraints if isinstance(c, SumConstraint) and c.maximum is not None]
            sheet["limits"] = {c.name: [None, (0.5 + 0.5 * fault.share) * (c.maximum or 0.0)] for c in sums}
        if sheet != self._sheet:
            self._put_sheet(sheet)
        stop = acting.get("emergency stop")
        if stop is not None and stop.start == self._world.period:
            if stop.share < 0.5:
                self._station.stop.write_text("the operator\n")
                self._notes.counts["orders"] += 1
            else:
                self._order("stop")
        elif stop is None and self._tripped >= _RESET_AFTER:
            self._tripped = 0
            self._order("reset")
        wanted = next((mode for mode in ("shadow", "advise", "approved") if mode in acting), "autonomous")
        others = {"shadow", "advise", "approved", "autonomous"} - {wanted}
        self._amiss = self._amiss + 1 if self._modes & others and "tripped" not in self._modes else 0
        if self._amiss >= _MODE_AFTER:
            self._amiss = 0
            self._order("mode", mode=wanted)
        hand = acting.get("manual values")
        if hand is not None and not self._by_hand:
            group = plate.groups[0]
            signal = group.commanded[hand.start % len(group.commanded)]
            value = signal.minimum + hand.share * (signal.maximum - signal.minimum)
            self._order("manual", values={f"{plate.agents[hand.asset]}/{signal.name}": value}, lasts_s=1.0)
        elif hand is None and self._by_hand:
            self._order("release")
        self._by_hand = hand is not None

    def _order(self, kind: OrderKind, **more: Any) -> None:
        now_s = time.time()
        place(
            self._station, Order(id=new_id(), kind=kind, by="ann", utc_s=now_s, expires_utc_s=now_s + LASTS_S, **more)
        )
        self._notes.counts["orders"] += 1

    def _hear_audit(self, audit: Connection, *, wait: bool) -> None:
        """Take note of an audit's round that has ended."""
        if not self._audit_due or not (wait or audit.poll()):
            return
        error, cpu_s = audit.recv()
        self._audit_due = False
        self._notes.counts["audit rounds"] += 1
        self._notes.counts["audit CPU ms"] += round(1e3 * cpu_s)
        if error:
            self._notes.audit_errors.append(f"period {self._world.period}: {error}")
        for name, size in self._sizes().items():
            self._notes.sizes.setdefault(name, []).append((self._world.period, size))

    def _sizes(self) -> dict[str, float]:
        def total(*paths: Path) -> float:
            return sum(path.stat().st_size for path in paths if path.exists()) / 1e6

        log = self._journal.with_name(f"{self._journal.name}-wal")
        return {
            "journal MB": total(self._journal),
            "write-ahead log MB": total(log),
            "history MB": total(*self._station.history.rglob("*.parquet")),
            "orders and answers MB": total(*(self._station.path / "orders").rglob("*.json")),
            "signed heads MB": total(*(self._keys / "heads").glob("*")),
        }

    def _put_sheet(self, sheet: dict[str, Any]) -> None:
        """Replace the orders file at once, as its readers ask."""
        write_whole(self._sheet_file, sheet, durable=False)
        self._sheet = sheet
        self._notes.counts["order sheets"] += 1

    def _keep_busy(self) -> None:
        """Somebody else writes to the journal's file for longer than control is willing to wait."""
        connection = sqlite3.connect(self._journal, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # control, or the audit, was writing just then: nobody is kept waiting
            connection.close()
            return
        threading.Timer(BUSY_S, connection.close).start()
