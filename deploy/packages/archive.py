"""One file of named members that has exactly one form: the same members are the same bytes, and no others are read.

A zip without compression, its members sorted, without times. What is read is packed again and compared with what came,
so that nothing can hide in a comment, a gap, a second directory or a name that two programs read differently.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping

from ...envs.errors import PackageError

MAX_MB = 256.0
"""Largest file that is read unless told otherwise; policies are a few megabytes."""
_MOST_MEMBERS = 1_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,2}")
_THE_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_COPY = "copy it again from where it was built"


def pack(members: Mapping[str, bytes]) -> bytes:
    """The bytes of an archive. Raises :class:`PackageError` for a name that could leave the folder it is put in."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            _check_name("a new package", name)
            info = zipfile.ZipInfo(name, _THE_FIRST_DAY)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, members[name])
    return out.getvalue()


def members_of(data: bytes, where: str) -> dict[str, bytes]:
    """The members of an archive; raises :class:`PackageError`, beginning with ``where``, for what :func:`pack` never
    writes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) > _MOST_MEMBERS:
                raise PackageError(f"{where}: holds {len(infos)} files, allowed are {_MOST_MEMBERS}; {_COPY}")
            for info in infos:
                _check_name(where, info.filename)
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                    raise PackageError(f"{where}: {info.filename} is compressed, allowed is stored only; {_COPY}")
            found = {info.filename: archive.read(info) for info in infos}
    # A damaged zip may show as any of these, deep in the reader.
    except (
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        OSError,
        struct.error,
    ) as error:
        raise PackageError(f"{where}: is damaged, or no package ({error}); {_COPY}") from error
    if pack(found) != data:
        raise PackageError(f"{where}: holds other bytes than its {len(found)} files as they are packed; {_COPY}")
    return found


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise PackageError(
            f"{where}: the name {name[:80]!r} is not allowed inside a package: letters, digits, _ . - in at most three "
            "parts, none of which begins with a dot; whoever wrote this was not `twinloop package build`: throw it away"
        )
