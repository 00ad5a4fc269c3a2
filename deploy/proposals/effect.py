"""The effect of a change as it is measured on the plant, where no second plant stands beside it for comparison.

Measured is the sum of one signal over its group, mean over a window of time; subtracted is what the twin forecast for
that window under today's policy. Conditions move meanwhile (the wind), and the forecast moves with them as far as
signals tell that the change does not touch: ``today + slopes · (read - expected)``, the regression of the forecast's
members on those references (control variates, Glasserman 2003, "Monte Carlo Methods in Financial Engineering", 4.1).

What is promised is this very quantity, measured in each member of the ensemble in turn as if it were the plant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from ...envs.configuration import Strict
from ...envs.nameplate import Nameplate
from .proposal import Reference

Floats = NDArray[np.float64]
Arrays = Mapping[str, Floats]


class Window(Strict):
    """What a window's mean is compared with: ``today`` when the references read what is ``expected`` of them."""

    today: float
    expected: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _one_slope_each(self) -> Window:
        if len(self.expected) != len(self.slopes):
            raise ValueError("give one slope for each expected value")
        return self

    def effect(self, mean: float, references: Sequence[float]) -> float:
        """The effect, from means over the window; raises ValueError for another number of references."""
        moved = (k * (r - e) for k, r, e in zip(self.slopes, references, self.expected, strict=True))
        return mean - self.today - sum(moved)


class Meter:
    """Reads a proposal's signal and references from measurements ``[..., N, O]`` a group."""

    def __init__(self, nameplate: Nameplate, signal: str, references: Sequence[Reference]) -> None:
        self._signal = _column(nameplate, signal)
        self._references = [
            (_column(nameplate, r.signal), _rows(nameplate, r.agents), r.origin, r.turn) for r in references
        ]
        groups = [self._signal[0], *(column[0] for column, *_ in self._references)]
        self._needed = {name: np.zeros(nameplate.group(name).n_assets, dtype=np.bool_) for name in groups}
        self._needed[self._signal[0]][:] = True
        for (name, _), rows, *_ in self._references:
            self._needed[name][rows] = True

    def can_read(self, trusted: Mapping[str, NDArray[np.bool_]]) -> bool:
        """Whether all assets that it reads are ``trusted[g]`` ``[N]``."""
        return all(bool(np.asarray(trusted[name])[needed].all()) for name, needed in self._needed.items())

    def __call__(self, values: Arrays) -> Floats:
        """``[..., 1 + R]``: the signal's sum, then the references."""
        group, column = self._signal
        found = [values[group][..., column].sum(-1)]
        for (name, column), rows, origin, turn in self._references:
            read = values[name][..., rows, column]
            found.append((read if not turn else near(read, origin, turn)).mean(-1))
        return np.stack(found, axis=-1)


@dataclass(frozen=True)
class Promise:
    """``windows`` to measure by, and for each of them the interval ``[low, high]`` of the effect and its mean;
    ``surely``: interval of the gain alone in the last window."""

    windows: tuple[Window, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    surely: tuple[float, float]


def promise(today: Floats, proposed: Floats, errors: Floats, levels: Sequence[float]) -> Promise:
    """What the effect will be measured as.

    ``today``, ``proposed``: ``[W, B, 1 + R]``, what a :class:`Meter` would read without error, mean over each window,
    in each member under both policies. ``errors`` ``[W, B, 1 + R]``: of the readings, likewise. ``levels`` ``[W]``: how
    probably each interval holds. With few members, regression on references looks better than it is; the intervals
    are widened by what that costs on average.
    """
    n_windows, n_members = today.shape[:2]
    windows: list[Window] = []
    means, lows, highs = np.zeros((3, n_windows))
    for w in range(n_windows):
        read_today = today[w] + errors[w]
        centre = read_today.mean(0)
        slopes = _slopes(read_today - centre)
        exact = float(today[w, :, 0].mean())
        window = Window(today=exact, expected=tuple(centre[1:].tolist()), slopes=tuple(slopes.tolist()))
        read = proposed[w] + errors[w]
        effects = read[:, 0] - exact - (read[:, 1:] - centre[1:]) @ slopes
        mean = float(effects.mean())
        n_used = int(np.count_nonzero(slopes))
        # Mean and slopes were fitted to the same members, so that their spread is too small by this.
        wider = math.sqrt((n_members + 1.0) / max(n_members - 1.0 - n_used, 1.0))
        windows.append(window)
        means[w], (lows[w], highs[w]) = mean, interval(mean + wider * (effects - mean), levels[w])
    gain = (proposed - today)[-1, :, 0]
    return Promise(
        tuple(windows), tuple(means.tolist()), tuple(lows.tolist()), tuple(highs.tolist()), interval(gain, levels[-1])
    )


def interval(values: Floats, level: float) -> tuple[float, float]:
    """Student's prediction interval: where the next value lies with probability ``level``."""
    n = len(values)
    if n < 2:
        return float(values.mean()), float(values.mean())
    half = _student((1.0 + level) / 2.0, n - 1) * float(values.std(ddof=1)) * math.sqrt(1.0 + 1.0 / n)
    return float(values.mean()) - half, float(values.mean()) + half


def near(angle: Floats, origin: float, turn: float) -> Floats:
    """The same angles within half a turn of ``origin``."""
    return np.asarray(origin + (angle - origin + 0.5 * turn) % turn - 0.5 * turn, dtype=np.float64)


def _slopes(centred: Floats) -> Floats:
    """Least squares of column 0 on the others ``[B, R]``; references that do not vary, or repeat others, get 0."""
    y, x = centred[:, 0], centred[:, 1:]
    scale = x.std(0)
    kept = scale > 1e-12 * (1.0 + np.abs(x).max(0, initial=0.0))
    found = np.zeros(x.shape[1])
    if kept.any():
        found[kept] = np.linalg.lstsq(x[:, kept] / scale[kept], y, rcond=1e-6)[0] / scale[kept]
    return found


def _student(p: float, n: int) -> float:
    """Student's quantile by Hill (1970), "Student's t-quantiles", CACM algorithm 396; right to 1e-3 from n = 10 on."""
    z = _normal(p)
    g1 = (z**3 + z) / 4.0
    g2 = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    g3 = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + g1 / n + g2 / n**2 + g3 / n**3


def _normal(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def _column(nameplate: Nameplate, signal: str) -> tuple[str, int]:
    group, _, name = signal.partition("/")
    return group, nameplate.group(group).index("measured", name)


def _rows(nameplate: Nameplate, agents: Sequence[str]) -> NDArray[np.intp]:
    group = nameplate.group(agents[0].partition("/")[0])
    return np.array([group.assets.index(agent.partition("/")[2]) for agent in agents], dtype=np.intp)
