"""A server's users: who may log in, how that is proved, and what they may do. And a client's own user.

Passwords are kept as scrypt hashes (RFC 7914). They come from a file or the environment, never from a command line,
which everybody on a machine can read.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import hashlib
import hmac
import json
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ...envs.errors import ConfigurationError
from .identity import check_private
from .trust import fingerprint

USERS, USER = "users.json", "user.json"
USER_VARIABLE, PASSWORD_VARIABLE = "TWINLOOP_OPCUA_USER", "TWINLOOP_OPCUA_PASSWORD"

_COST, _BLOCK, _LANES = 2**14, 8, 1
"""16 MiB and some 50 ms a try; RFC 7914's figures for logging in by hand."""
_MOST_FAILURES, _WITHIN_S = 5, 10.0


class Right(enum.StrEnum):
    """What a user may do: look on, or command as well."""

    READ = "read"
    WRITE = "write"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scrypt(_Strict):
    """A password's hash; ``salt`` and ``hash`` in base64."""

    salt: str
    hash: str
    n: Annotated[int, Field(ge=2**14, le=2**18)] = _COST
    r: Annotated[int, Field(ge=8, le=16)] = _BLOCK
    p: Annotated[int, Field(ge=1, le=4)] = _LANES

    @classmethod
    def of(cls, password: str) -> Scrypt:
        salt = secrets.token_bytes(16)
        return cls(salt=base64.b64encode(salt).decode(), hash=base64.b64encode(_hash(password, salt)).decode())

    def fits(self, password: str) -> bool:
        found = _hash(password, base64.b64decode(self.salt), self.n, self.r, self.p)
        return hmac.compare_digest(found, base64.b64decode(self.hash))


class User(_Strict):
    """One user; by password, by certificate (its SHA-256 in hex), or either."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    right: Right
    password: Scrypt | None = None
    certificate_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class _File(_Strict):
    format: Literal[1] = 1
    users: tuple[User, ...] = ()


@dataclass(frozen=True)
class Credentials:
    """A client's own user; ``password`` hides itself when printed."""

    name: str
    password: SecretStr


class Users:
    """A server's ``users.json``, read at each login, so that a user who is taken out is out at the next."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / USERS
        self._failed_at_s: deque[float] = deque(maxlen=_MOST_FAILURES)
        self._known: dict[str, bytes] = {}
        self._salt = secrets.token_bytes(16)

    def load(self) -> dict[str, User]:
        """Users by name; raises :class:`ConfigurationError` for a file that is missing, wrong or empty."""
        users = {user.name: user for user in _read(self.path).users}
        if not users:
            raise ConfigurationError(
                f"{self.path}: has no users, so that nobody could log in; `twinloop certificates user` adds one"
            )
        return users

    def by_password(self, name: str, password: str) -> User | None:
        """The user, or None. After five failures within ten seconds only who was here before is let in: each try costs
        the server 50 ms, which it has better use for."""
        user = self.load().get(name)
        entry = None if user is None else user.password
        short = hmac.digest(self._salt, f"{name}\0{password}\0{entry}".encode(), "sha256")
        if entry is not None and hmac.compare_digest(self._known.get(name, b""), short):
            return user
        now_s = time.monotonic()
        if len(self._failed_at_s) == _MOST_FAILURES and now_s - self._failed_at_s[0] < _WITHIN_S:
            return None
        if (entry or _NOBODY).fits(password) and entry is not None:
            self._known[name] = short
            return user
        self._failed_at_s.append(now_s)
        return None

    def by_certificate(self, certificate: x509.Certificate) -> User | None:
        """The user of a certificate that is valid now, or None; that he has its key is for the caller to check."""
        now = dt.datetime.now(dt.UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return None
        mark = fingerprint(certificate)
        return next((user for user in self.load().values() if user.certificate_sha256 == mark), None)

    def put(self, user: User) -> None:
        """Add a user, or exchange the one of that name."""
        others = tuple(u for u in (_read(self.path).users if self.path.exists() else ()) if u.name != user.name)
        write_private(self.path, _File(users=(*others, user)).model_dump_json(indent=1, exclude_none=True) + "\n")


def load_credentials(folder: str | Path) -> Credentials | None:
    """The user in the environment, or else in ``user.json``; None where neither names one.

    Raises :class:`ConfigurationError` for half a user, and for a file that others may read.
    """
    name, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if (name is None) != (password is None):
        given, missing = (USER_VARIABLE, PASSWORD_VARIABLE) if password is None else (PASSWORD_VARIABLE, USER_VARIABLE)
        raise ConfigurationError(f"{given} is set and {missing} is not; set both, or neither to use {USER}")
    if name is not None and password is not None:
        return Credentials(name, SecretStr(password))
    path = Path(folder) / USER
    if not path.exists():
        return None
    check_private(path, path.stat().st_mode)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(str(found["name"]), SecretStr(str(found["password"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f'{path}: {type(error).__name__}: {error}; it is {{"name": ..., "password": ...}} in JSON'
        ) from error


def save_credentials(folder: Path, credentials: Credentials) -> Path:
    """Write ``user.json``, mode 0600."""
    path = folder / USER
    told = {"name": credentials.name, "password": credentials.password.get_secret_value()}
    write_private(path, json.dumps(told) + "\n")
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file whole, readable by its owner alone from its first byte on."""
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _read(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: can't be read ({error.strerror}); `twinloop certificates user` makes one"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{path}: {where or 'file'}: {first['msg']}; see docs/opcua.md") from error


def _hash(password: str, salt: bytes, n: int = _COST, r: int = _BLOCK, p: int = _LANES) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


_NOBODY = Scrypt(salt=base64.b64encode(bytes(16)).decode(), hash=base64.b64encode(bytes(32)).decode())
"""Tried for a name that nobody has, so that the time taken does not tell which names there are."""
