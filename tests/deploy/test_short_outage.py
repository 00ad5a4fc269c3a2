"""A link that drops for a moment does not end a run of short periods: 30 of these may be half a second."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.drivers.local_client import LocalPlant
from twinloop.deploy.drivers.local_server import LocalPlantServer
from twinloop.deploy.journal import Journal, read
from twinloop.deploy.loop import Period
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.summary import Ending
from twinloop.envs.constraint import declare
from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig

SPEED = 0.2  # of 0.02 s, so that a busy machine keeps up
AWAY_S = 2.0


@pytest.mark.parametrize(("patience_s", "ending"), [(60.0, Ending.COMPLETED), (0.0, Ending.PLANT_LOST)])
def test_a_run_waits_for_a_plant_in_seconds_where_periods_are_short(
    tmp_path: Path, patience_s: float, ending: Ending
) -> None:
    cell = MuJoCoCell(RobotCellConfig(), RobotCellPlantConfig())
    servers = [LocalPlantServer(cell, f"unix:{tmp_path}/cell.sock", speed=SPEED, watchdog_periods=1000)]
    servers[0].start()

    def come_back() -> None:
        servers.append(LocalPlantServer(cell, servers[0].endpoint, speed=SPEED, watchdog_periods=1000))
        servers[-1].start()

    away = threading.Timer(AWAY_S, come_back)

    def watch(period: Period) -> None:
        if period.number == 4:
            servers[0].stop()
            away.start()

    plant = LocalPlant(servers[0].endpoint)
    settings = RuntimeSettings(
        max_plant_failures=3, plant_patience_s=patience_s, hand_back_periods=0, deadline_pu=0.5, decision_pu=0.9
    )
    with Journal(tmp_path / "j") as journal:
        shield = Shield(declare(plant.nameplate))
        runtime = Runtime(
            plant, NeutralPolicy(plant.nameplate), shield, journal, settings, wall_period_s=plant.wall_period_s
        )
        summary = runtime.run(30, watch)
    away.join()
    plant.close()
    for server in servers:
        server.stop()
    assert summary.ending is ending
    assert summary.plant_errors >= 3
    codes = [reason[2] for row in read(tmp_path / "j") if row["kind"] == "decision" for reason in row["reasons"]]
    assert "input_missing" in codes or "input_lost" in codes
