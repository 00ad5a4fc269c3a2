"""What somebody other than the running policy asks to be sent: an operator by hand, or an approved proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...envs.plant import Arrays
from ..shield import Mode, ShieldState


@dataclass(frozen=True)
class Request:
    """``values[g]``: ``[N, A]`` in physical units, NaN where nothing is asked; stands in ``slot`` of
    :class:`~.priority_array.Slot`. ``who``: a person, or a proposal's id.

    It is asked for anew each period, and what is no longer asked for is released. ``lasts_s``, by a monotonic clock, is
    how long it stands should the requester itself fail to answer; a few periods are right.
    """

    slot: int
    values: Arrays
    lasts_s: float
    who: str


@dataclass(frozen=True)
class Circumstances:
    """What a :class:`Requester` may look at. ``values[g]``: guarded measurements ``[N, O]``; ``trusted[g]``: ``[N]``;
    ``number``: the period's; ``now_s``: the plant's time; ``mode``: by agent, as of the period before; ``state``: the
    shield's, whose ``applied`` is what the plant obeys."""

    number: int
    now_s: float
    values: Arrays
    trusted: Mapping[str, NDArray[np.bool_]]
    state: ShieldState
    mode: Mapping[str, Mode]


class Requester(Protocol):
    """Asked once a period, within the decision's budget; must neither block nor change anything but itself.

    A decision that comes too late is thrown away with what was asked for it. Values that are infinite or of a wrong
    shape, and other slots than the requester's own, are refused and told of in the log.
    """

    def requests(self, seen: Circumstances) -> Sequence[Request]: ...
