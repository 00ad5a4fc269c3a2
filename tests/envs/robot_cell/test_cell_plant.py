"""The emulated cell, held against hand-written dynamics, the maker's data and the twin's closed forms."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import ConfigurationError, PlantError
from twinloop.envs.robot_cell import arm_dynamics
from twinloop.envs.robot_cell.arm import N_JOINTS, UR5E, with_tool
from twinloop.envs.robot_cell.capsules import capsule_ends, radii
from twinloop.envs.robot_cell.config import (
    ArmPlace,
    CapsuleFixture,
    FixedArms,
    Obstacle,
    People,
    PickPlaceWork,
    RandomArms,
    ReachWork,
    RobotCellConfig,
)
from twinloop.envs.robot_cell.kinematics import reach_speeds, tool_position
from twinloop.envs.robot_cell.nameplate import ARM, OBSTACLE, PERSON
from twinloop.envs.robot_cell.plant import MuJoCoCell
from twinloop.envs.robot_cell.plant_config import RobotCellPlantConfig

Floats = NDArray[np.float64]

QUIET = {"angle_noise_rad": 0.0, "speed_noise_radps": 0.0, "scanner_noise_m": 0.0, "command_timeout_s": 100.0}
UP = (0.0, -math.pi / 2, 0.0, -math.pi / 2, 0.0, 0.0)


def cell(config: RobotCellConfig | None = None, **settings: object) -> MuJoCoCell:
    return MuJoCoCell(config or RobotCellConfig(), RobotCellPlantConfig(**{**QUIET, **settings}))


def one_arm(home: tuple[float, ...] = UP, **more: object) -> RobotCellConfig:
    places = (ArmPlace(x_m=0.1, y_m=-0.2, z_m=0.3, yaw_deg=33.0, home_rad=home),)
    return RobotCellConfig.model_validate({"arms": FixedArms(places=places), "fixtures": (), **more})


def bases(config: RobotCellConfig) -> Floats:
    assert isinstance(config.arms, FixedArms)
    return np.array([(p.x_m, p.y_m, p.z_m, math.radians(p.yaw_deg)) for p in config.arms.places])


def put(plant: MuJoCoCell, q: Floats, dq: Floats | float = 0.0) -> None:
    """Set the joints of all arms ``[N, 6]``."""
    plant.data.qpos[: q.size], plant.data.qvel[: q.size] = q.ravel(), np.broadcast_to(dq, q.shape).ravel()
    mujoco.mj_forward(plant.model, plant.data)


def column(plant: MuJoCoCell, name: str, group: str = ARM) -> Floats:
    return np.array(plant.read().values[group][:, plant.nameplate.group(group).index("measured", name)])


def drive(plant: MuJoCoCell, speeds: object, periods: int) -> None:
    commands = np.broadcast_to(np.array(speeds, dtype=np.float64), plant.joints_rad.shape)
    for _ in range(periods):
        plant.write({ARM: commands})
        plant.advance()


def reach(plant: MuJoCoCell, config: RobotCellConfig, periods: int) -> None:
    tool, base = with_tool(UR5E, config.tool_length_m), bases(config)
    group = plant.nameplate.group(ARM)
    target = group.index("measured", "target_x_m")
    for _ in range(periods):
        row = plant.read().values[ARM]
        plant.write({ARM: np.clip(reach_speeds(row[:, :6], base, row[:, target : target + 3], tool), -1.5, 1.5)})
        plant.advance()


def newton_euler(q: Floats, dq: Floats, ddq: Floats) -> Floats:
    """Joint torques of one arm by the recursion of Luh, Walker & Paul 1980, in Denavit-Hartenberg frames."""
    turns, shifts = [], []
    for j in range(N_JOINTS):
        ct, st, ca, sa = math.cos(q[j]), math.sin(q[j]), math.cos(UR5E.alpha_rad[j]), math.sin(UR5E.alpha_rad[j])
        turns.append(np.array([[ct, -st * ca, st * sa], [st, ct * ca, -ct * sa], [0.0, sa, ca]]))
        shifts.append(np.array([UR5E.a_m[j], UR5E.d_m[j] * sa, UR5E.d_m[j] * ca]))
    axis = np.array([0.0, 0.0, 1.0])
    w, dw, dv = np.zeros(3), np.zeros(3), np.array([0.0, 0.0, 9.81])
    forces, moments = [], []
    for j in range(N_JOINTS):
        back = turns[j].T
        dw = back @ (dw + axis * ddq[j] + np.cross(w, axis * dq[j]))
        w = back @ (w + axis * dq[j])
        dv = back @ dv + np.cross(dw, shifts[j]) + np.cross(w, np.cross(w, shifts[j]))
        centre, tensor = np.array(arm_dynamics.CENTRE_M[j]), arm_dynamics.inertia(j)
        at_centre = dv + np.cross(dw, centre) + np.cross(w, np.cross(w, centre))
        forces.append(arm_dynamics.MASS_KG[j] * at_centre)
        moments.append(tensor @ dw + np.cross(w, tensor @ w))
    torques, f, n = np.zeros(N_JOINTS), np.zeros(3), np.zeros(3)
    for j in reversed(range(N_JOINTS)):
        carried = turns[j + 1] @ f if j + 1 < N_JOINTS else f
        twisted = turns[j + 1] @ n if j + 1 < N_JOINTS else n
        centre = np.array(arm_dynamics.CENTRE_M[j])
        n = twisted + moments[j] + np.cross(shifts[j], carried) + np.cross(shifts[j] + centre, forces[j])
        f = carried + forces[j]
        torques[j] = n @ (turns[j].T @ axis)
    return torques


def test_bias_and_inertia_are_those_of_a_hand_written_recursion() -> None:
    plant = cell(one_arm(), payload_kg=0.0)
    rng = np.random.default_rng(1)
    for _ in range(20):
        q, dq, ddq = rng.uniform(-3, 3, 6), rng.uniform(-2, 2, 6), rng.uniform(-5, 5, 6)
        put(plant, q[None], dq[None])
        mass = np.zeros((6, 6))
        mujoco.mj_fullM(plant.model, plant.data, mass)
        # The recursion knows no rotors.
        found = plant.data.qfrc_bias + mass @ ddq - np.array(arm_dynamics.ARMATURE_KGM2) * ddq
        assert np.abs(found - newton_euler(q, dq, ddq)).max() < 1e-9


def test_tool_and_capsules_stand_where_the_closed_forms_put_them() -> None:
    config = RobotCellConfig(tool_length_m=0.12)
    plant, base, tool = cell(config), bases(config), with_tool(UR5E, 0.12)
    rng = np.random.default_rng(2)
    names = [[f"arm_{k + 1}_{c.name}" for c in UR5E.capsules] for k in range(2)]
    for _ in range(20):
        q = rng.uniform(-3, 3, (2, 6))
        put(plant, q)
        assert np.abs(plant.truth()["tool_m"] - tool_position(q, base, tool)).max() < 1e-9
        ends = capsule_ends(q, base, tool)
        for k in range(2):
            for c, name in enumerate(names[k]):
                geom = plant.data.geom(name)
                half = plant.model.geom(name).size[1] * geom.xmat.reshape(3, 3)[:, 2]
                there = np.array([geom.xpos - half, geom.xpos + half])
                off = min(np.abs(there - ends[k, c]).max(), np.abs(there[::-1] - ends[k, c]).max())
                assert off < 1e-9


def segment_distance(a: Floats, b: Floats) -> float:
    """Of two segments ``[2, 3]``, by the best of the interior solution and the eight ends' projections."""
    u, v, w = a[1] - a[0], b[1] - b[0], a[0] - b[0]
    candidates = []
    square = np.array([[u @ u, -(u @ v)], [-(u @ v), v @ v]])
    if np.linalg.det(square) > 1e-12:
        s, t = np.linalg.solve(square, [-(u @ w), v @ w])
        if 0 <= s <= 1 and 0 <= t <= 1:
            candidates.append((s, t))
    for end in (0.0, 1.0):
        candidates.append((end, float(np.clip((w + end * u) @ v / (v @ v), 0, 1))))
        candidates.append((float(np.clip((end * v - w) @ u / (u @ u), 0, 1)), end))
    return min(float(np.linalg.norm(w + s * u - t * v)) for s, t in candidates)


def test_gaps_between_arms_are_distances_of_segments_less_radii() -> None:
    config = RobotCellConfig()
    plant, base, radius = cell(config), bases(config), radii()
    rng = np.random.default_rng(3)
    for _ in range(10):
        q = np.array([[0.0, -2.4, 2.5, -1.67, -1.57, 0.0]] * 2) + rng.uniform(-0.6, 0.6, (2, 6))
        put(plant, q)
        ends = capsule_ends(q, base)
        pairs = [(segment_distance(a, b) - ra - rb) for a, ra in zip(ends[0], radius, strict=True)
                 for b, rb in zip(ends[1], radius, strict=True)]  # fmt: skip
        assert plant.truth()["arm_gap_m"] == pytest.approx(min(pairs), abs=1e-9)


def test_energy_is_kept_without_friction_and_motors() -> None:
    plant = cell(one_arm(), payload_kg=2.0, friction_pu=0.0)
    model, data = plant.model, plant.data
    model.opt.integrator, model.opt.timestep = mujoco.mjtIntegrator.mjINT_RK4, 5e-4
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    model.body_gravcomp[:] = 0.0
    put(plant, np.array([UP]), np.array([0.5, -1.0, 0.8, 1.0, -1.0, 2.0]))
    before = data.energy.sum()
    swing = 0.0
    for _ in range(1000):
        mujoco.mj_step(model, data)
        swing = max(swing, data.energy[1])
    assert swing > 20.0  # it fell
    assert abs(data.energy.sum() - before) < 1e-4 * swing


@pytest.mark.parametrize(
    ("joint", "start", "arc_rad", "stop_s"),
    [
        (0, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.31, 0.244),
        (1, (0.0, -2.8, 0.0, 0.0, 0.0, 0.0), 0.70, 0.530),
        (2, (0.0, -1.57, -1.5, 0.0, 0.0, 0.0), 0.22, 0.164),
    ],
)
def test_a_stop_from_full_speed_ends_inside_the_makers_arc(
    joint: int, start: tuple[float, ...], arc_rad: float, stop_s: float
) -> None:
    # UR5 user manual: category 0, 183 deg/s, full reach, 5 kg.
    config = one_arm(start, joint_speed_radps=math.pi, tool_speed_mps=10.0)
    plant = cell(config, payload_kg=5.0)
    speeds = np.zeros(6)
    speeds[joint] = math.pi
    plant.write({ARM: speeds[None]})
    while plant.speeds_radps[0, joint] < 0.98 * math.pi:
        plant.advance()
        assert plant.data.time < 2.0
    began, before = plant.data.time, plant.joints_rad[0, joint]
    plant.stop()
    while abs(plant.speeds_radps[0, joint]) > 0.05:
        plant.advance()
        assert plant.data.time < 3.0
    assert 0.85 * arc_rad < plant.joints_rad[0, joint] - before < arc_rad
    assert 0.7 * stop_s < plant.data.time - began < stop_s + 0.03
    assert np.abs(plant.torques_nm).max() <= 150.0
    drive(plant, speeds, 20)
    assert np.abs(plant.speeds_radps).max() < 0.05  # it stays until it is let go
    drive(plant, 0.1 * speeds, 120)
    assert plant.speeds_radps[0, joint] == pytest.approx(0.1 * math.pi, abs=0.02)


def test_it_keeps_the_contract_of_a_plant() -> None:
    people, obstacle = People(number=(2, 2)), Obstacle(from_m=(-1, 1, 1), to_m=(1, 1, 1), axis_m=(0, 0, 0.2))
    rod = CapsuleFixture(start_m=(0, 0.8, 0), end_m=(0, 0.8, 1), radius_m=0.05)
    config = RobotCellConfig(people=people, obstacles=(obstacle,), fixtures=(rod,))
    check_plant(lambda: MuJoCoCell(config, RobotCellPlantConfig(peer_delay_periods=2)))


def test_speeds_are_followed_with_a_payload_nobody_told_it_of() -> None:
    plant = cell(payload_kg=3.0)
    wanted = np.array([0.3, -0.2, 0.3, 0.4, -0.4, 0.5])
    drive(plant, wanted, 30)
    assert np.abs(plant.speeds_radps - wanted).max() < 0.03
    assert not plant.protective_stops.any()


def test_the_same_seed_runs_the_same_and_another_one_does_not() -> None:
    config = RobotCellConfig(people=People(number=(1, 1)), home_spread_rad=0.05)
    runs = []
    for seed in (5, 5, 6):
        plant = MuJoCoCell(config, RobotCellPlantConfig(seed=seed, peer_losses_per_min=60, peer_loss_s=0.1))
        reach(plant, config, 40)
        runs.append(np.concatenate([values.ravel() for values in plant.read().values.values()]))
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


def test_reaching_touches_targets_and_brings_new_ones_in_the_box() -> None:
    config = one_arm(ArmPlace().home_rad, work=ReachWork(), tool_length_m=0.1)
    plant = cell(config)
    seen = set()
    for _ in range(30):
        reach(plant, config, 10)
        seen.add(tuple(plant.truth()["target_m"][0]))
    assert plant.touches[0] >= 2
    assert len(seen) == plant.touches[0] + 1
    for x, y, z in seen:
        assert abs(x) <= 0.2
        assert abs(y) <= 0.35
        assert 0.2 <= z <= 0.6


def test_arms_that_are_driven_into_each_other_are_counted_and_stop() -> None:
    stretched = (0.0, -0.2, 0.1, 0.0, 0.0, 0.0)
    places = (ArmPlace(x_m=-0.6, z_m=0.5, yaw_deg=180.0, home_rad=(0.4, *stretched[1:])),
              ArmPlace(x_m=0.6, z_m=0.5, yaw_deg=0.0, home_rad=(0.4, *stretched[1:])))  # fmt: skip
    config = RobotCellConfig(arms=FixedArms(places=places))
    plant = cell(config, stops_on_contact=True)
    drive(plant, (-0.6, 0, 0, 0, 0, 0), 60)
    assert plant.contacts["arm"] == 1
    assert plant.protective_stops.tolist() == [1, 1]
    assert plant.smallest_gap_m < 0.0
    assert sum(plant.contacts.values()) == 1
    assert plant.read().notes is not None
    assert plant.read().notes["contacts"]["arm"] == 1  # type: ignore[index]  # notes are there


def test_arms_that_wait_touch_nothing() -> None:
    plant = cell(RobotCellConfig(people=People()))
    drive(plant, 0.0, 50)
    assert not any(plant.contacts.values())
    assert np.abs(plant.joints_rad - np.array(ArmPlace().home_rad)).max() < 0.01


def test_contacts_with_fixtures_and_own_links_are_told_apart() -> None:
    rod = CapsuleFixture(start_m=(0.1, 0.45, 0.0), end_m=(0.1, 0.45, 1.5), radius_m=0.05)
    stretched = (math.radians(-33.0 - 40.0), 0.0, 0.0, 0.0, 0.0, 0.0)  # 40 degrees from -x, towards +y
    config = one_arm(stretched, fixtures=(rod,))
    plant = cell(config)
    drive(plant, (-0.5, 0, 0, 0, 0, 0), 120)
    assert plant.contacts["fixture"] == 1
    folding = cell(one_arm((0.0, -0.42, 1.6, 0.37, -1.45, 0.0)))
    drive(folding, (0, 0, 1.0, 0, 0, 0), 80)
    assert folding.contacts["self"] == 1
    assert sum(folding.contacts.values()) == 1


def test_a_joint_stops_at_the_end_of_its_range() -> None:
    plant = cell(one_arm((0.0, -1.5, 0.0, 0.0, 0.0, 6.0)))
    drive(plant, (0, 0, 0, 0, 0, 1.5), 40)
    assert 2 * math.pi - 0.05 < plant.joints_rad[0, 5] < 2 * math.pi + 1e-3


def test_the_tool_keeps_to_its_speed() -> None:
    plant = cell(one_arm((0.0, 0.0, 0.0, 0.0, 0.0, 0.0)))
    drive(plant, (1.5, 0, 0, 0, 0, 0), 30)
    before = plant.truth()["tool_m"][0]
    drive(plant, (1.5, 0, 0, 0, 0, 0), 10)
    assert np.linalg.norm(plant.truth()["tool_m"][0] - before) / 0.2 == pytest.approx(0.5, abs=0.02)


def test_silence_stops_the_arms() -> None:
    plant = cell(one_arm(), command_timeout_s=0.1)
    drive(plant, (0.3, 0, 0, 0, 0, 0), 10)
    for _ in range(20):
        plant.advance()
    assert np.abs(plant.speeds_radps).max() < 0.01
    drive(plant, (0.3, 0, 0, 0, 0, 0), 20)
    assert plant.speeds_radps[0, 0] == pytest.approx(0.3, abs=0.02)


def test_an_arm_that_nobody_writes_to_stops_alone() -> None:
    plant = cell(command_timeout_s=0.1)
    drive(plant, (0.3, 0, 0, 0, 0, 0), 10)
    drive(plant, ((math.nan,) * 6, (0.3, 0, 0, 0, 0, 0)), 20)
    assert np.abs(plant.speeds_radps[0]).max() < 0.01
    assert plant.speeds_radps[1, 0] == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_arms_hear_of_each_other_so_many_periods_late(delay: int) -> None:
    plant = cell(peer_delay_periods=delay)
    said = [plant.joints_rad]
    for _ in range(8):
        drive(plant, (0.5, 0, 0, 0, 0.5, 0), 1)
        said.append(plant.joints_rad)
        heard = plant.read().values[ARM]
        first = plant.nameplate.group(ARM).index("measured", "heard_q1_rad")
        assert np.abs(heard[:, first : first + 6] - said[max(0, len(said) - 1 - delay)]).max() < 1e-12
    assert column(plant, "heard_age_s") == pytest.approx(delay * 0.02)
    assert column(plant, "heard_stall_s") == pytest.approx(column(plant, "stall_s") - delay * 0.02)
    assert column(plant, "heard_target_z_m") == pytest.approx(plant.truth()["target_m"][:, 2])


@pytest.mark.parametrize(("frozen", "trusted"), [(False, False), (True, False), (True, True)])
def test_a_burst_loses_messages_or_freezes_them_and_only_who_trusts_stamps_is_fooled(
    frozen: bool, trusted: bool
) -> None:
    plant = cell(peer_losses_per_min=1e6, peer_loss_s=1e3, peer_frozen=frozen, peer_stamps_trusted=trusted)
    first = plant.joints_rad
    drive(plant, (0.5, 0, 0, 0, 0, 0), 10)
    assert column(plant, "heard_q1_rad") == pytest.approx(first[:, 0])
    assert column(plant, "heard_age_s") == pytest.approx(0.0 if trusted else 0.2)


def test_a_part_is_carried_from_the_pick_to_the_place_and_dropped() -> None:
    config = one_arm(ArmPlace().home_rad, work=PickPlaceWork(dwell_s=0.1), tool_length_m=0.1)
    places = (ArmPlace(x_m=-0.5, yaw_deg=180.0),)
    config = config.model_copy(update={"arms": FixedArms(places=places)})
    plant = cell(config, part_kg=0.8)
    for _ in range(400):
        reach(plant, config, 1)
        if plant.touches[0] == 1:
            break
    assert column(plant, "holds").tolist() == [1.0]
    part = plant.data.body("arm_1_part_2")
    gap = part.xpos - plant.truth()["tool_m"][0]
    for _ in range(400):
        reach(plant, config, 1)
        if plant.touches[0] == 2:
            break
        assert np.linalg.norm(part.xpos - plant.truth()["tool_m"][0]) == pytest.approx(np.linalg.norm(gap), abs=0.01)
    assert column(plant, "holds").tolist() == [0.0]
    reach(plant, config, 50)
    assert plant.data.body("arm_1_part_2").xpos[2] == pytest.approx(0.025, abs=5e-3)  # on the floor


def test_people_walk_at_the_speed_of_people_outside_the_arms() -> None:
    people = People(number=(2, 2), pause_s=(0.0, 0.1))
    plant = cell(RobotCellConfig(people=people), visits_per_min=0.0)
    group = plant.nameplate.group(PERSON)
    x = group.index("measured", "start_x_m")
    last = plant.read().values[PERSON][:, x : x + 2]
    walked = np.zeros(2)
    for _ in range(300):
        plant.advance()
        now = plant.read().values[PERSON][:, x : x + 2]
        step = np.linalg.norm(now - last, axis=1)
        assert step.max() / 0.02 < 1.6 * 1.5
        walked, last = walked + step, now
        assert np.linalg.norm(now, axis=1).min() > 0.85
    assert walked.min() > 1.0


def test_a_visit_leads_up_to_the_arms() -> None:
    people = People(pause_s=(0.0, 0.1), speed_mps=(1.5, 1.6))
    plant = cell(RobotCellConfig(people=people), visits_per_min=60.0, visit_m=0.9)
    nearest = math.inf
    for _ in range(300):
        plant.advance()
        nearest = min(nearest, math.hypot(*plant.read().values[PERSON][0, :2]))
    assert nearest < 0.96


def test_who_walks_into_an_arm_that_stands_is_counted_apart() -> None:
    people = People(pause_s=(0.0, 0.1), speed_mps=(1.5, 1.6), distance_m=(1.2, 1.3))
    counted = []
    for speed in (0.0, 0.5):
        plant = cell(RobotCellConfig(people=people), visits_per_min=600.0, visit_m=0.0)
        drive(plant, (speed, 0, 0, 0, 0, 0), 100)
        counted.append((plant.contacts["person"], plant.contacts["person_at_standstill"]))
    assert counted[0][0] == 0
    assert counted[0][1] >= 1
    assert counted[1][0] >= 1
    assert counted[1][1] == 0


def test_an_obstacle_goes_to_and_fro() -> None:
    thing = Obstacle(from_m=(0.0, -1.0, 0.5), to_m=(0.0, 1.0, 0.5), radius_m=0.05, period_s=2.0)
    plant = cell(RobotCellConfig(obstacles=(thing,)))
    y = []
    for _ in range(100):
        plant.advance()
        y.append(column(plant, "start_y_m", OBSTACLE)[0])
        assert plant.data.body("obstacle_1").xpos[1] == pytest.approx(y[-1], abs=1e-9)
    assert (min(y), max(y)) == (pytest.approx(-1.0, abs=0.01), pytest.approx(1.0, abs=0.01))


def test_what_is_no_plant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a plant is one"):
        cell(RobotCellConfig(arms=RandomArms()))
    with pytest.raises(ConfigurationError, match="give a multiple"):
        cell(RobotCellConfig(control_period_s=0.005))
    with pytest.raises(PlantError, match=r"shape \(1, 6\), expected"):
        cell().write({ARM: np.zeros((1, 6))})


def test_real_time_waits_for_the_period() -> None:
    import time

    plant = cell(one_arm(), real_time=True)
    began = time.monotonic()
    drive(plant, 0.0, 6)
    assert time.monotonic() - began >= 5 * 0.02


def test_an_arm_that_stands_is_still_heard_afresh_since_its_stall_grows() -> None:
    plant = cell()
    for _ in range(20):
        plant.advance()
        assert column(plant, "heard_age_s") == pytest.approx(0.0)
