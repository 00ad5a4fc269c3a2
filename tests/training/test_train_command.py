"""``twinloop train`` as a user runs it, on the drift task announced as another package would announce its site."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from twinloop.__main__ import main
from twinloop.training.checkpoint import CheckpointStore
from twinloop.training.run_folder import RunFolder

CONFIG = """\
kind: train
name: drift
site: {kind: drift, n_assets: 3}
task: {name: regulate}
encoder: {name: raw}
learner: {kind: ppo, epochs: 2, minibatches: 2}
rollout: {replicas: 4, shard_replicas: 2, steps: 16}
iterations: 6
"""


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the configuration, and a package's metadata beside it that announce the drift site."""
    metadata = tmp_path / "site-packages" / "drift_site-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: drift-site\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[twinloop.sites]\ndrift = twinloop.training.benchmarks.reference_task:SITE\n"
    )
    monkeypatch.syspath_prepend(str(metadata.parent))
    (tmp_path / "drift.yaml").write_text(CONFIG)
    return tmp_path


def run_folder(output: str) -> Path:
    found = re.search(r"run folder: (\S+)", output)
    assert found
    return Path(found[1])


def newest(run: Path) -> dict[str, Any]:
    return CheckpointStore(run / "checkpoints", 3).load_newest()[0]


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list):
        return [t for v in value for t in tensors(v)]
    return [torch.as_tensor(value)]


def test_a_run_goes_from_configuration_to_artifact(announced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(announced / "drift.yaml"), "--set", "iterations=2", "--set", "learner.lr=1e-3"]
    assert main([*words, "--seed", "5", "--out", str(announced / "runs")]) == 0
    output = capsys.readouterr().out
    run = run_folder(output)
    assert re.fullmatch(r"drift-\d{8}T\d{6}Z", run.name)
    assert "iteration 2/2  reward -" in output
    assert "agent-steps/s" in output
    assert f"artifact: {run / 'artifact'}" in output
    resolved = (run / "config.yaml").read_text()
    assert "lr: 0.001" in resolved
    assert "seed: 5" in resolved
    about = json.loads((run / "artifact" / "artifact.json").read_text())
    assert about["provenance"]["seed"] == 5
    assert about["encoders"] == {"asset": {"name": "raw", "settings": {}}}
    assert about["scope"] == "site"


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(announced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = ["--set", "site.busy_s=0.004", "--set", "iterations=8", "--out", str(announced / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(announced / "site-packages"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "twinloop", "train", str(announced / "drift.yaml"), *slow],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if line.startswith("iteration 1/"):
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    process.stdout.close()
    run = run_folder(output)
    assert f"resume with: twinloop train --resume {run}" in output
    assert 1 <= newest(run)["iteration"] < 8
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["train", str(announced / "drift.yaml"), *slow]) == 0
    whole = run_folder(capsys.readouterr().out)
    assert all(torch.equal(a, b) for a, b in zip(tensors(newest(whole)), tensors(newest(run)), strict=True))


def test_a_damaged_newest_checkpoint_is_passed_over_aloud(announced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(announced / "drift.yaml"), "--set", "checkpoint_every=2", "--out", str(announced / "runs")]
    assert main(words) == 0
    run = run_folder(capsys.readouterr().out)
    expected = newest(run)
    last = sorted((run / "checkpoints").glob("*.pt"))[-1]
    last.write_bytes(last.read_bytes()[:1000])
    assert main(["train", "--resume", str(run)]) == 0
    assert "falling back to the checkpoint before it" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(tensors(expected), tensors(newest(run)), strict=True))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_another_process_trains_is_left_alone(announced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(announced / "drift.yaml"), "--set", "iterations=1", "--out", str(announced / "runs")]
    assert main(words) == 0
    run = run_folder(capsys.readouterr().out)
    before = (run / "metrics.jsonl").read_bytes()
    with RunFolder(run).hold():
        assert main(["train", "--resume", str(run)]) == 2
    assert re.search(rf"error: .*: process {os.getpid()} on \S+ trains here; wait for its end", capsys.readouterr().err)
    assert (run / "metrics.jsonl").read_bytes() == before
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--device", "gpu"]) == 2
    assert "--set device=gpu: device: 'gpu'; must be cpu, cuda" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a configuration file, or --resume"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--resume", "nowhere"], "no run folder, it has no config.yaml"),
        (["drift.yaml", "--resume", "runs/x"], "CONFIG cannot change a run that has begun"),
        (["--resume", "runs/x", "--set", "seed=1", "--seed", "2"], "--set, --seed cannot change a run"),
        (["drift.yaml", "--set", "learner.clp=1"], "did you mean 'clip'"),
        (["drift.yaml", "--set", "site.n_asset=1"], "did you mean 'n_assets'"),
        (["drift.yaml", "--workers", "9"], "workers 9 exceeds the 2 shards"),
        (["drift.yaml", "--set", "learner.controlled={asset: [u7]}"], "no command 'u7'"),
        (["drift.yaml", "--set", "scope=interface", "--set", "learner.weights=separate"], "serve this very site alone"),
    ],
)
def test_wrong_input_is_explained_and_leaves_nothing_behind(
    announced: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(announced)
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (announced / "runs").exists()


def test_help_reads_like_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for word in ("--resume", "--workers", "--set KEY=VALUE", "bit for bit"):
        assert word in text
