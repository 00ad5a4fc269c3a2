"""The decision where the shield itself fails: it needs nothing but the last applied commands, and not even those."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from .between_periods import BetweenPeriods, acting
from .causes import Cause
from .command_memory import CommandMemory
from .compiled import FlatCommands
from .decision import Code, Decision, Mode, Reason, ShieldState, Source
from .keeping import Keeping
from .modes import ModeMachine, ModeState
from .orders import judge
from .told import Teller

Bools = NDArray[np.bool_]


class FailedShield:
    """The parts of one site's shield that still have to work; ``at_start``: its modes before the first period."""

    def __init__(
        self, nameplate: Nameplate, flat: FlatCommands, keeping: Keeping, between: BetweenPeriods, modes: ModeMachine,
        at_start: ModeState, teller: Teller,
    ) -> None:  # fmt: skip
        self._nameplate, self._flat, self._keeping, self._between = nameplate, flat, keeping, between
        self._modes, self._at_start, self._teller = modes, at_start, teller
        self._agents = frozenset(nameplate.agents)

    def decision(self, now_s: float, clock_s: float | None, known: ShieldState, orders: Any) -> Decision:
        """One step of the limiter of last resort from the last state that could be read."""
        agents = self._nameplate.agents
        every = np.ones(len(agents), dtype=np.bool_)
        try:
            elapsed_s = self._keeping.verifier.elapsed_s(known.time_s, now_s, known.confirmed)
        except Exception:  # noqa: BLE001 - a state that can't be read
            elapsed_s = 0.0
        memory: CommandMemory | None
        try:
            memory = self._between.memory(known, now_s, clock_s)
        except Exception:  # noqa: BLE001 - as above: what it remembered last is the best there is
            memory = known.memory
        pending: Mapping[str, Bools] = {}
        modes_state = known.modes
        told: tuple[Reason, ...] = ()
        try:  # a stop is heeded, and failures in a row are counted, also while nothing else works
            raised: dict[Cause, Bools | bool] = {Cause(c): where for c, where in known.pending.items()}
            modes_state, modes, told = self._modes.step(
                modes_state or self._at_start,
                {**raised, Cause.SHIELD_FAILED: True},
                judge(orders, self._agents, self._keeping.coupling.sums.declared),
                now_s if clock_s is None else clock_s,
            )
            ours, named = modes.acts, modes.named(agents)
        except Exception:  # noqa: BLE001 - the modes themselves: the next period hears of it
            ours, named = acting(modes_state or self._at_start), dict.fromkeys(agents, Mode.BACKUP)
            pending = {Cause.SHIELD_FAILED: every}
        u = self._keeping.last_resort(known.applied, elapsed_s, memory)
        try:
            u = np.where(ours[self._flat.asset], u, self._between.applied(known))
        except Exception:  # noqa: BLE001 - nobody knows what the plant obeys
            ours = every
        commands = self._flat.grouped(u)
        after = replace(
            known,
            applied=commands,
            before=known.applied,
            memory=memory,
            modes=modes_state,
            time_s=now_s if math.isfinite(now_s) else known.time_s,
            clock_s=clock_s,
            confirmed=True,
            plan=None,
            pending=pending,
        )
        source = [Source.FALLBACK if mine else Source.NOBODY for mine in ours.tolist()]

        def stand_by() -> Arrays:
            walked = self._keeping.last_resort(commands, self._nameplate.period_s, None)
            return self._flat.grouped(np.where(ours[self._flat.asset], walked, u))

        return Decision(
            commands,
            (*told, *(Reason(agent, "", Code.SHIELD_FAILED) for agent in agents)),
            dict(zip(agents, source, strict=True)),
            after,
            named,
            self._teller.by_group(ours),
            commands,
            stand_by,
        )
