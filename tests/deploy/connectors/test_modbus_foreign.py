"""Both ends against libmodbus, an implementation in C: its client mbpoll at our server, its server at our connector."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tests.deploy.connectors.rig import Rig, rig_nameplate

from twinloop.deploy.connectors import register_map as rm
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.modbus_client import ModbusConnector
from twinloop.deploy.connectors.modbus_server import ModbusPlantServer
from twinloop.deploy.connectors.register_map import Header, MapSettings, RegisterMap
from twinloop.deploy.connectors.word_order import Encoding, WordOrder

needs_mbpoll = pytest.mark.skipif(
    shutil.which("mbpoll") is None,
    reason="mbpoll is not installed; .ci/run installs it: apt-get install mbpoll (Debian, Ubuntu)",
)
BIG, LITTLE = WordOrder.ABCD, WordOrder.CDAB
ORDER_FLAGS = {BIG: ["-B"], LITTLE: list[str]()}
"""mbpoll's words: with -B the most significant first, without it last; it knows no swapped bytes."""


def mbpoll(server: ModbusPlantServer, *flags: str, write: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run mbpoll once; registers count from 0, numbers to write come after ``--``."""
    port = server.endpoint.rsplit(":", 1)[1]
    values = ["--", *write] if write else []
    command = ["mbpoll", "-0", "-1", "-a", "1", "-p", port, *flags, "127.0.0.1", *values]
    return subprocess.run(command, capture_output=True, text=True, timeout=20.0, check=False)


def numbers(told: subprocess.CompletedProcess[str]) -> list[float]:
    assert told.returncode == 0, told.stderr
    return [float(value) for value in re.findall(r"^\[\d+\]:\s+(\S+)", told.stdout, re.MULTILINE)]


def beat(server: ModbusPlantServer) -> None:
    """Heartbeat by hand, as an engineer would: read the echo, write the number after it."""
    (echo,) = numbers(mbpoll(server, "-t", "3", "-r", str(int(Header.ECHO))))
    assert mbpoll(server, "-t", "4", "-r", str(rm.HEARTBEAT), write=[str(int(echo) + 1)]).returncode == 0


@needs_mbpoll
@pytest.mark.parametrize("order", [BIG, LITTLE])
def test_mbpoll_reads_our_floats_in_the_order_configured_and_not_in_the_other(order: WordOrder) -> None:
    rig = Rig()
    with ModbusPlantServer(rig, "modbus://127.0.0.1:0", MapSettings(order=order), speed=None) as server:
        server.step()
        where = ["-t", "3:float", "-r", str(server.map.measured[0].register), "-c", "6"]
        assert numbers(mbpoll(server, *where, *ORDER_FLAGS[order])) == rig.expected().ravel().tolist()
        swapped = ORDER_FLAGS[LITTLE if order is BIG else BIG]
        assert numbers(mbpoll(server, *where, *swapped)) != rig.expected().ravel().tolist()


@needs_mbpoll
def test_mbpoll_reads_our_scaled_integers() -> None:
    rig = Rig()
    with ModbusPlantServer(rig, "modbus://127.0.0.1:0", MapSettings(Encoding.INT16), speed=None) as server:
        where = ["-t", "3", "-r", str(server.map.measured[0].register), "-c", "6"]
        assert numbers(mbpoll(server, *where)) == (rig.expected() * 100.0).ravel().tolist()


@needs_mbpoll
@pytest.mark.parametrize("order", [BIG, LITTLE])
def test_mbpoll_writes_floats_that_our_server_takes_or_refuses(order: WordOrder) -> None:
    rig = Rig()
    with ModbusPlantServer(rig, "modbus://127.0.0.1:0", MapSettings(order=order), speed=None) as server:
        valve = ["-t", "4:float", "-r", str(server.map.commanded[0].register), *ORDER_FLAGS[order]]
        early = mbpoll(server, *valve, write=["0.3"])
        assert (early.returncode, "Slave device or server failure" in early.stderr) == (1, True)  # no heartbeat yet
        beat(server)
        assert mbpoll(server, *valve, write=["0.3"]).returncode == 0
        server.step()
        assert rig.commands[0, 0] == pytest.approx(0.3, abs=1e-7)
        for wrong in ("0.36", "0.09", "nan"):
            told = mbpoll(server, *valve, write=[wrong])
            assert (told.returncode, "Illegal data value" in told.stderr) == (1, True), wrong
        assert numbers(mbpoll(server, *valve)) == [0.3]
        server.step()
        assert rig.commands[0, 0] == pytest.approx(0.3, abs=1e-7)


class _Mapping(ctypes.Structure):
    """``modbus_mapping_t`` of libmodbus 3.1."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("n_bits", "at_bits", "n_input_bits", "at_input_bits")),
        *((name, ctypes.c_int) for name in ("n_input", "at_input", "n_holding", "at_holding")),
        ("bits", ctypes.c_void_p),
        ("input_bits", ctypes.c_void_p),
        ("input", ctypes.POINTER(ctypes.c_uint16)),
        ("holding", ctypes.POINTER(ctypes.c_uint16)),
    )


_LIBRARY = ctypes.util.find_library("modbus")


@contextmanager
def libmodbus_server(input_words: dict[int, int], n_input: int, n_holding: int) -> Iterator[tuple[str, _Mapping]]:
    """Libmodbus serving these input registers to one client; it judges nothing and knows nothing of twinloop."""
    lib = ctypes.CDLL(_LIBRARY)
    lib.modbus_new_tcp.restype = ctypes.c_void_p
    lib.modbus_mapping_new.restype = ctypes.POINTER(_Mapping)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = ctypes.c_void_p(lib.modbus_new_tcp(b"127.0.0.1", 0))
        mapping = lib.modbus_mapping_new(0, 0, n_holding, n_input)
        for register, word in input_words.items():
            mapping.contents.input[register] = word
        accepted = ctypes.c_int(listening.fileno())

        def serve() -> None:
            if lib.modbus_tcp_accept(context, ctypes.byref(accepted)) < 0:
                return
            query = (ctypes.c_uint8 * 260)()
            while (length := lib.modbus_receive(context, query)) >= 0:
                lib.modbus_reply(context, query, length, mapping)

        thread = threading.Thread(target=serve, name="libmodbus", daemon=True)
        thread.start()
        try:
            yield f"modbus://127.0.0.1:{listening.getsockname()[1]}", mapping.contents
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)
            lib.modbus_close(context)
            lib.modbus_mapping_free(mapping)
            lib.modbus_free(context)


@pytest.mark.skipif(_LIBRARY is None, reason="libmodbus is not installed; it comes with mbpoll, which .ci/run installs")
@pytest.mark.parametrize("order", list(WordOrder))
def test_our_connector_controls_a_plant_that_libmodbus_serves(order: WordOrder) -> None:
    site = RegisterMap(rig_nameplate(n_assets=20, n_measured=5), MapSettings(order=order))
    expected = np.arange(100.0).reshape(20, 5)
    words = dict(enumerate([rm.MAGIC, rm.LAYOUT, site.settings.word]))
    words |= dict(enumerate(site.hash_words, Header.MAP_HASH))
    words |= dict(enumerate(rm.words_of(1000, 2), Header.PERIOD_MS))
    for entry in site.measured:
        words |= dict(enumerate(entry.codec.encode(expected[entry.row, entry.column]), entry.register))
    words |= dict(enumerate(rm.plate_words(site.nameplate), rm.PLATE_AT))
    with libmodbus_server(words, 0x10000, site.n_holding) as (endpoint, mapping):
        connector = ModbusConnector(endpoint, timeout_s=2.0)
        plant = ConnectedPlant(connector)
        try:
            assert plant.nameplate == site.nameplate
            np.testing.assert_array_equal(plant.read().values["rig"], expected)
            commands = np.tile([[0.35, 0.1], [0.1, 1.0]], (10, 1))
            np.testing.assert_array_equal(plant.write({"rig": commands})["rig"], commands)
            for entry in site.commanded:
                held = [mapping.holding[k] for k in range(entry.register, entry.end)]
                assert entry.codec.decode(held) == pytest.approx(commands[entry.row, entry.column], abs=1e-7)
            assert mapping.holding[rm.HEARTBEAT] == 1
        finally:
            connector.close()
