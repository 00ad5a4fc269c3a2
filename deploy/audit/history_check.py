"""Whether a history still is what it was when the rows that it was made of were deleted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .heads import ANCHOR, file_sha256, heads_of
from .history import parts
from .signing import PublicKey


def check_history(folder: Path, heads: Path, journal: str, keys: Sequence[PublicKey]) -> list[str]:
    """In words what is wrong; files that no anchor names yet are still in the journal, which shows more.

    The oldest files may have been deleted; between those that are there, none may be missing.
    """
    found = parts(folder, journal)
    if not found:
        return [f"{folder}: holds no history of this journal"]
    problems = [
        f"{folder}: rows {before.last + 1} to {after.first - 1} are in no file"
        for before, after in pairwise(found)
        if after.first != before.last + 1
    ]
    signed: dict[str, str] = {}
    for head in heads_of(heads, journal)[0]:
        if head.kind == ANCHOR and head.is_signed_by(keys):
            signed.update(head.history)
    for part in found:
        told = signed.pop(part.path.name, None)
        if told is not None and told != file_sha256(part.path):
            problems.append(f"{part.path}: was changed since its rows were deleted from the journal")
    oldest = found[0].path.name
    problems += [f"{name}: is missing in {folder}" for name in sorted(signed) if name > oldest]
    return problems
