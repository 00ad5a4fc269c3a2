"""What acts: a map from what assets measure (and remember) to commands, in physical units.

What acts knows nothing of what learns. Networks, rules, look-up tables and an operator's manual value all
keep this contract, on numpy arrays with a leading batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..envs.nameplate import Nameplate
from ..envs.twin import Observation

Commands = Mapping[str, NDArray[np.float64]]
Memory = Mapping[str, NDArray[Any]]


@runtime_checkable
class Policy(Protocol):
    """``act`` maps an :class:`Observation` of ``B`` rows to commands ``[B, N, A]`` per group.

    A policy holds no state between calls: all it remembers goes through ``memory``, whose arrays have a
    leading axis of ``B`` rows, so that rows can be reset, moved and journalled.
    """

    @property
    def name(self) -> str: ...
    @property
    def nameplate(self) -> Nameplate: ...

    def start(self, n_rows: int) -> Memory: ...
    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]: ...
