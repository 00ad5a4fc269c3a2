"""States of the exact decision process as machines would measure them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..twin import Observation
from .config import LineConfig
from .exact_control import OFF, STANDBY
from .nameplate import MACHINE, line_nameplate

Integers = NDArray[np.int64]
_RUNNING, _WARMING, _IN_STANDBY, _IS_OFF = 0, 4, 5, 6
_BESIDE_NO_BUFFER = 1e6


def shown(config: LineConfig, levels: Integers, mode: Integers, ready_in: Integers) -> Observation:
    """Levels ``[S, M-1]``, modes and slots until warm ``[S, M]`` of a fixed line.

    Shares of the last slot are nought, and a machine that is on and warm is shown as running.
    """
    group = line_nameplate(config).group(MACHINE)
    n, m = mode.shape
    capacities = group.statics_array()[:-1, 1]
    beside = np.full((n, 1), _BESIDE_NO_BUFFER)
    measured = np.zeros((n, m, len(group.measured)))
    columns = {
        "state": np.select([mode == OFF, mode == STANDBY, ready_in > 0], [_IS_OFF, _IN_STANDBY, _WARMING], _RUNNING),
        "parts_before": np.hstack((beside, levels)),
        "room_behind": np.hstack((capacities - levels, beside)),
        "ready_in_slots": ready_in,
        "price_per_kwh": np.full((n, m), config.tariff.prices_per_kwh[0]),
    }
    for name, values in columns.items():
        measured[:, :, group.index("measured", name)] = values
    statics = np.broadcast_to(group.statics_array(), (n, *group.statics_array().shape))
    present = np.ones((n, m), dtype=np.bool_)
    return Observation({MACHINE: measured}, {MACHINE: statics}, {MACHINE: present}, config.dt_s)
