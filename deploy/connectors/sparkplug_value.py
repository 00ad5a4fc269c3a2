"""Data types of Sparkplug B, and values of them in the fields that carry them.

The fields that carry a value are the same in a metric and in a property, counted from another number on. What this
project has no use for (data sets, templates, arrays) is carried as bytes and not looked into.
"""

from __future__ import annotations

import enum
import struct

from .sparkplug_wire import PayloadError, as_text, put_bytes, put_number, put_tag

Value = bool | int | float | str | bytes | None


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


class Kind(enum.IntEnum):
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
KINDS = {
    **{kind: Kind.LONG if bits == 64 else Kind.INT for kind, bits in _BITS.items()},
    DataType.FLOAT: Kind.FLOAT,
    DataType.DOUBLE: Kind.DOUBLE,
    DataType.BOOLEAN: Kind.BOOLEAN,
    DataType.STRING: Kind.STRING,
    DataType.TEXT: Kind.STRING,
    DataType.UUID: Kind.STRING,
    DataType.DATASET: Kind.DATASET,
    DataType.BYTES: Kind.BYTES,
    DataType.FILE: Kind.BYTES,
    DataType.TEMPLATE: Kind.TEMPLATE,
    **{kind: Kind.BYTES for kind in DataType if kind.name.endswith("_ARRAY")},
}
"""Which field carries a value of a type; no value can be sent of a type that is not here."""
PLAIN = {
    Kind.INT: DataType.UINT32,
    Kind.LONG: DataType.UINT64,
    Kind.FLOAT: DataType.FLOAT,
    Kind.DOUBLE: DataType.DOUBLE,
    Kind.BOOLEAN: DataType.BOOLEAN,
    Kind.STRING: DataType.STRING,
    Kind.BYTES: DataType.BYTES,
    Kind.DATASET: DataType.DATASET,
    Kind.TEMPLATE: DataType.TEMPLATE,
}
"""What a value is taken for where nobody says its type."""


def put_value(out: bytearray, first: int, datatype: DataType, value: Value, where: str) -> None:
    """Append a value as the field of its type, counted from ``first``; raises :class:`PayloadError`, with ``where``."""
    kind = KINDS.get(datatype)
    if kind is None:
        raise PayloadError(f"{where}: a value of type {datatype.name} cannot be sent")
    number = first + kind
    try:
        if kind in (Kind.INT, Kind.LONG):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError
            bits = _BITS[datatype]
            lowest = -(1 << bits - 1) if datatype in _SIGNED else 0
            if not lowest <= value < lowest + (1 << bits):
                raise PayloadError(f"{where}: {value} is no {datatype.name}")
            # Negative numbers are two's complement in the unsigned field (Sparkplug 3.0, 6.4.16).
            put_number(out, number, value & (0xFFFF_FFFF if kind is Kind.INT else 0xFFFF_FFFF_FFFF_FFFF))
        elif kind in (Kind.FLOAT, Kind.DOUBLE):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError
            put_tag(out, number, 5 if kind is Kind.FLOAT else 1)
            out += struct.pack("<f" if kind is Kind.FLOAT else "<d", value)
        elif kind is Kind.BOOLEAN:
            if not isinstance(value, bool):
                raise TypeError
            put_number(out, number, int(value))
        elif kind is Kind.STRING:
            if not isinstance(value, str):
                raise TypeError
            put_bytes(out, number, value.encode())
        else:
            if not isinstance(value, bytes):
                raise TypeError
            put_bytes(out, number, value)
    except (TypeError, OverflowError, UnicodeEncodeError, struct.error) as error:
        raise PayloadError(f"{where}: {value!r:.60} is no {datatype.name}") from error


def read_value(kind: Kind, raw: int | bytes, datatype: DataType, where: str) -> Value:
    """What a field says, as its data type has it; raises :class:`PayloadError` where the two do not go together."""
    if KINDS.get(datatype) is not kind:
        raise PayloadError(f"{where}: its type is {datatype.name}, its value came as {kind.name.lower()}_value")
    if isinstance(raw, int):
        if kind is Kind.BOOLEAN:
            return raw != 0
        if kind is Kind.INT:
            raw &= 0xFFFF_FFFF
        bits = _BITS[datatype]
        if datatype in _SIGNED:
            whole = 64 if kind is Kind.LONG else 32
            signed = raw - (1 << whole) if raw >> whole - 1 else raw
            # Some peers send the byte of an Int8 alone, 0xFE for -2; others all 32 bits.
            signed = signed - (1 << bits) if 1 << bits - 1 <= signed < 1 << bits else signed
            if not -(1 << bits - 1) <= signed < 1 << bits - 1:
                raise PayloadError(f"{where}: {signed} is no {datatype.name}")
            return signed
        if raw >> bits:
            raise PayloadError(f"{where}: {raw} is no {datatype.name}")
        return raw
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        (number,) = struct.unpack("<f" if kind is Kind.FLOAT else "<d", raw)
        return float(number)
    return as_text(raw) if kind is Kind.STRING else raw


def kind_of(position: int, wire: int) -> Kind | None:
    """Which value a field of the ``oneof`` is; None for another field, or one of another wire type."""
    if not 0 <= position < len(Kind):
        return None
    kind = Kind(position)
    wires = {Kind.INT: 0, Kind.LONG: 0, Kind.BOOLEAN: 0, Kind.FLOAT: 5, Kind.DOUBLE: 1}
    return kind if wires.get(kind, 2) == wire else None


def datatype_of(number: int, where: str) -> DataType:
    """The data type of an index; raises :class:`PayloadError` for one that there is not."""
    try:
        return DataType(number)
    except ValueError:
        raise PayloadError(f"{where}: {number} is no data type of Sparkplug B") from None
