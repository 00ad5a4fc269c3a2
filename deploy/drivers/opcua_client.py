"""A plant behind an OPC UA server, as the runtime sees it."""

from __future__ import annotations

from pathlib import Path

from ...envs.nameplate import Nameplate
from ..connectors.connected_plant import ConnectedPlant
from ..connectors.opcua_connector import OpcUaConnector
from . import opcua_address as address


class OpcUaPlant(ConnectedPlant):
    """Keeps the Plant contract over OPC UA; connects on first use.

    ``timeout_s`` is what one call may take, by default half a period of the server's: one that is dead, silent
    or gone raises :class:`~twinloop.envs.errors.PlantError` within it. The next call connects again by itself, with a
    growing pause in which calls fail at once. ``expected`` refuses a server of another nameplate. ``security``: a
    client's folder of certificates; without it only a server on the loopback is talked to.
    """

    def __init__(
        self,
        endpoint: str = address.DEFAULT_ENDPOINT,
        timeout_s: float | None = None,
        expected: Nameplate | None = None,
        security: str | Path | None = None,
    ) -> None:
        super().__init__(OpcUaConnector(endpoint, expected, security=security, timeout_s=timeout_s))
