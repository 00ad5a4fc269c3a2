"""Serves the pages, and keeps the audit in a thread beside them."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from ...envs.errors import ConfigurationError
from ..audit.watch import LOOK_S, AuditWatch, Watched
from ..station.folder import StationFolder
from .app import make_app
from .desk import Desk

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOG = logging.getLogger(__name__)


def check_address(host: str, tls: tuple[Path, Path] | None) -> None:
    """Raise :class:`ConfigurationError` where passwords would go over a network in the clear, or a file is missing."""
    if tls is None and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host}: others reach it, so that passwords would cross the network in the clear; "
            "give --tls CERT KEY, or --host 127.0.0.1"
        )
    for path in tls or ():
        if not path.is_file():
            raise ConfigurationError(f"--tls: {path}: no such file; give a certificate and its key, PEM")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def audited(watched: Watched | None) -> Iterator[None]:
    """Inside, heads are signed and history is kept in a thread, if there is something to sign with."""
    over = threading.Event()
    if watched is None:
        yield
        return
    watch = AuditWatch(watched, lambda line: _LOG.info("audit: %s", line), lambda line: _LOG.error("audit: %s", line))

    def keep() -> None:
        while not over.is_set():
            try:
                watch.look()
            except Exception:  # noqa: BLE001 - the pages go on, and the next look may find it mended
                _LOG.exception("audit: a look failed")
            over.wait(LOOK_S)

    thread = threading.Thread(target=keep, name="audit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10.0)


class ConsoleServer(uvicorn.Server):
    """Of an opened desk. Open streams end with it, and do not keep it."""

    def __init__(self, app: FastAPI, host: str, port: int, tls: tuple[Path, Path] | None = None) -> None:
        cert, key = tls or (None, None)
        self._desk: Desk = app.state.desk
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
                ssl_certfile=cert, ssl_keyfile=key, timeout_graceful_shutdown=1, proxy_headers=False, ws="none",
            )
        )  # fmt: skip

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, once no stream is left to wait for."""
        self._desk.broadcast.end()
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that it listens at, once it does: 0 was asked for where any would do."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def serve(
    station: StationFolder,
    host: str,
    port: int,
    tls: tuple[Path, Path] | None = None,
    names: Sequence[str] = (),
    watched: Watched | None = None,
) -> None:
    """Serve until Ctrl-C. Raises :class:`ConfigurationError`."""
    check_address(host, tls)
    desk = Desk(station)
    desk.open()
    try:
        own = () if host in ("0.0.0.0", "::") else (host,)
        server = ConsoleServer(make_app(desk, [*own, *names]), host, port, tls)
        with audited(watched):
            server.run()
        if not server.started:
            raise ConfigurationError(f"--port {port}: cannot listen at {host}:{port}; give another one")
    finally:
        desk.close()
