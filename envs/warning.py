"""Warnings: what a site sees coming for an asset, such as a failure, from what its controllers measure.

A site that can do so offers ``warnings``; the pages and ``twinloop overview`` show them as alarms, and know no more of
it than this. It is asked about once a period, so it must take milliseconds and import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .nameplate import Nameplate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AssetWarning:
    """``agent``: the asset's full name, ``group/asset``; ``key``: what it is about, one word, the same for as long as
    it stands; ``text``: what may happen, how likely, and what to do. Each change of it is recorded, so it keeps to
    coarse figures."""

    agent: str
    key: str
    text: str
    severity: Literal["medium", "low"] = "low"


@runtime_checkable
class Warns(Protocol):
    """A site that warns. ``measured``: by group, ``[N, O]``, NaN for readings that are bad."""

    def warnings(self, nameplate: Nameplate, measured: Mapping[str, Floats]) -> tuple[AssetWarning, ...]: ...
