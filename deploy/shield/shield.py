"""The shield: an answer every period, never the raw command when in doubt.

    guard inputs -> choose proposal or fallback per asset -> range and rate -> verify -> last resort

:meth:`Shield.filter` is a pure function of its arguments, lets no exception out and carries its state
explicitly, so that a journal replays bit for bit. It is a software layer above the equipment's own certified
safety function, and no substitute for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Constraint, Declaration, SafeState, constraints_of
from ...envs.nameplate import Group, Nameplate
from ...envs.plant import Arrays, Telemetry
from .arrays import numeric
from .decision import Code, Decision, Mode, Reason, ShieldState, Source
from .inputs import Guarded, InputGuard
from .limits import UNCHANGED, GroupLimits, group_limits
from .settings import ShieldSettings
from .verification import Verifier

Floats = NDArray[np.float64]
Fallback = Callable[[Arrays], Arrays]
"""From guarded measurements ``[N, O]`` per group to commands ``[N, A]`` per group: no memory, no side effect."""

PERIOD_JITTER = 1e-3
"""A period that is short by this share is still a whole period: UTC clocks resolve no better."""


class Shield:
    """Stands between every policy and every actuator of one site.

    ``constraints`` default to what the nameplate implies and are always joined with it. ``fallback`` gives an asset's
    commands when its policy cannot be used; without one, assets go to neutral, which hands them back to their own
    controller. Whatever the fallback says is limited and verified like any other command.
    """

    def __init__(
        self,
        nameplate: Nameplate,
        constraints: Iterable[Constraint] | None = None,
        settings: ShieldSettings | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        rows = constraints_of(nameplate) + tuple(constraints or ())
        self.nameplate = nameplate
        self.settings = settings or ShieldSettings()
        self._fallback = fallback
        self._limits = group_limits(nameplate, rows)
        self._verifier = Verifier(Declaration(nameplate, rows, {agent: SafeState() for agent in nameplate.agents}))
        self._guard = InputGuard(nameplate, self.settings)

    def start(self, applied: Arrays | None = None) -> ShieldState:
        """The state before the first period; ``applied`` is what the plant obeys now, neutral if that is unknown."""
        neutral = {g.name: np.tile(self._limits[g.name].neutral, (g.n_assets, 1)) for g in self.nameplate.groups}
        state = ShieldState(applied=neutral, inputs=self._guard.start())
        return state if applied is None else self.accepted(state, applied)

    def guard(self, telemetry: Telemetry | None, now_s: float, state: ShieldState) -> Guarded:
        """What a policy may see of this reading; :meth:`filter` judges the same reading the same way."""
        try:
            with np.errstate(all="ignore"):  # infinities are judged here, not warned of
                return self._guard.guard(telemetry, now_s, state.inputs)
        except Exception:  # noqa: BLE001 - whatever came in: no reading is worth the loop
            return self._guard.guard(None, now_s, state.inputs)

    def filter(
        self,
        telemetry: Telemetry | None,
        proposed: Any,
        now_s: float,
        state: ShieldState,
        *,
        absent: Code = Code.COMMAND_MISSING,
    ) -> Decision:
        """Return commands that are safe to send, changed as little as possible, with a reason for each change.

        ``proposed`` is ``[N, A]`` per group, or None when there is no proposal; ``absent`` says why. ``now_s`` is the
        plant's UTC clock. Never raises. The returned state takes the commands as applied; correct it with
        :meth:`accepted` or :meth:`unconfirmed` once the plant has answered.
        """
        try:
            with np.errstate(all="ignore"):  # infinities are judged here, not warned of
                return self._filter(telemetry, proposed, now_s, state, absent)
        except Exception:  # noqa: BLE001 - last line of defence: a fault in the shield itself must not reach the plant
            return self._last_resort(now_s, state)

    def accepted(self, state: ShieldState, accepted: Any) -> ShieldState:
        """The state after the plant said what it accepted; what it did not say, or said wrongly, stays as sent."""
        applied: dict[str, Floats] = {}
        for group in self.nameplate.groups:
            shape = (group.n_assets, len(group.commanded))
            raw = accepted.get(group.name) if hasattr(accepted, "get") else None
            told = numeric(raw, shape)
            known = state.applied[group.name]
            applied[group.name] = known if isinstance(told, str) else np.where(np.isfinite(told), told, known)
        return replace(state, applied=applied, confirmed=True)

    def unconfirmed(self, before: ShieldState, after: ShieldState) -> ShieldState:
        """The state when a write may or may not have arrived.

        The plant obeys either the commands of ``before`` or those just sent; repeating the former is within the rate
        of both, so no change is allowed until a write is confirmed.
        """
        return replace(after, applied=before.applied, time_s=before.time_s, confirmed=False)

    def _filter(
        self, telemetry: Telemetry | None, proposed: Any, now_s: float, state: ShieldState, absent: Code
    ) -> Decision:
        guarded = self.guard(telemetry, now_s, state)
        reasons = list(guarded.reasons)
        sources: dict[str, Source] = {}
        commands: dict[str, Floats] = {}
        dt_s = self._elapsed_s(now_s, state)
        safe = self._fallback_commands(guarded)
        for group in self.nameplate.groups:
            name, limits = group.name, self._limits[group.name]
            raw, codes = _proposal(proposed, group, absent)
            codes = [Code.INPUT_LOST if not t else c for t, c in zip(guarded.trusted[name], codes, strict=True)]
            falls_back = np.array([c is not None for c in codes])
            asked = np.where(falls_back[:, None], safe[name], raw)
            sent = limits.limit(asked, state.applied[name], dt_s)
            commands[name] = sent
            for i, asset in enumerate(group.assets):
                agent = f"{name}/{asset}"
                held = bool(guarded.substituted[name][i])
                sources[agent] = Source.FALLBACK if falls_back[i] else Source.SUBSTITUTED if held else Source.POLICY
            reasons += _command_reasons(group, limits, raw, sent, state.applied[name], codes)
        reasons += self._verify(commands, sources, now_s, state)
        after = replace(state, applied=commands, inputs=guarded.state, time_s=now_s, confirmed=True)
        return self._decided(commands, reasons, sources, after)

    def _decided(
        self, commands: dict[str, Floats], reasons: Iterable[Reason], sources: dict[str, Source], after: ShieldState
    ) -> Decision:
        acts = {g.name: np.ones(g.n_assets, dtype=np.bool_) for g in self.nameplate.groups}
        modes = dict.fromkeys(self.nameplate.agents, Mode.AUTONOMOUS)
        return Decision(
            commands, tuple(reasons), sources, after, modes, acts, commands, partial(self._toward_neutral, commands)
        )

    def _toward_neutral(self, applied: Arrays) -> dict[str, Floats]:
        """One period's way from ``applied`` towards neutral, by the limiter of last resort."""
        found: dict[str, Floats] = {}
        for g in self.nameplate.groups:
            rows = [self._verifier.last_resort(applied, g.name, i, self.nameplate.period_s) for i in range(g.n_assets)]
            found[g.name] = np.array(rows, dtype=np.float64).reshape(g.n_assets, len(g.commanded))
        return found

    def _elapsed_s(self, now_s: float, state: ShieldState) -> float:
        """Seconds of change that the rate limits allow: at most one period, none on a clock that went wrong."""
        period_s = self.nameplate.period_s
        if not state.confirmed:
            return 0.0
        if state.time_s is None:
            return period_s
        elapsed = now_s - state.time_s
        if elapsed >= period_s * (1.0 - PERIOD_JITTER):
            return period_s
        return max(elapsed, 0.0)

    def _fallback_commands(self, guarded: Guarded) -> dict[str, Floats]:
        """Fallback for every asset ``[N, A]``; neutral wherever the site's own rule fails or says nonsense."""
        told: Any = {}
        if self._fallback is not None:
            try:
                told = self._fallback({n: v.copy() for n, v in guarded.values.items()})
            except Exception:  # noqa: BLE001 - a fallback that fails is replaced by the simpler one
                told = {}
        found: dict[str, Floats] = {}
        for group in self.nameplate.groups:
            neutral = np.tile(self._limits[group.name].neutral, (group.n_assets, 1))
            raw = told.get(group.name) if hasattr(told, "get") else None
            array = numeric(raw, neutral.shape)
            found[group.name] = neutral if isinstance(array, str) else np.where(np.isfinite(array), array, neutral)
        return found

    def _verify(
        self, commands: dict[str, Floats], sources: dict[str, Source], now_s: float, state: ShieldState
    ) -> list[Reason]:
        """Replace, in place, the commands of every asset that fails the independent check."""
        elapsed_s = self._verifier.elapsed_s(state.time_s, now_s, state.confirmed)
        found: list[Reason] = []
        for (name, i), (column, _) in self._verifier.failures(commands, state.applied, elapsed_s).local.items():
            group = self.nameplate.group(name)
            agent = f"{name}/{group.assets[i]}"
            asked = float(commands[name][i, column])
            commands[name][i] = self._verifier.last_resort(state.applied, name, i, elapsed_s)
            sources[agent] = Source.FALLBACK
            sent = float(commands[name][i, column])
            found.append(Reason(agent, group.commanded[column].name, Code.VERIFICATION_FAILED, asked, sent))
        return found

    def _last_resort(self, now_s: float, state: Any) -> Decision:
        """A decision that needs nothing but the last applied commands, and not even those."""
        known = state if isinstance(state, ShieldState) else self.start()
        try:
            elapsed_s = self._verifier.elapsed_s(known.time_s, now_s, known.confirmed)
        except Exception:  # noqa: BLE001 - a clock that is not even a number
            elapsed_s = 0.0
        commands: dict[str, Floats] = {}
        for g in self.nameplate.groups:
            rows = [self._verifier.last_resort(known.applied, g.name, i, elapsed_s) for i in range(g.n_assets)]
            commands[g.name] = np.array(rows, dtype=np.float64).reshape(g.n_assets, len(g.commanded))
        reasons = tuple(Reason(agent, "", Code.SHIELD_FAILED) for agent in self.nameplate.agents)
        sources = dict.fromkeys(self.nameplate.agents, Source.FALLBACK)
        clock_works = isinstance(now_s, float) and math.isfinite(now_s)
        after = replace(known, applied=commands, time_s=now_s if clock_works else known.time_s, confirmed=True)
        return self._decided(commands, reasons, sources, after)


def _proposal(proposed: Any, group: Group, absent: Code) -> tuple[Floats, list[Code | None]]:
    """Proposed commands ``[N, A]`` and, per asset, the code of what makes them unusable (None if usable)."""
    shape = (group.n_assets, len(group.commanded))
    nothing = np.full(shape, np.nan)
    if proposed is None:
        return nothing, [absent] * group.n_assets
    try:
        raw = proposed[group.name]
    except Exception:  # noqa: BLE001 - no mapping, or none of that name
        return nothing, [Code.COMMAND_MISSING] * group.n_assets
    if raw is None:
        return nothing, [Code.COMMAND_MISSING] * group.n_assets
    array = numeric(raw, shape)
    if isinstance(array, str):
        return nothing, [Code.COMMAND_SHAPE if array == "shape" else Code.COMMAND_TYPE] * group.n_assets
    finite = np.all(np.isfinite(array), axis=1)
    return array, [None if fine else Code.COMMAND_NOT_FINITE for fine in finite]


def _command_reasons(
    group: Group, limits: GroupLimits, asked: Floats, sent: Floats, applied: Floats, codes: list[Code | None]
) -> list[Reason]:
    found: list[Reason] = []
    changed = ~(np.abs(sent - asked) <= UNCHANGED * (1.0 + np.abs(sent)))  # NaN counts as changed
    for i, a in np.argwhere(changed):
        before, wanted = float(applied[i, a]), float(asked[i, a])
        code, limit = codes[i], None
        if code is None:
            code, limit = limits.code(int(a), wanted, before)
        agent = f"{group.name}/{group.assets[i]}"
        found.append(Reason(agent, group.commanded[a].name, code, wanted, float(sent[i, a]), limit))
    return found
