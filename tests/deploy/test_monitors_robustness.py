"""Robustness of past-time formulas: against rtamt's figures, the definition, and bad numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.monitors.monitor import SITE, Monitor, Seen
from twinloop.deploy.shield.monitors.robustness import RobustnessMonitor, measured_requirements
from twinloop.envs.constraint import (
    Declaration,
    DwellConstraint,
    MeasuredConstraint,
    RateConstraint,
    SumConstraint,
    declare,
)
from twinloop.envs.constraint.temporal import And, Formula, Historically, Kept, Not, Once, Or, Since, Within, parts
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]

# The spans of x and y are 1, so that a robustness is the margin itself; the period is 2 s.
PERIOD_S = 2.0
X, Y = Within("cell", "x", minimum=0.0), Within("cell", "y", minimum=0.0)


def site(*constraints: MeasuredConstraint | SumConstraint | RateConstraint | DwellConstraint) -> Declaration:
    measured = (Signal("x", "1", -0.5, 0.5), Signal("y", "1", -0.5, 0.5))
    commanded = (Signal("u", "1", 0.0, 4.0),)
    groups = (Group("cell", ("A", "B", "C"), measured, commanded), Group("lamp", ("L",), measured, commanded))
    return declare(Nameplate(site="cells", period_s=PERIOD_S, groups=groups), constraints)


def seen(xy: Floats, u: Floats | None = None) -> Seen:
    """``xy``: ``[3, 2]``; ``u``: ``[3, 1]``."""
    commands = np.zeros((3, 1)) if u is None else u
    return Seen(
        measured={"cell": xy, "lamp": np.zeros((1, 2))},
        commands={"cell": commands, "lamp": np.zeros((1, 1))},
        proposed=None,
        changed={"cell": np.zeros(3, np.bool_), "lamp": np.zeros(1, np.bool_)},
        prediction=None,
        present={"cell": np.ones(3, np.bool_), "lamp": np.ones(1, np.bool_)},
        clock_s=0.0,
    )


def online(formula: Formula, trace: Floats) -> Floats:
    """``[T, 3]`` of a trace ``[T, 3, 2]``."""
    monitor = RobustnessMonitor(site(), {"f": formula})
    memory, found = monitor.start(), []
    for xy in trace:
        memory, robustness = monitor.robustness(memory, seen(xy))
        found.append(robustness["f"])
    return np.array(found)


def by_definition(formula: Formula, trace: Floats, k: int, i: int) -> float:
    """Robustness of asset ``i`` at period ``k``, straight from Donze & Maler (2010), over all the past."""

    def at(inside: Formula, j: int) -> float:
        return by_definition(inside, trace, j, i)

    def window(f: Once | Historically | Since) -> Sequence[int]:
        most, least = round(f.most_s / PERIOD_S), round(f.least_s / PERIOD_S)
        return range(max(0, k - most), k - least + 1)

    match formula:
        case Within():
            x = float(trace[k, i, 0 if formula.signal == "x" else 1])
            low = math.inf if formula.minimum is None else x - formula.minimum
            return min(low, math.inf if formula.maximum is None else formula.maximum - x)
        case Not():
            return -at(formula.formula, k)
        case And():
            return min(at(f, k) for f in formula.formulas)
        case Or():
            return max(at(f, k) for f in formula.formulas)
        case Once():
            return max((at(formula.formula, j) for j in window(formula)), default=-math.inf)
        case Historically():
            return min((at(formula.formula, j) for j in window(formula)), default=math.inf)
        case Since():
            since = (
                min([at(formula.began, j), *(at(formula.holds, later) for later in range(j + 1, k + 1))])
                for j in window(formula)
            )
            return max(since, default=-math.inf)
    raise AssertionError(formula)


# Traces and figures by rtamt 0.4.10, StlDiscreteTimeOnlineSpecification, one period as its unit of time.
RTAMT_X = [-0.53, -0.79, -0.21, -0.69, -0.87, -0.2, 0.84, 0.6, 0.53, -0.56, 0.07, -0.45]
RTAMT_Y = [-0.65, -0.79, -0.57, 0.85, 0.66, 0.61, 0.6, -0.61, -0.38, 0.25, 0.46, 0.71]
INF = math.inf
RTAMT: Mapping[str, tuple[Formula, list[float]]] = {
    "once[0,3] x": (
        Once(X, 6.0),
        [-0.53, -0.53, -0.21, -0.21, -0.21, -0.2, 0.84, 0.84, 0.84, 0.84, 0.6, 0.53],
    ),
    "once[2,4] x": (
        Once(X, 8.0, 4.0),
        [-INF, -INF, -0.53, -0.53, -0.21, -0.21, -0.21, -0.2, 0.84, 0.84, 0.84, 0.6],
    ),
    "historically[0,2] x": (
        Historically(X, 4.0),
        [-0.53, -0.79, -0.79, -0.79, -0.87, -0.87, -0.87, -0.2, 0.53, -0.56, -0.56, -0.56],
    ),
    "historically[1,3] x": (
        Historically(X, 6.0, 2.0),
        [INF, -0.53, -0.79, -0.79, -0.79, -0.87, -0.87, -0.87, -0.2, 0.53, -0.56, -0.56],
    ),
    "x since[0,3] y": (
        Since(X, Y, 6.0),
        [-0.65, -0.79, -0.57, 0.85, 0.66, 0.61, 0.61, 0.6, 0.53, 0.25, 0.46, 0.71],
    ),
    "x since[2,4] y": (
        Since(X, Y, 8.0, 4.0),
        [-INF, -INF, -0.79, -0.79, -0.87, -0.87, -0.2, 0.6, 0.53, -0.56, -0.56, -0.45],
    ),
    "not once[0,2] historically[0,1] x, or y": (
        Or(Not(Once(Historically(X, 2.0), 4.0)), Y),
        [0.53, 0.53, 0.53, 0.85, 0.69, 0.69, 0.6, -0.6, -0.38, 0.25, 0.46, 0.71],
    ),
    "historically[0,3] (x or once[1,2] (y and x))": (
        Historically(Or(X, Once(And(Y, X), 4.0, 2.0)), 6.0),
        [-0.53, -0.65, -0.65, -0.65, -0.65, -0.57, -0.57, -0.57, -0.2, -0.38, -0.38, -0.38],
    ),
}


@pytest.mark.parametrize("name", RTAMT)
def test_robustness_is_that_of_rtamt(name: str) -> None:
    formula, expected = RTAMT[name]
    trace = np.repeat(np.stack([RTAMT_X, RTAMT_Y], axis=-1)[:, None], 3, axis=1)
    np.testing.assert_allclose(online(formula, trace), np.repeat(np.array(expected)[:, None], 3, 1), rtol=0, atol=1e-12)


def formulas() -> st.SearchStrategy[Formula]:
    atoms: st.SearchStrategy[Formula] = st.sampled_from(
        [X, Y, Within("cell", "x", -0.3, 0.4), Within("cell", "y", maximum=0.1)]
    )
    windows = st.tuples(st.integers(0, 4), st.integers(0, 5)).map(lambda w: (PERIOD_S * (w[0] + w[1]), PERIOD_S * w[0]))

    def larger(inside: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
        return st.one_of(
            inside.map(Not),
            st.tuples(inside, inside).map(lambda two: And(*two)),
            st.tuples(inside, inside).map(lambda two: Or(*two)),
            st.tuples(inside, windows).map(lambda given: Once(given[0], *given[1])),
            st.tuples(inside, windows).map(lambda given: Historically(given[0], *given[1])),
            st.tuples(inside, inside, windows).map(lambda given: Since(given[0], given[1], *given[2])),
        )

    return st.recursive(atoms, larger, max_leaves=4)


@settings(max_examples=200, deadline=None)
@given(formula=formulas(), seed=st.integers(0, 2**32 - 1), n=st.integers(1, 22))
def test_robustness_is_what_the_definition_says(formula: Formula, seed: int, n: int) -> None:
    trace = np.round(np.random.default_rng(seed).uniform(-1, 1, (n, 3, 2)), 1)  # rounded, so that values tie
    found = online(formula, trace)
    expected = [[by_definition(formula, trace, k, i) for i in range(3)] for k in range(n)]
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=150, deadline=None)
@given(formula=formulas(), seed=st.integers(0, 2**32 - 1))
def test_a_number_that_is_none_counts_as_the_worst_it_could_be(formula: Formula, seed: int) -> None:
    rng = np.random.default_rng(seed)
    trace = rng.uniform(-1, 1, (12, 3, 2))
    broken = np.where(rng.random(trace.shape) < 0.15, np.nan, trace)
    found = online(formula, broken)
    assert not np.isnan(found).any()
    assert (found <= online(formula, trace)).all()


def test_a_missing_number_breaks_a_requirement_and_its_opposite() -> None:
    trace = np.full((1, 3, 2), np.nan)
    assert (online(X, trace) == -INF).all()
    assert (online(Not(X), trace) == -INF).all()
    assert (online(Not(Not(X)), trace) == -INF).all()


def test_a_step_leaves_the_memory_before_it_as_it_was() -> None:
    formula = Since(Once(X, 6.0, 2.0), Historically(Y, 4.0), 8.0, 4.0)
    monitor = RobustnessMonitor(site(), {"f": formula})
    trace = np.random.default_rng(0).uniform(-1, 1, (30, 3, 2))
    memory, memories, answers = monitor.start(), [], []
    for xy in trace:
        memories.append(memory)
        memory, answer = monitor.robustness(memory, seen(xy))
        answers.append(answer["f"])
    for k in reversed(range(30)):  # in any order, any number of times
        again = monitor.robustness(memories[k], seen(trace[k]))[1]["f"]
        np.testing.assert_array_equal(again, answers[k])
    sizes = [{key: array.shape for key, array in m.items()} for m in memories]
    assert all(size == sizes[0] for size in sizes)  # memory does not grow


def test_assets_are_alarmed_one_by_one_and_the_site_as_a_whole() -> None:
    cap = SumConstraint("cap", "cell", "u", "1", maximum=5.0)
    monitor = RobustnessMonitor(site(cap), {"warm": X, "cap": Kept("cap")})
    assert isinstance(monitor, Monitor)
    cold = np.array([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.0]])
    _, alarms = monitor.step(monitor.start(), seen(cold, np.ones((3, 1))))
    assert alarms == {"cell/B": Cause.ROBUSTNESS}
    _, alarms = monitor.step(monitor.start(), seen(np.zeros((3, 2)), np.full((3, 1), 2.0)))
    assert alarms == {SITE: Cause.ROBUSTNESS}


def test_a_constraint_counts_in_shares_of_its_scale() -> None:
    cap = SumConstraint("cap", "cell", "u", "1", maximum=5.0)
    monitor = RobustnessMonitor(site(cap), {"cap": Kept("cap")})
    _, found = monitor.robustness(monitor.start(), seen(np.zeros((3, 2)), np.full((3, 1), 2.0)))
    np.testing.assert_allclose(found["cap"], [-1.0 / 12.0])  # 1 too much, of a span of 3 times 4


def test_a_rate_is_seen_from_one_period_to_the_next() -> None:
    monitor = RobustnessMonitor(site(RateConstraint("cell", "u", 0.5, "1")), {"slow": Kept("cell/u rate")})
    memory = monitor.start()
    quiet = np.zeros((3, 2))
    alarms = []
    for u in ([1.0, 1.0, 1.0], [2.0, 2.1, 1.0], [2.0, 2.1, 1.0]):  # 0.5 a second is 1 a period
        memory, raised = monitor.step(memory, seen(quiet, np.array(u)[:, None]))
        alarms.append(set(raised))
    assert alarms == [set(), {"cell/B"}, set()]


def test_hard_measured_constraints_are_watched_over_the_window_without_being_asked() -> None:
    hard = MeasuredConstraint("not too cold", "cell", "x", "1", minimum=-0.2)
    soft = MeasuredConstraint("rather warm", "cell", "x", "1", minimum=0.4, priority=0)
    declaration = site(hard, soft)
    monitor = RobustnessMonitor(declaration, measured_requirements(declaration, 3))
    memory, raised = monitor.start(), []
    for x in (0.0, -0.3, 0.0, 0.0, 0.0):
        memory, alarms = monitor.step(memory, seen(np.full((3, 2), [x, 0.0])))
        raised.append(len(alarms))
    assert raised == [0, 3, 3, 3, 0]


@pytest.mark.parametrize(
    ("formula", "complaint"),
    [
        (Within("sell", "x", 0.0), r"group 'sell'; groups: cell, lamp \(did you mean 'cell'\?\)"),
        (Within("cell", "z", 0.0), "measured signal 'z'; there are x, y"),
        (Within("cell", "x", 0.0, kind="commanded"), "commanded signal 'x'; there are u"),
        (Within("cell", "x"), "within no limits"),
        (Within("cell", "x", 1.0, 0.0), "the minimum is above the maximum"),
        (Kept("cup"), r"constraint 'cup'; declared: .* \(did you mean 'cap'\?\)"),
        (Kept("cell/u dwell"), "needs more than one moment"),
        (And(), "of nothing"),
        (Once(X, 3.0), r"Once from 0 s to 3 s ago; give whole periods of 2 s"),
        (Historically(X, 2.0, 4.0), "the smaller first"),
        (Not(Or(X, Once(Y, -2.0))), "none below 0"),
        (And(X, Within("lamp", "x", 0.0)), "about the groups cell, lamp"),
    ],
)
def test_a_formula_that_fits_the_site_badly_is_refused(formula: Formula, complaint: str) -> None:
    cap = SumConstraint("cap", "cell", "u", "1", maximum=5.0)
    declaration = site(cap, DwellConstraint("cell", "u", 4.0, "1"))
    with pytest.raises(ConfigurationError, match=f"formula 'f': .*{complaint}"):
        RobustnessMonitor(declaration, {"f": formula})


def test_formulas_are_values() -> None:
    one = Since(And(X, Y), Not(X), 4.0, 2.0)
    assert one == Since(And(X, Y), Not(X), 4.0, 2.0)
    assert one != Since(And(Y, X), Not(X), 4.0, 2.0)
    assert hash(one) == hash(Since(And(X, Y), Not(X), 4.0, 2.0))
    assert parts(one) == (And(X, Y), Not(X))
