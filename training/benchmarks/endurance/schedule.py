"""Which fault acts in which period: drawn once from a seed, so that a run that is resumed meets the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PERIODS_A_DAY = 1440
PIECE_PERIODS = 12_600
"""8.75 days: control lives undisturbed for all but the last day of a piece, in which it is killed now and then."""


class Kind(NamedTuple):
    """``per_thousand``: starts in a thousand periods; each lasts ``shortest`` to ``longest`` periods."""

    name: str
    per_thousand: float
    shortest: int = 1
    longest: int = 1


KINDS = (
    # What the plant and the way to it do.
    Kind("silent", 0.6, 1, 4),
    Kind("gone", 0.06, 32, 45),
    Kind("write refused", 1.0, 1, 2),
    Kind("obeys in part", 1.0, 1, 3),
    Kind("bad quality", 3.0, 1, 6),
    Kind("all bad", 0.3, 1, 4),
    Kind("not a number", 2.0, 1, 2),
    Kind("out of range", 1.0, 1, 2),
    Kind("stale", 1.5, 2, 6),
    Kind("frozen", 1.0, 5, 20),
    Kind("jump", 1.0, 1, 2),
    Kind("wrong clock", 0.1, 1, 1),
    # What the policy does.
    Kind("policy raises", 2.0, 1, 1),
    Kind("policy fails for good", 0.1, 4, 4),
    Kind("policy late", 1.0, 1, 1),
    Kind("policy tells no number", 2.0, 1, 2),
    Kind("policy tells nonsense", 1.0, 1, 2),
    Kind("policy is hostile", 5.0, 1, 10),
    # What happens to the control process.
    Kind("decision late", 0.4, 1, 1),
    Kind("watchdog lost", 0.05, 1, 3),
    Kind("journal kept busy", 0.1, 1, 1),
    Kind("restart", 1.5, 1, 1),
    Kind("interrupt", 0.5, 1, 1),
    Kind("kill", 0.3, 1, 1),
    # What people order.
    Kind("shadow", 0.4, 5, 60),
    Kind("advise", 0.4, 5, 60),
    Kind("approved", 0.4, 5, 60),
    Kind("emergency stop", 0.5, 3, 30),
    Kind("limit tightened", 0.5, 10, 60),
    Kind("manual values", 0.6, 5, 60),
)


class Fault(NamedTuple):
    """``asset``: which one, where a fault is of one; ``share``: a number in [0, 1) that tells the rest."""

    kind: str
    start: int
    end: int
    asset: int
    share: float


@dataclass(frozen=True)
class Schedule:
    """All faults of a run, by their first period."""

    faults: tuple[Fault, ...]

    @staticmethod
    def drawn(seed: int, n_periods: int, n_assets: int) -> Schedule:
        """Periods count from 0; nothing happens in the first ten."""
        rng, found = np.random.default_rng((seed, 35)), list[Fault]()
        for kind in KINDS:
            n = rng.poisson(kind.per_thousand * n_periods / 1000.0)
            starts = rng.integers(10, max(n_periods, 11), n)
            if kind.name == "kill":
                starts = (starts // PIECE_PERIODS + 1) * PIECE_PERIODS - 1 - starts % PERIODS_A_DAY
            lasts = rng.integers(kind.shortest, kind.longest + 1, n)
            assets, shares = rng.integers(0, n_assets, n), rng.random(n)
            found += [
                Fault(kind.name, int(s), int(s + d), int(a), float(x))
                for s, d, a, x in zip(starts, lasts, assets, shares, strict=True)
            ]
        return Schedule(tuple(sorted(found, key=lambda f: (f.start, f.kind, f.asset))))

    def cursor(self, period: int = 0) -> Cursor:
        """What acts, for periods that only grow from ``period`` on."""
        return Cursor([f for f in self.faults if f.end > period])

    def within(self, kind: str, period: int) -> list[int]:
        """The starts of a kind from ``period`` on."""
        return [f.start for f in self.faults if f.kind == kind and f.start >= period]


class Cursor:
    """Goes along a schedule; a call costs what acts just now."""

    def __init__(self, faults: list[Fault]) -> None:
        self._coming = faults[::-1]
        self._acting: list[Fault] = []

    def at(self, period: int) -> dict[str, Fault]:
        """The faults that act in ``period``, by kind; of two of a kind the later one."""
        self._acting = [f for f in self._acting if f.end > period]
        while self._coming and self._coming[-1].start <= period:
            self._acting.append(self._coming.pop())
        return {f.kind: f for f in self._acting if f.end > period}
