"""One application's folder: what it shows, what proves it, and whom it trusts."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ...envs.errors import ConfigurationError
from .trust import TrustList, application_uri, read_certificate, time_fault

CERTIFICATE, KEY = "certificate.pem", "private_key.pem"
_MAKE = "`twinloop certificates make DIR` makes a set"


@dataclass(frozen=True)
class Identity:
    """What :func:`load_identity` found. ``uri``: the application URI in the certificate, to be announced as it is."""

    folder: Path
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str
    trust: TrustList


def load_identity(folder: str | Path) -> Identity:
    """Read an application's folder.

    Raises :class:`ConfigurationError`, with file, value and remedy, for a file that is missing, a certificate that is
    not valid now or has no application URI, a key that is another's or that others may read, and a folder that trusts
    nobody.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: is no folder with certificates; {_MAKE}")
    if not (folder / CERTIFICATE).exists() and (folder / "server" / CERTIFICATE).exists():
        raise ConfigurationError(
            f"{folder}: holds a site's whole set; give {folder / 'server'} to a server and {folder / 'client'} to a "
            "client"
        )
    path = folder / CERTIFICATE
    certificate = read_certificate(path)
    if found := time_fault(certificate):
        raise ConfigurationError(f"{path}: {found.text}; {_MAKE}")
    uri = application_uri(certificate)
    if uri is None:
        raise ConfigurationError(f"{path}: has no application URI among its alternative names; {_MAKE}")
    key = load_key(folder / KEY)
    if key.public_key().public_numbers() != _numbers(certificate):
        raise ConfigurationError(f"{folder / KEY}: is not the key of {CERTIFICATE} beside it; put back the right one")
    trust = TrustList(folder)
    if not trust.certificates():
        raise ConfigurationError(
            f"{trust.trusted}: is empty, so nobody is trusted; copy the peer's {CERTIFICATE} there"
        )
    return Identity(folder, certificate, key, uri, trust)


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """A private key in PEM that its owner alone may read; raises :class:`ConfigurationError`."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read ({error.strerror}); {_MAKE}") from error
    check_private(path, mode)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: is no private key in PEM without a password ({error})") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigurationError(f"{path}: is a key of {type(key).__name__}; OPC UA's policies here need RSA")
    return key


def check_private(path: Path, mode: int) -> None:
    """Raise :class:`ConfigurationError` for a secret that others than its owner may read."""
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{path}: others than its owner may read it (mode {stat.S_IMODE(mode):04o}); chmod 600 {path}, and where "
            "others could have read it, make a new one"
        )


def _numbers(certificate: x509.Certificate) -> rsa.RSAPublicNumbers | None:
    key = certificate.public_key()
    return key.public_numbers() if isinstance(key, rsa.RSAPublicKey) else None
