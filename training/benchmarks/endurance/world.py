"""The plant's side of the run: the emulated farm, what goes wrong with it, and what it is told, judged by margins.

It lives in another process than control, so that control can be killed and find the plant where it stands. Margins are
those of :mod:`.....envs.constraint.margin`, which no part of the shield uses.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....deploy.transition import OBEYED
from ....envs.constraint import Declaration
from ....envs.constraint.margin import Margins
from ....envs.constraint.moment import Moment
from ....envs.errors import PlantError
from ....envs.plant import Arrays, Plant, Telemetry
from .schedule import Cursor, Fault, Schedule

SLACK_PU = 1e-9
"""Of a constraint's scale: what rounding may take."""
_MOST_COMPLAINTS = 50


@dataclass
class Judged:
    """``written``: commands of a whole site that were told; ``least``: the smallest margin of each hard constraint, in
    shares of its scale; ``complaints``: the first violations in words.
    """

    written: int = 0
    violations: int = 0
    least: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


class Referee:
    """Follows what a plant obeys, and holds what it is told against the declared margins."""

    def __init__(self, declaration: Declaration) -> None:
        self._margins = Margins(declaration, [c.name for c in declaration.hard])
        self._hard = [c.name for c in declaration.hard]
        self._dt_s = declaration.nameplate.period_s
        self._last = -1
        self.judged = Judged()

    def judge(self, period: int, before: Arrays, sent: Arrays, acting: dict[str, Fault]) -> None:
        """Judge one write; a change may take as long as it is since the last one."""
        judged, dt_s = self.judged, self._dt_s * max(period - self._last, 1)
        judged.written += 1
        self._last = period
        if not all(np.isfinite(array).all() for array in sent.values()):
            self._complain(period, "told what is no number", acting)
            return
        # Nothing declared here is about measurements.
        moment = Moment(before, sent, {}, dt_s)
        for name, margin in self._margins(moment).items():
            least = float(np.min(margin)) / self._margins.scale(name)
            judged.least[name] = min(judged.least.get(name, np.inf), least)
            if not least >= -SLACK_PU:
                self._complain(period, f"{name} broken by {-least:.3g} of its scale", acting)

    def _complain(self, period: int, text: str, acting: dict[str, Fault]) -> None:
        self.judged.violations += 1
        if len(self.judged.complaints) < _MOST_COMPLAINTS:
            self.judged.complaints.append(f"period {period}: {text}; then acted: {', '.join(sorted(acting)) or 'none'}")


class World:
    """A plant with faults. ``period`` counts its periods from 0; ``met`` counts the periods of each fault.

    ``obeyed``: the commands it has now. Calls raise :class:`PlantError` while it is silent.
    """

    def __init__(self, plant: Plant, declaration: Declaration, schedule: Schedule) -> None:
        self.plant, self.schedule = plant, schedule
        self.referee = Referee(declaration)
        self.period = 0
        self.met: Counter[str] = Counter()
        self.errors = 0
        self._group = plant.nameplate.groups[0].name
        self.obeyed: Arrays = {self._group: np.tile(plant.nameplate.groups[0].neutral(), (self._n, 1))}
        self._cursor: Cursor = schedule.cursor()
        self.acting: dict[str, Fault] = {}
        self._frozen: Telemetry | None = None
        self._look()

    @property
    def _n(self) -> int:
        return self.plant.nameplate.groups[0].n_assets

    def read(self) -> Telemetry:
        """A reading with whatever is wrong with it now."""
        self._answers()
        reading = self.plant.read()
        values, times = reading.values[self._group].copy(), reading.source_time_s[self._group].copy()
        quality, received_s = reading.quality[self._group].copy(), reading.received_time_s
        if (fault := self.acting.get("bad quality")) is not None:
            quality[fault.asset] = 2
        if "all bad" in self.acting:
            quality[:] = 2
        if (fault := self.acting.get("not a number")) is not None:
            values[fault.asset, int(fault.share * values.shape[1])] = np.nan
        if (fault := self.acting.get("out of range")) is not None:
            values[fault.asset, int(fault.share * values.shape[1])] = 1e6
        if (fault := self.acting.get("stale")) is not None:
            times[fault.asset] -= 600.0
        if (fault := self.acting.get("frozen")) is not None:
            held = reading if self._frozen is None else self._frozen
            self._frozen = held
            values[fault.asset] = held.values[self._group][fault.asset]
        else:
            self._frozen = None
        if (fault := self.acting.get("jump")) is not None:
            values[fault.asset, 0] = 60.0 * fault.share
        if "wrong clock" in self.acting:
            received_s += 3600.0
        notes = {**(reading.notes or {}), OBEYED: {name: array.copy() for name, array in self.obeyed.items()}}
        name = self._group
        return Telemetry({name: values}, {name: times}, {name: quality}, received_s, reading.sequence, notes)

    def write(self, commands: Arrays) -> Arrays:
        """Judge what is told, obey it as far as the faults let it, and answer what is obeyed."""
        self._answers()
        self.referee.judge(self.period, self.obeyed, commands, self.acting)
        if "write refused" in self.acting:
            self.errors += 1
            raise PlantError("the plant refuses to be written to")
        told = {name: array.copy() for name, array in commands.items()}
        if (fault := self.acting.get("obeys in part")) is not None:
            told[self._group][fault.asset] = self.obeyed[self._group][fault.asset]
        self.obeyed = {name: array.copy() for name, array in self.plant.write(told).items()}
        return self.obeyed

    def advance(self) -> None:
        """One period of the plant's time."""
        self.plant.advance()
        self.period += 1
        self._look()

    def _look(self) -> None:
        self.acting = self._cursor.at(self.period)
        self.met.update(self.acting.keys())

    def _answers(self) -> None:
        if "silent" in self.acting or "gone" in self.acting:
            self.errors += 1
            raise PlantError("the plant does not answer")

    def saved(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "plant": self.plant,
            "judged": self.referee.judged,
            "last": self.referee._last,
            "period": self.period,
            "met": self.met,
            "errors": self.errors,
            "obeyed": self.obeyed,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of :meth:`saved`."""
        self.plant, self.period, self.met = saved["plant"], saved["period"], saved["met"]
        self.errors, self.obeyed = saved["errors"], saved["obeyed"]
        self.referee.judged, self.referee._last = saved["judged"], saved["last"]
        self._cursor = self.schedule.cursor(self.period)
        self.acting = self._cursor.at(self.period)
