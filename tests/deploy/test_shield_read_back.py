"""What the plant obeys against what was sent: when it counts, when it does not, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.deploy.shield import Code, Mode, Shield, ShieldSettings, ShieldState
from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.orders import Orders
from twinloop.deploy.shield.state import as_arrays, from_arrays
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry

PLATE = Nameplate(
    "hall",
    1.0,
    (
        Group("fan", ("F1", "F2"), (Signal("flow", "1", 0.0, 1.0),), (Signal("speed", "1", 0.0, 200.0),)),
        Group("gate", ("G1",), (Signal("seen", "1", 0.0, 1.0),), (Signal("open", "1", -1.0, 1.0),)),
    ),
)
ASKED = {"fan": np.array([[100.0], [50.0]]), "gate": np.array([[0.5]])}
ALL_WELL = {"fan": np.zeros((2, 1)), "gate": np.zeros((1, 1))}


def off(fan_1: float = 0.0, fan_2: float = 0.0, gate: float = 0.0) -> dict[str, NDArray[np.float64]]:
    return {"fan": np.array([[fan_1], [fan_2]]), "gate": np.array([[gate]])}


def reading(k: int) -> Telemetry:
    sizes = {"fan": 2, "gate": 1}
    return Telemetry(
        {n: np.full((m, 1), 0.5 + 0.01 * (k % 7)) for n, m in sizes.items()},
        {n: np.full((m, 1), float(k)) for n, m in sizes.items()},
        {n: np.full((m, 1), Quality.GOOD, np.int8) for n, m in sizes.items()},
        float(k),
        k,
    )


def turn(shield: Shield, state: ShieldState, k: int, wrong: Any = None, mode: Mode | None = None) -> tuple[Any, Any]:
    """One period; ``wrong``: added to what was sent, None where the plant does not say. The decision and the state."""
    decision = shield.filter(reading(k), ASKED, float(k), state, orders=Orders(mode=mode))
    if wrong is None:
        return decision, decision.state
    return decision, shield.accepted(decision.state, {n: c + wrong[n] for n, c in decision.commands.items()})


def modes(shield: Shield, wrongs: list[Any]) -> list[dict[str, Mode]]:
    state, found = shield.start(), []
    for k, wrong in enumerate([*wrongs, ALL_WELL]):
        decision, state = turn(shield, state, k, wrong)
        found.append(dict(decision.mode))
    return found


def test_the_third_period_in_a_row_puts_that_asset_on_its_fallback_and_no_other() -> None:
    shield = Shield(PLATE)
    found = modes(shield, [off(fan_2=1.0)] * 3)
    assert found[2]["fan/F2"] is Mode.AUTONOMOUS
    assert found[3] == {"fan/F1": Mode.AUTONOMOUS, "fan/F2": Mode.BACKUP, "gate/G1": Mode.AUTONOMOUS}
    found = modes(shield, [off(fan_2=1.0)] * 3 + [ALL_WELL] * 3)
    assert [row["fan/F2"] for row in found[3:]] == [Mode.BACKUP] * 4  # the first, and its dwell of three
    found = modes(shield, [off(fan_2=1.0)] * 3 + [ALL_WELL] * 4)
    assert found[-1]["fan/F2"] is Mode.AUTONOMOUS


def test_it_is_told_of_that_asset_as_long_as_it_stands() -> None:
    shield = Shield(PLATE)
    state, told = shield.start(), []
    for k in range(6):
        decision, state = turn(shield, state, k, off(gate=0.1))
        told.append({r.asset for r in decision.reasons if r.code is Code.READ_BACK_WRONG})
    assert told == [set(), set(), set(), {"gate/G1"}, {"gate/G1"}, {"gate/G1"}]


def test_two_periods_in_a_row_do_not_count_nor_does_a_break() -> None:
    found = modes(Shield(PLATE), [off(1.0), off(1.0), ALL_WELL, off(1.0), off(1.0), ALL_WELL])
    assert all(mode is Mode.AUTONOMOUS for row in found for mode in row.values())


@pytest.mark.parametrize(
    ("tolerance_pu", "wrong", "counts"),
    [
        (None, off(0.199), False),  # a thousandth of a range of 200
        (None, off(-0.201), True),
        (None, off(gate=0.00199), False),  # and of a range of 2
        (None, off(gate=0.00201), True),
        (0.1, off(19.9), False),
        (0.1, off(20.1), True),
        (0.0, off(1e-9), True),
        (0.0, ALL_WELL, False),
    ],
)
def test_the_tolerance_is_a_share_of_the_range(tolerance_pu: float | None, wrong: Any, counts: bool) -> None:
    given = {} if tolerance_pu is None else {"read_back_tolerance_pu": tolerance_pu}
    found = modes(Shield(PLATE, settings=ShieldSettings(**given)), [wrong] * 3)
    assert (Mode.BACKUP in found[3].values()) is counts


@pytest.mark.parametrize("wrong", [None, off(np.nan, np.nan, np.nan)])
def test_what_a_plant_does_not_say_is_not_wrong(wrong: Any) -> None:
    found = modes(Shield(PLATE), [wrong] * 5)
    assert all(mode is Mode.AUTONOMOUS for row in found for mode in row.values())


def test_what_others_do_with_assets_that_are_not_ours_is_not_wrong() -> None:
    shield = Shield(PLATE)
    state = shield.start(mode=Mode.SHADOW)
    for k in range(6):
        decision = shield.filter(reading(k), ASKED, float(k), state)
        state = shield.accepted(shield.unsent(state, decision.state), {n: c + k for n, c in ALL_WELL.items()})
    decision, _ = turn(shield, state, 6, ALL_WELL, mode=Mode.AUTONOMOUS)
    assert set(decision.mode.values()) == {Mode.AUTONOMOUS}  # nothing stands in the way of taking over


def test_nothing_is_wrong_before_the_first_command_or_while_it_is_unknown_what_arrived() -> None:
    shield = Shield(PLATE)
    assert shield.start(applied=ASKED).pending == {}
    assert shield.accepted(shield.start(), ASKED).pending == {}
    before = shield.start()
    decision, _ = turn(shield, before, 0)
    lost = shield.unconfirmed(before, decision.state)
    assert shield.accepted(lost, decision.commands).pending == {}


def test_a_period_without_a_decision_takes_what_was_sent_instead_for_no_fault() -> None:
    shield = Shield(PLATE)
    _, state = turn(shield, shield.start(), 0, ALL_WELL)
    after = shield.stood_in(state, off(90.0, 45.0, 0.4), 1.0)
    assert after.pending == {}
    assert Cause.READ_BACK_WRONG in shield.accepted(after, off(80.0, 45.0, 0.4)).pending


def test_an_answer_and_a_reading_that_differ_in_different_assets_both_count() -> None:
    shield = Shield(PLATE)
    decision, state = turn(shield, shield.start(), 0, off(fan_1=5.0))
    state = shield.accepted(state, {n: c + off(5.0, 0.0, 0.2)[n] for n, c in decision.commands.items()})
    assert state.pending[Cause.READ_BACK_WRONG].tolist() == [True, False, True]


def test_it_survives_being_stored() -> None:
    shield = Shield(PLATE)
    state = stored = shield.start()
    for k in range(8):
        wrong = off(fan_1=3.0) if k < 5 else ALL_WELL
        one, state = turn(shield, state, k, wrong)
        other, stored = turn(shield, stored, k, wrong)
        assert (one.mode, one.reasons) == (other.mode, other.reasons)
        kept = as_arrays(stored)
        stored = from_arrays(kept)
        again = as_arrays(stored)
        assert kept.keys() == again.keys() == as_arrays(state).keys()
        assert all(np.array_equal(kept[n], again[n], equal_nan=True) for n in kept)
