"""What was carried out before: hashes of proposals and nonces of approvals, on disk before anything is sent.

One empty file each, made exclusively: it is there or it is not, and a crash leaves nothing half written.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = ".burnt"


class Burnt:
    """A folder of names; control is its only writer."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def used(self) -> frozenset[str]:
        """All of them; raises OSError where the folder cannot be read: then nothing may be carried out."""
        try:
            return frozenset(os.listdir(self.path))
        except FileNotFoundError:
            return frozenset()

    def burn(self, proposal_hash: str, nonce: str) -> None:
        """Use both up. Raises FileExistsError where one is used up already, OSError unless the disk has both."""
        self.path.mkdir(mode=0o770, parents=True, exist_ok=True)
        for name in (proposal_hash, nonce):
            os.close(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        for folder in (self.path, self.path.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
