"""What a search may change: dotted keys of a training configuration and the values that each may take.

    learner.lr: {loguniform: [1.0e-5, 1.0e-2]}
    learner.gae_lambda: {uniform: [0.8, 1.0], step: 0.05}
    learner.minibatches: {choice: [4, 8, 16]}
    rollout.steps: {randint: [16, 64], step: 16}       # both ends included

Every value is a hash of (seed, trial, key), never a draw from a generator that is carried along: a trial's
configuration is the same however many trials there are, in whatever order they run, and after any interruption.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.configuration import load_mapping, validate
from ..envs.errors import ConfigurationError, nearest
from .configuration import TrainConfiguration

KINDS = ("choice", "uniform", "loguniform", "randint")
FACTORS = (0.8, 1.2)
"""By which population-based training perturbs a number (Jaderberg et al. 2017, arXiv 1711.09846, section 4)."""
RESAMPLED = 0.25
"""Share of perturbations that draw afresh instead."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Domain:
    """Values of one key: ``choices`` for kind choice; else ``low`` to ``high``, both included, perhaps in ``step``s."""

    kind: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None

    def at(self, share: float) -> Any:
        """The value at ``share``, in [0, 1), of the way through the domain."""
        if self.kind == "choice":
            return self.choices[int(share * len(self.choices))]
        if self.kind == "randint":
            n_values = int((self.high - self.low) / (self.step or 1.0) + 1e-9) + 1
            return int(self.low + (self.step or 1.0) * int(share * n_values))
        if self.kind == "loguniform":
            return self.within(self.low * (self.high / self.low) ** share)
        return self.within(self.low + share * (self.high - self.low))

    def within(self, value: Any) -> Any:
        """The nearest value of the domain to a number."""
        if self.kind == "choice":
            return value
        if self.step is not None or self.kind == "randint":
            step = self.step or 1.0
            most = math.floor((self.high - self.low) / step + 1e-9)
            value = self.low + step * min(max(round((value - self.low) / step), 0), most)
            # 0.1 + 2 * 0.1 is 0.30000000000000004; twelve digits are enough to tell steps apart.
            value = float(f"{value:.12g}")
        value = min(max(value, self.low), self.high)
        return int(value) if self.kind == "randint" else float(value)

    def near(self, value: Any, share: float) -> Any:
        """A value beside ``value``: the choice before or after it, or the number times one of FACTORS."""
        up = share >= 0.5
        if self.kind == "choice":
            at = self.choices.index(value) + (1 if up else -1)
            return self.choices[min(max(at, 0), len(self.choices) - 1)]
        return self.within(value * FACTORS[int(up)])


@dataclass(frozen=True)
class Space:
    """Domains by dotted key, in the file's order."""

    domains: Mapping[str, Domain]

    @staticmethod
    def load(path: Path) -> Space:
        """Read a YAML file; raises ConfigurationError with the key, what came and what is allowed."""
        data = load_mapping(path)
        if not data:
            raise ConfigurationError(
                f"{path}: is empty; name a key and its values: learner.lr: {{choice: [1e-4, 3e-4]}}"
            )
        return Space.of(data, str(path))

    @staticmethod
    def of(data: Mapping[str, Any], where: str) -> Space:
        """The space of a mapping; errors begin with ``where``."""
        return Space({key: _domain(f"{where}: {key}", told) for key, told in data.items()})

    def sample(self, seed: int, trial: int) -> dict[str, Any]:
        """Values of one trial."""
        return {key: domain.at(_share(seed, "sample", trial, key)) for key, domain in self.domains.items()}

    def explore(self, values: Values, seed: int, trial: int, time: float) -> dict[str, Any]:
        """Values beside those of a better trial, for ``trial`` to go on with at ``time``."""
        found: dict[str, Any] = {}
        for key, domain in self.domains.items():
            if _share(seed, "resample", trial, key, time) < RESAMPLED:
                found[key] = domain.at(_share(seed, "resampled", trial, key, time))
            else:
                found[key] = domain.near(values[key], _share(seed, "perturb", trial, key, time))
        return found


def configured(
    base: Mapping[str, Any], values: Values, model: type[TrainConfiguration], where: str
) -> TrainConfiguration:
    """``base``, a configuration's mapping, with ``values`` at their dotted keys, validated by ``model``.

    Raises ConfigurationError, beginning with ``where``, for keys or values that the configuration does not allow.
    """
    data = _copy(base)
    for key, value in values.items():
        *path, last = key.split(".")
        node = data
        for part in path:
            below = node.get(part)
            if below is None:
                below = node[part] = {}
            if not isinstance(below, dict):
                raise ConfigurationError(f"{where}: {key}: {part} is {below!r}, which has no keys; name a key that is")
            node = below
        node[last] = value
    return validate(data, model, where)


def _copy(node: Any) -> Any:
    return {key: _copy(value) for key, value in node.items()} if isinstance(node, Mapping) else node


def _share(*parts: object) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48


def _domain(where: str, told: object) -> Domain:
    form = "give one of {choice: [a, b]}, {uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]}"
    if not isinstance(told, Mapping):
        raise ConfigurationError(f"{where}: {told!r} is no domain; {form}")
    unknown = [key for key in told if key not in (*KINDS, "step")]
    kinds = [key for key in told if key in KINDS]
    if unknown or len(kinds) != 1:
        near = nearest(str(unknown[0]), (*KINDS, "step")) if unknown else ""
        raise ConfigurationError(f"{where}: keys {list(told)}{near}; {form}, numbers with step: as well")
    kind, given, step = kinds[0], told[kinds[0]], told.get("step")
    if kind == "choice":
        if not isinstance(given, list) or not given or step is not None:
            raise ConfigurationError(f"{where}: choice {given!r} must be a list of at least one value, without step")
        return Domain(kind, choices=tuple(given))
    if not (isinstance(given, list) and len(given) == 2 and all(_is_number(x) for x in given) and given[0] < given[1]):
        raise ConfigurationError(f"{where}: {kind} {given!r} must be [low, high], two numbers, low below high")
    low, high = given
    if kind == "loguniform" and low <= 0:
        raise ConfigurationError(f"{where}: loguniform {given!r} must begin above 0; use uniform for a range with 0")
    if step is not None and not (_is_number(step) and 0 < step <= high - low):
        raise ConfigurationError(f"{where}: step {step!r} must be a positive number of at most {high - low}")
    if kind == "randint" and not all(float(x).is_integer() for x in (low, high, step or 1)):
        raise ConfigurationError(f"{where}: randint {given!r}, step {step!r}: must be whole numbers")
    return Domain(kind, low=float(low), high=float(high), step=None if step is None else float(step))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
