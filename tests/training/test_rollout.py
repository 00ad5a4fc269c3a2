from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import ActorWeights, to_policy_network
from twinloop.envs.errors import NumericalError
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Tensors
from twinloop.training.benchmarks.reference_task import (
    GROUP,
    DriftConfig,
    DriftEncoder,
    DriftSite,
    DriftTask,
    DriftTwin,
    drift_configuration,
    drift_nameplate,
    drift_problem,
)
from twinloop.training.configuration import TaskChoice
from twinloop.training.problem import Problem
from twinloop.training.rollout import Rollout, Shard, ShardPlan, concatenate
from twinloop.training.seeds import episode_seeds, row_seeds

N_ASSETS = 4


def weights(seed: int = 0, n_features: int = 10) -> dict[str, ActorWeights]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return (rng.normal(size=shape) * 0.3).astype(np.float32)

    return {
        GROUP: ActorWeights(
            feature_mean=draw(n_features),
            feature_std=np.full(n_features, 1.5, np.float32),
            feature_clip=5.0,
            weights=(draw(1, n_features, 16), draw(1, 16, 2)),
            biases=(draw(1, 16), draw(1, 2)),
            log_std=np.array([[-0.5, -1.0]], np.float32),
            n_continuous=2,
        )
    }


def problem(site: DriftSite | None = None, **task: Any) -> Problem:
    config = drift_configuration(site=DriftConfig(n_assets=N_ASSETS), task=TaskChoice(name="regulate", options=task))
    found = drift_problem(config)
    return found if site is None else replace(found, site=site)


def arrays(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [a for v in value.values() for a in arrays(v)]
    if isinstance(value, list | tuple):
        return [a for v in value for a in arrays(v)]
    if is_dataclass(value):
        return arrays(vars(value))
    return [np.asarray(value)]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def test_the_noise_and_the_episodes_of_a_replica_depend_on_the_run_and_its_number_alone() -> None:
    whole = Shard(problem(), ShardPlan(7, 0, 6)).collect(weights(), 5)
    parts = concatenate([Shard(problem(), ShardPlan(7, first, 2)).collect(weights(), 5) for first in (0, 2, 4)])
    assert np.array_equal(whole.groups[GROUP].log_prob, parts.groups[GROUP].log_prob)
    assert np.array_equal(whole.groups[GROUP].features[0], parts.groups[GROUP].features[0])
    # Kernels may round otherwise in a batch of another size: hence shards of a fixed size.
    np.testing.assert_allclose(whole.groups[GROUP].features, parts.groups[GROUP].features, atol=1e-5)
    other = Shard(problem(), ShardPlan(8, 0, 6)).collect(weights(), 5)
    assert not np.array_equal(whole.groups[GROUP].features[0], other.groups[GROUP].features[0])


def test_episode_seeds_differ_between_replicas_episodes_and_runs() -> None:
    rows = torch.cat([row_seeds(run, torch.arange(50)) for run in range(4)])
    seeds = torch.cat([episode_seeds(rows, torch.full_like(rows, episode)) for episode in range(20)])
    assert len(torch.unique(seeds)) == len(seeds)
    assert bool((seeds >= 0).all())


def test_a_restored_shard_repeats_itself_bit_for_bit_across_resets() -> None:
    shard = Shard(problem(horizon=7), ShardPlan(1, 0, 3))
    shard.collect(weights(), 5)
    kept = shard.snapshot()
    first = shard.collect(weights(), 12)
    shard.restore(kept)
    assert same(first, shard.collect(weights(), 12))
    other = Shard(problem(horizon=7), ShardPlan(1, 0, 3))
    other.restore(kept)
    assert same(first, other.collect(weights(), 12))
    assert first.truncated.any()


def test_two_short_rollouts_are_one_long_one() -> None:
    long = Shard(problem(horizon=7), ShardPlan(1, 0, 3)).collect(weights(), 20)
    shard = Shard(problem(horizon=7), ShardPlan(1, 0, 3))
    halves = [shard.collect(weights(), 10) for _ in range(2)]
    for key in ("features", "actions", "log_prob", "reward"):
        joined = np.concatenate([getattr(h.groups[GROUP], key) for h in halves])
        assert np.array_equal(joined, getattr(long.groups[GROUP], key)), key
    # A report only, and summed in another order.
    np.testing.assert_allclose(np.concatenate([h.episode_returns for h in halves]), long.episode_returns, rtol=1e-6)


def test_truncated_episodes_hand_over_what_they_ended_with() -> None:
    plan = ShardPlan(3, 0, 2)
    rollout = Shard(problem(horizon=4), plan).collect(weights(), 10)
    assert np.array_equal(np.flatnonzero(rollout.truncated[:, 0]), [3, 7])
    assert np.array_equal(rollout.final_index, [[3, 0], [3, 1], [7, 0], [7, 1]])
    assert not rollout.terminated.any()
    # The same two episodes, stepped by hand.
    twin = DriftTwin(DriftConfig(n_assets=N_ASSETS), 2, "cpu", torch.float32)
    rows = row_seeds(3, torch.arange(2))
    for episode in range(2):
        twin.reset(episode_seeds(rows, torch.full_like(rows, episode)))
        for t in range(4 * episode, 4 * episode + 4):
            actions = torch.from_numpy(rollout.groups[GROUP].actions[t]).clamp(-1, 1)
            after = twin.step({GROUP: actions})
        final = rollout.groups[GROUP].final_features[2 * episode : 2 * episode + 2]
        assert np.array_equal(final, after.measured[GROUP].numpy())
        np.testing.assert_allclose(
            rollout.episode_returns[2 * episode : 2 * episode + 2],
            rollout.groups[GROUP].reward[4 * episode : 4 * episode + 4].mean(2).sum(0),
            rtol=1e-6,
        )


def test_a_bandit_needs_no_final_observations() -> None:
    plan = ShardPlan(3, 0, 2, bootstrap=False)
    rollout = Shard(problem(horizon=4), plan).collect(weights(), 10)
    assert len(rollout.groups[GROUP].final_features) == 0
    with_final = Shard(problem(horizon=4), ShardPlan(3, 0, 2)).collect(weights(), 10)
    assert np.array_equal(rollout.groups[GROUP].reward, with_final.groups[GROUP].reward)


def test_log_probability_is_that_of_the_action_taken() -> None:
    rollout = Shard(problem(), ShardPlan(0, 0, 3)).collect(weights(), 6)
    group, actor = rollout.groups[GROUP], weights()[GROUP]
    mean = actor.head(group.features.reshape(1, -1, 10), np.empty((1, 1, 0), np.float32))[0][0]
    normal = norm(mean, np.exp(actor.log_std))
    expected = normal.logpdf(group.actions.reshape(-1, 2)).sum(-1)
    np.testing.assert_allclose(group.log_prob.ravel(), expected, rtol=1e-4, atol=1e-4)


def test_without_exploration_the_shard_does_what_the_artifact_will_do() -> None:
    rollout = Shard(problem(), ShardPlan(0, 0, 3, explore=False)).collect(weights(), 6)
    nameplate = drift_nameplate(N_ASSETS)
    scale = ActionLayout.of(nameplate.groups[0], None)
    mlp = to_policy_network(weights()[GROUP], scale)
    features = rollout.groups[GROUP].features
    told, _ = mlp.forward(features.reshape(-1, *features.shape[2:]))
    np.testing.assert_allclose(
        scale.commands(rollout.groups[GROUP].actions), told.reshape(*features.shape[:3], -1), rtol=1e-5, atol=1e-6
    )


class FaultyTwin(DriftTwin):
    """One sensor of one asset of one replica breaks after three steps."""

    def step(self, commands: Tensors) -> Readings:
        after = super().step(commands)
        if int(self._steps[1]) == 3:
            after.measured[GROUP][1, 2, 6] = torch.nan
        return after


class FaultySite(DriftSite):
    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return FaultyTwin(config, n_replicas, device, dtype)


def test_a_nan_is_reported_with_its_replica_asset_and_signal() -> None:
    with pytest.raises(NumericalError, match=r"replica 11, asset/A3/x6: .* nan at step 3 of episode 0"):
        Shard(problem(FaultySite()), ShardPlan(0, 10, 2)).collect(weights(), 5)


@dataclass(frozen=True)
class InfiniteTask(DriftTask):
    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        score = super().score(before, commands, after)
        score.reward[GROUP][0, 1] = torch.inf
        return score


class InfiniteSite(DriftSite):
    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> DriftTask:
        return InfiniteTask()


def test_an_infinite_reward_is_reported_as_such() -> None:
    with pytest.raises(NumericalError, match=r"replica 0, asset/A2/reward: the task gave inf at step 1"):
        Shard(problem(InfiniteSite()), ShardPlan(0, 0, 2)).collect(weights(), 5)


@dataclass(frozen=True)
class Average(DriftEncoder):
    """Each signal's mean since the reset: an encoder that remembers."""

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        return {"sum": np.zeros((n_rows, n_assets, 10), np.float32), "count": np.zeros((n_rows, 1, 1), np.float32)}

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        new = {"sum": memory["sum"] + measured, "count": memory["count"] + 1}
        return new["sum"] / new["count"], new


@dataclass(frozen=True)
class UnevenTask(DriftTask):
    """Replica rows end on their own: terminated once an asset's first signal exceeds a bound."""

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        score = super().score(before, commands, after)
        return Score(score.reward, after.measured[GROUP][..., 0].abs().amax(1) > 1.2, {"heat": commands[GROUP][..., 0]})


class RememberingSite(DriftSite):
    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> DriftTask:
        return UnevenTask(**options)

    def encoder(self, name: str, nameplate: Any, settings: Mapping[str, Any]) -> Average:
        return Average()


def test_memory_starts_anew_with_an_episode_and_runs_on_elsewhere() -> None:
    rollout = Shard(problem(RememberingSite(), horizon=9), ShardPlan(5, 0, 4)).collect(weights(), 40)
    assert 0 < rollout.terminated.sum() < 100
    assert rollout.truncated.any()
    assert not (rollout.terminated & rollout.truncated).any()
    assert len(rollout.final_index) == rollout.truncated.sum()
    # Replay: follow the measured signals by hand and average them from each episode's beginning.
    twin = DriftTwin(DriftConfig(n_assets=N_ASSETS), 4, "cpu", torch.float32)
    rows, episode = row_seeds(5, torch.arange(4)), torch.zeros(4, dtype=torch.int64)
    measured = twin.reset(episode_seeds(rows, episode)).measured[GROUP].numpy()
    total, count = np.zeros_like(measured), np.zeros((4, 1, 1), np.float32)
    for t in range(40):
        total, count = total + measured, count + 1
        np.testing.assert_allclose(rollout.groups[GROUP].features[t], total / count, rtol=1e-6)
        actions = torch.from_numpy(rollout.groups[GROUP].actions[t]).clamp(-1, 1)
        measured = twin.step({GROUP: actions}).measured[GROUP].numpy()
        done = rollout.terminated[t] | rollout.truncated[t]
        if done.any():
            at = torch.from_numpy(np.flatnonzero(done))
            episode[at] += 1
            measured = twin.reset(episode_seeds(rows[at], episode[at]), at).measured[GROUP].numpy()
            total[done], count[done] = 0.0, 0.0
    assert set(rollout.costs) == {"heat"}
    assert rollout.costs["heat"].shape == (40,)


def test_concatenation_keeps_the_order_of_the_shards() -> None:
    rollouts = [Shard(problem(horizon=4), ShardPlan(3, first, 2)).collect(weights(), 5) for first in (0, 2)]
    batch: Rollout = concatenate(rollouts)
    assert np.array_equal(batch.final_index, [[3, 0], [3, 1], [3, 2], [3, 3]])
    assert np.array_equal(batch.groups[GROUP].reward[:, 2:], rollouts[1].groups[GROUP].reward)
    assert batch.groups[GROUP].last_features.shape == (4, N_ASSETS, 10)
