"""Copies of a process-bound simulator spread over Ray actors, presented as one batch.

Many copies live in an actor, and a joint step is one call an actor, in order; all results are gathered before the next
step, so the batch is what one process would have given, bit for bit. The driver keeps the actors' last saved state and
the commands since. An actor that dies, hangs or raises is replaced: the new one loads that state and is given the same
commands again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.adapters.environment_block import Declaration, EnvironmentBlock, EnvironmentRecipe, RowReadings
from ..envs.adapters.environment_pool import MakeBlocks
from ..envs.errors import RunError
from .ray_session import RaySession

ATTEMPTS = 3
HUNG_AFTER_S = 30.0
SAVE_EVERY = 256  # calls an actor; what a replacement replays at most
_START_S = 120.0  # to start a process and import a simulator takes longer than a step

Call = tuple[str, tuple[Any, ...]]


def ray_blocks(n_workers: int) -> MakeBlocks:
    """What makes the copies of an environment pool in ``n_workers`` actors."""
    return partial(_make, n_workers)


def _make(n_workers: int, recipe: EnvironmentRecipe, declaration: Declaration, n_rows: int, dtype: str) -> RayBlocks:
    return RayBlocks(recipe, declaration, n_rows, dtype, n_workers=n_workers)


@dataclass
class _Member:
    """One actor: its rows ``first .. end``, what it was when last saved, and the calls since. ``is_new``: not yet
    heard of."""

    first: int
    end: int
    actor: Any = None
    saved: list[bytes] | None = None
    since: list[Call] = field(default_factory=list)
    is_new: bool = True

    @property
    def n_rows(self) -> int:
        return self.end - self.first


class RayBlocks:
    """``n_rows`` copies in at most ``n_workers`` actors, in contiguous shares; actors start at the first call.

    A Ray session that runs already is used; else one is started. ``hung_after_s``: seconds after which an actor that
    does not answer counts as hung. Raises :class:`~twinloop.envs.errors.RunError` when an actor dies or hangs again and
    again, and the environment's own error when it raises each time.
    """

    def __init__(
        self,
        recipe: EnvironmentRecipe,
        declaration: Declaration,
        n_rows: int,
        dtype: str = "float32",
        *,
        n_workers: int,
        hung_after_s: float = HUNG_AFTER_S,
        save_every: int = SAVE_EVERY,
    ) -> None:
        self._recipe, self._declaration, self._dtype = recipe, declaration, dtype
        self._hung_after_s, self._save_every = hung_after_s, save_every
        n = min(n_workers, n_rows)
        bounds = [n_rows * k // n for k in range(n + 1)]
        self._members = [_Member(a, b) for a, b in itertools.pairwise(bounds)]
        self._ray: Any = None

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> RowReadings:
        """As :meth:`EnvironmentBlock.reset`."""
        shares: list[tuple[list[int], tuple[list[int], list[int]]]] = []
        for member in self._members:
            at = [k for k, row in enumerate(rows) if member.first <= row < member.end]
            shares.append((at, ([rows[k] - member.first for k in at], [seeds[k] for k in at])))
        asked = [(m, ("reset", share)) for m, (at, share) in zip(self._members, shares, strict=True) if at]
        order = np.argsort([k for at, _ in shares for k in at], kind="stable")
        return _joined(self._ask(asked), order)

    def step(self, commands: Sequence[NDArray[Any]]) -> RowReadings:
        """As :meth:`EnvironmentBlock.step`."""
        asked = [(m, ("step", ([np.array(c[m.first : m.end]) for c in commands],))) for m in self._members]
        return _joined(self._ask(asked), None)

    def save(self) -> list[bytes]:
        """As :meth:`EnvironmentBlock.save`; replacements start from here."""
        self._ask([(m, ("save", ())) for m in self._members])
        return [data for m in self._members for data in m.saved or ()]

    def load(self, saved: Sequence[bytes]) -> None:
        """As :meth:`EnvironmentBlock.load`."""
        for m in self._members:
            m.saved, m.since = list(saved[m.first : m.end]), []
        self._ask([(m, ("load", (m.saved,))) for m in self._members])

    def close(self) -> None:
        """Stop the actors; the next call starts new ones, where these were last saved."""
        for member in self._members:
            if member.actor is not None:
                self._ray.kill(member.actor)
                member.actor = None

    def process_ids(self) -> list[int]:
        """Of the actors, in order; 0 before the first call."""
        return [0 if m.actor is None else int(self._ray.get(m.actor.process_id.remote())) for m in self._members]

    def _ask(self, calls: Sequence[tuple[_Member, Call]]) -> list[Any]:
        """Send all calls, then gather all answers, in order."""
        pending = [self._send(member, call) for member, call in calls]
        answers = []
        for (member, call), reference in zip(calls, pending, strict=True):
            answer = self._await(member, call, reference)
            self._note(member, call, answer)
            answers.append(answer)
        for member, (name, _) in calls:
            if name != "save" and len(member.since) >= self._save_every:
                save: Call = ("save", ())
                self._note(member, save, self._await(member, save, self._send(member, save)))
        return answers

    def _note(self, member: _Member, call: Call, answer: Any) -> None:
        if call[0] == "save":
            member.saved, member.since = answer, []
        elif call[0] != "load":
            member.since.append(call)

    def _send(self, member: _Member, call: Call) -> Any:
        """Ask for one call; after a new start, for everything that leads to it."""
        if member.actor is None:
            actor = self._start(member)
            if member.saved is not None:
                actor.replay.remote("load", (member.saved,))
            for earlier in member.since:
                actor.replay.remote(*earlier)
        return member.actor.call.remote(*call)

    def _await(self, member: _Member, call: Call, reference: Any) -> Any:
        exceptions = self._ray.exceptions
        for attempt in range(1, ATTEMPTS + 1):
            # What a replacement has to do before it answers takes its time.
            patience_s = self._hung_after_s + (_START_S + len(member.since) if member.is_new else 0.0)
            try:
                answer = self._ray.get(reference, timeout=patience_s)
            except exceptions.RayTaskError as error:
                if attempt == ATTEMPTS:
                    raise error.cause from None
            except (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.GetTimeoutError) as error:
                if attempt == ATTEMPTS:
                    raise RunError(
                        f"simulator worker with copies {member.first} to {member.end - 1} died or hung {ATTEMPTS} "
                        f"times in one step ({type(error).__name__}); look for memory running out, or set "
                        "site.workers to 0 to see the error itself"
                    ) from error
            else:
                member.is_new = False
                return answer
            self._ray.kill(member.actor)
            member.actor = None
            reference = self._send(member, call)
        raise AssertionError("unreachable: the loop returns or raises")

    def _start(self, member: _Member) -> Any:
        if self._ray is None:
            # Never closed: a twin has no end of its own, and the session ends with its process.
            self._ray = RaySession(None, len(self._members)).open()
        remote = self._ray.remote(num_cpus=0, max_restarts=0)(_BlockWorker)
        member.actor = remote.remote(self._recipe, self._declaration, member.n_rows, self._dtype)
        member.is_new = True
        return member.actor


class _BlockWorker:
    """What runs inside an actor: a block and a way to call it."""

    def __init__(self, recipe: EnvironmentRecipe, declaration: Declaration, n_rows: int, dtype: str) -> None:
        self._block = EnvironmentBlock(recipe, declaration, n_rows, dtype)

    def process_id(self) -> int:
        return os.getpid()

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._block, name)(*arguments)

    def replay(self, name: str, arguments: tuple[Any, ...]) -> None:
        """The same, without sending an answer that nobody waits for."""
        getattr(self._block, name)(*arguments)


def _joined(parts: Sequence[RowReadings], order: NDArray[np.int64] | None) -> RowReadings:
    """The actors' rows side by side; ``order`` picks them."""

    def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        whole = np.concatenate(arrays)
        return whole if order is None else whole[order]

    groups = range(len(parts[0].measured))
    return RowReadings(
        measured=[join([p.measured[g] for p in parts]) for g in groups],
        hidden=[join([p.hidden[g] for p in parts]) for g in groups],
        present=[join([p.present[g] for p in parts]) for g in groups],
        moved=join([p.moved for p in parts]),
    )
