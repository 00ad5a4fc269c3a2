"""Constraints that several assets keep together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SumConstraint:
    """``minimum <= sum over assets of weight * command <= maximum`` in ``unit``.

    ``weights``: one an asset, absent: ones. A cap may be tightened while the plant runs, never widened.
    """

    kind: ClassVar[str] = "sum"
    name: str
    group: str
    signal: str
    unit: str
    maximum: float | None = None
    minimum: float | None = None
    weights: tuple[float, ...] | None = None
    priority: int | None = None

    def describe(self) -> str:
        ends = [
            *([] if self.minimum is None else [f"at least {self.minimum:g}"]),
            *([] if self.maximum is None else [f"at most {self.maximum:g}"]),
        ]
        return f"the sum over assets is {' and '.join(ends)} {self.unit}"


@dataclass(frozen=True)
class SumRateConstraint:
    """The same sum may rise by ``up_per_second`` and fall by ``down_per_second``, in ``unit`` per second."""

    kind: ClassVar[str] = "sum_rate"
    name: str
    group: str
    signal: str
    unit: str
    up_per_second: float | None = None
    down_per_second: float | None = None
    weights: tuple[float, ...] | None = None
    priority: int | None = None

    def describe(self) -> str:
        ends = [
            *([] if self.up_per_second is None else [f"rises by at most {self.up_per_second:g}"]),
            *([] if self.down_per_second is None else [f"falls by at most {self.down_per_second:g}"]),
        ]
        return f"the sum over assets {' and '.join(ends)} {self.unit}/s"


@dataclass(frozen=True)
class ConflictConstraint:
    """Pairs of ``(asset, signal, level)`` of a group that may never stand together, such as two green phases."""

    kind: ClassVar[str] = "conflict"
    name: str
    group: str
    pairs: tuple[tuple[tuple[str, str, float], tuple[str, str, float]], ...]
    priority: int | None = None

    def describe(self) -> str:
        return f"{len(self.pairs)} pairs of levels never stand together"


@dataclass(frozen=True)
class SeparationConstraint:
    """Any two assets of a group stay ``distance`` apart: measured ``positions``, commanded ``velocities``, by axis.

    ``gain_per_s``: how fast the distance left may be used up; ``braking`` (unit per second squared), where given,
    bounds the closing speed by what can still be braked. Each of a pair takes half of the responsibility.
    """

    kind: ClassVar[str] = "separation"
    name: str
    group: str
    positions: tuple[str, ...]
    velocities: tuple[str, ...]
    distance: float
    unit: str
    gain_per_s: float = 1.0
    braking: float | None = None
    priority: int | None = None

    def describe(self) -> str:
        return f"any two stay {self.distance:g} {self.unit} apart"


CoupledConstraint = SumConstraint | SumRateConstraint | ConflictConstraint | SeparationConstraint
