"""Where a server may listen: on a port that is free, and beyond this machine with security alone."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from urllib.parse import urlparse

from ...envs.errors import PlantError
from . import opcua_address as address


def check_exposure(endpoint: str, security: str | Path | None) -> None:
    """Raise :class:`PlantError` for a server that everybody on a network could command."""
    host, _ = address.host_and_port(endpoint)
    if security is None and not address.is_loopback(host):
        raise PlantError(
            f"OPC UA server {endpoint}: without security everybody on the network could command the plant: give a "
            "server's folder of certificates (--security DIR; `twinloop certificates make DIR` makes one), or serve "
            "127.0.0.1"
        )


def free_endpoint(endpoint: str) -> str:
    """The endpoint with port 0 replaced by a free one; raises :class:`PlantError` for a port that is taken."""
    name, wanted = address.host_and_port(endpoint)
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio does; a listening port still fails
        try:
            probe.bind((name, wanted))
        except OSError as error:
            remedy = (
                "another program listens there; stop it, or give another port with --endpoint"
                if error.errno == errno.EADDRINUSE
                else "give an address of this machine and a port that you may use with --endpoint"
            )
            raise PlantError(
                f"OPC UA server: port {wanted} of {name} can't be opened ({error.strerror}): {remedy}"
            ) from error
        port = probe.getsockname()[1]
    host = f"[{name}]" if family == socket.AF_INET6 else name
    return f"opc.tcp://{host}:{port}{urlparse(endpoint).path}"
