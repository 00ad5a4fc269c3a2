"""Objectives as arrays: what is read of a step, and what prototypes cost to build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError, NameplateError, nearest
from ...envs.nameplate import Group, Nameplate
from .configuration import CostObjective, ExploreConfiguration, PriceObjective, RewardObjective, SignalObjective

if TYPE_CHECKING:
    import torch

    from ...envs.task import Score
    from ...envs.twin import Readings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where a full name stands: ``asset`` None for all assets of the group; ``column`` among signals of ``kind``."""

    group: str
    asset: int | None
    kind: str
    column: int


def find_signal(nameplate: Nameplate, name: str, kinds: Sequence[str], where: str) -> Place:
    """The place of ``group/signal`` or ``group/asset/signal`` among signals of ``kinds``.

    Raises :class:`ConfigurationError`, beginning with ``where``, that names what there is.
    """
    parts = name.split("/")
    if len(parts) not in (2, 3):
        raise ConfigurationError(f"{where}: {name!r}; give group/signal, or group/asset/signal")
    try:
        group = nameplate.group(parts[0])
    except NameplateError as error:
        raise ConfigurationError(f"{where}: {name!r}: {error}") from error
    asset = _asset(group, parts[1], f"{where}: {name!r}") if len(parts) == 3 else None
    there: list[str] = []
    for kind in kinds:
        names = [s.name for s in getattr(group, kind)]
        if parts[-1] in names:
            return Place(group.name, asset, kind, names.index(parts[-1]))
        there += names
    raise ConfigurationError(
        f"{where}: {name!r}: group {group.name!r} has no {' or '.join(kinds)} signal {parts[-1]!r}; it has "
        f"{', '.join(there)}{nearest(parts[-1], there)}"
    )


class Objectives:
    """The objectives of a configuration, in its order: ``K`` of them.

    Raises :class:`ConfigurationError` for signals that the site does not have.
    """

    def __init__(self, config: ExploreConfiguration, nameplate: Nameplate) -> None:
        self.names = tuple(config.objectives)
        self.chosen = tuple(config.objectives.values())
        self._columns = {name: k for k, name in enumerate(config.ranges)}
        self.signs = np.array([-1.0 if o.better == "more" else 1.0 for o in self.chosen])
        self.scales = np.array([getattr(o, "scale", 1.0) for o in self.chosen])
        self._places = {
            k: find_signal(nameplate, o.signal, ("measured", "hidden"), f"objectives.{name}.signal")
            for k, (name, o) in enumerate(config.objectives.items())
            if isinstance(o, SignalObjective)
        }
        self._per = {
            k: find_signal(nameplate, o.per, ("measured", "hidden"), f"objectives.{name}.per")
            for k, (name, o) in enumerate(config.objectives.items())
            if isinstance(o, SignalObjective) and o.per is not None
        }
        self.n_columns = len(self.chosen) + len(self._per)
        """``C``, what is read of a step: each objective, then what some of them are divided by."""
        self.needs_score = any(isinstance(o, RewardObjective | CostObjective) for o in self.chosen)

    def losses(self, figures: Floats) -> Floats:
        """Figures ``[P, K]`` as losses, smaller is better; infinite where there is no number."""
        return np.where(np.isfinite(figures).all(-1, keepdims=True), figures * self.signs, np.inf)

    def finished(self, means: Floats) -> Floats:
        """Figures ``[R, K]`` of means over time ``[R, C]``; NaN where something is divided by nothing."""
        k = len(self.chosen)
        found: Floats = means[:, :k] * self.scales
        for column, j in enumerate(self._per, k):
            below = means[:, column]
            found[:, j] = np.where(below != 0.0, found[:, j] / np.where(below != 0.0, below, 1.0), np.nan)
        return found

    def measured(self) -> dict[int, tuple[tuple[int, Place], ...]]:
        """Objectives that a plant shows too, by their number: the columns to read, and where they are."""
        below = {j: (column, place) for column, (j, place) in enumerate(self._per.items(), len(self.chosen))}
        found = {k: ((k, place), *((below[k],) if k in below else ())) for k, place in self._places.items()}
        return {k: places for k, places in found.items() if all(place.kind == "measured" for _, place in places)}

    def price(self, k: int, values: Floats) -> Floats | None:
        """``[P]``: what prototypes ``[P, D]`` cost to build by objective ``k``; None for one of another kind."""
        o = self.chosen[k]
        if not isinstance(o, PriceObjective):
            return None
        weights = np.zeros(values.shape[1])
        for name, weight in o.of.items():
            weights[self._columns[name]] = weight
        return np.asarray(values @ weights + o.constant)

    def of_step(self, after: Readings, score: Score | None) -> torch.Tensor:
        """``[B, C]`` float64 of one step, not scaled; zero for prices."""
        import torch

        found = []
        for k, o in enumerate(self.chosen):
            if isinstance(o, SignalObjective):
                found.append(_read(after, self._places[k], o.assets))
            elif isinstance(o, RewardObjective) and score is not None:
                rewards = torch.cat([r.double() for r in score.reward.values()], dim=1)
                everybody = torch.cat([after.present[g] for g in score.reward], dim=1)
                found.append(over_assets(rewards, everybody, o.assets))
            elif isinstance(o, CostObjective) and score is not None:
                if o.name not in score.costs:
                    there = ", ".join(score.costs) or "none"
                    raise ConfigurationError(
                        f"objectives: cost {o.name!r}: the task has {there}{nearest(o.name, score.costs)}"
                    )
                cost = score.costs[o.name].double()
                found.append(over_assets(cost, torch.ones_like(cost, dtype=torch.bool), o.assets))
            else:
                found.append(torch.zeros_like(after.time_s, dtype=torch.float64))
        for k, place in self._per.items():
            o = self.chosen[k]
            assert isinstance(o, SignalObjective)  # no other kind has a per
            found.append(_read(after, place, o.assets))
        return torch.stack(found, dim=1)


def _read(after: Readings, place: Place, how: str) -> torch.Tensor:
    table = (after.measured if place.kind == "measured" else after.hidden)[place.group]
    column = table[..., place.column].double()
    if place.asset is not None:
        return column[:, place.asset]
    return over_assets(column, after.present[place.group], how)


def over_assets(column: torch.Tensor, present: torch.Tensor, how: str) -> torch.Tensor:
    """``[B]`` of ``[B, N]``: the sum, mean, max or min over the assets that are present."""
    reduce: Mapping[str, Callable[[], Any]] = {
        "sum": lambda: (column * present).sum(1),
        "mean": lambda: (column * present).sum(1) / present.sum(1).clamp(min=1),
        "max": lambda: column.masked_fill(~present, -np.inf).amax(1),
        "min": lambda: column.masked_fill(~present, np.inf).amin(1),
    }
    found: torch.Tensor = reduce[how]()
    return found


def _asset(group: Group, name: str, where: str) -> int:
    if name not in group.assets:
        raise ConfigurationError(
            f"{where}: group {group.name!r} has no asset {name!r}; it has {', '.join(group.assets)}"
            f"{nearest(name, group.assets)}"
        )
    return group.assets.index(name)
