"""One case of the suite: a few periods of a real shield before a small plant, something that goes wrong, and what must
come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Code, Decision, Mode, Shield, ShieldSettings, ShieldState
from ....deploy.shield.causes import Cause
from ....deploy.shield.orders import Orders
from ....envs.constraint import Declaration
from ....envs.errors import PlantError
from ....envs.plant import Telemetry
from .judge import Judge
from .plants import SmallPlant, plant_of, policy_of
from .sites import CART, CART_GAP_M, OVEN, TOO_HOT_DEGC, farm, yard

Floats = NDArray[np.float64]

ONSET = 6
"""The period in which a fault begins, unless a case says otherwise: by then all is in its stride."""

CONSTANT = "available_pu"
"""The farm's signal that stands still when all is well."""


@dataclass
class Turn:
    """What the shield is given in one period; a case's ``hook`` changes it in place."""

    telemetry: Any
    proposed: Any
    now_s: Any
    clock_s: Any
    orders: Any = None
    causes: tuple[Cause, ...] = ()
    absent: Code = Code.COMMAND_MISSING


@dataclass(frozen=True)
class Record:
    """One period as it went. ``obeyed``: what the plant obeyed after it, None where it did not answer."""

    turn: Turn
    decision: Decision
    obeyed: Mapping[str, Floats] | None


@dataclass
class Played:
    """A case as it went: its records, what was wrong with it, and the plant at its end."""

    declaration: Declaration
    records: list[Record] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def codes(self, period: int, agent: str | None = None) -> set[Code]:
        """Codes of a period's reasons, of all or of one agent and its site."""
        return {r.code for r in self.records[period].decision.reasons if agent is None or r.asset in (agent, "")}


Hook = Callable[[int, Turn], None]
Expect = Callable[[Played], Iterable[str]]


def nothing(period: int, turn: Turn) -> None:
    """A hook that leaves all as it is."""


@dataclass(frozen=True)
class Case:
    """``known(period)``: whether the shield can know what the plant obeys before it. ``safe``: whether the plant's own
    state must stay safe throughout. ``prepare``: changes plant and state before the first period."""

    family: str
    name: str
    site: str
    hook: Hook = nothing
    expect: tuple[Expect, ...] = ()
    periods: int = 16
    plant: Mapping[str, Any] = field(default_factory=dict)
    policy: Callable[[Declaration, int], Any] = policy_of
    shield: Callable[[Declaration], Shield] | None = None
    declaration: Callable[[], Declaration] | None = None
    start_mode: Mode = Mode.AUTONOMOUS
    known: Callable[[int], bool] = lambda period: True
    safe: bool = True
    prepare: Callable[[SmallPlant, ShieldState, Shield], ShieldState] | None = None

    def run(self) -> list[str]:
        """What is wrong, in words; empty for a case that is passed."""
        played = self.play()
        return played.complaints + [text for expect in self.expect for text in expect(played)]

    def play(self) -> Played:
        """The case's periods, judged one by one."""
        declaration = site_of(self.site) if self.declaration is None else self.declaration()
        shield = shield_of(self.site) if self.shield is None else self.shield(declaration)
        plant = plant_of(declaration, **self.plant)
        played, judge = Played(declaration), Judge(declaration)
        state = shield.start(mode=self.start_mode)
        if self.prepare is not None:
            state = self.prepare(plant, state, shield)
        for k in range(self.periods):
            turn = Turn(plant.read(), self.policy(declaration, k), plant.clock_s, plant.clock_s)
            self.hook(k, turn)
            decision = shield.filter(
                turn.telemetry, turn.proposed, turn.now_s, state,
                absent=turn.absent, orders=turn.orders, clock_s=turn.clock_s, causes=turn.causes,
            )  # fmt: skip
            limits = turn.orders.limits if isinstance(turn.orders, Orders) else {}
            before = {n: c.copy() for n, c in plant.commands.items()}
            now_s, dt_s = plant.clock_s, declaration.nameplate.period_s
            told = judge.complaints(
                before, decision.commands, now_s, dt_s, _numbers(limits), known=self.known(k), acts=decision.acts
            )
            played.complaints += [f"period {k}: {text}" for text in told]
            played.complaints += [f"period {k}: {text}" for text in _ownership(decision, before)]
            obeyed: Mapping[str, Floats] | None = None
            if any(acts.any() for acts in decision.acts.values()):
                try:
                    obeyed = plant.write(decision.commands)
                    after = shield.accepted(decision.state, obeyed)
                except PlantError:
                    after = shield.unconfirmed(state, decision.state)
            else:
                obeyed, after = before, shield.unsent(state, decision.state)
            judge.follow(before, plant.commands, now_s)
            as_sent = all(np.array_equal(plant.commands[n], c) for n, c in decision.commands.items())
            if as_sent and not told:
                ahead = judge.complaints(
                    plant.commands, decision.standby, now_s + dt_s, dt_s, _numbers(limits), acts=decision.acts
                )
                played.complaints += [f"period {k}: standby: {text}" for text in ahead]
            state = after
            plant.advance()
            played.records.append(Record(turn, decision, obeyed))
            if self.safe:
                played.complaints += [f"period {k}: {text}" for text in _harm(plant)]
        return played


@cache
def site_of(name: str) -> Declaration:
    """One of the suite's two sites."""
    return {"farm": farm, "yard": yard}[name]()


@cache
def shield_of(name: str) -> Shield:
    """Its shield, which holds no state and serves all cases."""
    return make_shield(site_of(name))


def make_shield(declaration: Declaration, **options: Any) -> Shield:
    """A shield that also looks for stuck values and jumps."""
    signals = {s.name for g in declaration.nameplate.groups for s in g.measured} - {CONSTANT}
    settings = ShieldSettings(
        stuck_after_periods=dict.fromkeys(signals, STUCK_AFTER),
        jump_pu=dict.fromkeys(signals - set(JUMP_PER_S), JUMP_PU),
        jump_per_s={name: most for name, most in JUMP_PER_S.items() if name in signals},
    )
    return Shield(declaration, settings=settings, **options)


STUCK_AFTER = 4
JUMP_PU = 0.2
JUMP_PER_S = {"x_m": 3.0, "y_m": 3.0}


def _numbers(limits: Any) -> dict[str, tuple[float | None, float | None]]:
    """Run-time limits as a person means them: two numbers, low before high; the rest is not asked."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, ends in limits.items() if isinstance(limits, Mapping) else ():
        if not isinstance(ends, tuple) or len(ends) != 2:
            continue
        if all(e is None or (isinstance(e, int | float) and math.isfinite(e)) for e in ends):
            low, high = ends
            if low is None or high is None or low <= high:
                found[name] = (low, high)
    return found


def _ownership(decision: Decision, before: Mapping[str, Floats]) -> list[str]:
    """Assets that are not ours to command keep what they obey."""
    return [
        f"{name}: commanded while it is not ours"
        for name, acts in decision.acts.items()
        if not np.array_equal(decision.commands[name][~acts], before[name][~acts])
    ]


def _harm(plant: SmallPlant) -> list[str]:
    """What must not happen at the yard, whatever goes wrong with its signals."""
    found = []
    if OVEN in plant.state and plant.state[OVEN].max() > TOO_HOT_DEGC:
        found.append(f"an oven is at {plant.state[OVEN].max():.2f} degC")
    if CART in plant.state:
        x = plant.state[CART]
        apart = min(float(np.hypot(*(x[i] - x[j]))) for i in range(len(x)) for j in range(i))
        if apart < CART_GAP_M - 0.05:  # positions are read with noise
            found.append(f"two carts are {apart:.3f} m apart")
    return found


# What cases expect


def told(period: int, *codes: Code, agent: str | None = None) -> Expect:
    """In that period at least one of the codes is given, to that agent or its site."""

    def expect(played: Played) -> Iterable[str]:
        found = played.codes(period, agent)
        if not found & set(codes):
            yield f"period {period}: expected {' or '.join(codes)}, found {', '.join(sorted(found)) or 'nothing'}"

    return expect


def not_told(*codes: Code, first: int = 0, last: int | None = None) -> Expect:
    """From ``first`` to ``last`` none of the codes is given."""

    def expect(played: Played) -> Iterable[str]:
        for k in range(first, len(played.records) if last is None else last + 1):
            wrong = played.codes(k) & set(codes)
            if wrong:
                yield f"period {k}: {', '.join(sorted(wrong))} was not called for"

    return expect


def quiet(first: int = 0, last: int | None = None) -> Expect:
    """From ``first`` to ``last`` nothing is wrong: no reason at all."""

    def expect(played: Played) -> Iterable[str]:
        for k in range(first, len(played.records) if last is None else last + 1):
            for r in played.records[k].decision.reasons:
                yield f"period {k}: {r.asset} {r.signal} {r.code} {r.constraint} was not called for"

    return expect


def source(period: int, agent: str, *sources: str) -> Expect:
    """Who decides for an agent in that period."""

    def expect(played: Played) -> Iterable[str]:
        found = played.records[period].decision.source[agent]
        if found not in sources:
            yield f"period {period}: {agent} is decided by {found}, expected {' or '.join(sources)}"

    return expect


def mode(period: int, agent: str, *modes: Mode) -> Expect:
    """In which mode an agent is in that period."""

    def expect(played: Played) -> Iterable[str]:
        found = played.records[period].decision.mode[agent]
        if found not in modes:
            yield f"period {period}: {agent} is {found}, expected {' or '.join(modes)}"

    return expect


def agent_of(site: str, group: str = "", number: int = 1) -> str:
    """The name of the suite's victim: the second asset of a group, unless told otherwise."""
    plate = site_of(site).nameplate
    chosen = plate.group(group) if group else plate.groups[0]
    return f"{chosen.name}/{chosen.assets[number]}"


def copied(telemetry: Telemetry) -> dict[str, dict[str, Floats]]:
    """Values, times and qualities that may be changed."""
    tables = (("values", telemetry.values), ("source_time_s", telemetry.source_time_s), ("quality", telemetry.quality))
    return {name: {n: np.array(a) for n, a in table.items()} for name, table in tables}
