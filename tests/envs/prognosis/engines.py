"""Engines made up for tests: C-MAPSS's format, lives and wear of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_SETTINGS, N_SENSORS = 3, 21
MOVING = (1, 2, 3, 6, 10, 11)
"""Places of sensors that tell of wear; the others stand still."""


def made_up(n: int, seed: int, cut: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lines of 26 columns of ``n`` engines, and the cycles that each had left, 0 unless ``cut``.

    Wear begins unseen, at a level of its own, and grows as the third power of the share of a life.
    """
    rng = np.random.default_rng(seed)
    lines, left = [], []
    for engine in range(1, n + 1):
        life = int(rng.integers(60, 160))
        seen = int(rng.integers(30, life)) if cut else life
        share = np.arange(1, seen + 1) / life
        table = np.zeros((seen, 2 + N_SETTINGS + N_SENSORS))
        table[:, 0], table[:, 1] = engine, np.arange(1, seen + 1)
        table[:, 2:4] = rng.normal(0, 0.002, (seen, 2))
        table[:, 4] = 100.0
        table[:, 5:] = 500.0 + np.arange(N_SENSORS)
        for k in MOVING:
            table[:, 5 + k] += rng.normal(0, 0.5) + (k + 1) * share**3 + rng.normal(0, 0.3, seen)
        lines.append(table)
        left.append(life - seen)
    return np.vstack(lines), np.array(left, dtype=np.float64)


def write_set(folder: Path, n_train: int, n_test: int, seed: int = 0, subset: str = "FD001") -> None:
    """The three files of a set."""
    train, _ = made_up(n_train, seed, cut=False)
    test, left = made_up(n_test, seed + 1, cut=True)
    np.savetxt(folder / f"train_{subset}.txt", train, fmt="%g")
    np.savetxt(folder / f"test_{subset}.txt", test, fmt="%g")
    np.savetxt(folder / f"RUL_{subset}.txt", left, fmt="%d")
