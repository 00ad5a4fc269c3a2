"""A fitted estimator as one file of plain arrays (NumPy's ``.npz``): reading it runs no code of the file, for no pickle
is allowed in it. A digest finds damage; it is no signature, so take models from where you trust."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ..errors import ArtifactError, ContractError
from .boosting import BoostedLife, BoostingSettings

FORMAT = "twinloop-boosted-life-1"


def save(life: BoostedLife, path: Path) -> None:
    """Write to ``path`` at once or not at all; raises :class:`ArtifactError` where that cannot be written."""
    told = {
        "format": FORMAT, "settings": life.settings.model_dump(), "signals": list(life.signals), "unit": life.unit,
    }  # fmt: skip
    arrays = life.arrays() | {"told": np.array(json.dumps(told, sort_keys=True))}
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, digest=np.array(_digest(arrays)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ArtifactError(f"{path}: cannot be written ({error.strerror or error}); give another place") from error


def load(path: Path) -> BoostedLife:
    """Read what :func:`save` wrote; raises :class:`ArtifactError` for anything else, and for a damaged one."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        digest = str(arrays.pop("digest"))
        told = json.loads(str(arrays["told"]))
        if digest != _digest(arrays) or told["format"] != FORMAT:
            raise ArtifactError(f"{path}: damaged, or of another version of twinloop; fit the model again")
        settings = BoostingSettings.model_validate(told["settings"])
        return BoostedLife.from_arrays(settings, tuple(told["signals"]), str(told["unit"]), arrays)
    except ArtifactError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; make one by `twinloop prognose --fit ... --save {path}`") from error
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        ContractError,
        ValidationError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ArtifactError(f"{path}: no fitted estimator ({type(error).__name__}: {error}); fit one again") from error


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.tobytes())
    return found.hexdigest()
