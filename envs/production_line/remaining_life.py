"""How long the machines of a line will last, in closed form, from what their controllers measure.

Time is slots of work, in which alone machines wear: a horizon in slots of the clock is as long or shorter in work, and
a chance to fail within it no higher. Of a machine that has not failed:

* Weibull life, age ``a``: ``P(fails within h) = 1 - exp((a/s)^k - ((a + h)/s)^k)``.
* Gamma process of shape ``c`` a slot, wear ``w`` seen ``g`` slots ago, failing at ``L``: it only rises, so that it has
  not passed ``L`` yet exactly if it is below it now, and ``P = 1 - F(L - w; c (g + h)) / F(L - w; c g)`` with ``F`` the
  gamma distribution (van Noortwijk 2009, RESS 94:2-21, section 4; the condition that it has not failed is ours). Exact
  slot by slot.
* Damage in stages, believed to be in each with ``b`` of those that work: ``P = 1 - b T^h 1`` with ``T`` the chances to
  stay and to go on among them, the first passage of a discrete phase-type life (Neuts 1981, "Matrix-Geometric
  Solutions", section 2.2). What may have failed unnoticed has. It needs the chances to advance, which are no tag of the
  machine: of a configuration's machines alone, not in :func:`chance_within`.

:func:`chance_within` runs on numpy and on torch alike; the rest is numpy. No wear but what is measured enters, save in
:func:`of_members`, which takes that of a live twin's members.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, MissingExtraError
from ..prognosis.estimate import Estimate
from .config import FixedLine, GammaWear, LineConfig, StagedWear
from .line_plan import plan_of
from .nameplate import HIDDEN, MACHINE, MEASURED, UPKEEP_MEASURED, UPKEEP_STATICS, upkeep_statics

if TYPE_CHECKING:
    from ..twin import Readings, Twin

Array = Any
Floats = NDArray[np.float64]
LEVEL: Final = 0.9
HORIZON_SHARE: Final = 0.1
"""Of the shortest mean life of a line's machines: how far ahead service is planned, where nothing else is said."""
ALARM_CHANCE: Final = 0.1
"""To fail within that, from which on people are told."""
ENDLESS_SLOTS: Final = 1e12
WEAR_KIND: Final = UPKEEP_STATICS[0].name
_LATE = 50.0
"""Logarithm of a cumulative hazard that nothing lives through, and that no float overflows at."""
_JUST_NOW = 1e-100
_WEIBULL, _GAMMA, _DOWN = 1.0, 2.0, 3.0
_PACE, _WEAR = "_wear_pace", [signal.name for signal in HIDDEN].index("wear")
_AT = {signal.name: k for k, signal in enumerate(MEASURED)}
_TOLD = {signal.name: k for k, signal in enumerate(UPKEEP_STATICS)}
BELIEFS_AT = len(MEASURED + UPKEEP_MEASURED)
"""The first of a reading's beliefs of damage in stages, where a line has any."""
Staged = Mapping[int, StagedWear]
"""Machines whose damage is in stages, by their place among those that wear."""


def chance_within(measured: Array, wear: Array, horizon: Array | float) -> Array:
    """Chance ``[...]`` to fail within ``horizon`` slots of work; 1 for a machine that has failed, 0 for one that does
    not wear. ``measured`` ``[..., O]`` as on the nameplate, ``wear`` ``[..., 5]`` its ``UPKEEP_STATICS``.

    A machine in service keeps what it had when the crew came. NaN for a kind of wear that has no formula here.
    """
    xp = sys.modules[type(measured).__module__.split(".")[0]]
    kind = wear[..., _TOLD["wear_kind"]]
    age, seen, ago = (measured[..., _AT[name]] for name in ("age_slots", "seen_wear_pu", "seen_ago_slots"))
    life, shape = (
        xp.where(kind > 0, wear[..., _TOLD[name]], xp.ones_like(kind)) for name in ("mean_life_slots", "wear_shape")
    )
    gammainc, gammaln = _special(xp)
    scale = life / xp.exp(gammaln(1.0 + 1.0 / shape))
    was, will = (shape * xp.log(xp.clip(slots / scale, 1e-30, None)) for slots in (age, age + horizon))
    by_age = -xp.expm1(xp.exp(xp.clip(was, None, _LATE)) - xp.exp(xp.clip(will, None, _LATE)))
    by_age = xp.where(will < _LATE, by_age, xp.ones_like(by_age))
    # of a gamma process the shape is level / scale of wear, and its rate a slot that over the mean life
    left = shape * xp.clip(1.0 - seen, 0.0, None)
    ago = xp.where(ago < _JUST_NOW, xp.zeros_like(ago), ago)  # SciPy has 0 for the gamma function of a denormal
    alive, later = (gammainc(shape / life * slots, left) for slots in (ago, ago + horizon))
    by_wear = xp.where(alive > 0, 1.0 - later / xp.where(alive > 0, alive, xp.ones_like(alive)), xp.ones_like(alive))
    by_wear = xp.where(left > 0, by_wear, xp.ones_like(by_wear))
    unknown = xp.where(kind > 0, xp.zeros_like(kind) + float("nan"), xp.zeros_like(kind))  # a kind without a formula
    found = xp.where(kind == _WEIBULL, by_age, xp.where(kind == _GAMMA, by_wear, unknown))
    failed = (xp.abs(measured[..., _AT["state"]] - _DOWN) < 0.5) & (measured[..., _AT["waits_for_crew"]] > 0.5)
    return xp.clip(xp.where(failed & (kind > 0), xp.ones_like(found), found), 0.0, 1.0)


def staged_chance(wear: StagedWear, belief: Floats, horizon_slots: float) -> Floats:
    """Chance ``[...]`` to have failed after so many whole slots of work, by what is believed now ``[..., S]`` of its
    stages, the failed one last."""
    advance = np.array(wear.advance_pu, dtype=np.float64)
    stays = np.diag(1.0 - advance) + np.diag(advance[:-1], 1)
    lives = np.linalg.matrix_power(stays, int(horizon_slots)).sum(1)
    return np.asarray(np.clip(1.0 - belief[..., :-1] @ lives, 0.0, 1.0))


def staged_of(config: LineConfig) -> dict[int, StagedWear]:
    """The machines of a fixed line whose damage is in stages, by their place among those that wear."""
    kept = [m.upkeep for m in plan_of(config).machines if m.upkeep is not None]
    return {k: upkeep.wear for k, upkeep in enumerate(kept) if isinstance(upkeep.wear, StagedWear)}


def planning_horizon_slots(wear: Floats) -> float:
    """A share of the shortest mean life, in slots of work, of machines with ``UPKEEP_STATICS`` ``[n, 5]``."""
    return max(1.0, round(HORIZON_SHARE * float(wear[wear[..., 0] > 0, _TOLD["mean_life_slots"]].min())))


def remaining_life(
    config: LineConfig, measured: Floats, horizon_slots: float | None = None, level: float = LEVEL
) -> Estimate:
    """Of the machines of a fixed line that wear, by name, from one reading ``[N, O]``; in slots of work.

    Raises :class:`ConfigurationError` where no machine wears or lines differ from episode to episode, and for a horizon
    that is not positive.
    """
    rows, names, wear = wearing(config)
    return estimate(names, np.asarray(measured, dtype=np.float64)[rows], wear, horizon_slots, level, staged_of(config))


def of_replicas(
    config: LineConfig, twin: Twin, readings: Readings, horizon_slots: float | None = None, level: float = LEVEL
) -> Estimate:
    """Of a live twin's members, as its ``replicas`` hands them out: a mixture of what each holds of wear and of how
    fast the machines wear."""
    names = twin.nameplate.group(MACHINE).assets
    known = twin.parameters()
    paces = [known.get(f"{name}{_PACE}") for name in names]
    ones = np.ones(twin.n_replicas)
    pace = np.stack([ones if p is None else p.cpu().numpy().astype(np.float64) for p in paces], axis=1)
    wear = readings.hidden[MACHINE][..., _WEAR].cpu().numpy()
    return of_members(config, readings.measured[MACHINE].cpu().numpy(), wear, horizon_slots, level, pace)


def of_members(
    config: LineConfig,
    measured: Floats,
    wear: Floats,
    horizon_slots: float | None = None,
    level: float = LEVEL,
    pace: Floats | None = None,
) -> Estimate:
    """As :func:`remaining_life`, of members ``K``: readings ``[K, N, O]``, true wear ``[K, N]`` as in the hidden signal
    ``wear``, and how fast the machines wear, of what is declared, ``pace`` ``[K, N]``. Each member is a belief about
    the machines now; what is told is of their mixture."""
    rows, names, statics = wearing(config)
    if horizon_slots is None:
        horizon_slots = planning_horizon_slots(statics)
    told = np.array(measured, dtype=np.float64)[:, rows]
    gamma = statics[:, 0] == _GAMMA
    levels = np.array([_failure_level(config, int(k)) for k in rows])
    told[..., _AT["seen_wear_pu"]] = np.where(gamma, np.asarray(wear)[:, rows] / levels, told[..., _AT["seen_wear_pu"]])
    told[..., _AT["seen_ago_slots"]] = np.where(gamma, 0.0, told[..., _AT["seen_ago_slots"]])
    staged = staged_of(config)
    for k, law in staged.items():  # a member holds its machine for in one stage
        n = len(law.advance_pu)
        stage = np.clip(np.asarray(wear)[:, rows[k]], 0, n).astype(np.int64)
        told[:, k, BELIEFS_AT : BELIEFS_AT + n + 1] = np.eye(n + 1)[stage]
    if pace is not None:  # the scale of a life over it, or that of a gamma process' steps times it
        speed, statics = np.asarray(pace)[:, rows], np.repeat(statics[None], len(told), 0)
        statics[..., _TOLD["mean_life_slots"]] /= speed
        statics[..., _TOLD["wear_shape"]] /= np.where(gamma, speed, 1.0)
    return estimate(names, told, statics, horizon_slots, level, staged)


def estimate(
    names: tuple[str, ...],
    measured: Floats,
    wear: Floats,
    horizon_slots: float | None = None,
    level: float = LEVEL,
    staged: Staged | None = None,
) -> Estimate:
    """Of machines by readings ``[n, O]`` and ``UPKEEP_STATICS`` ``[n, 5]``; a mixture has ``[K, n, O]``, and may have
    ``[K, n, 5]``. ``staged``: those whose damage is in stages; their readings have beliefs."""
    if horizon_slots is None:
        horizon_slots = planning_horizon_slots(wear)
    if not (0 < horizon_slots < ENDLESS_SLOTS and 0 < level < 1):
        raise ConfigurationError(
            f"remaining life: horizon {horizon_slots:g} slots, level {level:g}; give a positive one, and a level "
            "between 0 and 1"
        )

    def chance(slots: Floats | float) -> Floats:
        found = np.array(chance_within(measured, wear, slots))
        for k, law in (staged or {}).items():
            n, horizon = len(law.advance_pu), float(np.broadcast_to(slots, len(names))[k])
            belief = measured[..., k, BELIEFS_AT : BELIEFS_AT + n + 1]
            found[..., k] = np.where(found[..., k] == 1.0, 1.0, staged_chance(law, belief, horizon))
        return found.mean(0) if found.ndim == 2 else found

    tail = (1.0 - level) / 2.0
    low, median, high = (_quantile(chance, len(names), share) for share in (tail, 0.5, 1.0 - tail))
    return Estimate(names, median, low, high, level, chance(horizon_slots), horizon_slots, "slots of work")


def _quantile(chance: Callable[[Floats | float], Floats], n: int, share: float) -> Floats:
    """The least whole number of slots within which each fails with the chance ``share``, ``[n]``; 0 once it has,
    infinity where it never does."""
    low, high = np.zeros(n), np.full(n, ENDLESS_SLOTS)
    at_once, never = chance(0.0) >= share, chance(ENDLESS_SLOTS) < share
    for _ in range(int(np.log2(ENDLESS_SLOTS)) + 1):
        middle = np.floor((low + high) / 2.0)
        passed = chance(middle) >= share
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return np.where(at_once, 0.0, np.where(never, np.inf, high))


def wearing(config: LineConfig) -> tuple[NDArray[np.int64], tuple[str, ...], Floats]:
    """Places, names and ``UPKEEP_STATICS`` ``[n, 5]`` of the machines that wear; raises :class:`ConfigurationError` for
    none, and for a line that is many."""
    if not isinstance(config.line, FixedLine):
        raise ConfigurationError("line: kind 'random' is many lines; remaining life is of one: give kind 'fixed'")
    plan = plan_of(config)
    rows = [k for k, m in enumerate(plan.machines) if m.upkeep is not None]
    if not rows:
        raise ConfigurationError("line: no machine has upkeep, so that none wears; give one an upkeep")
    wear = np.array([upkeep_statics(plan.machines[k]) for k in rows])
    return np.array(rows), tuple(plan.names[k] for k in rows), wear


def _failure_level(config: LineConfig, k: int) -> float:
    upkeep = plan_of(config).machines[k].upkeep
    return upkeep.wear.failure_level if upkeep is not None and isinstance(upkeep.wear, GammaWear) else 1.0


def needs_scipy() -> None:
    """Raise :class:`MissingExtraError` where SciPy is not installed: before a plant runs, not while it does."""
    if find_spec("scipy") is None:
        raise MissingExtraError("scipy", "prognosis", "the remaining life of a line's machines")


def _special(xp: Any) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The regularised lower incomplete gamma function and the logarithm of the gamma function."""
    if xp is np:
        from scipy.special import gammainc, gammaln

        return gammainc, gammaln
    return xp.special.gammainc, xp.special.gammaln
