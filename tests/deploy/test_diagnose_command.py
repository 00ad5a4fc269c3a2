"""``twinloop diagnose``: from a site's file and from the journal of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinloop.__main__ import main

PLANT = "configs/production_line/plant_energy.yaml"
ROOT = Path(__file__).parents[2]
FEW = ["--option", "replicas=24", "--option", "slots=200"]


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 periods of ten slots."""
    path = tmp_path_factory.mktemp("journal") / "line.sqlite"
    plant = str(ROOT / PLANT)
    words = ["run", "--policy", "greedy", "--plant", plant, "--set", "site.slots_per_period=10", "--periods", "40"]
    assert main([*words, "--mode", "autonomous", "--journal", str(path)]) == 0
    return path


def test_a_journal_is_diagnosed_from_its_telemetry(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["diagnose", str(journal), "--plant", PLANT, "--set", "site.slots_per_period=10", "--json", *FEW]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bottleneck"] == "M2"
    assert told["measured"]["periods"] == 39  # the first reading ends no period
    machine = told["machines"]["M2"]
    assert abs(machine["efficiency_pu"] - 0.6) < 4 * machine["efficiency_sd_pu"] < 0.12
    assert told["measured"]["iso_22400"]["M2"]["quality_ratio"] is None


def test_a_file_is_diagnosed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", PLANT, "--picture", str(tmp_path / "line.svg"), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "bottleneck: M2" in printed
    assert "what change pays" in printed
    assert "<svg" in (tmp_path / "line.svg").read_text(encoding="utf-8")


def test_what_cannot_be_diagnosed_is_refused_with_the_remedy(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, remedy in (
        ([str(journal)], "--plant FILE.yaml"),
        ([str(journal), "--plant", PLANT], "with its overrides"),  # another period: another plant
        ([PLANT, "--plant", PLANT], "is for a journal"),
        ([PLANT, "--option", "replica=3"], "did you mean 'replicas'"),
        ([PLANT, "--option", "replicas"], "KEY=VALUE"),
        ([PLANT, "--picture", "line.gif"], ".png"),
        (["configs/wind_farm/plant_ablaincourt.yaml"], "production_line"),
    ):
        assert main(["diagnose", *words]) == 2
        assert remedy in capsys.readouterr().err
