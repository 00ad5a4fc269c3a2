"""Remaining life by gradient boosting over windows of condition signals, with intervals calibrated by machine.

Machines are split into folds; each fold's trees are fitted to the others. What they predict for the machines that they
have not seen calibrates the intervals, and their mean is the prediction. Remaining life is cut off at ``cap`` cycles
(Heimes 2008, "Recurrent neural networks for remaining useful life estimation", PHM08): what is far from failing looks
alike. Fitting needs scikit-learn; predicting needs numpy.

Fits run on one thread: where other work shares the machine, OpenMP's threads wait for each other, and a fit of seconds
takes minutes. Other users of scikit-learn set ``OMP_NUM_THREADS=1`` before Python starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..configuration import Strict
from ..errors import ConfigurationError
from .calibration import Calibration
from .estimate import Estimate
from .features import features
from .history import Fleet
from .trees import Trees, from_scikit_learn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_CHECKED_ROWS = 64


class BoostingSettings(Strict):
    """How it is fitted. Depths and rates were chosen by left-out errors on the training engines of FD001."""

    cap: PositiveFloat = Field(125.0, description="remaining life, in cycles, beyond which it is told as that or more")
    window: PositiveInt = Field(30, description="cycles that mean, deviation and trend are taken over")
    short: PositiveInt = Field(10, description="cycles that a second mean and trend are taken over")
    folds: PositiveInt = Field(5, ge=2, description="of machines")
    interval: Literal["errors", "quantiles"] = Field(
        "errors",
        description="errors: quantiles of what predictions were wrong by, by band of the prediction; quantiles: "
        "boosted quantiles, corrected so that they cover (conformalised quantile regression), three times the work",
    )
    level: float = Field(0.9, gt=0.5, lt=1.0, description="of intervals")
    bands: PositiveInt = Field(8, description="of predictions, each calibrated for itself")
    rate: float = Field(0.05, gt=0, le=1)
    iterations: PositiveInt = 200
    leaves: PositiveInt = Field(15, ge=2)
    rows_a_leaf: PositiveInt = 100
    features_a_split: float = Field(0.3, gt=0, le=1)
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class LeftOut:
    """What was predicted of every cycle of the machines fitted to, by trees that had not seen the machine: ``point``,
    the true remaining life ``truth``, cut off at the cap, and the machine ``unit``, by place, ``[n]`` each."""

    point: Floats
    truth: Floats
    unit: Ints


@dataclass(frozen=True)
class BoostedLife:
    """A fitted estimator. ``outer``: trees of the lower and the upper quantile, and how they are corrected."""

    settings: BoostingSettings
    signals: tuple[str, ...]
    unit: str
    point: Trees
    calibration: Calibration
    outer: tuple[Trees, Trees, Calibration] | None

    def rows(self, fleet: Fleet) -> list[Floats]:
        """Features ``[T, F]`` of each machine, of the signals that it was fitted to."""
        return [
            features(u.signals, self.settings.window, self.settings.short)
            for u in fleet.with_signals(self.signals).units
        ]

    def expected(self, rows: Floats) -> Floats:
        """Expected remaining life ``[n]`` of rows of features, within 0 and the cap."""
        return np.clip(self.point.predict(rows), 0.0, self.settings.cap)

    def now(self, fleet: Fleet, horizon: float) -> Estimate:
        """Every machine after its last cycle, and its chance to fail within ``horizon`` cycles."""
        last = np.array([table[-1] for table in self.rows(fleet)])
        return self.estimate(last, horizon, fleet.names)

    def estimate(self, rows: Floats, horizon: float, names: tuple[str, ...]) -> Estimate:
        """Of rows of features ``[n, F]``; raises :class:`ConfigurationError` for a horizon that the cap cuts off."""
        s = self.settings
        if not 0 < horizon < s.cap:
            raise ConfigurationError(
                f"horizon: {horizon:g}; give more than 0 and less than the cap of {s.cap:g} cycles"
            )
        point = self.expected(rows)
        median = np.clip(point + self.calibration.quantile(point, 0.5), 0.0, s.cap)
        low, high = self.bounds(rows, point)
        chance = self.calibration.chance_below(point, horizon)
        return Estimate(
            names, median, np.minimum(low, median), np.maximum(high, median), s.level, chance, horizon, self.unit, s.cap
        )

    def bounds(self, rows: Floats, point: Floats) -> tuple[Floats, Floats]:
        """Interval ``[n]`` each at the level of the settings, of rows and of what is expected of them."""
        s, tail = self.settings, (1.0 - self.settings.level) / 2.0
        if self.outer is None:
            low, high = (point + self.calibration.quantile(point, share) for share in (tail, 1.0 - tail))
        else:
            lower, upper, correction = self.outer
            wider = correction.quantile(point, s.level)
            low, high = lower.predict(rows) - wider, upper.predict(rows) + wider
        low, high = np.clip(low, 0.0, s.cap), np.clip(high, 0.0, s.cap)
        return np.minimum(low, high), np.maximum(low, high)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All numbers by name, for a file."""
        parts: dict[str, Trees | Calibration] = {"point": self.point, "calibration": self.calibration}
        if self.outer is not None:
            parts |= dict(zip(("lower", "upper", "correction"), self.outer, strict=True))
        return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.arrays().items()}

    @classmethod
    def from_arrays(
        cls, settings: BoostingSettings, signals: tuple[str, ...], unit: str, arrays: Mapping[str, NDArray[Any]]
    ) -> BoostedLife:
        """Inverse of :meth:`arrays`; raises ``KeyError`` where one is missing."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}

        outer = None
        if settings.interval == "quantiles":
            outer = (
                Trees.from_arrays(part("lower")), Trees.from_arrays(part("upper")),
                Calibration.from_arrays(part("correction")),
            )  # fmt: skip
        point, calibration = Trees.from_arrays(part("point")), Calibration.from_arrays(part("calibration"))
        return cls(settings, signals, unit, point, calibration, outer)


def fit(fleet: Fleet, settings: BoostingSettings) -> tuple[BoostedLife, LeftOut]:
    """Fit to machines that failed, and say what was predicted of each while it was left out.

    Machines that did not fail are passed over: what they had left is not known. Where many did not, lives that were
    seen are the shorter ones, and so are estimates; :mod:`.survival` counts both. Raises :class:`ConfigurationError`
    for fewer than ten machines that failed, or signals that never change.
    """
    known = fleet.failed()
    if len(known.units) < max(10, settings.folds):
        raise ConfigurationError(
            f"{len(known.units)} machines that failed; give {max(10, settings.folds)} or more histories to failure"
        )
    stacked = np.vstack([u.signals for u in known.units])
    moves = np.ptp(stacked, axis=0) > 1e-9 * np.abs(stacked).max(0)
    signals = tuple(name for name, does in zip(known.signals, moves, strict=True) if does)
    if not signals:
        raise ConfigurationError(f"signals: none of {', '.join(known.signals)} ever changes; give condition signals")
    tables = [features(u.signals, settings.window, settings.short) for u in known.with_signals(signals).units]
    rows, lives = np.vstack(tables), known.lives
    unit = np.repeat(np.arange(len(lives)), lives)
    truth = np.minimum(np.concatenate([np.arange(n - 1, -1, -1.0) for n in lives]), settings.cap)
    fold = folds_of(len(lives), settings)[unit]
    models, point = _fitted(rows, truth, fold, settings, None)
    point = np.clip(point, 0.0, settings.cap)
    check = rows[:: max(1, len(rows) // _CHECKED_ROWS)]
    outer = None
    if settings.interval == "quantiles":
        tail = (1.0 - settings.level) / 2.0
        lower, low = _fitted(rows, truth, fold, settings, tail)
        upper, high = _fitted(rows, truth, fold, settings, 1.0 - tail)
        outside = np.maximum(low - truth, truth - high)  # Romano, Patterson & Candes 2019, eq. 6
        correction = Calibration.of(point, truth, unit, settings.bands, outside)
        outer = (from_scikit_learn(lower, check), from_scikit_learn(upper, check), correction)
    calibration = Calibration.of(point, truth, unit, settings.bands)
    life = BoostedLife(settings, signals, fleet.unit, from_scikit_learn(models, check), calibration, outer)
    return life, LeftOut(point, truth, unit)


def folds_of(n: int, settings: BoostingSettings) -> Ints:
    """Fold of each of ``n`` machines, drawn by the seed."""
    return np.random.default_rng(settings.seed).permutation(n) % settings.folds


def _fitted(
    rows: Floats, truth: Floats, fold: Ints, s: BoostingSettings, quantile: float | None
) -> tuple[list[Any], Floats]:
    """A model for each fold, fitted to the others, and what it predicts of that fold."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    loss = {"loss": "squared_error"} if quantile is None else {"loss": "quantile", "quantile": quantile}
    models, found = [], np.empty(len(truth))
    with threadpool_limits(limits=1, user_api="openmp"):
        for k in range(s.folds):
            model = HistGradientBoostingRegressor(
                **loss, learning_rate=s.rate, max_iter=s.iterations, max_leaf_nodes=s.leaves,
                min_samples_leaf=s.rows_a_leaf, max_features=s.features_a_split, early_stopping=False,
                random_state=s.seed + k,
            )  # fmt: skip
            models.append(model.fit(rows[fold != k], truth[fold != k]))
            found[fold == k] = model.predict(rows[fold == k])
    return models, found
