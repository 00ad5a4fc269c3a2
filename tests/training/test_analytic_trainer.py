"""The analytic learner: exact slopes, an optimum that is known, and exact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from twinloop.agents.artifact import load_artifact
from twinloop.envs.configuration import validate
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.twin import Twin
from twinloop.envs.wind_farm.nameplate import GROUP, HIDDEN
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.problem import Problem
from twinloop.training.run import resume, train
from twinloop.training.run_folder import RunFolder

POWER = [s.name for s in HIDDEN].index("true_power_kw")


def configuration(**changes: object) -> TrainConfiguration:
    data = {
        "name": "row",
        "site": {"kind": "wind_farm", "layout": {"kind": "named", "name": "row3_5d"}},
        "task": {"name": "farm_power", "options": {"credit": "own"}},
        "encoder": {"name": "relational", "settings": {"n_downstream": 2, "n_upstream": 2}},
        "learner": {"kind": "analytic", "controlled": {"turbine": ["yaw_offset_deg"]}, "hidden": [16], "lr": 0.02},
        "rollout": {"replicas": 8, "steps": 1},
        "iterations": 60,
        "checkpoint_every": 4,
    }
    return validate(data | changes, TrainConfiguration, "test")


def test_a_row_of_three_is_steered_to_the_optimisers_gain(tmp_path: Path) -> None:
    # FLORIS' brute force at one degree gains 22.327 % on this row (facts: 8 m/s, turbulence 0.06)
    result = train(configuration(), tmp_path / "run")
    policy = load_artifact(result.artifact)
    twin = configuration_twin()
    before = twin.reset(torch.tensor([0]))
    commands, _ = policy.act(before.observation(60.0), policy.start(1))
    after = twin.step({GROUP: torch.as_tensor(commands[GROUP])})
    gain = after.hidden[GROUP][..., POWER].sum() / before.hidden[GROUP][..., POWER].sum() - 1.0
    assert float(gain) > 0.99 * 0.22327


def configuration_twin() -> Twin:
    return Problem.of(configuration(dtype="float64")).twin(1)


def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(tmp_path: Path) -> None:
    whole = train(configuration(iterations=8), tmp_path / "whole")

    def stop(report: object) -> None:
        if getattr(report, "iteration", 0) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configuration(iterations=8), tmp_path / "broken", stop)
    again = resume(tmp_path / "broken")
    assert load_artifact(again.artifact).about["provenance"]["iterations"] == 8
    states = [RunFolder(r.folder).checkpoints(3).load_newest()[0] for r in (whole, again)]
    assert torch.equal(states[0]["networks"][GROUP], states[1]["networks"][GROUP])
    assert states[0]["agent_steps"] == states[1]["agent_steps"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iterations": None, "agent_steps": 1000}, "counts iterations"),
        ({"rollout": {"replicas": 8, "steps": 1, "workers": 1}}, "in this process"),
        ({"learner": {"kind": "analytic", "clip": 0.2}}, "clip"),
    ],
)
def test_options_that_do_not_apply_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        configuration(**changes)
