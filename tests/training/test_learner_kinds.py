"""Whole training runs of every kind of on-policy learner on one unruly site."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.ppo_settings import HappoConfiguration, MappoConfiguration, PpoConfiguration
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import normal
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Snapshot, Tensors
from twinloop.training.benchmarks.reference_task import DriftConfig, DriftSite, drift_configuration
from twinloop.training.configuration import EncoderChoice, TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.rollout import Rollout, concatenate
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.samples import Sampling, seen
from twinloop.training.trainer import Trainer
from twinloop.training.workers import InProcessCollector, make_collector

SMALL = RolloutConfiguration(replicas=4, shard_replicas=2, steps=16)
LEVELS = (-1.0, 0.0, 1.0)
COMMON: dict[str, Any] = {
    "hidden": (8,), "epochs": 2, "minibatches": 2, "lr": 1e-2, "entropy_coefficient": 0.01,
    "lr_schedule": "linear", "reward_scaling": "return_std",
}  # fmt: skip
GRU: dict[str, Any] = {"gru": 5, "sequence_steps": 8}
KINDS = {
    "ippo": PpoConfiguration(**COMMON),
    "ippo separate": PpoConfiguration(weights="separate", target_kl=0.02, **COMMON),
    "ippo gru": PpoConfiguration(**GRU, **COMMON),
    "ippo gru separate": PpoConfiguration(**GRU, weights="separate", **COMMON),
    "mappo state": MappoConfiguration(team_reward=True, **COMMON),
    "mappo joint separate": MappoConfiguration(critic="joint", weights="separate", **COMMON),
    "mappo joint gru": MappoConfiguration(critic="joint", **GRU, **COMMON),
    "happo": HappoConfiguration(critic="joint", **COMMON),
    "happo gru state": HappoConfiguration(**GRU, **COMMON),
}


def plate(n_pumps: int, n_valves: int) -> Nameplate:
    pump = Group(
        "pump",
        tuple(f"P{i}" for i in range(n_pumps)),
        (Signal("flow", "1", -5, 5), Signal("head", "1", -5, 5)),
        (Signal("gear", "1", -1, 1, levels=LEVELS, neutral=0.0), Signal("speed", "1", -1, 1)),
    )
    if not n_valves:
        return Nameplate("waterworks", 1.0, (pump,))
    names = tuple(f"V{i}" for i in range(n_valves))
    valve = Group("valve", names, (Signal("gap", "1", -5, 5),), (Signal("open", "1", -1, 1),))
    return Nameplate("waterworks", 1.0, (pump, valve))


class UnrulyTwin:
    """Signals drift towards the commands; assets leave and come back on their own clocks, episodes end at odd times."""

    dt_s = 1.0
    device, dtype = torch.device("cpu"), torch.float32
    parameter_specs = ()

    def __init__(self, n_replicas: int, nameplate: Nameplate, *, leaves: bool) -> None:
        self.n_replicas, self.nameplate, self._leaves = n_replicas, nameplate, leaves
        self._x = {g.name: torch.zeros(n_replicas, g.n_assets, len(g.measured)) for g in nameplate.groups}
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas) if rows is None else rows
        self._seeds[rows], self._steps[rows] = seeds, 0
        for stream, x in enumerate(self._x.values()):
            drawn = normal(seeds, self._steps[rows], stream, x[0].numel(), torch.float32)
            x[rows] = drawn.view(-1, *x.shape[1:])
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        self._steps = self._steps + 1
        for stream, (name, x) in enumerate(self._x.items()):
            noise = normal(self._seeds, self._steps, 10 + stream, x[0].numel(), torch.float32).view_as(x)
            self._x[name] = 0.7 * x + 0.3 * commands[name].sum(-1, keepdim=True) + 0.1 * noise
        return self._read()

    def _read(self) -> Readings:
        empty = {name: x[..., :0] for name, x in self._x.items()}
        present = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in self._x.items()}
        if self._leaves:
            for name, flags in present.items():
                clock = self._seeds[:, None] % 3 + self._steps[:, None] + 2 * torch.arange(flags.shape[1])
                present[name] = clock % 5 != 3
        measured = {name: x.clone() for name, x in self._x.items()}
        return Readings(measured, empty, empty, present, self._steps.clone())

    def snapshot(self) -> Snapshot:
        return {
            "seeds": self._seeds.clone(),
            "steps": self._steps.clone(),
            **{k: v.clone() for k, v in self._x.items()},
        }

    def restore(self, snapshot: Snapshot) -> None:
        self._seeds, self._steps = snapshot["seeds"].clone(), snapshot["steps"].clone()
        self._x = {name: snapshot[name].clone() for name in self._x}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        pass


@dataclass(frozen=True)
class TargetTask:
    name: str = "target"
    horizon: int = 7

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        reward = {name: -(x - 0.5).square().mean(-1) for name, x in after.measured.items()}
        return Score(reward, after.measured["pump"][:, 0, 0] > 1.2)


@dataclass(frozen=True)
class GearEncoder:
    """A pump's signals; the top gear is not allowed at high flow."""

    name: str = "gear"
    group: str = "pump"
    n_features: int = 2

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        return {}

    def encode(self, measured: Any, statics: Any, present: Any, memory: Any, dt_s: float) -> tuple[Any, Any]:
        return measured * present[..., None], memory

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        flags = np.ones((*measured.shape[:2], len(LEVELS)), bool)
        flags[..., 2] = measured[..., 0] < 0.5
        return flags


@dataclass(frozen=True)
class Waterworks(DriftSite):
    n_pumps: int = 3
    n_valves: int = 2
    leaves: bool = True
    name = "waterworks"

    def nameplate(self, config: DriftConfig) -> Nameplate:
        return plate(self.n_pumps, self.n_valves)

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Any:
        return UnrulyTwin(n_replicas, self.nameplate(config), leaves=self.leaves)

    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> Any:
        return TargetTask()

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Any:
        return GearEncoder()


class Spoiled(InProcessCollector):
    """Fills what absent assets left in a rollout with something else."""

    junk = 0.0

    def collect(self, weights: Any) -> list[Rollout]:
        return [self._spoil(rollout) for rollout in super().collect(weights)]

    def _spoil(self, rollout: Rollout) -> Rollout:
        groups = {}
        for name, group in rollout.groups.items():
            away = ~group.present
            assert away.any()
            changed = {}
            for key in ("features", "actions", "log_prob", "reward"):
                array = getattr(group, key).copy()
                array[away] = self.junk
                changed[key] = array
            groups[name] = replace(group, **changed)
        return replace(rollout, groups=groups)


def configured(learner: PpoConfiguration, iterations: int = 3) -> TrainConfiguration:
    return drift_configuration(iterations, learner=learner, rollout=SMALL, encoder=EncoderChoice(name="gear"))


def trainer_of(learner: PpoConfiguration, site: Waterworks | None = None, junk: float | None = None) -> Trainer:
    config = configured(learner)
    problem = Problem.of(config, site or Waterworks())
    collector = make_collector(problem, config)
    if junk is not None:
        plans = [shard._plan for shard in collector._shards]  # type: ignore[attr-defined]  # an in-process collector
        collector = Spoiled(problem, plans, config.rollout.steps)
        collector.junk = junk
    return Trainer(config, problem, collector)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list):
        return [t for v in value for t in tensors(v)]
    return [torch.as_tensor(value)]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_from_a_checkpoint_equals_never_having_stopped(kind: str) -> None:
    trainer = trainer_of(KINDS[kind])
    trainer.iterate()
    stored = io.BytesIO()
    torch.save(trainer.boundary()(), stored)
    figures = [trainer.iterate() for _ in range(2)]
    assert all(np.isfinite(list(row.values())).all() for row in figures)
    stored.seek(0)
    again = trainer_of(KINDS[kind])
    again.restore(torch.load(stored, weights_only=True))
    assert [again.iterate() for _ in range(2)] == figures
    assert same(again.boundary()(), trainer.boundary()())


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_lies_in_the_data_of_an_absent_asset_changes_no_bit(kind: str) -> None:
    learnt = []
    for junk in (0.0, 1e3, float("nan")):
        trainer = trainer_of(KINDS[kind], junk=junk)
        figures = [{k: v for k, v in trainer.iterate().items() if k != "reward/mean"} for _ in range(2)]
        state = trainer.boundary()()
        learnt.append((figures, {k: v for k, v in state.items() if k != "shards"}))
    for figures, state in learnt[1:]:
        assert figures == learnt[0][0]
        assert same(state, learnt[0][1])


def learners(settings: PpoConfiguration, site: Waterworks) -> tuple[list[dict[str, float]], Any]:
    trainer = trainer_of(settings, site)
    figures = [trainer.iterate() for _ in range(3)]
    return figures, trainer.boundary()()["learners"]


ONE = Waterworks(n_pumps=1, n_valves=0)


@pytest.mark.parametrize("gru", [None, 5])
@pytest.mark.parametrize("critic", ["own", "joint"])
def test_happo_with_one_agent_is_ppo_bit_for_bit(critic: Any, gru: int | None) -> None:
    peer = PpoConfiguration(gru=gru, **COMMON)
    figures, state = learners(HappoConfiguration(critic=critic, gru=gru, **COMMON), ONE)
    expected, other = learners(peer, ONE)
    assert figures == expected
    assert same(state, other)


@pytest.mark.parametrize("gru", [None, 5])
def test_mappo_with_one_agent_is_ippo_bit_for_bit(gru: int | None) -> None:
    figures, state = learners(MappoConfiguration(critic="joint", gru=gru, **COMMON), ONE)
    expected, other = learners(PpoConfiguration(gru=gru, **COMMON), ONE)
    assert figures == expected
    assert same(state, other)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_mappo_whose_critic_sees_its_own_features_is_ippo_bit_for_bit(weights: Any) -> None:
    figures, state = learners(MappoConfiguration(critic="own", weights=weights, **COMMON), Waterworks())
    expected, other = learners(PpoConfiguration(weights=weights, **COMMON), Waterworks())
    assert figures == expected
    assert same(state, other)


def test_separate_weights_of_one_asset_are_shared_weights() -> None:
    figures, state = learners(PpoConfiguration(weights="separate", **COMMON), ONE)
    expected, other = learners(PpoConfiguration(**COMMON), ONE)
    assert figures == expected
    assert same(state, other)


@pytest.mark.parametrize("kind", ["ippo", "ippo separate", "ippo gru", "ippo gru separate"])
def test_the_learner_finds_the_log_probabilities_that_the_rollout_had(kind: str) -> None:
    """Holds features, masks, memory at resets and of those who come back, and the start of sequences, at once."""
    from twinloop.agents.minibatches import everything

    trainer = trainer_of(KINDS[kind])
    trainer.iterate()
    batch = concatenate(trainer.collector.collect(trainer.policy_weights()))
    for name, (samples, _) in trainer._samples(batch).items():
        learner = trainer._learners[name]
        rows, index = everything(samples)
        passed = learner.network.forward(rows.features, rows.view, rows.memory, rows.keep)
        found = learner.network.distribution.evaluate(
            passed.head, learner.network.log_std, rows.actions, rows.legal
        ).log_prob.reshape(samples.n_stacks, -1)
        assert samples.present is not None
        counted = samples.present[:, index]
        torch.testing.assert_close(found[counted], samples.log_prob[:, index][counted], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_values_of_final_observations_follow_from_the_memory_after_the_last_step(weights: Any) -> None:
    settings = PpoConfiguration(**GRU, weights=weights, **COMMON)
    trainer = trainer_of(settings, Waterworks(leaves=False))
    trainer.iterate()
    batch = concatenate(trainer.collector.collect(trainer.policy_weights()))
    assert len(batch.final_index)
    name, group = "pump", batch.groups["pump"]
    actor, learner = trainer.policy_weights()[name], trainer._learners[name]
    own = seen(group, batch, trainer._standard(name), settings.feature_clip)
    sampling = Sampling(name, settings)
    features = sampling._rows(own.steps)
    remembered = sampling._remembered(group, features, learner)
    value, following = sampling._values(batch, own, None, features, None, remembered, learner)

    def valued(raw: np.ndarray[Any, Any], memory: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Value ``[rows, N]`` and memory after, one asset at a time, with the acting half's own arithmetic."""
        _, after = actor.head(raw, memory)
        x = np.clip((raw - actor.feature_mean) / actor.feature_std, -10, 10)
        found = np.empty(raw.shape[:2])
        for k in range(raw.shape[1]):
            network = learner.network.stack(k if weights == "separate" else 0)
            rows = torch.from_numpy(np.concatenate([x[:, k], after[:, k]], -1).astype(np.float32))
            found[:, k] = network.critic.forward(rows)[-1][:, 0].numpy()
        return found, after

    assert group.first_memory is not None
    memory, expected, next_expected = group.first_memory, [], []
    done = batch.terminated | batch.truncated
    for t in range(len(done)):
        current, memory = valued(group.features[t], memory)
        expected.append(current)
        following_here = np.zeros_like(current)
        ended = batch.final_index[:, 0] == t
        rows = batch.final_index[ended, 1]
        if rows.size:
            following_here[rows] = valued(group.final_features[ended], memory[rows])[0]
        next_expected.append(following_here)
        memory = np.where(done[t][:, None, None], np.float32(0), memory)
    last, _ = valued(group.last_features, memory)
    for t in range(len(done)):
        coming = expected[t + 1] if t + 1 < len(done) else last
        going_on = ~done[t]
        next_expected[t][going_on] = coming[going_on]
    np.testing.assert_allclose(value, np.stack(expected), rtol=1e-4, atol=1e-4)
    matters = ~batch.terminated
    np.testing.assert_allclose(following[matters], np.stack(next_expected)[matters], rtol=1e-4, atol=1e-4)


def test_a_team_learns_from_the_mean_reward_of_those_present() -> None:
    trainer = trainer_of(KINDS["mappo state"])
    batch = concatenate(trainer.collector.collect(trainer.policy_weights()))
    from twinloop.training.samples import rewards

    team = rewards(batch, ("pump", "valve"), trainer._settings)
    reward = np.concatenate([batch.groups[n].reward for n in team], -1)
    present = np.concatenate([batch.groups[n].present for n in team], -1)
    found = np.concatenate(list(team.values()), -1)
    for t, b in np.ndindex(*batch.terminated.shape):
        mean = reward[t, b][present[t, b]].mean()
        np.testing.assert_allclose(found[t, b], np.where(present[t, b], mean, 0.0), rtol=1e-5)


@pytest.mark.parametrize("kind", ["mappo state", "mappo joint separate", "happo"])
def test_a_central_critic_hears_of_others_and_an_actor_does_not(kind: str) -> None:
    trainer = trainer_of(KINDS[kind])
    learner, width = trainer._learners["pump"].network, trainer._n_view
    assert learner.critic.sizes[0] == 2 + width
    assert learner.actor.sizes[0] == 2
    assert width == (3 * 3 + 2 * 2 if kind == "mappo state" else 3 * 2 + 2 * 1)


def test_a_joint_view_holds_all_others_and_blanks_the_asset_itself() -> None:
    settings = MappoConfiguration(critic="joint", normalise_features=False, **COMMON)
    trainer = trainer_of(settings, Waterworks(leaves=False))
    batch = concatenate(trainer.collector.collect(trainer.policy_weights()))
    samples = trainer._samples(batch)["valve"][0]
    assert samples.view is not None
    found = samples.view.take(slice(None)).reshape(16, 4, 2, 8)
    pumps, valves = batch.groups["pump"].features, batch.groups["valve"].features
    for asset in range(2):
        others = valves[..., 0].copy()
        others[..., asset] = 0.0
        expected = np.concatenate([pumps.reshape(16, 4, 6), others], -1)
        np.testing.assert_array_equal(found[:, :, asset], expected)
