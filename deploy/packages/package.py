"""Make a package out of a policy's artifact and its site, and read one that may be trusted."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ... import __version__
from ...agents.artifact import load_artifact
from ...envs.constraint import Declaration
from ...envs.errors import ArtifactError, NameplateError, PackageError
from ...envs.nameplate import Nameplate, digest
from ..audit.signing import PrivateKey, PublicKey
from .archive import MAX_MB, members_of, pack
from .content import (
    ARTIFACT,
    EVALUATION,
    FORMAT,
    LIMITS,
    NAMEPLATE,
    PACKAGE,
    TWIN,
    About,
    check_manifest,
    check_signature,
    signed,
    to_text,
)


@dataclass(frozen=True, eq=False)
class Package:
    """A package that was read and found sound: ``sha256`` of its file, ``signer`` the key's fingerprint."""

    about: About
    members: Mapping[str, bytes]
    sha256: str
    signer: str

    @property
    def title(self) -> str:
        return f"{self.about.name} release {self.about.release} ({self.sha256[:12]})"

    def data(self, name: str) -> Any:
        """A JSON member; None where there is none."""
        return json.loads(self.members[name]) if name in self.members else None


def build(
    artifact: Path,
    *,
    declaration: Declaration,
    twin: tuple[str, BaseModel],
    name: str,
    release: int,
    key: PrivateKey,
    evaluation: Mapping[str, Any] | None = None,
) -> bytes:
    """The bytes of a signed package, the same for the same arguments.

    ``declaration``: nameplate and limits of the site that it is for; ``twin``: registry's name of the site and its
    configuration. Raises :class:`ArtifactError` for an artifact that is not sound or not of this site, and
    :class:`PackageError` for a name or a release that no package can have.
    """
    artifact = Path(artifact)
    policy = load_artifact(artifact, declaration.nameplate)
    site, configuration = twin
    told = {"site": site, "configuration": configuration.model_dump(mode="json")}
    try:
        about = About(
            format=FORMAT,
            name=name,
            release=release,
            policy=policy.hash,
            scope=policy.about["scope"],
            site=declaration.nameplate.site,
            nameplate_hash=declaration.nameplate.hash,
            limits_hash=declaration.hash,
            twin_hash=digest(told),
            twinloop=__version__,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise PackageError(f"--{first['loc'][0]}: {first['input']!r}: {first['msg']}; give another one") from error
    rows = [row._asdict() for row in declaration.rows()]
    members = {f"{ARTIFACT}{path.name}": path.read_bytes() for path in sorted(artifact.iterdir())}
    members |= {
        PACKAGE: to_text(about.model_dump(mode="json")),
        NAMEPLATE: to_text(declaration.nameplate.to_dict()),
        LIMITS: to_text({"hash": declaration.hash, "declaration": declaration.to_dict(), "rows": rows}),
        TWIN: to_text({"hash": about.twin_hash, **told}),
    }
    if evaluation is not None:
        members[EVALUATION] = to_text(evaluation)
    return pack(signed(members, key))


def open_package(path: Path, keys: Sequence[PublicKey], max_mb: float = MAX_MB) -> Package:
    """Read a package that one of ``keys`` signed.

    Raises :class:`PackageError` for one that is not signed, signed by another key, damaged, changed, too large, of
    another format, or that contradicts itself. Nothing is written.
    """
    data = _read(Path(path), max_mb)
    where = str(path)
    members = members_of(data, where)
    signer = check_signature(where, members, keys)
    check_manifest(where, members)
    about = _about(where, members)
    package = Package(about, members, hashlib.sha256(data).hexdigest(), signer)
    _check_hashes(where, package)
    return package


def write_file(path: Path, data: bytes) -> None:
    """Have ``data`` at ``path``, on disk and whole; an older file is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _read(path: Path, max_mb: float) -> bytes:
    try:
        size_mb = path.stat().st_size / 1e6
        if size_mb > max_mb:
            raise PackageError(
                f"{path}: has {size_mb:.1f} MB, allowed are {max_mb:g}; a policy's package is far smaller: where this "
                "one is not, say so with --max-mb"
            )
        return path.read_bytes()
    except OSError as error:
        raise PackageError(
            f"{path}: cannot be read ({error.strerror}); give a file that `twinloop package build` wrote"
        ) from error


def _about(where: str, members: Mapping[str, bytes]) -> About:
    missing = {PACKAGE, NAMEPLATE, LIMITS, TWIN} - members.keys()
    if missing:
        raise PackageError(f"{where}: lacks {', '.join(sorted(missing))}; build it with `twinloop package build`")
    try:
        data = json.loads(members[PACKAGE])
        found = data["format"]
        if found != FORMAT:
            raise PackageError(
                f"{where}: has format {found}, this twinloop reads {FORMAT}; install the version that wrote it: "
                f"{data.get('twinloop', 'unknown')}"
            )
        return About.model_validate(data)
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{where}: {PACKAGE} cannot be read ({error}); build the package again") from error


def _check_hashes(where: str, package: Package) -> None:
    """What the parts say of themselves must be what they are: a signature says who, not that it is right."""
    about = package.about
    try:
        plate = Nameplate.from_dict(package.data(NAMEPLATE))
        limits, twin = package.data(LIMITS), package.data(TWIN)
        found = (
            ("nameplate_hash", about.nameplate_hash, plate.hash),
            ("limits_hash", about.limits_hash, digest(limits["declaration"])),
            ("limits' nameplate", about.nameplate_hash, Nameplate.from_dict(limits["declaration"]["nameplate"]).hash),
            ("twin_hash", about.twin_hash, digest({k: twin[k] for k in ("site", "configuration")})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, NameplateError) as error:
        raise PackageError(f"{where}: a part cannot be read ({error}); build the package again") from error
    for what, told, is_ in found:
        if told != is_:
            raise PackageError(f"{where}: {what} is told as {told[:12]}, it is {is_[:12]}; build the package again")


def write_members(folder: Path, members: Mapping[str, bytes]) -> None:
    """Write the members below ``folder``, each on disk before this returns."""
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def check_policy(where: str, folder: Path, about: About, nameplate: Nameplate) -> None:
    """Load the artifact in ``folder`` for the plant here, graph against numpy; raises :class:`PackageError`."""
    try:
        policy = load_artifact(folder, nameplate)
    except ArtifactError as error:
        raise PackageError(f"{where}: its policy cannot run here: {error}") from error
    if policy.hash != about.policy:
        raise PackageError(
            f"{where}: tells of policy {about.policy[:12]}, its artifact is {policy.hash[:12]}; build the package again"
        )
