"""A host's commands to a plant: a batch as messages, one a device, with nonces that grow, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import sparkplug_site as names
from .mqtt_address import NodeAddress
from .mqtt_command import Answer, Ticket
from .mqtt_host import now_ms
from .mqtt_link import Link, Received
from .sparkplug_edge import Message
from .sparkplug_metric import Metric
from .sparkplug_payload import Payload, encode
from .sparkplug_site import Point
from .sparkplug_value import DataType


class Exchange:
    """What the client ``me`` commands, and the answer that it waits for; not for several threads.

    ``nonce``: the last one that we know of. ``answer``: to the last batch sent, None until it comes.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self.nonce = 0
        self.answer: Answer | None = None
        self._waiting = b""

    def send(
        self, link: Link, where: NodeAddress, host_id: str, messages: Sequence[Message], *, beat: int, expiry_s: int
    ) -> None:
        """Send a batch based on the plant's heartbeat ``beat``; raises :class:`~.mqtt_link.LinkError`."""
        self._waiting, self.answer = f"{self._me}:{self.nonce + 1}".encode(), None
        for part, message in enumerate(messages, 1):
            self.nonce += 1
            ticket = Ticket(self.nonce, beat, host_id, part, len(messages))
            link.publish(
                message,
                expiry_s=expiry_s,
                answer_to=where.answers + self._me,
                correlation=self._waiting,
                user=tuple(ticket.properties.items()),
            )

    def hear(self, received: Received) -> None:
        """Keep the answer that is waited for; raises :class:`PlantError` for one that cannot be read."""
        if self._waiting and received.envelope.correlation == self._waiting and not received.envelope.is_retained:
            self.answer = Answer.from_json(received.payload)

    def end(self) -> Answer | None:
        """The answer, if it has come; none is waited for any more."""
        answer, self.answer, self._waiting = self.answer, None, b""
        return answer


def command_messages(
    where: NodeAddress, points: Sequence[Point], values: Mapping[str, float], beat: int
) -> list[Message]:
    """One DCMD a device for the ``values`` of ``points``, by full name; without any an NCMD, the heartbeat alone."""
    by_device: dict[str, list[Point]] = {}
    for point in points:
        by_device.setdefault(point.device, []).append(point)
    messages: list[Message] = []
    for device, inside in by_device.items():
        metrics = [
            Metric("", DataType.DOUBLE, float(values[p.name]), now_ms(), p.alias, says_type=False) for p in inside
        ]
        messages.append(Message(where.topic("DCMD", device), encode(Payload(now_ms(), tuple(metrics)))))
    if not messages:
        alias = names.node_alias(names.BEAT)
        metric = Metric("", DataType.UINT64, beat, now_ms(), alias, says_type=False)
        messages.append(Message(where.topic("NCMD"), encode(Payload(now_ms(), (metric,)))))
    return messages


def rebirth_message(where: NodeAddress) -> Message:
    """The NCMD that asks a plant to tell everything anew."""
    request = Payload(now_ms(), (Metric(names.REBIRTH, DataType.BOOLEAN, True, now_ms(), says_type=False),))
    return Message(where.topic("NCMD"), encode(request))
