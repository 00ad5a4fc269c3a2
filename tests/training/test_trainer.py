from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.errors import ConfigurationError, NumericalError, RunError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.noise import normal
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Snapshot, Tensors
from twinloop.training.benchmarks.reference_task import (
    GROUP,
    DriftConfig,
    DriftSite,
    DriftTask,
    DriftTwin,
    drift_configuration,
    drift_problem,
)
from twinloop.training.configuration import TrainConfiguration
from twinloop.training.normaliser import ReturnScale, RunningMoments
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.run import IterationReport, RunInterrupted, resume, train
from twinloop.training.run_folder import TIMING_FIGURES, RunFolder
from twinloop.training.run_settings import EvaluationConfiguration
from twinloop.training.trainer import Trainer
from twinloop.training.workers import InProcessCollector, make_collector

SMALL = RolloutConfiguration(replicas=4, shard_replicas=2, steps=16)
EVERYTHING = PpoConfiguration(
    lr_schedule="linear", normalise_features=True, reward_scaling="return_std", epochs=2, minibatches=2
)


def small(iterations: int | None = 4, **changes: Any) -> TrainConfiguration:
    settings: dict[str, Any] = {"rollout": SMALL, "learner": EVERYTHING, "site": DriftConfig(n_assets=3)}
    return drift_configuration(iterations, **{**settings, **changes})


def trainer_of(config: TrainConfiguration, problem: Problem | None = None) -> Trainer:
    problem = problem or drift_problem(config)
    return Trainer(config, problem, make_collector(problem, config))


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list):
        return [t for v in value for t in tensors(v)]
    return [torch.as_tensor(value)]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_task_is_learnt_in_14_iterations(seed: int) -> None:
    trainer = trainer_of(drift_configuration(14, seed=seed))
    rewards = [trainer.iterate()["reward/mean"] for _ in range(14)]
    assert -0.5 < rewards[0] < -0.2
    assert rewards[-1] > -0.06


def test_resuming_after_any_iteration_equals_never_having_stopped() -> None:
    trainer = trainer_of(small())
    states = [trainer.boundary()()]
    figures = []
    for _ in range(4):
        figures.append(trainer.iterate())
        states.append(trainer.boundary()())
    for stopped_after in range(4):
        again = trainer_of(small())
        again.restore(states[stopped_after])
        repeated = [again.iterate() for _ in range(4 - stopped_after)]
        assert repeated == figures[stopped_after:]
        assert same(again.boundary()(), states[-1])


def test_a_boundary_stays_what_it_was_when_training_goes_on() -> None:
    trainer = trainer_of(small())
    trainer.iterate()
    boundary = trainer.boundary()
    at_once = boundary()
    kept = [t.clone() for t in tensors(at_once)]
    trainer.iterate()
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors(boundary()), strict=True))


class SparseTwin(DriftTwin):
    """Half of the slots hold no asset; whatever lies in their data must not matter."""

    def __init__(self, config: DriftConfig, n_replicas: int, junk: float) -> None:
        super().__init__(config, n_replicas, "cpu", torch.float32)
        self._present = torch.arange(config.n_assets) % 2 == torch.arange(n_replicas)[:, None] % 2
        self._junk = junk

    def _read(self) -> Readings:
        absent = ~self._present[..., None]
        return replace(super()._read(), measured={GROUP: torch.where(absent, self._junk, self._x)})


@dataclass(frozen=True)
class JunkTask(DriftTask):
    junk: float = 0.0

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        score = super().score(before, commands, after)
        return replace(score, reward={GROUP: torch.where(after.present[GROUP], score.reward[GROUP], self.junk)})


@dataclass(frozen=True)
class SparseSite(DriftSite):
    junk: float = 0.0

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return SparseTwin(config, n_replicas, self.junk)

    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> DriftTask:
        return JunkTask(horizon=10, junk=self.junk)


@pytest.mark.parametrize("own_signals", [False, True])
def test_the_data_of_an_absent_asset_change_no_bit_of_what_is_learnt(own_signals: bool) -> None:
    changes: dict[str, Any] = {"encoder": None} if own_signals else {}
    config = small(site=DriftConfig(n_assets=4), **changes)
    learnt = []
    for junk in (0.0, 1e3, float("nan")):
        trainer = trainer_of(config, Problem.of(config, SparseSite(junk)))
        figures = [trainer.iterate() for _ in range(2)]
        state = trainer.boundary()()
        learnt.append((figures, {k: state[k] for k in ("learners", "moments", "reward_scales")}))
        assert trainer.agent_steps == 2 * 16 * 4 * 2
    assert learnt[0][0] == learnt[1][0] == learnt[2][0]
    assert same(learnt[0][1], learnt[1][1])
    assert same(learnt[0][1], learnt[2][1])


class PumpTwin:
    """Two unlike groups, two pumps and a valve: each asset's signals drift towards its own commands."""

    period_s = 1.0
    dt_s = 1.0
    device = torch.device("cpu")
    dtype = torch.float32
    parameter_specs = ()
    nameplate = Nameplate(
        site="pumps",
        period_s=1.0,
        groups=(
            Group("pump", ("P1", "P2"), (Signal("flow", "1", -5, 5),), (Signal("speed", "1", -1, 1),)),
            Group(
                "valve",
                ("V1",),
                (Signal("left", "1", -5, 5), Signal("right", "1", -5, 5)),
                (Signal("open", "1", -1, 1), Signal("tilt", "1", -1, 1)),
            ),
        ),
    )

    def __init__(self, n_replicas: int) -> None:
        self.n_replicas = n_replicas
        self._x = {"pump": torch.zeros(n_replicas, 2, 1), "valve": torch.zeros(n_replicas, 1, 2)}
        self._seeds = torch.zeros(n_replicas, dtype=torch.int64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        rows = torch.arange(self.n_replicas) if rows is None else rows
        self._seeds[rows], self._steps[rows] = seeds, 0
        for stream, x in enumerate(self._x.values()):
            x[rows] = normal(seeds, self._steps[rows], stream, 2, torch.float32).view(-1, *x.shape[1:])
        return self._read()

    def step(self, commands: Tensors) -> Readings:
        self._steps += 1
        self._x = {name: 0.7 * x + 0.3 * commands[name] for name, x in self._x.items()}
        return self._read()

    def _read(self) -> Readings:
        n = self.n_replicas
        empty = {"pump": torch.zeros(n, 2, 0), "valve": torch.zeros(n, 1, 0)}
        present = {"pump": torch.ones(n, 2, dtype=torch.bool), "valve": torch.ones(n, 1, dtype=torch.bool)}
        measured = {name: x.clone() for name, x in self._x.items()}
        return Readings(measured, empty, empty, present, self._steps.clone())

    def snapshot(self) -> Snapshot:
        return {
            "seeds": self._seeds.clone(),
            "steps": self._steps.clone(),
            **{k: v.clone() for k, v in self._x.items()},
        }

    def restore(self, snapshot: Snapshot) -> None:
        self._seeds, self._steps = snapshot["seeds"].clone(), snapshot["steps"].clone()
        self._x = {name: snapshot[name].clone() for name in self._x}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        pass


@dataclass(frozen=True)
class TargetTask:
    name: str = "target"
    horizon: int = 20

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        reward = {name: -(x - 0.5).square().mean(-1) for name, x in after.measured.items()}
        return Score(reward, torch.zeros(len(after.time_s), dtype=torch.bool))


class PumpSite(DriftSite):
    name = "pumps"

    def nameplate(self, config: DriftConfig) -> Nameplate:
        return PumpTwin.nameplate

    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Any:
        return PumpTwin(n_replicas)

    def task(self, name: str, config: DriftConfig, options: Mapping[str, Any]) -> Any:
        return TargetTask()


def test_unlike_groups_learn_side_by_side_each_with_its_own_network() -> None:
    config = drift_configuration(
        20, encoder=None, learner=PpoConfiguration(lr=3e-3, gamma=0.5, log_std_initial=-1.0, hidden=(16,)),
        rollout=RolloutConfiguration(replicas=16, steps=40),
    )  # fmt: skip
    trainer = trainer_of(config, Problem.of(config, PumpSite()))
    rewards = [trainer.iterate()["reward/mean"] for _ in range(20)]
    assert rewards[-1] > 0.5 * rewards[0]
    exported = trainer.export()
    assert {name: (w.n_features, w.n_commands) for name, w in exported.items()} == {"pump": (1, 1), "valve": (2, 2)}


def test_a_group_that_is_not_controlled_stays_neutral_and_learns_nothing() -> None:
    config = drift_configuration(
        1, encoder=None, learner=PpoConfiguration(controlled={"valve": ("tilt",)}), rollout=SMALL
    )
    trainer = trainer_of(config, Problem.of(config, PumpSite()))
    figures = trainer.iterate()
    assert list(trainer.export()) == ["valve"]
    assert trainer.export()["valve"].layout.columns == (1,)
    assert trainer.agent_steps == 4 * 16
    assert not any(name.startswith("pump/") for name in figures)


def test_a_controlled_group_that_the_site_lacks_is_named() -> None:
    config = small(learner=PpoConfiguration(controlled={"aset": ("u0",)}))
    with pytest.raises(ConfigurationError, match=r"no group 'aset'.*did you mean 'asset'"):
        trainer_of(config)


def test_agent_steps_are_rounded_up_to_whole_iterations() -> None:
    per_iteration = 4 * 16 * 3
    config = small(iterations=None, agent_steps=2 * per_iteration + 1)
    assert trainer_of(config).n_iterations == 3


def test_an_evaluation_changes_nothing_but_its_own_figure() -> None:
    plain, evaluated = trainer_of(small()), trainer_of(small(evaluation=EvaluationConfiguration(every=2, replicas=3)))
    for iteration in range(1, 5):
        expected, figures = plain.iterate(), evaluated.iterate()
        assert (figures.pop("evaluation/reward", None) is not None) == (iteration % 2 == 0)
        assert figures == expected
    assert same(plain.boundary()(), evaluated.boundary()())


def test_a_learner_that_diverges_says_so() -> None:
    config = small(learner=PpoConfiguration(lr=1e38, minibatches=2, normalise_features=False))
    trainer = trainer_of(config)
    with pytest.raises(NumericalError, match=r"group 'asset': weights are no longer finite.*learner\.lr"):
        [trainer.iterate() for _ in range(4)]


def test_running_moments_are_those_of_all_rows_together() -> None:
    rows = np.random.default_rng(0).normal(3.0, [0.1, 5.0], size=(1000, 2)).astype(np.float32)
    moments = RunningMoments(2)
    for part in np.split(rows, [1, 7, 500]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, rows.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, rows.var(0, dtype=np.float64), rtol=1e-9)


def test_rewards_are_scaled_as_stable_baselines3_scales_them() -> None:
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    rng = np.random.default_rng(1)
    reward = rng.normal(2.0, 3.0, (30, 4, 1)).astype(np.float32)
    done = rng.random((30, 4)) < 0.2
    scaled = ReturnScale((4, 1), 0.9).scale(reward, np.ones_like(reward, bool), done)
    peer, returns = RunningMeanStd(shape=()), np.zeros(4)
    for t in range(30):
        returns = returns * 0.9 + reward[t, :, 0]
        peer.update(returns)
        returns[done[t]] = 0.0
    # Its statistics start from a pretended count of 1e-4.
    np.testing.assert_allclose(scaled, reward / np.sqrt(peer.var + 1e-8), rtol=1e-4)


def test_a_run_that_is_interrupted_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config = small(iterations=5, checkpoint_every=2)
    whole = train(config, tmp_path / "whole", problem=drift_problem(config))

    def stop(report: IterationReport) -> None:
        if report.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(
        RunInterrupted, match=r"after iteration 3; resume with: twinloop train --resume .*cut"
    ) as caught:
        train(config, tmp_path / "cut", stop, problem=drift_problem(config))
    assert caught.value.iteration == 3
    resumed = resume(tmp_path / "cut", problem=drift_problem(config))
    assert resumed.iterations == whole.iterations == 5
    stores = [RunFolder(r.folder).checkpoints(3).load_newest()[0] for r in (whole, resumed)]
    assert same(stores[0], stores[1])
    rows = [RunFolder(r.folder).metrics() for r in (whole, resumed)]
    assert [{k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in rows[1]
    ]
    weights = [(r.artifact / "weights_asset.npz").read_bytes() for r in (whole, resumed)]
    assert weights[0] == weights[1]


def test_ctrl_c_in_the_middle_of_an_iteration_keeps_the_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(iterations=4, checkpoint_every=100)
    whole = train(config, tmp_path / "whole", problem=drift_problem(config))
    collect, calls = InProcessCollector.collect, []

    def interrupted(self: InProcessCollector, weights: Any) -> Any:
        rollouts = collect(self, weights)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rollouts

    monkeypatch.setattr(InProcessCollector, "collect", interrupted)
    with pytest.raises(RunInterrupted, match="after iteration 2"):
        train(config, tmp_path / "cut", problem=drift_problem(config))
    resumed = resume(tmp_path / "cut", problem=drift_problem(config))
    stores = [RunFolder(r.folder).checkpoints(3).load_newest()[0] for r in (whole, resumed)]
    assert same(stores[0], stores[1])


def test_an_error_saves_the_last_whole_iteration_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = small(iterations=4, checkpoint_every=100)

    def fail(report: IterationReport) -> None:
        if report.iteration == 2:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full") as caught:
        train(config, tmp_path / "run", fail, problem=drift_problem(config))
    assert "iteration 2 is saved" in caught.value.__notes__[0]
    assert resume(tmp_path / "run", problem=drift_problem(config)).iterations == 4


def test_the_run_folder_says_what_was_run(tmp_path: Path) -> None:
    config = small(iterations=2)
    reports: list[IterationReport] = []
    result = train(config, tmp_path / "run", reports.append, problem=drift_problem(config))
    assert {p.name for p in result.folder.iterdir()} == {
        "config.yaml", "versions.json", "seeds.json", "metrics.jsonl", "tensorboard", "checkpoints", "artifact",
        "result.json", "in_use.lock",
    }  # fmt: skip
    assert [row["iteration"] for row in RunFolder(result.folder).metrics()] == [1, 2]
    assert [r.iteration for r in reports] == [1, 2]
    assert result.agent_steps == 2 * 4 * 16 * 3
    assert list((result.folder / "tensorboard").glob("events.*"))
    assert (result.artifact / "policy_asset.onnx").is_file()


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    config = small()
    with pytest.raises(RunError, match="is not empty; choose a new folder"):
        train(config, tmp_path, problem=drift_problem(config))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
