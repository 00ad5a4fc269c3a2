"""Intervals that hold for a machine never seen: what a model was wrong by on machines that it was not fitted to.

Predictions of machines that were left out are sorted into bands by what was predicted (Mondrian bands: Vovk, Gammerman
& Shafer 2005), so that an interval is as wide as errors are there. Cycles of one machine are not independent: each
machine counts once in a band, however many cycles it spent in it (Dunn, Wasserman & Ramdas 2022, arXiv 1809.07441), and
quantiles are widened for the number of machines.
With models of folds and their mean as the prediction this is cross-conformal (Barber, Candes, Ramdas & Tibshirani 2021,
arXiv 1905.02928): near the level in practice, 2 x level - 1 at worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FEWEST_UNITS = 10


@dataclass(frozen=True)
class Calibration:
    """Errors by band. ``edges`` ``[K - 1]`` of what is predicted; ``errors``, truth less prediction, sorted within each
    band, with ``weights`` that sum to one there; ``begins`` ``[K + 1]`` of bands in them; ``n_units`` ``[K]``."""

    edges: Floats
    errors: Floats
    weights: Floats
    begins: Ints
    n_units: Ints

    @classmethod
    def of(
        cls, predicted: Floats, truth: Floats, units: Ints, n_bands: int, errors: Floats | None = None
    ) -> Calibration:
        """From predictions ``[n]`` of cycles of ``units`` ``[n]`` that were left out; ``errors``: scores to keep in
        place of truth less prediction. Raises :class:`ConfigurationError` for fewer than ten units."""
        n = len(np.unique(units))
        if n < _FEWEST_UNITS:
            raise ConfigurationError(f"calibration: {n} machines that failed; give at least {_FEWEST_UNITS}")
        kept = truth - predicted if errors is None else errors
        size = _once_each(units)
        order = np.argsort(predicted)
        mass = np.cumsum(size[order])
        cut = predicted[order][np.searchsorted(mass, mass[-1] * np.arange(1, n_bands) / n_bands)]
        edges = _wide_enough(np.unique(cut), predicted, units)
        band = np.searchsorted(edges, predicted, side="right")
        parts = [(kept[band == k], _once_each(units[band == k]), units[band == k]) for k in range(len(edges) + 1)]
        orders = [np.argsort(e, kind="stable") for e, _, _ in parts]
        return cls(
            edges,
            np.concatenate([e[o] for (e, _, _), o in zip(parts, orders, strict=True)]),
            np.concatenate([w[o] / w.sum() for (_, w, _), o in zip(parts, orders, strict=True)]),
            np.concatenate(([0], np.cumsum([len(e) for e, _, _ in parts]))).astype(np.int64),
            np.array([len(np.unique(u)) for _, _, u in parts], dtype=np.int64),
        )

    def bands(self, predicted: Floats) -> Ints:
        """Band of each prediction, ``[n]``."""
        return np.searchsorted(self.edges, predicted, side="right").astype(np.int64)

    def quantile(self, predicted: Floats, share: float) -> Floats:
        """Error that stays below with the chance ``share``, ``[n]``: above 0.5 widened upwards, below it downwards."""
        found = np.empty(len(self.begins) - 1)
        for k, n in enumerate(self.n_units):
            part = slice(self.begins[k], self.begins[k + 1])
            total = np.cumsum(self.weights[part])
            upper = share >= 0.5
            wanted = share * (1 + 1 / n) if upper else 1 - (1 - share) * (1 + 1 / n)
            if share == 0.5:
                wanted = 0.5
            at = np.searchsorted(total, np.clip(wanted, 0.0, total[-1]) - 1e-12, side="left" if upper else "right")
            found[k] = self.errors[part][min(int(at), len(total) - 1)]
        return np.asarray(found[self.bands(predicted)])

    def chance_below(self, predicted: Floats, value: Floats | float) -> Floats:
        """Chance that the truth is ``value`` or less, ``[n]``; never zero or one for certain."""
        bands = self.bands(predicted)
        room = np.broadcast_to(np.asarray(value, dtype=np.float64), predicted.shape) - predicted
        found = np.empty(len(predicted))
        for k in np.unique(bands):
            part, rows, n = slice(self.begins[k], self.begins[k + 1]), bands == k, self.n_units[k]
            total = np.concatenate(([0.0], np.cumsum(self.weights[part])))
            share = total[np.searchsorted(self.errors[part], room[rows], side="right")]
            found[rows] = (share * n + 0.5) / (n + 1)
        return np.clip(found, 0.0, 1.0)

    def arrays(self) -> dict[str, NDArray[np.float64] | Ints]:
        """As arrays by name, for a file."""
        return {name: getattr(self, name) for name in ("edges", "errors", "weights", "begins", "n_units")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64] | Ints]) -> Calibration:
        """Inverse of :meth:`arrays`."""
        return cls(
            np.asarray(arrays["edges"], np.float64), np.asarray(arrays["errors"], np.float64),
            np.asarray(arrays["weights"], np.float64), np.asarray(arrays["begins"], np.int64),
            np.asarray(arrays["n_units"], np.int64),
        )  # fmt: skip


def _once_each(units: Ints) -> Floats:
    """Weights ``[n]`` of rows, with which each unit sums to one."""
    _, place, count = np.unique(units, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[place])


def _wide_enough(edges: Floats, predicted: Floats, units: Ints) -> Floats:
    """Edges between which at least ten units lie; others are left out."""
    kept: list[float] = []
    for edge in edges:
        here = (predicted >= (kept[-1] if kept else -np.inf)) & (predicted < edge)
        beyond = predicted >= edge
        if min(len(np.unique(units[here])), len(np.unique(units[beyond]))) >= _FEWEST_UNITS:
            kept.append(float(edge))
    return np.array(kept, dtype=np.float64)
