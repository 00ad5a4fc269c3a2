"""Ensemble analyses against the Kalman filter, and on Lorenz-96 against the published figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinloop.envs.estimation import consistency
from twinloop.envs.estimation.ensemble import Update, deterministic, square_root, stochastic

Tensor = torch.Tensor


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def moments(members: Tensor) -> tuple[Tensor, Tensor]:
    return members.mean(0), torch.cov(members.T)


def kalman(members: Tensor, operator: Tensor, observed: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance after the observation (Kalman 1960), from the members' sample moments."""
    mean, p = moments(members)
    gain = p @ operator.T @ torch.linalg.inv(operator @ p @ operator.T + torch.diag(noise))
    return mean + gain @ (observed - operator @ mean), p - gain @ operator @ p


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    members = normal(generator, 12, 5) @ normal(generator, 5, 5)
    return members, normal(generator, 3, 5), normal(generator, 3), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def test_square_root_gives_the_kalman_filter_of_the_sample_moments(problem: Any) -> None:
    members, operator, observed, noise = problem
    generator = torch.Generator().manual_seed(1)
    for draws in (None, normal(generator, 12, 12)):
        after = square_root(members @ operator.T, observed, noise, draws=draws).of(members)
        for found, expected in zip(moments(after), kalman(members, operator, observed, noise), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_deterministic_gives_the_kalman_mean_and_half_the_gain_to_the_spread(problem: Any) -> None:
    members, operator, observed, noise = problem
    after = deterministic(members @ operator.T, observed, noise).of(members)
    _, p = moments(members)
    gain = p @ operator.T @ torch.linalg.inv(operator @ p @ operator.T + torch.diag(noise))
    half = torch.eye(5, dtype=torch.float64) - 0.5 * gain @ operator
    torch.testing.assert_close(moments(after)[0], kalman(members, operator, observed, noise)[0])
    torch.testing.assert_close(moments(after)[1], half @ p @ half.T)


def test_stochastic_gives_the_kalman_moments_of_many_members() -> None:
    generator = torch.Generator().manual_seed(3)
    n = 2000
    members, operator = normal(generator, n, 2) * torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.5]]).double()
    noise, observed = torch.tensor([0.7]).double(), torch.tensor([1.3]).double()
    after = stochastic(members @ operator.T, observed, noise, draws=normal(generator, n, 1)).of(members)
    for found, expected in zip(moments(after), kalman(members, operator, observed, noise), strict=True):
        assert (found - expected).abs().max() < 3.0 * 4.0 * (2.0 / n) ** 0.5  # variances are 4 at most


def test_nis_is_the_innovation_against_its_predicted_covariance(problem: Any) -> None:
    members, operator, observed, noise = problem
    mean, p = moments(members)
    innovation = observed - operator @ mean
    expected = innovation @ torch.linalg.inv(operator @ p @ operator.T + torch.diag(noise)) @ innovation
    for update in (deterministic, square_root):
        torch.testing.assert_close(update(members @ operator.T, observed, noise).nis, expected)


@pytest.mark.parametrize("update", [deterministic, square_root, stochastic])
def test_what_all_members_share_stays_as_it_is(problem: Any, update: Update) -> None:
    members, operator, observed, noise = problem
    draws = normal(torch.Generator().manual_seed(2), 12, 3) if update is stochastic else None
    analysis = update(members @ operator.T, observed, noise, inflation=1.3, draws=draws)
    shared = torch.full((12, 2, 3), 7.25, dtype=torch.float64)
    torch.testing.assert_close(analysis.of(shared), shared)


def test_inflation_widens_the_anomalies_alone(problem: Any) -> None:
    members, operator, observed, noise = problem
    plain, wide = (deterministic(members @ operator.T, observed, noise, inflation=f).of(members) for f in (1.0, 1.5))
    torch.testing.assert_close(wide.mean(0), plain.mean(0))
    torch.testing.assert_close(moments(wide)[1], 2.25 * moments(plain)[1])


def test_the_stochastic_analysis_asks_for_its_chance(problem: Any) -> None:
    members, operator, observed, noise = problem
    with pytest.raises(ValueError, match="give draws"):
        stochastic(members @ operator.T, observed, noise)


def lorenz96(x: Tensor, dt: float = 0.05, forcing: float = 8.0) -> Tensor:
    """One step of the fourth-order Runge-Kutta method (Lorenz & Emanuel 1998)."""

    def slope(y: Tensor) -> Tensor:
        return (y.roll(-1, -1) - y.roll(2, -1)) * y.roll(1, -1) - y + forcing

    a = slope(x)
    b = slope(x + 0.5 * dt * a)
    c = slope(x + 0.5 * dt * b)
    return x + dt / 6.0 * (a + 2.0 * b + 2.0 * c + slope(x + dt * c))


@pytest.mark.parametrize(
    ("update", "n", "inflation", "shape", "bar", "most_covered"),
    [
        pytest.param(deterministic, 40, 1.01, None, 0.19, 0.97, id="denkf"),
        pytest.param(stochastic, 40, 1.06, (40, 40), 0.23, 0.97, id="stochastic"),
        pytest.param(square_root, 30, 1.02, (30, 30), 0.19, 0.98, id="etkf"),
    ],
)
def test_lorenz96_is_tracked_as_well_as_published_filters_do(
    update: Update, n: int, inflation: float, shape: tuple[int, int] | None, bar: float, most_covered: float
) -> None:
    """DAPPER's sakov2008 set-up: 40 states, all observed with variance one each 0.05; DEnKF 0.18, stochastic 0.22.

    The published ETKF has 24 members; so few lose the truth for good under one of five seeds that were tried here.
    """
    generator = torch.Generator().manual_seed(3)
    truth = normal(generator, 40)
    for _ in range(500):
        truth = lorenz96(truth)
    members, noise = truth + normal(generator, n, 40), torch.ones(40, dtype=torch.float64)
    errors, inside = [], []
    for k in range(1300):
        truth, members = lorenz96(truth), lorenz96(members)
        draws = None if shape is None else normal(generator, *shape)
        observed = truth + normal(generator, 40)
        members = update(members, observed, noise, inflation=inflation, draws=draws).of(members)
        if k >= 300:
            errors.append((members.mean(0) - truth).square().mean().sqrt())
            inside.append(consistency.covered(members, truth, torch.zeros(40).double()).double().mean())
    assert torch.stack(errors).mean() <= bar
    assert 0.93 <= torch.stack(inside).mean() <= most_covered


def test_the_gate_opens_only_with_a_full_window_inside_both_bands() -> None:
    generator = torch.Generator().manual_seed(5)

    def judged(error: float, n_periods: int = 60) -> consistency.Verdict:
        watch = consistency.Consistency(window=60)
        for _ in range(n_periods):
            seen, noise = normal(generator, 50, 4), torch.full((4,), 0.25, dtype=torch.float64)
            observed = error * 1.25**0.5 * normal(generator, 4)
            nis = deterministic(seen, observed, noise).nis
            watch.add(float(nis), consistency.covered(seen, observed, noise))
        return watch.verdict()

    assert judged(1.0).in_band
    assert not judged(1.0, n_periods=59).in_band
    for error, word in ((3.0, "NIS"), (0.2, "coverage")):
        verdict = judged(error)
        assert not verdict.in_band
        assert word in verdict.why


def test_a_number_that_is_none_closes_the_gate() -> None:
    watch = consistency.Consistency(window=1)
    watch.add(float("nan"), torch.ones(3, dtype=torch.bool))
    assert not watch.verdict().in_band
