"""Both ends of Modbus TCP over a real socket: the plant's contract, refusals, the watchdog, batches."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.deploy.connectors.rig import EPOCH_S, Rig, rig_nameplate
from tests.linear_site import TankPlant

from twinloop.deploy.connectors import modbus_wire as wire
from twinloop.deploy.connectors import register_map as rm
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.contract import Connector, Readings, WriteStatus
from twinloop.deploy.connectors.modbus_client import ModbusConnector
from twinloop.deploy.connectors.modbus_server import ModbusPlantServer
from twinloop.deploy.connectors.register_map import Header, MapSettings, Status
from twinloop.deploy.connectors.word_order import Encoding, WordOrder
from twinloop.envs.conformance import check_plant
from twinloop.envs.errors import PlantError
from twinloop.envs.plant import Quality

FREE = "modbus://127.0.0.1:0"
VALVE, MODE = 2, 4
"""Holding registers of the first asset's commands, as float32."""


@contextlib.contextmanager
def served(
    rig: Rig, settings: MapSettings | None = None, speed: float | None = None, timeout_s: float | None = 2.0
) -> Iterator[tuple[ModbusPlantServer, ModbusConnector]]:
    with ModbusPlantServer(rig, FREE, settings, speed=speed) as server:
        connector = ModbusConnector(server.endpoint, timeout_s=timeout_s)
        try:
            yield server, connector
        finally:
            connector.close()


@contextlib.contextmanager
def raw(server: ModbusPlantServer) -> Iterator[wire.Wire]:
    """A client that writes what it likes."""
    link = wire.Wire("127.0.0.1", int(server.endpoint.rsplit(":", 1)[1]), server.map.settings.unit, 2.0)
    try:
        yield link
    finally:
        link.close()


def asked(server: ModbusPlantServer, function: int, payload: bytes, unit: int = 1) -> bytes:
    """Answer, without its header, to a request that no library would send."""
    with socket.create_connection(("127.0.0.1", int(server.endpoint.rsplit(":", 1)[1])), 2.0) as connection:
        connection.sendall(struct.pack(">HHHBB", 7, 0, len(payload) + 2, unit, function) + payload)
        return connection.recv(300)[7:]


def refusal(call: Callable[[], object]) -> int:
    with pytest.raises(wire.RefusalError) as caught:
        call()
    return caught.value.code


def words(*values: float) -> list[int]:
    return list(struct.unpack(f">{2 * len(values)}H", struct.pack(f">{len(values)}f", *values)))


@pytest.mark.parametrize(
    ("settings", "tolerance"), [(MapSettings(), 1e-5), (MapSettings(Encoding.INT16, WordOrder.DCBA, unit=17), 1e-3)]
)
def test_a_plant_behind_modbus_keeps_the_plant_contract(settings: MapSettings, tolerance: float) -> None:
    with ModbusPlantServer(TankPlant(), FREE, settings, speed=50.0) as server:
        check_plant(
            lambda: ConnectedPlant(ModbusConnector(server.endpoint, settings=settings, timeout_s=2.0)),
            tolerance=tolerance,
        )


@pytest.mark.parametrize("order", list(WordOrder))
@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_plant_behind_the_wire_is_the_plant_in_process(encoding: Encoding, order: WordOrder) -> None:
    rig = Rig(rig_nameplate(n_assets=30, n_measured=5))  # more than one request either way
    rig.bad = {(3, 1): Quality.BAD, (4, 0): Quality.UNCERTAIN}
    with served(rig, MapSettings(encoding, order)) as (server, connector):
        plant = ConnectedPlant(connector)
        assert plant.nameplate == rig.nameplate
        for k in range(3):
            commands = np.tile([[0.35, 0.1], [0.1, 1.0], [0.25, 0.0]], (10, 1)) if k else np.tile([0.1, 0.1], (30, 1))
            np.testing.assert_allclose(plant.write({"rig": commands})["rig"], commands, atol=1e-7)
            assert plant.refusals == {}
            assert server.step()
            np.testing.assert_allclose(rig.commands, commands, atol=1e-7)
            reading = plant.read()
            bad = reading.quality["rig"] != Quality.GOOD
            assert np.argwhere(bad).tolist() == [[3, 1], [4, 0]]  # Modbus knows no "uncertain"
            np.testing.assert_array_equal(reading.values["rig"][~bad], rig.expected()[~bad])
            assert np.all(np.isnan(reading.values["rig"][bad]))
            assert reading.received_time_s == plant.clock_s == rig.clock_s == EPOCH_S + k + 1
            assert np.all(reading.source_time_s["rig"] == rig.clock_s)
            assert reading.sequence == k + 1
            assert reading.notes is not None
            np.testing.assert_allclose(reading.notes["obeyed"]["rig"], commands, atol=1e-7)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Rig, ModbusPlantServer, ModbusConnector]]:
    """One stepped server for the tests that leave it as it is."""
    rig = Rig()
    with served(rig) as (server, connector):
        yield rig, server, connector


Shared = tuple[Rig, ModbusPlantServer, ModbusConnector]


def test_a_connector_keeps_the_connectors_protocol(shared: Shared) -> None:
    assert isinstance(shared[2], Connector)
    assert not shared[2].capabilities.has_identity


@pytest.mark.parametrize(
    ("register", "sent", "code"),
    [
        (VALVE, words(0.351), 3),
        (VALVE, words(0.0999), 3),
        (VALVE, words(float("nan")), 3),
        (VALVE, words(float("inf")), 3),
        (VALVE, words(-0.0), 3),
        (MODE, words(0.5), 3),  # inside the range, and none of the levels
        (VALVE, words(0.2, 0.5), 3),  # the first is in order: nothing of the request is taken
        (VALVE, words(0.2)[:1], 2),  # half a number
        (VALVE + 1, words(0.2), 2),
        (9, words(0.2), 2),  # begins inside the last number and ends behind the registers
        (10, [1], 2),
        (rm.SEQUENCE, [1, *words(0.5)], 3),
    ],
)
def test_a_refused_write_changes_no_register(shared: Shared, register: int, sent: list[int], code: int) -> None:
    _, server, connector = shared
    connector.heartbeat()
    with raw(server) as link:
        before = link.read_holding(0, server.map.n_holding)
        assert refusal(lambda: link.write(register, sent)) == code
        assert link.read_holding(0, server.map.n_holding) == before


def test_only_the_next_heartbeat_is_taken_and_a_replayed_one_takes_nothing_with_it() -> None:
    with served(Rig()) as (server, connector), raw(server) as link:
        connector.heartbeat()
        echo = link.read_input(Header.ECHO, 1)[0]
        before = link.read_holding(0, server.map.n_holding)
        for wrong in (echo, echo + 2, (echo - 1) & 0xFFFF, 0):
            assert refusal(lambda number=wrong: link.write(rm.HEARTBEAT, [number, 0, *words(0.2)])) == 3  # type: ignore[misc]
        assert link.read_holding(0, server.map.n_holding) == before
        assert link.read_input(Header.ECHO, 1)[0] == echo
        link.write(rm.HEARTBEAT, [echo + 1])
        assert link.read_input(Header.ECHO, 1)[0] == echo + 1


def test_two_clients_in_control_are_told_of_each_other() -> None:
    with served(Rig()) as (server, connector):
        connector.heartbeat()
        other = ModbusConnector(server.endpoint, timeout_s=2.0)
        try:
            other.heartbeat(send=False)
            connector.heartbeat()
            other.heartbeat()  # it was not in control: a watchdog that takes over is not held up
            with pytest.raises(PlantError, match="somebody else has taken the count"):
                connector.write({"rig/R1/valve_pu": 0.2})
        finally:
            other.close()


@pytest.mark.parametrize("function", [1, 2, 5, 7, 8, 15, 17, 20, 21, 22, 23, 24, 43, 0x41])
def test_functions_that_are_not_needed_are_not_offered(shared: Shared, function: int) -> None:
    answer = asked(shared[1], function, bytes(12))
    assert answer[:2] == bytes([function | 0x80, 1])


def test_a_unit_that_is_not_there_is_answered_as_a_gateway_does(shared: Shared) -> None:
    assert asked(shared[1], 3, struct.pack(">HH", 0, 1), unit=9)[:2] == bytes([0x83, 11])
    for unit in (0, 1, 255):
        assert asked(shared[1], 3, struct.pack(">HH", 0, 1), unit=unit)[0] == 3


@pytest.mark.parametrize(("is_input", "register", "count"), [(True, 45, 1), (True, 30, 40), (False, 9, 2)])
def test_registers_that_are_not_there_cannot_be_read(shared: Shared, is_input: bool, register: int, count: int) -> None:
    with raw(shared[1]) as link:
        read = link.read_input if is_input else link.read_holding
        assert refusal(lambda: read(register, count)) == 2


def test_no_command_is_taken_while_nobodys_heartbeat_lives() -> None:
    with served(Rig()) as (server, connector), raw(server) as link:
        assert refusal(lambda: link.write(VALVE, words(0.2))) == 4
        connector.heartbeat()
        link.write(VALVE, words(0.2))


def test_a_silent_client_gives_the_equipment_back_to_its_own_control() -> None:
    rig = Rig()
    with served(rig) as (server, connector):
        plant = ConnectedPlant(connector)
        plant.write({"rig": np.array([[0.3, 1.0], [0.35, 0.1]])})
        tripped = []
        for _ in range(5):
            server.step()
            tripped.append(connector.heartbeat(send=False).is_tripped)  # to look is no sign of life of a controller
        assert tripped == [False, False, False, True, True]
        np.testing.assert_array_equal(rig.commands, [[0.25, 0.0], [0.25, 0.0]])
        notes = plant.read().notes
        assert notes is not None
        assert notes["watchdog_tripped"]
        np.testing.assert_array_equal(notes["obeyed"]["rig"], [[0.25, 0.0], [0.25, 0.0]])
        plant.write({"rig": np.array([[0.3, 1.0], [0.35, 0.1]])})
        server.step()
        assert not connector.heartbeat(send=False).is_tripped
        np.testing.assert_allclose(rig.commands, [[0.3, 1.0], [0.35, 0.1]], atol=1e-7)


def test_an_open_batch_is_obeyed_whole_or_not_at_all() -> None:
    rig = Rig()
    with served(rig) as (server, connector), raw(server) as link:
        connector.heartbeat()
        link.write(VALVE, words(0.2))
        server.step()
        link.write(rm.SEQUENCE, [1])
        link.write(VALVE, words(0.3))
        server.step()
        assert rig.commands[0, 0] == pytest.approx(0.2)
        assert link.read_input(Header.STATUS, 1)[0] == Status.BATCH_OPEN
        link.write(VALVE + 4, words(0.3))
        link.write(rm.SEQUENCE, [2])
        server.step()
        np.testing.assert_allclose(rig.commands[:, 0], 0.3, atol=1e-7)
        assert link.read_input(Header.TAKEN, 1)[0] == 2


def test_a_batch_that_its_client_died_in_ends_in_neutral() -> None:
    rig = Rig()
    with served(rig) as (server, connector), raw(server) as link:
        connector.heartbeat()
        link.write(VALVE, words(0.2))
        server.step()
        link.write(rm.SEQUENCE, [1])
        link.write(VALVE, words(0.3))
        for _ in range(4):
            server.step()
        np.testing.assert_array_equal(rig.commands, [[0.25, 0.0]] * 2)
        assert link.read_input(Header.STATUS, 1)[0] == Status.WATCHDOG_TRIPPED


def test_what_cannot_be_commanded_is_not_sent_and_the_rest_is() -> None:
    rig = Rig()
    with served(rig) as (server, connector):
        connector.write({"rig/R1/valve_pu": 0.3, "rig/R2/valve_pu": 0.3, "rig/R2/mode": 1.0})
        found = connector.write({"rig/R1/valve_pu": float("nan"), "rig/R2/valve_pu": 0.36, "rig/R2/mode": 0.1})
        assert [o.status for o in found.values()] == [
            WriteStatus.NOT_SENT,
            WriteStatus.NOT_SENT,
            WriteStatus.ACCEPTED,
        ]
        assert [o.held for o in found.values()] == [pytest.approx(0.3), pytest.approx(0.3), 0.1]
        assert "outside [0.1, 0.35]" in found["rig/R2/valve_pu"].reason
        server.step()
        np.testing.assert_allclose(rig.commands, [[0.3, 0.0], [0.3, 0.1]], atol=1e-7)
        with pytest.raises(PlantError, match=r"no signal 'rig/R9/mode' here; this site has rig/R1/valve_pu"):
            connector.write({"rig/R9/mode": 0.0})


def test_limits_at_the_server_hold_against_a_client_that_knows_wider_ones() -> None:
    """The server judges each command by itself, and its verdict comes back by name."""

    class Strict(ModbusPlantServer):
        """Equipment that takes less today than its nameplate says."""

        def write(self, register: int, words: list[int]) -> None:
            for entry in self.map.commanded:
                at = entry.register - register
                is_valve = 0 <= at < len(words) and entry.signal.name == "valve_pu"
                if is_valve and entry.codec.decode(words[at : at + 2]) > 0.3:
                    raise wire.RefusalError(wire.ILLEGAL_VALUE)
            super().write(register, words)

    rig = Rig()
    with Strict(rig, FREE, speed=None) as server:
        connector = ModbusConnector(server.endpoint, timeout_s=2.0)
        try:
            found = connector.write({"rig/R1/valve_pu": 0.35, "rig/R1/mode": 1.0, "rig/R2/valve_pu": 0.2})
            assert [o.status.name for o in found.values()] == ["REFUSED", "ACCEPTED", "ACCEPTED"]
            assert [o.held for o in found.values()] == [0.25, 1.0, pytest.approx(0.2)]
            assert found["rig/R1/valve_pu"].reason == "Modbus exception 3: the value is refused"
            server.step()
            np.testing.assert_allclose(rig.commands, [[0.25, 1.0], [0.2, 0.0]], atol=1e-7)
        finally:
            connector.close()


def test_a_server_of_other_units_or_another_order_is_refused_before_anything_is_sent(shared: Shared) -> None:
    _, server, _ = shared
    other_plate = rig_nameplate(n_assets=3)
    for other in (
        ModbusConnector(server.endpoint, other_plate, timeout_s=2.0),
        ModbusConnector(server.endpoint, rig_nameplate(), MapSettings(order=WordOrder.CDAB), timeout_s=2.0),
    ):
        with pytest.raises(PlantError, match=r"register map is another one than expected.*nothing was sent"):
            other.heartbeat()
        other.close()
    fitting = ModbusConnector(server.endpoint, rig_nameplate(), timeout_s=2.0)
    assert not fitting.heartbeat(send=False).has_failed
    fitting.close()


def test_a_failing_plant_is_served_without_values_until_it_works_again() -> None:
    rig = Rig()
    with served(rig) as (server, connector):
        plant = ConnectedPlant(connector)
        server.step()
        rig.is_broken = True
        assert not server.step()
        reading = plant.read()
        assert np.all(reading.quality["rig"] == Quality.BAD)
        assert np.all(np.isnan(reading.values["rig"]))
        assert connector.heartbeat(send=False).has_failed
        rig.is_broken = False
        assert server.step()
        assert np.all(plant.read().quality["rig"] == Quality.GOOD)


def test_a_cycle_of_100_reads_and_20_writes_takes_five_requests_and_a_few_milliseconds() -> None:
    rig = Rig(rig_nameplate(n_assets=20, n_measured=5, with_modes=False))
    with served(rig, speed=10.0) as (server, connector):
        plant = ConnectedPlant(connector)
        commands = {"rig": np.full((20, 1), 0.3)}
        took_ms: list[float] = []
        for _ in range(200):
            start_s = time.perf_counter()
            plant.read()
            plant.write(commands)
            took_ms.append((time.perf_counter() - start_s) * 1e3)
        p50, p99 = np.percentile(took_ms, [50, 99])
        print(f"\nModbus TCP, 100 reads, 20 echoes, 20 writes, read back: {p50:.2f} / {p99:.2f} ms p50 / p99")
        assert p50 < 50.0  # the figure is a few; a machine that is busy with other tests makes more of it
        reads = rm.read_blocks(server.map, (*server.map.measured, *server.map.obeyed))
        assert [block.count for block in reads] == [124, 124, 11]  # header, 100 values, 20 echoes, the number again


def test_a_subscription_tells_each_period_and_of_a_server_that_is_gone() -> None:
    rig = Rig()
    told: list[Readings | PlantError] = []
    with served(rig, speed=20.0, timeout_s=None) as (server, connector):
        subscription = connector.subscribe(["rig/R1/flow0_kgps", "rig/R2/flow1_kgps"], told.append, 0.05)
        wait_until(lambda: len(told) > 4)
        server.stop()
        wait_until(lambda: isinstance(told[-1], PlantError))
        subscription.close()
        n_told = len(told)
        time.sleep(0.15)
        assert len(told) == n_told
    values = np.array([t.values for t in told if isinstance(t, Readings)])
    assert np.all(np.diff(values[:, 0]) >= 0.0)
    np.testing.assert_array_equal(values[:, 1] - values[:, 0], 1.25)


def test_calls_from_several_threads_do_not_mix_answers() -> None:
    rig = Rig()
    with served(rig, speed=50.0, timeout_s=5.0) as (_, connector):
        faults: list[object] = []

        def look(name: str, offset: float) -> None:
            try:
                for _ in range(50):
                    both = connector.read(["rig/R1/flow0_kgps", name]).values
                    faults.extend([both] if both[1] - both[0] != offset else [])
            except PlantError as error:
                faults.append(error)

        threads = [
            threading.Thread(target=look, args=a) for a in (("rig/R2/flow0_kgps", 1.0), ("rig/R1/flow2_kgps", 0.5))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []


@pytest.mark.parametrize(
    "endpoint", ["opc.tcp://127.0.0.1:1", "modbus://host", "modbus://h:70000", "5020", "modbus://h:1/x"]
)
def test_a_malformed_endpoint_is_answered_with_the_right_form(endpoint: str) -> None:
    for call in (ModbusPlantServer(Rig(), endpoint).start, ModbusConnector(endpoint).heartbeat):
        with pytest.raises(PlantError, match="expected modbus://host:port"):
            call()


def test_a_port_that_is_taken_is_named(shared: Shared) -> None:
    with pytest.raises(PlantError, match=rf"{shared[1].endpoint}: could not start"):
        ModbusPlantServer(Rig(), shared[1].endpoint).start()


def test_only_a_server_without_a_speed_is_stepped_and_its_client_is_told(shared: Shared) -> None:
    with pytest.raises(PlantError, match="only a running server with speed None is stepped"):
        ModbusPlantServer(Rig(), FREE).step()
    with pytest.raises(PlantError, match="goes on only when it is stepped on its own side"):
        ConnectedPlant(shared[2]).advance()


def wait_until(is_done: Callable[[], bool], within_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
