"""The folder of an artifact: written whole or not at all, with a manifest that finds damage.

The manifest is no signature, so take artifacts from where you trust.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.errors import ArtifactError

MANIFEST = "MANIFEST.sha256"
REPORT = "report.json"
_MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` and their manifest as the whole content of ``folder``; on failure nothing has changed."""
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, data in {**files, MANIFEST: _manifest(files)}.items():
            with (partial / name).open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_manifest(folder: Path) -> str:
    """Compare every file with the manifest; return the hash of all but the report's line, which names the artifact."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: no {MANIFEST}, so no policy artifact; give the folder that `twinloop train` wrote"
        )
    data = path.read_bytes()
    expected: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None:
            raise ArtifactError(f"{path}: line {number} is no manifest entry; the artifact is damaged, copy it again")
        expected[match[2]] = match[1]
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    changed = [n for n in sorted(expected.keys() & present) if _sha256((folder / n).read_bytes()) != expected[n]]
    wrong = [
        f"{word}: {', '.join(names)}"
        for word, names in (
            ("missing", sorted(expected.keys() - present)),
            ("not in the manifest", sorted(present - expected.keys())),
            ("changed", changed),
        )
        if names
    ]
    if wrong:
        raise ArtifactError(f"{folder}: differs from its manifest ({'; '.join(wrong)}); copy or export it again")
    return _sha256("".join(f"{expected[n]}  {n}\n" for n in sorted(expected) if n != REPORT).encode())


def read_report(folder: Path) -> dict[str, Any]:
    """The report; empty where an artifact came without one."""
    path = folder / REPORT
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files)).encode()


def _replace(partial: Path, folder: Path) -> None:
    """Move a finished folder into place; an older one makes room only now."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def to_json(data: Any) -> bytes:
    """``data`` as JSON text, also where it holds numpy arrays, NaN (null) or other objects (their text)."""
    return (json.dumps(_plain(data), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """JSON types only: numpy scalars and arrays become numbers and lists, NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
