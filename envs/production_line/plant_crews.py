"""The crews of the emulated line: calls that queue, spares in store, and services, repairs and inspections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import simpy

from .config import Service
from .plant_changes import Changes, Events
from .plant_station import DOWN, SERVICE, Station


class PlantCrews:
    """``free`` crews, the ``queue`` of machines that wait for one, by their places from 0, and ``spares`` in store,
    infinite where they are never short. ``first``: the machine that the dispatcher puts first, from 1; 0 for none."""

    def __init__(
        self, env: simpy.Environment, changes: Changes, stations: Sequence[Station], service: Service, slot_s: float
    ) -> None:
        self._env, self._changes, self._stations, self._slot_s = env, changes, stations, slot_s
        self._lead_slots = service.spare_lead_slots
        self.free, self.queue, self.first = service.crews, list[int](), 0
        self.spares = math.inf if service.spares is None else float(service.spares)

    def begins(self, s: Station) -> bool:
        """Whether a crew is there for what is asked of a machine that works; it queues, and works on, while none is."""
        if bool(s.service) != s.calls:
            s.calls, s.called_s = bool(s.service), self._env.now
            (self.queue.append if s.calls else self.queue.remove)(s.place)
        return s.calls and self._may_begin(s)

    def serve(self, s: Station) -> Events:
        """Wait for a crew, and for a spare where the work uses one up; then the work."""
        upkeep = s.machine.upkeep
        assert upkeep is not None  # only stations with upkeep come here
        if s.failed and s.calls:  # a failure is a call of its own: it comes after those that stand
            s.calls = False
            self.queue.remove(s.place)
            self._changes.tell()
        if not s.calls:
            s.calls, s.called_s = True, self._env.now
            self.queue.append(s.place)
        while not self._may_begin(s):
            s.enter(DOWN, self._env.now)
            yield self._changes.next
        self.queue.remove(s.place)
        self.free -= 1
        s.calls = False
        looks = _only_looks(s)
        if s.failed or (s.damage is not None and s.damage.failed and not looks):  # it may be found in a service
            slots, cost = upkeep.corrective_slots, upkeep.corrective_cost
        elif looks:
            slots, cost = upkeep.inspection_slots, upkeep.inspection_cost
        else:
            slots, cost = upkeep.preventive_slots, upkeep.preventive_cost
        s.service_cost += cost
        s.renewals += not looks
        s.enter(SERVICE, self._env.now)
        if not looks and math.isfinite(self.spares):
            self.spares -= 1
            self._env.process(self._restock())
        lasts_s = slots * self._slot_s * s.troubles.repair_factor
        s.served_at_s = self._env.now + lasts_s
        yield self._env.timeout(lasts_s)
        self.free += 1
        if looks:
            s.look()
        else:
            s.renew()
        s.service = 0  # once asked, once done
        self._changes.tell()
        if s.failed:  # an inspection has found it
            yield from self.serve(s)

    def free_by(self, time_s: float) -> int:
        """Crews that are free now or whose work ends by then."""
        return self.free + sum(s.state == SERVICE and s.served_at_s <= time_s for s in self._stations)

    def call(self, s: Station) -> int:
        """What it waits for: 0 nothing, 1 a preventive service, 2 a repair, 3 an inspection."""
        return 0 if s.place not in self.queue else 2 if s.failed else 3 if _only_looks(s) else 1

    def _may_begin(self, s: Station) -> bool:
        """Whether the next free crew is for this machine: who waits for a spare lets others pass."""
        wanted = [p for p in self.queue if self.spares >= 1 or _only_looks(self._stations[p])]
        if self.free < 1 or s.place not in wanted:
            return False
        return s.place == (self.first - 1 if self.first - 1 in wanted else wanted[0])

    def _restock(self) -> Events:
        yield self._env.timeout(self._lead_slots * self._slot_s)
        self.spares += 1
        self._changes.tell()


def _only_looks(s: Station) -> bool:
    return s.service == 2 and not s.failed
