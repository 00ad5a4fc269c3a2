"""Keeps the members of a live twin where a cell is: what is told is taken over, what arms make of commands is learnt.

An ensemble filter (:class:`~twinloop.envs.estimation.tracker.EnsembleFilter`) that knows whose commands it knows. The
journal of an arm's own process has what this arm was sent, and of the others only what was read: they are taken to go
on as they go, and neither teach nor judge. Nor does an arm that is to stand and stands: forecasts are as wide as errors
of a moving one, against which one at rest looks too good to be true, and it shows nothing of how it follows commands.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import ContractError
from ..estimation.contract import Assimilated
from ..estimation.settings import FilterSettings
from ..estimation.tracker import EnsembleFilter
from ..twin import Tensors, Twin
from .arm import N_JOINTS
from .config import RobotCellConfig
from .nameplate import ARM
from .told_cell import SPEEDS
from .twin import RobotCellTwin

Tensor = torch.Tensor
_GIVEN = "filter/given"
_STILL_STD = 5.0
"""An arm that reads no faster than so many standard deviations of its sensors' noise stands, if it is told no more than
one: a shield that holds an arm sends what rounding leaves of zero."""


class CellTracker(EnsembleFilter):
    """A :class:`~twinloop.envs.estimation.contract.Tracker` of a cell with fixed arms.

    ``config``: with a ``seat``, that arm alone is commanded by who feeds the twin. Raises what the filter raises.
    """

    def __init__(self, twin: Twin, settings: FilterSettings, config: RobotCellConfig) -> None:
        if not isinstance(twin, RobotCellTwin):
            raise ContractError(f"{type(twin).__name__} is no twin of a robot cell")
        super().__init__(twin, settings)
        self._cell = twin
        self._others = [k for k in range(config.n_arms) if config.seat not in (None, k + 1)]
        self._noise_radps = max((e.noise for e in settings.signals.values()), default=0.0)
        self._given = torch.full((config.n_arms, N_JOINTS), torch.nan, dtype=torch.float64)

    def start(self, widening: float = 1.0, observed: Mapping[str, Tensor] | None = None) -> None:
        """As the filter starts; no commands are known yet."""
        super().start(widening, observed)
        self._given = torch.full_like(self._given, torch.nan)

    def advance(self, commands: Tensors) -> None:
        """One period under ``commands`` ``[N, 6]``; other arms keep the speeds that they have."""
        given = commands[ARM].clone()
        given[self._others] = self._measured[ARM][:, self._others, SPEEDS].mean(0).to(given)
        self._given = given.to(self._given)
        super().advance({**commands, ARM: given})

    def assimilate(self, observed: Mapping[str, Tensor]) -> Assimilated:
        """Take over what was ``observed``, ``[N, O]`` a group; be judged by arms whose commands are known and that move
        or should."""
        self._cell.follow(observed)
        judged = observed[ARM].clone()
        judged[self._others, SPEEDS] = torch.nan
        seen = judged[:, SPEEDS].abs().to(self._given)
        # so asked, a speed that is not known is none that stands
        stands = ((self._given.abs() <= self._noise_radps) & (seen <= _STILL_STD * self._noise_radps)).all(1)
        judged[stands, SPEEDS] = torch.nan
        found = super().assimilate({**observed, ARM: judged})
        return found._replace(idle=not len(found.inside) and bool(stands.any()))

    def snapshot(self) -> dict[str, Tensor]:
        return {**super().snapshot(), _GIVEN: self._given.clone()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        own = dict(snapshot)
        self._given = own.pop(_GIVEN).clone()
        super().restore(own)
