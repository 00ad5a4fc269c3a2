"""The second look at barriers and a site's own rows: linear in each asset's own commands, at the state that is seen.

A site's own rows are first gone through all at once, and those left in doubt one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from ...envs.constraint import BarrierConstraint, Declaration, RowsConstraint
from .command_table import Asset
from .verify_reach import Reach, nearest

_LARGEST_PRODUCT = 1e6  # of sums whose order makes less than a tenth of the slack of a row


class Wall(NamedTuple):
    """A barrier, and by asset the place of its first command."""

    constraint: BarrierConstraint
    first: tuple[int, ...]


class OwnRows(NamedTuple):
    """Rows on each asset's own ``width`` commands, and by asset the place of its first; one asset's stand behind the
    other's, in ``span``."""

    constraint: RowsConstraint
    first: tuple[int, ...]
    width: int
    span: slice

    def table(self, values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Their commands ``[N, A]`` of all commands of the site."""
        return np.array(values[self.span], dtype=np.float64).reshape(len(self.first), self.width)


def walls(declaration: Declaration, place: Mapping[tuple[str, int], Asset]) -> list[Wall]:
    """Compile the hard barriers of a declaration."""
    return [
        Wall(c, tuple(place[c.group, i].first for i in range(declaration.nameplate.group(c.group).n_assets)))
        for c in declaration.hard
        if isinstance(c, BarrierConstraint)
    ]


def own_rows(declaration: Declaration, place: Mapping[tuple[str, int], Asset]) -> list[OwnRows]:
    """Compile the hard rows of a site's own."""
    return [_own_rows(declaration, c, place) for c in declaration.hard if isinstance(c, RowsConstraint)]


def wall_kept(
    w: Wall, values: Sequence[float], before: Sequence[float], reach: Reach, measured: Mapping[str, Any] | None
) -> bool:
    """Whether every asset keeps its barrier's row at the measured state. Raises whatever the barrier raises."""
    c = w.constraint
    if measured is None:
        return False
    terms = c.barrier(measured[c.group])
    h, drift, control = terms.h.tolist(), terms.drift.tolist(), terms.control.tolist()
    drift2 = None if c.gain2_per_s is None or terms.drift2 is None else terms.drift2.tolist()
    if c.gain2_per_s is not None and drift2 is None:
        return False
    for i, first in enumerate(w.first):
        if c.gain2_per_s is None or drift2 is None:
            need = c.margin - drift[i] - c.gain_per_s * h[i]
        else:
            g1, g2 = c.gain_per_s, c.gain2_per_s
            need = c.margin - drift2[i] - (g1 + g2) * drift[i] - g1 * g2 * h[i]
        weights = [-x for x in control[i]]
        at = range(first, first + len(weights))
        got = -sum(map(mul, weights, values[first : first + len(weights)]))
        slack = 1e-8 * (1.0 + abs(need) + abs(got))
        if not math.isfinite(sum(weights)):  # an infinite slope is none
            return False
        if got >= need - slack:
            continue
        if not math.isfinite(need):
            return False
        if not nearest(weights, at, values, before, reach, -need, -math.inf, slack):
            return False
    return True


def own_rows_kept(
    r: OwnRows, values: Sequence[float], before: Sequence[float], reach: Reach, seen: Mapping[str, Any] | None
) -> bool:
    """Whether every asset keeps its rows at the state that is seen. Raises whatever the rows raise."""
    if seen is None:
        return False
    terms = r.constraint.rows(seen, r.table(before))
    doubtful = _doubtful(r, terms.control, terms.least, values)
    if doubtful is not None:
        return all(
            _row_kept(terms.control[i, k].tolist(), float(terms.least[i, k]), r.first[i], values, before, reach)
            for i, k in doubtful
        )
    return all(
        _row_kept(slopes, need, first, values, before, reach)
        for first, control, least in zip(r.first, terms.control.tolist(), terms.least.tolist(), strict=True)
        for slopes, need in zip(control, least, strict=True)
    )


def _own_rows(declaration: Declaration, c: RowsConstraint, place: Mapping[tuple[str, int], Asset]) -> OwnRows:
    group = declaration.nameplate.group(c.group)
    width, first = len(group.commanded), tuple(place[c.group, i].first for i in range(group.n_assets))
    return OwnRows(c, first, width, slice(first[0], first[0] + width * len(first)))


def _doubtful(r: OwnRows, control: Any, least: Any, values: Sequence[float]) -> list[tuple[int, int]] | None:
    """Asset and place of each row that is not kept beyond doubt, in order; None where this can't be told at once.

    One product for all rows, since a robot's arm has many. What it passes has half of its slack to spare, more than the
    order of a sum can make, so that :func:`_row_kept` would pass it too; all else is left to that.
    """
    n = len(r.first)
    if type(control) is not np.ndarray or type(least) is not np.ndarray:
        return None
    if control.dtype.char != "d" or least.dtype.char != "d" or control.ndim != 3:
        return None
    if control.shape != (n, control.shape[1], r.width) or least.shape != control.shape[:2]:
        return None
    sent = r.table(values)
    # by Cauchy and Schwarz no sum of products has larger ones; so asked, NaN and infinity are no yes
    if not float(np.vdot(control, control)) * float(np.vdot(sent, sent)) <= _LARGEST_PRODUCT**2:
        return None
    got = np.matmul(control, sent[:, :, None])[:, :, 0]
    slack = np.abs(got)
    slack += 1.0
    slack *= 0.5e-8
    slack += got
    kept = slack >= least  # so asked, a need that is no number or infinite is not kept
    if b"\0" not in kept.tobytes():
        return []
    return [(i, k) for i, k in zip(*(at.tolist() for at in (~kept).nonzero()), strict=True)]


def _row_kept(
    slopes: Sequence[float], need: float, first: int, values: Sequence[float], before: Sequence[float], reach: Reach
) -> bool:
    """Whether one row on the commands from place ``first`` on is kept, or as nearly as they can."""
    if need == -math.inf:
        return True
    got = sum(map(mul, slopes, values[first : first + len(slopes)]))
    slack = 1e-8 * (1.0 + abs(need) + abs(got))
    if not math.isfinite(sum(slopes)):  # an infinite slope is none
        return False
    if got >= need - slack:
        return True
    if not math.isfinite(need):
        return False
    at = range(first, first + len(slopes))
    return nearest([-x for x in slopes], at, values, before, reach, -need, -math.inf, slack)
