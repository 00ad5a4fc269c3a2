"""``restore(snapshot())`` is exact: the state, and all that follows from it."""

from __future__ import annotations

import torch

from ..twin import Readings, Snapshot, Twin
from .case import TwinCase
from .comparison import copy_of, require_same, require_same_state

_N = 3


def check_snapshot(case: TwinCase) -> None:
    """A snapshot of rows of different age brings back state and continuation, in a new twin too."""
    twin = case.make_twin(_N)
    seeds = case.seed_tensor(twin)
    twin.reset(seeds)
    for step in range(max(2, case.steps // 2)):
        twin.step(case.commands(twin, seeds, step))
    rows = torch.tensor([1], device=twin.device)
    twin.reset(case.seed_tensor(twin, 2)[rows], rows)
    twin.step(case.commands(twin, seeds, 99))

    snapshot = twin.snapshot()
    kept = {key: tensor.clone() for key, tensor in snapshot.items()}
    want = _continue(case, twin)
    require_same_state(
        "snapshot",
        snapshot,
        kept,
        got_is="later",
        want_is="when taken",
        why="a snapshot is a copy, not a view of the state",
    )

    twin.restore(snapshot)
    _require_restored(twin, kept, "the same twin")
    _require_continuation(case, twin, want, "the same twin after restore")

    other = case.make_twin(_N)
    other.reset(case.seed_tensor(other, 3))
    other.step(case.commands(other, seeds, 7))
    other.restore(kept)
    _require_restored(other, snapshot, "another twin")
    _require_continuation(case, other, want, "another twin after restore")
    require_same_state(
        "snapshot",
        kept,
        snapshot,
        got_is="after use",
        want_is="when taken",
        why="restore copies, later steps must not write into it",
    )


def _continue(case: TwinCase, twin: Twin) -> list[Readings]:
    """Steps, a reset of one row, more steps."""
    found = []
    seeds = case.seed_tensor(twin, 1)
    for step in range(case.steps):
        if step == case.steps // 2:
            rows = torch.tensor([2], device=twin.device)
            found.append(copy_of(twin.reset(seeds[rows], rows)))
        found.append(copy_of(twin.step(case.commands(twin, seeds, 1000 + step))))
    return found


def _require_restored(twin: Twin, snapshot: Snapshot, name: str) -> None:
    require_same_state(
        "snapshot",
        twin.snapshot(),
        snapshot,
        got_is=f"{name} after restore",
        want_is="the snapshot",
        why="restore is exact",
    )


def _require_continuation(case: TwinCase, twin: Twin, want: list[Readings], name: str) -> None:
    for number, (got, expected) in enumerate(zip(_continue(case, twin), want, strict=True)):
        require_same(
            "snapshot",
            twin.nameplate,
            got,
            expected,
            when=f"{number + 1} calls after the snapshot",
            got_is=f"{name} says",
            want_is="the first run said",
            why="the snapshot must hold all that later steps depend on, seeds, step counts and delays included",
        )
