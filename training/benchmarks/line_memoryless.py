"""Whether a learned policy services a machine that service can't help: one of memoryless life, and one that ages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...agents.controllers.reference import neutral_commands
from ...agents.forward import PolicyNetwork
from ...agents.policy import Commands, Memory
from ...agents.ppo_settings import PpoConfiguration
from ...envs.encoder import Encoder, MaskingEncoder
from ...envs.nameplate import Nameplate
from ...envs.production_line import renewal
from ...envs.production_line.config import LineConfig
from ...envs.production_line.nameplate import HIDDEN, MACHINE, MEASURED
from ...envs.twin import Observation
from ..configuration import EncoderChoice, TaskChoice, TrainConfiguration
from ..problem import Problem
from ..rollout_settings import RolloutConfiguration
from .foreign_jobs import learn

SCALE_SLOTS, PREVENTIVE, CORRECTIVE = 50.0, 1.0, 10.0
_REPLICAS, _WARM_UP, _SLOTS = 512, 200, 2000
_WORKED = [s.name for s in MEASURED].index("parts")
_COST = [s.name for s in HIDDEN].index("service_cost")


class NetworkPolicy:
    """Trained networks with their encoders as a policy, by group; groups without one stay neutral."""

    def __init__(self, nameplate: Nameplate, networks: Mapping[str, PolicyNetwork], problem: Problem) -> None:
        self._nameplate, self._networks = nameplate, dict(networks)
        encoders = problem.encoders(nameplate)
        self._encoders: dict[str, Encoder] = {name: encoders[name] for name in self._networks}

    @property
    def name(self) -> str:
        return "learned"

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """The encoders of a line remember nothing, nor do networks without a recurrent layer."""
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        n_rows = len(observation.measured[MACHINE])
        commands: dict[str, NDArray[Any]] = dict(neutral_commands(self._nameplate, n_rows))
        for name, encoder in self._encoders.items():
            seen = observation.measured[name], observation.statics[name], observation.present[name]
            features, _ = encoder.encode(*seen, {}, observation.dt_s)
            layout, legal = self._networks[name].layout, None
            if isinstance(encoder, MaskingEncoder):
                legal = layout.legal(encoder.legal(*seen), seen[2])
            blank = np.zeros((*seen[2].shape, self._networks[name].n_memory), np.float32)
            commands[name], _ = self._networks[name].forward(features.astype(np.float32), blank, legal)
        return commands, memory


@dataclass(frozen=True)
class Calls:
    """Share of periods in which service was asked for, of each machine; the cost of the one that ages over the best."""

    memoryless: float
    ageing: float
    over_best_age: float


def calls_of_learned(seed: int, iterations: int = 40) -> Calls:
    """Train on each machine, then follow the most likely actions for 512 times 2,000 slots."""
    memoryless, _ = _learned(1.0, seed, iterations)
    ageing, cost = _learned(3.0, seed, iterations)
    prices = renewal.Prices(PREVENTIVE, CORRECTIVE)
    _, best = renewal.best_age(renewal.weibull_survival(3.0, SCALE_SLOTS), prices)
    return Calls(memoryless, ageing, cost / best - 1.0)


def configuration(shape: float, seed: int, iterations: int) -> TrainConfiguration:
    """One machine with a Weibull life of this shape, service in next to no time."""
    upkeep = {
        "wear": {"kind": "weibull", "shape": shape, "scale_slots": SCALE_SLOTS}, "preventive_slots": 1,
        "corrective_slots": 1, "preventive_cost": PREVENTIVE, "corrective_cost": CORRECTIVE,
    }  # fmt: skip
    machine = {"model": {"kind": "bernoulli", "efficiency_pu": 1.0}, "upkeep": upkeep}
    line = {"kind": "fixed", "machines": [machine], "capacities": [], "parallel": True}
    return TrainConfiguration(
        name=f"one-machine-{shape:g}",
        seed=seed,
        site=LineConfig.model_validate({"line": line, "modes": ["on"]}),
        task=TaskChoice(name="fleet_profit", options={"horizon": 500, "part_value": 0.0, "reward_scale": 0.2}),
        encoder=EncoderChoice(name="fleet", settings={}),
        learner=PpoConfiguration(
            controlled={MACHINE: ("service",)}, hidden=(32, 32), critic_hidden=(32, 32), gamma=0.99, gae_lambda=0.95,
            lr=3e-3, lr_schedule="cosine", epochs=4, minibatches=4,
        ),
        rollout=RolloutConfiguration(replicas=256, steps=64),
        iterations=iterations,
    )  # fmt: skip


def _learned(shape: float, seed: int, iterations: int) -> tuple[float, float]:
    """Share of periods with a call, and cost a slot of work."""
    config = configuration(shape, seed, iterations)
    problem = Problem.of(config)
    networks = learn(config, problem).export()
    twin = problem.site.twin(config.site, _REPLICAS, "cpu", torch.float32)
    policy = NetworkPolicy(twin.nameplate, networks, problem)
    service = twin.nameplate.group(MACHINE).index("commanded", "service")
    readings = twin.reset(torch.arange(_REPLICAS) + (seed + 1) * 10_000)
    asked, work, spent = 0, 0.0, 0.0
    for slot in range(_WARM_UP + _SLOTS):
        commands, _ = policy.act(readings.observation(twin.dt_s), {})
        if slot == _WARM_UP:
            spent = -float(readings.hidden[MACHINE][..., _COST].sum())
        readings = twin.step({name: torch.from_numpy(np.ascontiguousarray(c)) for name, c in commands.items()})
        if slot >= _WARM_UP:
            asked += int((commands[MACHINE][..., service] > 0.5).sum())
            work += float(readings.measured[MACHINE][..., _WORKED].sum())
    spent += float(readings.hidden[MACHINE][..., _COST].sum())
    return asked / (_REPLICAS * _SLOTS), spent / work
