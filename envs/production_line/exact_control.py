"""The exact decision process of a small line: the best that any controller of modes and speeds can earn a slot.

A state is the level of every buffer and, of every machine, its mode and the slots until it is warm; a choice is a mode
and a speed for every machine. Order of a slot as in :mod:`.physics`. The best average gain is found by modified policy
iteration on a lazy chain, between bounds that close in on it (Puterman, "Markov Decision Processes", 1994, sections
8.5 and 8.7); a given stationary policy is worth what its chain earns in the long run, begun empty with all machines on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph, linalg

from ..errors import ConfigurationError, NumericalError
from .config import MODES, BernoulliMachine, FixedLine, LineConfig

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
OFF, STANDBY, ON = range(3)
MOST_TRANSITIONS = 60_000_000
_LAZY_STEPS, _MOST_SWEEPS = 60, 5000
Rule = Callable[[Integers, Integers, Integers], tuple[Integers, Floats]]
"""A stationary policy: levels ``[S, M-1]``, modes ``[S, M]`` and slots until warm ``[S, M]`` to modes and speeds
``[S, M]``."""


@dataclass(frozen=True)
class Worth:
    """What a policy brings a slot, in the long run: ``gain``, ``production`` in parts, ``power_kw``. ``choice``
    ``[S]``: the joint choice that it makes in each state; ``share`` ``[S]``: of the time that is spent there."""

    gain: float
    production: float
    power_kw: float
    choice: Integers
    share: Floats


@dataclass(frozen=True)
class ControlledLine:
    """The decision process of a line, ``S`` states and ``A`` joint choices, ``K`` outcomes of a slot.

    ``levels`` ``[S, M-1]``, ``mode`` and ``ready_in`` ``[S, M]``; ``mode_of`` and ``speed_of`` ``[A, M]``; ``after``
    and ``chance`` ``[A, K, S]``; ``parts``, ``power_kw`` and ``gain`` ``[A, S]``, expected of the slot.
    """

    levels: Integers
    mode: Integers
    ready_in: Integers
    mode_of: Integers
    speed_of: Floats
    after: Integers
    chance: Floats
    parts: Floats = field(repr=False)
    power_kw: Floats = field(repr=False)
    gain: Floats = field(repr=False)
    start: int = 0

    @property
    def n_states(self) -> int:
        return len(self.levels)

    @staticmethod
    def of(
        config: LineConfig,
        *,
        part_value: float,
        energy_weight: float = 1.0,
        holding_cost: float = 0.0,
        parts_count: Literal["finished", "slowest"] = "finished",
    ) -> ControlledLine:
        """The process of a configuration, with the prices of the task ``line_profit`` and its ``parts_count``, which
        makes no difference in the long run, but to :meth:`best_discounted`.

        Raises :class:`ConfigurationError` for lines that are no row of Bernoulli machines without wear, decided slot by
        slot at one price of energy, and for those too large to enumerate.
        """
        return _process(config, part_value, energy_weight, holding_cost, parts_count)

    def best(self, tolerance: float = 1e-8) -> Worth:
        """The best policy; its gain is the highest to ``tolerance``."""
        return self.worth(self._solved(tolerance)[0])

    def regret(self, tolerance: float = 1e-4) -> tuple[Worth, Floats]:
        """The best policy, and ``[A, S]``: what a joint choice loses if it is made once, and the best ones after it;
        nought for the best."""
        choice, worth = self._solved(tolerance)
        return self.worth(choice), worth[choice, np.arange(self.n_states)] - worth

    def _solved(self, tolerance: float) -> tuple[Integers, Floats]:
        """``[S]``: the best choices; ``[A, S]``: what each is worth, with the best after it."""
        n, rows = self.n_states, np.arange(self.n_states)
        value = np.zeros(n)
        for _ in range(_MOST_SWEEPS):
            worth = self.gain + np.einsum("aks,aks->as", self.chance, value[self.after])
            choice = worth.argmax(0)
            step = worth[choice, rows] - value
            if step.max() - step.min() < tolerance:
                return np.asarray(choice, dtype=np.int64), worth
            value = value + step - step[self.start]
            chain, gain = self._chain(choice), self.gain[choice, rows]
            for _ in range(_LAZY_STEPS):
                value = 0.5 * (value + gain + chain @ value)
                value -= value[self.start]
        raise NumericalError(
            f"exact control: bounds on the gain still {step.max() - step.min():.3g} apart after all sweeps"
        )

    def best_discounted(self, discount: float, tolerance: float = 1e-4) -> Worth:
        """What the policy brings that is best for a learner with this discount a slot: what a discount costs.

        Its discounted value is the highest to ``tolerance`` (modified policy iteration, Puterman, section 6.5). Raises
        :class:`ConfigurationError` for a discount that is not in (0, 1).
        """
        if not 0.0 < discount < 1.0:
            raise ConfigurationError(f"exact control: a discount of {discount}; give one above 0 and below 1")
        rows = np.arange(self.n_states)
        value = np.zeros(self.n_states)
        for _ in range(_MOST_SWEEPS):
            worth = self.gain + discount * np.einsum("aks,aks->as", self.chance, value[self.after])
            choice = worth.argmax(0)
            step = worth[choice, rows] - value
            if step.max() - step.min() < tolerance * (1.0 - discount):
                return self.worth(choice)
            # what all states have yet to gain alike changes no choice: it is added at once
            value = value + step + discount / (1.0 - discount) * 0.5 * (step.max() + step.min())
            chain, gain = self._chain(choice), self.gain[choice, rows]
            for _ in range(_LAZY_STEPS):
                value = gain + discount * (chain @ value)
        raise NumericalError(f"exact control: values at a discount of {discount} still move after all sweeps")

    def worth(self, choice: Integers) -> Worth:
        """Of the policy that makes the joint choice ``choice[s]`` in state ``s``."""
        rows = np.arange(self.n_states)
        share = long_run(self._chain(choice), self.start)
        gain, parts, power = (float(share @ table[choice, rows]) for table in (self.gain, self.parts, self.power_kw))
        return Worth(gain, parts, power, choice, share)

    def worth_of(self, rule: Rule) -> Worth:
        """Of a rule; each command acts as the nearest that there is."""
        mode, speed = rule(self.levels, self.mode, self.ready_in)
        return self.worth(self.choices(mode, speed))

    def state_of(self, levels: Integers, mode: Integers, ready_in: Integers) -> Integers:
        """``[B]``: states of levels ``[B, M-1]``, modes and slots until warm ``[B, M]``; the nearest that there are."""
        top = int(self.ready_in.max()) + 1
        most = self.levels.max(0)

        def phase(mode: Integers, ready_in: Integers) -> Integers:
            return np.asarray(np.where(mode == ON, 2 + np.minimum(ready_in, top - 1), mode), dtype=np.int64)

        sizes = (*(most + 1), *([top + 2] * mode.shape[1]))
        key = np.ravel_multi_index((*self.levels.T, *phase(self.mode, self.ready_in).T), sizes)
        asked = np.ravel_multi_index((*np.clip(levels, 0, most).T, *phase(mode, ready_in).T), sizes)
        order = np.argsort(key)
        place = np.minimum(np.searchsorted(key[order], asked), len(key) - 1)
        return np.asarray(order[place], dtype=np.int64)

    def choices(self, mode: Integers, speed: Floats) -> Integers:
        """``[S]``: the joint choices nearest to modes and speeds ``[S, M]``; off and stand-by know no speed."""
        apart = 10.0 * np.abs(mode[:, None] - self.mode_of[None])
        apart = apart + np.where(self.mode_of[None] == ON, np.abs(speed[:, None] - self.speed_of[None]), 0.0)
        return np.asarray(apart.sum(-1).argmin(1), dtype=np.int64)

    def _chain(self, choice: Integers) -> sparse.csr_matrix:
        n, rows = self.n_states, np.arange(self.n_states)
        chance, after = self.chance[choice, :, rows], self.after[choice, :, rows]
        rows_of = np.repeat(rows, chance.shape[1])
        return sparse.csr_matrix((chance.ravel(), (rows_of, after.ravel())), shape=(n, n))


def long_run(chain: sparse.csr_matrix, start: int) -> Floats:
    """``[S]``: the share of time that a chain begun in ``start`` spends in each state, over all closed classes that it
    may end in."""
    n = chain.shape[0]
    chain = chain.copy()
    chain.eliminate_zeros()
    reached = np.sort(csgraph.breadth_first_order(chain, start, return_predecessors=False))
    inner = chain[reached][:, reached].tocsr()
    count, label = csgraph.connected_components(inner, connection="strong")
    edges = inner.tocoo()
    leaves = np.zeros(count, dtype=np.bool_)
    leaves[label[edges.row[label[edges.row] != label[edges.col]]]] = True
    share = np.zeros(n)
    open_rows = np.flatnonzero(leaves[label])
    first = int(np.searchsorted(reached, start))
    visits = np.zeros(len(open_rows))
    if leaves[label[first]]:
        begun = np.zeros(len(open_rows))
        begun[np.searchsorted(open_rows, first)] = 1.0
        stays = sparse.identity(len(open_rows)) - inner[open_rows][:, open_rows]
        visits = np.atleast_1d(linalg.spsolve(stays.T.tocsc(), begun))
    for closed in np.flatnonzero(~leaves):
        rows = np.flatnonzero(label == closed)
        if leaves[label[first]]:
            ends_here = float(visits @ np.asarray(inner[open_rows][:, rows].sum(1)).ravel())
        else:
            ends_here = float(label[first] == closed)
        if ends_here > 0:
            share[reached[rows]] = ends_here * _kept(inner[rows][:, rows])
    return share


def _kept(chain: sparse.csr_matrix) -> Floats:
    """The distribution that a chain of one class keeps."""
    n = chain.shape[0]
    if n == 1:
        return np.ones(1)
    balance = sparse.vstack(((chain.T - sparse.identity(n)).tocsr()[:-1], np.ones((1, n)))).tocsc()
    right = np.zeros(n)
    right[-1] = 1.0
    found: Floats = linalg.spsolve(balance, right)
    return found


def _check(config: LineConfig) -> FixedLine:
    line = config.line
    why = None
    if not isinstance(line, FixedLine) or line.buffers:
        why = "line: not a row of machines that is fixed"
    elif any(not isinstance(m.model, BernoulliMachine) for m in line.machines):
        why = "line.machines: not all of kind bernoulli"
    elif any(m.upkeep is not None for m in line.machines):
        why = "line.machines: some wear"
    elif config.blocking != "before":
        why = f"blocking: {config.blocking}"
    elif config.slots_per_period != 1:
        why = f"slots_per_period {config.slots_per_period}"
    elif len(set(config.tariff.prices_per_kwh)) != 1:
        why = "tariff: prices change over the day"
    if why is not None or not isinstance(line, FixedLine):
        raise ConfigurationError(
            f"exact control: {why}; it knows rows of Bernoulli machines without wear, decided every slot at one price "
            "of energy; simulate others on the twin"
        )
    return line


def _process(
    config: LineConfig, part_value: float, energy_weight: float, holding_cost: float, parts_count: str
) -> ControlledLine:
    line = _check(config)
    machines, capacities = line.machines, np.array(line.capacities, dtype=np.int64)
    m = len(machines)
    phases = [_phases(config, max(1, k.warm_up_slots, k.wake_slots)) for k in machines]
    shape = (*(int(c) + 1 for c in capacities), *(len(p) for p in phases))
    options = [(k, 1.0) for k in (OFF, STANDBY) if MODES[k] in config.modes] + [(ON, s) for s in sorted(config.speeds)]
    random = [i for i, k in enumerate(machines) if _efficiency(k.model) * min(config.speeds) < 1.0]
    n = int(np.prod(shape, dtype=np.float64))
    transitions = float(n) * float(len(options)) ** m * 2.0 ** len(random)
    if transitions > MOST_TRANSITIONS:
        raise ConfigurationError(
            f"exact control: {transitions:.2g} transitions exceed {MOST_TRANSITIONS:.2g}; give fewer machines, smaller "
            "buffers or fewer speeds, or simulate on the twin"
        )
    grid = np.stack(np.unravel_index(np.arange(n), shape), axis=1).astype(np.int64)
    levels = grid[:, : m - 1]
    table = [np.array(p, dtype=np.int64) for p in phases]
    mode, ready_in = (np.stack([table[i][grid[:, m - 1 + i], k] for i in range(m)], axis=1) for k in range(2))
    joint = list(itertools.product(options, repeat=m))
    mode_of = np.array([[o[0] for o in row] for row in joint], dtype=np.int64)
    speed_of = np.array([[o[1] for o in row] for row in joint], dtype=np.float64)
    price = energy_weight * config.tariff.prices_per_kwh[0] * config.slot_s / 3600.0
    rates = [_efficiency(k.model) for k in machines]
    counted = rates.index(min(rates)) if parts_count == "slowest" else m - 1
    slot = _Slot(config, line, capacities, phases, shape, random, counted)
    found = [slot.of(levels, mode, ready_in, a, v) for a, v in zip(mode_of, speed_of, strict=True)]
    after, chance = np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
    parts, power, held = (np.stack([f[k] for f in found]).astype(np.float64) for k in (2, 3, 4))
    start = np.flatnonzero((levels == 0).all(1) & (mode == ON).all(1) & (ready_in == 0).all(1))
    return ControlledLine(
        levels, mode, ready_in, mode_of, speed_of, after, chance, parts, power,
        np.asarray(part_value * parts - price * power - holding_cost * held), int(start[0]),
    )  # fmt: skip


def _phases(config: LineConfig, longest: int) -> list[tuple[int, int]]:
    """Mode and slots until warm of a machine between two slots; one that starts has spent a slot of them by then."""
    resting = [(k, 0) for k in (OFF, STANDBY) if MODES[k] in config.modes]
    return resting + [(ON, left) for left in range(longest if resting else 1)]


def _efficiency(model: object) -> float:
    return model.efficiency_pu if isinstance(model, BernoulliMachine) else 1.0


@dataclass(frozen=True)
class _Slot:
    """One slot of all states under one joint choice."""

    config: LineConfig
    line: FixedLine
    capacities: Integers
    phases: Sequence[Sequence[tuple[int, int]]]
    shape: tuple[int, ...]
    random: Sequence[int]
    counted: int
    """The machine whose parts count."""

    def of(
        self, levels: Integers, mode: Integers, ready_in: Integers, chosen: Integers, speed: Floats
    ) -> tuple[Integers, Floats, Floats, Floats, Floats]:
        """After and chance ``[K, S]``; expected parts, power and parts held ``[S]``."""
        n, m = mode.shape
        machines = self.line.machines
        power = [k.power for k in machines]
        warm_up, wake = (np.array([getattr(k, f"{w}_slots") for k in machines]) for w in ("warm_up", "wake"))
        left = np.where(mode == ON, ready_in, np.where(mode == OFF, warm_up, wake)) * (chosen == ON)
        warming = left > 0
        ready = (chosen == ON) & ~warming
        resting_kw = np.array(
            [(p.off_kw, p.standby_kw, p.idle_kw)[c] for p, c in zip(power, chosen, strict=True)], dtype=np.float64
        )
        resting = np.where(warming, [p.warm_up_kw for p in power], resting_kw)
        working_kw = np.array(
            [p.idle_kw + p.linear_kw * s + p.cubic_kw * s**3 for p, s in zip(power, speed, strict=True)]
        )
        by_load = np.array([p.draws == "loaded" for p in power])
        phase = np.stack([self._phase(i, chosen[i], np.maximum(left[:, i] - 1, 0)) for i in range(m)], axis=1)
        fed = np.column_stack((np.ones(n, dtype=np.bool_), levels > 0))
        roomy = np.column_stack((levels < self.capacities, np.ones(n, dtype=np.bool_)))
        efficiency = np.array([_efficiency(k.model) for k in machines]) * speed
        after, chances = [], []
        parts, kw, held = np.zeros(n), np.zeros(n), np.zeros(n)
        for drawn in itertools.product((False, True), repeat=len(self.random)):
            active, chance = ready.copy(), np.ones(n)
            for i, works in zip(self.random, drawn, strict=True):
                chance *= np.where(ready[:, i], efficiency[i] if works else 1.0 - efficiency[i], float(not works))
                active[:, i] &= works
            able = active & fed
            passing = roomy.copy()
            if self.config.looks_through:
                for i in range(m - 2, -1, -1):
                    passing[:, i] |= able[:, i + 1] & passing[:, i + 1]
            works_now = able & passing
            # outcomes that a state does not have may leave the buffers' range; their chance is nought
            then = np.clip(levels + works_now[:, :-1] - works_now[:, 1:], 0, self.capacities)
            after.append(np.ravel_multi_index((*then.T, *phase.T), self.shape))
            chances.append(chance)
            loaded = np.where(by_load, ready & fed, works_now)
            parts += chance * works_now[:, self.counted]
            kw += chance * np.where(loaded, working_kw, resting).sum(1)
            held += chance * then.sum(1)
        return np.stack(after), np.stack(chances), parts, kw, held

    def _phase(self, i: int, mode: int, left: Integers) -> Integers:
        at = {phase: k for k, phase in enumerate(self.phases[i])}
        if mode != ON:
            return np.full(len(left), at[int(mode), 0], dtype=np.int64)
        return np.array([at[ON, k] for k in range(int(left.max()) + 1)], dtype=np.int64)[left]
