"""The best prototypes on the site's plant, which is not the twin: the same commands, the figures that a plant shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from ...envs.errors import ConfigurationError
from ...envs.plant import Quality, Telemetry
from ...envs.prototype import built_by_site
from ..statistics import Interval
from .configuration import ExploreConfiguration, SignalObjective, Verification
from .evaluation import Evaluator
from .exploration import Candidate, interval
from .objective import Place, over_assets
from .space import Floats

Tell = Callable[[int, int], None]
TODAY = 0
"""The number of the site as it is among the prototypes that are verified; candidates count from 1."""


@dataclass(frozen=True)
class Verified:
    """``figures``: of each objective on the plant over its seeds; None where no plant shows it."""

    number: int
    figures: tuple[Interval | None, ...]


def check_verification(config: ExploreConfiguration, evaluator: Evaluator) -> None:
    """Raise :class:`ConfigurationError` before hours of search for what could not be verified after them."""
    if config.verify is None:
        return
    plant = config.plant_config()
    built_by_site(evaluator.site, config.site, {})
    if config.verify.seeds > 1 and "seed" not in type(plant).model_fields:
        raise ConfigurationError(f"verify.seeds: the plant of site {evaluator.site.name!r} has no seed; give 1")
    if not _shown(evaluator):
        raise ConfigurationError(
            "verify: no objective can be read on a plant, which shows measured signals only; name one of kind signal "
            "that is measured, or leave verify out"
        )


def verify(
    config: ExploreConfiguration, evaluator: Evaluator, candidates: tuple[Candidate, ...], tell: Tell
) -> tuple[Verified, ...]:
    """Run the site as it is and the ``best`` first candidates on the plant.

    Raises :class:`ConfigurationError` for a site that cannot write prototypes down, and
    :class:`~twinloop.envs.errors.PlantError` where a plant is lost.
    """
    wanted = config.verify
    assert wanted is not None  # who calls has looked
    chosen: list[Mapping[str, float]] = [{}, *(c.values for c in candidates[: wanted.best])]
    total = len(chosen) * wanted.seeds
    found = []
    for number, values in enumerate(chosen):
        runs = []
        for seed in range(wanted.seeds):
            runs.append(_run(config, evaluator, wanted, values, seed))
            tell(number * wanted.seeds + seed + 1, total)
        figures = np.array(runs)
        shown = _shown(evaluator)
        found.append(
            Verified(number, tuple(interval(figures[:, k]) if k in shown else None for k in range(figures.shape[1])))
        )
    return tuple(found)


def built(config: ExploreConfiguration, evaluator: Evaluator, values: Mapping[str, float]) -> BaseModel:
    """The site's configuration of a prototype; commands are no part of it."""
    own = {name: values[name] for name in evaluator.space.parameters if name in values}
    return built_by_site(evaluator.site, config.site, own)


def _shown(evaluator: Evaluator) -> set[int]:
    """Objectives that a plant shows, or that need none."""
    measured = set(evaluator.objectives.measured())
    prices = {k for k, o in enumerate(evaluator.objectives.chosen) if o.kind == "price"}
    return measured | prices if measured else set()


def _run(
    config: ExploreConfiguration, evaluator: Evaluator, wanted: Verification, values: Mapping[str, float], seed: int
) -> Floats:
    """``[K]``: means over the periods of one run; NaN for what no plant shows."""
    plant_config: Any = config.plant_config()
    if "seed" in type(plant_config).model_fields:
        plant_config = plant_config.model_copy(update={"seed": plant_config.seed + seed})
    objectives, places = evaluator.objectives, evaluator.objectives.measured()
    row = evaluator.configured.copy()
    for k, name in enumerate(evaluator.space.names):
        row[k] = values.get(name, row[k])
    commands = {g: c[0].double().numpy() for g, c in evaluator.commands(row[None]).items()}
    sums, counts = np.zeros(objectives.n_columns), np.zeros(objectives.n_columns)
    with closing(evaluator.site.plant(built(config, evaluator, values), plant_config)) as plant:
        for period in range(wanted.warm_up_periods + wanted.periods):
            plant.write(commands)
            plant.advance()
            told = plant.read()
            if period < wanted.warm_up_periods:
                continue
            for k, columns in places.items():
                objective = objectives.chosen[k]
                assert isinstance(objective, SignalObjective)  # nothing else has a place
                for column, place in columns:
                    now = _told(told, place, objective.assets)
                    if now is not None:
                        sums[column] += now
                        counts[column] += 1.0
    means = np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
    found: Floats = objectives.finished(means[None])[0]
    for k in range(len(found)):
        price = objectives.price(k, row[None])
        if price is not None:
            found[k] = price[0]
    return found


def _told(told: Telemetry, place: Place, how: str) -> float | None:
    """What a plant says; None where a reading is lost: a period that lacks one is no sample of a sum."""
    rows = slice(None) if place.asset is None else slice(place.asset, place.asset + 1)
    if (told.quality[place.group][rows, place.column] != Quality.GOOD).any():
        return None
    here = torch.from_numpy(np.array(told.values[place.group][rows, place.column]))[None]
    return float(over_assets(here, torch.ones_like(here, dtype=torch.bool), how)[0])
