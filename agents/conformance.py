"""Does a policy keep its contract?

from twinloop.agents.conformance import check_policy

def test_policy_keeps_the_contract():
    check_policy(MyPolicy(nameplate), nameplate)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.conformance.comparison import fail, first, place, require, require_within
from ..envs.conformance.excitation import random_observation, rows_of
from ..envs.nameplate import Nameplate
from ..envs.twin import Observation
from .policy import Commands, Memory, Policy

_CALLS = 4


def check_policy(
    policy: Policy,
    nameplate: Nameplate,
    *,
    n_rows: int = 5,
    seed: int = 0,
    tolerance: float = 1e-6,
    observations: Callable[[int, int], Observation] | None = None,
) -> None:
    """Check a policy against the contract of :class:`~twinloop.agents.policy.Policy`.

    ``observations(n_rows, seed)`` draws what the policy is shown; by default measured signals are uniform in the
    nameplate's ranges, their corners included. ``tolerance``, a share of a command's range, is how far a row in a
    batch may be from the same row alone: matrix products round by batch size.

    Raises :class:`~twinloop.envs.errors.ContractError` at the first breach, with the check, the signal, the row and
    both values.
    """
    lacking = [name for name in vars(Policy) if not name.startswith("_") and not hasattr(policy, name)]
    require(not lacking, "declaration", f"{type(policy).__name__} lacks: {', '.join(lacking)}")
    differences = nameplate.differences(policy.nameplate, interface_only=True)
    require(not differences, "declaration", f"the policy is made for another site: {'; '.join(differences)}")
    _check_start(policy, n_rows)

    variants: list[Callable[[int, int], Observation]] = [observations] if observations is not None else [
        lambda n, s: random_observation(nameplate, n, s),
        lambda n, s: random_observation(nameplate, n, s, absent=True),
        lambda n, s: random_observation(nameplate, n, s, dtype=np.float32),
    ]  # fmt: skip
    for draw in variants:
        calls = [draw(n_rows, seed + k) for k in range(_CALLS)]
        # Who is present, and where it stands, does not change within an episode.
        calls = [Observation(c.measured, calls[0].statics, calls[0].present, c.dt_s) for c in calls]
        want = _run(policy, nameplate, calls)
        _require_close("determinism", nameplate, _run(policy, nameplate, calls), want, "asked again", "at first", 0.0)
        _check_no_state(policy, nameplate, calls, want, [draw(n_rows + 1, seed + 100 + k) for k in range(2)])
        order = np.arange(n_rows)[::-1].copy()
        shuffled = _run(policy, nameplate, [rows_of(c, order) for c in calls], _memory_rows(policy, n_rows, order))
        _require_close(
            "rows", nameplate, shuffled, _rows(want, order), "with the rows in another order", "before", tolerance
        )
        for row in range(n_rows):
            one = np.array([row])
            alone = _run(policy, nameplate, [rows_of(c, one) for c in calls], _memory_rows(policy, n_rows, one))
            _require_close("rows", nameplate, alone, _rows(want, one), f"row {row} alone", "in the batch", tolerance)
        _check_memory_rows(policy, nameplate, calls, want, tolerance)


def _check_start(policy: Policy, n_rows: int) -> None:
    for n in (1, n_rows):
        for name, array in policy.start(n).items():
            require(
                isinstance(array, np.ndarray) and array.ndim >= 1 and len(array) == n,
                "memory",
                f"start({n})[{name!r}] has shape {np.shape(array)}; memory is numpy arrays that lead with one row each",
            )


def _check_no_state(
    policy: Policy,
    nameplate: Nameplate,
    calls: Sequence[Observation],
    want: list[Commands],
    others: Sequence[Observation],
) -> None:
    """Another conversation in between must not show."""
    memory, side = policy.start(len(_present(calls[0]))), policy.start(len(_present(others[0])))
    for number, call in enumerate(calls):
        commands, memory = policy.act(call, memory)
        _require_close(
            "no state", nameplate, [commands], [want[number]], f"call {number} with others in between", "without", 0.0
        )
        _, side = policy.act(others[number % 2], side)


def _check_memory_rows(
    policy: Policy, nameplate: Nameplate, calls: Sequence[Observation], want: list[Commands], tolerance: float
) -> None:
    """A row whose memory is replaced by a new start behaves like new, and the others do not notice."""
    n_rows, half = len(_present(calls[0])), len(calls) // 2
    memory = policy.start(n_rows)
    for call in calls[:half]:
        _, memory = policy.act(call, memory)
    memory = {name: array.copy() for name, array in memory.items()}
    for name, array in policy.start(1).items():
        memory[name][0] = array[0]
    mixed = []
    for call in calls[half:]:
        commands, memory = policy.act(call, memory)
        mixed.append(commands)
    zero, rest = np.array([0]), np.arange(1, n_rows)
    new = _run(policy, nameplate, [rows_of(c, zero) for c in calls[half:]])
    _require_close("memory", nameplate, _rows(mixed, zero), new, "row 0 with its memory restarted", "new", tolerance)
    _require_close(
        "memory",
        nameplate,
        _rows(mixed, rest),
        _rows(want[half:], rest),
        "after row 0 was restarted",
        "before",
        tolerance,
    )


def _memory_rows(policy: Policy, n_rows: int, rows: NDArray[np.int64]) -> Memory:
    """``rows`` of the memory of ``n_rows`` new rows: a policy may tell rows apart, by what travels with them."""
    return {name: array[rows] for name, array in policy.start(n_rows).items()}


def _run(
    policy: Policy, nameplate: Nameplate, calls: Sequence[Observation], memory: Memory | None = None
) -> list[Commands]:
    """Commands of calls in a row, memory handed on; checks shapes, ranges, and that inputs stay as they were."""
    if memory is None:
        memory = policy.start(len(_present(calls[0])))
    found = []
    for number, call in enumerate(calls):
        kept = {name: array.copy() for name, array in memory.items()}
        shown = {
            kind: {g: v.copy() for g, v in getattr(call, kind).items()} for kind in ("measured", "statics", "present")
        }
        commands, after = policy.act(call, memory)
        _require_commands(nameplate, call, commands, f"of call {number}")
        for name, array in memory.items():
            require(
                np.array_equal(array, kept[name], equal_nan=array.dtype.kind == "f"),
                "ownership",
                f"act changed memory {name!r} that it was given; return new arrays",
            )
        for kind, arrays in shown.items():
            for group, array in arrays.items():
                same = np.array_equal(array, getattr(call, kind)[group])
                require(same, "ownership", f"act changed {kind}[{group!r}] of the observation that it was given")
        shapes = {name: array.shape for name, array in after.items()}
        expected = {name: array.shape for name, array in memory.items()}
        require(
            shapes == expected, "memory", f"act returns memory {shapes}, it was given {expected}; keep names and shapes"
        )
        memory = after
        found.append(commands)
    return found


def _require_commands(nameplate: Nameplate, call: Observation, commands: Commands, when: str) -> None:
    names = {g.name for g in nameplate.groups}
    require(
        set(commands) == names,
        "shapes",
        f"commands {when} have groups {sorted(commands)}, the nameplate has {sorted(names)}",
    )
    for group in nameplate.groups:
        values = np.asarray(commands[group.name])
        shape = (*call.present[group.name].shape, len(group.commanded))
        require(values.shape == shape, "shapes", f"commands[{group.name!r}] {when} is {values.shape}, expected {shape}")
        # float32 networks may overshoot a limit by their rounding.
        require_within(
            "range", nameplate, "commanded", group.name, values, call.present[group.name], when=when, slack=1e-6
        )


def _require_close(
    check: str,
    nameplate: Nameplate,
    got: Sequence[Commands],
    want: Sequence[Commands],
    got_is: str,
    want_is: str,
    tolerance: float,
) -> None:
    for a, b in zip(got, want, strict=True):
        for group in nameplate.groups:
            x, y = np.asarray(a[group.name]), np.asarray(b[group.name])
            width = group.upper("commanded") - group.lower("commanded")
            bad = first(~(np.abs(x - y) <= tolerance * width))
            if bad is not None:
                name = place(nameplate, "commanded", group.name, bad[1:])
                fail(check, f"{name} of row {bad[0]}: {got_is} {x[bad]}, {want_is} {y[bad]}")


def _rows(commands: Sequence[Commands], rows: NDArray[np.int64]) -> list[Commands]:
    return [{g: np.asarray(v)[rows] for g, v in each.items()} for each in commands]


def _present(observation: Observation) -> NDArray[Any]:
    return next(iter(observation.present.values()))
