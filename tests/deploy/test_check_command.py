"""``twinloop check`` prints a coherent declaration, and everything that is wrong with another."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.deploy.shield import Shield
from twinloop.deploy.shield.verification import Verifier
from twinloop.envs.constraint import (
    Constraint,
    MeasuredConstraint,
    RangeConstraint,
    SumConstraint,
    SwitchesConstraint,
    constraints_of,
)
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate

FARM = make_nameplate("farm", 10.0, 2, ((0.0, 0.0, 126.0, 90.0, 5000.0), (630.0, 0.0, 126.0, 90.0, 5000.0)))


def plant_file(folder: Path, limits: str) -> str:
    path = folder / "farm.yaml"
    path.write_text(f"site: {{kind: wind_farm, limits: {{{limits}}}}}\n", encoding="utf-8")
    return str(path)


def test_a_site_by_name_is_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "wind_farm"]) == 0
    shown = capsys.readouterr().out
    assert "4 hard and 0 soft constraints" in shown
    assert "turbine/yaw_offset_deg rate   rate   at most 0.3 deg/s  hard  nameplate" in shown
    assert shown.endswith("coherent, and the shield keeps all of it\n")


def test_all_faults_of_a_file_are_listed_and_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant_file(tmp_path, "power_cap_kw: 100, power_rise_kw_per_s: 5")
    assert main(["check", path, "--set", "site.limits.preferred_yaw_deg=50"]) == 2
    said = capsys.readouterr().err
    assert f"error: {path}: " in said
    assert "[-50, 50] deg leaves the nameplate's [-40, 40]" in said


def test_what_the_shield_cannot_keep_is_an_error_after_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", plant_file(tmp_path, "power_cap_kw: 9000")]) == 2
    shown = capsys.readouterr()
    assert "the sum over assets is at most 9000 kW" in shown.out
    assert "turbine  power_limit_pu 0.6" in shown.out
    assert "the shield can't keep hard constraints of kind 'sum' yet" in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wind_frm"], "did you mean 'wind_farm'"),
        (["wind_farm", "--set", "site.dt_s=5"], "name a file"),
        (["no_such.yaml"], "no such file"),
    ],
)
def test_wrong_input_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "constraint",
    [
        SumConstraint("cap", GROUP, "power_limit_pu", "pu", 1.5),
        SwitchesConstraint(GROUP, "power_limit_pu", 4, "pu"),
        RangeConstraint(GROUP, "yaw_offset_deg", -20.0, 20.0, "deg", 0),
    ],
)
def test_the_shield_refuses_what_it_cannot_keep(constraint: Constraint) -> None:
    with pytest.raises(ConfigurationError, match="the shield can't keep"):
        Shield(FARM, [constraint])
    with pytest.raises(ConfigurationError, match="can't be verified yet"):
        Verifier(FARM, [*constraints_of(FARM), constraint])


def test_a_limit_on_a_measurement_is_the_monitors_and_no_row_of_the_shield() -> None:
    Shield(FARM, [MeasuredConstraint("power", GROUP, "power_kw", "kW", maximum=5100.0)])


def test_a_run_and_a_server_refuse_a_plant_whose_limits_nobody_would_keep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant_file(tmp_path, "power_cap_kw: 9000")
    assert main(["commission", path]) == 2
    assert "clients of a server see the nameplate alone" in capsys.readouterr().err
    words = ["run", "--policy", "greedy", "--plant", path, "--periods", "1", "--journal", str(tmp_path / "j.sqlite")]
    assert main(words) == 2
    assert "the shield can't keep" in capsys.readouterr().err
