"""Prototypes run on the batch axis: a row is one prototype under one seed.

All prototypes of a call meet the same seeds (common random numbers): what differs between them is the design, and their
differences are known better than their figures.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.prototype import Prototyped, twin_of_prototypes
from ...envs.registry import Site, load_site
from ...envs.twin import Twin
from .configuration import ExploreConfiguration
from .objective import Objectives, Place, find_signal
from .space import Bools, DesignSpace, Floats


@dataclass(frozen=True)
class Rows:
    """A share of the work, sent to one process: values ``[R, D]``, seeds ``[R]``; the first ``warm_up`` periods of each
    do not count."""

    values: Floats
    seeds: NDArray[np.int64]
    periods: int
    warm_up: int


@dataclass(frozen=True)
class Figures:
    """``of``: ``[R, K]``, the mean over periods of each objective; ``cpu_s`` that it took."""

    of: Floats
    cpu_s: float


class Evaluator:
    """Runs rows of prototypes of one configuration; makes a twin at the first call, and keeps it.

    Raises :class:`ConfigurationError` when it is made, for ranges, commands and objectives that the site lacks.
    """

    def __init__(self, config: ExploreConfiguration) -> None:
        self.config = config
        self.space = DesignSpace.of(config)
        self.site: Site = load_site(config.site_kind)
        self.nameplate: Nameplate = self.site.nameplate(config.site)
        self.objectives = Objectives(config, self.nameplate)
        self._held = [(find_command(self.nameplate, n, "commands"), v) for n, v in config.commands.items()]
        self._chosen = {
            k: find_command(self.nameplate, name, "ranges")
            for k, name in enumerate(self.space.names)
            if name not in self.space.parameters
        }
        self._twin: Twin | None = None
        probe = self._twin_of(1)
        self.space.check(probe.parameter_specs, self.site.name)
        own = probe.parameters()
        self.configured: Floats = np.array([self._configured(k, own) for k in range(self.space.n_dimensions)])
        """``[D]``: the site as it is."""
        self._task: Any = None
        if config.task is not None:
            self._task = self.site.task(config.task.name, config.site, config.task.options)

    def feasible(self, values: Floats) -> Bools:
        """``[P]`` bool: what limits allow and the site says could be built."""
        allowed = self.space.excess(values) == 0.0
        chosen = self._parameters(values)
        if isinstance(self.site, Prototyped) and chosen and len(values):
            allowed = allowed & self.site.feasible(self.config.site, chosen).numpy(force=True)
        return np.asarray(allowed)

    def run(self, rows: Rows) -> Figures:
        """Run them all, as many at a time as the configuration's ``replicas``."""
        began = time.process_time()
        width = self.config.replicas
        parts = [
            self._batch(Rows(rows.values[a : a + width], rows.seeds[a : a + width], rows.periods, rows.warm_up))
            for a in range(0, len(rows.values), width)
        ]
        shape = (0, len(self.objectives.names))
        return Figures(np.concatenate(parts) if parts else np.zeros(shape), time.process_time() - began)

    def _batch(self, rows: Rows) -> Floats:
        count = len(rows.values)
        twin = self._twin_of(count)
        missing = twin.n_replicas - count  # rows that fill up a twin which is there
        values = np.concatenate((rows.values, np.repeat(rows.values[-1:], missing, axis=0)))
        seeds = np.concatenate((rows.seeds, np.repeat(rows.seeds[-1:], missing)))
        with torch.inference_mode():
            parameters = self._parameters(values)
            if parameters:
                twin.set_parameters(parameters)
            before = twin.reset(torch.from_numpy(seeds).to(twin.device))
            commands = {g: c.to(twin.device, twin.dtype) for g, c in self.commands(values).items()}
            total = torch.zeros(twin.n_replicas, self.objectives.n_columns, dtype=torch.float64, device=twin.device)
            for period in range(rows.warm_up + rows.periods):
                after = twin.step(commands)
                if period >= rows.warm_up:
                    score = self._task.score(before, commands, after) if self.objectives.needs_score else None
                    total += self.objectives.of_step(after, score)
                before = after
        found = self.objectives.finished(total.numpy(force=True)[:count] / rows.periods)
        for k in range(found.shape[1]):
            price = self.objectives.price(k, rows.values)
            if price is not None:
                found[:, k] = price
        return found

    def commands(self, values: Floats) -> dict[str, torch.Tensor]:
        """``[B, N, A]`` per group for prototypes ``[B, D]``, float64: neutral, or what is held, or what was chosen."""
        found = {
            g.name: torch.tensor(g.neutral()).expand(len(values), g.n_assets, -1).clone() for g in self.nameplate.groups
        }
        chosen = [(place, torch.from_numpy(values[:, k])) for k, place in self._chosen.items()]
        for place, value in [*self._held, *chosen]:
            rows = slice(None) if place.asset is None else slice(place.asset, place.asset + 1)
            given = torch.as_tensor(value, dtype=torch.float64)
            found[place.group][:, rows, place.column] = given[:, None] if given.dim() else given
        return found

    def _parameters(self, values: Floats) -> dict[str, torch.Tensor]:
        wanted = self.space.parameters
        columns = ((name, k) for k, name in enumerate(self.space.names) if name in wanted)
        return {name: torch.from_numpy(np.ascontiguousarray(values[:, k])) for name, k in columns}

    def _configured(self, k: int, own: dict[str, torch.Tensor]) -> float:
        name = self.space.names[k]
        if name in own:
            return float(own[name][0])
        place = self._chosen[k]
        return float(self.nameplate.group(place.group).neutral()[place.column])

    def _twin_of(self, rows: int) -> Twin:
        """A twin of at least ``rows`` replicas that is there, or a new one: small calls get small ones."""
        wide = self.config.replicas
        if self._twin is None or not rows <= self._twin.n_replicas <= 2 * max(rows, 32):
            width = min(wide, rows) if rows < wide else wide
            dtype = getattr(torch, self.config.dtype)
            self._twin = twin_of_prototypes(self.site, self.config.site, width, self.config.device, dtype)
        return self._twin


def find_command(nameplate: Nameplate, name: str, where: str) -> Place:
    """The place of a command; raises :class:`ConfigurationError` that names what there is."""
    return find_signal(nameplate, name, ("commanded",), where)
