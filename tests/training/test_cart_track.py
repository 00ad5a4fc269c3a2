"""Carts between walls: the look-ahead through the whole shield, against the exact model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield import Code, Decision, Shield, Source
from twinloop.envs.plant import Quality, Telemetry
from twinloop.training.benchmarks.cart_track import (
    BACKUP,
    FASTEST_MPS,
    HORIZON,
    PERIOD_S,
    TRACK_M,
    Braking,
    Carts,
    cart_track,
    extreme,
    moved,
)


def reading(state: np.ndarray[tuple[int, ...], np.dtype[np.float64]], step: int) -> Telemetry:
    good = {"cart": np.full(state.shape, Quality.GOOD, np.int8)}
    now_s = step * PERIOD_S
    return Telemetry({"cart": state}, {"cart": np.full(state.shape, now_s)}, good, now_s, step)


@settings(max_examples=100, deadline=None)
@given(st.floats(-99.0, 99.0), st.floats(-FASTEST_MPS, FASTEST_MPS), st.floats(-1.0, 1.0))
def test_the_foresight_is_what_a_fine_simulation_sees(x: float, v: float, push: float) -> None:
    told, plan = Braking()({"cart": np.array([[x, v]])}, {"cart": np.array([[push]])}, BACKUP, HORIZON)
    assert len(plan) == HORIZON
    at, speed, farthest = x, v, 0.0
    for step in plan:
        u = float(step["cart"][0, 0])
        assert abs(u) <= 1.0
        for t in np.linspace(0.0, PERIOD_S, 51):
            farthest = max(farthest, abs(at + speed * t + 0.5 * u * t * t))
        at, speed = (float(value) for value in moved(np.array(at), np.array(speed), np.array(u)))
    assert speed == pytest.approx(0.0, abs=1e-9)
    assert told == pytest.approx(TRACK_M - farthest, abs=1e-4)


def test_a_plan_that_does_not_come_to_rest_is_none() -> None:
    told, _ = Braking()({"cart": np.array([[0.0, 5.0]])}, {"cart": np.array([[0.0]])}, BACKUP, 5)
    assert told == -np.inf
    with pytest.raises(ValueError, match="carts have 'brake' alone"):
        Braking()({"cart": np.zeros((1, 2))}, {"cart": np.zeros((1, 1))}, "hope", 5)


def run(push: float, n_steps: int) -> tuple[Carts, list[Decision]]:
    shield = Shield(cart_track(2))
    carts = Carts(1, 2)
    truth = carts.start(np.array([4]), {})["cart"][0]
    state, found = shield.start(), []
    for step in range(n_steps):
        decision = shield.filter(reading(truth, step), {"cart": np.full((2, 1), push)}, step * PERIOD_S, state)
        state = decision.state
        found.append(decision)
        truth = carts.step({"cart": decision.commands["cart"][None]})["cart"][0]
    return carts, found


@pytest.mark.parametrize("push", [1.0, -1.0, np.nan])
def test_carts_that_are_pushed_at_a_wall_come_near_and_never_beyond(push: float) -> None:
    carts, decisions = run(push, 160)
    assert carts.farthest_m[0] <= TRACK_M + 1e-9
    codes = {r.code for d in decisions for r in d.reasons}
    assert Code.SHIELD_FAILED not in codes
    if np.isfinite(push):
        assert carts.farthest_m[0] >= TRACK_M - 5.0
        assert Code.CONSTRAINT_LOOK_AHEAD in codes
        told = [r for d in decisions for r in d.reasons if r.constraint == "can stop"]
        assert told
        assert all(r.margin is None or r.margin < 0 for r in told)
        sources = {s for d in decisions for s in d.source.values()}
        assert sources & {Source.POLICY, Source.PLAN}


def test_the_same_period_replays_bit_for_bit_with_its_plan() -> None:
    _, first = run(1.0, 60)
    _, second = run(1.0, 60)
    for a, b in zip(first, second, strict=True):
        assert a.commands["cart"].tobytes() == b.commands["cart"].tobytes()
        assert (a.state.plan is None) == (b.state.plan is None)
        if a.state.plan is not None and b.state.plan is not None:
            assert a.state.plan.used == b.state.plan.used
            assert a.state.plan.commands.tobytes() == b.state.plan.commands.tobytes()


def test_the_turning_point_counts() -> None:
    x, v, push = np.array([99.0]), np.array([0.3]), np.array([-1.0])
    assert extreme(x, v, push)[0] == pytest.approx(99.0 + 0.3**2 / 2.0)
