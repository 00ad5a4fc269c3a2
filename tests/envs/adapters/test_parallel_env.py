"""TwinParallelEnv passes PettingZoo's own suite, and gives each asset its own signals, commands, reward and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test
from tests.linear_site import HoldTemperature, TankTwin

from twinloop.envs.adapters import TwinParallelEnv
from twinloop.envs.errors import ContractError

VARIANTS: dict[str, dict[str, Any]] = {
    "one group": {},
    "two groups": {"pump": True},
    "float64": {"dtype": torch.float64},
}


def make(task: HoldTemperature | None = None, **options: Any) -> TwinParallelEnv:
    return TwinParallelEnv(TankTwin(1, **options), task or HoldTemperature())


def sampled(env: TwinParallelEnv) -> dict[str, Any]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_pettingzoo_accepts_it(options: dict[str, Any]) -> None:
    parallel_api_test(make(**options), num_cycles=50)


# With an asset absent from the whole episode PettingZoo warns that it never ended; it never began.
@pytest.mark.filterwarnings("ignore:No agents present but not all possible_agents are terminated or truncated")
def test_pettingzoo_accepts_absent_assets() -> None:
    parallel_api_test(make(n_tanks=4, n_min=2), num_cycles=50)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_pettingzoo_finds_it_deterministic(options: dict[str, Any]) -> None:
    parallel_seed_test(lambda: make(**options), num_cycles=50)


def test_agents_are_the_assets_that_the_episode_has() -> None:
    env = make(n_tanks=4, n_min=1, pump=True)
    assert env.possible_agents == ["tank/T1", "tank/T2", "tank/T3", "tank/T4", "pump/P1"]
    twin = TankTwin(1, 4, n_min=1, pump=True)
    counts = set()
    for seed in range(8):
        observations, infos = env.reset(seed=seed)
        present = twin.reset(torch.tensor([seed])).present["tank"][0].tolist()
        expected = [agent for agent, there in zip(env.possible_agents, [*present, True], strict=True) if there]
        assert env.agents == expected == list(observations) == list(infos)
        counts.add(len(expected))
    assert len(counts) > 1


def test_each_agent_gets_its_own_signals_reward_and_costs() -> None:
    env, twin, task = make(pump=True), TankTwin(1, pump=True), HoldTemperature()
    before = twin.reset(torch.tensor([5]))
    env.reset(seed=5)
    heat = [20.0, 0.0, 7.0]
    actions = {f"tank/T{i + 1}": np.array([kw], np.float32) for i, kw in enumerate(heat)} | {"pump/P1": 2}
    commands = {"tank": torch.tensor(heat).reshape(1, 3, 1), "pump": torch.ones(1, 1, 1)}
    after = twin.step(commands)
    score = task.score(before, commands, after)
    observations, rewards, terminations, truncations, infos = env.step(actions)
    for i in range(3):
        agent = f"tank/T{i + 1}"
        np.testing.assert_array_equal(observations[agent], after.measured["tank"][0, i])
        assert rewards[agent] == float(score.reward["tank"][0, i])
        assert infos[agent] == {"costs": {"excess_k": float(score.costs["tank/excess_k"][0, i])}}
    assert observations["pump/P1"] == [1.0]
    assert rewards["pump/P1"] == pytest.approx(-0.1)
    assert infos["pump/P1"] == {"costs": {}}
    assert not any(terminations.values())
    assert not any(truncations.values())


def test_the_state_holds_what_the_plant_does_not_measure() -> None:
    env = make(pump=True)
    env.reset(seed=2)
    env.step(sampled(env))
    state, readings = env.state(), env._episodes.readings
    assert state in env.state_space
    assert state.shape == (3 * 4 + 1,)
    np.testing.assert_array_equal(state[4:6], readings.measured["tank"][0, 1])
    np.testing.assert_array_equal(state[6:8], readings.hidden["tank"][0, 1])


@pytest.mark.parametrize(("task", "over", "late"), [({"horizon": 1}, False, True), ({"trip_degc": 0.0}, True, False)])
def test_all_agents_end_together_by_termination_or_truncation(task: dict[str, Any], over: bool, late: bool) -> None:
    env = make(HoldTemperature(**task))
    env.reset(seed=0)
    _, _, terminations, truncations, _ = env.step(sampled(env))
    assert set(terminations.values()) == {over}
    assert set(truncations.values()) == {late}
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_an_asset_that_leaves_is_terminated_alone() -> None:
    class Leaves(TankTwin):
        def step(self, commands: Any) -> Any:
            self._present[:, 2] = False
            return super().step(commands)

    env = TwinParallelEnv(Leaves(1), HoldTemperature())
    env.reset(seed=0)
    _, rewards, terminations, truncations, _ = env.step(sampled(env))
    assert terminations == {"tank/T1": False, "tank/T2": False, "tank/T3": True}
    assert not any(truncations.values())
    assert rewards["tank/T3"] < 0.0  # the step that ended its part was its own
    assert env.agents == ["tank/T1", "tank/T2"]


def test_actions_must_name_the_agents() -> None:
    env = make()
    env.reset(seed=0)
    actions = sampled(env)
    actions["tank/T9"] = actions.pop("tank/T3")
    with pytest.raises(ContractError, match=r"unknown agents \['tank/T9'\] \(did you mean .*none for \['tank/T3'\]"):
        env.step(actions)


def test_a_batch_is_refused() -> None:
    with pytest.raises(ContractError, match="this twin has 2"):
        TwinParallelEnv(TankTwin(2), HoldTemperature())
