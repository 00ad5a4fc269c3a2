"""TwinEnv passes Gymnasium's and SB3's own checks, and says what the twin says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_match import check_environments_match
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from tests.linear_site import HoldTemperature, TankTwin

from twinloop.envs.adapters import TwinEnv
from twinloop.envs.errors import ContractError, NumericalError

VARIANTS: dict[str, dict[str, Any]] = {
    "one group": {},
    "two groups": {"pump": True},
    "some tanks": {"n_tanks": 4, "n_min": 2},
    "float64": {"dtype": torch.float64},
}


def make(task: HoldTemperature | None = None, *, normalised: bool = False, **options: Any) -> TwinEnv:
    return TwinEnv(TankTwin(1, **options), task or HoldTemperature(), normalised_actions=normalised)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_gymnasium_accepts_it(options: dict[str, Any]) -> None:
    check_env(make(normalised=True, **options), skip_render_check=True)


# Gymnasium recommends [-1, 1]; physical units are our default on purpose, and normalised_actions is there for learners.
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space.*")
def test_gymnasium_accepts_physical_units() -> None:
    check_env(make(), skip_render_check=True)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_stable_baselines_accepts_it(options: dict[str, Any]) -> None:
    check_env_for_sb3(make(normalised=True, **options))


def test_two_environments_of_one_seed_match() -> None:
    check_environments_match(make(), make(), num_steps=50, seed=5)


def test_it_plays_the_twins_own_episode_of_that_seed() -> None:
    env, twin = make(pump=True), TankTwin(1, pump=True)
    readings = twin.reset(torch.tensor([7]))
    observation, _ = env.reset(seed=7)
    np.testing.assert_array_equal(observation[:6], readings.measured["tank"].flatten())
    env.action_space.seed(1)
    for _ in range(5):
        action = env.action_space.sample()
        level = [0.0, 0.5, 1.0][int(np.argmin(np.abs(np.array([0.0, 0.5, 1.0]) - action[3])))]
        commands = {"tank": torch.from_numpy(action[:3]).reshape(1, 3, 1), "pump": torch.full((1, 1, 1), level)}
        readings = twin.step(commands)
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(observation[:6], readings.measured["tank"].flatten())
        assert observation[6] == readings.measured["pump"]


def test_the_reward_is_the_sum_over_the_assets_that_are_there() -> None:
    env, twin, task = make(n_tanks=4, n_min=2), TankTwin(1, 4, n_min=2), HoldTemperature()
    before = twin.reset(torch.tensor([3]))
    _, info = env.reset(seed=3)
    assert 2 <= info["present"].sum() < 4
    commands = {"tank": torch.full((1, 4, 1), 10.0)}
    score = task.score(before, commands, twin.step(commands))
    _, reward, _, _, info = env.step(np.full(4, 10.0, np.float32))
    present = before.present["tank"]
    assert reward == pytest.approx(float(score.reward["tank"][present].sum()), rel=1e-6)
    assert info["costs"] == {"tank/excess_k": pytest.approx(float(score.costs["tank/excess_k"][present].sum()))}


def test_the_horizon_truncates_and_does_not_terminate() -> None:
    env = make(HoldTemperature(horizon=3))
    env.reset(seed=0)
    flags = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_the_end_of_the_task_terminates_and_does_not_truncate() -> None:
    env = make(HoldTemperature(horizon=1, trip_degc=10.0))
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[2:4] == (True, False)


def test_episodes_after_the_first_follow_from_the_seed_and_differ_from_it() -> None:
    first, second = make(), make()
    shown = [first.reset(seed=4)[0], first.reset()[0], first.reset()[0]]
    again = [second.reset(seed=4)[0], second.reset()[0], second.reset()[0]]
    np.testing.assert_array_equal(shown, again)
    assert len({tuple(x) for x in np.array(shown)}) == 3


def test_without_a_seed_each_environment_draws_its_own() -> None:
    assert not np.array_equal(make().reset()[0], make().reset()[0])


def test_stepping_before_reset_says_so() -> None:
    with pytest.raises(ContractError, match="reset first"):
        make().step(np.zeros(3, np.float32))


def test_a_batch_is_refused_with_the_class_to_use() -> None:
    with pytest.raises(ContractError, match="this twin has 2; use TwinVectorEnv"):
        TwinEnv(TankTwin(2), HoldTemperature())


def test_an_action_that_is_no_number_is_refused() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(NumericalError, match="tank/T1/heater_kw"):
        env.step(np.full(3, np.nan, np.float32))
