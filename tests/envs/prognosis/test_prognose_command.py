"""``twinloop prognose``: fit, save, load and tell, from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.envs.prognosis.engines import made_up, write_set

from twinloop.__main__ import main

FEW = ["--option", "iterations=15", "--option", "rows_a_leaf=20", "--option", "bands=2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_set(folder, 20, 6)
    return folder


def test_engines_that_run_are_told_with_intervals_and_a_saved_model_says_the_same(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running, model = str(files / "test_FD001.txt"), str(files / "m.npz")
    words = ["prognose", running, "--fit", str(files / "train_FD001.txt"), "--save", model, *FEW]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "90% interval" in printed
    assert "model:" in printed
    told = []
    for more in (["--fit", str(files / "train_FD001.txt"), *FEW], ["--model", model]):
        assert main(["prognose", running, "--horizon", "25", "--json", *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert (told[0]["horizon"], told[0]["level"], sorted(told[0]["units"])) == (25, 0.9, list("123456"))
    left = np.loadtxt(files / "RUL_FD001.txt")
    soon = int(left.argmin()) + 1
    chances = {name: unit["chance_to_fail"] for name, unit in told[0]["units"].items()}
    assert chances[str(soon)] == max(chances.values())
    assert all(unit["low"] <= unit["median"] <= unit["high"] for unit in told[0]["units"].values())


def test_csv_files_are_read_and_units_that_failed_have_no_life_left(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = made_up(12, 3, cut=False)
    rows = ["unit,cycle,heat,hum,failed"]
    for k, line in enumerate(lines):
        ends = k + 1 == len(lines) or lines[k + 1, 0] != line[0]
        rows.append(f"pump {line[0]:g},{line[1]:g},{line[6]},{line[7]},{int(ends and line[0] != 12)}")
    path = tmp_path / "pumps.csv"
    path.write_text("\n".join(rows))
    assert main(["prognose", str(path), "--fit", str(path), "--json", *FEW]) == 0
    assert list(json.loads(capsys.readouterr().out)["units"]) == ["pump 12"]
    path.write_text("\n".join(rows[:20]).replace(",heat,", ",warmth,"))
    assert main(["prognose", str(path), "--fit", str(path), *FEW]) == 2
    assert "give 10 or more histories to failure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unit,heat\na,1", "give columns 'unit', 'cycle'"),
        ("unit,cycle\na,1", "give condition signals"),
        ("unit,cycle,x\na,1,2\na,3,2", "line 3: cycle 3 of unit 'a'; expected 2"),
        ("unit,cycle,x\na,1,nan", "line 2: x is 'nan'"),
        ("unit,cycle,x\na,1", "line 2: 2 cells under 3"),
        ("unit,cycle,x,failed\na,1,2,1\na,2,2,0", "goes on after it failed"),
        ("unit,cycle,x", "no rows"),
    ],
)
def test_a_file_that_is_no_history_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert main(["prognose", str(tmp_path / "x.csv"), "--fit", str(tmp_path / "x.csv")]) == 2
    assert said in capsys.readouterr().err


def test_words_that_do_not_go_together_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running, train = str(files / "test_FD001.txt"), str(files / "train_FD001.txt")
    for words, remedy in (
        ([], "one of them"),
        (["--fit", train, "--model", "m.npz"], "one of them"),
        (["--model", "m.npz", "--save", "n.npz"], "are for --fit"),
        (["--fit", train, "--alarm", "2"], "between 0 and 1"),
        (["--fit", train, "--option", "iteration=3"], "did you mean 'iterations'"),
        (["--fit", train, "--horizon", "500", *FEW], "less than the cap"),
    ):
        assert main(["prognose", running, *words]) == 2
        assert remedy in capsys.readouterr().err
