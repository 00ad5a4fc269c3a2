"""Two presses behind a real OPC UA server, which note when they obeyed what."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry

FREE = "opc.tcp://127.0.0.1:0/twinloop"
PERIOD_S = 0.3
RATE_PER_S = 10.0 / PERIOD_S  # 10 units a period

PLATE = Nameplate(
    "press",
    PERIOD_S,
    (
        Group(
            "press",
            ("P1", "P2"),
            measured=(Signal("force_n", "", 0.0, 100.0),),
            commanded=(Signal("force_set", "", 0.0, 100.0, neutral=0.0, rate_limit_per_s=RATE_PER_S),),
        ),
    ),
)
FULL = np.array([[50.0], [40.0]])


class Presses:
    """Two presses that obey at once and note when they obeyed what."""

    def __init__(self) -> None:
        self.nameplate = PLATE
        self.commands: NDArray[np.float64] = np.zeros((2, 1))
        self.history: list[tuple[float, NDArray[np.float64]]] = []
        self._sequence = 0

    @property
    def clock_s(self) -> float:
        return time.time()

    def read(self) -> Telemetry:
        self._sequence += 1
        now_s = time.time()
        return Telemetry(
            {"press": self.commands.copy()},
            {"press": np.full((2, 1), now_s)},
            {"press": np.zeros((2, 1), dtype=np.int8)},
            now_s,
            self._sequence,
        )

    def write(self, commands: Arrays) -> Arrays:
        self.commands = np.array(commands["press"], dtype=np.float64)
        self.history.append((time.monotonic(), self.commands.copy()))
        return {"press": self.commands.copy()}

    def advance(self) -> None:
        """Nothing moves by itself."""

    def close(self) -> None:
        """Nothing is open."""

    def first(self, wanted: Callable[[NDArray[np.float64]], bool], after_s: float) -> float:
        """When the presses first obeyed such commands."""
        return next((at for at, c in self.history if at > after_s and wanted(c)), float("inf"))

    def largest_step(self, after_s: float) -> float:
        rows = [c for at, c in self.history if at >= after_s]
        return float(np.abs(np.diff(np.array(rows), axis=0)).max())

    def excess(self, after_s: float) -> float:
        """By how much a step was larger than its rate allows since the step before, and half a period of jitter.

        For a loop that a busy machine delays: it may make up for the time that it stood.
        """
        (since, before), *rows = [(at, c) for at, c in self.history if at >= after_s]
        found = -np.inf
        for at, commands in rows:
            step = float(np.abs(commands - before).max())
            if step > 0.0:
                found = max(found, step - RATE_PER_S * (at - since + PERIOD_S / 2.0))
                since, before = at, commands
        return found


@contextlib.contextmanager
def served(watchdog_periods: int = 1000) -> Iterator[tuple[Presses, str]]:
    """Presses behind a server whose own time-out is far away, so that it can't be mistaken for ours."""
    plant = Presses()
    with OpcUaPlantServer(plant, FREE, speed=1.0, watchdog_periods=watchdog_periods) as server:
        yield plant, server.endpoint


def until(fact: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        if fact():
            return True
        time.sleep(0.02)
    return False
