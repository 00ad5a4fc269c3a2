"""Twenty machines and one crew: what a learned policy saves over each machine's own best age and a queue."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ...agents.controllers.line_maintenance import AgeReplacement, Opportunistic, RunToFailure
from ...agents.forward import PolicyNetwork
from ...agents.layers import Dense
from ...agents.policy import Policy
from ...envs.configuration import load
from ...envs.nameplate import Nameplate
from ...envs.production_line import renewal
from ...envs.production_line.config import FixedLine, LineConfig
from ...envs.production_line.exact_crew import SharedCrew
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED
from ...envs.production_line.twin import ProductionLineTwin
from ..configuration import training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance, say
from .foreign_jobs import learn
from .line_memoryless import NetworkPolicy

NAME = "line_fleet"
SUMMARY = "machines that share a crew: a learned policy's cost against each machine's best age with a queue"

BAR = 0.05
REPLICAS, WARM_UP, PERIODS = 192, 100, 600
CHANCE, TUNING_CHANCE = 3 * 10**6, 2 * 10**6
"""Seeds of the twin in which policies are judged, and of that in which factors are chosen."""
_SHARES, _FACTORS = (0.8, 0.9), (0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
_IN_SERVICE, _SURE = 7, 1e3
_STATE, _PARTS = ([s.name for s in MEASURED].index(name) for name in ("state", "parts"))
_COST, _FAILURES = ([s.name for s in HIDDEN].index(name) for name in ("service_cost", "failures"))
_SMALL = {2: ((2.5, 15.0), (3.5, 20.0)), 3: ((2.5, 20.0), (3.5, 27.0), (2.0, 33.0))}
"""Shapes and scales of the lives of fleets that are solved exactly, by how many machines they have."""
_SMALL_AGES = 45

DESCRIPTION = """\
The fleet of configs/production_line/train_fleet.yaml, learnt by PPO (machines and dispatcher, masks), in a twin whose
chance the policy has not seen; cost is money for service and the value of the parts that were not made, a machine and
slot. Beside it: every machine at its own best age (renewal theory, its downtime counted) with calls served first come,
first served; the same with repairs first; the best common factor on those ages, chosen under another chance, without
and with yielding to failed machines that wait; opportunistic grouping; run to failure; and what the masks (a window of
ages, a free crew, nobody who waits) save without learning, with calls as late or as early as they let. The bar: at
least 5 % less than the first, for every seed, and never more machines in service than there are crews. A second table
has two and three machines, whose optimum is known exactly.
About 1 CPU minute a seed, and 3 for the rules.
"""


Ages = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """Cost a machine and slot of each replica, failures a machine and slot, share of slots that made no part, and the
    most machines in service at once beyond the crews."""

    costs: np.ndarray[tuple[int], np.dtype[np.float64]]
    failures: float
    lost_pu: float
    over: int

    @property
    def cost(self) -> float:
        return float(self.costs.mean())

    @property
    def error(self) -> float:
        return float(self.costs.std(ddof=1) / math.sqrt(len(self.costs)))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", default="0,1,2", metavar="LIST", help="of the learner (0,1,2)")
    parser.add_argument(
        "--config", type=Path, default=Path("configs/production_line/train_fleet.yaml"), metavar="FILE",
        help="the run, default %(default)s",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table")


def run(arguments: argparse.Namespace) -> int:
    """Learn, play and compare; 0 where the bar is met by every seed."""
    began = time.process_time()
    seeds = [int(word) for word in arguments.seeds.split(",")]
    config = load(arguments.config, training_model(arguments.config, arguments.set), arguments.set)
    site = config.site
    assert isinstance(site, LineConfig)  # training_model gave the site's own model
    assert isinstance(site.line, FixedLine)  # a fleet is given machine by machine
    value = float(config.task.options["part_value"])
    ages = renewal.own_best_ages(site.line, value)
    reference = play(site, lambda n: AgeReplacement(n, ages), value)
    rows = [_row("each at its best age, first come first served", reference, reference)]
    rules: list[tuple[str, Callable[[Nameplate], Policy]]] = [
        ("the same, repairs first", lambda n: AgeReplacement(n, ages, corrective_first=True)),
        ("run to failure", RunToFailure),
    ]
    for told, yields in (("", False), (", yielding to failed machines that wait", True)):
        rule = partial(AgeReplacement, yields=yields)
        tried = {f: play(site, partial(rule, age_slots=f * ages), value, TUNING_CHANCE, 96).cost for f in _FACTORS}
        factor = min(tried, key=lambda f: tried[f])
        rules += [(f"{factor:g} of the best ages, the best factor{told}", partial(rule, age_slots=factor * ages))]
    rules += [
        (f"opportunistic from {s:g} of the age on", partial(Opportunistic, age_slots=ages, share=s)) for s in _SHARES
    ]
    say(f"factors: {time.process_time() - began:.0f} s")
    found = {name: play(site, rule, value) for name, rule in rules}
    rows += [_row(name, outcome, reference) for name, outcome in found.items()]
    best_rule = min(outcome.cost for outcome in found.values())
    say(f"rules: {time.process_time() - began:.0f} s")
    saved, met = [], []
    problem = Problem.of(config)
    hardly = learn(config.model_copy(update={"iterations": 1}), problem).export()
    for name, logit in (("the masks alone, calls as late as they let", -_SURE), ("as early as they let", _SURE)):
        leaning = partial(NetworkPolicy, networks=_leaning(hardly, logit), problem=problem)
        rows.append(_row(name, play(site, leaning, value), reference))
    for seed in seeds:
        start = time.process_time()
        seeded = config.model_copy(update={"seed": seed})
        problem = Problem.of(seeded)
        networks = learn(seeded, problem).export()
        cpu_s = time.process_time() - start
        outcome = play(site, partial(NetworkPolicy, networks=networks, problem=problem), value)
        rows.append(_row(f"learned, seed {seed} ({cpu_s:.0f} CPU s)", outcome, reference))
        saved.append(1.0 - outcome.cost / reference.cost)
        met.append(saved[-1] >= BAR and outcome.over <= 0)
        say(f"seed {seed}: {100 * saved[-1]:.1f} %, {time.process_time() - began:.0f} s")
    table = Table(
        "Machines that share a crew",
        ("policy", "cost", "95 %", "saves", "95 %", "failures/1000", "slots lost", "over the crews"),
        tuple(rows),
        (
            f"{REPLICAS} replicas of {PERIODS} periods after {WARM_UP}; one chance for all, from which nobody learnt.",
            f"Learned: {_mean(saved)} saved; the best of the rules {100 * (1 - best_rule / reference.cost):.1f} %.",
            f"Bar: a learned policy saves >= {BAR:.0%} with nobody over the crews: "
            f"{'met' if all(met) else 'missed'} ({sum(met)} of {len(met)} seeds).",
        ),
    )
    print_table(table)
    small = _small_fleets()
    print_table(small)
    if arguments.out is not None:
        made = provenance(seeds, cpu_s=round(time.process_time() - began, 1))
        table.write(arguments.out, NAME, made)
        small.write(arguments.out, f"{NAME}_exact", made)
    return 0 if all(met) else 1


def _leaning(networks: Mapping[str, PolicyNetwork], logit: float) -> dict[str, PolicyNetwork]:
    """Networks whose machines call (``logit`` above 0) or do not (below) wherever the masks leave a choice."""
    network = networks[MACHINE]
    last = network.layers[-1]
    assert isinstance(last, Dense)  # a head is linear
    bias = last.bias.copy()
    bias[:, network.layout.n_means + 1] += logit
    return {**networks, MACHINE: replace(network, layers=(*network.layers[:-1], replace(last, bias=bias)))}


def _mean(saved: Sequence[float]) -> str:
    """Mean over seeds with its 95 % interval (Student's t)."""
    if len(saved) < 2:
        return f"{100 * saved[0]:.1f} % (one seed)"
    half = float(stats.t.ppf(0.975, len(saved) - 1)) * float(np.std(saved, ddof=1)) / math.sqrt(len(saved))
    return f"{100 * float(np.mean(saved)):.1f} +- {100 * half:.1f} % (mean of {len(saved)} seeds, 95 %)"


def _small_fleets() -> Table:
    """What is to be had over own ages where the optimum is known, and what a common factor gets of it."""
    rows: list[tuple[Cell, ...]] = []
    for n, lives in _SMALL.items():
        machines = [
            {
                "model": {"kind": "bernoulli", "efficiency_pu": 1.0},
                "upkeep": {
                    "wear": {"kind": "weibull", "shape": shape, "scale_slots": scale}, "preventive_slots": 3,
                    "corrective_slots": 9, "preventive_cost": 2.0, "corrective_cost": 6.0,
                },
            }
            for shape, scale in lives
        ]  # fmt: skip
        line = {"kind": "fixed", "parallel": True, "capacities": [], "machines": machines}
        site = LineConfig.model_validate({"line": line, "modes": ["on"]})
        assert isinstance(site.line, FixedLine)
        process, ages = SharedCrew.of(site, 1.0, _SMALL_AGES), renewal.own_best_ages(site.line, 1.0)

        def at(factor: float, ages: Ages, process: SharedCrew) -> float:
            return process.worth_of(
                partial(_repairs_then_oldest, limits=factor * ages, failed=process.failed), 1e-6
            ).cost

        own, best = at(1.0, ages, process), process.best(1e-6).cost
        factors = {f: at(f, ages, process) for f in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}
        factor = min(factors, key=lambda f: factors[f])
        for name, cost in (
            ("each at its best age, repairs first", own),
            (f"{factor:g} of the best ages, repairs first", factors[factor]),
            ("optimum", best),
        ):
            rows.append((n, name, f"{cost:.5f}", f"{100 * (1 - cost / own):+.2f} %"))
    return Table(
        "Two and three machines and a crew, exactly", ("machines", "policy", "cost", "saves"), tuple(rows),
        ("Decided every slot; relative value iteration (envs/production_line/exact_crew.py), no chance in it.",),
    )  # fmt: skip


def _repairs_then_oldest(states: Whole, limits: Ages, failed: int) -> Whole:
    """Repairs first; else of those at their age or beyond the one that is most beyond it."""
    down, beyond = states == failed, states / limits
    due = np.where(beyond >= 1.0, beyond, 0.0)
    oldest = np.where(due.any(1), due.argmax(1) + 1, 0)
    return np.asarray(np.where(down.any(1), down.argmax(1) + 1, oldest), dtype=np.int64)


def play(
    site: LineConfig, rule: Callable[[Nameplate], Policy], part_value: float, seed: int = CHANCE,
    replicas: int = REPLICAS,
) -> Outcome:  # fmt: skip
    """What a policy costs in the long run."""
    twin = ProductionLineTwin(site, replicas)
    policy = rule(twin.nameplate)
    memory = policy.start(replicas)
    readings = twin.reset(torch.arange(replicas) + seed)
    n, slots = twin.nameplate.group(MACHINE).n_assets, site.slots_per_period
    lost, over = np.zeros(replicas), -site.service.crews
    before = np.zeros((replicas, 2))

    def totals() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        hidden = readings.hidden[MACHINE].sum(1).numpy()
        return np.asarray(hidden[:, [_COST, _FAILURES]], dtype=np.float64)

    for period in range(WARM_UP + PERIODS):
        if period == WARM_UP:
            before, lost = totals(), np.zeros(replicas)
        commands, memory = policy.act(readings.observation(site.dt_s), memory)
        readings = twin.step({name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in commands.items()})
        measured = readings.measured[MACHINE].numpy()
        lost += slots * n - measured[..., _PARTS].sum(1)
        served = (measured[..., _STATE].round() == _IN_SERVICE).sum(1)
        over = max(over, int(served.max()) - site.service.crews)
    spent, failed = ((totals() - before) / (PERIODS * slots * n)).T
    lost_pu = lost / (PERIODS * slots * n)
    return Outcome(spent + part_value * lost_pu, float(failed.mean()), float(lost_pu.mean()), over)


def _row(name: str, found: Outcome, reference: Outcome) -> tuple[Cell, ...]:
    saves = 1.0 - found.cost / reference.cost
    share = found.cost / reference.cost * math.hypot(found.error / found.cost, reference.error / reference.cost)
    told: Sequence[Cell] = (
        f"{found.cost:.5f}", f"+-{1.96 * found.error:.5f}", f"{100 * saves:+.1f} %", f"+-{196 * share:.1f}",
        f"{1000 * found.failures:.3f}", f"{100 * found.lost_pu:.2f} %", str(max(0, found.over)),
    )  # fmt: skip
    return (name, *told)
