"""A line's findings in words and tables, for people, and as plain numbers, for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...diagnosis import Sheet
from .diagnosis import LineFindings
from .foreseen import Foreseen
from .sensitivity import Effects

Floats = NDArray[np.float64]
SURE = 0.9
_MOST_STOPS, _MOST_GAINS = 8, 12


@dataclass(frozen=True)
class LineDiagnosis:
    """Keeps the contract :class:`~twinloop.envs.diagnosis.Diagnosis`."""

    found: LineFindings

    @property
    def headline(self) -> tuple[str, ...]:
        return (
            self._where(), *self._foreseen(), self._arrow(), *self._since(), self._pays(), *self._stops(),
            *self._holds(),
        )  # fmt: skip

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        sheets = [self._machines(), self._gains()]
        if self.found.foreseen is not None:
            sheets.append(self._lives(self.found.foreseen))
        if self.found.measured is not None:
            sheets.append(self._figures())
            if self.found.measured.stops:
                sheets.append(self._stop_log())
        return tuple(sheets)

    @property
    def notes(self) -> tuple[str, ...]:
        f = self.found
        how = {
            "chain": "the exact Markov chain at the estimates, intervals from what telemetry leaves open",
            "replicas": "paired replicas of the twin; intervals of what telemetry leaves open and of finite simulation",
        }
        what = "the configuration" if f.measured is None else f"{f.measured.record.n_periods} periods of telemetry"
        found = [
            f"From {what}, with every machine on at full speed. Sensitivities and gains: {how[f.gains.method]} (95 %). "
            "Losses of stops: replicas.",
            f"Rate: a machine's own, parts a slot of {f.config.slot_s:g} s; blocked and starved: shares of slots in "
            "which it would have processed. A machine makes a part a slot at most; no higher rates are tried.",
        ]
        if f.model.extra_room:
            found.append(
                "Machines hold the part that they work on and are blocked after it: each buffer counts two places more "
                "(blocking: before, if they do not)."
            )
        if f.measured is not None:
            found.append("Quality ratio (ISO 22400-2): not measured; the OEE index is for a ratio of one.")
            if f.measured.resting_pu > 0.01:
                found.append(
                    f"{f.measured.resting_pu:.0%} of machine-periods are left out: off, stand-by, warming up, or a bad "
                    "reading. Blocked and starved shares are those under the commands of the run."
                )
            if f.estimates.breaks.any():
                found.append("A stop is counted once a period; services count as stops.")
        if f.foreseen is not None:
            whose = "machines as new" if f.foreseen.ago is None else "the last good reading of each machine"
            found.append(
                f"Remaining life: slots of work, {f.foreseen.estimate.level:.0%} intervals, from the wear models of "
                f"the configuration and {whose}; service that is planned is not in it."
            )
        if not f.plan.is_serial:
            found.append(
                "Opportunity windows and costs of measured stops are for machines in a row; this line branches."
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        f, names = self.found, self.found.plan.names
        efficiency, spread = f.estimates.efficiency()
        machines = {
            name: {
                "efficiency_pu": efficiency[i],
                "efficiency_sd_pu": spread[i],
                "stops": f.estimates.stops[i],
                "blocked_pu": f.blocked[i],
                "starved_pu": f.starved[i],
                "severity": f.arrows.severity[i],
                "chance_bottleneck": f.chances[i],
                "sensitivity": _interval(f.gains.by_rate, i),
                "stop_loss_parts": _interval(f.losses, i),
            }
            for i, name in enumerate(names)
        }
        changes = {t: _interval(f.gains.by_change, k) for k, t in enumerate(f.gains.titles)}
        found: dict[str, Any] = {
            "bottleneck": names[f.bottleneck],
            "chance": f.chances[f.bottleneck],
            "method": f.gains.method,
            "arrow_rule": {"primary": names[f.arrows.primary], "all": [names[i] for i in f.arrows.bottlenecks]},
            "production_parts_per_slot": _interval(f.gains.production, 0),
            "slot_s": f.config.slot_s,
            "stop_slots": f.settings.stop_slots,
            "machines": machines,
            "changes_parts_per_slot": changes,
            "headline": list(self.headline),
            "notes": list(self.notes),
        }
        if f.foreseen is not None:
            e = f.foreseen.estimate
            found["remaining_life"] = {
                name: {
                    "median_slots": e.median[k], "low_slots": e.low[k], "high_slots": e.high[k], "level": e.level,
                    "horizon_slots": e.horizon, "chance_to_fail": e.chance[k],
                    "alarm": bool(f.foreseen.alarms[k]),
                } for k, name in enumerate(e.names)
            }  # fmt: skip
        if f.measured is not None:
            m = f.measured
            found["measured"] = {
                "periods": m.record.n_periods,
                "production_parts_per_slot": m.made,
                "production_standard_error": m.made_error,
                "shifts": [
                    {"machine": names[s.machine], "what": s.what, "after_slot": self._slot(s.period),
                     "seen_slot": self._slot(s.seen), "before_pu": s.before, "after_pu": s.after}
                    for s in m.shifts
                ],
                "stops": [
                    {"machine": names[s.machine], "after_slot": self._slot(s.period), "lasted_slots": s.lasted,
                     "window_slots": s.window, "lost_parts": s.lost} for s in m.stops
                ],
                "iso_22400": {
                    name: {"availability": m.figures.availability[i], "effectiveness": m.figures.effectiveness[i],
                           "quality_ratio": None, "oee_index_at_quality_one": m.figures.oee[i],
                           "throughput_rate_parts_per_slot": m.figures.rate[i],
                           "mean_time_to_repair_slots": m.figures.repair_slots[i],
                           "mean_operating_time_between_failures_slots": m.figures.between_slots[i]}
                    for i, name in enumerate(names)
                },
            }  # fmt: skip
        return dict(_plain(found))

    def draw(self, path: Path) -> None:
        from .picture import draw

        draw(self.found, path)

    def _where(self) -> str:
        f, names = self.found, self.found.plan.names
        order = np.argsort(-f.chances)
        if f.chances[order[0]] >= SURE:
            i = order[0]
            width = f.gains.by_rate.half_width[i]
            return (
                f"bottleneck: {names[i]} (chance {_chance(f.chances[i])}): a part a slot more of its own rate brings "
                f"{f.gains.by_rate.mean[i]:.2f} +- {width:.2f} at the line's end"
            )
        likely = ", ".join(f"{names[i]} {_chance(f.chances[i])}" for i in order if f.chances[i] >= 0.02)
        return f"bottleneck: not decided by this record; chances: {likely}"

    def _foreseen(self) -> list[str]:
        """Alarms, the likeliest failure first."""
        f = self.found.foreseen
        if f is None:
            return []
        e = f.estimate
        order = [int(k) for k in np.argsort(-e.chance) if f.alarms[k]]
        return [
            f"ALARM: {e.names[k]} fails within {e.horizon:,.0f} slots of work with a chance of {_chance(e.chance[k])}; "
            f"it lasts {e.text(k)}"
            for k in order
        ]

    def _arrow(self) -> str:
        f, names = self.found, self.found.plan.names
        said = names[f.arrows.primary]
        others = [names[i] for i in f.arrows.bottlenecks if i != f.arrows.primary]
        more = f", also {', '.join(others)}" if others else ""
        agrees = "agrees" if f.arrows.primary == f.bottleneck else "differs; the sensitivities above count"
        return f"arrow rule: {said} (severity {f.arrows.severity[f.arrows.primary]:.3f}){more}: {agrees}"

    def _since(self) -> list[str]:
        m, names = self.found.measured, self.found.plan.names
        return [] if m is None else [
            f"{names[s.machine]} changed after slot {self._slot(s.period):,}: {s.what} {s.before:.3f} to "
            f"{s.after:.3f} a slot, seen {(s.seen - s.period) * m.record.slots} slots later" for s in m.shifts[-5:]
        ]  # fmt: skip

    def _pays(self) -> str:
        f = self.found
        if not f.gains.titles:
            return "pays most: nothing to try: no buffers, no stops, and machines that make a part every slot"
        best = int(f.gains.by_change.mean.argmax())
        gain, width = f.gains.by_change.mean[best], f.gains.by_change.half_width[best]
        if gain - width <= 0:
            return "pays most: nothing that was tried brings a gain that is clear of zero"
        return (
            f"pays most: {f.gains.titles[best]}, +{gain:.4f} +- {width:.4f} parts a slot "
            f"({100 * gain / f.gains.production.mean[0]:+.1f} %, {gain * 3600 / f.config.slot_s:+.2f} parts an hour)"
        )

    def _stops(self) -> list[str]:
        m, names = self.found.measured, self.found.plan.names
        if m is None or not m.stops:
            return []
        lost = np.zeros(len(names))
        for s in m.stops:
            lost[s.machine] += s.lost
        free = sum(s.lost == 0 for s in m.stops)
        worst = int(lost.argmax())
        return [
            f"{len(m.stops)} stops lost {lost.sum():.1f} parts for good, {lost[worst]:.1f} of them by {names[worst]}; "
            f"{free} cost nothing"
        ]

    def _holds(self) -> list[str]:
        """Whether the model makes what the line was measured to make."""
        f = self.found
        if f.measured is None:
            return []
        model, made, error = f.gains.production.mean[0], f.measured.made, f.measured.made_error
        told = f"check: the model makes {model:.4f} parts a slot, {made:.4f} were measured ({model / made - 1:+.1%})"
        if math.isnan(error):
            return [f"{told}; the record is too short to say whether by chance"]
        width = math.hypot(f.gains.production.half_width[0], 1.96 * error)
        far = abs(model - made) > 1.5 * width  # about 3 standard errors
        return [f"{told}, {'more than chance explains: the model lacks something' if far else 'within chance'}"]

    def _slot(self, period: int) -> int:
        """Of the history, where a period of the record begins."""
        m = self.found.measured
        return 0 if m is None else (m.begin + period) * m.record.slots

    def _machines(self) -> Sheet:
        f = self.found
        efficiency, spread = f.estimates.efficiency()
        rows = []
        for i, name in enumerate(f.plan.names):
            window = "-" if f.measured is None or f.measured.windows is None else f"{f.measured.windows[i]:.1f}"
            arrow = f"{f.arrows.severity[i]:.3f}" if i in f.arrows.bottlenecks else ""
            rows.append((
                name, f"{efficiency[i]:.3f}" + (f" +- {1.96 * spread[i]:.3f}" if spread[i] else ""),
                f"{f.blocked[i]:.3f}", f"{f.starved[i]:.3f}", arrow, _shown(f.gains.by_rate, i, 3),
                _chance(f.chances[i]), window, _shown(f.losses, i, 1),
            ))  # fmt: skip
        columns = (
            "machine", "rate while up", "blocked", "starved", "arrow severity", "sensitivity", "chance",
            "free stop now, slots", f"lost by {f.settings.stop_slots} slots' stop",
        )  # fmt: skip
        return Sheet("where", columns, tuple(rows))

    def _gains(self) -> Sheet:
        f = self.found
        order = np.argsort(-f.gains.by_change.mean)[:_MOST_GAINS]
        hour, base = 3600 / f.config.slot_s, f.gains.production.mean[0]
        rows = tuple(
            (
                f.gains.titles[k], _shown(f.gains.by_change, int(k), 4),
                f"{100 * f.gains.by_change.mean[k] / base:+.2f} %", f"{f.gains.by_change.mean[k] * hour:+.2f}",
            )
            for k in order
        )  # fmt: skip
        return Sheet("what change pays", ("change", "parts a slot", "of production", "parts an hour"), rows)

    def _lives(self, f: Foreseen) -> Sheet:
        e, hours = f.estimate, self.found.config.slot_s / 3600.0
        rows = tuple(
            (
                name, *(_slots(v[k]) for v in (e.median, e.low, e.high)), _number(float(e.median[k]) * hours),
                _chance(e.chance[k]), "ALARM" if f.alarms[k] else "",
                "as new" if f.ago is None or f.ago[k] < 0 else f"{f.ago[k]}",
            )
            for k, name in enumerate(e.names)
        )  # fmt: skip
        columns = (
            "machine", "median, slots", "low", "high", "median, hours of work", f"fails within {e.horizon:,.0f}",
            f"at {f.alarm_chance:g}", "read, periods ago",
        )  # fmt: skip
        return Sheet("remaining life", columns, rows)

    def _figures(self) -> Sheet:
        m = self.found.measured
        assert m is not None  # its caller has looked
        k = m.figures
        rows = tuple(
            (
                name, *(_percent(v[i]) for v in (k.availability, k.effectiveness)), "not measured", _percent(k.oee[i]),
                *(_percent(v[i]) for v in (k.blocked, k.starved, k.down)), _number(k.repair_slots[i]),
                _number(k.between_slots[i]),
            )
            for i, name in enumerate(self.found.plan.names)
        )  # fmt: skip
        columns = (
            "ISO 22400-2", "availability", "effectiveness", "quality ratio", "OEE index", "blocked", "starved", "down",
            "MTTR, slots", "MOTBF, slots",
        )  # fmt: skip
        return Sheet("key figures since the last change", columns, rows)

    def _stop_log(self) -> Sheet:
        m, names = self.found.measured, self.found.plan.names
        assert m is not None  # its caller has looked
        rows = tuple(
            (names[s.machine], f"{self._slot(s.period):,}", f"{s.lasted:.1f}", f"{s.window:.1f}", f"{s.lost:.1f}")
            for s in m.stops[:_MOST_STOPS]
        )
        title = f"dearest of {len(m.stops)} stops"
        return Sheet(title, ("machine", "slot", "lasted, slots", "free, slots", "parts lost for good"), rows)


def _interval(effects: Effects, k: int) -> dict[str, float]:
    mean, width = effects.mean[k], effects.half_width[k]
    return {"mean": mean, "low": mean - width, "high": mean + width}


def _shown(effects: Effects, k: int, digits: int) -> str:
    return f"{effects.mean[k]:.{digits}f} +- {effects.half_width[k]:.{digits}f}"


def _chance(value: float) -> str:
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"{value:.2f}"


def _slots(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "never"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _plain(value: Any) -> Any:
    """JSON types; what is not measured is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
