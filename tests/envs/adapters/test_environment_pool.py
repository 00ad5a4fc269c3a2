"""Foreign environments as one batched twin: equal to themselves, one by one, whatever happens to their agents."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tests.foreign_environments import Rescue, Unpicklable, make_unpicklable

from twinloop.envs.adapters.environment_block import EnvironmentRecipe, inspect
from twinloop.envs.adapters.environment_encoder import RawEncoder
from twinloop.envs.adapters.environment_pool import EnvironmentPool, NativeTask
from twinloop.envs.adapters.environment_site import SITE, EnvironmentConfig
from twinloop.envs.conformance import TWIN_CHECKS, check_encoder, check_twin
from twinloop.envs.encoder import MaskingEncoder
from twinloop.envs.errors import ConfigurationError, ContractError, MissingExtraError, NumericalError
from twinloop.training.problem import Problem

RESCUE = EnvironmentConfig(parallel="tests.foreign_environments")


def pool(config: EnvironmentConfig, n: int, dtype: torch.dtype = torch.float32) -> Any:
    return SITE.twin(config, n, "cpu", dtype)


def seeds(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def rescue_commands(n: int, scouts: list[int], base: float = 0.5) -> dict[str, torch.Tensor]:
    return {
        "scout": torch.tensor(scouts, dtype=torch.float32).reshape(1, 3, 1).repeat(n, 1, 1),
        "base": torch.full((n, 1, 1), base),
    }


@pytest.mark.parametrize(
    "config", [EnvironmentConfig(id="Pendulum-v1"), EnvironmentConfig(id="MountainCarContinuous-v0")]
)
def test_an_environment_without_early_ends_keeps_the_whole_contract_of_a_twin(config: EnvironmentConfig) -> None:
    check_twin(lambda n: pool(config, n), batch_sizes=(2, 5))


@pytest.mark.parametrize("config", [EnvironmentConfig(id="CartPole-v1"), RESCUE])
def test_an_environment_whose_agents_end_keeps_all_but_constant_presence(config: EnvironmentConfig) -> None:
    check_twin(lambda n: pool(config, n), batch_sizes=(2, 5), checks=[c for c in TWIN_CHECKS if c != "present"])


def test_an_environment_that_does_not_pickle_is_replayed_and_keeps_the_contract() -> None:
    recipe = EnvironmentRecipe(make_unpicklable, horizon=50)
    assert inspect(recipe).save == "replay"
    check_twin(lambda n: EnvironmentPool(recipe, n), batch_sizes=(2, 5))


def test_an_environment_that_pickles_its_constructor_alone_is_replayed() -> None:
    class Easy(Unpicklable, gymnasium.utils.EzPickle):
        def __init__(self) -> None:
            super().__init__()
            gymnasium.utils.EzPickle.__init__(self)

    assert inspect(EnvironmentRecipe(Easy, horizon=5)).save == "replay"
    assert inspect(EnvironmentRecipe(Rescue)).save == "pickle"


def test_rows_equal_the_bare_environment_step_by_step() -> None:
    twin = pool(EnvironmentConfig(id="CartPole-v1"), 3)
    bare = [gymnasium.make("CartPole-v1") for _ in range(3)]
    want = np.stack([env.reset(seed=k)[0] for k, env in enumerate(bare)])
    task = SITE.task("native", EnvironmentConfig(id="CartPole-v1"), {})
    readings = twin.reset(seeds(0, 1, 2))
    over = np.zeros(3, bool)
    for step in range(60):
        np.testing.assert_array_equal(readings.measured["agent"][:, 0].numpy()[~over], want[~over])
        action = [(step + k) % 3 // 2 for k in range(3)]
        commands = {"agent": torch.tensor(action, dtype=torch.float32).reshape(3, 1, 1)}
        before, readings = readings, twin.step(commands)
        score = task.score(before, commands, readings)
        for k in np.flatnonzero(~over):
            want[k], reward, terminated, _, _ = bare[k].step(action[k])
            assert score.reward["agent"][k, 0] == reward
            assert bool(score.terminated[k]) == terminated
            over[k] = terminated
        assert (readings.present["agent"][:, 0].numpy() == ~over).all()
    assert over.any()
    assert (score.reward["agent"][over, 0] == 0).all()


def test_agents_die_and_come_back_and_the_others_go_on() -> None:
    twin = pool(RESCUE, 2)
    assert [(g.name, g.n_assets) for g in twin.nameplate.groups] == [("scout", 3), ("base", 1)]
    assert [s.levels for s in twin.nameplate.group("scout").commanded] == [(0.0, 1.0, 2.0)]
    twin.reset(seeds(1, 2))
    there, rewards = [], []
    for _ in range(6):
        readings = twin.step(rescue_commands(2, [1, 0, 1]))
        there.append(readings.present["scout"][0].int().tolist())
        rewards.append(readings.hidden["scout"][0, :, 0].tolist())
        assert readings.present["base"].all()
    # Scout 0 dies in step 2, scout 2 in step 4; each is back two steps later.
    assert there == [[1, 1, 1], [0, 1, 1], [0, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert rewards[1] == [102.0, 2.0, 2.0]
    assert rewards[2][0] == 0.0
    assert rewards[3] == [4.0, 4.0, 104.0]


def test_an_agent_that_is_truncated_while_others_go_on_was_cut_and_shows_what_it_saw_last() -> None:
    config = RESCUE.model_copy(update={"options": {"leave_at": 4}})
    twin = pool(config, 1)
    task = SITE.task("native", config, {})
    before = twin.reset(seeds(1))
    for step in range(1, 7):
        after = twin.step(rescue_commands(1, [1, 0, 0]))
        score = task.score(before, {}, after)
        assert score.cut is not None
        cut = score.cut["scout"][0].tolist()
        # Scout 0 dies in step 2; in step 4 scout 1 vanishes without a word, and scout 2 by a limit of its own.
        assert cut == [False, False, step == 4], step
        assert not score.cut["base"].any()
        assert not score.terminated.any()
        if step == 4:
            assert (after.measured["scout"][0, 2, :4] != 0).all()
            assert (after.measured["scout"][0, 1] == 0).all()
        before = after
    assert after.present["scout"][0].tolist() == [True, False, False]


def test_the_horizon_leaves_agents_in_place_and_a_finished_row_stands_still() -> None:
    twin = pool(RESCUE, 1)
    task = SITE.task("native", RESCUE, {})
    assert task.horizon == 8
    before = twin.reset(seeds(5))
    for _ in range(8):
        after = twin.step(rescue_commands(1, [0, 0, 0]))
        assert not task.score(before, {}, after).terminated.any()
    still = twin.step(rescue_commands(1, [0, 0, 0]))
    assert still.present["scout"].all()
    assert torch.equal(still.measured["base"], after.measured["base"])
    assert (still.hidden["base"] == 0).all()


def test_an_end_before_the_horizon_by_the_environments_own_limit_is_refused_or_a_termination() -> None:
    config = EnvironmentConfig(parallel="tests.foreign_environments", options={"cut_at": 2})
    twin = pool(config, 1)
    twin.reset(seeds(0))
    twin.step(rescue_commands(1, [0, 0, 0]))
    with pytest.raises(ContractError, match=r"cut an episode after 2 steps.*horizon is 8.*early_truncation"):
        twin.step(rescue_commands(1, [0, 0, 0]))
    lenient = pool(config.model_copy(update={"early_truncation": "terminate"}), 1)
    before = lenient.reset(seeds(0))
    lenient.step(rescue_commands(1, [0, 0, 0]))
    after = lenient.step(rescue_commands(1, [0, 0, 0]))
    assert NativeTask(8).score(before, {}, after).terminated.all()


def test_the_mask_is_measured_and_the_encoder_says_what_is_legal() -> None:
    twin = pool(RESCUE, 2)
    encoder = SITE.encoder("raw", twin.nameplate, {"group": "scout"})
    assert isinstance(encoder, MaskingEncoder)
    assert encoder.n_features == 4
    for step, want in enumerate([[True, False, False], [True, True, False]]):
        readings = twin.reset(seeds(3, 4)) if step == 0 else twin.step(rescue_commands(2, [0, 0, 0]))
        see = readings.observation(1.0)
        legal = encoder.legal(see.measured["scout"], see.statics["scout"], see.present["scout"])
        assert (legal == want).all()
    nobody = encoder.legal(see.measured["scout"] * 0, see.statics["scout"], ~see.present["scout"])
    assert nobody.all()


@pytest.mark.parametrize("settings", [{"group": "scout"}, {"group": "base"}, {"group": "scout", "identity": True}])
def test_the_raw_encoder_keeps_the_contract_of_encoders(settings: dict[str, Any]) -> None:
    nameplate = SITE.nameplate(RESCUE.model_copy(update={"unbounded": 10.0}))
    check_encoder(SITE.encoder("raw", nameplate, settings), nameplate)


def test_identity_is_one_hot_behind_the_observation() -> None:
    twin = pool(RESCUE, 2)
    encoder = SITE.encoder("raw", twin.nameplate, {"group": "scout", "identity": True})
    assert isinstance(encoder, RawEncoder)
    see = twin.reset(seeds(1, 2)).observation(1.0)
    features, _ = encoder.encode(see.measured["scout"], see.statics["scout"], see.present["scout"], {}, 1.0)
    np.testing.assert_array_equal(features[:, :, 4:], np.tile(np.eye(3), (2, 1, 1)))
    np.testing.assert_array_equal(features[..., :4], see.measured["scout"][..., :4])


@pytest.mark.parametrize(
    ("space", "levels"),
    [
        (spaces.Discrete(3, start=-1), [(-1.0, 0.0, 1.0)]),
        (spaces.MultiDiscrete([2, 3]), [(0.0, 1.0), (0.0, 1.0, 2.0)]),
        (spaces.MultiBinary(2), [(0.0, 1.0), (0.0, 1.0)]),
        (spaces.Box(-1, 1, (2, 2)), [None] * 4),
    ],
)
def test_every_action_that_commands_name_is_in_the_space(space: Any, levels: list[Any]) -> None:
    class Picky(gymnasium.Env[Any, Any]):
        observation_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,))))
        action_space = space

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return (2, np.array([0.25, 0.5], np.float32)), {}

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action), action
            return (1, np.array([0.0, 1.0], np.float32)), 0.0, False, False, {}

    twin = EnvironmentPool(EnvironmentRecipe(Picky, horizon=9), 2)
    group = twin.nameplate.groups[0]
    assert [s.levels for s in group.commanded] == levels
    assert twin.reset(seeds(0, 1)).measured["agent"][0, 0].tolist() == [0.0, 0.0, 1.0, 0.25, 0.5]
    for level in (-9.0, 0.4, 9.0):
        readings = twin.step({"agent": torch.full((2, 1, len(group.commanded)), level)})
    assert readings.measured["agent"][1, 0].tolist() == [0.0, 1.0, 0.0, 0.0, 1.0]


def test_a_nan_command_is_an_error_that_names_it() -> None:
    twin = pool(RESCUE, 2)
    twin.reset(seeds(0, 1))
    commands = rescue_commands(2, [0, 0, 0])
    commands["scout"][1, 2, 0] = torch.nan
    with pytest.raises(NumericalError, match="scout/scout_2/u0 of row 1 is nan"):
        twin.step(commands)


def test_wrong_names_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"CartPol-v1.*did you mean 'CartPole-v1'"):
        SITE.nameplate(EnvironmentConfig(id="CartPol-v1"))
    with pytest.raises(MissingExtraError, match=r"twinloop\[tasks\]"):
        SITE.nameplate(EnvironmentConfig(parallel="no_such_package.thing"))
    with pytest.raises(ConfigurationError, match="no function 'nothing'"):
        SITE.nameplate(EnvironmentConfig(parallel="tests.foreign_environments:nothing"))
    with pytest.raises(ConfigurationError, match="give horizon"):
        inspect(EnvironmentRecipe(make_unpicklable))
    with pytest.raises(ValueError, match="either id"):
        EnvironmentConfig()


@pytest.mark.parametrize(
    ("package", "config"),
    [
        ("mpe2", EnvironmentConfig(parallel="mpe2.simple_spread_v3", options={"N": 2, "max_cycles": 9})),
        ("mpe2", EnvironmentConfig(parallel="mpe2.simple_speaker_listener_v4", options={"max_cycles": 9})),
        ("Box2D", EnvironmentConfig(id="LunarLander-v3")),
    ],
)
def test_environments_of_the_extra_are_batched_and_restored_exactly(package: str, config: EnvironmentConfig) -> None:
    pytest.importorskip(package, reason="needs the extra 'tasks'")
    check_twin(lambda n: pool(config, n), batch_sizes=(3,), steps=6, checks=["shapes", "batch", "snapshot"])


def test_the_problem_of_a_run_has_a_raw_encoder_for_every_group() -> None:
    problem = Problem(SITE, RESCUE, "native", encoder_name="raw")
    encoders = problem.encoders(problem.nameplate())
    assert {name: (e.name, e.n_features) for name, e in encoders.items()} == {"scout": ("raw", 4), "base": ("raw", 4)}
    nameplate = problem.nameplate()
    for name, encoder in encoders.items():
        assert SITE.encoder("raw", nameplate, encoder.settings()).group == name
