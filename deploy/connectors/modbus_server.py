"""Any plant behind a Modbus TCP server, hardened as far as Modbus lets a server be.

A write is judged whole before anything of it is stored: NaN, a value outside the nameplate's limits, an unknown level,
half a number, a heartbeat that is not the next one, or a command while nobody's heartbeat lives, and the answer is an
exception and all registers stay. A watchdog takes commands to neutral when the heartbeat stops.

Modbus has no identity: whoever reaches the port can count heartbeats and command. So the server listens on the loopback
unless told otherwise, and beyond it belongs behind a firewall or a tunnel that knows who is who.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import PlantError
from ...envs.plant import Plant, Quality, Telemetry
from . import modbus_address as address
from . import modbus_wire as wire
from . import register_map as rm
from .register_map import Entry, Header, MapSettings, RegisterMap, Status
from .register_writes import CommandRegisters

_logger = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0  # a start that fails tells at once; this is for a machine that is busy
_END_TIMEOUT_S = 30.0


class ModbusPlantServer:
    """Serves ``plant`` at ``endpoint`` from a thread of its own; ``start`` and ``stop``, or a ``with`` block.

    ``speed``: emulated seconds per second of wall time, or None for a plant that goes on only by :meth:`step`. After
    ``watchdog_periods`` periods without a new heartbeat of a client, all commands go to neutral, and none is taken
    until there is one. The port 0 takes a free port; ``endpoint`` then says which. The plant stays the caller's:
    ``stop`` does not close it.
    """

    def __init__(
        self,
        plant: Plant,
        endpoint: str = address.DEFAULT_ENDPOINT,
        settings: MapSettings | None = None,
        *,
        speed: float | None = 1.0,
        watchdog_periods: int = 3,
    ) -> None:
        self.endpoint = endpoint
        self.map = RegisterMap(plant.nameplate, MapSettings() if settings is None else settings)
        self._plant = plant
        self._wall_period_s = 0.0 if speed is None else plant.nameplate.period_s / speed
        self._plate = rm.plate_words(plant.nameplate)
        self._commands = CommandRegisters(self.map, watchdog_periods)
        self._input = [0] * self.map.n_input
        self._heartbeat = 0
        self._reading = 0
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Return when clients can connect; raises :class:`PlantError` for a port that can't be opened."""
        host, port = address.host_and_port(self.endpoint)
        self._failure = None
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, args=(host, port), name="modbus-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S) or self._failure is not None:
            failure, self._thread = self._failure, None
            raise PlantError(
                f"Modbus server {self.endpoint}: could not start ({failure}); does another program listen there? give "
                "an address of this machine and a port that you may use"
            ) from failure

    def stop(self) -> None:
        """Disconnect clients and free the port; does nothing when not started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(_END_TIMEOUT_S)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait while the server runs; True when it has ended, raising what ended it."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            if thread.is_alive():
                return False
        if self._failure is not None:
            raise PlantError(f"Modbus server {self.endpoint}: ended: {self._failure!r}") from self._failure
        return True

    def step(self) -> bool:
        """One period of a plant without a speed; False when the plant failed in it."""
        if self._loop is None or self._wall_period_s > 0 or self._thread is None:
            raise PlantError(f"Modbus server {self.endpoint}: only a running server with speed None is stepped")
        return asyncio.run_coroutine_threadsafe(self._advance(), self._loop).result(_END_TIMEOUT_S)

    def __enter__(self) -> ModbusPlantServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def read(self, *, is_input: bool, register: int, count: int) -> list[int]:
        """What a client reads (:class:`~.modbus_wire.Bank`)."""
        end = register + count
        if is_input and register >= rm.PLATE_AT:
            table, register, end = self._plate, register - rm.PLATE_AT, end - rm.PLATE_AT
        else:
            table = self._input if is_input else self._commands.held
        if end > len(table):
            raise wire.RefusalError(wire.ILLEGAL_ADDRESS)
        return table[register:end]

    def write(self, register: int, words: list[int]) -> None:
        """What a client writes (:class:`~.modbus_wire.Bank`)."""
        self._commands.write(register, words)
        self._input[Header.ECHO] = self._commands.beat
        self._input[Header.STATUS] = self._status(bool(self._input[Header.STATUS] & Status.PLANT_FAILED))

    def _run(self, host: str, port: int) -> None:
        try:
            asyncio.run(self._serve(host, port))
        except Exception as error:  # noqa: BLE001  # reported by start or wait, in the caller's thread
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, host: str, port: int) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._turn = asyncio.Lock()
        self._commands.neutralise()
        self._publish(self._plant.read(), float(self._plant.clock_s), self._commands.values())

        def started(taken: int) -> None:
            self.endpoint = address.endpoint_of(host, taken)
            self._ready.set()

        unit = self.map.settings.unit
        serving = asyncio.create_task(wire.serve(self, host, port, unit, started, self._stopping))
        if self._wall_period_s > 0:
            pace = asyncio.create_task(self._keep_time(self._stopping))
            await asyncio.wait((serving, pace), return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()  # whichever ended, ended both
            await pace
        await serving
        async with self._turn:
            pass  # a period that has begun comes to its end

    async def _keep_time(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._wall_period_s
        while True:
            try:
                await asyncio.wait_for(stopping.wait(), max(due_s - loop.time(), 0.0))
                return
            except TimeoutError:
                await self._advance()
            # A late period is not made up for: the next one is a whole period later.
            due_s = max(due_s + self._wall_period_s, loop.time())

    async def _advance(self) -> bool:
        """One period of the plant under the commands that the registers hold; False when the plant failed."""
        async with self._turn:
            if self._commands.begin_period():
                _logger.warning("no heartbeat of a client: commands are neutral, equipment is on its own control")
            commands = self._commands.values()
            try:
                # In a thread, so that clients are answered while the plant computes.
                accepted = await asyncio.to_thread(self._plant.write, commands)
                await asyncio.to_thread(self._plant.advance)
                telemetry, clock_s = await asyncio.to_thread(lambda: (self._plant.read(), float(self._plant.clock_s)))
            except Exception:
                _logger.exception("the plant failed; its values are published as missing")
                self._fail()
                return False
            self._commands.replace(commands, accepted)
            self._heartbeat = (self._heartbeat + 1) & 0xFFFF
            self._publish(telemetry, clock_s, accepted)
            return True

    def _publish(self, telemetry: Telemetry, clock_s: float, obeyed: Any) -> None:
        """Replace all input registers at once, so that no request sees half a reading."""
        words = [0] * self.map.n_input
        _put(words, Header.MAGIC, [rm.MAGIC, rm.LAYOUT, self.map.settings.word, *self.map.hash_words])
        _put(words, Header.HEARTBEAT, [self._heartbeat, self._commands.beat, self._commands.taken])
        _put(words, Header.PERIOD_MS, rm.words_of(round(self._wall_period_s * 1e3), 2))
        _put(words, Header.CLOCK_US, rm.words_of(round(clock_s * 1e6), 4))
        self._reading = (self._reading + 1) & 0xFFFF
        words[Header.READING] = words[self.map.tail] = self._reading
        for entry in self.map.measured:
            # Modbus has no quality: what is not good has no value, so that nobody takes it for good.
            is_good = telemetry.quality[entry.group][entry.row, entry.column] == Quality.GOOD
            _put(words, entry.register, _words(entry, _value(telemetry.values, entry) if is_good else np.nan))
        for entry in self.map.obeyed:
            _put(words, entry.register, _words(entry, _value(obeyed, entry)))
        words[Header.STATUS] = self._status(has_failed=False)
        self._input = words

    def _fail(self) -> None:
        words = list(self._input)
        for entry in self.map.measured:
            _put(words, entry.register, _words(entry, np.nan))
        self._reading = (self._reading + 1) & 0xFFFF
        words[Header.READING] = words[self.map.tail] = self._reading
        words[Header.STATUS] = self._status(has_failed=True)
        self._input = words

    def _status(self, has_failed: bool) -> int:
        status = Status(0)
        if has_failed:
            status |= Status.PLANT_FAILED
        if self._commands.is_tripped:
            status |= Status.WATCHDOG_TRIPPED
        if self._commands.is_open:
            status |= Status.BATCH_OPEN
        return int(status)


def _put(words: list[int], register: int, new: list[int] | tuple[int, ...]) -> None:
    words[register : register + len(new)] = new


def _value(arrays: Any, entry: Entry) -> float:
    array: NDArray[np.float64] = arrays[entry.group]
    return float(array[entry.row, entry.column])


def _words(entry: Entry, value: float) -> tuple[int, ...]:
    """Registers of a value; "no value" where it does not fit."""
    try:
        return entry.codec.encode(value)
    except OverflowError:
        return entry.codec.encode(np.nan)
