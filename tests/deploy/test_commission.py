"""``twinloop commission`` and the plant file that it reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from twinloop.deploy.commands import commission
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.envs.errors import ConfigurationError, UnknownSiteError
from twinloop.envs.plant_file import load_plant_file
from twinloop.envs.wind_farm.config import FlorisPlantConfig, WindFarmConfig

ROOT = Path(__file__).parents[2]
ABLAINCOURT = ROOT / "configs" / "wind_farm" / "plant_ablaincourt.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "plant.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_plant_file_gives_the_site_and_both_configurations() -> None:
    site, site_config, plant_config = load_plant_file(ABLAINCOURT, ["plant.seed=3", "site.dt_s=30"])
    assert site.name == "wind_farm"
    assert isinstance(site_config, WindFarmConfig)
    assert isinstance(plant_config, FlorisPlantConfig)
    assert (site_config.dt_s, plant_config.seed) == (30.0, 3)
    assert site.nameplate(site_config).groups[0].n_assets == 7


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("site: {kind: wind_farm}\nplants: {}", ConfigurationError, "plants.*did you mean 'plant'"),
        ("site: {kind: wind_frm}", UnknownSiteError, "site.kind.*did you mean 'wind_farm'"),
        ("site: {name: x}", ConfigurationError, "site.kind: None; needed is the name of an installed site"),
        ("site: {kind: wind_farm, dt: 3}", ConfigurationError, "dt.*dt_s"),
        ("site: {kind: wind_farm}\nplant: {sed: 1}", ConfigurationError, "plant.*sed.*did you mean 'seed'"),
        ("site: {kind: wind_farm}\nplant: {vane_noise_deg: .nan}", ConfigurationError, "plant.*vane_noise_deg"),
    ],
)
def test_a_wrong_plant_file_is_named_by_file_and_key(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(error, match=f"(?s){message}") as caught:
        load_plant_file(path)
    assert "plant.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf"])
def test_a_wrong_speed_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--speed"):
        commission.parse_speed(text)


def test_speeds_are_numbers_or_stepped() -> None:
    assert commission.parse_speed("60") == 60.0
    assert commission.parse_speed("stepped") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_the_plant_and_ends_cleanly_when_told(number: int) -> None:
    command = [sys.executable, "-m", "twinloop", "commission", str(ABLAINCOURT), "--speed", "stepped"]
    process = subprocess.Popen(
        [*command, "--endpoint", "opc.tcp://127.0.0.1:0/plant", "--set", "plant.dropout_pu=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        shown: list[str] = []
        while not shown or "Ctrl-C" not in shown[-1]:
            line = process.stdout.readline()
            assert line, f"the server ended: {process.communicate()[1]}"
            shown.append(line)
        text = "".join(shown)
        assert "write  s=ablaincourt.WT01.WYAW.YwOfsSpt" in text
        assert "WT01, WT02, WT03, WT04, WT05, WT06, WT07" in text
        endpoint = next(line.split()[1] for line in shown if line.startswith("endpoint"))
        client = OpcUaPlant(endpoint, timeout_s=10.0)
        clock_s = client.clock_s
        client.advance()
        assert client.clock_s - clock_s == pytest.approx(60.0)
        client.close()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "stopping" in rest
    assert "Traceback" not in errors
