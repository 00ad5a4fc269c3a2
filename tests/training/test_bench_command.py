"""``twinloop bench``: discovery, help, bars, and WFCRL's published figures reproduced."""

from __future__ import annotations

import argparse
import re

import numpy as np
import pytest

from twinloop.__main__ import main
from twinloop.agents.controllers import Greedy
from twinloop.agents.policy import Commands, Memory
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.twin import Observation
from twinloop.envs.wind_farm.nameplate import GROUP
from twinloop.training.benchmarks import benchmarks, find, steady_gain, wfcrl
from twinloop.training.benchmarks.plant_day import judge
from twinloop.training.evaluation import Standing
from twinloop.training.plant_comparison import Outcome
from twinloop.training.report import Table
from twinloop.training.statistics import Interval


class Target:
    """Asks for the same offsets always, ``[N]``."""

    name = "target"

    def __init__(self, nameplate: Nameplate, offsets_deg: list[float]) -> None:
        self.nameplate = nameplate
        self._offsets = np.array(offsets_deg)

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        return {GROUP: np.stack([self._offsets, np.ones_like(self._offsets)], axis=1)[None]}, memory


def test_bench_lists_every_benchmark_without_importing_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    shown = capsys.readouterr().out
    for name in ("steady_gain", "plant_day", "wfcrl"):
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(benchmarks()))
def test_every_benchmark_keeps_the_contract_and_explains_itself(name: str) -> None:
    module = find(name).load()
    parser = argparse.ArgumentParser()
    module.configure(parser)
    assert name == module.NAME
    assert [action.dest for action in parser._actions if not action.help] == []


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'wfcrl'"):
        find("wfcr")


def test_wfcrl_zero_yaw_scores_are_the_published_ones() -> None:
    """Measured with wfcrl-env 6634d468 and FLORIS 3.5: 203.32 and 2.3767 MW; 318.44 and 8.5343 MW."""
    for layout, score, power_mw in (("turb3_row1", 203.32, 2.3767), ("ablaincourt", 318.44, 8.5343)):
        farm = wfcrl.ScenarioOne(layout)
        played = farm.play(Greedy(farm.nameplate))
        assert played.score == pytest.approx(score, abs=0.005)
        assert played.power_mw == pytest.approx(power_mw, abs=5e-5)


def test_wfcrl_scripted_move_scores_what_it_scores_there() -> None:
    """A script that moves to (31, 30, 0) scores 242.03 in wfcrl-env, with the duty rule as agents see it there."""
    farm = wfcrl.ScenarioOne("turb3_row1")
    played = farm.play(Target(farm.nameplate, [31.0, 30.0, 0.0]))
    assert played.score == pytest.approx(242.03, abs=0.005)
    assert played.power_mw == pytest.approx(2.8905, abs=5e-5)


def test_wfcrl_turbine_gives_floris_3_5_powers_and_loads_in_yaw() -> None:
    """Farm power in MW by FLORIS 3.5 itself, wfcrl-env's case file, at these yaw angles: 2.8905408."""
    farm = wfcrl.ScenarioOne("turb3_row1")
    _, power_mw = farm.reward(np.array([31.0, 30.0, 0.0]))
    assert power_mw == pytest.approx(2.8905408, rel=1e-7)


def test_wfcrl_bench_fails_greedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "wfcrl", "greedy", "--farms", "turb3_row1"]) == 1
    assert "203.32" in capsys.readouterr().out


def test_steady_gain_bench_fails_greedy_and_prints_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "steady_gain", "greedy", "--named", "row3_5d"]) == 1
    assert "share 0.0 %" in capsys.readouterr().out


def test_random_farms_keep_their_distance_and_their_seed() -> None:
    rng = np.random.default_rng(5)
    sizes = []
    for _ in range(40):
        layout = steady_gain.draw_layout(rng)
        position = np.stack([layout.x_m, layout.y_m], axis=1)
        gaps = np.hypot(*(position[:, None] - position[None]).transpose(2, 0, 1))
        assert gaps[np.triu_indices(len(position), 1)].min() >= 3.99 * 125.88
        sizes.append(len(position))
    assert min(sizes) >= 5
    assert max(sizes) <= 60
    assert max(sizes) - min(sizes) > 20
    same = steady_gain.draw_layout(np.random.default_rng(9)), steady_gain.draw_layout(np.random.default_rng(9))
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("greedy", "table", "met"),
    [((0.01, 0.02), (-0.01, 0.01), True), ((-0.01, 0.02), (0.0, 0.01), False), ((0.01, 0.02), (-0.02, -0.01), False)],
)
def test_the_day_needs_more_than_greedy_and_no_less_than_the_table(
    greedy: tuple[float, float], table: tuple[float, float], met: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def gain(bounds: tuple[float, float]) -> Interval:
        return Interval(sum(bounds) / 2, *bounds, 0.95, 3, "given")

    gains = {"greedy": gain(greedy), "lut": gain(table)}
    ours = Standing("policy", 1.0, gains, gains, 0.0, 0.0, 0.0, 0, 0, 3, 24.0)
    assert judge(Outcome((), (ours,), Table("", (), ()))) is met
    assert capsys.readouterr().out.count("bar") == 2
