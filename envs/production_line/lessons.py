"""Lessons of a small line: its decision process solved exactly, and what each mode and speed of a machine loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configuration import validate
from ..errors import ConfigurationError
from ..nameplate import Group
from ..teacher import Lesson
from ..twin import Observation
from .config import LineConfig
from .drawn_line import drawn_line
from .exact_control import ON, ControlledLine
from .nameplate import MACHINE, line_nameplate
from .shown_state import shown
from .task import LineProfitOptions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_STREAM = 20
"""Apart from the streams that benchmarks draw their unseen lines from."""
_BEST, _ON, _ANY = 0.7, 0.1, 0.2
"""Of the states: so many as the best policy comes by, as a line that is always on does, and any."""


def line_lesson(config: LineConfig, options: Mapping[str, Any], seed: int, n_states: int) -> Lesson:
    """``n_states`` of the line, or of one that ``seed`` draws, with the prices of the task ``line_profit``.

    Raises :class:`ConfigurationError` for lines that :class:`ControlledLine` does not know.
    """
    prices = validate(dict(options), LineProfitOptions, "task.options")
    rng = np.random.default_rng([_STREAM, seed])
    line = drawn_line(config, rng)
    process = ControlledLine.of(
        line, part_value=prices.part_value, energy_weight=prices.energy_weight, holding_cost=prices.holding_cost
    )
    best, regret = process.regret()
    fastest = (process.mode_of == ON).all(1) & (process.speed_of == max(line.speeds)).all(1)
    on = process.worth(np.full(process.n_states, int(np.flatnonzero(fastest)[0])))
    chance = _BEST * best.share + _ON * on.share + _ANY / process.n_states
    chosen = rng.choice(process.n_states, size=n_states, p=np.maximum(chance, 0.0) / np.maximum(chance, 0.0).sum())
    seen = shown(line, process.levels[chosen], process.mode[chosen], process.ready_in[chosen])
    group = line_nameplate(config).group(MACHINE)
    told = {name: _padded(values, group) for name, values in _by_machine(process, best.choice, regret, chosen, group)}
    parts = ((p[MACHINE]) for p in (seen.measured, seen.statics, seen.present))
    measured, statics, present = (_padded(np.asarray(part), group) for part in parts)
    whole = Observation({MACHINE: measured}, {MACHINE: statics}, {MACHINE: present.astype(np.bool_)}, seen.dt_s)
    return Lesson(MACHINE, whole, told)


def _by_machine(
    process: ControlledLine, best: Integers, regret: Floats, chosen: Integers, group: Group
) -> list[tuple[str, Floats]]:
    """Regrets ``[S, M, L]`` of modes, each at its best speed, and of speeds, given that the machine is on."""
    modes, speeds = (np.array(group.commanded[group.index("commanded", k)].levels) for k in ("mode", "speed_pu"))
    n, m = len(chosen), process.mode.shape[1]
    of_mode, of_speed = np.zeros((n, m, len(modes))), np.zeros((n, m, len(speeds)))
    for joint in np.unique(best[chosen]):
        rows = np.flatnonzero(best[chosen] == joint)
        for i in range(m):
            others = np.arange(m) != i
            same = (process.mode_of[:, others] == process.mode_of[joint, others]).all(1)
            same &= (process.speed_of[:, others] == process.speed_of[joint, others]).all(1)
            for k, mode in enumerate(modes):
                choices = np.flatnonzero(same & (process.mode_of[:, i] == mode))
                of_mode[rows, i, k] = regret[np.ix_(choices, chosen[rows])].min(0)
            for k, speed in enumerate(speeds):
                choice = np.flatnonzero(same & (process.mode_of[:, i] == ON) & (process.speed_of[:, i] == speed))[0]
                of_speed[rows, i, k] = regret[choice, chosen[rows]]
    of_speed -= of_speed.min(-1, keepdims=True)
    return [("mode", of_mode), ("speed_pu", of_speed)]


def _padded(values: NDArray[Any], group: Group) -> NDArray[Any]:
    """``[S, M, ...]`` as wide as the group, whose last places are empty where the line is shorter."""
    missing = group.n_assets - values.shape[1]
    if missing < 0:
        raise ConfigurationError(f"a lesson of {values.shape[1]} machines for a group of {group.n_assets}")
    return np.pad(values, ((0, 0), (0, missing), *((0, 0) for _ in values.shape[2:])))
