"""An exploration from its configuration to its candidates: search, then successive halving (Jamieson & Talwalkar 2016,
arXiv 1502.07943): many short runs, then the best again, longer and under more seeds.

Each round has seeds of its own, so a prototype that was lucky in one is not favoured by the same luck in the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...envs.errors import RunError
from ..statistics import Interval, mean_difference_interval, mean_interval
from .configuration import ExploreConfiguration
from .evaluation import Evaluator
from .pareto import Integers, best, front
from .search import make_search
from .space import Bools, Floats
from .workforce import Workforce

_REFUSED = 1e-6  # the least excess of what the site itself would not build
Tell = Callable[[str, int, int], None]
"""Told the stage's name, and how many rows of how many are done."""


@dataclass(frozen=True)
class Candidate:
    """A prototype of the last round. ``values``: what was chosen; ``figures``: of each objective, an interval where it
    ran under several seeds; ``gain``: over the site as it is, paired by seed; ``on_front``: nobody is better in all."""

    values: dict[str, float]
    figures: tuple[Interval, ...]
    gain: tuple[Interval, ...]
    on_front: bool


@dataclass(frozen=True)
class Found:
    """``candidates``: of the last round, best first; ``configured``, ``today``: the site as it is, under the
    same seeds.

    ``values`` ``[P, D]``, ``figures`` ``[P, K]``, ``on_front`` ``[P]``: all that was run in the first round.
    ``n_refused``: asked for by the search and not fit to be built. ``rows``, ``cpu_s``: runs, and what they took.
    """

    names: tuple[str, ...]
    objectives: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    configured: dict[str, float]
    today: tuple[Interval, ...]
    values: Floats
    figures: Floats
    on_front: Bools
    n_refused: int
    rows: int
    cpu_s: float


def explore(config: ExploreConfiguration, evaluator: Evaluator, tell: Tell) -> Found:
    """Search, halve, and compare the rest with the site as it is.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for what the site lacks, and
    :class:`~twinloop.envs.errors.RunError` when nothing could be built or gave a number.
    """
    with Workforce(config, evaluator) as workforce:
        return _Exploration(config, evaluator, workforce, tell).run()


class _Exploration:
    def __init__(self, config: ExploreConfiguration, evaluator: Evaluator, workforce: Workforce, tell: Tell) -> None:
        self._config, self._evaluator, self._workforce, self._tell = config, evaluator, workforce, tell
        self._objectives = evaluator.objectives
        self._rows = self._refused = 0
        self._next_seed = 1 + config.seed * 1_000_003

    def run(self) -> Found:
        values, figures = self._search()
        losses = self._objectives.losses(figures)
        on_front = front(losses)
        kept, own = values, np.zeros((0, 0, 0))
        today = np.zeros((0, 0))
        last = len(self._config.rounds) - 1
        for number in range(1, last + 1):
            chosen = best(losses, self._config.rounds[number - 1].keep or 0)
            kept = kept[chosen]
            both = np.concatenate((kept, self._evaluator.configured[None])) if number == last else kept
            own = self._run(both, number)
            if number == last:
                own, today = own[:-1], own[-1]
            losses = self._objectives.losses(own.mean(1))
        if not last:
            kept, own, today = self._only_round(values, losses)
            losses = self._objectives.losses(own.mean(1))
        order, leads = _ranked(losses), front(losses)
        return Found(
            self._evaluator.space.names,
            self._objectives.names,
            tuple(self._candidate(kept[k], own[k], today, bool(leads[k])) for k in order),
            dict(zip(self._evaluator.space.names, self._evaluator.configured.tolist(), strict=True)),
            tuple(interval(today[:, j]) for j in range(today.shape[1])),
            values,
            figures,
            on_front,
            self._refused,
            self._rows,
            self._workforce.cpu_s,
        )

    def _search(self) -> tuple[Floats, Floats]:
        """All that was run in the first round: values ``[P, D]``, figures ``[P, K]``."""
        search = make_search(self._config, self._evaluator.space, self._fits)
        seeds = self._seeds(self._config.rounds[0].seeds)
        values = np.zeros((0, self._evaluator.space.n_dimensions))
        figures = np.zeros((0, len(self._objectives.names)))
        known = _Known(self._evaluator.space.is_discrete)
        asked: Floats | None = search.ask()
        while asked is not None:
            fits = self._fits(asked)
            where, new = known.places(asked[fits])
            values = np.concatenate((values, asked[fits][new]))
            figures = np.concatenate((figures, self._run(asked[fits][new], 0, seeds).mean(1)))
            losses = np.full((len(asked), figures.shape[1]), np.inf)
            losses[fits] = self._objectives.losses(figures)[where]
            excess = np.where(fits, 0.0, np.maximum(self._evaluator.space.excess(asked), _REFUSED))
            search.tell(asked, losses, excess)
            asked = search.ask()
        self._require_some(values, figures)
        return values, figures

    def _only_round(self, values: Floats, losses: Floats) -> tuple[Floats, Floats, Floats]:
        """Without halving the front itself is what is left: run again under the last round's length, new seeds."""
        kept = values[front(losses)]
        own = self._run(np.concatenate((kept, self._evaluator.configured[None])), 0)
        return kept, own[:-1], own[-1]

    def _run(self, values: Floats, number: int, seeds: list[int] | None = None) -> Floats:
        one = self._config.rounds[number]
        given = self._seeds(one.seeds) if seeds is None else seeds
        stage = "search" if number == 0 else f"round {number + 1}"
        self._rows += len(values) * len(given)
        return self._workforce.run(
            values, given, one.periods, one.warm_up_periods, lambda done, of: self._tell(stage, done, of)
        )

    def _seeds(self, n: int) -> list[int]:
        """New ones."""
        first = self._next_seed
        self._next_seed += n
        return list(range(first, first + n))

    def _fits(self, values: Floats) -> Bools:
        fits = self._evaluator.feasible(values)
        self._refused += int((~fits).sum())
        return fits

    def _require_some(self, values: Floats, figures: Floats) -> None:
        if not len(values):
            raise RunError(
                f"explore: none of {self._refused:,} prototypes could be built; widen the ranges or loosen the limits"
            )
        if not np.isfinite(figures).all(1).any():
            raise RunError("explore: no prototype gave a number in every objective; run longer, or look at its signals")

    def _candidate(self, values: Floats, own: Floats, today: Floats, on_front: bool) -> Candidate:
        names = self._evaluator.space.names
        k = range(own.shape[1])
        return Candidate(
            {name: float(v) for name, v in zip(names, values, strict=True)},
            tuple(interval(own[:, j]) for j in k),
            tuple(_difference(own[:, j], today[:, j]) for j in k),
            on_front,
        )


class _Known:
    """Where the figures of prototypes are that were run before; values that have no end never come twice."""

    def __init__(self, is_discrete: bool) -> None:
        self._is_discrete = is_discrete
        self._place: dict[bytes, int] = {}
        self._count = 0

    def places(self, values: Floats) -> tuple[Integers, Integers]:
        """``[P]``: the place of each, as if the new ones came behind all the others; and which ones are new."""
        if not self._is_discrete:
            first, self._count = self._count, self._count + len(values)
            return np.arange(first, self._count), np.arange(len(values))
        where, new = np.zeros(len(values), dtype=np.int64), []
        for k, row in enumerate(values):
            key = row.tobytes()
            if key not in self._place:
                self._place[key] = len(self._place)
                new.append(k)
            where[k] = self._place[key]
        return where, np.array(new, dtype=np.int64)


def _ranked(losses: Floats) -> list[int]:
    """The front first, along its first objective; then the others, best first."""
    on = front(losses)
    first = sorted(np.flatnonzero(on), key=lambda k: tuple(losses[k]))
    rest = [int(k) for k in best(losses, len(losses)) if not on[k]]
    return [int(k) for k in first] + rest


def interval(values: Floats) -> Interval:
    """Student's over seeds; a single value, or values without any spread, are a point."""
    if len(values) < 2 or np.ptp(values) == 0.0:
        centre = float(values.mean())
        return Interval(centre, centre, centre, 0.95, len(values), "none" if len(values) < 2 else "constant")
    return mean_interval(values)


def _difference(values: Floats, reference: Floats) -> Interval:
    difference = values - reference
    if len(values) < 2 or np.ptp(difference) == 0.0:
        return interval(difference)
    return mean_difference_interval(values, reference)
