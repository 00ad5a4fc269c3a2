"""What holds for every answer of the shield, whatever it is given; each is a function that raises where it does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ....deploy.shield import Mode, Source
from ....deploy.shield.orders import Orders
from ....deploy.shield.verification import Verifier
from ....envs.constraint import AccelerationConstraint, Margins, Moment, RangeConstraint, SumConstraint, needs_history
from .example import Example, Stage, spoiled, staged

UNCHANGED = 1e-9
_LOCAL = ("range", "rate", "acceleration", "dwell", "switches", "transition", "none of")
_COUPLED = ("sum", "ramp", "conflict", "exclusive")


class Broken(AssertionError):
    """An invariant does not hold; the text says how."""


def _kept(example: Example, words: tuple[str, ...]) -> None:
    stage = staged(example)
    decision = stage.filter(stage.proposal(), spoiled(stage, example.fault))
    wrong = [
        text for text in stage.complaints(decision) if any(word in text.partition(":")[0] + text for word in words)
    ]
    if wrong:
        raise Broken("; ".join(wrong[:3]))


def finite(example: Example) -> None:
    """Commands and standby are finite and of the right shape, for any reading and proposal."""
    stage = staged(example)
    decision = stage.filter(stage.proposal(0.8), spoiled(stage, example.fault))
    for commands in (decision.commands, decision.standby, decision.advised):
        for g in stage.declaration.nameplate.groups:
            array = commands[g.name]
            if array.shape != (g.n_assets, len(g.commanded)) or not np.isfinite(array).all():
                raise Broken(f"{g.name}: {array}")


def in_range(example: Example) -> None:
    """Commands are inside their ranges, and at levels where they have levels."""
    _kept(example, ("range", "none of"))


def in_rate(example: Example) -> None:
    """Changes keep rate, acceleration, dwell times, switches and legal transitions."""
    _kept(example, _LOCAL)


def coupled(example: Example) -> None:
    """Sums, their ramps, conflicts and exclusive signals are kept."""
    _kept(example, _COUPLED)


def safe_unchanged(example: Example) -> None:
    """A proposal that breaks nothing, hard or soft, is sent as it is."""
    stage = staged(example)
    if any(isinstance(c, AccelerationConstraint) for c in stage.declaration.constraints):
        return  # what is legal now may leave no room to brake: the shield sees further than one period
    proposed = _safe_proposal(stage)
    if proposed is None:
        return
    decision = stage.filter(proposed)
    if set(decision.mode.values()) != {Mode.AUTONOMOUS}:
        return  # something before has taken the policy's authority, safe as its proposal may be
    for n, c in decision.commands.items():
        if not np.abs(c - proposed[n]).max() <= UNCHANGED * (1.0 + np.abs(c).max()):
            raise Broken(f"{n}: {proposed[n].tolist()} became {c.tolist()}: {[r.code for r in decision.reasons]}")


def idempotent(example: Example) -> None:
    """What the shield has sent it would send again."""
    stage = staged(example)
    once = stage.filter(stage.proposal(0.0))
    twice = stage.filter(once.commands)
    for n, c in once.commands.items():
        if not np.abs(c - twice.commands[n]).max() <= UNCHANGED * (1.0 + np.abs(c).max()):
            raise Broken(f"{n}: {c.tolist()} became {twice.commands[n].tolist()}")


def monotone(example: Example) -> None:
    """A tighter limit never lets a sum grow, and is never passed by more than its reach."""
    stage = staged(example)
    sums = [c for c in stage.declaration.hard if isinstance(c, SumConstraint) and c.maximum is not None]
    if not sums:
        return
    rule = sums[0]
    plate = stage.declaration.nameplate.group(rule.group)
    k, weights = plate.index("commanded", rule.signal), np.array(rule.weights or (1.0,) * plate.n_assets)
    proposed = stage.proposal(0.0)
    lowest = float(weights @ plate.lower("commanded")[[k] * plate.n_assets])
    totals = []
    for share in (1.0, 0.7, 0.4, 0.1):
        limit = lowest + share * ((rule.maximum or 0.0) - lowest)
        if rule.minimum is not None and limit < rule.minimum:
            break
        decision = stage.filter(proposed, orders=Orders(limits={rule.name: (None, limit)}))
        totals.append(float(weights @ decision.commands[rule.group][:, k]))
    for looser, tighter in itertools.pairwise(totals):
        if tighter > looser + 1e-7 * (1.0 + abs(looser)):
            raise Broken(f"totals {totals} for ever tighter limits on {rule.name}")


def fallback(example: Example) -> None:
    """An asset without a usable proposal is on its fallback in the same period, and the others are not."""
    stage = staged(example)
    proposed = stage.proposal(0.0)
    group = stage.declaration.nameplate.groups[0]
    victim = int(stage.rng.integers(group.n_assets))
    proposed[group.name][victim, 0] = np.nan
    decision = stage.filter(proposed)
    told = decision.source[f"{group.name}/{group.assets[victim]}"]
    if told is Source.POLICY or told is Source.SUBSTITUTED:
        raise Broken(f"{group.assets[victim]} follows a proposal that is no number: {told}")
    wrong = stage.complaints(decision)
    if wrong:
        raise Broken("; ".join(wrong[:3]))


def pure(example: Example) -> None:
    """The same arguments give the same answer, and stay as they are."""
    stage = staged(example)
    telemetry, proposed = spoiled(stage, example.fault), stage.proposal(0.5)
    kept = {n: (proposed[n].copy(), stage.state.applied[n].copy()) for n in proposed}
    one, other = (stage.filter(proposed, telemetry) for _ in range(2))
    for n in kept:
        if not np.array_equal(one.commands[n], other.commands[n]):
            raise Broken(f"{n}: two answers")
        if not np.array_equal(kept[n][0], proposed[n], equal_nan=True):
            raise Broken(f"{n}: the proposal was changed in place")
        if not np.array_equal(kept[n][1], stage.state.applied[n]):
            raise Broken(f"{n}: the state was changed in place")
    if repr(one.reasons) != repr(other.reasons):
        raise Broken("two accounts of the same answer")


INVARIANTS: dict[str, Callable[[Example], None]] = {
    "finite": finite,
    "in range": in_range,
    "in rate": in_rate,
    "coupled": coupled,
    "a safe proposal unchanged": safe_unchanged,
    "idempotent": idempotent,
    "monotone in margin": monotone,
    "fallback within a period": fallback,
    "pure": pure,
}


def _safe_proposal(stage: Stage) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] | None:
    """A proposal as far from standing still as is safe by second look and margins, soft constraints included."""
    verifier = Verifier(stage.declaration)
    still, wish = stage.state.applied, stage.proposal(0.0)
    memory = stage.shield.filter(stage.reading(), still, stage.now_s, stage.state, clock_s=stage.now_s).state.memory
    for share in (0.2, 0.05, 0.01, 0.0):
        tried = {}
        for g in stage.declaration.nameplate.groups:
            moved = still[g.name] + share * (wish[g.name] - still[g.name])
            levels = np.array([s.levels is not None for s in g.commanded])
            tried[g.name] = np.where(levels, still[g.name], moved)
        if verifier.failures(tried, still, stage.dt_s, memory, stage.measured).fine and _soft_kept(stage, tried):
            return tried
    return None


def _soft_kept(stage: Stage, commands: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> bool:
    soft = {c.name for c in stage.declaration.soft}
    if not soft:
        return True
    if needs_history(stage.declaration):
        return all(np.array_equal(commands[n], stage.state.applied[n]) for n in commands) and _still_in_range(stage)
    worst = Margins(stage.declaration).worst(Moment(stage.state.applied, commands, stage.measured, stage.dt_s))
    return all(worst[name].margin >= 0.0 for name in soft)


def _still_in_range(stage: Stage) -> bool:
    """Whether standing still keeps the soft ranges and sums, which need no history."""
    for c in stage.declaration.soft:
        if not isinstance(c, RangeConstraint | SumConstraint):
            continue
        plate = stage.declaration.nameplate.group(c.group)
        column = stage.state.applied[plate.name][:, plate.index("commanded", c.signal)]
        values = column
        if isinstance(c, SumConstraint):
            values = np.array([float(np.array(c.weights or (1.0,) * len(column)) @ column)])
        low = -np.inf if c.minimum is None else c.minimum
        high = np.inf if c.maximum is None else c.maximum
        if not ((values >= low) & (values <= high)).all():
            return False
    return True
