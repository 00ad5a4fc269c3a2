"""The one module that knows pymodbus, which is pinned exactly: it renames arguments in minor versions.

:class:`Wire` is a client's connection, :func:`serve` a server around a :class:`Bank` of registers. Neither leaves any
decision to the library: not its time-outs, retries or reconnects, not its data store, not the functions it offers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ModbusException, NoSuchIdException
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

T = TypeVar("T")

_READ_HOLDING, _READ_INPUT, _WRITE_ONE, _WRITE_MANY = 3, 4, 6, 16
ILLEGAL_ADDRESS = int(ExcCodes.ILLEGAL_ADDRESS)
ILLEGAL_VALUE = int(ExcCodes.ILLEGAL_VALUE)
DEVICE_FAILURE = int(ExcCodes.DEVICE_FAILURE)
_WORDS = {
    1: "the function is not offered",
    2: "no such register, or a part of a number",
    3: "the value is refused",
    4: "the equipment takes no commands now",
    11: "no such unit",
}


class WireError(Exception):
    """No answer, or none that can be understood."""


class RefusalError(Exception):
    """The other end answered with a Modbus exception; ``code`` is of the specification's table (7)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}: {_WORDS.get(code, 'see the specification, section 7')}")
        self.code = code


class Wire:
    """A connection in a thread of its own, so that no call takes longer than its caller waits.

    The library's time-out bounds one receive only and is measured by the wall clock, which steps; ours bounds the whole
    question, connecting and looking up the name included. After a time-out the connection is not to be used again.
    """

    def __init__(self, host: str, port: int, unit: int, timeout_s: float) -> None:
        _quieten()
        self._unit = unit
        # One try: a write that is sent again without being asked for would act twice.
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_s, retries=0)
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], concurrent.futures.Future[Any]] | None]
        self._questions = queue.SimpleQueue()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="modbus-client", daemon=True).start()

    def ask(self, question: Callable[[], T], deadline_s: float) -> T:
        """Have the connection's thread call ``question``; ``deadline_s`` is of the monotonic clock.

        Raises :class:`TimeoutError`, and whatever the question raises.
        """
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._questions.put((question, answer))
        return answer.result(max(deadline_s - time.monotonic(), 0.0))

    def close(self) -> None:
        """End the thread, whatever it waits for, and with it the connection."""
        self._closed.set()
        self._questions.put(None)
        held = self._client.socket
        if held is not None:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other end, or the thread, was faster

    def read_input(self, register: int, count: int) -> list[int]:
        return self._words(self._request(lambda c: c.read_input_registers(register, count=count, device_id=self._unit)))

    def read_holding(self, register: int, count: int) -> list[int]:
        return self._words(
            self._request(lambda c: c.read_holding_registers(register, count=count, device_id=self._unit))
        )

    def write(self, register: int, words: list[int]) -> None:
        """Write registers in one request; raises :class:`RefusalError` when nothing of it was taken."""
        self._request(lambda c: c.write_registers(register, words, device_id=self._unit))

    def _request(self, send: Callable[[ModbusTcpClient], ModbusPDU]) -> ModbusPDU:
        try:
            # The library connects anew by itself: a write of a question that was given up would arrive late.
            is_connected = not self._closed.is_set() and self._client.connect()  # type: ignore[no-untyped-call]  # as below
            if not is_connected or self._closed.is_set():
                raise WireError("not connected")
            answer = send(self._client)
        except (ModbusException, OSError) as error:
            raise WireError(str(error) or type(error).__name__) from error
        if answer.isError():
            raise RefusalError(answer.exception_code)
        return answer

    @staticmethod
    def _words(answer: ModbusPDU) -> list[int]:
        return list(answer.registers)

    def _run(self) -> None:
        try:
            while (item := self._questions.get()) is not None:
                question, answer = item
                try:
                    answer.set_result(question())
                except Exception as error:  # noqa: BLE001 - handed to the caller, in whose thread it is raised
                    answer.set_exception(error)
        finally:
            self._client.close()  # type: ignore[no-untyped-call]  # the library types most, not this


class Bank(Protocol):
    """A server's registers; called in the server's event loop. Both raise :class:`RefusalError`."""

    def read(self, *, is_input: bool, register: int, count: int) -> list[int]: ...
    def write(self, register: int, words: list[int]) -> None: ...


async def serve(
    bank: Bank, host: str, port: int, unit: int, started: Callable[[int], None], stopping: asyncio.Event
) -> None:
    """Serve until ``stopping``; ``started`` gets the port. Raises :class:`OSError` for a port that is taken.

    Offers functions 3, 4, 6 and 16 alone. Left out on purpose: 22 and 23, which read and write in one and would take a
    part of what they refuse; diagnostics and device identification, which act on the library's global state.
    """
    _quieten()
    # The device is a placeholder that the library asks for; its store is replaced at once.
    server = ModbusTcpServer(SimDevice(0, SimData(0, datatype=DataType.REGISTERS)), address=(host, port))
    context: Any = _Context(bank, unit)
    server.context = context
    table: Any = {code: (_not_offered(code), None) for code in range(1, 0x80)}
    offered = (_READ_HOLDING, _READ_INPUT, _WRITE_ONE, _WRITE_MANY)
    server.decoder.pdu_table = table | {code: server.decoder.pdu_table[code] for code in offered}
    if not await server.listen():
        raise OSError(f"port {port} of {host} can't be opened")
    try:
        transport: Any = server.transport
        started(int(transport.sockets[0].getsockname()[1]))
        await stopping.wait()
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]  # as above
        await asyncio.sleep(0)  # connections close in the loop's next turn


class _Context:
    """What pymodbus's requests ask for registers, in place of its own store."""

    def __init__(self, bank: Bank, unit: int) -> None:
        self._bank = bank
        # 0 and 255 mean "the server itself" over TCP (Messaging Implementation Guide V1.0b, 4.4.2.1).
        self._units = (unit, 0, 255)

    def device_ids(self) -> list[int]:
        return list(self._units)

    async def async_getValues(
        self, device_id: int, func_code: int, address: int, count: int = 1
    ) -> list[int] | ExcCodes:
        self._check(device_id)
        try:
            return self._bank.read(is_input=func_code == _READ_INPUT, register=address, count=count)
        except RefusalError as refusal:
            return ExcCodes(refusal.code)

    async def async_setValues(self, device_id: int, func_code: int, address: int, values: list[int]) -> ExcCodes | None:
        self._check(device_id)
        try:
            self._bank.write(address, list(values))
        except RefusalError as refusal:
            return ExcCodes(refusal.code)
        return None

    def _check(self, device_id: int) -> None:
        if device_id not in self._units:
            raise NoSuchIdException(f"unit {device_id}")


def _not_offered(code: int) -> type[ModbusPDU]:
    """A request that is answered with exception 1; what the library does not know it answers with a wrong function."""

    class NotOffered(ModbusPDU):
        function_code = code

        def decode(self, data: bytes) -> None:
            """Whatever it says."""

        async def datastore_update(self, context: Any, device_id: int) -> ModbusPDU:
            return ExceptionResponse(code, ExcCodes.ILLEGAL_FUNCTION)

    return NotOffered


def _quieten() -> None:
    """The library logs each refused or failed connection as an error; ours are exceptions, told once by who asked."""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
