"""Evaluation: pairing, records that are kept, comparisons, and steady gains against FLORIS' own optimiser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from twinloop.agents.controllers import RandomPolicy
from twinloop.agents.named import POLICIES, named_policy, names_for
from twinloop.agents.policy import Commands, Memory, Policy
from twinloop.envs.errors import ConfigurationError, PlantError, TwinloopError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.plant_file import load_plant_file
from twinloop.envs.robot_cell.config import RobotCellConfig
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig
from twinloop.envs.twin import Observation
from twinloop.envs.wind_farm.config import FlorisPlantConfig, Inflow, NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.floris_model import build_model
from twinloop.envs.wind_farm.nameplate import GROUP
from twinloop.envs.wind_farm.yaw_optimum import build_table
from twinloop.training import evaluation
from twinloop.training.contestants import Contestant, baselines_for, grid_for, parse_baselines
from twinloop.training.evaluation import PlantJob, PlantRecord, compare, run_job, run_jobs
from twinloop.training.flow_picture import draw_flow
from twinloop.training.report import provenance, standings_table
from twinloop.training.steady_evaluation import SteadyWind, settle, steady_gain, steady_observation

ROW = WindFarmConfig(name="row", layout=NamedLayout(name="row3_5d"), dt_s=60.0)
WIND = SteadyWind()


def job(contestant: Contestant, seed: int = 0, n_periods: int = 30, **plant: float | str) -> PlantJob:
    return PlantJob(contestant, "wind_farm", ROW, FlorisPlantConfig(seed=seed, **plant), n_periods)


class Fixed:
    """Always the same offsets, ``[N]``."""

    name = "fixed"

    def __init__(self, nameplate: Nameplate, offsets_deg: list[float]) -> None:
        self.nameplate = nameplate
        self._offsets = np.array(offsets_deg)

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands = np.ones((observation.measured[GROUP].shape[0], len(self._offsets), 2))
        commands[:, :, 0] = self._offsets
        return {GROUP: commands}, memory


@pytest.fixture(scope="module")
def lut(tmp_path_factory: pytest.TempPathFactory) -> Contestant:
    file = tmp_path_factory.mktemp("table") / "table.npz"
    build_table(ROW, [255.0, 260.0, 265.0, 270.0, 275.0, 280.0, 285.0], [8.0], cache=file)
    return Contestant("lut", file)


def test_steady_gain_of_known_offsets_is_the_published_one() -> None:
    """Brute force at 1 deg: +22.327 % at (30, 23, 0) by FLORIS 4.7."""
    result = steady_gain("row", ROW, lambda plate: Fixed(plate, [30.0, 23.0, 0.0]))
    assert result.gain == pytest.approx(0.22327, abs=2e-5)
    assert result.optimum_gain == pytest.approx(0.2233, abs=5e-5)
    assert result.share == pytest.approx(1.0, abs=1e-3)
    assert result.settled
    assert result.greedy_kw == pytest.approx(2697.1, rel=1e-4)


def test_greedy_gains_nothing_and_a_random_policy_never_settles() -> None:
    assert steady_gain("row", ROW, Contestant("greedy").build).gain == 0.0
    assert not steady_gain("row", ROW, RandomPolicy).settled


def test_a_rate_limited_table_settles_on_its_own_offsets(lut: Contestant) -> None:
    result = steady_gain("row", replace_period(10.0), lut.build)
    assert result.settled
    assert result.turns > 9  # 25 deg at 3 deg a turn
    assert result.offsets_deg == pytest.approx((25.0, 23.4375, 0.0), abs=0.01)


def replace_period(dt_s: float) -> WindFarmConfig:
    return ROW.model_copy(update={"dt_s": dt_s})


def test_the_steady_observation_is_what_the_plant_would_say_without_noise() -> None:
    """The plant itself, with constant wind and perfect sensors, after its wakes have travelled."""
    quiet = {"wind_speed_noise_pu": 0.0, "vane_noise_deg": 0.0, "vane_bias_deg": 0.0, "power_noise_pu": 0.0,
             "gust_share": 0.0, "direction_gust_deg": 0.0, "yaw_deadband_deg": 0.0}  # fmt: skip
    from twinloop.envs.wind_farm.plant import FlorisPlant

    config = ROW.model_copy(update={"inflow": Inflow()})
    plant = FlorisPlant(config, FlorisPlantConfig(series="constant", **quiet))
    offsets = np.array([20.0, 10.0, 0.0])
    for _ in range(30):
        plant.write({GROUP: np.stack([offsets, np.ones(3)], axis=1)})
        plant.advance()
    model = build_model(config)
    model.set_operation(yaw_angles=offsets[None])
    model.run()
    ours = steady_observation(plant.nameplate, model, offsets, WIND).measured[GROUP][0]
    for column, signal in enumerate(plant.nameplate.group(GROUP).measured):
        if signal.name in ("wind_speed_mps", "wind_direction_deg", "nacelle_deg", "power_kw", "available_pu"):
            assert ours[:, column] == pytest.approx(plant.read().values[GROUP][:, column], rel=2e-3, abs=0.2), (
                signal.name
            )


def test_all_policies_meet_the_same_wind_whatever_they_do(lut: Contestant) -> None:
    still, again = run_job(job(Contestant("greedy"))), run_job(job(Contestant("greedy")))
    assert still.energy_kwh == again.energy_kwh
    steered = run_job(job(lut))
    assert steered.energy_kwh != still.energy_kwh
    assert sum(steered.yaw_travel_deg) > sum(still.yaw_travel_deg)
    other = run_job(job(Contestant("greedy"), seed=1))
    assert other.energy_kwh != still.energy_kwh


def test_records_are_kept_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(Contestant("greedy")), job(Contestant("random"))]
    first = run_jobs(jobs, tmp_path)
    ran: list[PlantJob] = []
    monkeypatch.setattr(evaluation, "run_job", lambda j, count: ran.append(j))
    assert run_jobs(jobs, tmp_path) == first
    assert ran == []


def test_a_run_that_was_stopped_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(Contestant("greedy")), job(Contestant("random"))]
    real = evaluation.run_job

    def stopped(which: PlantJob, count: object = None) -> PlantRecord:
        if which is jobs[1]:
            raise KeyboardInterrupt
        return real(which)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "run_job", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(jobs, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert [r.policy for r in run_jobs(jobs, tmp_path)] == ["greedy", "random"]


def test_processes_give_the_records_of_one_process(tmp_path: Path) -> None:
    jobs = [job(Contestant("greedy"), n_periods=5), job(Contestant("random"), n_periods=5)]
    shares: list[list[float]] = []
    spread = run_jobs(jobs, tmp_path / "two", 2, lambda s: shares.append(list(s)))
    alone = run_jobs(jobs, tmp_path / "one", 1)
    assert [r.energy_kwh for r in spread] == [r.energy_kwh for r in alone]
    assert shares[-1] == [1.0, 1.0]


def test_another_policy_or_plant_never_reuses_a_record(lut: Contestant) -> None:
    keys = {j.key() for j in (job(Contestant("greedy")), job(Contestant("greedy"), seed=1), job(lut),
                              job(Contestant("greedy"), n_periods=31),
                              job(Contestant("greedy"), dropout_pu=0.1))}  # fmt: skip
    assert len(keys) == 5


def test_a_policy_that_fails_is_no_result() -> None:
    class Failing(Fixed):
        def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
            raise ArithmeticError("out of ideas")

    class FailingContestant(Contestant):
        def build(self, nameplate: Nameplate, seed: int = 0) -> Policy:
            return Failing(nameplate, [0.0] * 3)

    with pytest.raises(PlantError, match="out of ideas"):
        run_job(job(FailingContestant("greedy")))


def record(policy: str, seed: int, energy: list[float], load: float = 1.0) -> PlantRecord:
    return PlantRecord(policy, seed, 60.0, tuple(energy), (30.0, 60.0), (load, load), {"command_rate": 2}, 1, 3.0, 1.0)


def test_comparison_gives_gains_loads_and_travel_against_the_reference() -> None:
    rng = np.random.default_rng(2)
    wind = [(50.0 + rng.random(60)).tolist() for _ in range(3)]
    records = [record("greedy", s, wind[s]) for s in range(3)]
    records += [record("policy", s, [1.05 * v for v in wind[s]], load=1.1) for s in range(3)]
    greedy, policy = compare(records, ["greedy"])
    assert policy.gain["greedy"].estimate == pytest.approx(0.05)
    assert policy.gain_seeds["greedy"].estimate == pytest.approx(0.05)
    assert policy.load_change == pytest.approx(0.1)
    assert policy.yaw_travel_deg_per_h == pytest.approx(45.0)
    assert policy.interventions == 6
    assert greedy.gain == {}
    table = standings_table([greedy, policy], ["greedy"], "t")
    assert "+5.00 %" in table.markdown()
    assert "policy" in table.csv().splitlines()[0]


def test_seeds_that_do_not_pair_are_refused() -> None:
    records = [record("greedy", 0, [1.0, 2.0]), record("policy", 1, [1.0, 2.0])]
    with pytest.raises(TwinloopError, match="run both on all"):
        compare(records, ["greedy"])
    with pytest.raises(TwinloopError, match="no record of 'lut'"):
        compare(records, ["lut"])


def test_a_table_covers_the_winds_of_its_run_and_no_more() -> None:
    day = FlorisPlantConfig(series="day", start_s=43200.0)
    grid = grid_for(day, ROW, 6.0)
    assert 240.0 < grid.directions_deg[0] < 266.0
    assert 278.0 < grid.directions_deg[-1] < 300.0
    assert set(np.diff(grid.directions_deg)) == {3.0}
    month = grid_for(FlorisPlantConfig(series="month"), ROW, 700.0)
    assert len(month.directions_deg) == 120


def plate_of(file: str) -> Nameplate:
    site, config, _ = load_plant_file(f"configs/{file}")
    return site.nameplate(config)


def test_baselines_are_named_and_mistypes_say_the_nearest() -> None:
    farm = baselines_for(plate_of("wind_farm/plant_ablaincourt.yaml"), has_table=True)
    assert farm == ("greedy", "lut", "random")
    assert parse_baselines("greedy, lut,greedy", farm) == ("greedy", "lut")
    with pytest.raises(ConfigurationError, match=r"it has greedy, lut, random.*did you mean 'greedy'"):
        parse_baselines("gredy", farm)


@pytest.mark.parametrize(
    ("file", "takes", "lacks"),
    [
        ("production_line/plant_energy.yaml", "hysteresis", "best_age"),
        ("production_line/plant_wear.yaml", "best_age", "lut"),
        ("robot_cell/plant_cell.yaml", "zone_token", "hysteresis"),
        ("wind_farm/plant_ablaincourt.yaml", "random", "barrier"),
    ],
)
def test_a_sites_baselines_are_those_that_a_run_takes(file: str, takes: str, lacks: str) -> None:
    plate = plate_of(file)
    allowed = baselines_for(plate, has_table=False)
    assert parse_baselines(f"greedy,{takes}", allowed) == ("greedy", takes)
    assert Contestant(takes).build(plate, 3).nameplate.hash == plate.hash
    told = f"it has {', '.join(allowed)}"
    with pytest.raises(ConfigurationError, match=told):
        parse_baselines(lacks, allowed)
    with pytest.raises(ConfigurationError, match=f"takes {', '.join(allowed)}"):
        named_policy(lacks, plate)


def test_every_name_that_a_run_knows_fits_some_site() -> None:
    files = ("production_line/plant_energy.yaml", "production_line/plant_wear.yaml", "robot_cell/plant_cell.yaml")
    assert {name for file in files for name in names_for(plate_of(file))} == set(POLICIES)


def test_a_cell_is_compared_by_its_touches_and_contacts() -> None:
    config, plant = RobotCellConfig(tool_length_m=0.1), RobotCellPlantConfig()
    records = [run_job(PlantJob(Contestant(k), "robot_cell", config, plant, 150)) for k in ("greedy", "barrier")]
    assert PlantRecord.from_json(records[1].to_json()) == records[1]
    still, moving = compare(records, ["greedy"])
    assert still.counts["touches"] == 0.0 < moving.counts["touches"]
    assert moving.counts["contacts: arm"] == 0.0
    table = standings_table([still, moving], ["greedy"], "t").markdown()
    assert "| touches | 0 |" in table
    assert "wind" not in table
    assert "energy" not in table


def test_a_line_is_compared_by_what_it_draws_and_finishes() -> None:
    site, config, plant = load_plant_file("configs/production_line/plant_energy.yaml")
    records = [run_job(PlantJob(Contestant(k), site.name, config, plant, 60)) for k in ("greedy", "hysteresis")]
    always_on, sleeping = compare(records, ["greedy"])
    assert sleeping.energy_mwh < always_on.energy_mwh
    assert sleeping.counts["finished"] > 0.0
    table = standings_table([always_on, sleeping], ["greedy"], "t").markdown()
    assert "| energy, kWh |" in table
    assert "| over greedy, courses like it |" in table


def test_provenance_shows_how_to_make_it_again_and_no_absolute_path(tmp_path: Path) -> None:
    made = provenance([3], command=["evaluate", str(tmp_path / "artifact"), "--hours", "2"])
    assert made["command"] == "twinloop evaluate artifact --hours 2"
    assert made["versions"]["floris"].startswith("4.7")
    assert str(tmp_path) not in json.dumps(made)


def test_the_flow_picture_is_drawn_without_a_display(tmp_path: Path) -> None:
    path = draw_flow(ROW, WIND, [("greedy", [0.0] * 3), ("steered", [25.0, 20.0, 0.0])], tmp_path / "flow.png")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_settling_returns_the_power_of_the_last_offsets() -> None:
    model = build_model(ROW)
    from twinloop.envs.wind_farm.farm import farm_nameplate

    plate = farm_nameplate(ROW)
    offsets, power_kw, _, settled = settle(Fixed(plate, [10.0, 0.0, 0.0]), plate, model, WIND)
    assert settled
    assert offsets.tolist() == [10.0, 0.0, 0.0]
    assert power_kw > 2697.1
