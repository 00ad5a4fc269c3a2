"""What to send when not everything can be kept: rungs in order, the first whose commands are acceptable.

    least violation -> stored plan's tail -> backup -> safe state

The proposal itself is no rung: once it has been refused it is never sent. Every rung but the last is judged; the last,
the asset's own safe state brought into reach, is sent whatever the judge says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SafeKind = Literal["hold", "neutral", "values", "ramp_to"]
Judge = Callable[[Floats], bool]
"""Whether commands ``[n]`` keep every hard constraint."""


class Rung(StrEnum):
    """Where the commands come from."""

    LEAST_VIOLATION = "least_violation"
    PLAN = "plan"
    BACKUP = "backup"
    SAFE_STATE = "safe_state"


@dataclass(frozen=True)
class StoredPlan:
    """Commands ``[K, n]`` that were found safe together, a period each; ``used`` of them are sent already.

    A plan is only as good as its unbroken use: one that was not followed for a period is over.
    """

    commands: Floats
    used: int = 0

    def next(self) -> Floats | None:
        """The next period's commands ``[n]``, None where the plan is over."""
        return self.commands[self.used] if 0 <= self.used < len(self.commands) else None

    def advanced(self) -> StoredPlan:
        return replace(self, used=self.used + 1)


class Landing(NamedTuple):
    """``commands`` ``[n]``, the rung they came from, the rungs refused before it, and the plan as it stands now."""

    commands: Floats
    rung: Rung
    refused: tuple[Rung, ...]
    plan: StoredPlan | None


def safe_commands(
    kinds: Sequence[SafeKind], held: Floats, neutral: Floats, values: Floats, low: Floats, high: Floats
) -> Floats:
    """The safe state ``[n]`` as far as it can be reached this period, inside ``low`` to ``high`` ``[n]``.

    By command: ``hold`` what is applied, go to ``neutral``, go to ``values`` at once, or ``ramp_to`` them as fast as
    the reach lets: both end at the values, and only the reach tells them apart. Hold is not safe for every asset, so
    that each declares its own. What is not finite is replaced by neutral, and by the middle of the reach where that is
    none.
    """
    kind = np.asarray(kinds)
    target = np.where(kind == "hold", held, np.where(kind == "neutral", neutral, values))
    middle = np.where(np.isfinite(low) & np.isfinite(high), 0.5 * low + 0.5 * high, 0.0)
    spare = np.where(np.isfinite(neutral), neutral, middle)
    target = np.where(np.isfinite(target), target, spare)
    return np.asarray(np.minimum(np.maximum(target, low), high))


def descend(
    judge: Judge, safe: Floats, *,
    least_violation: Floats | None = None, plan: StoredPlan | None = None, backup: Callable[[], Any] | None = None,
) -> Landing:  # fmt: skip
    """The first rung whose commands ``[n]`` are finite and acceptable; ``safe`` ``[n]`` where there is none.

    ``least_violation`` comes from :func:`.program.solve`, and keeps every hard row by its certificate; it is judged all
    the same. A rung or a judge that raises is a rung refused. Never raises.
    """
    refused: list[Rung] = []
    shape = np.shape(safe)
    rungs: tuple[tuple[Rung, Callable[[], Any] | None], ...] = (
        (Rung.LEAST_VIOLATION, None if least_violation is None else lambda: least_violation),
        (Rung.PLAN, None if plan is None else plan.next),
        (Rung.BACKUP, backup),
    )
    for rung, give in rungs:
        if give is None:
            continue
        try:
            commands = np.array(give(), dtype=np.float64)
            accepted = commands.shape == shape and bool(np.isfinite(commands).all()) and bool(judge(commands.copy()))
        except Exception:  # noqa: BLE001 - a backup or a judge that fails costs its rung and nothing else
            accepted = False
        if accepted:
            kept = plan.advanced() if rung is Rung.PLAN and plan is not None else None
            return Landing(commands, rung, tuple(refused), kept)
        refused.append(rung)
    return Landing(np.array(safe, dtype=np.float64), Rung.SAFE_STATE, tuple(refused), None)
