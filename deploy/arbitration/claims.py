"""What requesters ask in one period, read into the flat vector of commands; what cannot be read is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..shield.arrays import numeric
from ..shield.compiled import FlatCommands
from .request import Request

Floats = NDArray[np.float64]

MOST_CLAIMS = 100
"""Of one requester in one period; one that asks for more has failed."""


class Claim(NamedTuple):
    """``values``: ``[n]``, NaN where nothing is asked; they stand for ``lasts_s`` should ``who`` not ask again."""

    who: str
    lasts_s: float
    values: Floats


Heard = Mapping[int, tuple[Claim, ...] | None]
"""By slot, what its requester asks; None where it failed to answer."""


def read_claims(requests: Any, slot: int, flat: FlatCommands) -> tuple[tuple[Claim, ...], list[str]]:
    """The requests that can be followed, and in words what is wrong with the others. Raises for what is no sequence."""
    found: list[Claim] = []
    refused: list[str] = []
    if not requests:
        return (), refused
    if len(requests) > MOST_CLAIMS:
        raise ValueError(f"{len(requests)} requests in one period; at most {MOST_CLAIMS} are followed")
    for request in requests:
        wrong = _wrong(request, slot)
        values = np.full(flat.n, np.nan)
        if not wrong:
            wrong = _read(request.values, flat, values)
        if wrong:
            refused.append(wrong)
        else:
            found.append(Claim(request.who, float(request.lasts_s), values))
    return tuple(found), refused


def claims_row(heard: Heard) -> dict[str, Any]:
    """As the journal keeps them: by slot, ``[who, lasts_s, {place: value}]`` each."""
    return {
        str(slot): None if claims is None else [[c.who, c.lasts_s, _sparse(c.values)] for c in claims]
        for slot, claims in heard.items()
    }


def claims_of(row: Mapping[str, Any], n: int) -> dict[int, tuple[Claim, ...] | None]:
    """The inverse of :func:`claims_row`, for ``n`` commands."""
    return {
        int(slot): None if told is None else tuple(Claim(who, lasts_s, _dense(at, n)) for who, lasts_s, at in told)
        for slot, told in row.items()
    }


def _wrong(request: Any, slot: int) -> str:
    if not isinstance(request, Request):
        return f"a {type(request).__name__} instead of a Request"
    if request.slot != slot:
        return f"slot {request.slot} is not its own, which is {slot}"
    is_time = isinstance(request.lasts_s, (int, float)) and math.isfinite(request.lasts_s) and request.lasts_s > 0.0
    if not is_time:
        return f"lasts {request.lasts_s!r} s; give a positive number of seconds"
    return "" if isinstance(request.who, str) and isinstance(request.values, Mapping) else "no name, or no values"


def _read(values: Mapping[str, Any], flat: FlatCommands, into: Floats) -> str:
    known = {name for name, *_ in flat.parts}
    if not known.issuperset(values):
        return f"groups {sorted(map(str, set(values) - known))} are not the site's"
    for name, first, n_assets, n_signals in flat.parts:
        if name not in values:
            continue
        part = numeric(values[name], (n_assets, n_signals))
        if isinstance(part, str):
            return f"{name}: wrong {part} of values"
        if np.isinf(part).any():
            return f"{name}: infinite values"
        into[first : first + n_assets * n_signals] = part.reshape(-1)
    return ""


def _sparse(values: Floats) -> dict[str, float]:
    return {str(i): float(values[i]) for i in np.flatnonzero(~np.isnan(values)).tolist()}


def _dense(at: Mapping[str, float], n: int) -> Floats:
    values = np.full(n, np.nan)
    for place, value in at.items():
        values[int(place)] = value
    return values
