"""Steady gain in FLORIS of one policy on farms that it was never shown: its share of the optimiser's gain."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ...envs.errors import ConfigurationError
from ...envs.wind_farm.config import CoordinateLayout, Layout, NamedLayout, WindFarmConfig
from ..contestants import Contestant
from ..report import Cell, Table, percent, print_table, provenance, say
from ..steady_evaluation import SteadyResult, steady_gain

NAME = "steady_gain"
SUMMARY = "a policy's share of the optimiser's gain in FLORIS, on named and random farms"

NAMED = ("row3_5d", "grid3x3_5d", "ablaincourt", "cl_windcon32")
NAMED_BAR, RANDOM_BAR = 0.95, 0.85
_WORTH_STEERING = 0.01
_ROTOR_DIAMETER_M = 125.88
_N_RANGE = (5, 60)
_SPACING_D = (4.0, 7.0)

DESCRIPTION = """\
Ask a policy for its settled offsets at 8 m/s, turbulence 0.06, wind from 270 deg, from readings without noise, and give
the gain over greedy as a share of what FLORIS' serial-refine gains. All powers are FLORIS' own.

Bars: 95 % on each named farm, 85 % on average over random farms of 5 to 60 turbines (half of them jittered
grids, half scattered, all turned at random; farms where the optimiser gains less than 1 % say nothing and are drawn
anew). Cost: about 1 CPU s for 9 turbines, 45 for 32, 60 for 60.
"""
EPILOG = """\
examples:
  twinloop bench steady_gain runs/any_farm/artifact
  twinloop bench steady_gain runs/any_farm/artifact --named row3_5d,ablaincourt --random 20 --seed 7
  twinloop bench steady_gain greedy --named row3_5d
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", metavar="ARTIFACT", help="folder of a policy artifact, or 'greedy'")
    parser.add_argument("--named", default=",".join(NAMED), help="named farms, default %(default)s; empty: none")
    parser.add_argument("--random", type=int, default=0, metavar="K", help="random farms to draw as well, default 0")
    parser.add_argument("--seed", type=int, default=1, help="of the random farms, default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table there as md, csv and json")


def run(arguments: argparse.Namespace) -> int:
    """Measure; 0 when both bars are met."""
    if arguments.random < 0:
        raise ConfigurationError(f"--random: {arguments.random}; give a number of farms from 0 on")
    contestant = contestant_of(arguments.artifact)
    results: list[SteadyResult] = []
    for name in (n.strip() for n in arguments.named.split(",") if n.strip()):
        results.append(measure(name, NamedLayout(name=name), contestant))
        _say(results[-1])
    named = len(results)
    rng = np.random.default_rng(arguments.seed)
    while len(results) < named + arguments.random:
        number = len(results) - named + 1
        drawn = measure(f"random {number}", draw_layout(rng), contestant)
        if drawn.optimum_gain < _WORTH_STEERING:
            continue
        results.append(drawn)
        _say(drawn)
    table, passed = summarise(results[:named], results[named:])
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, "steady_gain", provenance([arguments.seed], policy=contestant.fingerprint()))
    return 0 if passed else 1


def contestant_of(text: str) -> Contestant:
    """An artifact's folder, or greedy, which must come out at 0 %."""
    return Contestant("greedy") if text == "greedy" else Contestant("artifact", Path(text))


def measure(name: str, layout: Layout, contestant: Contestant) -> SteadyResult:
    """One farm."""
    config = WindFarmConfig(name="bench", layout=layout, dt_s=60.0)
    return steady_gain(name, config, contestant.build)


def draw_layout(rng: np.random.Generator) -> CoordinateLayout:
    """A random farm of 5 to 60 turbines at least 4 rotor diameters apart, made by no code of the twin's."""
    n = int(rng.integers(_N_RANGE[0], _N_RANGE[1] + 1))
    position = _jittered_grid(rng, n) if rng.random() < 0.5 else _scattered(rng, n)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = np.round(turn @ position.T * _ROTOR_DIAMETER_M, 1)
    return CoordinateLayout(x_m=tuple(float(v) for v in x), y_m=tuple(float(v) for v in y))


def _jittered_grid(rng: np.random.Generator, n: int) -> np.ndarray:
    """Cells of a sheared grid, ``[n, 2]`` in diameters; the jitter leaves 4 D between neighbours."""
    pitch = rng.uniform(_SPACING_D[0] + 0.5, _SPACING_D[1], 2)
    columns = int(np.ceil(np.sqrt(n * rng.uniform(0.5, 2.0))))
    index = np.arange(n)
    cell = np.stack([index % columns, index // columns], axis=1).astype(np.float64)
    cell[:, 0] += 0.5 * (cell[:, 1] % 2) * rng.integers(0, 2)
    room = (pitch - _SPACING_D[0]) / 4.0
    return cell * pitch + rng.uniform(-1.0, 1.0, (n, 2)) * room


def _scattered(rng: np.random.Generator, n: int) -> np.ndarray:
    """Darts that keep 4 D apart, ``[n, 2]`` in diameters, in a square that grows when it is full."""
    side = np.sqrt(n) * rng.uniform(*_SPACING_D)
    placed: list[np.ndarray] = []
    while len(placed) < n:
        dart = rng.uniform(0.0, side, 2)
        if all(np.hypot(*(dart - other)) >= _SPACING_D[0] for other in placed):
            placed.append(dart)
        else:
            side *= 1.001
    return np.array(placed)


def summarise(named: list[SteadyResult], drawn: list[SteadyResult]) -> tuple[Table, bool]:
    """The table and whether all bars are met."""
    rows: list[tuple[Cell, ...]] = [
        (
            r.name, r.n_turbines, f"{r.greedy_kw / 1e3:.4f}", percent(r.gain), percent(r.optimum_gain),
            f"{100 * r.share:.1f} %", f"{100 * NAMED_BAR:.0f} %" if r in named else "-", "yes" if r.settled else "no",
        )
        for r in [*named, *drawn]
    ]  # fmt: skip
    passed = all(r.share >= NAMED_BAR for r in named)
    if drawn:
        mean = float(np.mean([r.share for r in drawn]))
        passed = passed and mean >= RANDOM_BAR
        rows.append(("mean of random", len(drawn), "-", percent(float(np.mean([r.gain for r in drawn]))),
                     percent(float(np.mean([r.optimum_gain for r in drawn]))), f"{100 * mean:.1f} %",
                     f"{100 * RANDOM_BAR:.0f} %", "-"))  # fmt: skip
    columns = ("farm", "turbines", "greedy MW", "gain", "optimiser", "share", "bar", "settled")
    methods = dict.fromkeys(r.method for r in [*named, *drawn])
    notes = (
        "8 m/s, turbulence 0.06, wind from 270 deg; FLORIS defaults (Gauss-curl hybrid).",
        *(f"optimiser: {m} ({', '.join(r.name for r in [*named, *drawn] if r.method == m)})" for m in methods),
    )
    data = {"results": [r.to_dict() for r in [*named, *drawn]], "passed": passed}
    return Table("Steady gain in FLORIS", columns, tuple(rows), notes, data), passed


def _say(result: SteadyResult) -> None:
    gains = f"gain {percent(result.gain)} of {percent(result.optimum_gain)}"
    say(f"{result.name:<14} {result.n_turbines:>3} turbines  {gains}  share {100 * result.share:.1f} %")
