"""Is the bottleneck of a production line found from telemetry, and found again when it moves?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...envs.diagnosis import History
from ...envs.production_line.analysis.arrow import arrows
from ...envs.production_line.analysis.chain import RowChain, n_states
from ...envs.production_line.analysis.diagnosis import EXTRA_ROOM
from ...envs.production_line.analysis.efficiency import estimate
from ...envs.production_line.analysis.gains import MOST_CHAIN_STATES, Model, sensitivities
from ...envs.production_line.analysis.record import Counting, LineRecord, record_of
from ...envs.production_line.analysis.settings import LineDiagnosisSettings
from ...envs.production_line.analysis.shift import ShiftWatch, shifts_of
from ...envs.production_line.config import BernoulliMachine, FixedLine, LineConfig, Machine
from ...envs.production_line.line_plan import plan_of
from ...envs.production_line.nameplate import MACHINE
from ...envs.production_line.plant import SimPyLine
from ...envs.production_line.plant_config import LinePlantConfig
from ...envs.production_line.twin import ProductionLineTwin
from ..report import Cell, Table, print_table, provenance, say

NAME = "line_bottleneck"
SUMMARY = "bottlenecks of random lines found from telemetry, and found again after they moved"

FOUND_BAR = 0.90
AGAIN_BAR = 0.95
AGAIN_SLOTS = 1000
DESCRIPTION = """\
Rows of 3 to 6 Bernoulli machines, efficiencies 0.7 to 0.95, buffers 1 to 4. The truth is the machine with the greatest
derivative of production by its efficiency, by the exact chain at the true efficiencies; what is judged sees telemetry
and the buffers alone. Beside it the arrow rule and the lowest efficiency, from the same telemetry. Bar: >= 90 %.

Lines of 3 and 4 machines run on the event-driven plant too, which counts by the clock and holds parts in machines; the
truth is the chain with two places more in each buffer. No bar.

Then lines whose bottleneck recovers to 0.95 while another machine falls to 0.65, after 2,500 slots: when is the new
bottleneck named, and still named 1,500 slots after the change? Bar: >= 95 % within 1,000 slots.
"""
_BEFORE, _AFTER, _PERIOD, _LOOK = 2500, 1500, 10, 50
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A random row."""

    efficiency: Floats
    capacities: tuple[int, ...]

    def config(self, slots_per_period: int, efficiency: Floats | None = None) -> LineConfig:
        """Of these machines, or of machines of which nothing is known."""
        p = self.efficiency if efficiency is None else efficiency
        machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=float(e))) for e in p)
        line = FixedLine(machines=machines, capacities=self.capacities)
        return LineConfig(line=line, slots_per_period=slots_per_period)

    def bottleneck(self, extra_room: int = 0, looks_through: bool = True) -> int:
        """The true one."""
        return _worst(self.efficiency, tuple(c + extra_room for c in self.capacities), looks_through)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench line_bottleneck --out results/line_bottleneck"
    parser.add_argument("--lines", type=int, default=150, metavar="K", help="random lines, default %(default)s")
    parser.add_argument("--slots", type=int, default=5000, metavar="T", help="of telemetry, default %(default)s")
    parser.add_argument("--shifts", type=int, default=60, metavar="K", help="lines that shift, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0 when both bars are met."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    lines = [_random_line(rng, int(rng.integers(3, 7))) for _ in range(arguments.lines)]
    rows: list[tuple[Cell, ...]] = []
    on_twin = []
    for n in sorted({len(line.efficiency) for line in lines}):  # lines of a size run side by side
        alike = [line for line in lines if len(line.efficiency) == n]
        histories = _histories(_twin_of(alike, _LOOK, arguments.seed), arguments.slots // _LOOK)
        records = [record_of(line.config(_LOOK), h, "draws") for line, h in zip(alike, histories, strict=True)]
        on_twin += [_judged(line, record, "draws") for line, record in zip(alike, records, strict=True)]
    say(f"{len(on_twin)} lines judged from the twin's telemetry")
    few = [line for line in lines if len(line.efficiency) <= 4]
    on_plant = [_judged(line, _plant_record(line, arguments.slots, k), "clock") for k, line in enumerate(few)]
    say(f"{len(on_plant)} lines judged from the plant's telemetry")
    share = _share(on_twin, "found")
    for title, judged, bar in (("twin", on_twin, f">= {FOUND_BAR:.0%}"), ("plant", on_plant, "none")):
        if judged:
            rows += [
                (f"{title}: diagnosis", len(judged), f"{_share(judged, 'found'):.1%}", bar),
                (f"{title}: where it is sure (chance >= 0.9)", sum(j["sure"] for j in judged), _sure(judged), "none"),
                (f"{title}: mean chance it gives its answer", len(judged), f"{_share(judged, 'chance'):.1%}", "none"),
                (f"{title}: arrow rule", len(judged), f"{_share(judged, 'arrow'):.1%}", "none"),
                (f"{title}: lowest efficiency", len(judged), f"{_share(judged, 'lowest'):.1%}", "none"),
            ]
    shifted = _shifted([_random_line(rng, 5) for _ in range(arguments.shifts)], rng, arguments.seed)
    delays = np.array([s["slots"] for s in shifted])
    within = float((delays <= AGAIN_SLOTS).mean())
    typical = f"median {np.median(delays):.0f}, 90 % {np.quantile(delays, 0.9):.0f} slots"
    rows.append((f"moved, named again within {AGAIN_SLOTS:,} slots", len(shifted), f"{within:.1%}",
                 f">= {AGAIN_BAR:.0%}"))  # fmt: skip
    rows.append(("moved, slots until named for good", len(shifted), typical, "none"))
    alarms = sum(s["false_alarms"] for s in shifted)
    watched = len(shifted) * 5 * _BEFORE
    rows.append(("false alarms before a change", len(shifted), f"{alarms} in {watched:,} machine-slots", "none"))
    wrong = [j for j in on_twin if not j["found"]]
    worth = f"; where it is wrong, what it names has {_share(wrong, 'worth'):.1%} of the derivative" if wrong else ""
    notes = (
        f"{arguments.slots} slots of telemetry a line; seed {arguments.seed}; truth by the exact chain{worth}.",
        f"By the chain {sum(j['method'] == 'chain' for j in on_twin)} lines of the twin's, the others by replicas.",
    )
    data = {"twin": on_twin, "plant": on_plant, "shifted": shifted}
    table = Table("Bottlenecks found from telemetry", ("case", "lines", "found", "bar"), tuple(rows), notes, data)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance((arguments.seed,)))
    return 0 if share >= FOUND_BAR and within >= AGAIN_BAR else 1


def _random_line(rng: np.random.Generator, n: int) -> Line:
    return Line(rng.uniform(0.7, 0.95, n), tuple(int(c) for c in rng.integers(1, 5, n - 1)))


def _judged(line: Line, record: LineRecord, counting: Counting) -> dict[str, Any]:
    """What the diagnosis, the arrow rule and the lowest efficiency say of a record."""
    settings = LineDiagnosisSettings()
    extra = EXTRA_ROOM if counting == "clock" else 0
    config = line.config(record.slots, np.full(len(line.efficiency), 0.9))  # the truth is not for the judge
    shifts, since = shifts_of(record, settings.alarm_nats)
    estimates = estimate(config, record, since)
    found = sensitivities(Model(config, estimates, extra, looks_through=not extra), settings)
    chances = found.chances(0)
    efficiency = estimates.efficiency()[0]
    time = record.slots * record.n_periods
    scale = efficiency if counting == "clock" else np.ones_like(efficiency)
    plan = plan_of(config)
    blocked, starved = record.blocked.sum(0) / time * scale, record.starved.sum(0) / time * scale
    said = arrows(blocked, starved, plan.producer, plan.consumer).primary
    capacities = tuple(c + extra for c in line.capacities)
    slope = RowChain.of(capacities, not extra).solve(line.efficiency)[1]
    truth, mine = int(slope.argmax()), int(chances.argmax())
    return {
        "machines": len(efficiency), "states": n_states(capacities), "found": mine == truth, "arrow": said == truth,
        "lowest": int(efficiency.argmin()) == truth, "chance": float(chances[mine]), "sure": bool(chances[mine] >= 0.9),
        "worth": float(slope[mine] / slope[truth]), "false_alarms": len(shifts),
        "method": "chain" if n_states(capacities) <= MOST_CHAIN_STATES else "replicas",
    }  # fmt: skip


def _twin_of(lines: list[Line], slots_per_period: int, seed: int) -> ProductionLineTwin:
    """Lines of as many machines, one a replica."""
    twin = ProductionLineTwin(lines[0].config(slots_per_period), len(lines), dtype=torch.float64)
    twin.reset(torch.arange(len(lines)) + 10_007 * seed)
    capacities = np.array([line.capacities for line in lines])
    twin.set_parameters({f"buffer{k + 1}_capacity": torch.from_numpy(c) for k, c in enumerate(capacities.T)})
    _set_efficiencies(twin, lines)
    return twin


def _set_efficiencies(twin: ProductionLineTwin, lines: list[Line]) -> None:
    table = np.array([line.efficiency for line in lines])
    twin.set_parameters({f"M{i + 1}_efficiency_pu": torch.from_numpy(p.copy()) for i, p in enumerate(table.T)})


def _histories(twin: ProductionLineTwin, n_periods: int) -> list[History]:
    """Of each replica, with every machine on."""
    n = twin.nameplate.groups[0].n_assets
    commands = torch.tensor([2.0, 1.0], dtype=torch.float64).expand(twin.n_replicas, n, 2)
    read = torch.stack([twin.step({MACHINE: commands}).measured[MACHINE] for _ in range(n_periods)]).to(torch.float64)
    times = twin.dt_s * np.arange(1, n_periods + 1, dtype=np.float64)
    return [_as_history(times, read[:, b].numpy()) for b in range(twin.n_replicas)]


def _as_history(times: Floats, read: Floats) -> History:
    obeyed = np.broadcast_to(np.array([2.0, 1.0]), (*read.shape[:2], 2))
    return History(times, {MACHINE: read}, {MACHINE: np.ones(read.shape, dtype=np.bool_)}, {MACHINE: obeyed})


def _plant_record(line: Line, n_slots: int, seed: int) -> LineRecord:
    config = line.config(_LOOK)
    plant = SimPyLine(config, LinePlantConfig(seed=seed))
    read, times = [], []
    for _ in range(n_slots // _LOOK):
        plant.advance()
        read.append(plant.read().values[MACHINE])
        times.append(plant.clock_s)
    return record_of(config, _as_history(np.array(times), np.array(read)), "clock")


def _shifted(lines: list[Line], rng: np.random.Generator, seed: int) -> list[dict[str, Any]]:
    """Of each line, the slots after a change until the new bottleneck is named for good; infinite where it is not."""
    if not lines:
        return []
    changed, fallen = [], []
    for line in lines:
        old, efficiency = line.bottleneck(), line.efficiency.copy()
        fallen.append(int(rng.choice([i for i in range(len(efficiency)) if i != old])))
        efficiency[old], efficiency[fallen[-1]] = 0.95, 0.65
        changed.append(Line(efficiency, line.capacities))
    twin = _twin_of(lines, _PERIOD, seed + 1)
    first = _histories(twin, _BEFORE // _PERIOD)
    _set_efficiencies(twin, changed)
    second = _histories(twin, _AFTER // _PERIOD)
    found = []
    for k, line in enumerate(lines):
        config = line.config(_PERIOD)
        slots, false_alarms = _named_again(changed[k], record_of(config, first[k], "draws"),
                                           record_of(config, second[k], "draws"))  # fmt: skip
        found.append({"from": line.bottleneck(), "fell": fallen[k], "to": changed[k].bottleneck(), "slots": slots,
                      "false_alarms": false_alarms})  # fmt: skip
    return found


def _named_again(after: Line, before: LineRecord, later: LineRecord) -> tuple[float, int]:
    """Slots until the bottleneck of ``after`` is named for good, and the alarms before anything had changed."""
    watch = ShiftWatch(len(after.efficiency), LineDiagnosisSettings().alarm_nats)
    false_alarms = sum(len(watch.take(n, k)) for n, k in zip(before.trials, before.made, strict=True))
    truth, right_since = after.bottleneck(), float("inf")
    for period, (n, k) in enumerate(zip(later.trials, later.made, strict=True), 1):
        watch.take(n, k)
        if period * _PERIOD % _LOOK:
            continue
        trials, made = watch.counts()
        right = _worst((made + 0.5) / (trials + 1.0), after.capacities, True) == truth
        right_since = min(right_since, period * _PERIOD) if right else float("inf")
    return right_since, false_alarms


def _worst(efficiency: Floats, capacities: tuple[int, ...], looks_through: bool) -> int:
    return int(RowChain.of(capacities, looks_through).solve(efficiency)[1].argmax())


def _share(judged: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([j[key] for j in judged])) if judged else float("nan")


def _sure(judged: list[dict[str, Any]]) -> str:
    sure = [j for j in judged if j["sure"]]
    return f"{_share(sure, 'found'):.1%}" if sure else "-"
