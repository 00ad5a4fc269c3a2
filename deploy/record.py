"""The rows of the journal: everything a decision was made of, and everything it led to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..envs.plant import Telemetry
from .shield import Decision, Source

_MAX_NUMBERS = 1_000_000


def decision_record(
    number: int,
    now_s: float,
    telemetry: Telemetry | None,
    proposed: Any,
    decision: Decision,
    policy: Mapping[str, Any],
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """One row of ``kind`` "decision", written before its commands are sent.

    ``previous`` is how the plant answered the row before; ``sources`` lists the assets that are not on their policy.
    """
    return {
        "kind": "decision",
        "number": number,
        "plant_time_s": now_s,
        "telemetry": _telemetry(telemetry),
        "policy": policy,
        "proposed": _arrays(proposed),
        "sent": decision.commands,
        "sources": {
            source.value: [agent for agent, s in decision.source.items() if s is source]
            for source in (Source.SUBSTITUTED, Source.FALLBACK)
        },
        "reasons": [[r.asset, r.signal, r.code.value, r.asked, r.sent, r.limit] for r in decision.reasons],
        "previous": previous,
    }


def _telemetry(telemetry: Telemetry | None) -> Any:
    """All of a reading, times and qualities short where they are equal, and a SHA-256 over its bytes."""
    if not isinstance(telemetry, Telemetry):
        return None if telemetry is None else f"<{type(telemetry).__name__}>"
    return {
        "sequence": telemetry.sequence,
        "received_time_s": telemetry.received_time_s,
        "values": _arrays(telemetry.values),
        "source_time_s": _arrays(telemetry.source_time_s, shorten=True),
        "quality": _arrays(telemetry.quality, shorten=True),
        "sha256": _digest(telemetry),
    }


def _arrays(table: Any, *, shorten: bool = False) -> Any:
    """Arrays by group; what is no array of numbers is named by its type only. ``shorten``: equal numbers become one."""
    if not isinstance(table, Mapping):
        return None if table is None else f"<{type(table).__name__}>"
    found: dict[str, Any] = {}
    for name, raw in table.items():
        try:
            array = np.asarray(raw)
        except Exception:  # noqa: BLE001 - whatever a policy or driver returned; the row must be written all the same
            array = np.array(None)
        if array.dtype.kind not in "fiub" or array.size > _MAX_NUMBERS:
            found[str(name)] = f"<{type(raw).__name__}>"
        elif shorten and array.size and bool(np.all(array == array.flat[0])):
            found[str(name)] = array.flat[0]
        else:
            found[str(name)] = array
    return found


def _digest(telemetry: Telemetry) -> str:
    digest = hashlib.sha256(repr((telemetry.sequence, telemetry.received_time_s)).encode())
    for table in (telemetry.values, telemetry.source_time_s, telemetry.quality):
        for name, raw in table.items() if isinstance(table, Mapping) else ():
            array = np.asarray(raw, dtype=None) if isinstance(raw, (np.ndarray, np.generic)) else np.array(repr(raw))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes() if array.dtype.kind in "fiubU" else repr(type(raw)).encode())
    return digest.hexdigest()
