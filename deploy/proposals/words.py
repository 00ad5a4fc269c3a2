"""A proposal in words, for terminals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from ...envs.errors import ConfigurationError
from .folder import ProposalFolder
from .proposal import Proposal

_MOST_SHOWN = 12


def describe(proposal: Proposal) -> Iterator[str]:
    """Line by line, all that somebody who approves it should know."""
    gain = proposal.gain
    yield f"proposal   {proposal.id}, by {proposal.by}: {proposal.reason}"
    yield f"valid      from {_utc(proposal.created_utc_s)} to {_utc(proposal.valid_until_utc_s)}"
    if proposal.policy is not None:
        yield f"policy     {proposal.policy.name}, {proposal.policy.hash[:16]}, from {proposal.policy.path}"
    for name, value in list(proposal.writes.items())[:_MOST_SHOWN]:
        yield f"write      {name} = {value:g} (back to {proposal.rollback[name]:g})"
    if len(proposal.writes) > _MOST_SHOWN:
        yield f"           and {len(proposal.writes) - _MOST_SHOWN} more; all stand in proposal.json"
    yield (
        f"effect     {gain.signal}: {gain.mean:+.4g} {gain.unit}, measured between {gain.low:+.4g} and "
        f"{gain.high:+.4g} ({gain.level:.0%}); by itself {gain.surely_low:+.4g} to {gain.surely_high:+.4g}"
    )
    yield f"           compared with {proposal.today}, {gain.today:.4g} {gain.unit}; {proposal.n_replicas} replicas"
    for name, margin in sorted(proposal.margins.items(), key=lambda item: item[1])[:_MOST_SHOWN]:
        yield f"margin     {name}: {margin:.4g}"
    twin = proposal.twin
    yield f"twin       NIS {twin.nis:.2f}, coverage {twin.coverage:.2f}, state {twin.state_sha256[:16]}"
    for number, stage in enumerate(proposal.stages, 1):
        yield f"stage {number:2d}   {', '.join(stage.agents)}: {stage.low:+.4g} to {stage.high:+.4g} {gain.unit}"
    yield (
        f"times      {proposal.stage_s:g} s a stage, measured for {proposal.measure_s:g} s, stands for "
        f"{proposal.lasts_s:g} s in all"
    )
    yield f"hash       {proposal.hash}"


def standing(folder: ProposalFolder, now_utc_s: float | None = None) -> str:
    """How it stands, in a few words."""
    now_s = time.time() if now_utc_s is None else now_utc_s
    try:
        proposal, approval, execution = folder.signed().proposal, folder.approval(), folder.execution()
    except ConfigurationError as error:
        return f"damaged: {error}"
    if execution is not None:
        return f"{execution.status}: {execution.why}"
    if now_s >= proposal.valid_until_utc_s:
        return "no longer valid"
    if approval is None:
        return "waits for an approver"
    if now_s >= approval.expires_utc_s:
        return f"approval of {approval.by} has run out"
    return f"approved by {approval.by}, waits to be executed"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
