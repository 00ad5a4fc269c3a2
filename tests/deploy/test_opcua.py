"""The OPC UA driver: both ends over a real socket, with the emulated farm behind."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from asyncua import ua as _typed_ua
from asyncua.sync import Client

from twinloop.deploy.connectors.opcua_connector import OpcUaConnector
from twinloop.deploy.drivers import opcua_address as address
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import NameplateError, PlantError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Plant, Quality, Telemetry
from twinloop.envs.wind_farm.config import FlorisPlantConfig, NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.plant import EPOCH_UTC_S, FlorisPlant

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
FREE = "opc.tcp://127.0.0.1:0/twinloop"
FARM = WindFarmConfig(name="row", layout=NamedLayout(name="row3_5d"))
Shared = tuple[FlorisPlant, OpcUaPlantServer, OpcUaPlant]
OFFSET = np.array([[20.0, 1.0], [10.0, 0.9], [0.0, 1.0]])


def new_plant(**settings: object) -> FlorisPlant:
    return FlorisPlant(FARM, FlorisPlantConfig.model_validate(settings))


@contextlib.contextmanager
def served(
    plant: Plant, speed: float | None = None, timeout_s: float = 5.0
) -> Iterator[tuple[OpcUaPlantServer, OpcUaPlant]]:
    server = OpcUaPlantServer(plant, FREE, speed=speed)
    with server:
        client = OpcUaPlant(server.endpoint, timeout_s)
        try:
            yield server, client
        finally:
            client.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """One stepped server for the tests that leave it as it is: asyncua needs over a second to start one."""
    plant = new_plant()
    with served(plant) as (server, client):
        yield plant, server, client


def failure(call: Callable[[], object]) -> str:
    """What a call complains of; empty when it works."""
    try:
        call()
    except PlantError as error:
        return str(error)
    return ""


def node(name: str) -> str:
    return f"ns=2;s={name}"


def test_the_client_keeps_the_plant_contract(shared: Shared) -> None:
    _, server, _ = shared
    check_plant(lambda: OpcUaPlant(server.endpoint, 5.0))


def test_a_plant_behind_the_wire_is_the_plant_in_process() -> None:
    plant = new_plant(dropout_pu=0.1)
    reference = plant.clone()
    with served(plant) as (_, client):
        assert client.nameplate == reference.nameplate
        for k in range(5):
            command = {"turbine": OFFSET * [(-1.0) ** k, 1.0]}
            np.testing.assert_array_equal(client.write(command)["turbine"], reference.write(command)["turbine"])
            client.advance()
            reference.advance()
            here, there = client.read(), reference.read()
            quality = here.quality["turbine"]
            np.testing.assert_array_equal(quality, there.quality["turbine"])
            good = quality == Quality.GOOD
            np.testing.assert_array_equal(here.values["turbine"][good], there.values["turbine"][good])
            assert np.all(np.isnan(here.values["turbine"][~good]))
            np.testing.assert_allclose(here.source_time_s["turbine"], there.source_time_s["turbine"], atol=1e-5)
            assert here.received_time_s == client.clock_s == reference.clock_s
            assert here.sequence == k + 1
        assert not np.all(good)  # the last reading has lost some, so that the test has seen bad quality travel


def test_refusals_are_item_by_item_and_keep_the_value_before(shared: Shared) -> None:
    _, _, client = shared
    client.write({"turbine": OFFSET})
    held = client.write({"turbine": np.array([[np.nan, 0.5], [41.0, np.inf], [-40.0, 0.05]])})
    np.testing.assert_array_equal(held["turbine"], [[20.0, 0.5], [10.0, 0.9], [-40.0, 1.0]])
    assert client.refusals == {
        "turbine/WT01/yaw_offset_deg": "nan is no number to command",
        "turbine/WT02/yaw_offset_deg": "41 deg is outside [-40, 40]",
        "turbine/WT02/power_limit_pu": "inf is no number to command",
        "turbine/WT03/power_limit_pu": "0.05 pu is outside [0.1, 1]",
    }
    client.write({"turbine": OFFSET})
    assert client.refusals == {}


def test_a_foreign_client_meets_limits_units_and_read_only_nodes(shared: Shared) -> None:
    _, server, mine = shared
    mine.write({"turbine": np.array([[0.0, 1.0]] * 3)})
    with Client(server.endpoint) as foreign:
        command = foreign.get_node(node("row.WT01.WYAW.YwOfsSpt"))
        assert command.read_browse_name().Name == "WYAW.YwOfsSpt"
        span = command.get_child("0:EURange").read_value()
        assert (span.Low, span.High) == (-40.0, 40.0)
        unit = command.get_child("0:EngineeringUnits").read_value()
        assert (unit.UnitId, unit.DisplayName.Text) == (17476, "deg")  # UNECE "DD", OPC 10000-8 table of units
        for value in (float("nan"), float("inf"), 40.1):
            with pytest.raises(ua.uaerrors.BadOutOfRange):
                command.write_value(value)
        with pytest.raises(ua.uaerrors.BadTypeMismatch):
            command.write_value("20")
        with pytest.raises(ua.uaerrors.BadWriteNotSupported):
            command.write_value(ua.DataValue(ua.Variant(1.0), ua.StatusCode(0x80000000)))  # Bad
        assert command.read_value() == 0.0
        for name in ("row.WT01.WTUR.W", address.CLOCK, address.NAMEPLATE, address.HEARTBEAT):
            reading = foreign.get_node(node(name))
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                reading.write_value(reading.read_value())
        command.write_value(12.5)
        assert command.read_value() == 12.5


def test_a_silent_client_gives_the_equipment_back_to_its_own_control() -> None:
    plant = new_plant()
    with served(plant) as (server, client), Client(server.endpoint) as other:
        client.write({"turbine": OFFSET})
        site, step = other.get_node(node(address.SITE)), ua.NodeId.from_string(node(address.STEP))
        tripped = []
        for _ in range(5):
            site.call_method(step)  # another client's step is no sign of life of the controller
            tripped.append(other.get_node(node(address.WATCHDOG)).read_value())
        assert tripped == [False, False, False, True, True]
        held = [other.get_node(node(f"row.WT01.{tag}")).read_value() for tag in ("WYAW.YwOfsSpt", "WTUR.DmdW")]
        assert held == [0.0, 1.0]
        np.testing.assert_array_equal(plant.write({})["turbine"], [[0.0, 1.0]] * 3)
        client.write({"turbine": OFFSET})
        client.advance()
        notes = client.read().notes
        assert notes is not None
        assert (notes["heartbeat"], notes["watchdog_tripped"]) == (6, False)
        np.testing.assert_array_equal(notes["obeyed"]["turbine"], OFFSET)
        np.testing.assert_array_equal(plant.write({})["turbine"], OFFSET)


def test_a_client_that_only_advances_keeps_its_commands(shared: Shared) -> None:
    plant, _, client = shared
    client.write({"turbine": OFFSET})
    for _ in range(6):
        client.advance()
    np.testing.assert_array_equal(plant.write({})["turbine"], OFFSET)


def test_a_dead_server_is_reported_in_time_and_found_again_when_it_is_back() -> None:
    plant = new_plant()
    server = OpcUaPlantServer(plant, FREE, speed=None)
    server.start()
    client = OpcUaPlant(server.endpoint, timeout_s=2.0)
    try:
        client.write({"turbine": OFFSET})
        server.stop()
        calls = (client.read, client.advance, lambda: client.write({"turbine": OFFSET}), lambda: client.clock_s)
        for call in calls:
            start_s = time.monotonic()
            with pytest.raises(PlantError, match=r"127\.0\.0\.1"):
                call()
            assert time.monotonic() - start_s < 3.5
        answers = [failure(client.read) for _ in range(5)]
        assert any("trying again in" in answer for answer in answers)
        server.start()
        deadline_s = time.monotonic() + 10.0
        while failure(client.read) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        reading = client.read()
        np.testing.assert_array_equal(reading.values["turbine"], plant.read().values["turbine"])
    finally:
        client.close()
        server.stop()


class SlowPlant(FlorisPlant):
    """A plant whose period takes longer than its client waits."""

    def advance(self) -> None:
        time.sleep(3.0)


def test_a_silent_server_is_reported_within_the_timeout() -> None:
    with served(SlowPlant(FARM, FlorisPlantConfig()), timeout_s=0.5) as (_, client):
        client.read()
        start_s = time.monotonic()
        with pytest.raises(PlantError, match=r"no answer within 0\.5 s"):
            client.advance()
        assert time.monotonic() - start_s < 2.0


def test_a_socket_that_never_answers_is_reported_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client = OpcUaPlant(f"opc.tcp://127.0.0.1:{deaf.getsockname()[1]}/twinloop", timeout_s=0.5)
        start_s = time.monotonic()
        with pytest.raises(PlantError, match=r"no answer within 0\.5 s"):
            client.read()
        assert time.monotonic() - start_s < 2.0


class BrokenPlant(FlorisPlant):
    """A plant whose simulator fails."""

    def advance(self) -> None:
        raise RuntimeError("the solver diverged")


def test_a_failing_plant_is_served_with_bad_quality() -> None:
    with served(BrokenPlant(FARM, FlorisPlantConfig())) as (_, client):
        with pytest.raises(PlantError, match="BadDeviceFailure"):
            client.advance()
        assert np.all(client.read().quality["turbine"] == Quality.BAD)


class MutePlant(FlorisPlant):
    """A plant that cannot be read any more once it has made a step, until it has failed twice."""

    failures = 0

    def read(self) -> Telemetry:
        if self.clock_s > EPOCH_UTC_S and self.failures < 2:
            self.failures += 1
            raise RuntimeError("the gateway is gone")
        return super().read()


def test_a_plant_that_cannot_be_read_is_served_with_bad_quality_until_it_can() -> None:
    with served(MutePlant(FARM, FlorisPlantConfig())) as (_, client):
        for _ in range(2):
            with pytest.raises(PlantError, match="BadDeviceFailure"):
                client.advance()
            assert np.all(client.read().quality["turbine"] == Quality.BAD)
        client.advance()
        assert np.all(client.read().quality["turbine"] == Quality.GOOD)


def test_a_busy_port_is_named_with_a_remedy(shared: Shared) -> None:
    plant, server, _ = shared
    port = server.endpoint.split(":")[-1].split("/")[0]
    with pytest.raises(PlantError, match=rf"port {port} .*already in use.*--endpoint"):
        OpcUaPlantServer(plant, server.endpoint).start()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1/x", "opc.tcp://127.0.0.1:4x/y", "opc.tcp://host", "4840"])
def test_a_malformed_endpoint_is_answered_with_the_right_form(endpoint: str) -> None:
    with pytest.raises(PlantError, match=r"expected opc\.tcp://host:port/name"):
        OpcUaPlantServer(new_plant(), endpoint).start()
    with pytest.raises(PlantError, match=r"expected opc\.tcp://host:port/name"):
        OpcUaPlant(endpoint).read()


def test_in_real_time_advance_waits_for_the_next_period() -> None:
    plant = new_plant()
    with served(plant, speed=40.0) as (_, client):  # a period of 10 s in a quarter of a second
        client.read()
        client.advance()
        start_s, start_clock_s = time.monotonic(), client.clock_s
        for _ in range(4):
            client.advance()
        assert time.monotonic() - start_s > 0.7
        assert client.clock_s - start_clock_s >= 40.0
        with pytest.raises(PlantError, match="BadInvalidState"):
            cast(OpcUaConnector, client._connector).step()


def test_a_server_of_another_plant_is_refused_with_the_difference(shared: Shared) -> None:
    _, server, _ = shared
    other = FlorisPlant(WindFarmConfig(name="other", layout=NamedLayout(name="row3_5d")), FlorisPlantConfig())
    client = OpcUaPlant(server.endpoint, expected=other.nameplate)
    with pytest.raises(PlantError, match="site: 'other' here, 'row' there"):
        client.read()


def test_every_signal_has_a_node_of_its_own() -> None:
    plate = new_plant().nameplate
    nodes = [p.node for kind in ("measured", "commanded") for p in address.points(plate, kind)]
    assert len(set(nodes)) == len(nodes) == 3 * (8 + 2)
    assert nodes[2] == "row.WT01.WNAC.Dir"
    twice = Signal("a", "kW", 0.0, 1.0, tag="X.Y"), Signal("b", "kW", 0.0, 1.0, tag="X.Y")
    clash = Nameplate("s", 1.0, (Group("g", ("A1",), measured=twice[:1], commanded=twice[1:]),))
    with pytest.raises(NameplateError, match=r"g/A1/a and g/A1/b share the OPC UA node 's\.A1\.X\.Y'"):
        address.points(clash, "measured")
