"""What a network saw in its evaluation: a sample that an artifact may carry, for who watches its inputs.

``inputs.npz`` holds, for each group, ``features/GROUP`` ``[n, F]`` float32, as the group's encoder makes them, and
``episode/GROUP`` ``[n]``, the episode each row comes from: rows of one episode are alike, so that fit and calibration
must not share any.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUTS = "inputs.npz"


@dataclass(frozen=True, eq=False)
class InputSample:
    """``features``: ``[n, F]`` of present assets; ``episode``: ``[n]``."""

    features: NDArray[np.float32]
    episode: NDArray[np.int64]


def to_bytes(inputs: Mapping[str, InputSample]) -> bytes:
    """The file's content; equal samples give equal bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for group, sample in sorted(inputs.items()):
        arrays[f"features/{group}"] = np.asarray(sample.features, np.float32)
        arrays[f"episode/{group}"] = np.asarray(sample.episode, np.int64)
    written = io.BytesIO()
    np.savez_compressed(written, allow_pickle=False, **arrays)
    return written.getvalue()


def read_inputs(folder: Path) -> dict[str, InputSample]:
    """The samples by group; empty for an artifact without, such as one of an older version."""
    path = folder / INPUTS
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        groups = [key.removeprefix("features/") for key in arrays.files if key.startswith("features/")]
        return {g: InputSample(arrays[f"features/{g}"], arrays[f"episode/{g}"]) for g in groups}
