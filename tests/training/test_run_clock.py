"""CPU seconds of a process and of all that it started, against what those processes say of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from twinloop.training.run_clock import RunClock

BURN = "import time\nwhile time.process_time() < 0.4: pass\nprint(time.process_time(), flush=True)"


def test_work_of_this_process_counts_and_sleep_does_not() -> None:
    clock = RunClock()
    before = time.process_time()
    while time.process_time() - before < 0.2:
        pass
    time.sleep(0.2)
    figures = clock.figures()
    assert abs(figures["cpu_s"] - (time.process_time() - before)) < 0.06  # the kernel counts in hundredths
    assert figures["wall_s"] >= 0.4


def test_work_of_a_child_counts_while_it_lives_and_after_it_has_ended() -> None:
    clock = RunClock()
    own = time.process_time()
    with subprocess.Popen(
        [sys.executable, "-c", BURN + "\ninput()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        used_s = float(child.stdout.readline())
        clock._looked_s = float("-inf")  # look for new processes now, not in some seconds
        living = clock.figures()["cpu_s"]
        child.communicate("\n")
    ended = clock.figures()["cpu_s"]
    expected = used_s + time.process_time() - own
    assert abs(living - expected) < 0.1
    assert abs(ended - expected) < 0.1


def test_the_sum_never_falls_when_a_child_takes_its_seconds_along() -> None:
    """An orphan is waited for by nobody of ours: its seconds were counted, and must stay."""
    clock = RunClock()
    middle = (
        "import subprocess, sys, os\n"
        f"p = subprocess.Popen([sys.executable, '-c', {(BURN + chr(10) + 'import time; time.sleep(30)')!r}],"
        " stdout=subprocess.PIPE, text=True)\n"
        "print(p.stdout.readline().strip(), p.pid, flush=True)\ninput()\nos._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", middle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        used, pid = child.stdout.readline().split()
        clock._looked_s = float("-inf")
        before = clock.figures()["cpu_s"]
        assert before >= float(used) - 0.05
        os.kill(int(pid), 9)
        child.communicate("\n")
    clock._looked_s = float("-inf")
    assert clock.figures()["cpu_s"] >= before


def test_a_clock_goes_on_from_the_row_of_an_earlier_sitting() -> None:
    figures = RunClock.after({"wall_s": 100.0, "cpu_s": 50.0}).figures()
    assert 100.0 <= figures["wall_s"] < 101.0
    assert 50.0 <= figures["cpu_s"] < 51.0
    assert RunClock.after(None).figures()["wall_s"] < 1.0
