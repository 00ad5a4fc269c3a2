"""A replica's trajectory is a function of its own seed and commands alone."""

from __future__ import annotations

import random

import torch

from ..twin import Readings
from .case import TwinCase
from .comparison import copy_of, picked, require_same, stacked

_WHY = (
    "a replica depends on its own seed and commands alone: draw noise from a hash of the row's seed and step, "
    "and evaluate kernels whose rounding depends on the batch size in shards of a fixed size"
)


def check_determinism(case: TwinCase) -> None:
    """Two new twins agree, and so does one that has already run another episode."""
    first, second = case.make_twin(2), case.make_twin(2)
    seeds = case.seed_tensor(first)
    # Global generators must not matter, and a used twin must forget.
    torch.manual_seed(1)
    want = [copy_of(first.reset(seeds))]
    want += [copy_of(first.step(case.commands(first, seeds, step))) for step in range(case.steps)]
    torch.manual_seed(2)
    for twin, name in ((second, "a second new twin"), (first, "the same twin reset again")):
        for step in range(case.steps + 1):
            got = twin.reset(seeds) if step == 0 else twin.step(case.commands(twin, seeds, step - 1))
            require_same(
                "determinism",
                twin.nameplate,
                got,
                want[step],
                when=_after(step),
                got_is=f"{name} says",
                want_is="a new twin said",
                why="a trajectory is a function of seed and commands; keep no generator, and clear all state at reset",
            )


def check_batch(case: TwinCase) -> None:
    """Row k of a batch equals the same seed run alone, bit for bit, for each batch size."""
    for n in case.batch_sizes:
        twin = case.make_twin(n)
        seeds = case.seed_tensor(twin)
        alone = [case.run_alone(int(seed)) for seed in seeds]
        for step in range(case.steps + 1):
            got = twin.reset(seeds) if step == 0 else twin.step(case.commands(twin, seeds, step - 1))
            require_same(
                "batch",
                twin.nameplate,
                got,
                stacked([rows[step] for rows in alone]),
                when=_after(step),
                got_is=f"in a batch of {n}",
                want_is="alone",
                why=_WHY,
                label=lambda row, seeds=seeds: f"replica {row} (seed {int(seeds[row])})",  # type: ignore[misc]  # mypy infers no lambda with defaults
            )


def check_partial_resets(case: TwinCase) -> None:
    """Rows reset at random moments, in random order, with new seeds: no other row moves, each equals its seed alone."""
    for n in (size for size in case.batch_sizes if size > 1):
        chance = random.Random(n)
        twin = case.make_twin(n)
        seeds, ages = case.seed_tensor(twin), [0] * n
        last = copy_of(twin.reset(seeds))
        for moment in range(2 * case.steps):
            rows = [row for row in range(n) if ages[row] == case.steps or chance.random() < 0.2]
            chance.shuffle(rows)
            if rows:
                fresh = [chance.choice(case.seeds) for _ in rows]
                index = torch.tensor(rows, dtype=torch.int64, device=twin.device)
                given = torch.tensor(fresh, dtype=torch.int64, device=twin.device)
                seeds = seeds.index_copy(0, index, given)
                last = _expected_after_reset(case, last, rows, fresh)
                require_same(
                    "partial resets",
                    twin.nameplate,
                    twin.reset(given, index),
                    last,
                    when=f"after rows {rows} were reset with seeds {fresh}",
                    got_is="reads",
                    want_is="should read",
                    why="reset returns readings of all replicas: new ones for its rows, unchanged ones for the others",
                )
                for row in rows:
                    ages[row] = 0
            got = twin.step(case.commands(twin, seeds, torch.tensor(ages, device=twin.device)))
            ages = [age + 1 for age in ages]
            last = stacked([case.run_alone(int(seed))[age] for seed, age in zip(seeds, ages, strict=True)])
            require_same(
                "partial resets",
                twin.nameplate,
                got,
                last,
                when=f"after {moment + 1} steps with resets of single rows",
                got_is=f"in a batch of {n}",
                want_is="alone",
                why=_WHY,
                label=lambda row, seeds=seeds, ages=tuple(ages): (  # type: ignore[misc]  # mypy infers no lambda with defaults
                    f"replica {row} (seed {int(seeds[row])}, {ages[row]} steps old)"
                ),
            )


def _expected_after_reset(case: TwinCase, last: Readings, rows: list[int], fresh: list[int]) -> Readings:
    singles = [picked(last, [row]) for row in range(len(last.time_s))]
    for row, seed in zip(rows, fresh, strict=True):
        singles[row] = case.run_alone(seed)[0]
    return stacked(singles)


def _after(step: int) -> str:
    return "after reset" if step == 0 else f"after step {step}"
