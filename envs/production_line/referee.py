"""The exact steady state of a configured line whose machines are all on at full speed: which chain answers to it."""

from __future__ import annotations

from ..errors import ConfigurationError
from .config import BernoulliMachine, ExponentialMachine, FixedLine, GeometricMachine, LineConfig, MachineModel
from .continuous_chain import ExponentialRates, solve_continuous
from .exact_line import ExactMachine, solve_network
from .exact_states import ExactBuffer, ExactLine
from .line_plan import plan_of


def exact_line(config: LineConfig) -> ExactLine:
    """Solve it; of lines whose buffers form loops, the one that begins empty.

    Raises :class:`ConfigurationError` for random lines, machines that wear, parts that are there from the beginning,
    and too many states.
    """
    plan = plan_of(config)
    if not isinstance(config.line, FixedLine):
        raise ConfigurationError("line: kind 'random' is many lines, and a chain is of one: give kind 'fixed'")
    if plan.wears:
        raise ConfigurationError("machines: the exact chain has no wear; leave upkeep out, or simulate")
    if any(b.initial for b in config.line.buffers):
        raise ConfigurationError("buffers: the exact chain begins with an empty line; give initial: 0, or simulate")
    ends = zip(plan.producer, plan.consumer, plan.capacities, strict=True)
    buffers = [ExactBuffer(*of) for of in ends]
    models = [m.model for m in plan.machines]
    if config.is_exponential:
        rates = [_rates(m) for m in models if isinstance(m, ExponentialMachine)]
        return solve_continuous(rates, buffers, blocking=config.blocking)
    machines = [_chances(m) for m in models]
    return solve_network(machines, buffers, looks_through=config.looks_through, blocking=config.blocking)


def _rates(model: ExponentialMachine) -> ExponentialRates:
    return ExponentialRates(model.rate_per_slot, model.fails_per_slot, model.repairs_per_slot, model.failures)


def _chances(model: MachineModel) -> ExactMachine:
    if isinstance(model, GeometricMachine):
        return ExactMachine(1.0, model.fails_pu, model.repairs_pu, model.failures)
    assert isinstance(model, BernoulliMachine)  # a line keeps one time: no exponential machine is beside these
    return ExactMachine(model.efficiency_pu)
