"""The limiter of last resort walks asset by asset; what assets keep together is kept on the way all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import Declaration, SafeState, SumConstraint, SumRateConstraint, declare
from twinloop.envs.constraint.margin import Margins
from twinloop.envs.constraint.moment import Moment
from twinloop.envs.nameplate import Group, Nameplate, Signal

PUMP = Group(
    "pump",
    ("P1", "P2", "P3"),
    measured=(Signal("flow", "", 0.0, 100.0),),
    commanded=(Signal("speed", "", 0.0, 1.0, neutral=0.5, rate_limit_per_s=0.05),),
)
PLATE = Nameplate("pumps", 10.0, (PUMP,))


def site() -> Declaration:
    ramp = SumRateConstraint("ramp", "pump", "speed", "", up_per_second=0.03, down_per_second=None)
    total = SumConstraint("total", "pump", "speed", "", maximum=2.0)
    return declare(PLATE, (ramp, total), {"pump": SafeState("values", {"speed": 0.6})})


def least_margin(declaration: Declaration, before: np.ndarray, after: np.ndarray) -> float:
    """The smallest margin of a step, by the formulas that no part of the shield uses."""
    moment = Moment({"pump": before[:, None]}, {"pump": after[:, None]}, {}, PLATE.period_s)
    return min(float(np.min(m)) for m in Margins(declaration)(moment).values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 0.65), min_size=3, max_size=3))
def test_every_step_keeps_sums_and_their_ramps_and_the_walk_arrives(start: list[float]) -> None:
    declaration = site()
    shield, here = Shield(declaration), np.array(start)
    for step in range(1, 400):
        state = replace(shield.start(), applied={"pump": here[:, None]}, confirmed=True, time_s=10.0 * step)
        there = shield.last_resort(state, 10.0 * (step + 1))["pump"][:, 0]
        assert least_margin(declaration, here, there) >= -1e-9
        here = there
        if np.allclose(here, 0.6, atol=1e-6):
            return
    pytest.fail(f"never arrived: {here}")


def test_a_ramp_is_not_broken_where_each_asset_alone_would_go_the_whole_way() -> None:
    declaration, here = site(), np.array([0.1, 0.1, 0.1])
    shield = Shield(declaration)
    state = replace(shield.start(), applied={"pump": here[:, None]}, confirmed=True, time_s=10.0)
    alone = np.array([0.6, 0.6, 0.6])
    assert least_margin(declaration, here, alone) < -1.0  # what it did before
    assert least_margin(declaration, here, shield.last_resort(state, 20.0)["pump"][:, 0]) >= 0.0
