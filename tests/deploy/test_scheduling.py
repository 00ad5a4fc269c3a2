"""Scheduling where it is allowed, and what to do where it is not: in processes of their own, since it stays."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys

import pytest

from twinloop.deploy.commands.timing import add_timing, keep_time
from twinloop.deploy.scheduling import garbage_frozen, use_cpus, use_realtime
from twinloop.envs.errors import ConfigurationError

THREADS = """
import os, subprocess, sys, threading
from twinloop.deploy.scheduling import lower_priority, use_realtime
from twinloop.envs.errors import ConfigurationError
over = threading.Event()
early = threading.Thread(target=over.wait)
early.start()
try:
    use_realtime(3)
except ConfigurationError as error:
    print("refused", error)
    over.set()
    sys.exit()
found = [(os.sched_getscheduler(t), os.sched_getparam(t).sched_priority) for t in (0, early.native_id)]
child = subprocess.Popen(["sleep", "60"])
lower_priority(child.pid)
print(found, os.sched_getparam(child.pid).sched_priority)
child.kill()
child.wait()
over.set()
"""


def test_all_threads_become_real_time_and_a_policys_process_stays_below_them() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60.0)
    if done.stdout.startswith("refused"):  # this user may not; then the message must say what to do
        assert "LimitRTPRIO" in done.stdout
        return
    assert done.stdout.strip() == f"[({os.SCHED_RR}, 3), ({os.SCHED_RR}, 3)] 2"


@pytest.mark.parametrize("priority", [0, -1, 100])
def test_a_priority_that_there_is_not_is_refused(priority: int) -> None:
    with pytest.raises(ConfigurationError, match="give a priority from 1 to 99"):
        use_realtime(priority)


def test_without_permission_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(ConfigurationError, match="LimitRTPRIO=99"):
        use_realtime(1)


def test_cores_that_this_process_has_not_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--cpu: \[99999\]; this process may use the cores \["):
        use_cpus((99999,))


@pytest.mark.parametrize("word", ["x", "", "1;2"])
def test_cores_are_numbers(word: str) -> None:
    parser = argparse.ArgumentParser()
    add_timing(parser)
    with pytest.raises(ConfigurationError, match="give numbers of cores"):
        keep_time(parser.parse_args(["--cpu", word]))


def test_a_core_is_kept_to() -> None:
    core = min(os.sched_getaffinity(0))
    told = f"import os, twinloop.deploy.scheduling as s\ns.use_cpus(({core},))\nprint(os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60.0)
    assert done.stdout.strip() == f"{{{core}}}"


def test_garbage_is_frozen_inside_and_thawed_after() -> None:
    before = gc.get_freeze_count()
    with garbage_frozen():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0
