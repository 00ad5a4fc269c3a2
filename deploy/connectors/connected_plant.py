"""A plant made of any connector: telemetry with quality and time, also where the protocol has neither."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Quality, Telemetry
from .contract import Connector, Outcome, Peer, Steppable, WriteStatus

FloatArray = NDArray[np.float64]
T = TypeVar("T")

UNCERTAIN_PERIODS = 2.0
"""A heartbeat that has stood for longer makes what was good uncertain: it should have moved once, and may just."""
SILENT_PERIODS = 3.0
"""A heartbeat that has stood for longer makes all readings bad."""
FRESH_PERIODS = 0.25
"""An answer younger than this still tells the peer's time."""
VAIN_PERIODS = 0.2
"""A call that failed after longer than this has waited for a peer that is silent, not heard a refusal."""
SPARED_PERIODS = 1.0
"""For so long after it the next reading fails at once, and no other: it would be the second wait in one period."""
MUTE_PERIODS = 2.0
"""For so long after it all but readings fail at once, until there is an answer. Were each to wait, a loop would decide
too late what to do instead; and how long its own work takes between the calls must not make the difference."""
EARLIER_PU = 0.01
"""Share of a period by which the question for the next beat moves ahead, until it comes too early once."""


class ConnectedPlant:
    """Keeps the :class:`~twinloop.envs.plant.Plant` contract over a connector; nothing is sent before the first call.

    Quality is the worse of what the protocol says and what the heartbeat's age says. Without a clock of the peer's,
    times are our own UTC clock's. ``in_control`` False leaves the equipment's watchdog to run. ``refusals`` are the
    commands that were not accepted in the last ``write``, by full name, with the reason.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._answered_at_s = -math.inf
        self._has_told = False
        self._moves_at_s: float | None = None
        self._sequence = 0
        self._seen_beat: int | None = None
        self._waited_until_s = -math.inf
        self._is_silent = self._spares_reading = False
        self.in_control = True
        self.refusals: dict[str, str] = {}

    @property
    def nameplate(self) -> Nameplate:
        return self._connector.nameplate

    @property
    def clock_s(self) -> float:
        """The peer's clock; that of an answer just received serves, since a request for it would be as old."""
        peer = self._connector.peer
        if peer is not None and time.monotonic() - self._answered_at_s < FRESH_PERIODS * self._period_s(peer):
            return _now_s(peer)
        return _now_s(self._asked(lambda: self._connector.heartbeat(send=False)))

    @property
    def wall_period_s(self) -> float | None:
        """How long the peer's period lasts on the wall; None for one that somebody steps."""
        return self._period_s(self._asked(lambda: self._connector.heartbeat(send=False))) or None

    def read(self) -> Telemetry:
        plate = self.nameplate
        measured, commanded = plate.signal_names("measured"), plate.signal_names("commanded")
        readings = self._asked(lambda: self._connector.read([*measured, *commanded]), is_reading=True)
        peer = self._peer()
        self._answered_at_s = time.monotonic()
        n = len(measured)
        quality = np.maximum(readings.quality[:n], self._quality(peer)).astype(np.int8)
        self._sequence += 1
        self._seen_beat = peer.beat
        return Telemetry(
            values=_groups(plate, "measured", readings.values[:n]),
            source_time_s=_groups(plate, "measured", readings.source_time_s[:n]),
            quality=_groups_of_quality(plate, quality),
            received_time_s=_now_s(peer),
            sequence=self._sequence,
            notes={
                "heartbeat": peer.beat,
                "heartbeat_age_s": peer.age_s,
                "watchdog_tripped": peer.is_tripped,
                "plant_failed": peer.has_failed,
                "obeyed": _groups(plate, "commanded", readings.values[n:]),
            },
        )

    def write(self, commands: Arrays) -> Arrays:
        """Write the commands of the groups given; what the peer then holds, ``[N, A]`` of all groups."""
        plate = self.nameplate
        wanted: dict[str, float] = {}
        for name, values in commands.items():
            group = next((g for g in plate.groups if g.name == name), None)
            if group is None:
                raise PlantError(
                    f"{self._connector.endpoint}: no group {name!r}; it has {[g.name for g in plate.groups]}"
                )
            array = np.asarray(values, dtype=np.float64)
            if array.shape != (group.n_assets, len(group.commanded)):
                raise PlantError(
                    f"{self._connector.endpoint}: commands for {name!r} have shape {array.shape}, expected "
                    f"{(group.n_assets, len(group.commanded))} (assets, commanded signals)"
                )
            full = [f"{name}/{asset}/{signal.name}" for asset in group.assets for signal in group.commanded]
            wanted |= dict(zip(full, array.ravel().tolist(), strict=True))
        outcomes = self._asked(lambda: self._connector.write(wanted))
        self._has_told = True  # a write carries our heartbeat
        self.refusals = {
            n: outcome.reason or outcome.status.value
            for n, outcome in outcomes.items()
            if outcome.status is not WriteStatus.ACCEPTED
        }
        return _groups(plate, "commanded", self._held(plate.signal_names("commanded"), outcomes))

    def advance(self) -> None:
        """Wait until the peer's heartbeat moves, or step a peer that is stepped; tell ours first, if ``in_control``
        and no write of this period has.

        Raises :class:`PlantError` when it has stood for three periods, and from then on after one more period each.
        """
        has_told, self._has_told = self._has_told, False
        peer = self._connector.peer
        if peer is None or (self.in_control and not has_told):
            peer = self._asked(lambda: self._connector.heartbeat(send=self.in_control and not has_told))
        period_s = self._period_s(peer)
        if period_s == 0.0:
            if not isinstance(self._connector, Steppable):
                raise PlantError(
                    f"{self._connector.endpoint}: the plant there goes on only when it is stepped on its own side; "
                    "serve it with a speed"
                )
            self._connector.step()
            return
        seen = peer.beat if self._seen_beat is None else self._seen_beat
        self._seen_beat = self._wait(peer, seen, period_s).beat

    def _wait(self, peer: Peer, seen: int, period_s: float) -> Peer:
        """Ask when the next beat is due, rather than all the time, and from then on until it has come."""
        give_up_s = time.monotonic() + max(SILENT_PERIODS * period_s - peer.age_s, period_s)
        pause_s = min(max(period_s / 20.0, 0.002), 0.25)
        due_s = None if self._moves_at_s is None else self._moves_at_s + period_s
        self._moves_at_s, asked = None, 0
        while peer.beat == seen:
            if time.monotonic() > give_up_s:
                raise PlantError(
                    f"{self._connector.endpoint}: the server answers, but its heartbeat has stood at {seen} for "
                    f"{peer.age_s:.3g} s, over {SILENT_PERIODS:g} periods of {period_s:g} s; is the plant behind it "
                    "stuck?"
                )
            is_first = asked == 0 and due_s is not None
            time.sleep(max(due_s - time.monotonic(), 0.0) if is_first and due_s is not None else pause_s)
            peer = self._asked(lambda: self._connector.heartbeat(send=False))
            asked += 1
        self._answered_at_s = now_s = time.monotonic()
        if asked > 1:
            self._moves_at_s = now_s
        elif due_s is not None and now_s - due_s < pause_s:
            # It was there when asked: perhaps for a while, so ask a little earlier next time.
            self._moves_at_s = due_s - period_s * EARLIER_PU
        return peer

    def _asked(self, question: Callable[[], T], *, is_reading: bool = False) -> T:
        """Ask the peer, unless it was just waited for in vain; raises :class:`PlantError`."""
        begun_s, peer = time.monotonic(), self._connector.peer
        period_s = 0.0 if peer is None else self._period_s(peer)
        if self._is_silent and self._is_spared(begun_s - self._waited_until_s, period_s, is_reading):
            raise PlantError(f"{self._connector.endpoint}: silent; asked again by the next reading")
        try:
            answer = question()
        except PlantError:
            now_s = time.monotonic()
            if period_s > 0.0 and now_s - begun_s > VAIN_PERIODS * period_s:
                self._waited_until_s, self._is_silent, self._spares_reading = now_s, True, True
            raise
        self._is_silent = False
        return answer

    def _is_spared(self, since_s: float, period_s: float, is_reading: bool) -> bool:
        """Whether a call, so long after a wait in vain, fails at once; a reading does once for each such wait."""
        if not is_reading:
            return since_s < MUTE_PERIODS * period_s
        spared, self._spares_reading = self._spares_reading, False
        return spared and since_s < SPARED_PERIODS * period_s

    def close(self) -> None:
        """Leave the peer; a later call connects again."""
        self._connector.close()

    def _peer(self) -> Peer:
        peer = self._connector.peer
        assert peer is not None  # an answer has just come; narrows the type
        return peer

    def _period_s(self, peer: Peer) -> float:
        return self.nameplate.period_s if peer.period_s is None else peer.period_s

    def _quality(self, peer: Peer) -> Quality:
        """What the heartbeat's age says; that of a plant which somebody steps says nothing."""
        period_s = self._period_s(peer)
        if peer.has_failed or (period_s > 0.0 and peer.age_s > SILENT_PERIODS * period_s):
            return Quality.BAD
        is_late = period_s > 0.0 and peer.age_s > UNCERTAIN_PERIODS * period_s
        return Quality.UNCERTAIN if is_late else Quality.GOOD

    def _held(self, names: Sequence[str], outcomes: dict[str, Outcome]) -> FloatArray:
        held = {name: outcome.held for name, outcome in outcomes.items()}
        others = [name for name in names if name not in held]
        if others:
            held |= dict(zip(others, self._connector.read(others).values.tolist(), strict=True))
        return np.array([held[name] for name in names], dtype=np.float64)


def _now_s(peer: Peer) -> float:
    return time.time() if peer.clock_s is None else peer.clock_s


def _groups(plate: Nameplate, kind: str, flat: FloatArray) -> dict[str, FloatArray]:
    """``[signals]`` of the site as ``[N, signals]`` a group."""
    found: dict[str, FloatArray] = {}
    at = 0
    for group in plate.groups:
        n = len(getattr(group, kind))
        found[group.name] = flat[at : at + group.n_assets * n].reshape(group.n_assets, n).copy()
        at += group.n_assets * n
    return found


def _groups_of_quality(plate: Nameplate, flat: NDArray[np.int8]) -> dict[str, NDArray[np.int8]]:
    return {name: array.astype(np.int8) for name, array in _groups(plate, "measured", flat.astype(np.float64)).items()}
