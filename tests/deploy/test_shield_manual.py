"""What a person holds by hand while the policy fails, and what still takes it out of that hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from twinloop.deploy.shield import Code, Decision, Mode, Shield, Source
from twinloop.deploy.shield.compiled import flat_commands
from twinloop.deploy.shield.orders import Orders, judge
from twinloop.deploy.shield.proposal import read_proposal
from twinloop.envs.plant import Telemetry
from twinloop.training.benchmarks.arbitration_site import EPOCH_S, KETTLES, KettlePlant

K1, K2 = "kettle/K1", "kettle/K2"
BY_HAND = Orders(approved=frozenset({K1}), manual=frozenset({K1}))


def held_by_hand() -> dict[str, Any]:
    """Kettle 1 has commands of a person, nobody else has any."""
    kettle = np.full((3, 2), math.nan)
    kettle[0] = [5.0, 0.1]
    return {"kettle": kettle, "fan": np.full((1, 1), math.nan)}


def decisions(n_periods: int, absent: Code, telemetry: Any = None) -> list[Decision]:
    shield, plant = Shield(KETTLES), KettlePlant()
    state, found = shield.start(), []
    for _ in range(n_periods):
        told = plant.read() if telemetry is None else telemetry(plant.read())
        found.append(shield.filter(told, held_by_hand(), plant.clock_s, state, absent=absent, orders=BY_HAND))
        state = found[-1].state
        plant.write(found[-1].commands)
        plant.advance()
    return found


@pytest.mark.parametrize("absent", [Code.POLICY_LATE, Code.POLICY_RAISED, Code.POLICY_TRIPPED])
def test_a_failing_policy_sends_others_to_their_fallback_and_not_what_a_person_holds(absent: Code) -> None:
    for decision in decisions(5, absent):
        assert decision.source[K1] is Source.POLICY
        assert decision.commands["kettle"][0].tolist() == [5.0, 0.1]
        assert decision.source[K2] is Source.FALLBACK
        assert {r.code for r in decision.reasons if r.asset == K2} >= {absent}


def test_lost_inputs_take_an_asset_out_of_a_person_s_hand() -> None:
    def blind(reading: Telemetry) -> Telemetry:
        values = {**reading.values, "kettle": np.full((3, 1), math.nan)}
        return Telemetry(values, reading.source_time_s, reading.quality, EPOCH_S, reading.sequence, reading.notes)

    last = decisions(6, Code.POLICY_RAISED, blind)[-1]
    assert last.source[K1] is Source.FALLBACK
    assert last.mode[K1] is Mode.BACKUP


def test_a_latched_trip_of_the_policy_does_not_keep_a_person_from_taking_over() -> None:
    shield, plant = Shield(KETTLES), KettlePlant()
    state = shield.start()
    for _ in range(4):
        state = shield.filter(plant.read(), None, plant.clock_s, state, absent=Code.POLICY_TRIPPED).state
        plant.advance()
    taken = shield.filter(
        plant.read(), held_by_hand(), plant.clock_s, state, absent=Code.POLICY_TRIPPED, orders=BY_HAND
    )
    assert taken.mode[K1] is Mode.BACKUP  # latched until a reset, and still a person's
    assert taken.source[K1] is Source.POLICY
    assert taken.source[K2] is Source.FALLBACK


@pytest.mark.parametrize("wrong", ["kettle/K1", 7, {"kettle/K1": 1}])
def test_hands_that_can_t_be_read_are_nobody_s(wrong: Any) -> None:
    found = judge(Orders(manual=wrong), KETTLES.agents, ())
    assert found.manual == frozenset()
    assert [r.signal for r in found.reasons] == ["manual"]


def test_holes_of_a_proposal_are_the_absent_policy_s_and_those_of_one_that_answered_are_its_fault() -> None:
    flat = flat_commands(KETTLES)
    codes = read_proposal(held_by_hand(), flat, Code.POLICY_LATE).codes
    assert codes == [None, Code.POLICY_LATE, Code.POLICY_LATE, Code.POLICY_LATE]
    codes = read_proposal(held_by_hand(), flat, Code.COMMAND_MISSING).codes
    assert codes == [None, *[Code.COMMAND_NOT_FINITE] * 3]
