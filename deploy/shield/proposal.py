"""What a policy proposes, as one flat vector, and what makes it unusable."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import numeric
from .compiled import FlatCommands
from .decision import Code

Floats = NDArray[np.float64]


class Proposal(NamedTuple):
    """``raw``: ``[n]``, as it came, NaN where there is none. ``codes``: one an agent, what makes its part unusable, or
    None; None for all of them where every part is usable."""

    raw: Floats
    codes: list[Code | None] | None


def read_proposal(proposed: Any, flat: FlatCommands, absent: Code) -> Proposal:
    """Read ``proposed``, ``[N, A]`` a group; ``absent`` says why where it is None, or has holes that others did not
    fill. Never raises for what came in."""
    raw = np.empty(flat.n)
    if _copied(proposed, flat, raw) and math.isfinite(raw.dot(raw)):  # finite only where all of them are
        return Proposal(raw, None)
    codes: list[Code | None] = []
    fine = True
    for name, first, n_assets, n_signals in flat.parts:
        part = raw[first : first + n_assets * n_signals].reshape(n_assets, n_signals)
        found, code = _of_group(proposed, name, (n_assets, n_signals), absent)
        if found is None:
            part[:] = np.nan
            codes += [code] * n_assets
            fine = False
            continue
        part[:] = found
        finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(part), axis=1)
        # Where the caller says why there is none, holes are what the policy left out and not what it got wrong.
        wrong = Code.COMMAND_NOT_FINITE if absent is Code.COMMAND_MISSING else absent
        codes += [None if is_finite else wrong for is_finite in finite]
        fine = fine and bool(finite.all())
    return Proposal(raw, None if fine else codes)


def _copied(proposed: Any, flat: FlatCommands, raw: Floats) -> bool:
    """Copy what is just as it should be, which nearly every proposal is; False at the first doubt."""
    if type(proposed) is not dict:
        return False
    for name, first, n_assets, n_signals in flat.parts:
        part = proposed.get(name)
        if type(part) is not np.ndarray or part.dtype.char != "d" or part.shape != (n_assets, n_signals):
            return False
        raw[first : first + n_assets * n_signals] = part.reshape(-1)
    return True


def _of_group(proposed: Any, name: str, shape: tuple[int, int], absent: Code) -> tuple[Floats | None, Code | None]:
    if proposed is None:
        return None, absent
    try:
        raw = proposed[name]
    except Exception:  # noqa: BLE001 - no mapping, or none of that name
        return None, Code.COMMAND_MISSING
    if raw is None:
        return None, Code.COMMAND_MISSING
    array = numeric(raw, shape)
    if isinstance(array, str):
        return None, Code.COMMAND_SHAPE if array == "shape" else Code.COMMAND_TYPE
    return array, None
