"""One quadratic program with a certificate: the nearest commands inside ranges and rows, or no commands at all.

Minimise ``0.5 * |u - desired|^2`` subject to ``lower <= u <= upper`` and ``rows @ u <= bounds``, solved by daqp
(Arnström, Bemporad & Axehill 2022, IEEE TAC). No solver is believed: daqp calls a problem with a NaN solved. So
whatever goes in is checked and saturated, and what comes out counts only if it is finite, inside its range and keeps
its rows.

Rows with a priority are soft. Where not all can be kept, hard rows are kept always, and each priority in rising order
gets the least sum of squared violations that those before it leave possible (Escande, Mansard & Wieber 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError
from .arrays import every, some

Floats = NDArray[np.float64]

ROW_TOLERANCE = 1e-9
"""How far a hard row may be passed, in half-widths of the widest range, for rows of unit length."""

SATURATION = 1e4
"""Desired commands further from the middle of the ranges than this many half-widths are taken as this far."""

_SOLVER_TOLERANCE = 1e-11
_TINY = 1e-12
_ROOMS = (0.0, 0.01 * ROW_TOLERANCE, ROW_TOLERANCE, 100.0 * ROW_TOLERANCE)
_INFINITE = 1e30  # daqp takes this for no bound


class Status(StrEnum):
    """What became of a program; only the first three carry commands."""

    UNCHANGED = "unchanged"
    """The desired commands keep everything: they are returned as they came."""
    OPTIMAL = "optimal"
    """The nearest commands that keep every row."""
    RELAXED = "relaxed"
    """Every hard row is kept, soft rows are violated as little as possible in their order."""
    INFEASIBLE = "infeasible"
    """No commands keep the ranges and the hard rows together."""
    INVALID = "invalid"
    """Not a number, an empty range, or shapes that do not fit."""
    UNSOLVED = "unsolved"
    """The solver failed, took too long, or its answer did not pass the check."""


class Solution(NamedTuple):
    """``u``: ``[n]``, None unless certified. ``multipliers``: ``[M]`` of the rows, >= 0, the price of each row in the
    objective. ``active``: indices of rows with a price. ``violation``: ``[M]``, 0 but for soft rows of a relaxed
    one."""

    status: Status
    u: Floats | None
    multipliers: Floats
    violation: Floats
    active: tuple[int, ...] = ()
    iterations: int = 0


def warmup() -> None:
    """Import the solver and solve once, so that the first period is as fast as the rest.

    Raises :class:`ConfigurationError` where daqp is not installed.
    """
    try:
        _solver()
    except ImportError as error:
        raise ConfigurationError(
            "rows that couple commands need daqp, which is not installed; pip install 'twinloop[edge]'"
        ) from error
    one, rows = np.ones(2), np.array([[1.0, 1.0], [-1.0, -1.0]])
    for priorities in (None, (None, 1)):
        solve(one, -one, one, rows, np.array([0.5, -0.6]), priorities)
        solve(one, -one, one, rows, np.array([0.5, 0.6]), priorities)


def solve(
    desired: Any,
    lower: Any,
    upper: Any,
    rows: Any,
    bounds: Any,
    priorities: Sequence[int | None] | None = None,
    *,
    scale: Any = None,
    iterations: int = 1000,
    time_limit_s: float = 0.1,
) -> Solution:
    """The nearest commands ``[n]`` that keep ``lower``, ``upper`` ``[n]`` and ``rows`` ``[M, n]`` ``<= bounds``
    ``[M]``.

    ``priorities``: one a row, None for hard ones; absent, all rows are hard. ``scale``: ``[n]``, positive; distances
    are then measured in ``(u - desired) / scale``, for commands of unlike units. A bound of +inf is no bound. Infinite
    desired commands are saturated, a NaN anywhere makes the program ``INVALID``. Never raises.

    ``iterations`` caps the work the same way each time, so that a journal replays; ``time_limit_s`` is wall time, a net
    below it that a busy machine alone must not reach.
    """
    with np.errstate(all="ignore"):  # infinities and NaN are judged here, not warned of
        return solve_quietly(desired, lower, upper, rows, bounds, priorities, scale, iterations, time_limit_s)


def solve_quietly(
    desired: Any, lower: Any, upper: Any, rows: Any, bounds: Any, priorities: Sequence[int | None] | None = None,
    scale: Any = None, iterations: int = 1000, time_limit_s: float = 0.1,
) -> Solution:  # fmt: skip
    """:func:`solve` for a caller that has told numpy already to warn of nothing."""
    try:
        return _solve(desired, lower, upper, rows, bounds, priorities, scale, iterations, time_limit_s)
    except Exception:  # noqa: BLE001 - whatever came in or went wrong: no commands, and the ladder goes on
        return _nothing(Status.UNSOLVED, _length(bounds))


def _solve(
    desired: Any, lower: Any, upper: Any, rows: Any, bounds: Any,
    priorities: Sequence[int | None] | None, scale: Any, iterations: int, time_limit_s: float,
) -> Solution:  # fmt: skip
    try:
        u0, lo, hi = np.asarray(desired, np.float64), np.asarray(lower, np.float64), np.asarray(upper, np.float64)
        a, b = np.asarray(rows, np.float64), np.asarray(bounds, np.float64)
        s = None if scale is None else np.asarray(scale, np.float64)
    except (TypeError, ValueError):  # text, ragged lists, objects
        return _nothing(Status.INVALID, _length(bounds))
    n, m = u0.size, b.size
    fits = u0.shape == lo.shape == hi.shape == (n,) and a.shape == (m, n) and b.shape == (m,) and n > 0
    fits = fits and (priorities is None or len(priorities) == m) and (s is None or s.shape == (n,))
    if not fits or not _numbers(u0, lo, hi, a, b, s):
        return _nothing(Status.INVALID, m)
    if not (some(a.dot(u0) > b) or some(u0 < lo) or some(u0 > hi)):
        return Solution(Status.UNCHANGED, u0.copy(), np.zeros(m), np.zeros(m))
    problem = _scaled(u0, lo, hi, a, b, s)
    if priorities is None or all(q is None for q in priorities):
        return _certified(problem, _all_hard(problem, problem.b, iterations, time_limit_s))
    tried = _all_hard(problem, problem.b, iterations, time_limit_s)
    if tried.status is Status.OPTIMAL:
        done = _certified(problem, tried)
        if done.u is not None:
            return done
    return _relaxed(problem, tuple(priorities), iterations, time_limit_s)


class _Problem(NamedTuple):
    """The program in ``z = (u - middle) / scale``, with rows of unit length; ``far``: ``[M]``, the highest ``a @ z``;
    ``zero``: rows of no length, None where there are none."""

    lo: Floats
    hi: Floats
    z0: Floats
    a: Floats
    b: Floats
    far: Floats
    zero: NDArray[np.bool_] | None
    middle: Floats
    scale: Floats
    length: Floats
    price: float
    lower: Floats
    upper: Floats


class _Raw(NamedTuple):
    status: Status
    z: Floats | None = None
    prices: Floats | None = None
    iterations: int = 0


def _scaled(u0: Floats, lo: Floats, hi: Floats, a: Floats, b: Floats, s: Floats | None) -> _Problem:
    middle, half = 0.5 * (lo + hi), 0.5 * (hi - lo)
    if s is None:
        common = float(half.max()) or 1.0
        scale, z_half, z0, at, price = _ones(u0.size) * common, half / common, (u0 - middle) / common, a, common**2
    else:
        common, scale, z_half, z0, at, price = 1.0, s, half / s, (u0 - middle) / s, a * s, 1.0
    length = np.sqrt(np.einsum("ij,ij->i", at, at))
    if common != 1.0:
        length *= common
    lengths, zero = length.tolist(), None
    if min(lengths, default=1.0) <= _TINY * max(lengths, default=0.0):
        # 0 <= bound is true or false whatever is sent, which is judged by the bound alone
        zero = length <= _TINY * length.max()
        length = np.where(zero, float(scale.max()), length)
    at = at * (common / length)[:, None]
    if not float(z0.dot(z0)) <= SATURATION**2:  # seldom: most of what is desired is near the range
        reach = SATURATION * np.maximum(z_half, 1.0)
        z0 = np.minimum(np.maximum(z0, -reach), reach)
    return _Problem(
        -z_half, z_half, z0, at, (b - a.dot(middle)) / length, np.abs(at).dot(z_half), zero,
        middle, scale, length, price, lo, hi,
    )  # fmt: skip


def _all_hard(problem: _Problem, bounds: Floats, iterations: int, time_limit_s: float) -> _Raw:
    """Solve with every row as hard; rows that nothing in the ranges can pass are left out, and bounds thereby
    finite."""
    p = problem
    n = p.z0.size
    if some(bounds + p.far < -ROW_TOLERANCE):
        return _Raw(Status.INFEASIBLE)
    in_reach = bounds < p.far if p.zero is None else (bounds < p.far) & ~p.zero
    needed, everything = in_reach, every(in_reach)
    a, b = (p.a, bounds) if everything else (p.a[needed], bounds[needed])
    x, _, flag, info = _solver()(
        _identity(n), -p.z0, a, np.concatenate((p.hi, b)), np.concatenate((p.lo, _endless(len(b)))),
        primal_tol=_SOLVER_TOLERANCE, iter_limit=iterations, time_limit=time_limit_s,
    )  # fmt: skip
    if flag != 1:
        return _Raw(Status.INFEASIBLE if flag == -1 else Status.UNSOLVED)
    prices = info["lam"][n:]
    if not everything:
        prices = np.zeros(len(bounds))
        prices[needed] = info["lam"][n:]
    return _Raw(Status.OPTIMAL, x, prices, int(info["iterations"]))


def _certified(problem: _Problem, raw: _Raw, allowed: Floats | None = None) -> Solution:
    """Believe nothing: finite, in range, rows kept but for the violation that is ``allowed`` ``[M]``, prices >= 0."""
    p, m = problem, len(problem.b)
    if raw.z is None or raw.prices is None:
        return _nothing(raw.status, m)
    z = np.minimum(np.maximum(raw.z, p.lo), p.hi)
    slack = p.a.dot(z) - p.b
    u = np.minimum(np.maximum(p.middle + p.scale * z, p.lower), p.upper)
    sound = isfinite(u.dot(u)) and isfinite(raw.prices.dot(raw.prices))
    off = z - raw.z
    if not sound or some(raw.prices < -ROW_TOLERANCE) or float(off.dot(off)) > ROW_TOLERANCE**2:
        return _nothing(Status.UNSOLVED, m)
    if not every(slack <= (ROW_TOLERANCE if allowed is None else allowed + ROW_TOLERANCE)):  # so asked, a NaN is no yes
        return _nothing(Status.UNSOLVED, m)
    prices = np.maximum(raw.prices, 0.0)
    violation = np.zeros(m)
    if allowed is not None:
        violation = np.where(allowed > 0, np.maximum(slack, 0.0), 0.0) * p.length
    active = tuple([k for k, price in enumerate(prices.tolist()) if price > ROW_TOLERANCE])
    return Solution(raw.status, u, prices * (p.price / p.length), violation, active, raw.iterations)


def _relaxed(problem: _Problem, priorities: tuple[int | None, ...], iterations: int, time_limit_s: float) -> Solution:
    """Hard rows first; then the least violation of each priority in turn, and the nearest commands to those."""
    p, m = problem, len(problem.b)
    is_soft = np.array([q is not None for q in priorities])
    alone = np.where(is_soft, np.inf, p.b)
    hard = _all_hard(p, alone, iterations, time_limit_s)
    if hard.z is None:
        return _nothing(hard.status, m)
    n = p.z0.size
    zero = np.zeros(m, dtype=np.bool_) if p.zero is None else p.zero
    hard_rows = np.flatnonzero((alone < p.far) & ~zero)
    order, ends = [hard_rows], [n + len(hard_rows)]
    for level in sorted({q for q in priorities if q is not None}):
        found = [i for i, q in enumerate(priorities) if q == level and p.b[i] < p.far[i] and not zero[i]]
        if found:
            order.append(np.array(found))
            ends.append(ends[-1] + len(found))
    rows = np.concatenate(order).astype(np.intp)
    bound = np.maximum(p.b[rows], -SATURATION * (1.0 + p.far[rows]))
    goal = np.minimum(np.maximum(p.z0, p.lo), p.hi)
    x, _, flag, _ = _solver()(
        _identity(n), np.zeros(n), np.vstack((p.a[rows], _identity(n))), np.concatenate((p.hi, bound, goal)),
        np.concatenate((p.lo, -_INFINITE * _ones(len(rows)), goal)), np.zeros(2 * n + len(rows), dtype=np.int32),
        break_points=np.array([*ends, ends[-1] + n], dtype=np.int32),
        primal_tol=_SOLVER_TOLERANCE, iter_limit=iterations, time_limit=time_limit_s,
    )  # fmt: skip
    if flag < 1 or not np.isfinite(x).all():
        return _nothing(Status.UNSOLVED, m)
    # how far each soft row is passed there; with that much allowed, the last program gives the nearest commands
    passed = np.where(is_soft, np.maximum(p.a @ np.minimum(np.maximum(x, p.lo), p.hi) - p.b, 0.0), 0.0)
    for room in _ROOMS:  # at sharp corners rounding closes what is only just open: soft rows then get a hair more
        raw = _all_hard(p, p.b + np.where(is_soft, passed + room, 0.0), iterations, time_limit_s)
        if raw.z is not None:
            done = _certified(p, raw, np.where(is_soft, passed + room, 0.0))
            if done.u is not None:
                return Solution(
                    Status.RELAXED, done.u, done.multipliers, done.violation, done.active, done.iterations
                )  # fmt: skip
    return _nothing(Status.UNSOLVED, m)


def _numbers(u0: Floats, lo: Floats, hi: Floats, a: Floats, b: Floats, s: Floats | None) -> bool:
    """Whether each is what it must be: ranges finite and not inverted, rows finite, no NaN, scales positive."""
    # a sum of products is finite only where all its factors are, and costs a tenth of asking each
    if not isfinite(np.vdot(a, a)) or some(lo > hi):
        return False
    if not isfinite(lo.dot(hi)) and not (isfinite(lo.dot(lo)) and isfinite(hi.dot(hi))):
        return False
    if not isfinite(b.dot(b)) and some(np.isnan(b)):
        return False
    if s is not None:
        if not every(s > 0):
            return False
        if isfinite(u0.dot(s)):
            return True
        if not isfinite(s.dot(s)):
            return False
    return isfinite(u0.dot(u0)) or not some(np.isnan(u0))


def _nothing(status: Status, m: int) -> Solution:
    return Solution(status, None, np.zeros(m), np.zeros(m))


def _length(bounds: Any) -> int:
    return int(bounds.size) if isinstance(bounds, np.ndarray) else 0


@cache
def _solver() -> Any:
    """The function of daqp: looked up once, at the first program and not at import."""
    import daqp

    return daqp.solve


@cache
def _identity(n: int) -> Floats:
    return np.eye(n)


@cache
def _endless(n: int) -> Floats:
    return np.full(n, -_INFINITE)


@cache
def _ones(n: int) -> Floats:
    return np.ones(n)
