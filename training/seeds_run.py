"""A study: one configuration with many seeds, each seed a process of its own.

study.json      the seeds
config.yaml     the resolved configuration, whose seed each process replaces
seed_0/ ...     a run folder a seed, as run_folder.py says
logs/           what each process had to say
summary.md .csv .json    what the seeds found, once all are done

A seed that fails leaves the others alone. A study that was stopped goes on with the seeds that have not ended, each
from its last whole iteration, bit for bit; a seed is the same run whether it ran in a study or alone.
"""

from __future__ import annotations

import enum
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..envs.configuration import dump, load
from ..envs.errors import RunError
from .comparison_runs import STUDY_FILE, read_runs, seed_folder
from .configuration import TrainConfiguration, training_model
from .output_folder import make_folder
from .report import Cell, Table, provenance
from .run import IterationReport
from .run_folder import RunFolder
from .run_settings import PLANT_GAIN, TWIN_REWARD
from .run_statistics import FEWEST_RUNS, interquartile_mean_interval
from .seed_process import CONFIG_FILE, EXIT_STOPPED

_POLL_S = 0.2
_SAVE_WITHIN_S = 120.0
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class SeedState(enum.StrEnum):
    """What has become of a seed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class SeedStatus:
    """One seed of a study; ``why`` is the last line of the log of one that failed."""

    seed: int
    state: SeedState
    log: Path
    report: IterationReport | None = None
    why: str = ""


OnChange = Callable[[Sequence[SeedStatus]], None]


@dataclass
class _Child:
    status: SeedStatus
    process: subprocess.Popen[str]
    reader: threading.Thread


@dataclass
class Study:
    """The seeds of one configuration in one folder."""

    folder: Path
    seeds: tuple[int, ...]
    _lines: queue.Queue[tuple[SeedStatus, str]] = field(default_factory=queue.Queue, repr=False)

    @staticmethod
    def create(folder: Path, config: TrainConfiguration, seeds: Sequence[int]) -> Study:
        """Begin a study in a new folder."""
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder}: is not empty; choose a new folder")
        make_folder(folder)
        (folder / CONFIG_FILE).write_text(dump(config), encoding="utf-8")
        (folder / STUDY_FILE).write_text(json.dumps({"seeds": list(seeds)}) + "\n", encoding="utf-8")
        return Study(folder, tuple(seeds))

    @staticmethod
    def is_study(folder: Path) -> bool:
        """Whether a folder holds a study, not a single run."""
        return (folder / STUDY_FILE).is_file()

    @staticmethod
    def open(folder: Path) -> Study:
        """A study that was begun; raises :class:`RunError` where there is none."""
        if not Study.is_study(folder):
            raise RunError(f"{folder}: no study, it has no {STUDY_FILE}; give what `twinloop train --seeds` made")
        return Study(folder, tuple(json.loads((folder / STUDY_FILE).read_text(encoding="utf-8"))["seeds"]))

    def configuration(self) -> TrainConfiguration:
        """The configuration that all seeds share."""
        file = self.folder / CONFIG_FILE
        return load(file, training_model(file))

    def statuses(self) -> list[SeedStatus]:
        """Every seed as its folder tells: done, or waiting."""
        return [
            SeedStatus(
                seed,
                SeedState.WAITING if RunFolder(seed_folder(self.folder, seed)).result() is None else SeedState.DONE,
                self.folder / "logs" / f"seed_{seed}.log",
            )
            for seed in self.seeds
        ]

    def run(
        self, parallel: int, on_change: OnChange | None = None, *, workers: int | None = None, device: str | None = None
    ) -> list[SeedStatus]:
        """Run all seeds that have not ended, ``parallel`` at a time, and say what became of each.

        After Ctrl-C every process saves and ends, and the seeds are ``stopped`` or ``waiting``; a second Ctrl-C ends
        them at once.
        """
        if parallel < 1:
            raise RunError(f"--parallel: {parallel}; give a positive number of processes")
        make_folder(self.folder / "logs")
        statuses = self.statuses()
        more = [f"--{k}={v}" for k, v in (("workers", workers), ("device", device)) if v is not None]
        waiting = [status for status in statuses if status.state is SeedState.WAITING]
        children: list[_Child] = []
        tell = on_change or (lambda changed: None)
        try:
            while waiting or children:
                while waiting and len(children) < parallel:
                    children.append(self._start(waiting.pop(0), more))
                self._listen()
                for child in [c for c in children if c.process.poll() is not None]:
                    children.remove(child)
                    self._finish(child, stopping=False)
                tell(statuses)
        except KeyboardInterrupt:
            self._stop(children)
        finally:
            for child in children:  # none, unless something of ours failed
                child.process.kill()
        tell(statuses)
        return statuses

    def _start(self, status: SeedStatus, more: Sequence[str]) -> _Child:
        command = [sys.executable, "-m", "twinloop.training.seed_process", str(self.folder), str(status.seed), *more]
        with status.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                start_new_session=True,  # Ctrl-C comes from here, once, not from the terminal as well
            )
        assert process.stdout is not None  # a pipe was asked for
        reader = threading.Thread(target=self._read, args=(status, process.stdout), daemon=True)
        reader.start()
        status.state = SeedState.RUNNING
        return _Child(status, process, reader)

    def _read(self, status: SeedStatus, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put((status, line))

    def _listen(self, timeout_s: float = _POLL_S) -> None:
        """Take over all reports that have come, waiting a little for the first."""
        try:
            status, line = self._lines.get(timeout=timeout_s)
            while True:
                status.report = IterationReport(**json.loads(line))
                status, line = self._lines.get_nowait()
        except queue.Empty:
            return

    def _finish(self, child: _Child, *, stopping: bool) -> None:
        child.reader.join()
        self._listen(0.0)
        status, code = child.status, child.process.returncode
        if code == 0:
            status.state = SeedState.DONE
        elif stopping or code == EXIT_STOPPED:
            status.state = SeedState.STOPPED
        else:
            status.state = SeedState.FAILED
            status.why = f"{_last_error(status.log)} (exit status {code})"

    def _stop(self, children: list[_Child]) -> None:
        """Let every process save and end; end them at once after a second Ctrl-C, or when one takes too long."""
        last_s = time.monotonic() + _SAVE_WITHIN_S
        for child in children:
            _signal(child.process, signal.SIGINT)
        try:
            while any(child.process.poll() is None for child in children) and time.monotonic() < last_s:
                self._listen()
        except KeyboardInterrupt:
            last_s = 0.0
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()
            self._finish(child, stopping=True)
        children.clear()

    def summary(self) -> Table:
        """What the seeds that have ended found; intervals from three seeds on. At least one must have ended."""
        ended = [status.seed for status in self.statuses() if status.state is SeedState.DONE]
        runs = read_runs(seed_folder(self.folder, seed) for seed in ended)
        measured = {name for run in runs for row in run.rows for name in row}
        rows: list[tuple[Cell, ...]] = []
        for figure in (TWIN_REWARD, PLANT_GAIN):
            if figure == PLANT_GAIN and figure not in measured:
                continue
            for what, scores in (
                ("final", [run.final(figure) for run in runs]),
                ("best", [run.best(figure) for run in runs]),
            ):
                told: Cell = None
                if len(scores) >= FEWEST_RUNS:
                    interval = interquartile_mean_interval([scores])
                    told = f"{interval.estimate:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
                rows.append((f"{figure}, {what}", told, min(scores), max(scores), len(scores)))
        missing = [str(seed) for seed in self.seeds if seed not in ended]
        notes = (
            *([f"Not in it, since they have not ended: seed {', '.join(missing)}."] if missing else []),
            f"IQM: interquartile mean with a 95 % bootstrap interval over seeds, from {FEWEST_RUNS} seeds on.",
            "final: the policy that the run ended with. best: the largest evaluation of each run, which chance helps.",
        )
        seeds = {run.seed: {"final": run.final(TWIN_REWARD), "folder": run.path.name} for run in runs}
        name = self.configuration().name
        return Table(
            f"{name}: {len(runs)} seeds", ("figure", "IQM [95 %]", "lowest", "highest", "seeds"), tuple(rows), notes,
            {"seeds": seeds},
        )  # fmt: skip

    def write_summary(self, table: Table) -> list[Path]:
        """Write the summary's files into the study's folder."""
        return table.write(self.folder, "summary", provenance(self.seeds))


def _signal(process: subprocess.Popen[str], number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _last_error(log: Path) -> str:
    """The line of a log that says most about how it ended: the last ``...Error: ...``, else the last one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if line.split(":", 1)[0].endswith(("Error", "error"))]
    return (named or lines or ["said nothing"])[-1]
