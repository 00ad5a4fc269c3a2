"""A mosquitto broker of a test's own: a free port, passwords, an access list; never the machine's service.

Run as a program it has the rig at a broker, as who the environment says.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.deploy.connectors.rig import Rig

from twinloop.deploy.connectors.mqtt_identity import Identity, identity_of_environment
from twinloop.deploy.connectors.mqtt_server import MqttPlantServer

GROUP, NODE = "test", "rig"

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None
    or shutil.which("mosquitto_pub") is None,
    reason="no mosquitto here; .ci/run installs it: apt-get install mosquitto mosquitto-clients (Debian, Ubuntu)",
)

PLANT = Identity(username="plant", password="plant's own")
CONTROL = Identity(username="control", password="in control")
OP = Identity(username="op", password="the operator", host_id="operator")
AI = Identity(username="ai", password="may propose", host_id="ai")
PEOPLE = (PLANT, CONTROL, OP, AI)

ACCESS = f"""\
user plant
topic write spBv1.0/{GROUP}/NBIRTH/{NODE}
topic write spBv1.0/{GROUP}/NDEATH/{NODE}
topic write spBv1.0/{GROUP}/NDATA/{NODE}
topic write spBv1.0/{GROUP}/DBIRTH/{NODE}/#
topic write spBv1.0/{GROUP}/DDEATH/{NODE}/#
topic write spBv1.0/{GROUP}/DDATA/{NODE}/#
topic read spBv1.0/{GROUP}/NCMD/{NODE}
topic read spBv1.0/{GROUP}/DCMD/{NODE}/#
topic read spBv1.0/STATE/twinloop
topic write twinloop/{GROUP}/{NODE}/answer/#

user control
topic read spBv1.0/{GROUP}/#
topic write spBv1.0/{GROUP}/NCMD/{NODE}
topic write spBv1.0/{GROUP}/DCMD/{NODE}/#
topic readwrite spBv1.0/STATE/twinloop
topic read twinloop/{GROUP}/{NODE}/answer/#
topic write twinloop/heads/#

user op
topic read spBv1.0/{GROUP}/#
topic write spBv1.0/{GROUP}/NCMD/{NODE}
topic write spBv1.0/{GROUP}/DCMD/{NODE}/#
topic readwrite spBv1.0/STATE/operator
topic read twinloop/#

user ai
topic read spBv1.0/{GROUP}/#
topic read twinloop/{GROUP}/{NODE}/answer/#
topic write twinloop/{GROUP}/{NODE}/proposal/#
"""
"""Who may say what: the AI reads all and proposes; control and the operator may command, as hosts of their own."""


class Broker:
    """One mosquitto process; ``stop``, ``start`` again on the same port, or send it signals through ``process``."""

    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self.folder = folder
        self.tls = tls
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = int(taken.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        host = "localhost" if self.tls else "127.0.0.1"  # a certificate is for a name
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{GROUP}/{NODE}"

    def write_files(self) -> None:
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{who.username}:{who.password}\n" for who in PEOPLE))
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, timeout=60.0)
        (self.folder / "access").write_text(ACCESS)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"acl_file {self.folder / 'access'}",
            "persistence false",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            "user root",  # it runs as whoever tests; only root has to say so
        ]
        if self.tls is None:
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines += [
                f"cafile {self.tls / 'authority.pem'}",
                f"certfile {self.tls / 'broker.pem'}",
                f"keyfile {self.tls / 'broker.key'}",
                "require_certificate true",
                "use_identity_as_username true",
            ]
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        assert program is not None  # needs_mosquitto; narrows the type
        with (self.folder / "log").open("ab") as log:
            words = [program, "-v", "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        give_up_s = time.monotonic() + 30.0
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < give_up_s
                time.sleep(0.02)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(10.0)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def broker_in(folder: Path, tls: Path | None = None) -> Iterator[Broker]:
    broker = Broker(folder, tls)
    broker.write_files()
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def mosquitto(
    tool: str, broker: Broker, who: Identity | None, *words: str, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``mosquitto_pub`` or ``mosquitto_sub`` once, in MQTT 5; ``data`` is published as it is."""
    command = [tool, "-V", "5", "-h", "127.0.0.1", "-p", str(broker.port)]
    if who is not None:
        command += ["-u", str(who.username), "-P", str(who.password)]
    if data is not None:
        command += ["-s"]
    return subprocess.run([*command, *words], input=data, capture_output=True, timeout=30.0, check=False)


if __name__ == "__main__":
    with MqttPlantServer(Rig(), sys.argv[1], identity_of_environment(), speed=float(sys.argv[2])) as server:
        print(server.endpoint, flush=True)
        server.wait()
