"""One connection to an OPC UA server, in a thread with an event loop of its own that ends with it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from asyncua import ua as _typed_ua
from asyncua.client.client import Client

from ...envs.errors import PlantError, TwinloopError
from ..certificates.identity import CERTIFICATE
from ..drivers import opcua_address as address
from .opcua_security import ClientSecurity, secure

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
T = TypeVar("T")
G = TypeVar("G")

CONNECT_S = 4.0
"""How long an attempt to connect may take; calls do not wait for it longer than their own time-out."""
_PROBE_S = 30.0
"""asyncua's own look whether the server lives; ours is the heartbeat's."""
_CLOSE_S = 2.0
_SESSION_S = 60


class Link(Generic[G]):
    """Connects in the background as soon as it is made; ``greet`` says what is asked of the server before first use."""

    def __init__(
        self, endpoint: str, security: ClientSecurity | None, greet: Callable[[Link[G]], Awaitable[G]]
    ) -> None:
        self._endpoint, self._security, self._greet = endpoint, security, greet
        self._begun_s = time.monotonic()
        self.greeting: concurrent.futures.Future[G] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_polite = False
        self.reads_a_request = self.writes_a_request = 0
        """Nodes that the server takes in one request; 0: any number."""
        self._thread = threading.Thread(target=self._run, name="opcua-client", daemon=True)
        self._thread.start()

    @property
    def is_hopeless(self) -> bool:
        """Whether an attempt to connect has had all its time."""
        return time.monotonic() - self._begun_s > CONNECT_S

    def call(self, question: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Answer to a question by ``deadline_s`` of the monotonic clock; raises TimeoutError after it."""
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

    def close(self, *, is_polite: bool) -> None:
        """End the thread; politely means that the session is closed on the server too."""
        self._is_polite = is_polite
        loop, closing = self._loop, self._closing
        if loop is not None and closing is not None and self._thread.is_alive():
            try:
                loop.call_soon_threadsafe(closing.set)
            except RuntimeError:  # it ended just now
                return
            if is_polite:
                self._thread.join(_CLOSE_S)

    async def read(self, nodes: list[Any]) -> list[Any]:
        """Values of nodes made by :meth:`node`, in as few requests as the server allows."""
        size = self.reads_a_request or max(len(nodes), 1)
        found: list[Any] = []
        for at in range(0, len(nodes), size):
            found += await self._client.uaclient.read(ua.ReadParameters(NodesToRead=nodes[at : at + size]))
        return found

    async def write(self, names: list[str], numbers: list[float], beat: int) -> list[Any]:
        """Write the client's heartbeat and doubles; statuses of the heartbeat and of the doubles."""
        rows = [self._row(address.CLIENT_HEARTBEAT, ua.Variant(beat, ua.VariantType.UInt32))]
        rows += [self._row(name, ua.Variant(n, ua.VariantType.Double)) for name, n in zip(names, numbers, strict=True)]
        size = self.writes_a_request or len(rows)
        found: list[Any] = []
        for at in range(0, len(rows), size):
            found += await self._client.uaclient.write(ua.WriteParameters(NodesToWrite=rows[at : at + size]))
        return found

    async def step(self) -> None:
        """Call ``Site.Step``, which makes a stepped plant go on."""
        request = ua.CallMethodRequest(ObjectId=self._id(address.SITE), MethodId=self._id(address.STEP))
        (result,) = await self._client.uaclient.call([request])
        if not result.StatusCode.is_good():
            raise PlantError(f"{self._endpoint}: the plant could not make a step ({result.StatusCode.name})")

    def node(self, name: str | int) -> Any:
        """What :meth:`read` takes: a variable by its name in our namespace, or a standard one by its number."""
        node_id = ua.NodeId(name) if isinstance(name, int) else self._id(name)
        return ua.ReadValueId(NodeId=node_id, AttributeId=ua.AttributeIds.Value)

    def _id(self, name: str) -> Any:
        return ua.NodeId(name, self._index)

    def _row(self, name: str, value: Any) -> Any:
        return ua.WriteValue(NodeId=self._id(name), AttributeId=ua.AttributeIds.Value, Value=ua.DataValue(value))

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:  # noqa: BLE001  # reported to whoever waits for the greeting, or by `call`
            if not self.greeting.done():
                is_known = isinstance(error, TwinloopError | OSError | TimeoutError | ua.UaError)
                self.greeting.set_exception(error if is_known else ConnectionError(f"{type(error).__name__}: {error}"))

    async def _live(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        client = self._client = Client(self._endpoint, timeout=CONNECT_S, watchdog_intervall=_PROBE_S)
        client.name = "twinloop"
        client.session_timeout = 1000 * _SESSION_S
        closing = asyncio.create_task(self._closing.wait())
        opening = asyncio.create_task(self._open(client))
        try:
            await asyncio.wait({closing, opening}, return_when=asyncio.FIRST_COMPLETED, timeout=CONNECT_S)
            if not opening.done():
                raise TimeoutError(f"could not connect within {CONNECT_S:g} s")
            self.greeting.set_result(opening.result())
            await closing
        finally:
            for task in (opening, closing):
                task.cancel()
            await asyncio.gather(opening, closing, return_exceptions=True)
            if self._is_polite and self.greeting.done() and self.greeting.exception() is None:
                await client.disconnect()
            else:
                client.disconnect_socket()

    async def _open(self, client: Client) -> G:
        if self._security is not None:
            host, _ = address.host_and_port(self._endpoint)
            await secure(client, self._security, self._endpoint, host)
        try:
            await client.connect()
        except (AssertionError, ConnectionError) as error:
            # asyncua cannot read a fault instead of a channel, with which node-opcua answers.
            if self._security is None:
                raise ConnectionError(str(error) or "the server broke off the connection") from error
            own = self._security.identity.folder / CERTIFICATE
            raise PlantError(
                f"{self._endpoint}: the server broke off when a secured channel was to be opened: is {own} in its "
                "folder of trusted certificates, and valid by its clock? nothing was sent"
            ) from error
        try:
            self._index = await client.get_namespace_index(address.NAMESPACE_URI)
        except ValueError as error:
            raise PlantError(f"{self._endpoint}: an OPC UA server answers, but it holds no twinloop plant") from error
        return await self._greet(self)
