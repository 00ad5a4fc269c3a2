"""Certificates, trust and users: what is made is what stacks ask for, and what is wrong is named with its remedy."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.deploy.connectors.secured_site import PASSWORD, SecuredSite, make_site

from twinloop.deploy.certificates.identity import CERTIFICATE, KEY, load_identity, load_key
from twinloop.deploy.certificates.making import Signer, make_certificate, make_set, new_key
from twinloop.deploy.certificates.trust import (
    MOST_REJECTED,
    Fault,
    Role,
    TrustList,
    application_uri,
    fingerprint,
    hosts,
    read_certificate,
)
from twinloop.deploy.certificates.users import (
    PASSWORD_VARIABLE,
    USER_VARIABLE,
    Right,
    Scrypt,
    User,
    Users,
    load_credentials,
)
from twinloop.envs.errors import ConfigurationError

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    return make_site(tmp_path_factory.mktemp("own") / "set")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> SecuredSite:
    """One with an authority."""
    return make_site(tmp_path_factory.mktemp("signed") / "set", with_authority=True)


@pytest.fixture
def client_trust(site: SecuredSite, tmp_path: Path) -> TrustList:
    """The client's trust, on a copy."""
    shutil.copytree(site.client, tmp_path / "client")
    return TrustList(tmp_path / "client")


def certificate(role: Role = Role.SERVER, key: rsa.RSAPrivateKey | None = None, **options: Any) -> x509.Certificate:
    return make_certificate(role, "urn:test:peer", "peer", key or new_key(), ("plant.example",), **options)


def fault(trust: TrustList, found: x509.Certificate, **options: Any) -> Fault | None:
    refusal = trust.judge(found, Role.SERVER, **options)
    return None if refusal is None else refusal.fault


def trusting(trust: TrustList, found: x509.Certificate) -> x509.Certificate:
    (trust.trusted / f"{fingerprint(found)[:8]}.pem").write_bytes(found.public_bytes(Encoding.PEM))
    return found


def test_a_servers_certificate_carries_uri_names_addresses_and_uses(tmp_path: Path) -> None:
    server, _ = make_set(tmp_path / "set", "north", ("plant.example", "10.0.0.5"))
    found = read_certificate(server / CERTIFICATE)
    uri = application_uri(found)
    assert uri is not None
    assert uri.endswith(":twinloop:north:server")
    assert {"plant.example", "10.0.0.5", "localhost", "127.0.0.1"} <= set(hosts(found))
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert usage.key_encipherment
    assert usage.data_encipherment
    assert found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    )
    assert stat.S_IMODE((server / KEY).stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="is there already"):
        make_set(tmp_path / "set", "north")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed; Debian's package of that name")
def test_openssl_follows_the_authority_and_reads_the_same_names(signed: SecuredSite) -> None:
    for folder in (signed.server, signed.client):
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", signed.root / "authority" / CERTIFICATE, folder / CERTIFICATE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = subprocess.run(
            ["openssl", "x509", "-in", folder / CERTIFICATE, "-noout", "-ext", "subjectAltName"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"URI:{application_uri(read_certificate(folder / CERTIFICATE))}" in told


@pytest.mark.parametrize("kind", ["site", "signed"])
def test_both_ends_of_a_set_trust_each_other(kind: str, request: pytest.FixtureRequest) -> None:
    made: SecuredSite = request.getfixturevalue(kind)
    server, client = load_identity(made.server), load_identity(made.client)
    assert client.trust.judge(server.certificate, Role.SERVER, uri=server.uri, host="127.0.0.1") is None
    assert server.trust.judge(client.certificate, Role.CLIENT, uri=client.uri) is None


def test_a_stranger_is_refused_kept_and_trusted_once_moved(client_trust: TrustList) -> None:
    stranger = certificate()
    refusal = client_trust.judge(stranger, Role.SERVER, uri="urn:test:peer")
    assert refusal is not None
    assert refusal.fault is Fault.UNTRUSTED
    (kept,) = client_trust.rejected.iterdir()
    for part in (fingerprint(stranger), str(kept), str(client_trust.trusted)):
        assert part in refusal.text
    kept.rename(client_trust.trusted / kept.name)
    assert client_trust.judge(stranger, Role.SERVER, uri="urn:test:peer") is None


def test_strangers_do_not_fill_the_disk(client_trust: TrustList) -> None:
    for k in range(MOST_REJECTED):
        (client_trust.rejected / f"{k}.pem").write_text("x")
    refusal = client_trust.judge(certificate(), Role.SERVER)
    assert refusal is not None
    assert "full" in refusal.text
    assert len(list(client_trust.rejected.iterdir())) == MOST_REJECTED


def test_time_uri_use_and_key_are_judged_of_who_is_trusted_too(client_trust: TrustList) -> None:
    now = dt.datetime.now(dt.UTC)
    expired = trusting(client_trust, certificate(valid_from=now - 40 * DAY, days=30))
    early = trusting(client_trust, certificate(valid_from=now + DAY))
    good = trusting(client_trust, certificate())
    other_use = trusting(client_trust, certificate(Role.CLIENT))
    weak = trusting(client_trust, certificate(key=rsa.generate_private_key(65537, 1024)))
    assert fault(client_trust, good, uri="urn:test:peer", host="elsewhere.example") is None  # pinned: any host
    assert fault(client_trust, expired) is Fault.EXPIRED
    assert fault(client_trust, early) is Fault.NOT_YET_VALID
    assert fault(client_trust, good, uri="urn:test:other") is Fault.WRONG_URI
    assert fault(client_trust, other_use) is Fault.WRONG_USE
    assert fault(client_trust, weak) is Fault.WEAK
    refusal = client_trust.judge(expired, Role.SERVER)
    assert refusal is not None
    assert f"{expired.not_valid_after_utc:%Y-%m-%d}" in refusal.text
    assert refusal.fault.status == Fault.NOT_YET_VALID.status == "BadCertificateTimeInvalid"


def test_an_authority_vouches_for_its_own_for_their_hosts_and_until_it_revokes(
    signed: SecuredSite, tmp_path: Path
) -> None:
    shutil.copytree(signed.client, tmp_path / "client")
    trust = TrustList(tmp_path / "client")
    authority = signed.root / "authority"
    signer = Signer(load_key(authority / KEY), read_certificate(authority / CERTIFICATE))
    own = certificate(signer=signer)
    assert fault(trust, own, uri="urn:test:peer", host="plant.example") is None
    assert fault(trust, own, uri="urn:test:peer", host="elsewhere.example") is Fault.WRONG_HOST
    server_key = load_key(signed.server / KEY)
    by_server = certificate(signer=Signer(server_key, read_certificate(signed.server / CERTIFICATE)))
    assert fault(trust, by_server) is Fault.UNTRUSTED  # signed by one who may not sign
    forged = certificate(signer=Signer(new_key(), signer.certificate))
    assert fault(trust, forged) is Fault.UNTRUSTED  # names the authority, and lacks its key
    now = dt.datetime.now(dt.UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(own.serial_number).revocation_date(now).build()
    assert signer.certificate is not None
    revoked = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now - DAY)
        .next_update(now + DAY)
        .add_revoked_certificate(entry)
        .sign(signer.key, SHA256())
    )
    (trust.trusted / "authority.crl").write_bytes(revoked.public_bytes(Encoding.PEM))
    assert fault(trust, own) is Fault.REVOKED


def test_a_folder_that_cannot_be_used_is_named_with_file_value_and_remedy(site: SecuredSite, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(site.client, tmp_path / name))

    expired = broken("expired")
    start = dt.datetime.now(dt.UTC) - 40 * DAY
    old = certificate(Role.CLIENT, load_key(expired / KEY), days=30, valid_from=start)
    (expired / CERTIFICATE).write_bytes(old.public_bytes(Encoding.PEM))
    readable = broken("readable")
    (readable / KEY).chmod(0o640)
    swapped = broken("swapped")
    (swapped / KEY).write_bytes((site.server / KEY).read_bytes())
    lonely = broken("lonely")
    (lonely / "trusted" / "server.pem").unlink()
    garbled = broken("garbled")
    (garbled / CERTIFICATE).write_text("nothing")
    for folder, message in (
        (expired, r"certificate\.pem: expired on \d{4}-.*certificates make"),
        (readable, r"private_key\.pem: others than its owner may read it \(mode 0640\); chmod 600"),
        (swapped, r"private_key\.pem: is not the key of certificate\.pem"),
        (lonely, r"trusted: is empty.*copy the peer's certificate"),
        (garbled, r"certificate\.pem: is no X\.509 certificate"),
        (tmp_path / "nowhere", r"is no folder with certificates.*certificates make"),
        (site.root, r"a site's whole set; give .*server to a server and .*client to a client"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_identity(folder)


def test_users_log_in_with_their_password_or_certificate_and_nobody_else_does(site: SecuredSite) -> None:
    users = Users(site.server)
    controller, watcher = users.by_password("controller", PASSWORD), users.by_password("watcher", PASSWORD)
    assert (controller and controller.right, watcher and watcher.right) == (Right.WRITE, Right.READ)
    assert users.by_password("controller", "wrong horse") is None
    assert users.by_password("nobody", PASSWORD) is None
    assert users.by_password("owner", "") is None  # has no password
    owner = users.by_certificate(read_certificate(site.root / "owner.pem"))
    assert (owner and owner.name) == "owner"
    assert users.by_certificate(certificate(Role.CLIENT)) is None
    assert PASSWORD not in (site.server / "users.json").read_text(encoding="utf-8")


def test_guessing_is_slowed_down_and_locks_out_nobody_who_was_here_before(site: SecuredSite) -> None:
    users = Users(site.server)
    assert users.by_password("controller", PASSWORD) is not None
    for k in range(5):
        assert users.by_password("controller", f"guess {k}") is None
    assert users.by_password("watcher", PASSWORD) is None  # right, and not looked at now
    assert users.by_password("controller", PASSWORD) is not None


def test_a_user_who_is_taken_out_or_gets_a_new_password_is_out_at_the_next_login(
    site: SecuredSite, tmp_path: Path
) -> None:
    users = Users(Path(shutil.copytree(site.server, tmp_path / "server")))
    assert users.by_password("controller", PASSWORD) is not None
    users.put(User(name="controller", right=Right.WRITE, password=Scrypt.of("another horse")))
    assert users.by_password("controller", PASSWORD) is None
    assert users.by_password("controller", "another horse") is not None
    users.path.write_text('{"users": [{"name": "x", "right": "own"}]}')
    with pytest.raises(ConfigurationError, match=r"users\.json: users\.0\.right"):
        users.load()
    users.path.write_text('{"users": []}')
    with pytest.raises(ConfigurationError, match="has no users"):
        users.load()


def test_a_clients_user_comes_from_the_environment_or_a_private_file(
    site: SecuredSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(site.client, tmp_path / "client"))
    monkeypatch.delenv(USER_VARIABLE, raising=False)
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    found = load_credentials(folder)
    assert found is not None
    assert (found.name, found.password.get_secret_value()) == ("controller", PASSWORD)
    assert PASSWORD not in repr(found)
    (folder / "user.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"user\.json: others than its owner may read it"):
        load_credentials(folder)
    monkeypatch.setenv(USER_VARIABLE, "operator")
    with pytest.raises(ConfigurationError, match=rf"{USER_VARIABLE} is set and {PASSWORD_VARIABLE} is not"):
        load_credentials(folder)
    monkeypatch.setenv(PASSWORD_VARIABLE, "from outside")
    found = load_credentials(folder)
    assert found is not None
    assert (found.name, found.password.get_secret_value()) == ("operator", "from outside")
    (folder / "user.json").unlink()
    monkeypatch.delenv(USER_VARIABLE)
    monkeypatch.delenv(PASSWORD_VARIABLE)
    assert load_credentials(folder) is None


def twinloop(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twinloop", "certificates", *map(str, words)],
        input=text,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )


def test_the_command_makes_shows_and_adds_users_without_telling_a_password(tmp_path: Path) -> None:
    folder = tmp_path / "security"
    made = twinloop("make", folder, "--site", "north", "--host", "plant.example")
    assert made.returncode == 0, made.stderr
    password = json.loads((folder / "client" / "user.json").read_text(encoding="utf-8"))["password"]
    assert password not in made.stdout + made.stderr
    assert Users(folder / "server").by_password("controller", password) is not None
    shown = twinloop("show", folder)
    assert shown.returncode == 0
    for part in (":north:server", "plant.example", fingerprint(read_certificate(folder / "server" / CERTIFICATE))):
        assert part in shown.stdout
    added = twinloop("user", folder / "server", "historian", "--right", "read", text="a long enough one\n")
    assert added.returncode == 0, added.stderr
    found = Users(folder / "server").by_password("historian", "a long enough one")
    assert found is not None
    assert found.right is Right.READ
    short = twinloop("user", folder / "server", "historian", "--right", "read", text="short\n")
    assert (short.returncode, "give 8 or more" in short.stderr) == (2, True)
    again = twinloop("make", folder)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
