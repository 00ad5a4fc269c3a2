"""A small site that answers at once, with readings that are missing, late, bad or no numbers, and a run of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.journal import Journal
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.summary import RunSummary
from twinloop.envs.constraint import declare
from twinloop.envs.errors import PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Arrays, Telemetry

PERIOD_S = 600.0
BEGIN_S = 1_767_225_600.0
"""2026-01-01T00:00:00Z; with ten-minute periods a day has 144."""
PUMPS = Nameplate(
    "pumps",
    PERIOD_S,
    (
        Group(
            "pump",
            ("P1", "P2", "P3"),
            measured=(Signal("flow", "", 0.0, 100.0), Signal("speed", "", 0.0, 100.0)),
            commanded=(Signal("speed", "", 0.0, 100.0, neutral=50.0),),  # named as what is measured
        ),
        Group("valve", ("V1",), measured=(Signal("lift", "", 0.0, 1.0),), commanded=(Signal("lift", "", 0.0, 1.0),)),
    ),
)
N_MEASURED, N_COMMANDED = 7, 4


class Pumps:
    """The plant. Every 10th reading has a bad NaN, every 17th is missing, every 23rd write is not answered."""

    def __init__(self, first_period: int = 0, steady: bool = False) -> None:
        self.nameplate = PUMPS
        self.period = first_period
        self.steady = steady
        self.writes = 0
        self._rng = np.random.default_rng(first_period)

    @property
    def clock_s(self) -> float:
        return BEGIN_S + PERIOD_S * self.period

    def read(self) -> Telemetry:
        if not self.steady and self.period % 17 == 5:
            raise PlantError("no answer")
        flows, lift = self._rng.uniform(10.0, 90.0, (3, 2)), self._rng.uniform(0.1, 0.9, (1, 1))
        values = {"pump": flows, "valve": lift}
        times = {"pump": np.full((3, 2), self.clock_s), "valve": np.full((1, 1), self.clock_s)}
        quality = {"pump": np.zeros((3, 2), dtype=np.int8), "valve": np.zeros((1, 1), dtype=np.int8)}
        if not self.steady and self.period % 10 == 7:
            flows[1, 0], quality["pump"][1, 0] = math.nan, 2
            times["pump"][2, 1] -= 0.25
        return Telemetry(values, times, quality, self.clock_s, self.period + 1)

    def write(self, commands: Arrays) -> Arrays:
        self.writes += 1
        if not self.steady and self.period % 23 == 9:
            raise PlantError("no answer")
        return commands

    def advance(self) -> None:
        self.period += 1

    def close(self) -> None:
        """Nothing is open."""


def run_pumps(
    path: Path,
    n_periods: int,
    *,
    first_period: int = 0,
    steady: bool = False,
    on_period: Callable[[Period], None] | None = None,
    wall_period_s: float | None = None,
) -> RunSummary:
    """One run, whose rows are added to the journal at ``path``. The pumps are stepped, whatever ``wall_period_s``."""
    settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    with Journal(path) as journal:
        journal._open().execute("PRAGMA synchronous=OFF")  # the disk's speed is not what is tested
        plant, policy, shield = Pumps(first_period, steady), RandomPolicy(PUMPS), Shield(declare(PUMPS))
        runtime = Runtime(plant, policy, shield, journal, settings, wall_period_s=wall_period_s)
        return runtime.run(n_periods, on_period)
