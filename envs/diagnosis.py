"""Diagnosis: what a site says about itself, from its model or from what a run of it measured.

A site that can do so offers ``diagnosis_model``, a frozen pydantic model of settings, and ``diagnose``; the command
``twinloop diagnose`` knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class History:
    """Consecutive periods of one plant, oldest first.

    ``time_s`` ``[T]``, when each ended; by group ``measured`` ``[T, N, O]``, ``good`` ``[T, N, O]``, which values are
    good and finite, and ``obeyed`` ``[T, N, A]``, the commands that held in each period.
    """

    time_s: Floats
    measured: Mapping[str, Floats]
    good: Mapping[str, Bools]
    obeyed: Mapping[str, Floats]


@dataclass(frozen=True)
class Sheet:
    """A table of a diagnosis: the first column names what a row is about."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Diagnosis(Protocol):
    """What was found: ``headline``, the findings in words, most important first; ``sheets``; ``notes``, what a reader
    must know to believe them; ``to_dict``, JSON types only; ``draw``, a picture, which needs matplotlib."""

    @property
    def headline(self) -> tuple[str, ...]: ...
    @property
    def sheets(self) -> tuple[Sheet, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def to_dict(self) -> dict[str, Any]: ...
    def draw(self, path: Path) -> None: ...


@runtime_checkable
class Diagnosable(Protocol):
    """A site that can be diagnosed; without a history it is as it is configured."""

    diagnosis_model: type[BaseModel]

    def diagnose(self, config: Any, history: History | None, settings: Any) -> Diagnosis: ...
