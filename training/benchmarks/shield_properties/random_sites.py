"""Random sites with constraints of every kind, each from a number, so that a failing one is found again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ....deploy.shield import Shield, ShieldSettings
from ....envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    BarrierTerms,
    ConflictConstraint,
    Constraint,
    DeadbandConstraint,
    Declaration,
    DwellConstraint,
    ExclusiveConstraint,
    MeasuredConstraint,
    RangeConstraint,
    RateConstraint,
    SafeState,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    declare,
)
from ....envs.errors import ConfigurationError
from ....envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]
N_SITES = 400
"""Sites that examples are drawn from; more would only be built more often."""

_TRIES = 50


@dataclass(frozen=True)
class Ceiling:
    """``h = top - x`` of the first measured signal, which the first command raises and the air takes down."""

    top: float
    gain: float
    loss: float
    n_signals: int

    def __call__(self, measured: Floats, /) -> BarrierTerms:
        x = measured[:, 0]
        control = np.zeros((len(x), self.n_signals))
        control[:, 0] = -self.gain
        return BarrierTerms(self.top - x, self.loss * x, control)


@lru_cache(maxsize=N_SITES)
def random_declaration(number: int) -> Declaration:
    """The declaration of that number: one or two groups, and a random choice of all kinds of constraints."""
    for attempt in range(_TRIES):
        rng = np.random.default_rng([number, attempt])
        try:
            return _drawn(rng)
        except ConfigurationError:
            continue  # such as a sum that its safe states break: another draw
    raise ConfigurationError(f"no sound declaration in {_TRIES} draws for number {number}; mend the generator")


@lru_cache(maxsize=N_SITES)
def random_shield(number: int) -> Shield:
    """Its shield, which holds no state."""
    return Shield(random_declaration(number), settings=ShieldSettings(confusion_step_pu=None))


def _drawn(rng: np.random.Generator) -> Declaration:
    period_s = float(rng.choice([0.1, 1.0, 10.0]))
    groups = [_group(rng, name, period_s) for name in ("a", "b")[: int(rng.integers(1, 3))]]
    rules: list[Constraint] = [c for g in groups for c in _rules(rng, g, period_s)]
    if rng.random() < 0.3:
        carts, rule = _carts(rng, period_s)
        groups.append(carts)
        rules.append(rule)
    states = {g.name: s for g in groups if (s := _safe_state(rng, g)) is not None}
    return declare(Nameplate("random", period_s, tuple(groups)), rules, states)


def _group(rng: np.random.Generator, name: str, period_s: float) -> Group:
    assets = tuple(f"{name.upper()}{i}" for i in range(int(rng.integers(1, 5))))
    commanded = tuple(_signal(rng, f"u{k}", period_s) for k in range(int(rng.integers(1, 4))))
    measured = (Signal("x", "m", -100.0, 100.0), Signal("y", "1", 0.0, 1.0))
    return Group(name, assets, measured, commanded)


def _signal(rng: np.random.Generator, name: str, period_s: float) -> Signal:
    if rng.random() < 0.3:
        levels = tuple(float(v) for v in range(int(rng.integers(2, 6))))
        rate = None if rng.random() < 0.5 else float(rng.integers(1, 3)) / period_s
        return Signal(
            name, "kW", levels[0], levels[-1], neutral=float(rng.choice(levels)), levels=levels, rate_limit_per_s=rate
        )
    low = float(rng.choice([-10.0, -1.0, 0.0]))
    high = low + float(rng.choice([1.0, 5.0, 20.0]))
    share = float(rng.choice([0.02, 0.1, 0.4]))
    rate = None if rng.random() < 0.2 else share * (high - low) / period_s
    neutral = float(rng.choice([low, 0.5 * (low + high), min(max(0.0, low), high)]))
    return Signal(name, "kW", low, high, neutral=neutral, rate_limit_per_s=rate)


def _rules(rng: np.random.Generator, group: Group, period_s: float) -> list[Constraint]:
    found: list[Constraint] = []
    for s in group.commanded:
        found += _discrete(rng, group, s, period_s) if s.levels else _continuous(rng, group, s, period_s)
    names = [s.name for s in group.commanded]
    if len(names) > 1 and rng.random() < 0.3:
        found.append(ExclusiveConstraint(group.name, tuple(names[:2])))
    levelled = [s for s in group.commanded if s.levels]
    if levelled and group.n_assets > 1 and rng.random() < 0.4:
        s = levelled[0]
        top = max(v for v in s.levels or () if v != s.neutral)
        pairs = tuple(((a, s.name, top), (b, s.name, top)) for a, b in itertools.combinations(group.assets, 2))
        found.append(ConflictConstraint(f"{group.name} conflict", group.name, pairs))
    free = [s for s in group.commanded if not s.levels]
    if free and rng.random() < 0.5:
        found += _sums(rng, group, free[0], period_s)
    if free and free[0] is group.commanded[0] and rng.random() < 0.3:
        ceiling = Ceiling(80.0, float(rng.uniform(0.1, 1.0)), 0.01, len(names))
        found.append(BarrierConstraint(f"{group.name} ceiling", group.name, ceiling, 0.1 / period_s))
    if rng.random() < 0.2:
        found.append(MeasuredConstraint(f"{group.name} x", group.name, "x", "m", maximum=90.0))
    return found


def _continuous(rng: np.random.Generator, group: Group, s: Signal, period_s: float) -> list[Constraint]:
    found: list[Constraint] = []
    span = s.maximum - s.minimum
    if rng.random() < 0.2:
        low, high = min(s.neutral, s.minimum + 0.1 * span), max(s.neutral, s.maximum - 0.2 * span)
        found.append(RangeConstraint(group.name, s.name, low, high, s.unit))
    if rng.random() < 0.2 and s.rate_limit_per_s is not None:
        found.append(RateConstraint(group.name, s.name, 0.8 * s.rate_limit_per_s, s.unit))
    if rng.random() < 0.25:
        found.append(AccelerationConstraint(group.name, s.name, 0.05 * span / period_s**2, s.unit))
    if rng.random() < 0.2:
        found.append(DeadbandConstraint(group.name, s.name, 0.01 * span, s.unit, priority=3))
    if rng.random() < 0.1:
        found.append(DwellConstraint(group.name, s.name, 2.0 * period_s, s.unit))
    if rng.random() < 0.2:
        low = min(s.neutral, s.minimum + 0.3 * span)
        found.append(
            RangeConstraint(group.name, s.name, low, max(s.neutral, s.maximum - 0.3 * span), s.unit, priority=1)
        )
    return found


def _discrete(rng: np.random.Generator, group: Group, s: Signal, period_s: float) -> list[Constraint]:
    found: list[Constraint] = []
    levels = s.levels or ()
    if rng.random() < 0.5:
        ring = [(a, b) for a, b in itertools.permutations(levels, 2) if abs(a - b) == 1.0]
        found.append(TransitionConstraint(group.name, s.name, tuple(ring), s.unit))
    if rng.random() < 0.4:
        found.append(DwellConstraint(group.name, s.name, float(rng.integers(1, 4)) * period_s, s.unit))
    if rng.random() < 0.2:
        found.append(DwellConstraint(group.name, s.name, 3.0 * period_s, s.unit, level=levels[0]))
    if rng.random() < 0.3:
        found.append(SwitchesConstraint(group.name, s.name, int(rng.integers(1, 5)), s.unit))
    return found


def _sums(rng: np.random.Generator, group: Group, s: Signal, period_s: float) -> list[Constraint]:
    found: list[Constraint] = []
    n, span = group.n_assets, s.maximum - s.minimum
    weights = None if rng.random() < 0.6 else tuple(rng.choice([0.5, 1.0, 2.0], n).tolist())
    total = sum(weights or (1.0,) * n)
    rest = total * s.neutral
    most = max(rest, total * (s.minimum + float(rng.uniform(0.3, 0.9)) * span))
    least = min(rest, total * s.minimum) if rng.random() < 0.7 else None
    found.append(SumConstraint(f"{group.name} sum", group.name, s.name, s.unit, most, least, weights))
    if rng.random() < 0.3:
        up = 0.2 * total * span / period_s
        found.append(SumRateConstraint(f"{group.name} ramp", group.name, s.name, s.unit, up, up, weights))
    if rng.random() < 0.3:
        soft = SumConstraint(
            f"{group.name} soft", group.name, s.name, s.unit, rest + 0.1 * total * span, None, weights, 2
        )
        found.append(soft)
    return found


def _carts(rng: np.random.Generator, period_s: float) -> tuple[Group, Constraint]:
    n, axes = int(rng.integers(2, 4)), ("x", "y")[: int(rng.integers(1, 3))]
    group = Group(
        "cart", tuple(f"C{i}" for i in range(n)),
        measured=tuple(Signal(f"{k}_m", "m", -100.0, 100.0) for k in axes),
        commanded=tuple(Signal(f"v{k}", "m/s", -1.0, 1.0, rate_limit_per_s=4.0 / period_s) for k in axes),
    )  # fmt: skip
    rule = SeparationConstraint(
        "apart", "cart", tuple(f"{k}_m" for k in axes), tuple(f"v{k}" for k in axes), 2.0, "m",
        gain_per_s=0.5 / period_s, braking=None if rng.random() < 0.5 else 2.0,
    )  # fmt: skip
    return group, rule


def _safe_state(rng: np.random.Generator, group: Group) -> SafeState | None:
    kind = rng.choice(["neutral", "hold", "values", "absent"])
    if kind == "absent":
        return None
    if kind == "values":
        s = group.commanded[0]
        value = float(rng.choice(s.levels)) if s.levels else float(rng.uniform(s.minimum, s.maximum))
        return SafeState("values", {s.name: value})
    return SafeState("hold" if kind == "hold" else "neutral")
