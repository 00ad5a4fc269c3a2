"""A sum over commands that cannot stop at once stays inside its ends for ever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield import Shield
from twinloop.deploy.shield.compiled import flat_commands
from twinloop.deploy.shield.sum_braking import SumBraking
from twinloop.envs.constraint import AccelerationConstraint, Declaration, SumConstraint, SumRateConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry


def heaters(
    n: int, *, cap: float = 70.0, floor: float | None = None, weights: Any = None, ramp: bool = False
) -> Declaration:
    signal = Signal("heat", "kW", -50.0, 50.0, rate_limit_per_s=5.0)
    group = Group("g", tuple(f"H{i}" for i in range(n)), (Signal("t", "degC", 0.0, 100.0),), (signal,))
    rules: list[Any] = [AccelerationConstraint("g", "heat", 2.0, "kW")]
    rules.append(SumConstraint("cap", "g", "heat", "kW", cap, floor, weights))
    if ramp:
        rules.append(SumRateConstraint("ramp", "g", "heat", "kW", 8.0))
    return declare(Nameplate("heaters", 1.0, (group,)), rules)


def totals(declaration: Declaration, asked: Any, weights: Any, periods: int) -> list[float]:
    """Weighted sums of what is sent, period by period, and a check that no acceleration is passed."""
    shield, n = Shield(declaration), declaration.nameplate.groups[0].n_assets
    state, found, change = shield.start(), [], np.zeros((n, 1))
    for k in range(periods):
        now_s = 1e6 + k
        t = np.full((n, 1), 20.0)
        telemetry = Telemetry({"g": t}, {"g": np.full((n, 1), now_s)}, {"g": np.zeros((n, 1), np.int8)}, now_s, k + 1)
        decision = shield.filter(telemetry, {"g": np.array(asked(k), dtype=np.float64).reshape(n, 1)}, now_s, state)
        moved = decision.commands["g"] - state.applied["g"]
        assert np.abs(moved - change).max() <= 2.0 + 1e-9
        state, change = decision.state, moved
        found.append(float(np.dot(weights, decision.commands["g"][:, 0])))
    return found


@pytest.mark.parametrize("ramp", [False, True])
def test_all_heaters_arrive_at_the_cap_without_passing_it(ramp: bool) -> None:
    found = totals(heaters(2, ramp=ramp), lambda k: [50.0, 50.0], [1.0, 1.0], 40)
    assert max(found) <= 70.0 + 1e-9
    assert found[-1] == pytest.approx(70.0, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 4),
    cap=st.floats(1.0, 90.0),
    floor=st.one_of(st.none(), st.floats(-60.0, -1.0)),
    signed=st.booleans(),
)
def test_whatever_is_asked_the_sum_stays_between_its_ends(
    seed: int, n: int, cap: float, floor: float | None, signed: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.choice([-1.0, 0.5, 1.0, 3.0] if signed else [0.5, 1.0, 2.0], n)
    declaration = heaters(n, cap=cap, floor=floor, weights=tuple(weights.tolist()))
    wishes = rng.uniform(-60.0, 60.0, (6, n))
    found = totals(declaration, lambda k: wishes[k // 6], weights, 36)
    assert max(found) <= cap + 1e-7
    assert floor is None or min(found) >= floor - 1e-7


def test_far_from_the_end_nothing_is_narrowed() -> None:
    declaration = heaters(3)
    flat = flat_commands(declaration.nameplate)
    low, high = np.full(3, -5.0), np.full(3, 5.0)
    new_low, new_high, limits = SumBraking(declaration, flat).narrowed(np.ones(3), low, high, np.zeros(3), {})
    np.testing.assert_array_equal(new_low, low)
    np.testing.assert_array_equal(new_high, high)
    assert limits == {}


def test_room_towards_one_end_is_not_taken_from_the_way_back_to_the_other() -> None:
    declaration = heaters(1, cap=3.0, floor=-1.0)
    low, high, _ = SumBraking(declaration, flat_commands(declaration.nameplate)).narrowed(
        np.array([3.4]), np.array([3.0]), np.array([5.0]), np.array([5.0]), {}
    )
    assert low.tolist() == [3.0]
    assert high.tolist() == [5.0]


def test_commands_without_an_acceleration_limit_have_no_such_rows() -> None:
    signal = Signal("heat", "kW", 0.0, 50.0, rate_limit_per_s=5.0)
    plate = Nameplate("s", 1.0, (Group("g", ("A", "B"), (Signal("t", "degC", 0.0, 1.0),), (signal,)),))
    declaration = declare(plate, [SumConstraint("cap", "g", "heat", "kW", 70.0)])
    assert not SumBraking(declaration, flat_commands(plate)).any
