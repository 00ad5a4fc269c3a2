"""What an emulated plant makes of commands over MQTT: which it obeys, which it refuses, and when nobody commands."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import sparkplug_site as names
from .command_fault import command_fault
from .contract import Outcome, WriteStatus
from .mqtt_address import Kind
from .mqtt_command import MOST_EXPIRY_S, MOST_SKEW_S, Answer, Envelope, Ticket
from .sparkplug_metric import Metric
from .sparkplug_payload import decode
from .sparkplug_site import Point, SparkplugSite
from .sparkplug_value import DataType
from .sparkplug_wire import PayloadError

Commands = Mapping[str, NDArray[np.float64]]

_MOST_CORRELATION_BYTES = 128
_LATE_BEATS = 3


class RefusedError(Exception):
    """Why a message is not obeyed, for its answer."""


@dataclass
class _Batch:
    """Parts of a batch that have come so far."""

    first_nonce: int
    parts: int
    n: int = 0
    items: dict[str, Outcome] = field(default_factory=dict)


class Obedience:
    """Judges each command; knows the primary host, the nonces and whether anybody's commands still come.

    ``is_tripped``: they stopped, and commands are neutral. ``taken``: the last nonce taken; it begins at our clock in
    microseconds, so that a command from before a restart is old. ``asks_rebirth``: somebody asked to be told everything
    anew. ``is_stepped``: somebody steps the plant, and nothing gets old by itself. Not for several threads.
    """

    def __init__(
        self, site: SparkplugSite, answers: str, primary_host: str, watchdog_periods: int, *, is_stepped: bool = False
    ) -> None:
        self._is_stepped = is_stepped
        self._site = site
        self._answers = answers
        self.primary_host = primary_host
        self._watchdog_periods = watchdog_periods
        self._silent_periods = watchdog_periods
        self._points = site.of_kind("commanded")
        self._held = {name: point.signal.neutral for name, point in self._points.items()}
        self._batch: _Batch | None = None
        self._state: tuple[int, bool] | None = None
        self.taken = time.time_ns() // 1000
        self.is_tripped = True  # nobody has shown to live yet: the equipment is on its own control
        self.asks_rebirth = False

    @property
    def host_is_online(self) -> bool:
        """Whether the primary host's STATE says so."""
        return self._state is not None and self._state[1]

    def hear_state(self, data: bytes) -> None:
        """Take note of the primary host's STATE; one with a time before the last one's is of an older connection."""
        try:
            told = json.loads(data[:1000])
            time_ms, is_online = told["timestamp"], told["online"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if type(time_ms) is not int or not isinstance(is_online, bool):
            return
        if self._state is None or time_ms >= self._state[0]:
            self._state = (time_ms, is_online)

    def forget_state(self) -> None:
        """The connection to the broker was lost: the next STATE counts, whatever its time."""
        self._state = None

    def hear(self, kind: Kind, device: str, data: bytes, envelope: Envelope, beat: int) -> Answer | None:
        """Take or refuse one NCMD or DCMD; the answer, None where none is due (yet). ``beat``: the plant's own."""
        try:
            payload = decode(data, self._site.types)
            if kind == "NCMD" and not envelope.is_retained and _is_rebirth(payload.metrics):
                self.asks_rebirth = True
                return None
            ticket = self._ticket(envelope, payload.timestamp_ms, beat)
            if kind == "NCMD":
                if [self._node_metric(m) for m in payload.metrics] != [names.BEAT]:
                    raise RefusedError(f"an NCMD is {names.BEAT!r} or {names.REBIRTH!r}, nothing else")
                self._take(ticket)
                return self._answer("", beat)
            return self._device_command(device, payload.metrics, ticket, beat)
        except (RefusedError, PayloadError) as error:
            self._batch = None
            return self._answer(str(error), beat)

    def begin_period(self) -> bool:
        """Count a period; True when the watchdog trips in it."""
        trips = self._silent_periods >= self._watchdog_periods and not self.is_tripped
        if trips:
            self._batch = None
            self._held = {name: point.signal.neutral for name, point in self._points.items()}
        self.is_tripped = self._silent_periods >= self._watchdog_periods
        self._silent_periods = min(self._silent_periods + 1, self._watchdog_periods)
        return trips

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Commands for the plant, ``[N, A]`` a group."""
        found = {g.name: np.empty((g.n_assets, len(g.commanded))) for g in self._site.nameplate.groups}
        for name, p in self._points.items():
            found[p.group][p.row, p.column] = self._held[name]
        return found

    def replace(self, asked: Commands, accepted: Commands) -> None:
        """Hold what the plant accepted, where it differs from what it was asked and nobody has written since."""
        for name, p in self._points.items():
            wanted, value = float(asked[p.group][p.row, p.column]), float(accepted[p.group][p.row, p.column])
            if value != wanted and self._held[name] == wanted:
                self._held[name] = value

    def _ticket(self, envelope: Envelope, timestamp_ms: int | None, beat: int) -> Ticket:
        """Whether a message is from who may command, now, once; raises :class:`RefusedError`."""
        if envelope.is_retained:
            raise RefusedError("retained: a retained command would actuate again after every reconnection")
        if envelope.expiry_s is None or not 0 < envelope.expiry_s <= MOST_EXPIRY_S:
            raise RefusedError(
                f"a command has a message expiry of 1 to {MOST_EXPIRY_S} s, this one {envelope.expiry_s}"
            )
        if not envelope.response_topic.startswith(self._answers) or set(envelope.response_topic) & set("+#"):
            raise RefusedError(f"a command has a response topic below {self._answers}")
        if not 0 < len(envelope.correlation) <= _MOST_CORRELATION_BYTES:
            raise RefusedError(f"a command has correlation data, at most {_MOST_CORRELATION_BYTES} bytes")
        try:
            ticket = Ticket.of(envelope.user)
        except (KeyError, ValueError) as error:
            raise RefusedError(f"the user properties nonce, beat, host and part are wanted ({error})") from error
        if timestamp_ms is None:
            raise RefusedError("a command says when it was sent")
        late_s = time.time() - timestamp_ms / 1e3
        if abs(late_s) > MOST_SKEW_S:
            raise RefusedError(
                f"the command's time and this plant's clock are {abs(late_s):.0f} s apart, over {MOST_SKEW_S:g} s: set "
                "the clocks"
            )
        if ticket.host != self.primary_host or not self.host_is_online:
            raise RefusedError(
                f"host {ticket.host[:60]!r}: only the primary host {self.primary_host!r} commands here, while its "
                f"STATE says online; it is {'online' if self.host_is_online else 'offline'}"
            )
        if ticket.nonce <= self.taken:
            raise RefusedError(f"nonce {ticket.nonce} is old: {self.taken} was taken")
        if not self._is_stepped and not 0 <= beat - ticket.beat <= _LATE_BEATS:
            raise RefusedError(f"based on the plant's heartbeat {ticket.beat}, which is at {beat}: too late")
        return ticket

    def _device_command(self, device: str, metrics: tuple[Metric, ...], ticket: Ticket, beat: int) -> Answer | None:
        points = [p for p in self._site.devices.get(device, ()) if p.kind == "commanded"]
        if not points:
            raise RefusedError(f"no device {device[:60]!r} that can be commanded")
        batch = self._batch if ticket.part > 1 else _Batch(ticket.first_nonce, ticket.parts)
        expected = None if batch is None else (batch.first_nonce, batch.parts, batch.n + 1)
        if batch is None or (ticket.first_nonce, ticket.parts, ticket.part) != expected:
            raise RefusedError(f"part {ticket.part} of a batch whose parts before were lost")
        for metric in metrics:
            point = next((p for p in points if metric.alias == p.alias or metric.name == p.metric), None)
            if point is None:
                raise RefusedError(f"{device} has no command {metric.name or metric.alias!r}")
            if point.name in batch.items:
                raise RefusedError(f"{point.name} twice in a batch")
            batch.items[point.name] = self._judged(point, metric)
        batch.n += 1
        self._batch = batch
        self._take(ticket)
        if batch.n < batch.parts:
            return None
        self._batch = None
        for name, outcome in batch.items.items():
            if outcome.status is WriteStatus.ACCEPTED:
                self._held[name] = outcome.held
        return self._answer("", beat, batch.items)

    def _judged(self, point: Point, metric: Metric) -> Outcome:
        if not isinstance(metric.value, float) or metric.datatype is not DataType.DOUBLE:
            fault = f"{metric.value!r:.40} of type {metric.datatype.name} is no DOUBLE"
        else:
            fault = command_fault(point.signal, metric.value)
            if not fault:
                return Outcome(WriteStatus.ACCEPTED, metric.value)
        return Outcome(WriteStatus.REFUSED, self._held[point.name], fault)

    def _take(self, ticket: Ticket) -> None:
        self.taken = ticket.nonce
        self._silent_periods = 0

    def _answer(self, refused: str, beat: int, items: Mapping[str, Outcome] | None = None) -> Answer:
        return Answer(refused, self.taken, beat, self.is_tripped, items or {}, dict(self._held))

    @staticmethod
    def _node_metric(metric: Metric) -> str:
        is_beat = metric.name == names.BEAT or metric.alias == names.node_alias(names.BEAT)
        return names.BEAT if is_beat else metric.name


def _is_rebirth(metrics: tuple[Metric, ...]) -> bool:
    return len(metrics) == 1 and metrics[0].name == names.REBIRTH and metrics[0].value is True
