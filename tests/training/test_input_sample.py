"""A run's artifact carries what its policy saw in the evaluation, and the input monitor is made from it."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.lever_site import LeverConfig, lever_configuration, lever_nameplate, lever_problem

from twinloop.agents.artifact import MANIFEST, attach_report, load_artifact
from twinloop.agents.artifact_inputs import INPUTS, InputSample, read_inputs, to_bytes
from twinloop.deploy.shield.monitors import DistributionMonitor, monitors_of
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
        {"kind": "ppo"}, iterations=1, evaluation=EvaluationConfiguration(replicas=34, steps=60), crank=True
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run", problem=lever_problem(config)).artifact


def test_an_artifact_carries_a_sample_of_what_its_policy_saw(artifact: Path) -> None:
    inputs = load_artifact(artifact).inputs
    assert set(inputs) == {"lever", "crank"}
    assert inputs["lever"].measured.shape == (34 * 60 * 2, 2)
    assert inputs["crank"].measured.shape == (34 * 60, 2)
    n_episodes = 34 * 60 // HORIZON
    rows, counts = np.unique(inputs["lever"].episode, return_counts=True)
    assert len(rows) == n_episodes
    assert (counts == HORIZON * 2).all()
    # A lever's second signal is its last command: 0 at the start of an episode and something else after it.
    started = np.concatenate([[True], np.diff(inputs["crank"].episode[::34]) > 0])
    np.testing.assert_array_equal(inputs["crank"].measured[::34, 1] == 0.0, started)


def test_the_sample_makes_an_input_monitor_on_the_plants_own_nameplate(artifact: Path) -> None:
    policy = load_artifact(artifact)
    (monitor,) = monitors_of(declare(policy.nameplate), inputs=policy.inputs)
    assert isinstance(monitor, DistributionMonitor)
    usual = policy.inputs["lever"].measured[50:52].astype(np.float64)
    assert (monitor.p_values("lever", usual) > 0.01).all()
    assert (monitor.p_values("lever", np.full((2, 2), 2.9)) < 0.001).all()


def test_the_sample_is_thinned_the_same_way_every_time() -> None:
    config = lever_configuration({"kind": "ppo"}, evaluation=EvaluationConfiguration(replicas=400, steps=12))
    problem = lever_problem(config)
    with ExitStack() as stack:
        networks = make_learning(config, problem, stack).export()
    first, again = sample_inputs(config, problem, networks), sample_inputs(config, problem, networks)
    assert first["lever"].measured.shape == (MOST_ROWS, 2)
    assert to_bytes(first) == to_bytes(again)
    assert len(np.unique(first["lever"].episode)) > 700  # of 800: thinning leaves no part of them out


def test_a_report_added_later_leaves_the_sample_and_the_hash(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    before = load_artifact(copy)
    attach_report(copy, "plant", {"gain": 1.0})
    after = load_artifact(copy)
    assert after.hash == before.hash
    np.testing.assert_array_equal(after.inputs["lever"].measured, before.inputs["lever"].measured)


def test_an_artifact_without_a_sample_loads_as_before(artifact: Path, tmp_path: Path) -> None:
    old = shutil.copytree(artifact, tmp_path / "old")
    (old / INPUTS).unlink()
    kept = [line for line in (old / MANIFEST).read_text().splitlines() if not line.endswith(INPUTS)]
    (old / MANIFEST).write_text("\n".join(kept) + "\n")
    policy = load_artifact(old)
    assert policy.inputs == {}
    assert monitors_of(declare(policy.nameplate), inputs=policy.inputs) == ()


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
    np.testing.assert_array_equal(found.measured, sample.measured)
    np.testing.assert_array_equal(found.episode, sample.episode)
