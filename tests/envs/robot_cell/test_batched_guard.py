"""The guard of a batch against the exact rows and their exact program, and what arms under it do in the twin."""

from __future__ import annotations

import ctypes
from typing import Any

import daqp
import numpy as np
import torch
from numpy.typing import NDArray

from twinloop.agents.controllers.robot_cell import cell_controller
from twinloop.envs.robot_cell.arm import UR5E
from twinloop.envs.robot_cell.batched_guard import BatchedGuard
from twinloop.envs.robot_cell.clearance import Clearance, segments
from twinloop.envs.robot_cell.config import HOME_RAD, Peers, RandomArms, RobotCellConfig
from twinloop.envs.robot_cell.constraints import cell_rows
from twinloop.envs.robot_cell.kinematics import pose
from twinloop.envs.robot_cell.motion import JointLimits
from twinloop.envs.robot_cell.nameplate import ARM, HIDDEN, MEASURED
from twinloop.envs.robot_cell.site import SITE
from twinloop.envs.twin import Observation

AT = {s.name: k for k, s in enumerate(MEASURED)}
HIDDEN_AT = {s.name: k for k, s in enumerate(HIDDEN)}
BRAKING = np.array(UR5E.braking_radps2)
R = 150
TOP, DT_S = 1.5, 0.02


def last(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(array, 0, -1).copy())


def test_all_rows_of_near_states_hold_and_commands_are_close_to_the_exact_program() -> None:
    config, rng = RobotCellConfig(), np.random.default_rng(0)
    rows = cell_rows(config)
    q = np.array(HOME_RAD) + rng.uniform(-1, 1, (R, 2, 6)) * np.array([0.6, 1.0, 0.6, 0.6, 0.4, 0.4])
    dq, wished = rng.uniform(-0.4, 0.4, (R, 2, 6)), rng.uniform(-TOP, TOP, (R, 2, 6))
    age_s = rng.integers(0, 3, (R, 2)) * DT_S
    heard = q - dq * age_s[..., None]
    bases = last(np.tile(np.array(rows.bases), (R, 1, 1)))
    now, then = (pose(joints.unbind(1), bases.unbind(1), UR5E) for joints in (last(q), last(heard)))
    own, seen, here = segments(now, UR5E), segments(then, UR5E), torch.ones(2, R, dtype=torch.bool)
    guard = BatchedGuard(config, UR5E, JointLimits.of(config, UR5E, torch.float64, torch.device("cpu")))
    told = guard(last(wished), last(dq), now, own, seen, last(age_s), last(dq), then, here)
    found = np.moveaxis(told.numpy(), -1, 0)
    clear = Clearance(UR5E, config.fixtures, torch.float64, torch.device("cpu"))
    usual = (
        (clear.between_arms(own, seen, here) > 0.05) & (clear.of_self(own) > 0.015) & (clear.to_fixtures(own) > 0.04)
    )
    short, off, changed = [], [], []
    for r, k in np.argwhere(usual.numpy().T):
        arms = np.zeros((2, len(MEASURED)))
        arms[:, :6], arms[:, AT["heard_age_s"]] = q[r], age_s[r]
        arms[:, AT["heard_q1_rad"] : AT["heard_q1_rad"] + 6] = heard[r]
        arms[:, AT["heard_dq1_radps"] : AT["heard_dq1_radps"] + 6] = dq[r]
        control, least = rows.of_arm(int(k), {ARM: arms}, dq[r, k])
        low, high = np.maximum(-TOP, dq[r, k] - BRAKING * DT_S), np.minimum(TOP, dq[r, k] + BRAKING * DT_S)
        exact, _, flag, _ = daqp.solve(
            np.eye(6), -wished[r, k], np.ascontiguousarray(control), np.concatenate([high, np.full(len(least), 1e30)]),
            np.concatenate([low, least]), np.zeros(6 + len(least), dtype=ctypes.c_int),
        )  # fmt: skip
        u = found[r, k]
        assert flag == 1
        assert (low - 1e-9 <= u).all()
        assert (u <= high + 1e-9).all()
        short.append(float((least - control @ u).max(initial=0.0)))
        off.append(float(np.abs(u - exact).max()))
        changed.append(bool(np.abs(np.clip(wished[r, k], low, high) - exact).max() > 1e-6))
    assert np.mean(changed) > 0.02  # the guard has something to do
    assert np.mean(np.array(short) > 1e-9) < 0.02  # a row of a pair that is not among the nearest
    assert np.mean(np.array(off)[~np.array(changed)] > 1e-9) == 0.0  # what is safe is left alone
    assert np.quantile(off, 0.95) < 0.25


def play(config: RobotCellConfig, n_replicas: int, n_steps: int, name: str = "barrier") -> Any:
    """Least gap between arms, last measured and hidden readings of arms under a controller."""
    twin = SITE.twin(config, n_replicas, "cpu", torch.float32)
    readings = twin.reset(torch.arange(n_replicas))
    policy = cell_controller(name, twin.nameplate)
    memory, least = policy.start(n_replicas), np.inf
    for _ in range(n_steps):
        measured, statics, present = (
            part[ARM].numpy() for part in (readings.measured, readings.statics, readings.present)
        )
        seen = Observation({ARM: measured}, {ARM: statics}, {ARM: present}, twin.dt_s)
        commands, memory = policy.act(seen, memory)
        readings = twin.step({ARM: torch.from_numpy(commands[ARM])})
        least = min(least, float(readings.hidden[ARM][..., HIDDEN_AT["arm_gap_m"]].min()))
    return least, readings.measured[ARM].numpy(), readings.hidden[ARM].numpy()


def test_arms_that_go_straight_for_crossing_targets_never_touch_under_the_guard_and_do_without() -> None:
    told: dict[str, Any] = {
        "arms": RandomArms(arms=(2, 2)), "control_period_s": 0.05, "actuator_lag_s": 0.03,
        "work": {"kind": "reach", "crossing": True},
        "peers": Peers(delay_periods=(0, 1)),
    }  # fmt: skip
    guarded, measured, hidden = play(RobotCellConfig(**told, guard={"inside_twin": True}), 24, 110)
    free, _, nothing = play(RobotCellConfig(**told), 24, 110)
    assert free < 0.0 < 0.02 < guarded
    assert measured[..., AT["touches"]].sum() > 10
    assert hidden[..., HIDDEN_AT["guarded_pu"]].max() > 0.05
    assert (nothing[..., HIDDEN_AT["guarded_pu"]] == 0.0).all()
