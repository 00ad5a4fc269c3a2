"""Does a site's declaration of what is safe hang together, and do all that derive from it agree?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..constraint import Constraint, Declaration, History, Margins, Moment, SafeState, constraints_of
from ..constraint.coherence import faults
from ..nameplate import Nameplate
from .comparison import fail, require

Numbers = dict[str, Any]


def check_declaration(declaration: Declaration, *, n_rows: int = 8, seed: int = 0) -> None:
    """Check a declaration as :func:`~twinloop.envs.constraint.declare` makes it.

    Checks ``coherent``, ``complete``, ``safe_states``, ``arrays``, ``seen``; a breach raises
    :class:`~twinloop.envs.errors.ContractError` with the check's name.
    """
    wrong = faults(declaration.nameplate, _added(declaration), declaration.safe_states)
    require(not wrong, "coherent", "; ".join(wrong))
    _complete(declaration)
    _safe_states(declaration)
    _arrays(declaration, n_rows, np.random.default_rng(seed))
    _seen(declaration)


def _added(declaration: Declaration) -> tuple[Constraint, ...]:
    implied = constraints_of(declaration.nameplate)
    return tuple(c for c in declaration.constraints if c.kind not in ("range", "rate") or c not in implied)


def _complete(declaration: Declaration) -> None:
    names = {c.name for c in declaration.constraints}
    missing = [c.name for c in constraints_of(declaration.nameplate) if c.name not in names]
    require(not missing, "complete", f"{missing} of the nameplate are missing; make declarations with declare()")
    agents = set(declaration.nameplate.agents)
    require(
        declaration.safe_states.keys() == agents,
        "complete",
        f"safe states of {sorted(declaration.safe_states)}, assets {sorted(agents)}; give one an asset",
    )


def _safe_states(declaration: Declaration) -> None:
    """Standing still in the safe state breaks no hard constraint on commands."""
    commands = _safe_commands(declaration)
    margins = Margins(declaration)(_moment(declaration, commands, commands, _middle(declaration.nameplate)))
    hard = {c.name for c in declaration.hard if c.kind not in ("measured", "barrier", "separation")}
    for name in hard & margins.keys():
        least = float(np.min(margins[name]))
        slack = 1e-9 * (1.0 + abs(least))
        require(least >= -slack, "safe_states", f"constraint {name!r} has margin {least:g} at the safe states")


def _arrays(declaration: Declaration, n_rows: int, rng: np.random.Generator) -> None:
    """One row at a time, a batch, and torch tensors give the same margins."""
    plate = declaration.nameplate
    before, commands = _drawn(plate, n_rows, rng), _drawn(plate, n_rows, rng)
    measured = {
        g.name: rng.uniform(g.lower("measured"), g.upper("measured"), (n_rows, g.n_assets, len(g.measured)))
        for g in plate.groups
    }
    compiled = Margins(declaration)
    batch = compiled(_moment(declaration, before, commands, measured))
    tensors = compiled(_moment(declaration, _torch(before), _torch(commands), _torch(measured)))
    for name, margin in batch.items():
        require(
            margin.shape[0] == n_rows and margin.ndim in (1, 2),
            "arrays",
            f"margin of {name!r} is {margin.shape}; it must be [B] or [B, N]",
        )
        if not np.allclose(margin, tensors[name].numpy(), rtol=1e-9, atol=1e-9, equal_nan=True):
            fail("arrays", f"margin of {name!r} differs between numpy and torch")
    for row in range(n_rows):
        parts = ({g: x[row] for g, x in numbers.items()} for numbers in (before, commands, measured))
        for name, margin in compiled(_moment(declaration, *parts)).items():
            if not np.allclose(margin, batch[name][row], rtol=1e-9, atol=1e-9, equal_nan=True):
                fail("arrays", f"margin of {name!r} differs between one site and row {row} of a batch")


def _seen(declaration: Declaration) -> None:
    """A command that leaves a hard range is told, by the constraint's own name."""
    compiled, safe = Margins(declaration), _safe_commands(declaration)
    for c in declaration.hard:
        if c.kind != "range":
            continue
        group = declaration.nameplate.group(c.group)  # type: ignore[union-attr]  # of kind range
        column = group.index("commanded", c.signal)  # type: ignore[union-attr]
        commands = {name: x.copy() for name, x in safe.items()}
        commands[group.name][-1, column] = group.commanded[column].maximum + 1.0
        worst = compiled.worst(_moment(declaration, safe, commands, _middle(declaration.nameplate)))[c.name]
        require(
            worst.margin < 0 and worst.asset == group.assets[-1],
            "seen",
            f"{c.name!r}: a command beyond the range has margin {worst.margin:g} at {worst.asset}",
        )


def _safe_commands(declaration: Declaration) -> Numbers:
    """Commands ``[N, A]`` of the safe states; of ``hold``, neutral."""
    found = {}
    for group in declaration.nameplate.groups:
        states = [declaration.safe_states[f"{group.name}/{asset}"] for asset in group.assets]
        found[group.name] = np.array([s.target(group) or SafeState().target(group) for s in states], dtype=np.float64)
    return found


def _middle(nameplate: Nameplate) -> Numbers:
    return {
        g.name: np.tile((g.lower("measured") + g.upper("measured")) / 2.0, (g.n_assets, 1)) for g in nameplate.groups
    }


def _drawn(nameplate: Nameplate, n_rows: int, rng: np.random.Generator) -> Numbers:
    """Uniform over one and a half times each command's range, levels where it has them."""
    found = {}
    for group in nameplate.groups:
        low, high = group.lower("commanded"), group.upper("commanded")
        reach = (high - low) / 4.0
        values = rng.uniform(low - reach, high + reach, (n_rows, group.n_assets, len(low)))
        for column, signal in enumerate(group.commanded):
            if signal.levels is not None:
                values[..., column] = rng.choice(signal.levels, values.shape[:-1])
        found[group.name] = values
    return found


def _torch(numbers: Numbers) -> Numbers:
    return {name: torch.from_numpy(x) for name, x in numbers.items()}


def _moment(declaration: Declaration, before: Numbers, commands: Numbers, measured: Numbers) -> Moment:
    history = History.start(declaration, before)
    return Moment(before, commands, measured, declaration.nameplate.period_s, history=history)
