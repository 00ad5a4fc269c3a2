"""What policies earn on the twin of a line in the long run, and the hysteresis that earns most on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.controllers.production_line import Hysteresis, Switch, switches_about
from ..agents.policy import Policy
from ..envs.production_line.config import BernoulliMachine, FixedLine, LineConfig
from ..envs.production_line.line_plan import plan_of
from ..envs.production_line.nameplate import HIDDEN, MACHINE, line_nameplate
from ..envs.production_line.task import LineProfit
from ..envs.production_line.twin import ProductionLineTwin

Floats = NDArray[np.float64]
_HIDDEN = {signal.name: k for k, signal in enumerate(HIDDEN)}
_ON_AT_PU, _OFF_AT_PU = (0.1, 0.4, 0.7), (0.8, 1.0)


@dataclass(frozen=True)
class Earned:
    """Means a period of each replica, ``[B]``: ``profit``; ``expected_profit``, with parts as the slowest machine makes
    them on average, where that is known (the same in the long run, with less noise), else the same as ``profit``;
    ``parts`` and ``power_kw``."""

    profit: Floats
    expected_profit: Floats
    parts: Floats
    power_kw: Floats


@torch.inference_mode()
def earn(
    config: LineConfig, policy: Policy, options: Mapping[str, Any], seeds: Sequence[int], periods: int, warm_up: int
) -> Earned:
    """Play ``policy`` on replicas of ``seeds`` for ``periods`` after ``warm_up``; ``options`` of the task
    ``line_profit``, in which the scale, the usual profit and how parts count are set aside."""
    prices = {k: v for k, v in options.items() if k in ("part_value", "energy_weight", "holding_cost")}
    twin = ProductionLineTwin(config, len(seeds), dtype=torch.float64)
    simple = isinstance(config.line, FixedLine) and not config.line.buffers and config.slots_per_period == 1
    bernoulli = simple and all(isinstance(m.model, BernoulliMachine) for m in plan_of(config).machines)
    ways = ("finished", "slowest") if bernoulli else ("finished",)
    tasks = [LineProfit.from_options(config, {**prices, "parts_count": way}) for way in ways]
    before, memory = twin.reset(torch.tensor(list(seeds), dtype=torch.int64)), policy.start(len(seeds))
    total = torch.zeros(4, len(seeds), dtype=torch.float64)
    for period in range(warm_up + periods):
        found, memory = policy.act(before.observation(twin.dt_s), memory)
        commands = {name: torch.from_numpy(values) for name, values in found.items()}
        after = twin.step(commands)
        if period >= warm_up:
            scores = [task.score(before, commands, after).reward[MACHINE][:, 0] for task in tasks]
            hidden = after.hidden[MACHINE].sum(1)
            total += torch.stack(
                (scores[0], scores[-1], hidden[:, _HIDDEN["finished"]], hidden[:, _HIDDEN["energy_kwh"]])
            )
        before = after
    mean = (total / periods).numpy()
    return Earned(mean[0], mean[1], mean[2], mean[3] * 3600.0 / twin.dt_s)


def tune_hysteresis(
    config: LineConfig, options: Mapping[str, Any], *, seed: int = 0, replicas: int = 64, periods: int = 300
) -> tuple[Switch, ...]:
    """The best switches that a search finds for a fixed row of Bernoulli machines, on ``replicas`` of the twin.

    First every rule about one of the two slowest machines, which stays on, with shares of the buffers for all others;
    then each machine in turn, from the one furthest from it: never off, or other shares on either of its buffers.
    """
    line = config.line
    assert isinstance(line, FixedLine)  # the caller's business: others have no row to tune
    rates = [m.model.efficiency_pu for m in line.machines if isinstance(m.model, BernoulliMachine)]
    slowest = sorted(range(len(rates)), key=lambda i: rates[i])[:2]
    never = tuple(Switch() for _ in rates)
    tried = [never] + [
        switches_about(k, line.capacities, on, off)
        for k in slowest for on in _ON_AT_PU for off in _OFF_AT_PU if on < off
    ]  # fmt: skip
    best = _best(config, options, tried, seed, replicas, periods)
    stays = next((i for i in slowest if best[i].watches == "never"), slowest[0])
    for i in sorted(range(len(rates)), key=lambda i: -abs(i - stays)):
        tried = [best] + [(*best[:i], s, *best[i + 1 :]) for s in _of_machine(i, line.capacities)]
        best = _best(config, options, list(dict.fromkeys(tried)), seed, replicas, periods)
    return best


def _of_machine(i: int, capacities: Sequence[int]) -> list[Switch]:
    found = [Switch()]
    if i < len(capacities):
        found += [Switch("behind", on_at, capacities[i]) for on_at in _counts(capacities[i])]
    if i > 0:
        found += [Switch("before", on_at, capacities[i - 1]) for on_at in _counts(capacities[i - 1])]
    return found


def _counts(capacity: int) -> list[int]:
    return sorted({min(capacity - 1, round(share * capacity)) for share in (0.0, 0.2, 0.4, 0.6, 0.8)})


def _best(
    config: LineConfig,
    options: Mapping[str, Any],
    tried: list[tuple[Switch, ...]],
    seed: int,
    replicas: int,
    periods: int,
) -> tuple[Switch, ...]:
    """All rules side by side, each with the same seeds."""
    seeds = np.tile(np.arange(replicas) + 1_000_003 * seed, len(tried))
    policy = Hysteresis(line_nameplate(config), [rule for rule in tried for _ in range(replicas)])
    earned = earn(config, policy, options, seeds.tolist(), periods, warm_up=100)
    return tried[int(earned.expected_profit.reshape(len(tried), replicas).mean(1).argmax())]
