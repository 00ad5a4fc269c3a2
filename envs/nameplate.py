"""What a site is, declared once.

A :class:`Nameplate` holds groups of like assets; each group has *statics* (constants of an asset, such
as its position), *measured* signals (they exist on the plant, policies may see them), *hidden* signals
(they exist in the twin only, reward and critic may see them) and *commanded* signals. Spaces,
normalisation, agent names, limits, addresses and the hash that ties a policy to a site derive from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NameplateError

FloatArray = NDArray[np.float64]

_SIGNALS = ("measured", "commanded", "hidden", "statics")


@dataclass(frozen=True)
class Signal:
    """One quantity of an asset.

    ``minimum`` and ``maximum`` are in ``unit``. For a commanded signal, ``neutral`` is the value that
    hands the asset back to its own controller, ``rate_limit_per_s`` is in ``unit`` per second, and
    ``levels`` lists the allowed values of a discrete command. ``tag`` is the address part used by
    protocol servers, ``circular`` marks angles that wrap at ``maximum``. A description such as "0 off, 1 on"
    names levels (:mod:`.level_names`), which people then read. ``relayed``: a message of another asset, which may be
    lost for a while and then say something far off; no hash knows of it, for it is nothing to a policy.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    description: str = ""
    tag: str = ""
    neutral: float = 0.0
    rate_limit_per_s: float | None = None
    levels: tuple[float, ...] | None = None
    circular: bool = False
    relayed: bool = False

    def __post_init__(self) -> None:
        where = f"signal {self.name!r}"
        if not self.name.isidentifier():
            raise NameplateError(f"{where}: a name is a Python identifier such as 'yaw_deg'")
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum)):
            raise NameplateError(f"{where}: range [{self.minimum}, {self.maximum}] must be finite")
        if self.minimum >= self.maximum:
            raise NameplateError(
                f"{where}: minimum {self.minimum} is not below maximum {self.maximum}; swap or widen them"
            )
        if self.rate_limit_per_s is not None and not 0 < self.rate_limit_per_s < math.inf:
            raise NameplateError(f"{where}: rate_limit_per_s {self.rate_limit_per_s} must be positive, or absent")
        if self.levels is not None and not self.levels:
            raise NameplateError(f"{where}: levels () are empty; list the allowed values, or leave levels absent")
        if self.levels is not None and not all(self.minimum <= v <= self.maximum for v in self.levels):
            raise NameplateError(f"{where}: levels {self.levels} leave the range [{self.minimum}, {self.maximum}]")


@dataclass(frozen=True)
class Group:
    """Like assets with the same signals.

    ``static_values`` has one row an asset and one column a static, ``[N, S]``, as nested tuples; it is empty where
    statics differ from replica to replica (a twin of many layouts).
    """

    name: str
    assets: tuple[str, ...]
    measured: tuple[Signal, ...]
    commanded: tuple[Signal, ...]
    hidden: tuple[Signal, ...] = ()
    statics: tuple[Signal, ...] = ()
    static_values: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        where = f"group {self.name!r}"
        if not self.name or "/" in self.name:
            raise NameplateError(f"{where}: a group's name is a part of 'group/asset/signal', without '/'")
        if not self.assets:
            raise NameplateError(f"{where}: needs at least one asset")
        for asset in self.assets:
            if not asset or "/" in asset:
                raise NameplateError(f"{where}: asset {asset!r}: a name is a part of 'group/asset/signal', without '/'")
        if len(set(self.assets)) != len(self.assets):
            raise NameplateError(f"{where}: asset names repeat; give each asset its own name")
        for kind in ("measured", "commanded", "hidden", "statics"):
            names = [s.name for s in getattr(self, kind)]
            if len(set(names)) != len(names):
                raise NameplateError(f"{where}: {kind} names repeat: {names}")
        for s in self.commanded:
            if not s.minimum <= s.neutral <= s.maximum:
                raise NameplateError(
                    f"{where}: commanded {s.name!r}: neutral {s.neutral} leaves the range [{s.minimum}, {s.maximum}]"
                )
        if self.static_values:
            self._check_statics(where)

    def _check_statics(self, where: str) -> None:
        shape = (len(self.static_values), *{len(row) for row in self.static_values})
        if shape != (len(self.assets), len(self.statics)):
            raise NameplateError(
                f"{where}: static_values is {shape}, expected {(len(self.assets), len(self.statics))} (assets, statics)"
            )
        for asset, row in zip(self.assets, self.static_values, strict=True):
            for s, value in zip(self.statics, row, strict=True):
                if not s.minimum <= value <= s.maximum:
                    raise NameplateError(
                        f"{where}: static_values of {asset!r}: {s.name} {value} leaves [{s.minimum}, {s.maximum}]"
                    )

    @property
    def n_assets(self) -> int:
        return len(self.assets)

    def index(self, kind: str, name: str) -> int:
        """Column of a signal: ``group.index("measured", "power_kw")``."""
        signals: tuple[Signal, ...] = getattr(self, kind)
        for column, signal in enumerate(signals):
            if signal.name == name:
                return column
        raise NameplateError(f"group {self.name!r} has no {kind} signal {name!r}; it has {[s.name for s in signals]}")

    def lower(self, kind: str) -> FloatArray:
        """Minimum of each signal of a kind, ``[signals]``."""
        return np.array([s.minimum for s in getattr(self, kind)], dtype=np.float64)

    def upper(self, kind: str) -> FloatArray:
        """Maximum of each signal of a kind, ``[signals]``."""
        return np.array([s.maximum for s in getattr(self, kind)], dtype=np.float64)

    def neutral(self) -> FloatArray:
        """Neutral command, ``[A]``."""
        return np.array([s.neutral for s in self.commanded], dtype=np.float64)

    def statics_array(self) -> FloatArray:
        """Constants of the assets, ``[N, S]``."""
        if self.statics and not self.static_values:
            raise NameplateError(f"group {self.name!r}: statics differ per replica; take them from the readings")
        return np.array(self.static_values, dtype=np.float64).reshape(self.n_assets, len(self.statics))


@dataclass(frozen=True)
class Nameplate:
    """A site: its name, what it is for, its groups, and its control period in seconds."""

    site: str
    period_s: float
    groups: tuple[Group, ...]
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [g.name for g in self.groups]
        if not names:
            raise NameplateError(f"site {self.site!r}: needs at least one group")
        if len(set(names)) != len(names):
            raise NameplateError(f"site {self.site!r}: group names repeat: {names}")
        if not (math.isfinite(self.period_s) and self.period_s > 0):
            raise NameplateError(f"site {self.site!r}: period_s {self.period_s} must be a positive number of seconds")

    def group(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise NameplateError(f"site {self.site!r} has no group {name!r}; it has {[g.name for g in self.groups]}")

    @property
    def agents(self) -> tuple[str, ...]:
        """PettingZoo agent names, ``group/asset``, in the order of the arrays."""
        return tuple(f"{g.name}/{a}" for g in self.groups for a in g.assets)

    def signal_names(self, kind: str) -> tuple[str, ...]:
        """Full names ``group/asset/signal`` of a kind of signal."""
        return tuple(f"{g.name}/{a}/{s.name}" for g in self.groups for a in g.assets for s in getattr(g, kind))

    def to_dict(self) -> dict[str, Any]:
        told = asdict(self)
        for group in told["groups"]:
            for kind in _SIGNALS:
                group[kind] = tuple(s if s["relayed"] else _as_hashed(s) for s in group[kind])
        return told

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Nameplate:
        """Inverse of :meth:`to_dict`; accepts the lists that JSON makes of tuples.

        Raises :class:`NameplateError` for data that is no nameplate.
        """

        def signals(rows: list[dict[str, Any]]) -> tuple[Signal, ...]:
            return tuple(Signal(**{**r, "levels": tuple(r["levels"]) if r.get("levels") else None}) for r in rows)

        try:
            return Nameplate(
                site=data["site"],
                period_s=data["period_s"],
                description=data.get("description", ""),
                labels=dict(data.get("labels", {})),
                groups=tuple(
                    Group(
                        name=g["name"],
                        assets=tuple(g["assets"]),
                        measured=signals(g["measured"]),
                        commanded=signals(g["commanded"]),
                        hidden=signals(g["hidden"]),
                        statics=signals(g["statics"]),
                        static_values=tuple(tuple(float(v) for v in row) for row in g["static_values"]),
                    )
                    for g in data["groups"]
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise NameplateError(f"not a nameplate: {type(error).__name__} {error}; write it with to_dict") from error

    @property
    def hash(self) -> str:
        """SHA-256 of the whole declaration: ties a policy to one site."""
        told = self.to_dict()
        for group in told["groups"]:
            group.update({kind: tuple(map(_as_hashed, group[kind])) for kind in _SIGNALS})
        return digest(told)

    @property
    def interface_hash(self) -> str:
        """SHA-256 of the signals alone: equal for sites that a transferable policy can serve."""
        keys = ("measured", "commanded", "statics")
        return digest(
            [
                {"name": g.name, **{k: tuple(_as_hashed(asdict(s)) for s in getattr(g, k)) for k in keys}}
                for g in self.groups
            ]
        )

    def differences(self, other: Nameplate, *, interface_only: bool = False) -> list[str]:
        """Say in words where ``other`` disagrees with this nameplate; empty when it does not."""
        found: list[str] = []
        ours, theirs = {g.name: g for g in self.groups}, {g.name: g for g in other.groups}
        found += [f"{n}: missing group" for n in ours.keys() - theirs.keys()]
        found += [f"{n}: unexpected group" for n in theirs.keys() - ours.keys()]
        for name in sorted(ours.keys() & theirs.keys()):
            a, b = ours[name], theirs[name]
            for kind in ("measured", "commanded", "statics"):
                found += _signal_differences(name, kind, getattr(a, kind), getattr(b, kind))
            if interface_only:
                continue
            if a.assets != b.assets:
                found.append(f"{name}: assets {list(a.assets)} here, {list(b.assets)} there")
            elif a.static_values != b.static_values:
                moved = [
                    asset for asset, p, q in zip(a.assets, a.static_values, b.static_values, strict=True) if p != q
                ]
                found.append(f"{name}: statics differ for {', '.join(moved)}")
        if not interface_only:
            if self.site != other.site:
                found.append(f"site: {self.site!r} here, {other.site!r} there")
            if self.period_s != other.period_s:
                found.append(f"period_s: {self.period_s} here, {other.period_s} there")
        return found


def _signal_differences(group: str, kind: str, ours: tuple[Signal, ...], theirs: tuple[Signal, ...]) -> list[str]:
    a, b = {s.name: s for s in ours}, {s.name: s for s in theirs}
    found = [f"{group}/{n}: missing {kind} signal" for n in a if n not in b]
    found += [f"{group}/{n}: unexpected {kind} signal" for n in b if n not in a]
    for name in (n for n in a if n in b):
        for key, value in asdict(a[name]).items():
            there = asdict(b[name])[key]
            if key not in ("description", "tag", "relayed") and value != there:
                found.append(f"{group}/{name}: {key} {value!r} here, {there!r} there")
    if not found and [s.name for s in ours] != [s.name for s in theirs]:
        found.append(f"{group}: {kind} signals stand in another order")
    return found


def _as_hashed(signal: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in signal.items() if key != "relayed"}


def digest(data: object) -> str:
    """SHA-256 of plain data; equal numbers count as equal, whether 1 or 1.0."""
    return hashlib.sha256(json.dumps(_canonical(data), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _canonical(data: Any) -> Any:
    """Write equal numbers alike, 1 as 1.0 and -0.0 as 0.0, so that equal nameplates have one hash."""
    if isinstance(data, Mapping):
        return {key: _canonical(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_canonical(value) for value in data]
    return float(data) + 0.0 if isinstance(data, int | float) and not isinstance(data, bool) else data
