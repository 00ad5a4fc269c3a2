"""The ladder: rungs in their order, no rung sends what was refused, and the last one always has an answer."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.deploy.shield.ladder import Rung, SafeKind, StoredPlan, descend, safe_commands

Floats = NDArray[np.float64]
SAFE = np.array([0.0, 0.0])
PLAN = StoredPlan(np.array([[0.1, 0.1], [0.2, 0.2]]))


def test_every_combination_of_rungs_takes_the_first_acceptable_one() -> None:
    kinds = ("absent", "refused", "accepted")
    values = {"refused": 9.0, "accepted": 0.5}
    for states in product(kinds, repeat=3):
        least, plan, backup = states

        def give(kind: str) -> Floats | None:
            return None if kind == "absent" else np.full(2, values[kind])

        stored = None if plan == "absent" else StoredPlan(np.full((2, 2), values[plan]))
        landing = descend(
            lambda u: bool((u < 1).all()),
            SAFE,
            least_violation=give(least),
            plan=stored,
            backup=None if backup == "absent" else lambda kind=backup: give(kind),  # type: ignore[misc]  # bound now
        )
        order = [Rung.LEAST_VIOLATION, Rung.PLAN, Rung.BACKUP]
        accepted = [r for r, s in zip(order, states, strict=True) if s == "accepted"]
        expected = accepted[0] if accepted else Rung.SAFE_STATE
        assert landing.rung is expected
        tried = order[: order.index(expected)] if accepted else order
        assert landing.refused == tuple(r for r, s in zip(order, states, strict=True) if s == "refused" and r in tried)
        assert (landing.commands < 1).all()
        assert (landing.plan is not None) == (expected is Rung.PLAN)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([np.nan, 0.0]),
        np.array([np.inf, 0.0]),
        np.zeros(3),
        np.zeros((1, 2)),
        "hold",
        None,
        [[1.0], [1.0, 2.0]],
    ],
)
def test_a_rung_that_says_nonsense_is_a_rung_refused(bad: Any) -> None:
    landing = descend(lambda _: True, SAFE, least_violation=np.array([np.nan, 1.0]), backup=lambda: bad)
    assert landing.rung is Rung.SAFE_STATE
    assert landing.refused == (Rung.LEAST_VIOLATION, Rung.BACKUP)
    assert np.array_equal(landing.commands, SAFE)


def test_a_backup_or_a_judge_that_raises_costs_its_rung_and_nothing_else() -> None:
    def raises(*_: Any) -> Any:
        raise RuntimeError

    assert descend(raises, SAFE, least_violation=SAFE, plan=PLAN, backup=lambda: SAFE).rung is Rung.SAFE_STATE
    assert descend(lambda _: True, SAFE, backup=raises).rung is Rung.SAFE_STATE


def test_a_plan_is_walked_period_by_period_and_ends() -> None:
    plan: StoredPlan | None = PLAN
    sent = []
    while True:
        landing = descend(lambda _: True, SAFE, plan=plan)
        if landing.rung is not Rung.PLAN:
            break
        sent.append(landing.commands.tolist())
        plan = landing.plan
    assert sent == PLAN.commands.tolist()
    assert landing.refused == (Rung.PLAN,)
    assert landing.plan is None


def test_a_plan_not_followed_for_a_period_is_over() -> None:
    assert descend(lambda _: True, SAFE, least_violation=SAFE, plan=PLAN).plan is None


def test_a_judge_cannot_change_what_is_sent() -> None:
    def meddles(u: Floats) -> bool:
        u[:] = 99.0
        return True

    assert np.array_equal(descend(meddles, SAFE, plan=PLAN).commands, [0.1, 0.1])


def test_each_command_has_its_own_safe_state_within_reach() -> None:
    held, neutral, values = np.full(4, 5.0), np.full(4, 1.0), np.full(4, -3.0)
    low, high = np.full(4, 0.0), np.array([10.0, 10.0, 10.0, 10.0])
    low[3] = 4.5  # the rate allows no more this period
    sent = safe_commands(("hold", "neutral", "values", "ramp_to"), held, neutral, values, low, high)
    np.testing.assert_array_equal(sent, [5.0, 1.0, 0.0, 4.5])


def test_a_safe_state_that_is_no_number_is_replaced() -> None:
    bad, low, high = np.array([np.nan, np.inf]), np.zeros(2), np.array([1.0, 3.0])
    kinds: tuple[SafeKind, ...] = ("hold", "hold")
    assert np.array_equal(safe_commands(kinds, bad, np.full(2, 0.25), bad, low, high), [0.25, 0.25])
    assert np.array_equal(safe_commands(kinds, bad, bad, bad, low, high), [0.5, 1.5])
