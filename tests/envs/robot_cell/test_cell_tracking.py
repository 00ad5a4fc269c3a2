"""The cell's live twin: what is told is taken over, the arms' lag is learnt, commands that nobody told judge nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.deploy.live_twin import LiveTwin, LiveTwinSettings
from twinloop.deploy.twin_plan import describe
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.estimation.mixable import Following, Mixable
from twinloop.envs.plant import Telemetry
from twinloop.envs.robot_cell.config import Obstacle, People, RandomArms, RobotCellConfig
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig
from twinloop.envs.robot_cell.tracking import LAG, track_cell
from twinloop.envs.robot_cell.twin import RobotCellTwin

Floats = NDArray[np.float64]
PERIOD_S = 0.02
CELL = RobotCellConfig(tool_length_m=0.1, people=People(number=(1, 1), distance_m=(2.0, 3.0)))


def live_of(config: RobotCellConfig, members: int = 16, **more: object) -> LiveTwin:
    plan = track_cell(config, RobotCellPlantConfig())
    settings = LiveTwinSettings(**{**plan.settings.model_dump(exclude_unset=True), **more})
    twin = RobotCellTwin(plan.config, members, dtype=torch.float64)  # type: ignore[arg-type]  # of this very site
    return LiveTwin(twin, settings, plan.tracker)


def told_by(twin: RobotCellTwin, k: int) -> Telemetry:
    """What a twin that stands for the plant measures, at its period ``k``."""
    values = {name: table[0].numpy() for name, table in twin.reset(torch.zeros(0, dtype=torch.int64),
              torch.zeros(0, dtype=torch.int64)).measured.items()}  # fmt: skip
    time_s = PERIOD_S * k
    return Telemetry(
        values=values,
        source_time_s={name: np.full(v.shape, time_s) for name, v in values.items()},
        quality={name: np.zeros(v.shape, dtype=np.int8) for name, v in values.items()},
        received_time_s=time_s,
        sequence=k,
    )


def swinging(k: int, n_arms: int = 2) -> Floats:
    """Joint speeds that change all the time, so that a lag shows."""
    phase = 2.0 * np.pi * (PERIOD_S * k / 0.6 + np.arange(6 * n_arms).reshape(n_arms, 6) / 7.0)
    return 0.3 * np.sin(phase)


def followed(live: LiveTwin, plant: RobotCellTwin, n: int, sent: dict[int, Floats] | None = None) -> None:
    """``n`` periods of ``plant`` under :func:`swinging`; ``sent`` stands for what the journal tells of it instead."""
    live.start(0.0, telemetry=told_by(plant, 0))
    for k in range(n):
        commands = swinging(k)
        plant.step({"arm": torch.from_numpy(commands)[None]})
        live.advance({"arm": commands if sent is None else sent[k], "person": np.zeros((1, 0))}, PERIOD_S * (k + 1))
        live.assimilate(told_by(plant, k + 1))


def plant_with_lag(lag_s: float, config: RobotCellConfig = CELL) -> RobotCellTwin:
    plant = RobotCellTwin(config, 1, dtype=torch.float64)
    plant.reset(torch.tensor([11]))
    plant.set_parameters({LAG: torch.tensor(lag_s)})
    return plant


def test_the_lag_of_arms_is_learnt_from_the_speeds_that_they_reach() -> None:
    live = live_of(CELL)
    followed(live, plant_with_lag(0.012), 60)
    mean, std = live.parameters()[LAG]
    assert mean == pytest.approx(0.012, abs=1e-3)
    assert std < 1e-3


def test_after_a_reading_members_stand_where_arms_and_people_were_read() -> None:
    live, plant = live_of(CELL), plant_with_lag(0.01)
    followed(live, plant, 5)
    told = told_by(plant, 5).values
    with live.replicas() as (_, readings):
        for name in ("arm", "person"):
            columns = (
                slice(0, 21) if name == "arm" else slice(0, 6)
            )  # gaps and people's speeds follow with the next step
            seen = readings.measured[name].numpy()[..., columns]
            np.testing.assert_allclose(seen, np.broadcast_to(told[name][:, columns], seen.shape), atol=1e-9)


def test_what_the_journal_says_of_another_arms_commands_counts_for_nothing_with_a_seat() -> None:
    seated = CELL.model_copy(update={"seat": 1})
    wrong = {k: np.array([swinging(k)[0], np.full(6, 1.5)]) for k in range(12)}
    found = []
    for sent in (None, wrong):
        live = live_of(seated)
        followed(live, plant_with_lag(0.01), 12, sent)
        found.append((live.parameters()[LAG], live.prediction.values["arm"]))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    blind = live_of(CELL)
    followed(blind, plant_with_lag(0.01), 12, wrong)
    assert blind.parameters()[LAG] != found[0][0]


def test_its_forecasts_of_the_mujoco_cell_are_as_wide_as_they_are_wrong() -> None:
    plant = MuJoCoCell(CELL, RobotCellPlantConfig(seed=4))
    live = live_of(CELL, window=120)
    live.start(plant.clock_s, telemetry=plant.read())
    for k in range(160):
        accepted = plant.write({"arm": swinging(k), "person": np.zeros((1, 0))})
        plant.advance()
        live.advance(accepted, plant.clock_s)
        live.assimilate(plant.read())
    verdict = live.verdict()
    assert verdict.open, verdict.why


@pytest.mark.parametrize("held_radps", [0.0, -1.4e-17])
def test_arms_that_stand_as_they_should_leave_the_gate_as_it_was(held_radps: float) -> None:
    plant = MuJoCoCell(CELL, RobotCellPlantConfig(seed=4))
    live = live_of(CELL, window=60, silence_periods=5)
    live.start(plant.clock_s, telemetry=plant.read())
    for k in range(150):
        accepted = plant.write(
            {"arm": swinging(k) if k < 80 else np.full((2, 6), held_radps), "person": np.zeros((1, 0))}
        )
        plant.advance()
        live.advance(accepted, plant.clock_s)
        live.assimilate(plant.read())
        if k == 90:  # a few periods after they have come to rest
            moved = live.verdict()
    verdict = live.verdict()
    assert verdict.open, verdict.why
    assert (verdict.nis, verdict.coverage, verdict.n) == (moved.nis, moved.coverage, moved.n)
    for _ in range(6):  # but a plant that is not heard closes it, standing or not
        plant.advance()
        live.advance(accepted, plant.clock_s)
    assert "no usable reading" in live.verdict().why


def test_an_arm_that_stands_where_it_should_move_is_judged() -> None:
    live, plant = live_of(CELL, window=20), plant_with_lag(0.01)
    live.start(0.0, telemetry=told_by(plant, 0))
    for k in range(30):
        plant.step({"arm": torch.zeros(1, 2, 6, dtype=torch.float64)})
        live.advance({"arm": swinging(k), "person": np.zeros((1, 0))}, PERIOD_S * (k + 1))
        live.assimilate(told_by(plant, k + 1))
    assert "NIS" in live.verdict().why
    assert live.verdict().nis > 2.0


@pytest.mark.parametrize("moves", [True, False])
def test_a_twin_that_is_restored_judges_the_same_arms(moves: bool) -> None:
    live, plant = live_of(CELL, window=3), plant_with_lag(0.01)
    followed(live, plant, 5)
    commands = swinging(5) if moves else np.zeros((2, 6))
    for _ in range(3):
        plant.step({"arm": torch.from_numpy(commands)[None]})
    live.advance({"arm": commands, "person": np.zeros((1, 0))}, PERIOD_S * 6)
    kept, found = live.snapshot(), []
    for _ in range(2):
        live.assimilate(told_by(plant, 6))
        found.append(live.verdict())
        live.advance({"arm": np.full((2, 6), 0.2), "person": np.zeros((1, 0))}, PERIOD_S * 7)
        live.restore(kept)
    assert found[0] == found[1]


def test_an_obstacle_is_where_it_was_seen_and_goes_the_way_that_it_went() -> None:
    way = Obstacle(from_m=(-0.5, 0.9, 0.4), to_m=(0.5, 0.9, 0.8), axis_m=(0.0, 0.0, 0.1), period_s=4.0)
    config = RobotCellConfig(obstacles=(way,))
    plant, twin = (RobotCellTwin(config, n, dtype=torch.float64) for n in (1, 3))
    plant.reset(torch.tensor([5]))
    twin.reset(torch.arange(3))
    still = torch.zeros(1, 2, 6, dtype=torch.float64)
    for _ in range(30):
        plant.step({"arm": still})
    told = told_by(plant, 30).values
    twin.follow({name: torch.from_numpy(values) for name, values in told.items()})
    after = plant.step({"arm": still}).measured["obstacle"]
    seen = twin.step({"arm": still.expand(3, 2, 6)}).measured["obstacle"]
    np.testing.assert_allclose(seen.numpy(), after.expand_as(seen).numpy(), atol=1e-6)


def test_the_twin_can_be_tracked_and_the_configured_plant_says_how() -> None:
    twin = RobotCellTwin(CELL, 3)
    assert isinstance(twin, Mixable)
    assert isinstance(twin, Following)
    described = describe("configs/robot_cell/plant_cell.yaml", ["site.seat=2"])
    assert described.settings.window == 200
    assert described.settings.parameters.keys() == {LAG}


def test_cells_that_differ_from_episode_to_episode_are_not_tracked() -> None:
    with pytest.raises(ConfigurationError, match="give fixed arms"):
        track_cell(RobotCellConfig(arms=RandomArms()), RobotCellPlantConfig())
