"""The two sites of the fault suite: a wind farm with limits, and a yard that declares every kind of constraint."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ....envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    BarrierTerms,
    ConflictConstraint,
    Constraint,
    DeadbandConstraint,
    Declaration,
    DwellConstraint,
    ExclusiveConstraint,
    MeasuredConstraint,
    RangeConstraint,
    RateConstraint,
    SafeState,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    declare,
)
from ....envs.nameplate import Group, Nameplate, Signal
from ....envs.wind_farm.nameplate import GROUP, make_nameplate

Floats = NDArray[np.float64]

N_TURBINES = 3
FARM_PERIOD_S = 10.0
POWER_CAP = "power cap"
POWER_RAMP = "power ramp"

YARD_PERIOD_S = 1.0
PUMP, OVEN, CART = "pump", "oven", "cart"
TOO_HOT_DEGC = 90.0
AMBIENT_DEGC = 20.0
LOSS_PER_S = 0.02
HEAT_DEGC_PER_KWS = 0.05
COOL_DEGC_PER_KWS = 0.04
CART_GAP_M = 2.0


def farm() -> Declaration:
    """Three turbines: yaw and power limit with rates, a cap on the sum of the limits and on its rise."""
    plate = make_nameplate(
        "farm", FARM_PERIOD_S, N_TURBINES, tuple((630.0 * i, 0.0, 126.0, 90.0, 5000.0) for i in range(N_TURBINES))
    )
    limits: tuple[Constraint, ...] = (
        RangeConstraint(GROUP, "yaw_offset_deg", -30.0, 30.0, "deg"),
        RateConstraint(GROUP, "yaw_offset_deg", 0.25, "deg"),
        SumConstraint(POWER_CAP, GROUP, "power_limit_pu", "pu", maximum=3.0),
        SumRateConstraint(POWER_RAMP, GROUP, "power_limit_pu", "pu", up_per_second=0.1),
    )
    return declare(plate, limits)


def temperature_margin(measured: Floats) -> BarrierTerms:
    """How far an oven is below ``TOO_HOT_DEGC``: it loses heat to the air, gains it by its heater, ``[N, O]``."""
    t = measured[:, 0]
    drift = LOSS_PER_S * (t - AMBIENT_DEGC)
    control = np.tile([-HEAT_DEGC_PER_KWS, COOL_DEGC_PER_KWS], (len(t), 1))
    return BarrierTerms(TOO_HOT_DEGC - t, drift, control)


def yard(seen_m: float = 50.0) -> Declaration:
    """Pumps with levels, ovens that heat or cool, carts that keep their distance: all kinds but the look-ahead.

    ``seen_m``: how far out a cart's position can be told; beyond that it is lost, and no distance can be kept to it.
    """
    pumps = Group(
        PUMP,
        ("P1", "P2", "P3"),
        measured=(Signal("flow_lps", "l/s", 0.0, 40.0),),
        commanded=(Signal("step", "1", 0.0, 3.0, levels=(0.0, 1.0, 2.0, 3.0), rate_limit_per_s=2.0),),
    )
    ovens = Group(
        OVEN,
        ("O1", "O2"),
        measured=(Signal("temperature_degc", "degC", -20.0, 150.0), Signal("door_pu", "pu", 0.0, 1.0)),
        commanded=(
            Signal("heat_kw", "kW", 0.0, 50.0, rate_limit_per_s=5.0),
            Signal("cool_kw", "kW", 0.0, 20.0, rate_limit_per_s=5.0),
        ),
    )
    carts = Group(
        CART,
        ("C1", "C2", "C3"),
        measured=(Signal("x_m", "m", -seen_m, seen_m), Signal("y_m", "m", -seen_m, seen_m)),
        commanded=(
            Signal("vx_mps", "m/s", -1.0, 1.0, rate_limit_per_s=2.0),
            Signal("vy_mps", "m/s", -1.0, 1.0, rate_limit_per_s=2.0),
        ),
    )
    steps = tuple((a, b) for a, b in itertools.permutations((0.0, 1.0, 2.0, 3.0), 2) if abs(a - b) == 1.0)
    rules: tuple[Constraint, ...] = (
        TransitionConstraint(PUMP, "step", (*steps, (3.0, 1.0), (2.0, 0.0)), "1"),
        DwellConstraint(PUMP, "step", 3.0, "1"),
        DwellConstraint(PUMP, "step", 5.0, "1", level=0.0),
        SwitchesConstraint(PUMP, "step", 30, "1"),
        ConflictConstraint(
            "one pump at full speed", PUMP,
            tuple(((a, "step", 3.0), (b, "step", 3.0)) for a, b in itertools.combinations(("P1", "P2", "P3"), 2)),
        ),
        AccelerationConstraint(OVEN, "heat_kw", 2.0, "kW"),
        ExclusiveConstraint(OVEN, ("heat_kw", "cool_kw")),
        SumConstraint("heat cap", OVEN, "heat_kw", "kW", maximum=70.0),
        SumRateConstraint("heat ramp", OVEN, "heat_kw", "kW", up_per_second=8.0),
        DeadbandConstraint(OVEN, "cool_kw", 0.2, "kW", priority=2),
        RangeConstraint(OVEN, "heat_kw", 0.0, 45.0, "kW", priority=1),
        MeasuredConstraint("oven not overheated", OVEN, "temperature_degc", "degC", maximum=TOO_HOT_DEGC),
        BarrierConstraint("oven too hot", OVEN, temperature_margin, 0.2, margin=0.5),
        SeparationConstraint(
            "carts apart", CART, ("x_m", "y_m"), ("vx_mps", "vy_mps"), CART_GAP_M, "m", gain_per_s=0.5, braking=2.0
        ),
    )  # fmt: skip
    states = {PUMP: SafeState("values", {"step": 1.0}), f"{CART}/C3": SafeState("neutral")}
    return declare(Nameplate("yard", YARD_PERIOD_S, (pumps, ovens, carts)), rules, states)
