"""What goes out in a period whose decision is late.

First the standby commands that the last decision prepared, verified, and that stand in its row of the journal: nothing
unrecorded is sent. If decisions stay away, the limiter of last resort goes on from there, step by step to the safe
states. Assets that are not ours to command are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..envs.plant import Arrays
from .decider import Decided
from .shield import Code, Decision, Mode, Reason, Shield, ShieldState, Source

READ_BACK_TOLERANCE = 1e-6
"""How far a command that is read back may be from what was sent, and count as obeyed; relative and absolute."""


@dataclass(frozen=True)
class Substitute:
    """What stands in for a decision, as one. ``told``: in words. ``writes``: False where nothing is to be sent;
    ``is_asleep``: because nobody knows what became of the plant.
    """

    decision: Decision
    told: str
    writes: bool
    is_asleep: bool


class StandIn:
    """Follows what was decided, and has an answer when nothing is. ``misses`` counts for the whole run."""

    def __init__(self, shield: Shield, state: ShieldState) -> None:
        self.misses = 0
        self._nameplate = shield.nameplate
        self._shield = shield
        # A decision that is never sent: it warms the shield up, and it is what stands before the first.
        self._last = shield.filter(None, None, 0.0, state, absent=Code.COMMAND_MISSING)
        self._standby: Arrays | None = None
        self.standby: Arrays = self._last.standby
        """What to send first if nothing comes from here any more, ``[N, A]`` a group."""

    def follow(self, decided: Decided) -> None:
        """Take note of a decision that was carried out."""
        self._last, self._standby, self.standby = decided.decision, decided.standby, decided.standby

    @property
    def is_tripped(self) -> bool:
        """Whether an asset is in its safe state until a person resets it."""
        return Mode.TRIPPED in self._last.mode.values()

    @property
    def has_stopped(self) -> bool:
        """Whether no policy or person commands anything: each asset is in its safe state, or not ours to command."""
        last = self._last
        return all(
            last.mode[f"{group.name}/{asset}"] is Mode.TRIPPED or not last.acts[group.name][i]
            for group in self._nameplate.groups
            for i, asset in enumerate(group.assets)
        )

    def instead(self, state: ShieldState, now_s: float, clock_s: float | None, *, asleep: bool) -> Substitute:
        """The answer for a period without one. ``state``: before it.

        ``asleep``: this process stood still for over a period, so that nobody knows what became of the plant. Then
        nothing is sent before a reading tells what it obeys.
        """
        self.misses += 1
        acts = self._last.acts
        if asleep:
            commands, told = state.applied, "nothing is sent, because the loop stood still for over a period"
        elif self._standby is not None and state.confirmed and self._is_obeyed(state):
            commands, told = self._standby, "the standby of the last decision goes out"
        else:
            walked = self._shield.last_resort(state, now_s, clock_s)
            commands = {n: np.where(acts[n][:, None], walked[n], c) for n, c in state.applied.items()}
            told = "the limiter of last resort goes on towards the safe states"
        self._standby = None
        agents = self._nameplate.agents
        decision = replace(
            self._last,
            commands=commands,
            reasons=tuple(Reason(agent, "", Code.DEADLINE_MISSED) for agent in agents),
            source=dict.fromkeys(agents, Source.SAFE_STATE),
            state=state,
        )
        self._last = decision
        self.standby = commands
        return Substitute(decision, told, not asleep and any(a.any() for a in acts.values()), asleep)

    def _is_obeyed(self, state: ShieldState) -> bool:
        """Whether the plant is where the last decision put it; only from there is its standby known to be safe."""
        return all(
            np.allclose(state.applied[n], c, rtol=READ_BACK_TOLERANCE, atol=READ_BACK_TOLERANCE)
            for n, c in self._last.commands.items()
        )
