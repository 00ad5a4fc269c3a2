"""The drift task as a site: like assets without coupling, each a leaky linear system that noise pushes about.

A genuine twin and task, small enough that what training costs around them is what a benchmark of it sees.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
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
from ..rollout_settings import RolloutConfiguration

GROUP, N_ASSETS, N_SIGNALS, N_COMMANDS, HORIZON = "asset", 8, 10, 2, 100
LEAK, NOISE, GAIN_STD, GAIN_SEED = 0.95, 0.05, 0.15, 7
WARM_UP, ITERATIONS = 2, 12
_RESET, _STEP = 0, 1


class DriftConfig(Strict):
    """The drift task. ``busy_s`` of CPU time goes per replica and step: it stands in for a costly simulator."""

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
            end = time.thread_time() + self._busy_s  # of this thread's own time, whatever else the machine does
            while time.thread_time() < end:
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
