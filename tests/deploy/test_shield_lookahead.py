"""Look-ahead: on a double integrator, whose viable set is known exactly, and with foresights that lie or fail.

A cart at ``x`` with speed ``v`` and commanded acceleration ``|u| <= 1`` must stay before a wall at ``x = 10``. Under
held commands the set from which it can is ``x + max(v, 0)^2 / 2 <= 10``: full braking, for ever (the sampled period
does not shrink it, since braking at full power is itself a held command).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.compiled import flat_commands
from twinloop.deploy.shield.ladder import StoredPlan
from twinloop.deploy.shield.lookahead import Foreseen, LookAhead, LookAheadSettings
from twinloop.envs.constraint import LookAheadConstraint, declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
Told = tuple[float, tuple[Mapping[str, Floats], ...]]
WALL_M, PERIOD_S = 10.0, 0.5
HORIZON = 40  # periods: longer than any braking here
PLATE = Nameplate(
    "cart",
    PERIOD_S,
    (
        Group(
            "cart",
            ("C1",),
            (Signal("x", "m", -1e3, 1e3), Signal("v", "m/s", -50.0, 50.0)),
            (Signal("push", "m/s2", -1.0, 1.0),),
        ),
    ),
)
FLAT = flat_commands(PLATE)


def moved(x: float, v: float, u: float) -> tuple[float, float, float]:
    """State after a period, and the farthest point on the way."""
    peak = max(x, x + v * PERIOD_S + 0.5 * u * PERIOD_S**2)
    if u < 0 < v and v + u * PERIOD_S < 0:
        peak = x + v * v / (-2.0 * u)
    return x + v * PERIOD_S + 0.5 * u * PERIOD_S**2, v + u * PERIOD_S, peak


def room(x: float, v: float) -> float:
    return WALL_M - x - 0.5 * max(v, 0.0) ** 2


@dataclass(frozen=True)
class Cart:
    """Foresight by the exact model; ``brake`` brakes fully, then stands still."""

    def __call__(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon: int) -> Told:
        x, v = (float(value) for value in measured["cart"][0])
        u = float(first["cart"][0, 0])
        worst, plan = math.inf, []
        for _ in range(horizon):
            plan.append({"cart": np.array([[u]])})
            x, v, peak = moved(x, v, u)
            worst = min(worst, WALL_M - peak)
            u = BACKUPS[backup](v)
        return worst, tuple(plan)


BACKUPS: dict[str, Callable[[float], float]] = {
    "brake": lambda v: -1.0 if v > 0 else min(1.0, -v / PERIOD_S),
    "coast": lambda v: 0.0,
    "rush": lambda v: 1.0,
}


def looking(*constraints: LookAheadConstraint, **changed: int) -> LookAhead:
    return LookAhead(declare(PLATE, constraints), FLAT, LookAheadSettings(**changed))


def condition(*backups: str, foresight: Any = Cart(), name: str = "wall", **changed: Any) -> LookAheadConstraint:
    return replace(LookAheadConstraint(name, foresight, backups, HORIZON), **changed)


def at(x: float, v: float) -> dict[str, Floats]:
    return {"cart": np.array([[x, v]])}


def drive(
    look: LookAhead, x: float, v: float, proposals: list[float]
) -> tuple[list[Foreseen], list[tuple[float, float, float]]]:
    """Commands and ``(x, v, peak)`` of a run in which the plant obeys; without an answer the plant coasts."""
    plan, applied = None, np.zeros(1)
    answers, path = [], []
    for proposal in proposals:
        answer = look.keep(np.array([proposal]), at(x, v), applied, plan)
        applied = np.zeros(1) if answer.u is None else answer.u
        plan = answer.plan
        x, v, peak = moved(x, v, float(applied[0]))
        answers.append(answer)
        path.append((x, v, peak))
    return answers, path


@settings(max_examples=60, deadline=None)
@given(st.floats(-20.0, 9.9), st.floats(-4.0, 4.0), st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=25))
def test_a_cart_that_can_still_stop_always_does(x: float, v: float, proposals: list[float]) -> None:
    x = min(x, WALL_M - 0.5 * max(v, 0.0) ** 2 - 1e-6)
    answers, path = drive(looking(condition("brake")), x, v, [*proposals, *[1.0] * 15])
    assert all(a.u is not None for a in answers)
    assert max(peak for _, _, peak in path) <= WALL_M + 1e-9
    assert min(room(x, v) for x, v, _ in path) >= -1e-9


@settings(max_examples=300, deadline=None)
@given(st.floats(0.0, 10.0), st.floats(-2.0, 5.0), st.floats(-1.0, 1.0))
def test_what_the_closed_form_allows_is_left_alone_and_nothing_else(x: float, v: float, u: float) -> None:
    x1, v1, peak = moved(x, v, u)
    exact = min(room(x1, v1), WALL_M - peak)
    answer = looking(condition("brake")).keep(np.array([u]), at(x, v), np.zeros(1), None)
    if exact > 1e-9:
        assert answer.u is not None
        assert answer.u[0] == u
        assert not answer.constraint
        assert answer.margin == pytest.approx(exact, abs=1e-9)
    elif exact < -1e-9:
        assert answer.u is None or answer.u[0] != u
        assert answer.constraint == "wall"
        assert answer.asked_margin == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("bisections", [0, 1, 4, 12])
def test_the_change_shrinks_by_half_with_each_bisection_down_to_the_exact_limit(bisections: int) -> None:
    look = looking(condition("brake"), bisections=bisections)
    x, v = 5.0, 2.4
    before = look.keep(np.array([-0.5]), at(x, v), np.zeros(1), None)
    assert before.u is not None
    x, v, _ = moved(x, v, -0.5)
    answer = look.keep(np.array([1.0]), at(x, v), before.u, before.plan)
    low, high = -1.0, 1.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if room(*moved(x, v, middle)[:2]) >= 0 else (low, middle)
    assert answer.u is not None
    # the plan's next is full braking, two away from what is asked
    assert low - 2.0 * 0.5**bisections <= answer.u[0] <= low + 1e-9
    assert answer.from_plan == (bisections == 0)


def test_a_backup_that_is_worse_than_none_blocks_everything_and_lets_nothing_raw_through() -> None:
    answers, _ = drive(looking(condition("rush")), 0.0, 1.0, [1.0, 0.0, -1.0])
    assert [a.u for a in answers] == [None, None, None]
    assert all(a.plan is None and a.constraint == "wall" for a in answers)


def test_a_worse_backup_before_a_good_one_costs_foresights_and_no_freedom() -> None:
    proposals = [1.0] * 30
    alone, path = drive(looking(condition("brake")), 0.0, 0.0, proposals)
    both, path_too = drive(looking(condition("rush", "brake")), 0.0, 0.0, proposals)
    assert path == path_too
    assert {a.backup for a in both} == {"brake"}
    assert sum(a.n_foresights for a in both) > sum(a.n_foresights for a in alone)


def test_the_first_backup_that_suffices_is_the_plan() -> None:
    moving_away = looking(condition("coast", "brake")).keep(np.array([0.0]), at(0.0, -1.0), np.zeros(1), None)
    towards = looking(condition("coast", "brake")).keep(np.array([0.0]), at(0.0, 1.0), np.zeros(1), None)
    assert (moving_away.backup, towards.backup) == ("coast", "brake")


def test_a_plan_that_the_plant_did_not_follow_is_dropped() -> None:
    look = looking(condition("brake", foresight=Blind()))
    plan = StoredPlan(np.array([[0.5], [-0.25]]), used=1)
    obeyed = look.keep(np.array([1.0]), at(0.0, 0.0), np.array([0.5]), plan)
    assert obeyed.u is not None
    assert obeyed.u[0] == -0.25
    assert obeyed.plan == replace(plan, used=2)
    assert math.isnan(obeyed.margin)
    assert obeyed.from_plan
    for applied, stored in ((0.4999, plan), (0.5, replace(plan, used=2)), (0.5, replace(plan, used=0)), (0.5, None)):
        assert look.keep(np.array([1.0]), at(0.0, 0.0), np.array([applied]), stored).u is None


def test_where_there_is_no_plan_the_backup_is_asked_from_here() -> None:
    x, v = 8.0, 1.9  # 0.2 m of room: only hard braking is left
    answer = looking(condition("brake")).keep(np.array([1.0]), at(x, v), np.zeros(1), None)
    assert answer.u is not None
    assert answer.u[0] == -1.0
    assert not answer.from_plan
    assert answer.plan is not None
    assert answer.plan.used == 1


def test_other_constraints_are_asked_of_everything_but_the_proposal() -> None:
    look = looking(condition("brake"))
    fine = look.keep(np.array([0.0]), at(0.0, 0.0), np.zeros(1), None, lambda u: False)
    assert fine.u is not None
    assert look.keep(np.array([1.0]), at(8.0, 1.9), np.zeros(1), None, lambda u: False).u is None

    def fails(u: Floats) -> bool:
        raise ZeroDivisionError

    assert look.keep(np.array([1.0]), at(8.0, 1.9), np.zeros(1), None, fails).u is None


def test_commands_that_are_not_ours_stay_as_they_are() -> None:
    pair = replace(PLATE, groups=(replace(PLATE.groups[0], assets=("C1", "C2")),))
    look = LookAhead(declare(pair, [condition("brake", foresight=Both())]), flat_commands(pair))
    measured = {"cart": np.array([[8.0, 1.9], [0.0, 0.5]])}
    applied, u = np.array([0.0, 0.25]), np.array([1.0, 0.25])
    fixed = np.array([False, True])
    free = look.keep(u, measured, applied, None)
    assert free.u is not None
    assert free.u.tolist() == [-1.0, -1.0]
    bound = look.keep(u, measured, applied, None, None, fixed)
    assert bound.u is not None
    assert bound.u.tolist() == [-1.0, 0.25]
    plan = StoredPlan(np.array([[0.0, 0.25], [-1.0, -1.0]]), used=1)
    planned = look.keep(u, measured, applied, plan, None, fixed)
    assert planned.u is not None
    assert planned.u.tolist() == [-0.875, 0.25]  # three halvings from full braking


@dataclass(frozen=True)
class Both:
    """Two carts, each by the model of one."""

    def __call__(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon: int) -> Told:
        told = [
            Cart()({"cart": measured["cart"][i : i + 1]}, {"cart": first["cart"][i : i + 1]}, backup, horizon)
            for i in range(2)
        ]
        plan = tuple(
            {"cart": np.concatenate([a["cart"], b["cart"]])} for a, b in zip(told[0][1], told[1][1], strict=True)
        )
        return min(margin for margin, _ in told), plan


@dataclass(frozen=True)
class Blind:
    """Never sees anything safe."""

    def __call__(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon: int) -> Told:
        return -1.0, (first,)


def _broken() -> dict[str, Callable[..., Any]]:
    def plan(first: Mapping[str, Floats], value: float = 0.0, n: int = 3, shape: tuple[int, ...] = (1, 1)) -> Any:
        return (first, *({"cart": np.full(shape, value)} for _ in range(n - 1)))

    def raises(*_: Any) -> Told:
        raise RuntimeError("no model")

    def writes(measured: Mapping[str, Any], first: Mapping[str, Any], *_: Any) -> Told:
        measured["cart"][0, 0] = -100.0
        return 1.0, plan(first)

    def alters(measured: Any, first: Mapping[str, Any], *_: Any) -> Told:
        first["cart"][0, 0] = 0.3  # the plan must begin with what was asked
        return 1.0, plan(first)

    return {
        "raises": raises,
        "writes to the reading": writes,
        "judges other commands than asked": alters,
        "margin NaN": lambda m, first, *_: (math.nan, plan(first)),
        "margin no number": lambda m, first, *_: ("safe", plan(first)),
        "plan NaN": lambda m, first, *_: (1.0, plan(first, math.nan)),
        "plan infinite": lambda m, first, *_: (1.0, plan(first, math.inf)),
        "plan of another shape": lambda m, first, *_: (1.0, plan(first, shape=(2, 1))),
        "plan of another group": lambda m, first, *_: (1.0, ({"car": np.zeros((1, 1))},)),
        "plan empty": lambda m, first, *_: (1.0, ()),
        "plan longer than the horizon": lambda m, first, *_: (1.0, plan(first, n=HORIZON + 2)),
        "no pair": lambda m, first, *_: None,
    }


@pytest.mark.parametrize("fault", _broken())
def test_a_foresight_that_fails_counts_as_unsafe(fault: str) -> None:
    broken = replace(condition("brake"), foresight=Cart())
    declaration = declare(PLATE, [broken])
    look = LookAhead(declaration, FLAT)
    object.__setattr__(look.constraints[0], "foresight", _broken()[fault])  # declare refuses nameless functions
    measured = at(0.0, 0.0)
    answer = look.keep(np.array([1.0]), measured, np.zeros(1), None)
    assert answer.u is None
    assert answer.plan is None
    assert answer.asked_margin == -math.inf
    assert (measured["cart"] == 0).all()
    with_plan = look.keep(np.array([1.0]), measured, np.zeros(1), StoredPlan(np.array([[0.0], [-0.5]]), used=1))
    assert with_plan.u is not None
    assert with_plan.u[0] == -0.5


@dataclass(frozen=True)
class Speed:
    """Another condition on the same model: slower than ``most``."""

    most: float

    def __call__(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon: int) -> Told:
        _, plan = Cart()(measured, first, backup, horizon)
        x, v = (float(value) for value in measured["cart"][0])
        worst = math.inf
        for step in plan:
            x, v, _ = moved(x, v, float(step["cart"][0, 0]))
            worst = min(worst, self.most - v)
        return worst, plan


@dataclass(frozen=True)
class Elsewhere:
    """Foresees that the backup does something else than the model of the other condition says."""

    def __call__(self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon: int) -> Told:
        return 5.0, (first, {"cart": np.array([[0.123]])})


def test_several_conditions_are_kept_by_one_plan() -> None:
    look = looking(condition("brake"), condition("brake", name="speed", foresight=Speed(1.5), horizon_periods=7))
    answers, path = drive(look, 0.0, 0.0, [1.0] * 40)
    assert all(a.u is not None for a in answers)
    assert max(peak for _, _, peak in path) <= WALL_M + 1e-9
    assert 1.4 <= max(v for _, v, _ in path) <= 1.5 + 1e-9
    assert {len(a.plan.commands) for a in answers if a.plan is not None} == {7}  # what both of them foresaw


def test_conditions_that_foresee_different_commands_have_no_plan_together() -> None:
    look = looking(condition("brake"), condition("brake", name="odd", foresight=Elsewhere()))
    answer = look.keep(np.array([0.0]), at(0.0, 0.0), np.zeros(1), None)
    assert answer.u is None
    assert answer.constraint == "odd"


def test_a_soft_condition_bends_and_a_hard_one_does_not() -> None:
    hard = condition("brake")
    soft = condition("brake", name="speed", foresight=Speed(1.5), priority=3)
    answers, path = drive(looking(hard, soft), 0.0, 2.5, [1.0] * 30)
    assert all(a.u is not None for a in answers)
    assert max(peak for _, _, peak in path) <= WALL_M + 1e-9
    assert path[-1][1] <= 1.5
    blind = replace(soft, foresight=Blind(), name="never")
    unchanged = looking(hard, blind).keep(np.array([0.5]), at(0.0, 0.0), np.zeros(1), None)
    assert unchanged.u is not None
    assert unchanged.u[0] == 0.5
    assert unchanged.constraint == "never"


def test_levels_are_not_bisected() -> None:
    gear = Signal("push", "m/s2", -1.0, 1.0, levels=(-1.0, 0.0, 1.0))
    plate = replace(PLATE, groups=(replace(PLATE.groups[0], commanded=(gear,)),))
    look = LookAhead(declare(plate, [condition("brake")]), flat_commands(plate), LookAheadSettings(bisections=6))
    answers, path = drive(look, 0.0, 0.0, [1.0] * 30)
    assert {float(a.u[0]) for a in answers if a.u is not None} == {-1.0, 0.0, 1.0}
    assert max(peak for _, _, peak in path) <= WALL_M + 1e-9


def test_the_same_call_gives_the_same_answer_and_changes_nothing() -> None:
    look = looking(condition("rush", "brake"))
    plan = StoredPlan(np.array([[0.0], [-1.0], [-1.0]]), used=1)
    u, measured, applied = np.array([1.0]), at(7.9, 1.9), np.zeros(1)
    first, second = (look.keep(u, measured, applied, plan) for _ in range(2))
    assert repr(first) == repr(second)
    assert (u == 1).all()
    assert (applied == 0).all()
    assert plan.commands.tolist() == [[0.0], [-1.0], [-1.0]]


def test_a_period_never_costs_more_foresights_than_it_may() -> None:
    calls = 0

    def counting(*asked: Any) -> Told:
        nonlocal calls
        calls += 1
        return Cart()(*asked)

    for most in (4, 5, 9, 100):
        calls = 0
        look = looking(condition("rush", "brake"), most_foresights=most, bisections=20)
        object.__setattr__(look.constraints[0], "foresight", counting)  # declare refuses nameless functions
        answer = look.keep(np.array([1.0]), at(7.9, 1.9), np.zeros(1), StoredPlan(np.array([[0.0], [-1.0]]), used=1))
        assert calls == answer.n_foresights <= most
        assert answer.u is not None


def test_wrong_settings_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"share no backup.*name one in each"):
        looking(condition("brake"), condition("coast", name="other"))
    with pytest.raises(ConfigurationError, match=r"most_foresights 3 is below 4"):
        looking(condition("rush", "brake"), most_foresights=3)


def test_without_conditions_nothing_is_changed() -> None:
    answer = looking().keep(np.array([0.7]), at(0.0, 0.0), np.zeros(1), None)
    assert answer.u is not None
    assert answer.u[0] == 0.7
