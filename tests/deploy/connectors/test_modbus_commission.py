"""``twinloop commission --protocol modbus``, and the same plant opened by its address alone."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twinloop.deploy.commands import commission
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.register_map import MapSettings
from twinloop.deploy.connectors.word_order import Encoding, WordOrder
from twinloop.deploy.plants import open_plant
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.plant import Quality

ROOT = Path(__file__).parents[3]
ABLAINCOURT = ROOT / "configs" / "wind_farm" / "plant_ablaincourt.yaml"


def test_a_farm_served_in_another_word_order_is_opened_by_its_address_and_commanded() -> None:
    words = ["commission", str(ABLAINCOURT), "--protocol", "modbus", "--endpoint", "modbus://127.0.0.1:0"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "twinloop",
            *words,
            "--speed",
            "60",
            "--word-order",
            "cdab",
            "--set",
            "plant.dropout_pu=0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None  # a pipe; narrows the type
        shown: list[str] = []
        while not shown or "Ctrl-C" not in shown[-1]:
            line = process.stdout.readline()
            assert line, f"the server ended: {process.communicate()[1]}"
            shown.append(line)
        assert any(row.split()[:3] == ["holding", "2", "float32"] and "WT01/yaw_offset_deg" in row for row in shown)
        endpoint = next(row.split()[1] for row in shown if row.startswith("endpoint"))
        plant = open_plant(endpoint=endpoint)
        assert isinstance(plant, ConnectedPlant)
        assert plant.nameplate.groups[0].n_assets == 7
        assert plant.wall_period_s == pytest.approx(plant.nameplate.period_s / 60.0, abs=1e-3)
        offset = np.tile([10.0, 0.9], (7, 1))
        np.testing.assert_allclose(plant.write({"turbine": offset})["turbine"], offset, rtol=1e-7)
        clock_s = plant.clock_s
        plant.advance()
        plant.advance()
        reading = plant.read()
        assert reading.received_time_s - clock_s == pytest.approx(2.0 * plant.nameplate.period_s, abs=1e-3)
        assert np.all(reading.quality["turbine"] == Quality.GOOD)
        assert reading.notes is not None
        np.testing.assert_allclose(reading.notes["obeyed"]["turbine"], offset, rtol=1e-7)
        plant.close()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "stopping" in rest
    assert "Traceback" not in errors


def test_registers_are_configured_for_modbus_alone() -> None:
    assert commission.parse_registers("opcua", None, None, None) is None
    assert commission.parse_registers("modbus", None, None, 1.0) == MapSettings()
    assert commission.parse_registers("modbus", "int16", "dcba", 1.0) == MapSettings(Encoding.INT16, WordOrder.DCBA)
    with pytest.raises(ConfigurationError, match="--word-order: 'cdab' is for Modbus registers"):
        commission.parse_registers("opcua", None, "cdab", 1.0)
    with pytest.raises(ConfigurationError, match="no client can step a plant"):
        commission.parse_registers("modbus", None, None, None)


def test_an_endpoint_of_the_other_protocol_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from twinloop.__main__ import main

    assert main(["commission", str(ABLAINCOURT), "--protocol", "modbus", "--endpoint", "opc.tcp://127.0.0.1:0/x"]) == 2
    assert "expected modbus://host:port" in capsys.readouterr().err


def test_without_pymodbus_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['pymodbus'] = None\n"  # what the import system itself uses for "not there"
        "from twinloop.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    for words in (
        ["commission", str(ABLAINCOURT), "--protocol", "modbus"],
        ["watchdog", "--endpoint", "modbus://127.0.0.1:5020"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2, done.stderr
        assert "needs the package 'pymodbus', which is not installed" in done.stderr
        assert "pip install 'twinloop[modbus]'" in done.stderr


def test_the_command_explains_its_protocols() -> None:
    parser = argparse.ArgumentParser()
    commission.configure(parser)
    assert "modbus://127.0.0.1:5020" in parser.format_help()
