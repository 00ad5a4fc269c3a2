"""Which prototypes to run next: samples of the whole space, CMA-ES, or Optuna. They ask, and are told what came.

Losses ``[P, K]``: smaller is better; ``excess`` ``[P]`` above 0 is a prototype that could not be built, by how far, and
was not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from ...envs.errors import MissingExtraError
from ..tune_space import Domain
from .configuration import CmaSearch, ExploreConfiguration, OptunaSearch, SampleSearch
from .space import Bools, DesignSpace, Floats

Fits = Callable[[Floats], Bools]
"""``[P]`` bool of values ``[P, D]``: what may be built."""
_TRIES = 64
_INFEASIBLE = 1e12
_AUGMENT = 0.05


class Search(Protocol):
    """``ask``: values ``[P, D]``, or None at the end; each is followed by ``tell``."""

    def ask(self) -> Floats | None: ...
    def tell(self, values: Floats, losses: Floats, excess: Floats) -> None: ...


def make_search(config: ExploreConfiguration, space: DesignSpace, fits: Fits) -> Search:
    """The search of a configuration; raises :class:`MissingExtraError` where its package is not installed."""
    chosen = config.search
    if isinstance(chosen, SampleSearch):
        return Sampled(chosen, space, config.seed, fits)
    package = "cma" if isinstance(chosen, CmaSearch) else "optuna"
    if find_spec(package) is None:
        raise MissingExtraError(package, "explore", f"search.kind {chosen.kind}")
    if isinstance(chosen, CmaSearch):
        return Covariances(chosen, space, len(config.objectives), config.seed)
    return Optunas(chosen, space, len(config.objectives), config.seed)


class Sampled:
    """All prototypes at once, each different from the others and fit to be built; fewer where there are no more."""

    def __init__(self, settings: SampleSearch, space: DesignSpace, seed: int, fits: Fits) -> None:
        self._settings, self._space, self._seed, self._fits = settings, space, seed, fits
        self._asked = False

    def ask(self) -> Floats | None:
        if self._asked:
            return None
        self._asked = True
        draw, wanted = self._drawer(), self._settings.prototypes
        found = np.zeros((0, self._space.n_dimensions))
        for _ in range(_TRIES):
            values = self._space.values(draw(wanted - len(found)))
            found = np.concatenate((found, values[self._fits(values)]))
            if self._space.is_discrete:
                found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
            if len(found) >= wanted or len(found) == self._space.n_points:
                break
        return found[:wanted]

    def tell(self, values: Floats, losses: Floats, excess: Floats) -> None:
        """Nothing is learned."""

    def _drawer(self) -> Callable[[int], Floats]:
        d = self._space.n_dimensions
        if self._settings.kind == "random":
            rng = np.random.default_rng(self._seed)
            return lambda n: rng.random((max(n, 64), d))
        from scipy.stats import qmc

        points = qmc.Sobol(d, scramble=True, rng=np.random.default_rng(self._seed))

        def block(n: int) -> Floats:
            # Powers of two are what the sequence fills evenly; after the first block any of them does.
            return np.asarray(points.random(2 ** math.ceil(math.log2(max(n, 64)))), dtype=np.float64)

        return block


@dataclass
class _Instance:
    strategy: Any
    weights: Floats
    points: list[Floats]


class Covariances:
    """CMA-ES in the unit cube, several instances with weights of their own; one that has converged starts elsewhere."""

    def __init__(self, settings: CmaSearch, space: DesignSpace, n_objectives: int, seed: int) -> None:
        self._settings, self._space = settings, space
        self._rng = np.random.default_rng(seed)
        self._left = settings.generations
        weights = _weights(settings.instances, n_objectives, self._rng)
        self._instances = [_Instance(self._start(), w, []) for w in weights]
        self._low, self._high = np.full(n_objectives, np.inf), np.full(n_objectives, -np.inf)

    def ask(self) -> Floats | None:
        if not self._left:
            return None
        self._left -= 1
        for instance in self._instances:
            if instance.strategy.stop():
                instance.strategy = self._start()
            instance.points = [np.asarray(p, dtype=np.float64) for p in instance.strategy.ask()]
        points = np.clip(np.concatenate([i.points for i in self._instances]), 0.0, 1.0)
        return self._space.values(points)

    def tell(self, values: Floats, losses: Floats, excess: Floats) -> None:
        usable: Bools = np.asarray(np.isfinite(losses).all(1))
        if usable.any():
            self._low = np.minimum(self._low, losses[usable].min(0))
            self._high = np.maximum(self._high, losses[usable].max(0))
        spread = np.where(self._high > self._low, self._high - self._low, 1.0)
        n = self._settings.population
        for k, instance in enumerate(self._instances):
            mine = np.arange(k * n, (k + 1) * n)
            fitness = _INFEASIBLE * (1.0 + excess[mine])
            ran = usable[mine]
            weighted = (losses[mine[ran]] - self._low) / spread * instance.weights
            fitness[ran] = weighted.max(1) + _AUGMENT * weighted.sum(1)
            instance.strategy.tell(instance.points, fitness.tolist())

    def _start(self) -> Any:
        import cma

        # Steps smaller than what tells two values apart would find a plateau everywhere.
        least = [0.3 / n if n else 0.0 for n in self._space.n_levels]
        options = {
            "popsize": self._settings.population,
            "bounds": [0.0, 1.0],
            "minstd": least,
            "verbose": -9,
            "randn": lambda *shape: self._rng.standard_normal(shape),
            "seed": math.nan,  # leaves numpy's global generator alone
        }
        return cma.CMAEvolutionStrategy(self._rng.random(self._space.n_dimensions), self._settings.sigma, options)


class Optunas:
    """One study of Optuna, asked for a population at a time."""

    def __init__(self, settings: OptunaSearch, space: DesignSpace, n_objectives: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log a line for each prototype
        sampler: Any
        if settings.sampler == "tpe":
            sampler = optuna.samplers.TPESampler(seed=seed)
        else:
            sampler = optuna.samplers.NSGAIISampler(population_size=max(2, settings.population), seed=seed)
        self._study = optuna.create_study(directions=["minimize"] * n_objectives, sampler=sampler)
        self._distributions = {
            name: _distribution(domain) for name, domain in zip(space.names, space.domains, strict=True)
        }
        self._settings, self._left = settings, settings.generations
        self._trials: list[Any] = []
        self._low, self._worst = np.full(n_objectives, np.inf), np.full(n_objectives, -np.inf)

    def ask(self) -> Floats | None:
        if not self._left:
            return None
        self._left -= 1
        self._trials = [self._study.ask(self._distributions) for _ in range(self._settings.population)]
        return np.array([[float(t.params[name]) for name in self._distributions] for t in self._trials])

    def tell(self, values: Floats, losses: Floats, excess: Floats) -> None:
        usable = losses[np.isfinite(losses).all(1)]
        if len(usable):
            self._low = np.minimum(self._low, usable.min(0))
            self._worst = np.maximum(self._worst, usable.max(0))
        known = bool(np.isfinite(self._worst).all())
        worst = self._worst if known else np.zeros_like(self._worst)
        spread = self._worst - self._low if known else np.ones_like(self._worst)
        for trial, loss, over in zip(self._trials, losses, excess, strict=True):
            bad = worst + np.maximum(spread, 1.0) * (1.0 + over)
            self._study.tell(trial, [float(x) for x in (loss if np.isfinite(loss).all() else bad)])


def _weights(n: int, n_objectives: int, rng: np.random.Generator) -> Floats:
    """``[n, K]``: evenly along the line of two objectives; the corners first, then at random, for more."""
    if n_objectives == 1:
        return np.ones((n, 1))
    if n_objectives == 2:
        first = np.linspace(0.02, 0.98, n) if n > 1 else np.array([0.5])
        return np.stack((first, 1.0 - first), axis=1)
    corners = np.full((n_objectives, n_objectives), 0.02) + 0.98 * np.eye(n_objectives)
    inner = rng.dirichlet(np.ones(n_objectives), max(0, n - n_objectives))
    return np.concatenate((corners, inner))[:n]


def _distribution(domain: Domain) -> Any:
    from optuna import distributions as d

    if domain.kind == "choice":
        return d.CategoricalDistribution(domain.choices)
    if domain.kind == "randint":
        step = int(domain.step or 1)
        most = int(domain.low) + step * int((domain.high - domain.low) / step)
        return d.IntDistribution(int(domain.low), most, step=step)
    if domain.step is not None:
        most_steps = math.floor((domain.high - domain.low) / domain.step + 1e-9)
        return d.FloatDistribution(domain.low, domain.low + most_steps * domain.step, step=domain.step)
    return d.FloatDistribution(domain.low, domain.high, log=domain.kind == "loguniform")
