"""The benchmark of bottlenecks, small: it runs whole, and a bottleneck that moved is named again."""

from __future__ import annotations

import json
from pathlib import Path

from twinloop.__main__ import main


def test_the_benchmark_runs_and_finds_a_bottleneck_that_moved(tmp_path: Path) -> None:
    words = ["bench", "line_bottleneck", "--lines", "2", "--slots", "500", "--shifts", "2", "--out", str(tmp_path)]
    assert main(words) in (0, 1)  # so few lines may miss the bar
    told = json.loads((tmp_path / "line_bottleneck.json").read_text(encoding="utf-8"))
    assert [len(told["data"][kind]) for kind in ("twin", "shifted")] == [2, 2]
    assert all(case["slots"] <= 1000 for case in told["data"]["shifted"])
    assert all(case["worth"] > 0.3 for case in told["data"]["twin"])  # no machine that hardly matters
