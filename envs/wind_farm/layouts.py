"""Layouts that the literature measures on, in metres in a local frame (x east, y north).

Rows and TCRWP: made from their rule. Ablaincourt and CL-Windcon: coordinates as used by the WFCRL benchmark
(Bizon Monroc et al. 2024, arXiv 2501.13592; wfcrl-env, ``wfcrl/environments/data_cases.py``, Apache-2.0), rounded
to 0.1 m. Horns Rev 1: parallelogram of 80 turbines, pitches from the py-wake example site (MIT).
"""

from __future__ import annotations

from ..errors import LayoutError, nearest

Coordinates = tuple[tuple[float, ...], tuple[float, ...]]

_ABLAINCOURT: Coordinates = (
    (484.8, 797.1, 1038.8, 1377.6, 1716.9, 2057.3, 2400.0),
    (274.0, 251.0, 66.9, -22.7, -112.5, -195.3, -259.0),
)
_CL_WINDCON: Coordinates = (
    (
        0.0,
        0.0,
        0.0,
        1197.1,
        1197.6,
        1196.7,
        2394.2,
        2393.8,
        2393.8,
        2393.8,
        2394.2,
        3590.9,
        3590.9,
        3590.9,
        3591.3,
        3590.4,
        4788.0,
        4788.4,
        4787.6,
        4787.5,
        4788.0,
        5984.7,
        5984.7,
        5984.6,
        5985.1,
        5985.1,
        7181.7,
        7181.7,
        7182.2,
        7181.3,
        7181.8,
        8379.3,
    ),
    (
        1426.0,
        -0.2,
        -1426.2,
        1425.3,
        0.2,
        -1425.3,
        2850.8,
        1426.0,
        0.1,
        -1426.0,
        -2851.1,
        2851.5,
        1425.5,
        -0.5,
        -1425.8,
        -2851.2,
        2850.8,
        1425.8,
        0.2,
        -1425.8,
        -2851.1,
        2851.7,
        1425.7,
        -0.4,
        -1425.7,
        -2851.6,
        2851.0,
        1425.0,
        -0.2,
        -1425.8,
        -2850.9,
        2851.3,
    ),
)


def _row(n: int, pitch_m: float) -> Coordinates:
    return tuple(i * pitch_m for i in range(n)), (0.0,) * n


def _grid(columns: int, rows: int, pitch_m: float) -> Coordinates:
    cells = [(i * pitch_m, j * pitch_m) for i in range(columns) for j in range(rows)]
    return tuple(x for x, _ in cells), tuple(y for _, y in cells)


def _tcrwp() -> Coordinates:
    x = tuple(504.0 * (i // 4) + 252.0 * (i % 2 == 0) for i in range(32))
    return x, tuple(504.0 * (i % 4) - 756.0 for i in range(32))


def _horns_rev_1() -> Coordinates:
    cells = [(560.0 * column + 68.4 * row, -556.0 * row) for column in range(10) for row in range(8)]
    return tuple(x for x, _ in cells), tuple(y for _, y in cells)


_LAYOUTS: dict[str, Coordinates] = {
    "row3_5d": _row(3, 630.0),
    "turb3_row1": _row(3, 504.0),
    "turb6_row2": ((0.0, 504.0, 1008.0) * 2, (-252.0,) * 3 + (252.0,) * 3),
    "grid3x3_5d": _grid(3, 3, 630.0),
    "ablaincourt": _ABLAINCOURT,
    "cl_windcon16": (_CL_WINDCON[0][:16], _CL_WINDCON[1][:16]),
    "cl_windcon32": _CL_WINDCON,
    "tcrwp32": _tcrwp(),
    "horns_rev_1": _horns_rev_1(),
}


def layout_names() -> tuple[str, ...]:
    """Names that :func:`named_layout` knows."""
    return tuple(_LAYOUTS)


def named_layout(name: str) -> Coordinates:
    """Return (x_m, y_m) of a named layout; raises :class:`LayoutError` with the nearest name."""
    if name not in _LAYOUTS:
        raise LayoutError(f"layout {name!r} is not known; known: {', '.join(_LAYOUTS)}{nearest(name, _LAYOUTS)}")
    return _LAYOUTS[name]
