"""Is the policy's input like what it was trained on? A score a reading, and how odd it is among scores of training.

The sample comes from the policy's evaluation (``inputs.npz`` of its artifact). Half of its episodes say what is normal,
the other half how odd normal readings look (split-conformal, :mod:`.conformal`): whole episodes, because readings of
one are alike. An asset is judged by its features: what its encoder makes of measurements, and the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ....envs.encoder import Encoder, asked_of, encoded
from ....envs.errors import ConfigurationError
from ....envs.nameplate import Nameplate
from ..causes import Cause
from .conformal import check_enough, p_values
from .monitor import Alarms, Memory, Seen
from .persistence import Persistence

Floats = NDArray[np.float64]

_LEAST_SPREAD = 0.02
"""Standard deviation that a feature, roughly in [-1, 1], has at least: a hundredth of its span is no new situation."""
_MOST_STORED = 1024
"""Rows that nearest neighbours are sought among, so that a reading costs the same for any sample."""


class Sample(Protocol):
    """As :class:`~twinloop.agents.artifact_inputs.InputSample`: ``features`` ``[n, F]``, ``episode`` ``[n]``."""

    @property
    def features(self) -> NDArray[Any]: ...
    @property
    def episode(self) -> NDArray[Any]: ...


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

    @property
    def n_features(self) -> int:
        return len(self.mean)

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

    @property
    def n_features(self) -> int:
        return len(self.spread)

    @cached_property
    def _squares(self) -> Floats:
        found: Floats = (self.stored**2).sum(-1)
        return found

    @staticmethod
    def fit(rows: Floats, k: int = 5) -> NearestNeighbours:
        """Of ``rows`` ``[n, F]``, evenly thinned to at most 1,024."""
        spread = np.maximum(rows.std(axis=0), _LEAST_SPREAD)
        stored = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_STORED)).astype(np.int64)] / spread
        return NearestNeighbours(stored, spread, min(k, len(stored)))

    def __call__(self, rows: Floats) -> Floats:
        scaled = rows / self.spread
        square = (scaled**2).sum(-1)[:, None] - 2.0 * (scaled @ self.stored.T) + self._squares
        square = np.where(np.isnan(square), np.inf, square)
        found: Floats = np.sqrt(np.maximum(np.partition(square, self.k - 1, axis=-1)[:, self.k - 1], 0.0))
        return found


@dataclass(frozen=True)
class InputCalibration:
    """``score``: of features ``[n, F]``; ``calibration``: ``[n]``, sorted scores of readings that it did not see."""

    score: Mahalanobis | NearestNeighbours
    calibration: Floats


def calibrate_inputs(
    samples: Mapping[str, Sample], kind: Literal["mahalanobis", "knn"] = "knn"
) -> dict[str, InputCalibration]:
    """Fit a score on the even half of each group's episodes, calibrate it on the odd half.

    Raises :class:`ConfigurationError` for a sample of one episode, or with values that are no numbers.
    """
    found: dict[str, InputCalibration] = {}
    for name, sample in samples.items():
        rows = np.asarray(sample.features, np.float64)
        episodes = np.unique(sample.episode)
        if rows.ndim != 2 or len(rows) != len(sample.episode) or not np.isfinite(rows).all():
            raise ConfigurationError(
                f"sample of inputs, group {name!r}: {rows.shape} with {len(sample.episode)} episode numbers; it needs "
                "finite features [n, F] and a number a row, train the policy again"
            )
        if len(episodes) < 2:
            raise ConfigurationError(
                f"sample of inputs, group {name!r}: {len(episodes)} episodes; give at least two, such as by "
                "evaluation.replicas of the training run"
            )
        fits = np.isin(sample.episode, episodes[::2])
        score = Mahalanobis.fit(rows[fits]) if kind == "mahalanobis" else NearestNeighbours.fit(rows[fits])
        found[name] = InputCalibration(score, np.sort(score(rows[~fits])))
    return found


@dataclass(frozen=True)
class DistributionMonitor:
    """Alarms an asset after ``persistence.k`` of ``persistence.m`` readings with a p-value of at most ``alpha``.

    ``encoders``: the policy's own, by group, so that what is judged is what the policy sees; they are run here a second
    time, with a memory of their own. ``alpha``: the false-alarm rate of one reading. Groups without a calibration are
    not judged, nor are agents beside ``own``, where these are given. Raises :class:`ConfigurationError` for a
    calibration of other features, or too small for ``alpha``.

    Example::

        policy = load_artifact(folder, nameplate)
        monitor = DistributionMonitor(nameplate, policy.encoders, calibrate_inputs(policy.inputs))
    """

    nameplate: Nameplate
    encoders: Mapping[str, Encoder]
    calibration: Mapping[str, InputCalibration]
    alpha: float = 0.001
    persistence: Persistence = field(default_factory=lambda: Persistence(3, 5))
    own: frozenset[str] | None = None
    cause: Cause = Cause.OUT_OF_DISTRIBUTION
    name: str = "distribution"

    def __post_init__(self) -> None:
        for group, calibration in self.calibration.items():
            here, there = self.encoders[group].n_features, calibration.score.n_features
            if here != there:
                raise ConfigurationError(
                    f"{self.name} monitor: the encoder of group {group!r} makes {here} features, the sample has "
                    f"{there}; take the encoder and the sample of one artifact"
                )
            check_enough(len(calibration.calibration), self.alpha, f"{self.name} monitor, {group}")

    @cached_property
    def _asked(self) -> dict[str, NDArray[np.bool_]]:
        return asked_of(self.nameplate, self.own)

    def start(self) -> Memory:
        kept: dict[str, NDArray[Any]] = {}
        for name in self.calibration:
            group = self.nameplate.group(name)
            kept[f"odd/{name}"] = self.persistence.start(group.n_assets)
            like = np.zeros((1, group.n_assets, len(group.measured)))
            kept |= {f"encoder/{name}/{k}": a for k, a in self.encoders[name].start(1, group.n_assets, like).items()}
        return kept

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        after, p = self.p_values(memory, seen)
        alarms: Alarms = {}
        for name, values in p.items():
            group, key = self.nameplate.group(name), f"odd/{name}"
            judged = seen.present[name] & self._asked.get(name, True)
            after[key], raised = self.persistence.step(memory[key], values <= self.alpha, judged)
            alarms |= {f"{name}/{group.assets[i]}": self.cause for i in np.flatnonzero(raised)}
        return after, alarms

    def p_values(self, memory: Memory, seen: Seen) -> tuple[dict[str, NDArray[Any]], dict[str, Floats]]:
        """What is remembered after this reading, and how odd each asset's features are, ``[N]`` a group: small where
        nothing alike was seen, 1 where the policy does not answer."""
        after: dict[str, NDArray[Any]] = dict(memory)
        found: dict[str, Floats] = {}
        for name, fitted in self.calibration.items():
            prefix = f"encoder/{name}/"
            kept = {k.removeprefix(prefix): a for k, a in memory.items() if k.startswith(prefix)}
            statics, present = self.nameplate.group(name).statics_array()[None], seen.present[name][None]
            measured, asked = np.asarray(seen.measured[name])[None], self._asked.get(name)
            features, new = encoded(
                self.encoders[name], measured, statics, present, kept, self.nameplate.period_s, asked
            )
            after |= {prefix + k: a for k, a in new.items()}
            rows = np.asarray(features[0], np.float64)
            if asked is None:
                found[name] = p_values(fitted.score(rows), fitted.calibration)
            else:
                found[name] = np.ones(len(rows))
                found[name][asked] = p_values(fitted.score(rows[asked]), fitted.calibration)
        return after, found
