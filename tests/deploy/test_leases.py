from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from twinloop.deploy.leases import (
    Assignment,
    Coordinator,
    Holder,
    LeaseTerms,
    Ledger,
    Report,
    new_term,
    row_shares,
    water_fill,
)
from twinloop.envs.errors import ConfigurationError

TERMS = LeaseTerms(grant_s=10.0, pledge_s=30.0, drift=0.05)
numbers = st.floats(-100.0, 100.0, allow_nan=False).map(lambda each: round(each, 3))


def test_equal_assets_get_equal_shares() -> None:
    assert row_shares(np.ones(4), np.zeros(4), np.full(4, 5.0), 12.0).tolist() == [3.0] * 4


def test_what_a_small_asset_cannot_use_goes_to_the_rest() -> None:
    shares = row_shares([1.0, 1.0], [0.0, 0.0], [1.0, 9.0], 8.0, rating=[1.0, 1.0])
    assert shares == pytest.approx([1.0, 7.0])


def test_a_row_that_no_command_satisfies_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="least possible sum 4"):
        row_shares([1.0, 1.0], [2.0, 2.0], [5.0, 5.0], 3.0)


def test_a_pledge_that_could_not_outlast_a_grant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must outlast a grant"):
        LeaseTerms(grant_s=10.0, pledge_s=10.0, drift=0.01)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=30), st.floats(0.0, 1.0))
def test_shares_lie_in_the_ranges_and_sum_to_no_more_than_the_bound(rows: list[tuple[float, ...]], part: float) -> None:
    weights, one, other = np.array(rows).T
    low_u, high_u = np.minimum(one, other), np.maximum(one, other)
    low = np.minimum(weights * low_u, weights * high_u)
    high = np.maximum(weights * low_u, weights * high_u)
    bound = float(low.sum() + part * (high - low).sum())
    shares = row_shares(weights, low_u, high_u, max(bound, float(low.sum())))
    assert shares.sum() <= max(bound, float(low.sum()))
    assert (shares >= low - 1e-6).all()
    assert (shares <= high + 1e-9).all()
    assert shares.sum() == pytest.approx(bound, abs=1e-6)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.floats(0.0, 1.0))
def test_water_filling_meets_the_optimality_conditions(pairs: list[tuple[float, float]], part: float) -> None:
    one, other = np.array(pairs).T
    low, want = np.minimum(one, other), np.maximum(one, other)
    bound = float(low.sum() + part * (want - low).sum())
    split = water_fill(want, low, bound)
    assert split.sum() == pytest.approx(bound, abs=1e-8)
    assert (split >= low).all()
    level = (want - split).max()
    assert np.where(split > low, np.abs(want - split - level), 0.0).max() <= 1e-9


def test_a_later_life_has_a_greater_term() -> None:
    first = new_term()
    assert new_term(heard=first + 2**60) > first + 2**60


def test_a_grant_ends_a_lease_after_the_report_and_the_ceiling_is_back_by_then() -> None:
    holder = Holder(0, 1.0, 0.2, TERMS)
    state = holder.start(7, 0.0, 1.0)
    assert (
        holder.take(state, Assignment(0, 5, 1, 2.0, 10.0, 7, 28.0), 29.0).lease.term == 0
    )  # not before its own pledge
    state = holder.take(state, Assignment(0, 5, 1, 2.0, 10.0, 7, 28.0), 31.0)
    assert holder.ceiling(state, 31.0) == 2.0
    assert holder.ceiling(state, 33.0, hold_s=2.0) == pytest.approx(1.6)
    assert holder.ceiling(state, 38.0) == 1.0


def test_a_pledge_is_reported_only_when_the_use_has_come_down() -> None:
    holder = Holder(0, 1.0, 0.1, TERMS)
    state = holder.take(holder.start(7, -100.0, 1.0), Assignment(0, 5, 3, 0.5, 30.0, 7, 0.0), 0.0)
    state, early = holder.report(state, 2.0, 0.8, 0.3)
    assert early.number == 0
    assert holder.ceiling(state, 2.0) == pytest.approx(0.8)
    state, behind = holder.report(state, 6.0, 0.6, 0.3)
    state, settled = holder.report(state, 6.0, 0.5, 0.3)
    assert (behind.number, settled.number) == (0, 3)


def test_over_a_fair_network_the_headroom_is_granted() -> None:
    demands = [0.2, 0.4, 2.0, 3.0]
    ledger = Ledger((1.0,) * 4, TERMS)
    coordinator = Coordinator(ledger, (0.0,) * 4, margin_pu=0.0)
    seat = coordinator.begin(1)
    holders = [Holder(i, 1.0, math.inf, TERMS) for i in range(4)]
    states = [holder.start(1, -100.0, 1.0) for holder in holders]
    for second in range(6):
        for i, holder in enumerate(holders):
            used = min(demands[i], holder.ceiling(states[i], second))
            states[i], report = holder.report(states[i], second, used, demands[i])
            seat, answer = coordinator.answer(seat, report, second)
            assert answer is not None
            states[i] = holder.take(states[i], answer, second)
    ceilings = [holder.ceiling(state, 6.0) for holder, state in zip(holders, states, strict=True)]
    assert ceilings == pytest.approx(water_fill(demands, np.zeros(4), 4.0))


def test_a_pledge_that_rounding_put_a_hair_below_the_share_does_not_stand_in_the_way_of_grants() -> None:
    shares = (2.366420911948386,) * 8
    ledger = Ledger(shares, TERMS)
    accounts = ledger.open()
    for asset, limit in ((0, 0.5), (3, math.nextafter(shares[3], 0.0))):
        given = ledger.assign(accounts, 1, Report(asset, 1, 0.0, 1, 0, 1, limit), 0.0, limit, 0.0)
        assert given is not None
        accounts = ledger.settle(given[0], Report(asset, 1, 1.0, 1, given[1].number, 1, limit))
    report = Report(3, 1, 1.0, 1, 1, 1, 4.0)
    assert ledger.assign(accounts, 1, report, 1.0, 4.0, 1.0) is not None


def test_a_coordinator_steps_back_when_a_higher_term_was_heard() -> None:
    coordinator = Coordinator(Ledger((1.0,), TERMS), (0.0,))
    seat, answer = coordinator.answer(coordinator.begin(3), Report(0, 1, 0.0, 4, 1, 4, 0.5), 0.0)
    assert seat.deposed
    assert answer is None


class Farm(RuleBasedStateMachine):
    """Eight assets, two coordinators, a network that loses, keeps, reorders and repeats, clocks that drift."""

    N = 8

    @initialize(
        shares=st.lists(st.floats(0.5, 5.0), min_size=N, max_size=N),
        paces=st.lists(st.floats(0.95, 1.05), min_size=N + 2, max_size=N + 2),
    )
    def begin(self, shares: list[float], paces: list[float]) -> None:
        self.cap, self.now, self.paces = sum(shares), 0.0, paces
        self.coordinator = Coordinator(Ledger(tuple(shares), TERMS), (0.0,) * self.N)
        self.seats = [self.coordinator.begin(1), self.coordinator.begin(2)]
        self.next_term, self.next_boot = 3, 2
        self.holders = [Holder(i, share, share / 3.0, TERMS) for i, share in enumerate(shares)]
        self.states = [holder.start(1, -31.0, holder.share) for holder in self.holders]
        self.reports: list[Report] = []
        self.mail: list[Assignment] = []

    def clock(self, asset: int) -> float:
        return self.now * self.paces[asset]

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(asset=st.integers(0, N - 1), demand=st.floats(0.0, 8.0))
    def report(self, asset: int, demand: float) -> None:
        holder, clock = self.holders[asset], self.clock(asset)
        used = holder.ceiling(self.states[asset], clock)
        self.states[asset], report = holder.report(self.states[asset], clock, used, demand)
        self.reports.append(report)

    @rule(seat=st.integers(0, 1), back=st.integers(0, 40))
    def hear(self, seat: int, back: int) -> None:
        for report in self.reports[len(self.reports) - 1 - back :][:1] if back < len(self.reports) else ():
            clock = self.now * self.paces[self.N + seat]
            self.seats[seat], answer = self.coordinator.answer(self.seats[seat], report, clock)
            self.mail += [answer] if answer is not None else []

    @rule(back=st.integers(0, 40))
    def deliver(self, back: int) -> None:
        for message in self.mail[len(self.mail) - 1 - back :][:1] if back < len(self.mail) else ():
            own = message.asset
            self.states[own] = self.holders[own].take(self.states[own], message, self.clock(own))

    @rule(
        seat=st.integers(0, 1), demands=st.lists(st.floats(0.0, 8.0), min_size=N, max_size=N), lost=st.integers(0, 255)
    )
    def round_trip(self, seat: int, demands: list[float], lost: int) -> None:
        """Every asset reports and hears the answer, but for those whose messages are lost."""
        for asset, demand in enumerate(demands):
            self.report(asset, demand)
            if not lost >> asset & 1:
                before = len(self.mail)
                self.hear(seat, 0)
                if len(self.mail) > before:
                    self.deliver(0)

    @rule(seat=st.integers(0, 1))
    def crash(self, seat: int) -> None:
        self.seats[seat] = self.coordinator.begin(self.next_term)
        self.next_term += 1

    @rule(asset=st.integers(0, N - 1))
    def restart(self, asset: int) -> None:
        clock = self.clock(asset)
        used = self.holders[asset].ceiling(self.states[asset], clock)
        self.states[asset] = self.holders[asset].start(self.next_boot, clock, used)
        self.next_boot += 1

    @invariant()
    def the_sum_holds(self) -> None:
        pairs = zip(self.holders, self.states, strict=True)
        used = sum(holder.ceiling(state, self.clock(holder.asset)) for holder, state in pairs)
        assert used <= self.cap * (1.0 + 1e-9)


TestFarm = Farm.TestCase
TestFarm.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
