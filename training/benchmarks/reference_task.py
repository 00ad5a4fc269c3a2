"""The learner's speed on the reference task, against a plain hand-written torch loop on the same task.

The task: 8 like assets with 10 observations and 2 actions, a leaky linear system; reward ``-mean(x^2)``; truncation
after 100 steps. It is a genuine twin and task here, so the figure holds all that training costs: registry contracts,
counter-based noise, masks, episode bookkeeping.
"""

# ruff: noqa: T201  (a benchmark prints its figure)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import psutil
import torch
from pydantic import BaseModel, Field

from ...agents.ppo_settings import PpoConfiguration
from ...envs.configuration import Strict
from ...envs.encoder import Array, Encoder
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.noise import NormalsAhead, normal
from ...envs.plant import Plant
from ...envs.task import Score
from ...envs.twin import Parameter, Readings, Snapshot, Tensors
from ..configuration import EncoderChoice, TaskChoice, TrainConfiguration
from ..problem import Problem
from ..report import Cell, Table, provenance
from ..rollout_settings import RolloutConfiguration
from ..trainer import Trainer
from ..workers import make_collector

NAME = "reference_task"
SUMMARY = "learner: agent-steps per CPU second on the 8-asset drift task, against a plain torch PPO loop"

GROUP, N_ASSETS, N_SIGNALS, N_COMMANDS, HORIZON = "asset", 8, 10, 2, 100
LEAK, NOISE, GAIN_STD, GAIN_SEED = 0.95, 0.05, 0.15, 7
WARM_UP, ITERATIONS = 2, 12
_RESET, _STEP = 0, 1


class DriftConfig(Strict):
    """The drift task. ``busy_s`` is spun away per replica and step: it stands in for a costly simulator."""

    kind: Literal["drift"] = "drift"
    n_assets: int = Field(N_ASSETS, ge=1)
    busy_s: float = Field(0.0, ge=0)


def drift_nameplate(n_assets: int = N_ASSETS) -> Nameplate:
    """One group of like assets with 10 measured and 2 commanded signals."""
    group = Group(
        name=GROUP,
        assets=tuple(f"A{i + 1}" for i in range(n_assets)),
        measured=tuple(Signal(f"x{i}", "1", -10.0, 10.0) for i in range(N_SIGNALS)),
        commanded=tuple(Signal(f"u{i}", "1", -1.0, 1.0) for i in range(N_COMMANDS)),
    )
    return Nameplate(site="drift", period_s=1.0, groups=(group,), description="leaky linear assets without coupling")


class DriftTwin:
    """``x' = 0.95 x + u B + 0.05 w`` for every asset, ``x`` ``[B, N, 10]``, with one fixed gain ``B`` ``[2, 10]``."""

    def __init__(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> None:
        self.nameplate = drift_nameplate(config.n_assets)
        self.n_replicas = n_replicas
        self.dt_s = self.nameplate.period_s
        self.device = torch.device(device)
        self.dtype = dtype
        self.parameter_specs: tuple[Parameter, ...] = ()
        self._busy_s = config.busy_s * n_replicas
        gain = np.random.default_rng(GAIN_SEED).normal(0, GAIN_STD, (N_COMMANDS, N_SIGNALS)).astype(np.float32)
        self._gain = torch.from_numpy(gain).to(self.device, dtype)
        self._x = torch.zeros(n_replicas, config.n_assets, N_SIGNALS, dtype=dtype, device=self.device)
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64, device=self.device)
        self._steps = torch.zeros_like(self._seeds)
        self._present = torch.ones(n_replicas, config.n_assets, dtype=torch.bool, device=self.device)
        self._nothing = self._x.new_zeros(n_replicas, config.n_assets, 0)
        self._noise = NormalsAhead(_STEP, config.n_assets * N_SIGNALS, dtype)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas, device=self.device) if rows is None else rows
        self._seeds[rows] = seeds.to(self.device)
        self._steps[rows] = 0
        drawn = normal(self._seeds[rows], self._steps[rows], _RESET, self._x[0].numel(), self.dtype)
        self._x = self._x.index_copy(0, rows, drawn.view(-1, *self._x.shape[1:]))
        self._noise.forget(rows)
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        if self._busy_s:
            end = time.perf_counter() + self._busy_s
            while time.perf_counter() < end:
                pass
        noise = self._noise.draw(self._seeds, self._steps).view(self._x.shape)
        drift = torch.matmul(commands[GROUP].clamp(-1.0, 1.0), self._gain)
        self._x = drift.add_(self._x, alpha=LEAK).add_(noise, alpha=NOISE)
        self._steps = self._steps + 1
        return self._read()

    def _read(self) -> Readings:
        return Readings(
            measured={GROUP: self._x},
            hidden={GROUP: self._nothing},
            statics={GROUP: self._nothing},
            present={GROUP: self._present},
            time_s=self._steps * self.dt_s,
        )

    def snapshot(self) -> Snapshot:
        return {"x": self._x.clone(), "seeds": self._seeds.clone(), "steps": self._steps.clone()}

    def restore(self, snapshot: Snapshot) -> None:
        self._x, self._seeds, self._steps = (snapshot[k].clone() for k in ("x", "seeds", "steps"))
        self._noise.forget()

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        if values:
            raise ConfigurationError(f"the drift twin has no parameters; got {sorted(values)}")


@dataclass(frozen=True)
class DriftTask:
    """Keep every signal at zero: reward ``-mean(x^2)`` an asset."""

    name: str = "regulate"
    horizon: int = HORIZON

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        x = after.measured[GROUP]
        reward = torch.linalg.vecdot(x, x).div_(-x.shape[-1])
        return Score(reward={GROUP: reward}, terminated=torch.zeros(len(x), dtype=torch.bool, device=x.device))


@dataclass(frozen=True)
class DriftEncoder:
    """The signals as they are; the reference loop sees no others."""

    name: str = "raw"
    group: str = GROUP
    n_features: int = N_SIGNALS

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        return measured * present[..., None], memory


class DriftSite:
    """The drift task as a site. It is not announced: it exists to measure and to test learners."""

    name = "drift"
    summary = "leaky linear assets without coupling"
    config_model: type[BaseModel] = DriftConfig
    plant_config_model: type[BaseModel] = DriftConfig

    def nameplate(self, config: DriftConfig) -> Nameplate:
        return drift_nameplate(config.n_assets)

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return DriftTwin(config, n_replicas, device, dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("regulate",)

    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> DriftTask:
        return DriftTask(**options)

    def encoders(self) -> tuple[str, ...]:
        return ("raw",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        return DriftEncoder()

    def plant(self, config: DriftConfig, plant_config: DriftConfig) -> Plant:
        raise ConfigurationError("the drift task has no plant; it exists in the twin alone")


SITE = DriftSite()


def drift_configuration(iterations: int | None = WARM_UP + ITERATIONS, **changes: Any) -> TrainConfiguration:
    """The reference hyper-parameters: 16 replicas x 8 assets x 64 steps, 4 epochs of 8 minibatches, 64 x 64 tanh."""
    settings: dict[str, Any] = {
        "name": "drift",
        "site": DriftConfig(),
        "task": TaskChoice(name="regulate"),
        "encoder": EncoderChoice(name="raw"),
        "learner": PpoConfiguration(normalise_features=False),
        "rollout": RolloutConfiguration(replicas=16, steps=64),
        "iterations": iterations,
    }
    return TrainConfiguration(**{**settings, **changes})


def drift_problem(config: TrainConfiguration) -> Problem:
    """The problem of such a configuration."""
    return Problem.of(config, SITE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--reference", type=Path, help="folder with torch_ppo.py, hp.py and drift_env.py; without it only ours is timed"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of either side (default 3)")
    parser.add_argument("--minimum", type=float, default=1.0, help="smallest ratio that passes (default 1.0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")
    parser.add_argument("--one", action="store_true", help="time our side once, in this process, and print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print agent-steps per CPU second of both sides and their ratio; 1 when the ratio is under ``--minimum``."""
    if arguments.one:
        print(json.dumps(_measure()))
        return 0
    reference: Path | None = arguments.reference
    if reference is None or not (reference / "torch_ppo.py").is_file():
        print(f"no torch_ppo.py in {reference}: only twinloop is timed; give its folder with --reference DIR")
        reference = None
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for number in range(1, arguments.rounds + 1):
        ours.append(_child([sys.executable, "-m", __spec__.name if __spec__ else __name__, "--one"], None))
        line = f"round {number}: twinloop {ours[-1]['sps_cpu']:,} agent-steps/CPU-s"
        if reference is not None:
            theirs.append(_child([sys.executable, "torch_ppo.py"], reference))
            line += f", torch_ppo.py {theirs[-1]['sps_cpu']:,}"
        print(line, flush=True)
    last = ours[-1]
    print(f"twinloop: mean reward {last['r0']} in iteration 1, {last['r1']} in iteration {WARM_UP + ITERATIONS}")
    print(f"twinloop: median {median(r['sps_cpu'] for r in ours):,.0f} agent-steps/CPU-s, {last['uss_mb']} MiB")
    if not theirs:
        return 0
    print(f"torch_ppo.py: mean reward {theirs[-1]['r0']} to {theirs[-1]['r1']}")
    speed = median(r["sps_cpu"] for r in theirs)
    print(f"torch_ppo.py: median {speed:,.0f} agent-steps/CPU-s, {theirs[-1]['uss_mb']} MiB")
    ratios = [a["sps_cpu"] / b["sps_cpu"] for a, b in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    passed = bool(ratio >= arguments.minimum)
    print(
        f"ratio: {ratio:.2f} (rounds {', '.join(f'{r:.2f}' for r in ratios)}), "
        f"bar {arguments.minimum:.2f}: {'passed' if passed else 'MISSED'}"
    )
    if arguments.out is not None:
        rows: list[tuple[Cell, ...]] = [
            (k + 1, a["sps_cpu"], b["sps_cpu"], round(r, 2))
            for k, (a, b, r) in enumerate(zip(ours, theirs, ratios, strict=True))
        ]
        rows.append(("median", median(a["sps_cpu"] for a in ours), speed, round(ratio, 2)))
        notes = ("Agent-steps per CPU second, sampling and learning, one thread; rounds interleaved in one job.",)
        table = Table("Reference task", ("round", "twinloop", "torch_ppo.py", "ratio"), tuple(rows), notes)
        table.write(arguments.out, NAME, provenance())
    return 0 if passed else 1


def _child(command: Sequence[str], folder: Path | None) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("RESULT "))
    return figures


def _measure() -> dict[str, Any]:
    """Time sampling and learning of one run, as the reference loop does: after two iterations that are not timed."""
    config = drift_configuration()
    problem = drift_problem(config)
    process = psutil.Process()
    rewards: list[float] = []
    with make_collector(problem, config) as collector:
        trainer = Trainer(config, problem, collector)
        for iteration in range(WARM_UP + ITERATIONS):
            if iteration == WARM_UP:
                cpu, wall, steps = _cpu_s(process), time.perf_counter(), trainer.agent_steps
            rewards.append(trainer.iterate()["reward/mean"])
        cpu, wall, steps = _cpu_s(process) - cpu, time.perf_counter() - wall, trainer.agent_steps - steps
    return {
        "name": "twinloop",
        "agent_steps": steps,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "sps_cpu": round(steps / cpu),
        "uss_mb": round(process.memory_full_info().uss / 2**20),
        "r0": round(rewards[0], 3),
        "r1": round(rewards[-1], 3),
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=SUMMARY)
    configure(_parser)
    sys.exit(run(_parser.parse_args()))
