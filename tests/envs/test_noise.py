from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from twinloop.envs import noise

MASK = 2**64 - 1


def keys(n: int, seed: int = 0, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(seed, seed + n), torch.full((n,), step, dtype=torch.int64)


def splitmix64(state: int) -> int:
    """One output of splitmix64 from a state already advanced, in integers of any size."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_finaliser_gives_the_published_outputs_of_splitmix64() -> None:
    # Rosetta Code, "Pseudo-random numbers/Splitmix64", seed 1234567: the first five outputs.
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + k * golden) & MASK for k in range(1, 6)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    assert [int(v) & MASK for v in noise._finalise(signed)] == published


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 1234567])
def test_bits_equal_the_hash_in_integers_of_any_size(seed: int) -> None:
    golden, mix, step_factor = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0xD6E8FEB86659FD93
    step, stream = 41, 5
    row = splitmix64(seed * golden + (step + 1) * step_factor + (stream + 1) * mix)
    expected = [splitmix64(row + k * golden) for k in range(1, 4)]
    drawn = noise.bits(torch.tensor([seed]), torch.tensor([step]), stream, 3)[0]
    assert [int(v) & MASK for v in drawn] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_stays_inside_the_open_interval_at_its_ends(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = torch.tensor([[0, -1]])  # all bits clear, all bits set: no seed is known that gives them
    monkeypatch.setattr(noise, "bits", lambda *_: ends)
    low, high = noise.uniform(*keys(1), 0, 2, dtype)[0].tolist()
    assert 0.0 < low < 1e-6
    assert 1.0 - 1e-6 < high < 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_and_normal_pass_kolmogorov_smirnov(dtype: torch.dtype) -> None:
    # Consecutive seeds are the worst case for a hash and the usual case for replicas. Fixed seeds: p cannot vary.
    uniform = noise.uniform(*keys(400, seed=100), 1, 250, dtype).double().numpy().ravel()
    normal = noise.normal(*keys(400, seed=100), 2, 250, dtype).double().numpy().ravel()
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.kstest(normal, "norm").pvalue > 0.01


def test_moments_of_the_normal_are_within_three_standard_errors() -> None:
    draws = noise.normal(*keys(1000, seed=7), 0, 1000, torch.float64).numpy().ravel()
    n = draws.size
    # Standard errors of the first four standardised moments of n normal draws.
    for found, expected, error in (
        (draws.mean(), 0.0, n**-0.5),
        (draws.var(), 1.0, (2 / n) ** 0.5),
        (stats.skew(draws), 0.0, (6 / n) ** 0.5),
        (stats.kurtosis(draws), 0.0, (24 / n) ** 0.5),
    ):
        assert abs(found - expected) < 3 * error


def test_the_bits_are_each_set_half_of_the_time() -> None:
    drawn = noise.bits(*keys(1000), 0, 100).numpy().ravel().view(np.uint64)
    set_share = np.array([((drawn >> np.uint64(k)) & np.uint64(1)).mean() for k in range(64)])
    assert np.all(np.abs(set_share - 0.5) < 4 * 0.5 / np.sqrt(drawn.size))  # 4: the largest of 64


def neighbours() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    n = 100_000
    seeds, steps = keys(n)
    here = noise.normal(seeds, steps, 0, 2, torch.float64)
    return {
        "seed": (here[:, 0], noise.normal(seeds + 1, steps, 0, 1, torch.float64)[:, 0]),
        "step": (here[:, 0], noise.normal(seeds, steps + 1, 0, 1, torch.float64)[:, 0]),
        "stream": (here[:, 0], noise.normal(seeds, steps, 1, 1, torch.float64)[:, 0]),
        "index": (here[:, 0], here[:, 1]),
        # A hash that only adds its keys would give seed + 1 here what seed has one step or one stream later.
        "seed against step": (
            noise.normal(seeds + 1, steps, 0, 1, torch.float64)[:, 0],
            noise.normal(seeds, steps + 1, 0, 1, torch.float64)[:, 0],
        ),
        "seed against stream": (
            noise.normal(seeds + 1, steps, 0, 1, torch.float64)[:, 0],
            noise.normal(seeds, steps, 1, 1, torch.float64)[:, 0],
        ),
    }


def test_draws_of_neighbouring_keys_are_uncorrelated_in_value_and_size() -> None:
    for name, (a, b) in neighbours().items():
        for x, y in ((a, b), (a**2, b**2), (a.abs(), b)):
            r = stats.pearsonr(x.numpy(), y.numpy()).statistic
            assert abs(r) < 4 / len(a) ** 0.5, name  # 4: the largest of 18


def test_no_two_keys_share_their_bits() -> None:
    seeds = torch.arange(200).repeat_interleave(200)
    steps = torch.arange(200).repeat(200)
    drawn = torch.cat([noise.bits(seeds, steps, stream, 4).ravel() for stream in range(5)])
    assert np.unique(drawn.numpy()).size == drawn.numel()  # 800,000 of 2**64: a clash by chance has odds of 2e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 32])
def test_a_row_is_bitwise_the_same_alone_and_in_a_batch_of_any_size(dtype: torch.dtype, n: int) -> None:
    seeds = torch.arange(1000, 1300)
    steps = torch.arange(300) % 7
    whole = noise.normal(seeds, steps, 3, n, dtype)
    for size in (1, 2, 3, 5, 8, 17, 64):
        for first in (0, 7, 300 - size):
            rows = slice(first, first + size)
            part = noise.normal(seeds[rows].clone(), steps[rows].clone(), 3, n, dtype)
            assert torch.equal(part, whole[rows]), (size, first)


def test_drawing_more_leaves_the_first_uniforms_as_they_were() -> None:
    few, many = (noise.uniform(*keys(5), 0, n, torch.float64) for n in (3, 40))
    assert torch.equal(few, many[:, :3])


def test_float32_is_float64_rounded() -> None:
    wide, narrow = (noise.normal(*keys(300), 0, 50, dtype) for dtype in (torch.float64, torch.float32))
    assert torch.equal(narrow, wide.float())


@settings(max_examples=40, deadline=None)
@given(
    n_rows=st.integers(1, 5),
    n=st.integers(1, 9),
    most_steps=st.integers(1, 7),
    resets=st.lists(st.sets(st.integers(0, 4)), max_size=20),
)
def test_draws_ahead_are_bitwise_those_of_single_steps_over_any_resets(
    n_rows: int, n: int, most_steps: int, resets: list[set[int]]
) -> None:
    ahead = noise.NormalsAhead(3, n, torch.float32, most_steps)
    seeds, steps = torch.arange(n_rows), torch.zeros(n_rows, dtype=torch.int64)
    for number, asked in enumerate(resets):
        rows = torch.tensor(sorted(row for row in asked if row < n_rows), dtype=torch.int64)
        if len(rows):
            seeds[rows], steps[rows] = seeds[rows] + 100, 0
            ahead.forget(rows)
        if number % 7 == 6:  # a restore
            steps = steps + 5
            ahead.forget()
        assert torch.equal(ahead.draw(seeds, steps), noise.normal(seeds, steps, 3, n, torch.float32))
        steps = steps + 1


def test_a_draw_that_was_handed_out_stays_as_it_is() -> None:
    ahead = noise.NormalsAhead(0, 4, torch.float64, 3)
    seeds, steps = keys(3)
    first = ahead.draw(seeds, steps)
    kept = first.clone()
    ahead.forget(torch.tensor([1]))
    for step in range(1, 8):
        ahead.draw(seeds, steps + step)
    assert torch.equal(first, kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares the GPU with the CPU; this machine has no GPU")
def test_bits_are_the_same_on_the_gpu() -> None:
    seeds, steps = keys(1000)
    assert torch.equal(noise.bits(seeds.cuda(), steps.cuda(), 0, 100).cpu(), noise.bits(seeds, steps, 0, 100))
