"""What a person ordered in a period that came to nothing, and what becomes of it."""

from __future__ import annotations

import pytest

from twinloop.deploy.shield import Mode
from twinloop.deploy.shield.orders import Orders
from twinloop.deploy.unheeded import heeding

NONE = Orders()
SOME, OTHERS = frozenset({"a/A"}), frozenset({"a/B"})
LOWER, RESET = Orders(mode=Mode.SHADOW, assets=SOME), Orders(reset=True)


@pytest.mark.parametrize(
    ("unheeded", "new", "given", "waits"),
    [
        (NONE, NONE, NONE, None),
        (LOWER, NONE, LOWER, None),
        (RESET, NONE, RESET, None),
        (RESET, Orders(mode=Mode.ADVISE), Orders(mode=Mode.ADVISE, reset=True), None),
        (LOWER, Orders(mode=Mode.ADVISE, assets=SOME), Orders(mode=Mode.ADVISE, assets=SOME), None),
        (LOWER, Orders(mode=Mode.ADVISE, assets=OTHERS), Orders(mode=Mode.ADVISE, assets=OTHERS), LOWER),
        (RESET, Orders(stop=True), Orders(stop=True), None),
        (LOWER, Orders(approved=OTHERS), Orders(mode=Mode.SHADOW, assets=SOME, approved=OTHERS), None),
    ],
)
def test_it_is_given_again_unless_a_newer_order_or_a_stop_says_otherwise(
    unheeded: Orders, new: Orders, given: Orders, waits: Orders | None
) -> None:
    assert heeding(unheeded, new) == (given, waits)
