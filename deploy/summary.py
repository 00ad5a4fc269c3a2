"""What a run amounts to: counts, latencies, energy, and how it ended."""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..envs.nameplate import Nameplate
from ..envs.plant import Arrays
from .shield import Decision, Source

POWER_SIGNAL, POWER_UNIT = "power_kw", "kW"
_N_LATENCIES = 100_000
LATENCY_EDGES_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0)


class Ending(enum.StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    PLANT_LOST = "plant lost"
    JOURNAL_LOST = "journal lost"
    FAILED = "failed"


@dataclass(frozen=True)
class RunSummary:
    """``interventions``: reasons counted by code; ``fallback_periods``: periods with an asset on its fallback;
    ``rejected_periods``: periods in which the plant accepted something else than was sent; ``missed_periods``: periods
    whose decision was late, so that the standby went out; latencies: from reading to the journal, without the plant's
    own time; ``latency_counts``: all of them by :data:`LATENCY_EDGES_MS`; ``energy_kwh``: over the periods with a
    reading, None where no ``power_kw`` is measured; ``handed_back``: whether every asset was left at neutral;
    ``journal_head``: hash of the last row.
    """

    ending: Ending
    periods: int
    interventions: Mapping[str, int]
    fallback_periods: int
    substituted_periods: int
    rejected_periods: int
    missed_periods: int
    plant_errors: int
    tripped: bool
    handed_back: bool
    latency_p50_ms: float
    latency_p99_ms: float
    latency_counts: tuple[int, ...]
    energy_kwh: float | None
    journal_head: str
    detail: str = ""


class Tally:
    """Counts while a run goes on; memory stays bounded however long it does."""

    def __init__(self, nameplate: Nameplate) -> None:
        self.periods = 0
        self.rejected_periods = 0
        self.fallback_periods = 0
        self.substituted_periods = 0
        self.interventions: Counter[str] = Counter()
        self._latencies_ms = np.zeros(_N_LATENCIES)
        self._counts = np.zeros(len(LATENCY_EDGES_MS) + 1, dtype=np.int64)
        self._hours = nameplate.period_s / 3600.0
        self._power_columns = {
            g.name: k
            for g in nameplate.groups
            for k, s in enumerate(g.measured)
            if s.name == POWER_SIGNAL and s.unit == POWER_UNIT
        }
        self._energy_kwh = 0.0

    @property
    def energy_kwh(self) -> float | None:
        return self._energy_kwh if self._power_columns else None

    def count(self, decision: Decision, values: Arrays | None, latency_ms: float) -> None:
        """Add one period; ``values`` are guarded measurements ``[N, O]`` per group, None where the plant gave none."""
        self.periods += 1
        self.interventions.update(r.code.value for r in decision.reasons)
        sources = decision.source.values()
        self.fallback_periods += Source.FALLBACK in sources
        self.substituted_periods += Source.SUBSTITUTED in sources
        self._latencies_ms[(self.periods - 1) % _N_LATENCIES] = latency_ms
        self._counts[bisect_left(LATENCY_EDGES_MS, latency_ms)] += 1
        if values is None:
            return
        for name, column in self._power_columns.items():
            self._energy_kwh += float(np.sum(values[name][:, column])) * self._hours

    @property
    def latency_counts(self) -> tuple[int, ...]:
        """Decisions of the whole run by latency: up to each of ``LATENCY_EDGES_MS``, and beyond the last."""
        return tuple(self._counts.tolist())

    def latency_ms(self, percentile: float) -> float:
        """Percentile of the latest latencies, 0 before the first."""
        known = self._latencies_ms[: self.periods]
        return float(np.percentile(known, percentile)) if len(known) else 0.0
