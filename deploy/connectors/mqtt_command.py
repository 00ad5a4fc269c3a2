"""What goes with a command over MQTT 5, and the answer to it; both ends use it.

A command is a Sparkplug NCMD or DCMD, not retained, with a *message expiry* (the broker drops it when nobody took it
in time), a *response topic* and *correlation data*, and user properties:

``nonce``  grows with each message; the plant takes none that is not above the last one it took.
``beat``   the plant's heartbeat that the command is based on: one that lay about somewhere is too old, by no clock.
``host``   the Sparkplug host application that commands; the plant obeys its primary host alone, while that is online.
``part``   ``k/n``: of a batch over several devices, which the plant takes as one or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...envs.errors import PlantError
from .contract import Outcome, WriteStatus

MOST_EXPIRY_S = 60
"""A command that may be delivered later than this is refused: it would actuate out of the blue."""
MOST_SKEW_S = 10.0
"""Clocks further apart than this are wrong."""
MOST_PARTS = 10_000
_MOST_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True)
class Envelope:
    """What MQTT says of a message beside its payload. ``user``: its user properties, none where one came twice."""

    is_retained: bool = False
    expiry_s: int | None = None
    response_topic: str = ""
    correlation: bytes = b""
    user: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """The user properties of a command, read."""

    nonce: int
    beat: int
    host: str
    part: int
    parts: int

    @property
    def first_nonce(self) -> int:
        """Of its batch."""
        return self.nonce - self.part + 1

    @property
    def properties(self) -> dict[str, str]:
        """As user properties."""
        part = f"{self.part}/{self.parts}"
        return {"nonce": str(self.nonce), "beat": str(self.beat), "host": self.host, "part": part}

    @staticmethod
    def of(user: Mapping[str, str]) -> Ticket:
        """Inverse of :attr:`properties`; raises :class:`ValueError`. Without ``part`` a command is whole."""
        part, parts = (_whole(text) for text in user.get("part", "1/1").split("/", 1))
        if not 1 <= part <= parts <= MOST_PARTS:
            raise ValueError(f"part {part}/{parts}")
        return Ticket(_whole(user["nonce"]), _whole(user["beat"]), user["host"], part, parts)


@dataclass(frozen=True)
class Answer:
    """What a plant says to a command.

    ``refused``: why nothing of it was taken; empty where each item was judged for itself, as ``items`` say by name.
    ``taken``: the last nonce taken. ``heartbeat`` and ``is_tripped``: the plant's. ``held``: what it holds now of all
    commands, by full name.
    """

    refused: str
    taken: int
    heartbeat: int
    is_tripped: bool
    items: Mapping[str, Outcome] = field(default_factory=dict)
    held: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> bytes:
        items = {n: {"status": o.status.name, "held": o.held, "reason": o.reason} for n, o in self.items.items()}
        told = {"refused": self.refused, "taken": self.taken, "heartbeat": self.heartbeat, "tripped": self.is_tripped}
        return json.dumps(
            {**told, "items": items, "held": dict(self.held)}, allow_nan=False, separators=(",", ":")
        ).encode()

    @staticmethod
    def from_json(data: bytes) -> Answer:
        """Inverse of :meth:`to_json`; raises :class:`PlantError` for anything else."""
        try:
            if len(data) > _MOST_ANSWER_BYTES:
                raise ValueError(f"{len(data)} bytes")
            told = json.loads(data)
            items = {
                str(name): Outcome(WriteStatus[item["status"]], _finite(item["held"]), str(item["reason"]))
                for name, item in told["items"].items()
            }
            held = {str(name): _finite(value) for name, value in told["held"].items()}
            numbers = told["taken"], told["heartbeat"]
            if any(type(n) is not int for n in numbers):
                raise ValueError(f"numbers {numbers}")
            return Answer(str(told["refused"]), *numbers, bool(told["tripped"]), items, held)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PlantError(f"an answer to a command that cannot be read ({type(error).__name__} {error})") from error


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"{text[:30]!r} is no whole number")
    return int(text)


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is held")
    return float(value)
