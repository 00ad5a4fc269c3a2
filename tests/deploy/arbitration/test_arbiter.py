"""Whose value a command gets: a plain reference, releases and expiry, modes, and that settling changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.arbitration.arbiter import Arbiter, Settled, Standing
from twinloop.deploy.arbitration.claims import MOST_CLAIMS, Claim, claims_of, claims_row, read_claims
from twinloop.deploy.arbitration.request import Request
from twinloop.deploy.shield import Code, Mode, Shield, ShieldState
from twinloop.deploy.shield.modes import MODES
from twinloop.deploy.shield.orders import Orders
from twinloop.training.benchmarks.arbitration_site import KETTLES

SHIELD = Shield(KETTLES)
FLAT = SHIELD.flat
N = FLAT.n
ARBITER = Arbiter(FLAT, KETTLES.agents)
NAN = math.nan
OPERATOR, APPROVED = 8, 14


def state_in(mode: Mode = Mode.AUTONOMOUS, applied: float = 0.0) -> ShieldState:
    return SHIELD.start({g.name: np.full((g.n_assets, len(g.commanded)), applied) for g in KETTLES.groups}, mode)


def claim(who: str, lasts_s: float = 10.0, **at: float) -> Claim:
    values = np.full(N, NAN)
    for place, value in at.items():
        values[int(place.removeprefix("c"))] = value
    return Claim(who, lasts_s, values)


def settle(
    standing: Standing | None = None,
    heard: dict[int, Any] | None = None,
    proposed: float | None = 1.0,
    *,
    orders: Orders | str | None = None,
    state: ShieldState | None = None,
    clock_s: float = 0.0,
) -> Settled:
    table = None if proposed is None else FLAT.grouped(np.full(N, proposed))
    absent = Code.COMMAND_MISSING if proposed is not None else Code.POLICY_LATE
    given_orders = Orders(approved=frozenset()) if orders is None else orders
    return ARBITER.settle(
        standing or ARBITER.start(), heard or {}, table, absent, given_orders, state or state_in(), clock_s
    )


def values(settled: Settled) -> list[float]:
    return [float(v) for v in FLAT.flat(settled.proposed)]


@pytest.mark.parametrize("proposed", [None, "full speed", {"kettle": np.ones((3, 1))}, {}])
def test_with_nothing_asked_whatever_the_policy_says_passes_untouched(proposed: Any) -> None:
    orders = Orders()
    found = ARBITER.settle(
        ARBITER.start(), {OPERATOR: (), APPROVED: None}, proposed, Code.COMMAND_MISSING, orders, state_in(), 0.0
    )
    assert found.proposed is proposed
    assert found.orders is orders
    assert found.slot is None


def test_the_operator_goes_before_the_proposal_and_that_before_the_policy() -> None:
    heard = {OPERATOR: (claim("anna", c0=8.0),), APPROVED: (claim("P-1", c0=14.0, c1=0.14),)}
    found = settle(heard=heard)
    assert found.slot is not None
    assert found.slot.tolist() == [8, 14, 16, 16, 16, 16, 16]
    assert values(found) == [8.0, 0.14, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert found.who == {"kettle/K1": "anna"}
    assert found.others == frozenset({"kettle/K1"})
    assert isinstance(found.orders, Orders)
    assert (found.orders.approved, found.orders.manual) == (found.others, found.others)


def test_what_is_asked_no_longer_is_released_and_a_requester_that_fails_keeps_it_until_it_expires() -> None:
    first = settle(heard={OPERATOR: (claim("anna", 3.0, c0=8.0),)})
    silent = settle(first.standing, {OPERATOR: ()}, clock_s=1.0)
    assert silent.slot is None
    assert silent.standing.empty
    failing = settle(first.standing, {OPERATOR: None}, clock_s=2.9)
    assert failing.slot is not None
    assert failing.slot[0] == 8
    assert settle(failing.standing, {OPERATOR: None}, clock_s=3.0).slot is None
    assert settle(first.standing, {OPERATOR: None}, clock_s=NAN).slot is None


def test_a_stop_and_a_mode_that_commands_nothing_empty_all_slots_for_good() -> None:
    heard = {OPERATOR: (claim("anna", 100.0, c0=8.0),), APPROVED: (claim("P-1", 100.0, c6=2.0),)}
    first = settle(heard=heard)
    stopped = settle(first.standing, heard, orders=Orders(stop=True))
    assert stopped.slot is None
    assert stopped.standing.empty
    for mode in (Mode.SHADOW, Mode.ADVISE):
        assert settle(first.standing, heard, state=state_in(mode)).standing.empty
    tripped = state_in()
    assert tripped.modes is not None
    some = tripped.modes.mode.copy()
    some[0] = MODES.index(Mode.TRIPPED)
    part = settle(first.standing, heard, state=replace(tripped, modes=replace(tripped.modes, mode=some)))
    assert part.slot is not None
    assert part.slot.tolist() == [16] * 6 + [14]


def test_in_approved_mode_the_rest_of_an_asset_that_is_held_stays_as_it_is() -> None:
    heard = {OPERATOR: (claim("anna", c0=8.0),)}
    found = settle(heard=heard, state=state_in(Mode.APPROVED, applied=0.5))
    assert found.slot is not None
    assert found.slot.tolist() == [8, 0, 16, 16, 16, 16, 16]
    assert values(found)[:2] == [8.0, 0.5]
    told = settle(heard=heard, state=state_in(Mode.APPROVED, 0.5), orders=Orders(approved=frozenset({"kettle/K1"})))
    assert values(told)[:2] == [8.0, 1.0]
    lowered = settle(heard=heard, state=state_in(applied=0.5), orders=Orders(mode=Mode.APPROVED))
    assert values(lowered)[:2] == [8.0, 0.5]


def test_without_a_policy_what_a_person_holds_stands_and_the_rest_of_it_stays_and_others_fall_back() -> None:
    found = settle(
        heard={OPERATOR: (claim("anna", c0=8.0),), APPROVED: (claim("P-1", c2=9.0),)},
        proposed=None,
        state=state_in(applied=0.5),
    )
    assert values(found)[:2] == [8.0, 0.5]
    assert values(found)[2] == 9.0
    assert all(math.isnan(v) for v in values(found)[3:])


def test_settling_changes_none_of_its_arguments() -> None:
    heard = {OPERATOR: (claim("anna", c0=8.0),)}
    standing = settle(heard=heard).standing
    before = standing.array.values.copy(), standing.array.until_s.copy(), standing.who.copy()
    settle(standing, {OPERATOR: (claim("bert", c3=4.0),)}, clock_s=1.0)
    settle(standing, {OPERATOR: ()}, orders=Orders(stop=True))
    for was, now in zip(before, (standing.array.values, standing.array.until_s, standing.who), strict=True):
        np.testing.assert_array_equal(was, now)


Step = tuple[float, dict[int, list[tuple[int, float, float]] | None]]
ASKS = st.one_of(
    st.none(),
    st.lists(st.tuples(st.integers(0, N - 1), st.floats(-5.0, 200.0), st.floats(0.1, 5.0)), max_size=4),
)
STEPS = st.lists(
    st.tuples(st.floats(0.0, 3.0), st.fixed_dictionaries({OPERATOR: ASKS, APPROVED: ASKS})), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_any_sequence_agrees_with_a_plain_reference(steps: list[Step]) -> None:
    """A dictionary a slot: replaced by an answer, kept through a failure, until its time is over."""
    standing, clock_s = ARBITER.start(), 0.0
    plain: dict[int, dict[int, tuple[float, float]]] = {OPERATOR: {}, APPROVED: {}}
    for passed_s, asks in steps:
        clock_s += passed_s
        heard: dict[int, Any] = {}
        for slot, told in asks.items():
            if told is None:
                heard[slot] = None
                continue
            heard[slot] = tuple(claim("x", lasts_s, **{f"c{i}": v}) for i, v, lasts_s in told)
            plain[slot] = {i: (v, clock_s + lasts_s) for i, v, lasts_s in told}
        found = settle(standing, heard, clock_s=clock_s)
        standing = found.standing
        wanted, slots = [1.0] * N, [16] * N
        for slot in (APPROVED, OPERATOR):
            for i, (value, until_s) in plain[slot].items():
                if until_s > clock_s:
                    wanted[i], slots[i] = value, slot
        assert values(found) == wanted
        assert (found.slot is None and slots == [16] * N) or (found.slot is not None and found.slot.tolist() == slots)


def request(values: Any, slot: int = OPERATOR, lasts_s: Any = 1.0, who: Any = "anna") -> Request:
    return Request(slot, values, lasts_s, who)


WRONG = [
    request({"kettle": np.ones((3, 2))}, slot=2),
    request({"kettle": np.ones((2, 2))}),
    request({"kettle": np.full((3, 2), math.inf)}),
    request({"boiler": np.ones((3, 2))}),
    request({"kettle": [["x", "y"]] * 3}),
    request({"kettle": np.ones((3, 2))}, lasts_s=math.inf),
    request({"kettle": np.ones((3, 2))}, lasts_s=0.0),
    request({"kettle": np.ones((3, 2))}, lasts_s="1"),
    request({"kettle": np.ones((3, 2))}, who=7),
    request(None),
    "everything",
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_request_that_can_t_be_followed_is_refused_in_words_and_the_others_stand(wrong: Any) -> None:
    good = request({"fan": np.ones((1, 1))})
    found, refused = read_claims([wrong, good], OPERATOR, FLAT)
    assert len(found) == len(refused) == 1
    assert found[0].values.tolist()[-1] == 1.0


def test_one_who_asks_without_end_has_failed() -> None:
    with pytest.raises(ValueError, match="at most"):
        read_claims([request({})] * (MOST_CLAIMS + 1), OPERATOR, FLAT)


def test_claims_come_back_out_of_the_journal_as_they_were() -> None:
    heard = {OPERATOR: (claim("anna", 0.1 + 0.2, c0=1 / 3, c5=-0.0),), APPROVED: None}
    again = claims_of(claims_row(heard), N)
    assert again[APPROVED] is None
    told = again[OPERATOR]
    assert told is not None
    assert told[0][:2] == ("anna", 0.1 + 0.2)
    np.testing.assert_array_equal(told[0].values, heard[OPERATOR][0].values)  # type: ignore[index]  # not None here
