"""What a policy may do wrong: nothing usable, nonsense, the same for ever, to and fro, or the worst it can think of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Mode, Source
from ....envs.constraint import Declaration
from ....envs.wind_farm.nameplate import GROUP
from .plants import policy_of
from .scene import ONSET, Case, Expect, Hook, Turn, agent_of, mode, quiet, site_of, source, told
from .sites import CART, OVEN, PUMP

Floats = NDArray[np.float64]
LAST_BAD = 11
PERIODS = 18


def cases() -> Iterable[Case]:
    """All of them, for both sites."""
    for site in ("farm", "yard"):
        group = site_of(site).nameplate.groups[0].name
        agent = agent_of(site)
        for name, change, code in _unusable(group):
            expect: tuple[Expect, ...] = (
                quiet(3, ONSET - 1),
                told(ONSET, code, agent=agent),
                source(ONSET, agent, Source.FALLBACK),
                mode(ONSET, agent, Mode.BACKUP),
                source(PERIODS - 1, agent, Source.POLICY),
                mode(PERIODS - 1, agent, Mode.AUTONOMOUS),
            )
            yield Case("policy", f"{site}: {name}", site, _while(change), expect, periods=PERIODS)
        for code in (Code.POLICY_LATE, Code.POLICY_RAISED, Code.POLICY_TRIPPED, Code.HAND_BACK):
            yield _absent(site, agent, code)
        for name, change in _hostile(site_of(site)):
            yield Case("policy", f"{site}: {name}", site, _while(change, 1, 60), periods=60)


def _while(change: Callable[[int, Any], Any], first: int = ONSET, last: int = LAST_BAD) -> Hook:
    def hook(period: int, turn: Turn) -> None:
        if first <= period <= last:
            turn.proposed = change(period, turn.proposed)

    return hook


def _absent(site: str, agent: str, code: Code) -> Case:
    def hook(period: int, turn: Turn) -> None:
        if ONSET <= period <= LAST_BAD:
            turn.proposed, turn.absent = None, code

    latched = code is Code.POLICY_TRIPPED
    expect = (
        told(ONSET, code, agent=agent),
        source(ONSET, agent, Source.FALLBACK),
        mode(ONSET, agent, Mode.BACKUP),
        mode(PERIODS - 1, agent, Mode.BACKUP if latched else Mode.AUTONOMOUS),
    )
    return Case("policy", f"{site}: {code.value}", site, hook, expect, periods=PERIODS)


def _unusable(group: str) -> Iterable[tuple[str, Callable[[int, Any], Any], Code]]:
    def part(change: Callable[[Floats], Any]) -> Callable[[int, Any], Any]:
        return lambda period, proposed: {**proposed, group: change(np.array(proposed[group]))}

    def one(value: float) -> Callable[[int, Any], Any]:
        def change(array: Floats) -> Floats:
            array[1, 0] = value
            return array

        return part(change)

    yield "not a number", one(math.nan), Code.COMMAND_NOT_FINITE
    yield "infinite", one(math.inf), Code.COMMAND_NOT_FINITE
    yield "minus infinite", one(-math.inf), Code.COMMAND_NOT_FINITE
    yield "nothing but NaN", part(lambda a: a * math.nan), Code.COMMAND_NOT_FINITE
    yield "bursts of NaN", lambda k, p: p if k % 2 else one(math.nan)(k, p), Code.COMMAND_NOT_FINITE
    yield "None", lambda k, p: None, Code.COMMAND_MISSING
    yield "text", lambda k, p: "left", Code.COMMAND_MISSING
    yield "a number", lambda k, p: 3.0, Code.COMMAND_MISSING
    yield "empty", lambda k, p: {}, Code.COMMAND_MISSING
    yield "another group", lambda k, p: {"pig": p[group]}, Code.COMMAND_MISSING
    yield "group of None", part(lambda a: None), Code.COMMAND_MISSING
    yield "values as text", part(lambda a: a.astype(str)), Code.COMMAND_TYPE
    yield "values as objects", part(lambda a: a.astype(object)), Code.COMMAND_TYPE
    yield "complex values", part(lambda a: a + 0j), Code.COMMAND_TYPE
    yield "boolean values", part(lambda a: a > 0), Code.COMMAND_TYPE
    yield "masked values", part(lambda a: np.ma.masked_greater(a, 0.0)), Code.COMMAND_TYPE
    yield "ragged values", part(lambda a: [[1.0], [1.0, 2.0]]), Code.COMMAND_TYPE
    yield "an asset short", part(lambda a: a[:-1]), Code.COMMAND_SHAPE
    yield "an asset more", part(lambda a: np.vstack([a, a[:1]])), Code.COMMAND_SHAPE
    yield "a signal more", part(lambda a: np.hstack([a, a[:, :1]])), Code.COMMAND_SHAPE
    yield "batch axis left on", part(lambda a: a[None]), Code.COMMAND_SHAPE
    yield "flat", part(lambda a: a.ravel()), Code.COMMAND_SHAPE
    yield "no rows", part(lambda a: a[:0]), Code.COMMAND_SHAPE
    yield "a scalar", part(lambda a: 1.0), Code.COMMAND_SHAPE


def _hostile(declaration: Declaration) -> Iterable[tuple[str, Callable[[int, Any], Any]]]:
    """Usable, finite and as bad as can be; the suite's own arithmetic and the plant's state judge what comes of it."""
    rng = np.random.default_rng(11)
    plate = declaration.nameplate
    low = {g.name: np.tile(g.lower("commanded"), (g.n_assets, 1)) for g in plate.groups}
    high = {g.name: np.tile(g.upper("commanded"), (g.n_assets, 1)) for g in plate.groups}
    step = {
        g.name: np.array([(s.rate_limit_per_s or (s.maximum - s.minimum)) for s in g.commanded]) * plate.period_s
        for g in plate.groups
    }
    first = policy_of(declaration, 0)

    def each(make: Callable[[str], Any]) -> dict[str, Floats]:
        return {g.name: np.array(make(g.name), dtype=np.float64) for g in plate.groups}

    def scaled(factor: float) -> Callable[[int, Any], Any]:
        return lambda k, p: {n: a * factor for n, a in p.items()}

    yield "constant", lambda k, p: first
    yield "saturated high", lambda k, p: high
    yield "saturated low", lambda k, p: low
    yield "far too large", scaled(1e30)
    yield "too small to matter", scaled(5e-324)
    yield "sign flipped", scaled(-1.0)
    yield "percent for per unit", scaled(100.0)
    yield "chattering", lambda k, p: high if k % 2 else low
    yield "chattering within the rate", lambda k, p: each(lambda n: first[n] + (1 if k % 2 else -1) * 0.9 * step[n])
    yield (
        "to and fro at the ramp limit",
        lambda k, p: each(lambda n: first[n] + (1 if k // 5 % 2 else -1) * 5 * step[n]),
    )
    yield "slow drift upwards", lambda k, p: each(lambda n: low[n] + (high[n] - low[n]) * k / 40.0)
    yield "slow drift downwards", lambda k, p: each(lambda n: high[n] - (high[n] - low[n]) * k / 40.0)
    yield "white noise", lambda k, p: each(lambda n: rng.uniform(2 * low[n] - high[n], 2 * high[n] - low[n]))
    yield "corners", lambda k, p: each(lambda n: np.where(rng.random(low[n].shape) < 0.5, low[n], high[n]))
    yield "agents in another order", lambda k, p: {n: a[::-1].copy() for n, a in p.items()}
    yield "a hair beyond the limits", lambda k, p: each(lambda n: high[n] * (1 + 1e-12) + 1e-12)
    if plate.site == "farm":
        cap = {GROUP: np.column_stack([np.full(3, 30.0), np.full(3, 1.0)])}
        yield "as much as the cap lets", lambda k, p: cap
        yield "one turbine takes all", lambda k, p: {GROUP: np.array([[0.0, 3.0], [0.0, 0.1], [0.0, 0.1]])}
        return
    yield "heat and cool at once", lambda k, p: {**p, OVEN: np.full((2, 2), 20.0)}
    yield "heat without end", lambda k, p: {**p, OVEN: np.array([[50.0, 0.0], [50.0, 0.0]])}
    yield "heat and cool in turn", lambda k, p: {**p, OVEN: np.array([[50.0, 0.0] if k % 2 else [0.0, 20.0]] * 2)}
    yield "all pumps at full speed", lambda k, p: {**p, PUMP: np.full((3, 1), 3.0)}
    yield "pumps between levels", lambda k, p: {**p, PUMP: np.full((3, 1), 1.5)}
    yield "pumps switching all the time", lambda k, p: {**p, PUMP: np.full((3, 1), float(1 + k % 2))}
    yield "pumps off and to full", lambda k, p: {**p, PUMP: np.full((3, 1), 0.0 if k % 6 < 3 else 3.0)}
    together = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    yield "carts towards each other", lambda k, p: {**p, CART: together}
    yield "carts chase one", lambda k, p: {**p, CART: np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0]])}
    yield "carts jerk", lambda k, p: {**p, CART: together * (1.0 if k % 2 else -1.0)}
