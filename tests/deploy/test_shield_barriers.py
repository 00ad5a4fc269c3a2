"""Rows that keep measured states safe: closed loops with held commands, golden figures, and any number of assets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.barriers import Rows, barrier_rows, closing_speed, held_margin, separation_rows, standing
from twinloop.deploy.shield.program import Status, solve
from twinloop.deploy.shield.small_programs import solve_small

Floats = NDArray[np.float64]


class Given(NamedTuple):
    h: Floats
    drift: Floats
    control: Floats
    drift2: Floats | None = None


def test_a_row_of_degree_one_says_what_the_barrier_says() -> None:
    terms = Given(np.array([2.0, -1.0]), np.array([0.5, 0.0]), np.array([[1.0, -1.0], [0.0, 3.0]]))
    rows, bounds = barrier_rows(terms, gain_per_s=0.5, margin=0.1)
    np.testing.assert_array_equal(rows, [[-1.0, 1.0], [0.0, -3.0]])
    np.testing.assert_allclose(bounds, [1.4, -0.6], rtol=0, atol=1e-15)


def test_a_row_of_degree_two_says_what_the_barrier_says() -> None:
    terms = Given(np.array([2.0]), np.array([-0.5]), np.array([[1.0]]), np.array([0.25]))
    rows, bounds = barrier_rows(terms, gain_per_s=1.0, gain2_per_s=3.0, margin=0.1)
    np.testing.assert_array_equal(rows, [[-1.0]])
    assert bounds[0] == pytest.approx(0.25 + 4.0 * -0.5 + 3.0 * 2.0 - 0.1, abs=1e-15)


def test_degree_two_without_second_derivative_is_refused() -> None:
    with pytest.raises(ValueError, match="drift2"):
        barrier_rows(Given(np.ones(1), np.ones(1), np.ones((1, 1))), 1.0, 1.0)


def _pushed(margin: float, period_s: float = 0.2) -> float:
    """Lowest ``h = 1 - x`` of unstable assets ``x' = x + u`` that are pushed up as far as their row allows."""
    x, worst = np.linspace(-1.0, 0.3, 60), np.inf
    for _ in range(40):
        rows, bounds = barrier_rows(Given(1.0 - x, -x, np.full((60, 1), -1.0)), 1.0 / period_s, margin=margin)
        done = solve_small(np.full((60, 1), 9.0), -1.5, 1.5, rows[:, None], bounds[:, None])
        assert margin == 0.0 or done.solved.all()
        for part in np.linspace(0.0, period_s, 11):  # the exact solution at held commands
            worst = min(worst, float((1.0 - ((x + done.u[:, 0]) * np.exp(part) - done.u[:, 0])).min()))
        x = (x + done.u[:, 0]) * np.exp(period_s) - done.u[:, 0]
    return worst


def test_the_margin_pays_for_commands_held_through_a_period() -> None:
    # the row's left side changes by (1 + gain) |x'| a second at most, and |x'| <= 2.5 while the state is safe
    assert _pushed(0.0) < -1e-2
    assert _pushed(float(held_margin(6.0 * 2.5, 0.2))) >= 0.0


def test_degree_two_keeps_a_double_integrator_from_the_wall() -> None:
    # wall at 0, h = x, commands are accelerations in +-2; every start inside both sets
    rng = np.random.default_rng(0)
    x, v = rng.uniform(0.0, 5.0, 400), rng.uniform(-3.0, 1.0, 400)
    gain, gain2, period_s = 0.5, 1.0, 0.05
    inside = standing(Given(x, v, np.ones((400, 1)), np.zeros(400)), gain, gain2) >= 0
    x, v = x[inside], v[inside]
    # psi' = g1 g2 v + (g1 + g2) u, with speeds to 3 and accelerations to 2
    margin = float(held_margin(gain * gain2 * 3.0 + (gain + gain2) * 2.0, period_s))
    lowest = np.inf
    for _ in range(300):
        terms = Given(x, v, np.ones((len(x), 1)), np.zeros(len(x)))
        rows, bounds = barrier_rows(terms, gain, gain2, margin)
        done = solve_small(np.full((len(x), 1), -2.0), -2.0, 2.0, rows[:, None], bounds[:, None])
        u = np.where(done.solved, done.u[:, 0], 2.0)
        for _ in range(5):
            x, v = x + v * period_s / 5 + 0.5 * u * (period_s / 5) ** 2, v + u * period_s / 5
            lowest = min(lowest, float(x.min()))
    assert len(x) > 150
    assert lowest >= -1e-9


def test_the_speed_beside_a_person_has_its_golden_value() -> None:
    # D = 1.5 m, C + Z = 0.3 m, person at 1.6 m/s, reaction 0.1 s, braking 5 m/s2
    assert closing_speed(1.5 - 0.3, 5.0, 0.1, 1.6) == pytest.approx(1.748, abs=5e-4)
    assert closing_speed(0.15, 5.0, 0.1, 1.6) == 0.0  # the person alone uses up the gap


@settings(max_examples=200, deadline=None)
@given(gap=st.floats(0.0, 10.0), braking=st.floats(0.1, 20.0), reaction=st.floats(0.0, 1.0), other=st.floats(0.0, 3.0))
def test_the_speed_uses_up_the_gap_and_no_more(gap: float, braking: float, reaction: float, other: float) -> None:
    v = float(closing_speed(gap, braking, reaction, other))
    used = v * reaction + other * (reaction + v / braking) + v * v / (2 * braking)
    assert v >= 0
    assert used <= gap + 1e-9 or v == 0.0
    if v > 0:
        assert used == pytest.approx(gap, abs=1e-9 * (1 + gap))


def _drive(seed: int, shares: Floats | None, braking: float | None, steps: int = 150) -> tuple[float, int]:
    """Nearest distance of eight assets that all want to be at one place, and how many programs had no answer."""
    rng = np.random.default_rng(seed)
    n, period_s = 8, 0.1
    angle = np.arange(n) * 2 * np.pi / n + rng.uniform(-0.2, 0.2, n)
    where = 5.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    nearest, unanswered = np.inf, 0
    one = np.ones(2 * n)
    for _ in range(steps):
        rows, bounds = separation_rows(where, 1.0, 5.0, period_s, braking=braking, shares=shares, fastest=np.sqrt(2.0))
        done = solve((-where + rng.normal(0, 1, where.shape)).ravel(), -one, one, rows, bounds)
        unanswered += done.u is None
        u = np.zeros(2 * n) if done.u is None else done.u
        for _ in range(4):
            where = where + u.reshape(n, 2) * period_s / 4
            apart = np.linalg.norm(where[:, None] - where[None], axis=2)[np.triu_indices(n, 1)]
            nearest = min(nearest, float(apart.min()))
    return nearest, unanswered


@pytest.mark.parametrize("braking", [None, 2.0])
@pytest.mark.parametrize("shared", [False, True])
def test_assets_that_crowd_one_place_stay_apart(shared: bool, braking: float | None) -> None:
    pytest.importorskip("daqp", reason="rows that couple commands come with the extra edge")
    shares = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 1.0, 0.5, 1.0]) if shared else None
    nearest, unanswered = _drive(3, shares, braking)
    assert nearest >= 1.0 - 1e-7
    assert nearest < 1.1  # they did crowd
    assert unanswered == 0


def test_with_shares_each_keeps_its_row_without_knowing_the_other() -> None:
    rng = np.random.default_rng(0)
    where = rng.uniform(-3, 3, (5, 3))
    joint = separation_rows(where, 0.5, 1.0, 0.1)
    shared = separation_rows(where, 0.5, 1.0, 0.1, shares=rng.uniform(0.2, 3, 5))
    assert len(joint.rows) == 10
    assert len(shared.rows) == 20
    touched = (shared.rows.reshape(20, 5, 3) != 0).any(axis=2)
    assert (touched.sum(axis=1) == 1).all()
    # keeping both rows of a pair keeps the pair's row
    np.testing.assert_allclose(shared.rows[::2] + shared.rows[1::2], joint.rows, rtol=0, atol=1e-15)
    np.testing.assert_allclose(shared.bounds[::2] + shared.bounds[1::2], joint.bounds, rtol=0, atol=1e-15)


def test_pairs_too_far_to_meet_get_no_row() -> None:
    where = np.array([[0.0, 0.0], [1.5, 0.0], [100.0, 0.0]])
    assert len(separation_rows(where, 1.0, 1.0, 0.1, fastest=1.0).rows) == 1


def test_assets_at_one_place_part_the_same_way_every_time() -> None:
    pytest.importorskip("daqp", reason="rows that couple commands come with the extra edge")
    found: Rows = separation_rows(np.zeros((2, 2)), 1.0, 1.0, 1.0)
    done = solve(np.zeros(4), -np.ones(4), np.ones(4), *found)
    assert done.status is Status.OPTIMAL
    assert done.u is not None
    np.testing.assert_allclose(done.u, [-0.5, 0.0, 0.5, 0.0], rtol=0, atol=1e-12)


def test_shares_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        separation_rows(np.eye(2), 1.0, 1.0, 0.1, shares=np.array([1.0, 0.0]))
