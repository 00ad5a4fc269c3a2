"""Bytes between a plant and its clients on one machine: a kind, a length, and plain float64. Nothing is unpickled."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError, PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry

SCHEME = "unix:"
HELLO, READ, WRITE, WAIT, FAULT = b"H", b"R", b"W", b"N", b"F"
LARGEST_BYTES = 1 << 24
_HEAD = struct.Struct("<cI")
_TIMES = struct.Struct("<dQQ")  # clock at the plant, its reading's number, periods so far

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A reading and how many periods the plant had run when it was taken."""

    telemetry: Telemetry
    period: int


def path_of(endpoint: str) -> str:
    """The socket's file of ``unix:/run/cell.sock``; raises :class:`ConfigurationError` for no such address."""
    path = endpoint.removeprefix(SCHEME)
    if not endpoint.startswith(SCHEME) or not path:
        raise ConfigurationError(f"{endpoint!r} is no local address; give {SCHEME}/run/cell.sock, the file of a socket")
    return path


def send(to: socket.socket, kind: bytes, body: bytes = b"") -> None:
    """One message."""
    to.sendall(_HEAD.pack(kind, len(body)) + body)


def receive(source: socket.socket, deadline: float | None = None) -> tuple[bytes, bytes]:
    """Kind and body of the next message, by ``deadline`` on the monotonic clock; EOFError where the other end left."""
    kind, size = _HEAD.unpack(_exactly(source, _HEAD.size, deadline))
    if size > LARGEST_BYTES:
        raise PlantError(f"a message of {size} bytes on a plant's local link; at most {LARGEST_BYTES} are taken")
    return kind, _exactly(source, size, deadline)


def pack_nameplate(nameplate: Nameplate, wall_period_s: float | None) -> bytes:
    """The answer to HELLO."""
    return json.dumps({"nameplate": nameplate.to_dict(), "wall_period_s": wall_period_s}).encode()


def unpack_nameplate(body: bytes) -> tuple[Nameplate, float | None]:
    """Inverse of :func:`pack_nameplate`."""
    data = json.loads(body)
    return Nameplate.from_dict(data["nameplate"]), data["wall_period_s"]


def pack_telemetry(nameplate: Nameplate, telemetry: Telemetry, period: int) -> bytes:
    """A reading: head, then values, times and qualities of each group in the nameplate's order."""
    parts = [_TIMES.pack(telemetry.received_time_s, telemetry.sequence, period)]
    for group in nameplate.groups:
        parts += [np.ascontiguousarray(telemetry.values[group.name], dtype="<f8").tobytes(),
                  np.ascontiguousarray(telemetry.source_time_s[group.name], dtype="<f8").tobytes(),
                  np.ascontiguousarray(telemetry.quality[group.name], dtype="<i1").tobytes()]  # fmt: skip
    return b"".join(parts)


def unpack_telemetry(nameplate: Nameplate, body: bytes) -> Frame:
    """Inverse of :func:`pack_telemetry`; the notes of a reading don't travel."""
    clock_s, sequence, period = _TIMES.unpack_from(body)
    values, times, quality, at = {}, {}, {}, _TIMES.size
    for group in nameplate.groups:
        shape = (group.n_assets, len(group.measured))
        size = shape[0] * shape[1]
        values[group.name] = np.frombuffer(body, "<f8", size, at).reshape(shape).astype(np.float64)
        times[group.name] = np.frombuffer(body, "<f8", size, at + 8 * size).reshape(shape).astype(np.float64)
        quality[group.name] = np.frombuffer(body, "<i1", size, at + 16 * size).reshape(shape).astype(np.int8)
        at += 17 * size
    return Frame(Telemetry(values, times, quality, clock_s, sequence), period)


def pack_commands(nameplate: Nameplate, commands: Arrays) -> bytes:
    """Commands of all groups; NaN where a group or an item is left as it is."""
    unknown = sorted(set(commands) - {group.name for group in nameplate.groups})
    if unknown:
        raise PlantError(f"plant {nameplate.site!r} has no group {unknown[0]!r}")
    parts = []
    for group in nameplate.groups:
        shape = (group.n_assets, len(group.commanded))
        given = np.asarray(commands.get(group.name, np.full(shape, np.nan)), dtype="<f8")
        if given.shape != shape:
            raise PlantError(f"plant {nameplate.site!r}: commands for {group.name!r} have {given.shape}, not {shape}")
        parts.append(given.tobytes())
    return b"".join(parts)


def unpack_commands(nameplate: Nameplate, body: bytes) -> dict[str, Floats]:
    """Inverse of :func:`pack_commands`; raises :class:`PlantError` where the length is another nameplate's."""
    expected = 8 * sum(group.n_assets * len(group.commanded) for group in nameplate.groups)
    if expected != len(body):
        raise PlantError(
            f"commands of {len(body)} bytes; this plant takes {expected}: the client has another nameplate"
        )
    found, at = {}, 0
    for group in nameplate.groups:
        shape = (group.n_assets, len(group.commanded))
        found[group.name] = np.frombuffer(body, "<f8", shape[0] * shape[1], at).reshape(shape).astype(np.float64)
        at += 8 * shape[0] * shape[1]
    return found


def _exactly(source: socket.socket, size: int, deadline: float | None) -> bytes:
    found = bytearray()
    while len(found) < size:
        if deadline is not None:
            source.settimeout(max(1e-3, deadline - time.monotonic()))
        part = source.recv(size - len(found))
        if not part:
            raise EOFError("the other end has closed the link")
        found += part
    return bytes(found)
