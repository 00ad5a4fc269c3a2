"""A folder for results, or a clear word on why there is none."""

from __future__ import annotations

import os
from pathlib import Path

from ..envs.errors import RunError


def make_folder(path: Path) -> Path:
    """Return ``path``, made with its parents and open to writing; raises :class:`RunError` where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be made ({error.strerror}); give a folder that you may write to") from error
    if not os.access(path, os.W_OK):
        raise RunError(f"{path}: cannot be written to; give a folder that you may write to, or change its permissions")
    return path
