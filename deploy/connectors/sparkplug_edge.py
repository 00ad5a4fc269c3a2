"""A plant's side of a Sparkplug B session: which messages are due, in which order, with which numbers. No network.

A session is one connection to a broker. It has a number, ``bdSeq``, which stands in the death that the broker keeps as
its will and in each birth; all messages but deaths are counted from 0 to 255 and round. Data are reported by exception:
a metric goes out when its value, its quality or its age changed, and the node's heartbeat last, so that whoever listens
knows that a reading is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Quality
from . import sparkplug_site as names
from .mqtt_address import Kind, NodeAddress
from .sparkplug_metric import Metric, Property
from .sparkplug_payload import Payload, encode
from .sparkplug_site import Point, SparkplugSite
from .sparkplug_value import DataType, Value

BDSEQ_END = SEQ_END = 256
_MOST_MS = (1 << 63) - 1


@dataclass(frozen=True)
class Message:
    """One MQTT message of a Sparkplug session."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False


@dataclass(frozen=True)
class Snapshot:
    """All that is told of a plant at one moment.

    ``node``: the node's own metrics by name. ``values``, ``quality``, ``time_s``: of each point of the site,
    ``[points]``; NaN is null. ``clock_s``: the plant's clock. ``is_alive`` False: its devices are lost.
    """

    node: dict[str, Value]
    values: NDArray[np.float64]
    quality: NDArray[np.int8]
    time_s: NDArray[np.float64]
    clock_s: float
    is_alive: bool = True


class EdgeNode:
    """Makes the messages of one edge node; not for several threads."""

    def __init__(self, site: SparkplugSite, address: NodeAddress) -> None:
        self._site = site
        self._address = address
        self._bdseq = -1
        self._seq = 0
        self._told: Snapshot | None = None

    @property
    def is_born(self) -> bool:
        """Births were sent in this session."""
        return self._told is not None

    def new_session(self, now_ms: int) -> Message:
        """Begin a session: the death certificate that its CONNECT must carry as the will."""
        self._bdseq = (self._bdseq + 1) % BDSEQ_END
        self._told = None
        return self.death(now_ms)

    def death(self, now_ms: int) -> Message:
        """The death certificate of the session that goes on."""
        payload = Payload(now_ms, (Metric(names.BDSEQ, DataType.INT64, self._bdseq, now_ms),))
        return Message(self._address.topic("NDEATH"), encode(payload), qos=1)

    def births(self, now: Snapshot, now_ms: int) -> list[Message]:
        """Birth of the node, then of all devices; none of them, while the plant has failed."""
        self._seq = 0
        clock_ms = milliseconds(now.clock_s)
        metrics = [
            Metric(names.BDSEQ, DataType.INT64, self._bdseq, clock_ms),
            Metric(names.REBIRTH, DataType.BOOLEAN, False, clock_ms),
            *(Metric(n, t, now.node[n], clock_ms, names.node_alias(n)) for n, t in names.NODE_TYPES.items()),
        ]
        found = [self._message("NBIRTH", "", metrics, now_ms)]
        if now.is_alive:
            found += self._device_births(now, now_ms)
        self._told = now
        return found

    def data(self, now: Snapshot, now_ms: int) -> list[Message]:
        """What changed since it was last told, device by device, then the node's; deaths and births of devices."""
        told = self._told
        assert told is not None  # births come first; narrows the type
        found: list[Message] = []
        if told.is_alive and not now.is_alive:
            found += [self._message("DDEATH", device, [], now_ms) for device in self._site.devices]
        elif now.is_alive and not told.is_alive:
            found += self._device_births(now, now_ms)
        elif now.is_alive:
            found += self._device_data(told, now, now_ms)
        clock_ms = milliseconds(now.clock_s)
        changed = [
            Metric("", datatype, now.node[name], clock_ms, names.node_alias(name), says_type=False)
            for name, datatype in names.NODE_TYPES.items()
            if now.node[name] != told.node[name]
        ]
        if changed:
            found.append(self._message("NDATA", "", changed, now_ms))
        self._told = now
        return found

    def _device_births(self, now: Snapshot, now_ms: int) -> Iterator[Message]:
        at = 0
        for device, points in self._site.devices.items():
            metrics = [
                replace(metric, name=point.metric, says_type=True, properties={**point.properties, **metric.properties})
                for point, metric in zip(points, self._metrics(points, now, at), strict=True)
            ]
            at += len(points)
            yield self._message("DBIRTH", device, metrics, now_ms)

    def _device_data(self, told: Snapshot, now: Snapshot, now_ms: int) -> Iterator[Message]:
        is_same = (now.values == told.values) | (np.isnan(now.values) & np.isnan(told.values))
        age_changed = np.abs((now.clock_s - now.time_s) - (told.clock_s - told.time_s)) > 5e-4
        is_due = ~is_same | (now.quality != told.quality) | age_changed
        at = 0
        for device, points in self._site.devices.items():
            due = is_due[at : at + len(points)]
            metrics = [m for m, is_told in zip(self._metrics(points, now, at), due, strict=True) if is_told]
            at += len(points)
            if metrics:
                yield self._message("DDATA", device, metrics, now_ms)

    @staticmethod
    def _metrics(points: tuple[Point, ...], now: Snapshot, at: int) -> Iterator[Metric]:
        for k, point in enumerate(points, at):
            value = float(now.values[k])
            quality = Quality(int(now.quality[k]))
            # Always told: a metric whose quality was bad would else stay so for whoever keeps the property.
            properties: dict[str, Property] = {names.QUALITY: names.quality_property(quality)}
            yield Metric(
                datatype=DataType.DOUBLE,
                value=None if np.isnan(value) else value,
                timestamp_ms=milliseconds(float(now.time_s[k])),
                alias=point.alias,
                properties=properties,
                says_type=False,
            )

    def _message(self, kind: Kind, device: str, metrics: list[Metric], now_ms: int) -> Message:
        payload = encode(Payload(now_ms, tuple(metrics), self._seq))
        self._seq = (self._seq + 1) % SEQ_END
        return Message(self._address.topic(kind, device), payload)


def milliseconds(time_s: float) -> int:
    """UTC milliseconds; 1970, so stale by any rule, for a time that has none."""
    return min(max(round(time_s * 1e3), 0), _MOST_MS) if np.isfinite(time_s) else 0
