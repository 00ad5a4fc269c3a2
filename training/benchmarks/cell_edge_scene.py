"""The MuJoCo cell at a local socket and a `twinloop run` for each of its two arms, as they run in an edge case."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...deploy.drivers.local_server import LocalPlantServer
from ...deploy.drivers.local_wire import SCHEME
from ...envs.errors import ConfigurationError
from ...envs.plant_file import load_plant_file
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.plant import MuJoCoCell
from ...envs.robot_cell.plant_config import RobotCellPlantConfig
from . import cell_beside
from .cell_road import Road
from .cell_scene import YIELDS, reaching_artifact


@dataclass
class Arm:
    """A running process, and where it writes."""

    process: subprocess.Popen[bytes]
    journal: Path
    printed: Path
    station: Path


@dataclass
class Scene:
    """One case while it runs."""

    plant: MuJoCoCell
    server: LocalPlantServer
    arms: list[Arm]
    road: Road


@contextmanager
def scene_of(folder: Path, arguments: argparse.Namespace, overrides: list[str], *, is_endless: bool) -> Iterator[Scene]:
    """Serve and start all of it in ``folder``, with the first arm's road to its plant; end it on leaving.

    ``overrides`` are of the plant file, for the server and the arms; ``is_endless``: arms run until they are told to
    end, not for ``arguments.seconds``. Raises ConfigurationError where ``arguments.plant`` is no robot cell.
    """
    _, config, plant_config = load_plant_file(arguments.plant, overrides)
    if not (isinstance(config, RobotCellConfig) and isinstance(plant_config, RobotCellPlantConfig)):
        raise ConfigurationError(f"--plant {arguments.plant}: is no robot cell")
    plant = MuJoCoCell(config, plant_config)
    periods = round(arguments.seconds / config.control_period_s)
    with ExitStack() as stack:
        server = stack.enter_context(LocalPlantServer(plant, f"{SCHEME}{folder}/cell.sock", speed=arguments.speed))
        road = Road(folder / "cell.sock", folder / "road.sock")
        stack.callback(road.close)
        arms = list[Arm]()
        for k in range(2):
            artifact = reaching_artifact(
                folder / f"policy_{k + 1}", plant.nameplate, YIELDS[k], tool_m=config.tool_length_m
            )
            journal, printed = folder / f"arm_{k + 1}.sqlite", folder / f"arm_{k + 1}.txt"
            station = folder / f"station_{k + 1}"
            words = [
                "run", str(artifact), "--endpoint", f"{SCHEME}{folder}/{'road' if k == 0 else 'cell'}.sock",
                "--plant", arguments.plant, "--set", f"site.seat={k + 1}", "--assets", f"arm/arm_{k + 1}",
                "--journal", str(journal), "--station", str(station),
                "--no-policy-process",
            ]  # fmt: skip
            words += [word for override in overrides for word in ("--set", override)]
            words += [] if is_endless else ["--periods", str(periods)]
            words += [] if arguments.realtime is None else ["--realtime", str(arguments.realtime)]
            out = stack.enter_context(printed.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "twinloop", *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=cell_beside.WIDE,
            )  # fmt: skip
            stack.callback(_end, process)
            arms.append(Arm(process, journal, printed, station))
        yield Scene(plant, server, arms, road)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20.0)
    process.kill()
    process.wait()


def when_all_work(scene: Scene, give_up_s: float) -> float:
    """The plant's time when every arm has begun to move; raises RuntimeError where an arm's process ends before."""
    moved = np.zeros(len(scene.arms), dtype=bool)

    def is_so() -> bool:
        for arm in scene.arms:
            if arm.process.poll() is not None:
                raise RuntimeError(f"an arm's process ended at once:\n{arm.printed.read_text(errors='replace')}")
        moved[np.abs(scene.plant.speeds_radps).max(1) > 0.05] = True
        return bool(moved.all())

    until(is_so, give_up_s)
    return scene.plant.clock_s


def until(is_so: Callable[[], bool], give_up_s: float) -> None:
    """Wait for a fact; raises RuntimeError at ``give_up_s`` of the monotonic clock."""
    while not is_so():
        if time.monotonic() > give_up_s:
            raise RuntimeError("the cell took too long; give a lower --speed or fewer --seconds")
        time.sleep(0.05)
