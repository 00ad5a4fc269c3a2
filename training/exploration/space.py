"""What may be chosen of a site, as arrays: points of the unit cube become values, limits say what may be built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError, nearest
from ...envs.twin import Parameter
from ..tune_space import Domain, Space
from .configuration import ExploreConfiguration, Limit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_SLACK = 1e-9


@dataclass(frozen=True)
class DesignSpace:
    """``D`` numbers to choose, in the order of the configuration's ``ranges``."""

    names: tuple[str, ...]
    domains: tuple[Domain, ...]
    limits: tuple[Limit, ...] = ()

    @staticmethod
    def of(config: ExploreConfiguration) -> DesignSpace:
        """The space of a configuration; whether the site has such parameters is :meth:`check`'s business."""
        domains = Space.of(config.ranges, "ranges").domains
        return DesignSpace(tuple(domains), tuple(domains.values()), config.limits)

    @property
    def n_dimensions(self) -> int:
        return len(self.names)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names that are parameters of the twin; the others are commands."""
        return tuple(name for name in self.names if "/" not in name)

    @property
    def n_levels(self) -> tuple[int | None, ...]:
        """Values that each may take; None where there is no end of them."""
        return tuple(_levels(domain) for domain in self.domains)

    @property
    def is_discrete(self) -> bool:
        """Whether the same values can come twice."""
        return all(n is not None for n in self.n_levels)

    @property
    def n_points(self) -> float:
        """How many different prototypes there are."""
        return math.prod(n or math.inf for n in self.n_levels)

    def values(self, shares: Floats) -> Floats:
        """Values ``[P, D]`` at points ``[P, D]`` of the unit cube, as :meth:`Domain.at` has them one by one."""
        found = [_at(domain, shares[:, k]) for k, domain in enumerate(self.domains)]
        return np.stack(found, axis=1)

    def excess(self, values: Floats) -> Floats:
        """``[P]``: by how much limits are broken, 0 where none is; shares of each limit's own size."""
        total = np.zeros(len(values))
        for limit in self.limits:
            weights = np.array([limit.sum.get(name, 0.0) for name in self.names])
            found = values @ weights
            for bound, sign in ((limit.at_most, 1.0), (limit.at_least, -1.0)):
                if bound is not None:
                    over = np.maximum(0.0, sign * (found - bound)) / max(1.0, abs(bound))
                    total += np.where(over > _SLACK, over, 0.0)
        return total

    def check(self, specs: Sequence[Parameter], site: str) -> None:
        """Raise :class:`ConfigurationError` for a parameter that is not explorable, or a range outside its bounds."""
        open_to = {spec.name: spec for spec in specs if spec.explorable}
        for name, domain in zip(self.names, self.domains, strict=True):
            if "/" in name:
                continue
            if name not in open_to:
                allowed = ", ".join(open_to) or "none at all"
                raise ConfigurationError(
                    f"ranges: {name}: no parameter of site {site!r} that may be explored; there are {allowed}"
                    f"{nearest(name, open_to)}; commands are named group/asset/signal"
                )
            low, high = (min(domain.choices), max(domain.choices)) if domain.choices else (domain.low, domain.high)
            spec = open_to[name]
            if low < spec.minimum or high > spec.maximum:
                raise ConfigurationError(
                    f"ranges: {name}: [{low:g}, {high:g}] {spec.unit}; may be [{spec.minimum:g}, {spec.maximum:g}]"
                )


def _at(domain: Domain, share: Floats) -> Floats:
    if domain.kind == "choice":
        choices = np.array(domain.choices, dtype=np.float64)
        return choices[np.minimum((share * len(choices)).astype(np.int64), len(choices) - 1)]
    levels = _levels(domain)
    if domain.kind == "randint":
        assert levels is not None  # whole numbers have an end
        return domain.low + (domain.step or 1.0) * np.minimum(np.floor(share * levels), levels - 1)
    if domain.kind == "loguniform":
        found = domain.low * (domain.high / domain.low) ** share
    else:
        found = domain.low + share * (domain.high - domain.low)
    if domain.step is not None and levels is not None:
        place = np.clip(np.round((found - domain.low) / domain.step), 0, levels - 1)
        found = np.round(domain.low + domain.step * place, 12)
    return np.clip(found, domain.low, domain.high)


def _levels(domain: Domain) -> int | None:
    if domain.kind == "choice":
        return len(domain.choices)
    if domain.kind == "randint" or domain.step is not None:
        return int((domain.high - domain.low) / (domain.step or 1.0) + _SLACK) + 1
    return None
