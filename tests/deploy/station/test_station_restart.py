"""The whole command, killed in mid-operation: the next one goes on from what the plant obeys, and stays stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.deploy.presses import served, until

from twinloop.deploy.journal import read, verify
from twinloop.deploy.station.folder import StationFolder, read_whole
from twinloop.deploy.station.order import Order, new_id, place

STEP = 10.0


@contextmanager
def control(endpoint: str, station: StationFolder, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Without a watchdog, which would take the plant to its safe state before the next one comes."""
    words = [sys.executable, "-m", "twinloop", "run", "--policy", "random", "--endpoint", endpoint]
    process = subprocess.Popen(
        [*words, "--watchdog-periods", "0", "--station", str(station.path), *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def number(station: StationFolder, pid: int) -> int:
    """The period that this process is in, 0 before its first."""
    sheet, state = read_whole(station.control), read_whole(station.state)
    told = sheet is not None and sheet["pid"] == pid and state is not None and state["utc_s"] > sheet["started_utc_s"]
    return int(state["number"]) if told and state is not None else 0


def settled(plant: Any) -> Any:
    """What the plant obeys, when a write that was under way has arrived."""
    while True:
        before = plant.commands.copy()
        time.sleep(1.0)
        if np.array_equal(plant.commands, before):
            return before


def mode_order(station: StationFolder, mode: str) -> str:
    now_s = time.time()
    order = Order.model_validate(
        {"id": new_id(), "kind": "mode", "by": "anna", "mode": mode, "utc_s": now_s, "expires_utc_s": now_s + 600.0}
    )
    place(station, order)
    return order.id


def test_a_killed_control_goes_on_without_a_bump_and_stays_stopped_until_a_reset(tmp_path: Path) -> None:
    station = StationFolder(tmp_path / "station")
    with served() as (plant, endpoint):
        with control(endpoint, station) as first:
            assert until(lambda: number(station, first.pid) > 2 and plant.commands.max() > 3.0 * STEP, 90.0)
            second = subprocess.run(
                [*first.args, "--periods", "1"],  # type: ignore[misc]  # the list that it was started with
                capture_output=True, text=True, timeout=90.0, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert second.returncode == 2
            assert f"process {first.pid} controls it already" in second.stderr + second.stdout
            os.kill(first.pid, signal.SIGKILL)
            first.wait(30.0)
        held = settled(plant)
        late = mode_order(station, "shadow")  # placed while nobody controls
        n_before = len(plant.history)
        with control(endpoint, station, "--mode", "approved") as second_control:
            assert until(lambda: number(station, second_control.pid) > 2, 90.0)
            result = read_whole(station.done / f"{late}.json")
            assert result is not None
            assert "before this control process started" in result["why"]
            higher = mode_order(station, "autonomous")
            assert until((station.done / f"{higher}.json").exists, 30.0)
            refused = read_whole(station.done / f"{higher}.json")
            assert refused is not None
            assert not refused["accepted"]
            os.kill(second_control.pid, signal.SIGKILL)
            second_control.wait(30.0)
        assert len(plant.history) > n_before, "approved mode writes what the plant holds"
        np.testing.assert_allclose(plant.commands, held)  # nobody approved anything: it holds what it held

        station.stop.write_text("shift B\n", encoding="utf-8")
        with control(endpoint, station) as third:
            assert until(lambda: bool((plant.commands == 0.0).all()) and number(station, third.pid) > 1, 90.0)
            state = read_whole(station.state)
            assert state is not None
            assert state["stop"] is True
            assert state["groups"]["press"]["slot"]["force_set"] == [2, 2]
            third.send_signal(signal.SIGTERM)
            third.wait(60.0)
        ended = read_whole(station.state)
        assert ended is not None
        assert ended["ended"] == "interrupted"
    assert plant.excess(0.0) <= 1e-6
    assert station.stop.exists()
    assert verify(station.journal).is_sound
    starts = [row for row in read(station.journal) if row["kind"] == "start"]
    assert [row["mode"] for row in starts] == ["autonomous", "approved", "autonomous"]
