"""Telemetry of a line as an analysis takes it: what each machine could have made in each period, and what it made.

Two ways to count time. A plant's controllers time their states (``clock``): blocked and starved are shares of the time.
The twin, as Li & Meerkov (2009), counts slots in which a machine would have processed and was kept from it (``draws``).
In both, a machine's efficiency is what it makes over what it had the chance to make, whatever its neighbours do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...diagnosis import History
from ...errors import ConfigurationError
from ..config import LineConfig
from ..nameplate import MACHINE, line_nameplate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counting = Literal["clock", "draws"]
ON, DOWN, IN_SERVICE = 2, 3, 7
"""Mode and states as the nameplate describes them; their names in :mod:`..physics` would bring torch."""
READ = ("state", "parts_before", "room_behind", "parts", "blocked_pu", "starved_pu", "down_pu")


@dataclass(frozen=True)
class LineRecord:
    """``[T, M]`` each, in slots or parts a period of ``slots`` slots; zero where not ``valid``: a reading that is bad,
    or a machine that was off, in stand-by or warming up. Levels are those at a period's end.

    ``trials``: cycles that it had time for while up; ``made``: those of them in which it processed; ``parts``: done;
    ``down``; ``stopped``, ``repaired``: whether it went down, and came up again.
    """

    slots: int
    counting: Counting
    names: tuple[str, ...]
    valid: Bools
    trials: Floats
    made: Floats
    parts: Floats
    blocked: Floats
    starved: Floats
    down: Floats
    stopped: Bools
    repaired: Bools
    before: Floats
    room: Floats

    @property
    def n_periods(self) -> int:
        return len(self.parts)

    def between(self, begin: int, end: int | None = None) -> LineRecord:
        """The periods from ``begin`` up to ``end``."""
        cut = {k: v[begin:end] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return LineRecord(self.slots, self.counting, self.names, **cut)


def record_of(config: LineConfig, history: History, counting: Counting) -> LineRecord:
    """Read a history; raises :class:`ConfigurationError` where no machine has a period to learn from."""
    plate = line_nameplate(config)
    group = plate.group(MACHINE)
    at = {s.name: k for k, s in enumerate(group.measured)}
    values, good, obeyed = history.measured[MACHINE], history.good[MACHINE], history.obeyed[MACHINE]
    read = {name: np.where(good[..., at[name]], values[..., at[name]], 0.0) for name in READ}
    slots = float(config.slots_per_period)
    mode, speed = obeyed[..., 0], obeyed[..., 1]
    ready = (mode == ON) & (speed > 0) & np.isin(read["state"], range(4)) | (read["state"] == IN_SERVICE)
    before = np.vstack((np.ones_like(ready[:1]), ready[:-1]))  # a machine that begins warm
    valid = ready & before & np.all([good[..., at[name]] for name in READ], axis=0)
    if len(history.time_s) > 1:
        gap = np.diff(history.time_s, prepend=history.time_s[0] - config.dt_s)
        valid &= (np.abs(gap - config.dt_s) < 0.01 * config.dt_s)[:, None]
    if not valid.any():
        raise ConfigurationError(
            f"history: none of {len(history.time_s)} periods has a good reading of a machine that was on; run longer, "
            "with machines on"
        )
    parts, down = read["parts"] * valid, slots * read["down_pu"] * valid
    blocked, starved = slots * read["blocked_pu"] * valid, slots * read["starved_pu"] * valid
    up = slots * valid - down
    if counting == "clock":
        trials, made = np.maximum(up - blocked - starved, 0.0) * speed, parts
    else:
        trials, made = np.maximum(up, 0.0) * speed, parts + blocked + starved
    is_down = np.isin(read["state"], (DOWN, IN_SERVICE))
    was_down = np.vstack((np.zeros_like(is_down[:1]), is_down[:-1]))
    return LineRecord(
        int(slots), counting, group.assets, valid, trials, made, parts, blocked, starved, down,
        (down > 0) & ~was_down & valid,
        ((down > 0) | was_down) & ~is_down & valid, read["parts_before"],
        read["room_behind"],
    )  # fmt: skip
