"""The live twin: the replicas of a site's twin, kept where the plant is by what it measures.

Once a period: :meth:`LiveTwin.advance` under the commands that the plant accepted, then :meth:`LiveTwin.assimilate`
with its reading. Between the two, :attr:`LiveTwin.prediction` is what the shield may put for a bad value. It runs in a
process of its own, never on the edge: torch is imported when a live twin is made.

What is used of a reading: values of the signals that the settings name, of good quality, finite, in range, and new; and
of the others what a twin follows (:class:`~twinloop.envs.estimation.mixable.Following`), such as outages. A value that
comes late, by at most ``late_periods``, is put where it belongs: the twin goes back to its state of that period and
comes forward again, to the same bits as if the value had come in time. Later ones are refused.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from ..envs.errors import ContractError
from ..envs.estimation.settings import FilterSettings
from ..envs.plant import Arrays, Quality, Telemetry
from .twin_gate import GateVerdict, TwinGate, closed_by

if TYPE_CHECKING:
    from ..envs.estimation.contract import Assimilated, Spread, Tracker, TrackerMaker
    from ..envs.estimation.mixable import Mixable
    from ..envs.registry import Site
    from ..envs.twin import Readings, Twin

Floats = NDArray[np.float64]
State = dict[str, NDArray[Any]]
_TWO_SIDED = 1.959963984540054  # standard normal quantile of 0.975


class LiveTwinSettings(FilterSettings):
    """A filter's settings, and what is demanded of it before anything is proposed from it."""

    late_periods: NonNegativeInt = Field(2, description="a value this late is still used; 0 refuses all late ones")
    window: PositiveInt = Field(60, description="periods over which consistency is judged")
    nis_band: tuple[float, float] = (0.5, 2.0)
    coverage_band: tuple[float, float] = (0.90, 0.998)
    silence_periods: PositiveInt = Field(5, description="periods without a usable value that close the gate")
    alarm_periods: PositiveInt = Field(60, description="periods out of band, on end, that raise the drift alarm")


@dataclass(frozen=True)
class Prediction:
    """What is expected to be read, ``[N, O]`` a group, with the ends of the 95 % interval of a reading.

    The interval holds the members' spread and, for signals named in the settings, noise and model error.
    """

    time_s: float
    values: Arrays
    low: Arrays
    high: Arrays


class Span(NamedTuple):
    """One period of the past: the plant's time at its end, the commands it obeyed until then, and its reading then."""

    time_s: float
    accepted: Arrays
    telemetry: Telemetry | None


@dataclass(frozen=True)
class Counts:
    """Values of one reading: ``used`` (late ones among them), ``late``, and left out as ``refused`` (bad, out of range,
    too late, from the future) or ``outliers``."""

    used: int
    late: int
    refused: int
    outliers: tuple[str, ...]


@dataclass(frozen=True)
class Recalibration:
    """``kept``: the twin now stands where the recalibration led, else where it stood before. Parameters: mean and
    standard deviation of the members before and after."""

    kept: bool
    verdict: GateVerdict
    before: Mapping[str, tuple[float, float]]
    after: Mapping[str, tuple[float, float]]


@dataclass
class _Period:
    """A period that may still get late values: the state at its end before any analysis, and what was read then."""

    state: State
    accepted: Arrays
    observed: dict[str, Floats]
    analysed: bool = False


class LiveTwin:
    """Members are the replicas of ``twin``; all times are the plant's.

    ``tracker`` None: an ensemble filter, which takes a twin whose replicas may be mixed.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` and :class:`ContractError` as
    :class:`~twinloop.envs.estimation.tracker.EnsembleFilter` or the ``tracker`` does.
    """

    def __init__(self, twin: Twin, settings: LiveTwinSettings, tracker: TrackerMaker | None = None) -> None:
        from ..envs.estimation.contract import Clocked  # torch: only where a twin lives
        from ..envs.estimation.tracker import EnsembleFilter

        self.settings = settings
        self.time_s = 0.0
        self.objection = ""
        """What else keeps the gate closed, in words, such as being behind the plant; who feeds the twin knows it."""
        self._nameplate = twin.nameplate
        self._filter: Tracker = (
            EnsembleFilter(cast("Mixable", twin), settings) if tracker is None else tracker(twin, settings)
        )
        self._set_clock = self._filter.set_clock if isinstance(self._filter, Clocked) else None
        self._gate = TwinGate(settings)
        self._past: deque[_Period] = deque(maxlen=settings.late_periods + 1)
        plate, names = twin.nameplate, settings.signals
        self._named = {g.name: np.array([f"{g.name}/{s.name}" in names for s in g.measured]) for g in plate.groups}
        told = f"{plate.hash} {twin.n_replicas} {twin.dtype} {settings.model_dump_json()}"
        told += "" if tracker is None else f" {type(self._filter).__qualname__}"
        self._digest = hashlib.sha256(told.encode()).hexdigest()

    def start(self, time_s: float, widening: float = 1.0, telemetry: Telemetry | None = None) -> None:
        """Draw the members from the prior, at the plant's time; ``widening``: how much wider than the settings say.

        A twin that can be anchored begins near what ``telemetry``, a reading of that time, says of signals that count.
        """
        known = self._believable(telemetry)[0] if telemetry is not None else {}
        told = {name: np.where(self._named[name], values, np.nan) for name, values in known.items()}
        if self._set_clock is not None:
            self._set_clock(float(time_s))
        self._filter.start(widening, _tensors(told) if told else None)
        self._gate.forget()
        self._past.clear()
        self.time_s = float(time_s)

    def advance(self, accepted: Arrays, time_s: float) -> Prediction:
        """Go on to the plant's ``time_s`` under ``accepted`` ``[N, A]`` a group, and say what should be read then.

        Steps are whole periods: none where less than half of one has passed, several after a gap. Raises
        :class:`ContractError` after so long a gap that the twin must start anew, and for commands that are none.
        """
        period_s = self._filter.twin.dt_s
        steps = round((time_s - self.time_s) / period_s)
        if not 0 <= steps <= self.settings.most_periods_at_once:
            raise ContractError(
                f"live twin: at {self.time_s:.3f} s, asked to go on to {time_s:.3f} s, {steps} periods; give 0 to "
                f"{self.settings.most_periods_at_once}, or start anew from the prior or a journal"
            )
        commands = self._commands(accepted)
        for _ in range(steps):
            self._filter.advance(_tensors(commands))
            self._gate.period()
            self.time_s += period_s
            self._keep(commands)
        return self.prediction

    def assimilate(
        self, telemetry: Telemetry | None, believed: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> Counts:
        """Take in a reading. ``believed[g]``: ``[N]``, False for assets that the input guard does not trust."""
        if telemetry is None:
            return Counts(0, 0, 0, ())
        if not self._past:
            raise ContractError("live twin: advance comes before assimilate; the prior has no reading of its own")
        found, refused = self._sorted(telemetry, believed)
        late = {age: values for age, values in found.items() if age and self._merge(self._past[-1 - age], values)}
        now = self._merge(self._past[-1], found[0]) if 0 in found else 0
        n_late = sum(_count(values, self._named) for values in late.values())
        if late or (now and self._past[-1].analysed):
            outliers = self._again(max(late, default=0))
        else:
            outliers = self._analyse(self._past[-1]).outliers if now else ()
        return Counts(now + n_late - len(outliers), n_late, refused, outliers)

    @property
    def prediction(self) -> Prediction:
        """What is expected to be read now; before :meth:`assimilate`, a forecast of one period."""
        return _prediction(self.time_s, self._filter.spread())

    def forecast(self, commands: Sequence[Arrays]) -> list[Prediction]:
        """What would be read under ``commands``, one a period; the twin itself stays where it is."""
        kept, found = self._filter.snapshot(), []
        try:
            for k, given in enumerate(commands):
                self._filter.advance(_tensors(self._commands(given)))
                found.append(_prediction(self.time_s + (k + 1) * self._filter.twin.dt_s, self._filter.spread()))
        finally:
            self._filter.restore(kept)
        return found

    @contextmanager
    def replicas(self) -> Iterator[tuple[Twin, Readings]]:
        """The members' own twin and what they read now, to step as one likes; afterwards all is as it was before.

        Their parameters stay as they are, where :meth:`forecast` lets them walk on.
        """
        kept = self._filter.snapshot()
        try:
            yield self._filter.twin, self._filter.readings()
        finally:
            self._filter.restore(kept)

    def verdict(self) -> GateVerdict:
        """Whether a proposal may be made from this twin, and the drift alarm."""
        return closed_by(self._gate.verdict(), self.objection)

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each estimated parameter."""
        return {name: (float(v.mean()), float(v.std())) for name, v in self._filter.parameters().items()}

    def recalibrate(self, stretch: Sequence[Span], widening: float = 2.0) -> Recalibration:
        """Estimate anew over a stretch of the past, from a prior ``widening`` times as wide.

        Kept only if the twin ends in its band; else it stays where it was. The stretch should end now, and be as long
        as the gate's window at least: raises :class:`ContractError` if it is shorter.
        """
        if len(stretch) <= self.settings.window:
            raise ContractError(
                f"recalibration over {len(stretch)} periods cannot fill the gate's window of {self.settings.window}; "
                "give more, twice as many or better"
            )
        stood, before = self.snapshot(), self.parameters()
        try:
            self.start(stretch[0].time_s - self._filter.twin.dt_s, widening, stretch[0].telemetry)
            for time_s, accepted, telemetry in stretch:
                self.advance(accepted, time_s)
                self.assimilate(telemetry)
            verdict, after = self.verdict(), self.parameters()
        except BaseException:
            self.restore(stood)
            raise
        if not verdict.open:
            self.restore(stood)
        return Recalibration(verdict.open, verdict, before, after)

    def snapshot(self) -> State:
        """All that what follows depends on, as arrays; :meth:`restore` is the exact inverse."""
        kept = _prefixed("now", self._state()) | {"time_s": np.array(self.time_s), "digest": np.array(self._digest)}
        for k, period in enumerate(self._past):
            kept[f"past{k}/analysed"] = np.array(period.analysed)
            for part, table in (("state", period.state), ("accepted", period.accepted), ("observed", period.observed)):
                kept |= _prefixed(f"past{k}/{part}", {name: np.array(value) for name, value in table.items()})
        return kept

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Take a :meth:`snapshot` over; raises :class:`ContractError` for one of another site, size or settings."""
        if str(snapshot.get("digest")) != self._digest:
            raise ContractError(
                "live twin: the snapshot is of another nameplate, number of members, precision or settings; start anew"
            )
        self._set(_part(snapshot, "now"))
        self.time_s = float(snapshot["time_s"])
        self._past.clear()
        for k in range(self.settings.late_periods + 1):
            if f"past{k}/analysed" in snapshot:
                state, accepted, observed = (_part(snapshot, f"past{k}/{p}") for p in ("state", "accepted", "observed"))
                observed = {name: value.copy() for name, value in observed.items()}
                self._past.append(_Period(state, accepted, observed, bool(snapshot[f"past{k}/analysed"])))

    def save(self, path: Path, note: str = "", *, durable: bool = True) -> None:
        """Write the state and a ``note`` to a file (``.npz``) at once or not at all; ``durable``: to the disk."""
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with beside.open("wb") as file:
            np.savez(file, allow_pickle=False, note=np.array(note), **self.snapshot())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)

    def load(self, path: Path) -> str:
        """Read what :meth:`save` wrote and return its note; raises :class:`ContractError` if it does not fit, or is
        none, and then changes nothing."""
        stood = self.snapshot()
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                snapshot = {name: file[name] for name in file.files}
            note = str(snapshot.pop("note", ""))
            self.restore(snapshot)
        except ContractError:
            raise
        except Exception as error:  # of a damaged file anything may come, from its zip up to its tensors
            self.restore(stood)
            raise ContractError(
                f"{path}: no state of a live twin ({type(error).__name__}: {error}); start anew"
            ) from error
        return note

    def _state(self) -> State:
        tensors = {name: value.cpu().numpy().copy() for name, value in self._filter.snapshot().items()}
        return _prefixed("filter", tensors) | _prefixed("gate", self._gate.memory())

    def _set(self, state: State) -> None:
        self._filter.restore(_tensors(_part(state, "filter")))
        self._gate.recall(_part(state, "gate"))

    def _keep(self, accepted: Arrays) -> None:
        """Remember this period, for values that come late or in parts."""
        nothing = {g.name: np.full((g.n_assets, len(g.measured)), np.nan) for g in self._nameplate.groups}
        self._past.append(_Period(self._state(), accepted, nothing))

    def _analyse(self, period: _Period) -> Assimilated:
        found = self._filter.assimilate(_tensors(period.observed))
        self._gate.add(found)
        period.analysed = True
        return found

    def _again(self, age: int) -> tuple[str, ...]:
        """From ``age`` periods ago to now, with all that is known by now; outliers of the last reading."""
        periods = list(self._past)[-1 - age :]
        self._set(periods[0].state)
        outliers = self._analyse(periods[0]).outliers
        for period in periods[1:]:
            self._filter.advance(_tensors(period.accepted))
            self._gate.period()
            period.state = self._state()
            outliers = self._analyse(period).outliers
        return outliers

    def _merge(self, period: _Period, values: dict[str, Floats]) -> int:
        """Add what the period does not have yet; how many of them are of signals that count."""
        n = 0
        for name, new in values.items():
            known = period.observed[name]
            fresh = np.isnan(known) & ~np.isnan(new)
            known[fresh] = new[fresh]
            n += int((fresh & self._named[name]).sum())
            values[name] = np.where(fresh, new, np.nan)
        return n

    def _sorted(
        self, telemetry: Telemetry, believed: Mapping[str, NDArray[np.bool_]] | None
    ) -> tuple[dict[int, dict[str, Floats]], int]:
        """Usable values by age in periods, NaN elsewhere, and how many that count were refused."""
        found: dict[int, dict[str, Floats]] = {}
        refused = 0
        believable, measured_at = self._believable(telemetry)
        for group in self._nameplate.groups:
            values, times = believable[group.name], measured_at[group.name]
            good = ~np.isnan(values)
            if believed is not None and group.name in believed:
                good &= np.asarray(believed[group.name], dtype=np.bool_)[:, None]
            age = np.full(values.shape, -1.0)
            age[good] = np.round((self.time_s - times[good]) / self._filter.twin.dt_s)
            usable = good & (age >= 0) & (age < len(self._past))
            refused += int((~usable & self._named[group.name]).sum())
            for k in np.unique(age[usable]).astype(int).tolist():
                found.setdefault(k, {})[group.name] = np.where(usable & (age == k), values, np.nan)
        return found, refused

    def _believable(self, telemetry: Telemetry) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Values of good quality, finite and in range, NaN elsewhere, and when they were measured."""
        found, measured_at = {}, {}
        for group in self._nameplate.groups:
            shape = (group.n_assets, len(group.measured))
            values, times = (_table(t, group.name, shape) for t in (telemetry.values, telemetry.source_time_s))
            quality = _table(telemetry.quality, group.name, shape)
            good = (quality == Quality.GOOD) & np.isfinite(values) & np.isfinite(times)
            good &= (values >= group.lower("measured")) & (values <= group.upper("measured"))
            found[group.name], measured_at[group.name] = np.where(good, values, np.nan), times
        return found, measured_at

    def _commands(self, accepted: Arrays) -> dict[str, Floats]:
        found = {}
        for group in self._nameplate.groups:
            shape = (group.n_assets, len(group.commanded))
            raw = accepted.get(group.name)
            given = np.array(raw, dtype=np.float64) if raw is not None else np.zeros(0)
            if given.shape != shape or not np.isfinite(given).all():
                raise ContractError(
                    f"live twin: commands of {group.name!r} are {given.shape}, expected finite numbers, {shape} "
                    "(N, A): give what the plant accepted"
                )
            found[group.name] = given
        return found


def make_live_twin(
    site: Site, config: Any, n_members: int, settings: LiveTwinSettings, tracker: TrackerMaker | None = None
) -> LiveTwin:
    """The live twin of a site, with members of ``config`` in double precision on the CPU."""
    import torch

    return LiveTwin(site.twin(config, n_members, "cpu", torch.float64), settings, tracker)


def _prediction(time_s: float, spread: Spread) -> Prediction:
    values = {name: value.cpu().numpy() for name, value in spread.mean.items()}
    half = {name: _TWO_SIDED * value.cpu().numpy() for name, value in spread.reading_std.items()}
    low, high = ({name: v + sign * half[name] for name, v in values.items()} for sign in (-1.0, 1.0))
    return Prediction(time_s, values, low, high)


def _table(table: Any, name: str, shape: tuple[int, int]) -> Floats:
    """Numbers ``[N, O]``, NaN where there are none of that shape."""
    raw = table.get(name) if isinstance(table, Mapping) else None
    array = np.asarray(raw)
    usable = array.shape == shape and array.dtype.kind in "fiub"
    return np.asarray(array, dtype=np.float64) if usable else np.full(shape, np.nan)


def _count(values: Mapping[str, Floats], named: Mapping[str, NDArray[np.bool_]]) -> int:
    return sum(int((~np.isnan(v) & named[name]).sum()) for name, v in values.items())


def _tensors(table: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.array(value)) for name, value in table.items()}


def _prefixed(prefix: str, table: Mapping[str, NDArray[Any]]) -> State:
    return {f"{prefix}/{name}": value for name, value in table.items()}


def _part(table: Mapping[str, NDArray[Any]], prefix: str) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in table.items() if name.startswith(f"{prefix}/")}
