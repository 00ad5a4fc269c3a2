"""From a nameplate to an OPC UA address space, and back; both ends of the wire use it.

Every signal of every asset is a variable ``<site>.<asset>.<tag>`` (``ablaincourt.WT01.WNAC.Dir``) in the namespace
:data:`NAMESPACE_URI`, below ``Objects/<site>/<asset>``, with the properties ``EURange`` and ``EngineeringUnits`` (OPC
10000-8, AnalogItemType). Site-level nodes have fixed names, so that a client can find the nameplate first.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlparse

from ...envs.errors import NameplateError, PlantError
from ...envs.nameplate import Nameplate, Signal

NAMESPACE_URI = "urn:twinloop:plant"
DEFAULT_ENDPOINT = "opc.tcp://127.0.0.1:4840/twinloop"

SITE = "Site"
NAMEPLATE = "Site.Nameplate"
NAMEPLATE_HASH = "Site.NameplateHash"
CLOCK = "Site.Clock"
HEARTBEAT = "Site.Heartbeat"
CLIENT_HEARTBEAT = "Site.ClientHeartbeat"
WALL_PERIOD = "Site.WallPeriod"
WATCHDOG = "Site.WatchdogTripped"
STEP = "Site.Step"

UNITS_URI = "http://www.opcfoundation.org/UA/units/un/cefact"
_UNECE = {
    "m/s": "MTS",
    "deg": "DD",
    "rad": "C81",
    "kW": "KWT",
    "MW": "MAW",
    "kWh": "KWH",
    "pu": "C62",
    "": "C62",
    "m": "MTR",
    "s": "SEC",
    "degC": "CEL",
    "K": "KEL",
    "Pa": "PAL",
    "V": "VLT",
    "A": "AMP",
    "N": "NEW",
    "%": "P1",
}
"""UNECE Recommendation 20 codes, as OPC 10000-8 asks; a unit without one gets the id -1."""


@dataclass(frozen=True)
class Point:
    """One variable: where its value stands in the arrays (``[row, column]`` of a group), and its node."""

    group: str
    asset: str
    row: int
    column: int
    kind: Literal["measured", "commanded"]
    signal: Signal
    node: str

    @property
    def name(self) -> str:
        """Full signal name, ``group/asset/signal``."""
        return f"{self.group}/{self.asset}/{self.signal.name}"

    @property
    def tag(self) -> str:
        """Browse name."""
        return self.signal.tag or self.signal.name


def points(nameplate: Nameplate, kind: Literal["measured", "commanded"]) -> tuple[Point, ...]:
    """All variables of a kind, in the order of the arrays; raises :class:`NameplateError` when two share a node."""
    found = tuple(
        Point(group.name, asset, row, column, kind, signal, f"{nameplate.site}.{asset}.{signal.tag or signal.name}")
        for group in nameplate.groups
        for row, asset in enumerate(group.assets)
        for column, signal in enumerate(getattr(group, kind))
    )
    first: dict[str, Point] = {}
    for point in found if kind == "commanded" else (*found, *points(nameplate, "commanded")):
        other = first.setdefault(point.node, point)
        if other is not point:
            raise NameplateError(
                f"site {nameplate.site!r}: {other.name} and {point.name} share the OPC UA node {point.node!r}; give "
                "their signals different tags, and assets of different groups different names"
            )
    return found


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Host and port of ``opc.tcp://host:port/name``; raises :class:`PlantError` for anything else."""
    url = urlparse(endpoint)
    try:
        host, port = url.hostname, url.port
    except ValueError:  # a port that is no number, or above 65535
        host, port = None, None
    if url.scheme != "opc.tcp" or host is None or port is None:
        raise PlantError(f"OPC UA endpoint {endpoint!r}: expected opc.tcp://host:port/name, such as {DEFAULT_ENDPOINT}")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, so that nothing goes over a network."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unit_id(unit: str) -> int:
    """Numeric id of a unit: the characters of its UNECE code as big-endian bytes, -1 for a unit without one."""
    code = _UNECE.get(unit)
    return int.from_bytes(code.encode(), "big") if code else -1
