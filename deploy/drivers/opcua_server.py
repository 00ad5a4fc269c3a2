"""Any plant behind an OPC UA server.

Measured nodes are read-only. Commanded nodes can be written within their limits: NaN, values out of range and
unknown levels are refused with ``BadOutOfRange``, item by item, before anything is stored. A watchdog gives the
equipment back to its own control when its client falls silent.

With a folder of certificates it is secured: SignAndEncrypt alone, certificates judged by its own folder of trust, users
by name and password or certificate, and of them only who may write commands, one at a time. Without one it is open to
everybody who reaches it, and serves the loopback alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from asyncua import ua as _typed_ua
from asyncua.crypto.permission_rules import User
from asyncua.server.server import Server

from ...envs.errors import PlantError
from ...envs.plant import Plant, Quality, Telemetry
from . import opcua_address as address
from .opcua_access import RefusalLog, ServerSecurity
from .opcua_endpoint import check_exposure, free_endpoint
from .opcua_guard import GuardedServer, ServerLimits
from .opcua_space import SiteNodes
from .opcua_write import Control, LimitedWrites, WriteJudge

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
_logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0  # a start that fails tells at once; this is for a machine that is busy
_END_TIMEOUT_S = 30.0
_SITE_NODES = 16
"""Nodes beside the signals that one request may ask for: the site's own, and limits and clock of the server."""


class OpcUaPlantServer:
    """Serves ``plant`` at ``endpoint`` from a thread of its own; ``start`` and ``stop``, or a ``with`` block.

    ``speed``: emulated seconds per second of wall time, or None for *stepped*, where the plant goes on only when a
    client calls the method ``Site.Step``. After ``watchdog_periods`` periods without a client's write or heartbeat, all
    commands go to neutral. The port 0 takes a free port; ``endpoint`` then says which. The plant stays the caller's:
    ``stop`` does not close it.

    ``security``: a server's folder (:mod:`~twinloop.deploy.certificates`). One user commands at a time: another one is
    refused (``BadLocked``) until the first has been silent for ``watchdog_periods``. What is refused is recorded in the
    folder's ``refused.jsonl``. ``limits`` are raised to what one request for the whole site needs.
    """

    def __init__(
        self,
        plant: Plant,
        endpoint: str = address.DEFAULT_ENDPOINT,
        *,
        speed: float | None = 1.0,
        watchdog_periods: int = 3,
        security: str | Path | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._folder = security
        self._wanted_limits = ServerLimits() if limits is None else limits
        self._security: ServerSecurity | None = None
        self._refused = RefusalLog(None)
        self._plant = plant
        self._nameplate = plant.nameplate
        self._measured = address.points(self._nameplate, "measured")
        self._commanded = address.points(self._nameplate, "commanded")
        self._wall_period_s = 0.0 if speed is None else self._nameplate.period_s / speed
        self._control = Control(watchdog_periods)
        self._tripped = False
        self._heartbeat = 0
        self._telemetry: Telemetry | None = None
        self._clock_s = 0.0
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Return when clients can connect.

        Raises :class:`PlantError` for a port that is taken, and for an address beyond the loopback without security;
        :class:`~twinloop.envs.errors.ConfigurationError` for a folder of certificates that cannot be used.
        """
        check_exposure(self.endpoint, self._folder)
        if self._folder is not None:
            self._security = ServerSecurity(self._folder)
            self._refused = self._security.refused
        self.endpoint = free_endpoint(self.endpoint)
        self._failure = None
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, name="opcua-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S) or self._failure is not None:
            failure, self._thread = self._failure, None
            told = f"not ready within {_START_TIMEOUT_S:g} s" if failure is None else repr(failure)
            raise PlantError(f"OPC UA server {self.endpoint}: could not start: {told}") from failure

    def stop(self) -> None:
        """Disconnect clients and free the port; does nothing when not started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(_END_TIMEOUT_S)
        self._refused.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait while the server runs; True when it has ended, raising what ended it."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            if thread.is_alive():
                return False
        if self._failure is not None:
            raise PlantError(f"OPC UA server {self.endpoint}: ended: {self._failure!r}") from self._failure
        return True

    def __enter__(self) -> OpcUaPlantServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  # reported by start or wait, in the caller's thread
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._turn = asyncio.Lock()
        points = len(self._measured) + len(self._commanded) + _SITE_NODES
        limits = dataclasses.replace(
            self._wanted_limits, nodes_a_request=max(self._wanted_limits.nodes_a_request, points)
        )
        inner = GuardedServer(
            limits, is_secured=self._security is not None, may_write=self._may_write, user_manager=self._security
        )
        server = self._server = Server(iserver=inner)
        server.limits.max_message_size = limits.message_bytes
        server.limits.max_chunk_count = limits.message_bytes // server.limits.max_recv_buffer + 1
        await server.init()
        server.set_endpoint(self.endpoint)
        server.set_server_name(f"twinloop plant {self._nameplate.site}")
        await self._secure(server)
        await inner.tell_limits()
        nodes = self._nodes = SiteNodes(server, await server.register_namespace(address.NAMESPACE_URI))
        await nodes.build(self._nameplate, (*self._measured, *self._commanded), self._wall_period_s, self._step)
        judge = WriteJudge(nodes.index, nodes.limits, self._control, self._may_write, self._refused)
        server.iserver.attribute_service = LimitedWrites(server.iserver.aspace, judge.verdict)
        self._read()
        await self._publish()
        async with server:
            self._ready.set()
            if self._wall_period_s > 0:
                await self._keep_time()
            else:
                await self._stopping.wait()
            async with self._turn:
                pass  # a period that has begun comes to its end

    async def _secure(self, server: Server) -> None:
        """Endpoints, certificate and users; without security one open endpoint."""
        if self._security is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            server.set_identity_tokens([ua.AnonymousIdentityToken])
            return
        identity = self._security.identity
        server.set_security_policy(
            [
                ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
                ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ]
        )
        server.set_identity_tokens([ua.UserNameIdentityToken, ua.X509IdentityToken])
        server.set_certificate_validator(self._security.judge)
        server.iserver.certificate, server.iserver.private_key = identity.certificate, identity.key
        await server.set_application_uri(identity.uri)

    def _may_write(self, user: User) -> bool:
        return self._security is None or self._security.may_write(user)

    async def _keep_time(self) -> None:
        assert self._loop is not None  # both are set before this runs; narrows the types
        assert self._stopping is not None
        due_s = self._loop.time() + self._wall_period_s
        while True:
            try:
                await asyncio.wait_for(self._stopping.wait(), max(due_s - self._loop.time(), 0.0))
                return
            except TimeoutError:
                await self._advance()
            # A late period is not made up for: the next one is a whole period later.
            due_s = max(due_s + self._wall_period_s, self._loop.time())

    async def _step(self, parent: Any) -> Any:
        if self._wall_period_s > 0:
            return ua.StatusCode(ua.StatusCodes.BadInvalidState)
        if not await self._advance():
            return ua.StatusCode(ua.StatusCodes.BadDeviceFailure)
        return [ua.Variant(self._clock_s, ua.VariantType.Double)]

    async def _advance(self) -> bool:
        """One period of the plant under the commands that the nodes hold; False when the plant failed."""
        async with self._turn:
            if self._control.is_silent:
                await self._neutralise()
            self._control.silent_periods += 1
            if self._tripped and self._control.silent_periods == 1:
                self._tripped = False
            commands = {
                g.name: np.empty((g.n_assets, len(g.commanded)), dtype=np.float64) for g in self._nameplate.groups
            }
            for point in self._commanded:
                commands[point.group][point.row, point.column] = self._nodes.held(point.node)
            try:
                # In a thread, so that clients are answered while the plant computes.
                accepted = await asyncio.to_thread(self._plant.write, commands)
                await asyncio.to_thread(self._plant.advance)
                await asyncio.to_thread(self._read)
            except Exception:
                _logger.exception("the plant failed; its values are published as bad")
                await self._publish(is_failed=True)
                return False
            for point in self._commanded:
                value = float(accepted[point.group][point.row, point.column])
                if value != commands[point.group][point.row, point.column]:
                    await self._nodes.put(point.node, value, time_s=self._clock_s)
            self._heartbeat = (self._heartbeat + 1) % 2**32
            await self._publish()
            return True

    async def _neutralise(self) -> None:
        if self._tripped:
            return
        neutral = {g.name: g.neutral() for g in self._nameplate.groups}
        for point in self._commanded:
            await self._nodes.put(point.node, float(neutral[point.group][point.column]), time_s=self._clock_s)
        self._tripped = True
        _logger.warning(
            "no client for %d periods: commands are neutral, equipment is on its own control",
            self._control.silent_periods,
        )

    def _read(self) -> None:
        self._telemetry, self._clock_s = self._plant.read(), float(self._plant.clock_s)

    async def _publish(self, is_failed: bool = False) -> None:
        """Show the last reading; as bad where the plant has failed since."""
        telemetry = self._telemetry
        assert telemetry is not None  # the first is read before the server starts; narrows the type
        for point in self._measured:
            place = (point.row, point.column)
            quality = Quality.BAD if is_failed else Quality(int(telemetry.quality[point.group][place]))
            await self._nodes.put(
                point.node,
                float(telemetry.values[point.group][place]),
                time_s=float(telemetry.source_time_s[point.group][place]),
                quality=quality,
            )
        await self._nodes.put(address.CLOCK, self._clock_s, time_s=self._clock_s)
        await self._nodes.put(address.WATCHDOG, self._tripped, ua.VariantType.Boolean, time_s=self._clock_s)
        await self._nodes.put(address.HEARTBEAT, self._heartbeat, ua.VariantType.UInt32, time_s=self._clock_s)
