"""A proposal, worked out from the live twin's present members."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from ...agents.policy import Policy
from ...envs.configuration import Strict
from ...envs.constraint import Declaration
from ...envs.errors import ConfigurationError, nearest
from ...envs.nameplate import Nameplate
from ...envs.plant import Arrays
from .assessment import Assessment, RollOutPlan, assess
from .futures import Commander, Follow, Hold
from .proposal import LEVEL, Gain, PolicyReference, Proposal, StageCheck, TwinStand

if TYPE_CHECKING:
    from ..live_twin import LiveTwin

POWER_SIGNAL = "power_kw"
HOLD = "hold"


class RollOutSettings(Strict):
    """How a change is rolled out and measured; times are rounded up to whole control periods."""

    n_stages: PositiveInt | None = Field(None, description="default: an asset each, five at most, the first of one")
    stage_s: PositiveFloat | None = Field(None, description="default: five periods")
    measure_s: PositiveFloat | None = Field(None, description="default: twenty periods")
    lasts_s: PositiveFloat | None = Field(None, description="default: twice as long as until the effect is judged")
    valid_s: PositiveFloat = 1800.0
    signal: str | None = Field(None, description="group/signal whose sum is the effect; default power_kw")


@dataclass(frozen=True)
class Today:
    """What the change is compared with: the policy that runs, or, without one, that all stays as it is (``hold``)."""

    accepted: Arrays
    policy: Policy | None = None

    @property
    def name(self) -> str:
        return HOLD if self.policy is None else self.policy.name

    def commander(self) -> Commander:
        return Hold(self.accepted) if self.policy is None else Follow(self.policy)


@dataclass(frozen=True)
class Change:
    """``writes`` by full name, or a ``policy`` with where it comes from."""

    writes: Mapping[str, float]
    policy: Policy | None = None
    reference: PolicyReference | None = None

    def commander(self, nameplate: Nameplate) -> Commander:
        return Follow(self.policy) if self.policy is not None else Hold(commands_of(nameplate, self.writes))

    def agents(self, nameplate: Nameplate) -> tuple[str, ...]:
        """Assets that it is about, in the nameplate's order."""
        if self.policy is not None:
            return nameplate.agents
        named = {name.rpartition("/")[0] for name in self.writes}
        return tuple(agent for agent in nameplate.agents if agent in named)


def propose(
    live: LiveTwin,
    declaration: Declaration,
    today: Today,
    change: Change,
    settings: RollOutSettings,
    *,
    id: str,
    by: str,
    reason: str,
    now_utc_s: float,
) -> Proposal:
    """Work a proposal out. Raises :class:`ConfigurationError` where the twin's gate is closed, with its words, and for
    writes that the site does not have or allow."""
    verdict = live.verdict()
    if not verdict.open:
        raise ConfigurationError(verdict.why)
    plate = declaration.nameplate
    check_writes(plate, change.writes)
    agents = change.agents(plate)
    plan = _plan(plate, agents, settings)
    signal = settings.signal or default_signal(plate)
    found = assess(live, declaration, today.accepted, today.commander, lambda: change.commander(plate), plan, signal)
    period_s = plate.period_s
    until_s = plan.n_periods * period_s
    lasts_s = settings.lasts_s or 2.0 * until_s
    obeyed = values_of(plate, today.accepted)
    names = change.writes if change.policy is None else obeyed
    return Proposal(
        id=id,
        kind="writes" if change.policy is None else "policy",
        by=by,
        reason=reason,
        created_utc_s=now_utc_s,
        valid_until_utc_s=now_utc_s + settings.valid_s,
        site=plate.site,
        nameplate_hash=plate.hash,
        limits_hash=declaration.hash,
        writes=dict(change.writes),
        policy=change.reference,
        today=today.name,
        lasts_s=lasts_s,
        rollback={name: obeyed[name] for name in names},
        twin=TwinStand(
            state_sha256=state_hash(live), time_s=live.time_s, open=verdict.open, nis=verdict.nis,
            coverage=verdict.coverage,
        ),
        measured=dict(found.measured),
        tolerance=dict(found.tolerance),
        horizon_s=until_s,
        n_replicas=found.n_replicas,
        gain=_gain(plate, signal, found),
        margins=dict(found.margins),
        stages=tuple(
            StageCheck(agents=stage, low=found.promise.lows[k], high=found.promise.highs[k])
            for k, stage in enumerate(plan.stages)
        ),
        stage_s=plan.stage_periods * period_s,
        measure_s=plan.measure_periods * period_s,
    )  # fmt: skip


def plan_of(proposal: Proposal, nameplate: Nameplate) -> RollOutPlan:
    """The roll-out that a proposal says."""
    return RollOutPlan(
        tuple(stage.agents for stage in proposal.stages),
        round(proposal.stage_s / nameplate.period_s),
        round(proposal.measure_s / nameplate.period_s),
    )


def default_signal(nameplate: Nameplate) -> str:
    """``group/power_kw``, where it is measured in one group; raises :class:`ConfigurationError` otherwise."""
    having = [g.name for g in nameplate.groups if any(s.name == POWER_SIGNAL for s in g.measured)]
    if len(having) != 1:
        signals = [f"{g.name}/{s.name}" for g in nameplate.groups for s in g.measured]
        raise ConfigurationError(
            f"{nameplate.site}: {POWER_SIGNAL} is measured in {len(having)} groups, so say with --signal what the "
            f"effect is on: {', '.join(signals)}"
        )
    return f"{having[0]}/{POWER_SIGNAL}"


def check_writes(nameplate: Nameplate, writes: Mapping[str, float]) -> None:
    """Raise :class:`ConfigurationError` unless all are commands of the site, inside their ranges and levels."""
    known = {
        f"{g.name}/{a}/{s.name}": s for g in nameplate.groups for a in g.assets for s in g.commanded
    }  # fmt: skip
    for name, value in writes.items():
        if name not in known:
            raise ConfigurationError(
                f"writes: {name!r} is no command of {nameplate.site}; a name is group/asset/signal"
                f"{nearest(name, known)}"
            )
        signal = known[name]
        if not (math.isfinite(value) and signal.minimum <= value <= signal.maximum):
            raise ConfigurationError(
                f"writes: {name}: {value:g} {signal.unit}; allowed is {signal.minimum:g} to {signal.maximum:g}"
            )
        if signal.levels is not None and value not in signal.levels:
            raise ConfigurationError(f"writes: {name}: {value:g}; allowed are {', '.join(map(str, signal.levels))}")


def commands_of(nameplate: Nameplate, values: Mapping[str, float]) -> dict[str, Any]:
    """Values by full name as ``[N, A]`` a group, NaN where there is none."""
    found = {}
    for group in nameplate.groups:
        table = np.full((group.n_assets, len(group.commanded)), np.nan)
        for i, asset in enumerate(group.assets):
            for k, signal in enumerate(group.commanded):
                table[i, k] = values.get(f"{group.name}/{asset}/{signal.name}", np.nan)
        found[group.name] = table
    return found


def values_of(nameplate: Nameplate, commands: Arrays) -> dict[str, float]:
    """The inverse: commands ``[N, A]`` a group by full name."""
    return {
        f"{g.name}/{asset}/{signal.name}": float(commands[g.name][i, k])
        for g in nameplate.groups
        for i, asset in enumerate(g.assets)
        for k, signal in enumerate(g.commanded)
    }


def state_hash(live: LiveTwin) -> str:
    """SHA-256 over all that a live twin's future depends on."""
    told = hashlib.sha256()
    for name, value in sorted(live.snapshot().items()):
        told.update(f"{name} {value.dtype} {value.shape}\n".encode())
        told.update(np.ascontiguousarray(value).tobytes())
    return told.hexdigest()


def artifact_change(path: Path, nameplate: Nameplate) -> Change:
    """The change to the policy of an artifact's folder; raises what loading it raises."""
    from ...agents.artifact import load_artifact

    policy = load_artifact(path, nameplate)
    return Change({}, policy, PolicyReference(name=policy.name, hash=policy.hash, path=str(Path(path).absolute())))


def _plan(nameplate: Nameplate, agents: Sequence[str], settings: RollOutSettings) -> RollOutPlan:
    def periods(seconds: float | None, default: int) -> int:
        return default if seconds is None else max(1, math.ceil(seconds / nameplate.period_s - 1e-9))

    if not agents:
        raise ConfigurationError("nothing is proposed: give writes, or an artifact")
    n = min(len(agents), 5 if settings.n_stages is None else settings.n_stages)
    ends = [0, 1, *(1 + (len(agents) - 1) * k // (n - 1) for k in range(1, n))] if n > 1 else [0, len(agents)]
    stages = tuple(tuple(agents[a:b]) for a, b in pairwise(ends) if b > a)
    return RollOutPlan(stages, periods(settings.stage_s, 5), periods(settings.measure_s, 20))


def _gain(nameplate: Nameplate, signal: str, found: Assessment) -> Gain:
    group, _, name = signal.partition("/")
    declared = nameplate.group(group)
    said = found.promise
    return Gain(
        signal=signal,
        unit=declared.measured[declared.index("measured", name)].unit,
        today=found.today,
        mean=said.means[-1],
        low=said.lows[-1],
        high=said.highs[-1],
        surely_low=said.surely[0],
        surely_high=said.surely[1],
        references=found.references,
        level=LEVEL,
    )
