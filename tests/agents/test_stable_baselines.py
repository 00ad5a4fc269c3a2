"""TwinVecEnv is what SB3 expects of a VecEnv, and SB3 learns on it with truncations told from ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor, VecNormalize
from tests.linear_site import HoldTemperature, TankEncoder, TankTwin

from twinloop.agents.stable_baselines import TwinVecEnv
from twinloop.envs.adapters import TwinParallelEnv
from twinloop.envs.errors import ContractError, NameplateError, NumericalError
from twinloop.envs.registry import load_site
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Tensors

B, N = 3, 4


def make(task: HoldTemperature | None = None, *, n_min: int = N, **options: Any) -> TwinVecEnv:
    return TwinVecEnv(TankTwin(B, N, n_min=n_min), task or HoldTemperature(horizon=5), **options)


def actions_of(env: TwinVecEnv, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    return rng.uniform(-1.0, 1.0, (env.num_envs, 1)).astype(np.float32)


def test_slots_are_the_agents_of_single_environments_replica_by_replica() -> None:
    task = HoldTemperature(horizon=4)
    env = make(task, normalised_actions=False)
    singles = [TwinParallelEnv(TankTwin(1, N), task) for _ in range(B)]
    env.seed(10)
    observations: Any = env.reset()
    np.testing.assert_array_equal(observations, _joined([s.reset(seed=10 + b)[0] for b, s in enumerate(singles)]))
    rng = np.random.default_rng(0)
    for step in range(11):
        actions = 20.0 * np.abs(actions_of(env, rng))
        observations, rewards, dones, infos = env.step(actions)
        given = actions.reshape(B, N, 1)
        stepped = [s.step(dict(zip(s.agents, given[b], strict=True))) for b, s in enumerate(singles)]
        np.testing.assert_array_equal(rewards, np.float32(_joined([r[1] for r in stepped])))
        last = _joined([r[0] for r in stepped])
        if (step + 1) % 4:
            assert not dones.any()
            np.testing.assert_array_equal(observations, last)
        else:
            assert dones.all()
            assert all(info["TimeLimit.truncated"] for info in infos)
            np.testing.assert_array_equal([info["terminal_observation"] for info in infos], last)
            np.testing.assert_array_equal(observations, _joined([s.reset()[0] for s in singles]))


def _joined(dictionaries: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([value for d in dictionaries for value in d.values()])


def test_an_end_of_the_task_is_no_truncation() -> None:
    env = make(HoldTemperature(horizon=1, trip_degc=50.0))
    env.seed(1)
    env.reset()
    _, _, dones, infos = env.step(np.zeros((B * N, 1), np.float32))
    assert dones.all()
    kinds = [info["TimeLimit.truncated"] for info in infos]
    hot = [max(info["terminal_observation"][0] for info in infos[b * N : b * N + N]) > 50.5 for b in range(B)]
    assert kinds == [not tripped for tripped in hot for _ in range(N)]
    assert set(kinds) == {True, False}


def test_replicas_end_apart_and_only_theirs_are_reset() -> None:
    env = make(HoldTemperature(horizon=50, trip_degc=57.0))
    env.seed(0)
    env.reset()
    mixed = 0
    for _ in range(30):
        _, _, dones, infos = env.step(np.ones((B * N, 1), np.float32))
        by_replica = dones.reshape(B, N)
        assert (by_replica.all(axis=1) == by_replica.any(axis=1)).all()
        assert [bool(info) for info in infos] == dones.tolist()
        mixed += 0 < by_replica.all(axis=1).sum() < B
    assert mixed


def test_seeds_make_runs_repeat_and_replicas_differ() -> None:
    first, second = make(), make()
    assert list(first.seed(3)) == [3] * N + [4] * N + [5] * N
    second.seed(3)
    observations = first.reset()
    np.testing.assert_array_equal(observations, second.reset())
    assert len(np.unique(observations[:, 0])) == B * N
    assert not np.array_equal(first.reset(), observations)


def test_the_encoders_memory_restarts_with_its_replica_alone() -> None:
    env, encoder, twin = make(HoldTemperature(horizon=50, trip_degc=57.0), encoder=TankEncoder()), TankEncoder(), None
    env.seed(0)
    env.reset()
    restarted = 0
    for _ in range(30):
        before = env._episodes.readings
        observations, _, dones, infos = env.step(np.ones((B * N, 1), np.float32))
        twin = env._episodes.readings
        done = dones.reshape(B, N)[:, 0]
        # The fourth feature is the change since the last call: none right after a reset.
        change = np.asarray(observations).reshape(B, N, 4)[..., 3]
        assert (change[done] == 0.0).all()
        moved = (twin.measured["tank"][..., 0] - before.measured["tank"][..., 0]).numpy() / 50.0
        np.testing.assert_allclose(change[~done], moved[~done], atol=1e-6)
        for slot in np.flatnonzero(dones):
            assert infos[slot]["terminal_observation"][3] != 0.0
        restarted += 0 < done.sum() < B
    assert restarted
    assert env.observation_space.shape == (encoder.n_features,)


def test_slots_without_an_asset_show_zeros_and_earn_nothing() -> None:
    env = make(n_min=1)
    env.seed(0)
    observations = env.reset().reshape(B, N, 2)
    absent = ~env._episodes.readings.present["tank"].numpy()
    assert absent.any()
    assert (observations[absent] == 0.0).all()
    _, rewards, _, _ = env.step(np.ones((B * N, 1), np.float32))
    np.testing.assert_array_equal(rewards.reshape(B, N) == 0.0, absent)


def test_costs_of_the_step_can_be_read() -> None:
    env = make()
    env.reset()
    env.step(np.ones((B * N, 1), np.float32))
    assert env.costs["excess_k"].shape == (B, N)
    assert env.get_attr("costs", 0) == [env.costs]


def test_commands_that_are_not_controlled_stay_neutral() -> None:
    site = load_site("wind_farm")
    config = site.config_model()
    given: list[Tensors] = []

    class Listening:
        def __init__(self, twin: Any) -> None:
            self._twin = twin

        def __getattr__(self, name: str) -> Any:
            return getattr(self._twin, name)

        def step(self, commands: Tensors) -> Readings:
            given.append(commands)
            readings: Readings = self._twin.step(commands)
            return readings

    twin: Any = Listening(site.twin(config, 2, "cpu", torch.float32))
    env = TwinVecEnv(twin, site.task("farm_power", config, {}), controlled=["yaw_offset_deg"])
    assert env.action_space.shape == (1,)
    env.reset()
    env.step(np.full((env.num_envs, 1), 0.5, np.float32))
    torch.testing.assert_close(given[0]["turbine"], torch.tensor([20.0, 1.0]).expand(2, 3, 2))


def test_a_site_of_several_groups_is_refused() -> None:
    with pytest.raises(NameplateError, match="has the groups tank, pump; Stable-Baselines3 shares one policy"):
        TwinVecEnv(TankTwin(1, pump=True), HoldTemperature())


def test_an_encoder_of_another_group_is_refused() -> None:
    class PumpEncoder(TankEncoder):
        group = "pump"

    with pytest.raises(ContractError, match="encoder 'tank' is for group 'pump', the site has 'tank'"):
        make(encoder=PumpEncoder())


def test_a_nan_of_the_twin_is_named_through_the_encoder_too() -> None:
    env = make(encoder=TankEncoder())
    env.reset()
    env.twin._tank_degc[1, 2] = torch.nan  # type: ignore[attr-defined]  # a fault put into the tank twin
    with pytest.raises(NumericalError, match="tank/T2/temperature_degc of replica 1 is nan"):
        env.step(np.zeros((B * N, 1), np.float32))


class Truncations(BaseCallback):
    """Counts what SB3 is told, and what it makes of it."""

    ends = bootstrapped = 0

    def _on_step(self) -> bool:
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            self.ends += bool(done)
            self.bootstrapped += bool(done) and info["TimeLimit.truncated"] and "terminal_observation" in info
        return True


class FollowPower:
    """Each tank shall draw 15 kW: one action, one reward, so that a mixed-up slot can't be learnt around."""

    name, horizon = "follow_power", 16

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        error_kw = (after.measured["tank"][..., 1] - 15.0).abs()
        return Score(reward={"tank": -error_kw / 10.0}, terminated=torch.zeros(len(error_kw), dtype=torch.bool))


def test_ppo_learns_with_truncations_bootstrapped() -> None:
    torch.manual_seed(0)
    env = VecNormalize(VecCheckNan(VecMonitor(TwinVecEnv(TankTwin(8, 2), FollowPower()))), norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=128, gamma=0.9, learning_rate=3e-3, seed=0, device="cpu")
    counter = Truncations()
    model.learn(32 * 16 * 12, callback=counter)
    assert counter.ends == counter.bootstrapped == 12 * 2 * 16
    states = np.array([[30.0, 14.0], [45.0, 15.0], [55.0, 16.0]], np.float32)
    actions, _ = model.predict(env.normalize_obs(states), deterministic=True)
    asked_kw = 10.0 * (actions + 1.0)
    np.testing.assert_allclose(asked_kw, 15.0, atol=3.0)


def test_the_value_of_a_truncated_state_reaches_the_rollout() -> None:
    """SB3 adds gamma times the value of ``terminal_observation`` to the last reward of a truncated episode."""
    env = TwinVecEnv(TankTwin(2, 2), HoldTemperature(horizon=4))
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=16, n_epochs=1, gamma=0.5, seed=0, device="cpu")
    seen: dict[str, Any] = {}

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            seen["raw"], seen["infos"] = self.locals["rewards"].copy(), self.locals["infos"]
            return True

        def _on_rollout_end(self) -> None:
            last = torch.as_tensor(np.stack([info["terminal_observation"] for info in seen["infos"]]))
            with torch.no_grad():
                values = self.model.policy.predict_values(last).flatten().numpy()  # type: ignore[operator]  # SB3's stubs
            stored = self.model.rollout_buffer.rewards[-1]  # type: ignore[attr-defined]  # PPO has one
            np.testing.assert_allclose(stored, seen["raw"] + 0.5 * values, rtol=1e-5)
            seen["checked"] = True

    model.learn(16, callback=Keep())
    assert seen["checked"]
