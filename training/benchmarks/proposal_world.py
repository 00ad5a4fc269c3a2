"""A station with its people and their keys, and approved proposals on it that control may carry out as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...agents.action_layout import ActionLayout
from ...agents.artifact import load_artifact, save_artifact
from ...agents.forward import PolicyNetwork
from ...agents.layers import Dense
from ...agents.own_signals import OwnSignalsEncoder
from ...deploy.arbitration.request import Circumstances
from ...deploy.proposals.approval import Approval, approve
from ...deploy.proposals.effect import Window
from ...deploy.proposals.executor import Executor
from ...deploy.proposals.folder import ProposalFolder, Recheck
from ...deploy.proposals.proposal import Gain, PolicyReference, Proposal, SignedProposal, StageCheck, TwinStand
from ...deploy.shield import Mode, Shield
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import Order
from ...deploy.station.people import People
from ...envs.constraint import Declaration, RangeConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal

BASE_S = 1_800_000_000.0
PASSWORD = "only for a benchmark"
FILES = ("proposal.json", "approval.json", "recheck.json")
"""What :meth:`Trial.save` writes, and control reads."""


@dataclass
class Trial:
    """One attempt, before it is ordered. ``now_s``, ``seen``, ``declaration``: control's clock, sight and limits."""

    world: World
    rng: np.random.Generator
    id: str
    signed: SignedProposal
    approval: Approval
    recheck: Recheck
    now_s: float
    seen: Circumstances
    declaration: Declaration
    must: str = "refuse"
    """``refuse``, ``accept``, or ``either`` where what was changed may mean nothing."""
    executor: Executor | None = None

    @property
    def folder(self) -> ProposalFolder:
        return ProposalFolder(self.world.station, self.id)

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        (self.folder.path / name).write_text(json.dumps(data, sort_keys=True, separators=(",", ":")))

    def save(self) -> None:
        """Put all three files where they belong."""
        self.folder.path.mkdir()
        self.write("proposal.json", self.signed.model_dump(mode="json"))
        self.write("approval.json", self.approval.model_dump(mode="json"))
        self.write("recheck.json", self.recheck.model_dump(mode="json"))


class World:
    """A station with its people, and the keys that they hold."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.plate, self.rng = _nameplate(), rng
        self.declaration = declare(self.plate)
        self.hashes = self.plate.hash, self.declaration.hash
        self.tighter = declare(self.plate, (RangeConstraint("pump", "flow_m3ph", 0.0, 40.0, "m3/h"),))
        other = Nameplate("other plant", self.plate.period_s, self.plate.groups)
        self.elsewhere = declare(other)
        self.station = StationFolder(folder)
        self.station.make()
        people = People.read(self.station.people).add("root", "admin", PASSWORD)
        for name, role in (("anna", "approver"), ("bert", "approver"), ("carl", "approver"), ("vera", "viewer")):
            people = people.add(name, role, PASSWORD, by="root", by_password=PASSWORD)  # type: ignore[arg-type]
        self.people = people
        self.keys = {name: people.unlock(name, PASSWORD) for name in people.names}
        self.people_json = self.station.people.read_bytes()
        self.shield = Shield(self.declaration)
        self.start = self.shield.start()
        self.artifact = write_artifact(folder / "artifact", self.plate)
        self.policy = load_artifact(self.artifact, self.plate)
        self.n = 0

    def clean(self) -> None:
        """Forget what was burnt, so that the folder stays small; between trials only."""
        shutil.rmtree(self.station.proposals)
        self.station.proposals.mkdir()

    def trial(self, kind: str = "writes") -> Trial:
        """A proposal that may be carried out, and all that it needs."""
        self.n += 1
        rng, id = self.rng, f"trial-{self.n:08d}"
        now_s = BASE_S + float(rng.uniform(0.0, 1e6))
        proposer, approver = (str(n) for n in rng.choice(["anna", "bert", "carl"], size=2, replace=False))
        proposal = self._proposal(id, kind, proposer, now_s)
        signed = SignedProposal.of(proposal, self.keys[proposer])
        approval = approve(signed, self.people, approver, self.keys[approver], now_utc_s=now_s - rng.uniform(1.0, 60.0))
        window = Window(today=100.0)
        recheck = Recheck(
            proposal=proposal.hash, utc_s=now_s - float(rng.uniform(0.0, 25.0)), time_s=0.0, verdict="",
            mean=1.0, low=0.0, high=2.0, windows=(window,) * (len(proposal.stages) + 1), margins={},
        )  # fmt: skip
        return Trial(self, rng, id, signed, approval, recheck, now_s, self.seen(0, 0.0), self.declaration)

    def seen(self, number: int, now_s: float, mode: Mode = Mode.APPROVED, flow: float = 50.0) -> Circumstances:
        values = {g.name: np.full((g.n_assets, len(g.measured)), flow) for g in self.plate.groups}
        trusted = {g.name: np.ones(g.n_assets, dtype=np.bool_) for g in self.plate.groups}
        return Circumstances(number, now_s, values, trusted, self.start, dict.fromkeys(self.plate.agents, mode))

    def _proposal(self, id: str, kind: str, by: str, now_s: float) -> Proposal:
        rng, agents = self.rng, self.plate.agents
        n = int(rng.integers(1, len(agents) + 1))
        chosen = agents if kind == "policy" else tuple(agents[:n])
        names = [name for name in self.plate.signal_names("commanded") if name.rpartition("/")[0] in chosen]
        cut = int(rng.integers(1, len(chosen) + 1))
        stages = [part for part in (chosen[:cut], chosen[cut:]) if part]
        policy = self.policy if kind == "policy" else None
        return Proposal(
            id=id, kind="policy" if policy else "writes", by=by, reason="a trial", created_utc_s=now_s - 100.0,
            valid_until_utc_s=now_s + 1000.0, site=self.plate.site, nameplate_hash=self.hashes[0],
            limits_hash=self.hashes[1],
            writes={} if policy else {name: float(rng.uniform(0.0, 100.0)) for name in names},
            policy=PolicyReference(name="x", hash=policy.hash, path=str(self.artifact)) if policy else None,
            lasts_s=1000.0, rollback=dict.fromkeys(names, 0.0),
            twin=TwinStand(state_sha256="0" * 64, time_s=0.0, open=True, nis=1.0, coverage=0.95),
            measured={f"pump/{a}/flow_m3ph": 50.0 for a in ("P1", "P2", "P3")},
            tolerance={f"pump/{a}/flow_m3ph": 5.0 for a in ("P1", "P2", "P3")}, horizon_s=40.0, n_replicas=32,
            gain=Gain(signal="pump/flow_m3ph", unit="m3/h", today=150.0, mean=0.0, low=-500.0, high=500.0,
                      surely_low=-1.0, surely_high=1.0),
            margins={}, stages=tuple(StageCheck(agents=s, low=-500.0, high=500.0) for s in stages), stage_s=10.0,
            measure_s=20.0,
        )  # fmt: skip


def started_executor(trial: Trial) -> Executor:
    """One with the trial's limits and clock, as after a start of control: of what was, it knows the files only."""
    executor = Executor(trial.world.station, trial.declaration, clock_s=lambda: trial.now_s)
    executor.start()
    return executor


def execute_order(id: str, now_s: float, suffix: str = "first") -> Order:
    """To carry out proposal ``id``, placed at ``now_s``; another ``suffix`` makes it another order."""
    return Order(id=f"order-{suffix}-{id}"[:64], kind="execute", by="anna", utc_s=now_s, expires_utc_s=now_s + 10.0,
                 proposal=id)  # fmt: skip


def write_artifact(folder: Path, plate: Nameplate, seed: int = 0) -> Path:
    """Write a policy of one linear layer, with weights drawn from ``seed``; returns ``folder``."""
    group, rng = plate.group("pump"), np.random.default_rng(seed)
    n = OwnSignalsEncoder(plate, "pump").n_features
    layer = Dense(rng.normal(size=(1, n, 1)).astype(np.float32), np.zeros((1, 1), np.float32))
    network = PolicyNetwork(np.zeros(n), np.ones(n), 5.0, (layer,), ActionLayout.of(group, ["flow_m3ph"]))
    return save_artifact(
        folder, nameplate=plate, weights={"pump": network}, encoders={}, scope="site", provenance={}, report={}
    )


def _nameplate() -> Nameplate:
    flow = Signal("flow_m3ph", "m3/h", 0.0, 100.0)
    return Nameplate(
        "pumps", 10.0, (Group("pump", ("P1", "P2", "P3"), (flow,), (Signal("flow_m3ph", "m3/h", 0.0, 100.0),)),)
    )
