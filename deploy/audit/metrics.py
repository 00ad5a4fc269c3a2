"""Figures of a running loop for Prometheus, on this machine only.

:class:`LoopMetrics` is the runtime's ``on_period``: it counts, in the loop's thread, in microseconds, and raises
nothing. All that costs time, percentiles and the journal's rows, is worked out in the thread of the scrape.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cycle_clock import CycleClock, steal_s
from ..shield import Mode

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from ..loop import Period

_LOG = logging.getLogger(__name__)
_KEPT = 10_000
LOCALHOST = "127.0.0.1"


class LoopMetrics:
    """What a run's periods were like; of latencies the last 10,000, of cycles and their jitter all.

    ``journal``: the file whose rows are counted at each scrape.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self._journal = journal
        self._turn = threading.Lock()
        self._latency_s = np.full(_KEPT, np.nan)
        self._cycle = CycleClock()
        self._periods = self._missed = self._readings_lost = self._writes_unanswered = 0
        self._interventions: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self.failures = 0
        """Periods that could not be counted, which is a fault of this class and never ends a run."""

    def show(self, period: Period) -> None:
        """Count one period. Never raises."""
        try:
            with self._turn:
                self._count(period)
        except Exception:  # noqa: BLE001 - a figure that is missing must not end the control of a plant
            self.failures += 1

    def _count(self, period: Period) -> None:
        place, decision = self._periods % _KEPT, period.decision
        self._latency_s[place] = period.latency_ms / 1e3
        self._cycle = period.cycle
        self._periods += 1
        codes = Counter(reason.code.value for reason in decision.reasons)
        self._missed += "deadline_missed" in codes
        self._interventions.update(codes)
        self._readings_lost += period.telemetry is None
        self._writes_unanswered += period.accepted is None and any(acts.any() for acts in decision.acts.values())
        self._modes = Counter(mode.value for mode in decision.mode.values())

    def collect(self) -> Iterable[Metric]:
        """All figures, as Prometheus asks for them."""
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge

        with self._turn:
            latency_s, cycle = self._latency_s.copy(), self._cycle.figures()
            modes, interventions = dict(self._modes), dict(self._interventions)
            counts = {
                "periods": (self._periods, "control periods"),
                "missed_periods": (self._missed, "periods without a decision in time"),
                "cycle_misses": (cycle.misses, "periods of the wall without a cycle, or with one that ended too late"),
                "slow_cycles": (cycle.slow, "cycles that took over half a period"),
                "slow_cycle_steal_seconds": (cycle.steal_s, "time that the hypervisor gave to others in slow cycles"),
                "readings_lost": (self._readings_lost, "periods in which the plant gave no reading"),
                "writes_unanswered": (self._writes_unanswered, "writes to which the plant gave no answer"),
                "metrics_failures": (self.failures, "periods that could not be counted here"),
            }
        for name, (value, words) in counts.items():
            yield Count(f"twinloop_{name}", words, value=value)
        known = latency_s[np.isfinite(latency_s)]
        latencies = np.quantile(known, (0.5, 0.99, 0.999)) if len(known) else (math.nan,) * 3
        for name, (p50, p99, p999), longest, words in (
            ("decision", 1e3 * np.asarray(latencies), None, "from a reading to its decision in the journal, the last"),
            ("cycle", (cycle.p50_ms, cycle.p99_ms, cycle.p999_ms), cycle.max_ms, "all the work of a period"),
            (
                "jitter",
                (cycle.jitter_p50_ms, cycle.jitter_p99_ms, cycle.jitter_p999_ms),
                cycle.jitter_max_ms,
                "by which the time between two periods' starts differs from the period",
            ),
        ):
            family = Gauge(
                f"twinloop_{name}_seconds", f"seconds {words}; quantile 1 is the longest", labels=["quantile"]
            )
            for quantile, value_ms in (("0.5", p50), ("0.99", p99), ("0.999", p999), ("1", longest)):
                if value_ms is not None and math.isfinite(value_ms):
                    family.add_metric([quantile], float(value_ms) / 1e3)
            yield family
        by_code = Count("twinloop_interventions", "changes that the shield made, by code", labels=["code"])
        for code, n in sorted(interventions.items()):
            by_code.add_metric([code], n)
        yield by_code
        by_mode = Gauge("twinloop_assets", "assets in a mode", labels=["mode"])
        for mode in Mode:
            by_mode.add_metric([mode.value], modes.get(mode.value, 0))
        yield by_mode
        yield from self._outside()

    def _outside(self) -> Iterable[Metric]:
        """Figures of the machine and the disk; one that can't be had is left out."""
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge

        stolen_s = steal_s()
        if stolen_s is not None:
            yield Count("twinloop_cpu_steal_seconds", "time that the hypervisor gave to others", value=stolen_s)
        if self._journal is None:
            return
        rows = _rows(self._journal)
        yield Gauge("twinloop_journal_readable", "1 while the journal can be read", value=float(rows is not None))
        if rows is not None:
            yield Gauge("twinloop_journal_rows", "number of the journal's last row", value=rows)


def serve(metrics: LoopMetrics, port: int) -> Callable[[], None]:
    """Answer scrapes at ``http://127.0.0.1:PORT/metrics``, in a thread of its own; returns what ends that.

    A port that is taken costs the metrics, not the run: the log says so. Raises :class:`ModuleNotFoundError` without
    prometheus-client (extra ``audit``).
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, addr=LOCALHOST, registry=registry)
    except (OSError, OverflowError) as error:
        _LOG.error("no metrics at port %d (%s); the run goes on without: give a free port", port, error)
        return lambda: None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5.0)

    return end


@contextmanager
def served(port: int | None, journal: Path, also: Callable[[Period], None]) -> Iterator[Callable[[Period], None]]:
    """Inside, metrics are answered at ``port``; gives what to tell each period to, which tells ``also``.

    With None for a port there are no metrics, and prometheus-client need not be there.
    """
    if port is None:
        yield also
        return
    metrics = LoopMetrics(journal)
    end = serve(metrics, port)

    def show(period: Period) -> None:
        metrics.show(period)
        also(period)

    try:
        yield show
    finally:
        end()


def _rows(journal: Path) -> int | None:
    """Number of the last row; None while it can't be told."""
    try:
        with closing(sqlite3.connect(f"{Path(journal).absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)) as asked:
            (found,) = asked.execute("SELECT max(sequence) FROM journal").fetchone()
    except sqlite3.Error:
        return None
    return int(found or 0)
