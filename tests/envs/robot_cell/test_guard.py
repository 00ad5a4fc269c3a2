"""The guard's rows against closed forms and in closed loops: stops in time, stale peers, people, no lock-in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.shield import Shield, ShieldState
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.plant import Telemetry
from twinloop.envs.robot_cell.arm import UR5E, with_tool
from twinloop.envs.robot_cell.arm_body import ArmShape, Body, shape_of
from twinloop.envs.robot_cell.config import (
    HOME_RAD,
    ArmPlace,
    CapsuleFixture,
    FixedArms,
    People,
    RandomArms,
    RobotCellConfig,
)
from twinloop.envs.robot_cell.constraints import cell_rows
from twinloop.envs.robot_cell.gaps import arm_gaps, body_gaps, plane_gaps, self_gaps
from twinloop.envs.robot_cell.guard import CellRows
from twinloop.envs.robot_cell.kinematics import reach_speeds, tool_position
from twinloop.envs.robot_cell.nameplate import ARM, BODY_MEASURED, MEASURED, PERSON
from twinloop.envs.robot_cell.site import SITE
from twinloop.envs.robot_cell.surroundings import look_around, pairs_of

Floats = NDArray[np.float64]
DT_S = 0.02
AT = {signal.name: k for k, signal in enumerate(MEASURED)}
BRAKING = np.array(UR5E.braking_radps2)
SHAPE = ArmShape()


def measured_arms(q: Floats, heard: Floats | None = None, heard_dq: Floats | None = None, age_s: float = 0.0) -> Floats:
    """Rows ``[N, O]`` of arms at ``q`` ``[N, 6]`` who were heard at ``heard``."""
    rows = np.zeros((len(q), len(MEASURED)))
    rows[:, :6] = q
    rows[:, AT["heard_q1_rad"] : AT["heard_q1_rad"] + 6] = q if heard is None else heard
    rows[:, AT["heard_dq1_radps"] : AT["heard_dq1_radps"] + 6] = 0.0 if heard_dq is None else heard_dq
    rows[:, AT["heard_age_s"]] = age_s
    return rows


def person_at(place: Floats) -> Floats:
    row = np.zeros((1, len(BODY_MEASURED)))
    row[0, :6] = (*place[:2], 0.25, *place[:2], 1.55)
    row[0, 6] = 0.25
    return row


def rows_of(**fields: Any) -> CellRows:
    return cell_rows(RobotCellConfig(**fields))


def two_arms_gap(q: Floats, bases: Floats) -> float:
    return float(arm_gaps(SHAPE.at(q[0], bases[0]), SHAPE.at(q[1], bases[1])).gap_m.min())


joint = st.floats(-1.5, 1.5)
poses = st.lists(st.floats(-0.8, 0.8), min_size=12, max_size=12).map(
    lambda v: np.reshape(v, (2, 6)) + np.array(HOME_RAD)
)
speeds = st.lists(joint, min_size=12, max_size=12).map(lambda v: np.reshape(v, (2, 6)))


@settings(max_examples=80, deadline=None)
@given(poses, speeds)
def test_braking_along_the_present_speeds_keeps_every_row(q: Floats, applied: Floats) -> None:
    rows = rows_of()
    terms = rows({ARM: measured_arms(q)}, applied)
    share = np.min(BRAKING * DT_S / np.maximum(np.abs(applied), 1e-12), axis=1)
    slowed = applied * (1.0 - 0.98 * np.minimum(share, 1 / 0.98))[:, None]
    assert (np.einsum("nra,na->nr", terms.control, slowed) >= terms.least - 1e-9).all()
    assert (np.abs(slowed - applied) <= BRAKING * DT_S + 1e-12).all()


@settings(max_examples=80, deadline=None)
@given(poses)
def test_arms_that_stand_may_close_on_each_other_at_half_the_gain_times_what_is_left(q: Floats) -> None:
    rows = rows_of(fixtures=[])
    terms = rows({ARM: measured_arms(q)}, np.zeros((2, 6)))
    bases = np.array(rows.bases)
    gaps = arm_gaps(SHAPE.at(q[0], bases[0]), SHAPE.at(q[1], bases[1]))
    # the gap itself, by differences: the fastest way in that the rows allow loses no more than they say
    for arm, gradient in ((0, gaps.gradient_a), (1, gaps.gradient_b)):
        pair = np.unravel_index(gaps.gap_m.argmin(), gaps.gap_m.shape)
        down, gap = -gradient[pair], gaps.gap_m[pair]
        if gap < 0.06 or not (rows.gain_per_s * 0.5 * (gap - 0.05) < 1.5 * np.abs(down).sum() * 0.99):
            continue
        speed = down / np.abs(down).max() * 1.5
        asked = [(row @ speed, least) for row, least in zip(terms.control[arm], terms.least[arm], strict=True)]
        scale = min([1.0, *(least / now for now, least in asked if now < least and now < 0)])
        moved = q.copy()
        moved[arm] += 1e-4 * scale * speed
        closing = (gap - two_arms_gap(moved, bases)) / 1e-4
        assert closing <= 0.5 * rows.gain_per_s * (gap - 0.05) + 1e-2


def test_a_row_is_as_far_as_the_gap_says_at_a_plane_and_at_a_fixture() -> None:
    q = np.array([HOME_RAD, HOME_RAD])
    post = CapsuleFixture(start_m=(-0.3, 0.0, 0.0), end_m=(-0.3, 0.0, 0.3), radius_m=0.05)
    rows = rows_of(fixtures=[{"kind": "plane"}, post])
    own = SHAPE.at(q[0], np.array(rows.bases[0]))
    down = plane_gaps(own, np.array([0.0, 0.0, 1.0]), 0.0)
    body = Body(np.array([[-0.3, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.3]]), np.array([0.05]))
    near = body_gaps(own, body)
    terms = rows({ARM: measured_arms(q)}, np.zeros((2, 6)))
    wanted = {round(-4.0 * (g - 0.03), 9) for g in (*down.gap_m, *near.gap_m[2:, 0])}
    found = {round(float(x), 9) for x in terms.least[0] if math.isfinite(x)}
    assert len(wanted & found) >= 4  # of those near enough to ask for anything


def test_what_was_heard_long_ago_leaves_less_room_and_a_silent_peer_none() -> None:
    q = np.array([HOME_RAD, HOME_RAD]) + np.array([0.0, 0.9, -0.6, 0.0, 0.0, 0.0])
    rows = rows_of(seat=1, fixtures=[])
    moving = np.tile([0.0, 0.8, 0.0, 0.0, 0.0, 0.0], (2, 1))

    def freest(age_s: float) -> float:
        terms = rows({ARM: measured_arms(q, heard_dq=moving, age_s=age_s)}, np.zeros((2, 6)))
        assert (terms.least[1] == -math.inf).all()  # the other arm is not this seat's
        return float(terms.least[0][np.isfinite(terms.least[0])].min(initial=0.0))

    fresh, late, old = freest(0.0), freest(0.04), freest(0.2)
    assert fresh < late < old <= 0.0
    blind = rows({ARM: measured_arms(q, age_s=2.0)}, np.zeros((2, 6)))
    assert may_only_stand(blind.control[0], blind.least[0])  # inside the other's reach


def may_only_stand(control: Floats, least: Floats) -> bool:
    """Whether rows leave each joint no way to go."""
    asked = np.isfinite(least)
    each_way = np.concatenate((np.eye(6), -np.eye(6)))
    return all(((control[asked] @ way) < least[asked]).any() for way in 0.01 * each_way)


def test_an_arm_stands_where_the_other_may_have_come_to_since_it_was_heard_and_goes_on_where_it_may_not() -> None:
    # In a recorded cell an arm that had not heard the other for 0.52 s, beside it at 5 cm, slid along it into contact.
    home = np.array([HOME_RAD, HOME_RAD])
    near = home + np.array([0.0, 0.9, -0.6, 0.0, 0.0, 0.0])
    rows = rows_of(seat=1, fixtures=[])
    gap = two_arms_gap(near, np.array(rows.bases))
    assert 0.0 < gap < 0.5
    fresh = rows({ARM: measured_arms(near)}, np.zeros((2, 6)))
    assert not may_only_stand(fresh.control[0], fresh.least[0])
    late = rows({ARM: measured_arms(near, age_s=0.45)}, np.zeros((2, 6)))
    assert may_only_stand(late.control[0], late.least[0])
    apart = rows_of(seat=1, fixtures=[], arms=FixedArms(places=[ArmPlace(x_m=-2.0), ArmPlace(x_m=2.0)]))
    for age_s in (0.45, 2.0):
        far = apart({ARM: measured_arms(home, age_s=age_s)}, np.zeros((2, 6)))
        assert not may_only_stand(far.control[0], far.least[0])


@settings(max_examples=40, deadline=None)
@given(poses, speeds, st.floats(0.02, 0.5), st.integers(0, 2**32 - 1))
def test_an_unheard_arm_goes_no_farther_than_the_guard_reckons(q: Floats, dq: Floats, age_s: float, seed: int) -> None:
    """Joints that change their speeds as fast as brakes can, at random: points move less than ``travel``, to first
    order in the levers, which are those of the pose that was heard."""
    rows = rows_of(seat=1, fixtures=[])
    rng, steps = np.random.default_rng(seed), 50
    own, peer = (SHAPE.at(q[k], np.array(rows.bases[k])) for k in (0, 1))
    pairs = pairs_of(UR5E, 1, 0, 0, 0)
    seen = look_around(own, (peer,), (), pairs)
    moves, normal = seen.theirs[None], seen.normal[pairs.peers][None]
    drift, travel = rows._since(moves, normal, measured_arms(q, heard_dq=dq, age_s=age_s)[1:])
    speed, turned = dq[1].copy(), np.zeros(6)
    for _ in range(steps):
        speed = np.clip(speed + rng.uniform(-1, 1, 6) * BRAKING * age_s / steps, -1.5, 1.5)
        turned += speed * age_s / steps
    moved = np.einsum("hpjc,j->hpc", moves, turned)
    assert (np.linalg.norm(moved, axis=-1)[0] <= travel + 1e-9).all()
    assert (np.einsum("hpc,hpc->hp", moved, normal)[0] <= drift + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 1.2), st.floats(0.05, 0.5), st.floats(0.1, 1.0))
def test_the_separation_is_the_published_formula(closing_mps: float, reaction_s: float, speed: float) -> None:
    # Marvel & Norcross 2017: S = v_h (T_r + T_s) + v_r T_r + S_s + C + Z, with S_s of a constant deceleration
    rows = rows_of(joint_speed_radps=speed, guard={"person": {"reaction_s": reaction_s, "intrusion_m": 0.02}})
    stop_s = speed / BRAKING.min()
    wanted = 1.6 * (reaction_s + stop_s) + closing_mps * reaction_s + closing_mps * stop_s / 2 + 0.02 + 0.1
    assert rows.separation_m(closing_mps) == pytest.approx(wanted, abs=1e-12)


def _decide(shield: Shield, state: ShieldState, values: dict[str, Floats], u: Floats, clock: int) -> Any:
    now_s = 1.7e9 + clock * DT_S
    reading = Telemetry(
        values,
        {n: np.full(v.shape, now_s) for n, v in values.items()},
        {n: np.zeros(v.shape, np.int8) for n, v in values.items()},
        now_s,
        clock,
    )
    asked = {g.name: u if g.name == ARM else np.zeros((g.n_assets, 0)) for g in shield.nameplate.groups}
    return shield.filter(reading, asked, now_s, state, clock_s=clock * DT_S)


def _shield(**fields: Any) -> Shield:
    config = RobotCellConfig(**fields)
    return Shield(declare(SITE.nameplate(config), SITE.constraints(config), SITE.safe_states(config)))


@pytest.mark.parametrize("delay", [0, 2])
def test_arms_that_are_driven_at_each_other_decide_alone_by_old_news_and_never_meet(delay: int) -> None:
    seats = [_shield(seat=k + 1) for k in range(2)]
    states = [s.start() for s in seats]
    bases = np.array(rows_of().bases)
    q, u = np.array([HOME_RAD, HOME_RAD]), np.zeros((2, 6))
    said: list[tuple[Floats, Floats]] = []
    nearest = math.inf
    for k in range(1, 160):
        said.append((q.copy(), u.copy()))
        heard_q, heard_dq = said[max(0, len(said) - 1 - delay)]
        values = {ARM: measured_arms(q, heard_q, heard_dq, min(delay, k - 1) * DT_S)}
        meeting = np.tile([0.0, 0.0, 0.4], (2, 1))
        wished = reach_speeds(q, bases, meeting, gain_per_s=8.0, speed_mps=1.0)
        for seat in range(2):
            decision = _decide(seats[seat], states[seat], values, wished, k)
            states[seat] = seats[seat].accepted(decision.state, decision.commands)
            u[seat] = decision.commands[ARM][seat]
        q = q + DT_S * u
        nearest = min(nearest, two_arms_gap(q, bases))
    assert 0.03 < nearest < 0.12  # they come near, and no nearer
    assert math.dist(*tool_position(q, bases)) < 0.5


def test_an_arm_stands_before_a_person_who_comes_at_1600_mm_a_second_can_touch_it() -> None:
    rows = rows_of(people=People(), seat=1)
    shield = _shield(people=People(), seat=1)
    state, bases = shield.start(), np.array(rows.bases)
    q, u = np.array([HOME_RAD, HOME_RAD]), np.zeros((2, 6))
    person, stopped_at, seen_at = np.array([-0.5, 3.0]), None, None
    for k in range(1, 150):
        values = {ARM: measured_arms(q), PERSON: person_at(person)}
        wished = reach_speeds(q, bases, np.tile([-0.2, 0.6, 0.5], (2, 1)), gain_per_s=8.0, speed_mps=1.0)
        decision = _decide(shield, state, values, wished, k)
        state = shield.accepted(decision.state, decision.commands)
        before, u = u, decision.commands[ARM]
        gap = float(body_gaps(SHAPE.at(q[0], bases[0]), Body(person_at(person)[:, :3], np.array([[0, 0, 1.3]]),
                                                             np.array([0.25]))).gap_m.min())  # fmt: skip
        if gap <= rows.separation_m() and seen_at is None:
            seen_at = k
        if seen_at is not None:  # from the first period on every joint brakes as hard as it can
            assert (np.abs(u[0]) <= np.maximum(np.abs(before[0]) * 0.999, 1e-9)).all()
        if seen_at is not None and stopped_at is None and np.abs(u[0]).max() < 1e-9:
            stopped_at, left = k, gap
            break
        q[0] += DT_S * u[0]
        person = person + DT_S * 1.6 * np.array([0.0, -1.0])
    assert seen_at is not None
    assert stopped_at is not None
    assert (stopped_at - seen_at) * DT_S <= rows.stopping_s + 2 * DT_S
    assert left >= rows.spare_m  # what the uncertainties of place may still take


def test_a_person_of_whom_nothing_is_known_stops_the_arms() -> None:
    shield = _shield(people=People())
    values = {ARM: measured_arms(np.array([HOME_RAD, HOME_RAD])), PERSON: np.full((1, len(BODY_MEASURED)), math.nan)}
    state = shield.start()
    for k in range(1, 6):
        decision = _decide(shield, state, values, np.full((2, 6), 0.4), k)
        state = shield.accepted(decision.state, decision.commands)
        np.testing.assert_array_equal(decision.commands[ARM], np.zeros((2, 6)))


@pytest.mark.parametrize("seat", [1, None])
def test_a_person_who_is_lost_after_having_been_seen_far_away_stops_the_arms(seat: int | None) -> None:
    shield = _shield(people=People(), seat=seat)
    state, asked, speeds = shield.start(), np.full((2, 6), 0.2), []
    for k in range(1, 30):
        values = {ARM: measured_arms(np.array([HOME_RAD, HOME_RAD])), PERSON: person_at(np.array([0.0, 9.0]))}
        if k > 5:  # held for as long as any value is, and then nowhere
            values[PERSON][:] = math.nan
        decision = _decide(shield, state, values, asked, k)
        state = shield.accepted(decision.state, decision.commands)
        speeds.append(float(np.abs(decision.commands[ARM][0]).max()))
    assert speeds[4] > 0.1
    assert max(speeds[10:]) < 1e-12


def test_an_arm_whose_messages_are_refused_is_not_where_it_was_heard_last() -> None:
    # In a recorded cell one arm's messages were refused after a loss, and the other drove into it at full speed.
    shield = _shield(seat=1)
    near = np.array([HOME_RAD, HOME_RAD]) + np.array([0.0, 0.9, -0.6, 0.0, 0.0, 0.0])
    state, away = shield.start(), np.zeros((2, 6))
    away[0, 1] = -0.3
    speeds = []
    for k in range(1, 30):
        values = {ARM: measured_arms(near)}
        if k > 5:
            values[ARM][1, AT["heard_dq3_radps"]] = math.nan
        decision = _decide(shield, state, values, away, k)
        state = shield.accepted(decision.state, decision.commands)
        speeds.append(float(np.abs(decision.commands[ARM][0]).max()))
    assert speeds[4] > 0.1
    assert max(speeds[10:]) < 1e-12  # inside the other's reach, of whom nothing is known


def test_speeds_that_were_heard_reverse_after_a_loss_and_are_believed() -> None:
    shield = _shield(seat=1)
    state, q = shield.start(), np.array([HOME_RAD, HOME_RAD])
    heard = np.zeros((2, 6))
    heard[1] = (0.0, 0.0, 1.4, -1.4, 0.0, 0.0)
    for k in range(1, 90):
        decision = _decide(shield, state, {ARM: measured_arms(q, heard_dq=heard if k < 60 else -heard)}, heard, k)
        assert not [r for r in decision.reasons if r.code.value.startswith("input")]
        state = shield.accepted(decision.state, decision.commands)


def _beside(within_m: float) -> tuple[CellRows, Floats]:
    """An arm so much nearer to the floor than it should be, and its rows."""
    config = {"seat": 1, "arms": FixedArms(places=[ArmPlace(x_m=-5.0), ArmPlace(x_m=5.0)])}
    low, high = 0.0, 1.5
    rows, normal = rows_of(**config), np.array([0.0, 0.0, 1.0])

    def gap(lift: float) -> float:
        own = SHAPE.at(np.array([0.0, -1.5 + lift, 1.5, -1.57, -1.57, 0.0]), np.array(rows.bases[0]))
        return float(plane_gaps(own, normal, 0.0).gap_m.min())

    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if gap(middle) > 0.03 - within_m else (low, middle)
    q = np.array([[0.0, -1.5 + low, 1.5, -1.57, -1.57, 0.0]] * 2)
    assert gap(low) == pytest.approx(0.03 - within_m, abs=1e-6)
    return rows, q


def test_inside_a_distance_an_arm_goes_outwards_and_nowhere_else() -> None:
    # In recorded cells arms that ran along themselves at top speed lost a millimetre a period until they touched.
    still, spin = np.zeros((2, 6)), np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    for within_m, may_spin in ((-0.02, True), (0.001, True), (0.004, False)):
        rows, q = _beside(within_m)
        terms = rows({ARM: measured_arms(q)}, still)
        control, least = terms.control[0], terms.least[0]
        assert bool((control @ spin >= least).all()) == may_spin
        up = np.array([0.0, -0.5, 0.0, 0.0, 0.0, 0.0])
        assert (control @ up >= least).all()
        assert (control @ np.zeros(6) >= least).all()
        if within_m > 0.0:
            assert not (control @ -up >= least).all()


def test_links_side_by_side_do_not_touch_where_their_nearest_points_jump_to_the_other_end() -> None:
    # As recorded: wrist and upper arm go along each other at a centimetre, one end away from it and the other towards.
    config = RobotCellConfig(tool_length_m=0.1, fixtures=[])
    shield, tooled = _shield(tool_length_m=0.1, fixtures=[], seat=1), shape_of(with_tool(UR5E, 0.1))
    q = np.array([[0.0, -1.4674, -2.5457, 2.4072, 1.1125, -3.981], HOME_RAD])
    u = np.zeros((2, 6))
    u[0] = 0.0, -1.5, 0.059, 1.411, 1.504, -1.5
    u = np.clip(u, -config.joint_speed_radps, config.joint_speed_radps)
    wished = np.tile([0.0, -1.5, -0.5, 1.5, 1.5, -1.5], (2, 1))
    state = shield.start({ARM: u})
    gaps = []
    for k in range(1, 30):
        decision = _decide(shield, state, {ARM: measured_arms(q)}, wished, k)
        state = shield.accepted(decision.state, decision.commands)
        q = q + DT_S * np.array([decision.commands[ARM][0], np.zeros(6)])
        gaps.append(float(self_gaps(tooled.at(q[0], np.zeros(4)), tooled.self_pairs).gap_m.min()))
    assert min(gaps) > 0.005


@settings(max_examples=40, deadline=None)
@given(st.lists(joint, min_size=6, max_size=6))
def test_braking_keeps_the_rows_inside_a_distance_too(speed: list[float]) -> None:
    rows, q = _beside(0.01)
    applied = np.array([speed, speed])
    terms = rows({ARM: measured_arms(q)}, applied)
    share = min(1.0, 0.98 * float((BRAKING * DT_S / np.maximum(np.abs(applied[0]), 1e-12)).min()))
    assert (terms.control[0] @ (applied[0] * (1.0 - share)) >= terms.least[0] - 1e-9).all()


def test_a_cell_without_fixed_places_has_no_rows_and_a_seat_must_be_one_of_its_arms() -> None:
    with pytest.raises(ConfigurationError, match=r"arms: kind 'random'.*give kind 'fixed'"):
        cell_rows(RobotCellConfig(arms=RandomArms()))
    with pytest.raises(ValueError, match="seat: 3 of 2 arms; give 1 to 2"):
        RobotCellConfig(seat=3)
