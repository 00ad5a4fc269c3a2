"""One line of those that a configuration may mean, as a fixed one."""

from __future__ import annotations

import numpy as np

from .config import BernoulliMachine, FixedLine, LineConfig


def drawn_line(config: LineConfig, rng: np.random.Generator) -> LineConfig:
    """One of the lines that a configuration of kind ``random`` draws, as a fixed one, by no code of the twin's."""
    line = config.line
    if isinstance(line, FixedLine):
        return config
    n = int(rng.integers(line.machines[0], line.machines[1] + 1))
    machines = tuple(
        line.machine.model_copy(
            update={"model": BernoulliMachine(efficiency_pu=float(rng.uniform(*line.efficiency_pu)))}
        )
        for _ in range(n)
    )
    capacities = tuple(int(c) for c in rng.integers(line.capacity[0], line.capacity[1] + 1, n - 1))
    return config.model_copy(update={"line": FixedLine(machines=machines, capacities=capacities)})
