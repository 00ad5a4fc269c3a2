"""What a policy remembers of an asset that it does not command.

A memory that goes on while other commands are sent winds up: an integrator runs off, a filter of its own commands
believes what was never sent. So the rows of an asset that is on its fallback or in its safe state are those of a start,
period after period, and when it returns to its policy that begins afresh, from what the asset measures then; the step
is limited by the shield's rates like any other. In shadow and advise modes memory goes on, or advice would be worth
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agents.policy import Memory
from ..envs.nameplate import Nameplate
from .shield import Source

OFF_POLICY = frozenset({Source.FALLBACK, Source.PLAN, Source.SAFE_STATE})


def restarted(
    memory: Any,
    start: Memory,
    source: Mapping[str, Source],
    nameplate: Nameplate,
    others: frozenset[str] = frozenset(),
) -> Any:
    """``memory`` with what concerns assets off their policy as in ``start``; ``others``: those that a person or a
    proposal commands.

    Arrays under ``group/name`` have one row an asset, ``[1, N, ...]``, as artifacts keep them. All others belong to the
    site, and start again when no asset is on its policy. What is no such memory is left for the policy to judge.
    """
    if not others and OFF_POLICY.isdisjoint(source.values()):
        return memory
    off = {
        g.name: np.array(
            [source[agent] in OFF_POLICY or agent in others for agent in (f"{g.name}/{a}" for a in g.assets)]
        )
        for g in nameplate.groups
    }
    if not any(rows.any() for rows in off.values()) or not isinstance(memory, Mapping):
        return memory
    if all(rows.all() for rows in off.values()):
        return start
    found: dict[str, Any] = {}
    for name, array in memory.items():
        rows = off.get(str(name).partition("/")[0]) if "/" in str(name) else None
        if rows is None or not _fits(array, start.get(name), len(rows)):
            found[name] = array
            continue
        found[name] = array.copy()
        found[name][:, rows] = start[name][:, rows]
    return found


def _fits(array: Any, start: NDArray[Any] | None, n_assets: int) -> bool:
    return (
        isinstance(array, np.ndarray)
        and start is not None
        and array.shape == start.shape
        and array.ndim > 1
        and array.shape[1] == n_assets
    )
