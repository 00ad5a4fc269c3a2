"""A reason for each change: constraint, margin, price, what was asked and what is sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .arrays import some
from .coupled import Active, Coupled
from .decision import Code, Reason
from .local_reasons import Why

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
UNCHANGED = 1e-9
"""A command that moves by no more than this, relative to its size, counts as sent unchanged."""

_UNTOLD = Why(Code.COMMAND_RATE, "", None, None)
"""Where no single constraint of its own refuses a command, and the reach of all of them together does."""


def changed(asked: Floats, sent: Floats) -> Bools:
    """Which commands ``[n]`` are not sent as asked; what is no number is not."""
    if not some(other := asked != sent):
        return np.asarray(other)
    return np.asarray(~(np.abs(sent - asked) <= UNCHANGED * (1.0 + np.abs(sent))))


class Explainer:
    """Compiled for one site: the names of commands, their assets and signals."""

    def __init__(self, agents: tuple[str, ...], asset: NDArray[np.intp], names: tuple[str, ...]) -> None:
        self._agents = agents
        self._asset: list[int] = asset.tolist()
        self._signal = [name.rpartition("/")[2] for name in names]
        self._first = {agent: k for k, agent in reversed(list(enumerate(agents[a] for a in self._asset)))}

    def reasons(
        self,
        raw: Floats,
        kept_local: Floats,
        sent: Floats,
        which: NDArray[np.intp],
        codes: list[Code | None] | None,
        coupled: Coupled,
        why: Callable[[int], Why | None],
    ) -> list[Reason]:
        """One for each command of ``which``; ``kept_local``: ``[n]``, what the commands' own limits made of it.

        ``codes``: by agent, why it does not follow its policy, None where it does; None for all of them.
        """
        rows = _dearest(coupled, changed(kept_local, sent)) if coupled.active else {}
        found: list[Reason] = []
        for i, wanted, out in zip(which.tolist(), raw[which].tolist(), sent[which].tolist(), strict=True):
            agent, signal = self._agents[self._asset[i]], self._signal[i]
            code = None if codes is None else codes[self._asset[i]]
            row = rows.get(i)
            if row is not None:
                limit = row.sign * row.limit
                found.append(
                    Reason(agent, signal, code or row.code, wanted, out, limit, row.name, row.margin, row.price)
                )
            elif code is not None:
                found.append(Reason(agent, signal, code, wanted, out))
            else:
                local = why(i) or _UNTOLD
                found.append(
                    Reason(agent, signal, local.code, wanted, out, local.limit, local.constraint, local.margin)
                )
        return found

    def signal(self, agent: str, column: int) -> str:
        """The name of an asset's command."""
        return str(self._signal[self._first[agent] + column])

    def unreachable(self, coupled: Coupled) -> list[Reason]:
        """One for each hard row that this period's reach can't keep; ``asset`` is empty where several share it."""
        found = []
        for row in coupled.active:
            if row.left > 0 and row.hard:
                owners = {self._asset[i] for i in row.at.tolist()}
                agent = self._agents[owners.pop()] if len(owners) == 1 else ""
                found.append(
                    Reason(
                        agent, "", Code.CONSTRAINT_UNREACHABLE, limit=row.sign * row.limit, constraint=row.name,
                        margin=-row.left, multiplier=row.price,
                    )
                )  # fmt: skip
        return found


def _dearest(coupled: Coupled, moved: Bools) -> dict[int, Active]:
    """Of each command that the rows moved, the row with the highest price among those that it stands in."""
    found: dict[int, Active] = {}
    is_moved = moved.tolist()
    n_moved = sum(is_moved)
    ordered = sorted(coupled.active, key=lambda row: (row.price, row.left))
    ordered.reverse()  # the dearest first, and of equals the last
    for row in ordered:
        if len(found) == n_moved:
            break
        for i, weight in zip(row.at.tolist(), row.weights.tolist(), strict=True):
            if is_moved[i] and weight != 0.0 and i not in found:
                found[i] = row
    return found
