"""One rollout worker, seen from the process that drives it: asked, watched, and replaced when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from ..envs.errors import RunError
from .problem import Problem
from .rollout_batch import Rollout
from .shard import ShardPlan
from .shard_worker import Packed, ShardWorker

ATTEMPTS = 3
"""Times that a worker may fail in one iteration before the run ends."""
START_S = 300.0
"""What a new worker has to come up and build its twins, on a machine under load; then ``hang_timeout_s`` holds."""
SILENT_S = 30.0
"""How long a process that came up may leave a question unanswered before its first step: imports hold it up."""

_LOG = logging.getLogger(__name__)


class WorkerHandle:
    """Worker ``number`` with its shards ``plans``. ``states`` is where its shards stood before the rollout under way,
    None when they have not begun."""

    def __init__(
        self, ray: Any, number: int, problem: Problem, plans: Sequence[ShardPlan], hang_timeout_s: float
    ) -> None:
        self._ray = ray
        self._number = number
        self._problem = problem
        self._plans = list(plans)
        self._hang_timeout_s = hang_timeout_s
        self._actor: Any = None
        self._weights: Any = None
        self._n_steps = 0
        self._failures: list[str] = []
        self._failed_at: float | None = None
        self._life: Any = None  # a question about steps taken that is not answered yet
        self._asked_at = 0.0
        self._steps = -1  # nothing was heard of it yet
        self._alive_at = 0.0
        self._must_restore = False
        self.states: list[Packed] | None = None
        self.pending: Any = None
        self.result: tuple[list[Rollout], list[Packed]] | None = None
        self.restarts = 0
        self.recoveries_s: list[float] = []
        """From each failure that was noticed to the replacement's first step."""

    def launch(self) -> None:
        """Start the actor, on whatever node has fewest of them."""
        # A concurrency group has a thread of its own, which answers while a rollout runs.
        remote = self._ray.remote(concurrency_groups={"life": 1}, scheduling_strategy="SPREAD")(ShardWorker)
        self._actor = remote.remote(self._problem, self._plans)
        self._steps = -1
        self._alive_at = time.monotonic()
        self._ask_for_life(self._alive_at)

    def describe(self) -> Any:
        """Reference to :meth:`ShardWorker.process`."""
        return self._actor.process.options(concurrency_group="life").remote()

    def restore(self, states: list[Packed]) -> None:
        """Let the next rollout go on from ``states``."""
        self.states, self._must_restore = states, True
        self.pending, self.result = None, None

    def ask(self, weights: Any, n_steps: int) -> None:
        """Begin a rollout; ``weights`` is an object reference."""
        self._weights, self._n_steps = weights, n_steps
        self._failures = []
        if self.pending is not None:  # an earlier rollout was given up: nobody took what it led to
            self._must_restore = True
        self._ask_again()

    def _ask_again(self) -> None:
        states = (self.states or [{} for _ in self._plans]) if self._must_restore else None
        self.pending = self._actor.collect.remote(self._weights, self._n_steps, states)
        self.result = None
        self._alive_at = time.monotonic()

    def wait_from_now(self) -> None:
        """What the driver did since :meth:`ask`, such as learning, is not the worker's silence."""
        self._alive_at = self._asked_at = time.monotonic()

    def take(self) -> None:
        """Fetch the rollout that is ready; when it failed, have it gathered again by a new worker.

        Raises what the twin or the task raised when a second worker meets it too, and RunError after ``ATTEMPTS``
        workers that died.
        """
        errors = self._ray.exceptions
        try:
            self.result = self._ray.get(self.pending)
            self._note_recovery()
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            told = f"{type(cause).__name__}: {cause}"
            if told in self._failures or len(self._failures) + 1 >= ATTEMPTS:
                cause.add_note(f"met by rollout worker {self._number}, and again by a new worker in its place")
                raise cause from None
            self._replace(told)
        except errors.RayError as error:  # died, unreachable, or its results lost with their node
            if "ModuleNotFoundError" in str(error):
                raise RunError(
                    "a node of the Ray cluster cannot import what workers need; install the same wheel of twinloop on "
                    f"every node, with the packages of its extra 'ray':\n{error}"
                ) from error
            if len(self._failures) + 1 >= ATTEMPTS:
                raise RunError(
                    f"rollout worker {self._number} failed {ATTEMPTS} times in one iteration ({type(error).__name__}); "
                    "look for memory running out, or run with --workers 0 to see the error itself"
                ) from error
            self._replace(type(error).__name__)

    def watch(self) -> None:
        """Replace the worker when it takes no step for too long, or no longer answers."""
        now = time.monotonic()
        if self._life is None:
            self._ask_for_life(now)
        elif self._ray.wait([self._life], timeout=0)[0]:
            try:
                steps = int(self._ray.get(self._life))
            except self._ray.exceptions.RayError:
                return  # it died: the rollout's own reference says so
            finally:
                self._life = None
            if steps != self._steps:
                self._steps, self._alive_at = steps, now
            if steps > 0:
                self._note_recovery()
        hung = self._hung_for(now)
        if hung is not None:
            if len(self._failures) + 1 >= ATTEMPTS:
                raise RunError(
                    f"rollout worker {self._number} hung {ATTEMPTS} times in one iteration: it {hung}; "
                    "raise rollout.hang_timeout_s if a step may take longer"
                )
            self._replace(hung)

    def _ask_for_life(self, now: float) -> None:
        self._life = self._actor.steps_taken.options(concurrency_group="life").remote()
        self._asked_at = now

    def _hung_for(self, now: float) -> str | None:
        """In which way the worker hangs, or None. One that is building its twins still answers."""
        allowed_s = self._hang_timeout_s if self._steps > 0 else max(START_S, self._hang_timeout_s)
        if now - self._alive_at > allowed_s:
            return f"took no step for {allowed_s:g} s"
        silent_s = max(SILENT_S, self._hang_timeout_s)
        if self._steps == 0 and self._life is not None and now - self._asked_at > silent_s:
            return f"did not answer for {silent_s:g} s before its first step"
        return None

    def close(self) -> None:
        """End the worker."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    @property
    def is_recovering(self) -> bool:
        """Whether a replacement has yet to take its first step."""
        return self._failed_at is not None

    def _replace(self, reason: str) -> None:
        self._failures.append(reason)
        self._failed_at = time.monotonic()
        self.restarts += 1
        _LOG.warning("rollout worker %d: %s; a new one takes its place and gathers again", self._number, reason)
        self.close()
        self.launch()
        self._must_restore = True
        self._ask_again()

    def _note_recovery(self) -> None:
        if self._failed_at is not None:
            self.recoveries_s.append(time.monotonic() - self._failed_at)
            self._failed_at = None
            _LOG.warning("rollout worker %d: its successor samples after %.1f s", self._number, self.recoveries_s[-1])

    def settle(self) -> list[Rollout]:
        """The rollouts of a result; the next rollout goes on from its states."""
        if self.result is None:
            raise RunError(f"rollout worker {self._number} has nothing to hand over; call start and finish first")
        rollouts, self.states = self.result
        self.result, self.pending, self._must_restore = None, None, False
        return rollouts
