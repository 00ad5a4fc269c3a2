"""Half the rates of a degraded asset are for what its policy asks; what a hard constraint needs takes all of them."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.deploy.shield import Code, Mode, Shield
from twinloop.deploy.shield.causes import Cause
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.constraint import SeparationConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry

PERIOD_S, GAP_M = 0.5, 1.0
CARTS = Group(
    "cart",
    ("A", "B"),
    measured=(Signal("x_m", "m", -100.0, 100.0),),
    commanded=(Signal("v_mps", "m/s", -2.0, 2.0, rate_limit_per_s=1.0),),
)
SITE = declare(
    Nameplate("track", PERIOD_S, (CARTS,)),
    [SeparationConstraint("apart", "cart", ("x_m",), ("v_mps",), GAP_M, "m", gain_per_s=2.0, braking=1.0)],
)


def reading(x_m: np.ndarray, number: int) -> Telemetry:
    time_s = number * PERIOD_S
    return Telemetry(
        {"cart": x_m[:, None]},
        {"cart": np.full((2, 1), time_s)},
        {"cart": np.full((2, 1), Quality.GOOD, dtype=np.int8)},
        time_s,
        number,
    )


@pytest.mark.parametrize("from_period", range(8, 20))
def test_a_degraded_asset_brakes_as_hard_as_it_can_for_a_hard_constraint(from_period: int) -> None:
    """The other cart stands and is not ours to move, so that all of the braking is left to this one."""
    shield = Shield(SITE)
    state, x_m = shield.start(), np.array([-8.0, 8.0])
    collide = {"cart": np.array([[2.0], [-2.0]])}
    for number in range(1, 40):
        causes = {Cause.OUT_OF_DISTRIBUTION} if number >= from_period else set()
        orders = Orders(mode=Mode.SHADOW, assets=frozenset({"cart/B"})) if number == 1 else None
        decision = shield.filter(reading(x_m, number), collide, number * PERIOD_S, state, causes=causes, orders=orders)
        state = decision.state
        x_m = x_m + decision.commands["cart"][:, 0] * PERIOD_S
        assert decision.commands["cart"][1, 0] == 0.0
        assert x_m[1] - x_m[0] >= GAP_M - 1e-9
        # At half the rates the row is passed for a period, and only the fallback that follows keeps the distance.
        assert not {r.code for r in decision.reasons} & {Code.CONSTRAINT_UNREACHABLE, Code.CONSTRAINT_INFEASIBLE}
