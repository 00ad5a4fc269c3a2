"""What a roll-out is to do: which package goes to which sites, in which groups, and when that counts as a success."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from ...envs.configuration import Strict, load
from ...envs.errors import ConfigurationError, PackageError
from ...envs.nameplate import digest
from ..proposals.approval import Approval
from ..station.people import People

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

APPROVAL_LASTS_S = 8 * 3600.0


class Target(Strict):
    """One machine. ``station``: its station's folder, whose control must take the package up; ``folder``: where to
    install where no station runs, for the plant of the file ``plant``."""

    station: Path | None = None
    folder: Path | None = None
    plant: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Target:
        if (self.station is None) == (self.folder is None):
            raise ValueError("give either station (the folder of a running station) or folder (with plant)")
        if self.folder is not None and self.plant is None:
            raise ValueError("a folder needs plant, the file that tells which site is there")
        return self


class Group(Strict):
    """Targets that go together. The next group follows when ``success_pu`` of them succeeded, else the roll-out pauses.

    More failed targets than ``errors_n``, if they are a larger share than ``errors_pu`` too, end all of it: what was
    installed is taken back everywhere.
    """

    name: str
    targets: tuple[str, ...] = Field(min_length=1)
    success_pu: float = Field(1.0, gt=0.0, le=1.0)
    errors_n: NonNegativeInt = 0
    errors_pu: float = Field(0.0, ge=0.0, le=1.0)


class Plan(Strict):
    """The file of a roll-out. Paths are relative to it.

    ``hold_s``: how long a station must run the new policy, without an asset tripped, for success; ``timeout_s``: how
    long that may take to begin; ``stale_s``: the age from which a station's news count as none.
    """

    kind: Literal["rollout"] = "rollout"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
    package: Path
    public: tuple[Path, ...] = Field(min_length=1)
    people: Path
    by: str = Field(description="who proposes it; another person approves")
    targets: dict[str, Target]
    groups: tuple[Group, ...] = Field(min_length=1)
    hold_s: NonNegativeFloat = 600.0
    timeout_s: PositiveFloat = 3600.0
    stale_s: PositiveFloat = 30.0
    allow_older: bool = False

    @model_validator(mode="after")
    def _every_target_once(self) -> Plan:
        named = [name for group in self.groups for name in group.targets]
        wrong = sorted(
            {n for n in named if n not in self.targets or named.count(n) > 1} | (set(self.targets) - {*named})
        )
        if wrong:
            raise ValueError(f"targets {', '.join(wrong)}: each target stands in exactly one group")
        return self


def load_plan(path: Path) -> Plan:
    """Read a plan; relative paths in it are taken from its own folder."""
    plan, base = load(path, Plan), Path(path).absolute().parent

    def target(given: Target) -> dict[str, Any]:
        return {k: None if v is None else base / v for k, v in given.model_dump().items()}

    return plan.model_copy(
        update={
            "package": base / plan.package,
            "public": tuple(base / p for p in plan.public),
            "people": base / plan.people,
            "targets": {name: Target(**target(given)) for name, given in plan.targets.items()},
        }
    )


def plan_hash(plan: Plan) -> str:
    """What is approved: the plan, and every byte of the package and of the public keys that it names."""
    try:
        files = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in (plan.package, *plan.public)}
    except OSError as error:
        raise PackageError(f"{plan.name}: {error.filename} cannot be read ({error.strerror}); put it there") from error
    return digest({"what": "package rollout 1", "plan": plan.model_dump(mode="json"), "files": files})


def fault_of_approver(plan: Plan, people: People, by: str) -> str:
    """Why ``by`` may not approve the plan, in words; empty where nothing stands against it."""
    if not people.may(plan.by, "propose"):
        return f"by: {plan.by} may not propose here; needed is an operator or an approver"
    if not people.may(by, "approve"):
        return f"{by} may not approve here; needed is an approver"
    if by == plan.by or people[by].public_key == people[plan.by].public_key:
        return f"{by} proposed it; another person must approve it"
    return ""


def approve_plan(plan: Plan, people: People, by: str, key: Ed25519PrivateKey, now_utc_s: float) -> Approval:
    """Approve a plan in the name of ``by``; raises :class:`ConfigurationError` where he may not."""
    fault = fault_of_approver(plan, people, by)
    if fault:
        raise ConfigurationError(f"{plan.name}: {fault}")
    bare = Approval(
        proposal=plan_hash(plan),
        by=by,
        utc_s=now_utc_s,
        expires_utc_s=now_utc_s + APPROVAL_LASTS_S,
        nonce=secrets.token_hex(16),
        signature="0" * 128,
    )
    return bare.model_copy(update={"signature": key.sign(bare.message).hex()})


def fault_of_approval(plan: Plan, people: People, approval: Approval, now_utc_s: float) -> str:
    """Why an approval does not let a plan begin, in words; empty where it does."""
    fault = fault_of_approver(plan, people, approval.by)
    if fault:
        return fault
    if approval.proposal != plan_hash(plan):
        return "plan, package or keys have changed since they were approved; have it approved again"
    if not approval.is_by(people[approval.by].public_key):
        return f"the approval is not signed by {approval.by}; have it approved again"
    if not approval.utc_s <= now_utc_s < approval.expires_utc_s:
        return "the approval is not of now (it waits for hours at most, and clocks must agree); have it approved again"
    return ""
