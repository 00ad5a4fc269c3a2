"""Local limits: closed forms, and the margins of the declaration as referee over random declarations and sequences.

``TWINLOOP_EXAMPLES`` sets how many sequences are drawn for each property, 300 where it is not set.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.command_memory import CommandMemory
from twinloop.deploy.shield.compiled import FlatCommands, flat_commands
from twinloop.deploy.shield.decision import Code
from twinloop.deploy.shield.local import LocalLimits
from twinloop.envs.constraint import (
    AccelerationConstraint,
    ConflictConstraint,
    Constraint,
    DeadbandConstraint,
    Declaration,
    DwellConstraint,
    ExclusiveConstraint,
    History,
    Margins,
    Moment,
    RangeConstraint,
    RateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
DT_S = 600.0
EXAMPLES = int(os.environ.get("TWINLOOP_EXAMPLES", "300"))
MEASURED = (Signal("x_m", "m", -10.0, 10.0),)


def plate(n_assets: int = 2, rate: float | None = None, level_rate: float | None = None) -> Nameplate:
    """Per asset: heat and cool, both continuous, and a stage with four levels."""
    names = tuple(f"A{i}" for i in range(n_assets))
    heat = Signal("heat", "kW", -5.0, 5.0, rate_limit_per_s=rate)
    cool = Signal("cool", "kW", 0.0, 8.0)
    stage = Signal("stage", "1", 0.0, 3.0, levels=(0.0, 1.0, 2.0, 3.0), rate_limit_per_s=level_rate)
    return Nameplate("yard", DT_S, (Group("unit", names, MEASURED, (heat, cool, stage)),))


class Site:
    """A declaration, its local limits, and the commands and memories of a sequence of periods."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.flat: FlatCommands = flat_commands(declaration.nameplate)
        self.limits = LocalLimits(declaration, self.flat)
        self.applied = self.flat.neutral.copy()
        self.memory = self.limits.start()
        self.history = History.start(declaration, self.flat.grouped(self.applied))
        self.margins = Margins(declaration)

    def at(self, signal: str, asset: int = 0) -> int:
        return int(self.flat.index(self.declaration.nameplate, "unit", signal)[asset])

    def reach(self, elapsed_s: float = DT_S, rate_share: float = 1.0) -> tuple[Floats, Floats]:
        return self.limits.reach(self.memory, self.applied, elapsed_s, rate_share)

    def keep(self, asked: Floats, elapsed_s: float = DT_S) -> Floats:
        low, high = self.reach(elapsed_s)
        return self.limits.keep(asked, self.memory, self.applied, low, high, elapsed_s)

    def ask(self, **values: float) -> Floats:
        """The commands in force, with signals of the first asset replaced."""
        asked = self.applied.copy()
        for signal, value in values.items():
            asked[self.at(signal)] = value
        return asked

    def send(self, u: Floats, elapsed_s: float = DT_S) -> None:
        self.memory = self.limits.after(self.memory, self.applied, u, elapsed_s)
        self.history = self.history.after(self.flat.grouped(self.applied), self.flat.grouped(u), elapsed_s)
        self.applied = u

    def broken(self, u: Floats, *, hard: bool = True) -> dict[str, float]:
        """What the referee finds broken, by name, with the worst margin."""
        measured = {"unit": np.zeros((self.declaration.nameplate.groups[0].n_assets, 1))}
        grouped = self.flat.grouped
        moment = Moment(grouped(self.applied), grouped(u), measured, DT_S, history=self.history)
        named = {c.name for c in (self.declaration.hard if hard else self.declaration.soft)}
        worst = {name: float(np.min(margin)) for name, margin in self.margins(moment).items() if name in named}
        return {name: margin for name, margin in worst.items() if not margin >= -1e-9}


def site(*constraints: Constraint, n_assets: int = 2, rate: float | None = None) -> Site:
    return Site(declare(plate(n_assets, rate), constraints))


# --- closed forms


def test_range_and_rate_bound_the_reach_and_the_way_back_into_the_range_is_free() -> None:
    s = site(RangeConstraint("unit", "heat", -4.0, 4.0, "kW"), rate=1.0 / DT_S)
    low, high = s.reach()
    assert (low[0], high[0]) == (-1.0, 1.0)
    s.applied = s.ask(heat=4.9)
    low, high = s.reach()
    assert (low[0], high[0]) == (pytest.approx(3.9), 4.0)
    low, high = s.reach(DT_S / 5)
    assert (low[0], high[0]) == (4.0, 4.0)
    s.applied = s.ask(heat=3.0)
    for low, high in (s.reach(DT_S / 2), s.reach(rate_share=0.5)):
        assert (low[0], high[0]) == (2.5, 3.5)
    low, high = s.reach(0.0)
    assert (low[0], high[0]) == (3.0, 3.0)
    assert (low[1], high[1]) == (0.0, 8.0)


def test_acceleration_brakes_in_time_for_the_end_of_the_range() -> None:
    s = site(AccelerationConstraint("unit", "heat", 1.0 / DT_S**2, "kW"))
    track = []
    for _ in range(8):
        s.send(s.keep(s.ask(heat=5.0)))
        track.append(s.applied[0])
    # From 0 by at most 1 more a period, to stand still at 5: 1, then 2 would leave 2 and only stops of 1 + 0.
    np.testing.assert_allclose(np.diff([0.0, *track]), [1.0, 5 / 3, 4 / 3 + 0.0, 2 / 3, 1 / 3, 0.0, 0.0, 0.0], atol=1.0)
    assert s.applied[0] == pytest.approx(5.0, abs=1e-12)
    assert max(abs(np.diff([0.0, 0.0, *track], 2))) <= 1.0 + 1e-12


def test_a_moving_command_goes_on_where_acceleration_demands_it() -> None:
    s = site(AccelerationConstraint("unit", "heat", 0.5 / DT_S**2, "kW"))
    for _ in range(3):
        s.send(s.keep(s.ask(heat=5.0)))
    change = s.memory.change[0]
    assert change > 0.5
    sent = s.keep(s.ask(heat=-5.0))
    assert sent[0] - s.applied[0] == pytest.approx(change - 0.5, abs=1e-12)


def test_in_no_time_nothing_with_a_rate_changes() -> None:
    s = site(AccelerationConstraint("unit", "heat", 1.0 / DT_S**2, "kW"), rate=2.0 / DT_S)
    s.send(s.keep(s.ask(heat=5.0)))
    low, high = s.reach(0.0)
    assert low[0] == high[0] == s.applied[0]


def test_half_the_rate_is_reached_by_braking_no_harder_than_allowed() -> None:
    s = site(AccelerationConstraint("unit", "heat", 0.4 / DT_S**2, "kW"), rate=1.2 / DT_S)
    for _ in range(3):
        s.send(s.keep(s.ask(heat=5.0)))
    low, high = s.reach(rate_share=0.1)
    assert high[0] - s.applied[0] == pytest.approx(s.memory.change[0] - 0.4, abs=1e-12)
    assert low[0] <= high[0]


def test_levels_are_the_nearest_in_reach_and_of_two_the_lower() -> None:
    s = Site(declare(plate(level_rate=1.0 / DT_S)))
    assert s.keep(s.ask(stage=3.0))[s.at("stage")] == 1.0
    assert s.keep(s.ask(stage=0.5))[s.at("stage")] == 0.0
    assert s.keep(s.ask(stage=1e300))[s.at("stage")] == 1.0
    s.applied = s.ask(stage=1.4)  # an unlikely read-back that is no level at all
    assert s.keep(s.applied)[s.at("stage")] == 1.0


def test_a_dwell_holds_a_level_until_its_time_is_over() -> None:
    s = site(DwellConstraint("unit", "stage", 1800.0, "1", level=1.0))
    i = s.at("stage")
    s.send(s.keep(s.ask(stage=1.0)))
    for _ in range(2):
        assert s.keep(s.ask(stage=0.0))[i] == 1.0
        s.send(s.applied)
    assert s.memory.held_s[i] == 1800.0
    s.send(s.keep(s.ask(stage=0.0)))
    assert s.applied[i] == 0.0
    assert s.keep(s.ask(stage=2.0))[i] == 2.0, "the dwell binds at its level only"


def test_a_clock_that_stands_or_runs_backwards_shortens_no_dwell() -> None:
    s = site(DwellConstraint("unit", "stage", 1200.0, "1"))
    s.send(s.keep(s.ask(stage=1.0)))
    for elapsed_s in (0.0, -3600.0, np.nan, 599.0):
        s.send(s.applied, elapsed_s)
        assert s.keep(s.ask(stage=0.0))[s.at("stage")] == 1.0
    assert s.memory.clock_s == DT_S + 599.0


def test_switches_count_the_changes_of_the_hour_that_the_decision_ends() -> None:
    s = site(SwitchesConstraint("unit", "stage", 2, "1"))
    i, taken = s.at("stage"), []
    for k in range(14):
        before = s.applied[i]
        s.send(s.keep(s.ask(stage=float(1 - k % 2) if before == k % 2 else 1.0 - before)))
        taken.append(bool(s.applied[i] != before))
    assert taken == [True, True, False, False, False, False] * 2 + [True, True]
    assert s.memory.changes_s.shape == (2, 2)


def test_transitions_go_along_legal_pairs_only() -> None:
    pairs = ((0.0, 1.0), (1.0, 2.0), (2.0, 1.0), (1.0, 0.0), (3.0, 0.0))
    s = site(TransitionConstraint("unit", "stage", pairs, "1"))
    i = s.at("stage")
    low, high = s.reach()
    assert (low[i], high[i]) == (0.0, 1.0)
    s.applied = s.ask(stage=2.0)
    low, high = s.reach()
    assert (low[i], high[i]) == (1.0, 2.0)
    assert s.keep(s.ask(stage=0.0))[i] == 1.0


def test_a_dwell_gives_way_to_the_range() -> None:
    tight = RangeConstraint("unit", "heat", -4.0, 4.0, "kW")
    s = site(tight, DwellConstraint("unit", "heat", 3600.0, "kW"))
    s.send(s.ask(heat=4.5))
    assert s.keep(s.applied)[0] == 4.0


@pytest.mark.parametrize(
    ("heat", "cool", "expected"),
    [(5.0, 1.0, (5.0, 0.0)), (1.0, 8.0, (0.0, 8.0)), (5.0, 8.0, (5.0, 0.0)), (0.0, 3.0, (0.0, 3.0))],
)
def test_of_exclusive_signals_the_one_asked_farthest_in_its_range_wins(
    heat: float, cool: float, expected: tuple[float, float]
) -> None:
    s = site(ExclusiveConstraint("unit", ("heat", "cool")))
    sent = s.keep(s.ask(heat=heat, cool=cool))
    # 5 of a span of 10 is half the range, as is 4 of 8
    if heat == 5.0 and cool == 8.0:
        expected = (0.0, 8.0)
    assert (sent[0], sent[1]) == expected


def test_a_signal_that_can_not_reach_neutral_keeps_the_other_out() -> None:
    s = site(ExclusiveConstraint("unit", ("heat", "cool")), rate=1.0 / DT_S)
    for _ in range(2):
        s.send(s.keep(s.ask(heat=5.0)))
    track = []
    for _ in range(3):
        s.send(s.keep(s.ask(heat=0.0, cool=8.0)))
        track.append((s.applied[0], s.applied[1]))
    assert track == [(1.0, 0.0), (0.0, 8.0), (0.0, 8.0)]


GREEN = (("A0", "stage", 1.0), ("A1", "stage", 1.0))


def test_conflicting_levels_never_meet_and_what_stands_is_kept() -> None:
    s = site(ConflictConstraint("green", "unit", (GREEN,)))
    i, j = s.at("stage", 0), s.at("stage", 1)
    asked = s.applied.copy()
    asked[[i, j]] = 1.0
    sent = s.keep(asked)
    assert (sent[i], sent[j]) == (1.0, 0.0), "of two newcomers the first asset's wins"
    s.applied = s.flat.neutral.copy()
    s.applied[j] = 1.0
    sent = s.keep(asked)
    assert (sent[i], sent[j]) == (0.0, 1.0), "the one that stands is kept"
    asked[j] = 0.0
    sent = s.keep(asked)
    assert (sent[i], sent[j]) == (1.0, 0.0), "both may change places in one period"


def test_a_newcomer_is_refused_where_the_one_it_replaces_has_to_stay() -> None:
    s = site(ConflictConstraint("green", "unit", (GREEN,)), DwellConstraint("unit", "stage", 1800.0, "1"))
    i, j = s.at("stage", 0), s.at("stage", 1)
    first = s.applied.copy()
    first[j] = 1.0
    s.send(s.keep(first))
    swapped = s.applied.copy()
    swapped[[i, j]] = 1.0, 0.0
    sent = s.keep(swapped)
    assert (sent[i], sent[j]) == (0.0, 1.0)


def test_small_changes_are_not_sent_unless_something_hard_needs_them() -> None:
    s = site(
        DeadbandConstraint("unit", "heat", 0.5, "kW", priority=3), RangeConstraint("unit", "heat", -4.0, 4.0, "kW")
    )
    assert s.keep(s.ask(heat=0.4))[0] == 0.0
    assert s.keep(s.ask(heat=0.5))[0] == 0.5
    s.applied = s.ask(heat=4.2)
    assert s.keep(s.applied)[0] == 4.0


def test_soft_limits_hold_as_far_as_hard_ones_leave_room() -> None:
    soft = RangeConstraint("unit", "heat", -1.0, 1.0, "kW", priority=2)
    s = site(soft, RateConstraint("unit", "heat", 1.0 / DT_S, "kW"))
    assert s.keep(s.ask(heat=3.0))[0] == 1.0
    s.applied = s.ask(heat=4.0)
    assert s.keep(s.applied)[0] == 3.0, "outside, it walks back as fast as it may"


def test_of_soft_limits_that_exclude_each_other_the_smaller_number_is_kept() -> None:
    low = RangeConstraint("unit", "heat", -5.0, 1.0, "kW", priority=1)
    high = RangeConstraint("unit", "heat", 2.0, 5.0, "kW", priority=2)
    s = site(low, high)
    assert s.keep(s.ask(heat=4.0))[0] == 1.0


def test_discrete_commands_settle_on_the_side_that_relieves() -> None:
    s = Site(declare(plate()))
    i = s.at("stage")
    low, high = s.reach()
    u = s.ask(stage=1.9, heat=0.123)
    for relief, expected in ((-1.0, 1.0), (0.0, 2.0), (1.0, 2.0)):
        way = np.full(s.flat.n, relief)
        sent = s.limits.settle(u, s.memory, s.applied, low, high, way)
        assert sent[i] == expected
        assert sent[0] == 0.123
    for level in (0.0, 1.0, 2.0, 3.0):
        u = s.ask(stage=level)
        assert np.array_equal(s.limits.settle(u, s.memory, s.applied, low, high, -np.ones(s.flat.n)), u)


def test_exclusive_signals_at_neutral_are_pinned_for_the_coupled_stage() -> None:
    s = site(ExclusiveConstraint("unit", ("heat", "cool")))
    u = s.keep(s.ask(heat=3.0))
    low, high = s.limits.pinned(u, *s.reach())
    assert (low[0], high[0]) == (-5.0, 5.0)
    assert (low[1], high[1]) == (0.0, 0.0)
    assert (low[2], high[2]) == (0.0, 3.0)


# --- reasons


def _why(s: Site, **asked: float) -> Any:
    wanted = s.ask(**asked)
    low, high = s.reach()
    sent = s.limits.keep(wanted, s.memory, s.applied, low, high)
    (name,) = asked
    i = s.at(name)
    assert sent[i] != wanted[i]
    return s.limits.why(i, wanted, sent, s.memory, s.applied, low, high)


def test_each_kind_names_itself_with_its_limit_and_margin() -> None:
    s = site(rate=1.0 / DT_S)
    assert _why(s, heat=6.0) == (Code.COMMAND_RANGE, "unit/heat range", 5.0, -1.0)
    code, name, limit, margin = _why(s, heat=3.0)
    assert (code, name, limit) == (Code.COMMAND_RATE, "unit/heat rate", pytest.approx(1.0 / DT_S))
    assert margin == pytest.approx(-2.0)
    assert _why(s, stage=1.2)[0] == Code.COMMAND_LEVEL

    s = site(AccelerationConstraint("unit", "heat", 1.0 / DT_S**2, "kW"))
    assert _why(s, heat=3.0)[:2] == (Code.CONSTRAINT_ACCELERATION, "unit/heat acceleration")

    s = site(DwellConstraint("unit", "stage", 1800.0, "1"))
    s.send(s.keep(s.ask(stage=1.0)))
    assert _why(s, stage=2.0) == (Code.CONSTRAINT_DWELL, "unit/stage dwell", 1800.0, -1200.0)

    s = site(SwitchesConstraint("unit", "stage", 1, "1"))
    s.send(s.keep(s.ask(stage=1.0)))
    assert _why(s, stage=2.0) == (Code.CONSTRAINT_SWITCHES, "unit/stage switches", 1.0, -1.0)

    s = site(TransitionConstraint("unit", "stage", ((0.0, 1.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0)), "1"))
    assert _why(s, stage=2.0) == (Code.CONSTRAINT_TRANSITION, "unit/stage transition", None, -1.0)

    s = site(DeadbandConstraint("unit", "heat", 0.5, "kW", priority=1))
    assert _why(s, heat=0.25) == (Code.CONSTRAINT_DEADBAND, "unit/heat deadband, priority 1", 0.5, -0.25)


def test_joint_kinds_name_themselves_too() -> None:
    s = site(ExclusiveConstraint("unit", ("heat", "cool")))
    asked = s.ask(heat=5.0, cool=1.0)
    low, high = s.reach()
    sent = s.limits.keep(asked, s.memory, s.applied, low, high)
    assert s.limits.why(1, asked, sent, s.memory, s.applied, low, high) == (
        Code.CONSTRAINT_EXCLUSIVE, "unit/heat+cool exclusive", 0.0, -1.0,
    )  # fmt: skip
    s = site(ConflictConstraint("green", "unit", (GREEN,)))
    asked = s.applied.copy()
    asked[[s.at("stage", 0), s.at("stage", 1)]] = 1.0
    low, high = s.reach()
    sent = s.limits.keep(asked, s.memory, s.applied, low, high)
    i = s.at("stage", 1)
    assert s.limits.why(i, asked, sent, s.memory, s.applied, low, high) == (
        Code.CONSTRAINT_CONFLICT, "green", 1.0, -1.0,
    )  # fmt: skip


# --- the margins as referee


@st.composite
def declarations(draw: st.DrawFn) -> Declaration:
    """Random rates, accelerations, dwells, switches, transitions, exclusives, conflicts and soft ones."""
    found: list[Constraint] = []
    for signal, unit in (("heat", "kW"), ("cool", "kW"), ("stage", "1")):
        soft = draw(st.sampled_from([None, None, None, 1, 2]))
        if draw(st.booleans()):
            found.append(
                AccelerationConstraint("unit", signal, draw(st.sampled_from([0.3, 1.0, 2.5])) / DT_S**2, unit, soft)
            )
        if draw(st.booleans()):
            per_period = draw(st.sampled_from([1.0, 2.0] if signal == "stage" else [0.7, 1.0, 2.0]))
            found.append(RateConstraint("unit", signal, per_period / DT_S, unit))
        if draw(st.booleans()):
            found.append(
                DwellConstraint("unit", signal, draw(st.sampled_from([600.0, 1200.0, 1500.0])), unit, None, soft)
            )
        if draw(st.booleans()):
            found.append(SwitchesConstraint("unit", signal, draw(st.integers(1, 4)), unit, soft))
    if draw(st.booleans()):
        found.append(RangeConstraint("unit", "heat", -3.0, 4.0, "kW"))
    if draw(st.booleans()):
        found.append(RangeConstraint("unit", "heat", -1.0, 2.0, "kW", 0))
    if draw(st.booleans()):
        found.append(DeadbandConstraint("unit", "cool", 1.0, "kW", 3))
    if draw(st.booleans()):
        found.append(DwellConstraint("unit", "stage", 1800.0, "1", level=2.0))
    if draw(st.booleans()):
        ring = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 2.0), (2.0, 1.0), (1.0, 0.0))
        found.append(TransitionConstraint("unit", "stage", ring, "1"))
    exclusive = draw(st.sampled_from([None, ("heat", "cool"), ("cool", "stage"), ("heat", "cool", "stage")]))
    if exclusive:
        found.append(ExclusiveConstraint("unit", exclusive, draw(st.sampled_from([None, None, 4]))))
    if draw(st.booleans()):
        pairs = (GREEN, (("A1", "stage", 2.0), ("A2", "stage", 2.0)), (("A0", "stage", 3.0), ("A2", "stage", 1.0)))
        found.append(ConflictConstraint("green", "unit", pairs, draw(st.sampled_from([None, None, 5]))))
    return declare(plate(3), found)


ASKED = st.integers(0, 2**32 - 1)


def asked_of(rng: np.random.Generator, s: Site) -> Floats:
    """Commands of one of several tempers: at the ends, anywhere, beyond the range, at levels, small moves, neutral."""
    n, temper = s.flat.n, rng.integers(0, 6)
    low, high = s.flat.lower, s.flat.upper
    if temper == 0:
        return np.where(rng.random(n) < 0.5, low, high)
    if temper == 1:
        return np.asarray(rng.uniform(low - 1.0, high + 1.0))
    if temper == 2:
        return np.asarray(rng.choice([-1e30, 1e30, 0.0], n))
    if temper == 3:
        return np.asarray(rng.integers(0, 4, n).astype(np.float64))
    if temper == 4:
        return np.asarray(s.applied + rng.normal(0.0, 0.3, n))
    return s.flat.neutral.copy()


@settings(max_examples=EXAMPLES, deadline=None)
@given(declarations(), ASKED, st.integers(3, 14))
def test_whatever_is_asked_the_referee_finds_every_hard_constraint_kept(
    declaration: Declaration, seed: int, n_periods: int
) -> None:
    s, rng = Site(declaration), np.random.default_rng(seed)
    for _ in range(n_periods):
        asked = asked_of(rng, s)
        low, high = s.reach()
        assert (low <= high).all()
        sent = s.limits.keep(asked, s.memory, s.applied, low, high)
        assert s.broken(sent) == {}
        again = s.limits.keep(sent, s.memory, s.applied, low, high)
        assert np.array_equal(again, sent), "kept commands are kept as they are"
        settled = s.limits.settle(sent, s.memory, s.applied, low, high, np.zeros(s.flat.n))
        assert np.array_equal(settled, sent)
        moved = rng.uniform(low, high)
        if rng.random() < 0.3:
            relief = rng.integers(-1, 2, s.flat.n).astype(np.float64)
            sent = s.limits.settle(moved, s.memory, s.applied, low, high, relief)
            assert s.broken(sent) == {}
        s.send(sent)


@settings(max_examples=EXAMPLES, deadline=None)
@given(declarations(), ASKED, st.integers(3, 10))
def test_legal_commands_come_back_unchanged(declaration: Declaration, seed: int, n_periods: int) -> None:
    """Where nothing has to be able to brake, the referee's word is enough; a soft constraint may still object."""
    if any(isinstance(c, AccelerationConstraint) for c in declaration.hard):
        declaration = declare(
            declaration.nameplate, [c for c in declaration.constraints if not isinstance(c, AccelerationConstraint)]
        )
    s, rng = Site(declaration), np.random.default_rng(seed)
    for _ in range(n_periods):
        asked = asked_of(rng, s)
        on_levels = np.isin(asked[s.limits.discrete], (0.0, 1.0, 2.0, 3.0)).all()
        sent = s.keep(asked)
        if on_levels and not s.broken(asked) and not s.broken(asked, hard=False):
            assert np.array_equal(sent, asked)
        s.send(sent)


@settings(max_examples=EXAMPLES, deadline=None)
@given(declarations(), ASKED, st.integers(3, 14))
def test_irregular_clocks_leave_the_range_and_empty_the_reach_never(
    declaration: Declaration, seed: int, n_periods: int
) -> None:
    s, rng = Site(declaration), np.random.default_rng(seed)
    for _ in range(n_periods):
        elapsed_s = float(rng.choice([0.0, 1e-6, 0.1, 0.5, 0.999, 1.0]) * DT_S)
        low, high = s.limits.reach(s.memory, s.applied, elapsed_s, float(rng.choice([0.5, 1.0])))
        assert (low <= high).all()
        sent = s.limits.keep(asked_of(rng, s), s.memory, s.applied, low, high, elapsed_s)
        assert (s.limits.lower <= sent).all()
        assert (sent <= s.limits.upper).all()
        assert (low <= sent).all()
        assert (sent <= high).all()
        # Stopping short may take more than the brake; the referee counts switches in whole periods.
        kinds = {name.rpartition(" ")[2] for name in s.broken(sent)}
        assert kinds <= {"acceleration", "switches"}
        s.send(sent, elapsed_s)


@settings(max_examples=EXAMPLES, deadline=None)
@given(declarations(), ASKED)
def test_from_any_state_at_all_an_answer_in_range_is_found(declaration: Declaration, seed: int) -> None:
    s, rng = Site(declaration), np.random.default_rng(seed)
    n = s.flat.n
    s.applied = np.asarray(rng.uniform(s.flat.lower - 2.0, s.flat.upper + 2.0))
    memory = s.memory
    s.memory = CommandMemory(
        rng.normal(0.0, 3.0, n), rng.uniform(0.0, 3000.0, n), rng.uniform(-4000.0, 0.0, memory.changes_s.shape)
    )
    asked = asked_of(rng, s)
    low, high = s.reach()
    assert (low <= high).all()
    assert (s.limits.lower <= low).all()
    assert (high <= s.limits.upper).all()
    sent = s.limits.keep(asked, s.memory, s.applied, low, high)
    assert (low <= sent).all()
    assert (sent <= high).all()
    assert np.isin(sent[s.limits.discrete], (0.0, 1.0, 2.0, 3.0)).all()
    for i in np.flatnonzero(sent != asked):
        s.limits.why(int(i), asked, sent, s.memory, s.applied, low, high)
