"""The benchmark of energy agents, small: it learns, judges and tells what it missed, also of run folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.envs.configuration import load
from twinloop.training.configuration import training_model

CONFIGS = Path(__file__).parents[2] / "configs" / "production_line"


def brief(folder: Path, name: str, learner: str) -> None:
    """The same line with hardly any learning."""
    text = f"extends: {CONFIGS / name}\nrollout: {{replicas: 4, steps: 8}}\nlearner: {learner}\niterations: 1\n"
    (folder / name).write_text(text, encoding="utf-8")


def test_agents_that_have_not_learnt_miss_the_bar_and_the_twin_agrees_with_the_optimum(tmp_path: Path) -> None:
    brief(tmp_path, "train_speed_cubic.yaml", "{minibatches: 1}")
    brief(tmp_path, "train_any_line.yaml", "{lessons: 1, states: 50}")
    out = tmp_path / "out"
    words = [
        "bench",
        "line_energy",
        "--rows",
        "speed_cubic,any_line",
        "--lines",
        "3..4",
        "--replicas",
        "20",
        "--seeds",
        "0",
    ]
    assert main([*words, "--configs", str(tmp_path), "--out", str(out)]) == 1
    rows = json.loads((out / "line_energy.json").read_text(encoding="utf-8"))["rows"]
    assert [row[-1] for row in rows] == ["MISSED", "met"]
    assert json.loads((out / "unseen_lines.json").read_text(encoding="utf-8"))["rows"][0][-1] == "MISSED"


def test_a_run_of_another_line_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(f"extends: {CONFIGS / 'train_any_line.yaml'}\n", encoding="utf-8")
    words = ["bench", "line_energy", "--rows", "energy", "--configs", str(CONFIGS), "--runs", str(tmp_path)]
    assert main(words) == 2
    assert "its site is none of the rows'" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("train_e*.yaml")), ids=lambda f: f.stem)
def test_every_row_of_the_benchmark_is_a_configuration_that_loads(file: Path) -> None:
    assert load(file, training_model(file)).task.options["parts_count"] == "slowest"
