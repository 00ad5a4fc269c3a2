"""A plant behind a socket on this machine, as the runtime sees it."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from . import local_wire as wire

_PATIENCE_S = 2.0


class LocalPlant:
    """Keeps the Plant contract over a Unix socket; connects on first use, and again after a loss.

    A call that gets no answer within ``timeout_s`` and the period's length raises :class:`PlantError`.
    """

    def __init__(self, endpoint: str, timeout_s: float = _PATIENCE_S) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        self._socket: socket.socket | None = None
        self._nameplate: Nameplate | None = None
        self._wall_period_s: float | None = None
        self._frame: wire.Frame | None = None
        self._read_s = 0.0
        self._sequence = 0

    @property
    def nameplate(self) -> Nameplate:
        if self._nameplate is None:
            self._nameplate, self._wall_period_s = wire.unpack_nameplate(self._ask(wire.HELLO))
        return self._nameplate

    @property
    def wall_period_s(self) -> float | None:
        """How long a period lasts on this machine's clock."""
        _ = self.nameplate  # it comes with it
        return self._wall_period_s

    @property
    def clock_s(self) -> float:
        """The plant's UTC time of the last reading, and what has passed since."""
        if self._frame is None:
            self._see(self._ask(wire.READ))
        assert self._frame is not None  # just seen
        passed_s = time.monotonic() - self._read_s
        pace = self.nameplate.period_s / (self._wall_period_s or self.nameplate.period_s)
        return self._frame.telemetry.received_time_s + pace * passed_s

    def read(self) -> Telemetry:
        self._see(self._ask(wire.READ))
        assert self._frame is not None  # just seen
        self._sequence += 1
        return replace(self._frame.telemetry, sequence=self._sequence)

    def write(self, commands: Arrays) -> Arrays:
        body = wire.pack_commands(self.nameplate, commands)
        return wire.unpack_commands(self.nameplate, self._ask(wire.WRITE, body))

    def advance(self) -> None:
        """Wait for the period after the last reading."""
        if self._frame is None:
            self._see(self._ask(wire.READ))
        assert self._frame is not None  # just seen
        self._see(self._ask(wire.WAIT, self._frame.period.to_bytes(8, "little")))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _see(self, body: bytes) -> None:
        self._frame = wire.unpack_telemetry(self.nameplate, body)
        self._read_s = time.monotonic()

    def _ask(self, kind: bytes, body: bytes = b"") -> bytes:
        deadline = time.monotonic() + self._timeout_s + (self._wall_period_s or 0.0)
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(self._timeout_s)
                self._socket.connect(wire.path_of(self._endpoint))
            wire.send(self._socket, kind, body)
            answer, found = wire.receive(self._socket, deadline)
        except (OSError, EOFError) as error:
            self.close()
            raise PlantError(
                f"{self._endpoint}: no answer ({error or type(error).__name__}); is it being served?"
            ) from error
        if answer == wire.FAULT:
            raise PlantError(found.decode(errors="replace"))
        return found
