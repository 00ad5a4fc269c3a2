"""What a study looks like while it runs: a live line a running seed on a terminal, plain lines anywhere else."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from twinloop.training.progress import StudyDisplay, describe
from twinloop.training.run import IterationReport
from twinloop.training.seeds_run import SeedState, SeedStatus


def report(iteration: int, **figures: float) -> IterationReport:
    return IterationReport(iteration, 10, 100 * iteration, 2500.0, 75.0, {"reward/mean": -1.5, **figures})


def shown(*, is_terminal: bool) -> str:
    """Two seeds of which one runs and fails, and one was done before."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    statuses = [
        SeedStatus(0, SeedState.DONE, Path("logs/seed_0.log")),
        SeedStatus(1, SeedState.RUNNING, Path("logs/seed_1.log")),
    ]
    with StudyDisplay(console) as display:
        display(statuses)
        statuses[1].report = report(4)
        display(statuses)
        time.sleep(0.3)  # the live lines are drawn ten times a second
        statuses[1].state, statuses[1].why = SeedState.FAILED, "ValueError: no (exit status 1)"
        display(statuses)
        display(statuses)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_every_change_is_one_line() -> None:
    assert shown(is_terminal=False).splitlines() == [
        "seed 0: done before",
        "seed 1: iteration 4/10  reward -1.5  2,500 agent-steps/s  eta 1:15",
        "seed 1: failed: ValueError: no (exit status 1); log: logs/seed_1.log",
    ]


def test_on_a_terminal_a_running_seed_has_a_bar_and_an_ended_one_a_lasting_line() -> None:
    text = shown(is_terminal=True)
    assert "seed 1" in text
    assert "━" in text
    assert "4/10" in text
    assert text.count("failed: ValueError: no") == 1


def test_evaluations_are_told_where_an_iteration_has_them() -> None:
    told = describe(report(3, **{"evaluation/reward": -0.25, "plant/gain": 0.031, "asset/approximate_kl": 0.01}))
    assert told.startswith("reward -1.5  evaluation -0.25  plant gain 0.031  kl 0.010")


def test_the_newest_evaluation_stays_in_sight_until_the_next_one() -> None:
    later = replace(report(4), evaluations={"evaluation/reward": -0.25})
    assert describe(later).startswith("reward -1.5  evaluation -0.25  ")
    now = replace(report(5, **{"evaluation/reward": -0.125}), evaluations={"evaluation/reward": -0.25})
    assert describe(now).startswith("reward -1.5  evaluation -0.125  ")
