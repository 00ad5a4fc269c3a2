"""``twinloop compare`` on run folders whose figures are known: what it says, and what it refuses to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import mannwhitneyu, trim_mean

from twinloop.__main__ import main
from twinloop.envs.errors import ConfigurationError, RunError
from twinloop.training.comparison import Comparison, Scale, parse_scales
from twinloop.training.comparison_curves import curve_on_grid, draw_curves
from twinloop.training.comparison_runs import read_runs
from twinloop.training.comparison_sides import Side, check_sides, make_sides
from twinloop.training.marl_eval import marl_eval_data

FIGURE = "evaluation/reward"
VERSIONS = {"python": "3.11.1", "machine": "x86_64", "system": "Linux", "twinloop": "0.1.0", "numpy": "2.4"}
BASE: dict[str, Any] = {
    "kind": "train",
    "name": "ppo",
    "site": {"kind": "drift", "n_assets": 3},
    "task": {"name": "regulate", "options": {}},
    "learner": {"kind": "ppo", "lr": 3e-4},
    "rollout": {"replicas": 4, "workers": 0},
    "evaluation": {"every": 10, "replicas": 8, "steps": None, "plant": None},
    "iterations": 30,
    "dtype": "float32",
    "seed": 0,
}
TANK = {"site": {"kind": "tank", "name": "west"}, "task": {"name": "hold"}}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        k: merged(below[k], v) if isinstance(v, dict) and isinstance(below.get(k), dict) else v
        for k, v in above.items()
    }
    return {**below, **both}


def write_run(
    folder: Path,
    values: Sequence[float],
    *,
    seed: int,
    versions: Mapping[str, str] = VERSIONS,
    final: float | None = None,
    figure: str = FIGURE,
    **changes: Any,
) -> Path:
    """A finished run that was evaluated every 10 of its iterations, of 100 agent-steps and 2 CPU seconds each."""
    folder.mkdir(parents=True)
    config = merged(BASE, {**changes, "seed": seed})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "versions.json").write_text(json.dumps(versions))
    rows = [
        {"iteration": i, "agent_steps": 100.0 * i, "cpu_s": 2.0 * i, "wall_s": 3.0 * i, "reward/mean": 0.0}
        for i in range(1, 10 * len(values) + 1)
    ]
    for number, value in enumerate(values, start=1):
        rows[10 * number - 1][figure] = value
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = {**rows[-1], figure: values[-1] if final is None else final}
    del ended["iteration"]
    result = {"iterations": len(rows), "agent_steps": 100 * len(rows), "stopped_early": False, "figures": ended}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_side(folder: Path, finals: Sequence[float], **changes: Any) -> list[Path]:
    return [
        write_run(folder / f"seed_{seed}", [final - 2.0, final + 0.5, final], seed=seed, **changes)
        for seed, final in enumerate(finals)
    ]


PPO, SAC = [1.0, 2.0, 3.0, 4.0, 9.0], [2.0, 5.0, 6.0, 4.0, 0.0]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    sac = {"name": "sac", "learner": {"kind": "masac"}}
    return write_side(tmp_path / "ppo", PPO) + write_side(tmp_path / "sac", SAC, **sac)


def sides_of(paths: Sequence[Path], **options: Any) -> list[Side]:
    return make_sides(read_runs(paths), FIGURE, **options)


def test_runs_that_differ_in_the_seed_alone_are_one_side(two: list[Path]) -> None:
    sides = sides_of(two)
    assert [side.label for side in sides] == ["ppo", "sac"]
    assert [[run.seed for run in side.runs["drift/regulate"]] for side in sides] == [[0, 1, 2, 3, 4]] * 2


def test_what_cannot_change_a_result_makes_no_side_of_its_own(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0])
    paths.append(
        write_run(tmp_path / "b", [3.0], seed=7, name="again", rollout={"workers": 2}, log={"tensorboard": False})
    )
    assert len(sides_of(paths)) == 1


def test_standings_are_the_statistics_of_the_seeds(two: list[Path]) -> None:
    ppo, sac = Comparison(n_resamples=200).standings(sides_of(two))
    assert ppo.final.estimate == pytest.approx(trim_mean(PPO, 0.25))
    assert ppo.best.estimate == pytest.approx(trim_mean([v + 0.5 for v in PPO], 0.25))
    assert ppo.final.low <= ppo.final.estimate <= ppo.final.high
    assert ppo.chance is None
    assert sac.chance is not None
    assert sac.chance.estimate == pytest.approx(mannwhitneyu(SAC, PPO, method="asymptotic").statistic / 25)
    assert sac.cost["agent_steps"].estimate == 3000.0
    assert sac.cost["cpu_s"].estimate == pytest.approx(60.0)


def test_a_run_that_ended_between_evaluations_counts_with_its_end(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path / "r", [1.0, 2.0], seed=0, final=2.5)])
    assert run.final(FIGURE) == 2.5
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    last = {k: v for k, v in json.loads(lines[-1]).items() if k != FIGURE}
    (tmp_path / "r" / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    (run,) = read_runs([tmp_path / "r"])
    assert run.curve(FIGURE).values.tolist() == [1.0, 2.5]
    assert run.curve(FIGURE).axes["agent_steps"].tolist() == [1000.0, 2000.0]


def test_what_it_takes_to_reach_a_mark_counts_seeds_that_never_do(two: list[Path]) -> None:
    ppo, _ = Comparison(mark=2.2, n_resamples=200).standings(sides_of(two))
    # PPO's seeds cross 2.2 at their evaluation: never (1.5), 2 (2.5), 2 (3.5), 2 (4.5), 1 (7.0).
    assert ppo.n_reached == 4
    assert ppo.reach["agent_steps"].estimate == pytest.approx(2000.0)
    assert ppo.reach["cpu_s"].estimate == pytest.approx(40.0)
    assert ppo.reach["agent_steps"].high == np.inf
    table = Comparison(mark=2.2, n_resamples=50).table(sides_of(two), [ppo])
    assert "4 of 5" in table.markdown()
    assert "never]" in table.markdown()
    json.loads(json.dumps(table.data, allow_nan=False))


def test_tasks_are_strata_once_reference_scores_give_them_one_scale(tmp_path: Path) -> None:
    paths = []
    for name, shift in (("ppo", 0.0), ("sac", 1.0)):
        kind = {"name": name, "learner": {"kind": name}}
        paths += write_side(tmp_path / name / "drift", [v + shift for v in (0.0, 1.0, 2.0)], **kind)
        paths += write_side(tmp_path / name / "tank", [100.0 * (v + shift) for v in (3.0, 4.0, 5.0)], **kind, **TANK)
    sides = sides_of(paths)
    assert list(sides[0].runs) == ["drift/regulate", "tank/west/hold"]
    apart = Comparison(n_resamples=100)
    assert [s.task for s in apart.standings(sides)] == ["drift/regulate"] * 2 + ["tank/west/hold"] * 2
    scales = {"drift/regulate": Scale(0.0, 10.0), "tank/west/hold": Scale(0.0, 1000.0)}
    together = Comparison(scales=scales, n_resamples=100).standings(sides)
    assert together[0].task == together[1].task == "all tasks, normalised"
    assert together[0].n_runs == 6
    assert together[0].final.estimate == pytest.approx(trim_mean([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 0.25))
    assert together[1].chance is not None
    assert together[1].chance.estimate == pytest.approx(7.0 / 9.0)  # the same within each task: (2.5 + 3 + 1.5) / 9
    with pytest.raises(ConfigurationError, match="no reference scores for tank/west/hold"):
        Comparison(scales={"drift/regulate": Scale(0.0, 1.0)}).check(sides)
    with pytest.raises(ConfigurationError, match=r"no such task; tasks here: drift/regulate, .*did you mean"):
        Comparison(scales={"drift/regulat": Scale(0.0, 1.0)}).check(sides)


def test_a_name_may_stand_for_other_settings_on_another_task_but_not_on_the_same(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    tuned = write_side(tmp_path / "b", [1.0, 2.0, 3.0], learner={"lr": 1e-3}, **TANK)
    (side,) = sides_of(paths + tuned, by="name")
    assert list(side.runs) == ["drift/regulate", "tank/west/hold"]
    assert len(sides_of(paths + tuned)) == 2
    other = write_run(tmp_path / "c", [1.0], seed=9, learner={"lr": 1e-3})
    with pytest.raises(RunError, match=r"not of one configuration: learner\.lr \(0\.0003, 0\.001\)"):
        sides_of([*paths, other], by="name")


def test_sides_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0]) + write_side(
        tmp_path / "b", [1.0, 2.0, 3.0], learner={"lr": 1e-3}
    )
    assert [side.label for side in sides_of(paths)] == ["ppo (lr 0.0003)", "ppo (lr 0.001)"]
    assert [side.label for side in sides_of(paths, labels=["slow", "fast"])] == ["slow", "fast"]
    three = paths + write_side(tmp_path / "c", [1.0, 2.0, 3.0], learner={"kind": "masac"})
    kinds = ["ppo (kind ppo; lr 0.0003)", "ppo (kind ppo; lr 0.001)", "ppo (kind masac; lr 0.0003)"]
    assert [side.label for side in sides_of(three)] == kinds
    with pytest.raises(RunError, match="give 2 different ones"):
        sides_of(paths, labels=["slow"])


def test_fewer_than_three_seeds_are_refused(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0]) + write_side(
        tmp_path / "b", [1.0, 2.0], name="few", iterations=31
    )
    with pytest.raises(RunError, match=r"few: 2 seed\(s\) on drift/regulate; a comparison needs 3 or more"):
        check_sides(sides_of(paths), FIGURE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"site": {"n_assets": 4}}, r"they differ in site\.n_assets \(3, 4\)"),
        ({"task": {"options": {"horizon": 5}}}, r"task\.options\.horizon \(absent, 5\)"),
        ({"evaluation": {"replicas": 16}}, r"evaluation\.replicas \(8, 16\)"),
        ({"evaluation": {"steps": 7}}, r"evaluation\.steps \(None, 7\)"),
        ({"dtype": "float64"}, r"dtype \(float32, float64\)"),
    ],
)
def test_runs_that_were_measured_otherwise_are_refused_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    paths += write_side(tmp_path / "b", [1.0, 2.0, 3.0], name="other", learner={"lr": 1.0}, **changes)
    with pytest.raises(RunError, match=says):
        check_sides(sides_of(paths), FIGURE)


def test_how_often_a_run_was_evaluated_is_no_difference(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    paths += write_side(tmp_path / "b", [1.0, 2.0, 3.0], name="other", learner={"lr": 1.0}, evaluation={"every": 5})
    assert check_sides(sides_of(paths), FIGURE) == []


def test_twins_may_differ_where_the_plant_is_the_same(tmp_path: Path) -> None:
    def side(name: str, **changes: Any) -> list[Path]:
        plant = {"site": {"kind": "drift", "n_assets": 3}, "plant": {"noise": 1}, "periods": 60, "seeds": [0]}
        settings = {"evaluation": {"plant": plant}, "name": name, "figure": "plant/gain"}
        return write_side(tmp_path / name, [1.0, 2.0, 3.0], **settings, **changes)

    sides = make_sides(read_runs(side("one") + side("many", site={"n_assets": 9})), "plant/gain")
    assert [side.label for side in sides] == ["one", "many"]
    assert check_sides(sides, "plant/gain") == []


def test_other_versions_are_refused_unless_asked_for_and_then_noted(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    paths += write_side(
        tmp_path / "b", [1.0, 2.0, 3.0], name="b", learner={"lr": 1.0}, versions={**VERSIONS, "numpy": "1.9"}
    )
    sides = sides_of(paths)
    with pytest.raises(RunError, match=r"other versions: numpy \(2\.4, 1\.9\); repeat one of them, or give --anyway"):
        check_sides(sides, FIGURE)
    (note,) = check_sides(sides, FIGURE, any_version=True)
    assert "numpy (2.4, 1.9)" in note


def test_unlike_budgets_and_machines_are_noted(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    arm = {**VERSIONS, "machine": "aarch64"}
    paths += [
        write_run(tmp_path / f"b{s}", [1.0, 2.0], seed=s, name="b", iterations=20, versions=arm) for s in range(3)
    ]
    budgets, machines = check_sides(sides_of(paths), FIGURE)
    assert "ppo 3,000, b 2,000" in budgets
    assert "unlike machines" in machines


def test_a_seed_counted_twice_is_refused(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0])
    with pytest.raises(RunError, match="seed 1 comes twice on drift/regulate"):
        sides_of([*paths, paths[1]])


@pytest.mark.parametrize(
    ("file", "says"),
    [("result.json", "has not ended; finish it with: twinloop train --resume"), ("config.yaml", "no run folder")],
)
def test_runs_that_have_not_ended_are_refused(tmp_path: Path, file: str, says: str) -> None:
    run = write_run(tmp_path / "r", [1.0], seed=0)
    (run / file).unlink()
    with pytest.raises(RunError, match=says):
        read_runs([run])


def test_a_study_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "study", [1.0, 2.0, 3.0])
    (tmp_path / "study" / "study.json").write_text(json.dumps({"seeds": [0, 1, 2]}))
    assert [run.seed for run in read_runs([tmp_path / "study"])] == [0, 1, 2]
    (paths[1] / "result.json").unlink()
    with pytest.raises(RunError, match="seed 1 of this study has not ended"):
        read_runs([tmp_path / "study"])


def test_a_figure_that_a_run_lacks_names_those_it_has(two: list[Path]) -> None:
    with pytest.raises(RunError, match=r"no figure 'evaluation/rewrd' \(did you mean 'evaluation/reward'\?\)"):
        Comparison("evaluation/rewrd").standings(make_sides(read_runs(two), "evaluation/rewrd"))


def test_curves_are_interpolated_where_all_runs_have_been(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"r{seed}", [0.0, 10.0, 20.0], seed=seed) for seed in range(3)]
    (side,) = sides_of(paths)
    points, (scores,) = curve_on_grid(Comparison(), side, ["drift/regulate"], "agent_steps")
    assert points.tolist() == [1000.0, 2000.0, 3000.0]  # the evaluations themselves, where they are shared
    assert scores.tolist() == [[0.0, 10.0, 20.0]] * 3
    slow = tmp_path / "r0" / "metrics.jsonl"
    rows = [json.loads(line) for line in slow.read_text().splitlines()]
    slow.write_text("".join(json.dumps({**row, "cpu_s": 1.5 * row["cpu_s"]}) + "\n" for row in rows))
    (side,) = sides_of(paths)
    points, (scores,) = curve_on_grid(Comparison(), side, ["drift/regulate"], "cpu_s")
    assert (points[0], points[-1]) == (30.0, 60.0)  # from the last first evaluation to the first last one
    at = 40.0
    expected = [10.0 * (at - 30.0) / 30.0, 10.0 * (at - 20.0) / 20.0, 10.0 * (at - 20.0) / 20.0]
    assert [float(np.interp(at, points, row)) for row in scores] == pytest.approx(expected, abs=0.05)


def test_raw_data_has_the_shape_that_marl_eval_reads(two: list[Path]) -> None:
    data = marl_eval_data(sides_of(two, labels=["PPO", "SAC"]), FIGURE)
    run = data["drift"]["regulate"]["SAC"]["seed_1"]
    assert run["step_2"] == {"step_count": 2000, "evaluation_reward": [5.5]}
    assert run["absolute_metrics"] == {"evaluation_reward": [5.5]}
    assert list(run) == ["step_1", "step_2", "step_3", "absolute_metrics"]


@pytest.mark.parametrize("text", ["tank", "tank=1", "tank=1,1", "=0,1", "tank=0,inf", "tank=a,b"])
def test_reference_scores_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be TASK=LOW,HIGH"):
        parse_scales([text])


def test_the_command_writes_table_picture_and_raw_data(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", *map(str, two), "--out", str(out), "--reach", "2.2"]) == 0
    shown = capsys.readouterr().out
    assert "P(better) [95 %]" in shown
    assert {path.name for path in out.iterdir()} == {
        "comparison.md", "comparison.csv", "comparison.json", "curves.png", "marl_eval.json",
    }  # fmt: skip
    document = json.loads((out / "comparison.json").read_text())
    assert [s["label"] for s in document["data"]["standings"]] == ["ppo", "sac"]
    assert document["provenance"]["seeds"] == [0, 1, 2, 3, 4]
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert read_runs([*two, out]) == read_runs(two)
    with pytest.raises(RunError, match="no runs, only comparisons"):
        read_runs([out])


def test_the_command_refuses_with_a_status_and_leaves_nothing_behind(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(two[0]), str(two[5]), "--out", str(tmp_path / "out")]) == 2
    assert "a comparison needs 3 or more a side" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_picture_of_several_tasks_has_a_row_for_each_and_one_for_all(tmp_path: Path) -> None:
    paths = write_side(tmp_path / "a", [1.0, 2.0, 3.0]) + write_side(tmp_path / "b", [1.0, 2.0, 3.0], **TANK)
    scales = {"drift/regulate": Scale(0.0, 1.0), "tank/west/hold": Scale(0.0, 2.0)}
    alone = draw_curves(Comparison(), sides_of(paths[:3]), tmp_path / "one.png")
    both = draw_curves(Comparison(scales=scales), sides_of(paths), tmp_path / "both.png")
    heights = [int.from_bytes(path.read_bytes()[20:24], "big") for path in (alone, both)]
    assert heights[1] > 2.5 * heights[0]
