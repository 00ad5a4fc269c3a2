"""What assets keep together, through the whole shield: exact against quadprog, and honest where it can't be kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import quadprog
from numpy.typing import NDArray

from twinloop.deploy.shield import Code, Decision, Mode, Shield, Source
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import (
    BarrierConstraint,
    BarrierTerms,
    Constraint,
    ExclusiveConstraint,
    SafeState,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]
PERIOD_S, NOW_S = 2.0, 1_735_689_600.0


def plate(n: int, *, rate: float | None = 3.0, levels: tuple[float, ...] | None = None) -> Nameplate:
    """``n`` assets with a flow and a heat command and a measured position in the plane."""
    measured = tuple(Signal(name, "m", -1000.0, 1000.0) for name in ("x_m", "y_m"))
    commanded = (
        Signal("flow", "kg/s", -10.0, 10.0, rate_limit_per_s=rate, levels=levels),
        Signal("heat", "kW", -40.0, 40.0, rate_limit_per_s=None),
    )
    return Nameplate("plant", PERIOD_S, (Group("pump", tuple(f"P{i}" for i in range(n)), measured, commanded),))


def reading(values: Floats, number: int = 1, now_s: float = NOW_S) -> Telemetry:
    return Telemetry(
        {"pump": values}, {"pump": np.full(values.shape, now_s)}, {"pump": np.zeros(values.shape, np.int8)},
        now_s, number,
    )  # fmt: skip


def decide(shield: Shield, asked: Floats, applied: Floats, values: Floats | None = None, **more: Any) -> Decision:
    """One period after ``applied`` stood, with a good reading."""
    n = len(asked)
    values = np.zeros((n, 2)) if values is None else values
    state = shield.start({"pump": applied})
    state = replace(state, time_s=NOW_S - PERIOD_S)
    return shield.filter(reading(values), {"pump": asked}, NOW_S, state, **more)


@dataclass(frozen=True)
class Walls:
    """A linear barrier of relative degree 1: ``h = c - a . x``, with the commands as velocities scaled by ``b``."""

    a: tuple[float, float]
    b: tuple[float, float]
    c: float

    def __call__(self, measured: Floats) -> BarrierTerms:
        n = len(measured)
        return BarrierTerms(
            self.c - measured @ np.array(self.a),
            np.zeros(n),
            np.tile([-self.a[0] * self.b[0], -self.a[1] * self.b[1]], (n, 1)),
        )


def exact(asked: Floats, low: Floats, high: Floats, rows: Floats, bounds: Floats, scale: Floats) -> Floats:
    """The nearest commands by quadprog, in half-ranges: an independent solver on the whole problem at once."""
    n = len(asked)
    a = np.vstack([rows * scale, np.eye(n), -np.eye(n)])
    b = np.concatenate([bounds, high / scale, -low / scale])
    finite = np.isfinite(b)
    z = quadprog.solve_qp(np.eye(n), asked / scale, -a[finite].T, -b[finite], 0)[0]
    return np.asarray(z * scale)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_sent_is_the_nearest_that_keeps_every_row_as_quadprog_finds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    applied = np.column_stack([rng.uniform(-5, 5, n), rng.uniform(-20, 20, n)])
    values = rng.uniform(-50.0, 50.0, (n, 2))
    scale = np.tile([10.0, 40.0], n)
    low = np.column_stack([np.maximum(applied[:, 0] - 6.0, -10.0), np.full(n, -40.0)]).ravel()
    high = np.column_stack([np.minimum(applied[:, 0] + 6.0, 10.0), np.full(n, 40.0)]).ravel()
    inside = low + rng.uniform(0.2, 0.8, 2 * n) * (high - low)  # keeps every row below
    constraints: list[Constraint] = []
    rows: list[Floats] = []
    bounds: list[float] = []
    for k in range(int(rng.integers(1, 5))):
        signal = int(rng.integers(2))
        weights = rng.normal(size=n) if rng.random() < 0.7 else np.ones(n)
        row = np.zeros(2 * n)
        row[signal::2] = weights
        # neutral is the safe state, so every sum must leave it room
        most = max(row @ inside + rng.uniform(0.0, 3.0), 0.1)
        least = min(row @ inside - rng.uniform(0.0, 3.0), -0.1)
        unit = ("kg/s", "kW")[signal]
        name = ("flow", "heat")[signal]
        if rng.random() < 0.7:
            constraints.append(SumConstraint(f"s{k}", "pump", name, unit, float(most), float(least), tuple(weights)))
            rows += [row, -row]
            bounds += [most, -least]
        else:
            before = float(row @ applied.ravel())
            rise, fall = abs(row @ inside - before) + 0.5, abs(row @ inside - before) + 0.1
            constraints.append(
                SumRateConstraint(f"s{k}", "pump", name, unit, rise / PERIOD_S, fall / PERIOD_S, tuple(weights))
            )
            rows += [row, -row]
            bounds += [before + rise, fall - before]
    if rng.random() < 0.6:
        a, b = tuple(rng.normal(size=2)), tuple(rng.uniform(0.5, 1.5, 2))
        gain = 0.5
        reach = np.array([-(np.array(a) * b) @ inside[2 * i : 2 * i + 2] for i in range(n)])
        c = float(max(values @ np.array(a) - reach / gain)) + 1.0
        constraints.append(BarrierConstraint("wall", "pump", Walls(a, b, c), gain))
        for i in range(n):
            row = np.zeros(2 * n)
            row[2 * i : 2 * i + 2] = np.array(a) * b
            rows.append(row)
            bounds.append(gain * (c - values[i] @ np.array(a)))
    shield = Shield(declare(plate(n), constraints))
    asked = np.clip(inside + rng.normal(size=2 * n) * np.tile([8.0, 30.0], n), -scale, scale)
    decision = decide(shield, asked.reshape(n, 2), applied, values)
    expected = exact(asked, low, high, np.array(rows), np.array(bounds), scale)
    np.testing.assert_allclose(decision.commands["pump"].ravel() / scale, expected / scale, rtol=0, atol=1e-9)
    assert set(decision.source.values()) == {Source.POLICY}


# What can't be kept, what is relaxed, and what people and the grid ask

CAP = SumConstraint("cap", "pump", "flow", "kg/s", maximum=12.0)


def held(shield: Shield, flow: Any, asked: Any, periods: int, **more: Any) -> list[Decision]:
    """Periods in a row from ``flow`` everywhere, with ``asked`` proposed in each."""
    n = len(shield.nameplate.agents)
    state = shield.start({"pump": np.column_stack([np.broadcast_to(flow, n), np.zeros(n)]).astype(np.float64)})
    state = replace(state, time_s=NOW_S - PERIOD_S)
    proposed = {"pump": np.column_stack([np.broadcast_to(asked, n), np.zeros(n)]).astype(np.float64)}
    found = []
    for k in range(periods):
        now_s = NOW_S + k * PERIOD_S
        found.append(shield.filter(reading(np.zeros((n, 2)), k, now_s), proposed, now_s, state, **more))
        state = found[-1].state
    return found


def flows(decision: Decision) -> Floats:
    return decision.commands["pump"][:, 0]


def test_a_cap_is_tightened_at_run_time_and_never_widened() -> None:
    shield = Shield(declare(plate(3), [CAP]))
    for limit, total in ((9.0, 9.0), (50.0, 12.0), (None, 12.0)):
        decision = held(shield, 4.0, 8.0, 1, orders=Orders(limits={"cap": (None, limit)}))[0]
        assert flows(decision).sum() == pytest.approx(total, abs=1e-9)
    told = held(shield, 4.0, 8.0, 1, orders=Orders(limits={"no such": (None, 1.0)}))[0]
    assert Code.ORDER_INVALID in {r.code for r in told.reasons}


def test_a_cap_that_is_tightened_faster_than_rates_allow_is_approached_as_fast_as_they_do_and_says_so() -> None:
    shield = Shield(declare(plate(3), [CAP]))
    found = held(shield, 4.0, 8.0, 3, orders=Orders(limits={"cap": (None, -20.0)}))
    for k, decision in enumerate(found):
        want = max(12.0 - 18.0 * (k + 1), -20.0)  # three pumps, 3 kg/s per second each, 2 s
        assert flows(decision).sum() == pytest.approx(want, abs=1e-9)
        told = [r for r in decision.reasons if r.code is Code.CONSTRAINT_UNREACHABLE]
        assert len(told) == (want > -20.0)
        for reason in told:
            assert (reason.constraint, reason.limit) == ("cap", -20.0)
            assert reason.margin == pytest.approx(-20.0 - want)
        changed = [r for r in decision.reasons if r.signal == "flow"]
        assert {r.constraint for r in changed} == {"cap"}
        assert all(r.margin is not None and r.margin < 0 and r.multiplier for r in changed)
        assert set(decision.mode.values()) == {Mode.AUTONOMOUS}


@pytest.mark.parametrize("limits", [(20.0, None), (13.0, 14.0)])
def test_a_minimum_that_is_asked_for_at_run_time_never_lifts_a_declared_cap(limits: Any) -> None:
    decision = held(Shield(declare(plate(3), [CAP])), 4.0, 1.0, 1, orders=Orders(limits={"cap": limits}))[0]
    assert flows(decision).sum() == pytest.approx(12.0, abs=1e-9)
    assert ("cap", Code.ORDER_INVALID) in {(r.constraint, r.code) for r in decision.reasons}
    assert set(decision.source.values()) == {Source.POLICY}


def test_a_ramp_is_kept_while_the_sum_goes_to_a_tightened_cap() -> None:
    ramp = SumRateConstraint("ramp", "pump", "flow", "kg/s", up_per_second=2.0, down_per_second=2.0)
    shield = Shield(declare(plate(3), [CAP, ramp]))
    totals = [flows(d).sum() for d in held(shield, 4.0, 8.0, 4, orders=Orders(limits={"cap": (None, 3.0)}))]
    np.testing.assert_allclose(totals, [8.0, 4.0, 3.0, 3.0], atol=1e-8)


def test_soft_sums_give_way_in_their_order_and_hard_ones_never() -> None:
    first = SumConstraint("first", "pump", "flow", "kg/s", minimum=15.0, priority=0)
    second = SumConstraint("second", "pump", "flow", "kg/s", maximum=9.0, priority=1)
    both = Shield(declare(plate(3), [CAP, first, second]))
    assert flows(held(both, 4.0, 4.0, 1)[0]).sum() == pytest.approx(12.0, abs=1e-9)  # as near to 15 as the cap lets
    alone = Shield(declare(plate(3), [CAP, second]))
    assert flows(held(alone, 4.0, 4.0, 1)[0]).sum() == pytest.approx(9.0, abs=1e-9)


def test_nothing_is_added_to_a_sum_while_it_is_unknown_what_the_plant_obeys() -> None:
    ramp = SumRateConstraint("ramp", "pump", "flow", "kg/s", up_per_second=0.5)
    shield = Shield(declare(plate(3), [ramp]))
    sent = held(shield, 1.0, 5.0, 1)[0]
    before = replace(shield.start({"pump": np.column_stack([np.ones(3), np.zeros(3)])}), time_s=NOW_S - PERIOD_S)
    state = shield.unconfirmed(before, sent.state)
    again = shield.filter(reading(np.zeros((3, 2)), 1, NOW_S + 2), {"pump": np.full((3, 2), 5.0)}, NOW_S + 2, state)
    np.testing.assert_array_equal(flows(again), 1.0)


def test_pumps_with_levels_keep_a_sum_by_going_to_the_level_that_relieves_it() -> None:
    levels = (0.0, 2.0, 4.0, 6.0)
    shield = Shield(
        declare(plate(3, rate=None, levels=levels), [SumConstraint("cap", "pump", "flow", "kg/s", maximum=9.0)])
    )
    decision = held(shield, 2.0, [6.0, 4.0, 4.0], 1)[0]
    assert set(flows(decision)) <= set(levels)
    assert flows(decision).sum() <= 9.0
    assert flows(decision).sum() >= 6.0


def test_two_pumps_that_close_in_on_each_other_never_come_too_near() -> None:
    measured = tuple(Signal(name, "m", -100.0, 100.0) for name in ("x_m", "y_m"))
    velocities = tuple(Signal(name, "m/s", -3.0, 3.0) for name in ("vx_mps", "vy_mps"))
    cars = Nameplate("cars", 0.1, (Group("car", ("A", "B", "C"), measured, velocities),))
    apart = SeparationConstraint("apart", "car", ("x_m", "y_m"), ("vx_mps", "vy_mps"), 1.0, "m", gain_per_s=2.0)
    shield = Shield(declare(cars, [apart]))
    state, x = shield.start(), np.array([[-4.0, 0.2], [4.0, 0.0], [0.0, 5.0]])
    goal, nearest = -x, np.inf
    for k in range(150):
        now_s = NOW_S + 0.1 * k
        telemetry = Telemetry({"car": x}, {"car": np.full((3, 2), now_s)}, {"car": np.zeros((3, 2), np.int8)}, now_s, k)
        decision = shield.filter(telemetry, {"car": np.clip(goal - x, -3, 3)}, now_s, state)
        assert set(decision.source.values()) == {Source.POLICY}
        x, state = x + 0.1 * decision.commands["car"], decision.state
        nearest = min(nearest, *(float(np.linalg.norm(x[i] - x[j])) for i, j in ((0, 1), (0, 2), (1, 2))))
    assert 1.0 - 1e-9 <= nearest < 1.2


@dataclass(frozen=True)
class Broken:
    """A site's barrier with a fault in it."""

    def __call__(self, measured: Floats) -> BarrierTerms:
        raise ZeroDivisionError


def test_a_barrier_that_fails_ends_in_the_safe_state_and_tells_the_modes() -> None:
    shield = Shield(
        declare(
            plate(2), [BarrierConstraint("wall", "pump", Broken(), 1.0)], {"pump": SafeState("values", {"flow": 1.0})}
        )
    )
    first, second = held(shield, 4.0, 8.0, 2)
    np.testing.assert_allclose(flows(first), 1.0)
    assert set(first.source.values()) == {Source.SAFE_STATE}
    assert Code.LADDER_SAFE_STATE in {r.code for r in first.reasons}
    assert set(second.mode.values()) == {Mode.BACKUP}


def test_others_make_room_for_a_pump_on_its_fallback_before_it_moves_itself() -> None:
    def fallback(values: Any) -> Any:
        return {"pump": np.tile([6.0, 0.0], (3, 1))}

    shield = Shield(declare(plate(3), [CAP]), fallback=fallback)
    for asked, want in (([np.nan, 8.0, 8.0], [6.0, 3.0, 3.0]), ([np.nan, np.nan, np.nan], [4.0, 4.0, 4.0])):
        np.testing.assert_allclose(flows(held(shield, 4.0, asked, 1)[0]), want, atol=1e-9)


def test_exclusive_commands_stay_so_when_a_sum_moves_one_of_them() -> None:
    exclusive = ExclusiveConstraint("pump", ("flow", "heat"))
    least = SumConstraint("least", "pump", "heat", "kW", minimum=-1.0, maximum=2.0)
    shield = Shield(declare(plate(3), [exclusive, least]))
    asked = np.array([[5.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    decision = decide(shield, asked, np.zeros((3, 2)))
    np.testing.assert_allclose(decision.commands["pump"], [[5.0, 0.0], [0.0, 1.0], [0.0, 1.0]], atol=1e-9)


def test_in_shadow_nothing_is_written_and_what_would_be_sent_is_told() -> None:
    shield = Shield(declare(plate(3), [CAP]))
    state = replace(shield.start(mode=Mode.SHADOW), time_s=NOW_S - PERIOD_S)
    decision = shield.filter(reading(np.zeros((3, 2))), {"pump": np.full((3, 2), 5.0)}, NOW_S, state)
    assert not decision.acts["pump"].any()
    assert set(decision.source.values()) == {Source.NOBODY}
    np.testing.assert_array_equal(decision.commands["pump"], 0.0)
    np.testing.assert_allclose(decision.advised["pump"], [[4.0, 5.0]] * 3)
    np.testing.assert_array_equal(decision.standby["pump"], 0.0)
    assert not decision.reasons


def test_only_approved_proposals_are_sent_where_a_person_approves() -> None:
    shield = Shield(declare(plate(2), []))
    state = replace(shield.start({"pump": np.full((2, 2), 1.0)}, Mode.APPROVED), time_s=NOW_S - PERIOD_S)
    orders = Orders(approved=frozenset({"pump/P1"}))
    decision = shield.filter(reading(np.zeros((2, 2))), {"pump": np.full((2, 2), 3.0)}, NOW_S, state, orders=orders)
    np.testing.assert_array_equal(flows(decision), [1.0, 3.0])
    assert list(decision.source.values()) == [Source.NOBODY, Source.POLICY]
    assert {(r.asset, r.code) for r in decision.reasons} == {("pump/P0", Code.NOT_APPROVED)}


def test_an_emergency_stop_takes_a_straight_line_to_the_safe_state_in_the_time_it_promises() -> None:
    safe = SafeState("ramp_to", {"flow": 2.0, "heat": 0.0}, within_s=10.0)
    shield = Shield(declare(plate(2), [], {"pump": safe}))
    found = held(shield, [8.0, 4.0], 9.0, 6, orders=Orders(stop=True))
    np.testing.assert_allclose([flows(d)[0] for d in found], [6.8, 5.6, 4.4, 3.2, 2.0, 2.0])
    np.testing.assert_allclose([flows(d)[1] for d in found], [3.6, 3.2, 2.8, 2.4, 2.0, 2.0])
    assert all(set(d.mode.values()) == {Mode.TRIPPED} for d in found)
    assert all(set(d.source.values()) == {Source.SAFE_STATE} for d in found)


@pytest.mark.parametrize("seed", range(10))
def test_the_standby_is_within_the_next_period_of_the_commands_and_keeps_the_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shield = Shield(declare(plate(4), [CAP]))
    decision = held(shield, rng.uniform(-3, 3, 4), rng.uniform(-10, 10, 4), 3)[-1]
    standby = decision.standby["pump"]
    assert (np.abs(standby[:, 0] - flows(decision)) <= 6.0 + 1e-9).all()
    assert (np.abs(standby[:, 0]) <= np.abs(flows(decision)) + 1e-12).all()  # towards neutral
    assert standby[:, 0].sum() <= 12.0 + 1e-9


def test_a_sum_over_a_thousand_pumps_is_kept() -> None:
    shield = Shield(declare(plate(1000), [SumConstraint("cap", "pump", "flow", "kg/s", maximum=100.0)]))
    decision = held(shield, 0.0, np.linspace(-1.0, 3.0, 1000), 1)[0]
    assert flows(decision).sum() == pytest.approx(100.0, abs=1e-6)
    assert set(decision.source.values()) == {Source.POLICY}
