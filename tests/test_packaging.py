from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from twinloop import __version__

ROOT = Path(__file__).parents[1]
FOLDERS = ("envs", "agents", "training", "deploy")
TOP_FILES = ("__init__.py", "__main__.py", "py.typed")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an sdist, and of the wheel that `python -m build` made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: str) -> set[str]:
    """Files of a folder of the tree, without caches and what npm fetched."""
    passed_over = {"__pycache__", "node_modules"}
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and not passed_over & {*path.parts})
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_made_from_the_sdist_holds_every_file_of_the_tree_and_nothing_else(shipped: set[str]) -> None:
    expected = {f"twinloop/{name}" for folder in FOLDERS for name in files_of(folder)}
    expected |= {f"twinloop/{name}" for name in TOP_FILES}
    assert {name for name in shipped if ".dist-info/" not in name} == expected


def test_the_wheel_installs_no_top_level_name_but_twinloop(shipped: set[str]) -> None:
    assert {name.partition("/")[0] for name in shipped} == {"twinloop", f"twinloop-{__version__}.dist-info"}


def test_the_sdist_holds_what_a_packager_needs(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym()]
    names = {member.name.partition("/")[2] for member in members}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "PKG-INFO"} <= names
    assert files_of("tests") <= names
    assert files_of("configs") <= names


def test_the_metadata_name_license_version_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"twinloop-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        license_text = archive.read(f"{info}/licenses/LICENSE").decode()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata["Name"], metadata["Version"]) == ("twinloop", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in license_text
    assert set(metadata.get_all("Provides-Extra", [])) == set(declared["optional-dependencies"])


def test_the_wheel_announces_the_command_and_the_sites(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"twinloop-{__version__}.dist-info/entry_points.txt").decode()
    announced = configparser.ConfigParser()
    announced.read_string(text)
    assert dict(announced["console_scripts"]) == {"twinloop": "twinloop.__main__:main"}
    assert announced["twinloop.sites"]["wind_farm"] == "twinloop.envs.wind_farm:SITE"


def test_an_installed_wheel_runs_from_its_own_folder(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site-packages"
    alone = ("--quiet", "--no-deps", "--no-index")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *alone, "--target", str(target), str(wheel)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    program = (
        f"import runpy, sys\nsys.path.insert(0, {str(target)!r})\nimport twinloop, twinloop.envs.wind_farm\n"
        "print(twinloop.__file__, twinloop.envs.wind_farm.__file__)\n"
        "sys.argv = ['twinloop', '--help']\nrunpy.run_module('twinloop', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.split() == [str(target / "twinloop/__init__.py"), str(target / "twinloop/envs/wind_farm/__init__.py")]
    assert rest[0].startswith("usage: twinloop COMMAND")


def test_constraints_pin_every_dependency_and_name_no_index() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert not [line for line in lines if line.startswith("-") or "//" in line or "@" in line or line.count("==") != 1]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *(r for rs in project["optional-dependencies"].values() for r in rs)]
    names = {r.split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip().lower() for r in requirements}
    assert names - {"twinloop"} <= pinned
