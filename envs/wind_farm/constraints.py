"""What the operator of a farm may declare beyond the turbines' own ranges and rates."""

from __future__ import annotations

from ..constraint import Constraint, RangeConstraint, SafeState, SumConstraint, SumRateConstraint
from ..errors import ConfigurationError
from .config import WindFarmConfig
from .farm import fixed_layout
from .nameplate import GROUP
from .turbine import load_turbine

LEAST_POWER_PU = 0.1  # the smallest set-point of a turbine
YAW_PREFERENCE = 0


def farm_constraints(config: WindFarmConfig) -> tuple[Constraint, ...]:
    """Power cap and ramps of the whole farm (hard, in kW of set-points), and the yaw offset to stay in (soft).

    Raises :class:`ConfigurationError` where rated powers differ from episode to episode.
    """
    limits, found = config.limits, list[Constraint]()
    weights = _rated_kw(config)
    if limits.power_cap_kw is not None:
        found.append(
            SumConstraint("farm power cap", GROUP, "power_limit_pu", "kW", maximum=limits.power_cap_kw, weights=weights)
        )
    up, down = limits.power_rise_kw_per_s, limits.power_fall_kw_per_s
    if up is not None or down is not None:
        found.append(SumRateConstraint("farm power ramp", GROUP, "power_limit_pu", "kW", up, down, weights))
    if limits.preferred_yaw_deg is not None:
        most = limits.preferred_yaw_deg
        found.append(RangeConstraint(GROUP, "yaw_offset_deg", -most, most, "deg", YAW_PREFERENCE))
    return tuple(found)


def farm_safe_states(config: WindFarmConfig) -> dict[str, SafeState]:
    """Neutral, on the turbines' own controllers; under a power cap, aligned at an equal share of it."""
    if config.limits.power_cap_kw is None:
        return {}
    share = config.limits.power_cap_kw / sum(_rated_kw(config))
    return {GROUP: SafeState("values", {"power_limit_pu": min(1.0, max(LEAST_POWER_PU, share))})}


def _rated_kw(config: WindFarmConfig) -> tuple[float, ...]:
    """Rated power of each turbine; of a random farm, of as many as it may have."""
    limits = config.limits
    if limits.power_cap_kw is limits.power_rise_kw_per_s is limits.power_fall_kw_per_s is None:
        return ()
    if config.other_turbines:
        raise ConfigurationError(
            "limits: a farm of other_turbines draws its rated power anew for each episode, so its set-points have no "
            "fixed sum in kW; leave the limits of power out, or give one type of turbine"
        )
    coordinates = fixed_layout(config)
    n_turbines = getattr(config.layout, "n_max", 0) if coordinates is None else len(coordinates[0])
    return (load_turbine(config.turbine).rated_power_kw,) * n_turbines
