"""Many small programs at once: against quadprog, the optimality conditions, and bad numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.small_programs import solve_small

Floats = NDArray[np.float64]
EXACT = 1e-9


def _batch(seed: int, k: int, n: int, m: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Programs with some rows twice, some zero and some ranges far wider than others."""
    rng = np.random.default_rng(seed)
    rows, bounds = rng.normal(size=(k, m, n)), rng.uniform(-0.3, 1.0, (k, m))
    if m > 1:
        twice = rng.random(k) < 0.2
        rows[twice, 1], bounds[twice, 1] = rows[twice, 0], bounds[twice, 0]
    nothing = rng.random((k, m)) < 0.05
    rows[nothing] = 0.0
    half = 10.0 ** rng.uniform(-1, 1, (k, n))
    middle = rng.uniform(-1, 1, (k, n))
    return middle + half * rng.uniform(-3, 3, (k, n)), middle - half, middle + half, rows, bounds


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 3), m=st.integers(0, 8))
def test_solved_programs_meet_the_optimality_conditions(seed: int, n: int, m: int) -> None:
    desired, lower, upper, rows, bounds = _batch(seed, 20, n, m)
    done = solve_small(desired, lower, upper, rows, bounds)
    assert np.isfinite(done.u).all()
    assert ((lower <= done.u) & (done.u <= upper)).all()
    for i in np.flatnonzero(done.solved):
        u, price = done.u[i], done.multipliers[i]
        size = EXACT * (1 + (upper[i] - lower[i]).max())
        slack = bounds[i] - rows[i] @ u
        assert (slack >= -size * (1 + np.abs(rows[i]).sum(axis=1))).all()
        assert (price >= 0).all()
        assert (price * np.abs(slack) <= size * (1 + price.max(initial=0.0)) * 10).all()
        # what the rows leave of the gradient is the ends' own price: it pushes into the end that u stands at
        rest = desired[i] - u - rows[i].T @ price
        loose = (1 + price.max(initial=0.0) * np.abs(rows[i]).max(initial=0.0)) * size * 10
        assert (rest[u < upper[i] - size] <= loose).all()
        assert (rest[u > lower[i] + size] >= -loose).all()


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 5), (2, 8), (3, 4), (3, 8)])
def test_the_answers_are_those_of_quadprog(n: int, m: int) -> None:
    quadprog = pytest.importorskip("quadprog", reason="the cross-check comes with the extra dev")
    rng = np.random.default_rng(n * 10 + m)
    rows, bounds = rng.normal(size=(300, m, n)), rng.uniform(-0.1, 1.0, (300, m))
    desired = rng.uniform(-2, 2, (300, n))
    done = solve_small(desired, -1.0, 1.0, rows, bounds)
    for i in range(300):
        table = np.vstack([rows[i], np.eye(n), -np.eye(n)])
        ends = np.concatenate([bounds[i], np.ones(2 * n)])
        try:
            found = quadprog.solve_qp(np.eye(n), desired[i], -table.T, -ends)
        except ValueError:
            assert not done.solved[i]
            continue
        assert done.solved[i]
        np.testing.assert_allclose(done.u[i], found[0], rtol=0, atol=EXACT)
        assert desired[i] - done.u[i] - found[4] @ table == pytest.approx(0.0, abs=EXACT)
        assert done.multipliers[i] == pytest.approx(found[4][:m], abs=1e-7)


def test_safe_proposals_stay_bit_for_bit() -> None:
    desired = np.random.default_rng(1).uniform(-1, 1, (100, 2))
    done = solve_small(desired, -1.0, 1.0, np.ones((100, 3, 2)), np.full((100, 3), 2.0))
    assert np.array_equal(done.u, desired)
    assert done.solved.all()
    assert not done.multipliers.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["desired", "lower", "upper", "rows", "bounds"])
def test_a_bad_number_costs_its_own_program_alone(where: str, bad: float) -> None:
    values = {
        "desired": np.full((4, 2), 0.9),
        "lower": np.full((4, 2), -1.0),
        "upper": np.full((4, 2), 1.0),
        "rows": np.ones((4, 3, 2)),
        "bounds": np.full((4, 3), 1.0),
    }
    good = solve_small(**values)
    values[where][2].flat[0] = bad
    done = solve_small(**values)
    assert np.isfinite(done.u).all()
    assert np.array_equal(np.delete(done.u, 2, axis=0), np.delete(good.u, 2, axis=0))
    assert np.delete(done.solved, 2).all()
    harmless = where == "bounds" and bad == np.inf  # the other rows say the same
    assert done.solved[2] == harmless


@pytest.mark.parametrize("apart", [1e-7, 1.0])
def test_rows_that_exclude_each_other_are_not_called_solved(apart: float) -> None:
    rows = np.array([[[1.0, 1.0], [-1.0, -1.0]]])
    assert not solve_small([[0.5, 0.5]], -1.0, 1.0, rows, [[0.1, -0.1 - apart]]).solved[0]
    assert solve_small([[0.5, 0.5]], -1.0, 1.0, rows, [[0.1, -0.1]]).solved[0]


def test_a_zero_row_is_true_or_false_by_its_bound_alone() -> None:
    rows = np.array([[[0.0, 0.0], [1.0, 0.0]]])
    assert solve_small([[0.5, 0.5]], -1.0, 1.0, rows, [[0.0, 0.2]]).solved[0]
    assert not solve_small([[0.5, 0.5]], -1.0, 1.0, rows, [[-1e-6, 0.2]]).solved[0]


def test_programs_beyond_the_limits_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"program\.solve"):
        solve_small(np.zeros((1, 4)), -1.0, 1.0, np.zeros((1, 1, 4)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="expected"):
        solve_small(np.zeros((1, 2)), -1.0, 1.0, np.zeros((1, 1, 3)), np.zeros((1, 1)))
