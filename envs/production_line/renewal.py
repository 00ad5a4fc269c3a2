"""What maintenance costs in the long run, by renewal theory: the referee of the wear models, in numpy and SciPy alone.

A machine that is as new after every service earns a long-run cost of ``E[cost of a cycle] / E[length of a cycle]``
(renewal reward: Ross 1996, Stochastic Processes, theorem 3.6.1). Times are in one unit, costs are a unit of that time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from .config import FixedLine, GammaWear, StagedWear, WeibullWear

Floats = NDArray[np.float64]
Survival = Callable[[Floats], Floats]
"""Chance to live longer than each of some ages."""

_NODES, _PANELS, _LEAST_SURVIVAL = 16, 24, 1e-12
_FLAT = 1e-9


@dataclass(frozen=True)
class Prices:
    """Of one service each: what it costs, and how long the machine stands (costs of standing are in the cost)."""

    preventive: float
    corrective: float
    preventive_time: float = 0.0
    corrective_time: float = 0.0


def weibull_survival(shape: float, scale: float) -> Survival:
    """``exp(-(t / scale)^shape)``."""
    return lambda t: np.exp(-((np.asarray(t, dtype=np.float64) / scale) ** shape))


def gamma_survival(rate: float, scale: float, level: float) -> Survival:
    """Of a gamma process of shape ``rate * t`` and ``scale`` that fails where it passes ``level``."""
    return lambda t: np.where(
        np.asarray(t) > 0, special.gammainc(np.maximum(rate * np.asarray(t, dtype=np.float64), 1e-300), level / scale),
        1.0,
    )  # fmt: skip


def staged_survival(advance_pu: Sequence[float]) -> Survival:
    """Of damage that goes on a stage with a chance each slot: a discrete phase-type life, in whole slots."""
    chances = np.array(advance_pu, dtype=np.float64)
    at, alive = np.zeros(len(chances)), [1.0]
    at[0] = 1.0
    while alive[-1] > _LEAST_SURVIVAL:
        moves = at * chances
        at = at - moves
        at[1:] += moves[:-1]
        alive.append(float(at.sum()))
    table = np.array(alive)
    return lambda t: table[np.minimum(np.floor(np.asarray(t)), len(table) - 1).astype(np.int64)]


def survival_of(wear: WeibullWear | GammaWear | StagedWear) -> Survival:
    """Of a machine's wear as its configuration has it, in slots of work."""
    if isinstance(wear, WeibullWear):
        return weibull_survival(wear.shape, wear.scale_slots)
    if isinstance(wear, GammaWear):
        return gamma_survival(wear.shape_per_slot, wear.scale, wear.failure_level)
    return staged_survival(wear.advance_pu)


def age_cost(survival: Survival, prices: Prices, age: float) -> float:
    """Of replacement at ``age`` or at failure, whichever comes first (Barlow & Hunter 1960); ``inf``: at failure."""
    end = _end_of_life(survival) if math.isinf(age) else age
    return float(_age_costs(survival, prices, np.array([end]))[0])


def best_age(survival: Survival, prices: Prices) -> tuple[float, float]:
    """``(age, cost)`` of the best age rule; the age is ``inf`` where none pays, as of a memoryless machine."""
    end = _end_of_life(survival)
    ages = np.geomspace(end * 1e-4, end, 1200)
    costs = _age_costs(survival, prices, ages)
    k = int(costs.argmin())
    at_failure = float(costs[-1])
    if k >= len(ages) - 2 or costs[k] > at_failure * (1.0 - _FLAT):
        return math.inf, at_failure
    low, high = ages[max(0, k - 1)], ages[min(len(ages) - 1, k + 1)]
    found = optimize.minimize_scalar(
        lambda age: age_cost(survival, prices, float(age)), bounds=(low, high), method="bounded",
        options={"xatol": 1e-9 * high},
    )  # fmt: skip
    return float(found.x), float(found.fun)


def own_best_ages(line: FixedLine, part_value: float) -> Floats:
    """The best age of each machine alone, in slots, ``[M]``; parts not made while it is in service are part of the
    cost. ``inf`` for one that does not wear."""
    found = []
    for machine in line.machines:
        upkeep = machine.upkeep
        if upkeep is None:
            found.append(math.inf)
            continue
        prices = Prices(
            upkeep.preventive_cost + part_value * upkeep.preventive_slots,
            upkeep.corrective_cost + part_value * upkeep.corrective_slots,
            upkeep.preventive_slots,
            upkeep.corrective_slots,
        )
        found.append(best_age(survival_of(upkeep.wear), prices)[0])
    return np.array(found)


def slotted_age_cost(survival: Survival, prices: Prices, age_slots: int) -> float:
    """The same in whole slots, as the twin counts: a failure is known at the end of the slot in which it happens."""
    lives = survival(np.arange(age_slots + 1, dtype=np.float64))
    fails = 1.0 - lives[-1]
    length = lives[:-1].sum() + prices.preventive_time * lives[-1] + prices.corrective_time * fails
    return float((prices.preventive * lives[-1] + prices.corrective * fails) / length)


@dataclass(frozen=True)
class Inspected:
    """A gamma process (shape ``rate * t``, ``scale``) that fails, for all to see, where it passes ``level``;
    inspected every ``interval`` for ``inspection``, and replaced where it has reached a threshold by then."""

    rate: float
    scale: float
    level: float
    interval: float
    inspection: float
    preventive: float
    corrective: float


def inspected_cost(rule: Inspected, threshold: float, n_cells: int = 1200) -> float:
    """Of condition-based replacement (Grall, Berenguer & Dieulle 2002), by the renewal recursion over wear.

    ``V(x) = E[cost, time until renewal | wear x after an inspection]`` solves ``V = g + K V``; K's cells come from
    differences of the gamma distribution, wear is taken at the cells' middles, and two cell counts are extrapolated.
    """
    coarse, fine = (_inspected_cost(rule, threshold, n) for n in (n_cells // 2, n_cells))
    # the density of a small shape g is singular, x^(g - 1), which lowers the order from 2 to 1 + g
    order = min(2.0, 1.0 + rule.rate * rule.interval)
    return float(fine + (fine - coarse) / (2.0**order - 1.0))


def monitored_cost(rule: Inspected, threshold: float) -> float:
    """Of the same rule with perfect, free, continuous monitoring: replaced as soon as wear passes ``threshold``.

    The first passage time has mean ``int P(X_t < M) dt``; the jump that passes ``M`` passes the failure level too with
    ``int_0^M u(y) nu(level - y) dy``, of the potential density ``u`` and the tail ``nu(z) = rate E1(z / scale)`` of the
    jumps (Bertoin 1996, Levy Processes, proposition III.2).
    """
    from scipy import integrate

    a, b = rule.rate, rule.scale

    def potential(y: float) -> float:
        def density(t: float) -> float:
            return float(np.exp((a * t - 1.0) * np.log(y / b) - y / b - special.gammaln(a * t)) / b)

        mean = (y / b + 1.0) / a
        return float(integrate.quad(density, 0.0, 4.0 * mean + 30.0 / a, limit=400, points=[mean])[0])

    longest = (threshold / b + 12.0 * math.sqrt(threshold / b) + 40.0) / a
    time = integrate.quad(lambda t: special.gammainc(a * t, threshold / b), 0.0, longest, limit=400)[0]
    fails = integrate.quad(
        lambda y: potential(y) * a * special.exp1((rule.level - y) / b), 0.0, threshold, limit=200, epsabs=1e-9
    )[0]
    return float((rule.preventive + (rule.corrective - rule.preventive) * fails) / time)


def best_threshold(rule: Inspected, n_cells: int = 600) -> tuple[float, float]:
    """``(threshold, cost)`` of the best threshold for a rule's interval."""
    found = optimize.minimize_scalar(
        lambda m: inspected_cost(rule, float(m), n_cells), bounds=(0.05 * rule.level, 0.999 * rule.level),
        method="bounded", options={"xatol": 1e-4 * rule.level},
    )  # fmt: skip
    return float(found.x), float(found.fun)


def _inspected_cost(rule: Inspected, threshold: float, n_cells: int) -> float:
    width = threshold / n_cells
    grown = rule.rate * rule.interval
    # cell 0 is wear 0 exactly (a new machine); the others are [k - 1, k) widths of wear, at their middles
    wear = np.concatenate(([0.0], (np.arange(n_cells) + 0.5) * width))
    edges = np.arange(n_cells + 1) * width
    passed = special.gammainc(grown, np.maximum(edges[None, :] - wear[:, None], 0.0) / rule.scale)
    kernel = np.diff(passed, axis=1)
    lives = special.gammainc(grown, (rule.level - wear) / rule.scale)
    goes_on = passed[:, -1]
    cost = lives * rule.inspection + (lives - goes_on) * rule.preventive + (1.0 - lives) * rule.corrective
    points, weights = np.polynomial.legendre.leggauss(32)
    # s = tau y^2 tames the steep start of small shapes
    y = (points + 1.0) / 2.0
    at, by = rule.interval * y**2, rule.interval * y * weights
    alive = special.gammainc(rule.rate * at[None, :], (rule.level - wear[:, None]) / rule.scale)
    time = alive @ by
    inner = np.eye(n_cells) - kernel[1:]
    solved = np.linalg.solve(inner, np.stack((cost[1:], time[1:]), axis=1))
    first = np.array([cost[0], time[0]]) + kernel[0] @ solved
    return float(first[0] / first[1])


def _age_costs(survival: Survival, prices: Prices, ages: Floats) -> Floats:
    """Cost of each age; the integral of survival by Gauss-Legendre over geometric panels up to each age."""
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    panels = np.concatenate(([0.0], np.geomspace(1e-6, 1.0, _PANELS)))
    low, high = panels[:-1, None], panels[1:, None]
    share = (low + (high - low) * (points + 1.0) / 2.0).ravel()
    by = ((high - low) * weights / 2.0).ravel()
    lives = survival(ages)
    working = (survival(ages[:, None] * share) @ by) * ages
    fails = 1.0 - lives
    length = working + prices.preventive_time * lives + prices.corrective_time * fails
    return (prices.preventive * lives + prices.corrective * fails) / length


def _end_of_life(survival: Survival) -> float:
    """An age that hardly any machine reaches."""
    age = 1.0
    while float(survival(np.array([age]))[0]) > _LEAST_SURVIVAL:
        age *= 1.5
    while float(survival(np.array([age / 1.5]))[0]) <= _LEAST_SURVIVAL and age > 1e-12:
        age /= 1.5
    return age
