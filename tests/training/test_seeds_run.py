"""``twinloop train --seeds`` as a user runs it: seeds in processes of their own, failures, Ctrl-C and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.envs.configuration import load
from twinloop.envs.errors import ConfigurationError
from twinloop.training.configuration import TrainConfiguration, training_model
from twinloop.training.run_folder import RunFolder
from twinloop.training.run_statistics import interquartile_mean
from twinloop.training.seed_list import parse_seeds
from twinloop.training.seeds_run import SeedState, Study

CONFIG = """\
kind: train
name: drift
site: {kind: drift, n_assets: 2}
task: {name: regulate}
encoder: {name: raw}
learner: {kind: ppo, epochs: 1, minibatches: 2}
rollout: {replicas: 4, steps: 8}
evaluation: {every: 1, replicas: 2, steps: 10}
log: {tensorboard: false}
iterations: 3
"""


@pytest.fixture(scope="module")
def announced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the configuration, and the drift site announced as another package would, here and in children."""
    folder = tmp_path_factory.mktemp("seeds")
    metadata = folder / "site-packages" / "drift_site-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: drift-site\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[twinloop.sites]\ndrift = twinloop.training.benchmarks.reference_task:SITE\n"
    )
    (folder / "drift.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(metadata.parent))
        paths = [str(metadata.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield folder


def study_folder(output: str) -> Path:
    found = re.search(r"study folder: (\S+)", output)
    assert found
    return Path(found[1])


def network(run: Path) -> bytes:
    return (run / "artifact" / "weights_asset.npz").read_bytes()


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0..3", (0, 1, 2, 3)),
        ("0,3,7", (0, 3, 7)),
        ("0..2,9", (0, 1, 2, 9)),
        (" 4 , 1..2,2", (4, 1, 2)),
        ("5..5", (5,)),
    ],
)
def test_seeds_are_lists_and_ranges_with_both_ends(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "3..1", "-1", "a", "1.5", "0...3", "0..99999999"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"such as 0,3,7 or 0\.\.9"):
        parse_seeds(text)


def test_a_seed_that_fails_is_told_with_its_log_and_the_study_goes_on_with_it_later(
    announced: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = str(announced / "drift.yaml")
    study = Study.create(tmp_path / "study", _configuration(announced), [0, 1, 2])
    (study.folder / "seed_1").write_text("in the way")
    assert main(["train", "--resume", str(study.folder), "--parallel", "2"]) == 1
    said = capfd.readouterr().out
    log = study.folder / "logs" / "seed_1.log"
    assert re.search(rf"seed 1: failed: .*seed_1.*\(exit status \d+\); log: {re.escape(str(log))}", said)
    assert "seed 0: done after iteration 3" in said
    assert "Not in it, since they have not ended: seed 1." in said
    assert "1 of 3 seeds failed" in said
    assert "seed_1" in log.read_text()

    (study.folder / "seed_1").unlink()
    assert main(["train", "--resume", str(study.folder)]) == 0
    said = capfd.readouterr().out
    assert "seed 0: done before" in said
    assert "seed 1: done after iteration 3" in said
    rewards = [
        json.loads((study.folder / f"seed_{seed}" / "result.json").read_text())["figures"]["evaluation/reward"]
        for seed in study.seeds
    ]
    summary = json.loads((study.folder / "summary.json").read_text())
    assert [summary["data"]["seeds"][str(seed)]["final"] for seed in study.seeds] == rewards
    assert summary["rows"][0][1].startswith(f"{interquartile_mean(rewards):.4g} [")

    assert main(["train", config, "--seed", "2", "--out", str(tmp_path)]) == 0
    (alone,) = tmp_path.glob("drift-*")
    assert network(alone) == network(study.folder / "seed_2")


def _configuration(announced: Path) -> TrainConfiguration:
    return load(announced / "drift.yaml", training_model(announced / "drift.yaml"))


def test_a_study_that_is_told_to_end_saves_every_seed_and_goes_on_to_the_same_bits(
    announced: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # By SIGTERM, as a cluster's scheduler does it; the seeds themselves get Ctrl-C's SIGINT from the study.
    slow = ["--set", "site.busy_s=0.01", "--set", "iterations=6"]
    with subprocess.Popen(
        [sys.executable, "-m", "twinloop", "train", str(announced / "drift.yaml"), *slow,
         "--seeds", "0,1", "--parallel", "2", "--out", str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        output, heard = "", set()
        for line in process.stdout:
            output += line
            heard |= set(re.findall(r"^seed (\d): iteration", line))
            if heard == {"0", "1"}:
                heard = set()
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    folder = study_folder(output)
    assert f"stopped with 0 of 2 seeds done; go on with: twinloop train --resume {folder}" in output
    reached = [RunFolder(folder / f"seed_{seed}").metrics()[-1]["iteration"] for seed in (0, 1)]
    assert all(1 <= iteration < 6 for iteration in reached)
    assert [s.state for s in Study.open(folder).run(2)] == [SeedState.DONE, SeedState.DONE]
    assert main(["train", str(announced / "drift.yaml"), *slow, "--seed", "1", "--out", str(tmp_path / "alone")]) == 0
    (alone,) = (tmp_path / "alone").iterdir()
    assert network(alone) == network(folder / "seed_1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["drift.yaml", "--seeds", "x"], "--seeds: 'x'; give whole numbers"),
        (["drift.yaml", "--seeds", "0..2", "--seed", "1"], "--seed and --seeds: give one of them"),
        (["drift.yaml", "--parallel", "2"], "--parallel: one run is one process"),
        (["drift.yaml", "--seeds", "0..2", "--parallel", "0"], "--parallel: 0; give a positive number"),
        (["--resume", "runs/x", "--seeds", "0..2"], "--seeds cannot change a run that has begun"),
        (["drift.yaml", "--seeds", "0..2", "--set", "learner.clp=1"], "did you mean 'clip'"),
    ],
)
def test_wrong_words_are_explained_before_a_study_begins(
    announced: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(announced)
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (announced / "runs").exists()
