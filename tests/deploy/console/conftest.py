"""Fixtures of the pages' tests: a crew, made once since passwords cost time, and a station a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deploy.console.rig import Site, served_station

from twinloop.training.benchmarks.console_site import make_people


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "people.json"
    make_people(path)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, people: Path) -> Iterator[Site]:
    with served_station(tmp_path_factory.mktemp("station") / "mills", people) as found:
        yield found
