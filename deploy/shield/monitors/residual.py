"""Does the plant still do what the twin says? What was measured, less what was predicted for it, against a limit.

A limit for each signal comes from calibration, when all was well: half of the data scale the signals, so that each
counts alike, the other half give the quantile that the largest of an asset's scaled residuals stays below with
probability ``1 - alpha``. Adaptive conformal inference (Gibbs & Candes 2021, arXiv 2106.00170) is an option for plants
that drift as they should, such as with the seasons: ``alpha`` then moves so that the share of odd periods stays as
stated in the long run. It widens the limit under a slow fault too; a sudden one is caught before it has adapted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.errors import ConfigurationError
from ....envs.nameplate import Nameplate
from ....envs.plant import Arrays
from ..causes import Cause
from .conformal import check_enough, p_values, threshold
from .monitor import Alarms, Memory, Seen
from .persistence import Persistence

Floats = NDArray[np.float64]

_LEAST_SCALE_PU = 1e-6
"""Share of a signal's span below which a residual is rounding; a signal that the twin knows exactly has this scale."""


@dataclass(frozen=True)
class ResidualCalibration:
    """``scale[g]``: ``[O]`` in the signals' units; ``scores[g]``: ``[n]``, sorted, of the largest scaled residual of an
    asset in one period. A signal of infinite scale is not judged."""

    scale: Mapping[str, Floats]
    scores: Mapping[str, Floats]

    def limits(self, alpha: float) -> dict[str, Floats]:
        """``[O]`` a group, in the signals' units: all residuals of an asset stay below with probability 1 - alpha."""
        return {name: scale * threshold(self.scores[name], alpha) for name, scale in self.scale.items()}

    def save(self, path: Path) -> None:
        """Write JSON."""
        kinds = {"scale": self.scale, "scores": self.scores}
        plain = {kind: {name: array.tolist() for name, array in arrays.items()} for kind, arrays in kinds.items()}
        path.write_text(json.dumps(plain) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> ResidualCalibration:
        """Read what :meth:`save` wrote; raises :class:`ConfigurationError` for anything else."""
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            kinds = [{n: np.array(a, np.float64) for n, a in plain[kind].items()} for kind in ("scale", "scores")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path}: no calibration of residuals ({error}); calibrate again") from error
        return ResidualCalibration(*kinds)


def calibrate_residuals(
    nameplate: Nameplate, measured: Arrays, predicted: Arrays, present: Mapping[str, Any] | None = None
) -> ResidualCalibration:
    """From periods when all was well, ``[T, N, O]`` a group, in the order in which they came; ``present``: ``[T, N]``.

    The earlier half gives scales, the later one scores. Assets of a group share both.
    """
    scale: dict[str, Floats] = {}
    scores: dict[str, Floats] = {}
    for group in nameplate.groups:
        residuals = np.abs(_residuals(group, measured[group.name], predicted[group.name]))
        there = np.ones(residuals.shape[:2], np.bool_) if present is None else np.asarray(present[group.name])
        half = len(residuals) // 2
        early, late = residuals[:half][there[:half]], residuals[half:][there[half:]]
        if not (len(early) and len(late) and np.isfinite(residuals[there]).all()):
            raise ConfigurationError(
                f"group {group.name!r}: {len(residuals)} periods give no calibration; it needs finite values of "
                "at least two periods with assets present"
            )
        span = group.upper("measured") - group.lower("measured")
        scale[group.name] = np.maximum(np.quantile(early, 0.9, axis=0), _LEAST_SCALE_PU * span)
        scores[group.name] = np.sort((late / scale[group.name]).max(axis=1, initial=0.0))
    return ResidualCalibration(scale, scores)


def _residuals(group: Any, measured: Any, predicted: Any) -> Floats:
    """Measured less predicted; of angles the short way round."""
    found = np.asarray(measured, np.float64) - np.asarray(predicted, np.float64)
    for column, signal in enumerate(group.measured):
        if signal.circular:
            span = signal.maximum - signal.minimum
            found[..., column] = (found[..., column] + span / 2.0) % span - span / 2.0
    return found


@dataclass(frozen=True)
class ResidualMonitor:
    """Alarms an asset after ``persistence.k`` of ``persistence.m`` periods in which a residual was over its limit.

    ``alpha``: the false-alarm rate of one period and asset. ``adaptation``: the step of adaptive conformal inference, 0
    for fixed limits. A period without a prediction is not judged. Raises :class:`ConfigurationError` for a calibration
    too small for ``alpha``, and for an adaptation so fast that a fault would be taken for drift before the alarm.
    """

    nameplate: Nameplate
    calibration: ResidualCalibration
    alpha: float = 0.01
    persistence: Persistence = field(default_factory=lambda: Persistence(3, 5))
    adaptation: float = 0.0
    cause: Cause = Cause.RESIDUAL
    name: str = "residual"

    def __post_init__(self) -> None:
        for group in self.nameplate.groups:
            scale = self.calibration.scale.get(group.name)
            if scale is None or scale.shape != (len(group.measured),) or group.name not in self.calibration.scores:
                raise ConfigurationError(
                    f"{self.name} monitor: no calibration of the {len(group.measured)} measured signals of group "
                    f"{group.name!r}; calibrate on this site"
                )
            check_enough(len(self.calibration.scores[group.name]), self.alpha, f"{self.name} monitor, {group.name}")
        fewest = min(len(scores) for scores in self.calibration.scores.values())
        fastest = (self.alpha - 1.0 / (fewest + 1.0)) / self.persistence.m
        if self.adaptation < 0.0 or (self.adaptation > 0.0 and self.adaptation > fastest):
            raise ConfigurationError(
                f"{self.name} monitor: adaptation {self.adaptation:g} would take a fault for drift within "
                f"{self.persistence.m} periods; give at most {fastest:g}, or 0 for fixed limits"
            )

    def start(self) -> Memory:
        kept: dict[str, NDArray[Any]] = {}
        for g in self.nameplate.groups:
            kept[f"odd/{g.name}"] = self.persistence.start(g.n_assets)
            kept[f"alpha/{g.name}"] = np.full(g.n_assets, self.alpha)
        return kept

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        if seen.prediction is None:
            nothing = {g.name: np.zeros(g.n_assets, np.bool_) for g in self.nameplate.groups}
            return self._judged(dict(memory), nothing, nothing)
        after, odd = dict(memory), dict[str, Any]()
        for group in self.nameplate.groups:
            name = group.name
            alpha = memory[f"alpha/{name}"]
            scores = self.scores(group, seen.measured[name], seen.prediction[name])
            odd[name] = p_values(scores, self.calibration.scores[name]) <= alpha
            if self.adaptation:
                moved = alpha + self.adaptation * (self.alpha - odd[name])
                after[f"alpha/{name}"] = np.where(seen.present[name], moved, alpha)
        return self._judged(after, odd, seen.present)

    def _judged(
        self, after: dict[str, NDArray[Any]], odd: Mapping[str, Any], judged: Mapping[str, Any]
    ) -> tuple[Memory, Alarms]:
        alarms: Alarms = {}
        for group in self.nameplate.groups:
            key, name = f"odd/{group.name}", group.name
            after[key], raised = self.persistence.step(after[key], odd[name], judged[name])
            alarms |= {f"{name}/{group.assets[i]}": self.cause for i in np.flatnonzero(raised)}
        return after, alarms

    def scores(self, group: Any, measured: Any, predicted: Any) -> Floats:
        """Largest scaled residual of each asset, ``[N]``; infinite where one is no number."""
        residuals = np.abs(_residuals(group, measured, predicted)) / self.calibration.scale[group.name]
        found: Floats = np.where(np.isnan(residuals), np.inf, residuals).max(axis=1, initial=0.0)
        return found
