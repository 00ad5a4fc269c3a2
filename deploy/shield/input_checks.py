"""Every check of every measured value, for readings that are not good throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Group, Nameplate
from ...envs.plant import Quality, Telemetry
from .arrays import numeric
from .decision import Code, InputState, Reason
from .input_confusions import FIT, Conversions, swapped_assets, swapped_signals
from .input_layout import NEVER, InputLayout, Part
from .settings import ShieldSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int32]
Faults = NDArray[np.int8]

RANGE_TOLERANCE_PU = 1e-6
"""Share of a signal's span by which rounding may carry a good value over its end."""

KEPT_READINGS = 64
"""Readings that are remembered by their marks, to know one that comes again."""

PEERS_MOVE = 0.5
"""Share of the other assets of a group that must change a signal for one that does not to stand out."""

CHECKS = (
    Code.INPUT_FROZEN,
    Code.INPUT_STUCK,
    Code.INPUT_OUT_OF_ORDER,
    Code.INPUT_JUMP,
    Code.INPUT_RANGE,
    Code.INPUT_SWAPPED,
    Code.INPUT_UNIT,
    Code.INPUT_FUTURE,
    Code.INPUT_STALE,
    Code.INPUT_BAD_QUALITY,
    Code.INPUT_NOT_FINITE,
    Code.INPUT_MISSING,
)
"""What a value can fail, gravest last; the last stands for a group that could not be read at all."""

_FROZEN, _STUCK, _ORDER, _JUMP, _RANGE, _SWAPPED, _UNIT, _FUTURE, _STALE, _QUALITY, _FINITE, _UNREAD = range(
    1, len(CHECKS) + 1
)


@dataclass(frozen=True)
class Reading:
    """A reading in flat vectors ``[M]``; ``read`` is False where a group could not be read. ``mark``: three numbers by
    which this very reading is known again; ``sequence``: the newest that was accepted."""

    values: Floats
    times_s: Floats
    quality: NDArray[np.float64]
    read: Bools
    mark: tuple[float, float, float]
    sequence: int | None


class InputChecks:
    """The checks of one site."""

    def __init__(self, nameplate: Nameplate, settings: ShieldSettings, layout: InputLayout) -> None:
        self._settings = settings
        self._layout = layout
        self._max_age_s = settings.max_age_periods * nameplate.period_s
        self._slack = RANGE_TOLERANCE_PU * layout.span
        self._conversions = [Conversions(p.group) for p in layout.parts]
        self._asks = settings.confusion_step_pu is not None

    def assembled(self, telemetry: Any, utc_s: float | None, state: InputState) -> tuple[Reading, dict[str, Code]]:
        """The reading in flat vectors, and the groups that could not be read, each with the code of why."""
        layout = self._layout
        values, times, quality = (np.full(layout.n, np.nan) for _ in range(3))
        read = np.zeros(layout.n, dtype=np.bool_)
        whole = self._refused_as_a_whole(telemetry, utc_s, state)
        codes: dict[str, Code] = {}
        for p in layout.parts:
            found = whole or _group_arrays(telemetry, p.group)
            if isinstance(found, Code):
                codes[p.group.name] = found
                continue
            values[p.rows], times[p.rows], quality[p.rows] = (a.reshape(-1) for a in found)
            read[p.rows] = True
        mark = (float(times.min(initial=np.inf)), float(times.max(initial=-np.inf)), mark_of(values))
        if not codes and self._came_before(mark, state):
            codes = {p.group.name: Code.INPUT_REPLAYED for p in layout.parts}
            read[:] = False
        sequence = state.sequence if whole else int(telemetry.sequence)
        return Reading(values, times, quality, read, mark, sequence), codes

    def judged(
        self, reading: Reading, utc_s: float | None, clock_s: float | None, state: InputState
    ) -> tuple[Faults, Floats, Counts, Counts, Floats, Floats]:
        """Faults ``[M]`` (0 where all is well, else one plus the place in :data:`CHECKS` of the gravest), where each
        value really is if that is explained (NaN else), the counts of unchanged values, when sources moved on, and how
        far each value is from where it was believed to be."""
        layout, values, times = self._layout, reading.values, reading.times_s
        same, still = self.counts(values, state)
        same, still = (
            np.where(reading.read, now, was) for now, was in zip((same, still), _counts_of(state), strict=True)
        )
        moved = np.where(
            reading.read & (times > state.source_time_s), np.inf if clock_s is None else clock_s, state.moved_s
        )
        held = state.ever & (state.bad_count <= self._settings.hold_periods)
        age_s = (np.nan if utc_s is None else utc_s) - times
        stood_s = (np.nan if clock_s is None else clock_s) - moved
        in_range = (values >= layout.low - self._slack) & (values <= layout.high + self._slack)
        apart = layout.distance(values, state.reference)
        reachable = ~state.ever | (apart <= layout.jump * (1 + state.age))
        passed = (  # written so that a NaN fails: NaN compares False
            (_FROZEN, same < layout.frozen_after),
            (_STUCK, still < layout.stuck_after),
            (_ORDER, ~held | (times >= state.source_time_s)),
            (_JUMP, reachable),
            (_RANGE, in_range),
            (_FUTURE, age_s >= -self._settings.max_future_s),
            (_STALE, (age_s <= self._max_age_s) & ~(stood_s > self._max_age_s)),
            (_QUALITY, (reading.quality == Quality.GOOD) | (reading.quality == Quality.UNCERTAIN)),
            (_FINITE, np.isfinite(values)),
            (_UNREAD, reading.read),
        )
        faults = np.zeros(layout.n, dtype=np.int8)
        for number, fine in passed:
            faults[~fine] = number
        explained = np.full(layout.n, np.nan)
        if self._asks:
            gate = state.gate * (1 + state.age)
            usable = state.ever & (faults < _SWAPPED)
            far = usable & ~((apart <= gate) & in_range & reachable)
            asked = far | (usable & (state.suspect > 0))
            if asked.any():
                self._explain(faults, explained, asked, apart, values, state)
            # what was once in the wrong place stays refused until it is back where it is expected
            suspected = far & (state.suspect > 0) & np.isnan(explained)
            faults[suspected] = np.maximum(faults, state.suspect)[suspected]
        return faults, explained, same, still, moved, apart

    def counts(self, values: Floats, state: InputState) -> tuple[Counts, Counts]:
        """Readings in a row ``[M]`` with an unchanged value, and of those the ones while most peers moved."""
        if not self._layout.counts:
            return state.same_count, state.still_count
        unchanged = (values == state.good) & state.ever
        same = np.where(unchanged, np.minimum(state.same_count + 1, NEVER - 1), 0).astype(np.int32)
        alone = np.zeros(self._layout.n, dtype=np.bool_)
        for p in self._layout.parts:
            if p.n_assets > 1:
                moves = ~unchanged[p.rows].reshape(p.n_assets, p.n_signals)
                others = moves.sum(axis=0) - moves
                alone[p.rows] = (others >= PEERS_MOVE * (p.n_assets - 1)).reshape(-1)
        more = np.minimum(state.still_count + alone, NEVER - 1)
        return same, np.where(unchanged, more, 0).astype(np.int32)

    def suspects(self, faults: Faults, explained: Bools, state: InputState) -> Faults:
        """Which confusion ``[M]`` each value is in now: a new one, the old one as long as it is bad, or none."""
        return np.where(explained, faults, np.where(faults > 0, state.suspect, 0)).astype(np.int8)

    def reasons(self, part: Part, refused: Code | None, faults: Faults, read: Floats, accepted: Floats) -> list[Reason]:
        """One for each bad value of a group; one an asset where all its values fail alike, or the group is not read."""
        group = part.group
        if refused is not None:
            return [Reason(f"{group.name}/{asset}", "", refused) for asset in group.assets]
        table = faults[part.rows].reshape(part.n_assets, part.n_signals)
        alike = (table[:, :1] > 0).all(axis=1) & (table == table[:, :1]).all(axis=1) & (part.n_signals > 1)
        found = [
            Reason(f"{group.name}/{group.assets[i]}", "", CHECKS[table[i, 0] - 1])
            for i in np.flatnonzero(alike).tolist()
        ]
        for flat in (part.first + np.flatnonzero(np.where(alike[:, None], 0, table))).tolist():
            i, k = divmod(flat - part.first, part.n_signals)
            signal, code = group.measured[k], CHECKS[faults[flat] - 1]
            limit: float | None = None
            if code is Code.INPUT_RANGE:
                limit = signal.maximum if read[flat] > signal.maximum else signal.minimum
            elif code is Code.INPUT_STALE:
                limit = self._max_age_s
            elif code is Code.INPUT_FUTURE:
                limit = self._settings.max_future_s
            elif code is Code.INPUT_JUMP:
                limit = float(self._layout.jump[flat])
            agent = f"{group.name}/{group.assets[i]}"
            found.append(Reason(agent, signal.name, code, float(read[flat]), float(accepted[flat]), limit))
        return found

    def _explain(
        self, faults: Faults, explained: Floats, asked: Bools, apart: Floats, values: Floats, state: InputState
    ) -> None:
        """Put in place what swaps and units explain better than the values themselves do.

        A swap goes before a unit, and two assets, which are refused whole, before two signals.
        """
        layout = self._layout
        odd = asked & (state.reference > layout.low) & (state.reference < layout.high)
        for p, conversions in zip(layout.parts, self._conversions, strict=True):
            shape = (p.n_assets, p.n_signals)
            rows = np.flatnonzero(asked[p.rows].reshape(shape).any(axis=1))
            if not len(rows):
                continue
            read = np.where(faults < _SWAPPED, values, np.nan)[p.rows].reshape(shape)[rows]
            expected, near, turn, own = (
                a[p.rows].reshape(shape)[rows] for a in (state.reference, FIT * layout.calm, layout.turn, apart)
            )
            may, could = asked[p.rows].reshape(shape)[rows], odd[p.rows].reshape(shape)[rows]
            found, code = np.full(read.shape, np.nan), np.zeros(read.shape, dtype=np.int8)
            for number, answer in (
                (_UNIT, conversions.fitting(read, expected, near)),
                (_SWAPPED, swapped_signals(read, expected, near, turn, could)),
            ):
                takes = may & (np.abs(answer - expected) < own)
                found, code = np.where(takes, answer, found), np.where(takes, np.int8(number), code)
            whole = swapped_assets(read, expected, near, turn, could)
            found, code = np.where(np.isnan(whole), found, whole), np.where(np.isnan(whole), code, np.int8(_SWAPPED))
            at = p.first + (rows[:, None] * p.n_signals + np.arange(p.n_signals)[None, :])
            explained[at] = found
            faults[at] = np.maximum(faults[at], code)

    def _refused_as_a_whole(self, telemetry: Any, utc_s: float | None, state: InputState) -> Code | None:
        if telemetry is None:
            return Code.INPUT_MISSING
        if not isinstance(telemetry, Telemetry) or not isinstance(telemetry.sequence, (int, np.integer)):
            return Code.INPUT_TYPE
        if utc_s is None:
            return Code.INPUT_CLOCK
        if state.sequence is None or telemetry.sequence > state.sequence:
            return None
        if telemetry.sequence == state.sequence:
            return Code.INPUT_OUT_OF_ORDER
        # A source that was restarted counts from the start again. It is believed once holding has run out; its
        # values must still be fresh, so a replay of old ones is refused signal by signal.
        ran_out = bool((state.bad_count > self._settings.hold_periods).all())
        return None if ran_out else Code.INPUT_OUT_OF_ORDER

    def _came_before(self, mark: tuple[float, float, float], state: InputState) -> bool:
        """Whether values and source times are those of an earlier reading; the very last is a source that waits."""
        last = (state.n_read - 1) % KEPT_READINGS
        equal = (state.past == mark).all(axis=1)
        return bool(equal.any()) and not bool(equal[last])


def mark_of(values: Floats) -> float:
    """A number by which values ``[M]`` are known again, their order included."""
    weights = _WEIGHTS if len(values) <= len(_WEIGHTS) else _weights(len(values))
    return float(values.dot(weights[: len(values)]))


def _weights(n: int) -> Floats:
    """No two alike, and no small multiples of each other: shares of the golden ratio."""
    return np.asarray(1.0 + (np.arange(1, n + 1) * 0.6180339887498949) % 1.0, dtype=np.float64)


_WEIGHTS = _weights(4096)


def _counts_of(state: InputState) -> tuple[Counts, Counts]:
    return state.same_count, state.still_count


def _group_arrays(telemetry: Any, group: Group) -> tuple[Floats, Floats, Floats] | Code:
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
