"""What must be true before control carries a proposal out. Control finds it out by itself; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...agents.artifact import ArtifactPolicy
from ...envs.errors import ConfigurationError, TwinloopError
from ...envs.nameplate import Nameplate
from ..arbitration.request import Circumstances
from ..shield import Mode
from ..station.folder import StationFolder
from ..station.people import People
from .approval import Approval, second_person_fault
from .effect import near
from .folder import ProposalFolder, Recheck
from .proposal import Proposal, SignedProposal

FRESH_S = 30.0
CLOCK_S = 5.0
"""How far ahead of ours the clocks of those who sign may be."""
SENDING = frozenset({Mode.APPROVED, Mode.AUTONOMOUS, Mode.DEGRADED})


class Refused(TwinloopError):
    """What stands against carrying a proposal out, in one sentence."""


@dataclass(frozen=True)
class Cleared:
    """A proposal against which nothing stands, all as it was read once: what is done follows this, not the files."""

    signed: SignedProposal
    approval: Approval
    recheck: Recheck
    policy: ArtifactPolicy | None

    @property
    def proposal(self) -> Proposal:
        return self.signed.proposal


@dataclass(frozen=True)
class Ours:
    """What control knows without asking anybody: its own nameplate and limits, and the administrators' public keys that
    it found when it started."""

    nameplate: Nameplate
    nameplate_hash: str
    limits_hash: str
    roots: frozenset[str]


def cleared(
    station: StationFolder,
    id: str,
    ours: Ours,
    seen: Circumstances,
    now_utc_s: float,
    used: frozenset[str],
    *,
    graphs: bool = True,
) -> Cleared:
    """Read the proposal's files once and check all of them; raises :class:`Refused` with what stands against it.

    ``used``: hashes of proposals and nonces of approvals that were carried out before. ``graphs``: whether a policy is
    to be evaluated here; a process of its own reads its graphs itself, and is refused if it finds another hash.
    """
    try:
        folder = ProposalFolder(station, id)
        signed, approval, recheck = folder.signed(), folder.approval(), folder.recheck()
        people = People.read(station.people).vouched(ours.roots)
    except ConfigurationError as error:
        raise Refused(_line(error)) from error
    proposal = signed.proposal
    if approval is None:
        raise Refused(f"proposal {id} is approved by nobody; another approver than {proposal.by} must approve it")
    faults = (
        _signatures(signed, approval, people),
        _once(signed, approval, used),
        _clock(proposal, approval, now_utc_s),
        _site(proposal, ours),
        _authority(proposal, seen),
        _state(proposal, ours.nameplate, seen),
    )
    for fault in faults:
        if fault:
            raise Refused(f"proposal {id}: {fault}")
    recheck = _rechecked(proposal, recheck, now_utc_s)
    return Cleared(signed, approval, recheck, _policy(proposal, ours.nameplate, graphs))


def _signatures(signed: SignedProposal, approval: Approval, people: People) -> str:
    if approval.proposal != signed.proposal.hash:
        return "its approval is of another proposal, or it was changed afterwards; have it approved anew"
    fault = second_person_fault(signed, people, approval.by)
    if fault:
        return fault
    if not approval.is_by(people[approval.by].public_key):
        return f"its approval is not signed by {approval.by}; have it approved anew"
    return ""


def _once(signed: SignedProposal, approval: Approval, used: frozenset[str]) -> str:
    if signed.proposal.hash in used or approval.nonce in used:
        return "it was carried out before, and an approval is good once; propose anew"
    return ""


def _clock(proposal: Proposal, approval: Approval, now_utc_s: float) -> str:
    if not math.isfinite(now_utc_s):
        return "control has no clock"
    for what, at_s in (("proposed", proposal.created_utc_s), ("approved", approval.utc_s)):
        if at_s > now_utc_s + CLOCK_S:
            return f"it was {what} {at_s - now_utc_s:.0f} s from now, by this machine's clock; set the clocks right"
    if approval.utc_s < proposal.created_utc_s - CLOCK_S:
        return "it was approved before it was proposed; set the clocks right, and have it approved anew"
    if now_utc_s >= approval.expires_utc_s:
        return f"its approval ran out {now_utc_s - approval.expires_utc_s:.0f} s ago; have it approved anew"
    if now_utc_s >= proposal.valid_until_utc_s:
        return f"it was valid until {now_utc_s - proposal.valid_until_utc_s:.0f} s ago; propose anew"
    return ""


def _site(proposal: Proposal, ours: Ours) -> str:
    if proposal.nameplate_hash != ours.nameplate_hash:
        return (
            f"it is for {proposal.site} with nameplate {proposal.nameplate_hash[:12]}, control has "
            f"{ours.nameplate.site} with {ours.nameplate_hash[:12]}; propose anew"
        )
    if proposal.limits_hash != ours.limits_hash:
        return (
            f"it was worked out under limits {proposal.limits_hash[:12]}, control keeps {ours.limits_hash[:12]}; "
            "propose anew"
        )
    unknown = sorted(set(proposal.agents) - set(ours.nameplate.agents))
    if unknown:
        return f"its roll-out names {unknown[0]}, which is not of this site; propose anew"
    commands = set(ours.nameplate.signal_names("commanded"))
    stranger = next((name for name in (*proposal.writes, *proposal.rollback) if name not in commands), "")
    return f"it writes {stranger}, which is no command of this site; propose anew" if stranger else ""


def _authority(proposal: Proposal, seen: Circumstances) -> str:
    for agent in proposal.agents:
        mode = seen.mode.get(agent)
        if mode not in SENDING:
            return f"{agent} is in mode {mode or 'unknown'}, where nothing approved is sent; order mode approved first"
    return ""


def _state(proposal: Proposal, nameplate: Nameplate, seen: Circumstances) -> str:
    if not seen.values:
        return "there is no reading of the plant yet; try again in a period"
    trusted: Mapping[str, bool] = {
        f"{g.name}/{asset}": bool(seen.trusted[g.name][i]) for g in nameplate.groups for i, asset in enumerate(g.assets)
    }
    for full, value in proposal.measured.items():
        agent, _, name = full.rpartition("/")
        group_name, _, asset = agent.partition("/")
        if agent not in trusted:
            return f"it was worked out from {full}, which is not of this site; propose anew"
        if not trusted[agent]:
            return f"{agent} is not readable now, so that nobody knows whether it still holds; try again later"
        group = nameplate.group(group_name)
        column = next((k for k, s in enumerate(group.measured) if s.name == name), None)
        if column is None:
            return f"it was worked out from {full}, which is not measured here; propose anew"
        signal = group.measured[column]
        read = float(seen.values[group_name][group.assets.index(asset), column])
        off = read - value
        if signal.circular:
            off = float(near(np.array(off), 0.0, signal.maximum - signal.minimum))
        if not abs(off) <= proposal.tolerance[full]:
            return (
                f"{full} is {read:.4g} {signal.unit} and was {value:.4g}, further off than "
                f"{proposal.tolerance[full]:.3g}; propose anew"
            )
    return ""


def _rechecked(proposal: Proposal, recheck: Recheck | None, now_utc_s: float) -> Recheck:
    told = f"proposal {proposal.id}: "
    if recheck is None:
        raise Refused(
            f"{told}the live twin has not simulated it anew since it was approved; is `twinloop twin` running?"
        )
    if recheck.proposal != proposal.hash:
        raise Refused(f"{told}what was simulated anew is another proposal; wait for the live twin")
    age_s = now_utc_s - recheck.utc_s
    if not -CLOCK_S <= age_s < FRESH_S:
        raise Refused(
            f"{told}it was simulated anew {age_s:.0f} s ago, more than {FRESH_S:.0f}; is `twinloop twin` running?"
        )
    if recheck.verdict:
        raise Refused(f"{told}{recheck.verdict}")
    if len(recheck.windows) != len(proposal.stages) + 1 or any(
        len(window.slopes) != len(proposal.gain.references) for window in recheck.windows
    ):
        raise Refused(f"{told}what was simulated anew does not fit its stages; wait for the live twin")
    return recheck


def _policy(proposal: Proposal, nameplate: Nameplate, graphs: bool) -> ArtifactPolicy | None:
    if proposal.policy is None:
        return None
    from ...agents.artifact import load_artifact

    try:
        policy = load_artifact(Path(proposal.policy.path), nameplate, graphs=graphs)
    except (TwinloopError, OSError) as error:
        raise Refused(f"proposal {proposal.id}: {_line(error)}") from error
    if policy.hash != proposal.policy.hash:
        raise Refused(
            f"proposal {proposal.id}: {proposal.policy.path} holds policy {policy.hash[:12]}, approved is "
            f"{proposal.policy.hash[:12]}; propose anew"
        )
    return policy


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
