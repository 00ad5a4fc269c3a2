"""One episode of many replicas behind the shield, judged by margins and not by the shield's own verifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    Declaration,
    History,
    LookAheadConstraint,
    Margins,
    MeasuredConstraint,
    Moment,
    RowsConstraint,
    SeparationConstraint,
    needs_history,
)
from ...envs.plant import Telemetry
from ..shield import Code, Shield
from .model import Model

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Measured = Mapping[str, Floats]

TOLERANCE_PU = 1e-9
"""Rounding, as a share of a constraint's scale: less is no violation."""
_NEEDS_MESSAGES = (
    MeasuredConstraint
    | BarrierConstraint
    | RowsConstraint
    | SeparationConstraint
    | LookAheadConstraint
    | AccelerationConstraint
)
"""What nobody can keep who is told wrongly; and a write that is lost stops a command as no acceleration could."""


class Adversary(Protocol):
    """What stands where a policy, the sensors and the network stand."""

    def proposals(self, step: int, measured: Measured, applied: Measured) -> list[Any]:
        """What is proposed for each of ``B`` replicas at what is true, ``[B, N, O]`` and ``[B, N, A]`` a group."""
        ...

    def readings(self, step: int, now_s: float, measured: Measured) -> list[Telemetry | None]:
        """What arrives of it."""
        ...

    def lost(self, step: int) -> Bools:
        """Which writes never reach the plant, ``[B]``; the shield is told that it is not known."""
        ...


@dataclass
class Outcome:
    """Of a batch of episodes. ``least``: ``[B]`` by constraint, its smallest margin over time and assets, in its unit;
    ``at_step``: ``[B]``, when; ``violated``: how often, by asset and period. ``agent_steps``: of assets that are
    present; ``changed``: those whose command changed. ``failed``: periods in which the shield itself raised, which its
    last resort answers: safe, and a fault all the same.

    Commands that are no numbers have margin -inf under every constraint.
    """

    least: dict[str, Floats]
    at_step: dict[str, NDArray[np.int64]]
    violated: dict[str, int] = field(default_factory=dict)
    agent_steps: int = 0
    changed: int = 0
    failed: int = 0


class Trial:
    """A model behind a shield."""

    def __init__(self, model: Model, shield: Shield) -> None:
        self.model, self.shield = model, shield
        self.margins = Margins(model.declaration)
        kept = [c for c in model.declaration.constraints if not isinstance(c, LookAheadConstraint)]
        self.hard = tuple(c.name for c in kept if c.priority is None)
        self.soft = tuple(c.name for c in kept if c.priority is not None)
        self.needs_messages = frozenset(c.name for c in kept if isinstance(c, _NEEDS_MESSAGES))
        self.scale = {c.name: self.margins.scale(c.name) for c in kept}

    def run(
        self, adversary: Adversary, seeds: NDArray[np.int64], n_steps: int, parameters: Measured | None = None
    ) -> Outcome:
        """``n_steps`` periods from ``seeds`` ``[B]``, twins with ``parameters`` ``[B]`` each.

        Each asset begins in its safe state, which is inside all limits; neutral need not be.
        """
        model, shield = self.model, self.shield
        plate = model.declaration.nameplate
        rows = range(model.n_replicas)
        truth: Measured = model.start(seeds, parameters or {})
        inside = _safe_commands(model.declaration)
        states = [shield.start(inside) for _ in rows]
        applied = {name: np.tile(value, (model.n_replicas, 1, 1)) for name, value in inside.items()}
        history = History.start(model.declaration, applied) if needs_history(model.declaration) else None
        present = dict(model.present) or {
            g.name: np.ones((model.n_replicas, g.n_assets), dtype=np.bool_) for g in plate.groups
        }
        n_present = sum(int(p.sum()) for p in present.values())
        names = (*self.hard, *self.soft)
        outcome = Outcome(
            {name: np.full(model.n_replicas, math.inf) for name in names},
            {name: np.zeros(model.n_replicas, dtype=np.int64) for name in names},
            dict.fromkeys(names, 0),
        )
        for step in range(n_steps):
            now_s = step * plate.period_s
            proposed = adversary.proposals(step, truth, applied)
            told = adversary.readings(step, now_s, truth)
            lost = adversary.lost(step)
            sent = {name: np.empty_like(value) for name, value in applied.items()}
            for row in rows:
                decision = shield.filter(told[row], proposed[row], now_s, states[row])
                outcome.failed += any(r.code is Code.SHIELD_FAILED for r in decision.reasons)
                for name, value in decision.commands.items():
                    sent[name][row] = value
                states[row] = shield.unconfirmed(states[row], decision.state) if lost[row] else decision.state
            for name, value in sent.items():
                value[lost] = applied[name][lost]
                outcome.changed += _changed(value, [_of(p, name) for p in proposed], present[name])
            truth = model.step(sent)
            moment = Moment(applied, sent, truth, plate.period_s, present, history)
            self._judge(outcome, moment, step)
            if history is not None:
                history = history.after(applied, sent, plate.period_s)
            applied = sent
            outcome.agent_steps += n_present
        return outcome

    def _judge(self, outcome: Outcome, moment: Moment, step: int) -> None:
        finite = np.ones(self.model.n_replicas, dtype=np.bool_)
        for value in moment.commands.values():
            finite &= np.isfinite(value).all(axis=(1, 2))
        with np.errstate(all="ignore"):
            found = self.margins(moment)
        for name, least in outcome.least.items():
            margin = np.asarray(found[name], dtype=np.float64).reshape(len(least), -1)
            margin = np.where(np.isnan(margin) | ~finite[:, None], -math.inf, margin)
            outcome.violated[name] += int((margin < -TOLERANCE_PU * self.scale[name]).sum())
            worst = margin.min(axis=1)
            lower = worst < least
            least[lower] = worst[lower]
            outcome.at_step[name][lower] = step


def _safe_commands(declaration: Declaration) -> dict[str, Floats]:
    """Commands ``[N, A]`` a group in the safe states; neutral where that is to hold what was."""
    found: dict[str, Floats] = {}
    for group in declaration.nameplate.groups:
        targets = [declaration.safe_states[f"{group.name}/{asset}"].target(group) for asset in group.assets]
        found[group.name] = np.array([group.neutral() if t is None else t for t in targets], dtype=np.float64)
    return found


def _of(proposed: Any, name: str) -> Any:
    return proposed.get(name) if isinstance(proposed, Mapping) else None


def _changed(sent: Floats, proposed: list[Any], present: Bools) -> int:
    """How many assets' commands are not what was proposed."""
    found = 0
    for row, asked in enumerate(proposed):
        if not isinstance(asked, np.ndarray) or asked.shape != sent[row].shape:
            found += int(present[row].sum())
            continue
        with np.errstate(invalid="ignore"):
            same = np.abs(sent[row] - asked) <= 1e-9 * (1.0 + np.abs(sent[row]))  # NaN is never the same
        found += int((~same.all(axis=1) & present[row]).sum())
    return found
