"""The README's promises that a machine can check: its snippets run, and its commands and paths exist."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twinloop.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ROWS = re.findall(r"^\| `twinloop (\w+)([^`]*)` \| (.*) \|$", README, re.MULTILINE)


def test_the_python_snippets_run_one_after_the_other() -> None:
    assert len(SNIPPETS) == 2
    program = "\n".join(SNIPPETS) + (
        "\nassert readings.measured['turbine'].shape[:2] == (1024, 7)\n"
        "observation, _ = env.reset(seed=0)\nassert env.observation_space.contains(observation)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_of_commands_is_complete() -> None:
    assert sorted(name for name, _, _ in ROWS) == sorted(COMMANDS)


@pytest.mark.parametrize(("name", "words", "what"), ROWS)
def test_a_row_of_the_table_shows_arguments_that_the_command_has(name: str, words: str, what: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).configure(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z-]+", words + what)) <= known
    positional = [action for action in parser._actions if not action.option_strings and action.dest != "rest"]
    assert bool(positional) == bool(re.match(r" \[?[A-Z]", words))


def test_targets_of_make_and_extras_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = {extra for group in re.findall(r"\[((?:[a-z0-9]+,?)+)\]'?`", README) for extra in group.split(",")}
    assert extras
    assert [extra for extra in extras if not re.search(rf"^{extra} = \[", project, re.MULTILINE)] == []
