"""A declaration is coherent, or says everything that is wrong with it at once."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    BarrierTerms,
    ConflictConstraint,
    Constraint,
    DeadbandConstraint,
    DwellConstraint,
    ExclusiveConstraint,
    Limit,
    LookAheadConstraint,
    MeasuredConstraint,
    RangeConstraint,
    RateConstraint,
    SafeState,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    constraints_of,
    declare,
)
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]

PLATE = Nameplate(
    "cell",
    2.0,
    (
        Group(
            "cart",
            ("C1", "C2", "C3"),
            measured=(Signal("x_m", "m", -10.0, 10.0), Signal("heading_deg", "deg", 0.0, 360.0, circular=True)),
            commanded=(
                Signal("v_mps", "m/s", -2.0, 2.0, rate_limit_per_s=0.5),
                Signal("heat_kw", "kW", 0.0, 4.0),
                Signal("cool_kw", "kW", 0.0, 4.0),
                Signal("gear", "1", 0.0, 2.0, levels=(0.0, 1.0, 2.0)),
            ),
            hidden=(),
            statics=(),
        ),
    ),
)


def brake(measured: Floats) -> BarrierTerms:
    h = 10.0 - np.abs(measured[:, 0])
    return BarrierTerms(h, np.zeros_like(h), np.zeros((len(h), 4)))


def foresee(measured: Any, first: Any, backup: str, horizon_periods: int) -> tuple[float, tuple[Any, ...]]:
    return 1.0, ()


@dataclasses.dataclass(frozen=True)
class Wall:
    """A barrier with a parameter."""

    x_m: float

    def __call__(self, measured: Floats) -> BarrierTerms:
        return brake(measured - self.x_m)


SOUND: tuple[Constraint, ...] = (
    RangeConstraint("cart", "v_mps", -1.5, 1.5, "m/s"),
    RangeConstraint("cart", "v_mps", -1.0, 1.0, "m/s", 2),
    RateConstraint("cart", "v_mps", 0.4, "m/s"),
    AccelerationConstraint("cart", "v_mps", 0.2, "m/s"),
    DeadbandConstraint("cart", "heat_kw", 0.1, "kW", 3),
    DwellConstraint("cart", "gear", 10.0, "1", 2.0),
    SwitchesConstraint("cart", "gear", 6, "1"),
    TransitionConstraint("cart", "gear", ((0.0, 1.0), (1.0, 0.0), (1.0, 2.0), (2.0, 1.0)), "1"),
    ExclusiveConstraint("cart", ("heat_kw", "cool_kw")),
    SumConstraint("power", "cart", "heat_kw", "kW", maximum=6.0),
    SumRateConstraint("ramp", "cart", "heat_kw", "MW", 0.001, 0.002, (0.001, 0.001, 0.001)),
    ConflictConstraint("top gears", "cart", ((("C1", "gear", 2.0), ("C2", "gear", 2.0)),)),
    SeparationConstraint("apart", "cart", ("x_m",), ("v_mps",), 1.0, "m"),
    MeasuredConstraint("track", "cart", "x_m", "m", maximum=9.0, priority=1),
    BarrierConstraint("wall", "cart", Wall(1.0), 0.5),
    LookAheadConstraint("stop in time", foresee, ("stop", "reverse"), 20),
)
GOING_HOME = {"cart": SafeState("ramp_to", {"gear": 0.0}, within_s=30.0), "cart/C2": SafeState("hold")}


def wrong(*constraints: Constraint, safe: dict[str, SafeState] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        declare(PLATE, constraints, safe)
    return str(caught.value).split("\n")


def test_nothing_added_is_what_the_nameplate_implies_and_neutral() -> None:
    plain = declare(PLATE)
    assert plain.constraints == constraints_of(PLATE)
    assert set(plain.safe_states) == set(PLATE.agents)
    assert {state.kind for state in plain.safe_states.values()} == {"neutral"}


def test_every_kind_can_be_declared_at_once_and_gets_a_row() -> None:
    whole = declare(PLATE, SOUND, GOING_HOME)
    rows = {row.name: row for row in whole.rows()}
    assert len(rows) == len(whole.constraints) == 4 + 1 + len(SOUND) - 2  # a hard range and a hard rate were replaced
    assert rows["cart/v_mps range"].limit == "-1.5 to 1.5 m/s"
    assert rows["cart/v_mps range"].origin == "site"
    assert rows["cart/heat_kw range"].origin == "nameplate"
    assert rows["cart/gear range"].limit == "0 | 1 | 2 1"
    assert rows["power"].limit == "the sum over assets is at most 6 kW"
    assert [row.priority for row in whole.rows() if row.priority != "hard"] == ["soft 1", "soft 2", "soft 3"]


def test_soft_constraints_stand_in_the_order_in_which_they_are_kept() -> None:
    whole = declare(PLATE, SOUND, GOING_HOME)
    assert [c.priority for c in whole.soft] == [1, 2, 3]
    assert {c.name for c in whole.hard} | {c.name for c in whole.soft} == {c.name for c in whole.constraints}


def test_an_assets_safe_state_comes_before_its_groups() -> None:
    states = declare(PLATE, SOUND, GOING_HOME).safe_states
    assert [states[f"cart/C{i}"].kind for i in (1, 2, 3)] == ["ramp_to", "hold", "ramp_to"]


def test_the_hash_ignores_order_and_notices_every_change() -> None:
    whole = declare(PLATE, SOUND, GOING_HOME)
    assert declare(PLATE, tuple(reversed(SOUND)), GOING_HOME).hash == whole.hash
    assert pickle.loads(pickle.dumps(whole)).hash == whole.hash
    changed = {declare(PLATE, SOUND[:i] + SOUND[i + 1 :], GOING_HOME).hash for i in range(len(SOUND))}
    moved = BarrierConstraint("wall", "cart", Wall(2.0), 0.5)
    others = {declare(PLATE, SOUND).hash, declare(PLATE, (*SOUND[:-2], moved, SOUND[-1]), GOING_HOME).hash}
    assert len(changed | others | {whole.hash}) == len(SOUND) + 3


def test_a_functions_hash_is_its_name() -> None:
    one = declare(PLATE, [BarrierConstraint("wall", "cart", brake, 0.5)])
    assert one.hash == declare(PLATE, [BarrierConstraint("wall", "cart", brake, 0.5)]).hash


def test_a_constraint_is_found_by_name_or_the_names_are_told() -> None:
    whole = declare(PLATE, SOUND, GOING_HOME)
    assert whole.constraint("power") == SOUND[9]
    with pytest.raises(ConfigurationError, match=r"no constraint 'powr'; declared: .*power"):
        whole.constraint("powr")


BAD: list[tuple[Constraint, str]] = [
    (RangeConstraint("carts", "v_mps", -1, 1, "m/s"), r"group 'carts' is not on the nameplate.*did you mean 'cart'"),
    (RangeConstraint("cart", "v", -1, 1, "m/s"), "commanded signal 'v' is not in group 'cart'; there: v_mps"),
    (RangeConstraint("cart", "v_mps", -1, 1, "km/h"), r"unit 'km/h', but v_mps is in 'm/s'; convert"),
    (RangeConstraint("cart", "v_mps", 1, -1, "m/s"), "inverted"),
    (RangeConstraint("cart", "v_mps", math.nan, 1, "m/s"), "not a number"),
    (RangeConstraint("cart", "v_mps", -3, 1, "m/s"), r"leaves the nameplate's \[-2, 2\]"),
    (RangeConstraint("cart", "v_mps", 0.5, 1, "m/s"), "neutral command 0 is outside"),
    (RangeConstraint("cart", "gear", 0.2, 0.8, "1", 0), "none of the levels"),
    (RateConstraint("cart", "v_mps", 0.6, "m/s"), "above the nameplate's 0.5"),
    (RateConstraint("cart", "heat_kw", 0.0, "kW"), "must be finite and positive"),
    (AccelerationConstraint("cart", "v_mps", math.inf, "m/s"), "must be finite and positive"),
    (DeadbandConstraint("cart", "heat_kw", 4.0, "kW", 1), "nothing could change"),
    (DwellConstraint("cart", "gear", -1.0, "1"), "minimum_s -1.0 s must be"),
    (DwellConstraint("cart", "gear", 5.0, "1", 1.5), "level 1.5 is none of gear's"),
    (DwellConstraint("cart", "v_mps", 5.0, "m/s", 1.0), "v_mps has no levels"),
    (SwitchesConstraint("cart", "gear", 0, "1"), "whole number from 1 on"),
    (TransitionConstraint("cart", "gear", (), "1"), "lets nothing ever change"),
    (TransitionConstraint("cart", "gear", ((0.0, 3.0),), "1"), "level 3 is none"),
    (ExclusiveConstraint("cart", ("heat_kw",)), "name two or more"),
    (ExclusiveConstraint("cart", ("heat_kw", "col_kw")), "did you mean 'cool_kw'"),
    (ConflictConstraint("c", "cart", ()), "forbid nothing"),
    (ConflictConstraint("c", "cart", ((("C1", "gear", 1.0), ("C1", "gear", 2.0)),)), "one level at a time"),
    (ConflictConstraint("c", "cart", ((("C9", "gear", 1.0), ("C1", "gear", 2.0)),)), "asset 'C9' is not in group"),
    (SumConstraint("s", "cart", "heat_kw", "kW"), "neither minimum nor maximum"),
    (SumConstraint("s", "cart", "heat_kw", "kW", 1.0, 2.0), "minimum 2 is above maximum 1"),
    (SumConstraint("s", "cart", "heat_kw", "kW", math.inf), "must be finite"),
    (SumConstraint("s", "cart", "heat_kw", "MW", 1.0), "unit 'MW'"),
    (SumConstraint("s", "cart", "heat_kw", "MW", 1.0, None, (1.0, 1.0)), "2 weights for 3 assets"),
    (SumConstraint("s", "cart", "heat_kw", "MW", 1.0, None, (0.0, 0.0, 0.0)), "one of them not zero"),
    (SumConstraint("s", "cart", "heat_kw", "kW", -1.0), "the least sum that the ranges allow is 0"),
    (SumConstraint("s", "cart", "heat_kw", "kW", None, 13.0), "the most that the ranges allow is 12"),
    (SumRateConstraint("s", "cart", "heat_kw", "kW"), "neither up_per_second"),
    (SumRateConstraint("s", "cart", "heat_kw", "kW", -1.0), "up_per_second -1.0"),
    (SeparationConstraint("a", "cart", ("x_m",), ("heat_kw",), 1.0, "m"), "needs 'm/s'"),
    (SeparationConstraint("a", "cart", ("x_m",), (), 1.0, "m"), "1 positions and 0 velocities"),
    (SeparationConstraint("a", "cart", ("x_m",), ("v_mps",), 0.0, "m"), "distance 0.0 m must be"),
    (MeasuredConstraint("m", "cart", "heading_deg", "deg", 90.0), "wraps around"),
    (MeasuredConstraint("m", "cart", "y_m", "m", 90.0), "did you mean 'x_m'"),
    (BarrierConstraint("b", "cart", lambda m: brake(m + 1.0), 1.0), "a function of a module, or a frozen dataclass"),
    (BarrierConstraint("b", "cart", brake, 0.0), "gain_per_s 0.0"),
    (BarrierConstraint("b", "cart", brake, 1.0, margin=-1.0), "margin -1.0"),
    (LookAheadConstraint("l", foresee, (), 5), "name one or more"),
    (LookAheadConstraint("l", foresee, ("stop",), 0), "horizon_periods 0"),
    (SumConstraint("s", "cart", "heat_kw", "kW", 6.0, priority=-1), "priority -1"),
]


@pytest.mark.parametrize(("constraint", "said"), BAD, ids=[f"{c.kind}-{i}" for i, (c, _) in enumerate(BAD)])
def test_a_fault_is_told_with_where_what_and_what_to_do(constraint: Constraint, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        declare(PLATE, [constraint])
    assert str(caught.value).startswith(f"constraint {constraint.name!r}: ")


def test_all_faults_come_at_once() -> None:
    assert len(wrong(*(c for c, _ in BAD[:5]))) >= 5


def test_a_name_stands_once() -> None:
    twice = SumConstraint("power", "cart", "heat_kw", "kW", maximum=6.0)
    assert "stands 2 times" in wrong(twice, dataclasses.replace(twice, maximum=5.0))[0]


def test_a_tightened_range_counts_for_sums() -> None:
    low = RangeConstraint("cart", "heat_kw", 0.0, 1.0, "kW")
    assert (
        "the most that the ranges allow is 3" in wrong(low, SumConstraint("s", "cart", "heat_kw", "kW", None, 4.0))[0]
    )


def test_what_is_soft_need_not_be_possible() -> None:
    declare(PLATE, [SumConstraint("s", "cart", "heat_kw", "kW", None, 13.0, priority=1)])


STATES: list[tuple[SafeState, str]] = [
    (SafeState("parked"), "kind 'parked'; must be one of"),  # type: ignore[arg-type]  # that is the fault
    (SafeState("values", {"v_mps": 5.0}), r"v_mps 5 is outside \[-2, 2\]"),
    (SafeState("values", {"v_mps": math.nan}), "v_mps nan is outside"),
    (SafeState("values", {"gear": 0.5}), "gear 0.5 is none of the levels"),
    (SafeState("values", {"w": 0.5}), "'w' is no command"),
    (SafeState("values"), "values go with values and ramp_to"),
    (SafeState("neutral", {"v_mps": 0.0}), "values go with values and ramp_to"),
    (SafeState("ramp_to", {"v_mps": 0.0}), "no within_s"),
    (SafeState("ramp_to", {"v_mps": 0.0}, 3.0), "needs up to 4 s to reach 0 m/s"),
    (SafeState("values", {"v_mps": -2.0}, 7.0), "needs up to 8 s to reach -2 m/s"),
    (SafeState("neutral", {}, -1.0), "within_s -1.0"),
    (SafeState("hold", {}, 1.0), "hold arrives at once"),
]


@pytest.mark.parametrize(("state", "said"), STATES)
def test_a_safe_state_is_inside_the_limits_and_reachable_in_its_time(state: SafeState, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        declare(PLATE, (), {"cart": state})
    assert len(str(caught.value).split("\n")) == 1  # once, not once an asset


def test_a_safe_state_of_nobody_is_told() -> None:
    assert "no such group or group/asset" in wrong(safe={"cart/C7": SafeState("hold")})[0]


def test_a_level_that_no_legal_changes_lead_to_is_no_safe_state() -> None:
    one_way = TransitionConstraint("cart", "gear", ((0.0, 1.0), (1.0, 2.0)), "1")
    assert "gear 0 1 can't be reached from 1, 2" in wrong(one_way)[0]
    declare(PLATE, [one_way], {"cart": SafeState("values", {"gear": 2.0})})


def test_safe_states_keep_what_the_assets_keep_together() -> None:
    hot = {"cart": SafeState("values", {"heat_kw": 3.0, "gear": 2.0})}
    power = SumConstraint("power", "cart", "heat_kw", "kW", maximum=6.0)
    gears = ConflictConstraint("gears", "cart", ((("C1", "gear", 2.0), ("C3", "gear", 2.0)),))
    told = wrong(power, gears, safe=hot)
    assert told[0].startswith("constraint 'power': the safe states sum up to 9 kW")
    assert told[1].startswith("constraint 'gears': the safe states bring ('C1', 'gear', 2.0) and ('C3'")
    declare(PLATE, [power, gears], {**hot, "cart/C3": SafeState("hold")})  # a sum that was kept stays kept
    both = {"cart": SafeState("values", {"heat_kw": 1.0, "cool_kw": 1.0})}
    assert (
        "has heat_kw, cool_kw off neutral" in wrong(ExclusiveConstraint("cart", ("heat_kw", "cool_kw")), safe=both)[0]
    )


def test_reach_times_are_those_of_the_trapezoid() -> None:
    assert Limit(0, 1, per_second=0.5).time_s(2.0, 1.0) == 4.0
    assert Limit(0, 1, per_second=1.0, per_second2=0.5).time_s(4.0, 1.0) == 6.0  # 4 / 1 + 1 / 0.5
    assert Limit(0, 1, per_second2=0.5).time_s(2.0, 1.0) == 4.0  # 2 sqrt(2 / 0.5)
    assert Limit(0, 1, per_second=10.0, per_second2=0.5).time_s(2.0, 1.0) == 4.0  # never at full speed
    assert Limit(0, 1).time_s(2.0, 7.0) == 7.0  # free, but no sooner than the next period


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.0, 50))
def test_reach_time_agrees_with_a_simulation_of_the_profile(v: float, a: float, distance: float) -> None:
    """Speed up and brake at ``a``, never beyond ``v``: the time until the distance is covered, by integration."""
    top = min(v, math.sqrt(a * distance))
    times = np.array([0.0, top / a, top / a + (distance - top * top / a) / top, 0.0]) if top > 0 else np.zeros(4)
    times[3] = times[2] + top / a if top > 0 else 0.0
    speeds = np.array([0.0, top, top, 0.0])
    covered = float(np.sum((speeds[1:] + speeds[:-1]) / 2 * np.diff(times)))
    assert covered == pytest.approx(distance, rel=1e-6, abs=1e-9)
    found = Limit(0, 1, v, a).time_s(distance, 1e-3)
    assert found >= times[3] - 1e-6
    assert found <= times[3] + 2e-3 + 1e-6 * times[3]
