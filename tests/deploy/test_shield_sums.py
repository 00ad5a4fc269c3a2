"""Sum limits by water-filling: against quadprog, the optimality conditions, and bad numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.sums import SUM_TOLERANCE, SumStatus, fill

Floats = NDArray[np.float64]
EXACT = 1e-9


def _row(seed: int, n: int, signs: bool) -> tuple[Floats, Floats, Floats, Floats, float, float]:
    """Asked commands, ranges (one in five of no width), weights (some alike, some 0) and a pair of limits."""
    rng = np.random.default_rng(seed)
    middle, half = rng.uniform(-2, 2, n), rng.uniform(0, 2, n) * (rng.random(n) > 0.2)
    asked = np.round(rng.uniform(-5, 5, n), rng.integers(0, 6))
    weights = np.round(rng.uniform(0.1, 3, n), rng.integers(0, 4)) * (rng.random(n) > 0.1)
    if signs:
        weights *= rng.choice([-1.0, 1.0], n)
    ends = np.sort(rng.normal(0, 1 + np.sqrt(n), 2))
    return asked, middle - half, middle + half, weights, float(ends[0]), float(ends[1])


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), signs=st.booleans())
def test_the_answer_meets_the_optimality_conditions(seed: int, n: int, signs: bool) -> None:
    asked, lower, upper, weights, least, most = _row(seed, n, signs)
    done = fill(asked, lower, upper, weights, least, most)
    u, price = done.u[0], done.multiplier[0]
    assert np.isfinite(u).all()
    assert (lower <= u).all()
    assert (u <= upper).all()
    total = float(weights @ u)
    size = EXACT * (1 + np.abs(weights) @ np.maximum(np.abs(lower), np.abs(upper)))
    ends = np.minimum(weights * lower, weights * upper).sum(), np.maximum(weights * lower, weights * upper).sum()
    if done.status[0] == SumStatus.UNREACHABLE:
        assert ends[0] > most - size or ends[1] < least + size
        assert total == pytest.approx(ends[0] if ends[0] > most - size else ends[1], abs=float(size))
        return
    assert least - size <= total <= most + size
    # stationarity with the range: u is the clipped move along the weights by the multiplier
    np.testing.assert_allclose(u, np.clip(asked - price * weights, lower, upper), rtol=0, atol=EXACT)
    # complementarity: a price only at the end that it belongs to
    assert price <= 0 or total == pytest.approx(most, abs=float(size))
    assert price >= 0 or total == pytest.approx(least, abs=float(size))


@pytest.mark.parametrize("signs", [False, True])
def test_the_answer_is_that_of_quadprog(signs: bool) -> None:
    quadprog = pytest.importorskip("quadprog", reason="the cross-check comes with the extra dev")
    checked = 0
    for seed in range(300):
        asked, lower, upper, weights, least, most = _row(seed, 1 + seed % 25, signs)
        upper = np.maximum(upper, lower + 0.01)  # quadprog does not take ranges of no width
        done = fill(asked, lower, upper, weights, least, most)
        rows = np.vstack([np.eye(len(asked)), -np.eye(len(asked)), weights, -weights])
        bounds = np.concatenate([lower, -upper, [least, -most]])
        try:
            expected = quadprog.solve_qp(np.eye(len(asked)), asked, rows.T, bounds)[0]
        except ValueError:
            assert done.status[0] == SumStatus.UNREACHABLE
            continue
        np.testing.assert_allclose(done.u[0], expected, rtol=0, atol=EXACT)
        checked += 1
    assert checked > 200


def test_a_cap_takes_the_same_from_each_until_its_end() -> None:
    done = fill([3.0, 2.0, 0.5], 0.0, 5.0, maximum=3.5)
    np.testing.assert_allclose(done.u[0], [2.25, 1.25, 0.0], rtol=0, atol=1e-15)
    assert done.multiplier[0] == pytest.approx(0.75, abs=1e-15)
    assert done.status[0] == SumStatus.LIMITED


def test_a_safe_proposal_stays_bit_for_bit() -> None:
    asked = np.random.default_rng(0).uniform(0, 1, (7, 50))
    done = fill(asked, 0.0, 1.0, minimum=0.0, maximum=50.0)
    assert np.array_equal(done.u, asked)
    assert (done.status == SumStatus.KEPT).all()


def test_rows_of_a_batch_do_not_know_of_each_other() -> None:
    rows = [_row(seed, 12, True) for seed in range(40)]
    asked, lower, upper, weights = (np.array([r[i] for r in rows]) for i in range(4))
    least, most = (np.array([r[i] for r in rows]) for i in (4, 5))
    asked[3, 2] = np.nan
    together = fill(asked, lower, upper, weights, least, most)
    for i in range(40):
        alone = fill(asked[i], lower[i], upper[i], weights[i], least[i], most[i])
        np.testing.assert_allclose(together.u[i], alone.u[0], rtol=0, atol=1e-12)
        assert together.status[i] == alone.status[0]
    assert together.status[3] == SumStatus.INVALID
    assert (together.status != SumStatus.INVALID).sum() == 39


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30))
def test_filling_twice_is_filling_once(seed: int, n: int) -> None:
    asked, lower, upper, weights, least, most = _row(seed, n, True)
    once = fill(asked, lower, upper, weights, least, most).u
    twice = fill(once, lower, upper, weights, least, most).u
    np.testing.assert_allclose(twice, once, rtol=0, atol=EXACT)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["asked", "lower", "upper", "weights"])
def test_what_is_no_number_is_called_invalid_and_gives_finite_commands(where: str, bad: float) -> None:
    values = {"asked": np.full(4, 2.0), "lower": np.zeros(4), "upper": np.full(4, 3.0), "weights": np.ones(4)}
    values[where][1] = bad
    done = fill(**values, maximum=4.0)
    assert done.status[0] == SumStatus.INVALID
    assert np.isfinite(done.u).all()
    if where in ("asked", "weights"):
        assert ((done.u >= 0) & (done.u <= 3)).all()


@pytest.mark.parametrize(
    ("least", "most"),
    [(np.nan, 1.0), (0.0, np.nan), (2.0, 1.0), (np.inf, np.inf), (-np.inf, -np.inf)],
)
def test_limits_that_exclude_each_other_or_are_no_numbers_are_invalid(least: float, most: float) -> None:
    assert fill([0.5, 0.5], 0.0, 1.0, 1.0, least, most).status[0] == SumStatus.INVALID


def test_weights_that_overflow_are_invalid_and_not_sent_as_nan() -> None:
    done = fill([1.0, 1.0], 0.0, 1.0, [1e200, 1e200], maximum=1e199)
    assert np.isfinite(done.u).all()
    assert done.status[0] in (SumStatus.INVALID, SumStatus.LIMITED)


def test_an_inverted_range_is_invalid() -> None:
    assert fill([0.5], [1.0], [0.0]).status[0] == SumStatus.INVALID


def test_a_limit_out_of_reach_gives_the_nearest_end_and_says_so() -> None:
    done = fill([0.4, 0.9], 0.25, 1.0, maximum=0.1)
    np.testing.assert_array_equal(done.u[0], [0.25, 0.25])
    assert done.status[0] == SumStatus.UNREACHABLE


def test_a_cap_over_a_thousand_assets_is_passed_by_rounding_at_most() -> None:
    rng = np.random.default_rng(5)
    for scale in (1e-6, 1.0, 1e6):
        asked, weights = scale * rng.uniform(0, 2, 1000), rng.uniform(0.5, 2, 1000)
        done = fill(asked, 0.0, 1.5 * scale, weights, maximum=700.0 * scale)
        assert abs(weights @ done.u[0] - 700.0 * scale) <= 10 * SUM_TOLERANCE * 700.0 * scale


def test_shapes_that_do_not_fit_are_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        fill([1.0, 2.0], [0.0, 0.0, 0.0], 1.0)
