"""What a live twin asks of the thing that keeps its replicas where the plant is, whatever its way of doing so.

:class:`~.tracker.EnsembleFilter` is the one for continuous state. A site whose state is counted and switched, so that
no mixture of replicas means anything, brings its own (:class:`~.site.TwinPlan`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from ..twin import Readings, Tensors, Twin
from .settings import FilterSettings

Tensor = torch.Tensor


class Assimilated(NamedTuple):
    """What one reading did: ``nis`` over ``n`` values used, ``inside`` ``[values judged]`` whether the forecast's 95 %
    interval held them; ``outliers`` were judged and left out, by full name. ``idle``: nothing was judged, because what
    was read rests: the plant is heard, and a forecast made before is as good as it was."""

    nis: float
    n: int
    inside: Tensor
    outliers: tuple[str, ...]
    idle: bool = False


class Spread(NamedTuple):
    """A forecast per group, ``[N, O]``: mean, standard deviation of the members, and that of a reading."""

    mean: dict[str, Tensor]
    std: dict[str, Tensor]
    reading_std: dict[str, Tensor]


class Tracker(Protocol):
    """Keeps the replicas of ``twin``, its members, where a plant is.

    Everything that chance decides must be a hash of (member, step): a tracker that is restored, or that goes back for a
    late reading, comes to the same bits.
    """

    @property
    def twin(self) -> Twin: ...

    def start(self, widening: float = 1.0, observed: Mapping[str, Tensor] | None = None) -> None:
        """Members from the prior, ``widening`` times as far apart; ``observed``, where given, is what is read then."""
        ...

    def advance(self, commands: Tensors) -> None:
        """One period under ``commands`` ``[N, A]`` a group, which all members obey."""
        ...

    def assimilate(self, observed: Mapping[str, Tensor]) -> Assimilated:
        """Take in what was ``observed``, ``[N, O]`` a group, NaN for what is left out; judge it first."""
        ...

    def spread(self) -> Spread:
        """What the members say would be read now."""
        ...

    def readings(self) -> Readings:
        """What the members say now, hidden signals among it."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """Estimated parameters, each ``[B]``."""
        ...

    def snapshot(self) -> dict[str, Tensor]:
        """All of it, as tensors; :meth:`restore` is the exact inverse."""
        ...

    def restore(self, snapshot: Mapping[str, Tensor]) -> None: ...


TrackerMaker = Callable[[Twin, FilterSettings], Tracker]
"""Makes a tracker around a twin; raises :class:`~twinloop.envs.errors.ConfigurationError` for settings that it has no
use for."""


@runtime_checkable
class Clocked(Protocol):
    """A tracker whose plant's conditions follow the clock, such as a tariff: ``set_clock`` is told the plant's time,
    UTC seconds, at which its members begin, before they do."""

    def set_clock(self, time_s: float) -> None: ...
