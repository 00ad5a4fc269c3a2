"""The buffers of the emulated line: who stands beside which, who finds parts and room, and what their sensors count."""

from __future__ import annotations

from collections.abc import Sequence

from .config import FixedLine
from .plant_station import STARVED, Station


class PlantBuffers:
    """``level``: parts in each; in a buffer without places, a part that its consumer has been handed and not begun.

    Machines go by their places, from 0; ``stations`` are all of them, in that order.
    """

    def __init__(self, line: FixedLine, stations: Sequence[Station]) -> None:
        n = len(stations)
        self._stations = stations
        if line.buffers:
            self._ends = [(b.producer - 1, b.consumer - 1) for b in line.buffers]
            self._capacity = [b.capacity for b in line.buffers]
            self.level = [b.initial for b in line.buffers]
        else:
            self._ends = [] if line.parallel else [(k, k + 1) for k in range(n - 1)]
            self._capacity, self.level = list(line.capacities), [0] * len(self._ends)
        self._before = [[k for k, (_, to) in enumerate(self._ends) if to == i] for i in range(n)]
        self._behind = [[k for k, (of, _) in enumerate(self._ends) if of == i] for i in range(n)]

    def is_last(self, place: int) -> bool:
        """Whether parts leave the line by this machine."""
        return not self._behind[place]

    def lacks_parts(self, place: int) -> bool:
        """Whether one of the buffers before it is empty."""
        return any(self.level[k] == 0 for k in self._before[place])

    def is_handed_parts(self, place: int) -> bool:
        """Whether it has no places before it, so that parts come from hand to hand."""
        return any(self._capacity[k] == 0 for k in self._before[place])

    def take(self, place: int) -> None:
        """A part out of each buffer before it."""
        for k in self._before[place]:
            self.level[k] -= 1

    def has_room(self, place: int) -> bool:
        """Whether each buffer behind it has a place; where it has none, free hands of the machine behind it."""
        return all(self._takes_one(k) for k in self._behind[place])

    def put(self, place: int) -> None:
        """A part into each buffer behind it."""
        for k in self._behind[place]:
            self.level[k] += 1

    def parts_before(self, place: int, most: float) -> float:
        """In the emptiest buffer before it, not what is in its hands; ``most`` where it has none."""
        return float(min([min(self.level[k], self._capacity[k]) for k in self._before[place]], default=most))

    def room_behind(self, place: int, most: float) -> float:
        """In the fullest buffer behind it; ``most`` where it has none."""
        return float(min([max(0, self._capacity[k] - self.level[k]) for k in self._behind[place]], default=most))

    def _takes_one(self, k: int) -> bool:
        if self._capacity[k] > 0:
            return self.level[k] < self._capacity[k]
        return self.level[k] == 0 and self._stations[self._ends[k][1]].state == STARVED
