"""Open a plant: at the end of a network connection, or emulated in this process from a plant's YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..envs.constraint import Declaration, declaration_of_site, declare
from ..envs.constraint.temporal import Formula, requirements_of_site
from ..envs.errors import ConfigurationError, MissingExtraError, located
from ..envs.nameplate import Nameplate
from ..envs.plant import Plant
from .connectors.modbus_address import SCHEME as MODBUS_SCHEME
from .connectors.mqtt_address import SCHEMES as MQTT_SCHEMES

OPCUA_SCHEME = "opc.tcp://"
LOCAL_SCHEME = "unix:"


def open_plant(
    *,
    endpoint: str | None = None,
    plant_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    security: str | Path | None = None,
) -> Plant:
    """Return the plant at ``endpoint`` (``opc.tcp://host:port/path``, ``modbus://host:port``,
    ``mqtt://broker:port/GROUP/NODE``, ``unix:/run/plant.sock``) or the one that ``plant_file`` describes.

    ``overrides`` are texts such as ``plant.seed=3``, for a plant's file only; ``security`` is a client's folder of
    certificates, or over MQTT the file of its identity, for an endpoint whose protocol has security. Raises
    :class:`ConfigurationError` for anything else than exactly one of the two, and for a folder that cannot be used; the
    plant itself may raise :class:`~twinloop.envs.errors.PlantError` when it is first used.
    """
    if (endpoint is None) == (plant_file is None):
        raise ConfigurationError("give either --endpoint (a running plant) or --plant (a plant's YAML), one of them")
    if endpoint is not None:
        if overrides:
            raise ConfigurationError(f"--set {overrides[0]}: overrides a plant's YAML; a plant at --endpoint has none")
        return _at_endpoint(endpoint, security)
    if security is not None:
        raise ConfigurationError("--security: is for a plant at --endpoint; one in this process has no wire to secure")
    from ..envs.plant_file import load_plant_file

    assert plant_file is not None  # exactly one was given
    site, site_config, plant_config = load_plant_file(plant_file, overrides)
    return site.plant(site_config, plant_config)


def plant_declaration(plant_file: str | Path | None, overrides: Sequence[str] = ()) -> Declaration | None:
    """What the site of a plant's file declares as safe; None for a plant at an endpoint, which tells its nameplate
    alone."""
    if plant_file is None:
        return None
    from ..envs.plant_file import load_plant_file

    site, site_config, _ = load_plant_file(plant_file, overrides)
    return declaration_of_site(site, site_config)


def plant_requirements(plant_file: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Formula]:
    """What the site of a plant's file requires over time; nothing for a plant at an endpoint without a file."""
    if plant_file is None:
        return {}
    from ..envs.plant_file import load_plant_file

    site, site_config, _ = load_plant_file(plant_file, overrides)
    with located(str(plant_file)):
        return requirements_of_site(site, site_config, declaration_of_site(site, site_config))


def declared_limits(nameplate: Nameplate, plant_file: str | Path | None, overrides: Sequence[str] = ()) -> Declaration:
    """What the site of ``plant_file`` declares, for a plant of that ``nameplate``; without a file, what that implies.

    Raises :class:`ConfigurationError` for the file of another plant.
    """
    found = plant_declaration(plant_file, overrides)
    if found is None:
        return declare(nameplate)
    if found.nameplate.hash != nameplate.hash:
        raise ConfigurationError(
            f"--plant {plant_file}: is of another plant: {found.nameplate.site} with nameplate "
            f"{found.nameplate.hash[:12]}, the plant itself says {nameplate.site} with {nameplate.hash[:12]}; give the "
            "file that it was made from"
        )
    return found


def _at_endpoint(endpoint: str, security: str | Path | None) -> Plant:
    if endpoint.startswith(MODBUS_SCHEME):
        if security is not None:
            raise ConfigurationError(f"--security: Modbus TCP has none, so {endpoint} can't use it; leave it out")
        return _at_modbus(endpoint)
    if endpoint.startswith(LOCAL_SCHEME):
        if security is not None:
            raise ConfigurationError(f"--security: {endpoint} is guarded by its file's owner and mode; leave it out")
        from .drivers.local_client import LocalPlant

        return LocalPlant(endpoint)
    if endpoint.startswith(MQTT_SCHEMES):
        return _at_broker(endpoint, security)
    if not endpoint.startswith(OPCUA_SCHEME):
        raise ConfigurationError(
            f"--endpoint: {endpoint!r} cannot be opened; give an address such as {OPCUA_SCHEME}host:4840/twinloop, "
            f"{MODBUS_SCHEME}host:5020, {MQTT_SCHEMES[0]}broker:1883/GROUP/NODE or {LOCAL_SCHEME}/run/plant.sock"
        )
    try:
        from .connectors.opcua_security import load_client_security
        from .drivers.opcua_client import OpcUaPlant
    except ModuleNotFoundError as error:
        raise MissingExtraError("asyncua", "opcua", f"a plant at {endpoint}") from error
    if security is not None:
        load_client_security(security)  # what is wrong with it is told now, before anything is connected
    return OpcUaPlant(endpoint, security=security)


def _at_modbus(endpoint: str) -> Plant:
    """Nameplate, encoding and word order come out of the server's registers."""
    try:
        from .connectors.modbus_client import ModbusConnector
    except ModuleNotFoundError as error:
        raise MissingExtraError("pymodbus", "modbus", f"a plant at {endpoint}") from error
    from .connectors.connected_plant import ConnectedPlant

    return ConnectedPlant(ModbusConnector(endpoint))


def _at_broker(endpoint: str, identity_file: str | Path | None) -> Plant:
    """The nameplate comes with the births of the Sparkplug edge node."""
    try:
        from .connectors.mqtt_client import MqttConnector
    except ModuleNotFoundError as error:
        raise MissingExtraError("paho-mqtt", "mqtt", f"a plant at {endpoint}") from error
    from .connectors import mqtt_address
    from .connectors.connected_plant import ConnectedPlant
    from .connectors.mqtt_identity import identity_of_environment, load_identity

    mqtt_address.parse(endpoint)  # what is wrong with it, or with who we are, is told now
    identity = identity_of_environment() if identity_file is None else load_identity(identity_file)
    return ConnectedPlant(MqttConnector(endpoint, identity=identity))
