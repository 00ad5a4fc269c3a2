"""What a decision tells by name and by group: modes, who acts, whose commands are sent, what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from .arrays import every, some
from .choice import FALLBACK, SAFE_STATE, SOURCES, Choice
from .compiled import FlatCommands
from .decision import BoolArrays, Mode, Source
from .keeping import Sent
from .modes import TRIPPED, Modes

Bools = NDArray[np.bool_]


class Told(NamedTuple):
    """What follows from a period's modes alone: ``named`` and ``acts`` as a decision tells them; ``ours`` ``[n]``: the
    commands that we give; and for the standby, ``tripped`` ``[n]`` (None: none is), ``source`` ``[agents]`` and
    ``fixed`` ``[n]`` (None: none is)."""

    modes: Modes
    named: Mapping[str, Mode]
    acts: BoolArrays
    ours: Bools
    tripped: Bools | None
    source: NDArray[np.int8]
    fixed: Bools | None


class Teller:
    """Compiled for one site; keeps what it last told, since modes and sources seldom change.

    ``none_changed``: by group, that nobody's proposal was changed.
    """

    def __init__(self, nameplate: Nameplate, flat: FlatCommands) -> None:
        self._agents = nameplate.agents
        self._asset = flat.asset
        self._sizes = tuple((g.name, g.n_assets) for g in nameplate.groups)
        everyone = np.ones(len(self._agents), dtype=np.bool_)
        self._all_act = self.by_group(everyone)
        self.none_changed = self.by_group(~everyone)
        self._all_autonomous = dict.fromkeys(self._agents, Mode.AUTONOMOUS)
        self._all_on_policy = dict.fromkeys(self._agents, Source.POLICY)
        self._last_told: Told | None = None
        self._last_sources: tuple[NDArray[np.int8], Mapping[str, Source]] | None = None

    def of_modes(self, modes: Modes) -> Told:
        """What follows from ``modes``; nobody changes them, so that the same ones need no second look."""
        told = self._last_told
        if told is None or told.modes is not modes:
            ours, tripped = modes.acts[self._asset], modes.code == TRIPPED
            self._last_told = told = Told(
                modes,
                self._all_autonomous if modes.plain else modes.named(self._agents),
                self._all_act if modes.plain else self.by_group(modes.acts),
                ours,
                tripped[self._asset] if some(tripped) else None,
                np.where(tripped, np.int8(SAFE_STATE), np.int8(FALLBACK)),
                None if every(ours) else ~ours,
            )
        return told

    def changes(self, which: NDArray[np.intp], choice: Choice) -> BoolArrays:
        """By group, whether a policy's proposal was changed, ``[N]``; ``which``: the commands that were."""
        found = np.zeros(len(self._agents), dtype=np.bool_)
        found[self._asset[which]] = True
        return self.by_group(found if choice.plain else found & (choice.source < FALLBACK))

    def sources(self, choice: Choice, sent: Sent) -> Mapping[str, Source]:
        """By agent, whose command is sent."""
        if choice.plain and sent.source is choice.source:
            return self._all_on_policy
        last = self._last_sources
        if last is None or last[0] is not sent.source:
            named = {a: SOURCES[k] for a, k in zip(self._agents, sent.source.tolist(), strict=True)}
            self._last_sources = last = sent.source, named
        return last[1]

    def by_group(self, agents: Bools) -> dict[str, Bools]:
        """``[agents]`` as ``[N]`` a group, views."""
        found, first = {}, 0
        for name, n_assets in self._sizes:
            found[name] = agents[first : first + n_assets]
            first += n_assets
        return found
