"""A package is installed whole or not at all, only where it belongs, and the one before can come back."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from tests.deploy.packages.package_cases import here, make_artifact, make_key, make_package

from twinloop.__main__ import main
from twinloop.agents.artifact import load_artifact
from twinloop.deploy.audit.signing import PrivateKey
from twinloop.deploy.packages import installation as under_test
from twinloop.deploy.packages.installation import KEPT, Installation
from twinloop.envs.errors import PackageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrivateKey]:
    """A folder of packages r1 to r8 of one policy each, and the key that signed them."""
    folder = tmp_path_factory.mktemp("made")
    key = make_key(folder / "keys")
    for release in range(1, 9):
        artifact = make_artifact(folder / f"artifact{release}", seed=release)
        (folder / f"r{release}.twinpkg").write_bytes(make_package(artifact, key, release))
    return folder, key


def test_what_is_installed_runs_and_the_one_before_comes_back(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    assert machine.current() is None
    for release in (1, 2):
        done = machine.install(folder / f"r{release}.twinpkg", [key.public], here())
        assert load_artifact(tmp_path / "m/current/artifact").hash == done.policy
    assert machine.rollback().release == 1
    now = machine.current()
    assert now is not None
    assert now.release == 1
    assert json.loads((tmp_path / "m/result.json").read_text())["ok"] is True
    with pytest.raises(PackageError, match="first release"):
        machine.rollback()


def test_installing_the_same_again_changes_nothing(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    first = machine.install(folder / "r1.twinpkg", [key.public], here())
    assert machine.install(folder / "r1.twinpkg", [key.public], here()) == first


def test_older_and_renumbered_packages_are_refused_unless_asked_for(
    made: tuple[Path, PrivateKey], tmp_path: Path
) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    machine.install(folder / "r2.twinpkg", [key.public], here())
    with pytest.raises(PackageError, match="older than what is installed"):
        machine.install(folder / "r1.twinpkg", [key.public], here())
    other = tmp_path / "other.twinpkg"
    other.write_bytes(make_package(make_artifact(tmp_path / "a", seed=9), key, 2))
    with pytest.raises(PackageError, match="another content"):
        machine.install(other, [key.public], here())
    assert machine.install(folder / "r1.twinpkg", [key.public], here(), allow_older=True).release == 1


def test_a_package_of_another_site_or_other_limits_is_refused_and_nothing_changes(
    made: tuple[Path, PrivateKey], tmp_path: Path
) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    machine.install(folder / "r1.twinpkg", [key.public], here())
    for site, word in (
        ({"name": "elsewhere"}, "nameplate.json"),
        ({"limits": {"power_cap_kw": 9000.0}}, "limits.json"),
    ):
        with pytest.raises(PackageError, match=word):
            machine.install(folder / "r2.twinpkg", [key.public], here(**site))
        told = json.loads((tmp_path / "m/result.json").read_text())
        assert told["ok"] is False
        assert word in told["error"]
    now = machine.current()
    assert now is not None
    assert now.release == 1


@pytest.mark.parametrize("step", ["write_members", "check_policy", "write_whole", "rename", "replace"])
def test_a_crash_at_any_step_leaves_the_old_release_or_the_new_one(
    made: tuple[Path, PrivateKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Crash(BaseException):
        pass

    def crash(*arguments: object, **named: object) -> None:
        raise Crash

    folder, key = made
    machine = Installation(tmp_path / "m")
    machine.install(folder / "r1.twinpkg", [key.public], here())
    with monkeypatch.context() as patched:
        if step in ("rename", "replace"):
            patched.setattr(Path, step, crash)
        else:
            patched.setattr(under_test, step, crash)
        with pytest.raises(Crash):
            machine.install(folder / "r2.twinpkg", [key.public], here())
    now = machine.current()
    assert now is not None
    machine.check(now)
    assert now.release == 1
    assert machine.install(folder / "r2.twinpkg", [key.public], here()).release == 2
    left = [p.name for p in (tmp_path / "m" / "releases").iterdir() if p.name.startswith(".")]
    assert left == []


def test_a_release_that_was_damaged_is_found_and_mended_by_installing_again(
    made: tuple[Path, PrivateKey], tmp_path: Path
) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    machine.install(folder / "r1.twinpkg", [key.public], here())
    now = machine.install(folder / "r2.twinpkg", [key.public], here())
    (now.folder / "limits.json").write_text("{}")
    with pytest.raises(PackageError, match=r"changed: limits\.json"):
        machine.check(now)
    again = machine.install(folder / "r2.twinpkg", [key.public], here())
    machine.check(again)
    assert again.before == now.before


def test_going_back_to_a_damaged_release_is_refused(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    first = machine.install(folder / "r1.twinpkg", [key.public], here())
    machine.install(folder / "r2.twinpkg", [key.public], here())
    (first.folder / "artifact" / "report.json").write_text("[]")
    with pytest.raises(PackageError, match="changed"):
        machine.rollback()
    now = machine.current()
    assert now is not None
    assert now.release == 2


def test_old_releases_are_removed_but_never_the_one_before(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    for release in range(1, 9):
        machine.install(folder / f"r{release}.twinpkg", [key.public], here())
    assert len(list((tmp_path / "m" / "releases").iterdir())) == KEPT
    assert machine.rollback().release == 7


def test_two_installations_at_a_time_are_refused(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    machine = Installation(tmp_path / "m")
    machine.install(folder / "r1.twinpkg", [key.public], here())
    with (tmp_path / "m" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PackageError, match="another installation"):
            machine.install(folder / "r2.twinpkg", [key.public], here())


def test_a_folder_in_the_place_of_the_link_is_refused(made: tuple[Path, PrivateKey], tmp_path: Path) -> None:
    folder, key = made
    os.makedirs(tmp_path / "m" / "current")
    with pytest.raises(PackageError, match="is no link"):
        Installation(tmp_path / "m").install(folder / "r1.twinpkg", [key.public], here())


def test_the_command_builds_verifies_shows_installs_and_goes_back(
    made: tuple[Path, PrivateKey], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, key = made
    plant = tmp_path / "plant.yaml"
    plant.write_text("site: {kind: wind_farm, name: farm}\n")
    public = ("--public", str(folder / "keys" / "journal.pub"))

    def twinloop(*words: object, expected: int = 0) -> str:
        assert main(["package", *map(str, words)]) == expected
        captured = capsys.readouterr()
        return captured.out + captured.err

    out, machine = tmp_path / "y.twinpkg", tmp_path / "m"
    for release in (1, 2):
        twinloop(
            "build", folder / "artifact1", "--plant", plant, "--name", "yaw", "--release", release,
            "--key", folder / "keys" / "journal.key", "--out", out,
        )  # fmt: skip
        assert f"release {release}" in twinloop("install", out, *public, "--plant", plant, "--to", machine)
    assert "for the site here" in twinloop("verify", out, *public, "--plant", plant)
    assert "wind_farm" in twinloop("show", out, *public)
    assert key.public.fingerprint in twinloop("show", machine)
    cap = ("--set", "site.limits.power_cap_kw=9000")
    assert "limits.json" in twinloop("verify", out, *public, "--plant", plant, *cap, expected=2)
    assert "give that with --plant" in twinloop("verify", out, *public, *cap, expected=2)
    assert "release 1" in twinloop("install", "--to", machine, "--rollback")
    assert "control.json" in twinloop("install", out, *public, "--station", tmp_path / "s", expected=2)
