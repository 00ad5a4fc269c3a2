"""A plant behind an OPC UA server, as the runtime sees it.

One request reads all signals (value, status and source time), one writes all commands. Each connection has an event
loop in a thread of its own, which ends with it: nothing of a broken connection is left behind.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from asyncua import ua as _typed_ua
from asyncua.client.client import Client
from numpy.typing import NDArray

from ...envs.errors import NameplateError, PlantError
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays, Quality, Telemetry
from . import opcua_address as address

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
T = TypeVar("T")
FloatArray = NDArray[np.float64]

_BACK_OFF_S = (0.0, 0.1, 0.3, 1.0, 3.0, 5.0)
"""Wait after the n-th failure in a row before the server is asked again."""


class OpcUaPlant:
    """Keeps the Plant contract over OPC UA; connects on first use.

    ``timeout_s`` is what one call may take: a server that is dead, silent or gone raises :class:`PlantError` within it.
    The next call connects again by itself, with a growing pause in which calls fail at once. A reading without a value
    is NaN with quality BAD, as OPC UA has it; one without a source time is from 1970, so stale by any rule.
    ``expected`` refuses a server of another nameplate.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        timeout_s: float = 4.0,
        expected: Nameplate | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._nameplate = expected
        self._link: _Link | None = None
        self._failures = 0
        self._retry_at_s = 0.0
        self._sequence = 0
        self._client_beat = 0
        self._seen_beat = 0
        self.in_control = True
        """Whether ``advance`` keeps the equipment's watchdog content; a client that only looks on must not."""
        self.refusals: dict[str, str] = {}
        """Full names of the commands that the server refused in the last ``write``, with its status."""

    @property
    def nameplate(self) -> Nameplate:
        if self._nameplate is None:
            self._ask(_nothing)
        assert self._nameplate is not None  # _ask has set it, or raised
        return self._nameplate

    @property
    def clock_s(self) -> float:
        return float(self._ask(lambda link: link.read([address.CLOCK]))[0].Value.Value)

    @property
    def wall_period_s(self) -> float | None:
        """How long the server's period lasts on the wall; None for one that its clients step."""
        (reading,) = self._ask(lambda link: link.read([address.WALL_PERIOD]))
        return float(reading.Value.Value) or None

    def read(self) -> Telemetry:
        shapes = {g.name: (g.n_assets, len(g.measured)) for g in self.nameplate.groups}
        measured, commanded = address.points(self.nameplate, "measured"), address.points(self.nameplate, "commanded")
        names = [address.HEARTBEAT, address.CLOCK, address.WATCHDOG, *(p.node for p in (*measured, *commanded))]
        beat, clock, watchdog, *readings = self._ask(lambda link: link.read(names))
        obeyed = self._gathered(commanded, readings[len(measured) :])
        values = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
        times = {name: np.zeros(shape) for name, shape in shapes.items()}
        quality = {name: np.full(shape, Quality.BAD, dtype=np.int8) for name, shape in shapes.items()}
        for point, reading in zip(measured, readings, strict=False):
            place = (point.row, point.column)
            values[point.group][place] = _number(reading)
            times[point.group][place] = _seconds(reading.SourceTimestamp)
            quality[point.group][place] = _quality(reading)
        self._sequence += 1
        self._seen_beat = int(beat.Value.Value)
        return Telemetry(
            values=values,
            source_time_s=times,
            quality=quality,
            received_time_s=float(clock.Value.Value),
            sequence=self._sequence,
            notes={
                "heartbeat": self._seen_beat,
                "watchdog_tripped": bool(watchdog.Value.Value),
                "obeyed": obeyed,  # what the equipment obeys, whoever wrote it
            },
        )

    def write(self, commands: Arrays) -> Arrays:
        """Write all commands and a heartbeat in one request, and read back what the server holds."""
        plate = self.nameplate
        wanted = {name: np.asarray(values, dtype=np.float64) for name, values in commands.items()}
        for name, values in wanted.items():
            group = next((g for g in plate.groups if g.name == name), None)
            if group is None:
                raise PlantError(f"{self._endpoint}: no group {name!r}; it has {[g.name for g in plate.groups]}")
            if values.shape != (group.n_assets, len(group.commanded)):
                raise PlantError(
                    f"{self._endpoint}: commands for {name!r} have shape {values.shape}, expected "
                    f"{(group.n_assets, len(group.commanded))} (assets, commanded signals)"
                )
        commanded = address.points(plate, "commanded")
        sent = [p for p in commanded if p.group in wanted]
        numbers = [float(wanted[p.group][p.row, p.column]) for p in sent]
        self._client_beat = (self._client_beat + 1) % 2**32

        async def exchange(link: _Link) -> tuple[list[Any], list[Any]]:
            statuses = await link.write([p.node for p in sent], numbers, self._client_beat)
            return statuses, await link.read([p.node for p in commanded])

        statuses, held = self._ask(exchange)
        self.refusals = {p.name: s.name for p, s in zip(sent, statuses, strict=True) if not s.is_good()}
        return self._gathered(commanded, held)

    def _gathered(self, commanded: tuple[address.Point, ...], readings: list[Any]) -> dict[str, FloatArray]:
        """Readings of all commanded nodes as ``[N, A]`` a group, NaN where there is no number."""
        found = {g.name: np.full((g.n_assets, len(g.commanded)), np.nan) for g in self.nameplate.groups}
        for point, reading in zip(commanded, readings, strict=True):
            found[point.group][point.row, point.column] = _number(reading)
        return found

    def advance(self) -> None:
        """Wait for the server's next period; step a server that is in stepped mode.

        Sends a heartbeat either way, if ``in_control``.
        """
        if self.in_control:
            self._client_beat = (self._client_beat + 1) % 2**32
            self._ask(lambda link: link.write([], [], self._client_beat))
        period, beat = self._ask(lambda link: link.read([address.WALL_PERIOD, address.HEARTBEAT]))
        wall_period_s = float(period.Value.Value)
        if wall_period_s == 0.0:
            self._ask(lambda link: link.step())
            return
        give_up_s = time.monotonic() + 2.0 * wall_period_s + self._timeout_s
        while int(beat.Value.Value) == self._seen_beat:
            if time.monotonic() > give_up_s:
                raise PlantError(
                    f"{self._endpoint}: the server answers, but its heartbeat has stood at {self._seen_beat} for over "
                    f"two periods of {wall_period_s:g} s; is the plant behind it stuck?"
                )
            time.sleep(min(max(wall_period_s / 20.0, 0.002), 0.25))
            (beat,) = self._ask(lambda link: link.read([address.HEARTBEAT]))
        self._seen_beat = int(beat.Value.Value)

    def close(self) -> None:
        """Leave the server; a later call connects again."""
        link, self._link = self._link, None
        if link is not None:
            link.close(is_polite=True)

    def _ask(self, question: Callable[[_Link], Awaitable[T]]) -> T:
        """Connect if needed and ask; whatever goes wrong becomes a :class:`PlantError`, and the link is dropped."""
        address.host_and_port(self._endpoint)
        deadline_s = time.monotonic() + self._timeout_s
        wait_s = self._retry_at_s - time.monotonic()
        if self._link is None and wait_s > 0:
            raise PlantError(f"{self._endpoint}: not connected; trying again in {wait_s:.1f} s")
        try:
            if self._link is None:
                self._link = _Link(self._endpoint, self._timeout_s)
                self._meet(self._link.open(deadline_s))
            link = self._link
            answer = link.call(lambda: question(link), deadline_s)
        except (NameplateError, PlantError):
            self._drop()
            raise
        except (OSError, TimeoutError, ua.UaError, concurrent.futures.CancelledError, RuntimeError) as error:
            self._drop()
            said = str(error) or type(error).__name__
            raise PlantError(
                f"{self._endpoint}: no answer within {self._timeout_s:g} s ({said}); is the server running, and the "
                "address right?"
            ) from error
        self._failures = 0
        return answer

    def _meet(self, text: tuple[str, str]) -> None:
        """Take the server's nameplate, or refuse a server of another one."""
        found = Nameplate.from_dict(json.loads(text[0]))
        if found.hash != text[1]:
            raise PlantError(f"{self._endpoint}: the server's nameplate does not match its own hash; update the server")
        if self._nameplate is None:
            self._nameplate = found
        elif found.hash != self._nameplate.hash:
            differences = "; ".join(self._nameplate.differences(found)) or "descriptions or tags"
            raise PlantError(f"{self._endpoint}: the server is of another plant than expected: {differences}")

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(is_polite=False)
        pause_s = _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)]
        self._failures += 1
        self._retry_at_s = time.monotonic() + pause_s


class _Link:
    """One connection, in a thread with an event loop that ends with it."""

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._thread = threading.Thread(target=self._run, name="opcua-client", daemon=True)
        self._opened: concurrent.futures.Future[tuple[str, str]] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_polite = False

    def open(self, deadline_s: float) -> tuple[str, str]:
        """Connect; returns the text of the server's nameplate and its hash."""
        self._thread.start()
        return self._opened.result(max(deadline_s - time.monotonic(), 0.0))

    def call(self, question: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        if self._loop is None or not self._thread.is_alive():
            raise ConnectionError("the connection has ended")

        async def bounded() -> T:
            return await question()

        future = asyncio.run_coroutine_threadsafe(bounded(), self._loop)
        try:
            return future.result(max(deadline_s - time.monotonic(), 0.001))
        except TimeoutError:
            future.cancel()
            raise

    def close(self, is_polite: bool) -> None:
        """End the thread; politely means that the session is closed on the server too."""
        self._is_polite = is_polite
        if self._loop is not None and self._closing is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            if is_polite:
                self._thread.join(self._timeout_s)

    async def read(self, names: list[str]) -> list[Any]:
        rows = [ua.ReadValueId(NodeId=self._node(name), AttributeId=ua.AttributeIds.Value) for name in names]
        return await self._client.uaclient.read(ua.ReadParameters(NodesToRead=rows))

    async def write(self, names: list[str], numbers: list[float], beat: int) -> list[Any]:
        """Write doubles and the client's heartbeat; statuses of the doubles."""
        rows = [self._row(name, ua.Variant(n, ua.VariantType.Double)) for name, n in zip(names, numbers, strict=True)]
        rows.append(self._row(address.CLIENT_HEARTBEAT, ua.Variant(beat, ua.VariantType.UInt32)))
        return (await self._client.uaclient.write(ua.WriteParameters(NodesToWrite=rows)))[:-1]

    async def step(self) -> None:
        request = ua.CallMethodRequest(ObjectId=self._node(address.SITE), MethodId=self._node(address.STEP))
        (result,) = await self._client.uaclient.call([request])
        if not result.StatusCode.is_good():
            raise PlantError(f"{self._endpoint}: the plant could not make a step ({result.StatusCode.name})")

    def _node(self, name: str) -> Any:
        return ua.NodeId(name, self._index)

    def _row(self, name: str, value: Any) -> Any:
        return ua.WriteValue(NodeId=self._node(name), AttributeId=ua.AttributeIds.Value, Value=ua.DataValue(value))

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:  # noqa: BLE001  # reported by open or call, in the caller's thread
            if not self._opened.done():
                self._opened.set_exception(error)

    async def _live(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        client = self._client = Client(self._endpoint, timeout=self._timeout_s, watchdog_intervall=self._timeout_s)
        client.name = "twinloop"
        client.session_timeout = 600_000  # ms; what asyncua's server grants at most
        await client.connect()
        try:
            try:
                self._index = await client.get_namespace_index(address.NAMESPACE_URI)
            except ValueError as error:
                raise PlantError(
                    f"{self._endpoint}: an OPC UA server answers, but it holds no twinloop plant"
                ) from error
            plate, digest = await self.read([address.NAMEPLATE, address.NAMEPLATE_HASH])
            self._opened.set_result((str(plate.Value.Value), str(digest.Value.Value)))
            await self._closing.wait()
        finally:
            if self._is_polite:
                await client.disconnect()
            else:
                client.disconnect_socket()


async def _nothing(link: _Link) -> None:
    """Ask for nothing more than a connection."""


def _number(reading: Any) -> float:
    value: Any = reading.Value.Value if reading.Value is not None else None
    return float(value) if isinstance(value, int | float) else float("nan")


def _quality(reading: Any) -> Quality:
    """Severity bits of the status code (OPC 10000-4, 7.39); a good reading without a number is bad."""
    if not np.isfinite(_number(reading)):
        return Quality.BAD
    severity = reading.StatusCode.value >> 30 if reading.StatusCode is not None else 0
    return Quality(min(severity, Quality.BAD))


def _seconds(moment: dt.datetime | None) -> float:
    if moment is None:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
