"""The live twin on nine turbines, from power alone: how soon it knows the wind, and whether its intervals hold."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...deploy.live_twin import LiveTwin, LiveTwinSettings, Prediction
from ...envs.estimation.settings import Prior, SignalError
from ...envs.plant import Telemetry
from ...envs.wind_farm.config import FlorisPlantConfig
from ...envs.wind_farm.nameplate import GROUP
from ...envs.wind_farm.twin import WindFarmTwin
from ..report import Cell, Table, print_table, provenance, say
from ..statistics import mean_interval
from .live_twin_exact import PARAMETER_STDS, Known, known
from .live_twin_scene import (
    CASES,
    CONVERGED_S,
    DIRECTION_BAR_DEG,
    DT_S,
    MIRROR_DEG,
    NOISE_KW,
    POWER,
    SPEED_BAR_MPS,
    Case,
    Floats,
    Scene,
    Settling,
    farm,
    mean_wind,
    turned_deg,
)

NAME = "live_twin_wind"
SUMMARY = "the live twin on 9 turbines, from power alone: convergence, CPU an update, coverage of forecasts"

CPU_BAR_S, COVERAGE_BAR = 0.2, (0.93, 0.97)
AHEAD_S = 300.0
N_AHEAD = 12  # readings of its last minute that one forecast is held to: noise alone moves the share of nine by 7 %

DESCRIPTION = f"""\
A grid of 3 x 3 turbines 5 diameters apart; power with {NOISE_KW:g} kW of noise (1 % of rated) is all that is measured,
every {DT_S:g} s. Speed, direction, turbulence and two wake parameters are unknown: the prior of the direction is 14 deg
wide and off by up to 5 deg, that of the speed 4 m/s. Converged: from then on the mean direction is within
{DIRECTION_BAR_DEG:g} deg, the mean speed within {SPEED_BAR_MPS:g} m/s, and the forecast of power, one period ahead,
off by less than the noise (root mean square over turbines).

any direction   constant wind from anywhere. Within {MIRROR_DEG:g} deg of one of the layout's eight axes (mirror)
                power says the same of both sides: those seeds are told apart, and are not judged.
steered         from within {MIRROR_DEG:g} deg of a row, while three turbines hold 20 deg of yaw: no mirror then.
drifting        any direction; speed and direction wander as the twin assumes. Judged by its coverage alone.
floris          against the FLORIS plant, which shares no physics with the twin and has gusts and delays of its own, in
                wandering wind; for several model errors. Shown, not judged.

Bars: every judged seed converged in less than {CONVERGED_S:g} s; less than {CPU_BAR_S:g} s of CPU an update; of the
readings after {CONVERGED_S:g} s, 93 to 97 % inside the 95 % interval, one period ahead and over the minute that ends
{AHEAD_S:g} s ahead. Where a seed in constant wind misses, the notes tell what an exact posterior makes of the same
readings; the seed stays missed.
"""


@dataclass(frozen=True)
class Tracking:
    """One seed: ``settled_s`` after which it stays converged (inf: never), errors at the end, coverages."""

    seed: int
    direction_deg: float
    mirror: bool
    settled_s: float
    speed_error_mps: float
    direction_error_deg: float
    power_error_kw: float
    nis: float
    coverage: float
    coverage_ahead: float
    cpu_s: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench live_twin_wind --seeds 20 --out results/live_twin_wind"
    parser.add_argument("--seeds", type=int, default=20, metavar="K", help="seeds 0 to K-1, default %(default)s")
    parser.add_argument("--members", type=int, default=64, metavar="B", help="default %(default)s")
    parser.add_argument("--plant-seeds", type=int, default=3, metavar="K", help="FLORIS plants, 0: none; default 3")
    parser.add_argument("--model-errors", type=float, nargs="+", default=[0.0, 40.0, 80.0], metavar="KW",
                        help="tried against FLORIS")  # fmt: skip
    parser.add_argument("--exact-members", type=int, default=4000, metavar="B",
                        help="weighted, to tell what could be known of a seed that missed; 0: do not ask")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when all bars are met."""
    torch.set_num_threads(1)
    rows: list[tuple[Cell, ...]] = []
    met, data, exact = True, {}, []
    for case in CASES:
        found = []
        for seed in range(arguments.seeds):
            found.append(track(case, seed, arguments.members))
            say(f"{case.name}: {found[-1]}")
        data[case.name] = [vars(t) for t in found]
        for mirror in (False, True):
            part = [t for t in found if t.mirror is mirror]
            if part:
                judged = not mirror or bool(case.yaw_deg)
                passed = meets(part, case.converges)
                if arguments.exact_members and case.converges and not mirror:
                    for t in missing(part):
                        exact.append((case, t, known(case, t.seed, arguments.exact_members)))
                        say(f"{case.name}: {exact[-1][-1]}")
                met &= passed or not judged
                told = ("met" if passed else "missed") if judged else "not judged"
                rows.append((case.name + (", mirror" if mirror else ""), *summary(part), told))
    for error in arguments.model_errors if arguments.plant_seeds else ():
        found = [track_floris(seed, arguments.members, error) for seed in range(arguments.plant_seeds)]
        data[f"floris {error:g}"] = [vars(t) for t in found]
        rows.append((f"floris, model error {error:g} kW", *summary(found), "shown"))
    if exact:
        data["exact"] = [{"case": case.name, "seed": found.seed, **vars(best)} for case, found, best in exact]
    columns = ("case", "seeds", f"converged < {CONVERGED_S:g} s", "median s", "worst s", "speed error", "dir. error",
               "power error kW", "NIS", "coverage 5 s", f"coverage {AHEAD_S:g} s", "CPU ms", "")  # fmt: skip
    notes = (
        "Errors: mean over seeds at the end, in m/s, deg and kW of the forecast mean; coverage of readings after "
        f"{CONVERGED_S:g} s, with Student's 95 % interval over seeds.",
        f"Converged: for good within {DIRECTION_BAR_DEG:g} deg, {SPEED_BAR_MPS:g} m/s and {NOISE_KW:g} kW.",
        f"{arguments.members} members, DEnKF, no inflation; CPU of one update: step, forecast and analysis.",
        *(told_exactly(case, found, best, arguments.exact_members) for case, found, best in exact),
    )
    table = Table("Live twin of nine turbines, from power alone", columns, tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(range(arguments.seeds)))
    return 0 if met else 1


def meets(found: Sequence[Tracking], converges: bool) -> bool:
    """Whether these seeds meet the bars."""
    low, high = COVERAGE_BAR
    covers = all(
        low <= sum(getattr(t, k) for t in found) / len(found) <= high for k in ("coverage", "coverage_ahead")
    )  # fmt: skip
    return covers and all(t.cpu_s < CPU_BAR_S and (t.settled_s < CONVERGED_S or not converges) for t in found)


def missing(found: Sequence[Tracking]) -> list[Tracking]:
    """Seeds that did not converge in time."""
    return [t for t in found if t.settled_s >= CONVERGED_S]


def told_exactly(case: Case, found: Tracking, best: Known, n_members: int) -> str:
    """A missed seed beside what its readings hold, in words."""
    return (
        f"{case.name}, seed {found.seed}: the twin converged after {found.settled_s:g} s. An exact posterior of the "
        f"same readings ({n_members} members weighted, {best.n_effective:.0f} effective) does after "
        f"{best.settled_s:g} s, and at {CONVERGED_S:g} s has {best.direction_std_deg:.2f} deg of deviation and "
        f"{best.direction_error_deg:.2f} deg of error."
    )


def summary(found: Sequence[Tracking]) -> tuple[Cell, ...]:
    """The cells of a row."""

    def mean(name: str) -> float:
        return float(sum(getattr(t, name) for t in found) / len(found))

    def interval(name: str) -> str:
        values = [getattr(t, name) for t in found]
        if len(values) < 2:
            return f"{values[0]:.3f}"
        told = mean_interval(values)
        return f"{told.estimate:.3f} [{told.low:.3f}, {told.high:.3f}]"

    settled = sorted(t.settled_s for t in found)
    return (
        len(found),
        sum(s < CONVERGED_S for s in settled),
        f"{settled[len(settled) // 2]:g}",
        f"{settled[-1]:g}",
        f"{mean('speed_error_mps'):.3f}",
        f"{mean('direction_error_deg'):.2f}",
        f"{mean('power_error_kw'):.0f}",
        f"{mean('nis'):.2f}",
        interval("coverage"),
        interval("coverage_ahead"),
        f"{1e3 * mean('cpu_s'):.1f}",
    )


def settings(seed: int, model_error_kw: float = 0.0) -> LiveTwinSettings:
    """Power is measured; two of the wake's parameters are unknown."""
    return LiveTwinSettings(
        signals={f"{GROUP}/power_kw": SignalError(noise=NOISE_KW, model_error=model_error_kw)},
        parameters={name: Prior(std=std) for name, std in PARAMETER_STDS.items()},
        late_periods=0,
        seed=seed,
    )


def track(case: Case, seed: int, n_members: int, until_s: float = 800.0) -> Tracking:
    """One seed: a farm drawn from it, and the live twin that has to find out about it."""
    scene = Scene(case, seed)
    members = WindFarmTwin(scene.prior(), n_members, dtype=torch.float64)
    live = LiveTwin(members, settings(seed))
    live.start(0.0)
    watch = _Watch()
    for k, (read, true, wind) in enumerate(scene.readings(until_s + AHEAD_S), start=1):
        if k * DT_S > until_s:  # only what was forecast is still of interest
            watch.due(k * DT_S, read)
            continue
        watch.period(live, members, scene.commands, k * DT_S, read, true, wind)
    return watch.tracking(seed, scene.direction_deg)


def track_floris(seed: int, n_members: int, model_error_kw: float, until_s: float = 1000.0) -> Tracking:
    """The same against the FLORIS plant, in a quarter of an hour of its own wandering wind."""
    from ...envs.wind_farm.plant import FlorisPlant

    rng = np.random.default_rng((seed, 4008))
    speed, direction = rng.uniform(7.5, 9.5), rng.uniform(15.0, 30.0)
    plant = FlorisPlant(
        farm((speed, speed), (direction, direction), (0.08, 0.08)),
        FlorisPlantConfig(series="constant", seed=seed, power_noise_pu=NOISE_KW / 5000.0),
    )
    wandering = farm((6.5, 10.5), (direction - 9.0, direction + 5.0), (0.05, 0.12), 0.3)
    members = WindFarmTwin(wandering, n_members, dtype=torch.float64)
    live = LiveTwin(members, settings(seed, model_error_kw))
    live.start(plant.clock_s)
    commands = np.tile([0.0, 1.0], (9, 1))
    start_s, watch = plant.clock_s, _Watch()
    for k in range(1, int((until_s + AHEAD_S) / DT_S) + 1):
        plant.write({GROUP: commands})
        plant.advance()
        read, told = plant.read().values[GROUP], plant.truth()
        if k * DT_S > until_s:
            watch.due(k * DT_S, read)
            continue
        wind = (float(told["free_wind_speed_mps"].mean()), float(told["free_wind_direction_deg"].mean()))
        true = read.copy()
        true[:, POWER] = told["power_kw"]
        watch.period(live, members, commands, k * DT_S, read, true, wind, start_s)
    return watch.tracking(seed, direction)


class _Watch:
    """Counts what the bars are about."""

    def __init__(self) -> None:
        self._settling = Settling()
        self.errors = (math.inf, math.inf, math.inf)
        self.cpu_s: list[float] = []
        self.nis: list[float] = []
        self.inside: list[float] = []
        self.inside_ahead: list[float] = []
        self._ahead: dict[int, Prediction] = {}

    def period(
        self, live: LiveTwin, members: WindFarmTwin, commands: Floats, at_s: float, read: Floats, true: Floats,
        wind: tuple[float, float], start_s: float = 0.0,
    ) -> None:  # fmt: skip
        now_s = start_s + at_s
        begun_s = time.thread_time()
        forecast = live.advance({GROUP: commands}, now_s)
        live.assimilate(_telemetry(read, now_s))
        self.cpu_s.append(time.thread_time() - begun_s)
        self.due(at_s, read)
        speed, direction = mean_wind(members)
        power = float(np.sqrt(np.mean((forecast.values[GROUP][:, POWER] - true[:, POWER]) ** 2)))
        self.errors = (abs(speed - wind[0]), abs(turned_deg(direction, wind[1])), power)
        self._settling.add(at_s, *self.errors)
        if at_s > CONVERGED_S:
            self.inside.append(_share(forecast, read))
            self.nis.append(live.verdict().nis)
            if round(at_s / DT_S) % 20 == 0:
                forecasts = live.forecast([{GROUP: commands}] * round(AHEAD_S / DT_S))
                due = {round(at_s / DT_S) + 1 + k: told for k, told in enumerate(forecasts)}
                self._ahead |= dict(list(due.items())[-N_AHEAD:])

    def due(self, at_s: float, read: Floats) -> None:
        """Judge the forecast that was made for now."""
        told = self._ahead.pop(round(at_s / DT_S), None)
        if told is not None:
            self.inside_ahead.append(_share(told, read))

    def tracking(self, seed: int, direction_deg: float) -> Tracking:
        off_axis = abs((direction_deg + 22.5) % 45.0 - 22.5)
        speed, turned, power = self.errors
        return Tracking(
            seed, round(direction_deg % 360.0, 1), off_axis < MIRROR_DEG, self._settling.since_s, speed, turned, power,
            float(np.mean(self.nis)), float(np.mean(self.inside)), float(np.mean(self.inside_ahead)),
            float(np.mean(self.cpu_s)),
        )  # fmt: skip


def _share(forecast: Prediction, read: Floats) -> float:
    inside = (read >= forecast.low[GROUP]) & (read <= forecast.high[GROUP])
    return float(inside[:, POWER].mean())


def _telemetry(read: Floats, now_s: float) -> Telemetry:
    quality = np.zeros(read.shape, dtype=np.int8)
    return Telemetry({GROUP: read}, {GROUP: np.full(read.shape, now_s)}, {GROUP: quality}, now_s, round(now_s / DT_S))
