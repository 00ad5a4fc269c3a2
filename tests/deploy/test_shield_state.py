"""All that a shield remembers becomes named arrays and comes back exactly, so that what follows is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from twinloop.deploy.shield import Decision, Mode, Shield, ShieldState
from twinloop.deploy.shield.ladder import StoredPlan
from twinloop.deploy.shield.monitors import monitors_of
from twinloop.deploy.shield.orders import Orders
from twinloop.deploy.shield.state import as_arrays, from_arrays
from twinloop.envs.constraint import (
    AccelerationConstraint,
    Declaration,
    DwellConstraint,
    MeasuredConstraint,
    SafeState,
    SumConstraint,
    SwitchesConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

NOW_S, N = 1_735_689_600.0, 3
PLATE = Nameplate(
    "plant",
    1.0,
    (
        Group(
            "pump",
            tuple(f"P{i}" for i in range(N)),
            measured=(Signal("level", "m", 0.0, 10.0),),
            commanded=(
                Signal("flow", "kg/s", 0.0, 5.0, rate_limit_per_s=1.0),
                Signal("valve", "1", 0.0, 1.0, levels=(0.0, 1.0)),
            ),
        ),
    ),
)
DECLARATION: Declaration = declare(
    PLATE,
    [
        AccelerationConstraint("pump", "flow", 0.5, "kg/s"),
        DwellConstraint("pump", "valve", 3.0, "1"),
        SwitchesConstraint("pump", "valve", 4, "1"),
        SumConstraint("all", "pump", "flow", "kg/s", maximum=6.0),
        MeasuredConstraint("no overflow", "pump", "level", "m", maximum=9.0),
    ],
    {"pump": SafeState("ramp_to", {"flow": 0.0}, 12.0)},
)


def run(shield: Shield, state: ShieldState, first: int, last: int) -> list[Decision]:
    """Periods with changing proposals and levels, faults, orders and lost writes among them; the same each time."""
    found: list[Decision] = []
    for k in range(first, last):
        rng = np.random.default_rng(k)
        values = np.clip(5.0 + 4.5 * np.sin(k / 3 + np.arange(N)), 0.0, 9.9)[:, None]
        if k % 7 == 3:
            values[1] = np.nan
        now_s = NOW_S + k
        telemetry = Telemetry(
            {"pump": values}, {"pump": np.full((N, 1), now_s)}, {"pump": np.zeros((N, 1), np.int8)}, now_s, k
        )
        proposed: Any = {"pump": np.column_stack([rng.uniform(-1, 6, N), rng.integers(0, 2, N).astype(float)])}
        orders = Orders(stop=k == 20, reset=k == 30, mode=Mode.AUTONOMOUS if k == 31 else None)
        decision = shield.filter(telemetry, proposed if k % 11 else None, now_s, state, orders=orders, clock_s=float(k))
        found.append(decision)
        state = shield.unconfirmed(state, decision.state) if k % 13 == 5 else decision.state
    return found


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, types and all."""
    a, b = as_arrays(a), as_arrays(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("at", [0, 1, 6, 19, 22, 29, 32])
def test_a_state_comes_back_exactly_and_what_follows_is_the_same_to_the_last_bit(at: int) -> None:
    shield = Shield(DECLARATION, monitors=monitors_of(DECLARATION))
    decisions = run(shield, shield.start(), 0, at)
    state = decisions[-1].state if decisions else shield.start()
    back = from_arrays({name: array.copy() for name, array in as_arrays(state).items()})
    assert_same(back, state)
    assert (back.inputs.sequence, back.time_s, back.confirmed) == (state.inputs.sequence, state.time_s, state.confirmed)
    for one, other in zip(run(shield, state, at, at + 8), run(shield, back, at, at + 8), strict=True):
        np.testing.assert_array_equal(one.commands["pump"], other.commands["pump"])
        np.testing.assert_array_equal(one.standby["pump"], other.standby["pump"])
        assert repr(one.reasons) == repr(other.reasons)
        assert (one.source, one.mode) == (other.source, other.mode)
        assert_same(one.state, other.state)


def test_a_plan_what_is_pending_and_what_is_not_there_come_back_as_they_were() -> None:
    shield = Shield(DECLARATION)
    state = replace(
        shield.start(),
        plan=StoredPlan(np.arange(12.0).reshape(2, 6), used=1),
        pending={"verification_failed": np.array([False, True, False])},
        landing_s=np.array([0.0, 2.5, 0.0]),
    )
    back = from_arrays(as_arrays(state))
    assert_same(back, state)
    assert back.plan is not None
    assert type(back.plan.used) is int
    assert back.confirmed is True
    assert (back.before, back.changed, back.time_s) == (None, None, None)


def test_named_arrays_share_no_memory_with_the_state() -> None:
    state = Shield(DECLARATION).start()
    as_arrays(state)["applied/pump"][:] = 99.0
    assert not (state.applied["pump"] == 99.0).any()
