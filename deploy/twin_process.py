"""The live twin of a station in operation: follows the journal, keeps a twin at the plant's state, and tells of it.

A process of its own, so that nothing it does or fails to do can hold up control. It only reads what control writes, and
writes only into the station's ``twin/``. Whatever happens to it, control or the journal, it begins again by itself from
what is there: its own state if that fits the journal, else the journal's last stretch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..envs.configuration import Strict
from ..envs.errors import ConfigurationError, ContractError, JournalError
from .journal_follower import AnotherJournalError, JournalFollower, Place
from .live_stretch import SpanReader, commands_of
from .live_twin import LiveTwin, Prediction, Recalibration, Span
from .row_text import plain
from .station.folder import StationFolder, read_whole, write_whole
from .twin_plan import TwinDescription
from .twin_verdict import TwinFolder, prediction_sheet, tell, verdict_sheet

if TYPE_CHECKING:
    from .twin_gate import GateVerdict

Recheck = Callable[[StationFolder, LiveTwin, Any, Any], None]
"""Simulates approved proposals anew; see :func:`~twinloop.deploy.proposals.recheck.recheck`."""

_BEAT_S = 5.0
_SHORTEST_SILENCE_S = 10.0


class TwinProcessSettings(Strict):
    """How the process works; what it tracks is in :class:`~.twin_plan.LiveTwinSection`."""

    save_every: PositiveInt = Field(1, description="periods from one state on disk to the next")
    stretch: PositiveInt = Field(240, description="periods of the journal that a twin without a state begins with")
    recalibrate: bool = Field(True, description="by itself, when the drift alarm is raised")
    most_lag: NonNegativeInt = Field(2, description="rows behind the journal above which the gate is closed")
    rows_at_once: PositiveInt = 16
    publish_s: PositiveFloat = Field(1.0, description="least time between two verdicts while catching up")


@dataclass
class _Heard:
    """What the journal said last."""

    at_s: float
    ended: bool = False
    number: int | None = None


class _Saved(NamedTuple):
    """The state on disk: of its file, and of its twin."""

    sha256: str | None = None
    time_s: float | None = None


class TwinProcess:
    """``look`` once in a while; it does all there is to do.

    ``recheck`` is called whenever the twin is where the journal is. ``say`` gets each line for the log in words.
    """

    def __init__(
        self,
        station: StationFolder,
        described: TwinDescription,
        settings: TwinProcessSettings,
        *,
        recheck: Recheck | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.station, self.folder = station, TwinFolder(station)
        self.settings, self._described = settings, described
        self._recheck, self._say = recheck, say
        self._nameplate = described.site.nameplate(described.site_config)
        self.live = described.make()
        self._journal = _journal_of(station)
        self._follower = JournalFollower(self._journal)
        self._reader = SpanReader(self._nameplate)
        self._recent: deque[Span] = deque(maxlen=settings.stretch)
        self._heard = _Heard(time.monotonic())
        self._started, self._trouble, self._alarm = False, "", ""
        self._prediction: Prediction | None = None
        self._unsaved, self._since_calibration = 0, 0
        self._published_s, self._saved = -_BEAT_S, _Saved()

    def begin(self) -> None:
        """Take up the state on disk, or begin with the journal's last stretch.

        Raises :class:`ConfigurationError` for the journal of another plant than the file's.
        """
        self._check_plant()
        try:
            place, obeyed, ended = self._note(self.live.load(self.folder.state))
        except ContractError as error:
            self._anew("began from the journal", why=str(error) if self.folder.state.exists() else "no state yet")
            return
        self._follower.place = place
        self._reader = SpanReader(self._nameplate, obeyed)
        self._started, self._heard.ended = True, ended
        self._saved = _Saved(_sha256(self.folder), self.live.time_s)
        self._tell("went on from its state", time_s=self.live.time_s, row=place.sequence)

    def look(self) -> bool:
        """Take in what is new, answer requests, and publish; any fault of the journal is told and tried again.

        False where there was nothing new, so that one may rest a little.
        """
        taken, turned = 0, False
        try:
            for row in self._follower.read(self.settings.rows_at_once):
                taken += 1
                self._take(row)
            if self._started and self._follower.behind > 2 * self.settings.stretch:
                self._anew("left rows out", why=f"{self._follower.behind} rows behind")
            self._trouble = ""
        except AnotherJournalError as error:
            self._anew("began from another journal", why=str(error))
            turned = True
        except JournalError as error:
            if str(error) != self._trouble:
                self._tell("could not read the journal", why=str(error))
            self._trouble = str(error)
        self._objections()
        self._calibrate()
        if taken == 0 or self._follower.behind == 0 or time.monotonic() - self._published_s > self.settings.publish_s:
            self._publish(taken)
        if self._recheck is not None and self._started and not self._follower.behind:
            self._recheck(self.station, self.live, self._described.site, self._described.site_config)
        return taken > 0 or turned

    def close(self) -> None:
        """Leave the state on disk."""
        if self._started:
            self._save()
        self._tell("ended", time_s=self.live.time_s)

    def _take(self, row: Mapping[str, Any]) -> None:
        self._heard.at_s = time.monotonic()
        kind = row.get("kind")
        if kind == "start":
            self._same_plant(row, "the journal")
            self._heard.ended = False
        elif kind == "end":
            self._heard.ended = True
        span = self._reader.take(row)
        if span is not None:
            self._heard.number = int(row.get("number", 0))
            self._follow(span)

    def _follow(self, span: Span) -> None:
        period_s = self._nameplate.period_s
        steps = round((span.time_s - self.live.time_s) / period_s)
        if not self._started:
            self._start(span)
        elif not 0 <= steps <= self.live.settings.most_periods_at_once:
            self._tell("began from the prior", why=f"the plant's clock went {steps} periods on")
            self._start(span)
        elif steps > 1:
            self._tell("stepped through a gap", periods=steps - 1, time_s=span.time_s)
        prediction = self.live.advance(span.accepted, span.time_s)
        if not all(np.isfinite(values).all() for values in prediction.values.values()):
            self._tell("began from the prior", why="its members left what numbers can hold")
            self._start(span)
            prediction = self.live.advance(span.accepted, span.time_s)
        self.live.assimilate(span.telemetry)
        self._prediction = prediction
        self._recent.append(span)
        self._unsaved += 1
        self._since_calibration += 1

    def _start(self, span: Span) -> None:
        self.live.start(span.time_s - self._nameplate.period_s, telemetry=span.telemetry)
        self._started = True
        self._recent.clear()

    def _anew(self, what: str, **details: Any) -> None:
        """From the journal's last stretch, with nothing of before."""
        self._started, self._prediction = False, None
        self._recent.clear()
        self._reader = SpanReader(self._nameplate)
        self._follower.skip_to_last(self.settings.stretch)
        self._heard = _Heard(time.monotonic())
        self._tell(what, rows=self._follower.behind, **details)

    def _objections(self) -> None:
        """What stands against a proposal beyond the gate: the first of it in words."""
        silent_s, lag = time.monotonic() - self._heard.at_s, self._follower.behind
        silence_s = max(_SHORTEST_SILENCE_S, self.live.settings.silence_periods * self._wall_period_s())
        objection = ""
        if self._trouble:
            objection = self._trouble
        elif not self._started:
            objection = "the live twin has not seen the plant yet"
        elif lag > self.settings.most_lag:
            objection = f"the live twin is {lag} rows of the journal behind the plant"
        elif self._heard.ended:
            objection = "control has ended its run"
        elif silent_s > silence_s:
            objection = f"control has written nothing into the journal for {silent_s:.0f} s"
        self.live.objection = objection

    def _calibrate(self) -> None:
        """On request, and by itself on a drift alarm: at most once in as many periods as raise the alarm."""
        alarm = self.live.verdict().alarm if self._started else ""
        if bool(alarm) != bool(self._alarm):
            self._tell("drift alarm" if alarm else "drift alarm is over", why=alarm)
        self._alarm = alarm
        try:
            asked = read_whole(self.folder.request)
        except (OSError, ValueError) as error:
            self._tell("refused to recalibrate", why=f"the request cannot be read ({error})")
            asked = None
            self.folder.request.unlink(missing_ok=True)
        if asked is not None:
            self.folder.request.unlink(missing_ok=True)
            self._recalibrate(str(asked.get("by")), str(asked.get("id")), float(asked.get("widening", 2.0)))
        elif alarm and self.settings.recalibrate and self._since_calibration >= self.live.settings.alarm_periods:
            self._recalibrate("drift alarm", "", 2.0)

    def _recalibrate(self, by: str, id: str, widening: float) -> None:
        self._since_calibration = 0
        try:
            found = self.live.recalibrate(list(self._recent), widening)
        except ContractError as error:
            self._tell("refused to recalibrate", by=by, id=id, why=str(error))
            return
        self._tell("recalibrated" if found.kept else "recalibration changed nothing", by=by, id=id, **_changes(found))

    def _publish(self, taken: int) -> None:
        """State and verdict to disk; the verdict again and again while nothing happens, so that its age tells."""
        if self._unsaved >= self.settings.save_every and self._started:
            self._save()
        if taken or time.monotonic() - self._published_s >= _BEAT_S:
            self._published_s = time.monotonic()
            write_whole(self.folder.verdict, self._sheet(self.live.verdict()), durable=False)

    def _save(self) -> None:
        note = self._follower.place._asdict() | {"obeyed": self._reader.obeyed, "ended": self._heard.ended}
        # What is lost with the power is made again from the journal.
        self.live.save(self.folder.state, json.dumps(plain(note)), durable=False)
        self._unsaved, self._saved = 0, _Saved(_sha256(self.folder), self.live.time_s)

    def _sheet(self, found: GateVerdict) -> dict[str, Any]:
        told = self._prediction
        place = self._follower.place
        return verdict_sheet(self._nameplate, found, self.live.settings) | {
            "objection": self.live.objection,
            "time_s": self.live.time_s if self._started else None,
            "number": self._heard.number,
            "lag": self._follower.behind,
            "ended": self._heard.ended,
            "n_members": self._described.n_members,
            "parameters": {name: {"mean": m, "std": s} for name, (m, s) in self.live.parameters().items()},
            "prediction": None if told is None else prediction_sheet(self._nameplate, told),
            "state_sha256": self._saved.sha256,
            "state_time_s": self._saved.time_s,
            "journal": {"sequence": place.sequence, "hash": place.hash},
            "stale_after_s": 3.0 * max(_BEAT_S, self.settings.publish_s),
        }

    def _note(self, text: str) -> tuple[Place, Any, bool]:
        """Where the state on disk stands; raises :class:`ContractError` unless the journal is still the same there."""
        try:
            told = json.loads(text)
            place = Place(int(told["sequence"]), str(told["hash"]))
            obeyed, ended = commands_of(told["obeyed"], self._nameplate), bool(told["ended"])
        except (ValueError, KeyError, TypeError) as error:
            raise ContractError(
                f"{self.folder.state}: does not say where in the journal it stands ({error})"
            ) from error
        try:
            JournalFollower(self._journal, place).check()
        except AnotherJournalError as error:
            raise ContractError(str(error)) from error
        return place, obeyed, ended

    def _check_plant(self) -> None:
        control = _readable(self.station)
        if control is not None:
            self._same_plant(control, self.station.control.name)
        start = self._follower.last_start()
        if start is not None:
            self._same_plant(start, "the journal")

    def _same_plant(self, row: Mapping[str, Any], where: str) -> None:
        theirs = row.get("nameplate_hash")
        if theirs is not None and theirs != self._nameplate.hash:
            raise ConfigurationError(
                f"--plant: is of another plant than the station's: {self._nameplate.site} with nameplate "
                f"{self._nameplate.hash[:12]}, {where} has {row.get('site')} with {str(theirs)[:12]}; give the file "
                "that the station runs with"
            )

    def _wall_period_s(self) -> float:
        found = (_readable(self.station) or {}).get("wall_period_s")
        return float(found) if isinstance(found, (int, float)) and found > 0.0 else self._nameplate.period_s

    def _tell(self, what: str, **details: Any) -> None:
        tell(self.folder, what, **details)
        said = "; ".join(f"{name} {value}" for name, value in details.items() if value not in ("", None))
        self._say(f"{what}{': ' if said else ''}{said}")


def _changes(found: Recalibration) -> dict[str, Any]:
    verdict = found.verdict
    return {
        "why": verdict.why,
        "nis": verdict.nis,
        "coverage": verdict.coverage,
        "before": {name: list(pair) for name, pair in found.before.items()},
        "after": {name: list(pair) for name, pair in found.after.items()},
    }


def _readable(station: StationFolder) -> dict[str, Any] | None:
    try:
        return read_whole(station.control)
    except (OSError, ValueError):
        return None


def _journal_of(station: StationFolder) -> Path:
    """Where control says that it writes, which need not be in the station: an arm's may be on a disk of its own."""
    told = (_readable(station) or {}).get("journal")
    return Path(told) if isinstance(told, str) and told else station.journal


def _sha256(folder: TwinFolder) -> str:
    return hashlib.sha256(folder.state.read_bytes()).hexdigest()
