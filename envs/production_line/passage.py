"""Who finds a part before it and room behind it, by the levels of the buffers; and what levels mean.

Blocked before service, a level counts the parts between two machines; blocked after service, those that one has
finished and the other has not (:mod:`.flow`). Arrays are ``[M, L]`` (machine, replica) and ``[K, L]`` (buffer,
replica).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .config import FixedLine, LineConfig
from .flow import branching_blocked, branching_work, serial_blocked, serial_work
from .line_plan import Plan
from .structure import Structure
from .upkeep import NOTHING

Tensor = torch.Tensor
ON = 2


class Passage:
    """The rules of one configuration for lines of its plan."""

    def __init__(self, config: LineConfig, plan: Plan) -> None:
        self._plan = plan
        self._is_fixed = isinstance(config.line, FixedLine)
        self._looks_through = config.looks_through
        self.after_service = config.blocking == "after"

    def fed(self, level: Tensor, structure: Structure) -> Tensor:
        """Machines with a part in every buffer before them; sources always have one."""
        present = structure.present
        if self._plan.is_serial:
            return torch.cat((present[:1], level > 0))
        rows = structure.consumer[:, None].expand_as(level)
        lacking = torch.zeros(present.shape, dtype=torch.int8, device=level.device)
        return lacking.scatter_reduce_(0, rows, (level == 0).to(torch.int8), "amax") == 0

    def roomy(self, room: Tensor, structure: Structure) -> Tensor:
        """``[M, L]``: room in every buffer behind, whatever their consumers do; sinks always have some."""
        free = room if self._is_fixed else room | (structure.capacity == 0)
        if self._plan.is_serial:
            return torch.cat((free, torch.ones_like(structure.present[:1])))
        rows = structure.producer[:, None].expand_as(free)
        full = torch.zeros(structure.present.shape, dtype=torch.int8, device=room.device)
        return full.scatter_reduce_(0, rows, (~free).to(torch.int8), "amax") == 0

    def working(self, able: Tensor, roomy: Tensor, room: Tensor, structure: Structure) -> Tensor:
        """Of those ``able`` who works, blocked before service."""
        if not self._looks_through:
            return able & roomy
        if self._plan.is_serial:
            return serial_work(able, roomy)
        consumer, producer = (e[:, None].expand_as(room) for e in (structure.consumer, structure.producer))
        return branching_work(able, room, consumer, producer, self._plan.rounds)

    def moved(self, level: Tensor, working: Tensor, structure: Structure) -> Tensor:
        """Levels after those ``working`` have finished a part each."""
        moved = working.to(torch.int64)
        if self._plan.is_serial:
            change = moved[:-1] - moved[1:]
        else:
            change = moved[structure.producer] - moved[structure.consumer]
        return level + (change if self._is_fixed else torch.where(structure.capacity > 0, change, 0))

    def standing(self, level: Tensor, structure: Structure, empty: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``[M, L]`` each: who may work, and who is blocked, whatever the others do in the same moment; the rest are
        starved. ``empty`` as in :meth:`held`."""
        fed = self.fed(level, structure)
        if not self.after_service:
            roomy = self.roomy(level < structure.capacity, structure)
            return fed & roomy, fed & ~roomy
        held = self.held(level, structure, empty)
        return fed & ~held, held

    def held(self, level: Tensor, structure: Structure, empty: Tensor | None = None) -> Tensor:
        """``[M, L]``: who is blocked with a finished part, blocked after service. ``empty`` ``[M, L]``: who has no part
        in its hands whatever lies before it, since it is off or in service; None: nobody."""
        if empty is not None:
            level = level + empty[structure.consumer].to(level.dtype)  # a place less
        if self._plan.is_serial:
            return serial_blocked(level, structure.capacity)
        consumer, producer = (e[:, None].expand_as(level) for e in (structure.consumer, structure.producer))
        blocked = torch.zeros_like(structure.present)
        return branching_blocked(level - structure.capacity, blocked, consumer, producer, self._plan.rounds)

    def stored(self, level: Tensor, structure: Structure, empty: Tensor | None = None) -> Tensor:
        """``[K, L]``: parts in the places of the buffers themselves; ``empty`` as in :meth:`held`."""
        if not self.after_service:
            return level
        held = self.held(level, structure, empty)
        over = level - structure.capacity
        waits = held[structure.consumer]
        if empty is not None:
            waits = waits | empty[structure.consumer]
        kept = (over >= 2) | ((over >= 1) & waits)  # by the producer, for this buffer
        return level - kept.to(torch.int64) - (~waits & (level > 0)).to(torch.int64)


def empty_handed(s: Mapping[str, Tensor]) -> Tensor:
    """``[M, L]``: who has no part in its hands, whatever lies before it: off, in stand-by, warming up or served."""
    empty = (s["mode"] != ON) | (s["ready_in"] > 0)
    return empty | s["failed"] | (s["doing"] != NOTHING) if "doing" in s else empty
