"""Discrete shields checked exhaustively: in every product state the moves let through are the legal ones, no others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from twinloop.deploy.shield.command_memory import CommandMemory
from twinloop.deploy.shield.compiled import flat_commands
from twinloop.deploy.shield.local import LocalLimits
from twinloop.envs.constraint import (
    ConflictConstraint,
    Constraint,
    DwellConstraint,
    History,
    Margins,
    Moment,
    SwitchesConstraint,
    TransitionConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal

DT_S = 600.0
ASSETS = ("A0", "A1", "A2")
LEVELS = (0.0, 1.0, 2.0)
PLATE = Nameplate(
    "crossing",
    DT_S,
    (Group("phase", ASSETS, (Signal("queue", "1", 0.0, 9.0),), (Signal("light", "1", 0.0, 2.0, levels=LEVELS),)),),
)
GREENS = tuple(((a, "light", 2.0), (b, "light", 2.0)) for a, b in itertools.combinations(ASSETS, 2))
MIXED = ((("A0", "light", 1.0), ("A2", "light", 2.0)),)

Vector = tuple[float, float, float]
State = tuple[Vector, Vector]
"""Levels, and the seconds that each has stood, at most ``ENOUGH_S``."""
ENOUGH_S = 1200.0
MOVES: tuple[Vector, ...] = tuple(itertools.product(LEVELS, LEVELS, LEVELS))


def transition(state: State, move: Vector) -> State:
    levels, held = state
    stood = [DT_S if a != b else min(h + DT_S, ENOUGH_S) for a, b, h in zip(levels, move, held, strict=True)]
    return move, (stood[0], stood[1], stood[2])


def legal_moves(margins: Margins, declaration_names: frozenset[str], state: State) -> frozenset[Vector]:
    """By the margins of the declaration, all moves in one batch."""
    levels, held = (np.array(x).reshape(3, 1) for x in state)
    commands = np.array(MOVES).reshape(-1, 3, 1)
    before = np.broadcast_to(levels, commands.shape)
    history = History(
        {"phase": np.zeros_like(commands)},
        {"phase": np.broadcast_to(held, commands.shape)},
        {"phase": np.zeros_like(commands)},
    )
    measured = {"phase": np.zeros_like(commands)}
    moment = Moment({"phase": before}, {"phase": commands}, measured, DT_S, history=history)
    fine = np.ones(len(MOVES), dtype=bool)
    for name, margin in margins(moment).items():
        if name in declaration_names:
            fine &= np.asarray(margin).reshape(len(MOVES), -1).min(axis=1) >= -1e-9
    return frozenset(m for m, ok in zip(MOVES, fine, strict=True) if ok)


def winning_region(moves: Mapping[State, frozenset[Vector]]) -> frozenset[State]:
    """The greatest set of states each of which has a legal move that stays in the set (Bloem et al. 2015)."""
    region = frozenset(moves)
    while True:
        kept = frozenset(s for s in region if any(transition(s, m) in region for m in moves[s]))
        if kept == region:
            return region
        region = kept


DECLARATIONS: dict[str, tuple[Constraint, ...]] = {
    "conflicts": (ConflictConstraint("greens", "phase", (*GREENS, *MIXED)),),
    "conflicts and dwell": (
        ConflictConstraint("greens", "phase", GREENS),
        DwellConstraint("phase", "light", 1200.0, "1"),
    ),
    "conflicts, dwell at a level and transitions": (
        ConflictConstraint("greens", "phase", (*GREENS, *MIXED)),
        DwellConstraint("phase", "light", 1200.0, "1", level=2.0),
        TransitionConstraint("phase", "light", ((0.0, 1.0), (1.0, 2.0), (2.0, 0.0)), "1"),
    ),
}


@pytest.mark.parametrize("which", DECLARATIONS)
def test_in_every_state_the_mask_is_that_of_the_winning_region(which: str) -> None:
    declaration = declare(PLATE, DECLARATIONS[which])
    flat, margins = flat_commands(PLATE), Margins(declaration)
    limits = LocalLimits(declaration, flat)
    names = frozenset(c.name for c in declaration.hard)
    held = (DT_S, ENOUGH_S)
    states: list[State] = list(itertools.product(MOVES, itertools.product(held, held, held)))
    moves = {s: legal_moves(margins, names, s) for s in states}
    region = winning_region(moves)
    # two greens that have to stay have no legal move, and are lost
    assert region
    assert (len(region) < len(states)) == ("dwell" in which)
    start = limits.start()
    for state in region:
        applied = np.array(state[0])
        memory = CommandMemory(start.change, np.array(state[1]), start.changes_s)
        low, high = limits.reach(memory, applied, DT_S)
        let_through = set()
        for move in MOVES:
            sent = tuple(limits.keep(np.array(move), memory, applied, low, high).tolist())
            assert sent in moves[state], (state, move, sent)
            assert transition(state, (sent[0], sent[1], sent[2])) in region
            if sent == move:
                let_through.add(move)
        assert let_through == {m for m in moves[state] if transition(state, m) in region}


def test_switches_let_through_exactly_what_the_margins_do_along_every_sequence() -> None:
    """All sequences of eight decisions of one command with two levels, at two changes in any hour."""
    plate = Nameplate("fan", DT_S, (Group("fan", ("F",), PLATE.groups[0].measured, (
        Signal("on", "1", 0.0, 1.0, levels=(0.0, 1.0)),)),))  # fmt: skip
    declaration = declare(plate, [SwitchesConstraint("fan", "on", 2, "1")])
    limits, margins = LocalLimits(declaration, flat_commands(plate)), Margins(declaration)
    measured = {"fan": np.zeros((1, 1))}
    name = "fan/on switches"

    def follow(applied: float, memory: CommandMemory, history: History, depth: int) -> int:
        if depth == 0:
            return 1
        seen = 0
        now = np.array([applied])
        low, high = limits.reach(memory, now, DT_S)
        for move in (0.0, 1.0):
            asked = np.array([move])
            sent = limits.keep(asked, memory, now, low, high)
            before, after = {"fan": now[:, None]}, {"fan": asked[:, None]}
            margin = margins(Moment(before, after, measured, DT_S, history=history))[name]
            assert (sent[0] == move) == bool(margin.min() >= 0.0)
            if sent[0] == move:
                next_memory = limits.after(memory, now, sent, DT_S)
                seen += follow(move, next_memory, history.after(before, after, DT_S), depth - 1)
        return seen

    first = {"fan": np.zeros((1, 1))}
    n_sequences = follow(0.0, limits.start(), History.start(declaration, first), 8)
    expected = sum(all(sum(bits[k : k + 6]) <= 2 for k in range(3)) for bits in itertools.product((0, 1), repeat=8))
    assert n_sequences == expected
