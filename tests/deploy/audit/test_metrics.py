"""Prometheus sees what the loop does; the loop does not notice."""

from __future__ import annotations

import logging
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.deploy.audit.pumps import run_pumps

from twinloop.deploy.audit.metrics import LoopMetrics, serve, served
from twinloop.deploy.journal import read
from twinloop.deploy.runtime import Period
from twinloop.deploy.summary import Ending

Figures = dict[tuple[str, str], float]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def scraped(port: int) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10.0) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, next(iter(s.labels.values()), "")): s.value for f in families for s in f.samples}


def test_a_scrape_tells_what_the_summary_and_the_journal_do(tmp_path: Path) -> None:
    path, port, found = tmp_path / "j.sqlite", free_port(), Figures()
    metrics = LoopMetrics(path)
    end = serve(metrics, port)
    try:
        summary = run_pumps(path, 60, on_period=metrics.show, wall_period_s=60.0)
        found = scraped(port)
    finally:
        end()
    rows = read(path)
    assert found["twinloop_periods_total", ""] == 60
    assert found["twinloop_missed_periods_total", ""] == summary.missed_periods
    assert found["twinloop_readings_lost_total", ""] == 4  # periods 5, 22, 39 and 56
    assert found["twinloop_writes_unanswered_total", ""] == 3  # periods 9, 32 and 55
    assert found["twinloop_journal_rows", ""] == len(rows)
    assert found["twinloop_journal_readable", ""] == 1
    codes = {code: n for (name, code), n in found.items() if name == "twinloop_interventions_total"}
    assert codes == summary.interventions
    assert found["twinloop_assets", "autonomous"] + found["twinloop_assets", "backup"] == 4
    decision = [found["twinloop_decision_seconds", q] for q in ("0.5", "0.99", "0.999")]
    assert decision == sorted(decision)
    assert decision[0] == pytest.approx(summary.latency_p50_ms / 1e3)
    assert decision[1] == pytest.approx(summary.latency_p99_ms / 1e3)
    cycle = [found["twinloop_cycle_seconds", q] for q in ("0.5", "0.99", "0.999", "1")]
    assert cycle == sorted(cycle)
    assert cycle[0] > decision[0]  # it has the reading and the write too
    assert found["twinloop_jitter_seconds", "1"] == pytest.approx(60.0, rel=0.05)  # stepped far faster than a period
    assert found["twinloop_cycle_misses_total", ""] == 0
    assert found["twinloop_metrics_failures_total", ""] == 0
    assert found["process_resident_memory_bytes", ""] > 1e6
    assert found["twinloop_cpu_steal_seconds_total", ""] >= 0.0


def test_a_display_is_told_of_each_period_with_metrics_and_without(tmp_path: Path) -> None:
    path, port, seen = tmp_path / "j.sqlite", free_port(), list[int]()
    for number in (port, None):
        with served(number, path, lambda period: seen.append(period.number)) as show:
            run_pumps(path, 3, on_period=show)
            if number is not None:
                found = scraped(port)
                assert found["twinloop_periods_total", ""] == 3
                assert ("twinloop_jitter_seconds", "0.5") not in found  # nobody said how long a period lasts
    assert seen == [1, 2, 3] * 2
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_missed_periods_are_counted(tmp_path: Path) -> None:
    metrics, seen = LoopMetrics(), list[Period]()

    def show(period: Period) -> None:
        seen.append(period)
        metrics.show(period)

    run_pumps(tmp_path / "j.sqlite", 3, on_period=show)
    import dataclasses

    from twinloop.deploy.shield import Code
    from twinloop.deploy.shield.decision import Reason

    late = dataclasses.replace(seen[-1].decision, reasons=(Reason("pump/P1", "", Code.DEADLINE_MISSED),) * 4)
    metrics.show(dataclasses.replace(seen[-1], decision=late))
    counts = {s.name: s.value for family in metrics.collect() for s in family.samples if not s.labels}
    assert counts["twinloop_missed_periods_total"] == 1
    assert counts["twinloop_periods_total"] == 4


def test_nothing_that_goes_wrong_in_the_figures_ends_a_run(tmp_path: Path) -> None:
    metrics = LoopMetrics()
    metrics._modes = None  # type: ignore[assignment]  # whatever a fault leaves behind
    metrics._interventions = None  # type: ignore[assignment]
    summary = run_pumps(tmp_path / "j.sqlite", 5, on_period=metrics.show)
    assert (summary.ending, summary.periods) == (Ending.COMPLETED, 5)
    assert metrics.failures == 5


def test_a_port_that_is_taken_costs_the_metrics_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken, caplog.at_level(logging.ERROR):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        serve(LoopMetrics(), port)()
    assert f"no metrics at port {port}" in caplog.text
    serve(LoopMetrics(), 70_000)()
    assert "no metrics at port 70000" in caplog.text


def test_only_this_machine_is_answered() -> None:
    port = free_port()
    end = serve(LoopMetrics(), port)
    try:
        assert scraped(port)["twinloop_periods_total", ""] == 0
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))  # bound to 127.0.0.1 alone, not to every address
    finally:
        end()


def test_a_journal_that_is_gone_is_said_and_not_raised(tmp_path: Path) -> None:
    metrics = LoopMetrics(tmp_path / "none.sqlite")
    values = {s.name: s.value for family in metrics.collect() for s in family.samples}
    assert values["twinloop_journal_readable"] == 0
    assert "twinloop_journal_rows" not in values
    assert not (tmp_path / "none.sqlite").exists()


def test_a_period_costs_microseconds_while_scrapes_come_as_fast_as_they_can(tmp_path: Path) -> None:
    metrics, seen = LoopMetrics(), list[Period]()
    run_pumps(tmp_path / "j.sqlite", 1, on_period=seen.append)
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            list(metrics.collect())

    scraper = threading.Thread(target=scrape)
    scraper.start()
    begun_s = time.thread_time()
    for _ in range(3000):
        metrics.show(seen[0])
    each_us = 1e6 * (time.thread_time() - begun_s) / 3000
    over.set()
    scraper.join()
    assert metrics.failures == 0
    assert each_us < 200.0
