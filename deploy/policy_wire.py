"""Frames of numbers between the control process and the policy's: a JSON heading, then the arrays' bytes.

No pickle: what comes from a policy's process is arrays of numbers and a text, whatever became of that process.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fields = Mapping[str, Mapping[str, NDArray[Any]]]
"""Arrays by field and by name, such as ``measured``, ``turbine``."""

LARGEST_BYTES = 1 << 28
_LENGTH = struct.Struct("<QQ")  # of the whole frame after this, and of its heading
_KINDS = "biuf"


def pack(heading: Mapping[str, Any], fields: Fields) -> bytes:
    """One frame. Raises :class:`TypeError` for an array of anything but numbers."""
    rows: list[tuple[str, str, str, tuple[int, ...]]] = []
    chunks: list[bytes] = []
    for field, arrays in fields.items():
        for name, given in arrays.items():
            array = np.asarray(given)
            if array.dtype.kind not in _KINDS:
                raise TypeError(f"{field} {name!r}: an array of {array.dtype}, expected numbers")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            rows.append((field, name, array.dtype.str, array.shape))
            chunks.append(array.tobytes())
    text = json.dumps({**heading, "arrays": rows}).encode()
    size = len(text) + sum(map(len, chunks))
    return b"".join((_LENGTH.pack(size, len(text)), text, *chunks))


def unpack(frame: bytearray, n_heading: int) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
    """Heading and fields; arrays are views of ``frame``. Raises :class:`ValueError` for anything but a whole frame."""
    try:
        heading = json.loads(frame[:n_heading])
        rows, at, fields = heading.pop("arrays"), n_heading, dict[str, dict[str, NDArray[Any]]]()
        for field, name, kind, shape in rows:
            dtype = np.dtype(str(kind))
            if dtype.kind not in _KINDS or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"array {name!r} of {kind}, {shape}")
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(frame, dtype, count, at).reshape(shape)
            fields.setdefault(str(field), {})[str(name)] = array
            at += array.nbytes
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no frame of arrays: {type(error).__name__}: {error}") from error
    if at != len(frame):
        raise ValueError(f"a frame of {len(frame)} bytes with arrays of {at}")
    return heading, fields


def send(descriptor: int, frame: bytes, give_up_s: float = float("inf")) -> None:
    """Write all of it; raises :class:`TimeoutError` at ``give_up_s`` (monotonic), :class:`OSError` where nobody reads.

    The descriptor must not block unless ``give_up_s`` is infinite.
    """
    rest = memoryview(frame)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT, give_up_s)


class Receiver:
    """Whole frames out of a pipe; what has come of one stays for the next call."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._came = bytearray()

    def receive(self, give_up_s: float = float("inf")) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]]]:
        """The next frame; raises :class:`TimeoutError`, :class:`EOFError`, :class:`ValueError`, :class:`OSError`.

        Without ``give_up_s`` the descriptor must block.
        """
        while True:
            if len(self._came) >= _LENGTH.size:
                size, n_heading = _LENGTH.unpack_from(self._came)
                if size > LARGEST_BYTES or n_heading > size:
                    raise ValueError(f"a frame of {size} bytes")
                end = _LENGTH.size + size
                if len(self._came) >= end:
                    frame, self._came = self._came[_LENGTH.size : end], self._came[end:]
                    return unpack(frame, n_heading)
            if give_up_s < float("inf"):
                _wait(self._descriptor, select.POLLIN, give_up_s)
            try:
                chunk = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                continue
            if not chunk:
                raise EOFError("the other process ended")
            self._came += chunk


def _wait(descriptor: int, what: int, give_up_s: float) -> None:
    """Until the pipe is ready; poll, since select knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(descriptor, what)
    left_s = give_up_s - time.monotonic()
    if not poll.poll(None if left_s == float("inf") else max(left_s, 0.0) * 1e3):
        raise TimeoutError
