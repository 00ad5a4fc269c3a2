"""What a policy is worth on a plant: paired runs through the shield and the runtime, energy with intervals.

Every policy meets the same plant with the same seed, so that wind, gusts, outages and sensor errors are equal and the
difference is the policy's. Records are kept as they come, so that a run can be interrupted and carried on.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from ..deploy.journal import Journal
from ..deploy.runtime import Runtime, RuntimeSettings
from ..deploy.shield import Shield
from ..deploy.summary import Ending, RunSummary
from ..envs.constraint import Declaration, declaration_of_site
from ..envs.errors import PlantError, TwinloopError
from ..envs.nameplate import Nameplate
from ..envs.plant import Arrays, Plant, Telemetry
from ..envs.registry import load_site
from .contestants import Contestant
from .output_folder import make_folder
from .statistics import Interval, energy_ratio_interval, mean_interval

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray

    from ..agents.policy import Policy

FloatArray = NDArray[np.float64]
Progress = Callable[[Sequence[float]], None]
"""Called with the share done of every job."""

COUNTED = ("finished", "touches", "contacts", "protective_stops", "failures", "renewals", "service_cost", "energy_cost")
"""What plants tell of a run in :meth:`truth` or as an attribute, beside energy: sums over their assets."""
_POLL_S = 0.2
_FEWEST_SEEDS = 3
# A busy machine must not cost a policy its turn: a plant in simulated time waits for whoever controls it.
_PATIENT = RuntimeSettings(
    deadline_pu=1.0, deadline_max_s=30.0, decision_pu=2.0, decision_max_s=60.0, hand_back_periods=0
)


@dataclass(frozen=True)
class PlantJob:
    """One policy on one plant with one seed, as a picklable recipe."""

    contestant: Contestant
    site: str
    site_config: BaseModel
    plant_config: BaseModel
    n_periods: int

    @property
    def seed(self) -> int:
        return int(getattr(self.plant_config, "seed", 0))

    def key(self) -> str:
        """Names the job's record: equal jobs of equal policies share it."""
        made_of = [
            self.contestant.fingerprint(), self.site, self.n_periods,
            self.site_config.model_dump(mode="json"), self.plant_config.model_dump(mode="json"),
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.contestant.name}-seed{self.seed}-{digest}"


@dataclass(frozen=True)
class PlantRecord:
    """One run.

    ``energy_kwh`` is the plant's true energy a period, ``[T]``: a farm's yield, what a line draws, zero where nothing
    is metered; ``yaw_travel_deg`` and ``load_pu`` ``[N]`` are the plant's own account (empty where it keeps none), and
    ``counts`` are its :data:`COUNTED`, those that it keeps.
    """

    policy: str
    seed: int
    period_s: float
    energy_kwh: tuple[float, ...]
    yaw_travel_deg: tuple[float, ...]
    load_pu: tuple[float, ...]
    interventions: Mapping[str, int]
    fallback_periods: int
    latency_p99_ms: float
    wall_s: float
    counts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> PlantRecord:
        data = json.loads(text)
        for name in ("energy_kwh", "yaw_travel_deg", "load_pu"):
            data[name] = tuple(data[name])
        return PlantRecord(**data)


class Metered:
    """A plant with an energy meter: true energy where the plant tells it, else measured power times the period."""

    def __init__(self, plant: Plant, on_period: Callable[[int], None] | None = None) -> None:
        self._plant = plant
        self._on_period = on_period
        self.energy_kwh: list[float] = []
        self._counter = 0.0

    @property
    def nameplate(self) -> Nameplate:
        return self._plant.nameplate

    @property
    def clock_s(self) -> float:
        return self._plant.clock_s

    def read(self) -> Telemetry:
        return self._plant.read()

    def write(self, commands: Arrays) -> Arrays:
        return self._plant.write(commands)

    def advance(self) -> None:
        self._plant.advance()
        counter = getattr(self._plant, "energy_kwh", None)
        if counter is None:
            self.energy_kwh.append(self._measured_kwh())
        else:
            self.energy_kwh.append(float(counter) - self._counter)
            self._counter = float(counter)
        if self._on_period is not None:
            self._on_period(len(self.energy_kwh))

    def close(self) -> None:
        self._plant.close()

    def account(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Yaw travel in degrees and load of each turbine, where the plant keeps account of them."""
        truth = getattr(self._plant, "truth", None)
        if truth is None:
            return (), ()
        told: Mapping[str, Any] = truth()
        travel, load = (tuple(float(v) for v in told.get(name, ())) for name in ("yaw_travel_deg", "load_pu"))
        return travel, load

    def counts(self) -> dict[str, float]:
        """What the plant has counted since its start; by kind, such as ``contacts: arm``, where it tells kinds."""
        truth: Mapping[str, Any] = getattr(self._plant, "truth", dict)()
        found: dict[str, float] = {}
        for name in COUNTED:
            told = truth.get(name, getattr(self._plant, name, None))
            if isinstance(told, Mapping):
                found |= {f"{name}: {kind}": float(n) for kind, n in told.items()}
            elif told is not None:
                found[name] = float(np.sum(told))
        return found

    def _measured_kwh(self) -> float:
        telemetry = self._plant.read()
        total = 0.0
        for group in self.nameplate.groups:
            for column, measured in enumerate(group.measured):
                if measured.name == "power_kw":
                    total += float(np.nansum(telemetry.values[group.name][:, column]))
        return total * self.nameplate.period_s / 3600.0


def drive(
    plant: Plant, policy: Policy, n_periods: int, name: str, declaration: Declaration | None = None
) -> RunSummary:
    """Control a plant in simulated time as deployment does, through shield, runtime and a journal of its own.

    ``declaration``: what the site declares as safe; without it, what its nameplate implies.

    Raises :class:`PlantError` when the run did not reach its end, and KeyboardInterrupt after Ctrl-C.
    """
    with (
        tempfile.TemporaryDirectory(prefix="twinloop-evaluation-") as folder,
        Journal(Path(folder) / "journal.sqlite") as journal,
    ):
        summary = Runtime(plant, policy, Shield(declaration or plant.nameplate), journal, _PATIENT).run(n_periods)
    if summary.ending is Ending.INTERRUPTED:
        raise KeyboardInterrupt
    if summary.ending is not Ending.COMPLETED or summary.tripped:
        raise PlantError(
            f"{name} on {plant.nameplate.site!r}: ended after {summary.periods} of {n_periods} periods "
            f"({summary.ending}): {summary.detail}"
        )
    return summary


def run_job(job: PlantJob, on_period: Callable[[int], None] | None = None) -> PlantRecord:
    """Run one policy on its plant, in this process, through shield and runtime.

    Raises :class:`PlantError` when the run did not reach its end, and KeyboardInterrupt after Ctrl-C.
    """
    started_s = time.monotonic()
    site = load_site(job.site)
    declaration = declaration_of_site(site, job.site_config)
    plant = Metered(site.plant(job.site_config, job.plant_config), on_period)
    with closing(plant):
        policy = job.contestant.build(plant.nameplate, job.seed)
        summary = drive(plant, policy, job.n_periods, f"{job.contestant.name}, seed {job.seed},", declaration)
    travel, load = plant.account()
    return PlantRecord(
        policy=job.contestant.name,
        seed=job.seed,
        period_s=plant.nameplate.period_s,
        energy_kwh=tuple(plant.energy_kwh[: job.n_periods]),
        yaw_travel_deg=travel,
        load_pu=load,
        interventions=dict(summary.interventions),
        fallback_periods=summary.fallback_periods,
        latency_p99_ms=summary.latency_p99_ms,
        wall_s=time.monotonic() - started_s,
        counts=plant.counts(),
    )


def run_jobs(
    jobs: Sequence[PlantJob], folder: Path, processes: int = 1, progress: Progress | None = None
) -> list[PlantRecord]:
    """Run all jobs and return their records in order; records in ``folder`` are used again, new ones go there.

    With more than one process the jobs are shared out. Ctrl-C stops all of them; what is finished stays.
    """
    make_folder(folder)
    files = [folder / f"{job.key()}.json" for job in jobs]
    todo = [i for i, file in enumerate(files) if not file.exists()]
    shares = [1.0] * len(jobs)
    for i in todo:
        shares[i] = 0.0

    def tell() -> None:
        if progress is not None:
            progress(shares)

    tell()
    if processes <= 1 or len(todo) <= 1:
        for i in todo:

            def count(period: int, i: int = i) -> None:
                shares[i] = period / jobs[i].n_periods
                tell()

            _keep(run_job(jobs[i], count), files[i])
    else:
        _run_in_processes(jobs, files, todo, min(processes, len(todo)), shares, tell)
    return [PlantRecord.from_json(file.read_text(encoding="utf-8")) for file in files]


def _keep(record: PlantRecord, file: Path) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(record.to_json(), encoding="utf-8")
    partial.replace(file)


def _run_in_processes(
    jobs: Sequence[PlantJob], files: list[Path], todo: list[int], processes: int, shares: list[float],
    tell: Callable[[], None],
) -> None:  # fmt: skip
    # spawn: a fork would copy the threads' locks of onnxruntime, torch and rich in whatever state they are.
    context = multiprocessing.get_context("spawn")
    counters = context.Array("d", len(jobs))
    with context.Pool(processes, _begin, (counters,)) as pool:
        pending = {i: pool.apply_async(_work, (i, jobs[i])) for i in todo}
        while pending:
            for i in [i for i, result in pending.items() if result.ready()]:
                _keep(pending.pop(i).get(), files[i])
                shares[i] = 1.0
            for i in pending:
                shares[i] = float(counters[i])
            tell()
            if pending:
                time.sleep(_POLL_S)


_counters: SynchronizedArray[float] | None = None


def _begin(counters: SynchronizedArray[float]) -> None:
    """Set up a worker: Ctrl-C is the parent's business."""
    global _counters  # noqa: PLW0603 - a pool hands shared memory to its workers only through the initializer
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(index: int, job: PlantJob) -> PlantRecord:
    def count(period: int) -> None:
        if _counters is not None:
            _counters[index] = period / job.n_periods

    return run_job(job, count)


@dataclass(frozen=True)
class Standing:
    """One policy in a comparison, over all its seeds.

    ``gain[reference]`` is the energy ratio less one, with the interval over time (winds like this one); ``gain_seeds``
    is the mean over seeds, with the interval over seeds (this wind; from three seeds on). ``yaw_travel_deg_per_h`` is a
    turbine's mean; ``load_change`` and ``load_change_worst`` are against the first reference, mean over turbines and
    worst turbine (None without account). ``counts`` are those of a run, mean over seeds.
    """

    policy: str
    energy_mwh: float
    gain: Mapping[str, Interval]
    gain_seeds: Mapping[str, Interval]
    yaw_travel_deg_per_h: float | None
    load_change: float | None
    load_change_worst: float | None
    interventions: int
    fallback_periods: int
    n_seeds: int
    hours: float
    counts: Mapping[str, float] = field(default_factory=dict)


def compare(records: Sequence[PlantRecord], references: Sequence[str]) -> list[Standing]:
    """Standings in the order in which policies first come, with paired intervals against each reference.

    Raises :class:`TwinloopError` when the seeds of two policies differ: pairs need the same wind.
    """
    names = list(dict.fromkeys(r.policy for r in records))
    by_name = {n: sorted((r for r in records if r.policy == n), key=lambda r: r.seed) for n in names}
    energy = {n: np.array([r.energy_kwh for r in rows]) for n, rows in by_name.items()}
    seeds = {n: [r.seed for r in rows] for n, rows in by_name.items()}
    for reference in references:
        if reference not in by_name:
            raise TwinloopError(f"comparison: no record of {reference!r}; there are {', '.join(names)}")
    standings = []
    for name, rows in by_name.items():
        gains: dict[str, Interval] = {}
        gains_seeds: dict[str, Interval] = {}
        for reference in references:
            if reference == name or not energy[reference].sum() > 0.0:
                continue
            if seeds[name] != seeds[reference]:
                raise TwinloopError(
                    f"comparison: {name!r} has seeds {seeds[name]}, {reference!r} {seeds[reference]}; run both on all"
                )
            gains[reference] = energy_ratio_interval(energy[name], energy[reference]).shifted(-1.0)
            if len(rows) >= _FEWEST_SEEDS:
                ratios = energy[name].sum(axis=1) / energy[reference].sum(axis=1)
                gains_seeds[reference] = mean_interval(ratios - 1.0)
        hours = rows[0].period_s * len(rows[0].energy_kwh) / 3600.0
        travel = [v for r in rows for v in r.yaw_travel_deg]
        mean, worst = _load_change(rows, by_name[references[0]]) if references else (None, None)
        standings.append(
            Standing(
                policy=name,
                energy_mwh=float(energy[name].sum()) / 1e3,
                gain=gains,
                gain_seeds=gains_seeds,
                yaw_travel_deg_per_h=float(np.mean(travel)) / hours if travel else None,
                load_change=mean,
                load_change_worst=worst,
                interventions=sum(sum(r.interventions.values()) for r in rows),
                fallback_periods=sum(r.fallback_periods for r in rows),
                n_seeds=len(rows),
                hours=hours,
                counts={k: float(np.mean([r.counts[k] for r in rows])) for k in _common(rows)},
            )
        )
    return standings


def _common(rows: Sequence[PlantRecord]) -> list[str]:
    """What all of them count: records of an older version count nothing."""
    return [name for name in rows[0].counts if all(name in row.counts for row in rows)]


def _load_change(rows: list[PlantRecord], reference: list[PlantRecord]) -> tuple[float | None, float | None]:
    ours, theirs = (np.array([r.load_pu for r in group], dtype=np.float64) for group in (rows, reference))
    if ours.size == 0 or theirs.shape != ours.shape or not (theirs > 0).all():
        return None, None
    change = (ours / theirs).mean(axis=0) - 1.0
    return float(change.mean()), float(change.max())
