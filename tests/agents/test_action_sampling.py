"""Draws and their densities, against torch.distributions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.agents.action_sampling import choose_levels, log_prob_of_normal
from twinloop.envs.noise import uniform

COUNTS = (3, 1, 4)


def logits(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.0, 2.0, (n, sum(COUNTS))).astype(np.float32)


def draws(n: int, seed: int = 1) -> Any:
    return uniform(torch.full((n,), seed), torch.arange(n), 5, sum(COUNTS), torch.float32).numpy()


def masks(n: int, seed: int = 2) -> Any:
    flags = np.random.default_rng(seed).random((n, sum(COUNTS))) < 0.6
    flags[:, [0, 3, 6]] = True
    return flags


def parts(array: Any) -> list[Any]:
    ends = np.cumsum([0, *COUNTS])
    return [array[..., a:b] for a, b in itertools.pairwise(ends)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), masked=st.booleans())
def test_the_log_probability_is_that_of_torchs_masked_categorical(seed: int, masked: bool) -> None:
    x, legal = logits(50, seed), masks(50, seed) if masked else None
    chosen, log_prob = choose_levels(x, COUNTS, draws(50, seed), legal)
    kept = x if legal is None else np.where(legal, x, -np.inf)
    peers: list[Any] = [torch.distributions.Categorical(logits=torch.from_numpy(part)) for part in parts(kept)]
    expected = sum(peer.log_prob(torch.from_numpy(chosen[:, k])) for k, peer in enumerate(peers))
    assert isinstance(expected, torch.Tensor)
    np.testing.assert_allclose(log_prob, expected.numpy(), rtol=1e-5, atol=2e-6)
    assert np.isfinite(log_prob).all()


def test_levels_are_drawn_with_their_probabilities_and_never_an_illegal_one() -> None:
    n = 40_000
    x, legal = np.repeat(logits(1), n, 0), np.repeat(masks(1, 9), n, 0)
    assert not legal[0].all()
    chosen, _ = choose_levels(x, COUNTS, draws(n), legal)
    for k, part in enumerate(parts(np.where(legal, x, -np.inf))):
        expected = torch.softmax(torch.from_numpy(part[0]), -1).numpy()
        found = np.bincount(chosen[:, k].astype(int), minlength=len(expected)) / n
        assert np.all(np.abs(found - expected) <= 3 * np.sqrt(expected * (1 - expected) / n) + 1e-12)


def test_without_draws_the_likeliest_legal_level_is_chosen() -> None:
    x, legal = logits(30), masks(30)
    chosen, _ = choose_levels(x, COUNTS, None, legal)
    for k, part in enumerate(parts(np.where(legal, x, -np.inf))):
        np.testing.assert_array_equal(chosen[:, k], part.argmax(-1))


def test_the_ends_of_the_uniform_draws_give_finite_choices() -> None:
    ends = np.array([2.0**-24, 1.0 - 2.0**-24], np.float32)
    u = np.repeat(ends[:, None], sum(COUNTS), 1)
    chosen, log_prob = choose_levels(logits(2), COUNTS, u, None)
    assert np.isfinite(chosen).all()
    assert np.isfinite(log_prob).all()


def test_the_gaussian_density_is_torchs_for_shared_and_for_separate_deviations() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 4, 3, 2)).astype(np.float32)
    for log_std in (rng.normal(size=(1, 2)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)):
        peer: Any = torch.distributions.Normal(0.0, torch.from_numpy(np.exp(log_std)))
        expected = peer.log_prob(torch.from_numpy(z * np.exp(log_std))).sum(-1).numpy()
        np.testing.assert_allclose(log_prob_of_normal(z, log_std), expected, rtol=1e-5, atol=1e-5)
