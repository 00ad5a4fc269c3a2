"""Which sites a policy may serve is settled before a run, since its artifact is refused only after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.envs.configuration import load
from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration, training_model
from twinloop.training.problem import Problem
from twinloop.training.run import check
from twinloop.training.scope import check_scope, scope_of, separate_weights

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINING = sorted(p for p in CONFIGS.glob("*/*.yaml") if "\nkind: train\n" in p.read_text(encoding="utf-8"))


def read(path: Path, *overrides: str) -> TrainConfiguration:
    return load(path, training_model(path, overrides), overrides)


# Box2D's binding says so as it is imported, and an exception there ends the interpreter.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.stem)
def test_every_configuration_that_we_ship_passes_all_checks_that_come_before_a_run(path: Path) -> None:
    config = read(path)
    check(config, Problem.of(config))


def test_layouts_that_differ_per_replica_refuse_weights_of_each_assets_own() -> None:
    config = read(CONFIGS / "wind_farm" / "any_farm.yaml", "learner.weights=separate")
    assert scope_of(config, Problem.of(config).nameplate()) == "interface"
    with pytest.raises(ConfigurationError, match=r"scope auto, with layouts that differ.*learner.weights separate"):
        check_scope(config, Problem.of(config))


@pytest.mark.parametrize(
    ("override", "is_separate"),
    [
        ("iterations=40", False),
        ("iterations=41", True),
        ("learner.federated.average_every=null", True),
        ("evaluation.plant.every=12", True),
        ("artifact=best", False),
    ],
)
def test_federated_learners_share_weights_where_they_have_just_met(override: str, is_separate: bool) -> None:
    config = read(CONFIGS / "wind_farm" / "train_row3_sb3_federated.yaml", override)
    assert (separate_weights(config) is not None) == is_separate
