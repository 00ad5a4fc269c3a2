"""An approved proposal, simulated anew from where the plant is now, by the live twin's process."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...envs.constraint import declaration_of_site
from ...envs.constraint.declaration import Declaration
from ...envs.errors import TwinloopError
from ...envs.registry import Site
from ..station.folder import StationFolder
from .assessment import Assessment, assess
from .folder import ProposalFolder, Recheck, proposal_ids
from .present import today_of
from .proposal import Proposal
from .propose import Change, Today, artifact_change, plan_of

if TYPE_CHECKING:
    from ..live_twin import LiveTwin

_LOG = logging.getLogger(__name__)

EVERY_S = 10.0
"""How often; control takes none that is older than three times as much."""
MOST_WIDER = 1.5


def recheck(station: StationFolder, live: LiveTwin, site: Site, site_config: Any) -> None:
    """Called once a period: simulates each approved proposal that waits to be executed anew, every ten seconds.

    Costs a look into the folder where there is none. Never raises for what stands in a folder.
    """
    for id in proposal_ids(station):
        folder = ProposalFolder(station, id)
        if not (folder.path / "approval.json").exists() or (folder.path / "execution.json").exists():
            continue
        now_s = time.time()
        try:
            proposal, approval, before = folder.signed().proposal, folder.approval(), _before(folder)
            if approval is None or approval.expires_utc_s <= now_s or proposal.valid_until_utc_s <= now_s:
                continue
            if before is not None and 0.0 <= now_s - before.utc_s < EVERY_S:
                continue
            declaration = declaration_of_site(site, site_config)
            folder.write_recheck(rechecked(proposal, live, declaration, today_of(station, declaration.nameplate)))
        except TwinloopError as error:
            _LOG.warning("proposal %s: not rechecked: %s", id, error)


def rechecked(proposal: Proposal, live: LiveTwin, declaration: Declaration, today: Today) -> Recheck:
    """The proposal at the twin's present state, and whether it still holds."""
    told = {"proposal": proposal.hash, "utc_s": time.time(), "time_s": live.time_s}
    plate = declaration.nameplate
    verdict = live.verdict()
    fault = "" if verdict.open else verdict.why
    if not fault and proposal.nameplate_hash != plate.hash:
        fault = "it is for another nameplate than the twin's"
    if not fault and proposal.limits_hash != declaration.hash:
        fault = "it is for other limits than the twin's"
    if not fault and proposal.today != today.name:
        fault = f"it was compared with {proposal.today}, and {today.name} runs now"
    if fault:
        return Recheck(verdict=fault, **told)
    try:
        change = _change(proposal, declaration)
        found = assess(
            live, declaration, today.accepted, today.commander, lambda: change.commander(plate),
            plan_of(proposal, plate), proposal.gain.signal, proposal.gain.references,
        )  # fmt: skip
    except TwinloopError as error:
        return Recheck(verdict=str(error), **told)
    said = found.promise
    return Recheck(
        verdict=_disagreement(proposal, found), mean=said.means[-1], low=said.lows[-1], high=said.highs[-1],
        windows=said.windows, margins=dict(found.margins), **told,
    )  # fmt: skip


def _change(proposal: Proposal, declaration: Declaration) -> Change:
    if proposal.policy is None:
        return Change(proposal.writes)
    change = artifact_change(Path(proposal.policy.path), declaration.nameplate)
    if change.reference is None or change.reference.hash != proposal.policy.hash:
        raise TwinloopError(f"{proposal.policy.path} holds another policy than the one that is proposed")
    return change


def _disagreement(proposal: Proposal, found: Assessment) -> str:
    """Where the plant's present state promises something else; empty where it does not."""
    gain, said = proposal.gain, found.promise
    mean, width = said.means[-1], said.highs[-1] - said.lows[-1]
    unit = gain.unit
    if not gain.low <= mean <= gain.high:
        return f"now it promises {mean:.4g} {unit}, outside of {gain.low:.4g} to {gain.high:.4g}; propose anew"
    if width > MOST_WIDER * (gain.high - gain.low):
        return f"its effect is now uncertain by {width:.3g} {unit}, was by {gain.high - gain.low:.3g}; propose anew"
    for name, margin in found.margins.items():
        was = proposal.margins.get(name)
        if was is None or margin < min(0.0, was) - 1e-9 * (1.0 + abs(was)):
            return f"{name!r} would now be broken by {-margin:.3g}; propose anew"
    return ""


def _before(folder: ProposalFolder) -> Recheck | None:
    """The last one, if it can be read; a damaged one is written anew."""
    try:
        return folder.recheck()
    except TwinloopError:
        return None
