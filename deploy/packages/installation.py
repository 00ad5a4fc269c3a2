"""Where packages are installed on one machine: each whole in a folder of its own, and a link that says which acts.

FOLDER/releases/0007-1a2b3c4d5e6f/   what the package holds, and installed.json: when, by which key, what was before
FOLDER/current                       a link to one of them, replaced at once
FOLDER/result.json                   how the last call went

`twinloop run FOLDER/current/artifact` runs what is installed. A crash leaves the old release or the new one, and the
next call removes what it left half done.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...envs.errors import PackageError, TwinloopError
from ..audit.signing import PublicKey
from ..station.folder import read_whole, write_whole
from .archive import MAX_MB
from .content import ARTIFACT, MANIFEST, check_manifest
from .here import Here, check_site
from .package import Package, check_policy, open_package, write_members

RELEASES, CURRENT, RESULT, INSTALLED = "releases", "current", "result.json", "installed.json"
KEPT = 5
"""Releases that stay on disk, the current one and the one before among them."""
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Installed:
    """A release on this machine. ``before``: folder name of the release that it replaced, empty for the first."""

    folder: Path
    name: str
    release: int
    sha256: str
    policy: str
    signer: str
    utc_s: float
    before: str

    @property
    def artifact(self) -> Path:
        return self.folder / ARTIFACT

    @property
    def title(self) -> str:
        return f"{self.name} release {self.release} ({self.sha256[:12]})"


class Installation:
    """The packages of one machine; nothing is made before something is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def current(self) -> Installed | None:
        """What is installed; raises :class:`PackageError` where that cannot be told."""
        link = self.folder / CURRENT
        if not link.is_symlink():
            if link.exists():
                raise PackageError(f"{link}: is no link; allowed is what `twinloop package install` made: move it away")
            return None
        return self._installed(self.folder / RELEASES / Path(os.readlink(link)).name)

    def install(
        self,
        path: Path,
        keys: Sequence[PublicKey],
        here: Here,
        *,
        allow_older: bool = False,
        max_mb: float = MAX_MB,
    ) -> Installed:
        """Check the package at ``path`` and make it the current one; one that is so already stays.

        Raises :class:`PackageError` for a package that :func:`~.package.open_package` refuses, of another site, of an
        older release than the current one, of its number with another content, or whose policy does not run here. Then
        the current release is as before, and ``result.json`` says why.
        """
        with self._alone():
            try:
                package = open_package(path, keys, max_mb)
                check_site(str(path), package, here)
                before = self.current()
                self._check_order(str(path), package, before, allow_older)
                installed = self._put(str(path), package, before, here)
            except TwinloopError as error:
                self._tell({"ok": False, "package": str(path), "error": str(error)})
                raise
            self._tell({"ok": True, "release": installed.release, "sha256": installed.sha256, **_told(installed)})
            self._forget(installed)
            return installed

    def check(self, installed: Installed) -> None:
        """Raise :class:`PackageError` where a release is no longer what its manifest, once signed, tells."""
        try:
            members = _on_disk(installed.folder)
        except OSError as error:
            raise PackageError(f"{installed.folder}: cannot be read ({error}); install the package again") from error
        if MANIFEST not in members:
            raise PackageError(f"{installed.folder}: lacks {MANIFEST}; install the package again")
        check_manifest(str(installed.folder), members)

    def rollback(self) -> Installed:
        """Make the release before the current one current again; raises :class:`PackageError` where there is none."""
        with self._alone():
            now = self.current()
            if now is None:
                raise PackageError(f"{self.folder}: nothing is installed, so nothing can be taken back")
            if not now.before:
                raise PackageError(
                    f"{self.folder}: {now.title} is the first release here, so there is none to go back to; run "
                    "without a package, or install another one"
                )
            found = self._installed(self.folder / RELEASES / now.before)
            self.check(found)
            self._point(found.folder)
            self._tell({"ok": True, "rolled_back_from": now.sha256, "release": found.release, **_told(found)})
            return found

    def remove_first(self) -> None:
        """Undo a first installation: no release is current any more."""
        with self._alone():
            (self.folder / CURRENT).unlink(missing_ok=True)
            self._tell({"ok": True, "rolled_back_from": "", "release": 0, "policy": ""})

    def _put(self, where: str, package: Package, before: Installed | None, here: Here) -> Installed:
        again = before is not None and before.sha256 == package.sha256
        if before is not None and again and _is_whole(before.folder, package.members):
            return before
        name = f"{package.about.release:04d}-{package.sha256[:12]}"
        if before is not None and before.folder.name == name:
            name += "r"  # what is damaged stays until the whole one is current
        target = self.folder / RELEASES / name
        partial = self.folder / RELEASES / f"{_PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write_members(partial, package.members)
            check_policy(where, partial / ARTIFACT, package.about, here.nameplate)
            record = {
                "name": package.about.name,
                "release": package.about.release,
                "sha256": package.sha256,
                "policy": package.about.policy,
                "signer": package.signer,
                "utc_s": time.time(),
                "before": "" if before is None else before.before if again else before.folder.name,
            }
            write_whole(partial / INSTALLED, record)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(target.parent)
        except OSError as error:
            raise PackageError(
                f"{self.folder}: the package cannot be written ({error}); free disk space or give a folder that may be "
                "written, then install again: what was installed still is"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._point(target)
        return self._installed(target)

    def _check_order(self, where: str, package: Package, before: Installed | None, allow_older: bool) -> None:
        about = package.about
        if before is None or package.sha256 == before.sha256 or allow_older:
            return
        if about.name == before.name and about.release <= before.release:
            word = "older than" if about.release < before.release else "another content under the number of"
            raise PackageError(
                f"{where}: release {about.release} is {word} what is installed, {before.title}; allowed is release "
                f"{before.release + 1} or later: build it with a greater --release, go back with `twinloop package "
                "install --rollback`, or say --allow-older"
            )

    def _point(self, target: Path) -> None:
        """Replace the link at once; a crash leaves the one before."""
        beside = self.folder / f".{CURRENT}.new"
        beside.unlink(missing_ok=True)
        beside.symlink_to(Path(RELEASES) / target.name)
        beside.replace(self.folder / CURRENT)
        _sync(self.folder)

    def _installed(self, folder: Path) -> Installed:
        try:
            told = read_whole(folder / INSTALLED)
            if told is not None:
                return Installed(folder=folder, **told)
        except (OSError, ValueError, TypeError) as error:
            raise PackageError(f"{folder / INSTALLED}: cannot be read ({error}); install the package again") from error
        raise PackageError(f"{folder}: is gone or no release; install the package again")

    def _forget(self, now: Installed) -> None:
        """Remove the oldest releases beyond :data:`KEPT`, never the current one or the one before."""
        found = [path for path in (self.folder / RELEASES).iterdir() if not path.name.startswith(".")]
        found.sort(key=lambda path: path.stat().st_mtime)
        spare = [path for path in found if path.name not in (now.folder.name, now.before)]
        for path in spare[: max(len(found) - KEPT, 0)]:
            shutil.rmtree(path, ignore_errors=True)

    def _tell(self, told: dict[str, object]) -> None:
        write_whole(self.folder / RESULT, {"utc_s": time.time(), **told})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One call at a time, however many processes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / RELEASES).mkdir(exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise PackageError(
                        f"{self.folder}: another installation is going on; call again when it has ended"
                    ) from None
                yield
        except OSError as error:
            raise PackageError(f"{self.folder}: cannot be used ({error}); give a folder that may be written") from error


def _told(installed: Installed) -> dict[str, object]:
    return {"name": installed.name, "policy": installed.policy, "folder": installed.folder.name}


def _is_whole(folder: Path, members: Mapping[str, bytes]) -> bool:
    """Whether a release on disk is still what the package holds."""
    try:
        return _on_disk(folder) == members
    except OSError:
        return False


def _on_disk(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != INSTALLED}


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
