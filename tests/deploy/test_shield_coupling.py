"""What assets keep together, through the whole shield: exact against quadprog, and honest where it can't be kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import quadprog
from numpy.typing import NDArray

from twinloop.deploy.shield import Decision, Shield, Source
from twinloop.envs.constraint import (
    BarrierConstraint,
    BarrierTerms,
    Constraint,
    SumConstraint,
    SumRateConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Telemetry

Floats = NDArray[np.float64]
PERIOD_S, NOW_S = 2.0, 1_735_689_600.0


def plate(n: int, *, rate: float | None = 3.0, levels: tuple[float, ...] | None = None) -> Nameplate:
    """``n`` assets with a flow and a heat command and a measured position in the plane."""
    measured = tuple(Signal(name, "m", -1000.0, 1000.0) for name in ("x_m", "y_m"))
    commanded = (
        Signal("flow", "kg/s", -10.0, 10.0, rate_limit_per_s=rate, levels=levels),
        Signal("heat", "kW", -40.0, 40.0, rate_limit_per_s=None),
    )
    return Nameplate("plant", PERIOD_S, (Group("pump", tuple(f"P{i}" for i in range(n)), measured, commanded),))


def reading(values: Floats, number: int = 1, now_s: float = NOW_S) -> Telemetry:
    return Telemetry(
        {"pump": values}, {"pump": np.full(values.shape, now_s)}, {"pump": np.zeros(values.shape, np.int8)},
        now_s, number,
    )  # fmt: skip


def decide(shield: Shield, asked: Floats, applied: Floats, values: Floats | None = None, **more: Any) -> Decision:
    """One period after ``applied`` stood, with a good reading."""
    n = len(asked)
    values = np.zeros((n, 2)) if values is None else values
    state = shield.start({"pump": applied})
    state = replace(state, time_s=NOW_S - PERIOD_S)
    return shield.filter(reading(values), {"pump": asked}, NOW_S, state, **more)


@dataclass(frozen=True)
class Walls:
    """A linear barrier of relative degree 1: ``h = c - a . x``, with the commands as velocities scaled by ``b``."""

    a: tuple[float, float]
    b: tuple[float, float]
    c: float

    def __call__(self, measured: Floats) -> BarrierTerms:
        n = len(measured)
        return BarrierTerms(
            self.c - measured @ np.array(self.a),
            np.zeros(n),
            np.tile([-self.a[0] * self.b[0], -self.a[1] * self.b[1]], (n, 1)),
        )


def exact(asked: Floats, low: Floats, high: Floats, rows: Floats, bounds: Floats, scale: Floats) -> Floats:
    """The nearest commands by quadprog, in half-ranges: an independent solver on the whole problem at once."""
    n = len(asked)
    a = np.vstack([rows * scale, np.eye(n), -np.eye(n)])
    b = np.concatenate([bounds, high / scale, -low / scale])
    finite = np.isfinite(b)
    z = quadprog.solve_qp(np.eye(n), asked / scale, -a[finite].T, -b[finite], 0)[0]
    return np.asarray(z * scale)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_sent_is_the_nearest_that_keeps_every_row_as_quadprog_finds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    applied = np.column_stack([rng.uniform(-5, 5, n), rng.uniform(-20, 20, n)])
    values = rng.uniform(-50.0, 50.0, (n, 2))
    scale = np.tile([10.0, 40.0], n)
    low = np.column_stack([np.maximum(applied[:, 0] - 6.0, -10.0), np.full(n, -40.0)]).ravel()
    high = np.column_stack([np.minimum(applied[:, 0] + 6.0, 10.0), np.full(n, 40.0)]).ravel()
    inside = low + rng.uniform(0.2, 0.8, 2 * n) * (high - low)  # keeps every row below
    constraints: list[Constraint] = []
    rows: list[Floats] = []
    bounds: list[float] = []
    for k in range(int(rng.integers(1, 5))):
        signal = int(rng.integers(2))
        weights = rng.normal(size=n) if rng.random() < 0.7 else np.ones(n)
        row = np.zeros(2 * n)
        row[signal::2] = weights
        # neutral is the safe state, so every sum must leave it room
        most = max(row @ inside + rng.uniform(0.0, 3.0), 0.1)
        least = min(row @ inside - rng.uniform(0.0, 3.0), -0.1)
        unit = ("kg/s", "kW")[signal]
        name = ("flow", "heat")[signal]
        if rng.random() < 0.7:
            constraints.append(SumConstraint(f"s{k}", "pump", name, unit, float(most), float(least), tuple(weights)))
            rows += [row, -row]
            bounds += [most, -least]
        else:
            before = float(row @ applied.ravel())
            rise, fall = abs(row @ inside - before) + 0.5, abs(row @ inside - before) + 0.1
            constraints.append(
                SumRateConstraint(f"s{k}", "pump", name, unit, rise / PERIOD_S, fall / PERIOD_S, tuple(weights))
            )
            rows += [row, -row]
            bounds += [before + rise, fall - before]
    if rng.random() < 0.6:
        a, b = tuple(rng.normal(size=2)), tuple(rng.uniform(0.5, 1.5, 2))
        gain = 0.5
        reach = np.array([-(np.array(a) * b) @ inside[2 * i : 2 * i + 2] for i in range(n)])
        c = float(max(values @ np.array(a) - reach / gain)) + 1.0
        constraints.append(BarrierConstraint("wall", "pump", Walls(a, b, c), gain))
        for i in range(n):
            row = np.zeros(2 * n)
            row[2 * i : 2 * i + 2] = np.array(a) * b
            rows.append(row)
            bounds.append(gain * (c - values[i] @ np.array(a)))
    shield = Shield(declare(plate(n), constraints))
    asked = np.clip(inside + rng.normal(size=2 * n) * np.tile([8.0, 30.0], n), -scale, scale)
    decision = decide(shield, asked.reshape(n, 2), applied, values)
    expected = exact(asked, low, high, np.array(rows), np.array(bounds), scale)
    np.testing.assert_allclose(decision.commands["pump"].ravel() / scale, expected / scale, rtol=0, atol=1e-9)
    assert set(decision.source.values()) == {Source.POLICY}
