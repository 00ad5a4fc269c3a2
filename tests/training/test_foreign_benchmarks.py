"""The benchmarks on foreign tasks: their games and optima are what they say, and each runs from end to end."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.__main__ import main
from twinloop.envs.configuration import load
from twinloop.envs.conformance import check_twin
from twinloop.envs.errors import ConfigurationError
from twinloop.training.benchmarks import lq_game, matrix_games, simple_spread
from twinloop.training.benchmarks.classic_control import TASKS
from twinloop.training.benchmarks.foreign_jobs import Job, first_episodes, learn, run_jobs, seed_range
from twinloop.training.configuration import training_model
from twinloop.training.problem import Problem

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("game", ["climbing", "penalty"])
def test_a_matrix_game_pays_what_its_table_says(game: Any, central: bool) -> None:
    def make(n: int) -> matrix_games.MatrixTwin:
        config = matrix_games.MatrixConfig(game=game, central=central)
        return matrix_games.MatrixTwin(config, n, "cpu", torch.float32)

    check_twin(make, batch_sizes=(3,))
    twin = make(9)
    twin.reset(torch.arange(9))
    pairs = torch.tensor(list(itertools.product(range(3), repeat=2)), dtype=torch.float32)
    chosen = torch.arange(9.0)[:, None] if central else pairs
    earned = twin.step({"player": chosen[..., None]}).hidden["player"]
    assert earned[:, 0, 0].tolist() == [x for row in matrix_games.GAMES[game] for x in row]


def test_the_games_have_their_optimum_beside_a_loss_that_averages_shun() -> None:
    for payoff in map(np.array, matrix_games.GAMES.values()):
        best = np.unravel_index(payoff.argmax(), payoff.shape)
        assert payoff.mean(axis=1).argmax() != best[0]
    assert {k: max(map(max, v)) for k, v in matrix_games.GAMES.items()} == {"climbing": 11.0, "penalty": 10.0}


def test_the_riccati_gain_costs_what_riccati_says_and_any_other_costs_more() -> None:
    check_twin(lambda n: lq_game.LqTwin(lq_game.LqConfig(), n, "cpu", torch.float32), batch_sizes=(3,))
    gain, least = lq_game.riccati(4)
    np.testing.assert_allclose(gain[0], np.roll(gain[1], -1), atol=1e-12)  # so all assets may share one policy
    first = gain[0].astype(np.float32)

    def cost(scale: float) -> float:
        return lq_game.average_cost(lambda x: -scale * (x @ first)[..., None], 0)

    # 4 x 256 x 150 steps of a cost with a deviation of about its mean, correlated over a few steps
    assert cost(1.0) == pytest.approx(least, rel=0.02)
    assert cost(1.0) < min(cost(0.9), cost(1.1))


def test_jobs_are_kept_and_only_the_missing_ones_run(tmp_path: Path) -> None:
    jobs = [Job("count", seed, count, (str(tmp_path / "calls"),)) for seed in range(3)]
    first = run_jobs(jobs[:2], tmp_path)
    again = run_jobs(jobs, tmp_path, parallel=2)
    assert again[:2] == first
    assert [r["seed"] for r in again] == [0, 1, 2]
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "012"


def count(file: str, seed: int) -> dict[str, Any]:
    with Path(file).open("a", encoding="utf-8") as calls:
        calls.write(str(seed))
    return {"seed": seed}


def test_seed_ranges_count_both_ends() -> None:
    assert seed_range("2..4") == [2, 3, 4]
    assert seed_range("7") == [7]
    for wrong in ("4..2", "a", "1..", ""):
        with pytest.raises(ConfigurationError, match="--seeds"):
            seed_range(wrong)


def test_first_episodes_are_whole_episodes_of_the_first_kind() -> None:
    config = matrix_games.configuration("climbing", "ippo", 1)
    problem = Problem.of(config, matrix_games.SITE)
    learning = learn(config, problem)
    earned = first_episodes(problem, learning.policy_weights(), 0, 5)
    assert earned.shape == (5,)
    assert set(earned) <= {x for row in matrix_games.GAMES["climbing"] for x in row}


@pytest.mark.parametrize("file", sorted((CONFIGS / "foreign").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_foreign_configuration_loads(file: Path) -> None:
    assert load(file, training_model(file)).name == file.stem


def test_every_classic_task_has_its_configuration() -> None:
    assert all((CONFIGS / "foreign" / f"{task.config}.yaml").is_file() for task in TASKS.values())


def test_classic_control_trains_plays_and_writes_its_table(tmp_path: Path) -> None:
    words = ["--tasks", "cartpole", "--seeds", "0..2", "--episodes", "3", "--out", str(tmp_path)]
    words += ["--configs", str(CONFIGS / "foreign"), "--set", "agent_steps=512"]
    assert main(["bench", "classic_control", *words]) == 1  # nobody learns it in 512 steps
    table = json.loads((tmp_path / "classic_control.json").read_text(encoding="utf-8"))
    assert len(table["data"]["results"]) == 3
    assert len(list((tmp_path / "seeds").glob("cartpole-seed*.json"))) == 3


def test_matrix_games_and_the_lq_game_run_through(tmp_path: Path) -> None:
    words = ["--learners", "ippo,central", "--iterations", "2", "--seeds", "0..1", "--out", str(tmp_path)]
    assert main(["bench", "matrix_games", *words]) in (0, 1)
    assert main(["bench", "lq_game", "--iterations", "2", "--seeds", "0..1", "--out", str(tmp_path)]) == 1
    assert {p.name for p in tmp_path.glob("*.md")} == {"matrix_games.md", "lq_game.md"}


def test_central_control_finds_the_climbing_optimum_and_independent_learning_does_not() -> None:
    def earned(learner: str) -> float:
        return float(matrix_games.play(matrix_games.configuration("climbing", learner), 0)["earned"])

    assert earned("central") == 11.0
    assert earned("ippo") == 7.0


def test_the_farm_benchmark_runs_through(tmp_path: Path) -> None:
    config = tmp_path / "row.yaml"
    parent = CONFIGS / "wind_farm" / "fast_ablaincourt.yaml"
    config.write_text(f"extends: {parent}\nsite: {{layout: {{name: row3_5d}}}}\n", encoding="utf-8")
    words = ["--learners", "analytic", "--iterations", "2", "--seeds", "0", "--config", str(config)]
    assert main(["bench", "farm_learners", *words, "--out", str(tmp_path)]) == 1
    assert (tmp_path / "farm_learners.csv").is_file()


def test_the_heuristic_of_simple_spread_is_far_better_than_chance() -> None:
    pytest.importorskip("mpe2", reason="needs the extra 'tasks'")
    random = simple_spread.play_episodes(simple_spread._random, 0, 40)
    heuristic = simple_spread.play_episodes(simple_spread._hungarian, 0, 40)
    # Measured by others over 300 episodes: -27.5 and -7.9; an episode's deviation is about 8 and 3.
    assert np.mean(random) == pytest.approx(-27.5, abs=3 * 8 / np.sqrt(40))
    assert np.mean(heuristic) == pytest.approx(-7.9, abs=3 * 3 / np.sqrt(40))


def test_simple_spread_trains_plays_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpe2", reason="needs the extra 'tasks'")
    monkeypatch.setattr(simple_spread, "EPISODES", 4)
    words = ["--config", str(CONFIGS / "foreign" / "simple_spread.yaml"), "--set", "agent_steps=2400"]
    assert main(["bench", "simple_spread", "--seeds", "0", "--out", str(tmp_path), *words]) == 0
    rows = json.loads((tmp_path / "simple_spread.json").read_text(encoding="utf-8"))["rows"]
    assert [row[0] for row in rows] == ["random", "heuristic", "ippo", "mappo", "happo"]
