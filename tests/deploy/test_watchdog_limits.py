"""A killed control process: its watchdog walks within what the site declares, beyond what the nameplate implies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.deploy.heartbeat import Watched
from twinloop.deploy.journal import read
from twinloop.deploy.safe_walk import SafeWalk
from twinloop.envs.constraint import DwellConstraint, RateConstraint, SafeState, TransitionConstraint, declare
from twinloop.envs.errors import JournalError, PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry

SITE = """
import pydantic
from twinloop.envs.constraint import RateConstraint, SafeState
from twinloop.envs.nameplate import Group, Nameplate, Signal

class Config(pydantic.BaseModel, frozen=True, extra="forbid"):
    kind: str = "presses"
    per_period: float = 4.0

class Presses:
    name, summary = "presses", "two presses"
    config_model = plant_config_model = Config
    def nameplate(self, config):
        force = Signal("force_set", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=10.0 / 0.3)
        return Nameplate("press", 0.3, (Group("press", ("P1", "P2"), (Signal("force_n", "", 0.0, 100.0),), (force,)),))
    def constraints(self, config):
        return (RateConstraint("press", "force_set", config.per_period / 0.3, ""),)
    def safe_states(self, config):
        return {"press": SafeState("values", {"force_set": 10.0})}
    def twin(self, config, n_replicas, device, dtype): raise NotImplementedError
    def tasks(self): return ()
    def task(self, name, config, options): raise NotImplementedError
    def encoders(self): return ()
    def encoder(self, name, nameplate, settings): raise NotImplementedError
    def plant(self, config, plant_config): raise NotImplementedError

site = Presses()
"""
FORCE = Signal("force_set", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=10.0 / 0.3)
PLATE = Nameplate("press", 0.3, (Group("press", ("P1", "P2"), (Signal("force_n", "", 0.0, 100.0),), (FORCE,)),))


class Presses:
    """Two presses that obey at once and keep what they obeyed."""

    def __init__(self) -> None:
        self.nameplate = PLATE
        self.history = [np.zeros((2, 1))]
        self._sequence = 0

    @property
    def clock_s(self) -> float:
        return time.time()

    def read(self) -> Telemetry:
        self._sequence += 1
        now_s = time.time()
        times, good = {"press": np.full((2, 1), now_s)}, {"press": np.zeros((2, 1), dtype=np.int8)}
        return Telemetry({"press": self.history[-1].copy()}, times, good, now_s, self._sequence)

    def write(self, commands: Arrays) -> Arrays:
        self.history.append(np.array(commands["press"], dtype=np.float64))
        return {"press": self.history[-1].copy()}

    def advance(self) -> None:
        """Nothing moves by itself."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the site, for processes that are started from here; gives the plant's file."""
    (tmp_path / "press_site.py").write_text(SITE)
    info = tmp_path / "press_site-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: press-site\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[twinloop.sites]\npresses = press_site:site\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "plant.yaml"
    file.write_text("site: {kind: presses}\n")
    return file


def until(fact: Callable[[], bool], timeout_s: float = 40.0) -> bool:
    give_up_s = time.monotonic() + timeout_s
    while not fact() and time.monotonic() < give_up_s:
        time.sleep(0.02)
    return fact()


def decisions(journal: Path) -> int:
    """So many so far; none in a journal that is just being made."""
    try:
        return sum(row["kind"] == "decision" for row in read(journal))
    except JournalError:
        return 0


def twinloop(*words: str) -> list[str]:
    return [sys.executable, "-m", "twinloop", *words]


def test_after_kill_9_the_plant_is_walked_to_the_sites_safe_state_within_the_sites_rate(installed: Path) -> None:
    plant = Presses()
    with OpcUaPlantServer(plant, "opc.tcp://127.0.0.1:0/twinloop", speed=1.0, watchdog_periods=1000) as server:
        words = ["run", "--policy", "greedy", "--endpoint", server.endpoint, "--plant", str(installed)]
        words += ["--set", "site.per_period=3.0", "--journal", str(installed.parent / "j")]
        process = subprocess.Popen(twinloop(*words), stdout=subprocess.DEVNULL)
        try:
            journal = installed.parent / "j"
            assert until(lambda: decisions(journal) > 2)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert until(lambda: bool((plant.history[-1] == 10.0).all()), 20.0)  # the site's; the nameplate's is 0
        finally:
            process.kill()
            process.wait()
    steps = np.abs(np.diff(np.array(plant.history), axis=0))
    assert steps.max() == pytest.approx(3.0)  # what the file and its override say; the nameplate allows 10


@pytest.mark.parametrize("with_file", [True, False])
def test_a_watchdog_alone_says_which_limits_it_walks_by(installed: Path, with_file: bool) -> None:
    plant = Presses()
    with OpcUaPlantServer(plant, "opc.tcp://127.0.0.1:0/twinloop", speed=1.0, watchdog_periods=1000) as server:
        words = ["watchdog", "--endpoint", server.endpoint, *(["--plant", str(installed)] if with_file else [])]
        done = subprocess.run(
            twinloop(*words), input='{"bye": true}\n', capture_output=True, text=True, check=False, timeout=60
        )
    ready = json.loads(done.stdout.splitlines()[0])
    of_site = declare(
        PLATE,
        [RateConstraint("press", "force_set", 4.0 / 0.3, "")],
        {"press": SafeState("values", {"force_set": 10.0})},
    )
    expected = ("declaration", of_site.hash) if with_file else ("nameplate", declare(PLATE).hash)
    assert (ready["limits"], ready["declaration"]) == expected


def test_the_file_of_another_plant_is_refused(installed: Path) -> None:
    source = (installed.parent / "press_site.py").read_text()
    (installed.parent / "press_site.py").write_text(source.replace('"P2"', '"P3"'))
    with OpcUaPlantServer(Presses(), "opc.tcp://127.0.0.1:0/twinloop", speed=1.0) as server:
        words = ["watchdog", "--endpoint", server.endpoint, "--plant", str(installed)]
        done = subprocess.run(twinloop(*words), input="", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "is of another plant: press with nameplate" in done.stderr


def test_a_watchdog_with_other_limits_is_not_started() -> None:
    says = 'import json, sys; print(json.dumps({"ready": "x", "declaration": "b" * 64}), flush=True); sys.stdin.read()'
    with (
        pytest.raises(PlantError, match=r"other limits \(bbbbbbbbbbbb\) than this process \(aaaaaaaaaaaa\)"),
        Watched([sys.executable, "-c", says], 1.0, 3, "a" * 64),
    ):
        pytest.fail("it was started")


def test_what_must_stay_is_waited_for_and_levels_are_left_in_legal_steps() -> None:
    step = Signal("step", "1", 0.0, 2.0, levels=(0.0, 1.0, 2.0))
    plate = Nameplate("pumps", 1.0, (Group("pump", ("A",), (Signal("flow", "1", 0.0, 1.0),), (step,)),))
    legal = ((0.0, 1.0), (1.0, 0.0), (1.0, 2.0), (2.0, 1.0))
    walk = SafeWalk(
        declare(plate, [DwellConstraint("pump", "step", 3.0, "1"), TransitionConstraint("pump", "step", legal, "1")])
    )
    memory, applied, went = walk.start(), {"pump": np.array([[2.0]])}, [2.0]
    while not walk.has_arrived(applied) and len(went) < 20:
        told = walk.step(applied, walk.period_s, memory)
        memory = walk.after(memory, applied, told)
        applied = told
        went.append(float(told["pump"][0, 0]))
    assert went == [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0]
