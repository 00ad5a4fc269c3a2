"""A client's session with a plant behind a broker: connected, met, commanded, lost and found again."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import get_args

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from . import mqtt_address as address
from . import sparkplug_site as names
from .contract import Peer
from .mqtt_address import Kind
from .mqtt_command import Answer
from .mqtt_exchange import Exchange, command_messages, rebirth_message
from .mqtt_host import HostState, new_link, now_ms, state_message
from .mqtt_identity import Identity, identity_of_environment
from .mqtt_link import Link, LinkError, Received
from .sparkplug_edge import Message
from .sparkplug_host import Reading, SparkplugView
from .sparkplug_site import Point, SparkplugSite

_BACK_OFF_PERIODS = (0.0, 0.5, 1.0, 2.0)
"""Pause after the n-th failure in a row, in periods: short, since a peer that is back must be noticed soon."""
_LONGEST_PAUSE_S = 5.0
_TIMEOUTS_S = (0.1, 4.0)
_IN_CONTROL_PERIODS = 3.0
_REBIRTH_PAUSE_S = 0.5


class HostSession:
    """Keeps one client met with one plant; who derives from it says what is asked of the plant.

    :meth:`_met` connects where needed and gives the last whole reading, :meth:`_command` sends a batch and waits for
    the plant's answer; both raise :class:`PlantError`, and are called with ``_calls`` held. What the link's thread
    hears is taken under ``_turn``. Parameters as for :class:`~.mqtt_client.MqttConnector`.
    """

    def __init__(
        self,
        endpoint: str,
        nameplate: Nameplate | None,
        identity: Identity | None,
        *,
        timeout_s: float | None,
        keep_alive_s: int,
    ) -> None:
        self._endpoint = endpoint
        self._expected = nameplate
        self._identity = identity
        self._timeout_s = timeout_s
        self._keep_alive_s = keep_alive_s
        self._me = uuid.uuid4().hex[:12]
        self._calls = threading.RLock()
        self._turn = threading.Condition(threading.RLock())
        self._view = SparkplugView(nameplate)
        self._link: Link | None = None
        self._is_host = False
        self._state = HostState()
        self._failures = 0
        self._retry_at_s = 0.0
        self._asked_rebirth_s = -math.inf
        self._is_met = False
        self._peer: Peer | None = None
        self._moved_at_s = 0.0
        self._exchange = Exchange(self._me)
        self._commanded_at_s = -math.inf

    def _met(self, deadline_s: float, *, as_host: bool) -> Reading:
        """The last whole reading of this connection; connects, and asks for births, where there is none."""
        if self._state.must_sign_on_again:
            self._drop()
        with self._turn:
            link = self._link
            fault = "" if link is None else link.fault
        if link is not None and fault:
            raise self._lost(fault)
        if link is None or (as_host and not self._is_host):
            self._connect(deadline_s, as_host=as_host or self._is_host)
        with self._turn:
            link = self._link
            assert link is not None  # _connect has opened it, or raised; narrows the type
            self._turn.wait_for(
                lambda: self._is_met or self._view.fault or link.fault, max(deadline_s - time.monotonic(), 0.0)
            )
            view = self._view
            if view.fault:
                raise self._lost(f"{view.fault}; nothing was sent")
            if not self._is_met:
                why = link.fault or f"the broker answers, but no plant does within {self._timeout():g} s"
                raise self._lost(
                    f"{why}; is the plant running under this group and node, and does the broker's access list let us "
                    "read it and send it NCMD?"
                )
            if view.is_dead:
                raise PlantError(f"{self._endpoint}: the plant is gone: its death certificate came")
            assert view.reading is not None  # it is met; narrows the type
            self._failures = 0
            return view.reading

    def _command(self, points: Sequence[Point], values: Mapping[str, float], deadline_s: float) -> Answer:
        """Send commands, or without any a heartbeat, and wait for the answer; raises where nothing of it was taken.

        Who has not been in control of late, such as a watchdog that takes over, goes on from the nonce that was taken
        last; who has, and finds that it went on without him, is told that there are two.
        """
        was_in_control = time.monotonic() - self._commanded_at_s < _IN_CONTROL_PERIODS * self._wall_period_s()
        answer = self._ask(points, values, deadline_s)
        if answer.refused and answer.taken >= self._exchange.nonce:
            if was_in_control:
                self._drop()
                raise PlantError(
                    f"{self._endpoint}: a command was refused, since somebody else has taken the nonces to "
                    f"{answer.taken}; only one client may be in control: stop the other"
                )
            self._exchange.nonce = answer.taken
            answer = self._ask(points, values, deadline_s)
        if answer.refused:
            raise PlantError(f"{self._endpoint}: the plant refuses: {answer.refused}")
        self._commanded_at_s = time.monotonic()
        return answer

    def _ask(self, points: Sequence[Point], values: Mapping[str, float], deadline_s: float) -> Answer:
        with self._turn:
            link, reading = self._link, self._view.reading
            assert link is not None  # _met has opened it; narrows the types
            assert reading is not None
            where = address.parse(self._endpoint)
            expiry_s = max(1, math.ceil(deadline_s - time.monotonic()))
            messages = command_messages(where, points, values, reading.heartbeat)
            try:
                self._exchange.send(
                    link, where, self._us().host_id, messages, beat=reading.heartbeat, expiry_s=expiry_s
                )
            except LinkError as error:
                raise self._lost(str(error)) from error
            self._turn.wait_for(
                lambda: self._exchange.answer is not None or link.fault, max(deadline_s - time.monotonic(), 0.0)
            )
            answer = self._exchange.end()
        if answer is None:
            why = link.fault or f"the plant did not answer a command within {self._timeout():g} s"
            raise self._lost(f"{why}; is it running, and does the broker's access list let us command it?")
        return answer

    def _leave(self) -> None:
        """Sign off and leave the broker."""
        with self._turn:
            link, self._link = self._link, None
            is_host, self._is_host = self._is_host, False
            self._view.forget()
            self._is_met = False
        if link is not None:
            link.close(self._told(is_online=False, at_ms=now_ms()) if is_host else None)

    def _connect(self, deadline_s: float, *, as_host: bool) -> None:
        where, us = address.parse(self._endpoint), self._us()
        wait_s = self._retry_at_s - time.monotonic()
        if self._link is None and wait_s > 0:
            raise PlantError(f"{self._endpoint}: not connected; trying again in {wait_s:.1f} s")
        with self._turn:
            before, self._link = self._link, None
            self._view.forget()
            self._is_met = False
            self._asked_rebirth_s = -math.inf
            self._state.sign_on()
        if before is not None:
            before.close()
        link = new_link(
            where,
            us,
            self._me,
            self._hear,
            since_ms=self._state.since_ms,
            as_host=as_host,
            keep_alive_s=self._keep_alive_s,
        )
        try:
            link.open(deadline_s)
        except LinkError as error:
            raise self._lost(f"{error}; is the broker running, the address right, and are we known there?") from error
        with self._turn:
            self._link, self._is_host = link, as_host
            try:
                if as_host:
                    link.publish(self._told(is_online=True, at_ms=self._state.since_ms))
                self._ask_rebirth()
            except LinkError as error:
                raise self._lost(str(error)) from error

    def _hear(self, received: Received) -> None:
        """From the link's thread."""
        with self._turn:
            if received.topic.startswith(address.OWN):
                self._exchange.hear(received)
            elif received.topic == address.state_topic(self._us().host_id):
                self._hear_state(received.payload)
            else:
                self._hear_plant(received)
            self._turn.notify_all()

    def _hear_state(self, payload: bytes) -> None:
        """Say at once that we are online, where somebody says that we are not."""
        if self._state.hear(payload) and self._link is not None:
            self._link.publish(self._told(is_online=True, at_ms=self._state.since_ms))

    def _hear_plant(self, received: Received) -> None:
        parts = received.topic.split("/")
        kind: Kind = next(k for k in get_args(Kind) if k == parts[2])
        device = parts[4] if len(parts) > 4 else ""
        view = self._view
        if view.take(kind, device, received.payload, is_retained=received.envelope.is_retained):
            self._note(view.reading)
        if view.wants_rebirth and self._link is not None:
            self._ask_rebirth()

    def _note(self, reading: Reading | None) -> None:
        """Take note of what a whole reading says of the peer."""
        assert reading is not None  # it is whole; narrows the type
        now_s = time.monotonic()
        has_moved = self._peer is None or self._peer.beat != reading.heartbeat
        if has_moved:
            self._moved_at_s = now_s
        self._peer = Peer(
            beat=reading.heartbeat,
            age_s=now_s - self._moved_at_s,
            moved_time_s=time.time() if has_moved or self._peer is None else self._peer.moved_time_s,
            clock_s=reading.clock_s or None,
            period_s=reading.wall_period_s,
            is_tripped=bool(reading.node[names.TRIPPED]),
            has_failed=bool(reading.node[names.FAILED]),
        )
        if not self._is_met:
            self._is_met = True
            self._exchange.nonce = max(self._exchange.nonce, reading.taken)

    def _ask_rebirth(self) -> None:
        """Ask to be told everything anew, not more often than a plant can."""
        now_s = time.monotonic()
        if self._link is None or now_s - self._asked_rebirth_s < _REBIRTH_PAUSE_S:
            return
        self._asked_rebirth_s = now_s
        self._link.publish(rebirth_message(address.parse(self._endpoint)))

    def _told(self, *, is_online: bool, at_ms: int) -> Message:
        return state_message(self._us().host_id, is_online=is_online, at_ms=at_ms)

    def _site(self) -> SparkplugSite:
        with self._calls:
            if self._view.site is None:
                self._met(self._deadline_s(), as_host=False)
            assert self._view.site is not None  # it is met; narrows the type
            return self._view.site

    def _us(self) -> Identity:
        if self._identity is None:
            self._identity = identity_of_environment()
        return self._identity

    def _wall_period_s(self) -> float:
        if self._peer is not None and self._peer.period_s:
            return self._peer.period_s
        return 1.0 if self._expected is None else self._expected.period_s

    def _timeout(self) -> float:
        shortest, longest = _TIMEOUTS_S
        if self._timeout_s is not None:
            return self._timeout_s
        period_s = self._peer.period_s if self._peer is not None else None
        return longest if not period_s else min(max(period_s, shortest), longest)

    def _deadline_s(self) -> float:
        return time.monotonic() + self._timeout()

    def _lost(self, why: str) -> PlantError:
        self._drop()
        return PlantError(f"{self._endpoint}: {why}")

    def _drop(self) -> None:
        """Leave a broken link; what it had not sent yet is gone with it. A host's will says that it is offline."""
        with self._turn:
            link, self._link = self._link, None
            self._view.forget()
            self._view.fault = ""
            self._is_met = self._state.must_sign_on_again = False
            pause_s = _BACK_OFF_PERIODS[min(self._failures, len(_BACK_OFF_PERIODS) - 1)] * self._wall_period_s()
            self._failures += 1
            self._retry_at_s = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)
        if link is not None:
            link.close(leaves_will=True, within_s=0.1)
