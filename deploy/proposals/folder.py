"""A proposal's folder in a station: ``proposal.json``, ``approval.json``, ``recheck.json``, ``execution.json``."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ...envs.configuration import Strict
from ...envs.errors import ConfigurationError, nearest
from ..station.folder import StationFolder, read_whole, write_whole
from .approval import Approval
from .effect import Window
from .proposal import Sha256, SignedProposal

M = TypeVar("M", bound=BaseModel)
_ID = re.compile(r"^[A-Za-z0-9_-]{8,64}$")

Status = Literal["rolling out", "measuring", "standing", "paused", "rolling back", "rolled back", "done"]
"""``standing``: measured inside what was promised, and acting until ``lasts_s`` is over; then ``done``."""

ENDED: frozenset[str] = frozenset({"rolled back", "done"})


class Recheck(Strict):
    """What the twin's process says of an approved proposal at its present state.

    ``windows``: what is to be measured is compared with, of each stage and then of the measured time, from ``time_s``
    (the plant's) on. ``mean``, ``low``, ``high``: of the effect as now promised. ``verdict``: empty where the proposal
    still holds, else what does not; there may then be no numbers.
    """

    proposal: Sha256
    utc_s: float
    time_s: float
    verdict: str
    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0
    windows: tuple[Window, ...] = ()
    margins: dict[str, float] = Field(default_factory=dict)


class Execution(Strict):
    """How a roll-out stands. ``agents``: of the stages begun. ``effects``: measured of each stage that is over, and
    then of the whole; None where too little was readable, or a pause lay in between."""

    proposal: Sha256
    nonce: str
    approved_by: str
    status: Status
    why: str
    stage: int
    n_stages: int
    agents: tuple[str, ...]
    begun_utc_s: float
    changed_utc_s: float
    effects: tuple[float | None, ...] = ()


class ProposalFolder:
    """Files of one proposal; raises :class:`ConfigurationError` for an id that is none."""

    def __init__(self, station: StationFolder, id: str) -> None:
        if not _ID.match(id):
            raise ConfigurationError(f"proposal {id!r}: an id is 8 to 64 of letters, digits, - and _")
        self.id = id
        self.path = station.proposals / id

    def signed(self) -> SignedProposal:
        """The proposal; raises :class:`ConfigurationError` where there is none, or it is damaged."""
        found = self._read("proposal.json", SignedProposal)
        if found is None:
            beside = [p.name for p in self.path.parent.glob("*") if p.is_dir()] if self.path.parent.is_dir() else []
            raise ConfigurationError(f"proposal {self.id!r}: there is none of that id{nearest(self.id, beside)}")
        if found.proposal.id != self.id:
            raise ConfigurationError(
                f"{self.path}: holds proposal {found.proposal.id!r}; it belongs into its own folder"
            )
        return found

    def approval(self) -> Approval | None:
        return self._read("approval.json", Approval)

    def recheck(self) -> Recheck | None:
        return self._read("recheck.json", Recheck)

    def execution(self) -> Execution | None:
        return self._read("execution.json", Execution)

    def file_proposal(self, signed: SignedProposal) -> None:
        """Put a new proposal there; one of that id must not exist."""
        try:
            self.path.mkdir(mode=0o770, parents=True)
        except FileExistsError:
            raise ConfigurationError(f"proposal {self.id}: is there already; nothing was changed") from None
        write_whole(self.path / "proposal.json", signed.model_dump(mode="json"))

    def file_approval(self, approval: Approval, now_utc_s: float) -> Approval:
        """Put an approval there, unless one stands that has not expired: then that one counts and is returned.

        So a second browser tab, or a second click, approves nothing twice.
        """
        final = self.path / "approval.json"
        standing = self.approval()
        if standing is not None and (now_utc_s < standing.expires_utc_s or self.execution() is not None):
            return standing
        beside = self.path / f".approval.{approval.nonce}.part"
        write_whole(beside, approval.model_dump(mode="json"))
        if standing is not None:
            beside.replace(final)
            return approval
        try:
            os.link(beside, final)  # fails where another one came first, which replacing would not
        except FileExistsError:
            return self.approval() or approval
        finally:
            beside.unlink(missing_ok=True)
        return approval

    def write_recheck(self, recheck: Recheck) -> None:
        write_whole(self.path / "recheck.json", recheck.model_dump(mode="json"), durable=False)

    def write_execution(self, execution: Execution) -> None:
        write_whole(self.path / "execution.json", execution.model_dump(mode="json"))

    def _read(self, name: str, model: type[M]) -> M | None:
        path = self.path / name
        try:
            found: Any = read_whole(path)
            return None if found is None else model.model_validate_json(json.dumps(found))
        except (OSError, ValueError, ValidationError, RecursionError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigurationError(f"{path}: is damaged ({first}); propose anew") from error


def proposal_ids(station: StationFolder) -> tuple[str, ...]:
    """All proposals, newest first, by their ids."""
    if not station.proposals.is_dir():
        return ()
    return tuple(
        sorted((p.name for p in station.proposals.iterdir() if _ID.match(p.name) and p.is_dir()), reverse=True)
    )
