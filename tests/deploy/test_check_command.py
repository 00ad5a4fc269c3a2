"""``twinloop check`` prints a coherent declaration, and everything that is wrong with another."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.__main__ import main
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import MeasuredConstraint
from twinloop.envs.wind_farm.nameplate import GROUP, make_nameplate

FARM = make_nameplate("farm", 10.0, 2, ((0.0, 0.0, 126.0, 90.0, 5000.0), (630.0, 0.0, 126.0, 90.0, 5000.0)))


def plant_file(folder: Path, limits: str) -> str:
    path = folder / "farm.yaml"
    path.write_text(f"site: {{kind: wind_farm, limits: {{{limits}}}}}\n", encoding="utf-8")
    return str(path)


def test_a_site_by_name_is_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "wind_farm", "--no-falsify"]) == 0
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


def test_a_cap_on_the_whole_farm_is_kept_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", plant_file(tmp_path, "power_cap_kw: 9000"), "--no-falsify"]) == 0
    shown = capsys.readouterr().out
    assert "the sum over assets is at most 9000 kW" in shown
    assert "turbine  power_limit_pu 0.6" in shown
    assert shown.endswith("coherent, and the shield keeps all of it\n")


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


def test_a_limit_on_a_measurement_is_the_monitors_and_no_row_of_the_shield() -> None:
    Shield(FARM, [MeasuredConstraint("power", GROUP, "power_kw", "kW", maximum=5100.0)])


def test_a_run_keeps_a_cap_that_a_server_could_not_tell_its_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant_file(tmp_path, "power_cap_kw: 9000")
    assert main(["commission", path]) == 2
    assert "clients of a server see the nameplate alone" in capsys.readouterr().err
    words = ["run", "--policy", "greedy", "--plant", path, "--periods", "3", "--journal", str(tmp_path / "j.sqlite")]
    assert main(words) == 0
    assert "constraint_sum" in capsys.readouterr().out
