"""One example: a random site, a few hostile periods, and what the shield is given in the period that counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Decision, Shield, ShieldState
from ....envs.constraint import Declaration
from ....envs.plant import Telemetry
from ..shield_faults.judge import Judge
from .random_sites import random_declaration, random_shield

Floats = NDArray[np.float64]
START_S = 1_000_000.0
POISON = (math.nan, math.inf, -math.inf, 1e30, -1e30, 5e-324, -0.0, 0.0)
FAULTS = ("none", "none", "poison", "stale", "missing", "late", "junk")


@dataclass(frozen=True)
class Example:
    """Numbers alone, so that a failure is printed in one line and played again.

    ``site``: of :func:`random_declaration`; ``seed``: of all that is drawn; ``before``: periods until the one that
    counts; ``fault``: of that period's reading.
    """

    site: int
    seed: int
    before: int
    fault: str


@dataclass
class Stage:
    """An example set up: all up to the period that counts."""

    declaration: Declaration
    shield: Shield
    rng: np.random.Generator
    state: ShieldState
    judge: Judge
    measured: dict[str, Floats]
    now_s: float
    sequence: int

    @property
    def dt_s(self) -> float:
        return self.declaration.nameplate.period_s

    def reading(self) -> Telemetry:
        """A good reading of what is measured."""
        return Telemetry(
            {n: x.copy() for n, x in self.measured.items()},
            {n: np.full(x.shape, self.now_s) for n, x in self.measured.items()},
            {n: np.zeros(x.shape, dtype=np.int8) for n, x in self.measured.items()},
            self.now_s,
            self.sequence,
        )

    def proposal(self, hostile: float = 0.3) -> dict[str, Floats]:
        """Commands from far outside to near what is applied; with ``hostile``, numbers that are none among them."""
        rng, found = self.rng, {}
        for g in self.declaration.nameplate.groups:
            low, high = g.lower("commanded"), g.upper("commanded")
            shape = (g.n_assets, len(g.commanded))
            kind = rng.integers(4)
            wide = rng.uniform(2.0 * low - high, 2.0 * high - low, shape)
            near = self.state.applied[g.name] + rng.normal(0.0, 0.1, shape) * (high - low)
            ends = np.where(rng.random(shape) < 0.5, low, high)
            found[g.name] = (wide, near, ends, np.round(wide))[kind]
            if rng.random() < hostile:
                found[g.name] = np.where(rng.random(shape) < 0.2, rng.choice(POISON, shape), found[g.name])
        return found

    def filter(self, proposed: Any, telemetry: Any = None, **more: Any) -> Decision:
        """The shield's answer in this period."""
        reading = self.reading() if telemetry is None else telemetry
        return self.shield.filter(reading, proposed, self.now_s, self.state, clock_s=self.now_s, **more)

    def complaints(self, decision: Decision) -> list[str]:
        """What the suite's own arithmetic finds wrong with a decision."""
        return self.judge.complaints(self.state.applied, decision.commands, self.now_s, self.dt_s)

    def go_on(self, decision: Decision) -> None:
        """To the next period, with the commands obeyed and the measured values moved a little."""
        self.judge.follow(self.state.applied, decision.commands, self.now_s)
        self.state = decision.state
        self.now_s += self.dt_s
        self.sequence += 1
        for g in self.declaration.nameplate.groups:
            x = self.measured[g.name]
            if g.name == "cart":
                x += self.dt_s * decision.commands[g.name]
            else:
                x += self.rng.normal(0.0, 0.5, x.shape) * [5.0, 0.01]
            np.clip(x, g.lower("measured"), g.upper("measured"), out=x)


def staged(example: Example) -> Stage:
    """The example, played up to the period that counts."""
    declaration, shield = random_declaration(example.site), random_shield(example.site)
    rng = np.random.default_rng([example.site, example.seed])
    measured = {}
    for g in declaration.nameplate.groups:
        measured[g.name] = rng.uniform(0.0, 1.0, (g.n_assets, len(g.measured))) * (60.0, 1.0)[: len(g.measured)]
        if g.name == "cart":
            measured[g.name] = 3.0 * np.arange(g.n_assets)[:, None] + rng.uniform(0.0, 0.5, measured[g.name].shape)
    stage = Stage(declaration, shield, rng, shield.start(), Judge(declaration), measured, START_S, 1)
    for _ in range(example.before):
        stage.go_on(stage.filter(stage.proposal(hostile=0.1)))
    return stage


def spoiled(stage: Stage, fault: str) -> Any:
    """This period's reading with a fault."""
    good, rng = stage.reading(), stage.rng
    if fault == "missing":
        return None
    if fault == "junk":
        return rng.choice(np.array(["timeout", 7, ()], dtype=object))
    if fault == "late":
        return replace(good, sequence=0)
    table = {n: x.copy() for n, x in (good.source_time_s if fault == "stale" else good.values).items()}
    name = str(rng.choice(list(table)))
    at = tuple(int(rng.integers(k)) for k in table[name].shape)
    if fault == "stale":
        table[name][at] -= 100.0 * stage.dt_s
        return replace(good, source_time_s=table)
    if fault == "poison":
        table[name][at] = rng.choice(POISON)
    return replace(good, values=table)
