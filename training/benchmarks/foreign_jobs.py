"""What the benchmarks on foreign tasks share: seeds as jobs whose results are kept, and returns of a learnt policy.

A job is a function and its arguments; its result is kept in a file under a hash of both, so that a benchmark can be
interrupted, carried on, and given more seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ConfigurationError
from ..configuration import TrainConfiguration
from ..output_folder import make_folder
from ..problem import Problem
from ..report import say

Result = dict[str, Any]
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Job:
    """``work(*arguments, seed)`` gives a mapping of plain values; ``name`` says whose seed it is."""

    name: str
    seed: int
    work: Callable[..., Result]
    arguments: tuple[Any, ...] = ()

    def key(self) -> str:
        """Names the file of the result."""
        plain = [
            a.model_dump(mode="json", serialize_as_any=True) if hasattr(a, "model_dump") else a for a in self.arguments
        ]
        made_of = json.dumps(
            [self.work.__module__, self.work.__qualname__, plain, self.seed], sort_keys=True, default=str
        )
        return f"{self.name}-seed{self.seed}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"


def add_seed_arguments(parser: argparse.ArgumentParser, *, seeds: str) -> None:
    """Add --seeds, --parallel and --out."""
    parser.add_argument("--seeds", default=seeds, metavar="A..B", help="first and last seed, default %(default)s")
    parser.add_argument("--parallel", type=int, default=1, metavar="K", help="seeds at a time, default %(default)s")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="tables as md, csv and json; results of seeds are kept in DIR/seeds"
    )


def seed_range(text: str, option: str = "--seeds") -> list[int]:
    """``0..4``, both ends counted, or ``3`` alone."""
    first, dots, last = text.partition("..")
    if not first.isdigit() or (dots and not last.isdigit()) or (dots and int(last) < int(first)):
        raise ConfigurationError(f"{option}: {text!r}; give the first and the last, such as 0..4")
    return list(range(int(first), int(last or first) + 1))


def chosen(text: str, known: Sequence[str], option: str) -> list[str]:
    """Names between commas; raises ConfigurationError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{option}: {name!r} is not known; there are {', '.join(known)}")
    return names


def run_jobs(jobs: Sequence[Job], out: Path | None, parallel: int = 1) -> list[Result]:
    """Results in the order of the jobs, those kept under ``out`` and the new ones."""
    folder = None if out is None else make_folder(out / "seeds")
    results: dict[int, Result] = {}
    for k, job in enumerate(jobs):
        file = None if folder is None else folder / f"{job.key()}.json"
        if file is not None and file.exists():
            results[k] = json.loads(file.read_text(encoding="utf-8"))
    todo = [k for k in range(len(jobs)) if k not in results]

    def keep(k: int, result: Result) -> None:
        results[k] = result
        if folder is not None:
            partial = folder / f"{jobs[k].key()}.partial"
            partial.write_text(json.dumps(result), encoding="utf-8")
            partial.replace(partial.with_suffix(".json"))
        shown = ", ".join(f"{key} {value:.4g}" for key, value in result.items() if isinstance(value, int | float))
        say(f"{jobs[k].name} seed {jobs[k].seed}: {shown}")

    if parallel <= 1 or len(todo) <= 1:
        for k in todo:
            keep(k, _run(jobs[k]))
    else:
        # spawn: a fork would copy the threads' locks of torch in whatever state they are.
        with multiprocessing.get_context("spawn").Pool(min(parallel, len(todo)), _begin) as pool:
            for k, result in pool.imap_unordered(_numbered, [(k, jobs[k]) for k in todo]):
                keep(k, result)
    return [results[k] for k in range(len(jobs))]


def _begin() -> None:
    """Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"


def _numbered(numbered: tuple[int, Job]) -> tuple[int, Result]:
    return numbered[0], _run(numbered[1])


def _run(job: Job) -> Result:
    started = time.process_time()
    result = job.work(*job.arguments, job.seed)
    result.setdefault("cpu_s", time.process_time() - started)
    return result


def learn(config: TrainConfiguration, problem: Problem, after: Callable[[Any], bool] | None = None) -> Any:
    """Run a configuration to its end, or until ``after(learning)`` says so, and return what learnt."""
    from ..learning import make_learning

    with ExitStack() as stack:
        learning = make_learning(config, problem, stack)
        while learning.iteration < learning.n_iterations:
            learning.iterate()
            if after is not None and after(learning):
                break
        return learning


def first_episodes(
    problem: Problem, actors: Mapping[str, Any], seed: int, n_episodes: int, *, explore: bool = False
) -> NDArray[np.float64]:
    """Returns ``[n_episodes]`` of one episode a replica, mean over its assets a step, without exploration."""
    from ..actor_evaluation import EVALUATION_REPLICA
    from ..shard import Shard, ShardPlan
    from ..workers import one_thread

    plan = ShardPlan(seed, EVALUATION_REPLICA, n_episodes, explore=explore, bootstrap=False)
    horizon = problem.task().horizon
    with one_thread():
        rollout = Shard(problem, plan).collect(actors, horizon)
    groups = rollout.groups.values()
    reward = np.concatenate([np.where(g.present, g.reward, 0.0) for g in groups], axis=2, dtype=np.float64)
    present = np.concatenate([g.present for g in groups], axis=2)
    mean = reward.sum(2) / np.maximum(present.sum(2), 1)
    done = rollout.terminated | rollout.truncated
    first = np.where(done.any(0), done.argmax(0), horizon - 1)
    total: NDArray[np.float64] = np.where(np.arange(horizon)[:, None] <= first, mean, 0.0).sum(0)
    return total
