"""Arms that reach for targets in a shared box on the MuJoCo plant, behind the exact shield: policies side by side."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Cell, Table, print_table, provenance, say
from ..statistics import Interval, mean_interval
from .cell_play import STUCK_S, CellJob, CellRecord, played
from .cell_scene import ring

NAME = "cell_reach"
SUMMARY = "touches, contacts and deadlocks of a learned policy and of baselines in the emulated robot cell"

TOUCHES, PER_MIN, CROSSED_PU, LONGEST_S = 3000, 55.0, 0.8, 20.0
SINGLE_S = 6.0
DESCRIPTION = f"""\
Run a trained policy and baselines on the MuJoCo cell, behind the exact shield, in cases that the policy did not train
on. Streams: a new target at each touch, without an end. Crossing single reaches: both arms begin at home, each with a
target on the far side of the box, and have {SINGLE_S:g} s. Seats: each arm decides alone, with a shield of its own, by
what it has heard. Bars, of the policy: {TOUCHES:,} touches in all and no contact of arms with each other, themselves,
fixtures or people while they move; {PER_MIN:g} touches a minute of two arms; {CROSSED_PU:.0%} of crossing reaches; no
time without a touch longer than {LONGEST_S:g} s at unseen spacings and with three arms. Half an hour
of CPU time in full.
"""
EPILOG = """\
examples:
  twinloop train configs/robot_cell/train_reach.yaml
  twinloop bench cell_reach RUN/artifact --processes 2 --out results/cell_reach
  twinloop bench cell_reach RUN/artifact --seconds 60 --seeds 2 --pairs 10 --no-bars
"""
_BASELINES = ("no_avoidance", "zone_token", "priority_stop", "barrier", "barrier_retreat", "nearer_first")
_CROSSING = {"work": {"kind": "reach", "crossing": True}}


@dataclass(frozen=True)
class Case:
    """A group of stretches that are counted together; ``share`` of the seconds of the main stream."""

    name: str
    site: Mapping[str, Any]
    plant: Mapping[str, Any]
    seats: bool = False
    share: float = 0.25


MAIN = Case("stream", {}, {}, share=1.0)
CASES = (
    Case("stream, crossing targets", _CROSSING, {}),
    Case("bases 0.8 m apart", ring(2, 0.8), {}),
    Case("bases 1.3 m apart", ring(2, 1.3), {}),
    Case("three arms, 1.1 m apart", ring(3, 1.1), {}),
    Case("seats", {}, {}, seats=True),
    Case("seats, heard 1 period late", {}, {"peer_delay_periods": 1}, seats=True),
    Case("seats, heard 2 periods late", {}, {"peer_delay_periods": 2}, seats=True),
    Case("seats, not heard for 1 s, 20 a minute", {}, {"peer_loss_s": 1.0, "peer_losses_per_min": 20.0}, seats=True),
    Case(
        "seats, frozen for 1 s and looking fresh, 20 a minute", {},
        {"peer_loss_s": 1.0, "peer_losses_per_min": 20.0, "peer_frozen": True}, seats=True,
    ),
    Case("two people who come near", {"people": {"number": [2, 2], "distance_m": [2.0, 3.4]}},
         {"visits_per_min": 2.0, "visit_m": 1.1}),
)  # fmt: skip
_UNSEEN = ("bases 0.8 m apart", "bases 1.3 m apart", "three arms, 1.1 m apart")
_SINGLES = "single crossing reaches"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("artifact", metavar="ARTIFACT", help="folder of the policy")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="of a seed's main stream; other cases have a quarter (%(default)g)"
    )
    parser.add_argument("--seeds", type=int, default=8, metavar="N", help="of plants (%(default)s)")
    parser.add_argument("--baseline-seconds", type=float, default=60.0, help="of a seed's stream (%(default)g)")
    parser.add_argument("--baseline-seeds", type=int, default=4, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--pairs", type=int, default=60, metavar="N", help="single crossing reaches; baselines have half (%(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="side by side (%(default)s)")
    parser.add_argument("--records", type=Path, metavar="DIR", help="keep finished stretches there, and use them again")
    parser.add_argument("--baselines-only", action="store_true", help="play no policy, such as to fill --records")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables as Markdown, CSV and JSON")
    parser.add_argument("--no-bars", action="store_true", help="print figures alone, for runs too short to judge")


def run(arguments: argparse.Namespace) -> int:
    """Play all stretches; 0 when the bars are met."""
    jobs = _jobs(arguments)
    if arguments.baselines_only:
        jobs = [job for job in jobs if job.policy != arguments.artifact]
    records = [_told(record) for record in played(jobs, arguments.processes, arguments.records)]
    streams, singles = _stream_table(records), _single_table(records)
    tables = [streams, singles]
    met = True
    if not arguments.no_bars and not arguments.baselines_only:
        bars, met = _bars([r for r in records if r.job.policy == arguments.artifact])
        tables.append(bars)
    for table in tables:
        print_table(table)
        say("")
    if arguments.out is not None:
        about = provenance(tuple(range(arguments.seeds)), artifact=Path(arguments.artifact).name)
        for table, stem in zip(tables, (NAME, f"{NAME}_singles", f"{NAME}_bars"), strict=False):
            table.write(arguments.out, stem, about)
    return 0 if met else 1


def _jobs(arguments: argparse.Namespace) -> list[CellJob]:
    found = []
    for case in (*CASES, MAIN):
        for seed in range(arguments.seeds if case is MAIN else max(2, arguments.seeds // 4)):
            found.append(
                CellJob(
                    case.name, arguments.artifact, case.share * arguments.seconds, seed, case.site, case.plant,
                    seats=case.seats,
                )
            )  # fmt: skip
    found += _singles(arguments)
    for name in _BASELINES:
        for seed in range(arguments.baseline_seeds):
            found.append(CellJob(MAIN.name, name, arguments.baseline_seconds, seed, shielded=name != "no_avoidance"))
    return found


def _singles(arguments: argparse.Namespace) -> list[CellJob]:
    found: list[CellJob] = []
    single = CellJob(_SINGLES, arguments.artifact, SINGLE_S, 0, _CROSSING, until_touched=True)
    for policy in (arguments.artifact, "nearer_first", "barrier"):
        n_pairs = arguments.pairs if policy == arguments.artifact else arguments.pairs // 2
        found += [replace(single, policy=policy, seed=1000 + k) for k in range(n_pairs)]
    return found


def _told(record: CellRecord) -> CellRecord:
    job = record.job
    say(f"{job.case}, {_name(job)}, seed {job.seed}: {record.touches} touches in {record.seconds:g} s, "
        f"{record.n_contacts} contacts")  # fmt: skip
    return record


def _name(job: CellJob) -> str:
    if job.policy in _BASELINES:
        return job.policy if job.shielded else f"{job.policy}, no shield"
    return "learned"


def _stream_table(records: Sequence[CellRecord]) -> Table:
    groups: dict[tuple[str, str], list[CellRecord]] = {}
    for record in records:
        if record.job.case != _SINGLES:
            groups.setdefault((record.job.case, _name(record.job)), []).append(record)
    rows: list[tuple[Cell, ...]] = []
    for (case, policy), told in groups.items():
        minutes = sum(r.seconds for r in told) / 60.0
        pace = mean_interval([60.0 * r.touches / r.seconds for r in told])
        kinds: Counter[str] = Counter()
        for record in told:
            kinds.update(record.contacts)
        rows.append(
            (
                case, policy, f"{minutes:.0f}", sum(r.touches for r in told), _pace(pace), sum(kinds.values()),
                ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count) or "-",
                round(min(r.gap_m for r in told), 4), f"{sum(r.deadlocked_s for r in told) / (60 * minutes):.1%}",
                round(max(r.longest_s for r in told), 1), f"{np.mean([r.changed for r in told]):.0%}",
                sum(r.stops for r in told),
            )
        )  # fmt: skip
    return Table(
        title="reaching in a shared box, MuJoCo plant behind the exact shield",
        columns=(
            "case", "policy", "min", "touches", "touches a minute", "contacts", "of what", "least gap, m",
            "deadlocked", "longest without, s", "commands changed", "stops",
        ),
        rows=tuple(rows),
        notes=(
            "Touches are of all arms of the cell; behind +- is a 95 % interval over seeds (Student).",
            f"Deadlocked: share of the time in which nothing had been touched for {STUCK_S:g} s. "
            "Longest without: the longest time without a touch.",
            "Stops: protective stops of an arm that could not follow.",
            "Contacts leave out people who walk into an arm that stands.",
        ),
        data={"records": [_plain(record) for record in records]},
    )  # fmt: skip


def _single_table(records: Sequence[CellRecord]) -> Table:
    groups: dict[str, list[CellRecord]] = {}
    for record in records:
        if record.job.case == _SINGLES:
            groups.setdefault(_name(record.job), []).append(record)
    rows: list[tuple[Cell, ...]] = []
    for policy, told in groups.items():
        reached = [r.slowest_s for r in told if _succeeded(r)]
        share = len(reached) / len(told)
        half = 1.96 * math.sqrt(max(share * (1.0 - share), 0.25 / len(told)) / len(told))
        rows.append(
            (policy, len(told), f"{share:.1%} +- {half:.1%}", sum(r.n_contacts for r in told),
             f"{np.median(reached):.2f}" if reached else None)
        )  # fmt: skip
    return Table(
        title=f"single reaches of crossing targets, {SINGLE_S:g} s",
        columns=("policy", "pairs", "both touched", "contacts", "median s of those"),
        rows=tuple(rows),
        notes=("A pair counts when both arms have touched in time and nothing else.",),
    )


def _succeeded(record: CellRecord) -> bool:
    return math.isfinite(record.slowest_s) and record.n_contacts == 0


def _bars(records: Sequence[CellRecord]) -> tuple[Table, bool]:
    """The learned policy's figures beside the bars."""
    main = [r for r in records if r.job.case == MAIN.name]
    unseen = [r for r in records if r.job.case in _UNSEEN]
    singles = [r for r in records if r.job.case == _SINGLES]
    touches, contacts = sum(r.touches for r in records), sum(r.n_contacts for r in records)
    pace = mean_interval([60.0 * r.touches / r.seconds for r in main])
    crossed = float(np.mean([_succeeded(r) for r in singles])) if singles else 0.0
    longest = max(r.longest_s for r in unseen)
    rows = (
        ("touches in all cases", f"{touches:,}", f">= {TOUCHES:,}", touches >= TOUCHES),
        ("contacts in all cases", f"{contacts}", "0", contacts == 0),
        ("touches a minute, two arms 1 m apart", _pace(pace), f">= {PER_MIN:g}", pace.estimate >= PER_MIN),
        ("crossing single reaches", f"{crossed:.1%}", f"> {CROSSED_PU:.0%}", crossed > CROSSED_PU),
        ("longest without a touch, unseen places, s", f"{longest:.1f}", f"< {LONGEST_S:g}", longest < LONGEST_S),
    )
    table = Table(
        title="bars of the learned policy",
        columns=("figure", "seen", "bar", "met"),
        rows=tuple((*row[:3], "yes" if row[3] else "NO") for row in rows),
    )
    return table, all(row[3] for row in rows)


def _pace(interval: Interval) -> str:
    half = interval.high - interval.estimate
    return f"{interval.estimate:.1f} +- {half:.1f}" if math.isfinite(half) else f"{interval.estimate:.1f}"


def _plain(record: CellRecord) -> dict[str, Any]:
    return {**{k: v for k, v in vars(record).items() if k != "job"}, "case": record.job.case,
            "policy": _name(record.job), "seed": record.job.seed}  # fmt: skip
