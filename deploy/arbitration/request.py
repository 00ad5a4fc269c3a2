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
    :class:`~.priority_array.Slot` for ``lasts_s`` unless renewed. ``who``: a person, or a proposal's id."""

    slot: int
    values: Arrays
    lasts_s: float
    who: str


@dataclass(frozen=True)
class Circumstances:
    """What a :class:`Requester` may look at. ``values[g]``: guarded measurements ``[N, O]``; ``trusted[g]``: ``[N]``;
    ``number``: the period's; ``now_s``: the plant's time; ``mode``: by agent, as of the period before."""

    number: int
    now_s: float
    values: Arrays
    trusted: Mapping[str, NDArray[np.bool_]]
    state: ShieldState
    mode: Mapping[str, Mode]


class Requester(Protocol):
    """Asked once a period, within the decision's budget; must neither block nor change anything but itself."""

    def requests(self, seen: Circumstances) -> Sequence[Request]: ...
