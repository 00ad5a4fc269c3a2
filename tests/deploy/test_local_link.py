"""A plant behind a Unix socket: the contract, several writers, silence, and what goes wrong."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from twinloop.__main__ import main
from twinloop.deploy.drivers.local_client import LocalPlant
from twinloop.deploy.drivers.local_server import LocalPlantServer
from twinloop.deploy.plants import open_plant
from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import ConfigurationError, PlantError
from twinloop.envs.robot_cell.config import People, RobotCellConfig
from twinloop.envs.robot_cell.nameplate import ARM
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig

PATIENCE_S = 30.0
NAN = np.nan


@pytest.fixture
def plant() -> MuJoCoCell:
    return MuJoCoCell(RobotCellConfig(people=People()), RobotCellPlantConfig(command_timeout_s=1e3))


@pytest.fixture
def served(plant: MuJoCoCell, tmp_path: Path) -> Iterator[LocalPlantServer]:
    with LocalPlantServer(plant, f"unix:{tmp_path}/cell.sock") as server:
        yield server


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_keeps_the_contract_of_a_plant_over_the_socket(served: LocalPlantServer) -> None:
    check_plant(lambda: open_plant(endpoint=served.endpoint), clock_slack_s=1.0)


def test_two_processes_write_their_own_rows_and_a_silent_one_goes_to_neutral(
    served: LocalPlantServer, plant: MuJoCoCell
) -> None:
    one, other = LocalPlant(served.endpoint), LocalPlant(served.endpoint)
    one.write({ARM: np.array([[0.1] * 6, [NAN] * 6])})
    accepted = other.write({ARM: np.array([[NAN] * 6, [0.2] * 6])})
    assert accepted[ARM][:, 0].tolist() == [0.1, 0.2]

    def alone() -> bool:
        rows = other.write({ARM: np.array([[NAN] * 6, [0.2] * 6])})[ARM]
        assert rows[1, 0] == 0.2
        other.advance()
        return bool(rows[0, 0] == 0.0)

    until(alone)
    until(lambda: bool((other.write({ARM: np.full((2, 6), NAN)})[ARM] == 0.0).all()))
    one.close()
    other.close()


def test_the_socket_is_its_owners_alone_and_goes_when_the_server_stops(plant: MuJoCoCell, tmp_path: Path) -> None:
    file = tmp_path / "cell.sock"
    server = LocalPlantServer(plant, f"unix:{file}")
    server.start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    client = LocalPlant(server.endpoint)
    assert client.read().values[ARM].shape[0] == 2
    with pytest.raises(PlantError, match="another server answers there"):
        LocalPlantServer(plant, server.endpoint).start()
    server.stop()
    assert not file.exists()
    with pytest.raises(PlantError, match="no answer"):
        client.read()
    with LocalPlantServer(plant, server.endpoint), closing(client):
        assert client.read().sequence == 2  # it has connected again


def test_a_socket_left_over_is_replaced_and_any_other_file_is_kept(plant: MuJoCoCell, tmp_path: Path) -> None:
    stale, other = tmp_path / "stale.sock", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    with LocalPlantServer(plant, f"unix:{stale}"), closing(LocalPlant(f"unix:{stale}")) as client:
        assert client.nameplate.hash == plant.nameplate.hash
    other.write_text("mine", encoding="utf-8")
    with pytest.raises(PlantError, match="is no socket"):
        LocalPlantServer(plant, f"unix:{other}").start()
    assert other.read_text(encoding="utf-8") == "mine"
    with pytest.raises(ConfigurationError, match="no local address"):
        LocalPlantServer(plant, "unix:").start()


def test_nonsense_on_the_wire_harms_nobody_else(served: LocalPlantServer) -> None:
    path = served.endpoint.removeprefix("unix:")
    good = LocalPlant(served.endpoint)
    for nonsense in (os.urandom(64), b"W" + (4).to_bytes(4, "little") + b"abcd", b"X" + bytes(4), b"R\xff\xff\xff\xff"):
        with socket.socket(socket.AF_UNIX) as bad:
            bad.connect(path)
            bad.sendall(nonsense)
            bad.shutdown(socket.SHUT_WR)
        assert good.read().values[ARM].shape[0] == 2
    with closing(good):
        with pytest.raises(PlantError, match="has no group 'arms'"):
            good.write({"arms": np.zeros((2, 6))})
        with pytest.raises(PlantError, match=r"have \(1, 6\), not \(2, 6\)"):
            good.write({ARM: np.zeros((1, 6))})


def test_a_plant_that_fails_is_told_to_clients_and_to_who_serves_it(plant: MuJoCoCell, tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("a wire is loose")

    plant.advance = fails  # type: ignore[method-assign]  # the fault is the test
    server = LocalPlantServer(plant, f"unix:{tmp_path}/cell.sock")
    server.start()
    until(lambda: server._failure is not None)
    with pytest.raises(PlantError, match="a wire is loose"):
        server.wait(PATIENCE_S)
    server.stop()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "local"], "clients of a server see the nameplate alone"),
        (["--protocol", "local", "--limits-from-file"], "needs --endpoint unix:FILE"),
        (["--protocol", "local", "--limits-from-file", "--endpoint", "cell.sock"], "is no local address"),
        (["--protocol", "local", "--limits-from-file", "--endpoint", "unix:x", "--speed", "stepped"], "give a number"),
    ],
)
def test_a_wrong_commission_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(Path(__file__).parents[2] / "configs" / "robot_cell" / "plant_cell.yaml")
    assert main(["commission", file, *words]) == 2
    assert said in capsys.readouterr().err
