"""Whether anything but what was approved is ever asked for: tampering, replay, expiry, self-approval, two tabs."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track

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
from ...deploy.proposals.propose import commands_of
from ...deploy.shield import Mode, Shield
from ...deploy.station.folder import StationFolder
from ...deploy.station.order import Order
from ...deploy.station.people import People
from ...envs.constraint import Declaration, RangeConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal
from ..report import Cell, Table, print_table, provenance

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = "proposal_integrity"
SUMMARY = "random tampering, replays, expiries, self-approvals and double submits: no write but what was approved"

DESCRIPTION = """\
The executor that sits in control, on a station's real files, against --trials random attempts. In each, a proposal is
made, signed, approved and simulated anew; then something is done to it (the table lists what), and its execution is
ordered. All that the executor asks for in slot 14 during the roll-out is compared, bit by bit, with what the second
person approved, as it was in his hands. One trial in ten is left alone: there the executor must accept, and ask for all
of it.

Counted as wrong: a value asked for that differs from what was approved (or is of an asset whose stage has not begun),
an attempt accepted that must be refused, one left alone that is refused, an approval that is used twice. Bar: all 0.
"""
BASE_S = 1_800_000_000.0
PASSWORD = "only for a benchmark"
TRIALS_PER_STATION = 8
FILES = ("proposal.json", "approval.json", "recheck.json")


@dataclass
class Trial:
    """One attempt, before it is ordered. ``control``: what control's clock and limits are; ``seen``: what it sees."""

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
        self.artifact = _artifact(folder / "artifact", self.plate)
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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  twinloop bench proposal_integrity --out results/proposal_integrity"
    parser.add_argument("--trials", type=int, default=100_000, metavar="K", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the table as Markdown, CSV and JSON")


def run(arguments: argparse.Namespace) -> int:
    """Try, count and print; 0 when nothing was wrong."""
    logging.getLogger("twinloop").setLevel(logging.CRITICAL)  # a refusal is what is expected here
    found = play(arguments.trials, arguments.seed)
    rows: list[tuple[Cell, ...]] = []
    totals = Counter[str]()
    for name in KINDS:
        count = found.get(name, Counter())
        totals += count
        rows.append((name, *(count[c] for c in COLUMNS[1:])))
    rows.append(("all", *(totals[c] for c in COLUMNS[1:])))
    wrong = sum(totals[c] for c in WRONG)
    notes = (
        "Real files (proposal.json, approval.json, recheck.json, people.json, the burnt nonces) and real signatures; "
        "the clock and what control sees of the plant are the trial's.",
        f"Bar: {', '.join(WRONG)}: 0. Found: {wrong}.",
    )
    table = Table("Integrity of approved proposals", COLUMNS, tuple(rows), notes, {"wrong": wrong})
    print_table(table)
    if arguments.out is not None:
        table.write(arguments.out, NAME, provenance([arguments.seed]))
    return 0 if wrong == 0 else 1


def play(n_trials: int, seed: int) -> dict[str, Counter[str]]:
    """Counts by what was done."""
    rng = np.random.default_rng((seed, 6007))
    found: dict[str, Counter[str]] = {}
    fast = Path("/dev/shm")  # what is tried is the files' content, not the disk
    with tempfile.TemporaryDirectory(prefix="twinloop-", dir=fast if fast.is_dir() else None) as folder:
        world = World(Path(folder) / "station", rng)
        names = tuple(KINDS)
        for number in track(range(n_trials), description="trials"):
            if number % TRIALS_PER_STATION == 0:
                world.clean()
            draw = rng.random()
            if draw < 0.1:
                name = "left alone"
            elif draw < 0.11:
                name = "policy artifact changed" if rng.random() < 0.5 else "policy left alone"
            else:
                name = str(rng.choice([n for n in names if n not in RARE]))
            attempt(world, name, found.setdefault(name, Counter()))
            world.station.people.write_bytes(world.people_json)
    return found


def attempt(world: World, name: str, count: Counter[str]) -> None:
    """One trial of a kind; what came of it is added to ``count``."""
    trial = world.trial("policy" if name in POLICY else "writes")
    approved = trial.signed.proposal  # as it was in the second person's hands
    trial.executor = executor = _executor(trial)
    count["trials"] += 1
    KINDS[name](trial)
    if trial.executor is not executor:
        executor = trial.executor
    verdict = executor.order(_order(trial.id, trial.now_s), trial.seen)
    count["accepted" if verdict.accepted else "refused"] += 1
    count["wrongly accepted"] += verdict.accepted and trial.must == "refuse"
    count["wrongly refused"] += not verdict.accepted and trial.must == "accept"
    if name == "files changed after the order" and verdict.accepted:
        _flip(trial, str(trial.rng.choice(FILES)))
        (trial.folder.path / "proposal.json").write_text("{}")
    asked = _watched(trial, executor, approved, count)
    if verdict.accepted:
        expected = 1 if name in POLICY else len(approved.writes)
        count["wrongly refused"] += trial.must == "accept" and asked < expected
        again = executor.order(_order(trial.id, trial.now_s, "again"), trial.seen)
        later = _executor(trial)
        anew = later.order(_order(trial.id, trial.now_s, "anew"), trial.seen)
        count["used twice"] += again.accepted + anew.accepted
        _watched(trial, later, approved, count)
    if world.artifact.with_name("kept").exists():
        shutil.rmtree(world.artifact)
        world.artifact.with_name("kept").rename(world.artifact)


def _watched(trial: Trial, executor: Executor, approved: Proposal, count: Counter[str]) -> int:
    """Let the roll-out run, compare all that is asked for, and return how many commands were asked for in the end."""
    world, asked = trial.world, 0
    allowed = commands_of(world.plate, approved.writes)
    back = commands_of(world.plate, approved.rollback)
    policy = world.policy if approved.policy is not None else None
    memory = None if policy is None else policy.start(1)
    for k in range(6):
        seen = world.seen(k, 10.0 * k)
        if policy is not None and memory is not None:
            observation = _observation(world, seen)
            said, memory = policy.act(observation, memory)
            allowed = {name: value[0] for name, value in said.items()}
        requests = executor.requests(seen)
        told = executor.executions().get(approved.id)
        rolling_back = told is not None and told["status"] == "rolling back"
        begun = {a for s in approved.stages[: 1 + k] for a in s.agents}
        for request in requests:
            count["slots other than 14"] += request.slot != 14
            for g in world.plate.groups:
                said_here = (back if rolling_back else allowed)[g.name]
                here = ~np.isnan(request.values[g.name])
                fits = request.values[g.name].view(np.int64) == said_here.view(np.int64)
                begun_here = np.array([f"{g.name}/{a}" in begun for a in g.assets])[:, None]
                count["differing writes"] += int((here & ~(fits & begun_here)).sum())
                asked = int(here.sum()) if k == 5 else asked
    return asked


def _observation(world: World, seen: Circumstances) -> Any:
    from ...envs.twin import Observation

    return Observation(
        {n: v[None] for n, v in seen.values.items()},
        {g.name: g.statics_array()[None] for g in world.plate.groups},
        {n: t[None] for n, t in seen.trusted.items()},
        world.plate.period_s,
    )


def _executor(trial: Trial) -> Executor:
    executor = Executor(trial.world.station, trial.declaration, clock_s=lambda: trial.now_s)
    executor.start()
    return executor


def _order(id: str, now_s: float, suffix: str = "first") -> Order:
    return Order(id=f"order-{suffix}-{id}"[:64], kind="execute", by="anna", utc_s=now_s, expires_utc_s=now_s + 10.0,
                 proposal=id)  # fmt: skip


def _flip(trial: Trial, name: str) -> None:
    """Another byte somewhere in a file."""
    path = trial.world.station.people if name == "people.json" else trial.folder.path / name
    data = bytearray(path.read_bytes())
    place = int(trial.rng.integers(len(data)))
    other = int(trial.rng.integers(1, 256)) ^ data[place]
    if trial.rng.random() < 0.7:  # mostly one that leaves the file readable
        other = int(trial.rng.choice(list(b"0123456789abcdef.e-,")))
    data[place] = other if other != data[place] else ord("7") if data[place] != ord("7") else ord("8")
    path.write_bytes(bytes(data))


def _left_alone(t: Trial) -> None:
    t.must = "accept"
    t.save()


def _byte(t: Trial, name: str) -> None:
    t.must = "either"  # a byte of a sealed key, or of a recheck's margins, means nothing to control
    t.save()
    _flip(t, name)


def _cut(t: Trial) -> None:
    t.save()
    path = t.folder.path / str(t.rng.choice(FILES))
    data = path.read_bytes()
    path.write_bytes(data[: int(t.rng.integers(len(data)))])


def _other_value(t: Trial) -> None:
    """Another value, the hash in the approval put right, the signatures left."""
    proposal = t.signed.proposal
    name = str(t.rng.choice(list(proposal.writes)))
    value = float(np.nextafter(proposal.writes[name], 1e9))
    changed = proposal.model_copy(update={"writes": {**proposal.writes, name: value}})
    t.signed = t.signed.model_copy(update={"proposal": changed})
    if t.rng.random() < 0.5:
        t.approval = t.approval.model_copy(update={"proposal": changed.hash})
        t.recheck = t.recheck.model_copy(update={"proposal": changed.hash})
    t.save()


def _resigned(t: Trial) -> None:
    """Another value signed by a key that nobody vouches for, put into people.json by who can write files."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    proposal, forged = t.signed.proposal, Ed25519PrivateKey.generate()
    changed = proposal.model_copy(update={"writes": dict.fromkeys(proposal.writes, 99.0)})
    t.signed = SignedProposal.of(changed, forged)
    t.approval = _signed_anew(t.approval.model_copy(update={"proposal": changed.hash}), forged)
    t.recheck = t.recheck.model_copy(update={"proposal": changed.hash})
    data = json.loads(t.world.people_json)
    for name in (proposal.by, t.approval.by):
        data["people"][name]["public_key"] = forged.public_key().public_bytes_raw().hex()
    t.world.station.people.write_text(json.dumps(data))
    t.save()


def _signed_anew(approval: Approval, key: Ed25519PrivateKey) -> Approval:
    return approval.model_copy(update={"signature": key.sign(approval.message).hex()})


def _expired(t: Trial) -> None:
    t.now_s = t.approval.expires_utc_s + float(t.rng.choice([0.0, 1.0, 3600.0, 7 * 86400.0]))
    t.recheck = t.recheck.model_copy(update={"utc_s": t.now_s})
    t.save()


def _expiry_moved(t: Trial) -> None:
    """Run out, and the times in the file moved on."""
    t.now_s += 7 * 86400.0
    t.approval = t.approval.model_copy(update={"expires_utc_s": t.now_s + 100.0})
    t.recheck = t.recheck.model_copy(update={"utc_s": t.now_s})
    t.save()


def _future(t: Trial) -> None:
    t.now_s -= float(t.rng.choice([200.0, 3600.0, 86400.0]))
    t.recheck = t.recheck.model_copy(update={"utc_s": t.now_s})
    t.save()


def _self_approved(t: Trial) -> None:
    by = t.signed.proposal.by
    t.approval = _signed_anew(t.approval.model_copy(update={"by": by}), t.world.keys[by])
    t.save()


def _second_name(t: Trial) -> None:
    """The proposer's key under a second name, for which even the administrator vouched."""
    from ...deploy.station.people import _told

    data = json.loads(t.world.people_json)
    twin = dict(data["people"][t.signed.proposal.by])
    message = _told("dora", "approver", twin["public_key"])
    data["people"]["dora"] = {**twin, "role": "approver", "vouched": t.world.keys["root"].sign(message).hex()}
    t.world.station.people.write_text(json.dumps(data))
    t.approval = _signed_anew(t.approval.model_copy(update={"by": "dora"}), t.world.keys[t.signed.proposal.by])
    t.save()


def _by_viewer(t: Trial) -> None:
    t.approval = _signed_anew(t.approval.model_copy(update={"by": "vera"}), t.world.keys["vera"])
    if t.rng.random() < 0.5:  # with the role put up in the file
        data = json.loads(t.world.people_json)
        data["people"]["vera"]["role"] = "approver"
        t.world.station.people.write_text(json.dumps(data))
    t.save()


def _removed(t: Trial) -> None:
    data = json.loads(t.world.people_json)
    del data["people"][t.approval.by]
    t.world.station.people.write_text(json.dumps(data))
    t.save()


def _wrong_proposal(t: Trial) -> None:
    """An approval, and perhaps a recheck, of another proposal."""
    other = t.world.trial()
    t.approval = other.approval
    if t.rng.random() < 0.5:
        t.recheck = other.recheck
    t.save()


def _replay(t: Trial) -> None:
    """Carried out before; then the same again, perhaps after a restart, perhaps with what remains of it deleted."""
    t.save()
    assert t.executor is not None
    if not t.executor.order(_order(t.id, t.now_s, "before"), t.seen).accepted:
        raise RuntimeError("what was to be replayed was refused at first")
    t.executor = _executor(t)
    if t.rng.random() < 0.5:
        (t.folder.path / "execution.json").unlink()


def _new_nonce(t: Trial) -> None:
    """As a replay, with another nonce in the approval; half the time signed by the approver himself."""
    _replay(t)
    approval = t.approval.model_copy(update={"nonce": f"{int(t.rng.integers(2**62)):032x}"})
    if t.rng.random() < 0.5:
        approval = _signed_anew(approval, t.world.keys[approval.by])
    t.write("approval.json", approval.model_dump(mode="json"))


def _two_tabs(t: Trial) -> None:
    """Two approvals filed at once, and the order twice, under one id or two: one execution."""
    t.must = "refuse"
    t.save()
    second = approve(t.signed, t.world.people, t.approval.by, t.world.keys[t.approval.by], now_utc_s=t.now_s - 0.5)
    if t.folder.file_approval(second, t.now_s) != t.approval:
        raise RuntimeError("a second approval took the place of the first")
    assert t.executor is not None
    suffix = "first" if t.rng.random() < 0.5 else "other"
    if not t.executor.order(_order(t.id, t.now_s, suffix), t.seen).accepted:
        raise RuntimeError("the first of two orders was refused")


def _limits(t: Trial) -> None:
    t.declaration = t.world.tighter if t.rng.random() < 0.5 else t.world.elsewhere
    t.executor = _executor(t)
    t.save()


def _moved(t: Trial) -> None:
    t.seen = t.world.seen(0, 0.0, flow=50.0 + float(t.rng.choice([-6.0, 5.001, 40.0, np.nan])))
    t.save()


def _mode(t: Trial) -> None:
    t.seen = t.world.seen(0, 0.0, mode=Mode(str(t.rng.choice(["shadow", "advise", "backup", "tripped"]))))
    t.save()


def _stale(t: Trial) -> None:
    age_s = float(t.rng.choice([30.0, 100.0, -60.0]))
    changes: list[dict[str, Any]] = [
        {"utc_s": t.now_s - age_s}, {"verdict": "it moved too far"}, {"proposal": "1" * 64}, {"windows": ()},
    ]  # fmt: skip
    t.recheck = t.recheck.model_copy(update=changes[int(t.rng.integers(len(changes)))])
    t.save()
    if t.rng.random() < 0.2:
        (t.folder.path / "recheck.json").unlink()


def _policy_changed(t: Trial) -> None:
    t.save()
    artifact = t.world.artifact
    shutil.copytree(artifact, artifact.with_name("kept"))
    if t.rng.random() < 0.5:
        _artifact(artifact, t.world.plate, seed=int(t.rng.integers(1, 1000)))
        return
    path = sorted(p for p in artifact.iterdir() if p.name != "report.json")[int(t.rng.integers(4))]
    data = bytearray(path.read_bytes())
    data[int(t.rng.integers(len(data)))] ^= int(t.rng.integers(1, 256))
    path.write_bytes(bytes(data))


KINDS: dict[str, Callable[[Trial], None]] = {
    "left alone": _left_alone,
    "policy left alone": _left_alone,
    "files changed after the order": _left_alone,
    "a byte of proposal.json": lambda t: _byte(t, "proposal.json"),
    "a byte of approval.json": lambda t: _byte(t, "approval.json"),
    "a byte of recheck.json": lambda t: _byte(t, "recheck.json"),
    "a byte of people.json": lambda t: _byte(t, "people.json"),
    "a file cut off": _cut,
    "another value, hashes put right": _other_value,
    "another value, signed by a key of one's own": _resigned,
    "run out": _expired,
    "run out, times in the file moved": _expiry_moved,
    "control's clock behind": _future,
    "self-approval": _self_approved,
    "the same key under a second name": _second_name,
    "approved by a viewer": _by_viewer,
    "approver removed": _removed,
    "approval of another proposal": _wrong_proposal,
    "replay": _replay,
    "replay with a new nonce": _new_nonce,
    "two tabs": _two_tabs,
    "other limits or nameplate in control": _limits,
    "the plant has moved": _moved,
    "no authority": _mode,
    "recheck old, missing or against it": _stale,
    "policy artifact changed": _policy_changed,
}
POLICY = ("policy left alone", "policy artifact changed")
RARE = ("left alone", *POLICY)
WRONG = ("differing writes", "wrongly accepted", "wrongly refused", "used twice", "slots other than 14")
COLUMNS = ("what was done", "trials", "accepted", "refused", *WRONG)


def _nameplate() -> Nameplate:
    flow = Signal("flow_m3ph", "m3/h", 0.0, 100.0)
    return Nameplate(
        "pumps", 10.0, (Group("pump", ("P1", "P2", "P3"), (flow,), (Signal("flow_m3ph", "m3/h", 0.0, 100.0),)),)
    )


def _artifact(folder: Path, plate: Nameplate, seed: int = 0) -> Path:
    group, rng = plate.group("pump"), np.random.default_rng(seed)
    n = OwnSignalsEncoder(plate, "pump").n_features
    layer = Dense(rng.normal(size=(1, n, 1)).astype(np.float32), np.zeros((1, 1), np.float32))
    network = PolicyNetwork(np.zeros(n), np.ones(n), 5.0, (layer,), ActionLayout.of(group, ["flow_m3ph"]))
    return save_artifact(
        folder, nameplate=plate, weights={"pump": network}, encoders={}, scope="site", provenance={}, report={}
    )
