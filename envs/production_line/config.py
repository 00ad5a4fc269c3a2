"""Configuration of the production line; loading it imports neither torch nor SimPy.

Time goes in slots, as long as one machine's cycle at full speed. Chances are per slot, powers in kW. A machine's kind
says how it varies: ``bernoulli`` draws anew each slot whether it processes; ``geometric`` goes down and up;
``exponential`` works, fails and is repaired in continuous time.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict

Chance = Annotated[float, Field(gt=0, le=1)]
Speed = Annotated[float, Field(gt=0, le=1)]
Mode = Literal["off", "standby", "on"]
MODES: tuple[Mode, ...] = ("off", "standby", "on")
"""In the order of the signal ``mode``."""
MOST_MACHINES = 60


class BernoulliMachine(Strict):
    """Processes a part in a slot with a chance of ``efficiency_pu`` times its speed, independent of the past."""

    kind: Literal["bernoulli"] = "bernoulli"
    efficiency_pu: Chance = 0.9


class GeometricMachine(Strict):
    """Goes down with ``fails_pu`` a slot and up again with ``repairs_pu``. ``failures``: while it could work
    (``operation``), or whether it could or not (``time``)."""

    kind: Literal["geometric"] = "geometric"
    fails_pu: Chance = 0.01
    repairs_pu: Chance = 0.1
    failures: Literal["operation", "time"] = "operation"


class ExponentialMachine(Strict):
    """Works in continuous time: a part takes an exponential time, ``rate_per_slot`` parts a slot at full speed; fails
    with ``fails_per_slot``, 0 never, and is repaired with ``repairs_per_slot``. ``failures``: while it works
    (``operation``), or at any time that it is on (``time``). A slot is the mean cycle of a machine of rate 1."""

    kind: Literal["exponential"] = "exponential"
    rate_per_slot: Chance = 1.0
    fails_per_slot: NonNegativeFloat = 0.0
    repairs_per_slot: PositiveFloat = 0.1
    failures: Literal["operation", "time"] = "operation"


MachineModel = BernoulliMachine | GeometricMachine | ExponentialMachine


class Power(Strict):
    """Power by state, kW. A machine that draws its working power takes ``idle_kw + linear_kw s + cubic_kw s^3`` at
    speed ``s``. ``draws``: in slots in which a part is ``produced``, or while one is ``loaded``, whether it is done or
    not."""

    off_kw: NonNegativeFloat = 1.0
    standby_kw: NonNegativeFloat = 4.0
    idle_kw: NonNegativeFloat = 9.0
    linear_kw: NonNegativeFloat = 6.0
    cubic_kw: NonNegativeFloat = 0.0
    warm_up_kw: NonNegativeFloat = 15.0
    draws: Literal["produced", "loaded"] = "produced"


class WeibullWear(Strict):
    """Fails at an age, in slots of work, that is Weibull distributed: hazard by age since it was last renewed."""

    kind: Literal["weibull"] = "weibull"
    shape: PositiveFloat = 2.5
    scale_slots: PositiveFloat = 5000.0

    @property
    def mean_life_slots(self) -> float:
        return self.scale_slots * math.gamma(1.0 + 1.0 / self.shape)

    @property
    def life_shape(self) -> float:
        return self.shape


class GammaWear(Strict):
    """Wears by a gamma process in slots of work and fails where wear passes ``failure_level``; wear is seen when it is
    inspected."""

    kind: Literal["gamma"] = "gamma"
    shape_per_slot: PositiveFloat = 0.01
    scale: PositiveFloat = 1.0
    failure_level: PositiveFloat = 20.0
    monitored: bool = Field(False, description="a sensor shows wear in every slot, without an inspection")

    @property
    def mean_life_slots(self) -> float:
        """Until the mean passes the level."""
        return self.failure_level / (self.shape_per_slot * self.scale)

    @property
    def life_shape(self) -> float:
        """Square of mean over standard deviation of wear where its mean passes the level."""
        return self.failure_level / self.scale


class StagedWear(Strict):
    """Damage in stages, from 0 as new, that only inspections show, with errors; past the last stage it has failed.

    ``announces``: a failed machine stops and calls a crew. Else it works on, at ``unnoticed_cost`` a slot of work,
    until an inspection or a service finds it.
    """

    kind: Literal["staged"] = "staged"
    advance_pu: tuple[Chance, ...] = Field((0.01, 0.02, 0.05), description="chance to go on, a slot of work, by stage")
    sees: tuple[tuple[Annotated[float, Field(ge=0, le=1)], ...], ...] = Field(
        (), description="a row a stage: chances of what an inspection shows; empty: the truth"
    )
    announces: bool = True
    unnoticed_cost: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _adds_up(self) -> StagedWear:
        n = len(self.advance_pu)
        if not n:
            raise ValueError("advance_pu: empty; give a chance for each stage")
        if self.sees and (len(self.sees) != n or any(len(r) != n or abs(sum(r) - 1) > 1e-9 for r in self.sees)):
            raise ValueError(f"sees: give {n} rows of {n} chances, each row of sum 1, as advance_pu has {n} stages")
        if self.announces and self.unnoticed_cost:
            raise ValueError("unnoticed_cost: a failure that announces itself is noticed; drop it, or announces: false")
        return self

    @property
    def error_matrix(self) -> tuple[tuple[float, ...], ...]:
        n = len(self.advance_pu)
        return self.sees or tuple(tuple(float(i == k) for k in range(n)) for i in range(n))

    @property
    def failure_level(self) -> float:
        return float(len(self.advance_pu))

    @property
    def mean_life_slots(self) -> float:
        return sum(1.0 / p for p in self.advance_pu)

    @property
    def life_shape(self) -> float:
        """Square of the life's mean over its standard deviation."""
        square = self.mean_life_slots**2
        return square / max(1e-6 * square, sum((1.0 - p) / p**2 for p in self.advance_pu))


Wear = Annotated[WeibullWear | GammaWear | StagedWear, Field(discriminator="kind")]


class Upkeep(Strict):
    """Service of one machine. A failed machine waits for a crew; both works renew it and lock it out meanwhile."""

    wear: Wear
    preventive_slots: PositiveInt = 20
    corrective_slots: PositiveInt = 60
    inspection_slots: NonNegativeInt = 0
    preventive_cost: NonNegativeFloat = 1.0
    corrective_cost: NonNegativeFloat = 10.0
    inspection_cost: NonNegativeFloat = 0.5


class Machine(Strict):
    """One machine."""

    name: str = Field("", description="empty: M1, M2, ... in the order of the list")
    model: Annotated[MachineModel, Field(discriminator="kind")] = BernoulliMachine()
    power: Power = Power()
    warm_up_slots: NonNegativeInt = Field(1, description="slots from off to on")
    wake_slots: NonNegativeInt = Field(0, description="slots from stand-by to on")
    upkeep: Upkeep | None = None


class Buffer(Strict):
    """Between two machines, by their places from 1; a machine may have several before it (assembly) or behind it
    (disassembly), and takes one part from, or puts one into, each of them."""

    producer: PositiveInt
    consumer: PositiveInt
    capacity: NonNegativeInt = 3
    initial: NonNegativeInt = 0


class FixedLine(Strict):
    """One line. Without ``buffers`` the machines stand in a row, with ``capacities`` between them. ``parallel``: they
    stand side by side, each with a supply and a way out of its own, and share the crews alone."""

    kind: Literal["fixed"] = "fixed"
    machines: tuple[Machine, ...] = (Machine(), Machine(), Machine())
    capacities: tuple[NonNegativeInt, ...] = (3, 3)
    buffers: tuple[Buffer, ...] = ()
    parallel: bool = Field(False, description="no buffers, so capacities: []")

    @model_validator(mode="after")
    def _hangs_together(self) -> FixedLine:
        n = len(self.machines)
        if not 1 <= n <= MOST_MACHINES:
            raise ValueError(f"machines: {n}; give 1 to {MOST_MACHINES}")
        if self.parallel and (self.buffers or self.capacities):
            raise ValueError("parallel: machines side by side have no buffers; give capacities: [] and no buffers")
        if not self.buffers and not self.parallel and len(self.capacities) != n - 1:
            raise ValueError(f"capacities: {len(self.capacities)} for {n} machines in a row; give {n - 1}, or buffers")
        for k, b in enumerate(self.buffers):
            if not (b.producer < b.consumer <= n):
                raise ValueError(
                    f"buffers[{k}]: from machine {b.producer} to {b.consumer} of {n}; list machines so that parts go "
                    "from lower to higher places"
                )
            if b.initial > b.capacity:
                raise ValueError(f"buffers[{k}]: initial {b.initial} exceeds the capacity of {b.capacity}")
        self._keeps_one_time()
        return self

    def _keeps_one_time(self) -> None:
        exponential = [m.model.kind == "exponential" for m in self.machines]
        if not any(exponential):
            return
        if not all(exponential):
            other = exponential.index(False)
            raise ValueError(
                f"machines[{other}].model: kind {self.machines[other].model.kind} beside exponential ones; one line "
                "keeps one time: give all machines kind exponential, or none"
            )
        for i, m in enumerate(self.machines):
            if m.upkeep is not None:
                raise ValueError(
                    f"machines[{i}].upkeep: wear is counted in slots, and an exponential machine has none; leave it "
                    "out, and give the model fails_per_slot and repairs_per_slot"
                )

    @property
    def is_exponential(self) -> bool:
        """Whether machines work in continuous time."""
        return self.machines[0].model.kind == "exponential"


class RandomLine(Strict):
    """A new row of Bernoulli machines for every episode, all else as in ``machine``."""

    kind: Literal["random"] = "random"
    machines: tuple[PositiveInt, PositiveInt] = (3, 6)
    efficiency_pu: tuple[Chance, Chance] = (0.7, 0.95)
    capacity: tuple[PositiveInt, PositiveInt] = (1, 4)
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _ordered(self) -> RandomLine:
        for name in ("machines", "efficiency_pu", "capacity"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low}, {high}]; the first end exceeds the second")
        if self.machines[1] > MOST_MACHINES:
            raise ValueError(f"machines: at most {self.machines[1]}; give {MOST_MACHINES} or less")
        if self.machine.model.kind != "bernoulli":
            raise ValueError("machine.model: a random line draws efficiencies; give a machine of kind bernoulli")
        return self


class Tariff(Strict):
    """Price of energy by hour of the day, repeated: ``prices`` per kWh, each for an equal share of 24 hours."""

    prices_per_kwh: tuple[NonNegativeFloat, ...] = (1.0,)

    @model_validator(mode="after")
    def _some(self) -> Tariff:
        if not self.prices_per_kwh:
            raise ValueError("prices_per_kwh: empty; give one price, or several for equal parts of the day")
        return self


class Service(Strict):
    """What all machines share: crews, and parts that a renewal uses up. ``spares`` None: as many as wanted."""

    crews: PositiveInt = 1
    spares: PositiveInt | None = None
    spare_lead_slots: PositiveInt = 500


class Limits(Strict):
    """What the shield keeps beyond ranges (constraints.py); none unless given.

    ``calls``: calls for service that may stand at once, an inspection counted twice; a failed machine's is no command.
    """

    on_slots: NonNegativeInt = Field(0, description="shortest time that a machine stays on")
    rest_slots: NonNegativeInt = Field(0, description="shortest time that it stays off, or in stand-by")
    starts_per_hour: PositiveInt | None = Field(None, description="at most, of each machine")
    calls: PositiveInt | None = None
    lock_out: bool = Field(False, description="a machine in service is off, and stays off until the crew has left")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Limits:
        if self.lock_out and self.on_slots:
            raise ValueError(
                f"lock_out: a machine that must stay on for {self.on_slots} slots can't be locked out; drop on_slots"
            )
        return self


class LineConfig(Strict):
    """A line of machines and buffers.

    ``looks_through``: a full buffer does not block a machine when its consumer takes a part in the same slot (Li &
    Meerkov), else it does (Gershwin). Machines change status, then parts move, then levels are counted.

    ``blocking``: ``before`` service, a machine begins a part only where it finds room for it; ``after`` service, it
    holds a finished part until there is room for it, and takes no other meanwhile; then buffers may have no places, and
    ``looks_through`` has no meaning, nor has it for exponential machines, of which no two act at once: give false.
    """

    kind: Literal["production_line"] = "production_line"
    name: str = "production_line"
    line: Annotated[FixedLine | RandomLine, Field(discriminator="kind")] = FixedLine()
    looks_through: bool = True
    blocking: Literal["before", "after"] = "before"
    speeds: tuple[Speed, ...] = Field((1.0,), description="what machines may be set to, shares of full speed")
    modes: tuple[Mode, ...] = Field(MODES, description="what machines may be set to, on among them")
    slot_s: PositiveFloat = 60.0
    slots_per_period: PositiveInt = 1
    tariff: Tariff = Tariff()
    service: Service = Service()
    limits: Limits = Limits()
    start_hour: tuple[float, float] = Field((0.0, 0.0), description="range of the hour of day at which episodes begin")

    @model_validator(mode="after")
    def _has_speeds(self) -> LineConfig:
        if not self.speeds or len(set(self.speeds)) != len(self.speeds):
            raise ValueError(f"speeds: {list(self.speeds)}; give at least one, each once")
        if "on" not in self.modes or len(set(self.modes)) != len(self.modes):
            raise ValueError(f"modes: {list(self.modes)}; name on, and off and standby where there are such, each once")
        return self

    @model_validator(mode="after")
    def _may_be_limited(self) -> LineConfig:
        limits, machines = self.limits, self.line.machines if isinstance(self.line, FixedLine) else (self.line.machine,)
        if limits.lock_out and "off" not in self.modes:
            raise ValueError(
                "limits.lock_out: a machine in service is off, and modes has no off; add it, or drop lock_out"
            )
        wear = [m.upkeep for m in machines if m.upkeep is not None]
        if (limits.calls or limits.lock_out) and not wear:
            raise ValueError("limits: calls and lock_out are about service, and no machine wears; give one an upkeep")
        if limits.calls == 1 and any(u.wear.kind != "weibull" for u in wear):
            raise ValueError("limits.calls: 1 leaves no room for an inspection, which counts twice; give 2 or more")
        return self

    @model_validator(mode="after")
    def _blocks(self) -> LineConfig:
        line = self.line
        sizes = [b.capacity for b in line.buffers] or line.capacities if isinstance(line, FixedLine) else ()
        if self.blocking == "before" and 0 in sizes:
            raise ValueError(
                "capacities: 0; where machines are blocked before service a part needs a place to go to: give 1 or "
                "more, or blocking: after"
            )
        if self.looks_through and (self.blocking == "after" or self.is_exponential):
            why = "blocking: after" if self.blocking == "after" else "exponential machines"
            raise ValueError(f"looks_through: true has no meaning with {why}; give looks_through: false")
        return self

    @property
    def is_exponential(self) -> bool:
        """Whether machines work in continuous time."""
        return isinstance(self.line, FixedLine) and self.line.is_exponential

    @property
    def dt_s(self) -> float:
        return self.slot_s * self.slots_per_period
