"""The plant as the loop may use it: whatever a driver raises becomes a missing answer and a count."""

from __future__ import annotations

import logging
import time

from ..envs.plant import Arrays, Plant, Telemetry

_LOG = logging.getLogger(__name__)


class PlantLink:
    """Calls a plant without ever raising, save KeyboardInterrupt.

    ``errors``: failed calls so far; ``lost_periods``: periods in a row, up to the last finished one, in which a call
    failed; ``last_error``: what the newest failure said. The log gets one line when an outage begins and one when
    it ends.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.errors = 0
        self.lost_periods = 0
        self.last_error = ""
        self._errors_before = 0
        self._is_out = False
        self._clock = (time.time(), time.monotonic())

    def read(self) -> Telemetry | None:
        try:
            return self._plant.read()
        except Exception as error:  # noqa: BLE001 - a driver is foreign code: whatever it raises, the loop goes on
            self._failed("read", error)
            return None

    def write(self, commands: Arrays) -> Arrays | None:
        """What the plant accepted, or None if it is unknown whether the write arrived."""
        try:
            return self._plant.write({name: array.copy() for name, array in commands.items()})
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("write", error)
            return None

    def advance(self, in_control: bool = True) -> None:
        """Wait for the next period. Without ``in_control``, a driver that can do so leaves the equipment's own time-out
        to run: who does not command must not keep it from acting.
        """
        try:
            if hasattr(self._plant, "in_control"):
                self._plant.in_control = in_control
            self._plant.advance()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("advance", error)

    def now_s(self) -> float:
        """The plant's clock; while it cannot be read, its last value carried on by our own monotonic clock."""
        try:
            now_s = float(self._plant.clock_s)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("clock", error)
            last_s, at_s = self._clock
            return last_s + time.monotonic() - at_s
        self._clock = (now_s, time.monotonic())
        return now_s

    def finish_period(self, retry_wait_s: float) -> None:
        """Close the books of a period, and pause if the plant failed in it, so that a dead one is not hammered."""
        failed = self.errors > self._errors_before
        self._errors_before = self.errors
        if failed:
            self.lost_periods += 1
            time.sleep(retry_wait_s)
            return
        if self._is_out:
            _LOG.warning("plant answers again")
        self._is_out, self.lost_periods = False, 0

    def _failed(self, call: str, error: Exception) -> None:
        self.errors += 1
        self.last_error = f"{call}: {type(error).__name__}: {error}"
        if not self._is_out:
            _LOG.warning("plant failed in %s; asking again", self.last_error)
        self._is_out = True
