"""A site's own certificates and users, and a stranger's, for tests of secured OPC UA."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from twinloop.deploy.certificates.identity import CERTIFICATE, KEY
from twinloop.deploy.certificates.making import make_certificate, make_set, new_key, write_key
from twinloop.deploy.certificates.trust import Role, application_uri, fingerprint, read_certificate
from twinloop.deploy.certificates.users import Credentials, Right, Scrypt, User, Users, save_credentials

PASSWORD = "correct horse"
KEY_BITS_DAYS = 30


@dataclass(frozen=True)
class SecuredSite:
    """``server`` and ``client`` are identities; ``controller``, ``second``, ``owner`` may write, ``watcher`` may not.

    ``owner`` logs in with the certificate of ``owner.pem``.
    """

    root: Path
    server: Path
    client: Path

    @property
    def client_uri(self) -> str:
        return application_uri(read_certificate(self.client / CERTIFICATE)) or ""

    @property
    def server_uri(self) -> str:
        return application_uri(read_certificate(self.server / CERTIFICATE)) or ""

    def another_client(
        self, name: str, *, is_trusted: bool, age_days: float = 0.5, uri: str | None = None, user: str = "controller"
    ) -> Path:
        """A client's folder with a certificate that began ``age_days`` ago and lasts 30 days."""
        folder = self.root / name
        (folder / "trusted").mkdir(parents=True)
        key = new_key()
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=age_days)
        found = make_certificate(
            Role.CLIENT, uri or f"urn:test:{name}", name, key, (), days=KEY_BITS_DAYS, valid_from=start
        )
        (folder / CERTIFICATE).write_bytes(found.public_bytes(Encoding.PEM))
        write_key(folder / KEY, key)
        (folder / "trusted" / "server.pem").write_bytes((self.server / CERTIFICATE).read_bytes())
        save_credentials(folder, Credentials(user, SecretStr(PASSWORD)))
        if is_trusted:
            (self.server / "trusted" / f"{name}.pem").write_bytes((folder / CERTIFICATE).read_bytes())
        return folder

    def log_in(self, name: str, password: str = PASSWORD) -> None:
        save_credentials(self.client, Credentials(name, SecretStr(password)))


def make_site(root: Path, *, with_authority: bool = False) -> SecuredSite:
    server, client = make_set(root, "rig", with_authority=with_authority)
    users = Users(server)
    hashed = Scrypt.of(PASSWORD)
    for name, right in (("controller", Right.WRITE), ("second", Right.WRITE), ("watcher", Right.READ)):
        users.put(User(name=name, right=right, password=hashed))
    key = new_key()
    owner = make_certificate(Role.CLIENT, "urn:test:owner", "owner", key, ())
    (root / "owner.pem").write_bytes(owner.public_bytes(Encoding.PEM))
    write_key(root / "owner_key.pem", key)
    users.put(User(name="owner", right=Right.WRITE, certificate_sha256=fingerprint(owner)))
    site = SecuredSite(root, server, client)
    site.log_in("controller")
    return site
