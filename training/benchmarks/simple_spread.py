"""MPE's simple_spread: our learners beside BenchMARL's MAPPO, by a score between random play and a heuristic."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from ...envs.configuration import load
from ...envs.errors import RunError
from ..configuration import TrainConfiguration, training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance
from ..run_statistics import interquartile_mean_interval
from .foreign_jobs import Job, Result, add_seed_arguments, chosen, first_episodes, learn, run_jobs, seed_range

NAME = "simple_spread"
SUMMARY = "learner: three agents share out landmarks (mpe2), against BenchMARL's MAPPO with the same steps"

N_AGENTS, HORIZON, LOCAL_RATIO = 3, 25, 0.5
EPISODES = 200
_OWN = ("ippo", "mappo", "happo")
_PEER = Path(__file__).parent / "peers" / "benchmarl_simple_spread.py"
_STAY, _LEFT, _RIGHT, _DOWN, _UP = range(5)
_NEAR, _LEAD_S = 0.05, 0.3

DESCRIPTION = f"""\
mpe2 simple_spread_v3, N={N_AGENTS}, {HORIZON} steps, local_ratio {LOCAL_RATIO}, discrete actions. Score of a return R
(an agent's mean over {EPISODES} episodes): (R - random) / (heuristic - random), both measured in the same job; the
heuristic assigns landmarks by the Hungarian method and brakes in time. Policies are played without exploration.

With --peer-python, the Python of an environment that has benchmarl 1.5 and mpe2, BenchMARL's MAPPO gets the same number
of steps, epochs, minibatches, learning rate and network sizes. Passed where the best of ours reaches its score. Cost:
about 350 CPU s a seed and learner of ours at 600,000 joint steps, most of it the environment's own; BenchMARL 2,500.
"""
EPILOG = """\
examples:
  twinloop bench simple_spread --seeds 0..4 --parallel 2 --out results/simple_spread --peer-python /path/bin/python
  twinloop bench simple_spread --learners mappo --seeds 0..2 --set agent_steps=300000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--learners", default=",".join(_OWN), help="of ours, default %(default)s")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("configs/foreign/simple_spread.yaml"),
        metavar="FILE",
        help="of ours, default %(default)s",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as agent_steps=300000")
    parser.add_argument("--peer-python", type=Path, metavar="PYTHON", help="of an environment with benchmarl and mpe2")
    add_seed_arguments(parser, seeds="0..4")


def run(arguments: argparse.Namespace) -> int:
    """Learn, play, and print scores; 1 where the peer's is above ours."""
    seeds = seed_range(arguments.seeds)
    learners = chosen(arguments.learners, list(_OWN), "--learners")
    config = load(arguments.config, training_model(arguments.config, arguments.set), arguments.set)
    jobs = [Job("random", 0, play_baseline, ("random",)), Job("heuristic", 0, play_baseline, ("heuristic",))]
    jobs += [Job(name, seed, train_and_play, (with_learner(config, name),)) for name in learners for seed in seeds]
    sides = list(learners)
    if arguments.peer_python is not None:
        sides.append("benchmarl mappo")
        jobs += [Job("benchmarl", s, play_peer, (str(arguments.peer_python), config)) for s in seeds]
    floor, ceiling, *results = run_jobs(jobs, arguments.out, arguments.parallel)
    span = ceiling["return"] - floor["return"]
    rows: list[tuple[Cell, ...]] = [
        (name, "0" if name == "random" else "1", f"{r['return']:.2f}", "-", "-")
        for name, r in (("random", floor), ("heuristic", ceiling))
    ]
    estimates: dict[str, float] = {}
    for i, side in enumerate(sides):
        mine = results[i * len(seeds) : (i + 1) * len(seeds)]
        scores = [(r["return"] - floor["return"]) / span for r in mine]
        estimates[side] = float(np.mean(scores))
        shown = f"{estimates[side]:.3f}"
        if len(seeds) > 2:
            interval = interquartile_mean_interval([scores])
            estimates[side] = interval.estimate
            shown = f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
        rows.append(
            (
                side, shown, f"{np.mean([r['return'] for r in mine]):.2f}", int(mine[0]["agent_steps"]),
                f"{np.mean([r['cpu_s'] for r in mine]):.0f}",
            )
        )  # fmt: skip
    peer = estimates.pop("benchmarl mappo", None)
    passed = peer is None or max(estimates.values(), default=0.0) >= peer
    columns = ("policy", "score IQM [95 %]", "return an agent", "agent-steps", "CPU s")
    notes = (
        f"mpe2 simple_spread_v3, N={N_AGENTS}, {HORIZON} steps, local_ratio {LOCAL_RATIO}, discrete.",
        f"{len(seeds)} seeds, {EPISODES} episodes each, without exploration.",
        "BenchMARL was not run; give --peer-python." if peer is None else "BenchMARL in the same job, the same steps.",
    )
    data = {"results": [{"policy": j.name, "seed": j.seed, **r} for j, r in zip(jobs[2:], results, strict=True)]}
    table = Table("simple_spread", columns, tuple(rows), notes, {**data, "random": floor, "heuristic": ceiling})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if passed else 1


def with_learner(config: TrainConfiguration, kind: str) -> TrainConfiguration:
    """The same run with another of our on-policy learners, whatever else it shares."""
    models = {"ippo": PpoConfiguration, "mappo": MappoConfiguration, "happo": HappoConfiguration}
    own = {"kind", "weights", "team_reward"} if kind == "happo" else {"kind", "critic"} if kind == "ippo" else {"kind"}
    settings = {k: v for k, v in config.learner.model_dump().items() if k not in own}
    return config.model_copy(update={"name": f"{config.name}-{kind}", "learner": models[kind](kind=kind, **settings)})


def train_and_play(config: TrainConfiguration, seed: int) -> Result:
    """Train one seed and play."""
    config = config.model_copy(update={"seed": seed})
    problem = Problem.of(config)
    learning = learn(config, problem)
    returns = first_episodes(problem, learning.policy_weights(), seed, EPISODES)
    return {"return": float(returns.mean()), "agent_steps": learning.agent_steps}


def play_baseline(name: str, seed: int) -> Result:
    """Random play, or the Hungarian heuristic, straight on the environment."""
    policy: Callable[[NDArray[Any], Any], int] = _random if name == "random" else _hungarian
    return {"return": float(np.mean(play_episodes(policy, seed, EPISODES))), "agent_steps": 0}


def play_episodes(choose: Callable[[NDArray[Any], Any], int], seed: int, n_episodes: int) -> list[float]:
    """An agent's return in each episode, mean over agents; ``choose(observation, generator)`` picks an action."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(
        N=N_AGENTS, max_cycles=HORIZON, local_ratio=LOCAL_RATIO, continuous_actions=False
    )
    generator = np.random.default_rng(seed)
    returns = []
    for episode in range(n_episodes):
        seen, _ = env.reset(seed=1_000_000 * (seed + 1) + episode)
        total = 0.0
        while env.agents:
            seen, reward, *_ = env.step({agent: choose(seen[agent], generator) for agent in env.agents})
            total += sum(reward.values()) / N_AGENTS
        returns.append(total)
    env.close()
    return returns


def _random(observation: NDArray[Any], generator: np.random.Generator) -> int:
    return int(generator.integers(5))


def _hungarian(observation: NDArray[Any], generator: np.random.Generator) -> int:
    """Go to one's own landmark of the least total distance; own velocity, position, landmarks, others are observed."""
    from scipy.optimize import linear_sum_assignment

    velocity = observation[0:2]
    landmarks = observation[4 : 4 + 2 * N_AGENTS].reshape(-1, 2)
    others = observation[4 + 2 * N_AGENTS : 4 + 2 * N_AGENTS + 2 * (N_AGENTS - 1)].reshape(-1, 2)
    agents = np.concatenate([np.zeros((1, 2)), others])
    distance = np.linalg.norm(agents[:, None] - landmarks[None], axis=-1)
    mine = landmarks[linear_sum_assignment(distance)[1][0]]
    pull = mine - _LEAD_S * velocity
    if np.abs(pull).max() < _NEAR:
        return _STAY
    if abs(pull[0]) > abs(pull[1]):
        return _RIGHT if pull[0] > 0 else _LEFT
    return _UP if pull[1] > 0 else _DOWN


def play_peer(python: str, config: TrainConfiguration, seed: int) -> Result:
    """BenchMARL's MAPPO in its own environment; raises :class:`RunError` with what it printed where it failed."""
    learner = config.learner
    assert isinstance(learner, PpoConfiguration)
    settings = {
        "seed": seed, "episodes": EPISODES, "n_agents": N_AGENTS, "horizon": HORIZON, "local_ratio": LOCAL_RATIO,
        "joint_steps": -(-(config.agent_steps or 0) // N_AGENTS), "replicas": config.rollout.replicas,
        "steps": config.rollout.steps, "epochs": learner.epochs, "minibatches": learner.minibatches, "lr": learner.lr,
        "gamma": learner.gamma, "gae_lambda": learner.gae_lambda, "clip": learner.clip, "hidden": list(learner.hidden),
        "entropy_coefficient": learner.entropy_coefficient, "max_grad_norm": learner.max_grad_norm,
    }  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)  # the peer's packages are its own
    done = subprocess.run(
        [python, str(_PEER), json.dumps(settings)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"{python} {_PEER.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: Result = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    return result
