"""Masses on a line, to be held at zero: linear, quadratic, differentiable, and with an optimum that is known.

    x' = A x + B u + w,  reward = -(x' Q x + R u^2),  x = (position, speed) of an asset

Assets may be away (``present``); a mass that leaves the track ends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from twinloop.envs.configuration import Strict
from twinloop.envs.encoder import Encoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import normal
from twinloop.envs.plant import Plant
from twinloop.envs.task import Score
from twinloop.envs.twin import Parameter, Readings, Snapshot, Tensors
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.problem import Problem

GROUP = "mass"
A = np.array([[1.0, 0.1], [0.0, 1.0]])
B = np.array([[0.0], [0.1]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])
GAMMA = 0.97
REACH = 10.0  # of position, speed and force: wide enough never to matter


class MassConfig(Strict):
    kind: Literal["mass"] = "mass"
    n_assets: int = 1
    noise: float = 0.0
    leaves: bool = False
    junk: float = Field(0.0, allow_inf_nan=True)  # what an absent asset's slot holds


def riccati() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``P`` and ``K`` of the discounted problem: optimal cost ``x' P x``, optimal force ``-K x``."""
    a, b = np.sqrt(GAMMA) * A, np.sqrt(GAMMA) * B
    p = scipy.linalg.solve_discrete_are(a, b, Q, R)
    return p, np.linalg.solve(R + b.T @ p @ b, b.T @ p @ a)


def mass_nameplate(n_assets: int) -> Nameplate:
    signals = (Signal("position", "m", -REACH, REACH), Signal("speed", "m/s", -REACH, REACH))
    force = Signal("force", "N", -REACH, REACH)
    group = Group(GROUP, tuple(f"M{i + 1}" for i in range(n_assets)), signals, (force,))
    return Nameplate(site="mass", period_s=0.1, groups=(group,))


class MassTwin:
    parameter_specs: tuple[Parameter, ...] = ()
    device = torch.device("cpu")
    dt_s = 0.1

    def __init__(self, config: MassConfig, n_replicas: int, dtype: torch.dtype) -> None:
        self.nameplate = mass_nameplate(config.n_assets)
        self.n_replicas, self.dtype, self._config = n_replicas, dtype, config
        self._a, self._b = torch.from_numpy(A).to(dtype), torch.from_numpy(B).to(dtype)
        self.x = torch.zeros(n_replicas, config.n_assets, 2, dtype=dtype)
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas) if rows is None else rows
        self._seeds[rows], self._steps[rows] = seeds, 0
        drawn = normal(seeds, torch.zeros_like(seeds), 0, self.x[0].numel(), self.dtype)
        self.x = self.x.index_copy(0, rows, drawn.view(-1, *self.x.shape[1:]))
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        force = commands[GROUP].to(self.dtype).clamp(-REACH, REACH)
        shove = normal(self._seeds, self._steps, 1, self.x[0].numel(), self.dtype).view_as(self.x)
        self.x = self.x @ self._a.T + force @ self._b.T + self._config.noise * shove
        self._steps = self._steps + 1
        return self._read()

    def _read(self) -> Readings:
        present = torch.ones(self.x.shape[:2], dtype=torch.bool)
        if self._config.leaves:
            turn = torch.div(self._steps, 3, rounding_mode="floor") + torch.arange(self.n_replicas)
            present = (torch.arange(self.x.shape[1]) + turn[:, None]) % 2 == 0
        measured = torch.where(present[..., None], self.x, self._config.junk)
        nothing = {GROUP: self.x.new_zeros(*self.x.shape[:2], 0)}
        return Readings({GROUP: measured}, nothing, nothing, {GROUP: present}, self._steps * self.dt_s)

    def snapshot(self) -> Snapshot:
        return {"x": self.x.clone(), "seeds": self._seeds.clone(), "steps": self._steps.clone()}

    def restore(self, snapshot: Snapshot) -> None:
        self.x, self._seeds, self._steps = (snapshot[k].clone() for k in ("x", "seeds", "steps"))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        if values:
            raise ConfigurationError(f"the masses have no parameters; got {sorted(values)}")


@dataclass(frozen=True)
class HoldAtZero:
    name: str = "hold"
    horizon: int = 60
    junk: float = 0.0
    ends_at_step: int | None = None

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        x, u = before.measured[GROUP], commands[GROUP]
        weights = torch.tensor(np.diag(Q), dtype=x.dtype)
        reward = -(x.square() * weights).sum(-1) - float(R[0, 0]) * u[..., 0].square()
        reward = torch.where(before.present[GROUP], reward, self.junk)
        ends = torch.zeros(len(x), dtype=torch.bool)
        if self.ends_at_step is not None:
            ends = (after.time_s > (self.ends_at_step - 0.5) * 0.1) & (torch.arange(len(x)) % 2 == 0)
        return Score({GROUP: reward}, ends)


class MassSite:
    name = "mass"
    summary = "masses on a line"
    config_model: type[BaseModel] = MassConfig
    plant_config_model: type[BaseModel] = MassConfig

    def nameplate(self, config: MassConfig) -> Nameplate:
        return mass_nameplate(config.n_assets)

    def twin(self, config: MassConfig, n_replicas: int, device: str, dtype: torch.dtype) -> MassTwin:
        return MassTwin(config, n_replicas, dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("hold",)

    def task(self, name: str, config: MassConfig, options: Mapping[str, Any]) -> HoldAtZero:
        return HoldAtZero(junk=config.junk, **options)

    def encoders(self) -> tuple[str, ...]:
        return ()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        raise ConfigurationError("the masses have no encoder of their own")

    def plant(self, config: MassConfig, plant_config: MassConfig) -> Plant:
        raise ConfigurationError("the masses have no plant")


def mass_problem(config: TrainConfiguration) -> Problem:
    return Problem.of(config, MassSite())
