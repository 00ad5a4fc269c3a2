"""A host's side of a Sparkplug B session: what a plant's messages say of it. No network.

A reading is taken as a whole: what devices report is put aside until the node's own message, the last of a period,
comes. A number of the sequence that is missing means that something was lost: then nothing more is believed until the
plant has told everything anew, which :attr:`SparkplugView.wants_rebirth` asks for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import NameplateError, PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Quality
from . import sparkplug_site as names
from .mqtt_address import Kind
from .sparkplug_edge import SEQ_END
from .sparkplug_metric import Metric
from .sparkplug_payload import Payload, decode
from .sparkplug_site import SparkplugSite
from .sparkplug_value import DataType, Value
from .sparkplug_wire import PayloadError


@dataclass(frozen=True)
class Reading:
    """One whole reading: the node's metrics by name, and values, quality, source time of all points, ``[points]``."""

    node: dict[str, Value]
    values: NDArray[np.float64]
    quality: NDArray[np.int8]
    time_s: NDArray[np.float64]

    @property
    def clock_s(self) -> float:
        return _number(self.node, names.CLOCK) / 1e3

    @property
    def heartbeat(self) -> int:
        return _count(self.node, names.HEARTBEAT)

    @property
    def taken(self) -> int:
        return _count(self.node, names.TAKEN)

    @property
    def wall_period_s(self) -> float:
        return _number(self.node, names.WALL_PERIOD)


class SparkplugView:
    """Follows one edge node; not for several threads.

    ``reading``: the last whole one, None before all births. ``is_dead``: its death certificate came. ``wants_rebirth``:
    it must tell everything anew, whoever listens should ask for it; a birth takes it back. ``lost``: why it last was.
    ``fault``: why the node is not the plant that is expected; nothing is read from it.
    """

    def __init__(self, expected: Nameplate | None = None) -> None:
        self._expected = expected
        self.site: SparkplugSite | None = None
        self.reading: Reading | None = None
        self.is_dead = False
        self.wants_rebirth = True
        self.fault = ""
        self.lost = ""
        self._bdseq: Value = None
        self._seq: int | None = None
        self._node: dict[str, Value] = {}
        self._unborn: set[str] = set()
        n = 0
        self._values, self._time_s, self._age_s = np.full((3, n), np.nan)
        self._quality = np.zeros(n, dtype=np.int8)
        self._is_new = np.zeros(n, dtype=bool)

    def take(self, kind: Kind, device: str, data: bytes, *, is_retained: bool = False) -> bool:
        """Take one message of the node; True when it made a reading whole. A damaged one counts as lost."""
        if is_retained:
            return False  # no message of an edge node may be: it is of another time
        try:
            types = None if self.site is None else self.site.types
            payload = decode(data, types)
            if kind == "NDEATH":
                self._die(payload)
                return False
            if kind == "NBIRTH":
                return self._birth(payload)
            return self._follow(kind, device, payload)
        except (PayloadError, NameplateError) as error:
            self._lose(str(error))
            return False

    def forget(self) -> None:
        """The connection was lost: go on when the births have been told again."""
        self._seq, self.wants_rebirth = None, True

    def _die(self, payload: Payload) -> None:
        bdseq = next((m.value for m in payload.metrics if m.name == names.BDSEQ), None)
        if bdseq == self._bdseq:  # another number: the death of an older session
            self.is_dead, self._seq = True, None
            self._stale(slice(None))

    def _birth(self, payload: Payload) -> bool:
        if payload.seq != 0:
            raise PayloadError(f"a birth of the node with the sequence number {payload.seq}; births begin at 0")
        told = {metric.name: metric for metric in payload.metrics}
        lacking = [name for name in (*names.NODE_TYPES, names.BDSEQ) if name not in told]
        if lacking:
            self.fault = f"an edge node answers, but it holds no twinloop plant: its birth has no {lacking[0]!r}"
            raise PayloadError(self.fault)
        self._meet(told)
        site = self.site
        assert site is not None  # _meet has set it, or raised; narrows the type
        self._bdseq = told[names.BDSEQ].value
        self._node = {name: told[name].value for name in names.NODE_TYPES}
        n = len(site.points)
        self._values, self._time_s, self._age_s = np.full((3, n), np.nan)
        self._quality = np.full(n, Quality.BAD, dtype=np.int8)
        self._is_new = np.zeros(n, dtype=bool)
        self._unborn = set() if self._node[names.FAILED] else set(site.devices)
        self._seq, self.is_dead, self.wants_rebirth = 0, False, False
        return not self._unborn and self._whole()

    def _meet(self, told: dict[str, Metric]) -> None:
        """Check that the plant is the one expected; raises :class:`PayloadError`, with the fault."""
        text = told[names.NAMEPLATE].value
        try:
            plate = Nameplate.from_dict(json.loads(text if isinstance(text, str) else ""))
        except (ValueError, RecursionError, NameplateError) as error:
            self.fault = f"the nameplate in the node's birth is none ({error})"
            raise PayloadError(self.fault) from error
        differences = [] if self._expected is None else self._expected.differences(plate)
        if self._expected is None and self.site is not None:
            differences = self.site.nameplate.differences(plate)
        if not differences and told[names.NAMEPLATE_HASH].value != plate.hash:
            differences = [f"its hash is {told[names.NAMEPLATE_HASH].value!r}, its text's {plate.hash}"]
        if differences:
            if self._expected is None:  # a plant that was exchanged is met anew with its next birth
                self.site = self.reading = None
            self.fault = f"the plant there is another one than expected: {'; '.join(differences)}"
            raise PayloadError(self.fault)
        self.fault = ""
        if self.site is None:
            self.site = SparkplugSite(plate)

    def _follow(self, kind: Kind, device: str, payload: Payload) -> bool:
        if self._seq is None or self.site is None:
            self.wants_rebirth = True
            return False
        if payload.seq != (self._seq + 1) % SEQ_END:
            raise PayloadError(f"{kind} {payload.seq} after {self._seq}")
        self._seq = payload.seq
        if kind == "NDATA":
            return self._node_data(payload)
        at = self._span(device)
        if kind == "DDEATH":
            self._stale(at)
            return False
        self._device_data(payload, at)
        if kind != "DBIRTH":
            return False
        told = [(m.name, m.alias, m.datatype) for m in payload.metrics]
        if told != [(p.metric, p.alias, DataType.DOUBLE) for p in self.site.points[at]]:
            self.fault = f"the birth of {device!r} has other metrics than its nameplate"
            raise PayloadError(self.fault)
        was_unborn = bool(self._unborn)
        self._unborn.discard(device)
        return was_unborn and not self._unborn and self._whole()

    def _node_data(self, payload: Payload) -> bool:
        for metric in payload.metrics:
            for name, datatype in names.NODE_TYPES.items():
                if metric.alias == names.node_alias(name) and metric.datatype is datatype:
                    self._node[name] = metric.value
        return not self._unborn and self._whole()

    def _device_data(self, payload: Payload, at: slice) -> None:
        assert self.site is not None  # a birth came before; narrows the type
        first = self.site.points[at.start].alias
        for metric in payload.metrics:
            k = -1 if metric.alias is None else metric.alias - first + at.start
            is_number = metric.value is None or isinstance(metric.value, float)
            if not at.start <= k < at.stop or not is_number or metric.timestamp_ms is None:
                raise PayloadError(f"metric {metric.name or metric.alias!r} is none of its device's")
            value = metric.value if isinstance(metric.value, float) else np.nan
            quality = names.quality_of(metric.properties.get(names.QUALITY))
            self._values[k] = value
            self._quality[k] = Quality.BAD if np.isnan(value) else quality
            self._time_s[k] = metric.timestamp_ms / 1e3
            self._is_new[k] = True

    def _whole(self) -> bool:
        """Make a reading of what was put aside. What was not told again is as old as it was when it was."""
        reading = Reading(dict(self._node), self._values.copy(), self._quality.copy(), self._time_s)
        try:
            clock_s = reading.clock_s
            self._age_s = np.where(self._is_new, clock_s - self._time_s, self._age_s)
            self._time_s = np.where(self._is_new, self._time_s, clock_s - self._age_s)
            _ = reading.heartbeat, reading.taken, reading.wall_period_s
        except PlantError as error:
            raise PayloadError(str(error)) from error
        self._is_new[:] = False
        self.reading = Reading(reading.node, reading.values, reading.quality, self._time_s.copy())
        return True

    def _stale(self, at: slice) -> None:
        self._quality[at] = Quality.BAD
        if self.reading is not None:
            quality = self.reading.quality.copy()
            quality[at] = Quality.BAD
            self.reading = Reading(self.reading.node, self.reading.values, quality, self.reading.time_s)

    def _span(self, device: str) -> slice:
        """Where a device's points stand."""
        assert self.site is not None  # a birth came before; narrows the type
        points = self.site.devices.get(device)
        if points is None:
            raise PayloadError(f"a device {device!r} that the nameplate does not know")
        start = points[0].alias - self.site.points[0].alias
        return slice(start, start + len(points))

    def _lose(self, why: str) -> None:
        self._seq, self.wants_rebirth, self.lost = None, True, why


def _number(node: dict[str, Value], name: str) -> float:
    value = node.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlantError(f"the node's metric {name!r} is no number")
    return float(value)


def _count(node: dict[str, Value], name: str) -> int:
    value = node.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlantError(f"the node's metric {name!r} is no whole number")
    return value
