"""A signed head kept by an MQTT broker: a copy that whoever can write the journal's disk does not reach."""

from __future__ import annotations

import time
import uuid

from ...envs.errors import JournalError, MissingExtraError
from .heads import SignedHead

_TIMEOUT_S = 10.0


def publish_head(head: SignedHead, endpoint: str) -> str:
    """Publish ``head`` retained at ``mqtt://broker:port/GROUP/NODE``; returns the topic.

    Waits until the broker has confirmed it. Who we are is what the environment says, as for a plant there. Raises
    :class:`JournalError` when the broker cannot be reached or does not take it.
    """
    try:
        from ..connectors.mqtt_link import Link, LinkError
    except ModuleNotFoundError as error:
        raise MissingExtraError("paho-mqtt", "mqtt", f"a head at {endpoint}") from error
    from ..connectors.mqtt_address import OWN, parse
    from ..connectors.mqtt_identity import identity_of_environment
    from ..connectors.sparkplug_edge import Message

    where = parse(endpoint)
    topic = f"{OWN}/heads/{where.group}/{where.node}/{head.journal[:16]}"
    deadline_s = time.monotonic() + _TIMEOUT_S
    link = Link(where, identity_of_environment(), f"heads-{uuid.uuid4().hex[:12]}", (), lambda _: None)
    try:
        link.open(deadline_s)
        try:
            link.deliver(Message(topic, head.line.encode(), qos=1, is_retained=True), deadline_s)
        finally:
            link.close()
    except LinkError as error:
        raise JournalError(
            f"{endpoint}: the head of row {head.sequence} is signed, and not published ({error}); is the broker there, "
            f"and may we write {topic}?"
        ) from error
    return topic
