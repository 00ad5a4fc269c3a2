"""Every state that the shield's mode machine can reach, under every cause and every order, against what it promises.

One asset: a machine is asked of thousands of states at once, one a column, since assets are independent. Three assets:
each state of a smaller machine of three is compared with three machines of one.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.shield.causes import TABLE, Cause, CauseRow, Clears
from ...deploy.shield.decision import Mode
from ...deploy.shield.modes import APPROVED, AUTONOMOUS, MODES, SHADOW, TRIPPED, ModeMachine, Modes, ModeState
from ...deploy.shield.orders import ORDERABLE, Judged
from ...deploy.shield.settings import ShieldSettings
from ...envs.nameplate import Group, Nameplate, Signal
from ..report import Table, print_table, provenance

NAME = "shield_modes"
SUMMARY = "every state of the shield's mode machine under every cause and order, against what it promises"

SMALL = (Cause.DEADLINE_MISSED, Cause.POLICY_TRIPPED, Cause.RESIDUAL, Cause.INPUT_SUBSTITUTED)
"""One of each sort: escalates to a trip, latches a backup, dwells and escalates to a backup, clears at once."""

LARGE = (*SMALL, Cause.ROBUSTNESS, Cause.WATCHDOG_LOST)
PATIENCE, DWELL = 2, 1  # short, so that all counters are reached; what they are in a site's settings changes no rule
BLOCK = 4096

Ints = NDArray[np.int64]

DESCRIPTION = """\
Explore all reachable states of the mode machine for one asset (all subsets of the causes, all orders, all counters) and
for three assets, and check each transition. The bar is not one broken promise.
"""


@dataclass(frozen=True)
class Explored:
    """``broken``: promises that were broken, by name, how often."""

    states: int
    transitions: int
    broken: dict[str, int]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench shield_modes --small"
    parser.add_argument("--small", action="store_true", help="four causes instead of six, as in the tests")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Explore and print; 0 when no promise was broken."""
    rows = []
    fine = True
    for case in ("one asset", "three assets"):
        begun_s = time.thread_time()
        one = case == "one asset"
        found = explore_one(SMALL if arguments.small else LARGE) if one else explore_three(few=arguments.small)
        fine = fine and not found.broken
        broken = ", ".join(f"{k}: {v}" for k, v in found.broken.items()) or "none"
        spent = f"{time.thread_time() - begun_s:.1f}"
        rows.append((case, f"{found.states:,}", f"{found.transitions:,}", broken, spent))
    columns = ("case", "states", "transitions", "broken promises", "CPU s")
    table = Table("Every state of the mode machine", columns, tuple(rows), ())
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance())
    return 0 if fine else 1


def explore_one(causes: Iterable[Cause]) -> Explored:
    """All reachable states of one asset, from each mode that people may give."""
    causes = tuple(causes)
    # one asset has no site; blocks of columns are asked at once, so that the site's causes must not spread over them
    table = tuple(replace(row, site=False, told=True) for row in _rows(causes))
    machine = ModeMachine(site_of(BLOCK), _settings(table), table)
    start = np.concatenate([_packed(machine.start(mode))[:1] for mode in ORDERABLE])
    subsets = np.array(list(itertools.product((False, True), repeat=len(causes))), dtype=np.bool_)
    known = {row.tobytes() for row in start}
    frontier, n_transitions, broken = start, 0, dict[str, int]()
    while len(frontier):
        cases = np.repeat(frontier, len(subsets), axis=0)
        reports = np.tile(subsets, (len(frontier), 1))
        reached: list[Ints] = []
        for first in range(0, len(cases), BLOCK):
            block, told = _filled(cases[first : first + BLOCK]), _filled(reports[first : first + BLOCK])
            n = min(BLOCK, len(cases) - first)
            before = _unpacked(block, len(table))
            raised = {cause: told[:, k] for k, cause in enumerate(causes)}
            for orders in _orders():
                after, modes, _ = machine.step(before, raised, orders, 0.0)
                for promise, kept in promises(table, before, raised, orders, after, modes):
                    wrong = int((~kept[:n]).sum())
                    if wrong:
                        broken[promise] = broken.get(promise, 0) + wrong
                n_transitions += n
                reached.append(np.unique(_packed(after)[:n], axis=0))
        fresh = [row for row in np.unique(np.concatenate(reached), axis=0) if row.tobytes() not in known]
        known.update(row.tobytes() for row in fresh)
        frontier = np.array(fresh) if fresh else start[:0]
    everything = np.array([np.frombuffer(row, dtype=np.int64) for row in known])
    for first in range(0, len(everything), BLOCK):
        wrong = _not_recovered(machine, table, everything[first : first + BLOCK])
        if wrong:
            broken["the requested mode returns after the dwells"] = wrong
    return Explored(len(known), n_transitions, broken)


def promises(
    table: tuple[CauseRow, ...],
    before: ModeState,
    raised: dict[Cause, NDArray[np.bool_]],
    orders: Judged,
    after: ModeState,
    modes: Modes,
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What the machine promises of one period, and where it holds ``[N]``; written without any code of the machine."""
    n = len(before.mode)
    none = np.zeros(n, dtype=np.bool_)
    order = None if orders.mode is None else MODES.index(orders.mode)
    was_tripped, tripped = before.mode == TRIPPED, after.mode == TRIPPED
    trips = [i for i, row in enumerate(table) if row.mode is Mode.TRIPPED]
    stops = [orders.stop and row.cause is Cause.EMERGENCY_STOP for row in table]
    told = {i: raised.get(row.of, none) | stops[i] for i, row in enumerate(table)}
    ours = after.requested >= APPROVED
    graver = np.full(n, AUTONOMOUS)
    for i, row in enumerate(table):
        if row.patience == 1:
            graver = np.where(told[i], np.maximum(graver, MODES.index(row.mode)), graver)

    if orders.stop:
        yield "a stop trips in the same period, and commands the safe state", tripped & modes.acts
    trip_told = np.any([told[i] & (table[i].patience == 1) for i in trips], axis=0)
    dwelling = np.any([before.left[i] > 1 for i in trips], axis=0)
    if not orders.reset:
        yield "a trip is left by a reset only", ~was_tripped | tripped
    else:
        yield "a trip is not left while a cause of it persists", ~was_tripped | tripped | ~(trip_told | dwelling)
        any_trip_told = np.any([told[i] for i in trips], axis=0)
        yield "a trip is left by a reset when its cause is gone", ~was_tripped | ~tripped | any_trip_told | dwelling
        back = was_tripped & ~tripped
        given = SHADOW if order is None else order
        yield "a reset gives shadow, or what is asked with it", ~back | (after.requested <= given)
    yield "a cause that stands forces its mode", ~ours | (after.mode >= graver) | (graver == AUTONOMOUS)
    yield "no policy acts freely while a cause stands", ~((after.mode == AUTONOMOUS) & (graver > AUTONOMOUS))
    stands = np.any(after.latched | (after.left > 0), axis=0)
    yield "without a cause the mode is what was requested", stands | (after.mode == after.requested)
    gravest = np.full(n, AUTONOMOUS)
    for i, row in enumerate(table):
        gravest = np.where(after.latched[i] | (after.left[i] > 0), np.maximum(gravest, MODES.index(row.mode)), gravest)
    expected = np.where(gravest == TRIPPED, TRIPPED, np.where(ours & (gravest > AUTONOMOUS), gravest, after.requested))
    yield "the gravest cause decides", after.mode == expected
    yield "what is written is ours", ours | ~modes.acts | tripped
    yield (
        "a trip acts where the asset was ours or the stop was pressed",
        (~tripped | was_tripped | orders.stop | (modes.acts == ours)),
    )
    yield "a trip keeps commanding the safe state", ~(was_tripped & tripped & before.held) | modes.acts
    yield "only approved proposals while approval is required", modes.approval == (after.requested == APPROVED)
    if order is None:
        rises = after.requested > before.requested
        yield (
            "authority changes by an order or a reset only",
            (after.requested == before.requested) | (bool(orders.reset) & was_tripped & ~rises),
        )
    else:
        yield "a lower order is granted at once", (order > before.requested) | (after.requested <= order)
        yield (
            "authority rises to what was asked, and only where nothing stands",
            ((after.requested <= before.requested) | ((after.requested == order) & ~stands)),
        )
        left = was_tripped & ~tripped
        yield (
            "a higher order is granted where nothing stands",
            ((order <= before.requested) | stands | (after.requested == order) | left),
        )


def explore_three(*, few: bool) -> Explored:
    """All reachable states of three assets under a site-wide and an own cause, each compared with machines of one.

    ``few``: no one changes the authority but by a reset. States that differ by the order of the assets count once.
    """
    causes = (Cause.WATCHDOG_LOST, Cause.ROBUSTNESS)
    table = tuple(replace(row, told=True) for row in _rows(causes))
    settings = _settings(table)
    three, one = ModeMachine(site_of(3), settings, table), ModeMachine(site_of(1), settings, table)
    agents = site_of(3).agents
    start = _packed(three.start(Mode.AUTONOMOUS))
    known, frontier = {_sorted(start)}, [_sorted(start)]
    n_transitions, broken = 0, dict[str, int]()
    alone: dict[tuple[bytes, bool, bool, Mode | None, bool, bool], bytes] = {}
    everyone = [Judged(), Judged(stop=True), Judged(mode=Mode.AUTONOMOUS, reset=True)]
    scoped = [Judged(reset=True)] if few else [
        Judged(reset=True), Judged(mode=Mode.SHADOW), Judged(mode=Mode.AUTONOMOUS),
    ]  # fmt: skip
    each = [replace(order, assets=frozenset((agent,))) for order in scoped for agent in agents]
    orders = [*everyone, *scoped, *each]
    masks = [np.array(m, dtype=np.bool_) for m in itertools.product((False, True), repeat=3)]
    while frontier:
        packed = frontier.pop()
        before = _unpacked(np.array([np.frombuffer(row, dtype=np.int64) for row in packed]), len(table))
        for site_told, mask, order in itertools.product((False, True), masks, orders):
            site_mask = np.array([site_told, False, False])  # told of one asset, it holds for all
            after, _, _ = three.step(before, {causes[0]: site_mask, causes[1]: mask}, order, 0.0)
            rows = [row.tobytes() for row in _packed(after)]
            n_transitions += 1
            for i, row in enumerate(packed):
                meant = order.assets is None or agents[i] in order.assets
                mode, reset = (order.mode, order.reset) if meant else (None, False)
                key = (row, site_told, bool(mask[i]), mode, order.stop, reset)
                if key not in alone:
                    told = {causes[0]: np.array([site_told]), causes[1]: mask[i : i + 1]}
                    single = _unpacked(np.frombuffer(row, dtype=np.int64)[None], len(table))
                    new, _, _ = one.step(single, told, Judged(mode=mode, stop=order.stop, reset=reset), 0.0)
                    alone[key] = _packed(new)[0].tobytes()
                if rows[i] != alone[key]:
                    broken["each asset decides alone"] = broken.get("each asset decides alone", 0) + 1
            reached = tuple(sorted(rows))
            if reached not in known:
                known.add(reached)
                frontier.append(reached)
    return Explored(len(known), n_transitions, broken)


def site_of(n_assets: int) -> Nameplate:
    """A site of as many assets, which have nothing to say."""
    signal = Signal("level_pu", "pu", 0.0, 1.0)
    names = tuple(f"A{i}" for i in range(n_assets))
    return Nameplate("modes", 1.0, (Group("asset", names, (signal,), (signal,)),))


def _rows(causes: tuple[Cause, ...]) -> tuple[CauseRow, ...]:
    """The rows of these causes, of what follows from them, and of the emergency stop."""
    return tuple(row for row in TABLE if row.of in causes or row.cause is Cause.EMERGENCY_STOP)


def _settings(table: tuple[CauseRow, ...]) -> ShieldSettings:
    """Every patience and dwell of the table that is not the shortest is made the second shortest."""
    return ShieldSettings(
        cause_patience_periods={row.cause: PATIENCE for row in table if row.patience > 1},
        cause_dwell_periods={row.cause: DWELL for row in table if row.dwell > 0},
    )


def _orders() -> list[Judged]:
    modes = (None, *ORDERABLE)
    return [Judged(mode=m, stop=s, reset=r) for m in modes for s in (False, True) for r in (False, True)]


def _not_recovered(machine: ModeMachine, table: tuple[CauseRow, ...], states: Ints) -> int:
    """How many states are not in the requested mode, or a latched one, once all was quiet for the longest dwell."""
    state = _unpacked(_filled(states), len(table))
    for _ in range(DWELL + 1):
        state, _, _ = machine.step(state, {}, Judged(), 0.0)
    forced = np.zeros(state.mode.shape, dtype=np.int64)
    for i, row in enumerate(table):
        if row.clears is Clears.MANUAL_RESET:
            forced = np.where(state.latched[i], np.maximum(forced, MODES.index(row.mode)), forced)
    waits = (forced == TRIPPED) | ((forced > 0) & (state.requested >= APPROVED))
    return int((state.mode != np.where(waits, forced, state.requested))[: len(states)].sum())


def _packed(state: ModeState) -> Ints:
    """A state as rows of numbers, one an asset."""
    parts = (state.requested[None], state.mode[None], state.held[None], state.run, state.left, state.latched)
    return np.ascontiguousarray(np.concatenate([p.astype(np.int64) for p in parts]).T)


def _unpacked(rows: Ints, n_causes: int) -> ModeState:
    columns = rows.T
    run, left, latched = np.split(columns[3:], [n_causes, 2 * n_causes])
    return ModeState(
        columns[0].astype(np.int8), columns[1].astype(np.int8), run.astype(np.int32), left.astype(np.int32),
        latched.astype(np.bool_), columns[2].astype(np.bool_), np.zeros(len(rows)), False,
    )  # fmt: skip


def _filled(rows: NDArray[Any]) -> NDArray[Any]:
    """As many rows as a block has; the first is repeated."""
    return rows if len(rows) == BLOCK else np.concatenate([rows, np.repeat(rows[:1], BLOCK - len(rows), axis=0)])


def _sorted(rows: Ints) -> tuple[bytes, ...]:
    return tuple(sorted(row.tobytes() for row in rows))
