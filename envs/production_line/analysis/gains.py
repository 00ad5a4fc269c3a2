"""What more of each machine and each buffer would bring: by the exact chain, or on the twin's replicas.

Sensitivity: parts a slot by a machine's own rate, parts a slot that it would make alone. The machine with the greatest
is the bottleneck (Li & Meerkov 2009, section 5.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError
from ..config import FixedLine, LineConfig
from ..line_plan import plan_of
from .chain import RowChain, n_states
from .efficiency import Estimates, Machines
from .sensitivity import Effects, effects_of_replicas
from .settings import LineDiagnosisSettings

Floats = NDArray[np.float64]
MOST_CHAIN_STATES = 1300
_STEP_PU = 0.02
_LEAST_CHANGE = 0.002


@dataclass(frozen=True)
class Gains:
    """``production``: parts a slot, one effect; ``by_rate`` ``[M]``; ``titles`` and ``by_change`` ``[C]``, parts a slot
    that each change brings. ``method``: chain or replicas."""

    method: str
    production: Effects
    by_rate: Effects
    titles: tuple[str, ...]
    by_change: Effects


@dataclass(frozen=True)
class Model:
    """The line as it is analysed: ``extra_room`` in each buffer stands for the places in machines."""

    config: LineConfig
    estimates: Estimates
    extra_room: int
    looks_through: bool

    @property
    def capacities(self) -> tuple[int, ...]:
        return tuple(c + self.extra_room for c in plan_of(self.config).capacities)

    def chain_fits(self) -> bool:
        """Whether the exact chain has this line: a row of machines that do not stop, with few states."""
        assert isinstance(self.config.line, FixedLine)  # checked by whoever made the model
        never = not (self.estimates.nominal.fails > 0).any() and not self.estimates.breaks.any()
        row = plan_of(self.config).is_serial and self.config.blocking == "before"
        return never and row and n_states(self.capacities) <= MOST_CHAIN_STATES


def by_chain(model: Model, settings: LineDiagnosisSettings) -> bool:
    """Whether the chain is used; raises :class:`ConfigurationError` where it is asked for and does not fit."""
    if settings.method == "chain" and not model.chain_fits():
        raise ConfigurationError(
            "method: chain: is for rows of Bernoulli machines, blocked before service, with at most "
            f"{MOST_CHAIN_STATES} states, here {n_states(model.capacities)}, and machines that stop are "
            "none; give method: replicas"
        )
    return settings.method != "replicas" and model.chain_fits()


def sensitivities(model: Model, settings: LineDiagnosisSettings) -> Effects:
    """By each machine's rate, ``[M]``, alone: who is the bottleneck."""
    if not by_chain(model, settings):
        return replica_gains(model, settings).by_rate
    efficiency, spread = model.estimates.efficiency()
    chain = RowChain.of(model.capacities, model.looks_through)
    slope = chain.solve(efficiency)[1]
    curvature = chain.curvature(efficiency) if spread.any() else np.zeros((len(slope), len(slope)))
    return Effects(slope, curvature @ np.diag(spread**2) @ curvature.T)


def gains(model: Model, settings: LineDiagnosisSettings) -> Gains:
    """By the chain where it fits, else by replicas."""
    return chain_gains(model, settings) if by_chain(model, settings) else replica_gains(model, settings)


def chain_gains(model: Model, settings: LineDiagnosisSettings) -> Gains:
    """Exact at the estimates; what they leave open comes in by first derivatives of everything (delta method)."""
    efficiency, spread = model.estimates.efficiency()
    names, change = plan_of(model.config).names, settings.change_pu
    chain = RowChain.of(model.capacities, model.looks_through)
    production, slope = chain.solve(efficiency)
    variance = np.diag(spread**2)
    titles, means, slopes = [], [], []
    for i, name in enumerate(names):
        higher = _higher(efficiency[i], change)
        if higher < _LEAST_CHANGE:
            continue
        better = efficiency.copy()
        better[i] *= 1.0 + higher
        more, by = chain.solve(better)
        by[i] *= 1.0 + change if higher == change else 0.0  # at one part a slot it stays, whatever it is now
        titles.append(_faster(name, higher))
        means.append(more - production)
        slopes.append(by - slope)
    for k in range(len(model.capacities)):
        wider = tuple(c + (j == k) for j, c in enumerate(model.capacities))
        more, by = RowChain.of(wider, model.looks_through).solve(efficiency)
        titles.append(_wider(k))
        means.append(more - production)
        slopes.append(by - slope)
    rows = np.array(slopes).reshape(-1, len(names))
    return Gains(
        "chain", Effects(np.array([production]), np.atleast_2d(slope @ variance @ slope)),
        sensitivities(model, settings), tuple(titles), Effects(np.array(means), rows @ variance @ rows.T),
    )  # fmt: skip


def replica_gains(model: Model, settings: LineDiagnosisSettings) -> Gains:
    """On the twin: each replica is a line that telemetry allows; variants are paired with it."""
    from .replicas import Replicas, Variant

    names, change = plan_of(model.config).names, settings.change_pu
    machines = _drawn(model, settings)
    replicas = Replicas(model.config, machines, model.extra_room, model.looks_through, settings.seed)
    stops = np.any(machines.fails > 0, axis=0)
    # Down and up where there is room to 1, else down alone: a machine cannot do more than a part a slot.
    high = np.where(machines.efficiency.max(0) * (1 + _STEP_PU) <= 1.0, 1 + _STEP_PU, 1.0)
    variants, titles = [Variant()], list[str]()
    for i in range(len(names)):
        variants += [Variant("efficiency", i, high[i]), Variant("efficiency", i, high[i] - 2 * _STEP_PU)]
    for i, name in enumerate(names):
        higher = _higher(machines.efficiency[:, i].mean(), change)
        if higher >= _LEAST_CHANGE:
            variants.append(Variant("efficiency", i, 1.0 + higher))
            titles.append(_faster(name, higher))
        if stops[i]:
            variants += [Variant("fails", i, 1.0 - change), Variant("repairs", i, 1.0 / (1.0 - change))]
            titles += [f"{name}: stops {100 * change:.3g} % rarer", f"{name}: stops {100 * change:.3g} % shorter"]
    for k in range(len(model.capacities)):
        variants.append(Variant("capacity", k, more=1))
        titles.append(_wider(k))
    parts = replicas.run(variants, settings.slots).parts
    n = len(names)
    rate_step = 2 * _STEP_PU * machines.efficiency * machines.up
    by_rate = (parts[1 : 1 + 2 * n : 2] - parts[2 : 2 + 2 * n : 2]).T / rate_step
    by_change = (parts[1 + 2 * n :] - parts[0]).T
    production, rate, changed = (
        effects_of_replicas(v, machines.table) for v in (parts[0][:, None], by_rate, by_change)
    )
    return Gains("replicas", production, rate, tuple(titles), changed)


def stop_losses(model: Model, settings: LineDiagnosisSettings) -> Effects:
    """Parts ``[M]`` lost for good when each machine stops for ``stop_slots``, a stop like any other: the mean, with
    what is not known of it."""
    from .replicas import Replicas

    machines = _drawn(model, settings)
    replicas = Replicas(model.config, machines, model.extra_room, model.looks_through, settings.seed + 1)
    lost = replicas.stopped(settings.stop_slots, recovery_slots=4 * settings.stop_slots + 200)
    return effects_of_replicas(lost, machines.table)


def _drawn(model: Model, settings: LineDiagnosisSettings) -> Machines:
    """One line a replica; more of them than there are parameters to tell apart."""
    n_parameters = 3 * model.estimates.nominal.efficiency.shape[1]
    n_replicas = max(settings.replicas, 4 * n_parameters)
    return model.estimates.draws(n_replicas, np.random.default_rng(settings.seed))


def _higher(efficiency: float, change: float) -> float:
    """How much higher a rate may be: a machine makes a part a slot at most."""
    return min(change, 1.0 / float(efficiency) - 1.0)


def _faster(name: str, change: float) -> str:
    return f"{name}: rate {100 * change:.3g} % higher"


def _wider(k: int) -> str:
    return f"buffer{k + 1}: one place more"
