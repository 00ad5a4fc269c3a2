"""One running site, real or emulated, as the runtime sees it.

The runtime never resets a plant. Every value carries the time at which its source took it and a quality.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .nameplate import Nameplate

Arrays = Mapping[str, NDArray[np.float64]]


class Quality(enum.IntEnum):
    """OPC UA's three severities, in its order."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


@dataclass(frozen=True)
class Telemetry:
    """One reading of all measured signals.

    ``values[g]``: ``[N, O]`` in the nameplate's units; ``source_time_s[g]``: ``[N, O]``, UTC seconds at the
    source; ``quality[g]``: ``[N, O]``, :class:`Quality`; ``sequence`` grows by one a reading.
    """

    values: Arrays
    source_time_s: Arrays
    quality: Mapping[str, NDArray[np.int8]]
    received_time_s: float
    sequence: int
    notes: Mapping[str, Any] | None = None


@runtime_checkable
class Plant(Protocol):
    """A site behind a contract that a simulator and a protocol client both keep.

    ``write`` returns what the plant accepted, ``[N, A]`` per group, which may be limited at the plant; it
    raises :class:`~twinloop.envs.errors.PlantError` when the plant cannot be reached. ``advance`` waits for (or
    simulates) one period. ``clock_s`` is the plant's own UTC time.
    """

    @property
    def nameplate(self) -> Nameplate: ...
    @property
    def clock_s(self) -> float: ...

    def read(self) -> Telemetry: ...
    def write(self, commands: Arrays) -> Arrays: ...
    def advance(self) -> None: ...
    def close(self) -> None: ...
