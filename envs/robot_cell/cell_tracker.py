"""Keeps the members of a live twin where a cell is: what is told is taken over, what arms make of commands is learnt.

An ensemble filter (:class:`~twinloop.envs.estimation.tracker.EnsembleFilter`) that knows whose commands it knows. The
journal of an arm's own process has what this arm was sent, and of the others only what was read: they are taken to go
on as they go, and neither teach nor judge.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import ContractError
from ..estimation.contract import Assimilated
from ..estimation.settings import FilterSettings
from ..estimation.tracker import EnsembleFilter
from ..twin import Tensors, Twin
from .config import RobotCellConfig
from .nameplate import ARM
from .told_cell import SPEEDS
from .twin import RobotCellTwin

Tensor = torch.Tensor


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

    def advance(self, commands: Tensors) -> None:
        """One period under ``commands`` ``[N, 6]``; other arms keep the speeds that they have."""
        given = commands[ARM].clone()
        given[self._others] = self._measured[ARM][:, self._others, SPEEDS].mean(0).to(given)
        super().advance({**commands, ARM: given})

    def assimilate(self, observed: Mapping[str, Tensor]) -> Assimilated:
        """Take over what was ``observed``, ``[N, O]`` a group; be judged by arms whose commands are known."""
        self._cell.follow(observed)
        judged = observed[ARM].clone()
        judged[self._others, SPEEDS] = torch.nan
        return super().assimilate({**observed, ARM: judged})
