"""PPO by Stable-Baselines3 against PPO by twinloop: the same hyper-parameters on the same twin."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...agents.ppo_settings import PpoConfiguration
from ...agents.sb3_settings import Sb3Configuration
from ..learning import make_learning
from ..report import Cell, Table, print_table, provenance, say
from ..run_settings import EvaluationConfiguration
from ..statistics import mean_difference_interval, mean_interval
from .reference_task import DriftConfig, drift_configuration, drift_problem

NAME = "sb3_agreement"
SUMMARY = "PPO of twinloop and of Stable-Baselines3, same hyper-parameters: do their rewards agree over seeds"

DESCRIPTION = """\
Train the reference task (drift, 64 x 64 tanh, 4 epochs of 8 minibatches) with learner kind ppo and with learner kind
sb3, and compare, over seeds: the reward an agent-step while learning, mean of all iterations (how fast it learns), and
at the end without exploration on replicas that neither learnt from (what it learnt). The bar is met when the 95 %
interval of each difference, taken in pairs, holds zero or lies within 5 % of what was gained.
"""

CURVE, END = "while learning", "at the end"
Rewards = dict[str, list[float]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench sb3_agreement --seeds 5"
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of either side, at least 3 (5)")
    parser.add_argument("--iterations", type=int, default=14, metavar="N", help="of 8,192 agent-steps each (14)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train, print, and return 0 when the two agree."""
    seeds = range(max(3, arguments.seeds))
    ours, theirs = learn(seeds, arguments.iterations, 8)
    rows: list[tuple[Cell, ...]] = []
    met = []
    for figure in (CURVE, END):
        difference = mean_difference_interval(ours[figure], theirs[figure])
        gained = abs(sum(ours[END]) / len(seeds) - sum(ours["before"]) / len(seeds))
        agrees = not difference.excludes(0.0) or max(abs(difference.low), abs(difference.high)) <= 0.05 * gained
        met.append(agrees)
        sides = {"twinloop": mean_interval(ours[figure]), "Stable-Baselines3": mean_interval(theirs[figure])}
        rows += [(figure, n, f"{i.estimate:.4f}", f"{i.low:.4f}", f"{i.high:.4f}", "-") for n, i in sides.items()]
        signed = [f"{x:+.4f}" for x in (difference.estimate, difference.low, difference.high)]
        rows.append((figure, "difference", *signed, "yes" if agrees else "no"))
    columns = ("reward", "PPO of", "mean", "from", "to", "agrees")
    note = f"Reward an agent-step; {len(seeds)} seeds, 95 % intervals; differences in pairs of seeds."
    table = Table("PPO of twinloop and of Stable-Baselines3", columns, tuple(rows), (note,))
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if all(met) else 1


def learn(seeds: Sequence[int], iterations: int, n_assets: int) -> tuple[Rewards, Rewards]:
    """Rewards an agent-step of ours and of SB3's, a seed: ``before``, ``while learning`` and ``at the end``."""
    ours: Rewards = {"before": [], CURVE: [], END: []}
    theirs: Rewards = {"before": [], CURVE: [], END: []}
    for seed in seeds:
        our_settings, their_settings = _settings(n_assets)
        sides: list[tuple[Rewards, PpoConfiguration | Sb3Configuration]] = [
            (ours, our_settings), (theirs, their_settings),
        ]  # fmt: skip
        for rewards, settings in sides:
            for figure, value in _train(settings, seed, iterations, n_assets).items():
                rewards[figure].append(value)
        say(f"seed {seed}: twinloop {ours[END][-1]:.4f}, Stable-Baselines3 {theirs[END][-1]:.4f}")
    return ours, theirs


def _settings(n_assets: int) -> tuple[PpoConfiguration, Sb3Configuration]:
    """The same numbers in the words of either side."""
    ours = PpoConfiguration(normalise_features=False)
    rollout = drift_configuration(1).rollout
    options: dict[str, Any] = {
        "learning_rate": ours.lr,
        "n_epochs": ours.epochs,
        "batch_size": rollout.replicas * rollout.steps * n_assets // ours.minibatches,
        "gamma": ours.gamma,
        "gae_lambda": ours.gae_lambda,
        "clip_range": ours.clip,
        "ent_coef": ours.entropy_coefficient,
        "vf_coef": ours.value_coefficient,
        "max_grad_norm": ours.max_grad_norm,
        "policy_kwargs": {"net_arch": list(ours.hidden), "log_std_init": ours.log_std_initial},
    }
    return ours, Sb3Configuration(algorithm="PPO", options=options)


def _train(learner: PpoConfiguration | Sb3Configuration, seed: int, iterations: int, n_assets: int) -> dict[str, float]:
    config = drift_configuration(
        iterations, learner=learner, seed=seed, site=DriftConfig(n_assets=n_assets),
        evaluation=EvaluationConfiguration(replicas=64),
    )  # fmt: skip
    with ExitStack() as stack:
        trainer = make_learning(config, drift_problem(config), stack)
        before = trainer.evaluate()
        curve = [trainer.iterate()["reward/mean"] for _ in range(iterations)]
        return {"before": before, CURVE: sum(curve) / len(curve), END: trainer.evaluate()}
