"""Sparkplug B payloads on the wire: Protocol Buffers (proto2) by hand, for the one message that is needed.

Field numbers and types are those of ``sparkplug_b.proto`` (Eclipse Tahu) and of the Sparkplug 3.0 specification,
chapter 6. What this project has no use for (data sets, templates, arrays) is carried as bytes and not looked into;
unknown fields are skipped, as Protocol Buffers ask. Whatever arrives, :func:`decode` ends with a payload or with
:class:`~.sparkplug_wire.PayloadError`, and with no more memory than :data:`MOST_BYTES` and :data:`MOST_METRICS` allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .sparkplug_metric import Metric, read_metric, write_metric
from .sparkplug_value import DataType
from .sparkplug_wire import PayloadError, as_number, as_text, as_view, put_bytes, put_number, read_fields, unsigned

MOST_BYTES = 4 << 20
MOST_METRICS = 50_000


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
        put_number(out, 1, unsigned(payload.timestamp_ms, 64, "the payload's timestamp"))
    for metric in payload.metrics:
        put_bytes(out, 2, write_metric(metric))
    if payload.seq is not None:
        put_number(out, 3, unsigned(payload.seq, 64, "seq"))
    if payload.uuid:
        put_bytes(out, 4, payload.uuid.encode())
    if payload.body:
        put_bytes(out, 5, payload.body)
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
    for number, wire, value in read_fields(memoryview(data)):
        match number, wire:
            case 1, 0:
                timestamp_ms = as_number(value)
            case 2, 2:
                if len(metrics) == MOST_METRICS:
                    raise PayloadError(f"a payload of more than {MOST_METRICS} metrics")
                metrics.append(read_metric(as_view(value), types or {}))
            case 3, 0:
                seq = as_number(value)
            case 4, 2:
                uuid = as_text(value)
            case 5, 2:
                body = bytes(as_view(value))
    return Payload(timestamp_ms, tuple(metrics), seq, uuid, body)
