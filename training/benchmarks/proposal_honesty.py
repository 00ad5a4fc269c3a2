"""Executed proposals on the emulated farm: how often the measured effect lies inside the promised interval."""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.arbitration.request import Circumstances
from ...deploy.live_twin import LiveTwin, LiveTwinSettings
from ...deploy.proposals.approval import approve
from ...deploy.proposals.executor import Executor
from ...deploy.proposals.folder import Execution, ProposalFolder
from ...deploy.proposals.proposal import Proposal, SignedProposal
from ...deploy.proposals.propose import Change, RollOutSettings, Today, propose
from ...deploy.proposals.recheck import rechecked
from ...deploy.shield import Shield
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import Order, new_id
from ...deploy.station.people import People
from ...envs.constraint import Declaration, declaration_of_site
from ...envs.errors import ConfigurationError
from ...envs.estimation.site import twin_plan_of_site
from ...envs.plant import Arrays
from ...envs.registry import load_site
from ...envs.wind_farm.config import CoordinateLayout, FlorisPlantConfig, WindFarmConfig
from ...envs.wind_farm.inflow_series import load_series
from ...envs.wind_farm.nameplate import GROUP
from ..report import Cell, Table, print_table, provenance, say

NAME = "proposal_honesty"
SUMMARY = "executed proposals on the emulated farm: measured effects inside the promised 90 % interval"

Floats = NDArray[np.float64]

BAR = (0.85, 0.95)
DT_S, DIAMETER_M, SPACING_D = 20.0, 126.0, 5.0
SETTLE_PERIODS = 60
MOST_TRIES = 3
SERIES = "month"
SPEEDS_MPS = (6.0, 12.0)
PASSWORD = "only for a benchmark"

DESCRIPTION = f"""\
A row of three turbines, {SPACING_D:g} diameters apart and within 6 deg of the wind, emulated by FLORIS in measured wind
(series {SERIES}, mean wind of {SPEEDS_MPS[0]:g} to {SPEEDS_MPS[1]:g} m/s) with gusts, sensor noise, vane errors and
drives of its own. The live twin, which shares no physics with it, tracks it for {SETTLE_PERIODS * DT_S / 60:g} minutes
from power, wind speed and direction. Then a change drawn from the seed (yaw offsets of up to 30 deg on the first one or
two, or a power limit of 60 to 90 %) is proposed, approved, simulated anew one to five periods later, rolled
out by the executor that sits in control, turbine by turbine, through the shield. What the executor then measures is
compared with what the proposal promised.

A case whose twin's gate is closed, or that is refused at execution, is told and not counted: nothing was executed. A
roll-out that is paused because a stage left its 99 % interval counts as outside.

Bar: the measured effect inside the promised 90 % interval in {BAR[0]:.0%} to {BAR[1]:.0%} of 100 or more cases.
"""


@dataclass(frozen=True)
class Case:
    """One seed. ``status``: what became of it; ``effect`` in kW, NaN where none was measured."""

    seed: int
    status: str
    why: str
    today_kw: float = math.nan
    mean_kw: float = math.nan
    low_kw: float = math.nan
    high_kw: float = math.nan
    surely_low_kw: float = math.nan
    surely_high_kw: float = math.nan
    effect_kw: float = math.nan
    references: int = 0
    cpu_s: float = 0.0

    @property
    def counts(self) -> bool:
        return self.status not in ("closed", "refused")

    @property
    def inside(self) -> bool:
        return self.low_kw <= self.effect_kw <= self.high_kw


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench proposal_honesty --cases 150 --out results/proposal_honesty"
    parser.add_argument("--cases", type=int, default=150, metavar="K", help="seeds 0 to K-1, default %(default)s")
    parser.add_argument("--members", type=int, default=64, metavar="B", help="default %(default)s")
    parser.add_argument("--processes", type=int, default=2, metavar="P", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when the bar is met."""
    found = []
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), _quiet) as pool:
        for one in pool.map(case, range(arguments.cases), repeat(arguments.members)):
            found.append(one)
            say(str(one))
    cpu_s = sum(c.cpu_s for c in found)
    counted = [c for c in found if c.counts]
    share = sum(c.inside for c in counted) / max(1, len(counted))
    met = BAR[0] <= share <= BAR[1]
    rows: list[tuple[Cell, ...]] = [
        ("executed", len(counted)),
        ("effect inside the promised 90 % interval", f"{share:.1%}"),
        ("binomial 95 % interval of that share", "{:.1%} to {:.1%}".format(*wilson(share, len(counted)))),
        ("below", sum(c.effect_kw < c.low_kw for c in counted)),
        ("above", sum(c.effect_kw > c.high_kw for c in counted)),
        ("paused at a stage, counted as outside", sum(math.isnan(c.effect_kw) for c in counted)),
        ("twin's gate closed, nothing proposed", sum(c.status == "closed" for c in found)),
        ("refused at execution", sum(c.status == "refused" for c in found)),
        ("half width of the promised interval, median kW", _median([(c.high_kw - c.low_kw) / 2 for c in counted])),
        ("half width of the gain's own interval, median kW",
         _median([(c.surely_high_kw - c.surely_low_kw) / 2 for c in counted])),
        ("size of the promised effect, median kW", _median([abs(c.mean_kw) for c in counted])),
        ("farm power under today's commands, median kW", _median([c.today_kw for c in counted])),
        ("CPU of a case, s", f"{cpu_s / len(found):.1f}"),
        (f"bar {BAR[0]:.0%} to {BAR[1]:.0%}", "met" if met else "missed"),
    ]  # fmt: skip
    notes = (
        "Effect: mean farm power over the measured time less the twin's forecast for it under today's commands, moved "
        "on with what untouched signals read (docs/proposals.md). A share above the bar is as wrong as one below.",
        f"{arguments.members} members; the plant is FLORIS in measured wind, the twin shares no physics with it.",
    )
    table = Table("Measured effects of executed proposals", ("figure", "value"), tuple(rows), notes,
                  {"cases": [{k: None if v != v else v for k, v in vars(c).items()} for c in found]})  # fmt: skip
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(range(arguments.cases)))
    return 0 if met else 1


def _quiet() -> None:
    """A process of its own: one thread, and no log of each roll-out."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("twinloop").setLevel(logging.CRITICAL)


def case(seed: int, n_members: int) -> Case:
    """One plant, one proposal, one roll-out."""
    begun_s = time.process_time()
    rng = np.random.default_rng((seed, 6001))
    config, plant_config = _farm(rng, seed)
    farm = _Farm(config, plant_config, n_members, seed)
    for _ in range(SETTLE_PERIODS):
        farm.period(farm.today)
    writes = _writes(rng)
    with tempfile.TemporaryDirectory(prefix="twinloop-") as folder:
        station = StationFolder(Path(folder) / "station")
        station.make()
        found = _carried_out(farm, station, writes, seed, int(rng.integers(1, 6)))
    return replace(found, cpu_s=time.process_time() - begun_s)


def _carried_out(farm: _Farm, station: StationFolder, writes: dict[str, float], seed: int, wait: int) -> Case:
    people = People.read(station.people).add("root", "admin", PASSWORD)
    for name, role in (("anna", "operator"), ("bert", "approver")):
        people = people.add(name, role, PASSWORD, by="root", by_password=PASSWORD)  # type: ignore[arg-type]
    executor = Executor(station, farm.declaration)
    executor.start()
    today = Today(farm.accepted)
    proposal: Proposal | None = None
    settings = RollOutSettings(stage_s=5 * DT_S, measure_s=30 * DT_S)
    closed = ""
    for _ in range(MOST_TRIES):  # a gate that is closed now may open again
        try:
            proposal = propose(
                farm.live, farm.declaration, today, Change(writes), settings, id=f"case-{seed:06d}", by="anna",
                reason="a benchmark", now_utc_s=time.time(),
            )  # fmt: skip
            break
        except ConfigurationError as error:
            closed = str(error)
            for _ in range(15):
                farm.period(farm.today)
    if proposal is None:
        return Case(seed, "closed", closed)
    folder = ProposalFolder(station, proposal.id)
    signed = SignedProposal.of(proposal, people.unlock("anna", PASSWORD))
    folder.file_proposal(signed)
    approval = approve(signed, people, "bert", people.unlock("bert", PASSWORD), now_utc_s=time.time())
    folder.file_approval(approval, time.time())
    for _ in range(wait):
        farm.period(farm.today)
    folder.write_recheck(rechecked(proposal, farm.live, farm.declaration, today))
    now_s = time.time()
    order = Order(id=new_id(), kind="execute", by="anna", utc_s=now_s, expires_utc_s=now_s + 10.0, proposal=proposal.id)
    verdict = executor.order(order, farm.circumstances())
    if not verdict.accepted:
        return _case(seed, "refused", verdict.why, proposal, math.nan)
    execution: Execution | None = None
    for _ in range(round(proposal.lasts_s / DT_S) + 10):
        farm.period(None, executor)
        execution = folder.execution()
        if execution is not None and execution.status in ("standing", "rolling back", "rolled back", "paused", "done"):
            break
    if execution is None:
        raise RuntimeError(f"case {seed}: the executor told nothing")
    complete = len(execution.effects) > len(proposal.stages) and execution.effects[-1] is not None
    effect = execution.effects[-1] if complete else None
    return _case(seed, execution.status, execution.why, proposal, math.nan if effect is None else effect)


def _case(seed: int, status: str, why: str, proposal: Proposal, effect_kw: float) -> Case:
    gain = proposal.gain
    return Case(
        seed, status, why, gain.today, gain.mean, gain.low, gain.high, gain.surely_low, gain.surely_high, effect_kw,
        len(gain.references),
    )  # fmt: skip


class _Farm:
    """Plant, live twin and shield, and the period that joins them."""

    def __init__(self, config: WindFarmConfig, plant_config: FlorisPlantConfig, n_members: int, seed: int) -> None:
        import torch

        from ...envs.wind_farm.plant import FlorisPlant
        from ...envs.wind_farm.twin import WindFarmTwin

        self.plant = FlorisPlant(config, plant_config)
        self.declaration: Declaration = declaration_of_site(load_site("wind_farm"), config)
        self.shield = Shield(self.declaration)
        plan = twin_plan_of_site(load_site("wind_farm"), config, plant_config)
        if plan is None or not isinstance(plan.config, WindFarmConfig):
            raise RuntimeError("the farm does not say how it is tracked")
        members = WindFarmTwin(plan.config, n_members, dtype=torch.float64)
        self.live = LiveTwin(members, LiveTwinSettings(**plan.settings.model_dump() | {"seed": seed}))
        self.state = self.shield.start()
        self.accepted: Arrays = self.state.applied
        self.today: Arrays = self.state.applied
        self.reading = self.plant.read()
        self.live.start(self.plant.clock_s, telemetry=self.reading)
        self.number = 0

    def circumstances(self) -> Circumstances:
        now_s = self.plant.clock_s
        guarded = self.shield.guard(self.reading, now_s, self.state)
        modes = {agent: _mode() for agent in self.declaration.nameplate.agents}
        return Circumstances(self.number, now_s, guarded.values, guarded.trusted, self.state, modes)

    def period(self, asked: Arrays | None, executor: Executor | None = None) -> None:
        """Decide, send, advance, read, assimilate."""
        self.number += 1
        proposed = {name: value.copy() for name, value in (asked or self.today).items()}
        for request in executor.requests(self.circumstances()) if executor is not None else ():
            for name, value in request.values.items():
                proposed[name] = np.where(np.isnan(value), proposed[name], value)
        now_s = self.plant.clock_s
        decision = self.shield.filter(self.reading, proposed, now_s, self.state)
        self.accepted = self.plant.write(decision.commands)
        self.state = self.shield.accepted(decision.state, self.accepted)
        self.plant.advance()
        self.reading = self.plant.read()
        self.live.advance(self.accepted, self.plant.clock_s)
        self.live.assimilate(self.reading)


def _mode() -> Any:
    from ...deploy.shield import Mode

    return Mode.AUTONOMOUS


def _farm(rng: np.random.Generator, seed: int) -> tuple[WindFarmConfig, FlorisPlantConfig]:
    """A row that lies almost along the wind of a moment of the series, and a plant that begins there."""
    series = load_series(SERIES)
    usable = np.flatnonzero((series.wind_speed_mps[:-6] > SPEEDS_MPS[0]) & (series.wind_speed_mps[:-6] < SPEEDS_MPS[1]))
    start = int(rng.choice(usable))
    middle = start + 3  # the measured time lies about half an hour on
    angle = math.radians(float(series.wind_direction_deg[middle]) + rng.uniform(-6.0, 6.0))
    along = SPACING_D * DIAMETER_M * np.arange(3)
    x_m, y_m = (tuple((-along * f(angle)).tolist()) for f in (math.sin, math.cos))
    layout = CoordinateLayout(x_m=x_m, y_m=y_m)
    config = WindFarmConfig(name="row", layout=layout, dt_s=DT_S)
    return config, FlorisPlantConfig(series=SERIES, start_s=float(series.time_s[start]), seed=seed)


def _writes(rng: np.random.Generator) -> dict[str, float]:
    """What is proposed: a wake steered, or a turbine limited."""
    turbines = ["WT01", "WT02"][: int(rng.integers(1, 3))]
    if rng.random() < 0.7:
        side = float(rng.choice((-1.0, 1.0)))
        return {f"{GROUP}/{t}/yaw_offset_deg": side * round(float(rng.uniform(10.0, 30.0)), 1) for t in turbines}
    return {f"{GROUP}/{t}/power_limit_pu": round(float(rng.uniform(0.6, 0.9)), 2) for t in turbines}


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``n`` cases (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    z2 = 1.96**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return centre - half, centre + half


def _median(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.0f}" if values else "-"
