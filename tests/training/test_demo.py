"""The demo: its configuration, the folder it keeps, and the whole loop in small, stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.agents.artifact import load_artifact
from twinloop.envs.configuration import load
from twinloop.envs.errors import ConfigurationError
from twinloop.training.commands import demo as command
from twinloop.training.demo import Demo, DemoConfiguration

SMALL = [
    "train.iterations=2", "train.rollout.workers=0", "train.rollout.replicas=16", "train.rollout.shard_replicas=16",
    "train.checkpoint_every=1", "seeds=[0]", "hours=0.1", "served_periods=3", "processes=1",
]  # fmt: skip


def small(*words: str) -> list[str]:
    return ["demo", *(part for override in SMALL for part in ("--set", override)), *words]


def test_the_shipped_configuration_is_found_and_valid() -> None:
    config = load(command.find_config(), DemoConfiguration)
    assert config.training("demo.yaml").rollout.workers == 2
    assert config.plant["site"]["layout"] == config.train["site"]["layout"]


def test_an_installed_wheel_says_where_configurations_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "__file__", str(tmp_path / "twinloop" / "training" / "commands" / "demo.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="--config FILE"):
        command.find_config()
    (tmp_path / "configs" / "wind_farm").mkdir(parents=True)
    (tmp_path / command.CONFIG).write_text("kind: demo\n")
    assert command.find_config() == tmp_path / command.CONFIG


def test_minutes_stretch_training_and_proof() -> None:
    config = load(command.find_config(), DemoConfiguration)
    half = config.scaled(2.0, "demo.yaml")
    assert half.train["iterations"] == round(config.train["iterations"] / 2)
    assert half.hours == config.hours / 2
    assert config.scaled(0.2, "demo.yaml").hours == 1.0


def test_a_folder_without_a_demo_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--resume", "--out", str(tmp_path)]) == 2
    assert "holds no demo" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(small("--out", str(tmp_path))) == 2
    assert "holds no demo" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_wrong_plant_key_is_said_before_anything_slow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small("--set", "plant.plant.sed=3", "--out", str(tmp_path / "run"))) == 2
    assert "sed" in capsys.readouterr().err
    assert not (tmp_path / "run" / "train").exists()


@pytest.mark.timeout(240)  # a server process, a training and three plant runs, on a machine that may be busy
def test_the_loop_closes_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def stop(self: Demo) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Demo, "prove", stop)
        assert main(small("--out", str(folder))) == command.INTERRUPTED
    assert f"twinloop demo --resume --out {folder}" in capsys.readouterr().out.replace("\n", "")
    trained = load_artifact(folder / "train" / "artifact")
    assert set(trained.about["report"]) == {"last_iteration", "twin", "twin_shielded"}

    assert main(["demo", "--resume", "--out", str(folder)]) == 0
    kept = load_artifact(folder / "train" / "artifact")
    assert kept.hash == trained.hash
    assert kept.about["report"]["plant/demo"]["rows"][0]["policy"]
    made = json.loads((folder / "demo.json").read_text())
    assert [s["policy"] for s in made["data"]["standings"]] == ["greedy", "lut", "policy"]
    assert made["data"]["served"]["journal_is_sound"]
    assert made["data"]["served"]["periods"] == 3
    assert made["provenance"]["versions"]["floris"].startswith("4.7")
    for name in ("flow.png", "proof/energy.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert "serving" in (folder / "served" / "server.log").read_text()

    capsys.readouterr()
    assert main(small("--set", "hours=0.2", "--out", str(folder))) == 2
    assert "another configuration" in capsys.readouterr().err
