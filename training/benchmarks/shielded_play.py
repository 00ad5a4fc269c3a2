"""A policy plays the same episodes with the shield and without, and what was executed is held to the declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...agents.forward import PolicyNetwork
from ...deploy.shield import Decision, Shield, Source
from ...deploy.shield.sums import fill
from ...envs.constraint import Declaration, Margins, Moment, SumConstraint, declaration_of_site
from ...envs.encoder import Encoder
from ...envs.twin import Observation, Readings
from ...envs.wind_farm.nameplate import COMMANDED, GROUP, HIDDEN, MEASURED
from ..actor_evaluation import EVALUATION_REPLICA
from ..problem import Problem
from ..seeds import row_seeds
from ..shielded_twin import ShieldedTwin
from .adversary_kinds import BangBang, Hostile, Steepest
from .farm_learners import NetworkPolicy

Floats = NDArray[np.float64]

_YAW, _POWER = (next(k for k, s in enumerate(COMMANDED) if s.name == n) for n in ("yaw_offset_deg", "power_limit_pu"))
_SPEED = next(k for k, s in enumerate(MEASURED) if s.name == "wind_speed_mps")
_TRUE_POWER = next(k for k, s in enumerate(HIDDEN) if s.name == "true_power_kw")
_RATED_SPEED_MPS = 11.4
_BROKEN_PU = 1e-6
"""Share of a constraint's scale from which it counts as violated: less is rounding."""
_BACKUP = (Source.FALLBACK, Source.PLAN, Source.SAFE_STATE)


@dataclass(frozen=True)
class Play:
    """The episodes: ``n_replicas`` of ``n_periods`` on a problem's twin, the same for every policy of a ``seed``."""

    problem: Problem
    n_replicas: int
    n_periods: int
    seed: int

    @property
    def declaration(self) -> Declaration:
        return declaration_of_site(self.problem.site, self.problem.site_config)


class Actor(Protocol):
    """Proposes commands ``[B, N, A]`` of the farm, told what it is shown and what was executed before."""

    def act(self, step: int, observation: Observation, applied: Floats) -> Floats: ...


class NetworkActor:
    """What a learner exported."""

    def __init__(
        self, stage: Play, encoders: Mapping[str, Encoder], networks: Mapping[str, PolicyNetwork]
    ) -> None:  # fmt: skip
        self._policy = NetworkPolicy(stage.problem.nameplate(), encoders[GROUP], networks[GROUP])
        self._memory = self._policy.start(stage.n_replicas)

    def act(self, step: int, observation: Observation, applied: Floats) -> Floats:
        commands, self._memory = self._policy.act(observation, self._memory)
        return np.asarray(commands[GROUP])


class EqualShare:
    """Aligned, each turbine at the same share of the cap."""

    def __init__(self, stage: Play) -> None:
        self._cap = _cap(stage)

    def act(self, step: int, observation: Observation, applied: Floats) -> Floats:
        asked = np.zeros_like(applied)
        asked[..., _POWER] = self._asked_pu(observation)
        weights, cap_kw = self._cap
        asked[..., _POWER] = fill(asked[..., _POWER], 0.1, 1.0, weights, minimum=cap_kw, maximum=cap_kw).u
        return asked

    def _asked_pu(self, observation: Observation) -> Any:
        return 0.5


class ShareByWind(EqualShare):
    """Aligned, the cap shared out by what the wind offers each turbine, with equal parts of what is left or lacking."""

    def _asked_pu(self, observation: Observation) -> Any:
        return np.clip((observation.measured[GROUP][..., _SPEED] / _RATED_SPEED_MPS) ** 3, 0.1, 1.0)


class HostileActor:
    """An adversary of the shield's own test, without faults of messages."""

    def __init__(self, kind: Callable[[Declaration, int, int], Hostile], stage: Play) -> None:
        self._kind = kind(stage.declaration, stage.n_replicas, stage.seed)
        self._group = stage.problem.nameplate().group(GROUP)

    def act(self, step: int, observation: Observation, applied: Floats) -> Floats:
        return self._kind.choose(self._group, step, observation.measured, {GROUP: applied})


Make = Callable[[Play], Actor]


def good_actors() -> dict[str, Make]:
    """Rules that know the limits."""
    return {"aligned, equal share of the cap": EqualShare, "aligned, share by wind": ShareByWind}


def hostile_actors() -> dict[str, Make]:
    """Rules that mean harm."""
    return {
        "noise beyond the ranges": lambda stage: HostileActor(Hostile, stage),
        "bang-bang": lambda stage: HostileActor(BangBang, stage),
        "steepest violation": lambda stage: HostileActor(Steepest, stage),
    }


def _cap(stage: Play) -> tuple[Floats, float]:
    """The cap's weights ``[N]`` and its limit, in kW."""
    cap = next(c for c in stage.declaration.constraints if isinstance(c, SumConstraint))
    assert cap.weights is not None
    assert cap.maximum is not None
    return np.array(cap.weights), cap.maximum


class CountingShield(Shield):
    """Counts who decided."""

    def __init__(self, declaration: Declaration) -> None:
        super().__init__(declaration)
        self.n_asset_steps = self.n_backup = 0

    def filter(self, *arguments: Any, **options: Any) -> Decision:
        """As the shield's."""
        decision = super().filter(*arguments, **options)
        self.n_asset_steps += len(decision.source)
        self.n_backup += sum(source in _BACKUP for source in decision.source.values())
        return decision


def play(stage: Play, make: Make, *, shielded: bool) -> dict[str, float]:
    """Mean power of the farm in kW, and shares of asset-steps (what the shield did) or of periods (what was broken)."""
    problem, n = stage.problem, stage.n_replicas
    declaration = stage.declaration
    inner = problem.site.twin(problem.site_config, n, "cpu", torch.float64)
    shield = CountingShield(declaration) if shielded else None
    twin = ShieldedTwin(inner, shield) if shield is not None else inner
    margins = Margins(declaration)
    ranks = {c.name: c.priority for c in declaration.constraints}
    actor = make(stage)
    with torch.no_grad():
        seeds = row_seeds(stage.seed, torch.arange(EVALUATION_REPLICA, EVALUATION_REPLICA + n))
        readings = twin.reset(seeds)
        group = twin.nameplate.group(GROUP)
        applied = np.tile(group.neutral(), (n, group.n_assets, 1))
        power, intervened, change, hard, soft = [], [], [], [], []
        for step in range(stage.n_periods):
            asked = actor.act(step, _observation(readings, twin.dt_s), applied)
            readings = twin.step({GROUP: torch.from_numpy(np.ascontiguousarray(asked))})
            executed = asked
            if isinstance(twin, ShieldedTwin):
                made = twin.last()
                executed = made.sent[GROUP].numpy()
                intervened.append(float(made.intervened[GROUP].mean()))
                change.append(float(made.change[GROUP].mean()))
            measured = {GROUP: readings.measured[GROUP].numpy()}
            broken = _broken(margins, Moment({GROUP: applied}, {GROUP: executed}, measured, twin.dt_s))
            hard.append(_share([b for name, b in broken.items() if ranks[name] is None]))
            soft.append(_share([b for name, b in broken.items() if ranks[name] is not None]))
            power.append(float(readings.hidden[GROUP][..., _TRUE_POWER].sum(-1).mean()))
            applied = executed
    found = {"power_kw": power, "hard_broken": hard, "soft_broken": soft}
    found |= {"intervened": intervened, "change": change} if shield is not None else {}
    figures = {name: float(np.mean(values)) for name, values in found.items()}
    if shield is not None:
        figures["in_backup"] = shield.n_backup / shield.n_asset_steps
    return figures


def _share(broken: list[NDArray[np.bool_]]) -> float:
    """The share of replicas in which any of these constraints, ``[B]`` each, is broken."""
    return float(np.any(np.array(broken, dtype=np.bool_), axis=0).mean()) if broken else 0.0


def _broken(margins: Margins, moment: Moment) -> dict[str, NDArray[np.bool_]]:
    """By constraint, ``[B]``: whether any asset, or all together, broke it."""
    found: dict[str, NDArray[np.bool_]] = {}
    for name, violation in margins.violations(moment).items():
        over = np.asarray(violation) > _BROKEN_PU * margins.scale(name)
        found[name] = np.atleast_1d(over if over.ndim == 1 else over.any(axis=-1))
    return found


def _observation(readings: Readings, dt_s: float) -> Observation:
    kinds = (readings.measured, readings.statics, readings.present)
    measured, statics, present = ({name: x.numpy() for name, x in kind.items()} for kind in kinds)
    return Observation(measured, statics, present, dt_s)
