"""One seed of the line's plant: what a policy gains over the baseline there, and in the live twin that followed it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...agents.artifact import load_artifact
from ...agents.controllers.line_maintenance import AgeReplacement
from ...agents.controllers.reference import NeutralPolicy
from ...agents.policy import Memory, Policy
from ...deploy.live_twin import LiveTwin
from ...deploy.twin_plan import describe
from ...envs.constraint import declaration_of_site
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from ...envs.plant_file import load_plant_file
from ...envs.production_line.config import GammaWear, LineConfig, Wear, WeibullWear
from ...envs.production_line.line_plan import plan_of
from ...envs.production_line.nameplate import MACHINE
from ...envs.production_line.plant_config import LinePlantConfig
from ...envs.production_line.renewal import Prices, Survival, best_age, gamma_survival, weibull_survival
from ...envs.production_line.scenarios import FastWear, SlowRepairs
from ...envs.production_line.tracking import PACE, SERVICE
from ...envs.twin import Observation
from ..evaluation import drive
from .line_plant_earnings import EarningLine, Earnings, Floats, counted, earned_in_twin


@dataclass(frozen=True)
class Plan:
    """What is the same for all seeds; paths, so that another process can make it all."""

    artifact: Path
    plant_file: Path
    prices: Earnings
    before: int
    periods: int


@dataclass(frozen=True)
class Case:
    """One seed. Profits are means a period: of the baseline, and the policy's gain over it, in the twin (mean over
    members, and its standard error) and on the plant. ``paces``: of wear and service, as learnt and as they are, means
    over machines."""

    seed: int
    twin_profit: float
    twin_gain: float
    twin_error: float
    plant_profit: float
    plant_gain: float
    gate_open: bool
    nis: float
    coverage: float
    estimated: Mapping[str, float] = field(default_factory=dict)
    true: Mapping[str, float] = field(default_factory=dict)
    paces: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    interventions: int = 0
    fallback_periods: int = 0
    cpu_s: float = 0.0


def case(plan: Plan, seed: int) -> Case:
    """One seed, from the first period to the last."""
    torch.set_num_threads(1)
    started_s = time.process_time()
    site, config, plant_config = load_plant_file(plan.plant_file, [f"plant.seed={seed}"])
    assert isinstance(config, LineConfig)  # run() has looked
    assert isinstance(plant_config, LinePlantConfig)  # as the site says
    plate = site.nameplate(config)
    policy = load_artifact(plan.artifact, plate)

    base = EarningLine(config, plant_config, plan.prices)
    live = describe(plan.plant_file).make()
    live.start(base.clock_s)
    by = _Player(baseline(plate, config), plate)
    _play(base, by, plan.before, live)
    verdict, estimated = live.verdict(), live.parameters()
    true = dict(zip(plate.group(MACHINE).assets, base.truth()["efficiency"], strict=True))
    spent = base.earned()
    _play(base, by, plan.periods)
    plant_profit = (base.earned() - spent) / plan.periods

    tried = EarningLine(config, plant_config, plan.prices)
    _play(tried, _Player(baseline(plate, config), plate), plan.before)
    spent = tried.earned()
    told = drive(tried, policy, plan.periods, policy.name, declaration_of_site(site, config))
    plant_gain = (tried.earned() - spent) / plan.periods - plant_profit

    counts = counted(config, plate)
    both = (baseline(plate, config), policy)
    profits = [earned_in_twin(live, p, plan.prices, plan.periods, counts) for p in both]
    gains = profits[1] - profits[0]
    return Case(
        seed, float(profits[0].mean()), float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains))),
        plant_profit, plant_gain, verdict.open, verdict.nis, verdict.coverage,
        {n: estimated[f"{n}_efficiency_pu"][0] for n in true if f"{n}_efficiency_pu" in estimated},
        {n: v for n, v in true.items() if f"{n}_efficiency_pu" in estimated},
        _paces(plan_of(config).names, estimated, plant_config),
        sum(told.interventions.values()), told.fallback_periods, time.process_time() - started_s,
    )  # fmt: skip


def baseline(plate: Nameplate, config: LineConfig) -> Policy:
    """Always on; where machines wear, each replaced at its own T*."""
    kept = [m.upkeep for m in plan_of(config).machines]
    if not any(kept):
        return NeutralPolicy(plate, "always_on")
    ages = []
    for upkeep in kept:
        age = math.inf
        if upkeep is not None:
            prices = Prices(upkeep.preventive_cost, upkeep.corrective_cost)
            age = best_age(_survival(upkeep.wear), prices)[0]
        ages.append(age)
    return AgeReplacement(plate, ages, name="T*")


def _survival(wear: Wear) -> Survival:
    if isinstance(wear, WeibullWear):
        return weibull_survival(wear.shape, wear.scale_slots)
    if isinstance(wear, GammaWear):
        return gamma_survival(wear.shape_per_slot, wear.scale, wear.failure_level)
    raise ConfigurationError(f"wear of kind {wear.kind} has no best age here; give weibull or gamma")


def _paces(
    names: Sequence[str], estimated: Mapping[str, tuple[float, float]], plant: LinePlantConfig
) -> dict[str, tuple[float, float]]:
    """How fast machines wear and how long their services take, of what is declared: learnt and true, means."""
    found = {}
    for name, kind, fault in (("wear pace", PACE, FastWear), ("service time", SERVICE, SlowRepairs)):
        learnt = [(k, estimated[f"{n}{kind}"][0]) for k, n in enumerate(names, 1) if f"{n}{kind}" in estimated]
        true = [
            math.prod(f.factor for f in plant.faults if isinstance(f, fault) and f.machine in (0, k)) for k, _ in learnt
        ]
        if learnt:
            found[name] = (float(np.mean([v for _, v in learnt])), float(np.mean(true)))
    return found


class _Player:
    """A policy that decides on telemetry; of bad readings it sees the last good ones."""

    def __init__(self, policy: Policy, plate: Nameplate) -> None:
        self._policy, self._plate = policy, plate
        self._memory: Memory = policy.start(1)
        self._seen: dict[str, Floats] = {}

    def __call__(self, telemetry: Telemetry) -> Arrays:
        for name, values in telemetry.values.items():
            good = telemetry.quality[name] == 0
            self._seen[name] = np.where(good, values, self._seen.get(name, values))
        groups = self._plate.groups
        seen = Observation(
            {name: values[None] for name, values in self._seen.items()},
            {g.name: g.statics_array()[None] for g in groups},
            {g.name: np.ones((1, g.n_assets), dtype=np.bool_) for g in groups},
            self._plate.period_s,
        )
        commands, self._memory = self._policy.act(seen, self._memory)
        return {name: values[0] for name, values in commands.items()}


def _play(line: EarningLine, policy: _Player, n_periods: int, live: LiveTwin | None = None) -> None:
    """So many periods under a policy; ``live`` follows."""
    for _ in range(n_periods):
        accepted = line.write(policy(line.read()))
        line.advance()
        if live is not None:
            live.advance(accepted, line.clock_s)
            live.assimilate(line.read())
