"""Remaining life from the members of a live twin that follows the event-driven plant."""

from __future__ import annotations

import numpy as np

from twinloop.deploy.live_twin import LiveTwinSettings, make_live_twin
from twinloop.envs.production_line.config import FixedLine, GammaWear, LineConfig, Machine, Upkeep, WeibullWear
from twinloop.envs.production_line.nameplate import MACHINE
from twinloop.envs.production_line.plant import SimPyLine
from twinloop.envs.production_line.plant_config import LinePlantConfig
from twinloop.envs.production_line.remaining_life import of_replicas, remaining_life
from twinloop.envs.production_line.tracking import track_line
from twinloop.envs.registry import load_site

CONFIG = LineConfig(
    line=FixedLine(
        machines=(
            Machine(upkeep=Upkeep(wear=WeibullWear(shape=2.5, scale_slots=1000.0))),
            Machine(upkeep=Upkeep(wear=GammaWear(shape_per_slot=0.05, failure_level=20.0))),
        ),
        capacities=(5,),
    ),
    slots_per_period=20,
)


def test_members_that_follow_the_plant_foretell_what_its_readings_do_with_room_for_an_unknown_pace() -> None:
    plan = track_line(CONFIG, LinePlantConfig())
    live = make_live_twin(
        load_site("production_line"), plan.config, 256, LiveTwinSettings(**plan.settings.model_dump()), plan.tracker
    )
    plant = SimPyLine(CONFIG, LinePlantConfig(seed=4))
    live.start(plant.clock_s)
    neutral = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in plant.nameplate.groups}
    for _ in range(10):
        accepted = plant.write(neutral)
        plant.advance()
        live.advance(accepted, plant.clock_s)
        live.assimilate(plant.read())
    told = remaining_life(CONFIG, plant.read().values[MACHINE], 100.0)
    with live.replicas() as (twin, readings):
        members = of_replicas(CONFIG, twin, readings, 100.0)
    assert members.names == told.names == ("M1", "M2")
    assert (np.abs(members.median / told.median - 1.0) < 0.25).all()
    assert (members.high - members.low > 0.95 * (told.high - told.low)).all()  # a pace that is not known adds to it
    assert (members.chance < 0.2).all()
