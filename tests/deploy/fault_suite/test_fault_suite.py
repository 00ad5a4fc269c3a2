"""Every case of the fault suite, one test each; `twinloop bench shield_faults` prints the same as a score."""

from __future__ import annotations

from collections import Counter

import pytest

from twinloop.training.benchmarks.shield_faults import BAR_CASES, Playable, all_cases, played

CASES = list(all_cases())
FAMILIES = ("actuator", "input", "message", "mode", "network", "physical", "policy", "process", "runtime", "solver")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.family}: {c.name}") for c in CASES])
def test_a_fault_is_answered_as_it_must_be(case: Playable) -> None:
    assert played(case) == []


def test_the_suite_is_as_wide_as_the_list_of_faults() -> None:
    names = Counter((c.family, c.name) for c in CASES)
    assert max(names.values()) == 1
    assert {family for family, _ in names} == set(FAMILIES)
    assert len(CASES) >= BAR_CASES
