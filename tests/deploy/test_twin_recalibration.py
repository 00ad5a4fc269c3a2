"""A plant that changes under its twin: the process raises the alarm and recalibrates by itself, if that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.journal import Journal
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.station.folder import StationFolder
from twinloop.deploy.twin_plan import describe
from twinloop.deploy.twin_process import TwinProcess, TwinProcessSettings
from twinloop.deploy.twin_verdict import TwinFolder, told
from twinloop.envs.constraint import declare
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.plant_file import load_plant_file
from twinloop.envs.wind_farm.nameplate import GROUP, MEASURED
from twinloop.envs.wind_farm.twin import WindFarmTwin

Floats = NDArray[np.float64]
POWER = [s.name for s in MEASURED].index("power_kw")
NOISE_KW = 25.0
N_BEFORE, N_AFTER = 40, 70
FARM = f"""
site:
  kind: wind_farm
  name: row
  layout: {{kind: named, name: row3_5d}}
  dt_s: 20.0
  inflow: {{wind_speed_mps: [8.0, 8.0], wind_direction_deg: [270.0, 270.0], turbulence_pu: [0.08, 0.08]}}
plant: {{kind: floris, series: constant}}
live_twin:
  members: 24
  signals: {{turbine/power_kw: {{noise: {NOISE_KW}}}}}
  parameters: {{expansion_turbulence: {{std: 0.08}}}}
  memory_s: 1.0e+9  # what was learnt stays: this twin does not follow by itself
  window: 20
  alarm_periods: 15
  site:
    inflow:
      wind_speed_mps: [7.0, 9.0]
      wind_direction_deg: [270.0, 270.0]
      turbulence_pu: [0.08, 0.08]
      speed_drift_std_mps: 0.0
      direction_drift_std_deg: 0.0
"""


class Row:
    """Three turbines in a row of constant wind as a plant, whose power is read with noise, and changed by ``fault``."""

    def __init__(self, file: Path) -> None:
        site, config, _ = load_plant_file(file)
        twin = site.twin(config, 1, "cpu", torch.float64)
        assert isinstance(twin, WindFarmTwin)
        self.twin, self.nameplate = twin, twin.nameplate
        self.fault: Callable[[Floats], Floats] = lambda power_kw: power_kw
        self._rng, self._period = np.random.default_rng(5), 0
        self._commands = np.tile([0.0, 1.0], (3, 1))
        self._read = twin.reset(torch.tensor([1])).measured[GROUP][0].double().numpy()

    @property
    def clock_s(self) -> float:
        return 1e6 + self.nameplate.period_s * self._period

    def read(self) -> Telemetry:
        values = self._read.copy()
        values[:, POWER] = self.fault(values[:, POWER]) + NOISE_KW * self._rng.standard_normal(3)
        quality = {GROUP: np.zeros(values.shape, dtype=np.int8)}
        times = {GROUP: np.full(values.shape, self.clock_s)}
        return Telemetry({GROUP: values}, times, quality, self.clock_s, self._period + 1)

    def write(self, commands: Arrays) -> Arrays:
        return {GROUP: self._commands}  # it does as it likes, and says so

    def advance(self) -> None:
        self._period += 1
        given = {GROUP: torch.from_numpy(self._commands)[None]}
        self._read = self.twin.step(given).measured[GROUP][0].double().numpy()

    def close(self) -> None:
        """Nothing is open."""


def wider_wakes(plant: Row) -> None:
    plant.twin.set_parameters({"expansion_turbulence": torch.tensor(0.20, dtype=torch.float64)})


def wrong_meter(plant: Row) -> None:
    plant.fault = lambda power_kw: power_kw * np.array([1.0, 0.3, 1.0])  # no wake looks like this


def operated(folder: Path, change: Callable[[Row], None]) -> tuple[TwinProcess, list[dict[str, Any]]]:
    """The twin after a run in whose midst the plant changed, and its log."""
    (folder / "farm.yaml").write_text(FARM)
    station, plant = StationFolder(folder / "station"), Row(folder / "farm.yaml")
    station.make()
    settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    chosen = TwinProcessSettings(stretch=40, rows_at_once=1, save_every=1000, most_lag=2 * N_AFTER)
    twin = TwinProcess(station, describe(folder / "farm.yaml"), chosen)
    with Journal(station.journal) as journal:
        shield = Shield(declare(plant.nameplate, ()))
        runtime = Runtime(plant, RandomPolicy(plant.nameplate), shield, journal, settings)
        runtime.run(N_BEFORE)
        twin.begin()
        catch_up(twin)
        assert twin.live._gate.verdict().open, twin.live._gate.verdict().why
        change(plant)
        runtime.run(N_AFTER)
        catch_up(twin)
    return twin, told(TwinFolder(station))


def catch_up(twin: TwinProcess) -> None:
    while twin.look():
        pass


def test_a_changed_wake_raises_the_alarm_and_is_found_by_itself(tmp_path: Path) -> None:
    twin, log = operated(tmp_path, wider_wakes)
    happened = [line["what"] for line in log]
    kept = [line for line in log if line["what"] == "recalibrated"]
    assert happened.index("drift alarm") < happened.index("recalibrated") < happened.index("drift alarm is over")
    assert kept[0]["by"] == "drift alarm"
    assert kept[0]["before"].keys() == kept[0]["after"].keys() == {"expansion_turbulence"}
    mean, std = twin.live.parameters()["expansion_turbulence"]
    assert abs(mean - 0.20) < 4.0 * std + 0.01
    assert abs(kept[0]["before"]["expansion_turbulence"][0] - 0.20) > abs(mean - 0.20)
    assert not twin.live.verdict().alarm
    assert twin.live._gate.verdict().open


def test_what_recalibration_cannot_explain_is_left_as_it_was_under_an_alarm(tmp_path: Path) -> None:
    twin, log = operated(tmp_path, wrong_meter)
    happened = [line["what"] for line in log]
    assert "drift alarm" in happened
    assert "recalibrated" not in happened
    failed = [line for line in log if line["what"] == "recalibration changed nothing"]
    assert len(failed) >= 2  # once in alarm_periods, not more often
    assert "outside" in failed[-1]["why"]
    assert twin.live.verdict().alarm
    assert not twin.live.verdict().open
