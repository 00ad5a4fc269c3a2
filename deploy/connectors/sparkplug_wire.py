"""The Protocol Buffers wire format (proto2) by hand, as far as Sparkplug B payloads need it: numbers, tags, fields.

What a field's number means is its message's to know; whatever arrives, reading ends with fields or with
:class:`PayloadError`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...envs.errors import PlantError


class PayloadError(PlantError):
    """Bytes that are no Sparkplug B payload, or a payload that cannot be one."""


def read_fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and content of each field; groups, which nobody sends any more, are refused.

    Raises :class:`PayloadError` for bytes that are no fields.
    """
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


def as_number(value: int | memoryview) -> int:
    """Content of a field of wire type 0."""
    assert isinstance(value, int)  # wire type 0; narrows the type
    return value


def as_view(value: int | memoryview) -> memoryview:
    """Content of a field of wire type 2, not copied."""
    assert isinstance(value, memoryview)  # wire type 2; narrows the type
    return value


def as_raw(value: int | memoryview) -> int | bytes:
    """Content of a field of any wire type, its bytes copied."""
    return value if isinstance(value, int) else bytes(value)


def as_text(value: int | memoryview | bytes) -> str:
    """Content of a field of wire type 2 as text; raises :class:`PayloadError` for what is not UTF-8."""
    assert not isinstance(value, int)  # wire type 2; narrows the type
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise PayloadError("a text that is not UTF-8") from error


def unsigned(number: int, bits: int, where: str) -> int:
    """The number itself; raises :class:`PayloadError`, with ``where``, for one that does not fit into ``bits``."""
    if not 0 <= number < 1 << bits:
        raise PayloadError(f"{where}: {number} does not fit into {bits} bits")
    return number


def put_number(out: bytearray, number: int, value: int) -> None:
    """Append field ``number`` with wire type 0; ``value`` is not negative."""
    put_tag(out, number, 0)
    _put_varint(out, value)


def put_bytes(out: bytearray, number: int, value: bytes | bytearray) -> None:
    """Append field ``number`` with wire type 2."""
    put_tag(out, number, 2)
    _put_varint(out, len(value))
    out += value


def put_tag(out: bytearray, number: int, wire: int) -> None:
    """Append what stands before a field's content: its number and wire type."""
    _put_varint(out, number << 3 | wire)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
