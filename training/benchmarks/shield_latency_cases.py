"""Whole periods of a shield to be timed: sites, readings and proposals, with nothing, limits or sums in the way."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...deploy.shield import Shield
from ...envs.constraint import Declaration, SumConstraint, declare
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.plant import Telemetry

START_S = 1_735_689_600.0
PERIOD_S = 1.0
REACH = 3.0  # of a command in a period


def pumping(n: int, n_sums: int) -> Declaration:
    """``n`` assets with one command and two measured signals each: ``n`` ranges, ``n`` rates, and ``n_sums`` caps.

    The first cap has equal weights, the others weights of both signs on every asset.
    """
    rng = np.random.default_rng(0)
    measured = (Signal("power_kw", "kW", -100.0, 100.0), Signal("wind_mps", "m/s", 0.0, 50.0))
    commanded = (Signal("flow", "kg/s", -10.0, 10.0, rate_limit_per_s=REACH),)
    plate = Nameplate("pumps", PERIOD_S, (Group("pump", tuple(f"P{i}" for i in range(n)), measured, commanded),))
    caps = []
    for k in range(n_sums):
        weights = tuple(rng.normal(size=n).tolist()) if k else None
        length = float(np.linalg.norm(weights or np.ones(n)))
        caps.append(SumConstraint(f"cap {k}", "pump", "flow", "kg/s", maximum=2.0 * length, weights=weights))
    return declare(plate, caps)


Period = tuple[Shield, Telemetry, dict[str, Any], float, Any]


def periods(shield: Shield, n_periods: int, in_the_way: str) -> list[Period]:
    """Periods one after another, each with its state: what :meth:`Shield.filter` is called with.

    ``in_the_way``: ``nothing``; ``limits``: some proposals pass a range or a rate; ``sums``: all proposals rise.
    """
    rng = np.random.default_rng(1)
    n = shield.nameplate.groups[0].n_assets
    values = np.column_stack([rng.uniform(-50.0, 50.0, n), rng.uniform(5.0, 25.0, n)])
    state, found = shield.start(), []
    quality = np.zeros(values.shape, np.int8)
    for k in range(n_periods):
        now_s = START_S + k * PERIOD_S
        values = values + rng.uniform(-0.1, 0.1, values.shape)
        telemetry = Telemetry({"pump": values}, {"pump": np.full(values.shape, now_s)}, {"pump": quality}, now_s, k)
        flow = 0.2 * np.sin(0.3 * k + np.arange(n))
        if in_the_way == "limits":
            at = np.arange(0, n, max(1, n // 5))
            flow[at] = 12.0 * (-1.0) ** (k + np.arange(len(at)))  # up and down, so that no sum is reached
        elif in_the_way == "sums":
            flow = flow + rng.uniform(0.0, 3.0, n)
        proposed = {"pump": flow[:, None]}
        found.append((shield, telemetry, proposed, now_s, state))
        state = shield.filter(telemetry, proposed, now_s, state).state
    return found[2:]  # the first readings are looked at more closely


def call(shield: Shield, telemetry: Telemetry, proposed: dict[str, Any], now_s: float, state: Any) -> Any:
    """One period."""
    return shield.filter(telemetry, proposed, now_s, state)
