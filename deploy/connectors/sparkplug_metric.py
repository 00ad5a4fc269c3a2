"""A metric of a Sparkplug B payload with its properties, and both on the wire.

Field numbers are those of ``Metric``, ``PropertySet`` and ``PropertyValue`` in ``sparkplug_b.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .sparkplug_value import KINDS, PLAIN, DataType, Kind, Value, datatype_of, kind_of, put_value, read_value
from .sparkplug_wire import (
    PayloadError,
    as_number,
    as_raw,
    as_text,
    as_view,
    put_bytes,
    put_number,
    read_fields,
    unsigned,
)

MOST_PROPERTIES = 64
"""Of one metric."""


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


def write_metric(metric: Metric) -> bytes:
    """The metric's bytes; raises :class:`PayloadError` for a value that its data type does not hold."""
    where = f"metric {metric.name or metric.alias!r}"
    out = bytearray()
    if metric.name:
        put_bytes(out, 1, metric.name.encode())
    if metric.alias is not None:
        put_number(out, 2, unsigned(metric.alias, 64, f"{where}: alias"))
    if metric.timestamp_ms is not None:
        put_number(out, 3, unsigned(metric.timestamp_ms, 64, f"{where}: timestamp"))
    if metric.says_type:
        put_number(out, 4, int(metric.datatype))
    if metric.is_historical:
        put_number(out, 5, 1)
    if metric.is_transient:
        put_number(out, 6, 1)
    if metric.value is None:
        put_number(out, 7, 1)
    if metric.properties:
        if len(metric.properties) > MOST_PROPERTIES:
            raise PayloadError(f"{where}: {len(metric.properties)} properties; at most {MOST_PROPERTIES}")
        inside = bytearray()
        for key in metric.properties:
            put_bytes(inside, 1, key.encode())
        for key, prop in metric.properties.items():
            put_bytes(inside, 2, _write_property(prop, f"{where}: property {key!r}"))
        put_bytes(out, 9, inside)
    if metric.value is not None:
        put_value(out, 10, metric.datatype, metric.value, where)
    return bytes(out)


def _write_property(prop: Property, where: str) -> bytes:
    out = bytearray()
    put_number(out, 1, int(prop.datatype))
    if prop.value is None:
        put_number(out, 2, 1)
    elif prop.datatype in (DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST):
        if not isinstance(prop.value, bytes):
            raise PayloadError(f"{where}: sets of properties are carried as bytes")
        put_bytes(out, 9 if prop.datatype is DataType.PROPERTY_SET else 10, prop.value)
    elif KINDS.get(prop.datatype, Kind.BYTES) >= Kind.BYTES:
        raise PayloadError(f"{where}: a property has no value of type {prop.datatype.name}")
    else:
        put_value(out, 3, prop.datatype, prop.value, where)
    return bytes(out)


def read_metric(data: memoryview, types: Mapping[int | str, DataType]) -> Metric:
    """Inverse of :func:`write_metric`; ``types`` as for :func:`~.sparkplug_payload.decode`."""
    name, alias, timestamp_ms = "", None, None
    told: int | None = None
    is_historical = is_transient = is_null = False
    properties: dict[str, Property] = {}
    kind: Kind | None = None
    raw: int | bytes = 0
    for number, wire, value in read_fields(data):
        match number, wire:
            case 1, 2:
                name = as_text(value)
            case 2, 0:
                alias = as_number(value)
            case 3, 0:
                timestamp_ms = as_number(value)
            case 4, 0:
                told = as_number(value) & 0xFFFF_FFFF
            case 5, 0:
                is_historical = as_number(value) != 0
            case 6, 0:
                is_transient = as_number(value) != 0
            case 7, 0:
                is_null = as_number(value) != 0
            case 9, 2:
                properties |= _read_properties(as_view(value))
                if len(properties) > MOST_PROPERTIES:
                    raise PayloadError(f"a metric with more than {MOST_PROPERTIES} properties")
            case _:
                found = kind_of(number - 10, wire)
                if found is not None:
                    kind, raw = found, as_raw(value)
    where = f"metric {name or alias!r}"
    birth = types.get(name) if alias is None else types.get(alias, types.get(name))
    datatype = birth if told is None else datatype_of(told, where)
    if datatype is None:
        datatype = DataType.UNKNOWN if kind is None else PLAIN[kind]
    if is_null:
        kind = None
    elif kind is None:
        raise PayloadError(f"{where}: has neither a value nor is_null")
    return Metric(
        name=name,
        datatype=datatype,
        value=None if kind is None else read_value(kind, raw, datatype, where),
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
    for number, wire, value in read_fields(data):
        if (number, wire) == (1, 2):
            keys.append(as_text(value))
        elif (number, wire) == (2, 2):
            values.append(_read_property(as_view(value)))
        if max(len(keys), len(values)) > MOST_PROPERTIES:
            raise PayloadError(f"a metric with more than {MOST_PROPERTIES} properties")
    if len(keys) != len(values):
        raise PayloadError(f"a set of {len(keys)} property names and {len(values)} values")
    return dict(zip(keys, values, strict=True))


def _read_property(data: memoryview) -> Property:
    told: int | None = None
    is_null = False
    kind: Kind | None = None
    raw: int | bytes = 0
    nested: tuple[DataType, bytes] | None = None
    for number, wire, value in read_fields(data):
        match number, wire:
            case 1, 0:
                told = as_number(value) & 0xFFFF_FFFF
            case 2, 0:
                is_null = as_number(value) != 0
            case (9, 2) | (10, 2):
                nested = (DataType.PROPERTY_SET if number == 9 else DataType.PROPERTY_SET_LIST, bytes(as_view(value)))
                kind = None
            case _:
                found = kind_of(number - 3, wire)
                if found is not None and found < Kind.BYTES:
                    kind, raw, nested = found, as_raw(value), None
    where = "a property"
    if is_null:
        return Property(DataType.UNKNOWN if told is None else datatype_of(told, where), None)
    if nested is not None:
        if told is not None and told != nested[0]:
            raise PayloadError(f"{where}: a set of properties, and of type {told}")
        return Property(*nested)
    if kind is None:
        raise PayloadError(f"{where}: has neither a value nor is_null")
    datatype = PLAIN[kind] if told is None else datatype_of(told, where)
    return Property(datatype, read_value(kind, raw, datatype, where))
