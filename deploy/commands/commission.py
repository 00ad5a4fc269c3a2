"""``twinloop commission``: an emulated plant behind its OPC UA or Modbus TCP server, or at an MQTT broker."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import Protocol

from ...envs.commands.overrides import add_overrides
from ...envs.constraint import constraints_of_site
from ...envs.errors import ConfigurationError, MissingExtraError
from ...envs.nameplate import Nameplate
from ...envs.plant import Plant
from ...envs.plant_file import load_plant_file
from ..connectors import modbus_address, mqtt_address
from ..connectors.register_map import MapSettings, RegisterMap
from ..connectors.sparkplug_site import SparkplugSite
from ..connectors.word_order import Encoding, WordOrder
from ..drivers import opcua_address as address
from .termination import terminate_as_interrupt

DESCRIPTION = """\
Start the plant of a YAML file behind an OPC UA or Modbus TCP server, or as a Sparkplug B edge node at an MQTT broker
that runs already, print its addresses, and serve until Ctrl-C.

Measured variables are read-only. Commanded ones can be written within their limits; NaN and values out of range are
refused (BadOutOfRange, exception 3). After three periods without a client, commands go back to neutral and the
equipment is on its own control.

With --security DIR, a server's folder of `twinloop certificates make`, OPC UA is served signed and encrypted alone, to
clients whose certificates are trusted there and to users of its users.json, of whom one with the right to write is in
control at a time. Without it everybody who reaches the port can command, so that only the loopback is served.

Over MQTT, --security FILE says who the plant is to the broker (docs/mqtt.md), which says who may command it.

Over Modbus a client is alive while it counts up the heartbeat register; docs/connectors.md explains the registers.
"""
EPILOG = """\
examples:
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --speed 60 --set plant.seed=7
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --speed stepped --endpoint opc.tcp://127.0.0.1:4841/plant
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --protocol modbus --word-order cdab
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --protocol mqtt --endpoint mqtt://127.0.0.1:1883/farm/plant
  twinloop commission configs/robot_cell/plant_cell.yaml --protocol local --endpoint unix:cell.sock --limits-from-file
  twinloop commission configs/wind_farm/plant_ablaincourt.yaml --security security/server --endpoint opc.tcp://0.0.0.0:4840/t

exit status: 0 stopped by Ctrl-C or SIGTERM, 2 wrong input, or a port that cannot be opened.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("config", metavar="CONFIG.yaml", help="the plant's file, with the keys site and plant")
    parser.add_argument(
        "--protocol",
        choices=("opcua", "modbus", "mqtt", "local"),
        default="opcua",
        help="what the server speaks, default %(default)s",
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"where to serve, default {address.DEFAULT_ENDPOINT} or {modbus_address.DEFAULT_ENDPOINT}, where port 0 "
        f"takes a free one; over MQTT the broker, group and node, default {mqtt_address.DEFAULT_ENDPOINT}; "
        "local: the file of a socket, such as unix:/run/cell.sock",
    )
    parser.add_argument(
        "--encoding", choices=[str(e) for e in Encoding], help="numbers in Modbus registers, default float32"
    )
    parser.add_argument(
        "--word-order",
        choices=[str(o) for o in WordOrder],
        help="where the bytes A (most significant) to D of a number come in Modbus registers, default abcd",
    )
    parser.add_argument(
        "--speed",
        default="1",
        help="plant seconds per second, default 1; 'stepped': as fast as a client calls Site.Step (OPC UA alone)",
    )
    parser.add_argument(
        "--security",
        metavar="DIR",
        help="a server's folder of certificates and users (OPC UA, docs/opcua.md), or the file of its identity (MQTT, "
        "docs/mqtt.md)",
    )
    parser.add_argument(
        "--limits-from-file",
        action="store_true",
        help="serve a site whose limits its nameplate can't tell: give this file to every client too "
        "(run --endpoint URL --plant CONFIG.yaml), or its shield won't keep them",
    )
    add_overrides(parser, "plant.seed=3")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    speed = parse_speed(arguments.speed)
    registers = parse_registers(arguments.protocol, arguments.encoding, arguments.word_order, speed)
    if registers is not None and arguments.security is not None:
        raise ConfigurationError("--security: Modbus TCP has none; leave it out, or serve OPC UA")
    site, site_config, plant_config = load_plant_file(arguments.config, arguments.overrides)
    added = constraints_of_site(site, site_config)
    if added and not arguments.limits_from_file:
        raise ConfigurationError(
            f"{arguments.config}: site: constraint {added[0].name!r}: clients of a server see the nameplate alone, so "
            "their shields would not keep it; leave the constraint out, run the plant in process (run --plant), or add "
            "--limits-from-file and give every client this file (run --endpoint URL --plant FILE)"
        )
    if arguments.protocol == "local":
        server_of = _local_server_of(arguments.endpoint, speed, arguments.security)
    elif arguments.protocol == "mqtt":
        server_of = _edge_node_of(arguments.endpoint, speed, arguments.security)
    else:
        server_of = _server_of(arguments.endpoint, speed, registers, arguments.security)
    plant = site.plant(site_config, plant_config)
    server = server_of(plant)
    try:
        with terminate_as_interrupt():
            server.start()
            security = arguments.security
            print(
                describe(plant.nameplate, server.endpoint, speed, registers, security, arguments.protocol), flush=True
            )
            while not server.wait(0.5):
                pass  # short waits, so that Ctrl-C is heard
    except KeyboardInterrupt:
        print("\nstopping; clients are disconnected", flush=True)
    finally:
        server.stop()
        plant.close()
    return 0


def parse_speed(text: str) -> float | None:
    """None for ``stepped``, else a positive number; raises :class:`ConfigurationError`."""
    if text == "stepped":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise ConfigurationError(f"--speed: {text!r}; give a positive number such as 1 or 60, or 'stepped'")
    return speed


def parse_registers(
    protocol: str, encoding: str | None, word_order: str | None, speed: float | None
) -> MapSettings | None:
    """None for OPC UA and MQTT; raises :class:`ConfigurationError` for what the protocol has no use for."""
    if protocol == "modbus":
        if speed is None:
            raise ConfigurationError(
                "--speed: stepped; over Modbus no client can step a plant: give a number such as 60"
            )
        return MapSettings(Encoding(encoding or Encoding.FLOAT32), WordOrder(word_order or WordOrder.ABCD))
    if protocol == "mqtt" and speed is None:
        raise ConfigurationError("--speed: stepped; over MQTT no client can step a plant: give a number such as 60")
    for option, value in (("--encoding", encoding), ("--word-order", word_order)):
        if value is not None:
            raise ConfigurationError(
                f"{option}: {value!r} is for Modbus registers; leave it out, or add --protocol modbus"
            )
    return None


class _Server(Protocol):
    """What the servers of all protocols have."""

    endpoint: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self, timeout_s: float | None = None) -> bool: ...


def _server_of(
    endpoint: str | None, speed: float | None, registers: MapSettings | None, security: str | None
) -> Callable[[Plant], _Server]:
    """What makes the plant's server; what it lacks is told of before the plant is made."""
    # Here, not above: --help and a wrong file need neither the protocols' packages nor the simulator.
    if registers is not None:
        from ..connectors.modbus_server import ModbusPlantServer

        where = endpoint or modbus_address.DEFAULT_ENDPOINT
        modbus_address.host_and_port(where)  # a wrong one is told of now, not when the plant is made
        return lambda plant: ModbusPlantServer(plant, where, registers, speed=speed)
    from ..drivers.opcua_access import ServerSecurity
    from ..drivers.opcua_endpoint import check_exposure
    from ..drivers.opcua_server import OpcUaPlantServer

    # asyncua logs a trace for each client that leaves in a hurry; our own messages still show.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    at = endpoint or address.DEFAULT_ENDPOINT
    check_exposure(at, security)
    if security is not None:
        ServerSecurity(security)
    return lambda plant: OpcUaPlantServer(plant, at, speed=speed, security=security)


def _edge_node_of(endpoint: str | None, speed: float | None, security: str | None) -> Callable[[Plant], _Server]:
    """As :func:`_server_of`, for a plant at a broker."""
    try:
        from ..connectors.mqtt_server import MqttPlantServer
    except ModuleNotFoundError as error:
        raise MissingExtraError("paho-mqtt", "mqtt", "a plant at a broker") from error
    from ..connectors.mqtt_identity import identity_of_environment, load_identity

    where = endpoint or mqtt_address.DEFAULT_ENDPOINT
    mqtt_address.parse(where)  # what is wrong is told of now, not when the plant is made
    identity = identity_of_environment() if security is None else load_identity(security)
    return lambda plant: MqttPlantServer(plant, where, identity, primary_host=identity.host_id, speed=speed)


def _local_server_of(endpoint: str | None, speed: float | None, security: str | None) -> Callable[[Plant], _Server]:
    """As :func:`_server_of`, for clients on this machine alone."""
    from ..drivers.local_server import LocalPlantServer
    from ..drivers.local_wire import SCHEME, path_of

    if endpoint is None:
        raise ConfigurationError(f"--protocol local: needs --endpoint {SCHEME}FILE, the file of a socket")
    path_of(endpoint)  # what is wrong is told of now, not when the plant is made
    if speed is None:
        raise ConfigurationError("--speed: stepped; over a local link no client can step a plant: give a number")
    if security is not None:
        raise ConfigurationError("--security: the socket's file is its owner's alone; leave it out")
    pace = speed
    return lambda plant: LocalPlantServer(plant, endpoint, speed=pace)


def _secured(security: str | None) -> str:
    if security is not None:
        return f"SignAndEncrypt, certificates and users of {security}; what is refused is told in its refused.jsonl"
    return (
        "NONE: every program on this machine can command this plant; `twinloop certificates make DIR`, then "
        "--security DIR/server here and --security DIR/client there"
    )


def describe(
    nameplate: Nameplate,
    endpoint: str,
    speed: float | None,
    registers: MapSettings | None = None,
    security: str | None = None,
    protocol: str = "opcua",
) -> str:
    """Endpoint and addresses as text: over OPC UA all variables of each group's first asset, and the names of the
    others; over Modbus all registers, over MQTT all metrics."""
    pace = "stepped by its clients" if speed is None else f"at {speed:g} x real time"
    lines = [
        f"plant      {nameplate.site}: {nameplate.description}",
        f"endpoint   {endpoint}",
        f"pace       {pace}, control period {nameplate.period_s:g} s",
    ]
    if registers is not None:
        lines += ["", RegisterMap(nameplate, registers).table(), "\nserving; stop with Ctrl-C"]
        return "\n".join(lines)
    if protocol == "local":
        return "\n".join(
            [*lines, "access     the socket's owner alone, each client its own rows", "serving; stop with Ctrl-C"]
        )
    if protocol == "mqtt":
        where = mqtt_address.parse(endpoint)
        lines += [
            f"topics     {where.topic('NDATA')}, {where.topic('DDATA', 'DEVICE')}",
            f"commands   {where.topic('DCMD', 'DEVICE')}",
            "alias, device and metric of each value:",
            SparkplugSite(nameplate).table(),
            "\nserving; stop with Ctrl-C",
        ]
        return "\n".join(lines)
    lines += [
        f"security   {_secured(security)}",
        f"namespace  {address.NAMESPACE_URI}; site nodes: {address.NAMEPLATE}, {address.CLOCK}, {address.HEARTBEAT}, "
        f"{address.CLIENT_HEARTBEAT}, {address.WATCHDOG}, {address.STEP}()",
    ]
    everything = (*address.points(nameplate, "measured"), *address.points(nameplate, "commanded"))
    width = max(len(point.node) for point in everything)
    for group in nameplate.groups:
        lines.append(f"\n{group.name}: {', '.join(group.assets)}; variables of {group.assets[0]}:")
        for point in everything:
            if point.group == group.name and point.row == 0:
                signal = point.signal
                access = "write" if point.kind == "commanded" else "read "
                span = f"[{signal.minimum:g}, {signal.maximum:g}] {signal.unit}"
                lines.append(f"  {access}  s={point.node:<{width}}  {span:<22} {signal.description}")
    lines.append("\nserving; stop with Ctrl-C")
    return "\n".join(lines)
