"""``twinloop overview`` in a real terminal of its own, against a loop that runs."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.deploy.console.rig import PATIENCE_S, until

from twinloop.__main__ import main
from twinloop.deploy.station.folder import StationFolder, read_whole, write_whole
from twinloop.training.benchmarks.console_site import LiveStation, running_station


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStation]:
    with running_station(tmp_path_factory.mktemp("overview") / "mills") as found:
        until(found.folder.state.exists)
        yield found


def test_once_prints_the_site_and_ends_with_0_while_it_is_fresh(
    live: LiveStation, capsys: pytest.CaptureFixture[str]
) -> None:
    live.plant.bad = {1}
    until(lambda: (read_whole(live.folder.state) or {})["modes"]["mill/M02"] == "backup")
    until(lambda: main(["overview", "--station", str(live.folder.path), "--once"]) == 0)
    live.plant.bad = set()
    shown = capsys.readouterr().out
    for words in ("mills", "running", "M01", "autonomous", "16 policy", "▲ 2 backup", "bad readings: power_kw"):
        assert words in shown


def test_a_live_twin_that_died_is_told_with_its_age_and_as_an_alarm(
    live: LiveStation, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = live.folder.twin / "verdict.json"
    for age_s, words in ((2.0, "live twin: heard"), (40.0, "live twin: not heard for")):
        then_s = time.time() - age_s
        write_whole(verdict, {"open": True, "utc_s": then_s, "stale_after_s": 15.0}, durable=False)
        os.utime(verdict, (then_s, then_s))
        until(lambda: main(["overview", "--station", str(live.folder.path), "--once"]) == 0)
        shown = capsys.readouterr().out
        assert words in shown
    assert "the live twin has said nothing for more than 15 s" in shown
    verdict.unlink()


def test_a_station_that_never_ran_is_stale_and_a_folder_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    StationFolder(tmp_path / "s").make()
    assert main(["overview", "--station", str(tmp_path / "s"), "--once"]) == 1
    assert "no run yet" in capsys.readouterr().out
    assert main(["overview", "--station", str(tmp_path / "none"), "--once"]) == 2
    assert "no station" in capsys.readouterr().err


def test_a_key_stops_the_site_and_another_one_leaves(live: LiveStation) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "twinloop", "overview", "--station", str(live.folder.path)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    shown = b""

    def sees(words: bytes) -> bool:
        nonlocal shown
        if select.select([master], [], [], 0.05)[0]:
            with suppress(OSError):  # nobody has the other end any more
                shown += os.read(master, 65536)
        return words in shown

    try:
        until(lambda: sees(b"M01"))
        os.write(master, b"s")
        until(lambda: (read_whole(live.folder.state) or {}).get("stop"))
        until(lambda: sees(b"EMERGENCY STOP HELD"))
        assert "key" in live.folder.stop.read_text()
        os.write(master, b"q")
        until_s = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < until_s:
            sees(b"")
        assert process.wait(1.0) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
