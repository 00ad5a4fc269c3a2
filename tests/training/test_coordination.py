from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.training.benchmarks.coordination import SCHEDULES, simulate
from twinloop.training.benchmarks.edge_farm import Faults


@pytest.mark.parametrize("faults", [SCHEDULES[-3], SCHEDULES[-2], SCHEDULES[-1]], ids=lambda each: each.name)
def test_no_fault_of_messages_or_programs_lets_the_farm_pass_its_cap(faults: Faults) -> None:
    result = simulate(faults, n_turbines=8, n_seconds=300, seed=1)
    assert result.above == 0
    assert result.held_mw <= 1.8 * result.exact_mw


def test_with_communication_hardly_more_is_held_back_than_needed() -> None:
    result = simulate(SCHEDULES[2], n_turbines=8, n_seconds=300, seed=0)
    assert result.above == 0
    assert result.held_mw <= 1.05 * result.exact_mw


@settings(max_examples=12, deadline=None)
@given(
    faults=st.builds(
        Faults,
        name=st.just("drawn"),
        judged=st.just(False),
        loss=st.floats(0.0, 1.0),
        delay_s=st.integers(0, 90),
        repeat=st.floats(0.0, 1.0),
        garble=st.floats(0.0, 0.5),
        cut_every_s=st.sampled_from((0, 30, 120)),
        crash_every_s=st.sampled_from((0, 25, 90)),
        twice=st.booleans(),
        restart_every_s=st.sampled_from((0, 60, 300)),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_shields_keep_the_cap_under_any_schedule_of_faults(faults: Faults, seed: int) -> None:
    assert simulate(faults, n_turbines=3, n_seconds=200, seed=seed).above == 0
