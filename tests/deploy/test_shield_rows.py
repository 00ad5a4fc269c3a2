"""Rows that a site works out of all that it measures: kept, verified, and refused where they are no numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield import Code, Decision, Shield
from twinloop.envs.constraint import Declaration, Margins, Moment, RowsConstraint, RowTerms, SafeState, declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]
NOW_S = 1_700_000_000.0
PLATE = Nameplate(
    "yard",
    0.1,
    (
        Group(
            "cart",
            ("c1", "c2"),
            (Signal("x_m", "m", -50.0, 50.0), Signal("y_m", "m", -50.0, 50.0)),
            (Signal("vx_mps", "m/s", -2.0, 2.0), Signal("vy_mps", "m/s", -2.0, 2.0)),
        ),
        Group("person", ("p1", "p2"), (Signal("x_m", "m", -50.0, 50.0), Signal("y_m", "m", -50.0, 50.0)), ()),
    ),
)


@dataclass(frozen=True)
class KeepsOff:
    """A cart closes on each person at no more than ``gain_per_s`` of the distance beyond ``distance_m``."""

    distance_m: float = 1.0
    gain_per_s: float = 2.0
    fault: float = 0.0

    def __call__(self, measured: Mapping[str, Floats], applied: Floats, /) -> RowTerms:
        assert applied.shape == (2, 2)
        apart = measured["cart"][:, None] - measured["person"][None]
        reach = np.sqrt((apart**2).sum(-1))
        least = -self.gain_per_s * (reach - self.distance_m) + self.fault
        return RowTerms(apart / reach[..., None], np.where(reach > 20.0, -math.inf, least))

    def margin(self, measured: Mapping[str, Any], /) -> Any:
        apart = measured["cart"][..., :, None, :] - measured["person"][..., None, :, :]
        return ((apart**2).sum(-1) ** 0.5).min(-1) - self.distance_m


def declared(rows: KeepsOff | None = None) -> Declaration:
    return declare(PLATE, (RowsConstraint("people", "cart", rows or KeepsOff()),), {"cart": SafeState("neutral")})


def decide(declaration: Declaration, carts: Floats, people: Floats, proposed: Floats) -> Decision:
    shield = Shield(declaration)
    values = {"cart": carts, "person": people}
    reading = Telemetry(
        values,
        {n: np.full(v.shape, NOW_S) for n, v in values.items()},
        {n: np.zeros(v.shape, np.int8) for n, v in values.items()},
        NOW_S,
        1,
    )
    asked = {"cart": proposed, "person": np.zeros((2, 0))}
    return shield.filter(reading, asked, NOW_S, shield.start(), clock_s=1.0)


speeds = st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4)
places = st.lists(st.floats(-6.0, 6.0), min_size=8, max_size=8)


@settings(max_examples=60, deadline=None)
@given(places, speeds)
def test_what_is_sent_keeps_every_row_that_standing_still_keeps_and_a_safe_proposal_is_left_alone(
    at: list[float], v: list[float]
) -> None:
    carts, people = np.reshape(at[:4], (2, 2)), np.reshape(at[4:], (2, 2))
    terms = KeepsOff()({"cart": carts, "person": people}, np.zeros((2, 2))) if _apart(carts, people) > 1.0 else None
    if terms is None:
        return
    proposed = np.reshape(v, (2, 2))
    sent = decide(declared(), carts, people, proposed).commands["cart"]
    got = np.einsum("nra,na->nr", terms.control, sent)
    assert (got >= terms.least - 1e-7).all()
    wished = np.einsum("nra,na->nr", terms.control, proposed)
    if (wished >= terms.least).all():
        np.testing.assert_allclose(sent, proposed, rtol=1e-9, atol=1e-12)


def _apart(carts: Floats, people: Floats) -> float:
    return float(np.sqrt(((carts[:, None] - people[None]) ** 2).sum(-1)).min())


def test_the_nearest_command_is_the_projection_on_the_row() -> None:
    # one person 1.5 m ahead: closing at no more than 2 * 0.5 m/s, everything else as proposed
    decision = decide(
        declared(), np.array([[0.0, 0.0], [0.0, 40.0]]), np.array([[1.5, 0.0], [30.0, -30.0]]),
        np.array([[2.0, 0.5], [1.0, 1.0]]),
    )  # fmt: skip
    np.testing.assert_allclose(decision.commands["cart"], [[1.0, 0.5], [1.0, 1.0]], atol=1e-9)
    assert Code.CONSTRAINT_BARRIER in {r.code for r in decision.reasons}
    assert {r.constraint for r in decision.reasons} == {"people"}


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_rows_that_are_no_numbers_never_let_the_proposal_pass(fault: float) -> None:
    decision = decide(
        declared(KeepsOff(fault=fault)), np.array([[0.0, 0.0], [0.0, 9.0]]), np.array([[5.0, 0.0], [9.0, 9.0]]),
        np.full((2, 2), 2.0),
    )  # fmt: skip
    np.testing.assert_array_equal(decision.commands["cart"], np.zeros((2, 2)))


def test_margins_are_the_rows_own_for_batches_too() -> None:
    carts, people = np.zeros((3, 2, 2)), np.full((3, 2, 2), 3.0)
    zero = {"cart": np.zeros((3, 2, 2)), "person": np.zeros((3, 2, 0))}
    found = Margins(declared())(Moment(zero, zero, {"cart": carts, "person": people}, 0.1))["people"]
    np.testing.assert_allclose(found, np.full((3, 2), math.sqrt(18.0) - 1.0))


def test_rows_must_have_a_name_that_means_one_function() -> None:
    with pytest.raises(ConfigurationError, match=r"rows is .*frozen dataclass"):
        declare(PLATE, (RowsConstraint("people", "cart", lambda measured: None),))  # type: ignore[arg-type] # a wrong one
