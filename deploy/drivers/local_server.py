"""Any plant behind a socket on this machine: the fast link of an edge process, beside OPC UA.

Only who may open the socket's file can command the plant: it is made for its owner alone (0600). Several processes
may command: what one leaves as NaN stays as it is, so that each arm's process writes its own row. An asset whose row
nobody has written for ``watchdog_periods`` goes to its neutral command.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ...envs.errors import PlantError, TwinloopError
from ...envs.plant import Arrays, Plant, Telemetry
from . import local_wire as wire

_POLL_S = 0.2


class LocalPlantServer:
    """Serves ``plant`` at ``endpoint`` (``unix:/run/cell.sock``) from threads of its own; the plant stays the caller's.

    ``speed``: plant seconds a second of wall time. ``late_periods`` counts the periods that came too late.
    """

    def __init__(self, plant: Plant, endpoint: str, *, speed: float = 1.0, watchdog_periods: int = 3) -> None:
        self.endpoint = endpoint
        self.late_periods = 0
        self._plant, self._nameplate = plant, plant.nameplate
        self._wall_period_s = self._nameplate.period_s / speed
        self._watchdog_periods = watchdog_periods
        self._neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in self._nameplate.groups}
        self._in_force = {name: values.copy() for name, values in self._neutral.items()}
        self._silent = {g.name: np.zeros(g.n_assets, dtype=np.int64) for g in self._nameplate.groups}
        self._turn = threading.Condition()
        self._period = 0
        self._telemetry: Telemetry | None = None
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socket: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    def start(self) -> None:
        """Return when clients can connect; raises :class:`PlantError` for a socket that is in use or can't be made."""
        path = Path(wire.path_of(self.endpoint))
        self._remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        except OSError as error:
            listening.close()
            raise PlantError(
                f"{self.endpoint}: {error.strerror or error}; give a file in a folder that is there"
            ) from error
        finally:
            os.umask(before)
        listening.listen()
        listening.settimeout(_POLL_S)
        self._socket = listening
        self._telemetry = self._plant.read()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._run_plant, self._accept)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Disconnect clients and remove the socket; does nothing when not started."""
        self._over.set()
        with self._turn:
            self._turn.notify_all()
        for client in list(self._clients):
            with contextlib.suppress(OSError):  # it may just have left
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10.0)
        self._threads = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            Path(wire.path_of(self.endpoint)).unlink(missing_ok=True)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait while the server runs; True when it has ended, raising what ended it."""
        if not self._over.wait(timeout_s):
            return False
        if self._failure is not None:
            raise PlantError(f"{self.endpoint}: the plant failed: {self._failure!r}") from self._failure
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _remove_stale(self, path: Path) -> None:
        """A socket that nobody answers at is left over; any other file stays."""
        try:
            mode = path.stat().st_mode
        except OSError:
            return
        if not stat.S_ISSOCK(mode):
            raise PlantError(f"{self.endpoint}: the file is there and is no socket; give another name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
                return
        raise PlantError(f"{self.endpoint}: another server answers there; stop it, or give another name")

    def _run_plant(self) -> None:
        due = time.monotonic() + self._wall_period_s
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                with self._turn:
                    self._watch()
                    self._plant.advance()
                    self._telemetry = self._plant.read()
                    self._period += 1
                    self._turn.notify_all()
                due += self._wall_period_s
                if time.monotonic() > due:
                    self.late_periods += 1
                    due = time.monotonic()
        except Exception as error:  # noqa: BLE001 - told by wait() and to every client
            self._failure = error
            self._over.set()
            with self._turn:
                self._turn.notify_all()

    def _write(self, given: Arrays) -> Arrays:
        """Write what is given, and beside it what is in force."""
        for name, values in given.items():
            self._silent[name][~np.isnan(values).all(axis=1)] = 0
        merged = {name: np.where(np.isnan(values), self._in_force[name], values) for name, values in given.items()}
        accepted = self._plant.write(merged)
        self._in_force = {name: np.array(values) for name, values in accepted.items()}
        return accepted

    def _watch(self) -> None:
        """Take assets to neutral that nobody commands any more."""
        for silent in self._silent.values():
            silent += 1
        if any((silent == self._watchdog_periods + 1).any() for silent in self._silent.values()):
            over = {name: silent > self._watchdog_periods for name, silent in self._silent.items()}
            wanted = {n: np.where(over[n][:, None], self._neutral[n], v) for n, v in self._in_force.items()}
            self._in_force = {name: np.array(values) for name, values in self._plant.write(wanted).items()}

    def _accept(self) -> None:
        assert self._socket is not None  # made by start
        while not self._over.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(None)
        with client, contextlib.suppress(OSError, EOFError, PlantError):  # PlantError: no message at all
            while not self._over.is_set():
                kind, body = wire.receive(client)
                try:
                    wire.send(client, *self._answer(kind, body))
                except TwinloopError as error:
                    wire.send(client, wire.FAULT, str(error).encode())
        self._clients.discard(client)

    def _answer(self, kind: bytes, body: bytes) -> tuple[bytes, bytes]:
        if kind == wire.HELLO:
            return kind, wire.pack_nameplate(self._nameplate, self._wall_period_s)
        with self._turn:
            if self._failure is not None or self._over.is_set():
                raise PlantError(f"{self.endpoint}: the plant has ended: {self._failure!r}")
            if kind == wire.WRITE:
                return kind, wire.pack_commands(
                    self._nameplate, self._write(wire.unpack_commands(self._nameplate, body))
                )
            if kind == wire.WAIT:
                after = int.from_bytes(body, "little")
                self._turn.wait_for(lambda: self._period > after or self._over.is_set())
            elif kind != wire.READ:
                raise PlantError(f"a message of kind {kind!r} on a plant's local link; there are H, R, W and N")
            assert self._telemetry is not None  # read by start
            return kind, wire.pack_telemetry(self._nameplate, self._telemetry, self._period)
