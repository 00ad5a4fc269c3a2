"""The OPC UA connector: one request reads all, one writes all; silence is seen by our own clock."""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from asyncua import ua as _typed_ua

from ...envs.errors import ConfigurationError, NameplateError, PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Quality
from ..drivers import opcua_address as address
from .command_fault import command_fault
from .contract import Capabilities, Listener, Outcome, Peer, Readings, Subscription, WriteStatus
from .opcua_link import Link
from .opcua_meeting import Met, meet, seconds
from .opcua_security import ClientSecurity, explained, load_client_security
from .polling import Polling

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
T = TypeVar("T")

_HEAD = (address.HEARTBEAT, address.CLOCK, address.WATCHDOG, address.WALL_PERIOD)
_KINDS: tuple[Literal["measured", "commanded"], ...] = ("measured", "commanded")
_BACK_OFF_PERIODS = (0.0, 0.5, 1.0, 2.0)
"""Pause after the n-th failure in a row, in periods: short, since a peer that is back must be noticed soon."""
_LONGEST_PAUSE_S = 5.0
_MOST_VAIN = 2
"""Calls in a row without an answer after which the link is given up and made anew, which costs more than a call."""
_TIMEOUT_PERIODS = 0.5
_TIMEOUTS_S = (0.2, 4.0)
"""A call made up to one period after the peer fell silent ends in the second, so that two decisions without a reading
are over before the third does."""


class OpcUaConnector:
    """Keeps the :class:`~.contract.Connector` contract over OPC UA; connects on first use.

    ``expected`` refuses a server of another nameplate. ``security``: a client's folder of certificates; None speaks
    without security, and only to the loopback. ``timeout_s`` is what one call may take; by default half of the
    peer's period on the wall, from 0.2 s to 4 s. Connecting goes on in the background where it takes longer than
    a call may. A reading without a value is NaN with quality BAD; one without a source time is from 1970, so stale by
    any rule.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        expected: Nameplate | None = None,
        *,
        security: str | Path | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._expected = expected
        self._folder = security
        self._timeout_s = timeout_s
        self._security: ClientSecurity | None = None
        self._link: Link[Met] | None = None
        self._met: Met | None = None
        self._nodes: dict[str, address.Point] = {}
        self._requests: dict[tuple[str, ...], list[Any]] = {}
        self._turn = threading.RLock()
        self._failures = 0
        self._vain = 0
        self._retry_at_s = 0.0
        self._peer: Peer | None = None
        self._moved_at_s = 0.0
        self._beat = 0

    @property
    def endpoint(self) -> str:
        return self._endpoint

    @property
    def nameplate(self) -> Nameplate:
        if self._met is not None:
            return self._met.nameplate
        if self._expected is None:
            self._ask(_nothing)
        found = self._expected if self._met is None else self._met.nameplate
        assert found is not None  # _ask has met the server, or raised
        return found

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            protocol="OPC UA",
            has_identity=self._folder is not None,
            has_encryption=self._folder is not None,
            has_source_time=True,
            has_quality=True,
            has_atomic_batch=False,
            has_push=False,
        )

    @property
    def peer(self) -> Peer | None:
        peer = self._peer
        return None if peer is None else replace(peer, age_s=time.monotonic() - self._moved_at_s)

    def read(self, names: Sequence[str]) -> Readings:
        wanted = tuple(names)

        async def question(link: Link[Met]) -> list[Any]:
            return await link.read(self._request(link, wanted))

        readings = self._ask(question)
        self._noted(readings[: len(_HEAD)])
        rows = readings[len(_HEAD) :]
        values = np.array([_number(r) for r in rows], dtype=np.float64)
        quality = np.array([_quality(r) for r in rows], dtype=np.int8)
        quality[~np.isfinite(values)] = Quality.BAD
        return Readings(values, quality, np.array([seconds(r.SourceTimestamp) for r in rows], dtype=np.float64))

    def write(self, commands: Mapping[str, float]) -> dict[str, Outcome]:
        """One request with all commands and a heartbeat, each judged for itself, and one that reads them back."""
        points = self._points(commands, "commanded")
        faults = {name: command_fault(points[name].signal, value) for name, value in commands.items()}
        sent = [name for name in commands if not faults[name]]
        self._beat = (self._beat + 1) % 2**32
        nodes = [points[name].node for name in sent]

        async def question(link: Link[Met]) -> tuple[list[Any], list[Any]]:
            statuses = await link.write(nodes, [float(commands[name]) for name in sent], self._beat)
            return statuses[1:], await link.read([link.node(points[name].node) for name in commands])

        statuses, held = self._ask(question)
        refused = {name: s.name for name, s in zip(sent, statuses, strict=True) if not s.is_good()}
        found: dict[str, Outcome] = {}
        for name, reading in zip(commands, held, strict=True):
            status = WriteStatus.ACCEPTED
            if faults[name] or name in refused:
                status = WriteStatus.NOT_SENT if faults[name] else WriteStatus.REFUSED
            found[name] = Outcome(status, _number(reading), faults[name] or refused.get(name, ""))
        return found

    def subscribe(self, names: Sequence[str], listener: Listener, period_s: float) -> Subscription:
        """A thread reads each ``period_s``: one request, as control itself makes, which also notices silence."""
        wanted = tuple(names)
        return Polling(lambda: self.read(wanted), listener, period_s).start()

    def heartbeat(self, *, send: bool = True) -> Peer:
        if send:
            self._beat = (self._beat + 1) % 2**32

        async def question(link: Link[Met]) -> tuple[list[Any], list[Any]]:
            statuses = await link.write([], [], self._beat) if send else []
            return statuses, await link.read([link.node(name) for name in _HEAD])

        statuses, head = self._ask(question)
        peer = self._noted(head)
        if statuses and not statuses[0].is_good():
            raise PlantError(
                f"{self._endpoint}: the server refused our heartbeat ({statuses[0].name}): this user may only look on, "
                "or another one is in control"
            )
        return peer

    def step(self) -> None:
        """Make a stepped plant go on by one period; raises :class:`PlantError` for one that keeps its own time."""
        self._ask(lambda link: link.step())

    def close(self) -> None:
        """Leave the server; a later call connects again."""
        with self._turn:
            link, self._link = self._link, None
            if link is not None:
                link.close(is_polite=True)

    def _request(self, link: Link[Met], names: tuple[str, ...]) -> list[Any]:
        """Nodes to read for these names; kept, since building them costs as much as asking."""
        found = self._requests.get(names)
        if found is None:
            points = self._points(names)
            found = [link.node(name) for name in (*_HEAD, *(points[name].node for name in names))]
            if len(self._requests) >= 8:  # a handful of batches is asked for again and again; others are not kept
                self._requests.clear()
            self._requests[names] = found
        return found

    def _points(self, names: Sequence[str] | Mapping[str, float], kind: str = "") -> dict[str, address.Point]:
        if not self._nodes:
            plate = self.nameplate
            self._nodes = {p.name: p for k in _KINDS for p in address.points(plate, k)}
        known = {name: self._nodes.get(name) for name in names}
        missing = [name for name, point in known.items() if point is None or kind not in ("", point.kind)]
        if missing:
            few = [name for name, point in self._nodes.items() if kind in ("", point.kind)][:4]
            raise PlantError(
                f"{self._endpoint}: no {kind + ' ' if kind else ''}signal {missing[0]!r} here; this site has "
                f"{', '.join(few)} ..."
            )
        return {name: point for name, point in known.items() if point is not None}

    def _noted(self, head: Sequence[Any]) -> Peer:
        """Take note of what the site's own variables say."""
        beat, clock, watchdog, period = head
        number, now_s = int(_number(beat)) if math.isfinite(_number(beat)) else 0, time.monotonic()
        with self._turn:
            before = self._peer
            has_moved = before is None or before.beat != number
            if has_moved:
                self._moved_at_s = now_s
            clock_s, period_s = _number(clock), _number(period)
            self._peer = Peer(
                beat=number,
                age_s=now_s - self._moved_at_s,
                moved_time_s=time.time() if has_moved or before is None else before.moved_time_s,
                clock_s=clock_s if math.isfinite(clock_s) else None,
                period_s=period_s if math.isfinite(period_s) else None,
                is_tripped=watchdog.Value is not None and watchdog.Value.Value is True,
                has_failed=False,  # a plant that fails is told by the status of its values
            )
            return self._peer

    def _ask(self, question: Callable[[Link[Met]], Awaitable[T]]) -> T:
        """Connect if needed and ask; whatever goes wrong becomes a :class:`PlantError`, a broken link is dropped."""
        host, _ = address.host_and_port(self._endpoint)
        with self._turn:
            wait_s = self._retry_at_s - time.monotonic()
            if self._link is None and wait_s > 0:
                raise PlantError(f"{self._endpoint}: not connected; trying again in {wait_s:.1f} s")
            timeout_s = self._timeout()
            deadline_s = time.monotonic() + timeout_s
            try:
                link = self._open(host) if self._link is None else self._link
                self._greeted(link, deadline_s)
                answer = link.call(lambda: question(link), deadline_s)
            except (NameplateError, PlantError):
                self._drop()
                raise
            except ConfigurationError as error:
                self._drop()
                raise PlantError(f"{self._endpoint}: {error}; nothing was sent") from error
            except (OSError, TimeoutError, ua.UaError, concurrent.futures.CancelledError, RuntimeError) as error:
                if not self._may_still_answer(error):
                    self._drop()
                why = explained(error, self._security)
                if why:
                    raise PlantError(f"{self._endpoint}: {why}; nothing was sent") from error
                said = str(error) or type(error).__name__
                raise PlantError(
                    f"{self._endpoint}: no answer within {timeout_s:g} s ({said}); is the server running, and the "
                    "address right?"
                ) from error
            self._failures = self._vain = 0
            return answer

    def _may_still_answer(self, error: BaseException) -> bool:
        """Whether to keep the link: it is still being made, or was slow for the first time, as on a busy machine."""
        if self._link is None or not isinstance(error, TimeoutError):
            return False
        if not self._link.greeting.done():
            return not self._link.is_hopeless
        self._vain += 1
        return self._vain < _MOST_VAIN

    def _open(self, host: str) -> Link[Met]:
        if self._folder is None and not address.is_loopback(host):
            raise PlantError(
                f"{self._endpoint}: is on another machine, and without security anybody on the way could read and "
                "change commands: give a client's folder of certificates (--security DIR; `twinloop certificates make` "
                "makes one); nothing was sent"
            )
        # Read anew at each connection: a certificate that was renewed counts at once.
        self._security = None if self._folder is None else load_client_security(self._folder)
        expected, known = self._expected, self._met
        self._link = Link(self._endpoint, self._security, lambda link: meet(link, self._endpoint, expected, known))
        return self._link

    def _greeted(self, link: Link[Met], deadline_s: float) -> None:
        met = link.greeting.result(max(deadline_s - time.monotonic(), 0.001))
        if met is not self._met:
            self._met, self._nodes = met, {}
            self._requests.clear()

    def _timeout(self) -> float:
        shortest, longest = _TIMEOUTS_S
        if self._timeout_s is not None:
            return self._timeout_s
        period_s = self._peer.period_s if self._peer is not None else None
        return min(max(_TIMEOUT_PERIODS * period_s, shortest), longest) if period_s else longest

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._requests.clear()  # they name the namespace by the number that this server gave it
        if link is not None:
            link.close(is_polite=False)
        period_s = (self._peer.period_s if self._peer is not None else None) or 1.0
        pause_s = _BACK_OFF_PERIODS[min(self._failures, len(_BACK_OFF_PERIODS) - 1)] * period_s
        self._failures += 1
        self._vain = 0
        self._retry_at_s = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)


async def _nothing(link: Link[Met]) -> None:
    """Ask for nothing more than a connection."""


def _number(reading: Any) -> float:
    value: Any = reading.Value.Value if reading.Value is not None else None
    return float(value) if isinstance(value, int | float) else math.nan


def _quality(reading: Any) -> Quality:
    """Severity bits of the status code (OPC 10000-4, 7.39)."""
    severity = reading.StatusCode.value >> 30 if reading.StatusCode is not None else 0
    return Quality(min(severity, Quality.BAD))
