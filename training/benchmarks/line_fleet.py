"""Twenty machines and one crew: what a learned policy saves over each machine's own best age and a queue."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...agents.controllers.line_maintenance import AgeReplacement, Opportunistic, RunToFailure
from ...agents.policy import Policy
from ...envs.configuration import load
from ...envs.nameplate import Nameplate
from ...envs.production_line import renewal
from ...envs.production_line.config import FixedLine, LineConfig
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
REPLICAS, WARM_UP, PERIODS = 96, 100, 600
_SHARES, _FACTORS = (0.6, 0.8, 0.9), (0.6, 0.7, 0.8, 0.9)
_IN_SERVICE = 7
_STATE, _PARTS = ([s.name for s in MEASURED].index(name) for name in ("state", "parts"))
_COST, _FAILURES = ([s.name for s in HIDDEN].index(name) for name in ("service_cost", "failures"))

DESCRIPTION = """\
The fleet of configs/production_line/train_fleet.yaml, learnt by PPO (machines and dispatcher, masks), in a twin whose
chance the policy has not seen; cost is money for service and the value of the parts that were not made, a machine and
slot. Beside it: every machine at its own best age (renewal theory, its downtime counted) with calls served first come,
first served; the same with repairs first; the best common factor on those ages; opportunistic grouping; run to failure.
The bar: at least 5 % less than the first, for every seed, and never more machines in service than there are crews.
About 2 CPU minutes a seed.
"""


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
    value = float(config.task.options["part_value"])
    ages = own_best_ages(site, value)
    reference = play(site, lambda n: AgeReplacement(n, ages), value)
    rows = [_row("each at its best age, first come first served", reference, reference)]
    say(f"best ages: {time.process_time() - began:.0f} s")
    rules: list[tuple[str, Callable[[Nameplate], Policy]]] = [
        ("the same, repairs first", lambda n: AgeReplacement(n, ages, corrective_first=True)),
        ("run to failure", RunToFailure),
    ]
    rules += [(f"{f:g} of the best ages", partial(AgeReplacement, age_slots=f * ages)) for f in _FACTORS]
    rules += [
        (f"opportunistic from {s:g} of the age on", partial(Opportunistic, age_slots=ages, share=s)) for s in _SHARES
    ]
    rows += [_row(name, play(site, rule, value), reference) for name, rule in rules]
    say(f"rules: {time.process_time() - began:.0f} s")
    met = []
    for seed in seeds:
        start = time.process_time()
        seeded = config.model_copy(update={"seed": seed})
        problem = Problem.of(seeded)
        networks = learn(seeded, problem).export()
        cpu_s = time.process_time() - start
        found = play(site, partial(NetworkPolicy, networks=networks, problem=problem), value)
        rows.append(_row(f"learned, seed {seed} ({cpu_s:.0f} CPU s)", found, reference))
        met.append(1.0 - found.cost / reference.cost >= BAR and found.over <= 0)
        say(f"seed {seed}: {time.process_time() - began:.0f} s")
    table = Table(
        "Machines that share a crew",
        ("policy", "cost", "95 %", "saves", "95 %", "failures/1000", "slots lost", "over the crews"),
        tuple(rows),
        (
            f"{REPLICAS} replicas of {PERIODS} periods after {WARM_UP}; one chance for all, from which nobody learnt.",
            f"Bar: a learned policy saves >= {BAR:.0%} with nobody over the crews: "
            f"{'met' if all(met) else 'missed'} ({sum(met)} of {len(met)} seeds).",
        ),
    )
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds, cpu_s=round(time.process_time() - began, 1)))
    return 0 if all(met) else 1


def own_best_ages(site: LineConfig, part_value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The best age of each machine alone, in slots; parts not made while it is in service are part of the cost."""
    assert isinstance(site.line, FixedLine)  # a fleet is given machine by machine
    found = []
    for machine in site.line.machines:
        upkeep = machine.upkeep
        if upkeep is None:
            found.append(math.inf)
            continue
        prices = renewal.Prices(
            upkeep.preventive_cost + part_value * upkeep.preventive_slots,
            upkeep.corrective_cost + part_value * upkeep.corrective_slots,
            upkeep.preventive_slots,
            upkeep.corrective_slots,
        )
        found.append(renewal.best_age(renewal.survival_of(upkeep.wear), prices)[0])
    return np.array(found)


def play(site: LineConfig, rule: Callable[[Nameplate], Policy], part_value: float, seed: int = 10**6) -> Outcome:
    """What a policy costs in the long run."""
    twin = ProductionLineTwin(site, REPLICAS)
    policy = rule(twin.nameplate)
    memory = policy.start(REPLICAS)
    readings = twin.reset(torch.arange(REPLICAS) + seed)
    n, slots = twin.nameplate.group(MACHINE).n_assets, site.slots_per_period
    lost, over = np.zeros(REPLICAS), -site.service.crews
    before = np.zeros((REPLICAS, 2))

    def totals() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        hidden = readings.hidden[MACHINE].sum(1).numpy()
        return np.asarray(hidden[:, [_COST, _FAILURES]], dtype=np.float64)

    for period in range(WARM_UP + PERIODS):
        if period == WARM_UP:
            before, lost = totals(), np.zeros(REPLICAS)
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
