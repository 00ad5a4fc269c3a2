"""The second look at a site's own rows: many at once says the same as one by one, whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield.verification import Verdict, Verifier
from twinloop.envs.constraint import RowsConstraint, RowTerms, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
INF, NAN = math.inf, math.nan
PLATE = Nameplate(
    "bench",
    0.1,
    (
        Group(
            "arm",
            ("a1", "a2"),
            (Signal("q_rad", "rad", -9.0, 9.0),),
            (Signal("v1", "rad/s", -2.0, 2.0), Signal("v2", "rad/s", -2.0, 2.0), Signal("v3", "rad/s", -2.0, 2.0)),
        ),
    ),
)


class OneByOne(np.ndarray[Any, np.dtype[np.float64]]):
    """An array that the short way does not know, so that every row goes the long one."""


@dataclass(frozen=True)
class Given:
    terms: RowTerms

    def __call__(self, measured: Mapping[str, Floats], applied: Floats, /) -> RowTerms:
        return self.terms

    def margin(self, measured: Mapping[str, Any], /) -> Any:
        return measured["arm"][..., 0]


def verdict(control: Floats, least: Floats, values: Floats, applied: Floats) -> Verdict:
    verifier = Verifier(declare(PLATE, (RowsConstraint("rows", "arm", Given(RowTerms(control, least))),), {}))
    return verifier.failures({"arm": values}, {"arm": applied}, 0.1, None, {"arm": np.zeros((2, 1))})


slopes = st.one_of(st.floats(-3.0, 3.0), st.sampled_from([0.0, 1e9, -1e9, 1e160, -1e160, 1e308, INF, -INF, NAN]))
needs = st.one_of(st.floats(-6.0, 6.0), st.sampled_from([-INF, -INF, INF, NAN, 1e300, -1e300, 0.0]))
speeds = st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(slopes, slopes, slopes, needs), min_size=4, max_size=4), speeds, speeds)
@example([(1.0, 0.0, 0.0, INF)] + [(0.0, 0.0, 0.0, -INF)] * 3, [0.0] * 6, [0.0] * 6)
def test_rows_looked_at_all_at_once_fail_where_they_fail_one_by_one(
    rows: list[tuple[float, float, float, float]], sent: list[float], before: list[float]
) -> None:
    control = np.array([row[:3] for row in rows]).reshape(2, 2, 3)
    least = np.array([row[3] for row in rows]).reshape(2, 2)
    values, applied = np.reshape(sent, (2, 3)), np.reshape(before, (2, 3))
    at_once = verdict(control, least, values, applied)
    assert at_once == verdict(control.view(OneByOne), least, values, applied)


@pytest.mark.parametrize("off", [-3.0, -1.0, -0.6, -0.4, 0.0, 0.4, 0.6, 1.0, 3.0])
def test_they_agree_to_within_the_slack_of_a_row(off: float) -> None:
    values = np.full((2, 3), 0.7)
    control = np.full((2, 40, 3), 0.3)
    least = (control @ values[0]) + off * 1e-8
    found = verdict(control, least, values, values)
    assert found == verdict(control.view(OneByOne), least, values, values)
    assert bool(found.coupled) is (off > 2.5)  # slack: 1e-8 of one plus the sizes of both sides, here 2.26


@pytest.mark.parametrize(
    ("control", "least"),
    [
        (np.zeros((2, 3, 3)), np.zeros((2, 2))),
        (np.zeros((2, 2, 3)), np.zeros((2, 3))),
        (np.zeros((1, 2, 3)), np.zeros((1, 2))),
        (np.zeros((3, 2, 3)), np.zeros((3, 2))),
    ],
)
def test_rows_of_a_wrong_shape_are_not_passed(control: Floats, least: Floats) -> None:
    still = np.zeros((2, 3))
    assert verdict(control, least, still, still).coupled == ("rows",)
