"""The price of safety: what is counted is what happened, and the benchmark runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.__main__ import main
from twinloop.envs.configuration import load
from twinloop.training.benchmarks import price_of_safety
from twinloop.training.benchmarks.price_of_safety import evaluation_site, play_fixed, trained_as
from twinloop.training.benchmarks.shielded_play import Play, good_actors, hostile_actors, play
from twinloop.training.configuration import TrainConfiguration, training_model
from twinloop.training.problem import Problem

CONFIG = Path(__file__).parents[2] / "configs" / "wind_farm" / "limited_ablaincourt.yaml"


def configuration() -> TrainConfiguration:
    found: TrainConfiguration = load(CONFIG, training_model(CONFIG))
    return found


@pytest.fixture(scope="module")
def stage() -> Play:
    config = configuration()
    site: Any = config.site
    return Play(Problem.of(config.model_copy(update={"site": evaluation_site(site)})), 2, 5, 0)


class Told:
    """Proposes what it was made with, at every step."""

    def __init__(self, yaw_deg: float, power_pu: float) -> None:
        self._commands = np.array([yaw_deg, power_pu])

    def act(self, step: int, observation: Any, applied: Any) -> Any:
        return np.broadcast_to(self._commands, applied.shape).copy()


def test_a_policy_inside_all_limits_pays_nothing(stage: Play) -> None:
    for make in (*good_actors().values(), lambda _: Told(5.0, 0.5)):
        shielded, free = play(stage, make, shielded=True), play(stage, make, shielded=False)
        assert shielded["power_kw"] == free["power_kw"]
        assert {shielded[k] for k in ("intervened", "change", "in_backup", "hard_broken", "soft_broken")} == {0.0}
        assert free["hard_broken"] == free["soft_broken"] == 0.0


def test_what_is_asked_beyond_the_cap_is_cut_to_it_and_counted(stage: Play) -> None:
    def make(_: Play) -> Told:
        return Told(0.0, 0.6)

    shielded, free = play(stage, make, shielded=True), play(stage, make, shielded=False)
    assert free["hard_broken"] == 1.0
    assert shielded["hard_broken"] == 0.0
    assert shielded["intervened"] == 1.0
    assert shielded["change"] == pytest.approx(0.1 / 0.9 / 2.0, rel=1e-6)  # of a span of 0.9, one of two commands
    assert shielded["power_kw"] < free["power_kw"]


def test_a_yaw_offset_beyond_the_preferred_one_breaks_what_is_soft_alone(stage: Play) -> None:
    def make(_: Play) -> Told:
        return Told(17.9, 0.5)

    class Far(Told):
        def act(self, step: int, observation: Any, applied: Any) -> Any:
            return super().act(step, observation, applied) * [1.0 if step == 0 else 1.5, 1.0]  # inside the drive's rate

    assert play(stage, make, shielded=False)["soft_broken"] == 0.0
    far = play(stage, lambda _: Far(17.9, 0.5), shielded=False)
    assert far["hard_broken"] == 0.0
    assert far["soft_broken"] == pytest.approx(4 / 5)
    assert play(stage, lambda _: Far(17.9, 0.5), shielded=True)["soft_broken"] == 0.0


@pytest.mark.parametrize("name", hostile_actors())
def test_a_hostile_policy_breaks_hard_limits_only_without_the_shield(name: str) -> None:
    result = play_fixed(configuration(), name, 12, 0)
    assert result["without"]["hard_broken"] > 0.9
    assert result["with"]["hard_broken"] == 0.0
    assert result["with"]["intervened"] > 0.9


def test_trainings_differ_in_shield_and_prices_alone() -> None:
    config = configuration()
    assert trained_as(config, "free") == config
    priced = trained_as(config, "priced")
    assert set(priced.constraint_prices) == {
        "farm power cap", "farm power ramp", "turbine/yaw_offset_deg range, priority 0",
    }  # fmt: skip
    for name, penalty in (("shielded", 0.0), ("penalised", 5.0)):
        changed = trained_as(config, name)
        assert changed.shield is not None
        assert changed.shield.intervention_penalty == penalty
        assert changed.model_copy(update={"shield": None}) == config


def test_the_benchmark_runs_keeps_its_seeds_and_reports_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "bench", "price_of_safety", "--config", str(CONFIG), "--trainings", "free,shielded", "--seeds", "0..2",
        "--iterations", "2", "--periods", "4", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(arguments) == 0
    told = json.loads((tmp_path / "price_of_safety.json").read_text())
    assert told["data"]["passed"]
    assert len(told["data"]["results"]) == 5 + 2 * 3
    assert all({"with", "without"} <= set(result) for result in told["data"]["results"])
    assert len(told["rows"]) == 5 + 2
    assert "[" in told["rows"][-1][1]  # an interval over seeds
    capsys.readouterr()

    def never(*_: Any) -> Any:
        raise AssertionError("a finished seed was played again")

    monkeypatch.setattr(price_of_safety, "play", never)
    monkeypatch.setattr(price_of_safety, "learn", never)
    assert main(arguments) == 0
