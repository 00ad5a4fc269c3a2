"""A trained, shielded policy on the event-driven line with drift and faults: what it keeps of its gain in the twin."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ...agents.artifact import load_artifact
from ...agents.controllers.line_maintenance import AgeReplacement
from ...agents.controllers.reference import NeutralPolicy
from ...agents.policy import Memory, Policy
from ...deploy.live_twin import LiveTwin
from ...deploy.twin_plan import describe
from ...envs.configuration import Strict, load_mapping, validate
from ...envs.constraint import declaration_of_site
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from ...envs.plant_file import load_plant_file
from ...envs.production_line.config import GammaWear, LineConfig, Wear, WeibullWear
from ...envs.production_line.fleet_task import FleetProfitOptions
from ...envs.production_line.line_plan import plan_of
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED, STATICS
from ...envs.production_line.plant import SimPyLine
from ...envs.production_line.plant_config import LinePlantConfig
from ...envs.production_line.renewal import Prices, Survival, best_age, gamma_survival, weibull_survival
from ...envs.production_line.scenarios import FastWear, SlowRepairs
from ...envs.production_line.task import LineProfitOptions
from ...envs.production_line.tracking import PACE, SERVICE
from ...envs.twin import Observation
from ..evaluation import drive
from ..report import Cell, Table, print_table, provenance, say
from ..seed_list import parse_seeds

NAME = "line_plant"
SUMMARY = "a policy on the line's plant with drift and faults: what it keeps of its gain in the calibrated live twin"

Floats = NDArray[np.float64]

BAR = 0.98
LEVEL = 0.95
_AT = {s.name: k for k, s in enumerate(MEASURED)}
_HIDDEN = {s.name: k for k, s in enumerate(HIDDEN)}
_EFFICIENCY = [s.name for s in STATICS].index("efficiency_pu")

DESCRIPTION = f"""\
For each plant seed: the emulated line runs under the baseline while the live twin follows its telemetry and learns its
machines. Then the twin stands where the plant is, and from there both go on, each once with the baseline and once with
the policy, over the same stretch: the twin's members by its own chance, the plant with drift, faults and the same seed,
where every command of the policy passes the shield as in deployment.

The baseline is a line that is always on; where machines wear, each is replaced at its best age alone, T*, by a
first-in-first-out crew. Profit is that of --train's task. In a row a part counts when the slowest machine has made it:
what is in the buffers at the end is not lost, and would else weigh more than the gain.

Bars: the policy's gain over the baseline on the plant is at least {BAR:.0%} of that in the calibrated twin, over all
seeds; on no seed does the policy earn less than the baseline. The gain in the sense of average-reward control, the
whole profit, is told beside it: it hides losses behind the value of parts that any policy makes.
"""
EPILOG = """\
examples:
  twinloop bench line_plant runs/line_energy-*/artifact
  twinloop bench line_plant runs/line_fleet-*/artifact --plant configs/production_line/plant_wear.yaml \\
      --train configs/production_line/train_fleet.yaml --hours 480
"""


class Earnings(Strict):
    """What a line earns, as the tasks ``line_profit`` and ``fleet_profit`` have it in common."""

    part_value: float = 1.0
    energy_weight: float = 0.0
    holding_cost: float = 0.0


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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    folder = Path("configs/production_line")
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument("--plant", type=Path, default=folder / "plant_drift.yaml", metavar="FILE", help="%(default)s")
    parser.add_argument("--train", type=Path, default=folder / "train_energy.yaml", metavar="FILE",
                        help="whose task says what is earned, default %(default)s")  # fmt: skip
    parser.add_argument("--seeds", default="10..25", metavar="LIST", help="plant seeds, default %(default)s")
    parser.add_argument("--hours-before", type=float, default=24.0, metavar="H",
                        help="that the live twin learns from, default %(default)g")  # fmt: skip
    parser.add_argument("--hours", type=float, default=48.0, metavar="H", help="compared, default %(default)g")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when both bars are met."""
    prices = earnings(load_mapping(arguments.train).get("task") or {}, str(arguments.train))
    _, config, _ = load_plant_file(arguments.plant)
    if not isinstance(config, LineConfig):
        raise ConfigurationError(f"{arguments.plant}: is no production line")
    plan = Plan(
        arguments.artifact, arguments.plant, prices,
        *(round(h * 3600.0 / config.dt_s) for h in (arguments.hours_before, arguments.hours)),
    )  # fmt: skip
    seeds, cases = parse_seeds(arguments.seeds), []
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for found in pool.map(case, [plan] * len(seeds), seeds):
            cases.append(found)
            say(
                f"seed {found.seed}: gain {found.plant_gain:.4g} on the plant, {found.twin_gain:.4g} in the twin; "
                f"gate {'open' if found.gate_open else 'closed'}, NIS {found.nis:.2f}, {found.cpu_s:.0f} CPU s"
            )
    table, met = summary(cases, plan, config)
    print_table(table)
    if arguments.out is not None:
        stem = f"{NAME}_{arguments.plant.stem.removeprefix('plant_')}"
        table.write(arguments.out, stem, provenance(seeds, policy=_fingerprint(arguments.artifact)))
    return 0 if met else 1


def earnings(task: Mapping[str, Any], where: str) -> Earnings:
    """Of a task's options; raises :class:`ConfigurationError` for another task."""
    options, name = dict(task.get("options") or {}), task.get("name")
    if name == "line_profit":
        chosen = validate(options, LineProfitOptions, f"{where}: task.options")
        return Earnings(**{k: getattr(chosen, k) for k in Earnings.model_fields})
    if name == "fleet_profit":
        return Earnings(part_value=validate(options, FleetProfitOptions, f"{where}: task.options").part_value)
    raise ConfigurationError(f"{where}: task.name: {name!r}; a line earns by line_profit or fleet_profit")


def summary(cases: Sequence[Case], plan: Plan, config: LineConfig) -> tuple[Table, bool]:
    """The table, and whether both bars are met."""
    gain = ratio([c.plant_gain for c in cases], [c.twin_gain for c in cases])
    profit = ratio([c.plant_profit + c.plant_gain for c in cases], [c.twin_profit + c.twin_gain for c in cases])
    worst = min(c.plant_gain for c in cases)
    below = sum(c.plant_gain < 0.0 for c in cases)
    # a share of a loss says nothing: two losses would make a fine one
    keeps = gain[0] >= BAR and sum(c.twin_gain for c in cases) > 0.0
    names = sorted(cases[0].true)
    off = {n: [c.estimated[n] - c.true[n] for c in cases] for n in names}
    hour = config.dt_s / 3600.0
    rows: list[tuple[Cell, ...]] = [
        ("plant seeds", len(cases)),
        ("hours learnt from, compared", f"{plan.before * hour:g}, {plan.periods * hour:g}"),
        ("baseline's profit a period, twin and plant", _pair(cases, "twin_profit", "plant_profit")),
        ("policy's gain over it, twin and plant", _pair(cases, "twin_gain", "plant_gain")),
        ("gain kept, with 95 % interval over seeds", "{:.1%} ({:.1%} to {:.1%})".format(*gain)),
        (f"bar: {BAR:.0%} of the twin's gain kept", "met" if keeps else "missed"),
        ("seeds on which it earns less than the baseline", below),
        ("least gain on a seed", f"{worst:.4g}"),
        ("bar: never below the baseline", "met" if not below else "missed"),
        ("whole profit kept, with 95 % interval", "{:.2%} ({:.2%} to {:.2%})".format(*profit)),
        ("gates open when the twin had learnt", f"{sum(c.gate_open for c in cases)} of {len(cases)}"),
        ("NIS, coverage of forecasts, means", f"{_mean(cases, 'nis'):.2f}, {_mean(cases, 'coverage'):.3f}"),
        *((f"{n}: error of the estimate, mean and rms", f"{np.mean(v):+.4f}, {np.sqrt(np.mean(np.square(v))):.4f}")
          for n, v in off.items()),
        *((f"{n} of what is declared, learnt and true", f"{np.mean([c.paces[n][0] for c in cases]):.3f}, "
           f"{cases[0].paces[n][1]:.3f}") for n in cases[0].paces),
        ("commands changed by the shield, a seed", f"{_mean(cases, 'interventions'):.1f}"),
        ("periods on a fallback, a seed", f"{_mean(cases, 'fallback_periods'):.1f}"),
        ("CPU s a seed", f"{_mean(cases, 'cpu_s'):.0f}"),
    ]  # fmt: skip
    notes = (
        "The plant is event-driven and shares no code with the twin; its file says its drift and faults.",
        "Twin: the live twin's members after the first stretch, machines as learnt, from the plant's present state.",
        "Intervals: of a ratio of sums over seeds, by Student's t on its residuals.",
    )
    data = {
        "cases": [
            vars(c) | {"estimated": dict(c.estimated), "true": dict(c.true), "paces": dict(c.paces)} for c in cases
        ]
    }
    title = f"{plan.artifact.parent.name} on {plan.plant_file.name}"
    return Table(title, ("figure", "value"), tuple(rows), notes, data), keeps and not below


def case(plan: Plan, seed: int) -> Case:
    """One seed, from the first period to the last."""
    torch.set_num_threads(1)
    started_s = time.process_time()
    site, config, plant_config = load_plant_file(plan.plant_file, [f"plant.seed={seed}"])
    assert isinstance(config, LineConfig)  # run() has looked
    assert isinstance(plant_config, LinePlantConfig)  # as the site says
    plate = site.nameplate(config)
    policy = load_artifact(plan.artifact, plate)

    base = _Line(config, plant_config, plan.prices)
    live = describe(plan.plant_file).make()
    live.start(base.clock_s)
    by = _Player(baseline(plate, config), plate)
    base.play(by, plan.before, live)
    verdict, estimated = live.verdict(), live.parameters()
    true = dict(zip(plate.group(MACHINE).assets, base.truth()["efficiency"], strict=True))
    spent = base.earned()
    base.play(by, plan.periods)
    plant_profit = (base.earned() - spent) / plan.periods

    tried = _Line(config, plant_config, plan.prices)
    tried.play(_Player(baseline(plate, config), plate), plan.before)
    spent = tried.earned()
    told = drive(tried, policy, plan.periods, policy.name, declaration_of_site(site, config))
    plant_gain = (tried.earned() - spent) / plan.periods - plant_profit

    profits = [_in_twin(live, p, plan, counted(config, plate)) for p in (baseline(plate, config), policy)]
    gains = profits[1] - profits[0]
    return Case(
        seed, float(profits[0].mean()), float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains))),
        plant_profit, plant_gain, verdict.open, verdict.nis, verdict.coverage,
        {n: estimated[f"{n}_efficiency_pu"][0] for n in true if f"{n}_efficiency_pu" in estimated},
        {n: v for n, v in true.items() if f"{n}_efficiency_pu" in estimated}, _paces(plan_of(config).names, estimated,
                                                                                     plant_config),
        sum(told.interventions.values()), told.fallback_periods, time.process_time() - started_s,
    )  # fmt: skip


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


def counted(config: LineConfig, plate: Nameplate) -> list[int]:
    """Machines whose parts count: of a row the slowest, of machines side by side or of a tree those at its ends."""
    plan = plan_of(config)
    if plan.is_serial:
        return [int(plate.group(MACHINE).statics_array()[:, _EFFICIENCY].argmin())]
    return [i for i in range(len(plan.names)) if i not in plan.producer]


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


class _Line:
    """A plant that knows what it has earned."""

    def __init__(self, config: LineConfig, plant_config: LinePlantConfig, prices: Earnings) -> None:
        self._plant = SimPyLine(config, plant_config)
        self._prices = prices
        self._held = 0.0
        plate = self._plant.nameplate
        self._counted = counted(config, plate)
        self.nameplate = plate

    @property
    def clock_s(self) -> float:
        return self._plant.clock_s

    def truth(self) -> dict[str, Any]:
        return self._plant.truth()

    def read(self) -> Telemetry:
        return self._plant.read()

    def write(self, commands: Arrays) -> Arrays:
        return self._plant.write(commands)

    def advance(self) -> None:
        self._plant.advance()
        self._held += sum(self._plant.levels)

    def close(self) -> None:
        self._plant.close()

    def earned(self) -> float:
        """Since the plant's start."""
        o, true = self._prices, self._plant.truth()
        spent = o.energy_weight * true["energy_cost"] + o.holding_cost * self._held + sum(true["service_cost"])
        return float(o.part_value * sum(true["parts"][i] for i in self._counted) - spent)

    def play(self, policy: _Player, n_periods: int, live: LiveTwin | None = None) -> None:
        """So many periods under a policy; ``live`` follows."""
        for _ in range(n_periods):
            accepted = self.write(policy(self.read()))
            self.advance()
            if live is not None:
                live.advance(accepted, self.clock_s)
                live.assimilate(self.read())


@torch.inference_mode()
def _in_twin(live: LiveTwin, policy: Policy, plan: Plan, counted: Sequence[int]) -> Floats:
    """``[B]``: mean profit a period of each member, from where it stands; parts of the machines ``counted``."""
    o = plan.prices
    with live.replicas() as (twin, readings):
        memory, n = policy.start(twin.n_replicas), twin.n_replicas
        earned = np.zeros(n)
        served = readings.hidden[MACHINE][..., _HIDDEN["service_cost"]].sum(1)
        for _ in range(plan.periods):
            commands, memory = policy.act(readings.observation(twin.dt_s), memory)
            readings = twin.step({name: torch.from_numpy(np.array(c)) for name, c in commands.items()})
            hidden = readings.hidden[MACHINE]
            made = readings.measured[MACHINE][:, counted, _AT["parts"]].sum(1)
            spent = (
                o.energy_weight * hidden[..., _HIDDEN["energy_cost"]]
                + o.holding_cost * hidden[..., _HIDDEN["held_parts"]]
            )
            earned += (o.part_value * made - spent.sum(1)).numpy()
        served = readings.hidden[MACHINE][..., _HIDDEN["service_cost"]].sum(1) - served
        return np.asarray((earned - served.numpy()) / plan.periods)


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of sums with its interval (Cochran 1977, "Sampling Techniques", section 6.4)."""
    a, b = np.asarray(above), np.asarray(below)
    found = float(a.sum() / b.sum())
    error = float((a - found * b).std(ddof=1) / (abs(b.mean()) * math.sqrt(len(a)))) if len(a) > 1 else math.nan
    half = float(stats.t.ppf(0.5 * (1.0 + LEVEL), max(1, len(a) - 1))) * error
    return found, found - half, found + half


def _mean(cases: Sequence[Case], name: str) -> float:
    return float(np.mean([float(getattr(c, name)) for c in cases]))


def _pair(cases: Sequence[Case], first: str, second: str) -> str:
    return f"{_mean(cases, first):.4g}, {_mean(cases, second):.4g}"


def _fingerprint(artifact: Path) -> str:
    import hashlib

    return hashlib.sha256((artifact / "MANIFEST.sha256").read_bytes()).hexdigest()[:12]
