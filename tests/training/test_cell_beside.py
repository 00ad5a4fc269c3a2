"""What the benchmark of a cell's edge says of processes beside an arm: whether torch is in one, what is to be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from twinloop.training.benchmarks.cell_beside import libraries_of_torch, overview


def test_torch_is_found_in_a_process_that_has_it_and_in_no_other() -> None:
    assert torch.__version__
    assert libraries_of_torch(os.getpid()) > 0
    waits = "import sys, numpy; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        assert libraries_of_torch(other.pid) == 0


def test_an_overview_of_a_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    (line,) = overview(tmp_path / "away")
    assert "no station" in line
