"""Ensemble Kalman analyses on the batch axis: the replicas of a twin are the members.

State and parameters are estimated together by standing in one vector. What is observed of each member may be any
function of it, so no observation matrix is needed: covariances come from the members themselves.

- :func:`stochastic`: perturbed observations (Burgers, van Leeuwen & Evensen 1998).
- :func:`deterministic`: DEnKF, half the gain for the anomalies (Sakov & Oke 2008, Tellus A 60).
- :func:`transform`: ETKF, the symmetric square root in the space of the members (Hunt, Kostelich & Szunyogh 2007).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

Tensor = torch.Tensor


class Analysis(NamedTuple):
    """``members``: ``[B, D]`` after the observation; ``innovation``: ``[K]``, observed less predicted mean;
    ``nis``: normalised innovation squared, ``K`` on average where spread and noise are told right."""

    members: Tensor
    innovation: Tensor
    nis: Tensor


class Update(Protocol):
    """One of the analyses below."""

    def __call__(
        self, members: Tensor, seen: Tensor, observed: Tensor, noise: Tensor, *,
        inflation: float = ..., taper: Tensor | None = ..., draws: Tensor | None = ...,
    ) -> Analysis: ...  # fmt: skip


def stochastic(
    members: Tensor, seen: Tensor, observed: Tensor, noise: Tensor, *,
    inflation: float = 1.0, taper: Tensor | None = None, draws: Tensor | None = None,
) -> Analysis:  # fmt: skip
    """Members ``[B, D]`` after ``observed`` ``[K]``, each moved towards an observation of its own.

    ``seen``: ``[B, K]``, what each member predicts to be observed; ``noise``: ``[K]``, variances of the observation;
    ``inflation`` multiplies the anomalies afterwards; ``taper``: ``[D, K]`` in 0 to 1, how far an observation reaches;
    ``draws``: ``[B, K]`` standard normal, needed here: whoever calls decides where chance comes from.
    """
    if draws is None:
        raise ValueError("the stochastic analysis perturbs its observations: give draws, [B, K] standard normal")
    anomalies, spread, mean_seen = _anomalies(members), _anomalies(seen), seen.mean(0)
    gain = _gain(anomalies, spread, noise, taper)
    perturbed = _anomalies(draws) * noise.sqrt()
    moved = members + (observed + perturbed - seen) @ gain.T
    return _analysis(moved, inflation, observed - mean_seen, spread, noise)


def deterministic(
    members: Tensor, seen: Tensor, observed: Tensor, noise: Tensor, *,
    inflation: float = 1.0, taper: Tensor | None = None, draws: Tensor | None = None,
) -> Analysis:  # fmt: skip
    """As :func:`stochastic` without chance: the mean takes the whole gain, the anomalies half of it."""
    anomalies, spread, mean_seen = _anomalies(members), _anomalies(seen), seen.mean(0)
    gain = _gain(anomalies, spread, noise, taper)
    innovation = observed - mean_seen
    moved = members + innovation @ gain.T - 0.5 * spread @ gain.T
    return _analysis(moved, inflation, innovation, spread, noise)


def transform(
    members: Tensor, seen: Tensor, observed: Tensor, noise: Tensor, *,
    inflation: float = 1.0, taper: Tensor | None = None, draws: Tensor | None = None,
) -> Analysis:  # fmt: skip
    """As :func:`deterministic` by the symmetric square root, exact where few members see many things.

    ``draws``: ``[B, B]`` standard normal, if given, turns the members at random about their mean, which keeps them from
    clustering. A taper has no place in the space of the members: give local observations instead.
    """
    if taper is not None:
        raise ValueError("the transform has no taper: analyse parts with the observations near them, or use another")
    n = len(members)
    anomalies, spread, mean_seen = _anomalies(members), _anomalies(seen), seen.mean(0)
    innovation = observed - mean_seen
    scaled = spread / noise.sqrt()
    values, vectors = torch.linalg.eigh(scaled @ scaled.T)
    values = values.clamp_min(0.0)
    weights = vectors @ ((vectors.T @ (scaled @ (innovation / noise.sqrt()))) / (values + n - 1))
    root = (vectors * ((n - 1) / (values + n - 1)).sqrt()) @ vectors.T
    if draws is not None:
        root = _turn(draws) @ root
    moved = members.mean(0) + weights @ anomalies + root @ anomalies
    return _analysis(moved, inflation, innovation, spread, noise)


def _anomalies(members: Tensor) -> Tensor:
    return members - members.mean(0)


def _gain(anomalies: Tensor, spread: Tensor, noise: Tensor, taper: Tensor | None) -> Tensor:
    """``[D, K]``, from the members' own covariances."""
    n = len(anomalies) - 1
    across = anomalies.T @ spread / n
    if taper is not None:
        across = across * taper
    within = spread.T @ spread / n + torch.diag(noise)
    gain: Tensor = torch.linalg.solve(within, across, left=False)
    return gain


def _analysis(moved: Tensor, inflation: float, innovation: Tensor, spread: Tensor, noise: Tensor) -> Analysis:
    mean = moved.mean(0)
    within = spread.T @ spread / (len(moved) - 1) + torch.diag(noise)
    return Analysis(mean + inflation * (moved - mean), innovation, innovation @ torch.linalg.solve(within, innovation))


def _turn(draws: Tensor) -> Tensor:
    """A random orthogonal matrix ``[B, B]`` that leaves the mean where it is (Sakov & Oke 2008, MWR 136)."""
    n = len(draws)
    ones = torch.ones(n, 1, dtype=draws.dtype)
    basis, _ = torch.linalg.qr(torch.cat([ones, draws[:, 1:]], dim=1))
    inner, corner = torch.linalg.qr(draws[1:, 1:])
    inner = inner * corner.diagonal().sign()
    block = torch.eye(n, dtype=draws.dtype)
    block[1:, 1:] = inner
    turn: Tensor = basis @ block @ basis.T
    return turn
