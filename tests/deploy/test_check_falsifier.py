"""``twinloop check`` plays against the shield on the twin, tells how hard, and says by its status what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twinloop.__main__ import main
from twinloop.deploy.commands import check
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import Declaration, declare
from twinloop.envs.errors import MissingExtraError

LIMITS = "power_cap_kw: 9000, power_rise_kw_per_s: 60, preferred_yaw_deg: 15"


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(check, "PERIODS", 15)
    path = tmp_path / "farm.yaml"
    path.write_text(f"site: {{kind: wind_farm, limits: {{{LIMITS}}}}}\n", encoding="utf-8")
    return str(path)


def test_a_farm_with_limits_is_not_broken_and_the_budget_is_told(farm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", farm, "--falsify", "32", "--seed", "5"]) == 0
    shown = capsys.readouterr().out
    assert "falsifier: 32 schedules of 15 periods, seed 5, 1440 agent-steps" in shown
    assert "by CMA-ES" in shown
    assert "no hard limit broke; nearest: " in shown
    for name in ("farm power cap", "farm power ramp", "turbine/yaw_offset_deg range, priority 0"):
        rows = [line.split() for line in shown.splitlines() if line.startswith(name) and " sound " in line]
        assert len(rows) == 1, name
    assert "BROKEN" not in shown


def test_a_shield_that_does_not_keep_what_is_declared_ends_with_status_1(
    farm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lax(declaration: Declaration) -> Shield:
        return Shield(declare(declaration.nameplate))

    monkeypatch.setattr(check, "Shield", lax)
    assert main(["check", farm, "--falsify", "32"]) == 1
    shown = capsys.readouterr().out
    assert "BROKEN farm power cap: by " in shown
    assert "twin's seed " in shown


def test_the_budget_of_a_large_site_is_as_small_as_it_can_be() -> None:
    assert check._budget(None, 3) == (166, 60)
    assert check._budget(None, 40) == (32, 23)
    assert check._budget(None, 1000) == (32, 20)
    assert check._budget(500, 1000) == (500, 60)


def test_a_twin_that_does_not_run_is_told_and_an_error_where_it_was_asked_for(
    farm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise MissingExtraError("torch", "twin", "the twin")

    monkeypatch.setattr(check, "_falsified", missing)
    assert main(["check", farm]) == 0
    assert "not falsified, because this twin does not run here: " in capsys.readouterr().out
    assert main(["check", farm, "--falsify", "64"]) == 2
    assert "torch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--falsify", "8"], "give 32 or more, or --no-falsify"),
        (["--falsify", "64", "--no-falsify"], "not allowed with"),
    ],
)
def test_wrong_budgets_are_refused(farm: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["check", farm, *words])
    except SystemExit as stop:  # argparse's own way out
        status = int(stop.code or 0)
    assert status == 2
    assert said in capsys.readouterr().err
