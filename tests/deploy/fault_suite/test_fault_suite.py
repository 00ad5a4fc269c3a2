"""Every case of the fault suite, one test each; `twinloop bench shield_faults` prints the same as a score."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from twinloop.training.benchmarks.shield_faults import BAR_CASES, Playable, all_cases, played

CASES = list(all_cases())
FAMILIES = ("actuator", "input", "message", "mode", "network", "physical", "policy", "process", "runtime", "solver")


STANDBY_LIMITS = "the standby forgets the ends of sums that are ordered at run time"
ORDERS = "an order source that raises or gives another type stops the loop or misses its deadline"
OPEN = {
    "farm: a limit tightened": STANDBY_LIMITS,
    "farm: a limit below all that is possible": STANDBY_LIMITS,
    "farm: cap goes up and down": STANDBY_LIMITS,
    **{f"farm: cap falls to {most} in use": STANDBY_LIMITS for most in ("2.9", "2", "1", "0.3")},
    **{f"farm: limits {hair} apart": STANDBY_LIMITS for hair in ("1e-06", "1e-07", "1e-09", "-1e-09", "-1e-07")},
    "orders of text": ORDERS,
    "orders can't be read": ORDERS,
}
"""Defects that the suite has found and that are being mended, with what they are."""


def _param(case: Playable) -> Any:
    marks = (pytest.mark.xfail(reason=OPEN[case.name], strict=False),) if case.name in OPEN else ()
    return pytest.param(case, id=f"{case.family}: {case.name}", marks=marks)


@pytest.mark.parametrize("case", [_param(c) for c in CASES])
def test_a_fault_is_answered_as_it_must_be(case: Playable) -> None:
    assert played(case) == []


def test_the_suite_is_as_wide_as_the_list_of_faults() -> None:
    names = Counter((c.family, c.name) for c in CASES)
    assert max(names.values()) == 1
    assert {family for family, _ in names} == set(FAMILIES)
    assert len(CASES) >= BAR_CASES
