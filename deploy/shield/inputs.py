"""The input guard: what of a reading can be believed, and what stands in for the rest.

A bad value is replaced by the last good one for ``hold_periods`` periods, counted in calls and not by a clock,
which may be the very thing that is wrong. After that the asset is no longer trusted and goes to its fallback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Group, Nameplate
from ...envs.plant import Arrays, Quality, Telemetry
from .arrays import numeric
from .decision import BoolArrays, Code, InputState, Reason
from .settings import ShieldSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RANGE_TOLERANCE_PU = 1e-6
"""Share of a signal's span by which rounding may carry a good value over its end."""

_CHECKS = (
    Code.INPUT_FROZEN,
    Code.INPUT_OUT_OF_ORDER,
    Code.INPUT_RANGE,
    Code.INPUT_FUTURE,
    Code.INPUT_STALE,
    Code.INPUT_BAD_QUALITY,
    Code.INPUT_NOT_FINITE,
)
"""What a value can fail, gravest last."""


@dataclass(frozen=True)
class Guarded:
    """A reading made safe to use.

    ``values[g]``: ``[N, O]``, always finite and in range; ``trusted[g]``: ``[N]``, False for an asset that must fall
    back; ``substituted[g]``: ``[N]``, True where a held value stands in.
    """

    values: Arrays
    trusted: BoolArrays
    substituted: BoolArrays
    reasons: tuple[Reason, ...]
    state: InputState


class InputGuard:
    """Judges every measured signal of a site, one reading a period."""

    def __init__(self, nameplate: Nameplate, settings: ShieldSettings) -> None:
        self._nameplate = nameplate
        self._settings = settings
        self._bounds = {g.name: (g.lower("measured"), g.upper("measured")) for g in nameplate.groups}
        self._frozen_after = {
            g.name: np.array([settings.frozen_after_periods.get(s.name, 2**31) for s in g.measured], dtype=np.int64)
            for g in nameplate.groups
        }
        self._max_age_s = settings.max_age_periods * nameplate.period_s

    def start(self) -> InputState:
        """The state before the first reading: nothing good has been seen."""
        shapes = {g.name: (g.n_assets, len(g.measured)) for g in self._nameplate.groups}
        return InputState(
            good={n: np.tile((lo + hi) / 2.0, (shapes[n][0], 1)) for n, (lo, hi) in self._bounds.items()},
            ever={n: np.zeros(s, dtype=np.bool_) for n, s in shapes.items()},
            source_time_s={n: np.full(s, -np.inf) for n, s in shapes.items()},
            bad_count={n: np.zeros(s, dtype=np.int64) for n, s in shapes.items()},
            same_count={n: np.zeros(s, dtype=np.int64) for n, s in shapes.items()},
        )

    def guard(self, telemetry: Telemetry | None, now_s: float, state: InputState) -> Guarded:
        """Return what to believe of ``telemetry`` at ``now_s``; None means that the plant gave no reading."""
        reasons: list[Reason] = []
        values: dict[str, Floats] = {}
        trusted: dict[str, Bools] = {}
        substituted: dict[str, Bools] = {}
        good: dict[str, Floats] = {}
        ever: dict[str, Bools] = {}
        source_time: dict[str, Floats] = {}
        bad_count: dict[str, NDArray[np.int64]] = {}
        same_count: dict[str, NDArray[np.int64]] = {}

        refused = self._refused_as_a_whole(telemetry, now_s, state)
        for group in self._nameplate.groups:
            name = group.name
            arrays = None if refused else _group_arrays(telemetry, group)
            if arrays is None or isinstance(arrays, Code):
                code = arrays or refused or Code.INPUT_MISSING
                bad = np.ones((group.n_assets, len(group.measured)), dtype=np.bool_)
                reasons += [Reason(f"{name}/{asset}", "", code) for asset in group.assets]
                read, times, same = state.good[name], state.source_time_s[name], state.same_count[name]
            else:
                read, times, quality = arrays
                same = np.where((read == state.good[name]) & state.ever[name], state.same_count[name] + 1, 0)
                faults = self._faults(group, read, times, quality, same, now_s, state)
                bad = faults > 0
                for i, k in np.argwhere(bad):
                    reasons.append(
                        self._input_reason(group, int(i), int(k), _CHECKS[faults[i, k] - 1], read[i, k], state)
                    )
            low, high = self._bounds[name]
            accepted = np.where(bad, state.good[name], np.clip(read, low, high))
            count = np.where(bad, state.bad_count[name] + 1, 0)
            known = state.ever[name] | ~bad
            lost = bad & ((count > self._settings.hold_periods) | ~state.ever[name])
            values[name], good[name], ever[name], bad_count[name] = accepted, accepted, known, count
            source_time[name] = np.where(bad, state.source_time_s[name], times)
            same_count[name] = same
            trusted[name] = ~np.any(lost, axis=1)
            substituted[name] = np.any(bad, axis=1) & trusted[name]
        sequence = state.sequence if refused or telemetry is None else int(telemetry.sequence)
        new_state = InputState(good, ever, source_time, bad_count, same_count, sequence)
        return Guarded(values, trusted, substituted, tuple(reasons), new_state)

    def _refused_as_a_whole(self, telemetry: Telemetry | None, now_s: float, state: InputState) -> Code | None:
        if telemetry is None:
            return Code.INPUT_MISSING
        if not isinstance(telemetry, Telemetry) or not isinstance(telemetry.sequence, (int, np.integer)):
            return Code.INPUT_TYPE
        if state.sequence is None or telemetry.sequence > state.sequence:
            return None
        if telemetry.sequence == state.sequence:
            return Code.INPUT_OUT_OF_ORDER
        # A source that was restarted counts from the start again. It is believed once holding has run out; its
        # values must still be fresh, so a replay of old ones is refused signal by signal.
        ran_out = all((count > self._settings.hold_periods).all() for count in state.bad_count.values())
        return None if ran_out else Code.INPUT_OUT_OF_ORDER

    def _faults(
        self,
        group: Group,
        read: Floats,
        times: Floats,
        quality: NDArray[Any],
        same: NDArray[np.int64],
        now_s: float,
        state: InputState,
    ) -> NDArray[np.int8]:
        """``[N, O]``: 0 where all is well, else one plus the place in ``_CHECKS`` of the gravest fault."""
        low, high = self._bounds[group.name]
        slack = RANGE_TOLERANCE_PU * (high - low)
        age_s = now_s - times
        held = state.ever[group.name] & (state.bad_count[group.name] <= self._settings.hold_periods)
        passed = (  # as _CHECKS; written so that a NaN fails: NaN compares False
            same < self._frozen_after[group.name],
            ~held | (times >= state.source_time_s[group.name]),
            (read >= low - slack) & (read <= high + slack),
            age_s >= -self._settings.max_future_s,
            age_s <= self._max_age_s,
            (quality == Quality.GOOD) | (quality == Quality.UNCERTAIN),
            np.isfinite(read),
        )
        found = np.zeros(read.shape, dtype=np.int8)
        for number, fine in enumerate(passed, start=1):
            found[~fine] = number
        return found

    def _input_reason(self, group: Group, i: int, k: int, code: Code, read: float, state: InputState) -> Reason:
        signal = group.measured[k]
        limit: float | None = None
        if code is Code.INPUT_RANGE:
            limit = signal.maximum if read > signal.maximum else signal.minimum
        elif code is Code.INPUT_STALE:
            limit = self._max_age_s
        elif code is Code.INPUT_FUTURE:
            limit = self._settings.max_future_s
        sent = float(state.good[group.name][i, k])
        return Reason(f"{group.name}/{group.assets[i]}", signal.name, code, float(read), sent, limit)


def _group_arrays(telemetry: Telemetry | None, group: Group) -> tuple[Floats, Floats, NDArray[Any]] | Code:
    """Values, source times and qualities of one group, each ``[N, O]``, or the code of what is wrong with them."""
    shape = (group.n_assets, len(group.measured))
    found: list[Floats] = []
    for field in ("values", "source_time_s", "quality"):
        table = getattr(telemetry, field)
        try:
            raw = table[group.name]
        except Exception:  # noqa: BLE001 - no mapping, or none of that name
            return Code.INPUT_MISSING
        if raw is None:
            return Code.INPUT_MISSING
        array = numeric(raw, shape)
        if isinstance(array, str):
            return Code.INPUT_SHAPE if array == "shape" else Code.INPUT_TYPE
        found.append(array)
    return found[0], found[1], found[2]
