"""``mqtt://host:port/GROUP/NODE``: a broker, and which Sparkplug edge node behind it is the plant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlparse

from ...envs.errors import PlantError

SCHEMES = ("mqtt://", "mqtts://")
DEFAULT_ENDPOINT = "mqtt://127.0.0.1:1883/twinloop/plant"
NAMESPACE = "spBv1.0"
"""Sparkplug B (Sparkplug 3.0, 4.1.1)."""
OWN = "twinloop"
"""Root of the topics that Sparkplug does not know: answers to commands, and heads of journals."""

Kind = Literal["NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "NDATA", "DDATA", "NCMD", "DCMD"]


@dataclass(frozen=True)
class NodeAddress:
    """Where a plant is, and its topics."""

    host: str
    port: int
    is_secure: bool
    group: str
    node: str

    @property
    def endpoint(self) -> str:
        """Inverse of :func:`parse`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_secure else 'mqtt'}://{host}:{self.port}/{self.group}/{self.node}"

    def topic(self, kind: Kind, device: str = "") -> str:
        """``spBv1.0/GROUP/KIND/NODE`` of the node, with ``/DEVICE`` of a device."""
        return f"{NAMESPACE}/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")

    @property
    def answers(self) -> str:
        """What all response topics of commands to this node begin with: the plant publishes to no others."""
        return f"{OWN}/{self.group}/{self.node}/answer/"


def parse(endpoint: str) -> NodeAddress:
    """Raises :class:`PlantError` for anything but ``mqtt://host[:port]/GROUP/NODE``, or ``mqtts`` for TLS.

    The port is by default MQTT's own, 1883, or 8883 with TLS.
    """
    url = urlparse(endpoint)
    try:
        host, port = url.hostname, url.port
    except ValueError:  # a port that is no number, or above 65535
        host, port = None, None
    if url.username is not None or url.password is not None:
        raise PlantError(
            f"MQTT endpoint of {host}: a name or password in an address is seen by all who see the process; put them "
            "into a file (docs/mqtt.md)"
        )
    parts = [unquote(part) for part in url.path.split("/")[1:]]
    is_known = f"{url.scheme}://" in SCHEMES and host is not None and not (url.query or url.fragment)
    if not is_known or len(parts) != 2 or not all(map(is_identifier, parts)):
        raise PlantError(
            f"MQTT endpoint {endpoint!r}: expected mqtt://host:port/GROUP/NODE (mqtts for TLS), such as "
            f"{DEFAULT_ENDPOINT}; group and node without + # and /"
        )
    is_secure = url.scheme == "mqtts"
    assert host is not None  # is_known says so; narrows the type
    # Port 0 is left as it is, and refused by whoever connects.
    return NodeAddress(host, (8883 if is_secure else 1883) if port is None else port, is_secure, *parts)


def state_topic(host_id: str) -> str:
    """Where a Sparkplug host application says whether it is online."""
    return f"{NAMESPACE}/STATE/{host_id}"


def is_identifier(text: str) -> bool:
    """Whether a group, node, device or host may be called so (Sparkplug 3.0, 4.1: no ``+``, ``/``, ``#``)."""
    return 0 < len(text.encode(errors="replace")) <= 255 and text.isprintable() and not set(text) & set("+/#")
