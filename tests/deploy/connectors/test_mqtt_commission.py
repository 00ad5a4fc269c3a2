"""``twinloop commission --protocol mqtt``, addresses and identities, and TLS with certificates on both sides."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.deploy.connectors.broker import PLANT, Broker, broker_in, needs_mosquitto
from tests.deploy.connectors.rig import Rig

from twinloop.__main__ import main
from twinloop.deploy.connectors.connected_plant import ConnectedPlant
from twinloop.deploy.connectors.mqtt_address import parse
from twinloop.deploy.connectors.mqtt_client import MqttConnector
from twinloop.deploy.connectors.mqtt_identity import VARIABLE, Identity, identity_of_environment, load_identity
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer
from twinloop.deploy.plants import open_plant
from twinloop.envs.errors import ConfigurationError, PlantError

ROOT = Path(__file__).parents[3]
ABLAINCOURT = ROOT / "configs" / "wind_farm" / "plant_ablaincourt.yaml"


def written(path: Path, **told: object) -> Path:
    path.write_text(yaml.safe_dump(told))
    path.chmod(0o600)
    return path


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path) as found:
        yield found


@needs_mosquitto
def test_a_farm_at_a_broker_is_opened_by_its_address_and_an_identity(broker: Broker, tmp_path: Path) -> None:
    plant_file = written(tmp_path / "plant.yaml", username="plant", password=PLANT.password)
    control_file = written(tmp_path / "control.yaml", username="control", password="in control")
    words = ["commission", str(ABLAINCOURT), "--protocol", "mqtt", "--endpoint", broker.endpoint, "--speed", "60"]
    process = subprocess.Popen(
        [sys.executable, "-m", "twinloop", *words, "--security", str(plant_file), "--set", "plant.dropout_pu=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None  # a pipe; narrows the type
        shown: list[str] = []
        while not shown or "Ctrl-C" not in shown[-1]:
            line = process.stdout.readline()
            assert line, f"the server ended: {process.communicate()[1]}"
            shown.append(line)
        assert any("turbine.WT01  Commanded/yaw_offset_deg  DOUBLE" in row and "write" in row for row in shown)
        plant = open_plant(endpoint=broker.endpoint, security=control_file)
        assert isinstance(plant, ConnectedPlant)
        assert plant.nameplate.groups[0].n_assets == 7
        plant.advance()
        offset = np.tile([10.0, 0.9], (7, 1))
        np.testing.assert_array_equal(plant.write({"turbine": offset})["turbine"], offset)
        plant.close()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "stopping" in rest
    assert "Traceback" not in errors


def test_wrong_words_are_refused_before_anything_is_opened(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, said in (
        (["--endpoint", "modbus://127.0.0.1:5020"], "expected mqtt://host:port/GROUP/NODE"),
        (["--endpoint", "mqtt://me:secret@127.0.0.1/g/n"], "a name or password in an address is seen by all"),
        (["--speed", "stepped"], "over MQTT no client can step a plant"),
        (["--word-order", "cdab"], "is for Modbus registers"),
        (["--security", str(tmp_path / "none")], "No such file"),
    ):
        assert main(["commission", str(ABLAINCOURT), "--protocol", "mqtt", *words]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "secret" not in told


@pytest.mark.parametrize(
    "endpoint",
    [
        "mqtt://h",
        "mqtt://h/g",
        "mqtt://h/g/n/x",
        "mqtt://h/g/",
        "mqtt://h:x/g/n",
        "mqtt:///g/n",
        "mqtt://h/g/n+",
        "mqtt://h/g+/n",
        "mqtt://h/g%23/n",
        "mqtt://h/g/n%23",
        "mqtt://h/g/n%2Fm",
        "mqtt://h/g/n?a",
    ],
)
def test_an_address_that_is_none_is_told(endpoint: str) -> None:
    with pytest.raises(PlantError, match="expected mqtt://host:port/GROUP/NODE"):
        parse(endpoint)


def test_an_address_goes_there_and_back() -> None:
    for text in ("mqtt://h:1883/g/n", "mqtts://[::1]:8883/farm one/plant"):
        assert parse(text).endpoint == text
    assert parse("mqtt://h/g/n").port == 1883
    assert parse("mqtts://h/g/n").port == 8883
    assert parse("mqtt://h/g/n").topic("DCMD", "d") == "spBv1.0/g/DCMD/n/d"


def test_an_identity_is_read_from_a_file_that_nobody_else_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "me.yaml", username="control", password="top secret", host_id="h")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert identity_of_environment() == Identity()
    monkeypatch.setenv(VARIABLE, str(path))
    assert identity_of_environment() == Identity(username="control", password="top secret", host_id="h")
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others can read or write this secret; say: chmod 600"):
        load_identity(path)
    for told, said in (
        ({"password": "top secret"}, "password without username"),
        ({"username": "a", "pasword": "top secret"}, "pasword: Extra inputs are not permitted; keys here: username"),
        ({"certificate_file": "a.pem"}, "certificate_file and key_file go together"),
        ({"host_id": "a/b"}, r"a part of a topic, without \+ # and /"),
    ):
        with pytest.raises(ConfigurationError, match=said) as caught:
            load_identity(written(tmp_path / "wrong.yaml", **told))
        assert "top secret" not in str(caught.value)
    broken = tmp_path / "broken.yaml"
    broken.write_text("password: 'top secret")
    broken.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is no YAML") as caught:
        load_identity(broken)
    assert "top secret" not in str(caught.value)


def test_a_password_does_not_cross_a_network_in_clear() -> None:
    connector = MqttConnector("mqtt://192.0.2.1/g/n", identity=Identity(username="a", password="b"))
    with pytest.raises(ConfigurationError, match="without TLS the password would cross the network in clear"):
        connector.heartbeat()


def test_without_paho_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['paho'] = None\n"  # what the import system itself uses for "not there"
        "from twinloop.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    for words in (
        ["commission", str(ABLAINCOURT), "--protocol", "mqtt"],
        ["watchdog", "--endpoint", "mqtt://127.0.0.1/g/n"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 2, done.stderr
        assert "pip install 'twinloop[mqtt]'" in done.stderr


def certificates(folder: Path) -> None:
    """An authority, the broker's certificate for localhost, the plant's and control's, and a stranger's."""
    now = dt.datetime.now(dt.UTC)
    keys = {
        name: ec.generate_private_key(ec.SECP256R1())
        for name in ("authority", "broker", "plant", "control", "stranger")
    }

    def subject(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    for name, key in keys.items():
        signer = name if name in ("authority", "stranger") else "authority"
        is_authority = name == "authority"
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject(name))
            .issuer_name(subject(signer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(keys[signer], hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


@needs_mosquitto
def test_with_tls_a_certificate_is_the_identity_and_no_stranger_comes_in(tmp_path: Path) -> None:
    certificates(tmp_path)

    def who(name: str, authority: str = "authority") -> Identity:
        return Identity(
            authority_file=tmp_path / f"{authority}.pem",
            certificate_file=tmp_path / f"{name}.pem",
            key_file=tmp_path / f"{name}.key",
        )

    with broker_in(tmp_path, tls=tmp_path) as broker:
        with MqttPlantServer(Rig(), broker.endpoint, who("plant"), speed=None):
            connector = MqttConnector(broker.endpoint, identity=who("control"), timeout_s=10.0)
            assert connector.capabilities.has_encryption
            assert connector.write({"rig/R1/valve_pu": 0.3})["rig/R1/valve_pu"].held == 0.3
            connector.close()
        for stranger, said in (
            (who("stranger"), "."),  # the broker cuts it off, in TLS's own words
            (who("control", authority="stranger"), "certificate verify failed"),
            (Identity(authority_file=tmp_path / "authority.pem"), "."),
        ):
            connector = MqttConnector(broker.endpoint, identity=stranger, timeout_s=10.0)
            with pytest.raises(PlantError, match=said):
                connector.heartbeat()
            connector.close()
        connector = MqttConnector(
            broker.endpoint.replace("localhost", "127.0.0.1"), identity=who("control"), timeout_s=10.0
        )
        with pytest.raises(
            PlantError, match=r"certificate is not valid for .127\.0\.0\.1."
        ):  # which is not in the broker's certificate
            connector.heartbeat()
    with pytest.raises(ConfigurationError, match="cannot be used for TLS"):
        Identity(authority_file=tmp_path / "none.pem").context()
