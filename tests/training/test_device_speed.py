"""The device benchmark counts work as it is by hand, says where it ran, and refuses a GPU that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from twinloop.__main__ import main
from twinloop.training.benchmarks.device_work import WorkCounter, best_rates


def test_work_is_counted_as_by_hand() -> None:
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    with WorkCounter() as work:
        torch.mm(a, b).t().tanh()
    # the product makes 3 x 5 numbers of 4 multiplications and additions, tanh 15 more; a transpose is a view
    assert work.operations == 2 * 3 * 4 * 5 + 15 + 15
    assert work.moved_bytes == 4 * (12 + 20 + 15) + 4 * (15 + 15)
    assert work.launches == 2


def test_rates_of_this_machine_are_numbers_that_a_machine_can_have() -> None:
    bytes_per_s, operations_per_s = best_rates(torch.device("cpu"), 0.01)
    assert 1e7 < bytes_per_s < 1e14
    assert 1e7 < operations_per_s < 1e16


def test_it_runs_on_a_cpu_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--assets", "2", "--replicas", "4", "--steps", "4", "--iterations", "1"]
    assert main(["bench", "device_speed", "--device", "cpu", *sizes, "--out", str(tmp_path)]) == 0
    assert "no GPU" in capsys.readouterr().out
    written = json.loads((tmp_path / "device_speed.json").read_text())
    cases = written["data"]["cases"]
    assert [c["task"] for c in cases] == ["reference", "wind_farm"]
    for case in cases:
        assert 0 < case["floor_s"] < case["seconds"]
        assert 0 < case["least_bytes"] < case["eager_bytes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "device_speed", "--device", "cuda"]) != 0
    assert "torch finds no CUDA GPU here" in capsys.readouterr().err
