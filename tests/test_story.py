"""The README's story, line by line as it is printed there: from a trained policy to a stop, an audit and a replay."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PASSWORDS = {"root": "a long word of root", "anna": "a long word of anna", "bert": "a long word of bert"}
PATIENCE_S = 240.0
TURNED_DEG = 1.0


def story() -> list[str]:
    """Commands of the README's section, without their comments."""
    section = (ROOT / "README.md").read_text().split("## One story", 1)[1]
    block = re.findall(r"```sh\n(.*?)```", section, re.S)[0]
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("S=")]


class Theatre:
    """Runs the lines in a folder of its own, with a port of its own, and answers for the people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.station = folder / "stations" / "north"
        self.words = {"ID": "", "POLICY": ""}
        self.running: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, str] = {}

    def play(self, line: str) -> None:
        in_background = line.endswith("&")
        line = line.rstrip("& ").replace("$S", "stations/north").replace("4840", str(self.port))
        words = [self.words.get(word, word) for word in shlex.split(line.replace("$P", "PLANT"))]
        words = [str(ROOT / "configs/wind_farm/plant_ablaincourt.yaml") if w == "PLANT" else w for w in words]
        words = [str(ROOT / w) if w.startswith("configs/") else w for w in words]
        words = [str(next(self.folder.glob(w))) if "*" in w else w for w in words]
        if words[0] == "kill":
            os.kill(int(words[-1]), signal.SIGKILL)
            return
        if words[:2] == ["twinloop", "train"]:
            words += ["--set", "iterations=12"]
        if words[1] in ("twin", "propose"):  # judged over fewer readings, so that a test need not wait for sixty
            words += ["--set", "live_twin.window=15"]
        if words[1] == "run":  # a machine that is busy with other tests may stand still for some seconds
            words += ["--watchdog-periods", "20"]
        command = [sys.executable, "-m", *words]
        typed = self._passwords(words)
        if typed:
            command += ["--password-fd", "0"]
        if in_background:
            log = (self.folder / f"{words[1]}.log").open("wb")
            self.running.append(
                subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
            log.close()
            return
        done = subprocess.run(
            command, cwd=self.folder, input=typed, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        self.said[words[1]] = done.stdout

    def order(self, what: str) -> None:
        """Steer the roll-out; one that has moved on by itself may refuse."""
        words = ["twinloop", "proposals", what, self.words["ID"], "--station", str(self.station), "--by", "anna"]
        subprocess.run([sys.executable, "-m", *words], cwd=self.folder, timeout=PATIENCE_S, check=False)

    def _passwords(self, words: list[str]) -> str:
        """What the people would type."""
        if words[1] not in ("people", "propose", "approve"):
            return ""
        by = [words[words.index("--by") + 1]] if "--by" in words else []
        asked = [*by, *([words[3]] if words[1] == "people" else [])]
        return "".join(f"{PASSWORDS[name]}\n" for name in asked)

    def until(self, what: str, is_so: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < give_up_s, f"never came: {what}\n{self.logs()}"
            time.sleep(0.1)

    def told(self, name: str) -> Any:
        try:
            return json.loads((self.station / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def yaw_deg(self) -> list[float]:
        turbines = self.told("state.json").get("groups", {}).get("turbine", {})
        return [float(v) for v in turbines.get("sent", {}).get("yaw_offset_deg", [])]

    def execution(self) -> Any:
        return next(iter(self.told("state.json").get("executions", {}).values()), {})

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in self.folder.glob("*.log"))


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    found = Theatre(tmp_path)
    yield found
    for process in reversed(found.running):
        process.send_signal(signal.SIGINT)
    for process in found.running:
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.timeout(900)  # a farm's hour at a period each half second, on a machine that may be busy
def test_the_readmes_story_is_true(theatre: Theatre) -> None:
    after: dict[str, Callable[[], None]] = {
        "commission": lambda: theatre.until("plant", lambda: "serving" in theatre.logs()),
        "run": lambda: theatre.until("first period", lambda: bool(theatre.yaw_deg())),
        "twin": lambda: theatre.until("open gate", lambda: bool(theatre.told("twin/verdict.json").get("open"))),
        "propose": lambda: theatre.words.update(ID=shlex.split(theatre.said["propose"])[1].rstrip(",")),
        "proposals": lambda: turned(theatre),
        "kill": lambda: fallen_back(theatre),
        "stop": lambda: stopped(theatre),
    }
    lines = story()
    for line in lines:
        theatre.play(line)
        words = line.split()
        after.get("kill" if words[0] == "kill" else words[1], lambda: None)()
    assert [line.split()[1] for line in lines if line.startswith("twinloop")][-3:] == ["stop", "audit", "replay"]
    assert "sound" in theatre.said["audit"]
    assert "every decision came out again, bit for bit" in theatre.said["replay"]


def turned(theatre: Theatre) -> None:
    def is_so() -> bool:
        found = theatre.execution()
        if found.get("status") == "paused":  # by a period that this machine was too busy for: go on, as people would
            theatre.order("resume")
        assert found.get("status") not in ("rolling back", "rolled back"), found
        all_act = found.get("agents") and len(found["agents"]) == len(theatre.yaw_deg())
        return bool(all_act) and max(map(abs, theatre.yaw_deg())) > TURNED_DEG

    theatre.until("turbines that turn", is_so)
    state = theatre.told("state.json")
    assert set(state["groups"]["turbine"]["slot"]["yaw_offset_deg"]) <= {14, 12}  # 12: an asset with a bad reading
    theatre.words["POLICY"] = str(theatre.execution()["policy_pid"])


def fallen_back(theatre: Theatre) -> None:
    theatre.until("neutral turbines", lambda: not any(theatre.yaw_deg()))
    theatre.until("the end of the roll-out", lambda: theatre.execution().get("status") == "rolled back")
    assert "SIGKILL" in theatre.execution()["why"]


def stopped(theatre: Theatre) -> None:
    state = theatre.told("state.json")
    assert state["stop"]
    assert set(state["modes"].values()) == {"tripped"}
    run = next(p for p in theatre.running if "run" in p.args)  # type: ignore[operator]  # a list of words
    run.send_signal(signal.SIGINT)
    assert run.wait(60.0) == 130
