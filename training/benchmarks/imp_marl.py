"""IMP-MARL's systems of inspected components: rules and learned policies, in the twin and on true cracks."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...agents.controllers.inspected_system import BeliefThreshold, NeverMaintain, PeriodicInspection, RunToFailure
from ...agents.policy import Policy
from ...envs.configuration import load
from ...envs.errors import ConfigurationError
from ...envs.inspected_system.config import CrackPlantConfig, InspectedSystemConfig
from ...envs.inspected_system.crack_world import CrackWorld
from ...envs.inspected_system.nameplate import COMPONENT, YEAR_S, system_nameplate
from ...envs.inspected_system.task import DISCOUNT, InspectionCost
from ...envs.inspected_system.twin import InspectedSystemTwin
from ...envs.nameplate import Nameplate
from ...envs.twin import Observation
from ..configuration import TrainConfiguration, training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance, say
from .foreign_jobs import Job, Result, add_seed_arguments, learn, run_jobs, seed_range

NAME = "imp_marl"
SUMMARY = "IMP-MARL's k-out-of-n systems: published heuristic, belief thresholds, learned policies; twin and plant"

Floats = NDArray[np.float64]
EPISODES, PLANT_SYSTEMS = 20_480, 20_480
_PUBLISHED_EPISODES = 1500  # eval_size of the published script; the paper gives no error of its means
_CHUNK = 2048
_ERRORS = 3.0
SPEED_BAR = 4.3e4


@dataclass(frozen=True)
class Case:
    """A system, its rules and its bars.

    ``periodic``: years and components of the best of all intervals, found by trying them; ``thresholds``: (inspect,
    repair). ``published``: the mean return of the best heuristic in the paper; ``reference``: of the thresholds, with
    its standard error, by another implementation; ``bar``: for a learned policy.
    """

    needed: int
    periodic: tuple[int, int]
    thresholds: tuple[float, float]
    published: float
    reference: tuple[float, float]
    bar: float


CASES = {
    3: Case(2, (10, 2), (0.005, 0.06), -12.55, (-11.02, 0.20), -11.0),
    5: Case(4, (10, 5), (0.005, 0.06), -25.17, (-22.09, 0.31), -22.1),
    10: Case(9, (8, 10), (0.002, 0.06), -63.70, (-53.51, 0.51), -53.5),
}
RULES: dict[str, Callable[[Nameplate, Case], Policy]] = {
    "never": lambda plate, _: NeverMaintain(plate),
    "run to failure": lambda plate, _: RunToFailure(plate),
    "published heuristic": lambda plate, case: PeriodicInspection(plate, *case.periodic),
    "belief thresholds": lambda plate, case: BeliefThreshold(plate, *case.thresholds),
}

DESCRIPTION = f"""\
k-out-of-n systems of IMP-MARL (Leroy et al. 2023, arXiv 2306.11551), uncorrelated, no campaign cost. Figures are mean
returns of 30 years at a discount of {DISCOUNT:g} with their 95 % intervals, over fresh episodes, policies without
exploration; beside them the same policies on the plant: true cracks, whose constants stay with them for life.

Bars: the published heuristic within 3 standard errors of the published figure (theirs from {_PUBLISHED_EPISODES}
episodes, the size in their script); thresholds within 3 of those known; every seed that learned at least -11.0, -22.1,
-53.5; twin and plant agree within 3; {SPEED_BAR:g} env-steps a CPU second in the twin of 10 components.

Cost: some 55, 70 and 140 CPU s a seed to learn 3, 5 and 10 components, 3 to 12 s to judge a policy twice.
"""
EPILOG = """\
examples:
  twinloop bench imp_marl --seeds 0..2 --out results/imp_marl
  twinloop bench imp_marl --systems 3,5 --parallel 2
  twinloop bench imp_marl --runs runs/inspected_n3/artifact,runs/inspected_n10/artifact
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--systems", default="3,5,10", metavar="N,N", help="components, default %(default)s")
    parser.add_argument("--runs", metavar="DIR,DIR", help="artifacts to judge instead of learning; '' for rules alone")
    parser.add_argument(
        "--configs", type=Path, default=Path("configs/inspected_system"), metavar="DIR",
        help="folder of train_n3.yaml and so on, default %(default)s",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as iterations=20")
    add_seed_arguments(parser, seeds="0..2")


def run(arguments: argparse.Namespace) -> int:
    """Learn, play, print; 0 when every bar is met."""
    sizes = _sizes(arguments.systems)
    seeds = seed_range(arguments.seeds)
    jobs = [Job(f"{name} n={n}", 0, judge_rule, (n, name)) for n in sizes for name in RULES]
    if arguments.runs is None:
        for n in sizes:
            file = arguments.configs / f"train_n{n}.yaml"
            config = load(file, training_model(file, arguments.set), arguments.set)
            jobs += [Job(f"learned n={n}", seed, learn_and_judge, (n, config)) for seed in seeds]
    else:
        jobs += [_run_job(Path(text.strip()), sizes) for text in arguments.runs.split(",") if text.strip()]
    *results, speed = run_jobs([*jobs, Job("speed", 0, measure_speed)], arguments.out, arguments.parallel)
    rows: list[tuple[Cell, ...]] = []
    met = True
    for job, result in zip(jobs, results, strict=True):
        row, good = _row(job, result)
        rows.append(row)
        met &= good
    fast = speed["env_steps_per_cpu_s"] >= SPEED_BAR
    told = f"{speed['env_steps_per_cpu_s']:.3g} env-steps/CPU s"
    rows.append(("speed n=10, 2,000 replicas", "-", told, "-", f">= {SPEED_BAR:.2g}", "met" if fast else "missed"))
    notes = (
        f"Twin: {EPISODES:,} fresh episodes; plant: {PLANT_SYSTEMS:,} systems of true cracks; 95 % intervals.",
        "Plant bar: twin and plant differ by at most 3 standard errors. All policies without exploration.",
        *_best(jobs, results, sizes),
    )
    data = {"results": [{"policy": j.name, "seed": j.seed, **r} for j, r in zip(jobs, results, strict=True)]}
    columns = ("policy", "seed", "return in the twin", "on the plant", "bar", "")
    table = Table("IMP-MARL: inspected systems", columns, tuple(rows), notes, {**data, **speed, "passed": met and fast})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    say("all bars met" if met and fast else "a bar is missed")
    return 0 if met and fast else 1


def _row(job: Job, result: Result) -> tuple[tuple[Cell, ...], bool]:
    """The job's row, and whether its bars are met."""
    name, _, size = job.name.partition(" n=")
    case = CASES[int(size)]
    mean, error = result["twin"], result["twin_se"]
    bar, is_met = "none", True
    if name == "published heuristic":
        theirs = result["twin_sd"] / math.sqrt(_PUBLISHED_EPISODES)
        bar, is_met = f"published {case.published:g}", abs(mean - case.published) <= _ERRORS * math.hypot(error, theirs)
    elif name == "belief thresholds":
        known, theirs = case.reference
        bar, is_met = f"known {known:g}", abs(mean - known) <= _ERRORS * math.hypot(error, theirs)
    elif name not in RULES:
        bar, is_met = f">= {case.bar:g}", mean >= case.bar
    agrees = abs(mean - result["plant"]) <= _ERRORS * math.hypot(error, result["plant_se"])
    judged = ("met" if is_met else "missed") if bar != "none" else ""
    shown = judged if agrees else f"{judged} plant differs".strip()
    cells = (job.name, job.seed, _shown(mean, error), _shown(result["plant"], result["plant_se"]), bar, shown)
    return cells, is_met and agrees


def _shown(mean: float, error: float) -> str:
    return f"{mean:.2f} +- {1.96 * error:.2f}"


def _best(jobs: list[Job], results: list[Result], sizes: list[int]) -> list[str]:
    """A line a system: the best seed, and all of them."""
    lines = []
    for n in sizes:
        own = [r for j, r in zip(jobs, results, strict=True) if j.name == f"learned n={n}"]
        if own:
            means = [r["twin"] for r in own]
            every = ", ".join(f"{value:.2f}" for value in means)
            cost = np.mean([r["cpu_s"] for r in own])
            lines.append(
                f"n={n}: best seed {max(means):.2f}, all {every}, mean {np.mean(means):.2f}; {cost:.0f} CPU s a seed."
            )
    return lines


def _sizes(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) in CASES for word in words):
        raise ConfigurationError(f"--systems {text!r}: there are {', '.join(map(str, CASES))}")
    return [int(word) for word in words]


def system_of(n: int) -> InspectedSystemConfig:
    """The published system of ``n`` components."""
    return InspectedSystemConfig(components=n, needed=CASES[n].needed)


def judge_rule(n: int, name: str, seed: int) -> Result:
    """Play a rule in the twin and on true cracks."""
    return judge(RULES[name](system_nameplate(system_of(n)), CASES[n]), n, seed)


def learn_and_judge(n: int, config: TrainConfiguration, seed: int) -> Result:
    """Learn one seed, and play."""
    from .farm_learners import NetworkPolicy

    config = config.model_copy(update={"seed": seed})
    problem = Problem.of(config)
    started_s = time.process_time()
    learning = learn(config, problem)
    spent_s = time.process_time() - started_s
    policy = NetworkPolicy(learning.nameplate, learning.encoders[COMPONENT], learning.export()[COMPONENT])
    return {**judge(policy, n, seed), "agent_steps": learning.agent_steps, "cpu_s": spent_s}


def judge_artifact(n: int, folder: str, seed: int) -> Result:
    """Play an artifact."""
    from ...agents.artifact import load_artifact

    return judge(load_artifact(Path(folder), system_nameplate(system_of(n))), n, seed)


def _run_job(folder: Path, sizes: list[int]) -> Job:
    """Judge the artifact of a folder; raises :class:`ConfigurationError` where it is of no such system."""
    from ...agents.artifact import load_artifact

    n = load_artifact(folder, graphs=False).nameplate.group(COMPONENT).n_assets
    if n not in sizes:
        raise ConfigurationError(f"--runs {folder}: a policy of {n} components; --systems has {sizes}")
    return Job(f"{folder.name} n={n}", 0, judge_artifact, (n, str(folder)))


def judge(policy: Policy, n: int, seed: int) -> Result:
    """Mean, standard error and deviation of the return in the twin and on the plant."""
    found: Result = {}
    for place, play, count in (("twin", play_twin, EPISODES), ("plant", play_plant, PLANT_SYSTEMS)):
        returns = play(policy, system_of(n), count, seed)
        deviation = float(returns.std(ddof=1))
        found |= {place: float(returns.mean()), f"{place}_sd": deviation, f"{place}_se": deviation / math.sqrt(count)}
    return found


def play_twin(policy: Policy, config: InspectedSystemConfig, n_episodes: int, seed: int) -> Floats:
    """Returns ``[n_episodes]`` in the twin."""
    task = InspectionCost.from_options(config, {})
    found = []
    for first in range(0, n_episodes, _CHUNK):
        n = min(_CHUNK, n_episodes - first)
        twin = InspectedSystemTwin(config, n)
        before = twin.reset(torch.arange(first, first + n) + 1_000_000_007 * (seed + 1))
        total, memory = np.zeros(n), policy.start(n)
        for year in range(task.horizon):
            commands, memory = policy.act(before.observation(twin.dt_s), memory)
            given = {COMPONENT: torch.from_numpy(np.asarray(commands[COMPONENT]))}
            after = twin.step(given)
            reward = task.score(before, given, after).reward[COMPONENT][:, 0]
            total += DISCOUNT**year * reward.numpy().astype(np.float64)
            before = after
        found.append(total)
    return np.concatenate(found)


def play_plant(policy: Policy, config: InspectedSystemConfig, n_systems: int, seed: int) -> Floats:
    """Returns ``[n_systems]`` on true cracks: inspections and repairs as they were, and failures that happened."""
    options = InspectionCost.from_options(config, {}).options
    group = system_nameplate(config).group(COMPONENT)
    found = []
    for part, first in enumerate(range(0, n_systems, _CHUNK)):
        n = min(_CHUNK, n_systems - first)
        world = CrackWorld(config, CrackPlantConfig(seed=1000 * seed + part, record_paths=50_000), n)
        statics, present = np.tile(group.statics_array(), (n, 1, 1)), np.ones((n, config.components), np.bool_)
        total, memory = np.zeros(n), policy.start(n)
        for year in range(options.horizon):
            measured = world.measured()
            observation = Observation({COMPONENT: measured}, {COMPONENT: statics}, {COMPONENT: present}, YEAR_S)
            commands, memory = policy.act(observation, memory)
            done = world.advance(np.rint(commands[COMPONENT][..., 0]).astype(np.int64))
            cost = options.inspection_cost * done.inspections + options.repair_cost * done.repairs
            total -= DISCOUNT**year * (cost + options.failure_cost * done.failures)
        found.append(total)
    return np.concatenate(found)


def measure_speed(seed: int) -> Result:
    """Env-steps (of the whole system) a CPU second, twin and task, one thread, 10 components, 2,000 replicas."""
    config, n, years = system_of(10), 2000, 30
    torch.set_num_threads(1)
    twin, task = InspectedSystemTwin(config, n), InspectionCost.from_options(config, {})
    draws = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(torch.tensor([0.85, 0.12, 0.03]), years * n * 10, replacement=True, generator=draws)
    actions = chosen.view(years, n, 10, 1).to(torch.float32)
    before = twin.reset(torch.arange(n))
    spent = []
    for _ in range(3):
        started = time.process_time()
        for action in actions:
            after = twin.step({COMPONENT: action})
            task.score(before, {COMPONENT: action}, after)
            before = after
        spent.append(time.process_time() - started)
    return {"env_steps_per_cpu_s": years * n / min(spent)}
