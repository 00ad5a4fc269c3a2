"""The address space of a plant's server: nodes made from its nameplate, and the values that they hold."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asyncua import ua as _typed_ua
from asyncua.server.server import Server

from ...envs.nameplate import Nameplate, Signal
from ...envs.plant import Quality
from . import opcua_address as address
from .opcua_address import Point

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's

_STATUS = {
    Quality.GOOD: ua.StatusCodes.Good,
    Quality.UNCERTAIN: ua.StatusCodes.Uncertain,
    Quality.BAD: ua.StatusCodes.Bad,
}


class SiteNodes:
    """Nodes of one site in ``server``, in the namespace of the number ``index``.

    ``limits``: the signals that clients may command, by node.
    """

    def __init__(self, server: Server, index: int) -> None:
        self._server = server
        self.index = index
        self.limits: dict[str, Signal] = {}

    async def build(
        self, nameplate: Nameplate, points: Sequence[Point], wall_period_s: float, step: Callable[[Any], Awaitable[Any]]
    ) -> None:
        """Make the nodes. Site level first, then a folder an asset; clients call ``step`` as ``Site.Step``."""
        objects = self._server.nodes.objects
        site = await objects.add_object(self._node(address.SITE), ua.QualifiedName(address.SITE, self.index))
        text = json.dumps(nameplate.to_dict())
        for name, value, kind in (
            (address.NAMEPLATE, text, ua.VariantType.String),
            (address.NAMEPLATE_HASH, nameplate.hash, ua.VariantType.String),
            (address.CLOCK, 0.0, ua.VariantType.Double),
            (address.HEARTBEAT, 0, ua.VariantType.UInt32),
            (address.CLIENT_HEARTBEAT, 0, ua.VariantType.UInt32),
            (address.WALL_PERIOD, wall_period_s, ua.VariantType.Double),
            (address.WATCHDOG, False, ua.VariantType.Boolean),
        ):
            short = name.removeprefix(f"{address.SITE}.")
            node = await site.add_variable(self._node(name), ua.QualifiedName(short, self.index), value, kind)
            if name == address.CLIENT_HEARTBEAT:
                await node.set_writable()
        await site.add_method(
            self._node(address.STEP),
            ua.QualifiedName("Step", self.index),
            step,
            [],
            [ua.VariantType.Double],
        )
        farm = await objects.add_object(self._node(nameplate.site), ua.QualifiedName(nameplate.site, self.index))
        folders: dict[str, Any] = {}
        neutral = {g.name: g.neutral() for g in nameplate.groups}
        for point in points:
            if point.asset not in folders:
                folders[point.asset] = await farm.add_object(
                    self._node(f"{nameplate.site}.{point.asset}"), ua.QualifiedName(point.asset, self.index)
                )
            start = float(neutral[point.group][point.column]) if point.kind == "commanded" else 0.0
            await self._add_point(folders[point.asset], point, start)

    def held(self, node: str) -> Any:
        """The value of a node."""
        held: Any = self._server.read_attribute_value(self._node(node))
        return held.Value.Value

    async def put(
        self,
        node: str,
        value: float | bool,
        variant: Any = ua.VariantType.Double,
        *,
        time_s: float,
        quality: Quality = Quality.GOOD,
    ) -> None:
        """Store past the clients' checks, as of ``time_s``. OPC 10000-4, 7.7.1: the value of a bad reading is null."""
        moment = dt.datetime.fromtimestamp(time_s, tz=dt.UTC)
        reading = ua.DataValue(
            ua.Variant(value, variant),
            StatusCode=ua.StatusCode(_STATUS[quality]),
            SourceTimestamp=moment,
            ServerTimestamp=dt.datetime.now(dt.UTC),
        )
        await self._server.write_attribute_value(self._node(node), reading)

    async def _add_point(self, folder: Any, point: Point, start: float) -> None:
        node = await folder.add_variable(
            self._node(point.node), ua.QualifiedName(point.tag, self.index), start, ua.VariantType.Double
        )
        signal = point.signal
        await node.add_property(
            self._node(f"{point.node}.EURange"),
            ua.QualifiedName("EURange", 0),
            ua.Range(Low=signal.minimum, High=signal.maximum),
        )
        unit = ua.EUInformation(
            NamespaceUri=address.UNITS_URI,
            UnitId=address.unit_id(signal.unit),
            DisplayName=ua.LocalizedText(signal.unit),
            Description=ua.LocalizedText(signal.description),
        )
        await node.add_property(
            self._node(f"{point.node}.EngineeringUnits"), ua.QualifiedName("EngineeringUnits", 0), unit
        )
        if point.kind == "commanded":
            await node.set_writable()
            self.limits[point.node] = signal

    def _node(self, name: str) -> Any:
        return ua.NodeId(name, self.index)
