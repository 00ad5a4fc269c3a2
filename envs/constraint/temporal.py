"""Requirements on how things go over time, as data: past-time signal temporal logic.

A formula is about the assets of one group, each for itself, or about the whole site. Its *robustness* is a number a
period: by how much the requirement is kept (>= 0) or broken (< 0), in shares of the atoms' scales, so that units
compare (Maler & Nickovic 2004; Donze & Maler 2010). Windows are in seconds, whole periods, and look back only, so that
a monitor knows the answer now::

    Historically(Within("turbine", "power_kw", maximum=2000.0), 30.0)       # never above 2 MW in the last 30 s
    Or(Kept("tip speed"), Once(Within("turbine", "braking_pu", minimum=1.0), 5.0))   # kept, or braked within 5 s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from ..errors import ConfigurationError, nearest
from ..registry import Site
from .declaration import Declaration
from .local import AccelerationConstraint, DwellConstraint, SwitchesConstraint
from .state import LookAheadConstraint


@dataclass(frozen=True)
class Within:
    """``minimum <= signal <= maximum`` in the signal's unit; scale: the signal's span on the nameplate."""

    group: str
    signal: str
    minimum: float | None = None
    maximum: float | None = None
    kind: Literal["measured", "commanded"] = "measured"


@dataclass(frozen=True)
class Kept:
    """The named constraint is kept; scale: as for training costs. Those that look back or ahead can't be named here."""

    constraint: str


@dataclass(frozen=True)
class Not:
    """The opposite."""

    formula: Formula


class _Several:
    def __init__(self, *formulas: Formula) -> None:
        object.__setattr__(self, "formulas", formulas)


@dataclass(frozen=True, init=False)
class And(_Several):
    """All of them."""

    formulas: tuple[Formula, ...]


@dataclass(frozen=True, init=False)
class Or(_Several):
    """At least one of them."""

    formulas: tuple[Formula, ...]


@dataclass(frozen=True)
class Once:
    """At some time between ``most_s`` and ``least_s`` ago."""

    formula: Formula
    most_s: float
    least_s: float = 0.0


@dataclass(frozen=True)
class Historically:
    """At every time between ``most_s`` and ``least_s`` ago."""

    formula: Formula
    most_s: float
    least_s: float = 0.0


@dataclass(frozen=True)
class Since:
    """``began`` was so between ``most_s`` and ``least_s`` ago, and ``holds`` in every period after that until now."""

    holds: Formula
    began: Formula
    most_s: float
    least_s: float = 0.0


Formula = Within | Kept | Not | And | Or | Once | Historically | Since


def parts(formula: Formula) -> tuple[Formula, ...]:
    """The formulas directly inside; none for an atom."""
    match formula:
        case Not() | Once() | Historically():
            return (formula.formula,)
        case And() | Or():
            return formula.formulas
        case Since():
            return (formula.holds, formula.began)
    return ()


def atoms(formula: Formula) -> Iterator[Within | Kept]:
    """The leaves, from left to right."""
    if isinstance(formula, Within | Kept):
        yield formula
    for part in parts(formula):
        yield from atoms(part)


def formula_faults(formula: Formula, declaration: Declaration) -> list[str]:
    """Everything that is wrong with a formula on this site: what came, what is allowed, what to do."""
    found = list(_of_one(formula, declaration))
    for part in parts(formula):
        found += formula_faults(part, declaration)
    return found


def _of_one(formula: Formula, declaration: Declaration) -> Iterator[str]:
    match formula:
        case Within():
            yield from _within(formula, declaration)
        case Kept():
            yield from _kept(formula, declaration)
        case And() | Or():
            if not formula.formulas:
                yield f"{type(formula).__name__}() of nothing; give it at least one formula"
        case Once() | Historically() | Since():
            period_s = declaration.nameplate.period_s
            whole = all(abs(t / period_s - round(t / period_s)) <= 1e-6 for t in (formula.least_s, formula.most_s))
            if not (whole and 0 <= formula.least_s <= formula.most_s):
                yield (
                    f"{type(formula).__name__} from {formula.least_s:g} s to {formula.most_s:g} s ago; give whole "
                    f"periods of {period_s:g} s, the smaller first in time to now, none below 0"
                )


def _within(atom: Within, declaration: Declaration) -> Iterator[str]:
    groups = {g.name: g for g in declaration.nameplate.groups}
    if atom.group not in groups:
        yield f"group {atom.group!r}; groups: {', '.join(groups)}{nearest(atom.group, groups)}"
        return
    signals = {s.name: s for s in getattr(groups[atom.group], atom.kind)}
    if atom.signal not in signals:
        yield f"{atom.kind} signal {atom.signal!r}; there are {', '.join(signals)}{nearest(atom.signal, signals)}"
    if atom.minimum is None and atom.maximum is None:
        yield f"{atom.signal} within no limits; give minimum, maximum or both"
    elif atom.minimum is not None and atom.maximum is not None and atom.minimum > atom.maximum:
        yield f"{atom.signal} within {atom.minimum:g} and {atom.maximum:g}; the minimum is above the maximum"


def _kept(atom: Kept, declaration: Declaration) -> Iterator[str]:
    constraints = {c.name: c for c in declaration.constraints}
    found = constraints.get(atom.constraint)
    if found is None:
        names = ", ".join(constraints)
        yield f"constraint {atom.constraint!r}; declared: {names}{nearest(atom.constraint, constraints)}"
    elif isinstance(found, AccelerationConstraint | DwellConstraint | SwitchesConstraint | LookAheadConstraint):
        yield (
            f"constraint {atom.constraint!r} is of kind {found.kind!r}, which needs more than one moment; the shield "
            "verifies it every period, name another one"
        )


@runtime_checkable
class HasRequirements(Protocol):
    """A site that requires something over time; names are the site's own."""

    def requirements(self, config: Any) -> Mapping[str, Formula]: ...


def requirements_of_site(site: Site, config: Any, declaration: Declaration) -> dict[str, Formula]:
    """What the site requires over time under this configuration; empty for a site that requires nothing.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` with all faults of names, signals and windows, one a line.
    """
    if not isinstance(site, HasRequirements):
        return {}
    found = site.requirements(config)
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"{site.name}.requirements gives {type(found).__name__}; give a mapping from names to formulas"
        )
    complaints = [fault for name, formula in found.items() for fault in _faults(name, formula, declaration)]
    if complaints:
        raise ConfigurationError("\n".join(complaints))
    return dict(found)


def describe_formula(formula: Formula) -> str:
    """In words, for tables."""
    match formula:
        case Within():
            ends = [
                f"{sign} {end:g}" for sign, end in ((">=", formula.minimum), ("<=", formula.maximum)) if end is not None
            ]
            return f"{formula.group}/{formula.signal} {' and '.join(ends)}"
        case Kept():
            return f"{formula.constraint!r} kept"
        case Not():
            return f"not ({describe_formula(formula.formula)})"
        case And() | Or():
            word = " and " if isinstance(formula, And) else " or "
            return word.join(f"({describe_formula(f)})" for f in formula.formulas)
        case Once():
            return f"once {_window(formula)}: ({describe_formula(formula.formula)})"
        case Historically():
            return f"always {_window(formula)}: ({describe_formula(formula.formula)})"
    return f"({describe_formula(formula.holds)}) since {_window(formula)}: ({describe_formula(formula.began)})"


def _window(formula: Once | Historically | Since) -> str:
    least = f"{formula.least_s:g} to " if formula.least_s else ""
    return f"{least}{formula.most_s:g} s ago" if least else f"in the last {formula.most_s:g} s"


def _faults(name: Any, formula: Any, declaration: Declaration) -> list[str]:
    where = f"requirement {name!r}"
    if not isinstance(name, str) or not name.strip():
        return [f"{where}: is no name; give it one in words"]
    if name in {c.name for c in declaration.constraints}:
        return [f"{where}: a constraint has this name already; give it another"]
    odd = _odd(formula)
    if odd:
        return [f"{where}: {odd}"]
    groups = {atom.group for atom in atoms(formula) if isinstance(atom, Within)}
    found = [f"{where}: {fault}" for fault in formula_faults(formula, declaration)]
    if len(groups) > 1:
        found.append(f"{where}: is about the groups {', '.join(sorted(groups))}; write one for each")
    return found


def _odd(formula: Any) -> str:
    """What is no formula in a formula, in words."""
    if not isinstance(formula, get_args(Formula)):
        allowed = ", ".join(kind.__name__ for kind in get_args(Formula))
        return f"{type(formula).__name__} is no formula; give one of {allowed}"
    return next((told for part in parts(formula) if (told := _odd(part))), "")
