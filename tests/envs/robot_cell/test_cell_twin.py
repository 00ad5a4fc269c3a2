"""The batched cell: its contract, limits, delays, people, targets, and agreement with the closed forms of one cell."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from twinloop.envs.conformance import check_encoder, check_twin
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.envs.robot_cell.arm import UR5E, with_tool
from twinloop.envs.robot_cell.arm_body import ArmShape, Body
from twinloop.envs.robot_cell.config import (
    ArmPlace,
    Box,
    CapsuleFixture,
    FixedArms,
    Obstacle,
    Peers,
    People,
    PickPlaceWork,
    PlaneFixture,
    RandomArms,
    ReachWork,
    RobotCellConfig,
)
from twinloop.envs.robot_cell.gaps import arm_gaps, body_gaps, plane_gaps, self_gaps
from twinloop.envs.robot_cell.kinematics import reach_speeds, tool_position
from twinloop.envs.robot_cell.nameplate import ARM, HIDDEN, MEASURED, OBSTACLE, PERSON
from twinloop.envs.robot_cell.site import SITE
from twinloop.envs.robot_cell.twin import RobotCellTwin
from twinloop.envs.twin import Readings

Tensor = torch.Tensor
AT = {s.name: k for k, s in enumerate(MEASURED)}
HIDDEN_AT = {s.name: k for k, s in enumerate(HIDDEN)}
DT_S = 0.02

EVERYTHING = RobotCellConfig(
    arms=RandomArms(arms=(2, 4), turn_deg=20.0),
    peers=Peers(delay_periods=(0, 2), losses_per_min=60.0, loss_s=0.1),
    people=People(number=(0, 2)),
    obstacles=(Obstacle(from_m=(0, -1, 0.5), to_m=(0, 1, 0.5), axis_m=(0.1, 0, 0)),),
    fixtures=(PlaneFixture(), CapsuleFixture(start_m=(0, 0.6, 0), end_m=(0, 0.6, 1), radius_m=0.05)),
    actuator_lag_s=0.04,
    work=PickPlaceWork(dwell_s=0.04),
    home_spread_rad=0.2,
    tool_length_m=0.1,
)


def run(config: RobotCellConfig, n: int = 1, dtype: torch.dtype = torch.float64) -> RobotCellTwin:
    return RobotCellTwin(config, n, dtype=dtype)


def told(readings: Readings, name: str) -> Tensor:
    return readings.measured[ARM][..., AT[name]]


def block(readings: Readings, name: str, count: int = 6) -> Tensor:
    return readings.measured[ARM][..., AT[name] : AT[name] + count]


def hidden(readings: Readings, name: str) -> Tensor:
    return readings.hidden[ARM][..., HIDDEN_AT[name]]


def bases(readings: Readings) -> Tensor:
    statics = readings.statics[ARM]
    return torch.cat((statics[..., :3], statics[..., 3:4] * (math.pi / 180.0)), -1)


def commanded(twin: RobotCellTwin, values: Any) -> dict[str, Tensor]:
    shape = (twin.n_replicas, twin.nameplate.group(ARM).n_assets, 6)
    found = {g.name: torch.zeros(twin.n_replicas, g.n_assets, 0) for g in twin.nameplate.groups}
    return {**found, ARM: torch.as_tensor(values, dtype=twin.dtype).expand(shape)}


@pytest.mark.parametrize("config", [RobotCellConfig(), EVERYTHING], ids=["two", "all"])
def test_the_twin_keeps_its_contract(config: RobotCellConfig) -> None:
    check_twin(lambda n: RobotCellTwin(config, n), steps=4, seeds=(11, 2**40 + 5, 0), batch_sizes=(3, 65))


@pytest.mark.parametrize("settings", [{}, {"n_pairs": 6, "n_peers": 3}, {"n_pairs": 0, "n_peers": 1}])
def test_the_encoder_keeps_its_contract(settings: dict[str, Any]) -> None:
    for arms in (FixedArms(), RandomArms(arms=(1, 4)), FixedArms(places=(ArmPlace(),))):
        nameplate = SITE.nameplate(RobotCellConfig(arms=arms))
        check_encoder(SITE.encoder("arm", nameplate, settings), nameplate)


def test_gaps_are_those_of_the_closed_forms_of_one_cell() -> None:
    twin = run(EVERYTHING, 3)
    readings = twin.reset(torch.tensor([4, 5, 6]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        speeds = torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) * 3 - 1.5
        readings = twin.step(commanded(twin, speeds))
    shape = ArmShape(with_tool(UR5E, 0.1))
    fixture = Body(np.array([[0, 0.6, 0.0]]), np.array([[0, 0, 1.0]]), np.array([0.05]))
    for row in range(3):
        here = readings.present[ARM][row].numpy()
        q, base = block(readings, "q1_rad")[row].numpy(), bases(readings)[row].numpy()
        heard = block(readings, "heard_q1_rad")[row].numpy()
        arms = {k: shape.at(q[k], base[k]) for k in range(4) if here[k]}
        as_heard = {k: shape.at(heard[k], base[k]) for k in arms}
        people = bodies(readings, PERSON, row)
        things = bodies(readings, OBSTACLE, row)
        assert len(arms) >= 2
        for k, arm in arms.items():
            others = min(arm_gaps(arm, b).gap_m.min() for j, b in arms.items() if j != k)
            seen = min(arm_gaps(arm, b).gap_m.min() for j, b in as_heard.items() if j != k)
            itself = self_gaps(arm, shape.self_pairs).gap_m.min()
            person = min([50.0, *(body_gaps(arm, b).gap_m.min() for b in people)])
            solid = min(body_gaps(arm, b).gap_m.min() for b in things)
            floor = plane_gaps(arm, np.array([0, 0, 1.0]), 0.0).gap_m.min()
            fixed = min(solid, floor, body_gaps(arm, fixture).gap_m[2:].min())
            for name, wanted in (("arm_gap_m", others), ("self_gap_m", itself), ("person_gap_m", person),
                                 ("fixture_gap_m", fixed)):  # fmt: skip
                assert abs(float(hidden(readings, name)[row, k]) - wanted) < 1e-9, name
            assert abs(float(told(readings, "gap_m")[row, k]) - min(seen, itself, person, fixed)) < 1e-9


def bodies(readings: Readings, group: str, row: int) -> list[Body]:
    values = readings.measured[group][row].numpy()
    here = readings.present[group][row].numpy()
    return [Body(v[None, :3], v[None, 3:6] - v[None, :3], v[6:7]) for v in values[here]]


def test_the_tool_is_where_the_table_says_and_moves_as_the_joints_do() -> None:
    twin = run(RobotCellConfig())
    before = twin.reset(torch.tensor([1]))
    for _ in range(10):
        before = twin.step(commanded(twin, (0.2, -0.1, 0.1, 0.2, 0.3, -0.2)))
    after = twin.step(commanded(twin, (0.2, -0.1, 0.1, 0.2, 0.3, -0.2)))
    for readings in (before, after):
        q, tool = block(readings, "q1_rad")[0].numpy(), block(readings, "tool_x_m", 3)[0].numpy()
        assert np.allclose(tool, tool_position(q, bases(readings)[0].numpy()), atol=1e-12)
    moved = (block(after, "tool_x_m", 3) - block(before, "tool_x_m", 3)).norm(dim=-1) / DT_S
    mean = 0.5 * (hidden(after, "tool_speed_mps") + hidden(before, "tool_speed_mps"))
    assert torch.allclose(moved, mean, atol=1e-4)


def test_joints_stop_at_the_ends_of_their_ranges_without_braking_harder_than_they_can() -> None:
    twin = run(RobotCellConfig(tool_speed_mps=10.0), 2)
    before = twin.reset(torch.tensor([1, 2]))
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (UR5E.q_min_rad, UR5E.q_max_rad))
    sign = torch.tensor((1.0, -1.0))[:, None, None]
    for _ in range(330):  # 6.6 s at 1.5 rad/s: from anywhere to the end
        after = twin.step(commanded(twin, 1.5 * sign))
        q = block(after, "q1_rad")
        assert ((q >= low) & (q <= high)).all()
        change = (block(after, "dq1_radps") - block(before, "dq1_radps")).abs() / DT_S
        assert (change <= torch.tensor(UR5E.braking_radps2) + 1e-5).all()
        before = after
    assert torch.allclose(q, torch.where(sign > 0, high, low).expand_as(q), atol=2e-3)


def test_commands_are_scaled_so_that_a_steady_tool_keeps_its_speed() -> None:
    twin = run(RobotCellConfig(tool_speed_mps=0.3))
    twin.reset(torch.tensor([1]))
    for _ in range(30):
        readings = twin.step(commanded(twin, (1.5, 0, 0, 0, 0, 0)))
    assert (hidden(readings, "tool_speed_mps") <= 0.3 + 1e-9).all()
    assert (hidden(readings, "tool_speed_mps") > 0.29).all()


def test_speed_follows_with_the_lag_exactly() -> None:
    lag_s = 0.3  # so slow that no joint's brakes limit it
    twin = run(RobotCellConfig(actuator_lag_s=lag_s))
    twin.reset(torch.tensor([1]))
    for step in range(1, 20):
        readings = twin.step(commanded(twin, (0.1, 0, 0, 0, 0, 0)))
        wanted = 0.1 * (1 - math.exp(-step * DT_S / lag_s))
        assert torch.allclose(told(readings, "dq1_radps"), torch.tensor(wanted, dtype=torch.float64), atol=1e-12)


def test_stops_take_the_arcs_of_the_makers_manual() -> None:
    """At 183 deg/s with its stopping data, each joint stops within the arc printed there."""
    fast = math.radians(180.0)
    for joint, arc_rad in ((0, 0.31), (1, 0.70), (2, 0.22)):
        twin = run(RobotCellConfig(joint_speed_radps=math.pi, tool_speed_mps=50.0))
        twin.reset(torch.tensor([1]))
        speeds = torch.zeros(6)
        speeds[joint] = -fast
        for _ in range(45):
            moving = twin.step(commanded(twin, speeds))
        assert abs(float(block(moving, "dq1_radps")[0, 0, joint]) + fast) < 1e-6
        rest = moving
        for _ in range(60):
            rest = twin.step(commanded(twin, 0.0))
        arc = float((block(moving, "q1_rad") - block(rest, "q1_rad"))[0, 0, joint])
        assert float(block(rest, "dq1_radps").abs().max()) == 0.0
        assert 0.9 * arc_rad < arc <= arc_rad


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_others_hear_late_by_the_delay_and_are_told_the_age(delay: int) -> None:
    # The loss of one in a hundred million years keeps the delay line in use where there is no delay.
    peers = Peers(delay_periods=(delay, delay), losses_per_min=1e-14 if delay == 0 else 0.0)
    twin = run(RobotCellConfig(peers=peers))
    said = [block(twin.reset(torch.tensor([1])), "q1_rad", 12)]
    for step in range(1, 8):
        readings = twin.step(commanded(twin, (0.3, 0.1, -0.2, 0.1, 0.2, 0.3)))
        said.append(block(readings, "q1_rad", 12))
        assert torch.equal(block(readings, "heard_q1_rad", 12), said[max(0, step - delay)])
        assert torch.allclose(told(readings, "heard_age_s"), torch.tensor(min(step, delay) * DT_S, dtype=torch.float64))


def test_in_a_loss_what_was_heard_stays_and_ages_until_the_link_is_back() -> None:
    twin = run(RobotCellConfig(peers=Peers(losses_per_min=120.0, loss_s=0.2)), 20)
    before = twin.reset(torch.arange(20))
    silent = 0
    for _ in range(100):
        after = twin.step(commanded(twin, (0.1, 0, 0, 0, 0, 0)))
        lost = told(after, "heard_age_s") > 0
        held = block(after, "heard_q1_rad") == block(before, "heard_q1_rad")
        assert held[lost].all()
        assert torch.equal(block(after, "heard_q1_rad")[~lost], block(after, "q1_rad")[~lost])
        assert torch.allclose(told(after, "heard_age_s")[lost], told(before, "heard_age_s")[lost] + DT_S)
        silent += int(lost.sum())
        before = after
    assert 0.15 < silent / (100 * 40) < 0.45  # bursts of 0.2 s, two a second, may run into each other: about 0.33


def test_people_walk_where_and_as_fast_as_configured() -> None:
    people = People(number=(1, 3), distance_m=(0.8, 2.0), speed_mps=(0.5, 1.5), pause_s=(0.0, 0.5))
    twin = run(RobotCellConfig(people=people), 30)
    before = twin.reset(torch.arange(30))
    counts = before.present[PERSON].sum(-1)
    assert set(counts.tolist()) == {1, 2, 3}
    here, walked = before.present[PERSON], 0.0
    for _ in range(100):
        after = twin.step(commanded(twin, 0.0))
        old, new = (r.measured[PERSON][..., :3] for r in (before, after))
        pace = (new - old).norm(dim=-1)[here] / DT_S
        assert (pace <= 1.5 + 1e-9).all()
        distance = new[..., :2].norm(dim=-1)[here]
        assert ((distance >= 0.8 - 1e-9) & (distance <= 2.0 + 1e-9)).all()
        walked = max(walked, float(pace.max()))
        before = after
    assert walked > 0.5
    body = after.measured[PERSON][here][0]
    assert abs(float(body[5] - body[2]) - (1.8 - 0.5)) < 1e-9


def test_obstacles_go_to_and_fro_between_their_ends() -> None:
    thing = Obstacle(from_m=(0, -1, 0.5), to_m=(0.4, 1, 0.5), period_s=1.0)
    twin = run(RobotCellConfig(obstacles=(thing,)), 4)
    readings = twin.reset(torch.arange(4))
    seen = []
    for _ in range(50):
        last, readings = readings, twin.step(commanded(twin, 0.0))
        moved = (readings.measured[OBSTACLE][..., :3] - last.measured[OBSTACLE][..., :3]) / DT_S
        mean = 0.5 * (readings.measured[OBSTACLE][..., 7:] + last.measured[OBSTACLE][..., 7:])
        assert torch.allclose(moved, mean, atol=0.05)
        seen.append(readings.measured[OBSTACLE][:, 0, :3])
    ends = torch.stack(seen)
    assert torch.allclose(ends.amax((0, 1)), torch.tensor((0.4, 1.0, 0.5), dtype=torch.float64), atol=0.01)
    assert torch.allclose(ends.amin((0, 1)), torch.tensor((0.0, -1.0, 0.5), dtype=torch.float64), atol=0.01)


def test_targets_are_in_their_box_and_within_reach_and_cross_where_asked() -> None:
    for crossing in (False, True):
        twin = run(RobotCellConfig(work=ReachWork(crossing=crossing)), 300)
        readings = twin.reset(torch.arange(300))
        target, box = block(readings, "target_x_m", 3), Box()
        for c, (low, high) in enumerate((box.x_m, box.y_m, box.z_m)):
            assert ((target[..., c] >= low) & (target[..., c] <= high)).all()
        shoulder = bases(readings)[..., :3] + torch.tensor((0.0, 0.0, 0.1625))
        assert ((target - shoulder).norm(dim=-1) <= UR5E.reach_m + 1e-9).all()
        beyond = target[..., 0] * torch.tensor((1.0, -1.0))  # arm 1 stands at -x, arm 2 at +x
        assert bool((beyond > 0).all()) == crossing


def play(twin: RobotCellTwin, steps: int) -> list[Readings]:
    readings = twin.reset(torch.arange(twin.n_replicas))
    found = [readings]
    for _ in range(steps):
        goal, home = block(readings, "target_x_m", 3), readings.statics[ARM][..., 4:]
        speeds = reach_speeds(block(readings, "q1_rad"), bases(readings), goal, towards_rad=home)
        readings = twin.step({ARM: speeds})
        found.append(readings)
    return found


def test_a_touched_target_counts_and_gives_way_to_the_next() -> None:
    twin = run(RobotCellConfig(), 4)
    touched = 0
    history = play(twin, 200)
    for before, after in itertools.pairwise(history):
        rise = told(after, "touches") - told(before, "touches")
        near = hidden(after, "distance_m") <= 0.02
        assert torch.equal(rise > 0, near)
        same = (block(after, "target_x_m", 3) == block(before, "target_x_m", 3)).all(-1)
        assert torch.equal(same, rise == 0)
        assert (told(after, "stall_s")[rise > 0] == 0.0).all()
        touched += int(rise.sum())
    assert touched > 10


def test_a_part_is_picked_on_one_side_and_placed_on_the_other() -> None:
    twin = run(RobotCellConfig(work=PickPlaceWork(dwell_s=0.1)), 2)
    changes = 0
    history = play(twin, 160)
    for before, after in itertools.pairwise(history):
        holds = told(after, "holds")
        side = block(after, "target_x_m", 3)[..., 1]
        assert torch.equal(side > 0, holds > 0.5)  # who holds a part goes to where it is placed
        changes += int((holds != told(before, "holds")).sum())
    assert changes >= 3


def test_a_random_ring_has_the_arms_and_the_spacing_that_were_asked_for() -> None:
    config = RobotCellConfig(arms=RandomArms(arms=(2, 4), spacing_m=(0.9, 1.1)))
    readings = run(config, 200).reset(torch.arange(200))
    counts = readings.present[ARM].sum(-1)
    assert set(counts.tolist()) == {2, 3, 4}
    base = bases(readings)
    for n in (2, 3, 4):
        of_n = base[counts == n][:, :n]
        spacing = (of_n[:, 0, :2] - of_n[:, 1, :2]).norm(dim=-1)
        assert ((spacing >= 0.9 - 1e-9) & (spacing <= 1.1 + 1e-9)).all()
        # An arm that is stretched at q1 = 0 reaches towards the ring's centre.
        radius = of_n[..., :2].norm(dim=-1)
        ahead = tool_position(torch.zeros(6, dtype=torch.float64).expand(*of_n.shape[:-1], 6), of_n)[..., :2]
        towards = (of_n[..., :2] - ahead).mul(of_n[..., :2]).sum(-1) / radius
        assert (towards > 0.8).all()


def test_gradients_of_the_gap_flow_back_to_commands() -> None:
    twin = run(RobotCellConfig())
    start = twin.reset(torch.tensor([3]))
    speeds = torch.full((1, 2, 6), 0.05, dtype=torch.float64, requires_grad=True)

    def gap(values: Tensor) -> Tensor:
        twin.reset(torch.tensor([3]))
        for _ in range(5):
            readings = twin.step({ARM: values})
        return hidden(readings, "arm_gap_m")[0, 0]

    gap(speeds).backward()  # type: ignore[no-untyped-call]  # torch's
    assert speeds.grad is not None
    for k, joint in ((0, 0), (0, 1), (1, 2)):
        step = torch.zeros(1, 2, 6, dtype=torch.float64)
        step[0, k, joint] = 1e-5
        with torch.no_grad():
            slope = (gap(speeds + step) - gap(speeds - step)) / 2e-5
        assert abs(float(slope) - float(speeds.grad[0, k, joint])) < 1e-6
    assert start.present[ARM].all()


def test_tasks_reward_touches_and_end_at_contact() -> None:
    config = RobotCellConfig()
    task = SITE.task("reach_stream", config, {"time_penalty_per_s": 0.5, "progress_reward_per_m": 2.0})
    twin = RobotCellTwin(config, 64)
    history = play(twin, 150)
    ended, touched = 0, 0
    for before, after in itertools.pairwise(history):
        score = task.score(before, {}, after)
        gaps = [hidden(after, n) for n in ("arm_gap_m", "self_gap_m", "person_gap_m", "fixture_gap_m")]
        contact = torch.stack(gaps).amin(0) <= 0
        assert torch.equal(score.costs["contacts"] > 0, contact)
        assert torch.equal(score.terminated, contact.any(-1))
        away = (block(before, "target_x_m", 3) - block(before, "tool_x_m", 3)).norm(dim=-1)
        progress = away - hidden(after, "distance_m")
        touches = told(after, "touches") - told(before, "touches")
        wanted = 2.0 * progress + touches - 10.0 * contact - 0.5 * DT_S
        assert torch.allclose(score.reward[ARM], wanted, atol=1e-5)
        ended, touched = ended + int(score.terminated.sum()), touched + int(touches.sum())
    assert ended > 0
    assert touched > 50


def test_a_task_for_other_work_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"set site\.work\.kind to 'pick_place'"):
        SITE.task("pick_place", RobotCellConfig(), {})


def test_commands_of_another_shape_are_refused() -> None:
    twin = run(RobotCellConfig(), 2)
    with pytest.raises(ContractError, match=r"expected \(2, 2, 6\)"):
        twin.step({ARM: torch.zeros(2, 6)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"kind": "fixed", "places": [{"x_m": 0.0}, {"x_m": 0.1}]}}, "0.10 m apart"),
        ({"arms": {"kind": "random", "arms": [3, 2]}}, "first end exceeds"),
        ({"peers": {"delay_periods": [0, 9]}}, "at most 5"),
        ({"people": {"height_m": 0.3}}, "below twice the radius"),
        ({"fixtures": [{"kind": "plane", "normal": [0, 0, 0]}]}, "give a direction"),
        ({"arms": {"kind": "fixed", "places": [{"home_rad": [0, 0, 4, 0, 0, 0]}]}}, "joint 3 at 4"),
    ],
)
def test_cells_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobotCellConfig.model_validate({"kind": "robot_cell", **changes})
