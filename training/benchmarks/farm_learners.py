"""How many steps and CPU seconds each kind of learner needs on one wind farm, until it steers as the optimiser does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.analytic_settings import AnalyticConfiguration
from ...agents.forward import PolicyNetwork
from ...agents.policy import Commands, Memory
from ...agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from ...agents.sac_settings import SacConfiguration
from ...agents.sb3_settings import Sb3Configuration
from ...envs.configuration import load
from ...envs.encoder import Encoder
from ...envs.nameplate import Nameplate
from ...envs.twin import Observation
from ...envs.wind_farm.config import WindFarmConfig
from ...envs.wind_farm.nameplate import GROUP
from ..configuration import LearnerConfiguration, TrainConfiguration, training_model
from ..problem import Problem
from ..report import Cell, Table, print_table, provenance
from ..rollout_settings import RolloutConfiguration
from ..steady_evaluation import SteadyWind, optimum, steady_observation
from .foreign_jobs import Job, Result, add_seed_arguments, chosen, learn, run_jobs, seed_range

NAME = "farm_learners"
SUMMARY = "learners: steps and CPU seconds of each kind until it gains on Ablaincourt what the optimiser gains"

_SHARE, _TWICE = 0.95, 2
_EVERY = 4
_TURNS, _SETTLED = 8, 3
_WIND = SteadyWind()
_BAR_STEPS = 50_000
_CONTROLLED = {GROUP: ("yaw_offset_deg",)}
_HIDDEN = (64, 64)

_PPO: dict[str, Any] = {
    "controlled": _CONTROLLED, "hidden": _HIDDEN, "gamma": 0.0, "gae_lambda": 0.0, "lr": 2e-3, "minibatches": 4,
    "epochs": 10, "log_std_initial": -1.0, "log_std_minimum": -3.0,
}  # fmt: skip
_SB3_PPO = {
    "learning_rate": 2e-3, "batch_size": 112, "n_epochs": 10, "gamma": 0.0, "gae_lambda": 0.0,
    "policy_kwargs": {"net_arch": list(_HIDDEN), "log_std_init": -1.0},
}  # fmt: skip
_SB3_SAC = {
    "learning_rate": 2e-3, "gamma": 0.0, "batch_size": 256, "learning_starts": 448, "gradient_steps": 10,
    "policy_kwargs": {"net_arch": list(_HIDDEN)},
}  # fmt: skip
_ROLLOUT = RolloutConfiguration(replicas=32, steps=2)
LEARNERS: dict[str, tuple[LearnerConfiguration, RolloutConfiguration, int]] = {
    "ippo": (PpoConfiguration(kind="ippo", **_PPO), _ROLLOUT, 220),
    "mappo": (MappoConfiguration(**_PPO, critic="joint"), _ROLLOUT, 220),
    "happo": (HappoConfiguration(**_PPO, critic="joint"), _ROLLOUT, 220),
    "masac": (
        SacConfiguration(
            controlled=_CONTROLLED, hidden=_HIDDEN, gamma=0.0, lr=2e-3, warm_up=64, updates_per_step=5.0, batch=64,
            buffer=20_000, temperature_initial=0.02,
        ),
        _ROLLOUT,
        220,
    ),
    "analytic": (
        AnalyticConfiguration(controlled=_CONTROLLED, hidden=_HIDDEN, lr=5e-3, noise_initial=0.06, noise_final=0.01),
        RolloutConfiguration(replicas=16, steps=2),
        220,
    ),
    "sb3_ppo": (Sb3Configuration(controlled=_CONTROLLED, algorithm="PPO", options=_SB3_PPO), _ROLLOUT, 220),
    "sb3_sac": (Sb3Configuration(controlled=_CONTROLLED, algorithm="SAC", options=_SB3_SAC), _ROLLOUT, 220),
}  # fmt: skip
"""Each learner with its rollouts and the iterations after which it is given up."""

DESCRIPTION = f"""\
Learn to steer the 7 turbines of Ablaincourt in the steady twin (configs/wind_farm/fast_ablaincourt.yaml), and ask after
every fourth iteration what the policy gains over greedy in FLORIS at 8 m/s from 270 deg, turbulence 0.06, as a share of
what FLORIS' serial-refine gains there. A seed arrives where that share is at least {_SHARE:.0%} twice in a row.

The table gives agent-steps and CPU seconds to arrive (median over seeds, and range; without what the evaluations cost).
Passed where the best learner's median is at most {_BAR_STEPS:,} agent-steps. Cost: 20 to 120 CPU s a seed and
learner, evaluations included.
"""
EPILOG = """\
examples:
  twinloop bench farm_learners --seeds 0..4 --parallel 2 --out results/farm_learners
  twinloop bench farm_learners --learners ippo,analytic --seeds 0..2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--learners", default=",".join(LEARNERS), help="default %(default)s")
    parser.add_argument(
        "--config", type=Path, default=Path("configs/wind_farm/fast_ablaincourt.yaml"), metavar="FILE",
        help="site, task and encoder, default %(default)s",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, metavar="K", help="of every learner, instead of its own")
    add_seed_arguments(parser, seeds="0..4")


def run(arguments: argparse.Namespace) -> int:
    """Learn, print; 1 where even the best learner takes too many steps."""
    seeds = seed_range(arguments.seeds)
    names = chosen(arguments.learners, list(LEARNERS), "--learners")
    config = load(arguments.config, training_model(arguments.config))
    reference = run_jobs([Job("optimum", 0, find_optimum, (config.site,))], arguments.out)[0]
    powers = (reference["greedy_kw"], reference["optimum_kw"])
    jobs = [
        Job(name, seed, time_to_gain, (with_learner(config, name, arguments.iterations), *powers))
        for name in names
        for seed in seeds
    ]
    results = run_jobs(jobs, arguments.out, arguments.parallel)
    rows: list[tuple[Cell, ...]] = []
    medians: dict[str, float] = {}
    for i, name in enumerate(names):
        mine = results[i * len(seeds) : (i + 1) * len(seeds)]
        there = [r for r in mine if r["arrived"]]
        steps = [r["agent_steps"] if r["arrived"] else np.inf for r in mine]
        medians[name] = float(np.median(steps))
        rows.append(
            (
                name, f"{len(there)} of {len(mine)}", _shown([r["agent_steps"] for r in there], len(mine)),
                _shown([r["learning_cpu_s"] for r in there], len(mine)),
                f"{100 * float(np.median([r['share'] for r in mine])):.1f} %",
            )
        )  # fmt: skip
    best = min(medians, key=lambda name: medians[name])
    passed = medians[best] <= _BAR_STEPS
    columns = ("learner", "arrived", "agent-steps", "CPU s", "share at the end")
    notes = (
        f"{len(seeds)} seeds; until {_SHARE:.0%} of the optimiser's gain; median [least, most] of those that arrived.",
        f"Bar: {_BAR_STEPS:,} agent-steps for the best learner; {best} takes {medians[best]:,.0f}.",
    )
    data = {"results": [{"learner": j.name, "seed": j.seed, **r} for j, r in zip(jobs, results, strict=True)]}
    table = Table("Learners on the wind farm", columns, tuple(rows), notes, {**data, "passed": passed})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if passed else 1


def _shown(values: list[float], n_seeds: int) -> str:
    if 2 * len(values) <= n_seeds:
        return "-"
    return f"{np.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"


def with_learner(config: TrainConfiguration, name: str, iterations: int | None = None) -> TrainConfiguration:
    """The same farm with another learner."""
    learner, rollout, own = LEARNERS[name]
    changes: dict[str, Any] = {"learner": learner, "rollout": rollout, "iterations": iterations or own}
    if isinstance(learner, AnalyticConfiguration):
        # It differentiates the sum of all rewards, in which each turbine's power must stand once.
        options = {**config.task.options, "credit": "own"}
        changes["task"] = config.task.model_copy(update={"options": options})
    return config.model_copy(update=changes)


class NetworkPolicy:
    """A learner's network straight from memory, as a :class:`~twinloop.agents.policy.Policy`."""

    name = "network"

    def __init__(self, nameplate: Nameplate, encoder: Encoder, network: PolicyNetwork) -> None:
        self.nameplate, self._encoder, self._network = nameplate, encoder, network

    def start(self, n_rows: int) -> Memory:
        group = self.nameplate.group(self._encoder.group)
        return dict(
            self._encoder.start(n_rows, group.n_assets, np.zeros((n_rows, group.n_assets, len(group.measured))))
        )

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        group = self._encoder.group
        present = observation.present[group]
        seen = (observation.measured[group], observation.statics[group], present)
        features, after = self._encoder.encode(*seen, memory, observation.dt_s)
        nothing = np.empty((*present.shape, 0), np.float32)
        commands, _ = self._network.forward(np.asarray(features, np.float32), nothing, None)
        return {group: commands.astype(np.float64)}, dict(after)


def _model(config: WindFarmConfig) -> Any:
    from ...envs.wind_farm.floris_model import build_model

    return build_model(
        config,
        wind_speeds=[_WIND.speed_mps],
        wind_directions=[_WIND.direction_deg],
        turbulence=[_WIND.turbulence_pu],
    )


def find_optimum(config: WindFarmConfig, seed: int) -> Result:
    """Greedy's power and the optimiser's, in kW."""
    _, greedy_kw, optimum_kw, _ = optimum(_model(config))
    return {"greedy_kw": greedy_kw, "optimum_kw": optimum_kw}


class GainMeter:
    """The share of the optimiser's gain in FLORIS."""

    def __init__(self, config: WindFarmConfig, greedy_kw: float, optimum_kw: float) -> None:
        self._model = _model(config)
        self._greedy_kw, self._optimum_kw = greedy_kw, optimum_kw

    def share(
        self, nameplate: Nameplate, encoders: Mapping[str, Encoder], networks: Mapping[str, PolicyNetwork]
    ) -> float:
        """Of a policy's offsets once they have settled: the mean over the last turns."""
        from ...envs.wind_farm.yaw_optimum import farm_power_kw

        policy = NetworkPolicy(nameplate, encoders[GROUP], networks[GROUP])
        offsets, memory = np.zeros(nameplate.group(GROUP).n_assets), policy.start(1)
        powers = []
        for turn in range(_TURNS):
            powers.append(float(farm_power_kw(self._model, offsets[None])[0]))
            if turn + 1 < _TURNS:
                seen = steady_observation(nameplate, self._model, offsets, _WIND)
                commands, memory = policy.act(seen, memory)
                offsets = commands[GROUP][0, :, 0]
        power_kw = float(np.mean(powers[-_SETTLED:]))
        return (power_kw - self._greedy_kw) / (self._optimum_kw - self._greedy_kw)


def time_to_gain(config: TrainConfiguration, greedy_kw: float, optimum_kw: float, seed: int) -> Result:
    """Learn one seed until it arrives, or its iterations are over."""
    config = config.model_copy(update={"seed": seed})
    problem = Problem.of(config)
    site = config.site
    assert isinstance(site, WindFarmConfig)
    meter = GainMeter(site, greedy_kw, optimum_kw)
    shares: list[float] = []
    evaluating_s = 0.0
    started_s = time.process_time()

    def arrived(learning: Any) -> bool:
        nonlocal evaluating_s
        if learning.iteration % _EVERY and learning.iteration < learning.n_iterations:
            return False
        before_s = time.process_time()
        shares.append(meter.share(learning.nameplate, learning.encoders, learning.export()))
        evaluating_s += time.process_time() - before_s
        return len(shares) >= _TWICE and min(shares[-_TWICE:]) >= _SHARE

    learning = learn(config, problem, arrived)
    spent_s = time.process_time() - started_s - evaluating_s
    return {
        "arrived": min(shares[-_TWICE:]) >= _SHARE,
        "agent_steps": learning.agent_steps,
        "learning_cpu_s": spent_s,
        "share": shares[-1],
        "shares": [round(float(s), 4) for s in _thinned(np.array(shares))],
    }


def _thinned(shares: NDArray[np.float64], most: int = 50) -> NDArray[np.float64]:
    return shares[:: max(1, -(-len(shares) // most))]
