"""The conformance check passes what declare() makes and finds what was broken; strategies draw what they promise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.envs.conformance import check_declaration
from twinloop.envs.conformance.command_strategy import applied_within, commands_near
from twinloop.envs.constraint import (
    ConflictConstraint,
    DwellConstraint,
    RangeConstraint,
    SafeState,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    declare,
    effective_limits,
)
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Group, Nameplate, Signal

PLATE = Nameplate(
    "tanks",
    10.0,
    (
        Group(
            "tank",
            ("T1", "T2", "T3"),
            measured=(Signal("level_m", "m", 0.0, 5.0),),
            commanded=(
                Signal("heat_kw", "kW", 0.0, 20.0, rate_limit_per_s=0.5),
                Signal("valve", "1", 0.0, 1.0, levels=(0.0, 1.0)),
            ),
            hidden=(),
            statics=(),
        ),
    ),
)
WHOLE = declare(
    PLATE,
    [
        RangeConstraint("tank", "heat_kw", 0.0, 15.0, "kW"),
        SumConstraint("cap", "tank", "heat_kw", "kW", maximum=30.0),
        SumRateConstraint("ramp", "tank", "heat_kw", "kW", 0.6, 0.8, priority=1),
        ConflictConstraint("valves", "tank", ((("T1", "valve", 1.0), ("T2", "valve", 1.0)),)),
        DwellConstraint("tank", "valve", 60.0, "1", 1.0),
        SwitchesConstraint("tank", "valve", 6, "1"),
    ],
    {"tank/T3": SafeState("values", {"heat_kw": 5.0}, within_s=30.0)},
)


def test_a_declaration_of_many_kinds_conforms() -> None:
    check_declaration(WHOLE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"constraints": WHOLE.constraints[1:]}, "complete"),
        ({"safe_states": {"tank/T1": SafeState()}}, "complete"),
        ({"safe_states": {a: SafeState("values", {"heat_kw": 14.0}) for a in PLATE.agents}}, "sum up to 42 kW"),
        ({"constraints": (*WHOLE.constraints, RangeConstraint("tank", "heat_kw", 0.0, 99.0, "kW", 1))}, "coherent"),
    ],
)
def test_a_declaration_that_was_tampered_with_is_found(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        check_declaration(dataclasses.replace(WHOLE, **changes))


@settings(max_examples=50, deadline=None)
@given(commands_near(WHOLE), applied_within(WHOLE))
def test_commands_drawn_have_the_sites_shape_and_applied_ones_are_allowed(commands: Any, applied: Any) -> None:
    assert commands["tank"].shape == applied["tank"].shape == (3, 2)
    limit = effective_limits(PLATE, WHOLE.constraints)["tank", "heat_kw"]
    assert ((limit.minimum <= applied["tank"][:, 0]) & (applied["tank"][:, 0] <= limit.maximum)).all()
    assert set(applied["tank"][:, 1].tolist()) <= {0.0, 1.0}


def test_drawn_commands_reach_every_limit_and_what_is_no_command() -> None:
    seen: set[float] = set()
    finite = True

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(commands_near(WHOLE), st.data())
    def gather(commands: Any, data: Any) -> None:
        nonlocal finite
        seen.update(x for x in commands["tank"][:, 0].tolist() if math.isfinite(x))
        finite = finite and bool(np.isfinite(commands["tank"]).all())

    gather()
    assert {0.0, 15.0, 20.0, 10.0} <= seen  # ends of both ranges, and a third of the cap
    assert not finite


@settings(max_examples=100, deadline=None)
@given(commands_near(WHOLE, finite=True))
def test_finite_commands_are_finite(commands: Any) -> None:
    assert np.isfinite(commands["tank"]).all()
