"""A whole declaration: what the nameplate implies, what the site adds, and where each asset goes when in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from ..nameplate import Nameplate, digest
from .coherence import faults
from .kinds import Constraint, constraints_of
from .local import RangeConstraint, RateConstraint
from .safe_state import SafeState


class Row(NamedTuple):
    """One constraint in words, for tables; ``origin`` is ``nameplate`` or ``site``."""

    name: str
    kind: str
    limit: str
    priority: str
    origin: str


@dataclass(frozen=True)
class Declaration:
    """Made by :func:`declare`, which checks it. ``safe_states`` holds every asset by its name, ``group/asset``."""

    nameplate: Nameplate
    constraints: tuple[Constraint, ...]
    safe_states: Mapping[str, SafeState]

    @property
    def hard(self) -> tuple[Constraint, ...]:
        """Never given up."""
        return tuple(c for c in self.constraints if c.priority is None)

    @property
    def soft(self) -> tuple[Constraint, ...]:
        """In the order in which they are kept, the one kept longest first."""
        ranked = [(c.priority, c) for c in self.constraints if c.priority is not None]
        return tuple(c for _, c in sorted(ranked, key=lambda pair: pair[0]))

    def constraint(self, name: str) -> Constraint:
        """The constraint of that name; raises :class:`ConfigurationError` with those that there are."""
        for c in self.constraints:
            if c.name == name:
                return c
        raise ConfigurationError(f"no constraint {name!r}; declared: {', '.join(c.name for c in self.constraints)}")

    def rows(self) -> tuple[Row, ...]:
        """The table that a person reads: hard constraints as declared, then soft ones in the order they are kept."""
        implied = constraints_of(self.nameplate)
        return tuple(
            Row(
                c.name,
                c.kind,
                self._limit(c),
                "hard" if c.priority is None else f"soft {c.priority}",
                "nameplate" if isinstance(c, RangeConstraint | RateConstraint) and c in implied else "site",
            )
            for c in (*self.hard, *self.soft)
        )

    def _limit(self, c: Constraint) -> str:
        if isinstance(c, RangeConstraint):
            group = self.nameplate.group(c.group)
            levels = group.commanded[group.index("commanded", c.signal)].levels
            if levels is not None:
                return f"{' | '.join(f'{v:g}' for v in levels if c.minimum <= v <= c.maximum)} {c.unit}"
        return c.describe()

    def to_dict(self) -> dict[str, Any]:
        """Nameplate, constraints and safe states as plain data; the order of declaration does not matter."""
        constraints = {
            c.name: {"kind": c.kind, **{f.name: _plain(getattr(c, f.name)) for f in fields(c)}}
            for c in self.constraints
        }
        safe = {name: asdict(state) for name, state in self.safe_states.items()}
        return {"nameplate": self.nameplate.to_dict(), "constraints": constraints, "safe_states": safe}

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_dict`."""
        return digest(self.to_dict())


def declare(
    nameplate: Nameplate,
    constraints: Iterable[Constraint] = (),
    safe_states: Mapping[str, SafeState] | None = None,
) -> Declaration:
    """Join ``constraints`` with what the nameplate implies, and check the whole.

    A hard range or rate takes the place of the nameplate's on the same signal, and may only be tighter. Keys of
    ``safe_states`` are a group or ``group/asset``, the latter first; an asset that is not named goes to neutral.
    Raises :class:`ConfigurationError` with all faults at once, one a line.
    """
    declared, given = tuple(constraints), dict(safe_states or {})
    complaints = faults(nameplate, declared, given)
    if complaints:
        raise ConfigurationError("\n".join(complaints))
    replaced = {c.name for c in declared}
    joined = (*(c for c in constraints_of(nameplate) if c.name not in replaced), *declared)
    states = {
        f"{g.name}/{asset}": given.get(f"{g.name}/{asset}", given.get(g.name, SafeState()))
        for g in nameplate.groups
        for asset in g.assets
    }
    return Declaration(nameplate, joined, states)


def _plain(value: Any) -> Any:
    """A field for the hash: functions by their name, parametrised ones (frozen dataclasses) with their parameters."""
    if not callable(value):
        return value
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    kind = type(value)
    parameters = {f.name: getattr(value, f.name) for f in fields(value)}
    plain = {name: v.tolist() if hasattr(v, "tolist") else _plain(v) for name, v in parameters.items()}
    return [f"{kind.__module__}:{kind.__qualname__}", plain]
