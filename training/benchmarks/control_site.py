"""A site of 100 measured and 20 commanded signals that costs its server next to nothing, and the server itself.

``python -m twinloop.training.benchmarks.control_site`` serves it over OPC UA (``--security DIR``) or Modbus, prints its
endpoint, and tells on each line of its input a line of JSON about its own time keeping.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.action_layout import ActionLayout
from ...agents.artifact import save_artifact
from ...agents.forward import PolicyNetwork
from ...agents.layers import Dense
from ...agents.own_signals import OwnSignalsEncoder
from ...deploy.cycle_clock import CycleClock
from ...deploy.drivers.opcua_server import OpcUaPlantServer
from ...deploy.scheduling import use_realtime
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Arrays, Telemetry

GROUP, N_ASSETS, N_SIGNALS = "drive", 20, 5
PERIOD_S = 0.1
ENDPOINT = "opc.tcp://127.0.0.1:0/twinloop"


def control_nameplate(period_s: float = PERIOD_S) -> Nameplate:
    """20 drives of 5 measured signals and a command with a range and a rate each."""
    measured = tuple(Signal(f"x{i}", "1", -10.0, 10.0) for i in range(N_SIGNALS))
    command = Signal("u", "1", -1.0, 1.0, neutral=0.0, rate_limit_per_s=2.0)
    group = Group(GROUP, tuple(f"D{i + 1:02d}" for i in range(N_ASSETS)), measured, (command,))
    return Nameplate("drives", period_s, (group,), description="leaky drives, for the timing of a loop")


def control_artifact(folder: Path, nameplate: Nameplate, width: int = 256, seed: int = 0) -> Path:
    """A policy of two hidden layers with drawn weights: what it says does not matter, what it costs does."""
    group, rng = nameplate.groups[0], np.random.default_rng(seed)
    n = OwnSignalsEncoder(nameplate, group.name).n_features

    def dense(n_in: int, n_out: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float64] = rng.normal(scale=n_in**-0.5, size=(1, n_in, n_out))
        return drawn.astype(np.float32)

    layout = ActionLayout.of(group, None)
    layers = (
        Dense(dense(n, width), np.zeros((1, width), np.float32), "tanh"),
        Dense(dense(width, width), np.zeros((1, width), np.float32), "tanh"),
        Dense(dense(width, layout.n_outputs), np.zeros((1, layout.n_outputs), np.float32)),
    )
    network = PolicyNetwork(np.zeros(n), np.ones(n), 5.0, layers, layout)
    return save_artifact(
        folder,
        nameplate=nameplate,
        weights={group.name: network},
        encoders={},
        scope="site",
        provenance={"drawn": seed},
        report={},
    )


class Drives:
    """``x' = 0.95 x + 0.3 u + 0.1 w`` of each signal, by its command's value and normal noise. ``clock`` is told when
    its server steps it."""

    def __init__(self, nameplate: Nameplate, seed: int = 0) -> None:
        self.nameplate = nameplate
        self.clock = CycleClock(nameplate.period_s)
        self._x = np.zeros((N_ASSETS, N_SIGNALS))
        self._u = np.zeros((N_ASSETS, 1))
        self._rng = np.random.default_rng(seed)
        self._sequence = 0

    @property
    def clock_s(self) -> float:
        return time.time()

    def read(self) -> Telemetry:
        self._sequence += 1
        now_s = time.time()
        times, quality = np.full(self._x.shape, now_s), np.zeros(self._x.shape, dtype=np.int8)
        return Telemetry({GROUP: self._x.copy()}, {GROUP: times}, {GROUP: quality}, now_s, self._sequence)

    def write(self, commands: Arrays) -> Arrays:
        self._u = np.array(commands[GROUP], dtype=np.float64)
        return {GROUP: self._u.copy()}

    def advance(self) -> None:
        self.clock.begin()
        noise = self._rng.normal(size=self._x.shape)
        self._x = np.clip(0.95 * self._x + 0.3 * self._u + 0.1 * noise, -10.0, 10.0)
        self.clock.end()

    def close(self) -> None:
        """Nothing is open."""


def main() -> int:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--security", type=Path)
    parser.add_argument("--realtime", type=int)
    parser.add_argument("--period-s", type=float, default=PERIOD_S)
    parser.add_argument("--protocol", choices=("opcua", "modbus"), default="opcua")
    arguments = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    if arguments.realtime is not None:
        use_realtime(arguments.realtime)
    plant = Drives(control_nameplate(arguments.period_s))
    server: Any = OpcUaPlantServer(plant, ENDPOINT, speed=1.0, security=arguments.security)
    if arguments.protocol == "modbus":
        from ...deploy.connectors.modbus_server import ModbusPlantServer

        server = ModbusPlantServer(plant, "modbus://127.0.0.1:0", speed=1.0)
    with server:
        _tell(server.endpoint)
        for _ in sys.stdin:
            found = plant.clock.figures()
            told = {"periods": found.periods, "late": found.misses, "jitter_p99_ms": found.jitter_p99_ms}
            _tell(json.dumps({**told, "jitter_max_ms": found.jitter_max_ms}))
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
