"""The second process: when the control loop's heartbeat stops, it takes the equipment to its safe state.

It does the same when a stop is ordered and the control loop, hung or not, does not carry it out: that one is killed
first, since a plant has one master. It asks no policy and no shield: the loop's last standby commands if the plant can
still reach them, then the limiter of last resort, step by step. After that, and wherever the plant does not answer, it
writes nothing more, so that the equipment's own time-out acts. It is no certified safety function; that one stands
below it, in the equipment.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.constraint import Declaration, declare
from ..envs.errors import PlantError
from ..envs.plant import Plant
from .heartbeat import Lines, Silence
from .held_stop import HeldStop
from .safe_walk import SafeWalk
from .shield.command_memory import CommandMemory
from .transition import told_commands

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class Report:
    """How a watch ended. ``why``: what made it act, empty after a good-bye; ``safe``: whether the plant is in its safe
    state; ``steps``: writes that it took; ``first_s`` and ``took_s``: from the decision to act to the first write that
    the plant accepted, and to the last.
    """

    why: str = ""
    safe: bool = False
    steps: int = 0
    first_s: float = float("nan")
    took_s: float = 0.0
    detail: str = ""


class Watchdog:
    """Watches one plant's control loop.

    ``descriptor``: where heartbeats come from; ``answer``: called with each message back. ``most_steps``: writes after
    which it leaves the plant to its own time-out; ``patience``: failures of the plant in a row after which it does.
    ``declaration``: the site's limits and safe states; None: those that the plant's nameplate implies. ``stop``: the
    stop file that it also looks at. What the loop
    changed before is not known here, so that dwells and counted switches are waited out from the first step on.
    """

    def __init__(
        self,
        plant: Plant,
        silence: Silence,
        descriptor: int,
        answer: Callable[[Mapping[str, Any]], None],
        *,
        most_steps: int = 200,
        patience: int = 5,
        declaration: Declaration | None = None,
        stop: HeldStop | None = None,
    ) -> None:
        self._plant, self._silence, self._answer = plant, silence, answer
        self._descriptor = descriptor
        self._most_steps, self._patience = most_steps, patience
        self._declaration = declaration
        self._stop = stop

    def watch(self) -> Report:
        """Return after a good-bye, or after having acted."""
        declaration = self._declaration or declare(self._plant.nameplate)
        walk = SafeWalk(declaration)
        self._plant.read()  # the way to the plant is open before it is needed
        self._answer(
            {
                "ready": self._plant.nameplate.site,
                "timeout_s": self._silence.timeout_s,
                "limits": "nameplate" if self._declaration is None else "declaration",
                "declaration": declaration.hash,
            }
        )
        lines = Lines(self._descriptor)
        standby: Any = None
        while True:
            longest_s = _LONGEST_WAIT_S if self._stop is None else min(self._stop.look_s, _LONGEST_WAIT_S)
            wait_s = min(max(self._silence.left_s(time.monotonic()), 0.0), longest_s)
            select.select([self._descriptor], [], [], wait_s)
            # Read before judging: beats may have come while this process itself stood still.
            for message in lines.read():
                if message.get("bye") is True:
                    return Report()
                if self._silence.heard(message.get("beat"), time.monotonic()):
                    standby = message.get("standby")
                    if self._stop is not None:
                        self._stop.told(message.get("stopped"))
                    self._answer({"heard": message["beat"]})
            if lines.ended:
                return self._act(walk, standby, "the control process ended without a good-bye")
            if self._stop is not None and self._stop.is_ignored(time.monotonic()):
                why = f"a stop was not carried out for over {self._stop.patience_s:g} s"
                killed = self._stop.end_control()
                return self._act(walk, standby, f"{why}; process {self._stop.control_pid} killed" if killed else why)
            if self._silence.has_stopped(time.monotonic()):
                return self._act(walk, standby, f"no heartbeat for over {self._silence.timeout_s:g} s")

    def _act(self, walk: SafeWalk, standby: Any, why: str) -> Report:
        begun_s, first_s = time.monotonic(), float("nan")
        _LOG.error("%s: taking the plant to its safe state", why)
        self._answer({"acting": why})
        steps = failures = 0
        detail = ""
        memory, before = walk.start(), None
        while steps < self._most_steps and failures < self._patience:
            try:
                obeyed = told_commands(self._plant.read()) or {}
                applied = {n: np.asarray(obeyed.get(n, np.full(shape, np.nan))) for n, shape in self._shapes().items()}
                if steps and walk.has_arrived(applied):
                    return Report(why, True, steps, first_s, time.monotonic() - begun_s)
                if before is not None:
                    memory = walk.after(memory, before, applied)
                told = _standby(walk, standby, applied, memory) if steps == 0 else None
                self._plant.write(told or walk.step(applied, walk.period_s, memory))
                before, steps, failures = applied, steps + 1, 0
                if steps == 1:
                    first_s = time.monotonic() - begun_s
                self._plant.advance()
            except PlantError as error:
                detail, failures = str(error), failures + 1
                _LOG.error("%s", error)
                time.sleep(min(0.05 * 2**failures, _LONGEST_WAIT_S))
        _LOG.error("the plant is left to its own time-out after %d writes", steps)
        return Report(why, False, steps, first_s, time.monotonic() - begun_s, detail)

    def _shapes(self) -> dict[str, tuple[int, int]]:
        return {g.name: (g.n_assets, len(g.commanded)) for g in self._plant.nameplate.groups}


def _standby(
    walk: SafeWalk, standby: Any, applied: dict[str, NDArray[np.float64]], memory: CommandMemory
) -> dict[str, NDArray[np.float64]] | None:
    """The loop's own standby where the plant can reach it from what it obeys now."""
    try:
        told = {name: np.asarray(standby[name], dtype=np.float64) for name in applied}
        if walk.allows(told, applied, memory):
            return told
    except (TypeError, ValueError, KeyError):
        _LOG.warning("the last heartbeat had no usable standby commands")
    return None
