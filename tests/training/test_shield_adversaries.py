"""Adversaries: each proposes what it says, does harm where nothing holds it, and is counted by the margins alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinloop.deploy.falsifier import Trial
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks import shield_adversaries as bench
from twinloop.training.benchmarks.adversary_kinds import KINDS, Hostile, NumberBursts, Steepest
from twinloop.training.benchmarks.adversary_sites import (
    TURNS_BACK_M,
    Arena,
    docking_arena,
    track_arena,
    turn_back,
    yard_arena,
)

SMALL: dict[str, Callable[[], Arena]] = {
    "docking": lambda: replace(docking_arena(2, 3), periods=25),
    "yard": lambda: replace(yard_arena(2), periods=25),
    "cart_track": lambda: replace(track_arena(2, 3), periods=25),
}


@pytest.fixture(scope="module", params=sorted(SMALL))
def arena(request: pytest.FixtureRequest) -> Arena:
    return SMALL[request.param]()


def lax(arena: Arena) -> Arena:
    """Nothing but the nameplate's ranges and rates is kept."""
    return replace(arena, shield=Shield(declare(arena.model.declaration.nameplate)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_adversary_is_a_function_of_its_seed(kind: type[Hostile], arena: Arena) -> None:
    model = arena.model
    runs = []
    for seed in (1, 1, 2):
        attack = kind(model.declaration, model.n_replicas, seed, arena.steer)
        outcome = Trial(model, arena.shield).run(attack, np.arange(model.n_replicas), 12)
        runs.append([value.tolist() for value in outcome.least.values()] + [[float(outcome.changed)]])
    assert runs[0] == runs[1]
    if not issubclass(kind, Steepest):  # which leaves nothing to chance
        assert runs[0] != runs[2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_shield_that_keeps_less_than_is_declared_is_seen_through(kind: type[Hostile]) -> None:
    site = lax(SMALL["yard"]())
    tally = bench.play(site, kind.name, 0)
    assert tally.hard > 0
    assert tally.least < 0
    assert tally.worst in tally.broken
    assert sum(tally.broken.values()) == tally.hard
    assert tally.agent_steps == 2 * 8 * 25


def test_the_steepest_way_breaks_the_barriers_of_docking_and_the_shield_holds_them() -> None:
    site = SMALL["docking"]()
    free, held = (bench.play(s, Steepest.name, 3) for s in (lax(site), site))
    assert set(free.broken) >= {"approach, left", "approach, right"}
    assert held.hard == held.failed == 0
    assert held.changed > 0


def test_the_search_counts_like_the_others() -> None:
    site = SMALL["docking"]()
    free, held = (bench.play(s, bench.SEARCH, 3) for s in (lax(site), site))
    assert free.hard > 0
    assert "period" in free.how
    assert held.hard == held.failed == 0
    assert held.agent_steps == free.agent_steps == bench.SEARCH_BATCHES * 2 * 3 * 12


def test_bursts_hold_every_kind_of_what_is_no_command() -> None:
    site = SMALL["yard"]()
    model = site.model
    attack = NumberBursts(model.declaration, 50, 0)
    seen = {name: np.tile(value[:1], (50, 1, 1)) for name, value in model.start(np.arange(2), {}).items()}
    applied = {g.name: np.zeros((50, g.n_assets, len(g.commanded))) for g in model.declaration.nameplate.groups}
    found = set()
    for step in range(30):
        for row in attack.proposals(step, seen, applied):
            if row is None:
                found.add("none")
                continue
            value = row["oven"]
            if isinstance(value, list):
                found.add("list")
            elif value.shape != (2, 2):
                found.add("shape")
            elif np.isnan(value).all():
                found.add("nan")
            elif np.isnan(value).any():
                found.add("some nan")
            elif np.isinf(value).any():
                found.add("inf")
            elif np.abs(value).max() > 1e20:
                found.add("huge")
            else:
                found.add("sound")
    assert found == {"none", "list", "shape", "nan", "some nan", "inf", "huge", "sound"}


def test_carts_that_stray_are_told_to_come_back() -> None:
    proposals = {"cart": np.ones((1, 2, 2))}
    turn_back(proposals, {"cart": np.array([[[TURNS_BACK_M + 1.0, 0.0], [1.0, 1.0]]])})
    assert proposals["cart"].tolist() == [[[-1.0, 0.0], [1.0, 1.0]]]


def test_the_bench_takes_up_where_it_was_interrupted_and_says_what_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "ARENAS", SMALL)
    arguments = argparse.Namespace(agent_steps=700, sites=["docking"], seed=0, out=tmp_path)
    assert bench.run(arguments) == 0
    path = tmp_path / bench.CHUNKS
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) * 2 // 3], encoding="utf-8")
    monkeypatch.setattr(bench, "ARENAS", {"docking": lambda: lax(SMALL["docking"]())})
    assert bench.run(arguments) == 1  # what was played is kept, what is played anew breaks
    said = capsys.readouterr().out
    assert "MISSED: no hard violation" in said
    assert "approach, left" in said
    text = path.read_text(encoding="utf-8")
    assert text.startswith(whole[: len(whole) // 2])
    assert (tmp_path / "shield_adversaries.md").exists()
    with pytest.raises(ConfigurationError, match="pieces of seed 0, asked is 1"):
        bench.run(argparse.Namespace(agent_steps=700, sites=["docking"], seed=1, out=tmp_path))
