"""NASA's turbofan degradation data as text files (Saxena, Goebel, Simon & Eklund 2008, "Damage propagation modeling for
aircraft engine run-to-failure simulation", PHM08). The files are not shipped; give the folder that holds them.

``train_FD001.txt``: engines to their failure; ``test_FD001.txt``: engines cut off before; ``RUL_FD001.txt``: what each
of those had left. 26 columns: engine, cycle, three settings, 21 sensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .history import Fleet, UnitHistory

Floats = NDArray[np.float64]
SETTINGS = tuple(f"setting_{k}" for k in range(1, 4))
SENSORS = tuple(f"s_{k}" for k in range(1, 22))
SUBSETS = ("FD001", "FD002", "FD003", "FD004")


@dataclass(frozen=True)
class Cmapss:
    """``train``, engines that failed, ``test``, engines that did not, and the cycles ``left`` to them, ``[n]``."""

    train: Fleet
    test: Fleet
    left: Floats


def read_cmapss(folder: Path, subset: str = "FD001") -> Cmapss:
    """Read one of the four sets; raises :class:`ConfigurationError` for files that are missing or not such."""
    if subset not in SUBSETS:
        raise ConfigurationError(f"C-MAPSS: set {subset!r}; there are {', '.join(SUBSETS)}")
    left_file = folder / f"RUL_{subset}.txt"
    train = read_engines(folder / f"train_{subset}.txt", failed=True)
    test = read_engines(folder / f"test_{subset}.txt", failed=False)
    left = _table(left_file, 1)[:, 0]
    if len(left) != len(test.units):
        raise ConfigurationError(f"{left_file}: {len(left)} lines for {len(test.units)} engines of the test file")
    return Cmapss(train, test, left)


def read_engines(path: Path, *, failed: bool) -> Fleet:
    """One file of engines, which all ``failed`` in their last cycle, or none."""
    table = _table(path, 2 + len(SETTINGS) + len(SENSORS))
    begins = np.flatnonzero(np.diff(table[:, 0], prepend=np.nan) != 0)
    units = []
    for lines in np.split(table, begins[1:]):
        name = f"{lines[0, 0]:g}"
        if not np.array_equal(lines[:, 1], np.arange(1, len(lines) + 1)):
            raise ConfigurationError(f"{path}: cycles of engine {name} are not 1, 2, 3, ... in order")
        units.append(UnitHistory(name, np.ascontiguousarray(lines[:, 2:]), failed))
    if len({u.name for u in units}) != len(units):
        raise ConfigurationError(f"{path}: lines of an engine do not stand together; sort them")
    return Fleet((*SETTINGS, *SENSORS), tuple(units))


def _table(path: Path, n_columns: int) -> Floats:
    try:
        table = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror or error}); give the folder of the C-MAPSS text files"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: not a C-MAPSS table ({error})") from error
    if table.shape[0] == 0 or table.shape[1] != n_columns or not np.isfinite(table).all():
        raise ConfigurationError(
            f"{path}: {table.shape[0]} x {table.shape[1]}, expected lines of {n_columns} finite numbers"
        )
    return table
