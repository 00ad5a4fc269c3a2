"""Who may do what at a station: names, roles and keys.

A person's private key is sealed by the password (scrypt, RFC 7914, then AES-GCM), so that neither a program nor who
holds the file can sign in that name. Every entry is vouched for by an administrator's signature over name, role and
public key. The control process takes the administrators that it finds when it starts for granted, and later believes
only whom one of them vouches for: who can merely write to the folder cannot make himself an approver.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from ...envs.configuration import Strict
from ...envs.errors import ConfigurationError, nearest
from .folder import read_whole, write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Role = Literal["viewer", "operator", "approver", "admin"]
Act = Literal["view", "operate", "propose", "approve", "people"]

MAY: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({"view"}),
    "operator": frozenset({"view", "operate", "propose"}),
    "approver": frozenset({"view", "operate", "propose", "approve"}),
    "admin": frozenset({"view", "people"}),
}
"""What each role may do. ``operate``: stop, reset, modes, manual values. Who may approve may not approve his own."""

FORMAT = 1
SHORTEST_PASSWORD = 10
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1  # 32 MiB and some 0.1 s a try
_MOST_N, _MOST_R, _MOST_P = 2**20, 16, 8  # of a file that somebody else wrote

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Hex = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{2})+$")]


class WrongPasswordError(ConfigurationError):
    """Name and password do not belong together; which of the two is wrong is not told."""


class SealedKey(Strict):
    """A private key under a password: parameters of scrypt, and what AES-256-GCM made of the key's 32 bytes."""

    n: int = Field(ge=2, le=_MOST_N)
    r: int = Field(ge=1, le=_MOST_R)
    p: int = Field(ge=1, le=_MOST_P)
    salt: Hex
    nonce: Hex
    box: Hex


class Person(Strict):
    """``vouched_by`` signed name, role and public key; the first administrator vouches for himself."""

    role: Role
    public_key: Key
    sealed_key: SealedKey
    added_utc_s: float
    vouched_by: Name
    vouched: Signature


class PeopleFile(Strict):
    """What ``people.json`` holds."""

    format: Literal[1] = 1
    people: dict[Name, Person] = Field(default_factory=dict)


class People:
    """The people of one ``people.json``, as it stood when it was read. Changes are written at once, as a whole."""

    def __init__(self, path: Path, people: Mapping[str, Person]) -> None:
        self.path = Path(path)
        self._people = dict(people)

    @staticmethod
    def read(path: Path) -> People:
        """The people of a file, none where there is no file; raises :class:`ConfigurationError` for a damaged one."""
        try:
            found = read_whole(Path(path))
            return People(path, {} if found is None else PeopleFile.model_validate(found).people)
        except (OSError, ValueError, ValidationError) as error:
            raise ConfigurationError(
                f"{path}: cannot be read ({_first_line(error)}); put back the administrator's last copy"
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._people))

    def __contains__(self, name: str) -> bool:
        return name in self._people

    def __getitem__(self, name: str) -> Person:
        """Raises :class:`ConfigurationError` for a name that is not known."""
        if name not in self._people:
            raise ConfigurationError(
                f"{name!r} is nobody known here; known: {', '.join(self.names) or 'nobody, see `twinloop people add`'}"
                f"{nearest(name, self._people)}"
            )
        return self._people[name]

    def may(self, name: str, act: Act) -> bool:
        """Whether a person's role allows an act; False for a name that is not known."""
        return name in self._people and act in MAY[self._people[name].role]

    def require(self, name: str, act: Act) -> Person:
        """The person, if allowed; raises :class:`ConfigurationError` in words otherwise."""
        person = self[name]
        if act not in MAY[person.role]:
            roles = [role for role, acts in MAY.items() if act in acts]
            raise ConfigurationError(f"{name} is {person.role}, which may not {act}; needed: {' or '.join(roles)}")
        return person

    def administrators(self) -> frozenset[str]:
        """Public keys of the administrators."""
        return frozenset(p.public_key for p in self._people.values() if p.role == "admin")

    def vouched(self, roots: Iterable[str]) -> People:
        """Only those whom one of the administrators with public keys ``roots`` vouches for."""
        trusted = list(roots)
        kept = {
            name: person
            for name, person in self._people.items()
            if any(confirms(key, person.vouched, _entry(name, person)) for key in trusted)
        }
        return People(self.path, kept)

    def unlock(self, name: str, password: str) -> Ed25519PrivateKey:
        """The private key to sign with; takes as long for a name that is not known.

        Raises :class:`WrongPasswordError`. How often somebody may try is the caller's to limit.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        person = self._people.get(name)
        sealed = _NOBODY if person is None else person.sealed_key
        try:
            raw = _opened(sealed, password, name)
            private = Ed25519PrivateKey.from_private_bytes(raw)
        except (InvalidTag, ValueError):
            private = None
        if private is None or person is None or private.public_key().public_bytes_raw().hex() != person.public_key:
            raise WrongPasswordError(f"{self.path}: name and password do not belong together; try again")
        return private

    def add(self, name: str, role: Role, password: str, *, by: str = "", by_password: str = "") -> People:
        """Add a person, in the name of the administrator ``by``; the first of all must be one and needs none.

        Returns the people after it. Raises :class:`ConfigurationError`.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if name in self._people:
            raise ConfigurationError(f"{name} is there already; remove first, or give another name")
        _strong(password)
        private = Ed25519PrivateKey.generate()
        if self._people:
            self.require(by, "people")
            voucher, key = by, self.unlock(by, by_password)
        elif role != "admin":
            raise ConfigurationError(f"the first of all must be an admin, not {role}: who else could vouch for others?")
        else:
            voucher, key = name, private
        public = private.public_key().public_bytes_raw().hex()
        try:
            person = Person(
                role=role, public_key=public, sealed_key=_sealed(private.private_bytes_raw(), password, name),
                added_utc_s=time.time(), vouched_by=voucher, vouched=key.sign(_told(name, role, public)).hex(),
            )  # fmt: skip
            PeopleFile(people={name: person})
        except ValidationError as error:
            raise ConfigurationError(
                f"{name!r} is no name; give letters, digits and . _ @ -, 64 at most, the first a letter or digit"
            ) from error
        return self._written({**self._people, name: person})

    def remove(self, name: str, *, by: str, by_password: str) -> People:
        """Remove a person, in the name of an administrator; the last administrator stays."""
        self.require(by, "people")
        self.unlock(by, by_password)
        gone = self[name]
        if gone.role == "admin" and len(self.administrators()) == 1:
            raise ConfigurationError(f"{name} is the only admin; add another one first")
        return self._written({n: p for n, p in self._people.items() if n != name})

    def change_password(self, name: str, old: str, new: str) -> People:
        """Seal a person's key anew; the key, and all that it signed, stays."""
        private = self.unlock(name, old)
        _strong(new)
        sealed = _sealed(private.private_bytes_raw(), new, name)
        return self._written({**self._people, name: self[name].model_copy(update={"sealed_key": sealed})})

    def _written(self, people: Mapping[str, Person]) -> People:
        data = PeopleFile(people=dict(people)).model_dump(mode="json")
        write_whole(self.path, data)
        self.path.chmod(0o640)
        return People(self.path, people)


def confirms(public_key: str, signature: str, message: bytes) -> bool:
    """Whether ``signature`` of ``message`` is by the owner of ``public_key`` (both in hex). Never raises."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _entry(name: str, person: Person) -> bytes:
    return _told(name, person.role, person.public_key)


def _told(name: str, role: str, public_key: str) -> bytes:
    text = json.dumps({"name": name, "public_key": public_key, "role": role}, sort_keys=True, separators=(",", ":"))
    return b"twinloop person 1\n" + text.encode()


def _strong(password: str) -> None:
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigurationError(f"a password of {len(password)} characters; give {SHORTEST_PASSWORD} or more")


def _sealed(raw: bytes, password: str, name: str) -> SealedKey:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = secrets.token_bytes(16), os.urandom(12)
    key = _stretched(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    box = AESGCM(key).encrypt(nonce, raw, name.encode())
    return SealedKey(n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, salt=salt.hex(), nonce=nonce.hex(), box=box.hex())


def _opened(sealed: SealedKey, password: str, name: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = _stretched(password, bytes.fromhex(sealed.salt), sealed.n, sealed.r, sealed.p)
    return AESGCM(key).decrypt(bytes.fromhex(sealed.nonce), bytes.fromhex(sealed.box), name.encode())


def _stretched(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(password.encode())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# What a name that is not known is tried against, so that it takes as long as one that is.
_NOBODY = SealedKey(n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, salt="00" * 16, nonce="00" * 12, box="00" * 48)
