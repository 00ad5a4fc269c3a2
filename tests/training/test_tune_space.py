"""A search space says what it means, and its values depend on seed, trial and key alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.tune_space import Domain, Space, configured

SPACE = """\
learner.lr: {loguniform: [1.0e-5, 1.0e-2]}
learner.gae_lambda: {uniform: [0.8, 1.0], step: 0.05}
learner.minibatches: {choice: [4, 8, 16]}
learner.hidden: {choice: [[64, 64], [128]]}
rollout.steps: {randint: [16, 64], step: 16}
"""
BASE = {"site": {"kind": "wind_farm"}, "task": {"name": "farm_power"}, "iterations": 3}


def space_of(folder: Path, text: str = SPACE) -> Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return Space.load(path)


def test_all_values_of_a_space_make_configurations(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    drawn = [space.sample(0, trial) for trial in range(200)]
    assert {v["rollout.steps"] for v in drawn} == {16, 32, 48, 64}
    assert {v["learner.gae_lambda"] for v in drawn} == {0.8, 0.85, 0.9, 0.95, 1.0}
    assert {v["learner.minibatches"] for v in drawn} == {4, 8, 16}
    rates = np.log10([v["learner.lr"] for v in drawn])
    assert rates.min() > -5.0
    assert rates.max() < -2.0
    # The mean of 200 uniform draws over three decades: 3 standard errors are 0.18.
    assert abs(rates.mean() + 3.5) < 0.18
    config = configured(BASE, drawn[0], TrainConfiguration, "trial 0")
    assert config.rollout.steps == drawn[0]["rollout.steps"]
    assert "rollout" not in BASE, "the base is not written into"


def test_a_trials_values_do_not_depend_on_the_other_trials_or_keys(tmp_path: Path) -> None:
    whole = space_of(tmp_path)
    part = space_of(tmp_path, "learner.lr: {loguniform: [1.0e-5, 1.0e-2]}\n")
    assert whole.sample(7, 41)["learner.lr"] == part.sample(7, 41)["learner.lr"]
    assert whole.sample(7, 41) != whole.sample(8, 41)
    assert whole.sample(7, 41) != whole.sample(7, 42)


DOMAINS = {
    "learner.lr": Domain("loguniform", low=1e-5, high=1e-2),
    "learner.clip": Domain("uniform", low=0.1, high=0.4, step=0.1),
    "learner.epochs": Domain("randint", low=1, high=10),
    "learner.minibatches": Domain("choice", choices=(1, 2, 4)),
}


@given(seed=st.integers(0, 100), trial=st.integers(0, 20), steps=st.lists(st.integers(1, 99), max_size=6))
def test_exploring_never_leaves_the_space(seed: int, trial: int, steps: list[int]) -> None:
    space = Space(DOMAINS)
    values: dict[str, Any] = space.sample(seed, trial)
    for time in steps:
        values = space.explore(values, seed, trial, time)
    assert 1e-5 <= values["learner.lr"] <= 1e-2
    assert values["learner.clip"] in (0.1, 0.2, 0.3, 0.4)
    assert values["learner.epochs"] in range(1, 11)
    assert isinstance(values["learner.epochs"], int)
    assert values["learner.minibatches"] in (1, 2, 4)


def test_a_perturbed_number_moves_by_a_fifth() -> None:
    domain = Domain("uniform", low=0.0, high=10.0)
    assert (domain.near(5.0, 0.2), domain.near(5.0, 0.7), domain.near(9.0, 0.7)) == (4.0, 6.0, 10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("learner.lr: 3", r"learner\.lr: 3 is no domain"),
        ("learner.lr: {unifrom: [0, 1]}", "did you mean 'uniform'"),
        ("learner.lr: {uniform: [0, 1], choice: [2]}", "give one of"),
        ("learner.lr: {uniform: [1, 0]}", "low below high"),
        ("learner.lr: {loguniform: [0, 1]}", "must begin above 0"),
        ("learner.lr: {uniform: [0, 1], step: 2}", "step 2 must be"),
        ("learner.epochs: {randint: [1, 2.5]}", "whole numbers"),
        ("learner.epochs: {choice: []}", "at least one value"),
    ],
)
def test_a_wrong_space_is_refused_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        space_of(tmp_path, text)


def test_a_key_or_value_that_the_configuration_does_not_know_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"trial 3: learner\.clp: .*did you mean"):
        configured(BASE, {"learner.clp": 0.1}, TrainConfiguration, "trial 3")
    with pytest.raises(ConfigurationError, match=r"trial 3: iterations\.x: iterations is 3, which has no keys"):
        configured(BASE, {"iterations.x": 1}, TrainConfiguration, "trial 3")
