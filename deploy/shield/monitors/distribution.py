"""Is the policy's input like what it was trained on? A score a reading, and how odd it is among scores of training.

The sample comes from the policy's evaluation (``inputs.npz`` of its artifact). Half of its episodes say what is normal,
the other half how odd normal readings look (split-conformal, :mod:`.conformal`): whole episodes, because readings of
one are alike. An asset is judged by its own measured signals, over their ranges, angles as sine and cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ....envs.errors import ConfigurationError
from ....envs.nameplate import Group, Nameplate
from ..causes import Cause
from .conformal import check_enough, p_values
from .monitor import Alarms, Memory, Seen
from .persistence import Persistence

Floats = NDArray[np.float64]

_LEAST_SPREAD = 0.02
"""Standard deviation that a feature has at least: one hundredth of a signal's span is no new situation."""
_MOST_STORED = 1024
"""Rows that nearest neighbours are sought among, so that a reading costs the same for any sample."""


class Sample(Protocol):
    """As :class:`~twinloop.agents.artifact_inputs.InputSample`: ``measured`` ``[n, O]``, ``episode`` ``[n]``."""

    @property
    def measured(self) -> NDArray[Any]: ...
    @property
    def episode(self) -> NDArray[Any]: ...


def features(group: Group, measured: Any) -> Floats:
    """``[..., F]`` of ``measured`` ``[..., O]``: each signal in [-1, 1] over its range, angles as sine and cosine."""
    values = np.asarray(measured, np.float64)
    share = (values - group.lower("measured")) / (group.upper("measured") - group.lower("measured"))
    columns = []
    for k, signal in enumerate(group.measured):
        if signal.circular:
            columns += [np.sin(2.0 * math.pi * share[..., k]), np.cos(2.0 * math.pi * share[..., k])]
        else:
            columns.append(2.0 * share[..., k] - 1.0)
    found: Floats = np.stack(columns, axis=-1)
    return found


def shrunk_covariance(centred: Floats) -> Floats:
    """Covariance ``[F, F]`` of ``centred`` ``[n, F]``, drawn towards a multiple of the unit matrix as far as its noise
    asks for (Ledoit & Wolf 2004)."""
    n, f = centred.shape
    sample = centred.T @ centred / n
    mean = np.trace(sample) / f
    far = ((sample - mean * np.eye(f)) ** 2).sum()
    noise = min(((centred**2).T @ (centred**2) / n - sample**2).sum() / n, far)
    share = 0.0 if far <= 0.0 else noise / far
    found: Floats = (1.0 - share) * sample + share * mean * np.eye(f)
    return found


@dataclass(frozen=True)
class Mahalanobis:
    """Distance from the mean, in standard deviations along each direction."""

    mean: Floats
    whitening: Floats

    @staticmethod
    def fit(rows: Floats) -> Mahalanobis:
        """Of ``rows`` ``[n, F]``."""
        mean = rows.mean(axis=0)
        covariance = shrunk_covariance(rows - mean) + _LEAST_SPREAD**2 * np.eye(rows.shape[1])
        return Mahalanobis(mean, np.linalg.inv(np.linalg.cholesky(covariance)).T)

    def __call__(self, rows: Floats) -> Floats:
        found: Floats = np.sqrt((((rows - self.mean) @ self.whitening) ** 2).sum(axis=-1))
        return found


@dataclass(frozen=True)
class NearestNeighbours:
    """Distance to the ``k``-th nearest stored row, features scaled to unit spread: for what has several centres, as
    operating points (Sun et al. 2022, arXiv 2204.06507)."""

    stored: Floats
    spread: Floats
    k: int

    @staticmethod
    def fit(rows: Floats, k: int = 5) -> NearestNeighbours:
        """Of ``rows`` ``[n, F]``, evenly thinned to at most 1,024."""
        spread = np.maximum(rows.std(axis=0), _LEAST_SPREAD)
        stored = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_STORED)).astype(np.int64)] / spread
        return NearestNeighbours(stored, spread, min(k, len(stored)))

    def __call__(self, rows: Floats) -> Floats:
        scaled = rows / self.spread
        square = (scaled**2).sum(-1)[:, None] - 2.0 * scaled @ self.stored.T + (self.stored**2).sum(-1)
        square = np.where(np.isnan(square), np.inf, square)
        found: Floats = np.sqrt(np.maximum(np.partition(square, self.k - 1, axis=-1)[:, self.k - 1], 0.0))
        return found


@dataclass(frozen=True)
class InputCalibration:
    """``score``: of features ``[n, F]``; ``calibration``: ``[n]``, sorted scores of readings that it did not see."""

    score: Mahalanobis | NearestNeighbours
    calibration: Floats


def calibrate_inputs(
    nameplate: Nameplate, samples: Mapping[str, Sample], kind: Literal["mahalanobis", "knn"] = "mahalanobis"
) -> dict[str, InputCalibration]:
    """Fit a score on the even half of each group's episodes, calibrate it on the odd half.

    Raises :class:`ConfigurationError` for a sample of one episode, of other signals, or with values that are none.
    """
    found: dict[str, InputCalibration] = {}
    for name, sample in samples.items():
        group = nameplate.group(name)
        measured = np.asarray(sample.measured, np.float64)
        episodes = np.unique(sample.episode)
        if measured.ndim != 2 or measured.shape[1] != len(group.measured) or not np.isfinite(measured).all():
            raise ConfigurationError(
                f"sample of inputs, group {name!r}: {measured.shape}, expected finite values of "
                f"{len(group.measured)} signals; use the sample of a policy for this site"
            )
        if len(episodes) < 2:
            raise ConfigurationError(
                f"sample of inputs, group {name!r}: {len(episodes)} episodes; give at least two, such as by "
                "evaluation.replicas of the training run"
            )
        fits = np.isin(sample.episode, episodes[::2])
        rows = features(group, measured)
        score = Mahalanobis.fit(rows[fits]) if kind == "mahalanobis" else NearestNeighbours.fit(rows[fits])
        found[name] = InputCalibration(score, np.sort(score(rows[~fits])))
    return found


@dataclass(frozen=True)
class DistributionMonitor:
    """Alarms an asset after ``persistence.k`` of ``persistence.m`` readings with a p-value of at most ``alpha``.

    ``alpha``: the false-alarm rate of one reading; groups without a calibration are not judged. Raises
    :class:`ConfigurationError` for a calibration too small for ``alpha``.

    Example::

        policy = load_artifact(folder, nameplate)
        monitor = DistributionMonitor(nameplate, calibrate_inputs(nameplate, policy.inputs))
    """

    nameplate: Nameplate
    calibration: Mapping[str, InputCalibration]
    alpha: float = 0.001
    persistence: Persistence = field(default_factory=lambda: Persistence(3, 5))
    cause: Cause = Cause.OUT_OF_DISTRIBUTION
    name: str = "distribution"

    def __post_init__(self) -> None:
        for group, calibration in self.calibration.items():
            check_enough(len(calibration.calibration), self.alpha, f"{self.name} monitor, {group}")

    def start(self) -> Memory:
        n_assets = {g: self.nameplate.group(g).n_assets for g in self.calibration}
        return {f"odd/{g}": self.persistence.start(n) for g, n in n_assets.items()}

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        after: dict[str, NDArray[Any]] = {}
        alarms: Alarms = {}
        for name in self.calibration:
            group, key = self.nameplate.group(name), f"odd/{name}"
            odd = self.p_values(name, seen.measured[name]) <= self.alpha
            after[key], raised = self.persistence.step(memory[key], odd, seen.present[name])
            alarms |= {f"{name}/{group.assets[i]}": self.cause for i in np.flatnonzero(raised)}
        return after, alarms

    def p_values(self, name: str, measured: Any) -> Floats:
        """How odd each asset's reading ``[N, O]`` is, ``[N]``: small where nothing alike was seen."""
        fitted = self.calibration[name]
        return p_values(fitted.score(features(self.nameplate.group(name), measured)), fitted.calibration)
