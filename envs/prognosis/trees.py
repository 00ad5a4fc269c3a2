"""Boosted trees as plain arrays: what scikit-learn fitted, predicted by numpy alone, stored without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ContractError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_MOST_CELLS = 4_000_000
"""Rows times trees that are looked up at once."""


@dataclass(frozen=True)
class Trees:
    """``feature``, ``threshold``, ``left``, ``right``, ``value`` ``[trees, nodes]``: a node sends a row left where its
    feature is at most the threshold. A leaf's children are itself. The prediction is ``base`` plus all leaves reached,
    times ``share``."""

    base: float
    share: float
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    def predict(self, rows: Floats) -> Floats:
        """``[n]`` of features ``[n, F]``, all finite."""
        n_trees = len(self.feature)
        step = max(1, _MOST_CELLS // max(1, n_trees))
        parts = [self._sum(rows[k : k + step]) for k in range(0, len(rows), step)]
        return self.base + self.share * (np.concatenate(parts) if parts else np.zeros(0))

    def _sum(self, rows: Floats) -> Floats:
        tree = np.arange(len(self.feature))[:, None]
        row = np.arange(len(rows))[None, :]
        node = np.zeros((len(self.feature), len(rows)), dtype=np.int64)
        while True:
            goes_left = rows[row, self.feature[tree, node]] <= self.threshold[tree, node]
            after = np.where(goes_left, self.left[tree, node], self.right[tree, node])
            if np.array_equal(after, node):
                return np.asarray(self.value[tree, node].sum(0))
            node = after

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name, for a file."""
        names = ("base", "share", "feature", "threshold", "left", "right", "value")
        return {name: np.asarray(getattr(self, name)) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trees:
        """Inverse of :meth:`arrays`; raises :class:`ContractError` for arrays that are no trees."""
        feature, left, right = (np.asarray(arrays[name], np.int64) for name in ("feature", "left", "right"))
        threshold, value = (np.asarray(arrays[name], np.float64) for name in ("threshold", "value"))
        tables = (feature, threshold, left, right, value)
        if value.ndim != 2 or value.size == 0 or {table.shape for table in tables} != {value.shape}:
            raise ContractError("trees: arrays of different shapes; fit the model again")
        own = np.arange(value.shape[1])
        for children in (left, right):  # they stand behind their parents, so that every walk ends
            if ((children < own) | (children > own[-1])).any():
                raise ContractError("trees: a node's child stands before it; fit the model again")
        return cls(float(arrays["base"]), float(arrays["share"]), *tables)


def from_scikit_learn(models: list[Any], check: Floats) -> Trees:
    """Mean of ``HistGradientBoostingRegressor`` models as :class:`Trees`; raises :class:`ContractError` when that does
    not predict for the rows ``check`` what they do, as after a change of scikit-learn's insides."""
    nodes = [p[0].nodes for m in models for p in m._predictors]
    most = max(map(len, nodes))
    shape = (len(nodes), most)
    feature, left, right = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    threshold, value = np.zeros(shape), np.zeros(shape)
    left[:], right[:] = np.arange(most), np.arange(most)
    for k, table in enumerate(nodes):
        n, inner = len(table), table["is_leaf"] == 0
        feature[k, :n] = np.where(inner, table["feature_idx"], 0)
        threshold[k, :n] = np.where(inner, table["num_threshold"], 0.0)
        left[k, :n][inner], right[k, :n][inner] = table["left"][inner], table["right"][inner]
        value[k, :n] = np.where(inner, 0.0, table["value"])
    base = float(np.mean([np.asarray(m._baseline_prediction).ravel()[0] for m in models]))
    found = Trees(base, 1.0 / len(models), feature, threshold, left, right, value)
    wanted = np.mean([m.predict(check) for m in models], axis=0)
    if not np.allclose(found.predict(check), wanted, rtol=0, atol=1e-8 * (1.0 + np.abs(wanted).max())):
        raise ContractError(
            "trees: the stored trees differ from scikit-learn's own; this version of it keeps them in another way, use "
            "the one in constraints.txt"
        )
    return found
