"""``modbus://host:port``: where a Modbus TCP server is."""

from __future__ import annotations

from urllib.parse import urlparse

from ...envs.errors import PlantError

SCHEME = "modbus://"
DEFAULT_ENDPOINT = "modbus://127.0.0.1:5020"
"""Modbus's own port, 502, is for root alone."""


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Host and port of ``modbus://host:port``; raises :class:`PlantError` for anything else."""
    url = urlparse(endpoint)
    try:
        host, port = url.hostname, url.port
    except ValueError:  # a port that is no number, or above 65535
        host, port = None, None
    if f"{url.scheme}://" != SCHEME or host is None or port is None or url.path.strip("/"):
        raise PlantError(f"Modbus endpoint {endpoint!r}: expected modbus://host:port, such as {DEFAULT_ENDPOINT}")
    return host, port


def endpoint_of(host: str, port: int) -> str:
    """Inverse of :func:`host_and_port`."""
    return f"{SCHEME}[{host}]:{port}" if ":" in host else f"{SCHEME}{host}:{port}"
