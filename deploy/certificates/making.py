"""Make a site's own small set of certificates: one for the server, one for its client, and perhaps an authority.

Extensions as OPC 10000-6 (2022), 6.2.2 and table 43 ask for, and stacks such as node-opcua check.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ...envs.errors import ConfigurationError
from .identity import CERTIFICATE, KEY
from .trust import Role, is_address
from .users import write_private

AUTHORITY = "authority"
DEFAULT_DAYS = 1095
_KEY_BITS = 2048
_BACKWARD = dt.timedelta(hours=12)
"""A certificate is valid from before it was made on: clocks of machines differ, by time zones in the worst case."""


@dataclass(frozen=True)
class Signer:
    """Whose name and key sign; ``certificate`` None for one that signs itself."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate | None = None


def make_set(
    folder: str | Path,
    site: str,
    hosts: tuple[str, ...] = (),
    *,
    with_authority: bool = False,
    days: int = DEFAULT_DAYS,
) -> tuple[Path, Path]:
    """Write ``folder/server`` and ``folder/client``, two identities that trust each other; returns the two folders.

    ``hosts``: further names and addresses of the server, beside this machine's name and the loopback.
    ``with_authority``: both are signed by an authority, ``folder/authority``, and it is what they trust; else each
    signs itself and the other one is trusted by name. Raises :class:`ConfigurationError` where a set is already.
    """
    root = Path(folder)
    for name in (AUTHORITY, Role.SERVER.value, Role.CLIENT.value):
        if (root / name).exists():
            raise ConfigurationError(
                f"{root / name}: is there already, and applications may trust it; give another folder"
            )
    if days < 1:
        raise ConfigurationError(f"--days: {days}; give 1 or more")
    machine = socket.gethostname()
    names = tuple(dict.fromkeys((machine, "localhost", "127.0.0.1", "::1", *hosts)))
    signer = _make_authority(root / AUTHORITY, site, days) if with_authority else None
    found: dict[Role, x509.Certificate] = {}
    for role in Role:
        own = root / role.value
        (own / "trusted").mkdir(parents=True)
        (own / "rejected").mkdir()
        key = new_key()
        uri = f"urn:{machine}:twinloop:{site}:{role.value}"
        at = names if role is Role.SERVER else (machine,)
        found[role] = make_certificate(role, uri, f"{site} {role.value}", key, at, signer, days=days)
        (own / CERTIFICATE).write_bytes(found[role].public_bytes(Encoding.PEM))
        write_key(own / KEY, key)
    for role, other in ((Role.SERVER, Role.CLIENT), (Role.CLIENT, Role.SERVER)):
        trusted = root / role.value / "trusted"
        if signer is None or signer.certificate is None:
            (trusted / f"{other.value}.pem").write_bytes(found[other].public_bytes(Encoding.PEM))
        else:
            (trusted / f"{AUTHORITY}.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
            (trusted / f"{AUTHORITY}.crl").write_bytes((root / AUTHORITY / "revoked.crl").read_bytes())
    return root / Role.SERVER.value, root / Role.CLIENT.value


def new_key() -> rsa.RSAPrivateKey:
    """A fresh RSA key of the length that all of OPC UA's present policies take."""
    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def write_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    """PKCS 8 in PEM without a password, mode 0600: a control process must start by itself."""
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def make_certificate(
    role: Role,
    uri: str,
    name: str,
    key: rsa.RSAPrivateKey,
    hosts: tuple[str, ...],
    signer: Signer | None = None,
    *,
    days: float = DEFAULT_DAYS,
    valid_from: dt.datetime | None = None,
) -> x509.Certificate:
    """A certificate for an application; signed by itself without a ``signer``."""
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    names += [x509.IPAddress(ipaddress.ip_address(h)) if is_address(h) else x509.DNSName(h) for h in hosts]
    is_own = signer is None
    builder = (
        _begun(_name(name), key, days, signer, valid_from)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_data=True, signs_certificates=is_own), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    return builder.sign(key if signer is None else signer.key, SHA256())


def _make_authority(folder: Path, site: str, days: int) -> Signer:
    """A key that signs applications' certificates; it belongs on another machine than theirs."""
    folder.mkdir(parents=True)
    key = new_key()
    certificate = (
        _begun(_name(f"{site} authority"), key, days + 1, None, None)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_data=False, signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(Encoding.PEM))
    write_key(folder / KEY, key)
    now = dt.datetime.now(dt.UTC)
    revoked = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(now - _BACKWARD)
        .next_update(now + dt.timedelta(days=days))
        .sign(key, SHA256())
    )
    (folder / "revoked.crl").write_bytes(revoked.public_bytes(Encoding.PEM))
    return Signer(key, certificate)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "twinloop")]
    )


def _begun(
    subject: x509.Name, key: rsa.RSAPrivateKey, days: float, signer: Signer | None, valid_from: dt.datetime | None
) -> x509.CertificateBuilder:
    start = dt.datetime.now(dt.UTC) - _BACKWARD if valid_from is None else valid_from
    above = None if signer is None else signer.certificate
    issuer_key = key.public_key() if signer is None else signer.key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, signs_data: bool, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=signs_data,
        key_encipherment=signs_data,
        data_encipherment=signs_data,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates and not signs_data,
        encipher_only=False,
        decipher_only=False,
    )
