"""Levers: a site small enough for every algorithm, whose commands are continuous, have levels, or both.

    x' = 0.8 x + 0.2 (mean of the commands) + noise,  reward = -(x' - 0.5)^2

A lever's measured signals are ``x`` and the last command; with levels the same level may not be chosen twice running
(``legal``), which only the first command heeds. The optional second group ``crank`` is one continuous asset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel

from twinloop.envs.configuration import Strict
from twinloop.envs.encoder import Encoder
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import normal
from twinloop.envs.plant import Plant
from twinloop.envs.task import Score
from twinloop.envs.twin import Parameter, Readings, Snapshot, Tensors
from twinloop.training.configuration import TaskChoice, TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import RolloutConfiguration

LEVELS = (0.5, -1.0, 2.0, 0.0)  # not sorted: indices follow the nameplate
OTHER_LEVELS = (-1.0, 1.0)
Commands = Literal["continuous", "two", "levels", "many", "both"]


class LeverConfig(Strict):
    kind: Literal["lever"] = "lever"
    commands: Commands = "continuous"
    n_assets: int = 2
    crank: bool = False


def lever_nameplate(config: LeverConfig) -> Nameplate:
    push = Signal("push", "1", -1.0, 3.0, neutral=1.0)
    pull = Signal("pull", "1", -2.0, 1.0)
    gear = Signal("gear", "1", -1.0, 2.0, levels=LEVELS)
    mode = Signal("mode", "1", -1.0, 1.0, levels=OTHER_LEVELS, neutral=1.0)
    commanded = {
        "continuous": (push,),
        "two": (push, pull),
        "levels": (gear,),
        "many": (gear, mode),
        "both": (gear, push),
    }[config.commands]
    measured = (Signal("x", "1", -3.0, 3.0), Signal("last", "1", -3.0, 3.0))
    groups = [Group("lever", tuple(f"L{i + 1}" for i in range(config.n_assets)), measured, commanded)]
    if config.crank:
        groups.append(Group("crank", ("C1",), measured, (Signal("turn", "1", -1.0, 1.0),)))
    return Nameplate(site="levers", period_s=1.0, groups=tuple(groups))


class LeverTwin:
    dt_s = 1.0
    device = torch.device("cpu")
    dtype = torch.float32
    parameter_specs: tuple[Parameter, ...] = ()

    def __init__(self, config: LeverConfig, n_replicas: int) -> None:
        self.nameplate = lever_nameplate(config)
        self.n_replicas = n_replicas
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)
        self._x = {g.name: torch.zeros(n_replicas, g.n_assets) for g in self.nameplate.groups}
        self._last = {g.name: torch.zeros(n_replicas, g.n_assets) for g in self.nameplate.groups}

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        at = torch.arange(self.n_replicas) if rows is None else rows
        self._seeds[at], self._steps[at] = seeds, 0
        for stream, (name, x) in enumerate(self._x.items()):
            x[at] = normal(seeds, self._steps[at], stream, x.shape[1], torch.float32)
            self._last[name][at] = 0.0
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        self._steps = self._steps + 1
        for stream, (name, x) in enumerate(self._x.items()):
            gust = 0.05 * normal(self._seeds, self._steps, stream, x.shape[1], torch.float32)
            self._x[name] = 0.8 * x + 0.2 * commands[name].mean(-1).to(self.dtype) + gust
            self._last[name] = commands[name][..., 0].to(self.dtype).clone()
        return self._read()

    def _read(self) -> Readings:
        empty = {name: torch.zeros(*x.shape, 0) for name, x in self._x.items()}
        measured = {name: torch.stack([x, self._last[name]], -1) for name, x in self._x.items()}
        present = {name: torch.ones(x.shape, dtype=torch.bool) for name, x in self._x.items()}
        return Readings(measured, empty, empty, present, self._steps.to(self.dtype))

    def snapshot(self) -> Snapshot:
        held = {"seeds": self._seeds.clone(), "steps": self._steps.clone()}
        held |= {f"x/{name}": x.clone() for name, x in self._x.items()}
        return held | {f"last/{name}": x.clone() for name, x in self._last.items()}

    def restore(self, snapshot: Snapshot) -> None:
        self._seeds, self._steps = snapshot["seeds"].clone(), snapshot["steps"].clone()
        self._x = {name: snapshot[f"x/{name}"].clone() for name in self._x}
        self._last = {name: snapshot[f"last/{name}"].clone() for name in self._last}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        pass


@dataclass(frozen=True)
class LeverTask:
    name: str = "hold"
    horizon: int = 6
    nan_at_step: int | None = None

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        reward = {name: -(x[..., 0] - 0.5).square() for name, x in after.measured.items()}
        if self.nan_at_step is not None:
            bad = (after.time_s == self.nan_at_step)[:, None]
            reward = {name: torch.where(bad, torch.nan, r) for name, r in reward.items()}
        return Score(reward, torch.zeros(len(after.time_s), dtype=torch.bool))


class LeverEncoder:
    """Own signals; a level is legal unless it is the last one."""

    name, group, n_features = "lever", "lever", 2

    def __init__(self, config_levels: int) -> None:
        self._n_levels = config_levels

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        return {}

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        return measured, memory

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        xp: Any = torch if isinstance(measured, torch.Tensor) else np
        first = [abs(measured[..., 1:2] - level) > 1e-6 for level in LEVELS]
        return xp.concatenate([*first, *[xp.ones_like(first[0])] * (self._n_levels - len(LEVELS))], -1)


class LeverSite:
    name = "lever"
    summary = "levers"
    config_model: type[BaseModel] = LeverConfig
    plant_config_model: type[BaseModel] = LeverConfig

    def nameplate(self, config: LeverConfig) -> Nameplate:
        return lever_nameplate(config)

    def twin(self, config: LeverConfig, n_replicas: int, device: str, dtype: torch.dtype) -> LeverTwin:
        return LeverTwin(config, n_replicas)

    def tasks(self) -> tuple[str, ...]:
        return ("hold",)

    def task(self, name: str, config: LeverConfig, options: Mapping[str, Any]) -> LeverTask:
        return LeverTask(**options)

    def encoders(self) -> tuple[str, ...]:
        return ("lever",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        return LeverEncoder(sum(len(s.levels or ()) for s in nameplate.group("lever").commanded))

    def plant(self, config: LeverConfig, plant_config: LeverConfig) -> Plant:
        raise ConfigurationError("levers exist in the twin alone")


def lever_configuration(learner: Mapping[str, Any], commands: Commands = "continuous", **changes: Any) -> Any:
    """A small run; ``learner`` as a configuration file would say it."""
    settings: dict[str, Any] = {
        "name": "levers",
        "site": LeverConfig(commands=commands, crank=changes.pop("crank", False)),
        "task": TaskChoice(name="hold", options=changes.pop("task_options", {})),
        "learner": learner,
        "rollout": RolloutConfiguration(replicas=2, steps=8),
        "iterations": 4,
    }
    return TrainConfiguration(**{**settings, **changes})


def lever_problem(config: TrainConfiguration) -> Problem:
    return Problem.of(config, LeverSite())


LEVER_SITE = LeverSite()
"""What an entry point names."""
