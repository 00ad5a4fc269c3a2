"""Ed25519 keys (RFC 8032) that sign a journal's heads: made by a command, kept away from the journal."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...envs.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE_NAME, PUBLIC_NAME = "journal.key", "journal.pub"
_PRIVATE_MODE = 0o600
_MAKE = "`twinloop audit keys DIR` makes a pair"


@dataclass(frozen=True)
class PublicKey:
    """Says whether a signature is of this key's owner."""

    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's 32 bytes, to compare over another way than the key came."""
        raw = hashlib.sha256(self.key.public_bytes_raw()).digest()
        return "SHA256:" + base64.b64encode(raw).decode().rstrip("=")

    def confirms(self, signature: bytes, message: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """Signs."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


def make_keys(folder: Path) -> PublicKey:
    """Write ``journal.key`` (PKCS 8, mode 0600) and ``journal.pub`` into ``folder``; returns the public one.

    Raises :class:`ConfigurationError` where one is there already, and beside a journal: who can rewrite one must not
    be able to sign it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder = Path(folder)
    beside = sorted(folder.glob("*.sqlite")) if folder.is_dir() else []
    if beside:
        raise ConfigurationError(
            f"{folder}: holds the journal {beside[0].name}; give another folder, best on another disk, since who can "
            "rewrite a journal must not be able to sign it"
        )
    private = Ed25519PrivateKey.generate()
    for name in (PRIVATE_NAME, PUBLIC_NAME):
        if (folder / name).exists():
            raise ConfigurationError(
                f"{folder / name}: is there already, and may have signed heads; give another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(folder / PRIVATE_NAME, secret, _PRIVATE_MODE)
    _write_new(folder / PUBLIC_NAME, shown, 0o644)
    return PublicKey(private.public_key())


def load_private(path: Path, journal: Path | None = None) -> PrivateKey:
    """The private key of a file. Raises :class:`ConfigurationError` for one that others can read, for what is no such
    key, and for one in the folder of ``journal``.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = Path(path)
    if journal is not None and path.absolute().parent.resolve() == Path(journal).absolute().parent.resolve():
        raise ConfigurationError(
            f"{path}: lies in the journal's folder; move it away, best to another disk: who can rewrite a journal must "
            "not be able to sign it"
        )
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: no private key can be read ({error.strerror}); {_MAKE}") from error
    if mode & 0o077:
        raise ConfigurationError(f"{path}: others may read it (mode {mode:04o}); allowed is 0600: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: is no private key without a password in PEM ({error}); {_MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: is a {type(key).__name__}; heads are signed with Ed25519; {_MAKE}")
    return PrivateKey(key)


def load_public(path: Path) -> PublicKey:
    """The public key of a file. Raises :class:`ConfigurationError` for what is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = Path(path)
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: no public key can be read ({error.strerror}); {_MAKE}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: is no public key in PEM ({error}); give {PUBLIC_NAME}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path}: is a {type(key).__name__}; heads are signed with Ed25519; {_MAKE}")
    return PublicKey(key)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Made with its mode from the first moment on, and never over something else."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
