"""The shield on sites of unusual shape: nothing measured, nothing commanded, very many assets."""

from __future__ import annotations

import time

import numpy as np
import pytest

from twinloop.deploy.shield import Code, Shield, Source
from twinloop.deploy.shield.orders import Orders
from twinloop.deploy.shield.verification import Verifier
from twinloop.envs.constraint import SumConstraint, declare
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

NOW_S = 1_000_000.0
X = (Signal("x", "1", 0.0, 1.0),)
U = (Signal("u", "1", 0.0, 1.0, rate_limit_per_s=0.1),)
ON = (Signal("u", "1", 0.0, 1.0, levels=(0.0, 1.0)),)


@pytest.mark.parametrize(
    "groups",
    [
        (Group("a", ("A",), X, U),),
        (Group("a", ("A", "B"), (), U),),
        (Group("a", ("A",), X, ()), Group("b", ("B",), X, U)),
        (Group("a", ("A",), (), U), Group("b", ("B",), X, ON)),
        (Group("a", ("A", "B"), X, ON),),
        (Group("a", ("A",), X, (Signal("u", "1", 0.0, 1.0, levels=(0.0,)),)),),
    ],
    ids=["one asset", "nothing measured", "nothing commanded in a group", "both", "levels only", "one level"],
)
def test_every_shape_of_site_follows_its_policy_on_good_readings(groups: tuple[Group, ...]) -> None:
    shield = Shield(Nameplate("odd", 1.0, groups))
    state = shield.start()
    for k in range(5):
        now_s = NOW_S + k
        shape = {g.name: (g.n_assets, len(g.measured)) for g in groups}
        telemetry = Telemetry(
            {n: np.full(s, 0.5) for n, s in shape.items()},
            {n: np.full(s, now_s) for n, s in shape.items()},
            {n: np.zeros(s, dtype=np.int8) for n, s in shape.items()},
            now_s,
            k + 1,
        )
        proposed = {n: a.copy() for n, a in state.applied.items()}
        decision = shield.filter(telemetry, proposed, now_s, state, clock_s=float(k))
        assert not decision.reasons
        assert set(decision.source.values()) == {Source.POLICY}
        state = decision.state
    lost = shield.filter(None, None, NOW_S + 5.0, state)
    assert Code.SHIELD_FAILED not in {r.code for r in lost.reasons}


def test_the_last_resort_of_a_thousand_assets_takes_a_small_part_of_a_second() -> None:
    plate = Nameplate("many", 1.0, (Group("a", tuple(f"A{i}" for i in range(1000)), X, U),))
    shield = Shield(plate)
    state = shield.start({"a": np.full((1000, 1), 0.5)})
    begun_s = time.thread_time()
    walked = shield.last_resort(state, NOW_S)
    assert time.thread_time() - begun_s < 0.1  # about 3 ms; each asset reading all others took 250
    np.testing.assert_allclose(walked["a"], 0.4)


def test_the_limiter_of_last_resort_says_the_same_of_one_asset_and_of_all() -> None:
    plate = Nameplate("few", 1.0, (Group("a", ("A", "B"), X, U), Group("b", ("C",), X, ON)))
    verifier = Verifier(declare(plate))
    applied = {"a": np.array([[0.3], [np.nan]]), "b": np.array([[1.0]])}
    places = [("a", 0), ("a", 1), ("b", 0)]
    one_by_one = [verifier.last_resort(applied, *place, 1.0) for place in places]
    assert verifier.last_resorts(applied, places, 1.0) == one_by_one == [[pytest.approx(0.2)], [0.0], [0.0]]


def test_an_order_beyond_the_declared_ends_of_a_sum_does_not_lift_them_in_the_standby() -> None:
    plate = Nameplate("capped", 1.0, (Group("a", ("A", "B"), X, U),))
    shield = Shield(declare(plate, [SumConstraint("cap", "a", "u", "1", maximum=1.0)]), fallback=_most)
    orders = Orders(limits={"cap": (1.5, 2.0)})
    decision = shield.filter(None, None, NOW_S, shield.start({"a": np.full((2, 1), 0.5)}), orders=orders)
    for sent in (decision.commands, decision.standby):
        assert sent["a"].sum() == pytest.approx(1.0)


def _most(measured: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return {"a": np.ones((2, 1))}
