"""One-step cooperative games that independent learning loses, and who finds their optimum.

Climbing and penalty (Claus & Boutilier 1998, "The dynamics of reinforcement learning in cooperative multiagent
systems", AAAI; Kapetanakis & Kudenko 2002 for k = -100): two players, three actions, one common reward. The optimum
stands beside a large loss, so that whoever averages over what the other does learns to keep away from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel

from ...agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from ...envs.configuration import Strict
from ...envs.encoder import Encoder
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Plant
from ...envs.task import Score
from ...envs.twin import Parameter, Readings, Snapshot, Tensors
from ..configuration import TaskChoice, TrainConfiguration
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance
from ..rollout_settings import RolloutConfiguration
from .foreign_jobs import Job, Result, add_seed_arguments, chosen, first_episodes, learn, run_jobs, seed_range

NAME = "matrix_games"
SUMMARY = "learner: climbing and penalty games: who finds the optimum that independent learning misses"

GROUP, N_LEVELS = "player", 3
GAMES: dict[str, tuple[tuple[float, ...], ...]] = {
    "climbing": ((11.0, -30.0, 0.0), (-30.0, 7.0, 6.0), (0.0, 0.0, 5.0)),
    "penalty": ((-100.0, 0.0, 10.0), (0.0, 2.0, 0.0), (10.0, 0.0, -100.0)),
}
_OPTIMA = {name: max(max(row) for row in payoff) for name, payoff in GAMES.items()}
_SCALE = 0.1
_BAR_INDEPENDENT, _BAR_BEST = 0.5, 0.9


class MatrixConfig(Strict):
    """A game by name. ``central``: one player who chooses for both, from all pairs of actions."""

    kind: Literal["matrix_game"] = "matrix_game"
    game: Literal["climbing", "penalty"] = "climbing"
    central: bool = False


class MatrixTwin:
    """Two players that see nothing; what they chose last is hidden. There is no noise: seeds change nothing."""

    parameter_specs: tuple[Parameter, ...] = ()
    dt_s = 1.0

    def __init__(self, config: MatrixConfig, n_replicas: int, device: str, dtype: torch.dtype) -> None:
        self.nameplate = matrix_nameplate(central=config.central)
        self._central = config.central
        self.n_replicas, self.dtype, self.device = n_replicas, dtype, torch.device(device)
        self._payoff = torch.tensor(GAMES[config.game], dtype=dtype, device=self.device)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64, device=self.device)
        self._earned = torch.zeros(n_replicas, dtype=dtype, device=self.device)
        shape = (n_replicas, 1 if config.central else 2)
        self._blank = torch.ones(*shape, 1, dtype=dtype, device=self.device)
        self._present = torch.ones(shape, dtype=torch.bool, device=self.device)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        at = torch.arange(self.n_replicas, device=self.device) if rows is None else rows
        self._steps = self._steps.index_fill(0, at, 0)
        self._earned = self._earned.index_fill(0, at, 0.0)
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        most = N_LEVELS**2 - 1 if self._central else N_LEVELS - 1
        level = commands[GROUP][..., 0].round().clamp(0, most).long()
        row, column = (level[:, 0] // N_LEVELS, level[:, 0] % N_LEVELS) if self._central else level.unbind(1)
        self._earned = self._payoff[row, column]
        self._steps = self._steps + 1
        return self._read()

    def snapshot(self) -> Snapshot:
        return {"steps": self._steps.clone(), "earned": self._earned.clone()}

    def restore(self, snapshot: Snapshot) -> None:
        self._steps, self._earned = snapshot["steps"].clone(), snapshot["earned"].clone()

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        if values:
            raise ConfigurationError(f"a matrix game has no parameters; got {sorted(values)}")

    def _read(self) -> Readings:
        return Readings(
            measured={GROUP: self._blank},
            hidden={GROUP: self._earned[:, None, None].expand_as(self._blank).clone()},
            statics={GROUP: self._blank[..., :0]},
            present={GROUP: self._present},
            time_s=self._steps.to(self.dtype) * self.dt_s,
        )


def matrix_nameplate(*, central: bool = False) -> Nameplate:
    """Two players with one discrete command each, or one for both; they measure a constant."""
    levels = tuple(float(k) for k in range(N_LEVELS**2 if central else N_LEVELS))
    group = Group(
        name=GROUP,
        assets=("both",) if central else ("row", "column"),
        measured=(Signal("one", "1", 0.0, 1.0),),
        hidden=(Signal("earned", "1", -100.0, 100.0),),
        commanded=(Signal("choice", "1", levels[0], levels[-1], levels=levels),),
    )
    return Nameplate(site="matrix_game", period_s=1.0, groups=(group,))


@dataclass(frozen=True)
class MatrixTask:
    """The common payoff; every step is an episode."""

    name: str = "payoff"
    horizon: int = 1

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        earned = after.hidden[GROUP][..., 0]
        return Score(reward={GROUP: earned}, terminated=torch.ones(len(earned), dtype=torch.bool, device=earned.device))


class MatrixSite:
    """A matrix game as a site. It is not announced: it exists to test learners."""

    name = "matrix_game"
    summary = "two players, one payoff"
    config_model: type[BaseModel] = MatrixConfig
    plant_config_model: type[BaseModel] = MatrixConfig

    def nameplate(self, config: MatrixConfig) -> Nameplate:
        return matrix_nameplate(central=config.central)

    def twin(self, config: MatrixConfig, n_replicas: int, device: str, dtype: torch.dtype) -> MatrixTwin:
        return MatrixTwin(config, n_replicas, device, dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("payoff",)

    def task(self, name: str, config: MatrixConfig, options: Mapping[str, Any]) -> MatrixTask:
        return MatrixTask(**options)

    def encoders(self) -> tuple[str, ...]:
        return ()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        raise ConfigurationError("a matrix game has no encoder of its own; leave encoder out")

    def plant(self, config: MatrixConfig, plant_config: MatrixConfig) -> Plant:
        raise ConfigurationError("a matrix game has no plant; it exists in the twin alone")


SITE = MatrixSite()

_COMMON: dict[str, Any] = {
    "hidden": (16,), "gamma": 0.0, "gae_lambda": 0.0, "lr": 5e-3, "epochs": 4, "minibatches": 1,
    "normalise_features": False, "weights": "separate", "reward_scale": _SCALE,
}  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A learner with the replicas and iterations that it gets; ``central``: it chooses for both players."""

    settings: PpoConfiguration
    replicas: int = 64
    iterations: int = 300
    central: bool = False


_SMALL = {**_COMMON, "lr": 2e-2}
LEARNERS: dict[str, Contender] = {
    "ippo": Contender(PpoConfiguration(kind="ippo", **_COMMON)),
    "mappo": Contender(MappoConfiguration(**_COMMON, critic="joint", team_reward=True)),
    "happo": Contender(HappoConfiguration(**_COMMON, critic="joint")),
    "ippo_entropy": Contender(PpoConfiguration(kind="ippo", **_COMMON, entropy_coefficient=0.5)),
    "happo_entropy": Contender(HappoConfiguration(**_COMMON, critic="joint", entropy_coefficient=0.5)),
    "happo_small_batch": Contender(HappoConfiguration(**_SMALL, critic="joint"), replicas=4),
    "central": Contender(PpoConfiguration(**_COMMON), central=True),
}
"""Three as they are; the same with much entropy; with so few samples that chance explores; and one that is no team."""

DESCRIPTION = f"""\
Two players with separate weights learn from one common payoff; a seed finds the optimum where the pair of most likely
actions earns it. The payoffs are scaled by {_SCALE} for all learners. `central` is one player who chooses for both.

Passed where ippo finds it in at most {_BAR_INDEPENDENT:.0%} of the seeds of a game and some other learner in at least
{_BAR_BEST:.0%} of them. Cost: 1 to 2 CPU s a seed, learner and game.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--games", default=",".join(GAMES), help="default %(default)s")
    parser.add_argument("--learners", default=",".join(LEARNERS), help="default %(default)s")
    parser.add_argument("--iterations", type=int, metavar="K", help="of every learner, instead of its own")
    add_seed_arguments(parser, seeds="0..19")


def run(arguments: argparse.Namespace) -> int:
    """Learn, print the share of seeds that found the optimum; 1 where a bar is missed."""
    seeds = seed_range(arguments.seeds)
    games = chosen(arguments.games, list(GAMES), "--games")
    learners = chosen(arguments.learners, list(LEARNERS), "--learners")
    pairs = [(game, learner) for game in games for learner in learners]
    jobs = [
        Job(f"{game}-{learner}", seed, play, (configuration(game, learner, arguments.iterations),))
        for game, learner in pairs
        for seed in seeds
    ]
    results = run_jobs(jobs, arguments.out, arguments.parallel)
    rows: list[tuple[Cell, ...]] = []
    found: dict[str, dict[str, float]] = {game: {} for game in games}
    for i, (game, learner) in enumerate(pairs):
        mine = results[i * len(seeds) : (i + 1) * len(seeds)]
        earned = [r["earned"] for r in mine]
        found[game][learner] = share = float(np.mean([e == _OPTIMA[game] for e in earned]))
        counts = {value: earned.count(value) for value in sorted(set(earned), reverse=True)}
        shown = ", ".join(f"{value:g}: {n}" for value, n in counts.items())
        rows.append(
            (
                game,
                learner,
                f"{share:.0%}",
                f"{np.mean(earned):.2f}",
                shown,
                f"{np.mean([r['cpu_s'] for r in mine]):.1f}",
            )
        )
    passed = all(_passes(shares) for shares in found.values())
    columns = ("game", "learner", "optimum found", "mean payoff", "payoffs: seeds", "CPU s")
    notes = (f"{len(seeds)} seeds; optima: " + ", ".join(f"{g} {_OPTIMA[g]:g}" for g in games) + ".",)
    table = Table("Matrix games", columns, tuple(rows), notes, {"found": found, "passed": passed})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if passed else 1


def configuration(game: str, learner: str, iterations: int | None = None) -> TrainConfiguration:
    """The run of one learner on one game."""
    contender = LEARNERS[learner]
    return TrainConfiguration(
        name=f"{game}-{learner}",
        site=MatrixConfig(game=game, central=contender.central),
        task=TaskChoice(name="payoff"),
        learner=contender.settings,
        rollout=RolloutConfiguration(replicas=contender.replicas, steps=1),
        iterations=iterations or contender.iterations,
    )


def play(config: TrainConfiguration, seed: int) -> Result:
    """Learn one seed; what the most likely actions earn."""
    config = config.model_copy(update={"seed": seed})
    problem = Problem.of(config, SITE)
    learning = learn(config, problem)
    earned = first_episodes(problem, learning.policy_weights(), seed, 1)
    return {"earned": float(earned[0]), "agent_steps": learning.agent_steps}


def _passes(shares: Mapping[str, float]) -> bool:
    others = [share for name, share in shares.items() if name != "ippo"]
    return shares.get("ippo", 0.0) <= _BAR_INDEPENDENT and max(others, default=1.0) >= _BAR_BEST
