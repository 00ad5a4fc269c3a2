"""Any plant as a Sparkplug B edge node: it tells what it measures, and obeys commands as hard as a plant can be.

A command is obeyed from the primary host alone, once, in time, inside the nameplate's limits, and never when it was
retained (:mod:`.mqtt_obedience`). A watchdog takes commands to neutral when they stop coming. Who may publish commands
at all is the broker's to say: give it a password or certificate for each, and an access list (``docs/mqtt.md``).
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from types import TracebackType
from typing import get_args

import numpy as np

from ...envs.errors import PlantError
from ...envs.plant import Arrays, Plant, Quality, Telemetry
from . import mqtt_address as address
from . import sparkplug_site as names
from .mqtt_address import Kind
from .mqtt_identity import Identity
from .mqtt_link import Link, LinkError, Received, Topic
from .mqtt_obedience import Obedience
from .sparkplug_edge import EdgeNode, Message, Snapshot
from .sparkplug_site import SparkplugSite
from .sparkplug_value import Value

_logger = logging.getLogger(__name__)
_START_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 4.0
_RETRY_S = 0.5
_ANSWER_EXPIRY_S = 10


class MqttPlantServer:
    """Publishes ``plant`` through a broker from threads of its own; ``start`` and ``stop``, or a ``with`` block.

    ``speed``: emulated seconds per second of wall time, or None for a plant that goes on only by :meth:`step`. After
    ``watchdog_periods`` periods without a command or heartbeat of ``primary_host``, all commands go to neutral. A
    broker that is lost is looked for again; the plant goes on meanwhile. The plant stays the caller's: ``stop`` does
    not close it.
    """

    def __init__(
        self,
        plant: Plant,
        endpoint: str = address.DEFAULT_ENDPOINT,
        identity: Identity | None = None,
        *,
        primary_host: str = "twinloop",
        speed: float | None = 1.0,
        watchdog_periods: int = 3,
        keep_alive_s: int = 5,
    ) -> None:
        self.endpoint = endpoint
        self.site = SparkplugSite(plant.nameplate)
        self._plant = plant
        self._address = address.parse(endpoint)
        self._identity = Identity() if identity is None else identity
        self._wall_period_s = 0.0 if speed is None else plant.nameplate.period_s / speed
        self._plate = json.dumps(plant.nameplate.to_dict(), separators=(",", ":"))
        self._edge = EdgeNode(self.site, self._address)
        self._obedience = Obedience(
            self.site, self._address.answers, primary_host, watchdog_periods, is_stepped=speed is None
        )
        self._keep_alive_s = keep_alive_s
        self._heartbeat = 0
        self._refused = ""
        self._now: Snapshot | None = None
        self._link: Link | None = None
        self._turn = threading.RLock()
        self._period = threading.Lock()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Return when the births are published; raises :class:`PlantError` for a broker that does not have us."""
        self._stopping.clear()
        self._failure = None
        self._tell(self._plant.read(), float(self._plant.clock_s), self._obedience.values())
        try:
            self._connect(_START_TIMEOUT_S)
        except LinkError as error:
            raise PlantError(
                f"MQTT {self.endpoint}: could not start ({error}); is the broker there, and may we publish?"
            ) from error
        self._threads = [threading.Thread(target=self._keep_connected, name="mqtt-session", daemon=True)]
        if self._wall_period_s > 0:
            self._threads.append(threading.Thread(target=self._keep_time, name="mqtt-plant", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish the death certificate and leave the broker; does nothing when not started."""
        self._stopping.set()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(_START_TIMEOUT_S)
        with self._turn:
            link, self._link = self._link, None
            farewell = self._edge.death(_now_ms()) if self._edge.is_born else None
        if link is not None:
            link.close(farewell, leaves_will=True)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait while the server runs; True when it has ended, raising what ended it."""
        ended = self._stopping.wait(timeout_s)
        if self._failure is not None:
            raise PlantError(f"MQTT {self.endpoint}: ended: {self._failure!r}") from self._failure
        return ended

    def step(self) -> bool:
        """One period of a plant without a speed; False when the plant failed in it."""
        if self._wall_period_s > 0 or not self._threads:
            raise PlantError(f"MQTT {self.endpoint}: only a running server with speed None is stepped")
        return self._advance()

    def __enter__(self) -> MqttPlantServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _connect(self, within_s: float) -> None:
        """A new session: a new link with a new death certificate, then the births."""
        with self._turn:
            will = self._edge.new_session(_now_ms())
            self._obedience.forget_state()
        topics = (
            Topic(self._address.topic("NCMD")),
            Topic(self._address.topic("DCMD", "+")),
            Topic(address.state_topic(self._obedience.primary_host), wants_retained=True),
        )
        link = Link(
            self._address,
            self._identity,
            f"{self._address.group}-{self._address.node}-{uuid.uuid4().hex[:8]}",
            topics,
            self._hear,
            will=will,
            keep_alive_s=self._keep_alive_s,
        )
        link.open(time.monotonic() + within_s)
        with self._turn:
            self._link = link
            self._give_birth()

    def _keep_connected(self) -> None:
        while not self._stopping.wait(0.1):
            with self._turn:
                link = self._link
            if link is not None and not link.fault:
                continue
            if link is not None:
                _logger.warning("%s: %s; looking for the broker again", self.endpoint, link.fault)
                with self._turn:
                    self._link = None
                link.close()
            try:
                self._connect(_CONNECT_TIMEOUT_S)
            except LinkError as error:
                _logger.debug("%s: %s", self.endpoint, error)
                self._stopping.wait(_RETRY_S)

    def _keep_time(self) -> None:
        due_s = time.monotonic() + self._wall_period_s
        try:
            while not self._stopping.wait(max(due_s - time.monotonic(), 0.0)):
                self._advance()
                # A late period is not made up for: the next one is a whole period later.
                due_s = max(due_s + self._wall_period_s, time.monotonic())
        except Exception as error:  # noqa: BLE001  # reported by wait, in the caller's thread
            self._failure = error
            self._stopping.set()

    def _advance(self) -> bool:
        """One period of the plant under the commands that are held; False when the plant failed."""
        with self._period:
            with self._turn:
                if self._obedience.begin_period():
                    _logger.warning("no command of the primary host: equipment is on its own control")
                commands = self._obedience.values()
            try:
                accepted = self._plant.write(commands)
                self._plant.advance()
                telemetry, clock_s = self._plant.read(), float(self._plant.clock_s)
            except Exception:
                _logger.exception("the plant failed; its devices are told to be lost")
                self._fail()
                return False
            with self._turn:
                self._obedience.replace(commands, accepted)
                self._heartbeat += 1
                self._tell(telemetry, clock_s, accepted)
            return True

    def _tell(self, telemetry: Telemetry, clock_s: float, obeyed: Arrays) -> None:
        """Make a snapshot of a reading, and publish what it changes."""
        n = len(self.site.points)
        values, time_s, quality = np.empty(n), np.empty(n), np.empty(n, dtype=np.int8)
        for k, p in enumerate(self.site.points):
            place = (p.row, p.column)
            if p.kind == "measured":
                values[k] = telemetry.values[p.group][place]
                time_s[k] = telemetry.source_time_s[p.group][place]
                quality[k] = telemetry.quality[p.group][place]
            else:
                values[k], time_s[k], quality[k] = obeyed[p.group][place], clock_s, Quality.GOOD
        with self._turn:
            self._now = Snapshot(self._node(clock_s, has_failed=False), values, quality, time_s, clock_s)
            self._publish_news()

    def _fail(self) -> None:
        with self._turn:
            now = self._now
            assert now is not None  # start has told one; narrows the type
            node = self._node(now.clock_s, has_failed=True)
            self._now = Snapshot(node, now.values, now.quality, now.time_s, now.clock_s, is_alive=False)
            self._publish_news()

    def _node(self, clock_s: float, *, has_failed: bool) -> dict[str, Value]:
        return {
            names.BEAT: 0,
            names.NAMEPLATE: self._plate,
            names.NAMEPLATE_HASH: self.site.nameplate.hash,
            names.PRIMARY_HOST: self._obedience.primary_host,
            names.HEARTBEAT: self._heartbeat,
            names.CLOCK: max(round(clock_s * 1e3), 0),
            names.WALL_PERIOD: self._wall_period_s,
            names.TRIPPED: self._obedience.is_tripped,
            names.FAILED: has_failed,
            names.TAKEN: self._obedience.taken,
        }

    def _publish_news(self) -> None:
        if self._now is not None and self._edge.is_born:
            self._publish(self._edge.data(self._now, _now_ms()))

    def _give_birth(self) -> None:
        assert self._now is not None  # start has told one; narrows the type
        self._publish(self._edge.births(self._now, _now_ms()))

    def _publish(self, messages: list[Message]) -> None:
        link = self._link
        if link is None:
            return
        try:
            for message in messages:
                link.publish(message)
        except LinkError as error:  # the session's thread sees it too, and begins another
            _logger.debug("%s: %s", self.endpoint, error)

    def _hear(self, received: Received) -> None:
        with self._turn:
            if received.topic == address.state_topic(self._obedience.primary_host):
                self._obedience.hear_state(received.payload)
                return
            parts = received.topic.split("/")
            kind: Kind = next(k for k in get_args(Kind) if k == parts[2])
            device = parts[4] if len(parts) > 4 else ""
            answer = self._obedience.hear(kind, device, received.payload, received.envelope, self._heartbeat)
            if self._obedience.asks_rebirth:
                self._obedience.asks_rebirth = False
                if self._edge.is_born:
                    self._give_birth()
            if answer is None:
                return
            if answer.refused and answer.refused != self._refused:  # not for each part of a batch
                self._refused = answer.refused
                _logger.warning("%s: a command was refused: %s", self.endpoint, answer.refused)
            where, link = received.envelope.response_topic, self._link
            # To nowhere else: whoever may ask would have us publish where he may not.
            if link is None or not where.startswith(self._address.answers) or set(where) & set("+#"):
                return
            try:
                link.publish(
                    Message(where, answer.to_json()),
                    expiry_s=_ANSWER_EXPIRY_S,
                    correlation=received.envelope.correlation[:128],
                )
            except LinkError as error:
                _logger.debug("%s: an answer was not sent: %s", self.endpoint, error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
