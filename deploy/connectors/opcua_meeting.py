"""What is asked of an OPC UA server before the first command may go to it: is it the plant that we take it for?"""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import ua as _typed_ua

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from ..drivers import opcua_address as address
from .opcua_link import Link

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's

MAX_SKEW_S = 10.0
"""Clocks of two machines that a time service keeps differ by milliseconds; times of readings are compared with ours."""
_TOLD = 4
"""Differences named in a message; the rest is counted."""


@dataclass(frozen=True)
class Met:
    """A server that may be commanded: its nameplate, and when it started."""

    nameplate: Nameplate
    started: dt.datetime | None


async def meet(link: Link[Met], endpoint: str, expected: Nameplate | None, known: Met | None) -> Met:
    """Check clock, nameplate, tags, units and ranges; raises :class:`PlantError` for a server that differs.

    ``known``: what was met before; tags, units and ranges of a server that has run on since are not asked again.
    """
    asked_s = time.time()
    digest, started, clock, *limits = await link.read(
        [
            link.node(address.NAMEPLATE_HASH),
            link.node(ua.ObjectIds.Server_ServerStatus_StartTime),
            link.node(ua.ObjectIds.Server_ServerStatus_CurrentTime),
            link.node(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead),
            link.node(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite),
        ]
    )
    _check_clock(endpoint, clock, 0.5 * (asked_s + time.time()))
    link.reads_a_request, link.writes_a_request = (_whole(limit) for limit in limits)
    since = started.Value.Value if started.Value is not None else None
    if known is not None and since is not None and (known.nameplate.hash, known.started) == (_text(digest), since):
        return known
    (text,) = await link.read([link.node(address.NAMEPLATE)])
    try:
        found = Nameplate.from_dict(json.loads(_text(text)))
    except (ValueError, TypeError) as error:
        raise PlantError(f"{endpoint}: the server's nameplate can't be read ({error}); nothing was sent") from error
    if found.hash != _text(digest):
        raise PlantError(f"{endpoint}: the server's nameplate does not match its own hash; update the server")
    if expected is not None and found.hash != expected.hash:
        differences = "; ".join(expected.differences(found)) or "descriptions or tags"
        raise PlantError(f"{endpoint}: the server is of another plant than expected: {differences}; nothing was sent")
    await _check_nodes(link, endpoint, found)
    return Met(found, since)


def _check_clock(endpoint: str, clock: Any, now_s: float) -> None:
    told = clock.Value.Value if clock.Value is not None else None
    if not isinstance(told, dt.datetime):
        return
    ahead_s = seconds(told) - now_s
    if abs(ahead_s) > MAX_SKEW_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        raise PlantError(
            f"{endpoint}: the server's clock is {abs(ahead_s):.0f} s {where} ours (it says {told:%Y-%m-%dT%H:%M:%S} "
            f"UTC), and at most {MAX_SKEW_S:g} s are allowed: set both by a time service (chrony); nothing was sent"
        )


async def _check_nodes(link: Link[Met], endpoint: str, plate: Nameplate) -> None:
    """All signals are there; units and ranges, where the server tells them, are those of the nameplate."""
    points = (*address.points(plate, "measured"), *address.points(plate, "commanded"))
    values = await link.read([link.node(p.node) for p in points])
    missing = [p for p, value in zip(points, values, strict=True) if _is_unknown(value)]
    if missing:
        raise PlantError(
            f"{endpoint}: the server lacks {len(missing)} of the nameplate's {len(points)} signals: "
            f"{_listed([f'{p.name} (node {p.node})' for p in missing])}; nothing was sent"
        )
    units = await link.read([link.node(f"{p.node}.EngineeringUnits") for p in points])
    ranges = await link.read([link.node(f"{p.node}.EURange") for p in points])
    wrong: list[str] = []
    for point, unit, span in zip(points, units, ranges, strict=True):
        wrong += _differences(point, unit, span)
    if wrong:
        raise PlantError(
            f"{endpoint}: the server's own units or ranges differ from its nameplate: {_listed(wrong)}; set the "
            "server right, or the nameplate; nothing was sent"
        )


def _differences(point: address.Point, unit: Any, span: Any) -> list[str]:
    found: list[str] = []
    signal = point.signal
    told = unit.Value.Value if unit.Value is not None else None
    if isinstance(told, ua.EUInformation):
        name = told.DisplayName.Text or ""
        if name != signal.unit and (told.UnitId == -1 or told.UnitId != address.unit_id(signal.unit)):
            found.append(f"{point.name} in {name!r}, not {signal.unit!r}")
    told = span.Value.Value if span.Value is not None else None
    if isinstance(told, ua.Range):
        ends = ((told.Low, signal.minimum), (told.High, signal.maximum))
        if not all(there == here or math.isclose(there, here, rel_tol=1e-6) for there, here in ends):
            found.append(f"{point.name} in [{told.Low:g}, {told.High:g}], not [{signal.minimum:g}, {signal.maximum:g}]")
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more


def _is_unknown(value: Any) -> bool:
    code = value.StatusCode.value if value.StatusCode is not None else 0
    return code in (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid)


def _text(value: Any) -> str:
    return str(value.Value.Value) if value.Value is not None else ""


def _whole(value: Any) -> int:
    told = value.Value.Value if value.Value is not None else 0
    return told if isinstance(told, int) else 0


def seconds(moment: dt.datetime | None) -> float:
    """UTC seconds of a moment that asyncua gives, with or without a zone; 0 for none."""
    if moment is None:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
