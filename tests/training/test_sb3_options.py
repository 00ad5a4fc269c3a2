"""What SB3 or an artifact can't do is said before a run, with the words that would do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.lever_site import lever_configuration, lever_problem

from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.federated_trainer import check as check_federated
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.sb3_options import SERVES, algorithms, recipe
from twinloop.training.sb3_trainer import Sb3Trainer, check


def configuration(commands: Any = "two", **learner: Any) -> TrainConfiguration:
    rollout = RolloutConfiguration(replicas=4, steps=32)  # whole minibatches of every algorithm's own size
    if learner.get("algorithm") == "ARS":
        rollout = RolloutConfiguration(replicas=4)
    config: TrainConfiguration = lever_configuration({"kind": "sb3", **learner}, commands, rollout=rollout)
    return config


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        (
            {"algorithm": "PPP"},
            r"no algorithm 'PPP' in stable_baselines3 or sb3_contrib; there are A2C, .*did you mean",
        ),
        ({"options": {"learning_rat": 1e-3}}, r"PPO takes no 'learning_rat' here; it takes batch_size, .*did you mean"),
        ({"options": {"n_steps": 8}}, r"options\.n_steps: is decided elsewhere; set rollout\.steps"),
        ({"options": {"learning_rate": "cos_1"}}, r"'cos_1' is neither a number nor a schedule such as lin_3e-4"),
        ({"options": {"policy_kwargs": {"net_arc": [8]}}}, r"policy_kwargs: MlpPolicy takes no 'net_arc'"),
        ({"options": {"policy_kwargs": {"activation_fn": "Softplus"}}}, r"'Softplus' is not one of Tanh, ReLU"),
        ({"options": {"policy_kwargs": {"features_extractor_class": "x"}}}, r"takes no 'features_extractor_class'"),
        ({"options": {"policy_kwargs": 3}}, r"must be a mapping"),
        ({"policy": "CnnPolicy"}, r"PPO has no 'CnnPolicy' that an artifact can carry"),
        ({"algorithm": "RecurrentPPO", "policy": "MlpPolicy"}, r"use MlpLstmPolicy"),
        ({"algorithm": "TD3", "options": {"noise_type": "pink", "noise_std": 1}}, r"'pink'.*normal, ornstein"),
        ({"algorithm": "TD3", "options": {"noise_std": 0.1}}, r"give both"),
        ({"options": {"gamma": "high"}}, r"options\.gamma: 'high'; PPO takes a number there"),
        ({"options": {"n_epochs": 1.5}}, r"options\.n_epochs: 1\.5; PPO takes a whole number there"),
        ({"options": {"use_sde": 1}}, r"options\.use_sde: 1; PPO takes true or false there"),
        ({"algorithm": "SAC", "options": {"ent_coef": [1]}}, r"ent_coef: \[1\]; SAC takes text or a number there"),
        ({"algorithm": "TD3", "options": {"buffer_size": 1e5}}, r"100000\.0; TD3 takes a whole number there"),
        ({"algorithm": "SAC", "options": {"use_sde": True}}, r"policy_kwargs: \{clip_mean: 0\.0\}"),
        ({"options": {"use_sde": True, "ent_coef": 0, "gae_lambda": 0.9, "batch_size": 1}}, r"PPO of Stable-Baseli"),
        ({"algorithm": "DQN"}, r"DQN gives one command with levels, and group 'lever' has continuous .*PPO, .*SAC"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(learner: dict[str, Any], words: str) -> None:
    config = configuration(**learner)
    with pytest.raises(ConfigurationError, match=words):
        check(config, lever_problem(config))


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("seed", "seed, beside learner"),
        ("train_freq", "rollout.steps"),
        ("policy", "learner.policy"),
        ("n_envs", "rep"),
    ],
)
def test_what_other_keys_decide_is_refused_with_their_name(name: str, where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        configuration(options={name: 1})


@pytest.mark.parametrize("commands", ["levels", "many", "two"])
def test_every_algorithm_either_trains_or_names_those_that_can(commands: Any) -> None:
    for name in algorithms():
        config = configuration(commands, algorithm=name, options={})
        refusal = ""
        try:
            Sb3Trainer(config, lever_problem(config))
        except ConfigurationError as error:
            refusal = str(error)
        able = refusal.partition("these can: ")[2].split(", ")
        assert not refusal or ("PPO" in able and name not in able), refusal


def test_every_algorithm_that_is_installed_is_known() -> None:
    assert algorithms().keys() == SERVES.keys()


def test_commands_of_both_kinds_are_refused_with_a_remedy() -> None:
    config = configuration("both", algorithm="PPO")
    with pytest.raises(ConfigurationError, match=r"learner\.controlled\.lever: holds continuous.*kind ppo"):
        check(config, lever_problem(config))
    one = configuration("both", algorithm="PPO", controlled={"lever": ["gear"]})
    check(one, lever_problem(one))


def test_ars_counts_iterations_and_whole_episodes() -> None:
    with pytest.raises(ValidationError, match="give iterations instead"):
        lever_configuration({"kind": "sb3", "algorithm": "ARS"}, iterations=None, agent_steps=100)
    config = lever_configuration({"kind": "sb3", "algorithm": "ARS"}, "two")  # with rollout.steps
    with pytest.raises(ConfigurationError, match=r"rollout\.steps: ARS plays whole episodes"):
        check(config, lever_problem(config))


def test_words_become_what_sb3_takes() -> None:
    options = {
        "learning_rate": "lin_1e-3",
        "policy_kwargs": {"activation_fn": "nn.ReLU", "optimizer_class": "AdamW"},
        "noise_type": "normal",
        "noise_std": 0.2,
    }
    config = configuration(algorithm="TD3", options=options)
    problem = lever_problem(config)
    made = recipe(config, config.learner, "lever", problem.layouts(problem.nameplate())["lever"])  # type: ignore[arg-type]  # kind sb3
    arguments = made.arguments
    assert [arguments["learning_rate"](p) for p in (1.0, 0.5, 0.0)] == [1e-3, 5e-4, 0.0]
    assert arguments["policy_kwargs"] == {"activation_fn": torch.nn.ReLU, "optimizer_class": torch.optim.AdamW}
    assert arguments["action_noise"]().shape == (2,)
    assert arguments["train_freq"] == (32, "step")
    assert arguments["gradient_steps"] == 32


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_said_before_the_run() -> None:
    config = configuration(options={"device": "cuda"})
    with pytest.raises(ConfigurationError, match=r"learner\.options\.device: 'cuda', but torch finds no CUDA GPU"):
        check(config, lever_problem(config))


def test_ars_takes_the_configuration_of_its_own_run_folder_which_names_every_key() -> None:
    config = configuration(algorithm="ARS", options={"n_delta": 2})
    again = TrainConfiguration.model_validate({**config.model_dump(), "site": config.site})
    assert "steps" in again.rollout.model_fields_set
    check(again, lever_problem(again))


@pytest.mark.parametrize("federated", [None, {}])
def test_a_run_in_which_sb3_would_learn_nothing_is_refused(federated: Any) -> None:
    config = configuration(algorithm="SAC", options={"learning_starts": 10**4}, federated=federated)
    with pytest.raises(ConfigurationError, match=r"learning_starts 10000: the whole run gathers \d+ steps of all its"):
        (check if federated is None else check_federated)(config, lever_problem(config))
