"""What is done to an approved proposal before it is ordered: bytes, values, signatures, people, times, replays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...deploy.proposals.approval import Approval, approve
from ...deploy.proposals.proposal import SignedProposal
from ...deploy.shield import Mode
from .proposal_world import FILES, Trial, execute_order, started_executor, write_artifact

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def flip_byte(trial: Trial, name: str) -> None:
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
    flip_byte(t, name)


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
    if not t.executor.order(execute_order(t.id, t.now_s, "before"), t.seen).accepted:
        raise RuntimeError("what was to be replayed was refused at first")
    t.executor = started_executor(t)
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
    if not t.executor.order(execute_order(t.id, t.now_s, suffix), t.seen).accepted:
        raise RuntimeError("the first of two orders was refused")


def _limits(t: Trial) -> None:
    t.declaration = t.world.tighter if t.rng.random() < 0.5 else t.world.elsewhere
    t.executor = started_executor(t)
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
        write_artifact(artifact, t.world.plate, seed=int(t.rng.integers(1, 1000)))
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
"""By name. Each puts the trial's files on disk; the order that comes then must be refused unless ``must`` says so."""
POLICY = ("policy left alone", "policy artifact changed")
"""Kinds in which a policy is proposed, not writes."""
RARE = ("left alone", *POLICY)
"""Kinds that are not drawn like the rest, but a given share of the time."""
