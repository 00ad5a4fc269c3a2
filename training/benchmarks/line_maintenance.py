"""What maintenance costs in the production-line twin, against renewal theory: Weibull lives and gamma processes."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...agents.controllers.line_maintenance import AgeReplacement, ConditionThreshold, RunToFailure
from ...agents.policy import Policy
from ...envs.nameplate import Nameplate
from ...envs.production_line import renewal
from ...envs.production_line.config import LineConfig
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED
from ...envs.production_line.twin import ProductionLineTwin
from ..report import Cell, Table, print_table, provenance, say
from .line_memoryless import calls_of_learned

Floats = NDArray[np.float64]

NAME = "line_maintenance"
SUMMARY = "maintenance of worn machines in the line's twin: cost and best age against renewal theory"

COST_BAR, ERRORS_BAR, AGE_BAR = 0.003, 3.0, 0.01
ETA = 100.0
"""Weibull scale in the units of the published table; a unit is as many slots as its case says."""
REPLICAS, LIVES = 16_384, 65_536
_LONG_PERIOD = 20
"""Slots of a period where nobody decides anything: runs to failure."""
_WORKED = [s.name for s in MEASURED].index("parts")
_AGE = [s.name for s in MEASURED].index("age_slots")
_COST, _RENEWALS, _FAILURES = ([s.name for s in HIDDEN].index(n) for n in ("service_cost", "renewals", "failures"))


@dataclass(frozen=True)
class WeibullCase:
    """``shape``, ``corrective`` cost (preventive: 1), slots a unit of time, published best cost, cycles to simulate."""

    shape: float
    corrective: float
    slots_per_unit: float
    published: float
    cycles: float


WEIBULL = (
    WeibullCase(2.0, 5.0, 2.0, 0.040852, 0.6e6),
    WeibullCase(2.0, 10.0, 1.5, 0.060561, 1.6e6),
    WeibullCase(3.0, 10.0, 1.0, 0.039494, 1.6e6),
    WeibullCase(2.5, 20.0, 0.8, 0.063840, 3.2e6),
    WeibullCase(1.0, 10.0, 3.0, 0.1, 0.4e6),
)


@dataclass(frozen=True)
class GammaCase:
    """A gamma process, its rule, slots a unit of time; ``monitored``: a sensor shows wear in every slot."""

    name: str
    rule: renewal.Inspected
    threshold: float
    slots_per_unit: float
    cycles: float
    published: float | None = None
    monitored: bool = False


_FACTS = {"rate": 1.0, "scale": 1.0, "level": 20.0, "preventive": 10.0, "corrective": 60.0}
GAMMA = (
    GammaCase(
        "inspected every 4", renewal.Inspected(**_FACTS, interval=4.0, inspection=0.5), 12.5, 10.0, 0.18e6, 0.86246
    ),
    GammaCase(
        "inspected every 6, coarser",
        renewal.Inspected(0.5, 2.0, 30.0, interval=6.0, inspection=1.0, preventive=8.0, corrective=60.0),
        17.4, 20.0, 0.2e6,
    ),
    GammaCase(
        "a sensor read every quarter", renewal.Inspected(**_FACTS, interval=0.25, inspection=0.0), 16.6, 4.0, 0.16e6,
        monitored=True,
    ),
)  # fmt: skip

DESCRIPTION = """\
One machine that never starves, in many replicas of the twin, under the classical rules; money over slots of work, so
that the time in service does not count. Replicas stop at their first renewal after a fixed number of slots, where the
ratio of sums is exactly that of means (Wald). Bars: within 3 standard errors of, and 0.3 % from, the closed form; the
best age, by quadrature and by a life distribution that is learnt from lives in the twin, within 1 %; a memoryless
machine is never maintained, neither by the age rule's optimiser nor by a learned policy. Standard errors are judged
against the closed form in whole slots, since a failure is known at its slot's end, shares against the one in continuous
time. About 6 CPU minutes.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the cycles to simulate (1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of chance (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table")


def run(arguments: argparse.Namespace) -> int:
    """Simulate and compare; 0 when all bars are met."""
    began = time.process_time()
    costs: list[tuple[Cell, ...]] = []
    ages: list[tuple[Cell, ...]] = []
    calls = calls_of_learned(arguments.seed)
    met = [calls.memoryless == 0.0, calls.ageing > 0.0]
    say(f"learned, asks for service: memoryless {calls.memoryless}, ageing {calls.ageing}")
    for k, case in enumerate(WEIBULL):
        found, told, age = _weibull(case, arguments.share, arguments.seed + 10 * k)
        met += [*found]
        costs.append(told)
        ages.append(age)
        say(f"{told}, best age {age[1:]}: {time.process_time() - began:.0f} s")
    for k, gamma in enumerate(GAMMA):
        found, told = _gamma(gamma, arguments.share, arguments.seed + 1000 + 10 * k)
        met += found
        costs.append(told)
        say(f"{told}: {time.process_time() - began:.0f} s")
    found, rows, order = _ordering(arguments.share, arguments.seed + 2000)
    met += [*found, order]
    costs += rows
    columns = (
        "case", "published", "closed form", "in slots", "twin", "standard error", "off by, errors", "off by, %", "met"
    )  # fmt: skip
    notes = (
        "Costs a unit of time of work. Closed form: renewal reward, by quadrature or the renewal recursion over wear.",
        "Perfect monitoring, published as 0.6011, is 0.6025 by quadrature and by the recursion's limit, which share no "
        "line.",
        f"Run to failure > best age > inspections > perfect sensing, on the same gamma process: {_yes(order)}.",
    )
    first = Table("Maintenance of one machine", columns, tuple(costs), notes)
    second = Table(
        "The best age",
        ("case", "published", "quadrature", "learnt from lives in the twin", "off by, %", "met"),
        tuple(ages),
        (f"{LIVES * arguments.share:,.0f} lives each, run to failure; shape and scale by maximum likelihood, then "
         "the same optimiser.",),
    )  # fmt: skip
    third = Table(
        "A learned policy (PPO), share of periods in which it asks for service",
        ("machine", "share", "bar", "met"),
        (
            ("memoryless (shape 1)", f"{calls.memoryless:.6f}", "0", _yes(calls.memoryless == 0.0)),
            ("the same that ages (shape 3)", f"{calls.ageing:.6f}", "> 0", _yes(calls.ageing > 0.0)),
        ),
        (f"cost over that of the best age, of the machine that ages: {calls.over_best_age:+.2%}",),
    )
    for table in (first, second, third):
        print_table(table)
    if arguments.out is not None:
        made = provenance((arguments.seed,), cpu_s=round(time.process_time() - began, 1))
        for table, stem in ((first, NAME), (second, "best_age"), (third, "memoryless")):
            table.write(arguments.out, stem, made)
    return 0 if all(met) else 1


@dataclass(frozen=True)
class Cost:
    """A long-run cost a slot of work, and its standard error."""

    mean: float
    error: float


def one_machine(
    wear: dict[str, Any], preventive: float, corrective: float, inspection: float = 0.0, long_period: bool = False
) -> LineConfig:
    """A machine that is always fed and never waits for a crew.

    ``long_period``: nobody decides for 20 slots, and a repair takes longer, so that a period has one failure at most.
    """
    upkeep = {
        "wear": wear, "preventive_slots": 1, "corrective_slots": _LONG_PERIOD + 1 if long_period else 1,
        "inspection_slots": 0, "preventive_cost": preventive, "corrective_cost": corrective,
        "inspection_cost": inspection,
    }  # fmt: skip
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "upkeep": upkeep}
    return LineConfig.model_validate({
        "line": {"kind": "fixed", "machines": [machine], "capacities": [], "parallel": True},
        "slots_per_period": _LONG_PERIOD if long_period else 1,
    })  # fmt: skip


def long_run_cost(
    config: LineConfig, rule: Callable[[Nameplate], Policy], slots: int, seed: int, replicas: int = REPLICAS
) -> Cost:
    """Money over slots of work, from whole cycles alone: each replica stops at its first renewal after ``slots``."""
    twin = ProductionLineTwin(config, replicas, dtype=torch.float64)
    policy = rule(twin.nameplate)
    memory = policy.start(replicas)
    readings = twin.reset(torch.arange(replicas) + seed * replicas)
    cost, work = np.zeros(replicas), np.zeros(replicas)
    renewals, going = np.zeros(replicas), np.ones(replicas, dtype=bool)
    periods, counted_from = 0, max(1, round(slots / config.slots_per_period))
    while going.any():
        commands, memory = policy.act(readings.observation(config.dt_s), memory)
        readings = twin.step({name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in commands.items()})
        hidden, measured = (part[MACHINE][:, 0].numpy() for part in (readings.hidden, readings.measured))
        work += np.where(going, measured[:, _WORKED], 0.0)
        periods += 1
        if periods < counted_from:
            continue
        if periods == counted_from:
            renewals = hidden[:, _RENEWALS].copy()
        ends = going & (hidden[:, _RENEWALS] > renewals)
        cost[ends] = hidden[ends, _COST]
        if config.slots_per_period > 1:  # the next failure may have come in the same period
            cost[ends] = hidden[ends, _RENEWALS] * config.line.machines[0].upkeep.corrective_cost  # type: ignore[union-attr]
        work[ends] -= measured[ends, _AGE]  # of the next cycle
        going &= ~ends
    mean = cost.sum() / work.sum()
    spread = (cost - mean * work).std(ddof=1) / (work.mean() * math.sqrt(replicas))
    return Cost(float(mean), float(spread))


def lives(wear: dict[str, Any], n: int, seed: int) -> Floats:
    """Slots of work until failure of ``n`` new machines."""
    config, found = one_machine(wear, 1.0, 1.0, long_period=True), []
    replicas = min(n, REPLICAS)
    for k in range(math.ceil(n / replicas)):
        twin = ProductionLineTwin(config, replicas, dtype=torch.float64)
        readings = twin.reset(torch.arange(replicas) + (seed + k) * replicas)
        neutral = {
            g.name: torch.from_numpy(np.tile(g.neutral(), (replicas, g.n_assets, 1))) for g in twin.nameplate.groups
        }
        life, alive = np.zeros(replicas), np.ones(replicas, dtype=bool)
        while alive.any():
            readings = twin.step(neutral)
            life += np.where(alive, readings.measured[MACHINE][:, 0, _WORKED].numpy(), 0.0)
            alive &= readings.hidden[MACHINE][:, 0, _FAILURES].numpy() < 1
        found.append(life)
    return np.concatenate(found)[:n]


def fitted_weibull(life_slots: Floats) -> tuple[float, float]:
    """Shape and scale of greatest likelihood; a life of ``k`` slots ended within the ``k``-th."""
    from scipy import optimize

    slots, counts = np.unique(life_slots, return_counts=True)

    def loss(log_parameters: Floats) -> float:
        shape, scale = np.exp(log_parameters)
        before, after = ((slots - 1.0) / scale) ** shape, (slots / scale) ** shape
        chance = np.exp(-before) * -np.expm1(before - after)
        return float(-(counts * np.log(np.maximum(chance, 1e-300))).sum() / counts.sum())

    begin = np.log([1.5, float(life_slots.mean())])
    found = optimize.minimize(loss, begin, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    shape, scale = np.exp(found.x)
    return float(shape), float(scale)


def _weibull(case: WeibullCase, share: float, seed: int) -> tuple[list[bool], tuple[Cell, ...], tuple[Cell, ...]]:
    unit = case.slots_per_unit
    prices = renewal.Prices(1.0, case.corrective)
    survival = renewal.weibull_survival(case.shape, ETA * unit)
    age, _ = renewal.best_age(survival, prices)
    never = math.isinf(age)
    whole = math.inf if never else float(round(age))
    wear = {"kind": "weibull", "shape": case.shape, "scale_slots": ETA * unit}
    config = one_machine(wear, 1.0, case.corrective, long_period=never)
    slots = round(case.cycles * share / REPLICAS * mean_cycle(survival, whole))
    found = long_run_cost(config, lambda n: AgeReplacement(n, whole), slots, seed)
    in_slots = renewal.slotted_age_cost(survival, prices, round(40 * ETA * unit) if never else round(age))
    good, cells = _compared(found, renewal.age_cost(survival, prices, whole), in_slots, unit, case.published)
    label = f"Weibull {case.shape:g}, corrective {case.corrective:g}"
    shape, scale = fitted_weibull(lives({**wear, "scale_slots": ETA}, round(LIVES * share), seed + 5))
    learnt, _ = renewal.best_age(renewal.weibull_survival(shape, scale), prices)
    quadrature = age / unit
    if never:
        # of a fitted life a little off memoryless the best age may be finite, but no machine must live to see it
        reached = 0.0 if math.isinf(learnt) else float(renewal.weibull_survival(1.0, ETA)(np.array([learnt]))[0])
        fine = reached < 1e-6
        told = "never" if math.isinf(learnt) else f"{learnt:.0f}, reached by {reached:.0e}"
        return [good, fine], (label, *cells), (label, "never", "never", told, "-", _yes(fine))
    published = _PUBLISHED_AGES[case.shape, case.corrective]
    fine = abs(learnt / published - 1.0) <= AGE_BAR and abs(quadrature / published - 1.0) <= AGE_BAR
    off = f"{100.0 * (learnt / quadrature - 1.0):+.2f}"
    return (
        [good, fine],
        (label, *cells),
        (label, f"{published:.3f}", f"{quadrature:.3f}", f"{learnt:.3f}", off, _yes(fine)),
    )


_PUBLISHED_AGES = {(2.0, 5.0): 51.066, (2.0, 10.0): 33.645, (3.0, 10.0): 38.246, (2.5, 20.0): 26.238}


def mean_cycle(survival: renewal.Survival, age_slots: float) -> float:
    """Mean slots from renewal to renewal."""
    end = 1.0e5 if math.isinf(age_slots) else age_slots
    return float(survival(np.arange(0.0, end)).sum())


def _gamma(case: GammaCase, share: float, seed: int) -> tuple[list[bool], tuple[Cell, ...]]:
    rule, unit = case.rule, case.slots_per_unit
    config = one_machine(_gamma_wear(rule, unit, case.monitored), rule.preventive, rule.corrective, rule.inspection)
    exact = renewal.inspected_cost(rule, case.threshold) / unit
    interval = math.inf if case.monitored else rule.interval * unit
    cycle = (case.threshold / (rule.rate * rule.scale) + rule.interval / 2.0) * unit
    found = long_run_cost(
        config, lambda n: ConditionThreshold(n, interval, case.threshold / rule.level),
        round(case.cycles * share / REPLICAS * cycle), seed,
    )  # fmt: skip
    good, cells = _compared(found, exact, exact, unit, case.published)
    return [good], (f"gamma, {case.name}", *cells)


def _gamma_wear(rule: renewal.Inspected, unit: float, monitored: bool = False) -> dict[str, Any]:
    return {
        "kind": "gamma", "shape_per_slot": rule.rate / unit, "scale": rule.scale, "failure_level": rule.level,
        "monitored": monitored,
    }  # fmt: skip


def _ordering(share: float, seed: int) -> tuple[list[bool], list[tuple[Cell, ...]], bool]:
    """The value of knowing: run to failure, best age, inspections, a sensor, on the same gamma process."""
    rule, unit = GAMMA[0].rule, 10.0
    survival = renewal.gamma_survival(rule.rate / unit, rule.scale, rule.level)
    prices = renewal.Prices(rule.preventive, rule.corrective)
    age, _ = renewal.best_age(survival, prices)
    met, rows, seen = [], [], []
    rules: Sequence[tuple[str, float, float, float]] = (
        ("run to failure", math.inf, 2.9268, 0.02e6), ("best age", round(age), 0.9197, 0.28e6)
    )  # fmt: skip
    for k, (label, at, published, cycles) in enumerate(rules):
        never = math.isinf(at)
        config = one_machine(_gamma_wear(rule, unit), rule.preventive, rule.corrective, long_period=never)

        def made(nameplate: Nameplate, at: float = at) -> Policy:
            return RunToFailure(nameplate) if math.isinf(at) else AgeReplacement(nameplate, at)

        found = long_run_cost(config, made, round(cycles * share / REPLICAS * mean_cycle(survival, at)), seed + k)
        in_slots = renewal.slotted_age_cost(survival, prices, round(100.0 * unit) if never else round(at))
        good, cells = _compared(found, renewal.age_cost(survival, prices, at), in_slots, unit, published)
        met.append(good)
        rows.append((f"gamma, {label}", *cells))
        seen.append(found.mean * unit)
    perfect = renewal.monitored_cost(rule, 16.75)
    rows.append(("gamma, perfect free monitoring", "0.6011", f"{perfect:.6f}", *("-",) * 6))
    inspected = renewal.inspected_cost(rule, GAMMA[0].threshold)
    return met, rows, seen[0] > seen[1] > inspected > perfect


def _compared(
    found: Cost, exact_per_slot: float, in_slots: float, unit: float, published: float | None
) -> tuple[bool, list[Cell]]:
    away, share = (found.mean - in_slots) / found.error, found.mean / exact_per_slot - 1.0
    good = abs(away) <= ERRORS_BAR and abs(share) <= COST_BAR
    cells: list[Cell] = [
        "-" if published is None else f"{published:g}", f"{exact_per_slot * unit:.6f}", f"{in_slots * unit:.6f}",
        f"{found.mean * unit:.6f}", f"{found.error * unit:.6f}", f"{away:+.2f}", f"{100 * share:+.3f}", _yes(good),
    ]  # fmt: skip
    return good, cells


def _yes(met: bool) -> str:
    return "yes" if met else "no"
