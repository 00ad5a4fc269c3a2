"""What a site may teach: its states, and what every level of a command loses there, known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .twin import Observation


@dataclass(frozen=True)
class Lesson:
    """States of one group of assets, as they would measure them.

    ``observation``: of ``group`` alone, ``S`` rows, as wide as the group of the site's nameplate. ``regret``: by
    command, ``[S, N, L]``, what a level loses in the long run against the best one, in the task's currency, while all
    other assets, and everybody later, do their best; 0 for the best, and for assets that are absent.
    """

    group: str
    observation: Observation
    regret: Mapping[str, NDArray[np.float64]]


@runtime_checkable
class TeachingSite(Protocol):
    """A site that knows the best answer in its states, at least where it is small."""

    def lesson(self, config: Any, task: str, options: Mapping[str, Any], seed: int, n_states: int) -> Lesson:
        """``n_states`` of one layout that ``seed`` draws, likelier ones more often. Raises
        :class:`~twinloop.envs.errors.ConfigurationError` for a task or a layout whose best answer it does not know."""
        ...
