"""Secured OPC UA: what asyncua alone would let through, and messages for what is wrong."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from asyncua import ua as _typed_ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.deploy.connectors.rig import Rig
from tests.deploy.connectors.secured_site import PASSWORD, SecuredSite, make_site

from twinloop.deploy.certificates.identity import CERTIFICATE, KEY
from twinloop.deploy.certificates.trust import read_certificate
from twinloop.deploy.connectors.contract import Connector
from twinloop.deploy.connectors.opcua_connector import OpcUaConnector
from twinloop.deploy.drivers import opcua_address as address
from twinloop.deploy.drivers.opcua_client import OpcUaPlant
from twinloop.deploy.drivers.opcua_guard import ServerLimits
from twinloop.deploy.drivers.opcua_server import OpcUaPlantServer
from twinloop.deploy.plants import open_plant
from twinloop.envs.errors import ConfigurationError, PlantError
from twinloop.envs.plant import Quality

ua: Any = _typed_ua  # asyncua annotates with OPC UA's types, and takes and gives Python's
T = TypeVar("T")
Served = tuple[SecuredSite, OpcUaPlantServer, Rig]
COMMANDS = {"rig": np.array([[0.3, 1.0], [0.2, 0.1]])}
LIMITS = ServerLimits(
    sessions=4, subscriptions_a_session=2, items_a_session=3, nodes_a_request=40, session_s=(0.5, 60.0)
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    site = make_site(tmp_path_factory.mktemp("secured"), with_authority=True)
    rig = Rig()
    with OpcUaPlantServer(rig, "opc.tcp://127.0.0.1:0/rig", speed=None, security=site.server, limits=LIMITS) as server:
        yield site, server, rig


async def secured_client(
    site: SecuredSite, server: OpcUaPlantServer, user: str = "controller", identity: Path | None = None
) -> Client:
    """A plain client of asyncua, not connected yet."""
    folder = site.client if identity is None else identity
    client = Client(server.endpoint, timeout=10.0)
    client.application_uri = site.client_uri
    client.set_user(user)
    client.set_password(PASSWORD)
    await client.set_security(
        SecurityPolicyBasic256Sha256,
        str(folder / CERTIFICATE),
        str(folder / KEY),
        mode=ua.MessageSecurityMode.SignAndEncrypt,
    )
    return client


def played(play: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(play(), 60.0)

    return asyncio.run(bounded())


def node(name: str) -> Any:
    return ua.NodeId(name, 2)


def test_the_connector_keeps_the_contract_and_says_what_it_carries(served: Served) -> None:
    site, server, rig = served
    rig.bad = {(0, 1): Quality.UNCERTAIN, (1, 2): Quality.BAD}
    connector = OpcUaConnector(server.endpoint, security=site.client, timeout_s=8.0)
    plant = OpcUaPlant(server.endpoint, 8.0, security=site.client)
    try:
        assert isinstance(connector, Connector)
        found = connector.capabilities
        assert (found.has_identity, found.has_encryption, found.has_source_time, found.has_quality) == (True,) * 4
        plant.write(COMMANDS)
        plant.advance()
        reading = plant.read()
        np.testing.assert_array_equal(rig.commands, COMMANDS["rig"])
        np.testing.assert_array_equal(reading.quality["rig"], [[0, 1, 0], [0, 0, 2]])  # uncertain stays uncertain
        assert np.isnan(reading.values["rig"][1, 2])
        np.testing.assert_array_equal(reading.source_time_s["rig"], np.full((2, 3), rig.clock_s))
        with pytest.raises(PlantError, match="no signal 'rig/R9/flow0_kgps' here"):
            connector.read(["rig/R9/flow0_kgps"])
        with pytest.raises(PlantError, match="no commanded signal 'rig/R1/flow0_kgps' here"):
            connector.write({"rig/R1/flow0_kgps": 1.0})
    finally:
        rig.bad = {}
        plant.close()
        connector.close()


def test_a_password_in_clear_on_an_open_channel_makes_no_session(served: Served) -> None:
    _, server, _ = served

    async def attack() -> str:
        client = Client(server.endpoint, timeout=10.0)
        client.set_user("controller")
        client.set_password(PASSWORD)
        try:
            await client.connect()
        except ua.UaError as error:
            return type(error).__name__
        return "came in"

    assert played(attack) == "BadSecurityModeInsufficient"


def test_a_session_cannot_be_taken_over_by_its_token(served: Served) -> None:
    site, server, _ = served

    async def attack() -> tuple[str, str]:
        victim = await secured_client(site, server)
        async with victim:
            token = victim.uaclient.session.authentication_token
            thief = Client(server.endpoint, timeout=10.0)
            await thief.connect_socket()
            await thief.send_hello()
            await thief.open_secure_channel()
            thief.uaclient.session.restore_authentication_token(token)
            told = []
            for question in (thief.activate_session, lambda: thief.uaclient.session.read(reading)):
                try:
                    await question()
                    told.append("answered")
                except (ua.UaError, ConnectionError) as error:
                    told.append(type(error).__name__)
            thief.disconnect_socket()
            assert token.NodeIdType == ua.NodeIdType.ByteString  # no number to be guessed
            assert len(bytes(token.Identifier)) == 32  # type: ignore[arg-type]  # bytes, as the line above says
        return told[0], told[1]

    reading = ua.ReadParameters(NodesToRead=[ua.ReadValueId(NodeId=node(address.CLOCK), AttributeId=13)])
    first, second = played(attack)
    assert first == "BadSessionIdInvalid"
    assert second in {"BadUserAccessDenied", "ConnectionError"}


def test_a_trusted_certificate_that_the_channel_does_not_prove_is_no_way_in(served: Served) -> None:
    site, server, _ = served
    stranger = site.another_client("thief", is_trusted=False, uri=site.client_uri)

    async def attack() -> str:
        client = await secured_client(site, server, identity=stranger)
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()
        policy: Any = client.security_policy
        trusted = read_certificate(site.client / CERTIFICATE)
        policy.host_certificate = trusted.public_bytes(Encoding.DER)  # anybody may know it
        policy.asymmetric_cryptography.verify = lambda data, signature: None  # the thief does not mind
        try:
            await client.create_session()
            await client.activate_session("controller", PASSWORD)
        except ua.UaError as error:
            return type(error).__name__
        finally:
            client.disconnect_socket()
        return "came in"

    assert played(attack) == "BadSecurityChecksFailed"


def test_an_application_uri_other_than_the_certificates_is_refused(served: Served) -> None:
    site, server, _ = served

    async def attack() -> str:
        client = await secured_client(site, server)
        client.application_uri = "urn:test:somebody:else"
        try:
            await client.connect()
        except ua.UaError as error:
            return type(error).__name__
        return "came in"

    assert played(attack) == "BadCertificateUriInvalid"


def test_a_reader_may_not_step_the_plant_and_a_writer_may(served: Served) -> None:
    site, server, rig = served

    async def step(user: str) -> str:
        async with await secured_client(site, server, user) as client:
            request = ua.CallMethodRequest(ObjectId=node(address.SITE), MethodId=node(address.STEP))
            (result,) = await client.uaclient.call([request])
            return str(result.StatusCode.name)

    before = rig.step
    assert played(lambda: step("watcher")) == "BadUserAccessDenied"
    assert rig.step == before
    assert played(lambda: step("controller")) == "Good"
    assert rig.step == before + 1


def test_requests_subscriptions_and_items_are_limited(served: Served) -> None:
    site, server, _ = served

    async def ask(client: Client, question: Awaitable[Any]) -> str:
        try:
            await question
        except ua.UaError as error:
            return type(error).__name__
        return "answered"

    async def attack() -> list[str]:
        async with await secured_client(site, server, "watcher") as client:
            many = [ua.ReadValueId(NodeId=node(address.CLOCK), AttributeId=13)] * 41
            told = [await ask(client, client.uaclient.read(ua.ReadParameters(NodesToRead=many)))]
            limit = client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead))
            assert await limit.read_value() == 40
            first = await client.create_subscription(1e9, _Deaf())
            await client.create_subscription(ua.CreateSubscriptionParameters(float("nan"), 100, 10), _Deaf())
            granted = server._server.iserver.subscription_service.subscriptions.values()
            assert [s.data.RevisedPublishingInterval for s in granted] == [60_000.0, 60_000.0]
            told.append(await ask(client, client.create_subscription(100, _Deaf())))
            nodes = [client.get_node(node(name)) for name in (address.CLOCK, address.HEARTBEAT, address.WATCHDOG)]
            await first.subscribe_data_change(nodes)
            told.append(await ask(client, first.subscribe_data_change(client.get_node(node(address.WALL_PERIOD)))))
            async with await secured_client(site, server, "watcher") as other:
                stolen = await other.uaclient.delete_subscriptions([first.subscription_id or 0])
                told.append(stolen[0].name)
        return told

    assert played(attack) == [
        "BadTooManyOperations",
        "BadTooManySubscriptions",
        "BadTooManyMonitoredItems",
        "BadSubscriptionIdInvalid",
    ]


class _Deaf:
    """Hears of changes, and does nothing."""

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None: ...


def test_subscriptions_end_with_their_session_whatever_the_client_asks_for(served: Served) -> None:
    site, server, _ = served
    alive = server._server.iserver.subscription_service.subscriptions

    async def leave() -> tuple[int, int]:
        client = await secured_client(site, server, "watcher")
        await client.connect()
        await client.create_subscription(1000, _Deaf())
        before = len(alive)
        client.uaclient.request_disconnect()
        await client.uaclient.close_session(False)  # "keep my subscriptions"
        client.disconnect_socket()
        return before, len(alive)

    assert played(leave) == (1, 0)


def test_sessions_are_limited(served: Served) -> None:
    site, server, _ = served

    async def crowd() -> list[str]:
        clients = [await secured_client(site, server, "watcher") for _ in range(LIMITS.sessions + 1)]
        told = []
        for client in clients:
            try:
                await client.connect()
                told.append("in")
            except ua.UaError as error:
                told.append(type(error).__name__)
        for client, result in zip(clients, told, strict=True):
            if result == "in":
                await client.disconnect()
        return told

    assert played(crowd) == ["in"] * LIMITS.sessions + ["BadTooManySessions"]


def test_one_user_commands_at_a_time_until_he_is_silent(served: Served) -> None:
    site, server, _ = served
    first = OpcUaPlant(server.endpoint, 8.0, security=site.client)
    other_folder = Path(shutil.copytree(site.client, site.root / "client_second"))
    SecuredSite(site.root, site.server, other_folder).log_in("second")
    second = OpcUaPlant(server.endpoint, 8.0, security=other_folder)
    second.in_control = False
    try:
        first.write(COMMANDS)
        held = second.write({"rig": np.full((2, 2), [0.15, 0.0])})
        np.testing.assert_array_equal(held["rig"], COMMANDS["rig"])
        assert set(second.refusals.values()) == {"BadLocked"}
        for _ in range(4):
            second.advance()  # the first is silent
        second.write({"rig": np.full((2, 2), [0.15, 0.0])})
        assert second.refusals == {}
        first.write(COMMANDS)
        assert set(first.refusals.values()) == {"BadLocked"}
        with pytest.raises(PlantError, match=r"refused our heartbeat \(BadLocked\)"):
            first._connector.heartbeat()
    finally:
        first.close()
        second.close()
        for _ in range(4):
            asyncio.run(_advanced(server))


async def _advanced(server: OpcUaPlantServer) -> None:
    """One period of the server, whose loop runs in its own thread."""
    assert server._loop is not None  # it runs; narrows the type
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(server._advance(), server._loop))


def refused_at(endpoint: str, security: Path) -> str:
    plant = OpcUaPlant(endpoint, 8.0, security=security)
    try:
        with pytest.raises(PlantError) as caught:
            plant.write(COMMANDS)
    finally:
        plant.close()
    return str(caught.value)


def test_wrong_inputs_are_told_with_file_value_and_remedy_and_nothing_is_sent(served: Served) -> None:
    site, server, rig = served
    before = rig.commands.copy()
    told = refused_at(server.endpoint, site.another_client("untrusted", is_trusted=False))
    assert "does not trust" in told
    assert str(site.root / "untrusted" / CERTIFICATE) in told
    folder = Path(shutil.copytree(site.client, site.root / "client_wrong"))
    SecuredSite(site.root, site.server, folder).log_in("controller", "wrong horse")
    told = refused_at(server.endpoint, folder)
    assert "refused the user 'controller'" in told
    assert str(folder / "user.json") in told
    assert "wrong horse" not in told
    for path in (folder / "trusted").iterdir():
        path.unlink()
    (folder / "trusted" / "other.pem").write_bytes((site.root / "owner.pem").read_bytes())
    told = refused_at(server.endpoint, folder)
    assert "the server's certificate is not trusted here" in told
    assert str(folder / "rejected") in told
    old = site.another_client("expired", is_trusted=True, age_days=40.0)
    with pytest.raises(ConfigurationError, match=r"certificate\.pem: expired on"):
        open_plant(endpoint=server.endpoint, security=old)
    assert f"{old / CERTIFICATE}: expired on" in refused_at(server.endpoint, old)
    early = site.another_client("early", is_trusted=True, age_days=-1.0)
    assert "is valid from" in refused_at(server.endpoint, early)
    for options in ({"endpoint": "modbus://127.0.0.1:1"}, {"plant_file": "plant.yaml"}):
        with pytest.raises(ConfigurationError, match="--security"):
            open_plant(**options, security=site.client)
    unsecured = OpcUaPlant(server.endpoint, 8.0)
    with pytest.raises(PlantError, match=r"the server wants security.*--security DIR"):
        unsecured.read()
    unsecured.close()
    np.testing.assert_array_equal(rig.commands, before)


def test_a_server_whose_clock_is_an_hour_off_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    site, server, _ = served
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600.0)
    assert re.search(r"clock is 36\d\d s behind ours.*nothing was sent", refused_at(server.endpoint, site.client))


def test_without_security_only_the_loopback_is_served_and_spoken_to() -> None:
    with pytest.raises(PlantError, match=r"0\.0\.0\.0.*without security everybody.*certificates make"):
        OpcUaPlantServer(Rig(), "opc.tcp://0.0.0.0:0/rig").start()
    plant = OpcUaPlant("opc.tcp://192.0.2.1:4840/rig", 0.5)
    with pytest.raises(PlantError, match=r"192\.0\.2\.1.*is on another machine.*--security DIR.*nothing was sent"):
        plant.read()
    assert [address.is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [address.is_loopback(h) for h in ("0.0.0.0", "::", "plant.example", "10.0.0.5")] == [
        False
    ] * 4  # judged, not bound
