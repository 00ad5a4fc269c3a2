"""Ensemble Kalman analyses on the batch axis: the replicas of a twin are the members.

An analysis is one matrix ``[B, B]`` that mixes the members: ``members_after = transform @ members``. Whatever has a
replica axis goes through it, state and parameters together, and what all members share stays as it is, since the rows
of the matrix sum to one. Only what is observed of each member has to be known, by any function of its state.

- :func:`stochastic`: perturbed observations (Burgers, van Leeuwen & Evensen 1998).
- :func:`deterministic`: DEnKF, half the gain for the anomalies (Sakov & Oke 2008, Tellus A 60).
- :func:`square_root`: ETKF, the symmetric square root (Hunt, Kostelich & Szunyogh 2007).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

Tensor = torch.Tensor


class Analysis(NamedTuple):
    """``transform``: ``[B, B]``, rows sum to one; ``innovation``: ``[K]``, observed less predicted mean; ``nis``:
    normalised innovation squared, ``K`` on average where spread and noise are told right."""

    transform: Tensor
    innovation: Tensor
    nis: Tensor

    def of(self, members: Tensor) -> Tensor:
        """``members`` ``[B, ...]`` after the observation."""
        flat = members.reshape(len(members), -1)
        return (self.transform.to(flat.dtype) @ flat).reshape(members.shape)


class Update(Protocol):
    """One of the analyses below."""

    def __call__(
        self, seen: Tensor, observed: Tensor, noise: Tensor, *, inflation: float = ..., draws: Tensor | None = ...
    ) -> Analysis: ...


def stochastic(
    seen: Tensor, observed: Tensor, noise: Tensor, *, inflation: float = 1.0, draws: Tensor | None = None
) -> Analysis:
    """Each member moves towards an observation of its own.

    ``seen``: ``[B, K]``, what each member predicts to be observed; ``observed``: ``[K]``; ``noise``: ``[K]``, variances
    of the observation; ``inflation`` multiplies the anomalies afterwards; ``draws``: ``[B, K]`` standard normal, needed
    here: whoever calls decides where chance comes from.
    """
    if draws is None:
        raise ValueError("the stochastic analysis perturbs its observations: give draws, [B, K] standard normal")
    spread, innovation = _anomalies(seen), observed - seen.mean(0)
    perturbed = observed + _anomalies(draws) * noise.sqrt() - seen
    return _analysis(perturbed @ _half_gain(spread, noise), innovation, spread, noise, inflation)


def deterministic(
    seen: Tensor, observed: Tensor, noise: Tensor, *, inflation: float = 1.0, draws: Tensor | None = None
) -> Analysis:
    """As :func:`stochastic` without chance: the mean takes the whole gain, the anomalies half of it."""
    spread, innovation = _anomalies(seen), observed - seen.mean(0)
    return _analysis((innovation - 0.5 * spread) @ _half_gain(spread, noise), innovation, spread, noise, inflation)


def square_root(
    seen: Tensor, observed: Tensor, noise: Tensor, *, inflation: float = 1.0, draws: Tensor | None = None
) -> Analysis:
    """As :func:`deterministic` with the exact covariance of the Kalman filter.

    ``draws``: ``[B, B]`` standard normal, if given, turns the members at random about their mean, which keeps them from
    clustering.
    """
    n = len(seen)
    spread, innovation = _anomalies(seen), observed - seen.mean(0)
    scaled = spread / noise.sqrt()
    values, vectors = torch.linalg.eigh(scaled @ scaled.T)
    values = values.clamp_min(0.0)
    weights = vectors @ ((vectors.T @ (scaled @ (innovation / noise.sqrt()))) / (values + n - 1))
    root = (vectors * ((n - 1) / (values + n - 1)).sqrt()) @ vectors.T
    if draws is not None:
        root = _turn(draws) @ root
    eye = torch.eye(n, dtype=seen.dtype)
    return _analysis(weights + root - eye, innovation, spread, noise, inflation)


def _anomalies(members: Tensor) -> Tensor:
    return members - members.mean(0)


def _half_gain(spread: Tensor, noise: Tensor) -> Tensor:
    """``[K, B]``: the Kalman gain is this times the members' anomalies."""
    n = len(spread) - 1
    gain: Tensor = torch.linalg.solve(spread.T @ spread / n + torch.diag(noise), spread.T / n)
    return gain


def _analysis(change: Tensor, innovation: Tensor, spread: Tensor, noise: Tensor, inflation: float) -> Analysis:
    """From ``change`` ``[B, B]``: what of each member's anomaly is added to each member."""
    n = len(spread)
    eye = torch.eye(n, dtype=spread.dtype)
    transform = eye + change @ (eye - 1.0 / n)
    mean = transform.mean(0)
    within = spread.T @ spread / (n - 1) + torch.diag(noise)
    nis = innovation @ torch.linalg.solve(within, innovation)
    return Analysis(mean + inflation * (transform - mean), innovation, nis)


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
