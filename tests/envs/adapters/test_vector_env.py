"""TwinVectorEnv equals Gymnasium's SyncVectorEnv over single environments, value for value, in every autoreset mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from tests.linear_site import HoldTemperature, TankTwin

from twinloop.envs.adapters import TwinEnv, TwinVectorEnv
from twinloop.envs.errors import ContractError

N = 5
# Replicas trip at different moments, and the horizon ends the rest: all mixtures of ends occur within 40 steps.
TASK = {"horizon": 9, "trip_degc": 57.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "one group": {},
    "two groups": {"pump": True},
    "some tanks": {"n_tanks": 4, "n_min": 2},
}


def make(mode: AutoresetMode = AutoresetMode.NEXT_STEP, **options: Any) -> TwinVectorEnv:
    task = HoldTemperature(**TASK)  # type: ignore[arg-type]  # values of several types in one mapping
    return TwinVectorEnv(TankTwin(N, **options), task, autoreset_mode=mode)


def make_reference(mode: AutoresetMode, **options: Any) -> SyncVectorEnv:
    def one() -> TwinEnv:
        task = HoldTemperature(**TASK)  # type: ignore[arg-type]  # as above
        return TwinEnv(TankTwin(1, **options), task)

    return SyncVectorEnv([one] * N, autoreset_mode=mode)


def assert_same(got: Any, want: Any) -> None:
    assert data_equivalence(got, want, exact=True), f"{got}\nis not\n{want}"


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda m: m.value)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_equals_gymnasiums_loop_over_single_environments(mode: AutoresetMode, options: dict[str, Any]) -> None:
    env, reference = make(mode, **options), make_reference(mode, **options)
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert env.single_observation_space == reference.single_observation_space
    assert env.single_action_space == reference.single_action_space
    assert env.metadata["autoreset_mode"] is reference.metadata["autoreset_mode"]
    assert_same(env.reset(seed=3), reference.reset(seed=3))
    env.action_space.seed(1)
    ends = set()
    for _ in range(40):
        action = env.action_space.sample()
        got, want = env.step(action), reference.step(action)
        assert_same(got, want)
        ends |= {(bool(a), bool(b)) for a, b in zip(got[2], got[3], strict=True)}
        done = got[2] | got[3]
        if mode is AutoresetMode.DISABLED and done.any():
            assert_same(env.reset(options={"reset_mask": done}), reference.reset(options={"reset_mask": done}))
    assert ends == {(False, False), (True, False), (False, True)}


def test_seeds_can_be_given_to_each_replica() -> None:
    env, reference = make(), make_reference(AutoresetMode.NEXT_STEP)
    assert_same(env.reset(seed=[4, 8, 4, 0, 9]), reference.reset(seed=[4, 8, 4, 0, 9]))
    observations, _ = env.reset(seed=[4, 8, 4, 0, 9])
    np.testing.assert_array_equal(observations[0], observations[2])


def test_a_partial_reset_leaves_the_other_replicas_alone() -> None:
    env = make(AutoresetMode.DISABLED)
    before, _ = env.reset(seed=1)
    mask = np.array([False, True, False, True, False])
    after, infos = env.reset(seed=20, options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).any(axis=1).all()
    np.testing.assert_array_equal(infos["_present"], mask)
    fresh, _ = make().reset(seed=20)
    np.testing.assert_array_equal(after[mask], fresh[mask])


def test_observations_stay_inside_their_space() -> None:
    env = make(n_tanks=4, n_min=1)
    observations, _ = env.reset(seed=0)
    for _ in range(20):
        assert observations in env.observation_space
        observations, *_ = env.step(env.action_space.sample())


def test_the_action_of_a_replica_that_is_reset_is_not_looked_at() -> None:
    env = TwinVectorEnv(TankTwin(N), HoldTemperature(horizon=4, trip_degc=55.0))
    env.reset(seed=0)
    for _ in range(12):
        action = env.action_space.sample()
        ended = env._ended
        action[ended] = np.nan
        observations, rewards, terminations, truncations, _ = env.step(action)
        assert np.isfinite(observations).all()
        assert (rewards[ended] == 0.0).all()
        assert not (terminations | truncations)[ended].any()


def test_gymnasiums_wrappers_count_episodes_rightly() -> None:
    env = RecordEpisodeStatistics(TwinVectorEnv(TankTwin(2), HoldTemperature(horizon=3)))
    env.reset(seed=0)
    for step in range(8):
        *_, infos = env.step(env.action_space.sample())
        assert ("episode" in infos) == (step in (2, 6))
        if "episode" in infos:
            np.testing.assert_array_equal(infos["episode"]["l"], [3, 3])


def test_with_autoreset_disabled_an_ended_replica_must_be_reset() -> None:
    env = TwinVectorEnv(TankTwin(2), HoldTemperature(horizon=1), autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    with pytest.raises(ContractError, match=r"replicas \[0, 1\] have ended"):
        env.step(env.action_space.sample())


def test_bad_seeds_and_masks_are_refused() -> None:
    env = make()
    with pytest.raises(ContractError, match="2 seeds for 5 replicas"):
        env.reset(seed=[1, 2])
    with pytest.raises(ContractError, match=r"reset_mask.*shape|reset_mask.*bool array"):
        env.reset(options={"reset_mask": np.zeros(N, bool)})
