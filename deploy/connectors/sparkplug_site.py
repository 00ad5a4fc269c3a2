"""A site as a Sparkplug edge node: which metrics there are, derived from its nameplate; both ends use it.

The site is the edge node, each asset a device ``group.asset`` with the metrics ``Measured/SIGNAL`` and, writable,
``Commanded/SIGNAL``, whose value is what the equipment obeys. The node itself tells the nameplate, the plant's clock
and heartbeat, and how far commands have come. Aliases are numbers in the order of the nameplate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...envs.errors import NameplateError
from ...envs.nameplate import Nameplate, Signal
from ...envs.plant import Quality
from .mqtt_address import is_identifier
from .sparkplug_metric import Property
from .sparkplug_value import DataType

BDSEQ = "bdSeq"
REBIRTH = "Node Control/Rebirth"
BEAT = "Node Control/Heartbeat"
"""Command: a sign of life of whoever is in control."""

NAMEPLATE = "Plant/Nameplate"
NAMEPLATE_HASH = "Plant/Nameplate Hash"
PRIMARY_HOST = "Plant/Primary Host"
HEARTBEAT = "Plant/Heartbeat"
CLOCK = "Plant/Clock"
WALL_PERIOD = "Plant/Wall Period"
TRIPPED = "Plant/Watchdog Tripped"
FAILED = "Plant/Failed"
TAKEN = "Plant/Nonce Taken"

NODE_TYPES = {
    BEAT: DataType.UINT64,
    NAMEPLATE: DataType.STRING,
    NAMEPLATE_HASH: DataType.STRING,
    PRIMARY_HOST: DataType.STRING,
    HEARTBEAT: DataType.UINT64,
    CLOCK: DataType.DATETIME,
    WALL_PERIOD: DataType.DOUBLE,
    TRIPPED: DataType.BOOLEAN,
    FAILED: DataType.BOOLEAN,
    TAKEN: DataType.UINT64,
}
"""Metrics of the node that have an alias, in its order from 1 on."""

QUALITY = "Quality"
_CODES = {Quality.GOOD: 192, Quality.UNCERTAIN: 500, Quality.BAD: 0}
"""Sparkplug 3.0, 6.4.15: 0 bad, 192 good, 500 stale. What may be old or inexact is nearest to stale."""


def quality_property(quality: Quality) -> Property:
    """The property ``Quality`` of a metric."""
    return Property(DataType.INT32, _CODES[quality])


def quality_of(prop: Property | None) -> Quality:
    """Inverse of :func:`quality_property`; a metric without one is good, one with an unknown code bad."""
    if prop is None:
        return Quality.GOOD
    return next((quality for quality, code in _CODES.items() if prop.value == code), Quality.BAD)


@dataclass(frozen=True)
class Point:
    """One metric of a device: its place in the arrays of its group, its names here and in Sparkplug."""

    group: str
    asset: str
    row: int
    column: int
    kind: Literal["measured", "commanded"]
    signal: Signal
    alias: int

    @property
    def name(self) -> str:
        """Full signal name, ``group/asset/signal``."""
        return f"{self.group}/{self.asset}/{self.signal.name}"

    @property
    def device(self) -> str:
        return f"{self.group}.{self.asset}"

    @property
    def metric(self) -> str:
        """The metric's name in its device's birth."""
        return f"{self.kind.capitalize()}/{self.signal.name}"

    @property
    def properties(self) -> dict[str, Property]:
        """Unit and range, under the names that SCADA systems show."""
        signal = self.signal
        found = {
            "engUnit": Property(DataType.STRING, signal.unit),
            "engLow": Property(DataType.DOUBLE, signal.minimum),
            "engHigh": Property(DataType.DOUBLE, signal.maximum),
        }
        if signal.description:
            found["tooltip"] = Property(DataType.STRING, signal.description)
        return found


class SparkplugSite:
    """Devices and metrics of a nameplate; raises :class:`NameplateError` for names that no topic can carry."""

    def __init__(self, nameplate: Nameplate) -> None:
        self.nameplate = nameplate

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All metrics of all devices, device by device, measured before commanded."""
        found = tuple(self._points())
        devices = {(p.group, p.asset): p.device for p in found}
        for device in devices.values():
            if not is_identifier(device):
                raise NameplateError(
                    f"site {self.nameplate.site!r}: {device!r} cannot be a Sparkplug device: no + # and control "
                    "characters in the names of groups and assets"
                )
        _distinct([*devices.values()], f"site {self.nameplate.site!r}: devices")
        for group in self.nameplate.groups:
            names = [p.metric for p in found if p.group == group.name and p.row == 0]
            _distinct(names, f"site {self.nameplate.site!r}: metrics of {group.name!r}")
        return found

    @cached_property
    def devices(self) -> dict[str, tuple[Point, ...]]:
        """Metrics by device, in the order of the nameplate."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.device, []).append(point)
        return {device: tuple(points) for device, points in found.items()}

    @cached_property
    def by_alias(self) -> dict[int, Point]:
        return {point.alias: point for point in self.points}

    @cached_property
    def types(self) -> dict[int | str, DataType]:
        """Data types by alias, and by name for the node's own metrics, as the births tell them."""
        found: dict[int | str, DataType] = {BDSEQ: DataType.INT64, REBIRTH: DataType.BOOLEAN}
        for alias, (name, datatype) in enumerate(NODE_TYPES.items(), 1):
            found[alias] = found[name] = datatype
        return found | {point.alias: DataType.DOUBLE for point in self.points}

    def of_kind(self, kind: Literal["measured", "commanded"]) -> dict[str, Point]:
        """By full name, in the order of the arrays."""
        return {point.name: point for point in self.points if point.kind == kind}

    def table(self) -> str:
        """All metrics as lines: alias, device, metric, range and unit."""
        lines = [f"{alias:>5}  (node)  {name}  {t.name}" for alias, (name, t) in enumerate(NODE_TYPES.items(), 1)]
        for p in self.points:
            access = "write" if p.kind == "commanded" else "read"
            span = f"[{p.signal.minimum:g}, {p.signal.maximum:g}] {p.signal.unit}"
            lines.append(f"{p.alias:>5}  {p.device}  {p.metric}  DOUBLE {span}  {access}")
        return "\n".join(lines)

    def _points(self) -> Iterator[Point]:
        alias = len(NODE_TYPES)
        for group in self.nameplate.groups:
            for row, asset in enumerate(group.assets):
                kinds: tuple[Literal["measured", "commanded"], ...] = ("measured", "commanded")
                for kind in kinds:
                    for column, signal in enumerate(getattr(group, kind)):
                        alias += 1
                        yield Point(group.name, asset, row, column, kind, signal, alias)


def node_alias(name: str) -> int:
    """Alias of one of the node's own metrics."""
    return list(NODE_TYPES).index(name) + 1


def _distinct(names: list[str], what: str) -> None:
    """Names that differ by case alone are two to us and one to some peers (Sparkplug 3.0, 4.2)."""
    first: dict[str, str] = {}
    for name in names:
        if name.lower() in first:
            raise NameplateError(f"{what} {first[name.lower()]!r} and {name!r} would be one in Sparkplug; rename one")
        first[name.lower()] = name
