"""The live twin's process at a station: a real run's journal, restarts, gaps, damage, and what it says of itself."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.__main__ import main
from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.journal import Journal, rows
from twinloop.deploy.journal_follower import AnotherJournalError, JournalFollower
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.deploy.station.folder import StationFolder, read_whole, write_whole
from twinloop.deploy.twin_plan import describe, load_live_twin
from twinloop.deploy.twin_process import TwinProcess, TwinProcessSettings
from twinloop.deploy.twin_verdict import MOST_LOG_BYTES, TwinFolder, tell, told
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.envs.plant import Arrays, Plant, Quality, Telemetry
from twinloop.envs.plant_file import load_plant_file

FARM = """
site: {kind: wind_farm, name: pair, layout: {kind: named, name: row3_5d}, dt_s: 60.0}
plant: {kind: floris, series: day, seed: 3}
live_twin:
  members: 16
  window: 12
  alarm_periods: 12
  nis_band: [0.1, 4.0]
  coverage_band: [0.8, 1.0]
"""
N_PERIODS = 26


class Faulty:
    """A plant between whose readings and us something fails: values late, missing or bad, period by period."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._held, self.nameplate = plant, plant.read(), plant.nameplate
        self._k = 0

    @property
    def clock_s(self) -> float:
        return self._plant.clock_s

    def read(self) -> Telemetry:
        self._k += 1
        fresh = self._plant.read()
        quality = {name: q.copy() for name, q in fresh.quality.items()}
        values = {name: v.copy() for name, v in fresh.values.items()}
        if self._k % 5 == 1:
            quality["turbine"][0] = Quality.BAD
        if self._k % 7 == 1:
            values["turbine"][1] = np.nan
        found = Telemetry(values, fresh.source_time_s, quality, fresh.received_time_s, fresh.sequence)
        late = Telemetry(
            self._held.values, self._held.source_time_s, self._held.quality, fresh.received_time_s, fresh.sequence
        )
        self._held = fresh
        return late if self._k % 6 == 2 else found

    def write(self, commands: Arrays) -> Arrays:
        return self._plant.write(commands)

    def advance(self) -> None:
        self._plant.advance()

    def close(self) -> None:
        self._plant.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A station whose control ran for :data:`N_PERIODS` against the emulated farm, and the farm's file beside it."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "farm.yaml").write_text(FARM)
    station = StationFolder(folder / "station")
    station.make()
    operate(station, plant_of(folder / "farm.yaml"), N_PERIODS)
    return folder


@pytest.fixture
def place(recorded: Path, tmp_path: Path) -> Path:
    shutil.copytree(recorded, tmp_path / "place")
    return tmp_path / "place"


def plant_of(file: Path) -> Plant:
    site, config, plant_config = load_plant_file(file)
    return site.plant(config, plant_config)


def operate(station: StationFolder, plant: Plant, n_periods: int) -> None:
    with Journal(station.journal) as journal:
        settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
        shield = Shield(declare(plant.nameplate, ()))
        Runtime(plant, RandomPolicy(plant.nameplate), shield, journal, settings).run(n_periods)


def process(place: Path, **settings: Any) -> TwinProcess:
    chosen = TwinProcessSettings(**{"stretch": 20, **settings})
    found = TwinProcess(StationFolder(place / "station"), describe(place / "farm.yaml"), chosen)
    found.begin()
    return found


def catch_up(twin: TwinProcess) -> None:
    while twin.look():
        pass


def sheet(place: Path) -> dict[str, Any]:
    found = read_whole(place / "station" / "twin" / "verdict.json")
    assert found is not None
    return found


def happened(place: Path) -> list[str]:
    return [line["what"] for line in told(TwinFolder(StationFolder(place / "station")))]


def same(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a)


def test_it_follows_the_journal_that_control_names_wherever_that_is(place: Path) -> None:
    station = StationFolder(place / "station")
    elsewhere = place / "own_disk.sqlite"
    shutil.move(station.journal, elsewhere)
    write_whole(station.control, {"journal": str(elsewhere)})
    twin = process(place)
    catch_up(twin)
    assert sheet(place)["number"] == N_PERIODS


def test_it_stands_where_the_journal_ends_and_says_so(place: Path) -> None:
    twin = process(place)
    catch_up(twin)
    decisions = [row for row in rows(place / "station" / "journal.sqlite") if row["kind"] == "decision"]
    found = sheet(place)
    assert found["time_s"] == twin.live.time_s == decisions[-1]["plant_time_s"]
    assert found["number"] == decisions[-1]["number"]
    assert found["lag"] == 0
    assert (found["n"], found["window"], found["n_members"]) == (12, 12, 16)
    assert found["parameters"].keys() == {"expansion_turbulence", "expansion_offset"}
    told_power = found["prediction"]["groups"]["turbine"]["power_kw"]
    read = np.array(decisions[-1]["telemetry"]["values"]["turbine"])[:, 3]
    assert np.all(np.abs(np.array(told_power["value"]) - read) < 1500.0)
    assert np.all(np.array(told_power["low"]) < np.array(told_power["high"]))
    assert not found["open"]
    assert "control has ended its run" in found["why"]
    assert twin.live._gate.verdict().open, twin.live._gate.verdict().why  # what the plant itself says is in band


def test_a_restart_goes_on_from_its_state_to_the_same_bits(place: Path) -> None:
    at_once, parted = process(place), process(place, rows_at_once=7)
    parted.look()
    parted.close()
    again = process(place)
    assert happened(place)[-1] == "went on from its state"
    assert again.live.time_s == parted.live.time_s
    catch_up(again)
    catch_up(at_once)
    assert same(again.live.snapshot(), at_once.live.snapshot())


@pytest.mark.parametrize("damage", [b"", b"nothing", b"PK\x03\x04" + bytes(200)], ids=["empty", "text", "zip"])
def test_a_damaged_state_is_told_and_made_anew_from_the_journal(place: Path, damage: bytes) -> None:
    path = place / "station" / "twin" / "state.npz"
    path.write_bytes(damage)
    twin = process(place)
    assert happened(place) == ["began from the journal"]
    catch_up(twin)
    assert sheet(place)["lag"] == 0


def test_a_state_cut_short_is_made_anew_too(place: Path) -> None:
    first = process(place)
    catch_up(first)
    path = place / "station" / "twin" / "state.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    process(place)
    assert happened(place)[-1] == "began from the journal"


def test_the_file_of_another_plant_is_refused(place: Path) -> None:
    (place / "farm.yaml").write_text(FARM.replace("name: pair", "name: other"))
    with pytest.raises(ConfigurationError, match="another plant than the station's"):
        process(place)


def test_a_restart_of_control_and_the_gap_before_it_are_stepped_through(place: Path) -> None:
    station = StationFolder(place / "station")
    plant = plant_of(place / "farm.yaml")
    for _ in range(N_PERIODS + 5):  # five periods in which nobody controlled
        plant.advance()
    twin = process(place)
    catch_up(twin)
    stood_s = twin.live.time_s
    operate(station, plant, 6)
    catch_up(twin)
    assert "stepped through a gap" in happened(place)
    assert twin.live.time_s > stood_s + 6 * 60.0
    assert sheet(place)["lag"] == 0


def test_a_plant_whose_clock_begins_again_begins_the_twin_again(place: Path) -> None:
    twin = process(place)
    catch_up(twin)
    operate(StationFolder(place / "station"), plant_of(place / "farm.yaml"), 8)
    catch_up(twin)
    assert happened(place)[-1] == "began from the prior"
    assert sheet(place)["n"] == 8


def test_a_journal_that_was_put_aside_begins_it_again(place: Path) -> None:
    station = StationFolder(place / "station")
    twin = process(place)
    catch_up(twin)
    for path in station.path.glob("journal.sqlite*"):
        path.unlink()
    operate(station, plant_of(place / "farm.yaml"), 5)
    catch_up(twin)
    assert "began from another journal" in happened(place)
    assert sheet(place)["n"] == 5
    kept = process(place)
    assert kept.live.time_s == twin.live.time_s


def test_falling_behind_is_told_and_closes_the_gate(place: Path) -> None:
    twin = process(place, rows_at_once=1, most_lag=2)
    twin.look()
    found = sheet(place)
    assert found["lag"] > 2
    assert not found["open"]
    assert "rows of the journal behind the plant" in found["why"]


def test_bad_missing_and_late_values_end_in_a_twin_that_stands_where_the_plant_is(tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text(FARM)
    station = StationFolder(tmp_path / "station")
    station.make()
    operate(station, Faulty(plant_of(tmp_path / "farm.yaml")), N_PERIODS)
    twin = process(tmp_path)
    catch_up(twin)
    assert sheet(tmp_path)["lag"] == 0
    assert twin.live._gate.verdict().open, twin.live._gate.verdict().why


def test_a_recalibration_that_is_asked_for_is_made_and_logged(place: Path) -> None:
    twin = process(place)
    catch_up(twin)
    folder = TwinFolder(StationFolder(place / "station"))
    write_whole(folder.request, {"id": "20261123", "by": "eva", "utc_s": 0.0})
    twin.look()
    assert not folder.request.exists()
    line = told(folder)[-1]
    assert line["what"] in ("recalibrated", "recalibration changed nothing")
    assert (line["id"], line["by"]) == ("20261123", "eva")
    assert line["before"].keys() == line["after"].keys() == {"expansion_turbulence", "expansion_offset"}


def test_approved_proposals_are_looked_at_once_the_twin_is_where_the_journal_is(place: Path) -> None:
    seen: list[float] = []
    station, described = StationFolder(place / "station"), describe(place / "farm.yaml")
    chosen = TwinProcessSettings(stretch=20, rows_at_once=10)
    twin = TwinProcess(station, described, chosen, recheck=lambda _s, live, _site, _config: seen.append(live.time_s))
    twin.begin()
    twin.look()
    assert not seen
    catch_up(twin)
    assert seen[-1] == twin.live.time_s


def test_what_the_process_kept_can_be_loaded_to_propose_from(place: Path) -> None:
    station = StationFolder(place / "station")
    with pytest.raises(ConfigurationError, match="there is no live twin"):
        load_live_twin(station, place / "farm.yaml")
    twin = process(place)
    catch_up(twin)
    loaded = load_live_twin(station, place / "farm.yaml")
    assert same(loaded.live.snapshot(), twin.live.snapshot())
    assert "control has ended" in loaded.live.verdict().why
    before = loaded.live.snapshot()
    with loaded.live.replicas() as (members, readings):
        assert readings.measured["turbine"].shape[0] == members.n_replicas == 16
        members.reset(members.parameters()["advection_ratio"].long())
    assert same(before, loaded.live.snapshot())
    write_whole(station.twin / "verdict.json", {**sheet(place), "utc_s": 0.0})
    assert "written nothing" in load_live_twin(station, place / "farm.yaml").live.verdict().why
    with pytest.raises(ContractError, match="settings"):
        load_live_twin(station, place / "farm.yaml", ["live_twin.members=32"])


def test_the_command_catches_up_and_refuses_what_it_cannot_use(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station, file = str(place / "station"), str(place / "farm.yaml")
    assert main(["twin", "--station", station, "--plant", file, "--until-caught-up"]) == 0
    assert sheet(place)["lag"] == 0
    assert main(["twin", "--station", station]) == 2
    assert main(["twin", "--station", str(place / "nowhere"), "--plant", file]) == 2
    assert main(["twin", "recalibrate", "--station", station]) == 2
    assert main(["twin", "--station", station, "--plant", file, "--set", "live_twin.membres=3"]) == 2
    said = capsys.readouterr().err
    for part in ("--plant", "no station", "no live twin is running", "membres"):
        assert part in said


def test_a_follower_gives_each_row_once_and_knows_another_journal(place: Path) -> None:
    path = place / "station" / "journal.sqlite"
    follower, found = JournalFollower(path), []
    while batch := list(follower.read(4)):
        found += batch
    assert found == list(rows(path))
    assert follower.behind == 0
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE journal SET hash = ? WHERE sequence = ?", ("0" * 64, follower.place.sequence))
    connection.close()
    with pytest.raises(AnotherJournalError):
        list(follower.read(4))


def test_the_log_stays_bounded(tmp_path: Path) -> None:
    folder = TwinFolder(StationFolder(tmp_path))
    folder.path.mkdir()
    for k in range(300):
        tell(folder, "drift alarm", k=k, why="x" * 10_000)
    assert folder.log.stat().st_size < 1.1 * MOST_LOG_BYTES
    assert told(folder)[-1]["k"] == 299
    assert all(json.loads(line) for line in folder.log.read_text().splitlines())
