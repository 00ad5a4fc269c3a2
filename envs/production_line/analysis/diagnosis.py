"""A line's diagnosis: telemetry or configuration in, findings out; every other file here is one step of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...diagnosis import History
from ...errors import ConfigurationError
from ..config import FixedLine, LineConfig
from ..line_plan import Plan, plan_of
from .arrow import Arrows, arrows
from .efficiency import Estimates, as_configured, estimate
from .foreseen import Foreseen, foresee
from .gains import Gains, Model, gains, stop_losses
from .oee import KeyFigures, key_figures
from .record import Counting, LineRecord, record_of
from .sensitivity import Effects
from .settings import LineDiagnosisSettings
from .shift import Shift, shifts_of
from .stops import Stop, opportunity_windows, stops_of

Floats = NDArray[np.float64]
EXTRA_ROOM = 2
"""Places in two machines: a machine that holds its part has finished one, and its successor has taken one in. A line
with capacities N that is blocked after service is taken for one with N + 2 that is blocked before: exact for two
machines, a little too much for more, where a machine that is blocked itself keeps its own place."""


@dataclass(frozen=True)
class Measured:
    """What the record says; absent where there is none. ``recent``: since the last change of any machine; ``begin``:
    periods of the history before it. ``shifts`` are changes of machines, oldest first; ``windows`` ``[M]``, slots that
    each may stop for free now; ``made`` parts a slot since the last change, and its standard error; ``resting_pu``, the
    share of machine-periods that count for nothing."""

    record: LineRecord
    recent: LineRecord
    begin: int
    figures: KeyFigures
    shifts: tuple[Shift, ...]
    windows: Floats | None
    stops: tuple[Stop, ...]
    made: float
    made_error: float
    resting_pu: float


@dataclass(frozen=True)
class LineFindings:
    """All that was found. ``chances`` ``[M]`` of each to be the bottleneck; shares of slots ``blocked`` and ``starved``
    ``[M]`` in which it would have processed; ``losses``, parts that a stop costs; ``foreseen``, where machines wear."""

    config: LineConfig
    plan: Plan
    settings: LineDiagnosisSettings
    model: Model
    estimates: Estimates
    gains: Gains
    chances: Floats
    blocked: Floats
    starved: Floats
    arrows: Arrows
    losses: Effects
    measured: Measured | None
    foreseen: Foreseen | None

    @property
    def bottleneck(self) -> int:
        """The likeliest one."""
        return int(self.chances.argmax())


def find(
    config: LineConfig, history: History | None, settings: LineDiagnosisSettings, counting: Counting = "clock"
) -> LineFindings:
    """Analyse a line; raises :class:`ConfigurationError` for lines that differ from episode to episode, and for a
    history with nothing to learn from."""
    if not isinstance(config.line, FixedLine):
        raise ConfigurationError("line: kind 'random' is many lines, and a diagnosis is of one: give kind 'fixed'")
    if config.is_exponential:
        raise ConfigurationError(
            "line: exponential machines; a diagnosis counts slots in which a machine could have processed, and they "
            "have none: describe them as kind bernoulli or geometric"
        )
    if config.blocking == "after" and settings.blocking == "before":
        raise ConfigurationError("blocking: before, and the site's is after; leave it out here, or change the site's")
    plan = plan_of(config)
    record = None if history is None else record_of(config, history, counting)
    begin = 0
    if record is not None and settings.window_periods is not None:
        begin = max(0, record.n_periods - settings.window_periods)
        record = record.between(begin)
    estimates, shifts = as_configured(config), list[Shift]()
    since = np.zeros((3, len(plan.names)), dtype=np.int64)
    if record is not None:
        shifts, since = shifts_of(record, settings.alarm_nats)
        estimates = estimate(config, record, since)
    after = settings.blocking == "after" or (settings.blocking == "auto" and record is not None)
    after = after and config.blocking == "before"  # else the twin itself is blocked after service
    model = Model(config, estimates, EXTRA_ROOM if after else 0, config.looks_through and not after)
    found = gains(model, settings)
    chances = found.by_rate.chances(settings.seed)
    first = int(chances.argmax())
    measured = None
    if record is None:
        blocked, starved = _simulated(model, settings)
    else:
        recent = record.between(min(int(since.max()), record.n_periods - 1))
        efficiency = estimates.efficiency()[0]
        scale = efficiency if counting == "clock" else np.ones_like(efficiency)  # as Li & Meerkov count
        time = np.maximum(record.slots * recent.valid.sum(0), 1.0)
        blocked, starved = recent.blocked.sum(0) / time * scale, recent.starved.sum(0) / time * scale
        measured = _measured(plan, record, recent, efficiency, shifts, first, begin)
    foreseen = foresee(config, history, settings.horizon_slots, settings.alarm_chance) if plan.wears else None
    return LineFindings(
        config, plan, settings, model, estimates, found, chances, blocked, starved,
        arrows(blocked, starved, plan.producer, plan.consumer), stop_losses(model, settings), measured,
        foreseen,
    )  # fmt: skip


def _simulated(model: Model, settings: LineDiagnosisSettings) -> tuple[Floats, Floats]:
    """Blocked and starved shares of a line that nobody has measured."""
    from .replicas import Replicas, Variant

    machines = model.estimates.draws(settings.replicas, np.random.default_rng(settings.seed))
    replicas = Replicas(model.config, machines, model.extra_room, model.looks_through, settings.seed)
    ran = replicas.run([Variant()], settings.slots)
    return ran.blocked, ran.starved


def _measured(
    plan: Plan,
    record: LineRecord,
    recent: LineRecord,
    efficiency: Floats,
    shifts: list[Shift],
    bottleneck: int,
    begin: int,
) -> Measured:
    sinks = [i for i in range(len(plan.names)) if i not in plan.producer]
    whole = recent.valid[:, sinks].all(1)
    made = recent.parts[:, sinks].sum(1)[whole] / record.slots
    rate = float(made.mean()) if len(made) else float("nan")
    windows, stops = None, list[Stop]()
    if plan.is_serial and rate > 0:
        last = int(np.flatnonzero(record.valid.all(1))[-1]) if record.valid.all(1).any() else -1
        windows = opportunity_windows(record.before[last], record.room[last], bottleneck, rate)
        stops = stops_of(record, bottleneck, rate)
    return Measured(
        record, recent, begin, key_figures(recent, efficiency), tuple(shifts), windows, tuple(stops), rate,
        _batch_error(made), float(1.0 - record.valid.mean()),
    )  # fmt: skip


def _batch_error(values: Floats, n_batches: int = 20) -> float:
    """Standard error of a mean of values that follow on each other, by means of batches."""
    if len(values) < 2 * n_batches:
        return float("nan")
    kept = values[: len(values) // n_batches * n_batches].reshape(n_batches, -1).mean(1)
    return float(kept.std(ddof=1) / np.sqrt(n_batches))
