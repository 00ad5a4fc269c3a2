"""The exact chain against the closed forms and published values that facts give for it."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line.exact_line import ExactMachine, solve_line


def bernoulli(*efficiencies: float) -> list[ExactMachine]:
    return [ExactMachine(p) for p in efficiencies]


def two_machines(p1: float, p2: float, n: int) -> float:
    """Li & Meerkov (2009), section 4.2."""
    if p1 == p2:
        return p2 * (1.0 - (1.0 - p1) / (n + 1.0 - p1))
    a = p1 * (1.0 - p2) / (p2 * (1.0 - p1))
    return p2 * (1.0 - (1.0 - p1) * (1.0 - a) / (1.0 - p1 / p2 * a**n))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("p1", "p2"), [(0.9, 0.9), (0.8, 0.85), (0.95, 0.6)])
def test_two_bernoulli_machines_are_the_closed_form(p1: float, p2: float, n: int) -> None:
    assert solve_line(bernoulli(p1, p2), [n], looks_through=True).production == pytest.approx(
        two_machines(p1, p2, n), abs=1e-12
    )


@pytest.mark.parametrize(
    ("efficiencies", "capacity", "production"),
    [
        ((0.9,) * 5, 2, 0.803611),
        ((0.9,) * 5, 3, 0.839467),
        ((0.9, 0.9, 0.7, 0.9, 0.9), 3, 0.694012),
        ((0.7, 0.75, 0.8, 0.85, 0.9), 3, 0.651913),
        ((0.9, 0.8, 0.7, 0.8, 0.9), 3, 0.664236),
        ((0.95, 0.6, 0.95), 10, 0.60000),
        ((0.9, 0.75, 0.9), 5, 0.74900),
    ],
)
def test_longer_lines_are_the_published_chains(
    efficiencies: tuple[float, ...], capacity: int, production: float
) -> None:
    found = solve_line(bernoulli(*efficiencies), [capacity] * (len(efficiencies) - 1), looks_through=True)
    assert found.production == pytest.approx(production, abs=6e-6)


@pytest.mark.parametrize(
    ("fails", "levels"),
    [((0.01, 0.01), (0.84094, 0.85617, 0.87054, 0.88784)), ((0.01, 0.02), (0.77840, 0.79613, 0.81205, 0.82808))],
)
def test_geometric_machines_are_gershwins(fails: tuple[float, float], levels: tuple[float, ...]) -> None:
    machines = [ExactMachine(1.0, p, 0.1) for p in fails]
    for n, production in zip((4, 10, 20, 50), levels, strict=True):
        assert solve_line(machines, [n], looks_through=False).production == pytest.approx(production, abs=6e-6)


def test_parts_are_kept() -> None:
    """What is neither blocked nor starved works, and every machine makes what the line makes."""
    efficiencies = (0.9, 0.8, 0.7, 0.8, 0.9)
    found = solve_line(bernoulli(*efficiencies), [3, 2, 4, 1], looks_through=True)
    np.testing.assert_allclose(np.array(efficiencies) - found.blocked - found.starved, found.production, atol=1e-10)


def test_a_mirrored_line_makes_as_much() -> None:
    """Reversibility, Li & Meerkov (2009), section 4.3."""
    there = solve_line(bernoulli(0.7, 0.9, 0.8), [2, 4], looks_through=True)
    back = solve_line(bernoulli(0.8, 0.9, 0.7), [4, 2], looks_through=True)
    assert there.production == pytest.approx(back.production, abs=1e-12)


@pytest.mark.parametrize(
    ("machines", "capacities", "told"),
    [
        (bernoulli(0.9, 0.9), [], "one capacity"),
        (bernoulli(0.9, 1.2), [3], "chances lie"),
        (bernoulli(*(0.9,) * 8), [9] * 7, "states exceed"),
    ],
)
def test_a_line_that_cannot_be_solved_says_why(machines: list[ExactMachine], capacities: list[int], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        solve_line(machines, capacities, looks_through=True)
