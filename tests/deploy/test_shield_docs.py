"""The pages for the person who must trust the shield say what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from twinloop.deploy.runtime import RuntimeSettings
from twinloop.deploy.shield import Code, Mode, Source
from twinloop.deploy.shield.ladder import Rung
from twinloop.envs.constraint import Constraint, DeadbandConstraint, SafeState
from twinloop.training.benchmarks import benchmarks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "shield.md").read_text(encoding="utf-8")
LEASES = (ROOT / "docs" / "leases.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    """First cells of the table rows, from a heading to the next one, without backticks."""
    body = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", body, flags=re.MULTILINE)


def test_every_code_of_a_reason_is_explained_once_and_no_other() -> None:
    assert sorted(first_cells("Reading a reason")) == sorted(code.value for code in Code)


def test_every_kind_of_constraint_is_in_the_table_once_and_no_other() -> None:
    assert sorted(first_cells("Declaring constraints")) == sorted(kind.kind for kind in get_args(Constraint))


def test_the_table_says_which_kinds_are_soft_only() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{DeadbandConstraint.kind}`"))
    assert "soft only" in row
    with pytest.raises(TypeError):
        DeadbandConstraint("g", "s", 1.0, "MW")  # type: ignore[call-arg]  # a deadband without a priority is refused


@pytest.mark.parametrize("word", [*Mode, *Source, *get_args(get_type_hints(SafeState)["kind"])])
def test_modes_sources_and_safe_states_are_named(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_the_ladder_is_told_in_its_order() -> None:
    row = next(line for line in PAGE.splitlines() if "| ladder |" in line)
    places = [row.index(rung.value.replace("_", " ").removeprefix("the ").split()[0]) for rung in Rung]
    assert places == sorted(places)


@pytest.mark.parametrize("page", [PAGE, LEASES])
def test_files_and_benchmarks_that_the_pages_name_exist(page: str) -> None:
    known = benchmarks()
    for name in re.findall(r"twinloop bench (\w+)", page):
        assert name in known, name
    places = (ROOT, ROOT / "deploy", ROOT / "deploy" / "shield")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", page):
        assert any((place / name).exists() for place in places) or name.startswith("results/"), name
    for link in re.findall(r"\]\((\w+\.md)", page):
        assert (ROOT / "docs" / link).exists(), link


def test_budgets_are_those_of_the_settings() -> None:
    settings = RuntimeSettings()
    for name in ("deadline_pu", "decision_pu"):
        assert f"`{name}` ({getattr(settings, name):g})" in PAGE
    assert settings.trip_after == 3
    assert "three times in a row (`trip_after`)" in " ".join(PAGE.split())
