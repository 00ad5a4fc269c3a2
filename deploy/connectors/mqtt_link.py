"""One connection to an MQTT 5 broker, with every wait bounded; the one module that knows paho.

A link is used once: when it breaks it stays broken, says why, and its owner makes another. Callbacks come from the
link's own thread.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .mqtt_address import NodeAddress
from .mqtt_command import Envelope
from .mqtt_identity import Identity
from .sparkplug_edge import Message

_logger = logging.getLogger(__name__)

_FAILURE = 0x80
_WITH_WILL = 0x04
_MOST_QUEUED = 20_000
"""Messages that wait for a broker which does not read; what is more is refused, not kept."""
_MOST_ACKNOWLEDGED = 100
_SEND_RETAINED, _DO_NOT_SEND_RETAINED = 0, 2


class LinkError(Exception):
    """The broker refused us, or the connection is not there; says why."""


@dataclass(frozen=True)
class Topic:
    """A subscription. ``wants_retained``: what the broker keeps is sent too."""

    name: str
    wants_retained: bool = False
    qos: int = 1


@dataclass(frozen=True)
class Received:
    """One message as it came."""

    topic: str
    payload: bytes
    envelope: Envelope = field(default_factory=Envelope)


class Link:
    """``will``: what the broker says for us when we fall silent. ``hear``: called with each message.

    ``keep_alive_s``: after one and a half of it without a sign of life, the broker gives us up, and we it after one.
    """

    def __init__(
        self,
        address: NodeAddress,
        identity: Identity,
        client_id: str,
        topics: Sequence[Topic],
        hear: Callable[[Received], None],
        *,
        will: Message | None = None,
        keep_alive_s: int = 5,
    ) -> None:
        self._address = address
        self._identity = identity
        self._topics = tuple(topics)
        self._hear = hear
        self._keep_alive_s = keep_alive_s
        self._turn = threading.Condition()
        self._is_up = False
        self._is_closing = False
        self._ended = threading.Event()
        self._fault = ""
        self._granted: int | None = None
        self._acknowledged: dict[int, str] = {}
        client = self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        client.max_queued_messages_set(_MOST_QUEUED)
        client.max_inflight_messages_set(_MOST_QUEUED)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_subscribe, client.on_message = self._subscribed, self._received
        client.on_publish = self._published
        client.on_socket_open = _send_at_once
        if identity.username is not None:
            client.username_pw_set(identity.username, identity.password)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.is_retained)
        self._thread = threading.Thread(target=self._run, name="mqtt-link", daemon=True)

    @property
    def fault(self) -> str:
        """Why the link is not there; empty while it is."""
        with self._turn:
            return "" if self._is_up else self._fault or "not connected yet"

    def open(self, deadline_s: float) -> None:
        """Connect and subscribe, until ``deadline_s`` of the monotonic clock; raises :class:`LinkError`."""
        # In a thread, since a name lookup takes as long as it likes.
        self._identity.check(self._address)
        context = self._identity.context() if self._address.is_secure else None
        if context is not None:
            self._client.tls_set_context(context)
        self._client.connect_timeout = max(deadline_s - time.monotonic(), 0.05)
        self._thread.start()
        with self._turn:
            self._turn.wait_for(lambda: self._is_up or self._fault, max(deadline_s - time.monotonic(), 0.0))
            if self._is_up:
                return
            why = self._fault or "no answer in time"
        self.close()
        raise LinkError(why)

    def publish(
        self,
        message: Message,
        *,
        expiry_s: int | None = None,
        answer_to: str = "",
        correlation: bytes = b"",
        user: Sequence[tuple[str, str]] = (),
    ) -> MQTTMessageInfo:
        """Hand a message to the connection; raises :class:`LinkError` when there is none."""
        properties = _properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if answer_to:
            properties.ResponseTopic = answer_to
        if correlation:
            properties.CorrelationData = correlation
        if user:
            properties.UserProperty = list(user)
        with self._turn:
            if not self._is_up:
                raise LinkError(self._fault or "not connected")
        try:
            info = self._client.publish(message.topic, message.payload, message.qos, message.is_retained, properties)
        except ValueError as error:  # too long a payload or topic
            raise LinkError(str(error)) from error
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkError(f"a message was not taken ({info.rc.name})")
        return info

    def deliver(self, message: Message, deadline_s: float) -> None:
        """Publish with QoS 1 and wait for the broker's word; raises :class:`LinkError`, also where it refuses."""
        info = self.publish(message)
        with self._turn:
            self._turn.wait_for(
                lambda: info.mid in self._acknowledged or self._fault, max(deadline_s - time.monotonic(), 0.0)
            )
            refused = self._acknowledged.get(info.mid)
            if refused is None:
                raise LinkError(self._fault or "the broker did not confirm it in time")
        if refused:
            raise LinkError(f"the broker refuses it: {refused}")

    def close(self, farewell: Message | None = None, *, leaves_will: bool = False, within_s: float = 1.0) -> None:
        """Say ``farewell`` and disconnect. ``leaves_will``: the broker is asked to publish the will all the same."""
        info = None
        if farewell is not None:
            try:
                info = self.publish(farewell)
            except LinkError:
                leaves_will = True
        with self._turn:
            self._is_closing = True
        if info is not None:
            try:
                info.wait_for_publish(within_s)
            except (ValueError, RuntimeError):
                _logger.debug("the broker did not take the farewell")
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL) if leaves_will else None)
        self._down("closed")
        if self._ended.wait(within_s) and self._thread.ident is not None:
            # It may be about to start paho's thread, which cannot be joined before.
            self._thread.join(within_s)
            if not self._thread.is_alive():
                self._client.loop_stop()

    def _run(self) -> None:
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0  # Sparkplug 3.0, 3.6: no session outlives its connection
        try:
            self._client.connect(
                self._address.host, self._address.port, self._keep_alive_s, clean_start=True, properties=properties
            )
            if self._is_closing:
                self._client.disconnect()
            else:
                # paho's own thread, without which whoever publishes would write to the socket himself and, when that
                # fails, wait for a callback that may wait for him.
                self._client.loop_start()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a port of 0
            self._down(str(error) or type(error).__name__)
            self._ended.set()

    def _connected(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._down(f"the broker refuses us: {reason.getName()}")
            return
        if not self._topics:
            self._up()
            return
        wanted = [(t.name, self._options(t)) for t in self._topics]
        _, self._granted = client.subscribe(wanted)

    @staticmethod
    def _options(topic: Topic) -> SubscribeOptions:
        # As published: a command that is retained must be seen to be.
        handling = _SEND_RETAINED if topic.wants_retained else _DO_NOT_SEND_RETAINED
        return SubscribeOptions(topic.qos, retainAsPublished=True, retainHandling=handling)

    def _subscribed(
        self, _client: Client, _data: object, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if mid != self._granted:
            return
        refused = [t.name for t, reason in zip(self._topics, reasons, strict=False) if reason.value >= _FAILURE]
        if refused:
            name = next(r.getName() for r in reasons if r.value >= _FAILURE)
            self._down(f"the broker does not let us read {refused[0]}: {name}")
            self._client.disconnect()
        else:
            self._up()

    def _disconnected(
        self, _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        by = "the broker ended the connection" if flags.is_disconnect_packet_from_server else "the connection was lost"
        self._down(f"{by}: {reason.getName()}")
        self._ended.set()

    def _published(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._turn:
            while len(self._acknowledged) >= _MOST_ACKNOWLEDGED:
                del self._acknowledged[next(iter(self._acknowledged))]
            self._acknowledged[mid] = reason.getName() if reason.is_failure else ""
            self._turn.notify_all()

    def _received(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if self._is_closing:
            return
        told = message.properties
        pairs = [] if told is None else getattr(told, "UserProperty", [])
        user = dict(pairs)
        envelope = Envelope(
            is_retained=bool(message.retain),
            expiry_s=getattr(told, "MessageExpiryInterval", None),
            response_topic=getattr(told, "ResponseTopic", ""),
            correlation=getattr(told, "CorrelationData", b""),
            user={} if len(user) < len(pairs) else user,
        )
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        try:
            self._hear(Received(topic, bytes(message.payload), envelope))
        except Exception:  # whatever is wrong with one message, the next one is heard
            _logger.exception("a message on %s could not be taken", topic)

    def _up(self) -> None:
        with self._turn:
            self._is_up = not self._fault
            self._turn.notify_all()

    def _down(self, why: str) -> None:
        with self._turn:
            self._is_up = False
            self._fault = self._fault or why
            self._turn.notify_all()


def _send_at_once(_client: Client, _data: object, connection: object) -> None:
    """Messages are small and answers are waited for: none is to wait until there are more to send."""
    if isinstance(connection, socket.socket):  # which one under TLS is, too
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho types its classes, and not this constructor
