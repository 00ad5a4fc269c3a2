"""The emulated farm against FLORIS itself, and its bookkeeping."""

from __future__ import annotations

import time

import numpy as np
import pytest

from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import ConfigurationError, LayoutError, PlantError
from twinloop.envs.plant import Quality
from twinloop.envs.wind_farm.config import CoordinateLayout, FlorisPlantConfig, Inflow, NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.floris_model import FarmSolver, build_model
from twinloop.envs.wind_farm.plant import FlorisPlant

QUIET = {
    "series": "constant",
    "gust_share": 0.0,
    "direction_gust_deg": 0.0,
    "wind_speed_noise_pu": 0.0,
    "vane_noise_deg": 0.0,
    "vane_bias_deg": 0.0,
    "power_noise_pu": 0.0,
}
COLUMN = {
    "wind_speed_mps": 0,
    "wind_direction_deg": 1,
    "nacelle_deg": 2,
    "power_kw": 3,
    "yaw_duty_pu": 5,
    "pitch_deg": 6,
}


def farm(layout: str = "row3_5d", dt_s: float = 10.0) -> WindFarmConfig:
    return WindFarmConfig(layout=NamedLayout(name=layout), dt_s=dt_s)


def plant_of(layout: str = "row3_5d", dt_s: float = 10.0, **settings: object) -> FlorisPlant:
    return FlorisPlant(farm(layout, dt_s), FlorisPlantConfig.model_validate({**QUIET, **settings}))


def commands(plant: FlorisPlant, offsets: list[float], limit: float = 1.0) -> dict[str, np.ndarray]:
    return {"turbine": np.column_stack((offsets, np.full(len(offsets), limit)))}


def floris_kw(
    config: WindFarmConfig, yaw_deg: object, model: str = "cosine-loss", limit_kw: object = None
) -> np.ndarray:
    fmodel = build_model(config, model)
    setpoints = None if limit_kw is None else 1e3 * np.atleast_2d(np.asarray(limit_kw))
    fmodel.set_operation(yaw_angles=np.atleast_2d(np.asarray(yaw_deg, dtype=float)), power_setpoints=setpoints)
    fmodel.run()
    return np.asarray(fmodel.get_turbine_powers()[0] / 1e3)


def advance(plant: FlorisPlant, periods: int) -> None:
    for _ in range(periods):
        plant.advance()


def test_the_plant_keeps_the_plant_contract() -> None:
    check_plant(lambda: FlorisPlant(farm(), FlorisPlantConfig(dropout_pu=0.1)))


@pytest.mark.parametrize(("layout", "classes"), [("row3_5d", 8), ("ablaincourt", 8), ("ablaincourt", 3)])
def test_settled_plant_in_constant_wind_has_floris_own_powers(layout: str, classes: int) -> None:
    plant = plant_of(layout, dt_s=30.0, n_age_classes=classes, yaw_deadband_deg=0.5)
    n = plant.nameplate.groups[0].n_assets
    offsets = [20.0 - 3.0 * i for i in range(n)]
    plant.write(commands(plant, offsets))
    advance(plant, 60)
    truth = plant.truth()
    np.testing.assert_allclose(truth["misalignment_deg"], offsets, atol=1e-9)
    np.testing.assert_allclose(truth["power_kw"], floris_kw(farm(layout), truth["misalignment_deg"]), rtol=1e-12)


def test_positive_offset_turns_the_nacelle_against_the_compass_and_is_floris_positive_yaw() -> None:
    plant = plant_of()
    plant.write(commands(plant, [20.0, 0.0, 0.0]))
    advance(plant, 60)
    values = plant.read().values["turbine"]
    np.testing.assert_allclose(values[:, COLUMN["nacelle_deg"]], [250.0, 270.0, 270.0], atol=1e-9)
    expected, mirrored = floris_kw(farm(), [20.0, 0.0, 0.0]), floris_kw(farm(), [-20.0, 0.0, 0.0])
    np.testing.assert_allclose(values[:, COLUMN["power_kw"]], expected, rtol=1e-9)
    assert abs(expected.sum() - mirrored.sum()) > 5.0  # the curl model tells the signs apart


def test_power_limit_gives_the_powers_of_floris_mixed_model() -> None:
    plant = plant_of()
    plant.write(commands(plant, [0.0, 0.0, 0.0], limit=0.25))
    advance(plant, 60)
    limit_kw = np.full(3, 0.25) * plant.nameplate.groups[0].statics_array()[:, 4]
    np.testing.assert_allclose(plant.truth()["power_kw"], floris_kw(farm(), np.zeros(3), "mixed", limit_kw), rtol=1e-12)


def test_limited_and_yawed_turbine_gives_the_smaller_of_both_and_shades_less() -> None:
    solver = FarmSolver(farm(), 1)
    inflow = (np.array([8.0]), np.array([270.0]), np.array([0.06]))
    yaw = np.array([[20.0, 0.0, 0.0]])
    free = solver.solve(*inflow, yaw)
    limited = solver.solve(*inflow, yaw, np.array([[1000.0, np.inf, np.inf]]))
    assert limited.power_kw[0, 0] == 1000.0 < free.power_kw[0, 0]
    assert limited.power_kw[0, 1] > free.power_kw[0, 1]


def test_solver_that_keeps_its_model_equals_a_rebuilt_floris_to_the_last_bit() -> None:
    rng = np.random.default_rng(3)
    solver, fmodel = FarmSolver(farm("ablaincourt"), 5), build_model(farm("ablaincourt"))
    for _ in range(3):
        inflow = rng.uniform(6, 11, 5), rng.uniform(0, 360, 5), rng.uniform(0.05, 0.12, 5)
        yaw = rng.uniform(-30, 30, (5, 7))
        fmodel.set(wind_speeds=inflow[0], wind_directions=inflow[1], turbulence_intensities=inflow[2], yaw_angles=yaw)
        fmodel.run()
        np.testing.assert_array_equal(solver.solve(*inflow, yaw).power_kw, fmodel.get_turbine_powers() / 1e3)


def test_a_turned_wake_reaches_the_next_turbine_after_distance_over_wake_speed() -> None:
    plant = plant_of(dt_s=5.0, wake_speed_ratio=0.9)
    start_kw = plant.truth()["equilibrium_power_kw"]
    plant.write(commands(plant, [25.0, 0.0, 0.0]))
    first_change_s = [0.0, 0.0, 0.0]
    for _ in range(60):
        plant.advance()
        truth = plant.truth()
        moved = np.abs(truth["equilibrium_power_kw"] - start_kw) > 1e-6
        first_change_s = [t or truth["time_s"] * m for t, m in zip(first_change_s, moved, strict=True)]
    assert first_change_s[0] == 5.0
    delays = np.array(first_change_s[1:]) - first_change_s[0]
    exact = np.array([630.0, 1260.0]) / (0.9 * 8.0)
    assert np.all(delays > exact - 5.0)
    assert np.all(delays <= exact + 5.0)


def test_a_wind_front_reaches_turbines_one_after_the_other(tmp_path: object) -> None:
    path = f"{tmp_path}/front.csv"
    rows = ["0,8,270,0.06", "300,8,270,0.06", "301,9,270,0.06", "3000,9,270,0.06"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(["time_s,wind_speed_mps,wind_direction_deg,turbulence_pu", *rows]))
    plant = plant_of(dt_s=10.0, series=path)
    arrived_s = np.zeros(3)
    for _ in range(60):
        plant.advance()
        truth = plant.truth()
        arrived_s = np.where((arrived_s == 0) & (truth["free_wind_speed_mps"] > 8.5), truth["time_s"], arrived_s)
    spacing = np.diff(arrived_s)
    assert np.all((spacing >= 60.0) & (spacing <= 90.0))  # 630 m at 8 to 9 m/s, in periods of 10 s


def test_energy_is_the_integral_of_true_power() -> None:
    plant = FlorisPlant(farm("ablaincourt", 60.0), FlorisPlantConfig(power_lag_s=0.0))
    total_kwh = 0.0
    for _ in range(20):
        plant.advance()
        total_kwh += plant.truth()["power_kw"].sum() * 60.0 / 3600.0
    assert plant.energy_kwh == pytest.approx(total_kwh, rel=1e-12)


def test_energy_of_a_lagged_limit_step_is_the_exact_integral_of_the_exponential() -> None:
    """Small periods approach the exact integral: halving the period must not move the energy."""
    energies = []
    for dt_s in (2.0, 1.0):
        plant = plant_of(dt_s=dt_s, power_lag_s=8.0)
        plant.write(commands(plant, [0.0, 0.0, 0.0], limit=0.2))
        advance(plant, int(120.0 / dt_s))
        energies.append(plant.energy_kwh)
    assert energies[0] == pytest.approx(energies[1], rel=2e-3)


def test_same_seed_gives_the_same_wind_and_sensor_errors_whatever_is_commanded() -> None:
    settings = FlorisPlantConfig(seed=4, dropout_pu=0.1, outage_rate_per_day=20.0)
    one, two = FlorisPlant(farm(), settings), FlorisPlant(farm(), settings)
    two.write(commands(two, [25.0, -20.0, 10.0], limit=0.6))
    for _ in range(40):
        one.advance()
        two.advance()
        a, b = one.truth(), two.truth()
        for name in ("free_wind_speed_mps", "free_wind_direction_deg", "free_turbulence_pu"):
            np.testing.assert_array_equal(a[name], b[name])
        x, y = one.read(), two.read()
        np.testing.assert_array_equal(x.quality["turbine"], y.quality["turbine"])
        np.testing.assert_array_equal(x.values["turbine"][:, 7], y.values["turbine"][:, 7])
        good = np.all(x.quality["turbine"] == Quality.GOOD, axis=1)
        column = COLUMN["power_kw"]
        error = [r.values["turbine"][good, column] - t["power_kw"][good] for r, t in ((x, a), (y, b))]
        np.testing.assert_allclose(error[0], error[1], atol=1e-9)
    assert np.abs(a["misalignment_deg"] - b["misalignment_deg"]).max() > 5.0


def test_another_seed_gives_another_wind() -> None:
    speeds = [FlorisPlant(farm(), FlorisPlantConfig(seed=s)).truth()["free_wind_speed_mps"][0] for s in (0, 1)]
    assert speeds[0] != speeds[1]


def test_a_clone_goes_on_alike_and_apart() -> None:
    plant = FlorisPlant(farm(), FlorisPlantConfig())
    advance(plant, 5)
    twin = plant.clone()
    advance(plant, 5)
    advance(twin, 5)
    np.testing.assert_array_equal(plant.read().values["turbine"], twin.read().values["turbine"])
    twin.write(commands(twin, [20.0, 0.0, 0.0]))
    advance(plant, 30)
    advance(twin, 30)
    assert plant.truth()["misalignment_deg"][0] + 10.0 < twin.truth()["misalignment_deg"][0]


def test_refused_items_keep_their_last_accepted_value() -> None:
    plant = plant_of()
    plant.write(commands(plant, [10.0, 10.0, 10.0], limit=0.8))
    accepted = plant.write({"turbine": np.array([[np.nan, 0.5], [41.0, np.inf], [-40.0, 0.05]])})
    np.testing.assert_array_equal(accepted["turbine"], [[10.0, 0.5], [10.0, 0.8], [-40.0, 0.8]])
    with pytest.raises(PlantError, match=r"shape \(2, 2\), expected \(3, 2\)"):
        plant.write({"turbine": np.zeros((2, 2))})
    with pytest.raises(PlantError, match="no group 'turbines'"):
        plant.write({"turbines": np.zeros((3, 2))})


def test_yaw_never_exceeds_its_rate_nor_its_duty_allowance() -> None:
    plant = plant_of(dt_s=10.0)
    travelled = [plant.truth()["yaw_travel_deg"]]
    for k in range(400):
        if k % 20 == 0:
            plant.write(commands(plant, [35.0 * (-1.0) ** (k // 20)] * 3))
        plant.advance()
        travelled.append(plant.truth()["yaw_travel_deg"])
    travel = np.array(travelled)
    assert np.diff(travel, axis=0).max() <= 0.3 * 10.0 + 1e-9
    hour = travel[360:] - travel[:-360]
    assert hour.max() <= 0.1 * 3600.0 * 0.3 + 1e-6
    assert plant.read().values["turbine"][:, COLUMN["yaw_duty_pu"]].max() > 0.95


def test_small_errors_leave_the_yaw_drive_at_rest() -> None:
    plant = plant_of(yaw_deadband_deg=3.0)
    plant.write(commands(plant, [2.9, -2.9, 0.0]))
    advance(plant, 30)
    np.testing.assert_array_equal(plant.truth()["yaw_travel_deg"], 0.0)


def test_lost_readings_are_bad_and_keep_their_old_value_and_time() -> None:
    plant = FlorisPlant(farm(), FlorisPlantConfig(dropout_pu=0.3))
    assert np.all(plant.read().quality["turbine"] == Quality.GOOD)
    share = []
    for _ in range(60):
        before = plant.read()
        plant.advance()
        after = plant.read()
        lost = after.quality["turbine"] == Quality.BAD
        share.append(lost.mean())
        for name in ("values", "source_time_s"):
            np.testing.assert_array_equal(getattr(after, name)["turbine"][lost], getattr(before, name)["turbine"][lost])
        assert np.all(after.source_time_s["turbine"][~lost] == plant.clock_s)
    assert abs(np.mean(share) - 0.3) < 3.0 * np.sqrt(0.3 * 0.7 / (60 * 24))


def test_a_turbine_in_outage_makes_no_power_and_no_wake() -> None:
    plant = plant_of(dt_s=60.0, outage_rate_per_day=100.0, outage_duration_s=1e6, seed=5)
    advance(plant, 120)
    values = plant.read().values["turbine"]
    assert np.all(values[:, 7] == 0.0)
    np.testing.assert_allclose(values[:, COLUMN["power_kw"]], 0.0, atol=1e-3)
    np.testing.assert_allclose(plant.truth()["rotor_wind_speed_mps"], 7.97, atol=0.05)


def test_pitch_rises_when_the_limit_binds() -> None:
    plant = plant_of()
    assert np.all(plant.read().values["turbine"][:, COLUMN["pitch_deg"]] == 0.0)
    plant.write(commands(plant, [0.0, 0.0, 0.0], limit=0.2))
    advance(plant, 30)
    pitch = plant.read().values["turbine"][:, COLUMN["pitch_deg"]]
    assert pitch[0] > 5.0
    assert pitch[0] > pitch[1]


def test_impossible_layouts_are_named() -> None:
    near = WindFarmConfig(layout=CoordinateLayout(x_m=(0.0, 100.0), y_m=(0.0, 0.0)))
    with pytest.raises(LayoutError, match="WT01 and WT02"):
        FlorisPlant(near, FlorisPlantConfig())
    # model_construct goes round the model's own refusal of NaN, as a caller's code might
    lost = WindFarmConfig(layout=CoordinateLayout.model_construct(x_m=(0.0, float("nan")), y_m=(0.0, 0.0)))
    with pytest.raises(LayoutError, match="WT02"):
        FlorisPlant(lost, FlorisPlantConfig())
    many = WindFarmConfig.model_validate({"layout": {"kind": "random"}})
    with pytest.raises(ConfigurationError, match="random"):
        FlorisPlant(many, FlorisPlantConfig())


def test_constant_series_is_the_middle_of_the_inflow_ranges() -> None:
    config = WindFarmConfig(inflow=Inflow(wind_speed_mps=(7.0, 9.0), wind_direction_deg=(250.0, 260.0)))
    truth = FlorisPlant(config, FlorisPlantConfig.model_validate(QUIET)).truth()
    np.testing.assert_allclose(truth["free_wind_speed_mps"], 8.0)
    np.testing.assert_allclose(truth["free_wind_direction_deg"], 255.0)


def test_a_period_of_seven_turbines_costs_at_most_40_ms() -> None:
    plant = FlorisPlant(farm("ablaincourt", 60.0), FlorisPlantConfig())
    plant.advance()
    costs_s = []
    for _ in range(15):
        start_s = time.thread_time()
        plant.advance()
        costs_s.append(time.thread_time() - start_s)
    assert np.median(costs_s) <= 0.040
