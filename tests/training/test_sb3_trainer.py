"""SB3 from a configuration: exact resume, where SB3 itself has none, and the artifact that acts as the model does."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.lever_site import LEVELS, lever_configuration, lever_problem
from tests.sb3_cases import CASES, ON_POLICY, case_configuration

from twinloop.envs.errors import ConfigurationError, NumericalError
from twinloop.training.benchmarks.sb3_agreement import learn
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.rollout_settings import ShieldedConfiguration
from twinloop.training.run import resume, train
from twinloop.training.run_folder import RunFolder
from twinloop.training.run_settings import EvaluationConfiguration
from twinloop.training.sb3_trainer import Sb3Trainer


def trainer_of(config: TrainConfiguration) -> Sb3Trainer:
    return Sb3Trainer(config, lever_problem(config))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for v in value.values() for leaf in leaves(v)]
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    pairs = list(zip(leaves(a), leaves(b), strict=True))
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def through_a_file(state: Mapping[str, Any]) -> dict[str, Any]:
    """As a checkpoint does it: no pickle of anything but tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read: dict[str, Any] = torch.load(file, weights_only=True)
    return read


@pytest.mark.parametrize("case", CASES)
def test_resuming_after_any_iteration_equals_never_having_stopped(case: str) -> None:
    config = case_configuration(case)
    trainer = trainer_of(config)
    held = [trainer.boundary()]
    states, figures = [held[0]()], []
    for _ in range(4):
        figures.append(trainer.iterate())
        held.append(trainer.boundary())
        states.append(held[-1]())
    assert all(same(boundary(), state) for boundary, state in zip(held, states, strict=True)), "a boundary moved on"
    for stopped_after in (0, 1, 3):
        torch.manual_seed(stopped_after)  # what others draw from the global generators must not matter
        again = trainer_of(config)
        again.restore(through_a_file(states[stopped_after]))
        assert [again.iterate() for _ in range(4 - stopped_after)] == figures[stopped_after:]
        assert same(again.boundary()(), states[-1])
    changed = [not torch.equal(a, b) for a, b in zip(weights(states[0]), weights(states[-1]), strict=True)]
    assert all(changed[:1]), "nothing was learnt, so that equality says nothing"


def weights(state: Mapping[str, Any]) -> list[torch.Tensor]:
    policy: Mapping[str, torch.Tensor] = state["learners"]["lever"]["model"]["policy"]
    return [tensor for name, tensor in policy.items() if "weight" in name or "log_std" in name]


@pytest.mark.parametrize("case", CASES)
def test_the_exported_network_gives_the_commands_of_the_model(case: str) -> None:
    config = case_configuration(case)
    trainer = trainer_of(config)
    for _ in range(2):
        trainer.iterate()
    learner = trainer._learners["lever"]
    torch.manual_seed(3)
    with torch.no_grad():  # a policy with an opinion: little training leaves the same level everywhere
        for parameter in learner.model.policy.parameters():
            if parameter.ndim > 1:
                parameter += 0.7 * torch.randn_like(parameter)
            else:
                parameter *= 0.1
    network = trainer.export()["lever"]
    rng = np.random.default_rng(0)
    steps, rows, n_assets = 5, 40, 2
    features = rng.normal(0.0, 1.5, (steps, rows, n_assets, 2)).astype(np.float32)
    state, memory = None, None
    begins = np.ones(rows * n_assets, bool)
    for x in features:
        legal, masks = None, {}
        if "Maskable" in case:
            legal = rng.random((rows, n_assets, network.layout.n_levels)) < 0.5
            legal[..., [0, len(LEVELS)]] = True
            masks = {"action_masks": legal.reshape(rows * n_assets, -1)}
        actions, state = learner.model.predict(x.reshape(-1, 2), state, begins, deterministic=True, **masks)
        commands, memory = network.forward(x, memory, legal)
        expected = physical(trainer, actions.reshape(rows, n_assets, -1))
        np.testing.assert_allclose(commands, expected, atol=1e-5)
        begins[:] = False
    assert (commands.std((0, 1)) > 0).any(), "all commands are alike, so that equality says little"


def physical(trainer: Sb3Trainer, actions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Commands ``[..., A]`` of actions ``[..., A]``, by the nameplate alone."""
    columns = []
    for k, signal in enumerate(trainer.nameplate.group("lever").commanded):
        if signal.levels is None:
            columns.append(signal.minimum + 0.5 * (actions[..., k] + 1.0) * (signal.maximum - signal.minimum))
        else:
            columns.append(np.array(signal.levels)[actions[..., k].astype(int)])
    return np.stack(columns, -1)


def test_levels_are_those_of_the_nameplate_in_its_order() -> None:
    env = trainer_of(case_configuration("DQN"))._learners["lever"].env
    commands = env._commands(np.array([0, 1, 2, 3]))
    np.testing.assert_array_equal(commands.reshape(-1), LEVELS)


def test_masks_of_the_encoder_reach_the_algorithm() -> None:
    trainer = trainer_of(case_configuration("MaskablePPO"))
    env = trainer._learners["lever"].env
    env.reset()
    env.step(np.array([[2, 0], [0, 1], [3, 1], [1, 0]]))
    masks = np.stack(env.env_method("action_masks"))
    assert masks.shape == (4, len(LEVELS) + 2)
    assert (~masks).sum() == 4
    assert [int(np.argmin(row)) for row in masks] == [2, 0, 3, 1]


def test_several_groups_learn_together_each_with_its_own_learner() -> None:
    config = lever_configuration({"kind": "sb3", "algorithm": "PPO", "options": ON_POLICY}, crank=True)
    trainer = trainer_of(config)
    states, figures = [], []
    for _ in range(4):
        states.append(trainer.boundary()())
        figures.append(trainer.iterate())
    assert trainer.agent_steps == 4 * 8 * 2 * 3
    assert {"lever/loss", "crank/loss"} <= figures[-1].keys()
    network = trainer.export()
    assert {name: n.n_commands for name, n in network.items()} == {"lever": 1, "crank": 1}
    again = trainer_of(config)
    again.restore(through_a_file(states[2]))
    assert [again.iterate(), again.iterate()] == figures[2:]
    assert same(again.boundary()(), trainer.boundary()())


def test_several_groups_see_one_and_the_same_site() -> None:
    """A group that acts alone, the other neutral, sees what it sees beside a group that is held at neutral."""
    config = lever_configuration({"kind": "sb3", "algorithm": "SAC", "options": {"learning_starts": 63}}, crank=True)
    trainer = trainer_of(config)
    trainer.iterate()
    histories: list[Any] = [getattr(learner.model, "replay_buffer", None) for learner in trainer._learners.values()]
    for b in range(2):
        dones = [history.dones[:8, b * n] for history, n in zip(histories, (2, 1), strict=True)]
        np.testing.assert_array_equal(dones[0], dones[1])
        assert dones[0].sum() == 1


def test_an_error_in_one_group_ends_all() -> None:
    config = lever_configuration(
        {"kind": "sb3", "algorithm": "PPO", "options": ON_POLICY}, crank=True, task_options={"nan_at_step": 3}
    )
    with pytest.raises(NumericalError, match=r"/reward of replica 0 is nan.*mend the task 'hold'"):
        trainer_of(config).iterate()


def test_an_evaluation_changes_nothing_but_its_own_figure() -> None:
    for case in ("CrossQ", "MaskablePPO"):
        plain = trainer_of(case_configuration(case))
        evaluated = trainer_of(case_configuration(case, evaluation=EvaluationConfiguration(every=2, replicas=3)))
        for iteration in range(1, 4):
            expected, figures = plain.iterate(), evaluated.iterate()
            assert (figures.pop("evaluation/reward", None) is not None) == (iteration % 2 == 0)
            assert figures == expected
        assert same(plain.boundary()(), evaluated.boundary()())


def test_agent_steps_are_rounded_up_to_whole_iterations() -> None:
    config = case_configuration("SAC", iterations=None, agent_steps=2 * 8 * 2 * 2 + 1)
    trainer = trainer_of(config)
    assert trainer.n_iterations == 3
    trainer.iterate()
    assert trainer.agent_steps == 8 * 2 * 2


def test_off_policy_learners_take_as_many_gradient_steps_a_step_as_sb3_does() -> None:
    trainer = trainer_of(case_configuration("SAC"))
    assert [trainer.iterate()["lever/n_updates"] for _ in range(2)] == [8.0, 16.0]
    told = trainer_of(case_configuration("DQN"))  # every fourth step, by its own default
    assert [told.iterate()["lever/n_updates"] for _ in range(2)] == [2.0, 4.0]


def test_other_seeds_are_other_runs_and_the_same_seed_the_same() -> None:
    runs = [trainer_of(case_configuration("TD3", seed=seed)) for seed in (0, 0, 1)]
    figures = [run.iterate() for run in runs]
    assert figures[0] == figures[1] != figures[2]


def test_behind_the_shield_changes_are_counted_and_paid_for() -> None:
    problem_config = case_configuration("PPO", shield=ShieldedConfiguration(intervention_penalty=2.0))
    trainer = trainer_of(problem_config)
    figures = trainer.iterate()
    assert {"cost/shield/intervened", "cost/shield/change"} <= figures.keys()
    env = trainer._learners["lever"].env
    env.reset()
    _, earned, _, _ = env.step(np.full((4, 2), 1.0, np.float32))
    change = env.twin.last().change["lever"]  # type: ignore[attr-defined]  # a ShieldedTwin
    free = -(env._episodes.readings.measured["lever"][..., 0] - 0.5).square().numpy()
    np.testing.assert_allclose(earned.reshape(2, 2), free - 2.0 * change, atol=1e-6)


def test_a_run_ends_in_an_artifact_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config = case_configuration("RecurrentPPO", checkpoint_every=1)
    whole = train(config, tmp_path / "whole", problem=lever_problem(config))

    def stop(report: Any) -> None:
        if report.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", stop, problem=lever_problem(config))
    again = resume(tmp_path / "cut", problem=lever_problem(config))
    states = [RunFolder(r.folder).checkpoints(3).load_newest()[0] for r in (whole, again)]
    assert same(states[0]["learners"], states[1]["learners"])
    assert same(states[0]["generators"], states[1]["generators"])
    arrays = [(r.artifact / "weights_lever.npz").read_bytes() for r in (whole, again)]
    assert arrays[0] == arrays[1]
    assert whole.agent_steps == 4 * 8 * 2 * 2


def test_sb3_and_our_ppo_agree_on_the_reference_task() -> None:
    """The same hyper-parameters on the same twin; the full comparison is `twinloop bench sb3_agreement`."""
    ours, theirs = learn(seeds=(0, 1), iterations=10, n_assets=3)
    for figure, apart in (("while learning", 0.02), ("at the end", 0.01)):
        assert abs(np.mean(ours[figure]) - np.mean(theirs[figure])) < apart, (figure, ours, theirs)
    assert np.mean(ours["at the end"]) > np.mean(ours["before"]) + 0.01


def test_nothing_of_a_wrong_run_is_written(tmp_path: Path) -> None:
    config = lever_configuration({"kind": "sb3", "algorithm": "DQN"}, "two")
    with pytest.raises(ConfigurationError, match="DQN gives one command with levels"):
        train(config, tmp_path / "run", problem=lever_problem(config))
    assert not (tmp_path / "run").exists()


def test_a_run_of_sb3_starts_no_ray() -> None:
    code = "import sys, twinloop.training.sb3_trainer as t; assert t.Sb3Trainer and 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
