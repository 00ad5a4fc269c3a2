"""The priority array: the worked example of a foreign stack, a plain reference, and what silence does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.arbitration import RELINQUISHED, PriorityArray, Slot

LONG_S = 1e6


def test_writes_and_releases_follow_the_bacnet_example() -> None:
    """What a bacpypes3 server answered a node-bacnet client: 25 at 16, 18 at 8, then both released, default 20."""
    array = PriorityArray([20.0])
    state = array.write(array.start(), Slot.AUTONOMOUS, [25.0], 0.0, LONG_S)
    seen = [array.effective(state, 0.0).values[0]]
    state = array.write(state, Slot.OPERATOR, [18.0], 0.0, LONG_S)
    seen.append(array.effective(state, 0.0).values[0])
    state = array.release(state, Slot.OPERATOR)
    seen.append(array.effective(state, 0.0).values[0])
    seen.append(array.effective(array.release(state, Slot.AUTONOMOUS), 0.0).values[0])
    assert seen == [25.0, 18.0, 25.0, 20.0]


def test_silence_gives_control_back_slot_by_slot() -> None:
    array = PriorityArray([0.0, 0.0])
    state = array.write(array.start(), Slot.AUTONOMOUS, [1.0, 1.0], 0.0, 10.0)
    state = array.write(state, Slot.OPERATOR, [math.nan, 2.0], 0.0, 5.0)
    told = [(t, *array.effective(state, t).values, *array.effective(state, t).slot) for t in (0.0, 4.9, 5.0, 9.9, 10.0)]
    assert told == [
        (0.0, 1.0, 2.0, 16, 8),
        (4.9, 1.0, 2.0, 16, 8),
        (5.0, 1.0, 1.0, 16, 16),
        (9.9, 1.0, 1.0, 16, 16),
        (10.0, 0.0, 0.0, RELINQUISHED, RELINQUISHED),
    ]


def test_a_clock_that_is_no_number_relinquishes_everything() -> None:
    array = PriorityArray([7.0])
    state = array.write(array.start(), Slot.AUTONOMOUS, [1.0], 0.0, LONG_S)
    assert array.effective(state, math.nan).values[0] == 7.0
    assert np.isnan(array.expired(state, math.nan).values).all()


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.integers(1, 16),
            st.lists(st.one_of(st.just(math.nan), st.floats(-5, 5)), min_size=3, max_size=3),
            st.floats(0.1, 20.0),
        ),
        st.tuples(st.just("release"), st.integers(1, 16), st.sets(st.integers(0, 2), min_size=1)),
        st.tuples(st.just("wait"), st.floats(0.0, 15.0)),
        st.tuples(st.just("tidy")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_any_history_agrees_with_a_dictionary_of_slots(events: list[Any]) -> None:
    default = [10.0, 11.0, 12.0]
    array = PriorityArray(default)
    state, now_s = array.start(), 0.0
    slots: dict[tuple[int, int], tuple[float, float]] = {}
    for event in events:
        if event[0] == "write":
            _, slot, values, lasts_s = event
            state = array.write(state, slot, values, now_s, lasts_s)
            slots |= {(i, slot): (v, now_s + lasts_s) for i, v in enumerate(values) if not math.isnan(v)}
        elif event[0] == "release":
            _, slot, commands = event
            state = array.release(state, slot, sorted(commands))
            slots = {key: held for key, held in slots.items() if key[1] != slot or key[0] not in commands}
        elif event[0] == "wait":
            now_s += event[1]
        else:
            state = array.expired(state, now_s)
        found = array.effective(state, now_s)
        for i, value in enumerate(default):
            alive = sorted((slot, v) for (j, slot), (v, until_s) in slots.items() if j == i and until_s > now_s)
            assert (found.slot[i], found.values[i]) == (alive[0] if alive else (RELINQUISHED, value))


@pytest.mark.parametrize(
    ("slot", "values", "lasts_s", "said"),
    [
        (0, [1.0], 1.0, "allowed are 1 to 16"),
        (17, [1.0], 1.0, "8 operator"),
        (8, [1.0, 2.0], 1.0, "give 1 numbers"),
        (8, [math.inf], 1.0, "give 1 numbers"),
        (8, [1.0], 0.0, "positive number of seconds"),
        (8, [1.0], math.inf, "positive number of seconds"),
        (8, [1.0], math.nan, "positive number of seconds"),
    ],
)
def test_a_wrong_write_says_what_is_allowed(slot: int, values: list[float], lasts_s: float, said: str) -> None:
    array = PriorityArray([0.0])
    with pytest.raises(ValueError, match=said):
        array.write(array.start(), slot, values, 0.0, lasts_s)


def test_a_default_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="one finite number a command"):
        PriorityArray([math.nan])
