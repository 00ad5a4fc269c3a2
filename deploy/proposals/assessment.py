"""Both futures of a change, side by side: what it promises, how near it comes to each limit, and how far the plant may
move before none of that holds any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration
from ...envs.errors import ConfigurationError, nearest
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from ..shield import Shield
from .effect import Meter, Promise, near, promise
from .futures import Commander, Future, RollOut, simulate
from .proposal import LEVEL, Reference

if TYPE_CHECKING:
    from ...envs.estimation.settings import SignalError
    from ..live_twin import LiveTwin

Floats = NDArray[np.float64]

STAGE_LEVEL = 0.99
FEWEST_MEMBERS = 16
_UNTOUCHED = 0.05
_TOLERANCE_SIGMA = 4.0
_ERROR_SEED = 5003


@dataclass(frozen=True)
class RollOutPlan:
    """``stages``: assets (``group/asset``) of each; all times in whole periods."""

    stages: tuple[tuple[str, ...], ...]
    stage_periods: int
    measure_periods: int

    @property
    def n_periods(self) -> int:
        return len(self.stages) * self.stage_periods + self.measure_periods

    @property
    def windows(self) -> tuple[slice, ...]:
        """Periods of each stage, and of the measured time."""
        ends = [k * self.stage_periods for k in range(len(self.stages) + 1)]
        return (*(slice(a, b) for a, b in pairwise(ends)), slice(ends[-1], self.n_periods))


@dataclass(frozen=True)
class Assessment:
    """``measured`` and ``tolerance`` by full name of what the twin is fed with; ``today``: the forecast of the last
    window under today's policy; ``references`` that the promise goes by."""

    promise: Promise
    references: tuple[Reference, ...]
    today: float
    margins: Mapping[str, float]
    measured: Mapping[str, float]
    tolerance: Mapping[str, float]
    n_replicas: int


def assess(
    live: LiveTwin,
    declaration: Declaration,
    accepted: Arrays,
    today: Callable[[], Commander],
    change: Callable[[], Commander],
    plan: RollOutPlan,
    signal: str,
    references: Sequence[Reference] | None = None,
) -> Assessment:
    """Simulate both; ``today`` and ``change`` make a new commander each. ``references`` None: find them.

    Raises :class:`ConfigurationError` for a ``signal`` (``group/signal``) that the twin is not fed with: nobody then
    knows how well it is measured.
    """
    errors = live.settings.signals
    if signal not in errors:
        raise ConfigurationError(
            f"the effect on {signal!r} cannot be promised: the live twin is fed with {', '.join(errors)}, and only of "
            f"those it is known how well they are measured{nearest(signal, errors)}"
        )
    plate = declaration.nameplate
    shield = Shield(declaration)
    with live.replicas() as (twin, readings):
        if twin.n_replicas < FEWEST_MEMBERS:
            raise ConfigurationError(
                f"a live twin of {twin.n_replicas} members promises nothing; give {FEWEST_MEMBERS} or more"
            )
        present = {n: np.asarray(v, dtype=np.float64) for n, v in readings.observation(twin.dt_s).measured.items()}
        as_is = simulate(twin, readings, today(), shield, accepted, plan.n_periods)
    with live.replicas() as (twin, readings):
        rolled = RollOut(plate, today(), change(), plan.stages, plan.stage_periods)
        changed = simulate(twin, readings, rolled, shield, accepted, plan.n_periods)
        n = twin.n_replicas
    if references is None:
        references = _untouched(plate, as_is, changed, present, errors, signal)
    meter = Meter(plate, signal, references)
    without, within = (np.stack([meter(f.measured)[w].mean(0) for w in plan.windows]) for f in (as_is, changed))
    noise = _reading_errors(plate, errors, meter, present, plan)
    found = promise(without, within, noise, (*(STAGE_LEVEL for _ in plan.stages), LEVEL))
    measured, tolerance = _state(plate, errors, present, as_is)
    return Assessment(found, tuple(references), found.windows[-1].today, changed.margins, measured, tolerance, n)


def _untouched(
    plate: Nameplate, as_is: Future, changed: Future, present: Arrays, errors: Mapping[str, SignalError], signal: str
) -> list[Reference]:
    """Of each signal that the twin is fed with, the assets at which the change moves it by next to nothing, against
    what it moves by itself."""
    found = []
    for name, error in errors.items():
        group = plate.group(name.partition("/")[0])
        column = group.index("measured", name.partition("/")[2])
        a, b = (f.measured[group.name][..., column] for f in (as_is, changed))
        declared = group.measured[column]
        turn = declared.maximum - declared.minimum if declared.circular else 0.0
        origin = _centre(present[group.name][..., column], turn) if turn else 0.0
        if turn:
            a, b = near(a, origin, turn), near(b, origin, turn)
        moved = np.sqrt(((b - a) ** 2).mean(axis=(0, 1)))
        itself = np.sqrt(a.std(axis=1).mean(axis=0) ** 2 + error.variance)
        agents = tuple(
            f"{group.name}/{asset}"
            for asset, still in zip(group.assets, moved <= _UNTOUCHED * itself, strict=True)
            if still
        )
        if agents and not (name == signal and len(agents) == group.n_assets):
            found.append(Reference(signal=name, agents=agents, origin=origin, turn=turn))
    return found


def _reading_errors(
    plate: Nameplate, errors: Mapping[str, SignalError], meter: Meter, present: Arrays, plan: RollOutPlan
) -> Floats:
    """``[W, B, 1 + R]``: noise is new each period; error of model fades, and a part of it stays over a roll-out."""
    rng = np.random.default_rng(_ERROR_SEED)
    base = meter(present)
    stays = {g.name: np.zeros_like(present[g.name]) for g in plate.groups}
    for name, error in errors.items():
        group, column = _place(plate, name)
        stays[group][..., column] = (
            math.sqrt(error.stays_pu) * error.model_error * rng.standard_normal(stays[group][..., column].shape)
        )
    found = []
    for window in plan.windows:
        n_periods = window.stop - window.start
        wrong = {name: value.copy() for name, value in stays.items()}
        for name, error in errors.items():
            group, column = _place(plate, name)
            goes = 1.0 - error.stays_pu
            fades = goes * (1.0 + error.lag_pu) / (1.0 - error.lag_pu)  # of a mean, times the periods
            share = math.sqrt((error.noise**2 + min(fades, goes * n_periods) * error.model_error**2) / n_periods)
            wrong[group][..., column] += share * rng.standard_normal(wrong[group][..., column].shape)
        found.append(meter({name: present[name] + value for name, value in wrong.items()}) - base)
    return np.stack(found)


def _state(
    plate: Nameplate, errors: Mapping[str, SignalError], present: Arrays, as_is: Future
) -> tuple[dict[str, float], dict[str, float]]:
    """Where the plant is, and how far from there it may come by itself within the horizon, noise and all."""
    measured, tolerance = {}, {}
    for name, error in errors.items():
        group, column = _place(plate, name)
        declared = plate.group(group).measured[column]
        turn = declared.maximum - declared.minimum if declared.circular else 0.0
        now, later = present[group][..., column], as_is.measured[group][..., column]
        for row, asset in enumerate(plate.group(group).assets):
            centre = _centre(now[:, row], turn)
            ahead = near(later[:, :, row], centre, turn) if turn else later[:, :, row]
            reach = np.sqrt(((ahead - centre) ** 2).mean(axis=1).max() + error.variance)
            full = f"{group}/{asset}/{declared.name}"
            measured[full], tolerance[full] = centre, float(_TOLERANCE_SIGMA * reach)
    return measured, tolerance


def _place(plate: Nameplate, name: str) -> tuple[str, int]:
    group, _, signal = name.partition("/")
    return group, plate.group(group).index("measured", signal)


def _centre(values: Floats, turn: float) -> float:
    if not turn:
        return float(values.mean())
    first = float(values.flat[0])
    return float(near(values, first, turn).mean() % turn)
