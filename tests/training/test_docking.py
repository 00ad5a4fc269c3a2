"""The docking task: its equations against known motions, its rows against what they promise, and flights."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import BarrierConstraint
from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks import docking as bench
from twinloop.training.benchmarks.docking_task import (
    MEAN_MOTION_RADPS,
    PERIOD_S,
    brake,
    docking,
    held,
    published_values,
    regulator,
)

BARRIERS = tuple(c for c in docking().hard if isinstance(c, BarrierConstraint))
SUBSTEPS = [held(t) for t in np.linspace(0.05, 1.0, 20)]


def test_without_thrust_a_deputy_flies_the_closed_ellipse_of_the_orbit() -> None:
    step, _ = held(10.0)
    start = np.array([100.0, 0.0, 0.0, -2.0 * MEAN_MOTION_RADPS * 100.0])
    state, turns = start, 2.0 * math.pi / MEAN_MOTION_RADPS / 10.0
    for k in range(1, int(turns) + 1):
        state = step @ state
        angle = 10.0 * k * MEAN_MOTION_RADPS
        assert state[:2] == pytest.approx([100.0 * math.cos(angle), -200.0 * math.sin(angle)], abs=1e-6)


def test_a_step_is_made_of_its_halves() -> None:
    rng = np.random.default_rng(0)
    state, force = rng.normal(size=4), rng.normal(size=2)
    (whole, forced), (half, half_forced) = held(1.0), held(0.5)
    twice = half @ (half @ state + half_forced @ force) + half_forced @ force
    assert whole @ state + forced @ force == pytest.approx(twice, abs=1e-12)


def test_the_regulator_brings_the_deputy_home_without_limits() -> None:
    step, forced = held(PERIOD_S)
    closed = step + forced @ regulator()
    assert max(abs(np.linalg.eigvals(closed))) < 1.0


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0.0, 4.15), st.floats(0.0, 6.3), st.floats(0.0, 1.0), st.floats(0.0, 6.3),
    st.floats(-1.0, 1.0), st.floats(-1.0, 1.0),
)  # fmt: skip
def test_whatever_force_the_rows_allow_keeps_the_published_values_through_the_whole_period(
    decades: float, bearing: float, share: float, course: float, fx: float, fy: float
) -> None:
    distance = 10.0**decades
    limit = 0.2 + 2.0 * MEAN_MOTION_RADPS * distance
    speed = share * limit
    state = np.array(
        [distance * math.cos(bearing), distance * math.sin(bearing), speed * math.cos(course), speed * math.sin(course)]
    )
    assume((published_values(state) >= 0).all())
    force = np.array([fx, fy])
    for c in BARRIERS:
        terms = c.barrier(state[None])
        assume(terms.drift[0] + terms.control[0] @ force >= -c.gain_per_s * terms.h[0] + c.margin)
    for free, forced in SUBSTEPS:
        assert (published_values(free @ state + forced @ force) >= 0).all()


def test_without_the_tilt_thrust_across_the_flight_would_break_the_limit() -> None:
    """Why the row comes twice: the plain derivative of the speed knows nothing of thrust across it."""
    state = np.array([1.5, 0.0, -0.2025, 0.0])
    assert published_values(state)[0] > 0
    free, forced = SUBSTEPS[-1]
    across = published_values(free @ state + forced @ np.array([0.05, 1.0]))
    assert across[0] < 0
    plain = -(0.05 / 12.0) - 2.0 * MEAN_MOTION_RADPS * 0.2025  # thrust along the flight alone
    value = published_values(state)[0]
    assert value + plain * -1.0 >= 0
    left = [c for c in BARRIERS if c.name.startswith("approach")]
    terms = [c.barrier(state[None]) for c in left]
    assert any(
        t.drift[0] + t.control[0] @ np.array([0.05, 1.0]) < -c.gain_per_s * t.h[0] + c.margin
        for c, t in zip(left, terms, strict=True)
    )


@pytest.fixture(scope="module")
def shield() -> Shield:
    return Shield(docking(), fallback=brake)


@pytest.mark.parametrize(
    "start", [(150.0, 80.0, -0.4, -0.2), (-90.0, 200.0, 0.0, 0.0), (20.0, -5.0, 0.15, 0.15), (2000.0, 1.0, -4.1, 0.0)]
)
def test_a_flight_behind_the_shield_keeps_every_value_and_one_without_does_not(
    shield: Shield, start: tuple[float, ...]
) -> None:
    with_it = bench.Pilot(shield).fly(start, longest_s=200)
    without = bench.Pilot(None).fly(start, longest_s=200)
    assert min(with_it.least) >= 0
    assert min(without.least) < 0
    assert with_it.intervened > 0


def test_the_reference_flight_docks_in_time(shield: Shield) -> None:
    flight = bench.Pilot(shield).fly(bench.reference_start(bench.BEARINGS_RAD[0]))
    assert flight.docked
    assert flight.steps <= bench.BAR_STEPS
    assert min(flight.least) >= 0


def test_the_nine_faulty_inputs_are_answered_safely(shield: Shield) -> None:
    found = bench.faulty_inputs(shield)
    assert len(found) == 9
    assert [name for name, fine in found if not fine] == []


def test_starts_fill_the_corners_and_break_no_limit() -> None:
    starts = bench.hypercube_starts(200, seed=1)
    assert starts.shape == (200, 4)
    assert (published_values(starts) >= 0).all()
    assert (np.abs(starts) <= bench.CORNER).all()
    assert (np.abs(starts).max(axis=0) > 0.95 * np.array(bench.CORNER)).all()
    assert (starts == bench.hypercube_starts(200, seed=1)).all()


def test_an_interrupted_run_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench, "hypercube_starts", lambda n, seed: np.array([[30.0 + k, 0.0, 0.0, 0.0] for k in range(n)])
    )
    monkeypatch.setattr(bench, "LONGEST_S", 5)
    monkeypatch.setattr(bench, "BEARINGS_RAD", (0.3057,))
    arguments = argparse.Namespace(starts=3, seed=0, out=tmp_path)
    bench.run(arguments)
    path = tmp_path / bench.FLIGHTS
    whole = path.read_text(encoding="utf-8")
    assert [json.loads(line)["index"] for line in whole.splitlines()[1:]] == [0, 1, 2]
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2], encoding="utf-8")
    bench.run(arguments)
    assert path.read_text(encoding="utf-8") == whole
    with pytest.raises(ConfigurationError, match="another run"):
        bench.run(argparse.Namespace(starts=2, seed=0, out=tmp_path))
