"""Policies that mean harm on the MuJoCo cell, behind each arm's own exact shield: how often does anything touch?"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Cell, Table, print_table, provenance, say
from .cell_hostile import AIMS, MANNERS, UNAIMED
from .cell_play import HOSTILE, CellJob, CellRecord, played
from .cell_scene import ring
from .foreign_jobs import seed_range

NAME = "cell_adversaries"
SUMMARY = "policies that mean harm in the emulated robot cell: contacts behind the arms' shields"
DESCRIPTION = f"""\
Policies that see every arm as it is and drive arms into each other, themselves, the floor, things and people, on the
MuJoCo cell; each arm decides by a shield of its own and by what it heard. Manners: {
    "; ".join(f"{name}, {told}" for name, told in MANNERS.items())
}. Aims: {", ".join(AIMS)}.

Bar: no contact of arms that move with anything, and without a shield the same policies do touch, or they would prove
nothing. A stretch ends when a person has walked into an arm that stands: what he pushes it into proves nothing either.
Two cases are shown and not judged: a ball that comes by itself and finds arms that have been folded up so that they
can't make way, and a load that the arms' servos overshoot with.
"""
EPILOG = """\
examples:
  twinloop bench cell_adversaries --seconds 10 --seeds 0
  twinloop bench cell_adversaries --processes 2 --out results/cell_adversaries
"""

_BITING = tuple(f"{HOSTILE}{manner}" for manner in ("dive", "dart"))
_POLE = {"kind": "capsule", "start_m": [0.0, 0.0, 0.0], "end_m": [0.0, 0.0, 0.5], "radius_m": 0.08}
_BALL = {"from_m": [-0.3, -0.6, 0.4], "to_m": [0.3, 0.6, 0.4], "radius_m": 0.1, "period_s": 16.0}
_PEOPLE = {"people": {"number": [2, 2], "distance_m": [2.0, 3.4]}}


@dataclass(frozen=True)
class Case:
    """A cell and its plant; ``aims``: what there is to aim at; ``judged``: whether its contacts count."""

    name: str
    site: Mapping[str, Any] = field(default_factory=dict)
    plant: Mapping[str, Any] = field(default_factory=dict)
    aims: tuple[str, ...] = ("arm", "anything")
    judged: bool = True


CASES = (
    Case("two arms 1 m apart", aims=("arm", "itself", "floor", "anything")),
    Case("0.8 m apart, heard 1 period late", ring(2, 0.8), {"peer_delay_periods": 1}),
    Case("three arms 1.1 m apart, 2 late, not heard for 0.6 s 20 times a minute", ring(3, 1.1),
         {"peer_delay_periods": 2, "peer_loss_s": 0.6, "peer_losses_per_min": 20.0}),
    Case("2 late, not heard for 0.5 s 40 times a minute", {},
         {"peer_delay_periods": 2, "peer_loss_s": 0.5, "peer_losses_per_min": 40.0}),
    Case("1 late, frozen for 0.3 s 60 times a minute", {},
         {"peer_delay_periods": 1, "peer_loss_s": 0.3, "peer_losses_per_min": 60.0, "peer_frozen": True}),
    Case("not heard for 1 s 20 times a minute", {}, {"peer_loss_s": 1.0, "peer_losses_per_min": 20.0}),
    Case("heard 5 periods late", {}, {"peer_delay_periods": 5}),
    Case("tools of 0.1 m, 3 kg on the flange", {"tool_length_m": 0.1}, {"payload_kg": 3.0}),
    Case("a pole between the arms", {"fixtures": [{"kind": "plane"}, _POLE]}, aims=("arm", "things", "anything")),
    Case("two people who come near", _PEOPLE, {"visits_per_min": 6.0, "visit_m": 1.1}, ("arm", "things", "anything")),
    Case("not judged: a ball that comes through", {"obstacles": [_BALL]}, aims=("things",), judged=False),
    Case("not judged: tools of 0.25 m, 5 kg on the flange, a third of the friction", {"tool_length_m": 0.25},
         {"payload_kg": 5.0, "friction_pu": 0.3}, ("anything",), judged=False),
)  # fmt: skip

_NOT_JUDGED = frozenset(case.name for case in CASES if not case.judged)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch (%(default)g)")
    parser.add_argument("--seeds", default="0..1", metavar="A..B", help="of plants and policies (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="side by side (%(default)s)")
    parser.add_argument("--records", type=Path, metavar="DIR", help="keep finished stretches there, and use them again")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Attack, print and write; 0 when the bar is met."""
    seeds = seed_range(arguments.seeds)
    jobs = _jobs(arguments.seconds, seeds)
    records = [_told(record) for record in played(jobs, arguments.processes, arguments.records)]
    table, met = tabulated(records)
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance(seeds))
    return 0 if met else 1


def _jobs(seconds: float, seeds: Sequence[int]) -> list[CellJob]:
    found = []
    for case in CASES:
        aimed = [f"{manner} at {aim}" for aim in case.aims for manner in MANNERS if manner not in UNAIMED]
        for policy in (*UNAIMED, *aimed):
            for seed in seeds:
                found.append(
                    CellJob(
                        case.name, HOSTILE + policy, seconds, seed, case.site, case.plant, seats=True, until_pushed=True
                    )
                )  # fmt: skip
    bare = [job for job in found if job.case == CASES[0].name and job.policy.startswith(_BITING)]
    return found + [replace(job, shielded=False, seats=False) for job in bare]


def _told(record: CellRecord) -> CellRecord:
    job = record.job
    say(f"{job.case}, {_name(job)}, seed {job.seed}: {record.n_contacts} contacts, {record.gap_m:.4f} m left")
    return record


def _name(job: CellJob) -> str:
    return job.policy.removeprefix(HOSTILE)


def tabulated(records: Sequence[CellRecord]) -> tuple[Table, bool]:
    """The table, and whether the bar is met."""
    groups: dict[tuple[str, bool], list[CellRecord]] = {}
    for record in records:
        groups.setdefault((record.job.case, record.job.shielded), []).append(record)
    rows: list[tuple[Cell, ...]] = []
    for (case, shielded), told in groups.items():
        nearest = min(told, key=lambda r: r.gap_m)
        kinds: Counter[str] = Counter()
        for record in told:
            kinds.update(record.contacts)
        rows.append(
            (
                case if shielded else f"{case}, no shield", len({r.job.policy for r in told}),
                round(sum(r.seconds for r in told) / 60.0, 1), sum(kinds.values()),
                ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count) or "-",
                round(nearest.gap_m, 4), _name(nearest.job), sum(r.stops for r in told),
                f"{np.mean([r.changed for r in told]):.0%}" if shielded else "-",
            )
        )  # fmt: skip
    judged = [r for r in records if r.job.shielded and r.job.case not in _NOT_JUDGED]
    shielded_contacts = sum(r.n_contacts for r in judged)
    bare_contacts = sum(r.n_contacts for r in records if not r.job.shielded)
    minutes = sum(r.seconds for r in judged) / 60.0
    met = shielded_contacts == 0 and bare_contacts > 0
    table = Table(
        title="policies that mean harm, MuJoCo cell, each arm behind a shield of its own",
        columns=(
            "case", "policies", "min", "contacts", "of what", "least gap, m", "that of", "protective stops",
            "commands changed",
        ),
        rows=tuple(rows),
        notes=(
            "Least gap: of any two arms, as it was.",
            "Contacts leave out people who walk into an arm that stands.",
            f"{'met' if met else 'MISSED'}: {shielded_contacts} contacts in {minutes:.0f} minutes behind shields, "
            f"{bare_contacts} without",
        ),
    )  # fmt: skip
    return table, met
