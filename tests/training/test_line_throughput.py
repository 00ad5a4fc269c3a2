"""The benchmark of known lines: its figures, its gates and its seeds."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.production_line.config import FixedLine
from twinloop.training.benchmarks import line_throughput
from twinloop.training.benchmarks.line_throughput import Seen, first_seed, judged, steps_per_cpu_s
from twinloop.training.benchmarks.line_throughput_cases import closed_forms, exponential_line, full_line, known_lines


def test_every_known_line_has_a_title_of_its_own_and_a_plain_answer() -> None:
    lines = list(known_lines())
    assert len({title for title, _ in lines}) == len(lines) == 31
    for _, config in lines:
        assert isinstance(config.line, FixedLine)
        assert not any(m.upkeep for m in config.line.machines)


def test_distances_are_in_standard_errors() -> None:
    seen = Seen(np.array([0.5, 0.1, 0.0]), np.array([0.01, 0.02, 0.0]), 1_000_000)
    np.testing.assert_allclose(seen.distances(np.array([0.53, 0.1, 0.0])), [3.0, 0.0, 0.0])
    # nothing was seen in a million slots: so be it for a chance of 1e-9, not for one of 1e-3
    assert seen.distances(np.array([0.5, 0.1, 1e-9]))[2] < 0.1
    assert seen.distances(np.array([0.5, 0.1, 1e-3]))[2] > 30.0
    never = Seen(np.array([1e-6]), np.array([1e-6]), 1_000_000)
    assert Seen(np.array([1e-6]), np.array([0.0]), 1_000_000).distances(np.array([0.0]))[0] > 1e6
    assert never.distances(np.array([0.0]))[0] == 1.0


def test_no_two_lines_or_runs_share_a_seed() -> None:
    first = [first_seed(s, k, r) for s in (1, 2) for k in range(40) for r in (0, 1)]
    taken = np.sort(first)
    assert (np.diff(taken) >= line_throughput.REPLICAS).all()


def test_the_chains_are_the_closed_forms() -> None:
    for title, off, bar in closed_forms():
        assert off <= bar, title


def test_a_line_is_judged_by_all_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_throughput, "REPLICAS", 64)
    monkeypatch.setattr(line_throughput, "MOST_PERIODS", 2)
    title, config = next(iter(known_lines()))
    row, met = judged(title, config, 3, 0)
    assert len(row) == 11
    assert row[2] == "0.818182"
    assert row[-1] == ("yes" if met else "no")
    monkeypatch.setattr(line_throughput, "WITHIN_PU", 0.0)
    assert not judged(title, config, 3, 0)[1]


def test_speed_is_measured_on_the_twin_that_is_named() -> None:
    for config in (full_line(), exponential_line().model_copy(update={"slots_per_period": 5})):
        assert steps_per_cpu_s(config, 0, replicas=4, periods=1) > 0.0
