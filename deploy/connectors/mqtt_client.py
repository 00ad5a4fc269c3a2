"""The MQTT connector: what a Sparkplug B edge node last told, and commands that it must answer."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from . import mqtt_address as address
from . import sparkplug_site as names
from .command_fault import command_fault
from .contract import Capabilities, Listener, Outcome, Peer, Readings, Subscription, WriteStatus
from .mqtt_address import Kind
from .mqtt_command import Answer, Ticket
from .mqtt_identity import Identity, identity_of_environment
from .mqtt_link import Link, LinkError, Received, Topic
from .polling import Polling
from .sparkplug_edge import Message
from .sparkplug_host import Reading, SparkplugView
from .sparkplug_payload import DataType, Metric, Payload, encode
from .sparkplug_site import Point, SparkplugSite

_BACK_OFF_PERIODS = (0.0, 0.5, 1.0, 2.0)
"""Pause after the n-th failure in a row, in periods: short, since a peer that is back must be noticed soon."""
_LONGEST_PAUSE_S = 5.0
_TIMEOUTS_S = (0.1, 4.0)
_IN_CONTROL_PERIODS = 3.0
_REBIRTH_PAUSE_S = 0.5
_SEEN: tuple[Kind, ...] = ("NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA")


class MqttConnector:
    """Keeps the :class:`~.contract.Connector` contract over MQTT 5 and Sparkplug B; connects on first use.

    Without a ``nameplate`` the one in the node's birth is taken; a plant with another one is refused. ``identity``: who
    we are to the broker, by default what the environment says. Who only reads is an observer to Sparkplug; with the
    first command or heartbeat we become its host application ``identity.host_id``, and stay so. ``timeout_s`` is what
    one call may take; by default one period of the plant's on the wall, from 0.1 s to 4 s.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        nameplate: Nameplate | None = None,
        identity: Identity | None = None,
        *,
        timeout_s: float | None = None,
        keep_alive_s: int = 5,
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
        self._state_ms = 0
        self._signed_off_ms = 0
        self._must_sign_on_again = False
        self._failures = 0
        self._retry_at_s = 0.0
        self._asked_rebirth_s = -math.inf
        self._is_met = False
        self._peer: Peer | None = None
        self._moved_at_s = 0.0
        self._nonce = 0
        self._commanded_at_s = -math.inf
        self._waiting = b""
        self._answer: Answer | None = None

    @property
    def endpoint(self) -> str:
        return self._endpoint

    @property
    def nameplate(self) -> Nameplate:
        return self._site().nameplate if self._expected is None else self._expected

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            protocol="MQTT 5, Sparkplug B",
            has_identity=True,
            has_encryption=address.parse(self._endpoint).is_secure,
            has_source_time=True,
            has_quality=True,
            has_atomic_batch=True,
            has_push=True,
        )

    @property
    def peer(self) -> Peer | None:
        with self._turn:
            peer = self._peer
            return None if peer is None else replace(peer, age_s=time.monotonic() - self._moved_at_s)

    def read(self, names: Sequence[str]) -> Readings:
        """What the plant last told as a whole, with its own times and qualities; nothing is asked."""
        with self._calls:
            reading = self._met(self._deadline_s(), as_host=False)
            at = self._places(self._site(), names)
        return Readings(reading.values[at], reading.quality[at], reading.time_s[at])

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        """One batch, which the plant takes as one; its answer says what became of each command."""
        with self._calls:
            deadline_s = self._deadline_s()
            self._met(deadline_s, as_host=True)
            points = self._site().of_kind("commanded")
            missing = [name for name in commands if name not in points]
            if missing:
                raise PlantError(f"{self._endpoint}: no command {missing[0]!r} here; see {', '.join(list(points)[:4])}")
            faults = {name: command_fault(points[name].signal, value) for name, value in commands.items()}
            answer = self._command([points[n] for n in commands if not faults[n]], commands, deadline_s)
        found: dict[str, Outcome] = {}
        for name in commands:
            outcome = answer.items.get(name)
            held = answer.held.get(name, math.nan)
            if faults[name]:
                found[name] = Outcome(WriteStatus.NOT_SENT, held, faults[name])
            elif outcome is None:
                raise PlantError(
                    f"{self._endpoint}: the plant's answer says nothing of {name}; it is unknown what it took"
                )
            else:
                found[name] = replace(outcome, held=held)
        return found

    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription:
        """The plant pushes; the listener is told at its own pace, from what came last."""
        wanted = tuple(names)
        return Polling(lambda: self.read(wanted), listener, period_s).start()

    def heartbeat(self, *, send: bool = True) -> Peer:
        with self._calls:
            deadline_s = self._deadline_s()
            self._met(deadline_s, as_host=send)
            if send:
                self._command([], {}, deadline_s)
        peer = self.peer
        assert peer is not None  # _met has seen it; narrows the type
        return peer

    def close(self) -> None:
        """Sign off and leave the broker; a later call connects again."""
        with self._calls:
            with self._turn:
                link, self._link = self._link, None
                is_host, self._is_host = self._is_host, False
                self._view.forget()
                self._is_met = False
            if link is not None:
                link.close(self._state(is_online=False, at_ms=_now_ms()) if is_host else None)

    def _command(self, points: Sequence[Point], values: Mapping[str, float], deadline_s: float) -> Answer:
        """Send commands, or without any a heartbeat, and wait for the answer; raises where nothing of it was taken.

        Who has not been in control of late, such as a watchdog that takes over, goes on from the nonce that was taken
        last; who has, and finds that it went on without him, is told that there are two.
        """
        was_in_control = time.monotonic() - self._commanded_at_s < _IN_CONTROL_PERIODS * self._wall_period_s()
        answer = self._ask(points, values, deadline_s)
        if answer.refused and answer.taken >= self._nonce:
            if was_in_control:
                self._drop()
                raise PlantError(
                    f"{self._endpoint}: a command was refused, since somebody else has taken the nonces to "
                    f"{answer.taken}; only one client may be in control: stop the other"
                )
            self._nonce = answer.taken
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
            by_device: dict[str, list[Point]] = {}
            for point in points:
                by_device.setdefault(point.device, []).append(point)
            where = address.parse(self._endpoint)
            expiry_s = max(1, math.ceil(deadline_s - time.monotonic()))
            self._waiting, self._answer = f"{self._me}:{self._nonce + 1}".encode(), None
            parts = max(len(by_device), 1)
            messages: list[Message] = []
            for device, inside in by_device.items():
                metrics = [
                    Metric("", DataType.DOUBLE, float(values[p.name]), _now_ms(), p.alias, says_type=False)
                    for p in inside
                ]
                messages.append(Message(where.topic("DCMD", device), encode(Payload(_now_ms(), tuple(metrics)))))
            if not messages:
                alias = names.node_alias(names.BEAT)
                beat = Metric("", DataType.UINT64, reading.heartbeat, _now_ms(), alias, says_type=False)
                messages.append(Message(where.topic("NCMD"), encode(Payload(_now_ms(), (beat,)))))
            try:
                for part, message in enumerate(messages, 1):
                    self._nonce += 1
                    ticket = Ticket(self._nonce, reading.heartbeat, self._us().host_id, part, parts)
                    link.publish(
                        message,
                        expiry_s=expiry_s,
                        answer_to=where.answers + self._me,
                        correlation=self._waiting,
                        user=tuple(ticket.properties.items()),
                    )
            except LinkError as error:
                raise self._lost(str(error)) from error
            self._turn.wait_for(lambda: self._answer is not None or link.fault, max(deadline_s - time.monotonic(), 0.0))
            answer, self._answer, self._waiting = self._answer, None, b""
        if answer is None:
            why = link.fault or f"the plant did not answer a command within {self._timeout():g} s"
            raise self._lost(f"{why}; is it running, and does the broker's access list let us command it?")
        return answer

    def _met(self, deadline_s: float, *, as_host: bool) -> Reading:
        """The last whole reading of this connection; connects, and asks for births, where there is none."""
        if self._must_sign_on_again:
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
            self._state_ms = max(_now_ms(), self._state_ms + 1, self._signed_off_ms + 1)
            self._must_sign_on_again = False
        if before is not None:
            before.close()
        topics = [Topic(where.topic(kind, "+" if kind[0] == "D" else "")) for kind in _SEEN]
        topics.append(Topic(where.answers + self._me))
        if as_host:
            topics.append(Topic(address.state_topic(us.host_id), wants_retained=True))
        link = Link(
            where,
            us,
            f"{us.host_id}-{self._me}-{self._state_ms % 1_000_000}",
            topics,
            self._hear,
            will=self._state(is_online=False, at_ms=self._state_ms) if as_host else None,
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
                    link.publish(self._state(is_online=True, at_ms=self._state_ms))
                self._ask_rebirth()
            except LinkError as error:
                raise self._lost(str(error)) from error

    def _hear(self, received: Received) -> None:
        """From the link's thread."""
        with self._turn:
            if received.topic.startswith(address.OWN):
                self._hear_answer(received)
            elif received.topic == address.state_topic(self._us().host_id):
                self._hear_state(received.payload)
            else:
                self._hear_plant(received)
            self._turn.notify_all()

    def _hear_answer(self, received: Received) -> None:
        if self._waiting and received.envelope.correlation == self._waiting and not received.envelope.is_retained:
            self._answer = Answer.from_json(received.payload)

    def _hear_state(self, payload: bytes) -> None:
        """Somebody signed our host application off: an older connection's will, or another client of its name."""
        try:
            told = json.loads(payload[:1000])
            is_online, at_ms = told["online"], int(told["timestamp"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if is_online:
            return
        self._signed_off_ms = max(self._signed_off_ms, at_ms)
        self._must_sign_on_again = at_ms > self._state_ms  # the plant would take our time for an old one
        if self._link is not None:
            self._link.publish(self._state(is_online=True, at_ms=self._state_ms))

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
            self._nonce = max(self._nonce, reading.taken)

    def _ask_rebirth(self) -> None:
        """Ask to be told everything anew, not more often than a plant can."""
        now_s = time.monotonic()
        if self._link is None or now_s - self._asked_rebirth_s < _REBIRTH_PAUSE_S:
            return
        self._asked_rebirth_s = now_s
        request = Payload(_now_ms(), (Metric(names.REBIRTH, DataType.BOOLEAN, True, _now_ms(), says_type=False),))
        self._link.publish(Message(address.parse(self._endpoint).topic("NCMD"), encode(request)))

    def _state(self, *, is_online: bool, at_ms: int) -> Message:
        payload = json.dumps({"online": is_online, "timestamp": at_ms}).encode()
        return Message(address.state_topic(self._us().host_id), payload, qos=1, is_retained=True)

    def _site(self) -> SparkplugSite:
        with self._calls:
            if self._view.site is None:
                self._met(self._deadline_s(), as_host=False)
            assert self._view.site is not None  # it is met; narrows the type
            return self._view.site

    def _places(self, site: SparkplugSite, wanted: Sequence[str]) -> list[int]:
        """Where signals stand among the points: measured ones, and commanded ones as they are obeyed."""
        first = site.points[0].alias
        known = {**site.of_kind("commanded"), **site.of_kind("measured")}
        missing = [name for name in wanted if name not in known]
        if missing:
            raise PlantError(
                f"{self._endpoint}: no signal {missing[0]!r} here; this site has {', '.join(list(known)[:4])}"
            )
        return [known[name].alias - first for name in wanted]

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
            self._is_met = self._must_sign_on_again = False
            pause_s = _BACK_OFF_PERIODS[min(self._failures, len(_BACK_OFF_PERIODS) - 1)] * self._wall_period_s()
            self._failures += 1
            self._retry_at_s = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)
        if link is not None:
            link.close(leaves_will=True, within_s=0.1)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
