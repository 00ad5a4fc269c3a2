"""What a few machines that share one crew cost at best, exactly: the referee of policies for shared crews.

Machines stand side by side and live Weibull lives in slots of work. Between two slots a machine has an age, or has
failed and waits, or is in the crew's hands. A free crew may be sent to any machine, in every slot; it may stay where it
is only while nobody has failed. Order of a slot as in :mod:`.upkeep`: the crew ends its work, takes up the next, the
others work, then fail. The least average cost is found by relative value iteration, between bounds that close in on it
(Puterman, "Markov Decision Processes", 1994, section 8.5); a rule that looks at the present alone is worth what its own
iteration finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, NumericalError
from .config import BernoulliMachine, FixedLine, LineConfig, WeibullWear
from .renewal import survival_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
MOST_STATES = 2_000_000
_MOST_SWEEPS = 20_000
Rule = Callable[[Integers], Integers]
"""A stationary policy: ages ``[S, M]`` at which the crew is free, :attr:`SharedCrew.failed` for who has failed, to the
machine that gets the crew ``[S]``, from 1; 0 for nobody."""


@dataclass(frozen=True)
class CrewWorth:
    """What a policy costs a machine and slot in the long run, and whom it sends the crew to, ``choice``
    ``[A, .., A]`` by the state of each machine, from 1; 0 for nobody."""

    cost: float
    choice: Integers


@dataclass(frozen=True)
class SharedCrew:
    """The decision process of ``M`` machines; a state of one is its age, ``0 .. failed - 1``, or ``failed``.

    ``chance`` ``[M, A]``: to fail in the next slot of work, ages beyond the last as the last. ``slots`` and ``cost``
    ``[M, 2]``: of a service and of a repair; ``part_value``: of a slot in which a machine makes no part.
    """

    chance: Floats
    slots: Integers
    cost: Floats
    part_value: float
    _moves: Floats = field(repr=False)

    @staticmethod
    def of(config: LineConfig, part_value: float, most_age: int) -> SharedCrew:
        """The process of a configuration; raises :class:`ConfigurationError` for one that is not as said above, or too
        large."""
        line = config.line
        why = None
        if not isinstance(line, FixedLine) or not line.parallel:
            why = "line: not machines that are fixed and parallel"
        elif any(not isinstance(m.model, BernoulliMachine) or m.model.efficiency_pu < 1.0 for m in line.machines):
            why = "line.machines: not all bernoulli with efficiency_pu 1"
        elif any(m.upkeep is None or not isinstance(m.upkeep.wear, WeibullWear) for m in line.machines):
            why = "line.machines: not all with weibull wear"
        elif config.service.crews != 1 or config.service.spares is not None:
            why = f"service: {config.service.crews} crews, spares {config.service.spares}"
        elif config.slots_per_period != 1:
            why = f"slots_per_period {config.slots_per_period}"
        if why is not None or not isinstance(line, FixedLine):
            raise ConfigurationError(
                f"exact crew: {why}; it knows Weibull machines side by side with one crew and endless spares, decided "
                "every slot; simulate others on the twin"
            )
        kept = [m.upkeep for m in line.machines if m.upkeep is not None]
        n, longest = len(kept), max(max(k.preventive_slots, k.corrective_slots) for k in kept)
        states = float(most_age + 1) ** n + n * longest * float(most_age + 1) ** (n - 1)
        if most_age < 1 or states > MOST_STATES:
            raise ConfigurationError(
                f"exact crew: {n} machines up to age {most_age} have {states:.2g} states, 1 to {MOST_STATES:.2g} are "
                "allowed; give fewer machines or shorter lives, or simulate on the twin"
            )
        alive = [survival_of(k.wear)(np.arange(most_age + 1, dtype=np.float64)) for k in kept]
        if min(float(row[-1]) for row in alive) <= 0.0:
            raise ConfigurationError(f"exact crew: nobody lives to age {most_age}; give a lower most_age")
        chance = np.array([1.0 - row[1:] / row[:-1] for row in alive])
        return SharedCrew(
            chance=chance,
            slots=np.array([(k.preventive_slots, k.corrective_slots) for k in kept], dtype=np.int64),
            cost=np.array([(k.preventive_cost, k.corrective_cost) for k in kept]),
            part_value=part_value,
            _moves=np.stack([_moves(row) for row in chance]),
        )

    @property
    def n_machines(self) -> int:
        return len(self.chance)

    @property
    def failed(self) -> int:
        """The number of the state of a machine that has failed."""
        return int(self.chance.shape[1])

    def best(self, tolerance: float = 1e-7) -> CrewWorth:
        """The best policy; its cost is the least to ``tolerance``."""
        return self._iterate(None, tolerance)

    def worth_of(self, rule: Rule, tolerance: float = 1e-7) -> CrewWorth:
        """Of a rule; raises :class:`ConfigurationError` where it leaves failed machines to themselves."""
        states = self.states()
        choice = np.asarray(rule(states), dtype=np.int64)
        idle = (choice == 0) & (states == self.failed).any(1)
        if choice.shape != (len(states),) or choice.min() < 0 or choice.max() > self.n_machines or idle.any():
            raise ConfigurationError(
                f"exact crew: a rule says for each state whom the crew is sent to, 1 to {self.n_machines}, or 0 while "
                "nobody has failed"
            )
        return self._iterate(choice.reshape((self.failed + 1,) * self.n_machines), tolerance)

    def states(self) -> Integers:
        """``[S, M]``: all states with a free crew, the last machine's changing first."""
        sizes = (self.failed + 1,) * self.n_machines
        return np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1).astype(np.int64)

    def _iterate(self, choice: Integers | None, tolerance: float) -> CrewWorth:
        n, size = self.n_machines, self.failed + 1
        stands = self._standing()
        free = np.zeros((size,) * n)
        # of a machine in the crew's hands, by slots left, the value as a function of the others' states
        hands = [[np.zeros((size,) * (n - 1)) for _ in range(int(self.slots[i].max()))] for i in range(n)]
        for _ in range(_MOST_SWEEPS):
            goes_on = [self._served(i, free, hands[i]) for i in range(n)]
            options = [stands + self._worked(free, range(n))]
            for i in range(n):
                begun = [goes_on[i][int(self.slots[i, k]) - 1] + self.cost[i, k] for k in range(2)]
                alive = np.broadcast_to(np.expand_dims(begun[0], i), free.shape).copy()
                np.moveaxis(alive, i, 0)[-1] = begun[1]
                options.append(alive)
            values = np.stack(options)
            if choice is None:
                values[0][self._anybody_failed()] = np.inf
                found = values.argmin(0).astype(np.int64)
            else:
                found = choice
            after = np.take_along_axis(values, found[None], 0)[0]
            steps = [
                after - free,
                *(new - old for i in range(n) for new, old in zip(goes_on[i], hands[i], strict=True)),
            ]
            low, high = min(float(s.min()) for s in steps), max(float(s.max()) for s in steps)
            if high - low < tolerance * n:
                return CrewWorth((high + low) / 2.0 / n, found)
            offset = float(after.flat[0])
            free = after - offset
            hands = [[value - offset for value in row] for row in goes_on]
        raise NumericalError(f"exact crew: bounds on the cost still {(high - low) / n:.3g} apart after all sweeps")

    def _served(self, i: int, free: Floats, hands: list[Floats]) -> list[Floats]:
        """Cost of a slot, and of what follows, with machine ``i`` in the crew's hands for 1, 2, .. slots from it on."""
        others = [j for j in range(self.n_machines) if j != i]
        stands = self.part_value * (1.0 + self._down(others))
        renewed = np.take(free, 0, axis=i)
        return [stands + self._worked(then, others) for then in (renewed, *hands[:-1])]

    def _worked(self, value: Floats, machines: list[int] | range) -> Floats:
        """Expected value after a slot in which ``machines``, an axis each, work if they can."""
        for axis, i in enumerate(machines):
            value = np.moveaxis(np.tensordot(self._moves[i], value, axes=(1, axis)), 0, axis)
        return value

    def _standing(self) -> Floats:
        return self.part_value * self._down(list(range(self.n_machines)))

    def _down(self, machines: list[int]) -> Floats:
        """How many of ``machines``, an axis each, have failed."""
        shape = (self.failed + 1,) * len(machines)
        return np.asarray((np.indices(shape) == self.failed).sum(0), dtype=np.float64) if shape else np.zeros(())

    def _anybody_failed(self) -> NDArray[np.bool_]:
        return self._down(list(range(self.n_machines))) > 0


def _moves(chance: Floats) -> Floats:
    """``[A + 1, A + 1]``: from each state of a machine that may work to the next."""
    n = len(chance)
    moves = np.zeros((n + 1, n + 1))
    for age, fails in enumerate(chance):
        moves[age, n] += fails
        moves[age, min(age + 1, n - 1)] += 1.0 - fails
    moves[n, n] = 1.0
    return moves
