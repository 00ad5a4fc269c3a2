"""Constraints on what is measured, kept by choosing commands with foresight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredConstraint:
    """``minimum <= measured <= maximum`` in ``unit``: a training cost and a monitor, no row of the shield by itself."""

    kind: ClassVar[str] = "measured"
    name: str
    group: str
    signal: str
    unit: str
    maximum: float | None = None
    minimum: float | None = None
    priority: int | None = None

    def describe(self) -> str:
        ends = [
            *([] if self.minimum is None else [f"at least {self.minimum:g}"]),
            *([] if self.maximum is None else [f"at most {self.maximum:g}"]),
        ]
        return f"{self.signal} is {' and '.join(ends)} {self.unit}"


@dataclass(frozen=True)
class BarrierTerms:
    """A barrier and its derivatives along control-affine dynamics ``x' = f(x) + g(x) u``, at ``N`` assets.

    ``h``: ``[N]``, safe where it is >= 0; ``drift``: ``[N]``, its derivative without commands. Relative degree 1:
    ``control``: ``[N, A]``, the derivative by the commands. Relative degree 2: ``drift2``: ``[N]``, the second
    derivative without commands, and ``control`` that by the commands.
    """

    h: Floats
    drift: Floats
    control: Floats
    drift2: Floats | None = None


class Barrier(Protocol):
    """Gives the terms of measured signals ``[N, O]``; pure, numpy alone."""

    def __call__(self, measured: Floats, /) -> BarrierTerms: ...


@dataclass(frozen=True)
class BarrierConstraint:
    """``h(x) >= 0`` for ever, by a row on the commands (Ames et al. 2019, arXiv 1903.11199; higher relative degree:
    Xiao & Belta 2019, arXiv 1903.04706).

    Relative degree 1: ``drift + control u >= -gain h + margin``. Relative degree 2, with ``g1 = gain``, ``g2 = gain2``:
    ``drift2 + control u + (g1 + g2) drift + g1 g2 h >= margin``. ``margin`` pays for commands that stand still for a
    whole period while the state moves on.
    """

    kind: ClassVar[str] = "barrier"
    name: str
    group: str
    barrier: Barrier
    gain_per_s: float
    gain2_per_s: float | None = None
    margin: float = 0.0
    priority: int | None = None

    def describe(self) -> str:
        order = 1 if self.gain2_per_s is None else 2
        return f"barrier of relative degree {order}, gain {self.gain_per_s:g}/s"


@dataclass(frozen=True)
class RowTerms:
    """Any number ``R`` of rows on each asset's own commands: ``control @ u >= least``.

    ``control``: ``[N, R, A]``; ``least``: ``[N, R]``, minus infinity for a row that asks for nothing.
    """

    control: Floats
    least: Floats


class SiteRows(Protocol):
    """Gives rows, and margins, from all that the site measures; pure, numpy alone for the rows."""

    def __call__(self, measured: Mapping[str, Floats], applied: Floats, /) -> RowTerms:
        """Rows at measured signals ``[N, O]`` a group, where the assets obey ``applied`` ``[N, A]`` now."""
        ...

    def margin(self, measured: Mapping[str, Any], /) -> Any:
        """By how much what the rows protect is kept, ``[..., N]``, from ``[..., N, O]`` a group, numpy's or torch's."""
        ...


@dataclass(frozen=True)
class RowsConstraint:
    """Rows on each asset's own commands, worked out every period from what the whole site measures.

    For what a :class:`BarrierConstraint` can't say: many barriers an asset, such as the gaps of a robot's links to all
    that is near, or such that depend on another group, as people are to robots. Gains and margins are the rows' own.
    What is measured is NaN where nothing is known any more; rows that are NaN then make their assets fall back.
    """

    kind: ClassVar[str] = "rows"
    name: str
    group: str
    rows: SiteRows
    priority: int | None = None

    def describe(self) -> str:
        told = getattr(self.rows, "describe", None)
        return str(told()) if callable(told) else "rows on an asset's commands from what the site measures"


class Foresight(Protocol):
    """What happens under commands: the worst margin of the site over a horizon, safe where it is >= 0.

    ``first`` commands ``[N, A]`` a group are held for one period, then the named backup acts; also returns the commands
    of the whole plan, a period each. Pure.
    """

    def __call__(
        self, measured: Mapping[str, Floats], first: Mapping[str, Floats], backup: str, horizon_periods: int, /
    ) -> tuple[float, tuple[Mapping[str, Floats], ...]]: ...


@dataclass(frozen=True)
class LookAheadConstraint:
    """After this period's commands at least one of the ``backups``, tried in order, keeps the site safe for
    ``horizon_periods`` (implicit Simplex: Bak et al. 2009; model predictive shielding: Bastani 2021, arXiv 1905.10691).
    """

    kind: ClassVar[str] = "look_ahead"
    name: str
    foresight: Foresight
    backups: tuple[str, ...]
    horizon_periods: int
    priority: int | None = None

    def describe(self) -> str:
        return f"{' or '.join(self.backups)} keeps the site safe for {self.horizon_periods} periods"


StateConstraint = MeasuredConstraint | BarrierConstraint | RowsConstraint | LookAheadConstraint
