"""A package goes out in groups once another person approved it, and comes back everywhere where too many fail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.packages.package_cases import declaration, make_artifact, make_key, make_package

from twinloop.__main__ import main
from twinloop.deploy.packages import rollout as under_test
from twinloop.deploy.packages.installation import Installation
from twinloop.deploy.packages.rollout import Rollout, State
from twinloop.deploy.packages.rollout_plan import Plan, approve_plan, load_plan
from twinloop.deploy.station.folder import StationFolder, write_whole
from twinloop.deploy.station.people import People
from twinloop.envs.errors import ConfigurationError, PackageError

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of releases 1 and 2, keys, people (ann proposes, bert approves) and the plants' files."""
    folder = tmp_path_factory.mktemp("made")
    key = make_key(folder / "keys")
    for release in (1, 2):
        artifact = make_artifact(folder / f"a{release}", seed=release)
        (folder / f"r{release}.twinpkg").write_bytes(make_package(artifact, key, release))
    (folder / "farm.yaml").write_text("site: {kind: wind_farm, name: farm}\n")
    (folder / "other.yaml").write_text("site: {kind: wind_farm, name: other}\n")
    people = People.read(folder / "people.json").add("root", "admin", PASSWORD)
    people = people.add("ann", "approver", PASSWORD, by="root", by_password=PASSWORD)
    people.add("bert", "approver", PASSWORD, by="root", by_password=PASSWORD)
    return folder


class Clock:
    """Time that only waiting moves."""

    def __init__(self) -> None:
        self.utc_s = time.time()

    def __call__(self) -> float:
        return self.utc_s

    def wait(self, seconds: float) -> None:
        self.utc_s += max(seconds, 1.0)


def plan_of(made: Path, tmp_path: Path, release: int = 2, **changes: Any) -> Plan:
    targets = {f"t{i}": {"folder": str(tmp_path / f"t{i}"), "plant": str(made / "farm.yaml")} for i in range(4)}
    data = {
        "name": f"yaw-r{release}",
        "package": str(made / f"r{release}.twinpkg"),
        "public": [str(made / "keys" / "journal.pub")],
        "people": str(made / "people.json"),
        "by": "ann",
        "targets": targets,
        "groups": [{"name": "pilot", "targets": ["t0"]}, {"name": "rest", "targets": ["t1", "t2", "t3"]}],
        **changes,
    }
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(data))
    return load_plan(path)


def approved(plan: Plan, folder: Path, clock: Clock) -> Rollout:
    found = Rollout(plan, folder, utc_s=clock, wait=clock.wait)
    people = People.read(plan.people)
    found.file_approval(approve_plan(plan, people, "bert", people.unlock("bert", PASSWORD), clock()))
    return found


def releases(tmp_path: Path, n: int = 4) -> list[int]:
    found = [Installation(tmp_path / f"t{i}").current() for i in range(n)]
    return [0 if item is None else item.release for item in found]


def out(made: Path, tmp_path: Path, release: int, clock: Clock, **changes: Any) -> State:
    plan = plan_of(made, tmp_path, release, **changes)
    return approved(plan, tmp_path / f"state{release}", clock).carry_out(lambda line: None)


def test_it_goes_through_all_groups_in_order(made: Path, tmp_path: Path) -> None:
    told: list[str] = []
    rollout = approved(plan_of(made, tmp_path, 1), tmp_path / "state", Clock())
    assert rollout.carry_out(told.append).status == "finished"
    assert releases(tmp_path) == [1, 1, 1, 1]
    assert [line.split(":")[0] for line in told] == ["pilot", "rest", "rest", "rest"]
    with pytest.raises(PackageError, match="is finished"):
        rollout.carry_out(told.append)


def test_a_failure_takes_it_back_everywhere(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    assert out(made, tmp_path, 1, clock).status == "finished"
    targets = {f"t{i}": {"folder": str(tmp_path / f"t{i}"), "plant": str(made / "farm.yaml")} for i in range(4)}
    targets["t2"]["plant"] = str(made / "other.yaml")
    state = out(made, tmp_path, 2, clock, targets=targets)
    assert state.status == "stopped"
    assert releases(tmp_path) == [1, 1, 1, 1]
    assert "nameplate.json" in state.targets["t2"].why
    assert state.targets["t0"].stand == "taken back"


def test_what_was_there_before_is_not_taken_back(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    out(made, tmp_path, 1, clock)
    Installation(tmp_path / "t0").install(made / "r2.twinpkg", *_keys_and_site(made))
    targets = {f"t{i}": {"folder": str(tmp_path / f"t{i}"), "plant": str(made / "farm.yaml")} for i in range(4)}
    targets["t3"]["plant"] = str(made / "other.yaml")
    assert out(made, tmp_path, 2, clock, targets=targets).status == "stopped"
    assert releases(tmp_path) == [2, 1, 1, 1]


def test_too_few_successes_pause_it_and_resuming_tries_the_failed_again(made: Path, tmp_path: Path) -> None:
    clock, plants = Clock(), made / "farm.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text((made / "other.yaml").read_text())
    targets = {f"t{i}": {"folder": str(tmp_path / f"t{i}"), "plant": str(plants)} for i in range(4)}
    targets["t1"]["plant"] = str(mine)
    groups = [{"name": "rest", "targets": ["t0", "t1", "t2", "t3"], "errors_n": 1, "success_pu": 1.0}]
    rollout = approved(plan_of(made, tmp_path, 1, targets=targets, groups=groups), tmp_path / "state", clock)
    assert rollout.carry_out(lambda line: None).status == "paused"
    assert releases(tmp_path) == [1, 0, 1, 1]
    with pytest.raises(PackageError, match="is paused"):
        rollout.carry_out(lambda line: None)
    mine.write_text(plants.read_text())
    assert rollout.carry_out(lambda line: None, resume=True).status == "finished"
    assert releases(tmp_path) == [1, 1, 1, 1]


def test_a_person_may_pause_and_abort_it(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    out(made, tmp_path, 1, clock)
    rollout = approved(plan_of(made, tmp_path, 2), tmp_path / "state", clock)

    def told(line: str) -> None:
        if line.startswith("pilot"):
            rollout.ask("pause")

    assert rollout.carry_out(told).status == "paused"
    assert releases(tmp_path) == [2, 1, 1, 1]
    assert rollout.abort(told).status == "aborted"
    assert releases(tmp_path) == [1, 1, 1, 1]


def test_without_another_persons_word_on_this_very_plan_nothing_begins(made: Path, tmp_path: Path) -> None:
    clock, plan = Clock(), plan_of(made, tmp_path, 1)
    people = People.read(plan.people)
    with pytest.raises(PackageError, match="nobody has approved"):
        Rollout(plan, tmp_path / "none").carry_out(lambda line: None)
    for who, word in (("ann", "another person"), ("root", "may not approve"), ("carl", "may not approve")):
        with pytest.raises(ConfigurationError, match=word):
            approve_plan(plan, people, who, people.unlock("ann", PASSWORD), clock())
    stolen = approved(plan, tmp_path / "a", clock)
    own = approve_plan(plan, people, "bert", people.unlock("ann", PASSWORD), clock())
    stolen.file_approval(own)
    with pytest.raises(PackageError, match="not signed by bert"):
        stolen.carry_out(lambda line: None)
    late = approved(plan, tmp_path / "b", clock)
    clock.utc_s += 9 * 3600.0
    with pytest.raises(PackageError, match="not of now"):
        late.carry_out(lambda line: None)
    changed = approved(plan, tmp_path / "c", clock)
    wider = Rollout(plan_of(made, tmp_path, 1, hold_s=1.0), changed.folder, utc_s=clock, wait=clock.wait)
    with pytest.raises(PackageError, match="changed since"):
        wider.carry_out(lambda line: None)
    assert releases(tmp_path) == [0, 0, 0, 0]


@pytest.fixture(params=range(1, 20, 4))
def crashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at the n-th time that the state would be written."""
    left = [request.param]

    def write(*arguments: Any, **named: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        write_whole(*arguments, **named)

    monkeypatch.setattr(under_test, "write_whole", write)


@pytest.mark.usefixtures("crashing")
def test_a_crash_at_any_write_changes_nothing_about_the_end(made: Path, tmp_path: Path) -> None:
    clock, plan = Clock(), plan_of(made, tmp_path, 1)
    while True:
        try:
            rollout = approved(plan, tmp_path / "state", clock)
            break
        except KeyboardInterrupt:
            continue
    for _ in range(3):
        try:
            state = rollout.carry_out(lambda line: None)
            break
        except KeyboardInterrupt:
            continue
    assert state.status == "finished"
    assert releases(tmp_path) == [1, 1, 1, 1]


def test_a_station_succeeds_only_when_its_control_runs_the_policy_untripped_for_the_hold_time(
    made: Path, tmp_path: Path
) -> None:
    clock, station = Clock(), StationFolder(tmp_path / "s")
    station.make()
    declared = declaration()
    plan = plan_of(
        made, tmp_path, 1, targets={"s": {"station": str(station.path)}},
        groups=[{"name": "all", "targets": ["s"]}], hold_s=30.0, timeout_s=100.0,
    )  # fmt: skip
    rollout = approved(plan, tmp_path / "state", clock)
    policy = load_policy(made)
    sheet = {"nameplate": declared.nameplate.to_dict(), "declaration_hash": declared.hash, "policy": {"hash": "old"}}
    write_whole(station.control, sheet)
    begun_s, looks = clock(), 0

    def wait(seconds: float) -> None:
        nonlocal looks
        looks += 1
        clock.wait(seconds)
        if looks == 3:  # control was started again, with the new policy
            write_whole(station.control, {**sheet, "policy": {"hash": policy}})
        write_whole(station.state, {"utc_s": clock(), "modes": {"turbine/WT01": "autonomous"}, "ended": None})

    rollout._wait = wait
    assert rollout.carry_out(lambda line: None).status == "finished"
    assert clock() - begun_s >= 33.0


def test_a_station_that_trips_takes_the_package_back(made: Path, tmp_path: Path) -> None:
    clock, station = Clock(), StationFolder(tmp_path / "s")
    station.make()
    declared = declaration()
    sheet = {"nameplate": declared.nameplate.to_dict(), "declaration_hash": declared.hash}
    write_whole(station.control, {**sheet, "policy": {"hash": load_policy(made)}})
    write_whole(station.state, {"utc_s": clock(), "modes": {"turbine/WT01": "tripped"}})
    targets, groups = {"s": {"station": str(station.path)}}, [{"name": "all", "targets": ["s"]}]
    plan = plan_of(made, tmp_path, 1, targets=targets, groups=groups)
    state = approved(plan, tmp_path / "state", clock).carry_out(lambda line: None)
    assert state.status == "stopped"
    assert "tripped: turbine/WT01" in state.targets["s"].why
    assert Installation(station.path / "packages").current() is None


def test_a_plan_that_names_a_target_twice_or_nowhere_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="exactly one group"):
        plan_of(made, tmp_path, groups=[{"name": "a", "targets": ["t0", "t0"]}])
    with pytest.raises(ConfigurationError, match="needs plant"):
        plan_of(made, tmp_path, targets={"t0": {"folder": "x"}}, groups=[{"name": "a", "targets": ["t0"]}])


def test_the_command_approves_starts_and_tells_how_it_stands(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of(made, tmp_path, 1)
    words, plan = ["package", "rollout"], str(tmp_path / "plan.yaml")
    read, write = os.pipe()
    os.write(write, f"{PASSWORD}\n".encode())
    os.close(write)
    assert main([*words, "start", plan]) == 2
    assert main([*words, "approve", plan, "--by", "ann"]) == 2
    assert main([*words, "approve", plan, "--by", "bert", "--password-fd", str(read)]) == 0
    os.close(read)
    assert main([*words, "start", plan]) == 0
    assert main([*words, "status", plan]) == 0
    assert "rest: t3: succeeded" in capsys.readouterr().out
    assert releases(tmp_path) == [1, 1, 1, 1]


def load_policy(made: Path) -> str:
    from twinloop.agents.artifact import load_artifact

    return load_artifact(made / "a1").hash


def _keys_and_site(made: Path) -> tuple[Any, Any]:
    from twinloop.deploy.audit.signing import load_public
    from twinloop.deploy.packages.here import of_plant

    return [load_public(made / "keys" / "journal.pub")], of_plant(made / "farm.yaml")
