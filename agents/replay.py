"""What an off-policy learner remembers: a ring of rows that a checkpoint can hold on to at no cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..envs.errors import ContractError

Float32 = NDArray[np.float32]


class _Change:
    """What one :meth:`ReplayBuffer.add` overwrote. Changes point to later ones only, so that those which no boundary
    needs any more are freed."""

    __slots__ = ("indices", "later", "rows")

    def __init__(self) -> None:
        self.indices: NDArray[np.int64] = np.empty(0, np.int64)
        self.rows: Float32 = np.empty((0, 0), np.float32)
        self.later: _Change | None = None


class ReplayBuffer:
    """Ring of the newest ``capacity`` rows, float32, ``width`` numbers each.

    Memory is taken as rows come in. A boundary (:meth:`hold`) costs nothing while the ring fills; from then on it
    costs the rows that are overwritten after it. Its rows are copied only when it is asked for them.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self._rows: Float32 = np.empty((capacity, width), np.float32)  # pages are touched only as they fill
        self._size = 0
        self._cursor = 0
        self._change = _Change()

    def __len__(self) -> int:
        return self._size

    def add(self, rows: Float32) -> None:
        """Remember ``rows`` ``[n, width]``, the last being the newest; raises ContractError for another width."""
        capacity, width = self._rows.shape
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ContractError(f"ReplayBuffer.add: rows of shape {rows.shape}, expected [n, {width}]")
        rows = rows[-capacity:]
        at = (self._cursor + np.arange(len(rows))) % capacity
        self._remember(at[at < self._size])
        self._rows[at] = rows
        self._cursor = (self._cursor + len(rows)) % capacity
        self._size = min(capacity, self._size + len(rows))

    def sample(self, indices: NDArray[np.int64]) -> Float32:
        """Rows ``[n, width]`` at ``indices`` below ``len(self)``."""
        rows: Float32 = self._rows[indices]
        return rows

    def hold(self) -> Callable[[], dict[str, Any]]:
        """A boundary: calling it gives :meth:`restore`'s state as of now, whatever was added since."""
        first, size, cursor = self._change, self._size, self._cursor

        def state() -> dict[str, Any]:
            rows = self._rows[:size].copy()
            changes = [first]
            while changes[-1].later is not None:
                changes.append(changes[-1].later)
            for change in reversed(changes[:-1]):
                known = change.indices < size
                rows[change.indices[known]] = change.rows[known]
            return {"rows": torch.from_numpy(rows), "cursor": cursor}

        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state was taken; raises ContractError when it is of another buffer."""
        rows = state["rows"].numpy()
        capacity, width = self._rows.shape
        if rows.shape[1:] != (width,) or len(rows) > capacity:
            raise ContractError(
                f"ReplayBuffer.restore: rows of shape {rows.shape} do not fit a buffer of {capacity} rows of {width}; "
                "resume with the configuration that the run was started with"
            )
        self._remember(np.arange(self._size))
        self._rows[: len(rows)] = rows
        self._size, self._cursor = len(rows), int(state["cursor"])

    def _remember(self, indices: NDArray[np.int64]) -> None:
        """Keep the rows at ``indices`` for the boundaries that are held."""
        change, change.later = self._change, _Change()
        change.indices, change.rows = indices, self._rows[indices]
        self._change = change.later
