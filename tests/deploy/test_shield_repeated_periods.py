"""What a shield does not work out twice: a reading that it was just told, modes and choices that did not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.deploy.shield import Decision, Mode, Shield, ShieldState
from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.modes import ModeMachine
from twinloop.deploy.shield.orders import NOTHING, Orders
from twinloop.deploy.shield.settings import ShieldSettings
from twinloop.deploy.shield.state import as_arrays
from twinloop.envs.constraint import SumConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]
NOW_S = 1_700_000_000.0
PLATE = Nameplate(
    "pumps",
    1.0,
    (
        Group(
            "pump",
            ("p1", "p2", "p3"),
            (Signal("level_m", "m", 0.0, 10.0),),
            (Signal("flow_m3ps", "m3/s", 0.0, 10.0, rate_limit_per_s=2.0),),
        ),
    ),
)


def shield(fallback: Any = None) -> Shield:
    return Shield(
        declare(PLATE, (SumConstraint("all", "pump", "flow_m3ps", "m3/s", maximum=12.0),), {}), fallback=fallback
    )


def reading(k: int, level_m: float = 5.0) -> Telemetry:
    shape, now_s = (3, 1), NOW_S + k
    return Telemetry(
        {"pump": np.full(shape, level_m) + 0.01 * k + np.arange(3.0)[:, None]},
        {"pump": np.full(shape, now_s)},
        {"pump": np.zeros(shape, np.int8)},
        now_s,
        k + 1,
    )


def asked(*flows: float) -> dict[str, Floats]:
    return {"pump": np.array(flows)[:, None]}


def told(decision: Decision) -> dict[str, Any]:
    """All of a decision, byte by byte."""
    arrays = {**as_arrays(decision.state), **{f"sent/{n}": v for n, v in decision.commands.items()}}
    arrays |= {f"standby/{n}": v for n, v in decision.standby.items()}
    arrays |= {f"acts/{n}": v for n, v in decision.acts.items()}
    return {
        **{name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()},
        "": (repr(decision.reasons), dict(decision.source), dict(decision.mode)),  # a NaN is like none but itself
    }


def after(site: Shield, n: int, **start: Any) -> ShieldState:
    state = site.start(**start)
    for k in range(n):
        state = site.filter(reading(k), asked(1.0, 2.0, 3.0), NOW_S + k, state).state
    return state


# A reading that was told already


def test_a_reading_told_to_the_policy_first_is_decided_by_as_if_it_had_not_been() -> None:
    one, other = shield(), shield()
    state = after(other, 3)
    heard = reading(3)
    assert one.guard(heard, NOW_S + 3, state).clean
    assert told(one.filter(heard, asked(3.0, 9.0, 9.0), NOW_S + 3, state)) == told(
        other.filter(heard, asked(3.0, 9.0, 9.0), NOW_S + 3, state)
    )


@pytest.mark.parametrize("part", ["values", "source_time_s", "quality"])
def test_a_reading_that_changed_in_place_since_is_judged_by_what_it_holds_now(part: str) -> None:
    site = shield()
    state, heard = after(site, 3), reading(3)
    assert site.guard(heard, NOW_S + 3, state).clean
    getattr(heard, part)["pump"][1] = {"values": np.nan, "source_time_s": NOW_S - 99.0, "quality": 2}[part]
    decision = site.filter(heard, asked(1.0, 2.0, 3.0), NOW_S + 3, state)
    assert "pump/p2" in {r.asset for r in decision.reasons}
    assert told(decision) == told(shield().filter(heard, asked(1.0, 2.0, 3.0), NOW_S + 3, state))


@pytest.mark.parametrize("change", ["time", "clock", "state", "prediction"])
def test_what_was_told_is_not_taken_for_another_question(change: str) -> None:
    site = shield()
    state, heard = after(site, 3), reading(3)
    site.guard(heard, NOW_S + 3, state, clock_s=3.0)
    more: dict[str, Any] = {"clock_s": 4.0 if change == "clock" else 3.0}
    if change == "prediction":
        more["prediction"] = {"pump": np.full((3, 1), 4.0)}
    now_s = NOW_S + (40.0 if change == "time" else 3.0)
    if change == "state":
        state = after(site, 2)
    assert told(site.filter(heard, asked(1.0, 2.0, 3.0), now_s, state, **more)) == told(
        shield().filter(heard, asked(1.0, 2.0, 3.0), now_s, state, **more)
    )


def test_whoever_writes_into_what_it_was_told_changes_nothing_that_is_decided_by() -> None:
    def fallback(values: Any) -> Any:
        return {"pump": 0.1 * values["pump"]}

    site, other = shield(fallback), shield(fallback)
    state, heard = after(other, 3), reading(3)
    site.guard(heard, NOW_S + 3, state).values["pump"][:] = 0.0
    assert told(site.filter(heard, None, NOW_S + 3, state)) == told(other.filter(heard, None, NOW_S + 3, state))


# Modes and choices that did not change


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.APPROVED, Mode.AUTONOMOUS])
@pytest.mark.parametrize("ours", [None, ["pump/p2"], ["pump/p1", "pump/p3"]])
def test_modes_in_which_nothing_stands_stay_as_the_long_way_has_them(mode: Mode, ours: list[str] | None) -> None:
    machine = ModeMachine(PLATE, ShieldSettings())
    state = machine.start(mode, assets=ours)
    nobody = {Cause.READ_BACK_WRONG: np.zeros(3, dtype=np.bool_)}
    long = machine.step(state, nobody, NOTHING, 5.0)
    short, again = machine.step(state, {}, NOTHING, 5.0), machine.step(state, {}, NOTHING, 6.0)
    for found in (short, again):
        assert found[0] is state
        assert found[2] == long[2] == ()
        for mine, whole in zip(found[:2], long[:2], strict=True):
            for name in type(whole).__annotations__:
                np.testing.assert_array_equal(getattr(mine, name), getattr(whole, name))
                assert np.asarray(getattr(mine, name)).dtype == np.asarray(getattr(whole, name)).dtype


def test_a_cause_still_counts_down_when_nothing_new_is_found() -> None:
    machine = ModeMachine(PLATE, ShieldSettings())
    state, _, _ = machine.step(machine.start(), {Cause.OUT_OF_DISTRIBUTION: True}, NOTHING, 0.0)
    seen = []
    for k in range(200):
        state, modes, _ = machine.step(state, {}, NOTHING, float(k))
        seen.append(modes.plain)
    assert seen[0] is False
    assert seen[-1] is True


def test_an_approval_counts_for_its_own_period_only() -> None:
    site = shield()
    state = after(site, 3, mode=Mode.APPROVED)
    proposal, sent = asked(2.0, 2.0, 2.0), []
    for k, approved in enumerate([None, {"pump/p1"}, None, {"pump/p3"}, {"pump/p3"}, None]):
        orders = Orders(approved=None if approved is None else frozenset(approved))
        decision = site.filter(reading(3 + k), proposal, NOW_S + 3 + k, state, orders=orders)
        assert told(decision) == told(shield().filter(reading(3 + k), proposal, NOW_S + 3 + k, state, orders=orders))
        state = decision.state
        sent.append(decision.commands["pump"][:, 0].tolist())
    assert sent == [[0, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 2], [2, 0, 2], [2, 0, 2]]


def test_one_shield_may_serve_two_runs_in_turns() -> None:
    site = shield()
    states = [site.start(assets=["pump/p1"]), site.start()]
    for k in range(6):
        for run, flows in enumerate([(3.0, 3.0, 3.0), (4.0, 9.0, 9.0)]):
            heard = reading(k, 4.0 + run)
            site.guard(heard, NOW_S + k, states[run])
            decision = site.filter(heard, asked(*flows), NOW_S + k, states[run])
            assert told(decision) == told(shield().filter(heard, asked(*flows), NOW_S + k, states[run]))
            states[run] = decision.state


def test_what_was_found_at_nobodys_asset_is_no_cause() -> None:
    site = shield()
    state = after(site, 3)
    nobody = replace(state, pending={Cause.READ_BACK_WRONG: np.zeros(3, dtype=np.bool_)})
    assert told(site.filter(reading(3), asked(1.0, 2.0, 3.0), NOW_S + 3, nobody)) == told(
        site.filter(reading(3), asked(1.0, 2.0, 3.0), NOW_S + 3, state)
    )
