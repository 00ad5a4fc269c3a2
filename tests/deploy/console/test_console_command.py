"""``twinloop console`` as it is started: in its own process, through TLS, with the audit beside it."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.deploy.console.rig import field, until

from twinloop.__main__ import main
from twinloop.deploy.audit.signing import make_keys
from twinloop.deploy.audit.verify import audit
from twinloop.deploy.station.folder import StationFolder
from twinloop.training.benchmarks.console_site import PASSWORD, running_station


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "console.crt", folder / "console.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )  # fmt: skip
    return cert_path, key_path


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_serves_through_tls_signs_heads_and_ends_on_ctrl_c(tmp_path: Path, people: Path) -> None:
    cert, key = own_certificate(tmp_path)
    public = make_keys(tmp_path / "audit")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_station(tmp_path / "mills") as live:
        shutil.copy(people, live.folder.people)
        until(live.folder.state.exists)
        command = [sys.executable, "-m", "twinloop", "console", "--station", str(live.folder.path)]
        command += ["--port", str(port), "--tls", str(cert), str(key), "--key", str(tmp_path / "audit/journal.key")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            trusted = ssl.create_default_context(cafile=str(cert))
            url = f"https://127.0.0.1:{port}"
            with httpx.Client(base_url=url, verify=trusted, headers={"origin": url}, timeout=60.0) as http:
                until(lambda: listens(port))
                entry = field(http.get("/login").text, "entry")
                form = {"name": "vera", "password": PASSWORD, "entry": entry, "next": "/"}
                cookie = http.post("/login", data=form).headers["set-cookie"]
                assert cookie.startswith("__Host-session=")
                assert "Secure" in cookie
                assert http.get("/").status_code == 200
                with http.stream("GET", "/stream") as stream:  # an open stream keeps nobody from leaving
                    assert next(stream.iter_lines()).startswith("retry:")
                    until(lambda: list((tmp_path / "audit" / "heads").glob("*")))
                    process.send_signal(signal.SIGINT)
                    told = process.communicate(timeout=60.0)[1]
            assert process.returncode in (0, 130), told
            assert "Traceback" not in told
        finally:
            process.kill()
            process.wait()
    report = audit(live.folder.journal, heads=tmp_path / "audit" / "heads", keys=[public])
    assert report.is_sound
    assert report.covered > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "in the clear"),
        (["--journal-days", "7"], "give --key too"),
        (["--key", "nothing.key"], "nothing.key"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    StationFolder(tmp_path / "s").make()
    assert main(["console", "--station", str(tmp_path / "s"), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_folder_that_is_no_station_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["console", "--station", str(tmp_path / "nothing")]) == 2
    assert "no station" in capsys.readouterr().err
