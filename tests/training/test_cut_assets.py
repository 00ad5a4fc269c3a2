"""An asset whose part is cut by a limit of its own, while others go on, is valued by what it saw last; one whose part
ended is worth nothing from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from twinloop.agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from twinloop.agents.sac_settings import SacConfiguration
from twinloop.agents.torch_actor import TorchActor
from twinloop.envs.errors import ConfigurationError, NumericalError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import normal
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Snapshot, Tensors
from twinloop.training.benchmarks.drift_site import DriftConfig, DriftSite, drift_configuration
from twinloop.training.configuration import TaskChoice, TrainConfiguration
from twinloop.training.device_rollout import DeviceShard
from twinloop.training.differentiable_rollout import DifferentiableReplicas
from twinloop.training.off_policy_trainer import OffPolicyTrainer
from twinloop.training.problem import Problem
from twinloop.training.rollout import Rollout, ShardPlan, concatenate
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.samples import Sampling, rewards, seen
from twinloop.training.trainer import Trainer
from twinloop.training.workers import make_collector

N = 4
GROUP = "runner"
COMMON: dict[str, Any] = {"hidden": (8,), "epochs": 1, "minibatches": 2, "normalise_features": False, "gamma": 0.9}
Cuts = Literal["odd", "none", "unknown"]


class Relay:
    """Runners that rest for two steps now and then, asset k after step 3 + k; the seed shifts the clock."""

    dt_s = 1.0
    device, dtype = torch.device("cpu"), torch.float32
    parameter_specs = ()

    def __init__(self, n_replicas: int, nameplate: Nameplate, spoilt: bool) -> None:
        self.n_replicas, self.nameplate, self._spoilt = n_replicas, nameplate, spoilt
        self._x = torch.zeros(n_replicas, N, 2)
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas) if rows is None else rows
        self._seeds[rows], self._steps[rows] = seeds, 0
        self._x[rows] = normal(seeds, self._steps[rows], 0, 2 * N, torch.float32).view(-1, N, 2)
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        self._steps = self._steps + 1
        noise = normal(self._seeds, self._steps, 1, 2 * N, torch.float32).view(-1, N, 2)
        self._x = 0.8 * self._x + 0.3 * commands[GROUP] + 0.1 * noise
        return self._read()

    def _read(self) -> Readings:
        clock = self._steps[:, None] + self._seeds[:, None] % 2 - torch.arange(N)
        present = ~((clock == 4) | (clock == 5))
        measured = self._x.clone()
        if self._spoilt:
            measured[clock == 4] = torch.nan
        empty = {GROUP: self._x[..., :0]}
        return Readings({GROUP: measured}, empty, empty, {GROUP: present}, self._steps.clone())

    def snapshot(self) -> Snapshot:
        return {"x": self._x.clone(), "seeds": self._seeds.clone(), "steps": self._steps.clone()}

    def restore(self, snapshot: Snapshot) -> None:
        self._x, self._seeds, self._steps = (snapshot[k].clone() for k in ("x", "seeds", "steps"))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        pass


@dataclass(frozen=True)
class RelayTask:
    """Who leaves is cut where its number is odd, else its part ended; episodes end and are truncated as well."""

    cuts: Cuts
    name: str = "relay"
    horizon: int = 9

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        x = after.measured[GROUP].nan_to_num()
        left = before.present[GROUP] & ~after.present[GROUP]
        odd = torch.arange(N) % 2 == 1
        cut = None if self.cuts == "unknown" else {GROUP: left & (odd if self.cuts == "odd" else ~(odd | ~odd))}
        # Some episodes end at any step, and some in the very step in which runner 3 leaves.
        over = (x[:, 0, 0] > 1.0) | (left[:, 3] & (x[:, 0, 1] > 0))
        return Score({GROUP: -x.square().mean(-1)}, over, cut=cut)


@dataclass(frozen=True)
class RelaySite(DriftSite):
    cuts: Cuts = "odd"
    spoilt: bool = False
    name = "relay"

    def nameplate(self, config: DriftConfig) -> Nameplate:
        signals = tuple(Signal(name, "1", -5, 5) for name in ("a", "b"))
        group = Group(
            GROUP, tuple(f"R{k}" for k in range(N)), signals, (Signal("u", "1", -1, 1), Signal("v", "1", -1, 1))
        )
        return Nameplate("relay", 1.0, (group,))

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Any:
        return Relay(n_replicas, self.nameplate(config), self.spoilt)

    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> Any:
        return RelayTask(self.cuts)


def configuration(learner: Any) -> TrainConfiguration:
    rollout = RolloutConfiguration(replicas=6, shard_replicas=3, steps=24)
    return drift_configuration(3, rollout=rollout, learner=learner, encoder=None, task=TaskChoice(name="relay"))


def trainer_of(learner: Any, **site: Any) -> Trainer:
    config = configuration(learner)
    problem = Problem.of(config, RelaySite(**site))
    return Trainer(config, problem, make_collector(problem, config))


def gathered(trainer: Any) -> Rollout:
    return concatenate(trainer.collector.collect(trainer.policy_weights()))


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_advantages_are_those_of_a_loop_over_every_assets_own_life(weights: Any) -> None:
    settings = PpoConfiguration(weights=weights, **COMMON)
    trainer = trainer_of(settings)
    trainer.iterate()
    batch = gathered(trainer)
    group, learner = batch.groups[GROUP], trainer._learners[GROUP]
    assert group.cut is not None
    assert (group.cut & batch.terminated[..., None]).any(), "somebody is cut in the step in which the others' part ends"
    assert (group.cut & ~(batch.terminated | batch.truncated)[..., None]).any(), "and elsewhere too"
    own = seen(group, batch, trainer._standard(GROUP), settings.feature_clip)
    samples, _ = Sampling(GROUP, settings).make(batch, own, None, rewards(batch, (GROUP,), settings)[GROUP], learner)

    def value(features: np.ndarray[Any, Any], asset: int) -> float:
        network = learner.network.stack(asset if weights == "separate" else 0)
        x = torch.from_numpy(np.clip(features, -settings.feature_clip, settings.feature_clip))
        return float(network.critic.forward(x[None])[-1][0, 0])

    ends = {(int(t), int(b)): e for e, (t, b) in enumerate(batch.final_index)}
    n_steps, n_rows = batch.terminated.shape
    expected = np.zeros(group.reward.shape)
    for b in range(n_rows):
        for k in range(N):
            running = 0.0
            for t in reversed(range(n_steps)):
                if not group.present[t, b, k]:
                    running = 0.0
                    continue
                if group.cut[t, b, k] or (batch.truncated[t, b] and group.present_after[t, b, k]):
                    after, goes_on = value(group.final_features[ends[t, b], k], k), 0.0
                elif batch.terminated[t, b] or not group.present_after[t, b, k]:
                    after, goes_on = 0.0, 0.0
                else:
                    later = group.features[t + 1, b, k] if t + 1 < n_steps else group.last_features[b, k]
                    after, goes_on = value(later, k), 1.0
                delta = float(group.reward[t, b, k]) + settings.gamma * after - value(group.features[t, b, k], k)
                running = delta + goes_on * settings.gamma * settings.gae_lambda * running
                expected[t, b, k] = running
    found = Sampling(GROUP, settings)._unrowed(samples.advantages, n_steps * n_rows, N).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_a_cut_runner_saw_last_is_what_the_twin_showed_then() -> None:
    batch = gathered(trainer_of(PpoConfiguration(**COMMON)))
    group = batch.groups[GROUP]
    assert group.cut is not None
    t, b = batch.final_index.T
    cut = group.cut[t, b]
    assert (group.final_features[cut] != 0).any(-1).all()
    gone = ~group.present_after[t, b] & ~cut
    assert gone.any()
    assert (group.final_features[gone] == 0).all()


@pytest.mark.parametrize(
    "learner",
    [
        PpoConfiguration(gru=4, sequence_steps=8, **COMMON),
        MappoConfiguration(critic="state", **COMMON),
        MappoConfiguration(critic="joint", gru=4, sequence_steps=8, weights="separate", **COMMON),
        HappoConfiguration(critic="joint", **COMMON),
    ],
    ids=["gru", "state", "joint gru", "happo"],
)
def test_a_task_that_cuts_nobody_changes_no_bit_and_one_that_does_changes_what_is_learnt(learner: Any) -> None:
    learnt = {}
    for cuts in ("unknown", "none", "odd"):
        trainer = trainer_of(learner, cuts=cuts)
        figures = [trainer.iterate() for _ in range(2)]
        assert all(np.isfinite(value) for row in figures for value in row.values())
        learnt[cuts] = trainer._learners[GROUP].network.parameters.clone()
    assert torch.equal(learnt["unknown"], learnt["none"])
    assert not torch.equal(learnt["none"], learnt["odd"])


def test_the_soft_critic_goes_on_from_what_a_cut_runner_saw_last() -> None:
    config = configuration(SacConfiguration(warm_up=144, batch=8, normalise_features=False, buffer=1000))
    problem = Problem.of(config, RelaySite())
    trainer = OffPolicyTrainer(config, problem, make_collector(problem, config))
    kept: list[Rollout] = []
    collect = trainer.collector.collect

    def watched(weights: Any) -> Any:
        kept.extend(collect(weights))
        return kept

    trainer.collector.collect = watched  # type: ignore[method-assign]  # looks on, changes nothing
    trainer.iterate()
    batch = concatenate(kept)
    group, shape = batch.groups[GROUP], batch.groups[GROUP].present.shape
    rows = trainer._transitions(trainer.boundary()()["memory"]["rows"])[GROUP]
    goes_on = (rows.present_after * (1.0 - rows.terminated)[:, None]).numpy().reshape(shape).astype(bool)
    assert group.cut is not None
    np.testing.assert_array_equal(goes_on, (group.present_after & ~batch.terminated[..., None]) | group.cut)
    following = rows.next_features.numpy().reshape(*shape, -1)
    ends = {(int(t), int(b)): e for e, (t, b) in enumerate(batch.final_index)}
    for t, b, k in np.argwhere(group.cut):
        np.testing.assert_array_equal(following[t, b, k], group.final_features[ends[t, b], k])
    for t, b, k in np.argwhere(goes_on[:-1] & ~group.cut[:-1] & ~batch.truncated[:-1, :, None]):
        np.testing.assert_array_equal(following[t, b, k], group.features[t + 1, b, k])


def test_rollouts_on_a_device_and_gradients_through_the_twin_refuse_such_a_task() -> None:
    problem = Problem.of(configuration(PpoConfiguration(**COMMON)), RelaySite())
    trainer = trainer_of(PpoConfiguration(**COMMON))
    actors = {name: TorchActor.of(actor, "cpu") for name, actor in trainer.policy_weights().items()}
    with pytest.raises(ConfigurationError, match="task 'relay' cuts assets one by one, which works on the host"):
        DeviceShard(problem, ShardPlan(0, 0, 2)).collect(actors, 1)
    window = DifferentiableReplicas(problem, 0, 2, 4, 0.9, 1.0)
    with pytest.raises(ConfigurationError, match="task 'relay' cuts assets one by one, which it takes no account of"):
        window.roll(lambda _name, features, *_: features, lambda _name, features: features[..., 0])


def test_what_a_cut_runner_saw_last_must_be_numbers_as_it_is_learnt_from() -> None:
    trainer = trainer_of(PpoConfiguration(**COMMON), spoilt=True)
    with pytest.raises(NumericalError, match=r"runner/R1/a: the twin gave nan"):
        trainer.iterate()
    trainer_of(PpoConfiguration(**COMMON), spoilt=True, cuts="none").iterate()
