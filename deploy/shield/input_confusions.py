"""Values that are right and stand in the wrong place: swapped channels, swapped assets, another unit.

Only asked of values that moved far in one period, or lie outside their range. Each has an explanation where its value
fits what is expected of another channel or after conversion, and not what is expected of itself. An explained value is
refused, never converted or swapped back: what else is wrong at such a source nobody knows.

Signals that stand at an end of their range are no evidence of a swap: flags change places all the time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Group

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# unit of the nameplate: what a source in another unit would send instead of 1, and instead of 0, of it
CONFUSIONS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "deg": (("rad", math.pi / 180.0, 0.0),),
    "rad": (("deg", 180.0 / math.pi, 0.0),),
    "deg/s": (("rad/s", math.pi / 180.0, 0.0),),
    "rad/s": (("deg/s", 180.0 / math.pi, 0.0), ("rpm", 30.0 / math.pi, 0.0)),
    "rpm": (("rad/s", math.pi / 30.0, 0.0),),
    "m/s": (("km/h", 3.6, 0.0), ("kn", 3600.0 / 1852.0, 0.0), ("mph", 3600.0 / 1609.344, 0.0)),
    "km/h": (("m/s", 1.0 / 3.6, 0.0), ("mph", 1.0 / 1.609344, 0.0)),
    "degC": (("K", 1.0, 273.15), ("degF", 1.8, 32.0)),
    "K": (("degC", 1.0, -273.15),),
    "W": (("kW", 1e-3, 0.0), ("MW", 1e-6, 0.0)),
    "kW": (("W", 1e3, 0.0), ("MW", 1e-3, 0.0)),
    "MW": (("kW", 1e3, 0.0), ("W", 1e6, 0.0)),
    "kWh": (("Wh", 1e3, 0.0), ("MWh", 1e-3, 0.0), ("MJ", 3.6, 0.0)),
    "V": (("kV", 1e-3, 0.0), ("mV", 1e3, 0.0)),
    "kV": (("V", 1e3, 0.0),),
    "A": (("mA", 1e3, 0.0), ("kA", 1e-3, 0.0)),
    "m": (("mm", 1e3, 0.0), ("cm", 1e2, 0.0), ("km", 1e-3, 0.0), ("ft", 1.0 / 0.3048, 0.0)),
    "mm": (("m", 1e-3, 0.0), ("in", 1.0 / 25.4, 0.0)),
    "km": (("m", 1e3, 0.0),),
    "kg": (("g", 1e3, 0.0), ("t", 1e-3, 0.0), ("lb", 1.0 / 0.45359237, 0.0)),
    "Pa": (("kPa", 1e-3, 0.0), ("bar", 1e-5, 0.0)),
    "kPa": (("Pa", 1e3, 0.0), ("bar", 1e-2, 0.0)),
    "bar": (("Pa", 1e5, 0.0), ("kPa", 1e2, 0.0), ("psi", 14.503773773, 0.0)),
    "s": (("ms", 1e3, 0.0), ("min", 1.0 / 60.0, 0.0)),
    "min": (("s", 60.0, 0.0),),
    "h": (("min", 60.0, 0.0), ("s", 3600.0, 0.0)),
    "pu": (("%", 100.0, 0.0),),
    "1": (("%", 100.0, 0.0),),
    "%": (("pu", 0.01, 0.0),),
}

FIT = 0.3
"""Share of ``confusion_step_pu`` within which a value fits what is expected of another place."""

UNIT_FIT = 0.1
"""Share of the expected value within which a converted one fits: near 0 every unit looks alike, and none is found."""

MAX_SWAPPED_ASSETS = 64
"""Most assets that are compared with each other in one period; when more move far at once, it is no swap of two."""

DISTINCT_SIGNALS = 2
"""Signals by which two assets must differ before their swap can be told from two assets that both changed."""


class Conversions:
    """What the values of one group would be if they came in another unit, ``K`` alternatives at most."""

    def __init__(self, group: Group) -> None:
        others = [CONFUSIONS.get(s.unit, ()) for s in group.measured]
        most = max((len(o) for o in others), default=0)
        self._scale = np.full((most, len(others)), np.nan)
        self._zero = np.full((most, len(others)), np.nan)
        for column, row in enumerate(others):
            for k, (_, scale, zero) in enumerate(row):
                self._scale[k, column], self._zero[k, column] = scale, zero

    def fitting(self, read: Floats, expected: Floats, near: Floats) -> Floats:
        """The converted values ``[R, O]`` that are ``near`` ``[R, O]`` what is expected, NaN where none is."""
        found = np.full(read.shape, np.nan)
        for scale, zero in zip(self._scale, self._zero, strict=True):
            converted = (read - zero) / scale
            most = np.minimum(near, np.where(zero == 0.0, UNIT_FIT * np.abs(expected), np.inf))
            found = np.where(np.abs(converted - expected) <= most, converted, found)
        return found


def swapped_signals(read: Floats, expected: Floats, near: Floats, turn: Floats, odd: Bools) -> Floats:
    """What two swapped signals of one asset would say in each other's place, ``[R, O]``, NaN where nothing is swapped.

    ``near`` ``[R, O]`` is how far a value may be from ``expected`` and still fit it; ``odd`` ``[R, O]``: what may be
    swapped at all.
    """
    apart = np.abs(read[:, :, None] - expected[:, None, :])  # value k against what is expected of signal l
    apart = np.minimum(apart, np.abs(turn[:, None, :] - apart))
    fits = apart <= near[:, None, :]
    swapped = fits & np.swapaxes(fits, 1, 2) & odd[:, :, None] & odd[:, None, :]
    swapped &= ~np.eye(read.shape[1], dtype=np.bool_)
    # two pairs that share a signal explain nothing
    single = swapped & (swapped.sum(axis=1) == 1)[:, None, :] & (swapped.sum(axis=2) == 1)[:, :, None]
    return np.where(single.any(axis=2), np.take_along_axis(read, single.argmax(axis=2), axis=1), np.nan)


def swapped_assets(read: Floats, expected: Floats, near: Floats, turn: Floats, odd: Bools) -> Floats:
    """What two swapped assets would say in each other's place, ``[R, O]``, NaN where nothing is swapped.

    Two of the rows are swapped where each fits what is expected of the other in all signals, better than it fits
    itself, and at least :data:`DISTINCT_SIGNALS` of them are ``odd`` in both.
    """
    found = np.full(read.shape, np.nan)
    n = len(read)
    if not 2 <= n <= MAX_SWAPPED_ASSETS:
        return found
    apart = np.abs(read[:, None, :] - expected[None, :, :])  # asset i against what is expected of asset j
    apart = np.minimum(apart, np.abs(turn[None, :, :] - apart))
    fits = (apart <= near[None, :, :]).all(axis=2)
    misfit = (apart / near[None, :, :]).sum(axis=2)
    own = np.diagonal(misfit)
    better = misfit + misfit.T < own[:, None] + own[None, :]
    distinct = (odd[:, None, :] & odd[None, :, :]).sum(axis=2) >= DISTINCT_SIGNALS
    swapped = fits & fits.T & better & distinct
    for i in np.flatnonzero(swapped.sum(axis=1) == 1):
        j = int(swapped[i].argmax())
        if swapped[j].sum() == 1:
            found[i] = read[j]
    return found
