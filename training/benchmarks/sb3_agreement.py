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
sb3, and compare the mean reward an agent-step without exploration, on replicas that neither learnt from, at the end.
The bar is met when the 95 % interval of the difference of seeds, taken in pairs, holds zero, or lies within 5 % of
what was learnt.
"""


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
    ours, theirs = final_rewards(seeds, arguments.iterations, 8)
    first = _reward(_settings()["ours"], 0, 0, 8)
    difference = mean_difference_interval(ours, theirs)
    sides = {"twinloop ppo": mean_interval(ours), "Stable-Baselines3 PPO": mean_interval(theirs)}
    gained = abs(sides["Stable-Baselines3 PPO"].estimate - first)
    agrees = not difference.excludes(0.0) or max(abs(difference.low), abs(difference.high)) <= 0.05 * gained
    rows: list[tuple[Cell, ...]] = [
        (name, f"{i.estimate:.4f}", f"{i.low:.4f}", f"{i.high:.4f}", "-") for name, i in sides.items()
    ]
    signed = [f"{x:+.4f}" for x in (difference.estimate, difference.low, difference.high)]
    rows.append(("difference", *signed, "yes" if agrees else "no"))
    note = f"Reward an agent-step without exploration; {first:.3f} before learning. {len(seeds)} seeds, 95 % intervals."
    table = Table(
        "PPO of twinloop and of Stable-Baselines3", ("learner", "reward", "from", "to", "agrees"), tuple(rows), (note,)
    )
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if agrees else 1


def final_rewards(seeds: Sequence[int], iterations: int, n_assets: int) -> tuple[list[float], list[float]]:
    """Reward an agent-step without exploration after training, a seed, of ours and of SB3's."""
    ours, theirs = [], []
    for seed in seeds:
        settings = _settings()
        ours.append(_reward(settings["ours"], seed, iterations, n_assets))
        theirs.append(_reward(settings["theirs"], seed, iterations, n_assets))
        say(f"seed {seed}: twinloop {ours[-1]:.4f}, Stable-Baselines3 {theirs[-1]:.4f}")
    return ours, theirs


def _settings() -> dict[str, PpoConfiguration | Sb3Configuration]:
    """The same numbers in the words of either side."""
    ours = PpoConfiguration(normalise_features=False)
    options: dict[str, Any] = {
        "learning_rate": ours.lr,
        "n_epochs": ours.epochs,
        "gamma": ours.gamma,
        "gae_lambda": ours.gae_lambda,
        "clip_range": ours.clip,
        "ent_coef": ours.entropy_coefficient,
        "vf_coef": ours.value_coefficient,
        "max_grad_norm": ours.max_grad_norm,
        "policy_kwargs": {"net_arch": list(ours.hidden), "log_std_init": ours.log_std_initial},
    }
    return {"ours": ours, "theirs": Sb3Configuration(algorithm="PPO", options=options)}


def _reward(learner: PpoConfiguration | Sb3Configuration, seed: int, iterations: int, n_assets: int) -> float:
    config = drift_configuration(
        max(1, iterations), learner=learner, seed=seed, site=DriftConfig(n_assets=n_assets),
        evaluation=EvaluationConfiguration(replicas=64),
    )  # fmt: skip
    if isinstance(learner, Sb3Configuration):
        batch = config.rollout.replicas * config.rollout.steps * n_assets // _settings_of_ours().minibatches
        learner = learner.model_copy(update={"options": {**learner.options, "batch_size": batch}})
        config = config.model_copy(update={"learner": learner})
    with ExitStack() as stack:
        trainer = make_learning(config, drift_problem(config), stack)
        for _ in range(iterations):
            trainer.iterate()
        return trainer.evaluate()


def _settings_of_ours() -> PpoConfiguration:
    return PpoConfiguration()
