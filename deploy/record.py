"""The rows of the journal: everything a decision was made of, and everything it led to; :mod:`.replay` reads them."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agents.policy import Policy
from ..envs.configuration import Strict
from ..envs.nameplate import Nameplate
from ..envs.plant import Telemetry
from .arbitration.claims import claims_row
from .arbitration.reported import slots_row
from .shield import Code, Decision, Mode, Reason, Shield, ShieldState, Source
from .shield.causes import Cause
from .shield.orders import Orders
from .shield.state import named
from .transition import has_timed_out, told_commands

if TYPE_CHECKING:
    from .arbitration.arbiter import Settled, Standing
    from .arbitration.claims import Heard
    from .arbitration.reported import Slots
    from .decider import Question
    from .stand_in import Substitute

ARBITRATION = 1
"""Form of what rows tell of arbitration; journals from before there was any lack it in their start rows."""

_MAX_NUMBERS = 1_000_000
_TOLD_EXACTLY = "d?bhilqBHILQ"
_ORDERS = tuple(field.name for field in fields(Orders))
_NUMBERS = {float: (np.dtype(float), struct.Struct("=d").pack), bool: (np.dtype(bool), struct.Struct("=?").pack)}


def start_record(
    nameplate: Nameplate, policy: Policy, shield: Shield, settings: Strict, mode: Mode, state: ShieldState,
    assets: Collection[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The first row of a run: who controls what, within which limits, from which state; ``assets``: only these."""
    own = {} if assets is None else {"assets": sorted(assets)}
    return own | {
        "kind": "start",
        "utc_s": time.time(),
        "site": nameplate.site,
        "nameplate_hash": nameplate.hash,
        "nameplate": shield.nameplate.to_dict(),
        "policy": policy.name,
        "policy_hash": getattr(policy, "hash", None),
        "declaration_hash": shield.declaration.hash,
        "shield": shield.settings.model_dump(mode="json"),
        "monitors": len(state.monitors),
        "mode": mode.value,
        "applied": state.applied,
        "state_sha256": state_digest(state),
        "runtime": settings.model_dump(mode="json"),
        "arbitration": ARBITRATION,
    }


def decision_record(
    number: int,
    telemetry: Telemetry | None,
    decision: Decision,
    policy: Mapping[str, Any],
    previous: Mapping[str, Any],
) -> dict[str, Any]:
    """What came of one period; of ``kind`` "decision", written before its commands are sent.

    ``previous`` is how the plant answered the row before; ``sources`` lists the assets that are not on their policy,
    ``idle`` the numbers of those for which nothing is sent; ``modes`` is one word where all assets share it;
    ``advised`` what would be sent if all were autonomous, where that is something else.
    """
    sources: dict[str, list[str]] = {Source.SUBSTITUTED.value: [], Source.FALLBACK.value: []}
    for agent, source in decision.source.items():
        if source is not Source.POLICY:
            sources.setdefault(source.value, []).append(agent)
    return {
        "kind": "decision",
        "number": number,
        "telemetry": _telemetry(telemetry),
        "policy": policy,
        "sent": decision.commands,
        "sources": sources,
        "modes": modes_of(decision),
        "idle": {name: places for name, acts in decision.acts.items() if (places := _places_of_false(acts.tolist()))},
        "advised": None if decision.advised is decision.commands else decision.advised,
        "reasons": [_reason(r) for r in decision.reasons],
        "previous": previous,
    }


def given_record(
    now_s: float,
    clock_s: float | None,
    state: ShieldState,
    proposed: Any,
    absent: Code,
    orders: Orders | str,
    causes: frozenset[Cause],
) -> dict[str, Any]:
    """The rest of what :meth:`~.shield.Shield.filter` was given; the state by its SHA-256, since rows follow on."""
    return {
        "plant_time_s": now_s,
        "clock_s": clock_s,
        "state_sha256": state_digest(state),
        "proposed": described(proposed),
        "absent": absent.value,
        "orders": orders_row(orders),
        "causes": sorted(causes),
    }


def arbitration_record(
    standing: Standing,
    heard: Heard,
    settled: Settled,
    slots: Mapping[str, Slots] | None,
    policy_proposed: Any,
    monotonic_s: float,
) -> dict[str, Any]:
    """Who asked for what, where others than the policy did, and whose each command is, where not all are the policy's.

    ``proposed`` of such a row is what came of it; ``policy`` in here is what the policy itself proposed.
    """
    found: dict[str, Any] = {}
    if slots is not None:
        found["slots"] = slots_row(slots)
    if not standing.empty or any(heard.values()):
        found["arbitration"] = {
            "monotonic_s": monotonic_s,
            "heard": claims_row(heard),
            "policy": described(policy_proposed),
            "who": settled.who,
        }
    return found


def missed_record(
    question: Question, instead: Substitute, why: str, previous: Mapping[str, Any], outcome: Mapping[str, Any]
) -> dict[str, Any]:
    """A period without a decision, of ``kind`` "missed": what went out instead, and how the plant answered."""
    return {
        "kind": "missed",
        "number": question.number,
        "plant_time_s": question.now_s,
        "clock_s": question.clock_s,
        "obeyed": told_commands(question.telemetry),
        "watchdog_tripped": has_timed_out(question.telemetry),
        "code": Code.DEADLINE_MISSED.value,
        "why": why,
        "instead": instead.told,
        "is_asleep": instead.is_asleep,
        "sent": instead.decision.commands,
        "previous": previous,
        "outcome": outcome,
    }


def state_digest(state: ShieldState) -> str:
    """SHA-256 over all that the shield remembers, bit for bit."""
    digest = hashlib.sha256()
    for name, value in named(state):
        kind = type(value)
        if kind is np.ndarray:
            digest.update((name + _form(value.dtype, value.shape)).encode())
            digest.update(value.tobytes())
        elif kind in _NUMBERS:  # the same bytes as an array's without dimensions
            dtype, packed = _NUMBERS[kind]
            digest.update((name + _form(dtype, ())).encode())
            digest.update(packed(value))
        elif value is not None:
            array = np.array(value)
            digest.update((name + _form(array.dtype, array.shape)).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _form(kind: np.dtype[Any], shape: tuple[int, ...]) -> str:
    """What stands between an array's name and its bytes in a digest; a site has a few, the same ones every period."""
    return f" {kind.str} {shape}"


def modes_of(decision: Decision) -> Any:
    """One word where all assets share their mode, else the assets by mode."""
    found: dict[str, list[str]] = {}
    for agent, mode in decision.mode.items():
        found.setdefault(mode.value, []).append(agent)
    return next(iter(found)) if len(found) == 1 else found


def orders_row(orders: Orders | str) -> dict[str, Any]:
    """What was ordered, without what was not; in words where it could not be read."""
    if isinstance(orders, str):
        return {"unreadable": orders}
    given = {name: value for name in _ORDERS if (value := getattr(orders, name)) not in (None, False)}
    return {name: sorted(v) if isinstance(v, frozenset) else v for name, v in given.items() if name != "limits" or v}


def _reason(r: Reason) -> list[Any]:
    row = [r.asset, r.signal, r.code.value, r.asked, r.sent, r.limit]
    if r.constraint or r.margin is not None or r.multiplier is not None:
        row += [r.constraint, r.margin, r.multiplier]
    return row


def _telemetry(telemetry: Telemetry | None) -> Any:
    """All of a reading, times and qualities short where they are equal; a SHA-256 over its bytes where they are not all
    in the row."""
    if not isinstance(telemetry, Telemetry):
        return None if telemetry is None else f"<{type(telemetry).__name__}>"
    tables = (telemetry.values, telemetry.source_time_s, telemetry.quality)
    digest = {} if all(map(_is_told_exactly, tables)) else {"sha256": _digest(telemetry)}
    return digest | {
        "sequence": telemetry.sequence,
        "received_time_s": telemetry.received_time_s,
        "values": described(telemetry.values),
        "source_time_s": described(telemetry.source_time_s, like=telemetry.values),
        "quality": described(telemetry.quality, like=telemetry.values),
        "obeyed": told_commands(telemetry),
        "watchdog_tripped": has_timed_out(telemetry),
    }


def _is_told_exactly(table: Any) -> bool:
    """Whether :func:`described` has every number of a table."""
    return isinstance(table, Mapping) and all(
        type(raw) is np.ndarray and raw.dtype.char in _TOLD_EXACTLY and raw.size <= _MAX_NUMBERS
        for raw in table.values()
    )


def described(table: Any, *, like: Any = None) -> Any:
    """Arrays by group; what is no array of numbers is named by its type only.

    Where all numbers are equal, one stands for all, if the array has the shape of that in ``like``.
    """
    if not isinstance(table, Mapping):
        return None if table is None else f"<{type(table).__name__}>"
    found: dict[str, Any] = {}
    shapes = like if isinstance(like, Mapping) else {}
    for name, raw in table.items():
        if type(raw) is np.ndarray:
            array = raw
        else:
            try:
                array = np.asarray(raw)
            except Exception:  # noqa: BLE001 - whatever a policy or driver returned; the row must be written all the same
                array = np.array(None)
        masked = isinstance(raw, np.ma.MaskedArray)  # the shield takes no masked numbers, and a replay must not either
        if masked or array.dtype.kind not in "fiub" or array.size > _MAX_NUMBERS:
            found[str(name)] = None if raw is None else f"<{type(raw).__name__}>"
            continue
        array = array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array  # as the shield takes them
        alike = name in shapes and array.shape == np.shape(shapes[name])
        found[str(name)] = array.flat[0] if alike and _holds_one_number(array) else array
    return found


def _holds_one_number(array: NDArray[Any]) -> bool:
    if array.size == 0:
        return False
    raw, first = array.tobytes(), array.item(0)
    if raw == raw[: array.itemsize] * array.size:  # no arithmetic for what is equal bit for bit, as it nearly always is
        return bool(first == first)  # a NaN is not
    return bool((array == first).all())


def _places_of_false(flags: list[bool]) -> list[int]:
    return [] if all(flags) else [place for place, flag in enumerate(flags) if not flag]


def _digest(telemetry: Telemetry) -> str:
    digest = hashlib.sha256(repr((telemetry.sequence, telemetry.received_time_s)).encode())
    for table in (telemetry.values, telemetry.source_time_s, telemetry.quality):
        for name, raw in table.items() if isinstance(table, Mapping) else ():
            array = np.asarray(raw, dtype=None) if isinstance(raw, (np.ndarray, np.generic)) else np.array(repr(raw))
            digest.update(f"{name}{_form(array.dtype, array.shape)}".encode())
            digest.update(array.tobytes() if array.dtype.kind in "fiubU" else repr(type(raw)).encode())
    return digest.hexdigest()
