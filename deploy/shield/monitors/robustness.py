"""By how much requirements over time are kept: past-time signal temporal logic, online.

Quantitative semantics of Maler & Nickovic (2004) and Donze & Maler (2010): an atom is worth its margin over its scale,
*not* is minus, *and* the minimum, *or* the maximum, *once* a maximum over a window, *historically* a minimum, *since*
the best time in the window from which the left side has held. A window that has not begun yet holds nothing: *once* is
worth minus infinity then, *historically* plus infinity. What is no number counts against the formula, under any number
of negations: the answer is the worst that the missing number allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....envs.constraint import (
    ConflictConstraint,
    Declaration,
    LookAheadConstraint,
    Margins,
    MeasuredConstraint,
    Moment,
    SumConstraint,
    SumRateConstraint,
)
from ....envs.constraint.temporal import (
    And,
    Formula,
    Historically,
    Kept,
    Not,
    Once,
    Or,
    Since,
    Within,
    atoms,
    formula_faults,
)
from ....envs.errors import ConfigurationError
from ..causes import Cause
from .monitor import SITE, Alarms, Memory, Seen
from .windows import Delay, SlidingMaximum

Floats = NDArray[np.float64]


def measured_requirements(declaration: Declaration, window_periods: int) -> dict[str, Formula]:
    """Each hard constraint on something measured, required in each of the last ``window_periods``, by its name."""
    window_s = (window_periods - 1) * declaration.nameplate.period_s
    hard = [c.name for c in declaration.hard if isinstance(c, MeasuredConstraint)]
    return {name: Historically(Kept(name), window_s) for name in hard}


class RobustnessMonitor:
    """Alarms where the robustness of a formula is below 0.

    A formula is about the assets of one group, alarmed one by one, or about the site, alarmed as a whole. Raises
    :class:`ConfigurationError` for a formula that does not fit ``declaration``.
    """

    name = "robustness"

    def __init__(
        self, declaration: Declaration, formulas: Mapping[str, Formula], cause: Cause = Cause.ROBUSTNESS
    ) -> None:
        complaints = [
            f"formula {name!r}: {fault}" for name, f in formulas.items() for fault in formula_faults(f, declaration)
        ]
        if complaints:
            raise ConfigurationError("\n".join(complaints))
        self._cause = cause
        self._groups = declaration.nameplate.groups
        self._period_s = declaration.nameplate.period_s
        named = {a.constraint for f in formulas.values() for a in atoms(f) if isinstance(a, Kept)}
        self._margins = Margins(declaration, named)
        self._compiled = {name: _Formula(name, f, declaration, self._margins) for name, f in formulas.items()}

    def start(self) -> Memory:
        kept: dict[str, NDArray[Any]] = {}
        for formula in self._compiled.values():
            kept |= formula.start()
        for group in self._groups:
            kept[f"before/{group.name}"] = np.full((group.n_assets, len(group.commanded)), np.nan)
        return kept

    def step(self, memory: Memory, seen: Seen) -> tuple[Memory, Alarms]:
        after, found = self.robustness(memory, seen)
        alarms: Alarms = {}
        for name, values in found.items():
            if (values < 0.0).any():
                agents = self._compiled[name].agents
                alarms |= {agents[i]: self._cause for i in np.flatnonzero(values < 0.0)}
        return after, alarms

    def robustness(self, memory: Memory, seen: Seen) -> tuple[Memory, dict[str, Floats]]:
        """The memory after this period, and each formula's robustness: ``[N]``, or ``[1]`` for the whole site."""
        before = {g.name: memory[f"before/{g.name}"] for g in self._groups}
        known = {n: np.where(np.isnan(b), seen.commands[n], b) for n, b in before.items()}
        margins = self._margins(Moment(known, seen.commands, seen.measured, self._period_s))
        after = dict(memory)
        found = {name: formula.step(after, seen, margins) for name, formula in self._compiled.items()}
        after |= {f"before/{n}": np.asarray(c, dtype=np.float64) for n, c in seen.commands.items()}
        return after, found


class _Node(NamedTuple):
    """One operator; ``parts``: the places of what it is made of. ``sign`` -1 turns once into historically."""

    formula: Formula
    parts: tuple[int, ...]
    missing: float
    windows: Mapping[str, SlidingMaximum | Delay]
    sign: float = 1.0


class _Formula:
    """A formula as a list of operators, each after its parts."""

    def __init__(self, name: str, formula: Formula, declaration: Declaration, margins: Margins) -> None:
        self._name = name
        self._plate, self._margins = declaration.nameplate, margins
        about = sorted({g for a in atoms(formula) if (g := _group_of(a, declaration)) is not None})
        if len(about) > 1:
            raise ConfigurationError(
                f"formula {name!r}: is about the groups {', '.join(about)}; write one formula for each, or join them "
                "by a constraint on the whole site"
            )
        group = self._plate.group(about[0]) if about else None
        self.agents = (SITE,) if group is None else tuple(f"{group.name}/{asset}" for asset in group.assets)
        self._nodes: list[_Node] = []
        self._add(formula, -math.inf)

    def start(self) -> dict[str, NDArray[Any]]:
        return {key: a for prefix, w in self._windows() for key, a in _prefixed(prefix, w.start()).items()}

    def step(self, memory: dict[str, NDArray[Any]], seen: Seen, margins: Mapping[str, Any]) -> Floats:
        """Robustness ``[N]`` now; ``memory`` is brought up to date."""
        values: list[Floats] = []
        for place, node in enumerate(self._nodes):
            inside = [values[p] for p in node.parts]
            match node.formula:
                case Within() | Kept():
                    value = self._atom(node, seen, margins)
                case Not():
                    value = -inside[0]
                case And():
                    value = np.minimum.reduce(inside)
                case Or():
                    value = np.maximum.reduce(inside)
                case Once() | Historically():
                    value = node.sign * self._pass(place, node, memory, node.sign * inside[0])
                case Since():
                    value = self._since(place, node, memory, *inside)
            values.append(value)
        return values[-1]

    def _add(self, formula: Formula, missing: float) -> int:
        """Append ``formula`` and its parts; ``missing`` is what a number that is none counts as, by its polarity."""
        inner = -missing if isinstance(formula, Not) else missing
        inside: tuple[int, ...]
        match formula:
            case Not() | Once() | Historically():
                inside = (self._add(formula.formula, inner),)
            case And() | Or():
                inside = tuple(self._add(f, inner) for f in formula.formulas)
            case Since():
                inside = (self._add(formula.holds, inner), self._add(formula.began, inner))
            case _:
                inside = ()
        windows: dict[str, SlidingMaximum | Delay] = {}
        sign = -1.0 if isinstance(formula, Historically) else 1.0
        if isinstance(formula, Once | Historically | Since):
            n, since = len(self.agents), isinstance(formula, Since)
            most, least = (round(t / self._plate.period_s) for t in (formula.most_s, formula.least_s))
            if least:
                windows["delay"] = Delay(least, n)
                if since:
                    windows["held"] = SlidingMaximum(least, n)
            windows["window"] = SlidingMaximum(most - least + 1, n, capped=since)
        self._nodes.append(_Node(formula, inside, missing, windows, sign))
        return len(self._nodes) - 1

    def _atom(self, node: _Node, seen: Seen, margins: Mapping[str, Any]) -> Floats:
        atom = node.formula
        if isinstance(atom, Kept):
            margin = np.asarray(margins[atom.constraint], dtype=np.float64) / self._margins.scale(atom.constraint)
        else:
            assert isinstance(atom, Within)
            group = self._plate.group(atom.group)
            column = group.index(atom.kind, atom.signal)
            signal = getattr(group, atom.kind)[column]
            x = (seen.measured if atom.kind == "measured" else seen.commands)[atom.group][:, column]
            ends = [] if atom.minimum is None else [x - atom.minimum]
            ends += [] if atom.maximum is None else [atom.maximum - x]
            margin = np.minimum.reduce(ends) / (signal.maximum - signal.minimum)
        value = np.where(np.isnan(margin), node.missing, margin)
        return np.broadcast_to(value, (len(self.agents),))

    def _since(self, place: int, node: _Node, memory: dict[str, NDArray[Any]], holds: Floats, began: Floats) -> Floats:
        if "delay" in node.windows:
            began = self._run(place, node, "delay", memory, began)
            # What is old enough to count must have been followed by the left side ever since.
            began = np.minimum(began, -self._run(place, node, "held", memory, -holds))
        return self._run(place, node, "window", memory, began, holds)

    def _pass(self, place: int, node: _Node, memory: dict[str, NDArray[Any]], value: Floats) -> Floats:
        if "delay" in node.windows:
            value = self._run(place, node, "delay", memory, value)
        return self._run(place, node, "window", memory, value)

    def _run(self, place: int, node: _Node, which: str, memory: dict[str, NDArray[Any]], *values: Floats) -> Floats:
        prefix = f"{self._name}/{place}/{which}/"
        kept = {key: memory[prefix + key] for key in node.windows[which].keys}
        after, result = node.windows[which].step(kept, *values)
        memory |= _prefixed(prefix, after)
        return result

    def _windows(self) -> Iterator[tuple[str, SlidingMaximum | Delay]]:
        for place, node in enumerate(self._nodes):
            for which, window in node.windows.items():
                yield f"{self._name}/{place}/{which}/", window


def _prefixed(prefix: str, kept: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {prefix + key: array for key, array in kept.items()}


def _group_of(atom: Within | Kept, declaration: Declaration) -> str | None:
    """The group that an atom speaks of asset by asset; None for what the assets keep together."""
    if isinstance(atom, Within):
        return atom.group
    found = declaration.constraint(atom.constraint)
    if isinstance(found, SumConstraint | SumRateConstraint | ConflictConstraint | LookAheadConstraint):
        return None
    return found.group
