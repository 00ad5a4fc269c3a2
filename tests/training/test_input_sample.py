"""A run's artifact carries what its policy saw in the evaluation, and the input monitor is made from it."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.lever_site import LeverConfig, lever_configuration, lever_nameplate, lever_problem

from twinloop.agents.artifact import MANIFEST, attach_report, load_artifact
from twinloop.agents.artifact_inputs import INPUTS, InputSample, read_inputs, to_bytes
from twinloop.deploy.shield.monitors import DistributionMonitor, Seen, monitors_of
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ArtifactError
from twinloop.training.input_sample import MOST_ROWS, sample_inputs
from twinloop.training.learning import make_learning
from twinloop.training.run import train
from twinloop.training.run_settings import EvaluationConfiguration

HORIZON = 6


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = lever_configuration(
        {"kind": "ppo"}, iterations=1, evaluation=EvaluationConfiguration(replicas=25, steps=100), crank=True
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run", problem=lever_problem(config)).artifact


def test_an_artifact_carries_a_sample_of_what_its_policy_saw(artifact: Path) -> None:
    inputs = load_artifact(artifact).inputs
    assert set(inputs) == {"lever", "crank"}
    assert inputs["lever"].features.shape == (MOST_ROWS, 2)
    assert inputs["crank"].features.shape == (25 * 100, 2)
    rows, counts = np.unique(inputs["crank"].episode, return_counts=True)
    assert len(rows) == 25 * math.ceil(100 / HORIZON)
    assert set(counts) == {HORIZON, 100 % HORIZON}
    # A lever's second signal is its last command: 0 at the start of an episode and something else after it.
    encoded_zero = 0.0  # of a range of [-3, 3]
    started = np.concatenate([[True], np.diff(inputs["crank"].episode[::25]) > 0])
    np.testing.assert_array_equal(inputs["crank"].features[::25, 1] == encoded_zero, started)


def test_the_sample_makes_an_input_monitor_on_the_plants_own_nameplate(artifact: Path) -> None:
    policy = load_artifact(artifact, lever_nameplate(LeverConfig(crank=True)))
    (monitor,) = monitors_of(declare(policy.nameplate), policy=policy)
    assert isinstance(monitor, DistributionMonitor)
    # own signals of a range of [-3, 3]
    usual = {g: 3.0 * np.median(sample.features.astype(np.float64), axis=0) for g, sample in policy.inputs.items()}
    for lever, alarms in (([usual["lever"]] * 2, 0), ([[2.9, 2.9], usual["lever"]], 1)):
        memory = monitor.start()
        for _ in range(3):
            memory, raised = monitor.step(memory, seen({"lever": np.array(lever), "crank": usual["crank"][None]}))
        assert len(raised) == alarms


def seen(measured: dict[str, NDArray[np.float64]]) -> Seen:
    return Seen(
        measured=measured,
        commands={name: np.zeros((len(x), 1)) for name, x in measured.items()},
        proposed=None,
        changed={name: np.zeros(len(x), np.bool_) for name, x in measured.items()},
        prediction=None,
        present={name: np.ones(len(x), np.bool_) for name, x in measured.items()},
        clock_s=0.0,
    )


def test_the_sample_is_thinned_the_same_way_every_time() -> None:
    config = lever_configuration({"kind": "ppo"}, evaluation=EvaluationConfiguration(replicas=400, steps=12))
    problem = lever_problem(config)
    with ExitStack() as stack:
        networks = make_learning(config, problem, stack).export()
    first, again = sample_inputs(config, problem, networks), sample_inputs(config, problem, networks)
    assert first["lever"].features.shape == (MOST_ROWS, 2)
    assert to_bytes(first) == to_bytes(again)
    assert len(np.unique(first["lever"].episode)) > 700  # of 800: thinning leaves no part of them out


def test_a_policy_trained_without_the_shield_is_reported_with_it_too(artifact: Path) -> None:
    report = json.loads((artifact / "report.json").read_text())
    assert math.isfinite(report["twin"]["reward"])
    assert math.isfinite(report["twin_shielded"]["reward"])


def test_a_report_added_later_leaves_the_sample_and_the_hash(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    before = load_artifact(copy)
    attach_report(copy, "plant", {"gain": 1.0})
    after = load_artifact(copy)
    assert after.hash == before.hash
    np.testing.assert_array_equal(after.inputs["lever"].features, before.inputs["lever"].features)


def test_an_artifact_without_a_sample_loads_as_before(artifact: Path, tmp_path: Path) -> None:
    old = shutil.copytree(artifact, tmp_path / "old")
    (old / INPUTS).unlink()
    kept = [line for line in (old / MANIFEST).read_text().splitlines() if not line.endswith(INPUTS)]
    (old / MANIFEST).write_text("\n".join(kept) + "\n")
    policy = load_artifact(old)
    assert policy.inputs == {}
    assert monitors_of(declare(policy.nameplate), policy=policy) == ()


def test_a_sample_that_was_changed_is_refused(artifact: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(artifact, tmp_path / "changed")
    nameplate = json.loads((changed / "nameplate.json").read_text())
    assert nameplate["site"] == lever_nameplate(LeverConfig()).site
    (changed / INPUTS).write_bytes(to_bytes({"lever": InputSample(np.zeros((4, 2), np.float32), np.arange(4))}))
    with pytest.raises(ArtifactError, match=r"changed: inputs\.npz"):
        load_artifact(changed)


def test_a_sample_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sample = InputSample(rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 5, 30))
    (tmp_path / INPUTS).write_bytes(to_bytes({"lever": sample}))
    (found,) = read_inputs(tmp_path).values()
    np.testing.assert_array_equal(found.features, sample.features)
    np.testing.assert_array_equal(found.episode, sample.episode)


def test_a_short_evaluation_is_prolonged_until_the_sample_can_tell_one_in_a_thousand() -> None:
    config = lever_configuration({"kind": "ppo"}, evaluation=EvaluationConfiguration(replicas=8, steps=2))
    problem = lever_problem(config)
    with ExitStack() as stack:
        networks = make_learning(config, problem, stack).export()
    sample = sample_inputs(config, problem, networks)["lever"]
    assert 2500 <= len(sample.features) < 2600
    assert len(np.unique(sample.episode)) > 200
