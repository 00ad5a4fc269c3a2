"""Copies in Ray actors: the same bits as in one process, through every kind of fault."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.foreign_environments import Faulty, Rescue

from twinloop.envs.adapters.environment_block import EnvironmentRecipe, inspect
from twinloop.envs.adapters.environment_pool import EnvironmentPool
from twinloop.envs.adapters.environment_site import SITE, EnvironmentConfig
from twinloop.envs.conformance.excitation import random_commands
from twinloop.envs.twin import Readings
from twinloop.training.simulator_pool import RayBlocks

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")

N = 5
SEEDS = torch.arange(N) + 40


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    yield
    ray.shutdown()


def spread(recipe: EnvironmentRecipe, **options: Any) -> tuple[EnvironmentPool, RayBlocks]:
    made = []

    def make(*given: Any) -> RayBlocks:
        made.append(RayBlocks(*given, n_workers=2, **options))
        return made[0]

    twin = EnvironmentPool(recipe, N, make_blocks=make)
    return twin, made[0]


def drive(twin: EnvironmentPool, first: int, last: int) -> list[Readings]:
    """Steps ``first .. last``, with a partial reset in the fourth."""
    found = []
    for step in range(first, last):
        if step == 4:
            found.append(twin.reset(torch.tensor([7, 8, 9]), torch.tensor([4, 0, 2])))
        found.append(twin.step(random_commands(twin.nameplate, SEEDS, torch.full((N,), step), twin.dtype)))
    return found


def require_equal(got: list[Readings], want: list[Readings]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        for kind in ("measured", "hidden", "present"):
            for group, tensor in getattr(b, kind).items():
                assert torch.equal(getattr(a, kind)[group], tensor), (kind, group)


def test_actors_give_the_bits_of_one_process_also_when_killed_and_after_restore() -> None:
    recipe = EnvironmentRecipe(Rescue)
    alone = EnvironmentPool(recipe, N)
    start = alone.reset(SEEDS)
    want = drive(alone, 0, 7)
    twin, blocks = spread(recipe, save_every=3)
    require_equal([twin.reset(SEEDS)], [start])
    got = drive(twin, 0, 2)
    os.kill(blocks.process_ids()[1], signal.SIGKILL)
    got += drive(twin, 2, 3)
    snapshot = twin.snapshot()
    got += drive(twin, 3, 5)
    for process in blocks.process_ids():
        os.kill(process, signal.SIGKILL)
    got += drive(twin, 5, 7)
    require_equal(got, want)
    twin.restore(snapshot)
    require_equal(drive(twin, 3, 7), want[3:])
    alone.restore(snapshot)
    require_equal(drive(alone, 3, 7), want[3:])
    twin.close()


@pytest.mark.parametrize("fault", ["killed", "hung", "raises"])
def test_a_simulator_that_fails_in_mid_step_is_rebuilt_and_nothing_is_lost(fault: str, tmp_path: Path) -> None:
    def recipe(kind: str) -> EnvironmentRecipe:
        return EnvironmentRecipe(partial(Faulty, str(tmp_path / "marker"), kind), horizon=50)

    alone = EnvironmentPool(recipe("none"), N)
    alone.reset(SEEDS)
    want = drive(alone, 0, 6)
    assert inspect(recipe("none")).save == "replay"
    twin, _ = spread(recipe(fault), hung_after_s=3.0)
    twin.reset(SEEDS)
    require_equal(drive(twin, 0, 6), want)
    assert (tmp_path / "marker").exists()
    twin.close()


def test_an_error_that_comes_each_time_is_the_simulators_own(tmp_path: Path) -> None:
    twin, _ = spread(EnvironmentRecipe(partial(Faulty, str(tmp_path / "no" / "marker"), "raises"), horizon=50))
    twin.reset(SEEDS)
    with pytest.raises((RuntimeError, FileNotFoundError)):
        drive(twin, 0, 4)
    twin.close()


def test_a_configuration_spreads_its_copies_by_one_key() -> None:
    config = EnvironmentConfig(id="Pendulum-v1", workers=2)
    twin = SITE.twin(config, 3, "cpu", torch.float32)
    alone = SITE.twin(config.model_copy(update={"workers": 0}), 3, "cpu", torch.float32)
    for pool in (twin, alone):
        pool.reset(SEEDS[:3])
    commands = {"agent": torch.full((3, 1, 1), 0.3)}
    require_equal([twin.step(commands)], [alone.step(commands)])
