"""The world is not as assumed: starts outside, limits tightened in use, another model, steps, and lost messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Shield, ShieldState, Source
from ....deploy.shield.orders import Orders
from ....envs.constraint import Declaration
from ....envs.wind_farm.nameplate import GROUP
from .plants import SmallPlant, policy_of
from .scene import ONSET, Case, Expect, Played, Turn, agent_of, not_told, source
from .sites import CART, CART_GAP_M, OVEN, POWER_CAP, PUMP, TOO_HOT_DEGC

Floats = NDArray[np.float64]
PERIODS = 24


def cases() -> Iterable[Case]:
    """All of them."""
    yield from _starts()
    yield from _tightened()
    yield from _other_models()
    yield from _steps()
    yield from _losses()


def _starting(
    name: str, site: str, commands: dict[str, Any], *, told: bool = True, expect: tuple[Expect, ...] = ()
) -> Case:
    """The plant obeys something else than neutral when the shield begins; ``told``: it knows."""

    def prepare(plant: SmallPlant, state: ShieldState, shield: Shield) -> ShieldState:
        for group, rows in commands.items():
            plant.commands[group] = np.array(rows, dtype=np.float64)
        return shield.accepted(state, plant.commands) if told else state

    return Case("physical", f"{site}: {name}", site, prepare=prepare, periods=PERIODS, safe=False,
                expect=(*expect, not_told(Code.SHIELD_FAILED)), known=lambda period: told or period > 0)  # fmt: skip


def _starts() -> Iterable[Case]:
    yaw = [[90.0, 1.0], [-90.0, 1.0], [0.0, 0.05]]
    yield _starting("starts outside its ranges", "farm", {GROUP: yaw})
    yield _starting("restarted in mid-operation", "farm", {GROUP: [[20.0, 0.5], [-20.0, 0.4], [5.0, 0.9]]})
    yield _starting("restarted without knowing what is obeyed", "farm", {GROUP: [[20.0, 0.5]] * 3}, told=False)
    yield _starting("starts between levels", "yard", {PUMP: [[0.4], [1.6], [2.5]]})
    yield _starting("starts beyond all levels", "yard", {PUMP: [[9.0], [-4.0], [3.0]]})
    yield _starting("starts heating and cooling", "yard", {OVEN: [[20.0, 10.0], [0.0, 5.0]]})
    yield _starting("starts above the heat cap", "yard", {OVEN: [[50.0, 0.0], [45.0, 0.0]]})
    yield _starting(
        "restarted without knowing what is obeyed", "yard", {PUMP: [[2.0]] * 3, OVEN: [[9.0, 0.0]] * 2}, told=False
    )

    def hot(plant: SmallPlant, state: ShieldState, shield: Shield) -> ShieldState:
        plant.state[OVEN][:] = [TOO_HOT_DEGC + 10.0, 60.0]
        return state

    def cooler(played: Played) -> Iterable[str]:
        if any(r.decision.commands[OVEN][0, 0] > 1e-9 for r in played.records[:3]):
            yield "an oven that is too hot was heated"

    yield Case("physical", "yard: starts too hot", "yard", prepare=hot, safe=False, expect=(cooler,), periods=PERIODS)

    def near(plant: SmallPlant, state: ShieldState, shield: Shield) -> ShieldState:
        plant.state[CART][:2] = [[0.0, 0.0], [0.5 * CART_GAP_M, 0.0]]
        return state

    def apart(played: Played) -> Iterable[str]:
        speed = played.records[0].decision.commands[CART]
        if speed[1, 0] - speed[0, 0] < 0.45:  # the gain of 0.5/s times the metre that is missing, less noise
            yield f"carts too near do not part: {speed[:2].tolist()}"

    def towards(declaration: Declaration, period: int) -> dict[str, Floats]:
        return {**policy_of(declaration, period), CART: np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])}

    yield Case("physical", "yard: starts too near", "yard", prepare=near, safe=False, expect=(apart,), policy=towards)

    def together(plant: SmallPlant, state: ShieldState, shield: Shield) -> ShieldState:
        plant.state[CART] = np.zeros((3, 2))
        return state

    fine = (not_told(Code.SHIELD_FAILED),)
    yield Case("physical", "yard: carts at one place", "yard", prepare=together, safe=False, expect=fine)


def _tightened() -> Iterable[Case]:
    """The grid's order comes while the farm produces: down within the rates, and no farther than ordered."""
    for most in (2.9, 2.0, 1.0, 0.3):

        def hook(period: int, turn: Turn, most: float = most) -> None:
            turn.proposed = {GROUP: np.tile([0.0, 1.0], (3, 1))}
            if period >= ONSET:
                turn.orders = Orders(limits={POWER_CAP: (None, most)})

        def expect(played: Played, most: float = most) -> Iterable[str]:
            totals = [float(r.decision.commands[GROUP][:, 1].sum()) for r in played.records]
            falling = 3 * 0.05 * 10.0
            for k, total in enumerate(totals[ONSET:]):
                wanted = max(most, 3.0 - falling * (k + 1))
                if abs(total - wanted) > 1e-6:
                    yield f"period {ONSET + k}: the limits sum up to {total}, as fast as the rate lets is {wanted}"

        yield Case("physical", f"farm: cap falls to {most:g} in use", "farm", hook, (expect,), periods=PERIODS)

    def there_and_back(period: int, turn: Turn) -> None:
        turn.orders = Orders(limits={POWER_CAP: (None, 1.0 if period // 3 % 2 else 3.0)})

    yield Case(
        "physical",
        "farm: cap goes up and down",
        "farm",
        there_and_back,
        (not_told(Code.SHIELD_FAILED),),
        periods=PERIODS,
    )


def _other_models() -> Iterable[Case]:
    """Commands do 30 % more or less than the constraints assume."""

    def hot(declaration: Declaration, period: int) -> dict[str, Floats]:
        together = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
        return {**policy_of(declaration, period), OVEN: np.array([[30.0, 0.0], [30.0, 0.0]]), CART: together}

    for mismatch in (0.7, 0.9, 1.1, 1.3):
        yield Case("physical", f"yard: commands do {mismatch:g} of what is assumed", "yard", policy=hot,
                   plant={"mismatch": mismatch}, periods=80)  # fmt: skip


def _steps() -> Iterable[Case]:
    """Something happens to the plant in mid-run."""

    def case(name: str, part: str, change: Callable[[Floats], Floats]) -> Case:
        held: list[SmallPlant] = []

        def prepare(plant: SmallPlant, state: ShieldState, shield: Shield) -> ShieldState:
            held[:] = [plant]
            return state

        def hook(period: int, turn: Turn) -> None:
            if period == ONSET:
                held[0].state[part] = change(held[0].state[part])

        back = source(PERIODS - 1, agent_of("yard", PUMP), Source.POLICY)
        return Case(
            "physical",
            f"yard: {name}",
            "yard",
            hook,
            (back, not_told(Code.SHIELD_FAILED)),
            prepare=prepare,
            periods=PERIODS,
            safe=False,
        )

    yield case("a load of heat", OVEN, lambda t: t + 25.0)
    yield case("a door opens", OVEN, lambda t: t - 25.0)
    yield case("a cart is pushed", CART, lambda x: x - np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0]]))
    yield case("someone steps in between", CART, lambda x: np.vstack([x[:2], [[1.0, 1.0]]]))


def _losses() -> Iterable[Case]:
    """Readings are lost at random; whatever is lost, the next good one is believed."""
    for site in ("farm", "yard"):
        for percent in (0, 1, 5, 10, 25, 50, 75, 90, 100):
            rng = np.random.default_rng(percent)

            def hook(period: int, turn: Turn, percent: int = percent, rng: np.random.Generator = rng) -> None:
                if ONSET <= period < 54 and rng.random() * 100.0 < percent:
                    turn.telemetry = None

            agent = agent_of(site)
            expect: list[Expect] = [source(59, agent, Source.POLICY), not_told(Code.SHIELD_FAILED)]
            if percent == 100:
                expect.append(source(ONSET + 2, agent, Source.FALLBACK))
            if percent == 0:
                expect.append(not_told(*[c for c in Code if c.startswith("input_")]))
            yield Case("network", f"{site}: {percent} % of readings lost", site, hook, tuple(expect), periods=60)
        yield _partition(site)


def _partition(site: str) -> Case:
    """Neither readings nor writes for a while; then all comes back."""

    def hook(period: int, turn: Turn) -> None:
        if ONSET <= period <= ONSET + 8:
            turn.telemetry = None

    agent = agent_of(site)
    expect = (source(ONSET + 3, agent, Source.FALLBACK), source(39, agent, Source.POLICY), not_told(Code.SHIELD_FAILED))
    return Case("network", f"{site}: cut off", site, hook, expect, periods=40,
                plant={"deaf": lambda period: ONSET <= period <= ONSET + 8})  # fmt: skip
