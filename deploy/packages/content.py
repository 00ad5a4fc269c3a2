"""What a package holds, by the names inside it.

package.json      format, name, release, hashes of policy, nameplate and limits, version of twinloop
artifact/         the policy's artifact as training wrote it (:mod:`...agents.artifact`)
nameplate.json    the site that this package is for
limits.json       what the site declares as safe, as data, with its hash and its table
twin.json         the twin's site and configuration, with their hash
evaluation.json   what was found about the policy; may be absent
MANIFEST.sha256   the hash of every file above, as ``sha256sum -c`` reads it
SIGNATURE.json    the fingerprint of the key, and its Ed25519 signature of the manifest
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from ...envs.configuration import Strict
from ...envs.errors import PackageError
from ..audit.signing import PrivateKey, PublicKey

FORMAT = 1
PACKAGE, NAMEPLATE, LIMITS, TWIN, EVALUATION = (
    "package.json",
    "nameplate.json",
    "limits.json",
    "twin.json",
    "evaluation.json",
)
ARTIFACT = "artifact/"
MANIFEST, SIGNATURE = "MANIFEST.sha256", "SIGNATURE.json"
SUFFIX = ".twinpkg"
_DOMAIN = b"twinloop package 1\n"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


class About(Strict):
    """``release`` grows with each package of one name; a site goes back only when told to. Hashes are SHA-256."""

    format: int
    name: Name
    release: PositiveInt
    policy: str
    scope: str
    site: str
    nameplate_hash: str
    limits_hash: str
    twin_hash: str
    twinloop: str


def to_text(data: Any) -> bytes:
    """``data`` as JSON, the same bytes for equal data; raises ValueError for NaN and infinity."""
    return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def manifest(members: Mapping[str, bytes]) -> bytes:
    """A line of hash and name for every member but the manifest and its signature."""
    names = sorted(members.keys() - {MANIFEST, SIGNATURE})
    return "".join(f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in names).encode()


def signed(members: Mapping[str, bytes], key: PrivateKey) -> dict[str, bytes]:
    """``members`` with manifest and signature."""
    listed = manifest(members)
    told = {"key": key.public.fingerprint, "signature": base64.b64encode(key.sign(_DOMAIN + listed)).decode()}
    return {**members, MANIFEST: listed, SIGNATURE: to_text(told)}


def check_signature(where: str, members: Mapping[str, bytes], keys: Sequence[PublicKey]) -> str:
    """The fingerprint of the key that signed; raises :class:`PackageError` for a package that none of ``keys`` did."""
    allowed = ", ".join(key.fingerprint for key in keys)
    if SIGNATURE not in members or MANIFEST not in members:
        raise PackageError(
            f"{where}: is not signed; allowed is what {allowed} signed: build it with `twinloop package build --key`"
        )
    try:
        told = json.loads(members[SIGNATURE])
        signer, signature = str(told["key"]), base64.b64decode(told["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise PackageError(f"{where}: {SIGNATURE} cannot be read ({error}); copy the package again") from error
    mine = [key for key in keys if key.fingerprint == signer]
    if not mine:
        raise PackageError(
            f"{where}: is signed by {signer[:80]}, allowed are {allowed}; give that key with --public if you trust it, "
            "or have the package signed by one of yours"
        )
    if not mine[0].confirms(signature, _DOMAIN + members[MANIFEST]):
        raise PackageError(
            f"{where}: the signature of {signer} does not fit {MANIFEST}; somebody changed it: ask for the package anew"
        )
    return signer


def check_manifest(where: str, members: Mapping[str, bytes]) -> None:
    """Raise :class:`PackageError` where members differ from what was signed, naming them."""
    told: dict[str, str] = {}
    for line in members[MANIFEST].decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        told[name] = digest
    here = members.keys() - {MANIFEST, SIGNATURE}
    changed = [n for n in sorted(here & told.keys()) if hashlib.sha256(members[n]).hexdigest() != told[n]]
    wrong = [
        f"{word}: {', '.join(names[:5])}"
        for word, names in (
            ("changed", changed),
            ("added", sorted(here - told.keys())),
            ("removed", sorted(told.keys() - here)),
        )
        if names
    ]
    if wrong or manifest(members) != members[MANIFEST]:
        raise PackageError(
            f"{where}: is not as it was signed ({'; '.join(wrong) or 'the manifest is of another form'}); ask for the "
            "package anew"
        )
