from __future__ import annotations

import pytest

from twinloop.training.benchmarks.coordination import SCHEDULES, simulate
from twinloop.training.benchmarks.edge_farm import Faults


@pytest.mark.parametrize("faults", [SCHEDULES[-3], SCHEDULES[-2], SCHEDULES[-1]], ids=lambda each: each.name)
def test_no_fault_of_messages_or_programs_lets_the_farm_pass_its_cap(faults: Faults) -> None:
    result = simulate(faults, n_turbines=8, n_seconds=300, seed=1)
    assert result.above == 0
    assert result.held_mw <= 1.8 * result.exact_mw
