"""A plant whose every number is known in advance, for tests of connectors; run as a program it serves itself.

After ``step`` periods signal ``k`` of asset ``n`` reads ``step + n + k / 4``, which every encoding holds exactly.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

from twinloop.deploy.connectors.modbus_server import ModbusPlantServer
from twinloop.deploy.connectors.mqtt_identity import identity_of_environment
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.envs.errors import PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Quality, Telemetry

PERIOD_S = 1.0
EPOCH_S = 1.8e9
MODES = (0.0, 0.1, 1.0)


def rig_nameplate(n_assets: int = 2, n_measured: int = 3, *, with_modes: bool = True) -> Nameplate:
    """``valve_pu`` has limits that neither encoding holds exactly, ``mode`` is discrete."""
    valve = Signal("valve_pu", "pu", 0.1, 0.35, neutral=0.25, tag="V")
    mode = Signal("mode", "pu", 0.0, 1.0, levels=MODES, tag="M")
    rig = Group(
        name="rig",
        assets=tuple(f"R{n + 1}" for n in range(n_assets)),
        measured=tuple(Signal(f"flow{k}_kgps", "kg/s", -50.0, 300.0) for k in range(n_measured)),
        commanded=(valve, mode) if with_modes else (valve,),
    )
    return Nameplate(site="rig", period_s=PERIOD_S, groups=(rig,))


class Rig:
    """Obeys at once what is inside its limits. ``bad`` readings carry that quality; ``is_stuck`` makes a step wait,
    ``is_broken`` makes it fail."""

    def __init__(self, nameplate: Nameplate | None = None) -> None:
        self.nameplate = rig_nameplate() if nameplate is None else nameplate
        (self._group,) = self.nameplate.groups
        self.step = 0
        self.commands = np.repeat(self._group.neutral()[None], self._group.n_assets, axis=0)
        self.bad: dict[tuple[int, int], Quality] = {}
        self.go_on = threading.Event()
        self.go_on.set()
        self.is_broken = False

    @property
    def clock_s(self) -> float:
        return EPOCH_S + self.step * PERIOD_S

    def expected(self) -> NDArray[np.float64]:
        n, k = np.meshgrid(np.arange(self._group.n_assets), np.arange(len(self._group.measured)), indexing="ij")
        return np.asarray(self.step + n + k / 4.0, dtype=np.float64)

    def read(self) -> Telemetry:
        values = self.expected()
        quality = np.full(values.shape, Quality.GOOD, dtype=np.int8)
        for place, kind in self.bad.items():
            quality[place] = kind
        times = np.full(values.shape, self.clock_s)
        return Telemetry({"rig": values}, {"rig": times}, {"rig": quality}, self.clock_s, self.step)

    def write(self, commands: Arrays) -> Arrays:
        if "rig" in commands:
            self.commands = np.clip(commands["rig"], self._group.lower("commanded"), self._group.upper("commanded"))
        return {"rig": self.commands.copy()}

    def advance(self) -> None:
        self.go_on.wait(30.0)
        if self.is_broken:
            raise PlantError("the pump is gone")
        self.step += 1

    def close(self) -> None:
        """Nothing to leave."""


def server_of(
    endpoint: str, speed: float, security: str | None
) -> MqttPlantServer | ModbusPlantServer | OpcUaPlantServer:
    """The rig's server for an endpoint's protocol; ``security`` is a folder for OPC UA."""
    if endpoint.startswith("mqtt"):
        return MqttPlantServer(Rig(), endpoint, identity_of_environment(), speed=speed)
    if endpoint.startswith("opc.tcp"):
        return OpcUaPlantServer(Rig(), endpoint, speed=speed, security=security)
    return ModbusPlantServer(Rig(), endpoint, speed=speed)


if __name__ == "__main__":
    with server_of(sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None) as server:
        print(server.endpoint, flush=True)
        server.wait()
