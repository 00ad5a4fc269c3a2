"""An emulated plant behind its OPC UA server in another process, controlled by an artifact through the shield."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ..agents.artifact import load_artifact
from ..deploy.journal import Journal, verify
from ..deploy.plants import plant_declaration
from ..deploy.runtime import Period, Runtime, RuntimeSettings
from ..deploy.shield import Shield
from ..deploy.summary import Ending
from ..envs.errors import PlantError

ANY_PORT = "opc.tcp://127.0.0.1:0/twinloop"
_START_WITHIN_S = 90.0
_STOP_WITHIN_S = 10.0
# The demo's plant is stepped, and the machine busy: a policy that takes half a second there is not late.
_SETTINGS = RuntimeSettings(deadline_max_s=10.0, decision_max_s=20.0)


def control_served_plant(
    artifact: Path, plant_file: Path, n_periods: int, folder: Path, on_period: Callable[[Period], None] | None = None
) -> dict[str, Any]:
    """Start the plant's server, run the artifact on it for ``n_periods``, stop the server; returns the run's summary.

    ``folder`` gets the server's output and the journal. Raises :class:`PlantError` when the server does not start or
    the run does not reach its end, and KeyboardInterrupt after Ctrl-C, when the assets have been handed back.
    """
    # Here, not above: a machine that only compares policies in process needs no asyncua.
    from ..deploy.drivers.opcua_client import OpcUaPlant

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "journal.sqlite"
    for stale in folder.glob("journal.sqlite*"):
        stale.unlink()  # a run that was cut short left it; the journal tells of one run
    with served_plant(plant_file, folder / "server.log") as endpoint:
        plant = OpcUaPlant(endpoint)
        try:
            nameplate = plant.nameplate
            policy = load_artifact(artifact, nameplate)
            with Journal(path) as journal:
                shield = Shield(plant_declaration(plant_file) or nameplate)
                summary = Runtime(plant, policy, shield, journal, _SETTINGS).run(n_periods, on_period)
        finally:
            plant.close()
    if summary.ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    if summary.ending is not Ending.COMPLETED:
        raise PlantError(f"{endpoint}: the run ended early ({summary.ending}): {summary.detail}; see {folder}")
    report = verify(path, summary.journal_head)
    return {
        **asdict(summary),
        "ending": str(summary.ending),
        "interventions": dict(summary.interventions),
        "endpoint": endpoint,
        "nameplate_hash": nameplate.hash,
        "hours": n_periods * nameplate.period_s / 3600.0,
        "journal_rows": report.rows,
        "journal_is_sound": report.is_sound,
    }


@contextmanager
def served_plant(plant_file: Path, log: Path) -> Iterator[str]:
    """``twinloop commission`` in a process of its own, stepped by its client; yields the endpoint it took."""
    command = [sys.executable, "-m", "twinloop", "commission", str(plant_file), "--speed", "stepped"]
    # A session of its own: Ctrl-C on the terminal must reach the runtime first, which hands the assets back.
    process = subprocess.Popen(
        [*command, "--endpoint", ANY_PORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None  # a pipe was asked for
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_copy, args=(process.stdout, log, lines), daemon=True)
    reader.start()
    try:
        yield _endpoint(lines, log)
    finally:
        if process.poll() is None:
            process.terminate()  # not SIGINT: what a shell put into the background inherits that one ignored
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(_STOP_WITHIN_S)
        process.stdout.close()


def _copy(stream: IO[str], log: Path, lines: queue.Queue[str | None]) -> None:
    with log.open("w", encoding="utf-8") as file:
        for line in stream:
            file.write(line)
            file.flush()
            lines.put(line)
    lines.put(None)


def _endpoint(lines: queue.Queue[str | None], log: Path) -> str:
    """Wait until the server says that it serves; raises :class:`PlantError` with its last words when it does not."""
    endpoint, last = "", ""
    while True:
        try:
            line = lines.get(timeout=_START_WITHIN_S)
        except queue.Empty:
            raise PlantError(f"the plant's server said nothing for {_START_WITHIN_S:g} s; see {log}") from None
        if line is None:
            raise PlantError(f"the plant's server did not start: {last.strip() or 'no message'}; see {log}")
        last = line
        if line.startswith("endpoint"):
            endpoint = line.split()[1]
        if line.startswith("serving"):
            return endpoint
