from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("envs", "agents", "training", "deploy")
ABSENT_ON_THE_EDGE = ("torch", "ray", "stable_baselines3", "gymnasium", "pettingzoo", "floris")


def sources() -> list[Path]:
    return [path for folder in (*FOLDERS, "tests", ".src/twinloop") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each absolute import, lazy ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def test_the_search_for_bare_imports_finds_one(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "def f():\n    from envs.twin import Twin\n    import twinloop.envs, agents\n    from . import deploy\n"
    )
    assert [name for _, name in imported(path)] == ["envs.twin", "twinloop.envs", "agents"]


def test_no_module_imports_a_folder_by_its_bare_name() -> None:
    assert len(sources()) > len(FOLDERS)
    bare = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, name in imported(path)
        if name.partition(".")[0] in FOLDERS
    ]
    assert bare == []


def test_imports_between_our_folders_are_relative() -> None:
    absolute = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in imported(path)
        if name.partition(".")[0] == "twinloop" and name != "twinloop"
    ]
    assert absolute == []


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_import_contracts_see_through_the_links() -> None:
    # An empty graph would keep every contract.
    import grimp

    graph = grimp.build_graph("twinloop", include_external_packages=True, cache_dir=None)
    assert "twinloop.envs.registry" in graph.find_modules_directly_imported_by("twinloop.envs.commands.sites")
    assert "torch" in graph.find_modules_directly_imported_by("twinloop.envs.noise")


@pytest.mark.parametrize(
    "module",
    [
        "twinloop.agents.policy",
        "twinloop.agents.artifact",
        "twinloop.agents.controllers.wind_farm",
        "twinloop.agents.forward",
        "twinloop.envs.plant",
        "twinloop.envs.twin",
        "twinloop.envs.task",
        "twinloop.envs.encoder",
        "twinloop.envs.constraint",
        "twinloop.deploy.runtime",
        "twinloop.deploy.commands.run",
        "twinloop.deploy.shield",
        "twinloop.deploy.drivers.opcua_client",
    ],
)
def test_what_an_edge_machine_needs_imports_without_torch(module: str) -> None:
    program = f"import sys\nfor name in {ABSENT_ON_THE_EDGE!r}: sys.modules[name] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
