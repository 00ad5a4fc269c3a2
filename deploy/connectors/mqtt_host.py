"""A Sparkplug host application at a broker: what it listens to, and the STATE that says whether it is online."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from . import mqtt_address as address
from .mqtt_address import Kind, NodeAddress
from .mqtt_identity import Identity
from .mqtt_link import Link, Received, Topic
from .sparkplug_edge import Message

_SEEN: tuple[Kind, ...] = ("NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA")


class HostState:
    """When we signed on, and who says since that we are offline; not for several threads.

    ``since_ms``: the time of our STATE, UTC milliseconds. ``must_sign_on_again``: somebody signed us off with a later
    time.
    """

    def __init__(self) -> None:
        self.since_ms = 0
        self.must_sign_on_again = False
        self._signed_off_ms = 0

    def sign_on(self) -> None:
        """Take a time for a new connection, later than all before it."""
        self.since_ms = max(now_ms(), self.since_ms + 1, self._signed_off_ms + 1)
        self.must_sign_on_again = False

    def hear(self, payload: bytes) -> bool:
        """Whether somebody signed us off: an older connection's will, or another client of our name."""
        try:
            told = json.loads(payload[:1000])
            is_online, at_ms = told["online"], int(told["timestamp"])
        except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
            return False
        if is_online:
            return False
        self._signed_off_ms = max(self._signed_off_ms, at_ms)
        self.must_sign_on_again = at_ms > self.since_ms  # the plant would take our time for an old one
        return True


def state_message(host_id: str, *, is_online: bool, at_ms: int) -> Message:
    """STATE of a host application, as the broker is to keep it."""
    payload = json.dumps({"online": is_online, "timestamp": at_ms}).encode()
    return Message(address.state_topic(host_id), payload, qos=1, is_retained=True)


def new_link(
    where: NodeAddress,
    us: Identity,
    me: str,
    hear: Callable[[Received], None],
    *,
    since_ms: int,
    as_host: bool,
    keep_alive_s: int,
) -> Link:
    """A link, not open yet, to what a plant tells and what it answers to the client ``me``.

    ``as_host``: also to our own STATE of ``since_ms``, with a will that says that we are offline.
    """
    topics = [Topic(where.topic(kind, "+" if kind[0] == "D" else "")) for kind in _SEEN]
    topics.append(Topic(where.answers + me))
    if as_host:
        topics.append(Topic(address.state_topic(us.host_id), wants_retained=True))
    return Link(
        where,
        us,
        f"{us.host_id}-{me}-{since_ms % 1_000_000}",
        topics,
        hear,
        will=state_message(us.host_id, is_online=False, at_ms=since_ms) if as_host else None,
        keep_alive_s=keep_alive_s,
    )


def now_ms() -> int:
    """UTC milliseconds by our clock."""
    return time.time_ns() // 1_000_000
