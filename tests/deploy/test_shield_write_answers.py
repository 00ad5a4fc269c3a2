"""The shield between a decision and the plant's answer: late, missing or senseless; and a shield that breaks inside."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.deploy.shield import Code, Decision, Mode, Shield, ShieldState, Source
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import (
    AccelerationConstraint,
    Declaration,
    DwellConstraint,
    SafeState,
    SwitchesConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]
PERIOD_S = 10.0
NOW_S = 1_000_000.0


def site() -> Declaration:
    """Two machines, each with a continuous command that can't stop at once and one with levels."""
    pump = Group(
        "pump", ("P1", "P2"),
        measured=(Signal("flow", "1", 0.0, 1.0),),
        commanded=(
            Signal("speed", "1", 0.0, 100.0, rate_limit_per_s=2.0),
            Signal("stage", "1", 0.0, 3.0, levels=(0.0, 1.0, 2.0, 3.0)),
        ),
    )  # fmt: skip
    rules = (
        AccelerationConstraint("pump", "speed", 0.05, "1"),  # 5 apart from one period to the next
        DwellConstraint("pump", "stage", 2.0 * PERIOD_S, "1"),
        SwitchesConstraint("pump", "stage", 2, "1"),
    )
    return declare(Nameplate("pumps", PERIOD_S, (pump,)), rules, {"pump": SafeState("neutral")})


def asked(speed: float, stage: float) -> dict[str, Floats]:
    return {"pump": np.tile([speed, stage], (2, 1))}


def played(shield: Shield, state: ShieldState, k: int, proposed: Any, **more: Any) -> Decision:
    """Period ``k`` with a good reading."""
    now_s = NOW_S + k * PERIOD_S
    one = {"pump": np.full((2, 1), 0.5)}
    telemetry = Telemetry(
        one, {"pump": np.full((2, 1), now_s)}, {"pump": np.zeros((2, 1), dtype=np.int8)}, now_s, k + 1
    )
    return shield.filter(telemetry, proposed, now_s, state, clock_s=float(k) * PERIOD_S, **more)


def speed(arrays: Any) -> float:
    return float(arrays["pump"][0, 0])


def stage(arrays: Any) -> float:
    return float(arrays["pump"][0, 1])


def test_a_change_that_is_read_back_late_counts_as_a_change_of_its_own() -> None:
    shield = Shield(site())
    before = shield.start()
    first = played(shield, before, 0, asked(0.0, 1.0))
    assert stage(first.commands) == 1.0
    state = shield.accepted(shield.unconfirmed(before, first.state), first.commands)  # told a period later
    second = played(shield, state, 1, asked(0.0, 2.0))
    assert stage(second.commands) == 1.0  # it has not stood for 20 s
    third = played(shield, second.state, 2, asked(0.0, 2.0))
    assert stage(third.commands) == 2.0
    state = third.state
    for k in range(3, 8):
        state = played(shield, state, k, asked(0.0, 3.0)).state
    assert stage(state.applied) == 2.0  # two changes within the hour, the late one among them


def test_the_speed_of_a_change_that_is_read_back_late_is_what_the_next_one_is_braked_from() -> None:
    shield = Shield(site())
    state = shield.start()
    for k in range(3):
        before = state
        decision = played(shield, before, k, asked(100.0, 0.0))
        state = decision.state
    assert [speed(x.applied) for x in (before, state)] == [15.0, 30.0]
    late = shield.accepted(shield.unconfirmed(before, decision.state), decision.commands)
    for answered in (state, late):
        again = played(shield, answered, 3, asked(0.0, 0.0))
        assert speed(again.commands) == 40.0  # 15 a period, braked by 5
        assert Code.VERIFICATION_FAILED not in {r.code for r in again.reasons}


def test_a_period_in_which_nothing_is_sent_is_one_in_which_the_plant_stood_still() -> None:
    shield = Shield(site())
    state = shield.start()
    for k in range(3):
        state = played(shield, state, k, asked(100.0, 1.0)).state
    unsent = shield.unsent(state, played(shield, state, 3, asked(100.0, 1.0)).state)
    after = played(shield, unsent, 4, asked(100.0, 2.0))
    assert speed(after.commands) - speed(state.applied) == 5.0  # it starts again from rest
    assert stage(after.commands) == 2.0  # time goes on for what has to stand


def test_without_a_decision_an_unsent_state_keeps_all_it_remembers() -> None:
    shield = Shield(site())
    state = shield.start()
    for k in range(3):
        state = played(shield, state, k, asked(100.0, 1.0)).state
    same = shield.unsent(state, state)
    assert speed(played(shield, same, 3, asked(0.0, 1.0)).commands) == 40.0


def test_authority_that_was_taken_while_a_write_was_unconfirmed_can_be_given_again() -> None:
    shield = Shield(site())
    state = shield.start()
    for k in range(4):
        decision = played(shield, state, k, asked(5.0, 0.0), orders=Orders(mode=Mode.SHADOW if k == 3 else None))
        state = shield.unconfirmed(state, decision.state)
    assert set(decision.mode.values()) == {Mode.SHADOW}
    for k in range(4, 10):
        decision = played(shield, state, k, asked(5.0, 0.0))
        state = shield.unsent(state, decision.state)
    decision = played(shield, state, 10, asked(5.0, 0.0), orders=Orders(mode=Mode.AUTONOMOUS))
    assert set(decision.mode.values()) == {Mode.AUTONOMOUS}
    assert speed(decision.commands) == 0.0  # what was known last, until a write is confirmed


class _Raises(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("no answer")


@pytest.mark.parametrize("answer", [_Raises(), dict, object(), 7])
def test_an_answer_that_raises_tells_nothing(answer: Any) -> None:
    shield = Shield(site())
    decision = played(shield, shield.start(), 0, asked(5.0, 0.0))
    assert speed(shield.accepted(decision.state, answer).applied) == 5.0


@pytest.mark.parametrize("clock", [None, "noon", True, 10**400, Decimal(3), {}, np.zeros(2), math.nan, math.inf])
def test_a_clock_that_is_no_number_moves_nothing_and_is_forgotten(clock: Any) -> None:
    shield = Shield(site())
    state = played(shield, shield.start(), 0, asked(5.0, 0.0)).state
    decision = shield.filter(None, asked(20.0, 0.0), clock, state, clock_s=clock)
    assert speed(decision.commands) == 5.0
    assert speed(shield.stood_in(state, asked(6.0, 0.0), clock, clock).applied) == 6.0
    assert np.isfinite(shield.last_resort(state, clock, clock)["pump"]).all()
    later = played(shield, decision.state, 2, asked(5.0, 0.0))
    assert Code.SHIELD_FAILED not in {r.code for r in later.reasons}


def test_whole_seconds_are_a_clock_like_any_other() -> None:
    shield = Shield(site())
    state = shield.filter(None, asked(5.0, 0.0), int(NOW_S), shield.start()).state
    assert state.time_s == NOW_S


def _broken(shield: Shield) -> Shield:
    del shield._chooser  # what every period needs, and its last resort does not
    return shield


def test_a_stop_is_heeded_and_latched_while_the_shield_fails() -> None:
    shield = Shield(site())
    state = shield.start(asked(50.0, 2.0), mode=Mode.SHADOW)
    decision = played(_broken(shield), state, 0, asked(50.0, 2.0), orders=Orders(stop=True))
    assert set(decision.mode.values()) == {Mode.TRIPPED}
    assert decision.acts["pump"].all()
    assert speed(decision.commands) == 45.0
    assert stage(decision.commands) == 0.0
    released = played(Shield(site()), decision.state, 1, asked(50.0, 2.0))
    assert set(released.source.values()) == {Source.SAFE_STATE}


def test_a_shield_that_fails_three_times_in_a_row_trips() -> None:
    shield = _broken(Shield(site()))
    state, modes = shield.start(asked(50.0, 2.0)), []
    for k in range(3):
        decision = played(shield, state, k, asked(50.0, 2.0))
        state = decision.state
        modes.append(decision.mode["pump/P1"])
    assert modes == [Mode.BACKUP, Mode.BACKUP, Mode.TRIPPED]


def test_the_last_resort_brakes_from_the_last_change_and_leaves_alone_what_is_not_ours() -> None:
    shield = Shield(site())
    state = shield.start()
    for k in range(3):
        state = played(shield, state, k, asked(100.0, 0.0)).state
    decision = played(_broken(shield), state, 3, asked(100.0, 0.0))
    assert speed(decision.commands) == 40.0
    mine = frozenset({"pump/P1"})
    shield = Shield(site())
    state = played(shield, shield.start(asked(50.0, 0.0)), 0, None, orders=Orders(mode=Mode.SHADOW, assets=mine)).state
    decision = played(_broken(shield), state, 1, None)
    assert decision.acts["pump"].tolist() == [False, True]
    assert speed(decision.standby) == speed(state.applied)
