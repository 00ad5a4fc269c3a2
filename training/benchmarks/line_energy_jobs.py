"""What the benchmark ``line_energy`` measures: one job a line, or a line and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.artifact import load_artifact
from ...agents.controllers.line_optimum import ExactPolicy, rule_of
from ...agents.controllers.production_line import AlwaysOn, Hysteresis, OneSpeed
from ...agents.forward import PolicyNetwork
from ...agents.policy import Policy
from ...envs.production_line.config import LineConfig
from ...envs.production_line.drawn_line import drawn_line
from ...envs.production_line.exact_control import ControlledLine
from ...envs.production_line.nameplate import MACHINE, line_nameplate
from ..configuration import TrainConfiguration
from ..line_trial import Earned, earn, tune_hysteresis
from ..problem import Problem
from .farm_learners import NetworkPolicy
from .foreign_jobs import Result, learn

Floats = NDArray[np.float64]
PERIODS = 500
_WARM_UP = 100
_FRESH = 5_000_000_000
"""Seeds of evaluations count from here; those of learning are hashes of other numbers."""


def _line(config: TrainConfiguration) -> LineConfig:
    assert isinstance(config.site, LineConfig)  # _config has looked
    return config.site


def _exact(config: TrainConfiguration) -> ControlledLine:
    options = config.task.options
    return ControlledLine.of(_line(config), part_value=options["part_value"], energy_weight=options["energy_weight"])


def _earned(line: LineConfig, options: Mapping[str, Any], policy: Policy, replicas: int, seed: int) -> Earned:
    seeds = [_FRESH + replicas * seed + k for k in range(replicas)]
    return earn(line, policy, options, seeds, PERIODS, _WARM_UP)


def reference(config: TrainConfiguration, replicas: int, seed: int) -> Result:
    """The optimum, exactly and on the twin, and what the classical controllers earn."""
    line, process = _line(config), _exact(config)
    nameplate, best = line_nameplate(line), process.best()
    earned = _earned(line, config.task.options, ExactPolicy(nameplate, process, best), replicas, seed)
    on = process.worth_of(rule_of(AlwaysOn(nameplate), line))
    found: Result = {
        "optimum": best.gain, "production": best.production, "power_kw": best.power_kw,
        "twin": float(earned.expected_profit.mean()), "twin_se": _standard_error(earned.expected_profit),
        "always_on": on.gain, "always_on_production": on.production, "always_on_kw": on.power_kw,
    }  # fmt: skip
    static = {s: process.worth_of(rule_of(OneSpeed(nameplate, s), line)).gain for s in line.speeds}
    found["one_speed"] = max(static.values())
    if len(line.speeds) == 1:
        switches = tune_hysteresis(line, config.task.options, replicas=min(64, replicas))
        found["hysteresis"] = process.worth_of(rule_of(Hysteresis(nameplate, switches), line)).gain
        found["switches"] = [[s.watches, s.on_at, s.off_at] for s in switches]
    return found


def judge(config: TrainConfiguration, replicas: int, seed: int) -> Result:
    """Learn with a seed, then judge."""
    config = config.model_copy(update={"seed": seed})
    learning = learn(config, Problem.of(config))
    return _judged(
        config, _policy_of(config, learning.export()[MACHINE], _line(config)), replicas, seed, learning.agent_steps
    )


def judge_run(config: TrainConfiguration, folder: str, replicas: int, seed: int) -> Result:
    """Judge the policy of a run folder."""
    return _judged(
        config, load_artifact(Path(folder) / "artifact", line_nameplate(_line(config))), replicas, seed, None
    )


def _judged(config: TrainConfiguration, policy: Policy, replicas: int, seed: int, agent_steps: int | None) -> Result:
    line = _line(config)
    worth = _exact(config).worth_of(rule_of(policy, line))
    mine = _earned(line, config.task.options, policy, replicas, seed)
    on = _earned(line, config.task.options, AlwaysOn(line_nameplate(line)), replicas, seed)
    saved = mine.expected_profit - on.expected_profit
    return {
        "gain": worth.gain, "production": worth.production, "power_kw": worth.power_kw,
        "twin": float(mine.profit.mean()), "twin_se": _standard_error(mine.profit),
        "twin_expected": float(mine.expected_profit.mean()), "twin_expected_se": _standard_error(mine.expected_profit),
        "over_on": float(saved.mean()), "over_on_se": _standard_error(saved), "agent_steps": agent_steps,
    }  # fmt: skip


def _policy_of(config: TrainConfiguration, network: PolicyNetwork, line: LineConfig) -> Policy:
    """The learnt network on ``line``, which may be another than it learnt on."""
    nameplate = line_nameplate(line)
    problem = Problem.of(config.model_copy(update={"site": line}))
    return NetworkPolicy(nameplate, problem.encoders(nameplate)[MACHINE], network)


def unseen_line(lines: LineConfig, options: Mapping[str, Any], replicas: int, number: int) -> Result:
    """A line that nobody learnt on, its tuned hysteresis, and what that and always on earn on fresh seeds."""
    line = _unseen(lines, number)
    nameplate = line_nameplate(line)
    switches = tune_hysteresis(line, options, seed=number + 1, replicas=min(64, replicas))
    tuned = _earned(line, options, Hysteresis(nameplate, switches), replicas, number)
    on = _earned(line, options, AlwaysOn(nameplate), replicas, number)
    return {
        "machines": len(nameplate.group(MACHINE).assets), "line": line.line.model_dump(mode="json"),
        "switches": [[s.watches, s.on_at, s.off_at] for s in switches],
        "hysteresis": float(tuned.expected_profit.mean()), "always_on": float(on.expected_profit.mean()),
        "hysteresis_kw": float(tuned.power_kw.mean()), "always_on_kw": float(on.power_kw.mean()),
    }  # fmt: skip


def _unseen(lines: LineConfig, number: int) -> LineConfig:
    return drawn_line(lines, np.random.default_rng([7, number]))


def judge_any(config: TrainConfiguration, numbers: Sequence[int], replicas: int, seed: int) -> Result:
    """Learn on random lines, then act on others, of these numbers."""
    config = config.model_copy(update={"seed": seed})
    learning = learn(config, Problem.of(config))
    network, lines = learning.export()[MACHINE], {k: _unseen(_line(config), k) for k in numbers}
    return _judged_any(config, {k: (line, _policy_of(config, network, line)) for k, line in lines.items()}, replicas)


def judge_any_run(config: TrainConfiguration, folder: str, numbers: Sequence[int], replicas: int, seed: int) -> Result:
    """The policy of a run folder on lines of these numbers."""
    lines = {k: _unseen(_line(config), k) for k in numbers}
    artifact = Path(folder) / "artifact"
    played = {k: (line, load_artifact(artifact, line_nameplate(line))) for k, line in lines.items()}
    return _judged_any(config, played, replicas)


def _judged_any(config: TrainConfiguration, played: Mapping[int, tuple[LineConfig, Policy]], replicas: int) -> Result:
    earned = [_earned(line, config.task.options, policy, replicas, k) for k, (line, policy) in played.items()]
    return {
        "gain": [float(e.expected_profit.mean()) for e in earned],
        "gain_se": [_standard_error(e.expected_profit) for e in earned],
        "power_kw": [float(e.power_kw.mean()) for e in earned],
    }


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
