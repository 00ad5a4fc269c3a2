from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.leases import Assignment, Edge, LeaseTerms, alone, leased_row
from twinloop.deploy.leases.alone import FALL_PART
from twinloop.deploy.shield import Shield, Source
from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import (
    AccelerationConstraint,
    ConflictConstraint,
    Constraint,
    Declaration,
    RangeConstraint,
    SafeState,
    SumConstraint,
    SumRateConstraint,
    declare,
)
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry

TERMS = LeaseTerms(grant_s=20.0, pledge_s=60.0, drift=0.01)
CAP = SumConstraint("cap", "turbine", "power_mw", "MW", maximum=6.0)
POWER = Signal("power_mw", "MW", 0.0, 5.0, rate_limit_per_s=1.0)
PLATE = Nameplate("farm", 1.0, (Group("turbine", ("A", "B", "C"), (Signal("wind_mps", "m/s", 0.0, 40.0),), (POWER,)),))


def farm(*more: Constraint, cap: SumConstraint = CAP, safe: SafeState | None = None) -> Declaration:
    return declare(PLATE, (cap, *more), {"turbine": safe or SafeState("neutral")})


def edge(place: int = 0) -> Edge:
    return Edge(leased_row(farm(), "cap"), place, TERMS, hold_s=1.0)


def reading(second: int) -> Telemetry:
    wind, times = np.full((1, 1), 10.0 + 0.1 * second), np.full((1, 1), float(second))
    good = {"turbine": np.full((1, 1), int(Quality.GOOD), np.int8)}
    return Telemetry({"turbine": wind}, {"turbine": times}, good, float(second), second)


def test_shares_floors_and_falls_of_a_row() -> None:
    row = leased_row(farm(), "cap")
    assert row.shares == pytest.approx((2.0, 2.0, 2.0))
    assert row.floors == (0.0, 0.0, 0.0)
    assert row.most == (5.0, 5.0, 5.0)
    assert row.falls_per_s == pytest.approx((FALL_PART,) * 3)


def test_a_minimum_of_the_sum_is_shared_for_good_and_bounds_what_others_may_get() -> None:
    row = leased_row(farm(cap=replace(CAP, minimum=3.0), safe=SafeState("values", {"power_mw": 1.5})), "cap")
    assert row.floors == pytest.approx((1.0, 1.0, 1.0))
    assert row.most == pytest.approx((4.0, 4.0, 4.0))


def test_an_asset_alone_keeps_its_part_of_everything_that_the_site_keeps() -> None:
    ramp = SumRateConstraint("ramp", "turbine", "power_mw", "MW", up_per_second=1.5, down_per_second=0.9)
    tight = RangeConstraint("turbine", "power_mw", 0.0, 4.0, "MW")
    site = farm(ramp, tight)
    row = leased_row(site, "cap")
    own = alone(site, row, "B")
    assert own.nameplate.agents == ("turbine/B",)
    kept = {c.name: c for c in own.constraints}
    assert kept["turbine/power_mw range"] == tight
    ramps = kept["ramp"]
    assert isinstance(ramps, SumRateConstraint)
    assert (ramps.weights, ramps.up_per_second) == ((1.0,), 0.5)
    assert ramps.down_per_second == pytest.approx(0.3)
    assert kept["cap"] == replace(CAP, weights=(1.0,), maximum=row.most[1])
    assert row.falls_per_s == pytest.approx((FALL_PART * 0.3,) * 3)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (AccelerationConstraint("turbine", "power_mw", 0.5, "MW"), "coming down evenly"),
        (ConflictConstraint("clash", "turbine", ((("A", "mode", 1.0), ("B", "mode", 1.0)),)), "another asset"),
    ],
)
def test_what_an_asset_cannot_keep_alone_is_refused(more: Constraint, match: str) -> None:
    if isinstance(more, ConflictConstraint):
        group = replace(PLATE.groups[0], commanded=(POWER, _switch("mode")))
        plate = replace(PLATE, groups=(group,))
        site = declare(plate, (CAP, more), {"turbine": SafeState("neutral")})
    else:
        site = farm(more)
    with pytest.raises(ConfigurationError, match=match):
        alone(site, leased_row(site, "cap"), "A")


@pytest.mark.parametrize("safe", [SafeState("hold"), SafeState("values", {"power_mw": 2.5})])
def test_a_safe_state_that_may_need_more_than_the_share_is_refused(safe: SafeState) -> None:
    site = declare(PLATE, (CAP,), {"turbine/A": safe})
    with pytest.raises(ConfigurationError, match="safe state of 'turbine/A'"):
        alone(site, leased_row(site, "cap"), "A")


def test_the_shield_keeps_the_ceiling_of_each_period_and_is_back_when_a_grant_ends() -> None:
    own, shield = edge(), Shield(alone(farm(), leased_row(farm(), "cap"), "A"))
    memory, state = shield.start({"turbine": np.array([[2.0]])}), edge().start(1, -100.0, 2.0)
    state = own.take(state, Assignment(0, 5, 1, 5.0, 20.0, 1, 0.0), 0.0)
    sent = []
    for second in range(25):
        orders = own.orders(state, float(second))
        decision = shield.filter(
            reading(second),
            {"turbine": np.array([[5.0]])},
            float(second),
            memory,
            orders=orders,
            clock_s=float(second),
        )
        memory = decision.state
        sent.append(float(decision.commands["turbine"][0, 0]))
        assert sent[-1] <= own.ceiling(state, float(second))
        state, _ = own.report(state, float(second), sent[-1], 5.0)
    assert max(sent) > 4.5
    assert sent[19:] == pytest.approx([2.0] * 6, abs=1e-6)


def test_orders_of_people_stay_and_the_tighter_limit_holds() -> None:
    own = edge()
    state = own.start(1, -100.0, 2.0)
    asked = Orders(stop=True, limits={"cap": (0.5, 1.0), "other": (None, 3.0)})
    told = own.orders(state, 0.0, asked)
    assert told.stop
    assert told.limits == {"cap": (0.5, 1.0), "other": (None, 3.0)}
    assert own.orders(state, 0.0).limits["cap"][1] == pytest.approx(2.0, abs=1e-8)


@pytest.mark.parametrize(
    "ends", [(3.0, 9.0), (math.nan, None), (None, math.nan), ("a", None), (True, None), (1.0,), None, [1.0, 2.0], 5.0]
)
def test_no_order_for_the_row_takes_its_ceiling_away(ends: object) -> None:
    own, shield = edge(), Shield(alone(farm(), leased_row(farm(), "cap"), "A"))
    state = own.start(1, -100.0, 2.0)
    asked = Orders(limits={"cap": ends})  # type: ignore[dict-item]  # what is no pair of numbers is what is tested
    memory = shield.start({"turbine": np.array([[2.0]])})
    orders = own.orders(state, 0.0, asked)
    decision = shield.filter(reading(0), {"turbine": np.array([[5.0]])}, 0.0, memory, orders=orders, clock_s=0.0)
    assert decision.source["turbine/A"] is Source.POLICY
    assert decision.commands["turbine"][0, 0] <= 2.0


@pytest.mark.parametrize("clock_s", [math.nan, -math.inf, -200.0])
def test_a_clock_that_is_wrong_leaves_no_more_than_the_share_until_a_restart(clock_s: float) -> None:
    own = edge()
    state = own.take(own.start(1, -100.0, 2.0), Assignment(0, 5, 1, 5.0, 20.0, 1, 0.0), 0.0)
    state, _ = own.report(state, 0.0, 4.0, 5.0)
    assert own.ceiling(state, clock_s) == 2.0
    state, report = own.report(state, clock_s, 3.0, 5.0)
    assert report is None
    assert own.causes(state, 1.0) == (Cause.LEASE_LOST,)
    assert own.ceiling(state, 1.0) == 2.0
    again = own.start(2, 1.0, 2.0)
    assert own.causes(again, 1.0) == ()
    assert own.report(again, 1.0, 2.0, 5.0)[1] is not None


def test_an_asset_whose_lease_fails_while_it_has_pledged_stays_at_what_it_used() -> None:
    own = edge()
    state = own.take(own.start(1, -100.0, 1.0), Assignment(0, 5, 1, 0.5, 60.0, 1, 0.0), 0.0)
    state, _ = own.report(state, 2.0, 0.5, 0.3)
    assert own.ceiling(state._replace(failed=True), 3.0) == 0.5


anything = st.one_of(
    st.none(), st.text(max_size=3), st.floats(), st.integers(), st.booleans(), st.lists(st.floats(), max_size=3)
)


@settings(max_examples=200)
@given(st.lists(anything, min_size=6, max_size=6), st.one_of(st.just(0), anything))
def test_no_message_whatever_it_holds_raises_or_allows_more_than_the_most(parts: list[object], asset: object) -> None:
    own = edge()
    state = own.start(1, -100.0, 2.0)
    message = Assignment(asset, *parts)  # type: ignore[arg-type]  # the wrong types are what is tested
    taken = own.take(state, message, 0.0)
    assert own.ceiling(taken, 0.0) <= 5.0
    assert own.take(state, parts, 0.0) is state


def _switch(name: str) -> Signal:
    return Signal(name, "1", 0.0, 1.0, levels=(0.0, 1.0))
