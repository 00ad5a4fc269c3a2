"""What is proposed, in exact numbers: the writes or the policy, what it promises, and how to go back.

A proposal is plain data with one hash over all of it. Who proposes signs that hash, who approves signs it too, and the
control process compares it with what it is about to do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ...envs.configuration import Strict
from ..station.order import OrderId
from ..station.people import Name, Signature, confirms

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LEVEL = 0.90


class PolicyReference(Strict):
    """An artifact by what acts in it (``hash``, of its manifest); ``path`` is where control loads it from."""

    name: str
    hash: Sha256
    path: str


class TwinStand(Strict):
    """The live twin that it was worked out from: the SHA-256 of its state, and what its gate said."""

    state_sha256: Sha256
    time_s: float
    open: bool
    nis: float
    coverage: float


class Reference(Strict):
    """Something measured that the change does not touch, and that tells how conditions moved: the mean of ``signal``
    (``group/signal``) over ``agents``. ``turn``: the span of a circular signal, whose values count as near ``origin``
    as they can be; 0 for all others."""

    signal: str
    agents: tuple[str, ...] = Field(min_length=1)
    origin: float = 0.0
    turn: float = Field(0.0, ge=0.0)


class Gain(Strict):
    """The promise about one measured effect.

    The effect is the mean of the sum of ``signal`` over its group while all stages act, from readings of the plant,
    less what the twin forecasts for the same time under today's policy. That forecast is made anew at execution, and
    moves on with what ``references`` then read (:class:`~.effect.Window`). ``low`` and ``high`` hold the effect with
    probability ``level``: they contain what else the wind or any other drift may do meanwhile, error of the model, and
    noise of the readings. ``surely_low`` and ``surely_high`` are of the gain alone, both sides under the same chance.
    ``today``: the forecast when it was proposed.
    """

    signal: str
    unit: str
    today: float
    mean: float
    low: float
    high: float
    surely_low: float
    surely_high: float
    references: tuple[Reference, ...] = ()
    level: float = Field(LEVEL, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> Gain:
        if self.low > self.high or self.surely_low > self.surely_high:
            raise ValueError("the interval's ends are the wrong way round")
        return self


class StageCheck(Strict):
    """A stage of the roll-out: where the mean effect over it must be to go on, with probability ``level``."""

    agents: tuple[str, ...] = Field(min_length=1)
    low: float
    high: float
    level: float = Field(0.99, gt=0.0, lt=1.0)


class Proposal(Strict):
    """A change, exactly. Values by full name ``group/asset/signal`` in the nameplate's units; times in seconds.

    ``writes`` (kind ``writes``) stand for ``lasts_s`` from their first stage; ``policy`` (kind ``policy``) acts as
    long. ``rollback``: commands that are asked for to go back; afterwards the slot is released. ``measured``: the
    plant's state that all of it was worked out for; execution is refused where a reading is further off than its
    ``tolerance``. ``margins``: of each constraint under the proposal, the worst of all replicas and periods, positive
    inside. Stages begin ``stage_s`` apart; the effect is judged over ``measure_s`` after the last of them has had its.
    """

    format: Literal[1] = 1
    id: OrderId
    kind: Literal["writes", "policy"]
    by: Name
    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    created_utc_s: float
    valid_until_utc_s: float
    site: str
    nameplate_hash: Sha256
    limits_hash: Sha256
    writes: dict[str, float] = Field(default_factory=dict)
    policy: PolicyReference | None = None
    today: Annotated[str, Field(description="what it is compared with: the running policy, or 'hold'")] = "hold"
    lasts_s: PositiveFloat
    rollback: dict[str, float]
    twin: TwinStand
    measured: dict[str, float]
    tolerance: dict[str, PositiveFloat]
    horizon_s: PositiveFloat
    n_replicas: PositiveInt
    gain: Gain
    margins: dict[str, float]
    stages: tuple[StageCheck, ...] = Field(min_length=1)
    stage_s: PositiveFloat
    measure_s: PositiveFloat
    most_fallback_periods: int = Field(
        0, ge=0, description="periods of a stage in which fallback may act for its assets"
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Proposal:
        if (self.kind == "writes") != bool(self.writes) or (self.kind == "policy") != (self.policy is not None):
            raise ValueError(f"kind {self.kind!r}: give writes for kind writes, a policy for kind policy, not both")
        if self.valid_until_utc_s <= self.created_utc_s:
            raise ValueError("valid_until_utc_s must come after created_utc_s")
        if self.lasts_s < self.judged_after_s:
            raise ValueError(
                f"lasts_s {self.lasts_s:g} ends before the effect is measured, after {self.judged_after_s:g} s"
            )
        if set(self.measured) != set(self.tolerance):
            raise ValueError("measured and tolerance must be of the same signals")
        agents = self.agents
        if len(set(agents)) != len(agents):
            raise ValueError("an asset stands in two stages; each belongs to one")
        strangers = {name.rpartition("/")[0] for name in (*self.writes, *self.rollback)} - set(agents)
        if strangers:
            raise ValueError(f"{', '.join(sorted(strangers))}: has writes or rollback values and no stage")
        if self.kind == "writes" and set(self.writes) != set(self.rollback):
            raise ValueError("writes and rollback must be of the same signals")
        return self

    @property
    def agents(self) -> tuple[str, ...]:
        """All assets, in the order of the roll-out."""
        return tuple(agent for stage in self.stages for agent in stage.agents)

    @property
    def rolled_out_after_s(self) -> float:
        return len(self.stages) * self.stage_s

    @property
    def judged_after_s(self) -> float:
        return self.rolled_out_after_s + self.measure_s

    @property
    def hash(self) -> str:
        """SHA-256 over all of it; two numbers that differ in one bit give two hashes."""
        return canonical_hash(self.model_dump(mode="json"))


class SignedProposal(Strict):
    """What ``proposal.json`` holds: a proposal, and the proposer's signature of its hash."""

    proposal: Proposal
    signature: Signature

    @staticmethod
    def of(proposal: Proposal, key: Ed25519PrivateKey) -> SignedProposal:
        return SignedProposal(proposal=proposal, signature=key.sign(_message(proposal)).hex())

    def is_by(self, public_key: str) -> bool:
        """Whether the owner of ``public_key`` signed it."""
        return confirms(public_key, self.signature, _message(self.proposal))


def canonical_hash(data: Any) -> str:
    """SHA-256 of plain data: sorted keys, no spaces, floats by their shortest exact form."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _message(proposal: Proposal) -> bytes:
    return b"twinloop proposal 1\n" + proposal.hash.encode()
