"""Classical maintenance of a line: run to failure; replacement by age, condition or belief; opportunistic grouping.

All leave machines on at full speed and ask for service by what is measured now; they remember nothing, so that they can
be started and handed over at any moment. A call stands until a crew comes; who waits is served first come, first
served, save where a dispatcher's rule says otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ContractError
from ...envs.nameplate import Nameplate
from ...envs.production_line.nameplate import CREW, MACHINE
from ...envs.twin import Observation
from ..policy import Commands, Memory
from .reference import NeutralPolicy, neutral_commands

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
EachMachine = float | Sequence[float] | Floats
"""One number for all machines, or one each."""
PREVENTIVE, INSPECTION = 1.0, 2.0
"""What may be asked for, as the signal ``service`` has it."""
_DOWN, _IN_SERVICE = 3, 7


class RunToFailure(NeutralPolicy):
    """Nobody is sent to a machine that works: what a plant without maintenance does."""

    def __init__(self, nameplate: Nameplate) -> None:
        super().__init__(nameplate, name="run_to_failure")


class _ServiceRule(ABC):
    """What the rules share: ``_wanted`` says what each machine asks for, ``[B, N]``."""

    def __init__(self, nameplate: Nameplate, name: str, corrective_first: bool) -> None:
        if "service" not in (s.name for s in nameplate.group(MACHINE).commanded):
            raise ContractError(f"{name}: no machine of this line wears, so that none is serviced; give it an upkeep")
        self._nameplate, self._name, self._corrective_first = nameplate, name, corrective_first
        self._service = nameplate.group(MACHINE).index("commanded", "service")

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        commands = neutral_commands(self._nameplate, len(observation.measured[MACHINE]))
        commands[MACHINE][:, :, self._service] = self._wanted(observation)
        if self._corrective_first:
            waits = (self._told(observation, "waits_for_crew") > 0.5) & self._is(observation, _DOWN)
            commands[CREW][:, 0, 0] = np.where(waits.any(1), waits.argmax(1) + 1, 0)
        return commands, memory

    @abstractmethod
    def _wanted(self, observation: Observation) -> Floats:
        """What each machine asks for, ``[B, N]``."""

    def _told(self, observation: Observation, name: str) -> Floats:
        column = self._nameplate.group(MACHINE).index("measured", name)
        # what is not known asks for nothing
        return np.nan_to_num(np.asarray(observation.measured[MACHINE][:, :, column], dtype=np.float64))

    def _is(self, observation: Observation, state: int) -> Flags:
        return np.asarray(self._told(observation, "state").round() == state)

    def _one_each(self, what: str, value: EachMachine) -> Floats:
        n = self._nameplate.group(MACHINE).n_assets
        given = np.asarray(value, dtype=np.float64)
        if given.shape not in ((), (n,)) or (given < 0).any() or np.isnan(given).any():
            raise ContractError(
                f"{self._name}: {what} {value}; give a number that is not negative, or one a machine, {n}"
            )
        return np.broadcast_to(given, (n,)).copy()


class AgeReplacement(_ServiceRule):
    """Service at ``age_slots`` of work, one age or one a machine, ``inf`` for never (Barlow & Hunter 1960). The best
    age of a machine alone is :func:`twinloop.envs.production_line.renewal.best_age`.

    ``corrective_first``: the dispatcher sends crews to failed machines before others, else whoever came first.
    ``yields``: nobody asks for service, nor stands by a call, while a failed machine waits for a crew.
    """

    def __init__(
        self, nameplate: Nameplate, age_slots: EachMachine, *, corrective_first: bool = False, yields: bool = False,
        name: str = "age",
    ) -> None:  # fmt: skip
        super().__init__(nameplate, name, corrective_first)
        self._age_slots, self._yields = self._one_each("age_slots", age_slots), yields

    def _wanted(self, observation: Observation) -> Floats:
        due = self._told(observation, "age_slots") >= self._age_slots
        if self._yields:
            due &= ~self._is(observation, _DOWN).any(1, keepdims=True)
        return np.where(due, PREVENTIVE, 0.0)


class ConditionThreshold(_ServiceRule):
    """Inspect every ``interval_slots`` of work, and service what was seen at ``threshold_pu`` of the failure level or
    above (Grall, Berenguer & Dieulle 2002). ``inf`` inspects never, for wear that a sensor shows.

    Inspections are asked for a slot before they are due, so that what they find can be done when they are.
    """

    def __init__(
        self, nameplate: Nameplate, interval_slots: EachMachine, threshold_pu: EachMachine, *,
        corrective_first: bool = False, name: str = "condition",
    ) -> None:  # fmt: skip
        super().__init__(nameplate, name, corrective_first)
        self._interval = self._one_each("interval_slots", interval_slots)
        self._threshold = self._one_each("threshold_pu", threshold_pu)

    def _wanted(self, observation: Observation) -> Floats:
        age, ago = self._told(observation, "age_slots"), self._told(observation, "seen_ago_slots")
        due = np.floor((age + 1.0) / self._interval) > np.floor((age - ago + 1.0) / self._interval)
        worn = self._told(observation, "seen_wear_pu") >= self._threshold
        return np.where(worn, PREVENTIVE, np.where(due, INSPECTION, 0.0))


class BeliefThreshold(_ServiceRule):
    """Inspect every ``interval_slots`` of work, and service where the chance to be in ``stage`` or beyond has reached
    ``risk_pu``: a control limit on the belief, which is optimal for ordered chains (Ross 1971; Lovejoy 1987). ``inf``
    inspects never.

    Raises :class:`ContractError` on a line without damage in stages.
    """

    def __init__(
        self, nameplate: Nameplate, interval_slots: EachMachine, stage: int, risk_pu: float, *,
        corrective_first: bool = False, name: str = "belief",
    ) -> None:  # fmt: skip
        super().__init__(nameplate, name, corrective_first)
        beliefs = [k for k, s in enumerate(nameplate.group(MACHINE).measured) if s.name.startswith("belief_")]
        if not 0 < stage < len(beliefs) or not 0.0 <= risk_pu <= 1.0:
            raise ContractError(
                f"{name}: stage {stage}, risk {risk_pu}; give a stage of 1 to {len(beliefs) - 1} and a risk of 0 to 1"
                if beliefs
                else f"{name}: no machine of this line has damage in stages, of which to believe anything"
            )
        self._beliefs, self._risk = beliefs[stage:], risk_pu
        self._interval = self._one_each("interval_slots", interval_slots)

    def _wanted(self, observation: Observation) -> Floats:
        due = self._told(observation, "seen_ago_slots") >= self._interval
        believed = np.nan_to_num(np.asarray(observation.measured[MACHINE][:, :, self._beliefs], dtype=np.float64))
        return np.where(believed.sum(-1) >= self._risk, PREVENTIVE, np.where(due, INSPECTION, 0.0))


class Opportunistic(_ServiceRule):
    """Replacement by age, and where any machine is down or in service, also of those that have reached ``share`` of
    their age: the crew is there, or the line stands anyway (the (n, N) policies of Radner & Jorgenson 1963)."""

    def __init__(
        self, nameplate: Nameplate, age_slots: EachMachine, share: float, *, corrective_first: bool = False,
        name: str = "opportunistic",
    ) -> None:  # fmt: skip
        super().__init__(nameplate, name, corrective_first)
        if not 0.0 <= share <= 1.0:
            raise ContractError(f"{name}: share {share}; give a share of the age, 0 to 1")
        self._age_slots, self._share = self._one_each("age_slots", age_slots), share

    def _wanted(self, observation: Observation) -> Floats:
        age = self._told(observation, "age_slots")
        chance = (self._is(observation, _DOWN) | self._is(observation, _IN_SERVICE)).any(1, keepdims=True)
        limit = np.where(chance, self._share * self._age_slots, self._age_slots)
        return np.where(age >= limit, PREVENTIVE, 0.0)


def usual_age(nameplate: Nameplate) -> AgeReplacement:
    """Every machine at the age at which it alone stands the least: what can be said of a line from its nameplate, which
    has lives and durations but no money (greatest availability: Barlow & Proschan 1965, section 4.2)."""
    from ...envs.production_line.renewal import Prices, best_age, gamma_survival, weibull_survival

    group = nameplate.group(MACHINE)
    names = [s.name for s in group.statics]
    if "wear_kind" not in names:
        raise ContractError("best_age: no machine of this line wears, so that none is serviced; give it an upkeep")
    if not group.static_values:
        raise ContractError("best_age: this line's machines differ from replica to replica; give a fixed line")
    ages = []
    for row in group.static_values:
        of = dict(zip(names, row, strict=True))
        mean, shape = of["mean_life_slots"], of["wear_shape"]
        if of["wear_kind"] < 0.5:
            ages.append(math.inf)
            continue
        survival = (
            weibull_survival(shape, mean / math.gamma(1.0 + 1.0 / shape))
            if of["wear_kind"] < 1.5
            else gamma_survival(shape / mean, 1.0, shape)  # of stages: a gamma process of the same mean and spread
        )
        stands = of["preventive_slots"], of["corrective_slots"]
        ages.append(best_age(survival, Prices(*stands, *stands))[0])
    return AgeReplacement(nameplate, ages, name="best_age")
