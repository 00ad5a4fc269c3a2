"""The benchmark's own arithmetic and manners; its figures are its business."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks import process_family, reference_task
from twinloop.training.benchmarks.process_family import MARK, FamilyMeter

PEER = """
import json, sys
speed = {"torch_ppo": 10, "central": 8, "peer": 5}["central" if "--mappo" in sys.argv else sys.argv[0].split(".")[0]]
print("noise")
print("RESULT " + json.dumps({"sps_cpu": speed, "sps_wall": speed, "uss_mb": 1, "wall_s": 1.0, "r0": -1, "r1": -0.5}))
"""


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    reference_task.configure(parser)
    return parser.parse_args(words)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    for name in ("torch_ppo", "peer"):
        (tmp_path / f"{name}.py").write_text(PEER)
    return tmp_path


def test_the_meter_counts_processes_that_inherited_the_mark_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    burn = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    burn += "print(1, flush=True)\ninput()"
    costs = {}
    for marked in (False, True):
        monkeypatch.setenv(MARK, f"test-{os.getpid()}-{marked}")
        environment = {**os.environ} if marked else {k: v for k, v in os.environ.items() if k != MARK}
        meter = FamilyMeter()
        with subprocess.Popen(
            [sys.executable, "-c", burn], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            costs[marked] = meter.read()
            child.communicate(b"\n")
    assert costs[True].n_processes == costs[False].n_processes + 1 == 2
    assert costs[True].cpu_s > 0.4 > costs[False].cpu_s  # 0.5 were burnt; the kernel counts in ticks of 10 ms
    assert costs[True].uss_mib > costs[False].uss_mib


def test_the_meter_reads_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARK, raising=False)
    meter, end = FamilyMeter(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    cost = meter.read()
    assert (cost.n_processes, cost.cpu_s >= 0.09, cost.wall_s >= 0.09) == (1, True, True)
    assert process_family.Cost.__doc__


def test_ratios_are_those_of_the_same_round() -> None:
    ours, theirs = [{"s": 20}, {"s": 30}, {"s": 10}], [{"s": 10}, {"s": 30}, {"s": 20}]
    ratio = reference_task._Ratio.of(ours, theirs, "s")
    assert (ratio.middle, ratio.least, ratio.most) == (1.0, 0.5, 2.0)
    assert str(ratio) == "1.00 (0.50 to 2.00)"


def test_sides_run_interleaved_and_a_missed_bar_is_the_exit_status(
    reference: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = {"shared": 15.0, "mappo": 9.0}
    real = reference_task._child

    def child(entrant: Any) -> dict[str, Any]:
        name = entrant.command[-1]
        if name not in speeds:
            return real(entrant)  # the real thing, in a process of its own
        return {"sps_cpu": speeds[name], "sps_wall": 9.0, "uss_mib": 100, "wall_s": 1.0, "r0": -1.0, "r1": -0.1}

    monkeypatch.setattr(reference_task, "_child", child)
    words = ("--reference", str(reference), "--cases", "shared,mappo", "--rounds", "2", "--out", str(reference / "out"))
    peer = ("--peer", f"peer:fast={sys.executable}")
    assert reference_task.run(arguments(*words, *peer)) == 0
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("round")]
    assert [line.split(":")[0] for line in lines] == ["round 1"] * 5 + ["round 2"] * 5
    written = json.loads((reference / "out" / "reference_task.json").read_text())
    assert {row[0]: row[3] for row in written["rows"]} == {
        "torch_ppo.py": "1.00 (1.00 to 1.00)",
        "torch_ppo.py --mappo": "0.80 (0.80 to 0.80)",
        "twinloop, weights shared": "1.50 (1.50 to 1.50)",
        "twinloop, MAPPO on the twin's state": "0.90 (0.90 to 0.90)",
        "peer.py fast": "0.50 (0.50 to 0.50)",
    }
    speeds["shared"] = 13.0
    assert reference_task.run(arguments(*words)) == 1
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--cases", "shard"), "shard: not known; there are shared, separate"),
        (("--cases", "pettingzoo"), "steps drift_env.py of --reference"),
        (("--cases", "shared", "--peer", "sb3_ppo"), "give SCRIPT"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        reference_task.run(arguments(*words))


def test_a_side_that_fails_shows_its_error(tmp_path: Path) -> None:
    (tmp_path / "torch_ppo.py").write_text("raise SystemExit('no such thing')")
    with pytest.raises(RuntimeError, match="no such thing"):
        reference_task.run(arguments("--reference", str(tmp_path), "--cases", "shared", "--rounds", "1"))
