"""Intervention drift: average run lengths against the dense Markov chain, small exact cases, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.monitors.drift import CusumDesign, DriftMonitor, average_run_length, design
from twinloop.deploy.shield.monitors.monitor import Monitor, Seen
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Bools = NDArray[np.bool_]


def plate(n: int) -> Nameplate:
    group = Group(
        "pump", tuple(f"P{i}" for i in range(n)), (Signal("flow", "1", 0.0, 1.0),), (Signal("speed", "1", 0.0, 1.0),)
    )
    return Nameplate(site="pumps", period_s=1.0, groups=(group,))


def seen(changed: Bools, present: Bools | None = None) -> Seen:
    n = len(changed)
    return Seen(
        measured={"pump": np.zeros((n, 1))},
        commands={"pump": np.zeros((n, 1))},
        proposed=None,
        changed={"pump": changed},
        prediction=None,
        present={"pump": np.ones(n, np.bool_) if present is None else present},
        clock_s=0.0,
    )


def markov_chain(rate: float, worth: int, height: int) -> float:
    """Brook & Evans (1972): the expected time to absorption, from the whole transition matrix."""
    transitions = np.zeros((height, height))
    for s in range(height):
        transitions[s, max(s - 1, 0)] += 1.0 - rate
        if s + worth - 1 < height:
            transitions[s, s + worth - 1] += rate
    return float(np.linalg.solve(np.eye(height) - transitions, np.ones(height))[0])


@settings(max_examples=200, deadline=None)
@given(rate=st.floats(0.01, 0.9), worth=st.integers(2, 30), height=st.integers(1, 60))
def test_the_average_run_length_is_that_of_the_markov_chain(rate: float, worth: int, height: int) -> None:
    found = average_run_length(rate, worth, height)
    if found < 1e9:  # beyond, the dense solution has no figure left that is right
        assert found == pytest.approx(markov_chain(rate, worth, height), rel=1e-6)
    else:
        assert found > average_run_length(rate, worth, height - 1)


def test_small_cases_are_exact() -> None:
    assert average_run_length(0.25, 9, 8) == pytest.approx(4.0, rel=1e-15)  # the first change alarms
    # two changes in a row: (1 + p) / p^2
    assert average_run_length(0.2, 2, 2) == pytest.approx(1.2 / 0.04, rel=1e-12)


@pytest.mark.parametrize(("rate", "factor", "run_length"), [(0.02, 3.0, 600.0), (0.1, 2.0, 400.0), (0.0, 4.0, 800.0)])
def test_a_simulated_monitor_runs_as_long_as_it_was_designed_to(rate: float, factor: float, run_length: float) -> None:
    n, rng = 800, np.random.default_rng(1)
    made = design(rate, factor, run_length)
    assert made.run_length >= run_length
    assert average_run_length(made.rate, made.worth, made.height - 1) < run_length  # and no higher than it must be
    watching = DriftMonitor(plate(n), {"pump": made})
    for true_rate, expected in ((made.rate, made.run_length), (factor * made.rate, made.delay)):
        memory, first = watching.start(), np.full(n, np.nan)
        for k in range(1, round(30 * expected)):
            memory, alarms = watching.step(memory, seen(rng.random(n) < true_rate))
            for agent in alarms:
                i = int(agent.removeprefix("pump/P"))
                if np.isnan(first[i]):
                    first[i] = k
            if not np.isnan(first).any():
                break
        assert not np.isnan(first).any()
        error = first.std(ddof=1) / math.sqrt(n)
        assert abs(first.mean() - expected) <= 3 * error


def test_more_interventions_are_noticed_far_sooner_than_false_alarms_come() -> None:
    made = design(0.01, 5.0, 1e5)
    assert made.delay < made.run_length / 300


def test_an_asset_is_alarmed_and_the_alarm_ends_after_a_quiet_time() -> None:
    watching = DriftMonitor(plate(2), {"pump/P1": CusumDesign(0.01, worth=4, height=6, run_length=1.0, delay=1.0)})
    assert isinstance(watching, Monitor)
    memory, raised = watching.start(), []
    for changed in [True] * 5 + [False] * 8:
        memory, alarms = watching.step(memory, seen(np.array([True, changed])))
        raised.append(alarms)
    alarm = {"pump/P1": Cause.INTERVENTION_DRIFT}
    # up by 3 a change to twice the height, 12, then down by one a period
    assert raised == [{}] + [alarm] * 10 + [{}] * 2
    assert memory["sum/pump"].tolist() == [0, 4]


def test_an_asset_of_its_own_design_does_not_take_the_groups() -> None:
    slow, fast = CusumDesign(0.01, 2, 50, 1.0, 1.0), CusumDesign(0.01, 2, 1, 1.0, 1.0)
    watching = DriftMonitor(plate(2), {"pump": slow, "pump/P0": fast})
    _, alarms = watching.step(watching.start(), seen(np.ones(2, np.bool_)))
    assert set(alarms) == {"pump/P0"}


def test_an_asset_that_is_not_there_adds_nothing() -> None:
    watching = DriftMonitor(plate(1), {"pump": CusumDesign(0.01, 4, 6, 1.0, 1.0)})
    memory, _ = watching.step(watching.start(), seen(np.ones(1, np.bool_)))
    after, _ = watching.step(memory, seen(np.zeros(1, np.bool_), np.zeros(1, np.bool_)))
    assert after["sum/pump"].tolist() == memory["sum/pump"].tolist() == [3]


@pytest.mark.parametrize(
    ("rate", "factor", "run_length"),
    [(0.5, 2.0, 1e4), (0.1, 1.0, 1e4), (-0.1, 2.0, 1e4), (0.1, 2.0, 1.0), (math.nan, 2.0, 9.0)],
)
def test_rates_that_leave_nothing_to_detect_are_refused(rate: float, factor: float, run_length: float) -> None:
    with pytest.raises(ConfigurationError, match="intervention drift: rate"):
        design(rate, factor, run_length)


def test_an_asset_of_another_site_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pump/P9 are not of this site"):
        DriftMonitor(plate(2), {"pump/P9": design(0.01)})
