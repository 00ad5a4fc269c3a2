"""Constraints on the commands of one asset: each asset of the group keeps them for itself.

``priority`` None is hard: never given up. A number makes a constraint soft; where not all can be kept, a smaller number
is kept longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


def _named(what: str, priority: int | None) -> str:
    """A soft constraint may stand beside a hard one on the same signal, under a name of its own."""
    return what if priority is None else f"{what}, priority {priority}"


@dataclass(frozen=True)
class RangeConstraint:
    """``minimum <= command <= maximum`` in ``unit``, for every asset of a group."""

    kind: ClassVar[str] = "range"
    group: str
    signal: str
    minimum: float
    maximum: float
    unit: str
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} range", self.priority)

    def describe(self) -> str:
        return f"{self.minimum:g} to {self.maximum:g} {self.unit}"


@dataclass(frozen=True)
class RateConstraint:
    """``|command - applied before| <= per_second * dt``, ``per_second`` in ``unit`` per second."""

    kind: ClassVar[str] = "rate"
    group: str
    signal: str
    per_second: float
    unit: str
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} rate", self.priority)

    def describe(self) -> str:
        return f"at most {self.per_second:g} {self.unit}/s"


@dataclass(frozen=True)
class AccelerationConstraint:
    """``|change - change before| <= per_second2 * dt^2``: how fast the rate may change, ``unit`` per second squared."""

    kind: ClassVar[str] = "acceleration"
    group: str
    signal: str
    per_second2: float
    unit: str
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} acceleration", self.priority)

    def describe(self) -> str:
        return f"at most {self.per_second2:g} {self.unit}/s2"


@dataclass(frozen=True)
class DeadbandConstraint:
    """A change smaller than ``width`` is not sent: it would wear the drive and bring nothing. Always soft, since it may
    not stand in the way of a hard constraint."""

    kind: ClassVar[str] = "deadband"
    group: str
    signal: str
    width: float
    unit: str
    priority: int

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} deadband", self.priority)

    def describe(self) -> str:
        return f"changes below {self.width:g} {self.unit} are not sent"


@dataclass(frozen=True)
class DwellConstraint:
    """A command stays for ``minimum_s`` once it has changed; with ``level`` only while it stands at that level, such as
    the shortest time that a pump stays on."""

    kind: ClassVar[str] = "dwell"
    group: str
    signal: str
    minimum_s: float
    unit: str
    level: float | None = None
    priority: int | None = None

    @property
    def name(self) -> str:
        at = "" if self.level is None else f" at {self.level:g}"
        return _named(f"{self.group}/{self.signal} dwell{at}", self.priority)

    def describe(self) -> str:
        at = "each value" if self.level is None else f"{self.level:g} {self.unit}"
        return f"{at} stays for at least {self.minimum_s:g} s"


@dataclass(frozen=True)
class SwitchesConstraint:
    """At most ``per_hour`` changes in any hour; ``unit`` is that of the signal."""

    kind: ClassVar[str] = "switches"
    group: str
    signal: str
    per_hour: int
    unit: str
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} switches", self.priority)

    def describe(self) -> str:
        return f"at most {self.per_hour} changes an hour"


@dataclass(frozen=True)
class TransitionConstraint:
    """A discrete command may go from one level to another only along ``legal`` pairs; staying is always legal."""

    kind: ClassVar[str] = "transition"
    group: str
    signal: str
    legal: tuple[tuple[float, float], ...]
    unit: str
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{self.signal} transition", self.priority)

    def describe(self) -> str:
        return f"only {', '.join(f'{a:g} to {b:g}' for a, b in self.legal)} {self.unit}"


@dataclass(frozen=True)
class ExclusiveConstraint:
    """Of the ``signals`` of an asset at most one may be off its neutral value, such as heating and cooling."""

    kind: ClassVar[str] = "exclusive"
    group: str
    signals: tuple[str, ...]
    priority: int | None = None

    @property
    def name(self) -> str:
        return _named(f"{self.group}/{'+'.join(self.signals)} exclusive", self.priority)

    def describe(self) -> str:
        return f"at most one of {', '.join(self.signals)} off neutral"


LocalConstraint = (
    RangeConstraint
    | RateConstraint
    | AccelerationConstraint
    | DeadbandConstraint
    | DwellConstraint
    | SwitchesConstraint
    | TransitionConstraint
    | ExclusiveConstraint
)
