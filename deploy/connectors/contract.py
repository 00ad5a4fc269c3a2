"""What every protocol looks like to the runtime: a batch read, a batch write, heartbeats both ways.

A :class:`Connector` knows a protocol and addresses, and no control; :class:`~.connected_plant.ConnectedPlant` makes a
:class:`~twinloop.envs.plant.Plant` of any of them. Signals go by their full names, ``group/asset/signal``. What a
protocol cannot carry (Modbus has neither time, nor quality, nor identity) the connector fills in, and says so in its
:class:`Capabilities`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate


@dataclass(frozen=True)
class Readings:
    """One batch, each array ``[signals]`` in the order asked for.

    ``values`` in the nameplate's units, NaN where there is none; ``quality`` of
    :class:`~twinloop.envs.plant.Quality`; ``source_time_s`` UTC seconds by the plant's clock, or by ours where the
    protocol has no time: then when the peer's heartbeat last moved.
    """

    values: NDArray[np.float64]
    quality: NDArray[np.int8]
    source_time_s: NDArray[np.float64]


class WriteStatus(enum.Enum):
    """What became of one command of a batch."""

    ACCEPTED = "accepted"
    REFUSED = "refused by the peer, which keeps the value before"
    NOT_SENT = "not sent: no number, or outside the nameplate's limits"


@dataclass(frozen=True)
class Outcome:
    """Of one command: its status, the value that the peer holds now, read back, and why it was not accepted."""

    status: WriteStatus
    held: float
    reason: str = ""


@dataclass(frozen=True)
class Peer:
    """What is known of the other side.

    ``beat``: its heartbeat number. ``age_s``: how long ago, by our monotonic clock, that number was last seen to move.
    ``moved_time_s``: the same moment, UTC. ``clock_s``: its own clock, None for a peer without one. ``period_s``: how
    long its period lasts on the wall, None where unknown, 0 for a plant that somebody steps. ``is_tripped``: its
    watchdog has taken the commands to neutral. ``has_failed``: it answers, and the equipment behind it does not.
    """

    beat: int
    age_s: float
    moved_time_s: float
    clock_s: float | None
    period_s: float | None
    is_tripped: bool
    has_failed: bool


@dataclass(frozen=True)
class Capabilities:
    """What the protocol itself carries; what it does not is made up for as the connector's page says."""

    protocol: str
    has_identity: bool
    has_encryption: bool
    has_source_time: bool
    has_quality: bool
    has_atomic_batch: bool
    has_push: bool
    registers_a_read: int | None = None


class Subscription(Protocol):
    """A running subscription."""

    def close(self) -> None: ...


Listener = Callable[[Readings | PlantError], None]
"""Called from a thread of the connector's own, with readings or with why there are none."""


@runtime_checkable
class Connector(Protocol):
    """One protocol to one site.

    Whatever goes wrong on the wire is a :class:`~twinloop.envs.errors.PlantError`, within the connector's own time-out
    and never the library's; the next call connects again by itself. All methods may be called from several threads.

    ``read``: measured signals, and commanded ones as the equipment obeys them now. ``write``: a batch of commands, each
    judged for itself. ``heartbeat``: tells the peer that we live, or with ``send=False`` only looks whether it does.
    ``peer``: what the last answer said, nothing sent; None before the first.
    """

    @property
    def endpoint(self) -> str: ...
    @property
    def nameplate(self) -> Nameplate: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def peer(self) -> Peer | None: ...

    def read(self, names: Sequence[str]) -> Readings: ...
    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]: ...
    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription: ...
    def heartbeat(self, *, send: bool = True) -> Peer: ...
    def close(self) -> None: ...


@runtime_checkable
class Steppable(Protocol):
    """A connector whose protocol can make a stepped plant go on by one period."""

    def step(self) -> None: ...
