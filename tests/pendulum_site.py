"""Gymnasium's Pendulum-v1 as a batched, differentiable twin: a foreign task with published scores for learners.

    speed' = clip(speed + (3 g / 2 l sin(angle) + 3 u / (m l^2)) dt, -8, 8),  angle' = angle + speed' dt
    reward = -(angle^2 + 0.1 speed^2 + 0.001 u^2),  angle in (-pi, pi], 0 upright;  200 steps

Each asset is one pendulum with its own reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel

from twinloop.envs.configuration import Strict
from twinloop.envs.encoder import Encoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import uniform
from twinloop.envs.plant import Plant
from twinloop.envs.task import Score
from twinloop.envs.twin import Parameter, Readings, Snapshot, Tensors
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.problem import Problem

GROUP = "pendulum"
DT_S, GRAVITY, MOST_SPEED, MOST_TORQUE = 0.05, 10.0, 8.0, 2.0


class PendulumConfig(Strict):
    kind: Literal["pendulum"] = "pendulum"
    n_assets: int = 1


def pendulum_nameplate(n_assets: int) -> Nameplate:
    group = Group(
        name=GROUP,
        assets=tuple(f"P{i + 1}" for i in range(n_assets)),
        measured=(
            Signal("cosine", "1", -1.0, 1.0),
            Signal("sine", "1", -1.0, 1.0),
            Signal("speed", "rad/s", -MOST_SPEED, MOST_SPEED),
        ),
        commanded=(Signal("torque", "N m", -MOST_TORQUE, MOST_TORQUE),),
    )
    return Nameplate(site="pendulum", period_s=DT_S, groups=(group,))


class PendulumTwin:
    parameter_specs: tuple[Parameter, ...] = ()
    device = torch.device("cpu")
    dt_s = DT_S

    def __init__(self, n_assets: int, n_replicas: int, dtype: torch.dtype) -> None:
        self.nameplate = pendulum_nameplate(n_assets)
        self.n_replicas, self.dtype = n_replicas, dtype
        self.angle = torch.zeros(n_replicas, n_assets, dtype=dtype)
        self.speed = torch.zeros_like(self.angle)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)
        self._present = torch.ones(n_replicas, n_assets, dtype=torch.bool)
        self._nothing = self.angle.new_zeros(n_replicas, n_assets, 0)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas) if rows is None else rows
        n = self.angle.shape[1]
        draws = 2.0 * uniform(seeds, torch.zeros_like(seeds), 0, 2 * n, self.dtype) - 1.0
        self.angle = self.angle.index_copy(0, rows, draws[:, :n] * math.pi)
        self.speed = self.speed.index_copy(0, rows, draws[:, n:])
        self._steps[rows] = 0
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        torque = commands[GROUP][..., 0].to(self.dtype).clamp(-MOST_TORQUE, MOST_TORQUE)
        speed = self.speed + (1.5 * GRAVITY * self.angle.sin() + 3.0 * torque) * DT_S
        self.speed = speed.clamp(-MOST_SPEED, MOST_SPEED)
        self.angle = self.angle + self.speed * DT_S
        self._steps = self._steps + 1
        return self._read()

    def _read(self) -> Readings:
        measured = torch.stack([self.angle.cos(), self.angle.sin(), self.speed], -1)
        nothing = {GROUP: self._nothing}
        return Readings({GROUP: measured}, nothing, nothing, {GROUP: self._present}, self._steps * DT_S)

    def snapshot(self) -> Snapshot:
        return {"angle": self.angle.clone(), "speed": self.speed.clone(), "steps": self._steps.clone()}

    def restore(self, snapshot: Snapshot) -> None:
        self.angle, self.speed, self._steps = (snapshot[k].clone() for k in ("angle", "speed", "steps"))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        if values:
            raise ConfigurationError(f"the pendulum has no parameters; got {sorted(values)}")


@dataclass(frozen=True)
class SwingUp:
    name: str = "swing_up"
    horizon: int = 200

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        cosine, sine, speed = before.measured[GROUP].unbind(-1)
        torque = commands[GROUP][..., 0].clamp(-MOST_TORQUE, MOST_TORQUE)
        cost = torch.atan2(sine, cosine).square() + 0.1 * speed.square() + 0.001 * torque.square()
        return Score({GROUP: -cost}, torch.zeros(len(cost), dtype=torch.bool))


class PendulumSite:
    name = "pendulum"
    summary = "Gymnasium's Pendulum-v1 as a twin"
    config_model: type[BaseModel] = PendulumConfig
    plant_config_model: type[BaseModel] = PendulumConfig

    def nameplate(self, config: PendulumConfig) -> Nameplate:
        return pendulum_nameplate(config.n_assets)

    def twin(self, config: PendulumConfig, n_replicas: int, device: str, dtype: torch.dtype) -> PendulumTwin:
        return PendulumTwin(config.n_assets, n_replicas, dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("swing_up",)

    def task(self, name: str, config: PendulumConfig, options: Mapping[str, Any]) -> SwingUp:
        return SwingUp(**options)

    def encoders(self) -> tuple[str, ...]:
        return ()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        raise ConfigurationError("the pendulum has no encoder of its own")

    def plant(self, config: PendulumConfig, plant_config: PendulumConfig) -> Plant:
        raise ConfigurationError("the pendulum has no plant; Gymnasium's is the referee")


def pendulum_problem(config: TrainConfiguration) -> Problem:
    return Problem.of(config, PendulumSite())
