"""Who runs prototypes: this process, several on this machine, or a Ray cluster; the figures do not depend on it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any, Self

import numpy as np

from ...envs.errors import RunError
from ..ray_session import RaySession
from .configuration import ExploreConfiguration
from .evaluation import Evaluator, Figures, Rows
from .space import Floats

Tell = Callable[[int, int], None]
"""Told how many rows of how many are done."""
_BATCHES_A_SHARE = 8  # of work that is handed out; more than one, since each share is told of once


class Workforce:
    """A context manager around the processes; ``run`` spreads rows over them and puts the figures in order.

    Raises :class:`RunError` when a process dies.
    """

    def __init__(self, config: ExploreConfiguration, evaluator: Evaluator) -> None:
        self._config, self._evaluator = config, evaluator
        self._pool: ProcessPoolExecutor | None = None
        self._session: RaySession | None = None
        self._ray: Any = None
        self._actors: list[Any] = []
        self.cpu_s = 0.0
        """Spent in all processes on running prototypes."""

    def __enter__(self) -> Self:
        n = self._config.workers
        if n and self._config.ray_address is not None:
            self._session = RaySession(self._config.ray_address, n)
            self._ray = self._session.open()
            actor = self._ray.remote(num_cpus=1, max_restarts=0)(_RayWorker)
            self._actors = [actor.remote(self._config) for _ in range(n)]
        elif n:
            spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and locks
            self._pool = ProcessPoolExecutor(n, mp_context=spawn, initializer=_start, initargs=(self._config,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for actor in self._actors:
            self._ray.kill(actor)
        if self._session is not None:
            self._session.close()
        self._pool, self._session, self._actors = None, None, []

    def run(self, values: Floats, seeds: Sequence[int], periods: int, warm_up: int, tell: Tell) -> Floats:
        """Figures ``[P, S, K]`` of prototypes ``[P, D]``, every one under all ``S`` seeds."""
        n_rows = len(values) * len(seeds)
        rows = np.arange(n_rows)
        all_seeds = np.asarray(seeds, dtype=np.int64)
        width = self._width(n_rows)

        def share(at: int) -> Rows:
            mine = rows[at : at + width]
            return Rows(values[mine // len(seeds)], all_seeds[mine % len(seeds)], periods, warm_up)

        starts = list(range(0, n_rows, width))
        found = np.zeros((n_rows, len(self._evaluator.objectives.names)))
        done = 0
        for at, figures in self._each(starts, share):
            found[at : at + len(figures.of)] = figures.of
            self.cpu_s += figures.cpu_s
            done += len(figures.of)
            tell(done, n_rows)
        return found.reshape(len(values), len(seeds), found.shape[1])

    def _width(self, n_rows: int) -> int:
        """Rows of a share: whole batches, and enough shares for everybody."""
        replicas, n = self._config.replicas, max(1, self._config.workers)
        batches = max(1, min(_BATCHES_A_SHARE if self._config.workers else 1, n_rows // (replicas * n)))
        return min(replicas * batches, max(1, -(-n_rows // n)))

    def _each(self, starts: Sequence[int], share: Callable[[int], Rows]) -> Iterator[tuple[int, Figures]]:
        """Shares as they come back, with where they begin."""
        if self._pool is not None:
            yield from self._by_processes(starts, share)
        elif self._actors:
            yield from self._by_ray(starts, share)
        else:
            for at in starts:
                yield at, self._evaluator.run(share(at))

    def _by_processes(self, starts: Sequence[int], share: Callable[[int], Rows]) -> Iterator[tuple[int, Figures]]:
        assert self._pool is not None  # who calls has looked
        asked: dict[Future[Figures], int] = {self._pool.submit(_run, share(at)): at for at in starts}
        for future in as_completed(asked):
            try:
                yield asked[future], future.result()
            except (BrokenPipeError, EOFError, RuntimeError) as error:
                raise RunError(
                    f"explore: a worker died ({error}); look for memory running out, or set workers to 0 to see why"
                ) from error

    def _by_ray(self, starts: Sequence[int], share: Callable[[int], Rows]) -> Iterator[tuple[int, Figures]]:
        """As many shares out as there are actors; who is done gets the next."""
        left, out, idle = list(starts), dict[Any, tuple[int, Any]](), list(self._actors)
        while left or out:
            while left and idle:
                at, actor = left.pop(0), idle.pop()
                out[actor.run.remote(share(at))] = (at, actor)
            (ready,), _ = self._ray.wait(list(out), num_returns=1)
            at, actor = out.pop(ready)
            idle.append(actor)
            try:
                figures = self._ray.get(ready)
            except self._ray.exceptions.RayActorError as error:
                raise RunError(f"explore: a worker on the Ray cluster died ({error}); run the command again") from error
            yield at, figures


class _RayWorker:
    """What runs inside an actor."""

    def __init__(self, config: ExploreConfiguration) -> None:
        import torch

        torch.set_num_threads(1)
        self._evaluator = Evaluator(config)

    def run(self, rows: Rows) -> Figures:
        return self._evaluator.run(rows)


_OWN: list[Evaluator] = []
"""The evaluator of a worker process; empty in all others."""


def _start(config: ExploreConfiguration) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who lets shares that run come to their end
    torch.set_num_threads(1)
    _OWN[:] = [Evaluator(config)]


def _run(rows: Rows) -> Figures:
    return _OWN[0].run(rows)
