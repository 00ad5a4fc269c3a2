"""How old a value is when somebody sees it, how long an approval takes, and how soon a silence shows."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...deploy.station.folder import StationFolder, read_whole
from ...deploy.station.order import Order, new_id, place
from ...envs.errors import ConfigurationError
from ..report import Cell, Table, print_table, provenance
from .console_site import PASSWORD, LiveStation, Mills, make_people, mills, running_station

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAME = "console"
SUMMARY = "the pages in real browsers: age of values, approve to acknowledged, stale data shown as stale"

AGE_BAR_S, APPROVE_BAR_S, STALE_BAR_S = 0.2, 0.3, 2.0
DESCRIPTION = """\
Run a loop of 200 signals at 5 Hz, the pages beside it, and --viewers browser pages (headless Chromium, Debian's) that
show all 200, each in a process of its own. Measure, in the browser: the age of the values when they are painted, since
the loop's period ended; from the click on "Approve" to "approved by" on the page; from the last period to the stale
banner when the loop is killed; from the moment that the pages' process hangs to the banner.
Exit status 0 when value age p95 < 0.2 s, approve to acknowledged p50 < 0.3 s, and all silence shows within 2 s.
"""
PERIOD_S, N_ASSETS, N_MEASURED = 0.2, 40, 4
_PATIENCE_S = 60.0
_LISTEN = """(() => {
    window.ages = []; let before = null;
    document.addEventListener("twinloop", event => {
        const t = event.detail.t;
        if (t === before) return;
        before = t;
        requestAnimationFrame(() => window.ages.push(Date.now() / 1000 - t));
    });
})()"""
_APPROVE = """() => new Promise(done => {
    const begun = performance.now();
    const seen = () => document.querySelector("#standing")?.textContent.includes("approved by");
    new MutationObserver((_, self) => { if (seen()) { self.disconnect(); done(performance.now() - begun); } })
        .observe(document.body, { childList: true, subtree: true });
    document.querySelector("#approve button").click();
})"""
_STALE = """() => new Promise(done => {
    const look = () => document.body.dataset.stale ? done(Date.now() / 1000) : setTimeout(look, 5);
    look();
})"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("--viewers", type=int, default=4, metavar="N", help="pages open at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of watching (%(default)g)")
    parser.add_argument("--approvals", type=int, default=20, metavar="N", help="proposals to approve (%(default)s)")
    parser.add_argument("--silences", type=int, default=5, metavar="N", help="times that the pages hang (%(default)s)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="FILE", help="the browser")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table, and a picture of the overview, there")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    if not arguments.chromium:
        raise ConfigurationError("no chromium is installed (Debian's package chromium); or give --chromium FILE")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        station = StationFolder(Path(folder) / "mills")
        station.make()
        make_people(station.people)
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        with _loop(station) as loop, _pages(station) as (url, process):
            context = browser.new_context()
            context.set_default_timeout(1000.0 * _PATIENCE_S)
            context.add_init_script(_LISTEN)
            _log_in(context, url)
            viewers = [_opened(browser.new_context, context, f"{url}/signals") for _ in range(arguments.viewers)]
            time.sleep(2.0)  # the first painting is not what is measured
            cpu_s = _cpu_s(process.pid)
            for viewer in viewers:
                viewer.evaluate("window.ages.length = 0")
            time.sleep(arguments.seconds)
            ages = [np.array(viewer.evaluate("window.ages")) for viewer in viewers]
            share = (_cpu_s(process.pid) - cpu_s) / arguments.seconds
            approvals = _approvals(context, station, url, arguments.approvals)
            hung = [_hung(viewers[0], process) for _ in range(arguments.silences)]
            silent = [_silent(station, viewers[0], loop)]
        if arguments.out is not None:
            _picture(browser, Path(folder) / "picture", Path(arguments.out) / "overview.png")
        browser.close()
    table, is_met = _table(ages, share, np.array(approvals), hung, silent, arguments)
    print_table(table)
    if arguments.out is not None:
        table.write(Path(arguments.out), NAME, provenance())
    return 0 if is_met else 1


def _table(
    ages: list[np.ndarray[tuple[int], np.dtype[np.float64]]],
    share: float,
    approvals: np.ndarray[tuple[int], np.dtype[np.float64]],
    hung: list[float],
    silent: list[float],
    arguments: argparse.Namespace,
) -> tuple[Table, bool]:
    every = np.concatenate(ages)
    worst = max(float(np.percentile(a, 95)) for a in ages)
    rate = min(len(a) for a in ages) / arguments.seconds
    age_p95, approve_p50 = float(np.percentile(every, 95)), float(np.median(approvals))
    rows: list[tuple[Cell, ...]] = [
        ("age of values, p50", float(np.median(every)), None, len(every)),
        ("age of values, p95", age_p95, AGE_BAR_S, len(every)),
        ("age of values, p95 of the worst viewer", worst, AGE_BAR_S, len(every)),
        ("approve to acknowledged, p50", approve_p50, APPROVE_BAR_S, len(approvals)),
        ("approve to acknowledged, p95", float(np.percentile(approvals, 95)), None, len(approvals)),
        ("pages hang: from then to stale, longest", max(hung), STALE_BAR_S, len(hung)),
        ("loop killed: last period to stale", max(silent), STALE_BAR_S, len(silent)),
        ("updates a second, slowest viewer", rate, None, len(every)),
        ("CPU of the pages' process, share of one core", share, None, 1),
    ]
    is_met = worst < AGE_BAR_S and approve_p50 < APPROVE_BAR_S and max(*hung, *silent) < STALE_BAR_S
    notes = (
        f"{arguments.viewers} pages of headless Chromium, each showing {N_ASSETS * (N_MEASURED + 1)} signals at "
        f"{1 / PERIOD_S:g} Hz, the loop, the pages' process and the browser on one machine of {os.cpu_count()} cores; "
        f"load at the end {os.getloadavg()[0]:.1f}, scheduling of all of them {_scheduling()}.",
        "Age: from the end of the loop's period, when its state was made, to the frame that shows it; seconds.",
        "Approve: from the click to the signed approval on the page, the check of the password (scrypt) included.",
        "Stale: the banner and the marked values, by the browser's clock, which is the loop's.",
    )
    title = f"Pages of a station with {arguments.viewers} viewers"
    return Table(title, ("what", "measured", "bar", "samples"), tuple(rows), notes), is_met


@contextmanager
def _loop(station: StationFolder) -> Iterator[multiprocessing.context.SpawnProcess]:
    """The control process."""
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_control, args=(station.path,), daemon=True)
    process.start()
    try:
        _until(station.state.exists)
        yield process
    finally:
        process.kill()
        process.join()


def _control(path: Path) -> None:
    with running_station(path, n_assets=N_ASSETS, n_measured=N_MEASURED, period_s=PERIOD_S):
        while True:  # until it is killed, as whoever looks must be able to stand
            time.sleep(3600.0)


@contextmanager
def _pages(station: StationFolder) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "twinloop", "console", "--station", str(station.path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20.0)


def _log_in(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(f"{url}/login")
    page.fill("input[name=name]", "ben")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")
    page.close()


def _opened(new_context: Callable[..., BrowserContext], known: BrowserContext, url: str) -> Page:
    """A browser of its own, so that no page is in the background of another."""
    context = new_context(storage_state=known.storage_state())
    context.add_init_script(_LISTEN)
    page = context.new_page()
    page.goto(url)
    return page


def _approvals(context: BrowserContext, station: StationFolder, url: str, n: int) -> list[float]:
    proposer = LiveStation(station, Mills(mills(N_ASSETS, N_MEASURED, PERIOD_S)))
    page = context.new_page()
    found = []
    for _ in range(n):
        proposal = proposer.propose("anna")
        page.goto(f"{url}/proposals/{proposal.id}")
        page.fill("input[name=password]", PASSWORD)
        found.append(page.evaluate(_APPROVE) / 1000.0)
    page.close()
    return found


def _hung(page: Page, process: subprocess.Popen[bytes]) -> float:
    """Seconds from the stop of the pages' process to the banner; it goes on afterwards."""
    page.wait_for_selector("#stale", state="hidden", timeout=1000.0 * _PATIENCE_S)
    begun_s = time.time()
    process.send_signal(signal.SIGSTOP)
    seen_s: float = page.evaluate(_STALE)
    process.send_signal(signal.SIGCONT)
    return seen_s - begun_s


def _silent(station: StationFolder, page: Page, loop: multiprocessing.context.SpawnProcess) -> float:
    """Seconds from the last period's end to the banner, after the loop was killed."""
    page.wait_for_selector("#stale", state="hidden", timeout=1000.0 * _PATIENCE_S)
    loop.kill()
    loop.join()
    last = read_whole(station.state)
    seen_s: float = page.evaluate(_STALE)
    return seen_s - float((last or {})["utc_s"])


def _scheduling() -> str:
    """How this process and those that it starts get their turns."""
    names = {os.SCHED_OTHER: "plain", os.SCHED_RR: "SCHED_RR", os.SCHED_FIFO: "SCHED_FIFO"}
    policy = os.sched_getscheduler(0)
    return f"{names.get(policy, str(policy))} (niceness {os.nice(0)})"


def _picture(browser: Browser, folder: Path, file: Path) -> None:
    """The overview of a smaller site: one mill's sensors are bad, and another one is run by hand."""
    with running_station(folder, n_assets=12) as live:
        shutil.copy(folder.parent / "mills" / "people.json", live.folder.people)
        _until(live.folder.state.exists)
        with _pages(live.folder) as (url, _):
            context = browser.new_context(viewport={"width": 1000, "height": 560})
            context.set_default_timeout(1000.0 * _PATIENCE_S)
            _log_in(context, url)
            time.sleep(10.0)  # until it can be said what is usual
            live.plant.bad = {6}
            order_id, now_s = new_id(), time.time()
            held = {"mill/M03/speed_pu": 0.6}
            place(
                live.folder,
                Order(id=order_id, kind="manual", by="olga", utc_s=now_s, expires_utc_s=now_s + 10.0, values=held),
            )
            page = context.new_page()
            page.goto(f"{url}/")
            page.wait_for_selector(".assets li[data-state=medium]")
            time.sleep(2.0)
            page.screenshot(path=file)
            context.close()


def _until(fact: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    while not fact():
        if time.monotonic() > until_s:
            raise ConfigurationError(f"the station did not start within {_PATIENCE_S:g} s; is the machine overloaded?")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    parts = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
