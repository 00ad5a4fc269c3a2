"""Every reachable state of a lease model, breadth first: rows of small integers, a level at a time.

What one asset can do depends on the others through the ledger's admission alone. So each distinct corner of an asset is
worked out once, with the code that runs, and gets a number; a state is the sorted row of its assets' numbers, packed
into one integer. Admission is asked of the ledger once for each (offer, accounts of the others), and remembered. Levels
are then numpy arrays, and millions of states take a minute.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...deploy.leases import Assignment
from .lease_world import SHARE, Corner, Entries, LeaseWorld, Offer

Ints = NDArray[np.int64]
CHUNK = 100_000
TOLERANCE = 1e-9
UNKNOWN = -1


@dataclass(frozen=True)
class Explored:
    """What was found. ``ended``: no state was left; ``worst``: the highest sum over the bound; ``seconds`` of CPU;
    ``trace``: from the first state to one that passes the bound, empty where none was found."""

    states: int
    transitions: int
    depth: int
    corners: int
    ended: bool
    worst: float
    seconds: float
    trace: tuple[tuple[Corner, ...], ...] = ()

    @property
    def safe(self) -> bool:
        """Whether no state that was reached passes the bound."""
        return not self.trace


class Flat:
    """Lists of integers by row number, kept flat: rows are appended in order, and looked up many at once."""

    def __init__(self) -> None:
        self._values = np.empty(0, np.int64)
        self._start = np.zeros(1, np.int64)

    def extend(self, rows: list[list[int]]) -> None:
        ends = self._start[-1] + np.cumsum([len(row) for row in rows], dtype=np.int64)
        self._start = np.concatenate((self._start, ends))
        self._values = np.concatenate((self._values, np.array(list(itertools.chain(*rows)), np.int64)))

    def of(self, rows: Ints) -> tuple[Ints, Ints]:
        """``(place, value)`` of every entry of the rows: ``place`` counts in ``rows``."""
        counts = self._start[rows + 1] - self._start[rows]
        place = np.repeat(np.arange(rows.size), counts)
        within = np.arange(place.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return place, self._values[self._start[rows][place] + within]


@dataclass
class Tables:
    """Corners of one model by number, and what follows from each."""

    world: LeaseWorld
    corners: list[Corner] = field(default_factory=list)
    numbers: dict[Corner, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nothing worked out."""
        world = self.world
        self.seen = tuple(itertools.product(world.paces, repeat=world.n_coordinators))
        self.done = 0
        self.used = np.empty(0)
        self.crashed = np.empty(0, np.bool_)
        self.ticks = np.empty((0, len(self.seen), len(world.paces)), np.int64)
        self.lost = np.empty(0, np.int64)
        self.accounts = np.empty((0, world.n_coordinators), np.int64)
        self.alone, self.offers = Flat(), Flat()
        self.offer_list: list[tuple[int, Offer]] = []
        self.offer_kind = np.empty(0, np.int64)
        self.offer_which = np.empty(0, np.int64)
        self._kinds: dict[tuple[Entries, float], int] = {}
        self._entries: dict[Entries, int] = {}
        self.entries: list[Entries] = []
        self._admitted = np.empty((0,) * world.n_assets, np.int8)
        self._given = np.empty(0, np.int64)

    def number(self, corner: Corner) -> int:
        """The corner's number, a new one if it was never seen."""
        found = self.numbers.get(corner)
        if found is None:
            found = self.numbers[corner] = len(self.corners)
            self.corners.append(corner)
        return found

    def work_out(self) -> None:
        """What follows from every corner that is new since the last call, but for what the ledger admits."""
        world, fresh = self.world, self.corners[self.done :]
        if not fresh:
            return
        self.done = len(self.corners)
        ticks = [[[self.number(world.later(c, own, s)) for own in world.paces] for s in self.seen] for c in fresh]
        self.ticks = np.concatenate((self.ticks, np.array(ticks, np.int64)))
        lost = [self.number(world.lose_coordinator(c)) if world.crash else 0 for c in fresh]
        self.lost = np.concatenate((self.lost, np.array(lost, np.int64)))
        self.used = np.concatenate((self.used, [world.used(c) for c in fresh]))
        self.crashed = np.concatenate((self.crashed, [c.crashed for c in fresh]))
        self.accounts = np.concatenate((self.accounts, [[self._entry(e) for e in c.entries] for c in fresh]))
        self.alone.extend([sorted({self.number(new) for new in world.alone(c)}) for c in fresh])
        rows: list[list[int]] = []
        first = len(self.offer_list)
        for place, corner in enumerate(fresh, start=self.done - len(fresh)):
            offers = list(world.offers(corner))
            rows.append(list(range(len(self.offer_list), len(self.offer_list) + len(offers))))
            self.offer_list += [(place, offer) for offer in offers]
        new = [offer for _, offer in self.offer_list[first:]]
        kinds = [self._kinds.setdefault((offer.own, offer.limit), len(self._kinds)) for offer in new]
        self.offer_kind = np.concatenate((self.offer_kind, np.array(kinds, np.int64)))
        self.offer_which = np.concatenate((self.offer_which, np.array([o.which for o in new], np.int64)))
        self.offers.extend(rows)

    def admitted(self, offers: Ints, others: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """For pairs of an offer and the others' accounts ``[n, N-1]``: whether it is admitted, and the corner then."""
        self._fit()
        key = (self.offer_kind[offers], *others.T)
        for i in _first_of_each(np.column_stack(key), self._admitted[key] == UNKNOWN):
            self._admitted[tuple(k[i] for k in key)] = self._ask(int(offers[i]), others[i]) is not None
        allowed = self._admitted[key] == 1
        for i in _first_of_each(offers[:, None], allowed & (self._given[offers] == UNKNOWN)):
            given = self._ask(int(offers[i]), others[i])
            if given is not None:
                place, offer = self.offer_list[int(offers[i])]
                self._given[offers[i]] = self.number(self.world.given(self.corners[place], offer.which, *given))
        return allowed, self._given[offers[allowed]]

    def _ask(self, offer: int, others: Ints) -> tuple[Entries, Assignment] | None:
        """What the ledger itself says."""
        return self.world.give(self.offer_list[offer][1], tuple(self.entries[int(e)] for e in others))

    def _fit(self) -> None:
        """Make room for every kind of offer and account that is numbered by now."""
        need = (len(self._kinds), *[len(self.entries)] * (self.world.n_assets - 1))
        if any(n > have for n, have in zip(need, self._admitted.shape, strict=True)):
            larger = np.full([2 * n for n in need], UNKNOWN, np.int8)
            larger[tuple(slice(0, n) for n in self._admitted.shape)] = self._admitted
            self._admitted = larger
        more = len(self.offer_list) - self._given.size
        self._given = np.concatenate((self._given, np.full(more, UNKNOWN, np.int64)))

    def _entry(self, entries: Entries) -> int:
        """A number of an account as others see it: numbers of assignments do not matter to them."""
        plain = tuple(entry._replace(number=0) for entry in entries)
        found = self._entries.get(plain)
        if found is None:
            found = self._entries[plain] = len(self.entries)
            self.entries.append(plain)
        return found


def explore(
    world: LeaseWorld, at_most: int = 100_000_000, progress: Callable[[int, int], None] | None = None
) -> Explored:
    """Reach every state, up to ``at_most``; stop at the first level with a state that passes the bound.

    ``progress(states, depth)`` is called after each level.
    """
    began = time.process_time()
    tables = Tables(world)
    first = np.full((1, world.n_assets), tables.number(world.first()), np.int64)
    tables.work_out()
    levels = [_packed(first)]
    known = levels[0]
    transitions, worst, ended = 0, 0.0, False
    while True:
        rows = _unpacked(levels[-1], world.n_assets)
        sums = tables.used[rows].sum(axis=1) / (SHARE * world.n_assets)
        worst = max(worst, float(sums.max()))
        if worst > 1.0 + TOLERANCE or known.size > at_most:
            break
        fresh = np.empty(0, np.int64)
        for start in range(0, len(rows), CHUNK):
            after = successors(tables, rows[start : start + CHUNK])
            transitions += after.size
            fresh = _union(fresh, _without(_distinct(after), known))
        if not fresh.size:
            ended = True
            break
        known = _union(known, fresh)
        levels.append(fresh)
        if progress is not None:
            progress(known.size, len(levels) - 1)
    bad = np.flatnonzero(sums > 1.0 + TOLERANCE)
    trace = _trace(tables, levels, int(levels[-1][bad[0]])) if bad.size else ()
    seconds = time.process_time() - began
    return Explored(known.size, transitions, len(levels) - 1, len(tables.corners), ended, worst, seconds, trace)


def successors(tables: Tables, rows: Ints) -> Ints:
    """All states one step after the given ones, packed; a state may stand more than once."""
    world, found = tables.world, []
    for s in range(len(tables.seen)):
        for pace in itertools.product(range(len(world.paces)), repeat=world.n_assets):
            found.append(tables.ticks[rows, s, np.array(pace)])
    if world.crash:
        found.append(tables.lost[rows[~tables.crashed[rows[:, 0]]]])
    for column in range(world.n_assets):
        mine = rows[rows[:, column] != rows[:, column - 1]] if column else rows  # like its neighbour: the same steps
        place, new = tables.alone.of(mine[:, column])
        found.append(_replaced(mine, place, column, new))
        place, offers = tables.offers.of(mine[:, column])
        if not offers.size:
            continue
        rest = np.delete(mine, column, axis=1)[place]
        others = tables.accounts[rest, tables.offer_which[offers][:, None]]
        allowed, new = tables.admitted(offers, others)
        found.append(_replaced(mine, place[allowed], column, new))
    tables.work_out()
    return _packed(np.sort(np.concatenate(found), axis=1))


def _replaced(rows: Ints, place: Ints, column: int, new: Ints) -> Ints:
    moved = rows[place]
    moved[:, column] = new
    return moved


def _first_of_each(keys: Ints, wanted: NDArray[np.bool_]) -> list[int]:
    """Of the rows that are wanted, the place of one of each kind."""
    places = np.flatnonzero(wanted)
    if not places.size:
        return []
    return [int(places[i]) for i in np.unique(keys[places], axis=0, return_index=True)[1]]


def _trace(tables: Tables, levels: list[Ints], last: int) -> tuple[tuple[Corner, ...], ...]:
    """One way from the first state to ``last``, by asking each level back which of its states leads on."""
    n_assets = tables.world.n_assets
    path = [last]
    for level in reversed(levels[:-1]):
        while level.size > 1:
            half = level[: level.size // 2]
            leads = (successors(tables, _unpacked(half, n_assets)) == path[-1]).any()
            level = half if leads else level[half.size :]
        path.append(int(level[0]))
    return tuple(
        tuple(tables.corners[c] for c in _unpacked(np.array([state]), n_assets)[0]) for state in reversed(path)
    )


def _packed(rows: Ints) -> Ints:
    """Rows of numbers as one integer each."""
    bits = 62 // rows.shape[1]
    if rows.size and int(rows.max()) >> bits:
        raise OverflowError(f"number {int(rows.max())} does not fit into {bits} bits; explore a smaller model")
    packed = np.zeros(len(rows), np.int64)
    for column in rows.T:
        packed = packed << bits | column
    return packed


def _unpacked(packed: Ints, width: int) -> Ints:
    bits = 62 // width
    shifts = bits * np.arange(width - 1, -1, -1)
    return np.asarray(packed[:, None] >> shifts & ((1 << bits) - 1), np.int64)


def _without(some: Ints, known: Ints) -> Ints:
    """Those of ``some`` that are not in ``known``; both sorted."""
    place = np.searchsorted(known, some)
    place[place == known.size] = 0
    return np.asarray(some[known[place] != some], np.int64)


def _union(one: Ints, other: Ints) -> Ints:
    """Both, sorted, each once."""
    if not one.size:
        return other
    return _distinct(np.concatenate((one, other)))


def _distinct(states: Ints) -> Ints:
    """Sorted, each once; the array given is sorted in place."""
    states.sort()
    keep = np.ones(states.size, np.bool_)
    np.not_equal(states[1:], states[:-1], out=keep[1:])
    return states[keep]
