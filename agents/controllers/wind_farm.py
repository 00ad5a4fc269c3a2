"""Classical wake steering: greedy, and the look-up table that industry uses.

The table controller follows the practice of NLR's ``hycon`` (BSD-3): offsets tabulated over wind direction and speed,
hysteresis where the table flips, rate-limited set-points. It reads one wind for the farm, a consensus of all
turbines, because single vanes are too noisy and biased to steer by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ContractError
from ...envs.nameplate import Nameplate
from ...envs.twin import Observation
from ...envs.wind_farm.nameplate import GROUP
from ...envs.wind_farm.yaw_table import YawTable
from ..policy import Commands, Memory
from .reference import NeutralPolicy, neutral_commands

FloatArray = NDArray[np.float64]

_AVAILABLE_ABOVE = 0.5


class Greedy(NeutralPolicy):
    """Every turbine faces its own wind and takes all it can: today's default."""

    def __init__(self, nameplate: Nameplate) -> None:
        super().__init__(nameplate, name="greedy")


class LookUpTable:
    """Offsets from a :class:`YawTable` on the farm's consensus wind.

    ``filter_s``: low-pass on the consensus direction and speed. ``zone_deg`` and ``jump_deg``: where the table changes
    by more than ``jump_deg`` within ``zone_deg`` to either side of the present direction, the last set-point is held,
    so that a direction that wanders about a flip does not swing the rotors to and fro. ``n_turbines`` of table and
    nameplate must agree, else :class:`ContractError`.
    """

    def __init__(
        self,
        nameplate: Nameplate,
        table: YawTable,
        *,
        filter_s: float = 60.0,
        zone_deg: float = 1.5,
        jump_deg: float = 20.0,
        name: str = "lut",
    ) -> None:
        n = nameplate.group(GROUP).n_assets
        if table.n_turbines != n:
            raise ContractError(
                f"look-up table of {table.n_turbines} turbines on a farm of {n}; build one for this farm's layout"
            )
        self._nameplate = nameplate
        self._table = table
        self._filter_s = filter_s
        self._zone_deg = zone_deg
        self._jump_deg = jump_deg
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """Memory of ``n_rows`` new rows.

        ``wind`` ``[B, 4]``: filtered cosine and sine of the direction, speed, turbulence; ``begun`` ``[B]``: 1 once
        wind was seen; ``target_deg`` and ``offset_deg`` ``[B, N]``: what the table asked for last, and what was
        commanded.
        """
        n = self._nameplate.group(GROUP).n_assets
        return {
            "wind": np.zeros((n_rows, 4)),
            "begun": np.zeros(n_rows),
            "target_deg": np.zeros((n_rows, n)),
            "offset_deg": np.zeros((n_rows, n)),
        }

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        group = self._nameplate.group(GROUP)
        now, seen = self._consensus(observation)
        weight = 1.0 if self._filter_s <= 0 else -np.expm1(-observation.dt_s / self._filter_s)
        step = np.where(memory["begun"][:, None] > 0, weight, 1.0)
        wind = np.where(seen[:, None], memory["wind"] + step * (now - memory["wind"]), memory["wind"])
        begun = np.maximum(memory["begun"], seen)
        direction = np.rad2deg(np.arctan2(wind[:, 1], wind[:, 0])) % 360.0

        def offsets(at_deg: FloatArray) -> FloatArray:
            return self._table.look_up(at_deg, wind[:, 2], wind[:, 3])

        flips = np.abs(offsets(direction + self._zone_deg) - offsets(direction - self._zone_deg)) > self._jump_deg
        held = flips | (begun[:, None] <= 0)
        target = np.where(held, memory["target_deg"], offsets(direction))
        column = group.index("commanded", "yaw_offset_deg")
        rate = group.commanded[column].rate_limit_per_s
        change = target - memory["offset_deg"]
        if rate is not None:
            change = np.clip(change, -rate * observation.dt_s, rate * observation.dt_s)
        offset = memory["offset_deg"] + change
        commands = neutral_commands(self._nameplate, len(offset))
        commands[GROUP][:, :, column] = np.clip(
            offset, group.commanded[column].minimum, group.commanded[column].maximum
        )
        return commands, {"wind": wind, "begun": begun, "target_deg": target, "offset_deg": offset}

    def _consensus(self, observation: Observation) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Wind of the farm ``[B, 4]`` (cosine, sine, speed, turbulence), and which rows have any, ``[B]``.

        Direction: circular mean over the available turbines. Speed and turbulence: mean over the half of them with the
        highest speed, because the others stand in wakes.
        """
        group = self._nameplate.group(GROUP)
        measured = np.asarray(observation.measured[GROUP], dtype=np.float64)
        direction, speed, turbulence, available = (
            measured[:, :, group.index("measured", name)]
            for name in ("wind_direction_deg", "wind_speed_mps", "turbulence_pu", "available_pu")
        )
        finite = np.isfinite(direction) & np.isfinite(speed) & np.isfinite(turbulence)
        usable = observation.present[GROUP] & finite & (np.nan_to_num(available) > _AVAILABLE_ABOVE)
        count = usable.sum(axis=1)
        angle = np.deg2rad(np.where(usable, direction, 0.0))
        cosine = np.where(usable, np.cos(angle), 0.0).sum(axis=1)
        sine = np.where(usable, np.sin(angle), 0.0).sum(axis=1)
        order = np.argsort(np.where(usable, -speed, np.inf), axis=1, kind="stable")
        rank = np.argsort(order, axis=1, kind="stable")
        freest = usable & (rank < np.ceil(count / 2.0)[:, None])
        share = freest / np.maximum(freest.sum(axis=1), 1)[:, None]
        length = np.maximum(np.hypot(cosine, sine), 1e-12)
        wind = np.stack(
            [
                cosine / length,
                sine / length,
                (np.where(freest, speed, 0.0) * share).sum(axis=1),
                (np.where(freest, turbulence, 0.0) * share).sum(axis=1),
            ],
            axis=1,
        )
        return wind, count > 0
