"""How fast the wind-farm twin steps, beside FLORIS solving the same farms in the same process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...envs.wind_farm.config import CoordinateLayout, Dynamics, Inflow, NamedLayout, Sensors, WindFarmConfig
from ...envs.wind_farm.floris_model import build_model
from ...envs.wind_farm.nameplate import GROUP
from ...envs.wind_farm.twin import WindFarmTwin
from ..report import Cell, Table, print_table, provenance, say

NAME = "twin_speed"
SUMMARY = "wind-farm twin steps per CPU second beside batched FLORIS, with full dynamics, and up to 200 turbines"

# bars on the ratio to FLORIS: 10, and 3 times what the fastest engine in the literature reaches over FLORIS
# (windrl-engine 31,579, 7,430 and 452 steps/s at 3, 7 and 30 turbines where FLORIS makes 10,220, 2,187 and 107)
STEADY_BARS = {"row3_5d": 10.0, "ablaincourt": 10.2, "cl_windcon32": 12.7}
DYNAMIC_BAR = 20_000.0
GROWTH_BAR = 2.0
_BATCHES = {"row3_5d": (1024, 4096), "ablaincourt": (1024, 4096), "cl_windcon32": (256, 512)}
_FLORIS_BATCHES = {"row3_5d": (1000,), "ablaincourt": (1000,), "cl_windcon32": (100, 300)}

DESCRIPTION = """\
Time whole steps of the twin (commands in, readings out, noise off) in steady mode, float32, one thread, and
FLORIS' run() on as many conditions at once, in turn, CPU seconds, the best of the rounds on both sides. Then full
dynamics at 1 s (travelling wakes, drives, drift, gusts, sensor noise), and how the cost of a steady step grows from
25 to 200 turbines (exponent; turbines squared is 2).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench twin_speed --rounds 5"
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="interleaved rounds; the best counts (3)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when every bar is met."""
    torch.set_num_threads(1)
    rows: list[tuple[Cell, ...]] = []
    met: list[bool] = []

    def judge(case: str, passed: bool, *cells: Cell) -> None:
        met.append(passed)
        rows.append((case, *cells, "yes" if passed else "no"))
        say(f"{case}: done")

    for name, bar in STEADY_BARS.items():
        twin, floris = _steady(name, arguments.rounds)
        judge(f"{name}, steady", twin / floris >= bar, f"{twin:,.0f}", f"{floris:,.0f}", f"{twin / floris:.1f}", bar)
    speed = _dynamic(arguments.rounds)
    judge("row3_5d, full dynamics, 1 s", speed >= DYNAMIC_BAR, f"{speed:,.0f}", "-", "-", f"{DYNAMIC_BAR:,.0f}")
    exponent = _growth(arguments.rounds)
    judge("growth exponent, 25 to 200 turbines", exponent <= GROWTH_BAR, f"{exponent:.2f}", "-", "-", GROWTH_BAR)
    columns = ("case", "twin", "FLORIS", "ratio", "bar", "met")
    notes = ("Steps per CPU second of one thread, float32 (FLORIS: float64, run() alone); best of interleaved rounds.",)
    table = Table("Speed of the wind-farm twin", columns, tuple(rows), notes)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if all(met) else 1


def _best(actions: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Most units per CPU second of each action, run in turn; an action returns how many units it made."""
    best = dict.fromkeys(actions, 0.0)
    for _ in range(rounds + 1):
        for name, action in actions.items():
            start = time.process_time()
            units = action()
            best[name] = max(best[name], units / (time.process_time() - start))
    return best


def _stepper(config: WindFarmConfig, n_replicas: int, steps: int) -> Callable[[], int]:
    twin = WindFarmTwin(config, n_replicas)
    twin.reset(torch.arange(n_replicas))
    n = twin.nameplate.group(GROUP).n_assets
    yaw = torch.rand((n_replicas, n), generator=torch.Generator().manual_seed(0)) * 80.0 - 40.0
    commands = {GROUP: torch.stack((yaw, torch.ones_like(yaw)), dim=-1)}

    def step() -> int:
        with torch.inference_mode():
            for _ in range(steps):
                twin.step(commands)
        return n_replicas * steps

    return step


def _solver(config: WindFarmConfig, conditions: int) -> Callable[[], int]:
    model = build_model(config)
    n = model.core.farm.n_turbines
    yaw = np.random.default_rng(0).uniform(-40.0, 40.0, (conditions, n))
    model.set(
        wind_speeds=np.full(conditions, 8.0),
        wind_directions=np.full(conditions, 270.0),
        turbulence_intensities=np.full(conditions, 0.06),
        yaw_angles=yaw,
    )

    def solve() -> int:
        model.run()
        return conditions

    return solve


def _steady(name: str, rounds: int) -> tuple[float, float]:
    config = WindFarmConfig(layout=NamedLayout(name=name))
    actions = {f"twin {b}": _stepper(config, b, 2) for b in _BATCHES[name]}
    actions |= {f"floris {b}": _solver(config, b) for b in _FLORIS_BATCHES[name]}
    best = _best(actions, rounds)
    sides = [[v for k, v in best.items() if k.startswith(side)] for side in ("twin", "floris")]
    return max(sides[0]), max(sides[1])


def _dynamic(rounds: int) -> float:
    config = WindFarmConfig(
        layout=NamedLayout(name="row3_5d"),
        dt_s=1.0,
        dynamics=Dynamics(kind="dynamic", outage_rate_per_day=1.0),
        inflow=Inflow(direction_drift_std_deg=5.0, speed_drift_std_mps=1.0, turbulent=True),
        sensors=Sensors(
            wind_speed_noise_pu=0.02,
            wind_speed_bias_pu=0.01,
            vane_noise_deg=2.0,
            vane_bias_deg=1.0,
            power_noise_pu=0.01,
        ),
    )
    return max(_best({str(b): _stepper(config, b, 10) for b in (512, 1024, 2048)}, rounds).values())


def _growth(rounds: int) -> float:
    """Exponent of the cost of a step in the number of turbines, by least squares over logarithms."""
    sizes = (25, 50, 100, 200)
    actions = {}
    for n in sizes:
        cells = [(700.0 * (k % 15), 900.0 * (k // 15) + 90.0 * (k % 2)) for k in range(n)]
        layout = CoordinateLayout(x_m=tuple(x for x, _ in cells), y_m=tuple(y for _, y in cells))
        actions[str(n)] = _stepper(WindFarmConfig(layout=layout), 64, 1)
    cost = 1.0 / np.array(list(_best(actions, rounds).values()))
    return float(np.polyfit(np.log(sizes), np.log(cost), 1)[0])
