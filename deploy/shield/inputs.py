"""The input guard: what of a reading can be believed, and what stands in for the rest.

A bad value is replaced by the twin's estimate for ``estimate_periods``, without one by the last good value for
``hold_periods``, counted in calls and not by a clock, which may be the very thing that is wrong. After that the asset
is no longer trusted and goes to its fallback.

A good reading after a good one takes a short path that only decides that all is well; at the first doubt
:mod:`.input_checks` judges everything, value by value. Both give the same answer for a good reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Telemetry
from .arrays import every, numeric
from .decision import BoolArrays, Code, InputState, Reason
from .input_checks import KEPT_READINGS, InputChecks, mark_of
from .input_layout import STEPS_IN_GATE, input_layout
from .settings import ShieldSettings

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Guarded(NamedTuple):
    """A reading made safe to use.

    ``values[g]``: ``[N, O]``, always finite and in range; ``seen[g]``: the same, NaN where nothing is known any
    more, for what must not take a held value for a fresh one; ``trusted[g]``: ``[N]``, False for an asset that must
    fall back; ``substituted[g]``: ``[N]``, True where an estimate or a held value stands in. ``agents_trusted`` and
    ``agents_substituted`` are the same for all assets in one ``[agents]``; ``clock_wrong``: a clock stepped back or is
    no number; ``clean``: everything is good, and there is no reason.
    """

    values: Arrays
    seen: Arrays
    trusted: BoolArrays
    substituted: BoolArrays
    reasons: tuple[Reason, ...]
    state: InputState
    agents_trusted: Bools
    agents_substituted: Bools
    clock_wrong: bool = False
    clean: bool = False


class InputGuard:
    """Judges every measured signal of a site, one reading a period.

    Raises :class:`ConfigurationError` for settings of signals that the site does not have.
    """

    def __init__(self, nameplate: Nameplate, settings: ShieldSettings) -> None:
        self._settings = settings
        self._layout = input_layout(nameplate, settings)
        self._checks = InputChecks(nameplate, settings, self._layout)
        self._max_age_s = settings.max_age_periods * nameplate.period_s
        self._limit = np.minimum(self._layout.jump, self._layout.calm / STEPS_IN_GATE)
        self._limited = bool(np.isfinite(self._limit).any())
        self._shapes = tuple((p.group.name, p.first, p.end, (p.n_assets, p.n_signals)) for p in self._layout.parts)
        self._every = np.ones(len(nameplate.agents), dtype=np.bool_)
        self._none = np.zeros(len(nameplate.agents), dtype=np.bool_)
        self._all_trusted = {p.group.name: self._every[p.agents] for p in self._layout.parts}
        self._none_substituted = {p.group.name: self._none[p.agents] for p in self._layout.parts}

    def start(self) -> InputState:
        """The state before the first reading: nothing good has been seen."""
        n = self._layout.n
        middle = (self._layout.low + self._layout.high) / 2.0
        counts = np.zeros(n, dtype=np.int32)
        return InputState(
            good=middle, ever=np.zeros(n, dtype=np.bool_), source_time_s=np.full(n, -np.inf),
            moved_s=np.full(n, np.inf), bad_count=counts, reference=middle, age=counts,
            suspect=np.zeros(n, dtype=np.int8), same_count=counts, still_count=counts,
            gate=np.maximum(self._layout.span, self._layout.calm), past=np.full((KEPT_READINGS, 3), np.nan),
        )  # fmt: skip

    def guard(
        self,
        telemetry: Telemetry | None,
        now_s: float,
        state: InputState,
        *,
        clock_s: float | None = None,
        estimate: Arrays | None = None,
    ) -> Guarded:
        """Return what to believe of ``telemetry``; None means that the plant gave no reading.

        ``now_s`` is the plant's UTC clock, ``clock_s`` the caller's monotonic one (``now_s`` without it); ``estimate``
        is what the twin expects of this reading, ``[N, O]`` per group, used only where a value is bad.
        """
        if state.clean and type(telemetry) is Telemetry and self._layout.n:
            found = self._good(telemetry, now_s, state, clock_s)
            if found is not None:
                return found
        with np.errstate(all="ignore"):  # infinities are judged here, not warned of
            return self._judged(telemetry, now_s, state, clock_s, estimate)

    def knows(self, ahead: Ahead, telemetry: Any, now_s: float, clock_s: float | None, state: InputState) -> bool:
        """Whether the same was asked then, of a reading that holds the same now: whoever reads may read into the same
        arrays again. A clock that is no number is never the same."""
        if telemetry is not ahead.telemetry or state is not ahead.state or now_s != ahead.now_s:
            return False
        if type(ahead.now_s) is not float or type(ahead.clock_s) is not type(clock_s) or clock_s != ahead.clock_s:
            return False
        if type(telemetry) is not Telemetry or not ahead.guarded.clean:
            return False
        read, times, then = self._copy(telemetry.values), self._copy(telemetry.source_time_s), ahead.guarded.state
        return (
            read is not None
            and times is not None
            and read.tobytes() == then.good.tobytes()
            and times.tobytes() == then.source_time_s.tobytes()
            and self._good_quality(telemetry.quality)
        )

    def _good(self, telemetry: Telemetry, now_s: float, state: InputState, clock_s: float | None) -> Guarded | None:
        """The answer to a good reading after a good one; None at the first doubt."""
        clock = now_s if clock_s is None else clock_s
        last_clock, last_utc, sequence = state.clock_s, state.utc_s, telemetry.sequence
        if not (isinstance(now_s, float) and isinstance(clock, float) and isinstance(sequence, (int, np.integer))):
            return None
        if last_clock is None or last_utc is None or state.sequence is None or not sequence > state.sequence:
            return None
        if not (clock >= last_clock and now_s >= last_utc and math.isfinite(now_s) and math.isfinite(clock)):
            return None
        layout = self._layout
        read = self._copy(telemetry.values)
        times = self._copy(telemetry.source_time_s)
        if read is None or times is None or not self._good_quality(telemetry.quality):
            return None
        if not every((read >= layout.low) & (read <= layout.high)):
            return None
        gate, quiet = state.gate, state.quiet
        if self._limited:
            apart = layout.distance(read, state.good)
            if not (quiet and every(apart <= self._limit)):  # else the gates stay as they are
                if not every(apart <= np.minimum(layout.jump, gate)):
                    return None
                gate = layout.gates(gate, apart)
                quiet = every(gate <= layout.calm)
        oldest, newest = float(times[times.argmin()]), float(times[times.argmax()])
        if not (now_s - oldest <= self._max_age_s and newest - now_s <= self._settings.max_future_s):
            return None
        if not every(times > state.source_time_s):  # what stood still, if shortly, is looked at closely
            return None
        same, still = state.same_count, state.still_count
        if layout.counts:
            same, still = self._checks.counts(read, state)
            if not every((same < layout.frozen_after) & (still < layout.stuck_after)):
                return None
        past, at = state.past.copy(), state.n_read % KEPT_READINGS
        past[at, 0], past[at, 1], past[at, 2] = oldest, newest, mark_of(read)
        moved_s = np.empty(layout.n)
        moved_s.fill(clock)
        after = InputState(
            read, state.ever, times, moved_s, state.bad_count, read, state.age, state.suspect,
            same, still, gate, past, state.n_read + 1, int(sequence), now_s, clock, True, quiet,
        )  # fmt: skip
        values = {name: read[first:end].reshape(shape) for name, first, end, shape in self._shapes}
        return Guarded(
            values, values, self._all_trusted, self._none_substituted, (), after, self._every, self._none, False, True
        )

    def _copy(self, table: Any) -> Floats | None:
        """A copy of all groups' numbers in one vector, None unless they are just what they should be."""
        if type(table) is not dict:
            return None
        found: list[Floats] = []
        for name, _, _, shape in self._shapes:
            raw = table.get(name)
            if type(raw) is not np.ndarray or raw.dtype.char != "d" or raw.shape != shape:
                return None
            found.append(raw.reshape(-1))
        return found[0].copy() if len(found) == 1 else np.concatenate(found)

    def _good_quality(self, table: Any) -> bool:
        """Whether every quality is there and says that its value is good."""
        if type(table) is not dict:
            return False
        for name, _, _, shape in self._shapes:
            raw = table.get(name)
            if type(raw) is not np.ndarray or raw.dtype.char not in "bhilq" or raw.shape != shape:
                return False
            if np.count_nonzero(raw):
                return False
        return True

    def _judged(self, telemetry: Any, now_s: Any, state: InputState, clock_s: Any, estimate: Arrays | None) -> Guarded:
        """Every value judged by every check."""
        layout, checks = self._layout, self._checks
        utc = _number(now_s)
        clock = utc if clock_s is None else _number(clock_s)
        clocks = [("utc_s", utc, state.utc_s)]
        if clock_s is not None:
            clocks.append(("clock_s", clock, state.clock_s))
        wrong = [name for name, now, last in clocks if now is None or (last is not None and now < last)]
        reasons = [Reason("", name, Code.INPUT_CLOCK) for name in wrong]
        reading, refused = checks.assembled(telemetry, utc, state)
        faults, reference, same, still, moved, apart = checks.judged(reading, utc, clock, state)
        bad = faults > 0
        good = np.where(bad, state.good, np.minimum(np.maximum(reading.values, layout.low), layout.high))
        bad_count = np.where(bad, np.minimum(state.bad_count + 1, 2**30), 0).astype(np.int32)
        ever = state.ever | ~bad
        stands_in, fine = self._estimate(estimate)
        estimated = bad & fine & state.ever & (bad_count <= self._settings.estimate_periods)
        lost = bad & ~estimated & ((bad_count > self._settings.hold_periods) | ~state.ever)
        accepted = np.where(estimated, stands_in, good)
        for part in layout.parts:
            reasons += checks.reasons(part, refused.get(part.group.name), faults, reading.values, accepted)
        explained = ~np.isnan(reference)
        n_read, past = state.n_read, state.past
        if not refused:
            past = past.copy()
            past[n_read % KEPT_READINGS] = reading.mark
            n_read += 1
        clean = not (wrong or refused or bad.any())
        gate = np.where(bad | ~state.ever, state.gate, layout.gates(state.gate, np.where(bad, 0.0, apart)))
        after = InputState(
            good=good, ever=ever, source_time_s=np.where(bad, state.source_time_s, reading.times_s), moved_s=moved,
            bad_count=bad_count, reference=good if clean else np.where(bad & explained, reference,
                                                                       np.where(bad, state.reference, good)),
            age=np.where(bad & ~explained, np.minimum(state.age + 1, 2**30), 0).astype(np.int32),
            suspect=checks.suspects(faults, explained, state), same_count=same, still_count=still, gate=gate,
            past=past,
            n_read=n_read, sequence=reading.sequence, utc_s=state.utc_s if utc is None else utc,
            clock_s=state.clock_s if clock is None else clock, clean=clean,
            quiet=bool((gate <= layout.calm).all()),
        )  # fmt: skip
        trusted, substituted = self._every.copy(), self._none.copy()
        for p in layout.parts:
            trusted[p.agents] = ~lost[p.rows].reshape(p.n_assets, p.n_signals).any(axis=1)
            substituted[p.agents] = bad[p.rows].reshape(p.n_assets, p.n_signals).any(axis=1)
        substituted &= trusted
        values, seen = (
            {p.group.name: told[p.rows].reshape(p.n_assets, p.n_signals) for p in layout.parts}
            for told in (accepted, np.where(lost, np.nan, accepted))
        )
        return Guarded(
            values, seen,
            {p.group.name: trusted[p.agents] for p in layout.parts},
            {p.group.name: substituted[p.agents] for p in layout.parts},
            tuple(reasons), after, trusted, substituted, bool(wrong), clean,
        )  # fmt: skip

    def _estimate(self, estimate: Any) -> tuple[Floats, Bools]:
        """What may stand in, ``[M]``, brought into range, and where there is such a thing."""
        values = np.full(self._layout.n, np.nan)
        for p in self._layout.parts if isinstance(estimate, Mapping) else ():
            told = numeric(estimate.get(p.group.name), (p.n_assets, p.n_signals))
            if not isinstance(told, str):
                values[p.rows] = told.reshape(-1)
        fine = np.isfinite(values)
        return np.minimum(np.maximum(values, self._layout.low), self._layout.high), fine


class Ahead(NamedTuple):
    """What was judged of a good reading before the whole shield is asked about it: ``guarded``, for the same
    arguments."""

    telemetry: Any
    now_s: Any
    clock_s: Any
    state: InputState
    guarded: Guarded


def _number(raw: Any) -> float | None:
    """A clock's time, None if it is no finite number."""
    if not isinstance(raw, (int, float, np.integer, np.floating)) or isinstance(raw, bool):
        return None
    value = float(raw)
    return value if math.isfinite(value) else None
