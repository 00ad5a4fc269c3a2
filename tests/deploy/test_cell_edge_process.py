"""An arm's process as a user starts it: an ONNX policy at a local socket, without torch and without the simulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from twinloop.deploy.drivers.local_server import LocalPlantServer
from twinloop.deploy.journal import read
from twinloop.envs.plant_file import load_plant_file
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.training.benchmarks.cell_scene import TOOL_M, YIELDS, reaching_artifact

CELL = """
site: {kind: robot_cell, tool_length_m: 0.1}
plant: {kind: mujoco, seed: 3, command_timeout_s: 1000.0}
"""
BLOCKED = ("torch", "ray", "stable_baselines3", "mujoco", "gymnasium", "scipy")
PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))  # importing one of them raises ImportError
from twinloop.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_arms_process_runs_its_network_without_torch_or_simulator_and_tells_its_latencies(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text(CELL)
    _, config, plant_config = load_plant_file(file)
    plant = MuJoCoCell(config, plant_config)  # type: ignore[arg-type]  # of this very site
    assert config.tool_length_m == TOOL_M  # type: ignore[attr-defined]
    policy = reaching_artifact(tmp_path / "policy", plant.nameplate, YIELDS[0])
    start = plant.joints_rad
    # A fiftieth of real time: what is looked at here is what runs, not how fast.
    with LocalPlantServer(plant, f"unix:{tmp_path}/cell.sock", speed=0.02, watchdog_periods=1000) as server:
        words = ["run", str(policy), "--endpoint", server.endpoint, "--plant", str(file), "--set", "site.seat=1"]
        words += [
            "--assets",
            "arm/arm_1",
            "--periods",
            "6",
            "--journal",
            str(tmp_path / "j"),
            "--watchdog-periods",
            "0",
        ]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decisions" in done.stdout
    assert " ms " in done.stdout.split("decisions", 1)[1]
    sent = [row["sent"]["arm"] for row in read(tmp_path / "j") if row["kind"] == "decision"]
    assert max(abs(speed) for rows in sent for speed in rows[0]) > 0.05
    moved = np.abs(plant.joints_rad - start).max(axis=1)
    assert moved[0] > 10 * moved[1]
