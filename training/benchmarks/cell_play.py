"""A stretch of a policy on the MuJoCo cell behind the exact shield, and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agents.artifact import load_artifact
from ...agents.controllers.robot_cell import CONTROLLERS, cell_controller
from ...agents.policy import Policy
from ...deploy.shield import Shield
from ...envs.constraint import declaration_of_site
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from ...envs.registry import Site, load_site
from ...envs.robot_cell.config import RobotCellConfig
from ...envs.robot_cell.nameplate import ARM
from ...envs.robot_cell.plant_config import RobotCellPlantConfig
from ...envs.twin import Observation
from .cell_hostile import HostileArms

Floats = NDArray[np.float64]

STUCK_S = 5.0
"""A cell in which nothing has been touched for so long is deadlocked."""
HOSTILE = "hostile:"
_STANDS = "person_at_standstill"


@dataclass(frozen=True)
class CellJob:
    """One stretch: ``policy`` is a controller's name, an artifact's folder or, behind ``hostile:``, a name of a policy
    that means harm (:mod:`.cell_hostile`); ``site`` and ``plant`` are what a plant's file would say; ``seats``: every
    arm decides by a shield of its own and by what it heard; ``until_touched``: it ends when every arm has touched a
    target; ``until_pushed``: it ends when a person has walked into an arm that stands, and pushes it about."""

    case: str
    policy: str
    seconds: float
    seed: int
    site: Mapping[str, Any] = field(default_factory=dict, hash=False)
    plant: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shielded: bool = True
    seats: bool = False
    until_touched: bool = False
    until_pushed: bool = False


@dataclass(frozen=True)
class CellRecord:
    """What came of a stretch. ``contacts``: by kind, those with moving arms; ``changed``: share of the arms' commands
    that a shield changed by more than rounding; ``deadlocked_s``: time in which nothing had been touched for
    :data:`STUCK_S`; ``longest_s``: the longest time without a touch anywhere; ``slowest_s``: when the last arm had
    touched its first target, infinite when one has not."""

    job: CellJob
    seconds: float
    touches: int
    contacts: Mapping[str, int]
    gap_m: float
    stops: int
    changed: float
    deadlocked_s: float
    longest_s: float
    slowest_s: float
    cpu_s: float

    @property
    def n_contacts(self) -> int:
        return sum(self.contacts.values())


def play(job: CellJob) -> CellRecord:
    """Run a stretch in simulated time."""
    started_s = time.process_time()
    site, config = load_site("robot_cell"), RobotCellConfig.model_validate(job.site)
    plant = site.plant(config, RobotCellPlantConfig.model_validate({**job.plant, "seed": job.seed}))
    plant_any: Any = plant
    dt_s, n = config.control_period_s, config.n_arms
    policy = _policy(job, plant.nameplate, config)
    memory = policy.start(1)
    minds = _shields(job, site, config)
    states = [shield.start() for shield, _ in minds]
    group = plant.nameplate.group(ARM)
    statics = {g.name: np.array(g.static_values).reshape(1, g.n_assets, len(g.statics)) for g in plant.nameplate.groups}
    present = {g.name: np.ones((1, g.n_assets), np.bool_) for g in plant.nameplate.groups}
    first_s, last_touch_s, longest_s, stuck_s, changed, steps = np.full(n, math.inf), 0.0, 0.0, 0.0, 0, 0
    before = np.zeros(n)
    with closing(plant):
        for step in range(round(job.seconds / dt_s)):
            told = plant.read()
            seen = Observation({name: v[None] for name, v in told.values.items()}, statics, present, dt_s)
            commands, memory = policy.act(seen, memory)
            wished = {name: v[0] for name, v in commands.items()}
            wished[ARM] = np.clip(wished[ARM], group.lower("commanded"), group.upper("commanded"))
            sent = {name: v.copy() for name, v in wished.items()}
            for number, (shield, arms) in enumerate(minds):
                decision = shield.filter(told, wished, plant_any.clock_s, states[number], clock_s=step * dt_s)
                sent[ARM][arms] = decision.commands[ARM][arms]
                states[number] = decision.state
            accepted = plant.write(sent)
            states = [shield.accepted(state, accepted) for (shield, _), state in zip(minds, states, strict=True)]
            plant.advance()
            changed += int((np.abs(sent[ARM] - wished[ARM]).max(-1) > 1e-6).sum())
            steps, now_s = step + 1, (step + 1) * dt_s
            touches = np.array(plant_any.touches)
            if (touches > before).any():
                last_touch_s = now_s
            first_s[(touches > 0) & np.isinf(first_s)] = now_s
            longest_s = max(longest_s, now_s - last_touch_s)
            stuck_s += dt_s * float(now_s - last_touch_s > STUCK_S)
            before = touches
            if (job.until_touched and np.isfinite(first_s).all()) or (job.until_pushed and plant_any.contacts[_STANDS]):
                break
        contacts = {kind: int(k) for kind, k in plant_any.contacts.items() if kind != _STANDS}
    return CellRecord(
        job=job, seconds=steps * dt_s, touches=int(before.sum()), contacts=contacts,
        gap_m=float(plant_any.smallest_gap_m), stops=int(plant_any.protective_stops.sum()),
        changed=changed / max(1, steps * n), deadlocked_s=stuck_s, longest_s=longest_s,
        slowest_s=float(first_s.max()), cpu_s=time.process_time() - started_s,
    )  # fmt: skip


def played(jobs: Sequence[CellJob], processes: int, kept: Path | None) -> Iterator[CellRecord]:
    """Records in the order of the jobs, as they come; those in ``kept`` are used again, new ones go there. Raises
    :class:`ConfigurationError` where there is nothing to play, or nobody to play it."""
    if processes < 1:
        raise ConfigurationError(f"--processes {processes}: give 1 or more")
    if not jobs or not all(job.seconds > 0 for job in jobs):
        raise ConfigurationError("--seconds, --seeds: nothing to play; give a time above 0 and 1 seed or more")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_once, kept), jobs)


def _once(kept: Path | None, job: CellJob) -> CellRecord:
    record = recalled(kept, job) if kept else None
    if record is None:
        record = play(job)
        if kept:
            keep(kept, record)
    return record


def keep(folder: Path, record: CellRecord) -> None:
    """Write a record, for :func:`recalled`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {name: value for name, value in vars(record).items() if name != "job"}
    (folder / f"{_key(record.job)}.json").write_text(json.dumps(told), encoding="utf-8")


def recalled(folder: Path, job: CellJob) -> CellRecord | None:
    """The record of that very job, of the same artifact, or None."""
    file = folder / f"{_key(job)}.json"
    return CellRecord(job=job, **json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _key(job: CellJob) -> str:
    told = {k: v for k, v in asdict(job).items() if k != "until_pushed" or v}  # records from before it are as good
    if job.policy not in CONTROLLERS and not job.policy.startswith(HOSTILE):
        told["policy"] = hashlib.sha256((Path(job.policy) / "MANIFEST.sha256").read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]


def _policy(job: CellJob, nameplate: Nameplate, config: RobotCellConfig) -> Policy:
    if job.policy.startswith(HOSTILE):
        return HostileArms(job.policy.removeprefix(HOSTILE), nameplate, config, job.seed)
    if job.policy in CONTROLLERS:
        return cell_controller(job.policy, nameplate, job.seed)
    return load_artifact(Path(job.policy), nameplate)


def _shields(job: CellJob, site: Site, config: RobotCellConfig) -> list[tuple[Shield, list[int]]]:
    """Shields with the arms whose commands each decides on."""
    if not job.shielded:
        return []
    if not job.seats:
        return [(Shield(declaration_of_site(site, config)), list(range(config.n_arms)))]
    alone = (config.model_copy(update={"seat": k + 1}) for k in range(config.n_arms))
    return [(Shield(declaration_of_site(site, one)), [k]) for k, one in enumerate(alone)]
