"""Sparkplug B payloads on the wire: Protocol Buffers (proto2) by hand, for the one message that is needed.

Field numbers and types are those of ``sparkplug_b.proto`` (Eclipse Tahu) and of the Sparkplug 3.0 specification,
chapter 6. What this project has no use for (data sets, templates, arrays) is carried as bytes and not looked into;
unknown fields are skipped, as Protocol Buffers ask. Whatever arrives, :func:`decode` ends with a payload or with
:class:`PayloadError`, and with no more memory than :data:`MOST_BYTES` and :data:`MOST_METRICS` allow.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...envs.errors import PlantError

MOST_BYTES = 4 << 20
MOST_METRICS = 50_000
MOST_PROPERTIES = 64
"""Of one metric."""

Value = bool | int | float | str | bytes | None


class PayloadError(PlantError):
    """Bytes that are no Sparkplug B payload, or a payload that cannot be one."""


class DataType(enum.IntEnum):
    """Indexes of data types (Sparkplug 3.0, 6.4.16)."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


class _Kind(enum.IntEnum):
    """Which field of the ``oneof`` carries a value, counted from the first."""

    INT = 0
    LONG = 1
    FLOAT = 2
    DOUBLE = 3
    BOOLEAN = 4
    STRING = 5
    BYTES = 6
    DATASET = 7
    TEMPLATE = 8


_BITS = {
    DataType.INT8: 8,
    DataType.INT16: 16,
    DataType.INT32: 32,
    DataType.INT64: 64,
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
    DataType.DATETIME: 64,
}
_SIGNED = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)
_KINDS = {
    **{kind: _Kind.LONG if bits == 64 else _Kind.INT for kind, bits in _BITS.items()},
    DataType.FLOAT: _Kind.FLOAT,
    DataType.DOUBLE: _Kind.DOUBLE,
    DataType.BOOLEAN: _Kind.BOOLEAN,
    DataType.STRING: _Kind.STRING,
    DataType.TEXT: _Kind.STRING,
    DataType.UUID: _Kind.STRING,
    DataType.DATASET: _Kind.DATASET,
    DataType.BYTES: _Kind.BYTES,
    DataType.FILE: _Kind.BYTES,
    DataType.TEMPLATE: _Kind.TEMPLATE,
    **{kind: _Kind.BYTES for kind in DataType if kind.name.endswith("_ARRAY")},
}
_PLAIN = {
    _Kind.INT: DataType.UINT32,
    _Kind.LONG: DataType.UINT64,
    _Kind.FLOAT: DataType.FLOAT,
    _Kind.DOUBLE: DataType.DOUBLE,
    _Kind.BOOLEAN: DataType.BOOLEAN,
    _Kind.STRING: DataType.STRING,
    _Kind.BYTES: DataType.BYTES,
    _Kind.DATASET: DataType.DATASET,
    _Kind.TEMPLATE: DataType.TEMPLATE,
}
"""What a value is taken for where nobody says its type."""


@dataclass(frozen=True)
class Property:
    """A property's type and value, None for null; sets of properties are carried as bytes."""

    datatype: DataType
    value: Value


@dataclass(frozen=True)
class Metric:
    """One metric. ``value`` None is null. ``timestamp_ms``: UTC milliseconds.

    ``says_type``: whether the data type stands in the message, as in births; elsewhere it follows from the birth.
    """

    name: str = ""
    datatype: DataType = DataType.UNKNOWN
    value: Value = None
    timestamp_ms: int | None = None
    alias: int | None = None
    properties: Mapping[str, Property] = field(default_factory=dict)
    says_type: bool = True
    is_historical: bool = False
    is_transient: bool = False


@dataclass(frozen=True)
class Payload:
    """A whole message: when it was sent (UTC ms), its metrics, its sequence number (none in deaths and commands)."""

    timestamp_ms: int | None = None
    metrics: tuple[Metric, ...] = ()
    seq: int | None = None
    uuid: str = ""
    body: bytes = b""


def encode(payload: Payload) -> bytes:
    """The payload's bytes; raises :class:`PayloadError` for a value that its data type does not hold."""
    out = bytearray()
    if payload.timestamp_ms is not None:
        _put_number(out, 1, _unsigned(payload.timestamp_ms, 64, "the payload's timestamp"))
    for metric in payload.metrics:
        _put_bytes(out, 2, _metric(metric))
    if payload.seq is not None:
        _put_number(out, 3, _unsigned(payload.seq, 64, "seq"))
    if payload.uuid:
        _put_bytes(out, 4, payload.uuid.encode())
    if payload.body:
        _put_bytes(out, 5, payload.body)
    return bytes(out)


def decode(data: bytes, types: Mapping[int | str, DataType] | None = None) -> Payload:
    """Inverse of :func:`encode`; raises :class:`PayloadError`.

    ``types`` by alias or name, as the birth told them, for metrics that do not say theirs.
    """
    if len(data) > MOST_BYTES:
        raise PayloadError(f"a payload of {len(data)} bytes; at most {MOST_BYTES} are read")
    timestamp_ms: int | None = None
    metrics: list[Metric] = []
    seq: int | None = None
    uuid, body = "", b""
    for number, wire, value in _fields(memoryview(data)):
        match number, wire:
            case 1, 0:
                timestamp_ms = _number(value)
            case 2, 2:
                if len(metrics) == MOST_METRICS:
                    raise PayloadError(f"a payload of more than {MOST_METRICS} metrics")
                metrics.append(_read_metric(_view(value), types or {}))
            case 3, 0:
                seq = _number(value)
            case 4, 2:
                uuid = _text(value)
            case 5, 2:
                body = bytes(_view(value))
    return Payload(timestamp_ms, tuple(metrics), seq, uuid, body)


def _metric(metric: Metric) -> bytes:
    where = f"metric {metric.name or metric.alias!r}"
    out = bytearray()
    if metric.name:
        _put_bytes(out, 1, metric.name.encode())
    if metric.alias is not None:
        _put_number(out, 2, _unsigned(metric.alias, 64, f"{where}: alias"))
    if metric.timestamp_ms is not None:
        _put_number(out, 3, _unsigned(metric.timestamp_ms, 64, f"{where}: timestamp"))
    if metric.says_type:
        _put_number(out, 4, int(metric.datatype))
    if metric.is_historical:
        _put_number(out, 5, 1)
    if metric.is_transient:
        _put_number(out, 6, 1)
    if metric.value is None:
        _put_number(out, 7, 1)
    if metric.properties:
        if len(metric.properties) > MOST_PROPERTIES:
            raise PayloadError(f"{where}: {len(metric.properties)} properties; at most {MOST_PROPERTIES}")
        inside = bytearray()
        for key in metric.properties:
            _put_bytes(inside, 1, key.encode())
        for key, prop in metric.properties.items():
            _put_bytes(inside, 2, _property(prop, f"{where}: property {key!r}"))
        _put_bytes(out, 9, inside)
    if metric.value is not None:
        _put_value(out, 10, metric.datatype, metric.value, where)
    return bytes(out)


def _property(prop: Property, where: str) -> bytes:
    out = bytearray()
    _put_number(out, 1, int(prop.datatype))
    if prop.value is None:
        _put_number(out, 2, 1)
    elif prop.datatype in (DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST):
        if not isinstance(prop.value, bytes):
            raise PayloadError(f"{where}: sets of properties are carried as bytes")
        _put_bytes(out, 9 if prop.datatype is DataType.PROPERTY_SET else 10, prop.value)
    elif _KINDS.get(prop.datatype, _Kind.BYTES) >= _Kind.BYTES:
        raise PayloadError(f"{where}: a property has no value of type {prop.datatype.name}")
    else:
        _put_value(out, 3, prop.datatype, prop.value, where)
    return bytes(out)


def _put_value(out: bytearray, first: int, datatype: DataType, value: Value, where: str) -> None:
    kind = _KINDS.get(datatype)
    if kind is None:
        raise PayloadError(f"{where}: a value of type {datatype.name} cannot be sent")
    number = first + kind
    try:
        if kind in (_Kind.INT, _Kind.LONG):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError
            bits = _BITS[datatype]
            lowest = -(1 << bits - 1) if datatype in _SIGNED else 0
            if not lowest <= value < lowest + (1 << bits):
                raise PayloadError(f"{where}: {value} is no {datatype.name}")
            # Negative numbers are two's complement in the unsigned field (Sparkplug 3.0, 6.4.16).
            _put_number(out, number, value & (0xFFFF_FFFF if kind is _Kind.INT else 0xFFFF_FFFF_FFFF_FFFF))
        elif kind in (_Kind.FLOAT, _Kind.DOUBLE):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError
            _put_tag(out, number, 5 if kind is _Kind.FLOAT else 1)
            out += struct.pack("<f" if kind is _Kind.FLOAT else "<d", value)
        elif kind is _Kind.BOOLEAN:
            if not isinstance(value, bool):
                raise TypeError
            _put_number(out, number, int(value))
        elif kind is _Kind.STRING:
            if not isinstance(value, str):
                raise TypeError
            _put_bytes(out, number, value.encode())
        else:
            if not isinstance(value, bytes):
                raise TypeError
            _put_bytes(out, number, value)
    except (TypeError, OverflowError, UnicodeEncodeError, struct.error) as error:
        raise PayloadError(f"{where}: {value!r:.60} is no {datatype.name}") from error


def _read_metric(data: memoryview, types: Mapping[int | str, DataType]) -> Metric:
    name, alias, timestamp_ms = "", None, None
    told: int | None = None
    is_historical = is_transient = is_null = False
    properties: dict[str, Property] = {}
    kind: _Kind | None = None
    raw: int | bytes = 0
    for number, wire, value in _fields(data):
        match number, wire:
            case 1, 2:
                name = _text(value)
            case 2, 0:
                alias = _number(value)
            case 3, 0:
                timestamp_ms = _number(value)
            case 4, 0:
                told = _number(value) & 0xFFFF_FFFF
            case 5, 0:
                is_historical = _number(value) != 0
            case 6, 0:
                is_transient = _number(value) != 0
            case 7, 0:
                is_null = _number(value) != 0
            case 9, 2:
                properties |= _read_properties(_view(value))
                if len(properties) > MOST_PROPERTIES:
                    raise PayloadError(f"a metric with more than {MOST_PROPERTIES} properties")
            case _:
                found = _kind_of(number - 10, wire)
                if found is not None:
                    kind, raw = found, _raw(value)
    where = f"metric {name or alias!r}"
    birth = types.get(name) if alias is None else types.get(alias, types.get(name))
    datatype = birth if told is None else _datatype(told, where)
    if datatype is None:
        datatype = DataType.UNKNOWN if kind is None else _PLAIN[kind]
    if is_null:
        kind = None
    elif kind is None:
        raise PayloadError(f"{where}: has neither a value nor is_null")
    return Metric(
        name=name,
        datatype=datatype,
        value=None if kind is None else _value(kind, raw, datatype, where),
        timestamp_ms=timestamp_ms,
        alias=alias,
        properties=properties,
        says_type=told is not None,
        is_historical=is_historical,
        is_transient=is_transient,
    )


def _read_properties(data: memoryview) -> dict[str, Property]:
    keys: list[str] = []
    values: list[Property] = []
    for number, wire, value in _fields(data):
        if (number, wire) == (1, 2):
            keys.append(_text(value))
        elif (number, wire) == (2, 2):
            values.append(_read_property(_view(value)))
        if max(len(keys), len(values)) > MOST_PROPERTIES:
            raise PayloadError(f"a metric with more than {MOST_PROPERTIES} properties")
    if len(keys) != len(values):
        raise PayloadError(f"a set of {len(keys)} property names and {len(values)} values")
    return dict(zip(keys, values, strict=True))


def _read_property(data: memoryview) -> Property:
    told: int | None = None
    is_null = False
    kind: _Kind | None = None
    raw: int | bytes = 0
    nested: tuple[DataType, bytes] | None = None
    for number, wire, value in _fields(data):
        match number, wire:
            case 1, 0:
                told = _number(value) & 0xFFFF_FFFF
            case 2, 0:
                is_null = _number(value) != 0
            case (9, 2) | (10, 2):
                nested = (DataType.PROPERTY_SET if number == 9 else DataType.PROPERTY_SET_LIST, bytes(_view(value)))
                kind = None
            case _:
                found = _kind_of(number - 3, wire)
                if found is not None and found < _Kind.BYTES:
                    kind, raw, nested = found, _raw(value), None
    where = "a property"
    if is_null:
        return Property(DataType.UNKNOWN if told is None else _datatype(told, where), None)
    if nested is not None:
        if told is not None and told != nested[0]:
            raise PayloadError(f"{where}: a set of properties, and of type {told}")
        return Property(*nested)
    if kind is None:
        raise PayloadError(f"{where}: has neither a value nor is_null")
    datatype = _PLAIN[kind] if told is None else _datatype(told, where)
    return Property(datatype, _value(kind, raw, datatype, where))


def _value(kind: _Kind, raw: int | bytes, datatype: DataType, where: str) -> Value:
    """What a field says, as its data type has it; raises where the two do not go together."""
    if _KINDS.get(datatype) is not kind:
        raise PayloadError(f"{where}: its type is {datatype.name}, its value came as {kind.name.lower()}_value")
    if isinstance(raw, int):
        if kind is _Kind.BOOLEAN:
            return raw != 0
        if kind is _Kind.INT:
            raw &= 0xFFFF_FFFF
        bits = _BITS[datatype]
        if datatype in _SIGNED:
            whole = 64 if kind is _Kind.LONG else 32
            signed = raw - (1 << whole) if raw >> whole - 1 else raw
            # Some peers send the byte of an Int8 alone, 0xFE for -2; others all 32 bits.
            signed = signed - (1 << bits) if 1 << bits - 1 <= signed < 1 << bits else signed
            if not -(1 << bits - 1) <= signed < 1 << bits - 1:
                raise PayloadError(f"{where}: {signed} is no {datatype.name}")
            return signed
        if raw >> bits:
            raise PayloadError(f"{where}: {raw} is no {datatype.name}")
        return raw
    if kind in (_Kind.FLOAT, _Kind.DOUBLE):
        (number,) = struct.unpack("<f" if kind is _Kind.FLOAT else "<d", raw)
        return float(number)
    return _text(raw) if kind is _Kind.STRING else raw


def _kind_of(position: int, wire: int) -> _Kind | None:
    """Which value a field of the ``oneof`` is; None for another field, or one of another wire type."""
    if not 0 <= position < len(_Kind):
        return None
    kind = _Kind(position)
    wires = {_Kind.INT: 0, _Kind.LONG: 0, _Kind.BOOLEAN: 0, _Kind.FLOAT: 5, _Kind.DOUBLE: 1}
    return kind if wires.get(kind, 2) == wire else None


def _datatype(number: int, where: str) -> DataType:
    try:
        return DataType(number)
    except ValueError:
        raise PayloadError(f"{where}: {number} is no data type of Sparkplug B") from None


def _fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and content of each field; groups, which nobody sends any more, are refused."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise PayloadError(f"a field with the number {number}")
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise PayloadError(f"field {number}: wire type {wire} is not read here")
        if length > end - at:
            raise PayloadError(f"field {number}: {length} bytes announced, {end - at} there")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for k in range(10):
        if at + k >= len(data):
            raise PayloadError("the payload ends inside a number")
        byte = data[at + k]
        number |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + k + 1
    raise PayloadError("a number of more than ten bytes")


def _number(value: int | memoryview) -> int:
    assert isinstance(value, int)  # wire type 0; narrows the type
    return value


def _view(value: int | memoryview) -> memoryview:
    assert isinstance(value, memoryview)  # wire type 2; narrows the type
    return value


def _raw(value: int | memoryview) -> int | bytes:
    return value if isinstance(value, int) else bytes(value)


def _text(value: int | memoryview | bytes) -> str:
    assert not isinstance(value, int)  # wire type 2; narrows the type
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise PayloadError("a text that is not UTF-8") from error


def _unsigned(number: int, bits: int, where: str) -> int:
    if not 0 <= number < 1 << bits:
        raise PayloadError(f"{where}: {number} does not fit into {bits} bits")
    return number


def _put_tag(out: bytearray, number: int, wire: int) -> None:
    _put_varint(out, number << 3 | wire)


def _put_number(out: bytearray, number: int, value: int) -> None:
    _put_tag(out, number, 0)
    _put_varint(out, value)


def _put_bytes(out: bytearray, number: int, value: bytes | bytearray) -> None:
    _put_tag(out, number, 2)
    _put_varint(out, len(value))
    out += value


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
