"""The policy on the plant while it is trained: the figures are those of a full evaluation of the same artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.linear_site import TankPlant, tank_nameplate

from twinloop.agents.ppo_settings import PpoConfiguration
from twinloop.envs.errors import ConfigurationError, TwinloopError
from twinloop.envs.registry import load_site
from twinloop.envs.wind_farm.config import FlorisPlantConfig, NamedLayout, WindFarmConfig
from twinloop.training.configuration import EncoderChoice, TaskChoice, TrainConfiguration
from twinloop.training.contestants import Contestant
from twinloop.training.evaluation import PlantJob, run_job
from twinloop.training.plant_evaluation import PlantEvaluation
from twinloop.training.problem import Problem
from twinloop.training.rollout_settings import RolloutConfiguration
from twinloop.training.run import RunInterrupted, RunResult, check, resume, train
from twinloop.training.run_folder import TIMING_FIGURES, RunFolder
from twinloop.training.run_settings import EvaluationConfiguration, PlantEvaluationConfiguration

ROW = WindFarmConfig(name="row", layout=NamedLayout(name="row3_5d"), dt_s=60.0)
SEEDS, PERIODS = (3, 4), 6


def farm(iterations: int = 4, **evaluation: Any) -> TrainConfiguration:
    plant = PlantEvaluationConfiguration(every=2, periods=PERIODS, seeds=SEEDS, plant={"kind": "floris"})
    return TrainConfiguration(
        name="row",
        site=ROW,
        task=TaskChoice(name="farm_power", options={"horizon": 2}),
        encoder=EncoderChoice(name="relational"),
        learner=PpoConfiguration(epochs=1, minibatches=2, controlled={"turbine": ("yaw_offset_deg",)}),
        rollout=RolloutConfiguration(replicas=4, steps=2),
        evaluation=EvaluationConfiguration(**{"plant": plant, "judge": "plant/gain", **evaluation}),
        iterations=iterations,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(farm(), tmp_path_factory.mktemp("plant") / "run")


def test_figures_are_those_of_an_evaluation_of_the_artifact_on_the_same_plant(trained: RunResult) -> None:
    rows = RunFolder(trained.folder).metrics()
    assert ["plant/gain" in row for row in rows] == [False, True, False, True]
    contestants = (Contestant("artifact", trained.artifact), Contestant("greedy"))
    ours, neutral = (
        [run_job(PlantJob(c, "wind_farm", ROW, FlorisPlantConfig(seed=seed), PERIODS)) for seed in SEEDS]
        for c in contestants
    )
    energy, idle = (sum(sum(record.energy_kwh) for record in records) for records in (ours, neutral))
    last = rows[-1]
    n = len(SEEDS) * PERIODS
    assert last["plant/energy_kwh"] == pytest.approx(energy / n, rel=1e-12)
    assert last["plant/gain"] == pytest.approx(energy / idle - 1.0, abs=1e-12)
    assert last["plant/interventions"] == sum(sum(r.interventions.values()) for r in ours) / n
    assert last["plant/fallback"] == sum(r.fallback_periods for r in ours) / n


def test_an_interruption_on_the_plant_is_resumed_to_the_same_figures(
    trained: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = PlantEvaluation.evaluate
    calls: list[Path] = []

    def stop_the_second(self: PlantEvaluation, artifact: Path) -> dict[str, float]:
        calls.append(artifact)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, artifact)

    with monkeypatch.context() as patch:
        patch.setattr(PlantEvaluation, "evaluate", stop_the_second)
        with pytest.raises(RunInterrupted, match="after iteration 3;"):
            train(farm(), tmp_path / "cut")
    resumed = resume(tmp_path / "cut")
    rows = [
        [{k: v for k, v in row.items() if k not in TIMING_FIGURES} for row in RunFolder(r.folder).metrics()]
        for r in (trained, resumed)
    ]
    assert rows[0] == rows[1]


def test_a_plants_file_is_read_into_the_run(tmp_path: Path) -> None:
    file = tmp_path / "plant.yaml"
    file.write_text("site: {kind: wind_farm, name: other, dt_s: 60.0}\nplant: {kind: floris, dropout_pu: 0.01}\n")
    settings = PlantEvaluationConfiguration.model_validate({"file": str(file), "periods": 5})
    assert settings.plant == {"kind": "floris", "dropout_pu": 0.01}
    assert settings.site == {"kind": "wind_farm", "name": "other", "dt_s": 60.0}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"file": "nowhere.yaml"}, "file: nowhere.yaml: no such file"),
        ({"file": "a.yaml", "plant": {}}, "say the same thing twice"),
        ({"periods": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_name_no_plant_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PlantEvaluationConfiguration.model_validate(settings)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        ({"plant": {"kind": "floris", "drop_pu": 0.1}}, r"evaluation\.plant\.plant: drop_pu: .*dropout_pu"),
        ({"site": {"kind": "wind_frm"}}, r"evaluation\.plant: site\.kind: .*did you mean 'wind_farm'"),
        (
            {"site": {"kind": "wind_farm", "name": "row", "layout": {"kind": "named", "name": "ablaincourt"}}},
            r"the policy learns for 'row' \(here\) with scope site, .*they differ in: .*set scope: interface",
        ),
    ],
)
def test_a_plant_that_the_policy_cannot_serve_is_told_before_the_run(plant: dict[str, Any], says: str) -> None:
    config = farm(plant=PlantEvaluationConfiguration.model_validate(plant))
    with pytest.raises(TwinloopError, match=says):
        check(config, Problem.of(config))


def test_energy_is_asked_only_of_plants_that_have_a_meter(tmp_path: Path) -> None:
    site: Any = load_site("wind_farm")

    class Tanks:
        name = "tank_battery"

        def plant(self, config: object, plant_config: object) -> TankPlant:
            return TankPlant()

    settings = PlantEvaluationConfiguration()
    tanks: Any = Tanks()
    evaluation = PlantEvaluation(settings, tanks, ROW, site.plant_config_model(), tmp_path)
    evaluation.check(tank_nameplate(), "interface", "evaluation/reward")
    with pytest.raises(ConfigurationError, match="has neither energy_kwh nor a measured power_kw"):
        evaluation.check(tank_nameplate(), "interface", "plant/gain")
