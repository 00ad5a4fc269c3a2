"""How fast the robot cell's twin steps, and how long one cell's distances take where they are decided upon."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...envs.robot_cell.arm import UR5E
from ...envs.robot_cell.arm_body import ArmShape
from ...envs.robot_cell.clearance import Clearance, Segments, segments
from ...envs.robot_cell.config import Peers, People, RobotCellConfig
from ...envs.robot_cell.gaps import arm_gaps
from ...envs.robot_cell.kinematics import pose
from ...envs.robot_cell.motion import JointLimits, move
from ...envs.robot_cell.nameplate import ARM
from ...envs.robot_cell.twin import RobotCellTwin
from ..report import Cell, Table, print_table, provenance, say

NAME = "cell_speed"
SUMMARY = "robot-cell twin in arm-steps per CPU second, and microseconds of one cell's 64 distances with gradients"

STEP_BAR = 1e6
ONE_CELL_BAR_US = 300.0
_BATCHES = (2048, 4096, 8192)

DESCRIPTION = """\
Two UR5e arms, float32, one thread, CPU seconds, the best of the rounds and of batches of 2,048, 4,096 and 8,192 cells.
An arm-step is one arm advanced by one control period.

  whole twin       commands in, readings out: joint and tool limits, lag, kinematics, all 64 capsule pairs of the two
                   arms, 14 pairs of each arm with itself, the floor, touches, targets, readings; the bar is on it
  kinematic step   limits, lag, joint angles, kinematics of both arms and the ends of all capsules, no distances
  step with pairs  the same with all 64 capsule pairs of the two arms
  pairs alone      the 64 distances of two arms whose capsules are known

The last rows are one cell on the edge, numpy: kinematics of both arms, 64 gaps, nearest points, gradients by 12 joints.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench cell_speed --rounds 8"
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each; the best counts (5)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when every bar is met."""
    torch.set_num_threads(1)
    rows: list[tuple[Cell, ...]] = []
    rounds = arguments.rounds
    with torch.inference_mode():
        whole = _fastest(lambda n: _twin_step(RobotCellConfig(), n), rounds)
        rows.append(("whole twin", f"{whole:,.0f} arm-steps/s", f">= {STEP_BAR:,.0f}", _said(whole >= STEP_BAR)))
        say("whole twin: done")
        others = (
            ("kinematic step", _kinematic_step),
            ("kinematic step with pairs", _step_and_pairs),
            ("pairs alone", _pairs),
            ("whole twin, peers late by 2 periods and a person", lambda n: _twin_step(_HARDER, n)),
        )
        for name, maker in others:
            rows.append((name, f"{_fastest(maker, rounds):,.0f} arm-steps/s", "-", "-"))
            say(f"{name}: done")
    median_us, slow_us = _one_cell(rounds)
    rows.append(
        ("one cell, median", f"{median_us:.0f} us", f"<= {ONE_CELL_BAR_US:.0f} us", _said(median_us <= ONE_CELL_BAR_US))
    )
    rows.append(("one cell, 99th percentile", f"{slow_us:.0f} us", "-", "-"))
    notes = ("CPU time of one thread; an arm-step is one arm advanced by one control period; two UR5e arms, float32.",)
    table = Table("Speed of the robot cell's twin", ("what", "seen", "bar", "met"), tuple(rows), notes)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if whole >= STEP_BAR and median_us <= ONE_CELL_BAR_US else 1


_HARDER = RobotCellConfig(peers=Peers(delay_periods=(2, 2)), people=People())


def _said(is_met: bool) -> str:
    return "yes" if is_met else "no"


def _fastest(maker: Callable[[int], Callable[[], object]], rounds: int) -> float:
    """Most arm-steps per CPU second over batches and rounds."""
    best = 0.0
    for n in _BATCHES:
        step = maker(n)
        step()
        for _ in range(rounds):
            start = time.process_time()
            for _ in range(4):
                step()
            best = max(best, 4 * 2 * n / (time.process_time() - start))
    return best


def _speeds(n: int) -> torch.Tensor:
    return torch.rand((n, 2, 6), generator=torch.Generator().manual_seed(0)) * 3.0 - 1.5


def _twin_step(config: RobotCellConfig, n: int) -> Callable[[], object]:
    twin = RobotCellTwin(config, n)
    twin.reset(torch.arange(n))
    commands = {g.name: torch.zeros(n, g.n_assets, len(g.commanded)) for g in twin.nameplate.groups}
    commands[ARM] = _speeds(n)
    return lambda: twin.step(commands)


def _kinematic_step(n: int) -> Callable[[], Segments]:
    config = RobotCellConfig()
    limits = JointLimits.of(config, UR5E, torch.float32, torch.device("cpu"))
    command = _speeds(n).permute(1, 2, 0).contiguous()
    q, base, lag = torch.rand(2, 6, n), torch.rand(2, 4, n), torch.zeros(n)

    def step() -> Segments:
        after, _ = move(q, command, command, lag, limits, config, UR5E)
        return segments(pose(after.unbind(1), base.unbind(1)), UR5E)

    return step


def _step_and_pairs(n: int) -> Callable[[], object]:
    step = _kinematic_step(n)
    clearance = Clearance(UR5E, (), torch.float32, torch.device("cpu"))
    present = torch.ones(2, n, dtype=torch.bool)

    def both() -> object:
        arms = step()
        return clearance.between_arms(arms, arms, present)

    return both


def _pairs(n: int) -> Callable[[], object]:
    clearance = Clearance(UR5E, (), torch.float32, torch.device("cpu"))
    arms = segments(pose(torch.rand(2, 6, n).unbind(1), torch.rand(2, 4, n).unbind(1)), UR5E)
    present = torch.ones(2, n, dtype=torch.bool)
    return lambda: clearance.between_arms(arms, arms, present)


def _one_cell(rounds: int) -> tuple[float, float]:
    """Median and 99th percentile of microseconds, thread CPU time, over random poses."""
    shape = ArmShape()
    generator = np.random.default_rng(0)
    bases = np.array([[-0.5, 0.0, 0.0, np.pi], [0.5, 0.0, 0.0, 0.0]])
    taken = []
    for q in generator.uniform(-2.5, 2.5, (1000 * rounds, 2, 6)):
        start = time.thread_time_ns()
        arm_gaps(shape.at(q[0], bases[0]), shape.at(q[1], bases[1]))
        taken.append((time.thread_time_ns() - start) / 1e3)
    return float(np.median(taken)), float(np.percentile(taken, 99))
