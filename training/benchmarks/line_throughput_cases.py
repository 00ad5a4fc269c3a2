"""Lines whose throughput is known exactly, by title, and the closed forms that the exact chains are held against.

Bernoulli lines: Li & Meerkov (2009); geometric: Gershwin (1994), section 3.2; exponential without buffers: Hunt (1956).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from ...envs.production_line.closed_form import two_bernoulli, two_exponential, two_geometric
from ...envs.production_line.config import (
    BernoulliMachine,
    Buffer,
    ExponentialMachine,
    FixedLine,
    GammaWear,
    GeometricMachine,
    LineConfig,
    Machine,
    MachineModel,
    Service,
    Tariff,
    Upkeep,
    WeibullWear,
)
from ...envs.production_line.continuous_chain import ExponentialRates, solve_continuous_line
from ...envs.production_line.exact_line import ExactMachine, solve_line

HUNT = {2: 2 / 3, 3: 22 / 39, 4: 0.514775, 5: 0.485798, 6: 0.466713}
_SLOTS = {"bernoulli": 500, "geometric": 2000, "exponential": 200}
"""A period, and the first that is not counted: longer than a line takes to forget that it began empty."""
_BERNOULLI = (
    ((0.9, 0.9), 1), ((0.9, 0.9), 2), ((0.9, 0.9), 3), ((0.9, 0.9), 5), ((0.9, 0.9), 10), ((0.8, 0.85), 3),
    ((0.9,) * 5, 2), ((0.9,) * 5, 3), ((0.9, 0.9, 0.7, 0.9, 0.9), 3), ((0.7, 0.75, 0.8, 0.85, 0.9), 3),
    ((0.9, 0.8, 0.7, 0.8, 0.9), 3), ((0.95, 0.6, 0.95), 10), ((0.9, 0.75, 0.9), 5), ((0.95, 0.85, 0.95), 5),
)  # fmt: skip
Failures = Literal["operation", "time"]


def known_lines() -> Iterator[tuple[str, LineConfig]]:
    """All lines of the table."""
    for efficiencies, capacity in _BERNOULLI:
        drawn = [BernoulliMachine(efficiency_pu=p) for p in efficiencies]
        told = f"{efficiencies[0]:g} x{len(drawn)}" if len(set(efficiencies)) == 1 else _listed(efficiencies)
        yield f"Bernoulli {told}, N {capacity}", _row(drawn, capacity, looks_through=True)
    for fails in ((0.01, 0.01), (0.01, 0.02)):
        for capacity in (4, 10, 20, 50):
            yield f"geometric p {_listed(fails)}, r 0.1, N {capacity}", _row(_geometric(fails), capacity)
    yield "geometric p 0.01 0.01, r 0.1, N 10, failing at any time", _row(_geometric((0.01, 0.01), "time"), 10)
    for n_machines in HUNT:
        models: list[MachineModel] = [ExponentialMachine()] * n_machines
        yield f"Hunt, {n_machines} exponential, no buffers", _row(models, 0, blocking="after")
    failing = [ExponentialMachine(fails_per_slot=0.1, repairs_per_slot=0.4), ExponentialMachine(rate_per_slot=0.8)]
    yield "exponential 1 (p 0.1, r 0.4) 0.8, N 3", _row(failing, 3)
    three = [BernoulliMachine(efficiency_pu=p) for p in (0.9, 0.8, 0.9)]
    yield "Bernoulli 0.9 0.8 0.9, N 1, blocked after service", _row(three, 1, blocking="after")
    ends = ((1, 3, 2), (2, 3, 3), (3, 4, 2))
    buffers = tuple(Buffer(producer=p, consumer=c, capacity=n) for p, c, n in ends)
    machines = tuple(Machine(model=BernoulliMachine(efficiency_pu=p)) for p in (0.9, 0.8, 0.85, 0.9))
    line = FixedLine(machines=machines, capacities=(), buffers=buffers)
    title = "assembly of 0.9 (N 2) and 0.8 (N 3) by 0.85, then 0.9 (N 2)"
    yield title, LineConfig(line=line, slots_per_period=_SLOTS["bernoulli"])


def plain_line() -> LineConfig:
    """Five Bernoulli machines and nothing else."""
    return LineConfig(line=FixedLine(machines=(Machine(),) * 5, capacities=(3,) * 4), slots_per_period=50)


def full_line() -> LineConfig:
    """Machines of both slotted kinds that wear and are served, with speeds, power by state and a tariff."""
    age, wear = Upkeep(wear=WeibullWear(scale_slots=500.0)), Upkeep(wear=GammaWear())
    geometric = GeometricMachine()
    machines = (
        Machine(upkeep=age), Machine(model=geometric, upkeep=wear), Machine(upkeep=age),
        Machine(model=geometric.model_copy(update={"failures": "time"})), Machine(upkeep=wear),
    )  # fmt: skip
    return LineConfig(
        line=FixedLine(machines=machines, capacities=(3,) * 4),
        slots_per_period=10,
        speeds=(0.6, 0.8, 1.0),
        tariff=Tariff(prices_per_kwh=(0.2, 0.3, 0.1, 0.25)),
        service=Service(crews=2, spares=4),
    )


def exponential_line() -> LineConfig:
    """Five exponential machines, blocked after service."""
    return _row([ExponentialMachine()] * 5, 3, blocking="after")


def closed_forms() -> Iterator[tuple[str, float, float]]:
    """Title, largest distance of the exact chain from a closed form or a published figure, and the bar for it."""
    pairs = [(p, q, n) for p, q in ((0.9, 0.9), (0.8, 0.85), (0.95, 0.6)) for n in (1, 2, 3, 5, 10, 50)]
    yield "two Bernoulli machines, closed form (Li & Meerkov)", max(
        abs(two_bernoulli(*c) - solve_line([ExactMachine(p) for p in c[:2]], c[2:], looks_through=True).production)
        for c in pairs
    ), 1e-9  # fmt: skip
    failing = [((0.01, 0.01), (0.1, 0.1)), ((0.01, 0.02), (0.1, 0.1)), ((0.03, 0.013), (0.2, 0.08))]
    yield "two geometric machines, closed form (Gershwin)", max(
        abs(two_geometric(p, r, n) - _geometric_chain(p, r, n)) for p, r in failing for n in (4, 5, 10, 20, 50)
    ), 1e-9  # fmt: skip
    yield "two exponential machines, closed form (birth and death), blocked before or after service", max(
        abs(
            two_exponential(a, b, n, blocking=blocking)
            - solve_continuous_line([ExponentialRates(a), ExponentialRates(b)], [n], blocking=blocking).production
        )
        for a, b in ((1.0, 1.0), (1.0, 0.8), (0.6, 0.9)) for n in (1, 3, 10) for blocking in _BLOCKING
    ), 1e-9  # fmt: skip
    yield "unbuffered exponential lines of 2 to 6, all six printed digits (Hunt)", max(
        abs(v - solve_continuous_line([ExponentialRates(1.0)] * k, [0] * (k - 1), blocking="after").production)
        for k, v in HUNT.items()
    ), 5e-7  # fmt: skip


_BLOCKING: tuple[Literal["before", "after"], ...] = ("before", "after")


def _geometric_chain(fails: tuple[float, float], repairs: tuple[float, float], capacity: int) -> float:
    machines = [ExactMachine(1.0, p, r) for p, r in zip(fails, repairs, strict=True)]
    return solve_line(machines, [capacity], looks_through=False).production


def _geometric(fails: Sequence[float], failures: Failures = "operation") -> list[MachineModel]:
    return [GeometricMachine(fails_pu=p, repairs_pu=0.1, failures=failures) for p in fails]


def _row(
    models: Sequence[MachineModel],
    capacity: int,
    *,
    looks_through: bool = False,
    blocking: Literal["before", "after"] = "before",
) -> LineConfig:
    machines = tuple(Machine(model=m) for m in models)
    return LineConfig(
        line=FixedLine(machines=machines, capacities=(capacity,) * (len(machines) - 1)),
        looks_through=looks_through,
        blocking=blocking,
        slots_per_period=_SLOTS[models[0].kind],
    )


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{v:g}" for v in values)
