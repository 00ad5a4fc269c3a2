"""Checkpoints that survive a crash while they are written: atomic files with a checksum, newest good one wins.

``iteration_00000010.pt`` is what ``torch.load(..., weights_only=True)`` reads: tensors and plain values, no code;
``iteration_00000010.pt.sha256`` is its checksum, as ``sha256sum -c`` reads it, and is written last.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..envs.errors import RunError

FORMAT_VERSION = 1
_MOST_GPUS = 64
_NAME = re.compile(r"iteration_(\d{8})\.pt")


class CheckpointStore:
    """The checkpoints of one run, in ``folder``; the ``keep`` newest stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, state: Mapping[str, Any]) -> Path:
        """Write ``state``, which holds its ``iteration``, and delete the oldest beyond ``keep``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"iteration_{int(state['iteration']):08d}.pt"
        partial = path.with_suffix(".partial")
        torch.save({"format_version": FORMAT_VERSION, **state}, partial)
        digest = _digest(partial)
        _sync(partial)
        path.with_suffix(".pt.sha256").unlink(missing_ok=True)
        os.replace(partial, path)
        checksum = path.with_suffix(".sha256.partial")
        checksum.write_text(f"{digest}  {path.name}\n", encoding="ascii")
        _sync(checksum)
        os.replace(checksum, path.with_suffix(".pt.sha256"))
        for old in self.paths()[: -self._keep]:
            old.with_suffix(".pt.sha256").unlink(missing_ok=True)
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first, damaged ones included."""
        if not self._folder.is_dir():
            return []
        return sorted(p for p in self._folder.iterdir() if _NAME.fullmatch(p.name))

    def load_newest(self, device: str = "cpu") -> tuple[dict[str, Any], list[str]]:
        """The newest state that is whole, and a line for each newer one that is not; RunError when none is.

        What lay on a GPU comes to ``device``, so that a machine without one can read it; the rest stays on the CPU.
        """
        complaints: list[str] = []
        for path in reversed(self.paths()):
            reason = _damage(path)
            if reason is None:
                state: dict[str, Any] = torch.load(path, _gpus_to(device), weights_only=True)
                if state.get("format_version") != FORMAT_VERSION:
                    raise RunError(
                        f"{path}: format version {state.get('format_version')}, this twinloop reads {FORMAT_VERSION}; "
                        "resume with the version that wrote it (see versions.json)"
                    )
                return state, complaints
            complaints.append(f"{path}: {reason}; falling back to the checkpoint before it")
        raise RunError(
            f"{self._folder}: no checkpoint to resume from"
            + (f" ({'; '.join(complaints)})" if complaints else "; the run ended before its first one, start it again")
        )


def _gpus_to(device: str) -> dict[str, str]:
    """Where ``torch.load`` puts what was on a GPU, whatever its number was."""
    return dict.fromkeys(("cuda", *(f"cuda:{number}" for number in range(_MOST_GPUS))), device)


def _damage(path: Path) -> str | None:
    checksum = path.with_suffix(".pt.sha256")
    if not checksum.is_file():
        return "has no checksum, so it was not written to its end"
    if checksum.read_text(encoding="ascii", errors="replace").split()[:1] != [_digest(path)]:
        return "does not match its checksum"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
