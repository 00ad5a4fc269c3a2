"""A second person's word on one proposal: signed, good for a while, and once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ...envs.configuration import Strict
from ...envs.errors import ConfigurationError
from ..station.people import Name, People, Signature, confirms
from .proposal import Sha256, SignedProposal, canonical_hash

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LASTS_S = 900.0
"""How long an approval waits to be executed."""
LONGEST_S = 8 * 3600.0


class Approval(Strict):
    """``proposal``: the hash that is approved. ``nonce``: what makes it good once. ``signature``: over all the rest."""

    format: Literal[1] = 1
    proposal: Sha256
    by: Name
    utc_s: float
    expires_utc_s: float
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Signature

    @property
    def message(self) -> bytes:
        """What is signed."""
        return b"twinloop approval 1\n" + canonical_hash(self.model_dump(mode="json", exclude={"signature"})).encode()

    def is_by(self, public_key: str) -> bool:
        """Whether the owner of ``public_key`` signed it."""
        return confirms(public_key, self.signature, self.message)


def approve(signed: SignedProposal, people: People, by: str, key: Ed25519PrivateKey, *, now_utc_s: float,
            lasts_s: float = LASTS_S) -> Approval:  # fmt: skip
    """Approve a proposal in the name of ``by``, whose unlocked ``key`` it is (:meth:`People.unlock`).

    It lasts no longer than the proposal. Raises :class:`ConfigurationError` where he may not: no approver, his own
    proposal under this or another name, a proposal that its proposer did not sign, one that is no longer valid.
    """
    proposal = signed.proposal
    fault = second_person_fault(signed, people, by)
    if fault:
        raise ConfigurationError(f"proposal {proposal.id}: {fault}")
    if key.public_key().public_bytes_raw().hex() != people[by].public_key:
        raise ConfigurationError(f"proposal {proposal.id}: the key is not {by}'s; unlock it with {by}'s password")
    if not proposal.created_utc_s <= now_utc_s < proposal.valid_until_utc_s:
        raise ConfigurationError(
            f"proposal {proposal.id}: is valid from {proposal.created_utc_s:.0f} to {proposal.valid_until_utc_s:.0f} "
            f"(UTC s), now is {now_utc_s:.0f}; propose anew"
        )
    if not 0.0 < lasts_s <= LONGEST_S:
        raise ConfigurationError(f"an approval for {lasts_s:g} s; give more than 0 and at most {LONGEST_S:g}")
    bare = Approval(
        proposal=proposal.hash, by=by, utc_s=now_utc_s,
        expires_utc_s=min(now_utc_s + lasts_s, proposal.valid_until_utc_s), nonce=secrets.token_hex(16),
        signature="0" * 128,
    )  # fmt: skip
    return bare.model_copy(update={"signature": key.sign(bare.message).hex()})


def second_person_fault(signed: SignedProposal, people: People, by: str) -> str:
    """Why ``by`` may not approve it, in words; empty where nothing stands against it."""
    proposer = signed.proposal.by
    if not people.may(proposer, "propose"):
        return f"{proposer}, who proposed it, is nobody who may propose here; propose anew"
    if not signed.is_by(people[proposer].public_key):
        return f"it is not signed by {proposer}, who is said to have proposed it; propose anew"
    if by not in people:
        return f"{by} is nobody known here; an approver must approve it"
    if not people.may(by, "approve"):
        return f"{by} is {people[by].role} and may not approve; an approver must"
    if by == proposer or people[by].public_key == people[proposer].public_key:
        return f"{by} proposed it himself; another approver must approve it"
    return ""
