"""Margins are signed distances, equal for one site, a numpy batch and torch; violations are their negative part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.envs.constraint import (
    AccelerationConstraint,
    BarrierConstraint,
    BarrierTerms,
    ConflictConstraint,
    Constraint,
    DeadbandConstraint,
    DwellConstraint,
    ExclusiveConstraint,
    History,
    Margins,
    MeasuredConstraint,
    Moment,
    RangeConstraint,
    SafeState,
    SeparationConstraint,
    SumConstraint,
    SumRateConstraint,
    SwitchesConstraint,
    TransitionConstraint,
    declare,
    needs_history,
)
from twinloop.envs.errors import ContractError
from twinloop.envs.nameplate import Group, Nameplate, Signal

Floats = NDArray[np.float64]

DT_S = 600.0
PLATE = Nameplate(
    "yard",
    DT_S,
    (
        Group(
            "pump",
            ("P1", "P2"),
            measured=(Signal("x_m", "m", -10.0, 10.0), Signal("y_m", "m", -10.0, 10.0)),
            commanded=(
                Signal("flow", "l/s", 0.0, 10.0, rate_limit_per_s=0.01),
                Signal("vx_mps", "m/s", -1.0, 1.0),
                Signal("vy_mps", "m/s", -1.0, 1.0),
                Signal("on", "1", 0.0, 1.0, levels=(0.0, 1.0)),
            ),
            hidden=(),
            statics=(),
        ),
    ),
)


def commands(flow: tuple[float, float] = (0.0, 0.0), on: tuple[float, float] = (0.0, 0.0)) -> dict[str, Floats]:
    return {"pump": np.array([[flow[0], 0.0, 0.0, on[0]], [flow[1], 0.0, 0.0, on[1]]])}


def measured(x: tuple[float, float] = (0.0, 3.0), y: tuple[float, float] = (0.0, 4.0)) -> dict[str, Floats]:
    return {"pump": np.array([x, y]).T.copy()}


def margin_of(c: Constraint, now: Any, before: Any = None, **fields: Any) -> Any:
    seen = {"measured": measured(), "dt_s": DT_S, **fields}
    return Margins(declare(PLATE, [c]))(Moment(commands() if before is None else before, now, **seen))[c.name]


def test_range_and_measured_margins_are_distances_to_the_nearer_end() -> None:
    tight = RangeConstraint("pump", "flow", 0.0, 8.0, "l/s")
    np.testing.assert_allclose(margin_of(tight, commands((3.0, 9.5))), [3.0, -1.5])
    low = MeasuredConstraint("low", "pump", "y_m", "m", maximum=3.0)
    np.testing.assert_allclose(margin_of(low, commands()), [3.0, -1.0])
    at_least = MeasuredConstraint("high", "pump", "y_m", "m", minimum=1.0)
    np.testing.assert_allclose(margin_of(at_least, commands()), [-1.0, 3.0])


def test_rate_margin_starts_from_the_range_so_that_the_way_back_is_free() -> None:
    compiled = Margins(declare(PLATE, [RangeConstraint("pump", "flow", 0.0, 5.0, "l/s")]))
    moment = Moment(commands((9.0, 1.0)), commands((5.0, 9.0)), measured(), DT_S)
    np.testing.assert_allclose(compiled(moment)["pump/flow rate"], [6.0, -2.0])  # 0.01 l/s/s over 600 s


def test_acceleration_margin_compares_with_the_change_before() -> None:
    c = AccelerationConstraint("pump", "flow", 1e-5, "l/s")  # 3.6 l/s a period
    history = History.start(declare(PLATE, [c]), commands()).after(commands(), commands((2.0, 0.0)), DT_S)
    margin = margin_of(c, commands((3.0, 5.0)), commands((2.0, 0.0)), history=history)
    np.testing.assert_allclose(margin, [2.6, -1.4])  # changes 1 after 2, and 5 after 0


def test_small_changes_are_inside_a_deadband() -> None:
    c = DeadbandConstraint("pump", "flow", 0.5, "l/s", 1)
    np.testing.assert_allclose(margin_of(c, commands((0.2, 0.0))), [-0.3, 0.5])
    np.testing.assert_allclose(margin_of(c, commands((2.0, 0.5))), [1.5, 0.0])


def test_dwell_counts_the_time_at_its_level_alone() -> None:
    c = DwellConstraint("pump", "on", 1800.0, "1", 1.0)
    whole = declare(PLATE, [c])
    off, on = commands(), commands(on=(1.0, 1.0))
    history = History.start(whole, off)
    assert (margin_of(c, on, off, history=history) >= 0).all()  # it has stood for ever, and off is free
    history = history.after(off, on, DT_S)
    half = commands(on=(0.0, 1.0))
    np.testing.assert_allclose(margin_of(c, half, on, history=history), [600.0 - 1800.0, 1800.0])
    for _ in range(2):
        history = history.after(on, on, DT_S)
    np.testing.assert_allclose(margin_of(c, half, on, history=history), [0.0, 1800.0])


def test_switches_are_those_of_the_last_hour() -> None:
    c = SwitchesConstraint("pump", "on", 2, "1")
    history = History.start(declare(PLATE, [c]), commands())
    before, found = commands(), []
    for step in range(9):  # P1 switches every period of ten minutes, P2 never
        now = commands(on=(float(step % 2 == 0), 0.0))
        found.append(margin_of(c, now, before, history=history).copy())
        history, before = history.after(before, now, DT_S), now
    np.testing.assert_allclose(np.array(found)[:, 0], [1, 0, -1, -2, -3, -4, -4, -4, -4])  # six decisions an hour
    np.testing.assert_allclose(np.array(found)[:, 1], 2.0)
    assert len(history.recent) == 5


def test_transitions_exclusions_and_conflicts_are_kept_or_not() -> None:
    only_on = TransitionConstraint("pump", "on", ((0.0, 1.0),), "1")
    safe = {"pump": SafeState("values", {"on": 1.0})}
    compiled = Margins(declare(PLATE, [only_on], safe))
    moment = Moment(commands(on=(0.0, 1.0)), commands(on=(1.0, 0.0)), measured(), DT_S)
    np.testing.assert_allclose(compiled(moment)[only_on.name], [1.0, -1.0])
    one = ExclusiveConstraint("pump", ("flow", "on"))
    np.testing.assert_allclose(margin_of(one, commands((1.0, 1.0), on=(1.0, 0.0))), [-1.0, 0.0])
    never_both = ConflictConstraint("both", "pump", ((("P1", "on", 1.0), ("P2", "on", 1.0)),))
    assert margin_of(never_both, commands(on=(1.0, 1.0))) == -1.0
    assert margin_of(never_both, commands(on=(1.0, 0.0))) == 1.0
    here = {"pump": np.array([True, False])}
    assert margin_of(never_both, commands(on=(1.0, 1.0)), present=here) == 1.0


def test_sums_weigh_and_leave_absent_assets_out() -> None:
    c = SumConstraint("cap", "pump", "flow", "m3/h", 60.0, 7.2, (3.6, 3.6))
    plate_safe = Margins(declare(PLATE, [SumConstraint("cap", "pump", "flow", "m3/h", 60.0, None, (3.6, 3.6))]))
    assert c.describe() == "the sum over assets is at least 7.2 and at most 60 m3/h"
    both = Moment(commands(), commands((10.0, 8.0)), measured(), DT_S)
    assert plate_safe(both)["cap"] == pytest.approx(60.0 - 64.8)
    gone = Moment(
        commands(), {"pump": commands((10.0, math.nan))["pump"]}, measured(), DT_S, {"pump": np.array([True, False])}
    )
    assert plate_safe(gone)["cap"] == pytest.approx(24.0)
    assert plate_safe(gone)["pump/flow range"].tolist() == [0.0, math.inf]
    ramp = SumRateConstraint("ramp", "pump", "flow", "l/s", 0.01, 0.005)
    assert margin_of(ramp, commands((5.0, 3.0))) == pytest.approx(-2.0)
    assert margin_of(ramp, commands(), commands((1.0, 0.0))) == pytest.approx(2.0)


def test_separation_is_the_distance_to_the_nearest_other() -> None:
    c = SeparationConstraint("apart", "pump", ("x_m", "y_m"), ("vx_mps", "vy_mps"), 2.0, "m")
    np.testing.assert_allclose(margin_of(c, commands()), [3.0, 3.0])  # the 3-4-5 triangle
    alone = margin_of(c, commands(), present={"pump": np.array([True, False])})
    assert alone.tolist() == [math.inf, math.inf]


def radius(seen: Floats) -> BarrierTerms:
    h = 4.0 - np.hypot(seen[:, 0], seen[:, 1])
    return BarrierTerms(h, np.zeros_like(h), np.zeros((len(h), 4)))


def test_a_barriers_margin_is_its_value_for_numpy_and_torch() -> None:
    c = BarrierConstraint("radius", "pump", radius, 1.0)
    np.testing.assert_allclose(margin_of(c, commands()), [4.0, -1.0])
    tensor = margin_of(c, {"pump": torch.zeros(5, 2, 4)}, {"pump": torch.zeros(5, 2, 4)}, measured={
        "pump": torch.from_numpy(measured()["pump"]).float().expand(5, 2, 2)
    })  # fmt: skip
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [[4.0, -1.0]] * 5


def test_violations_and_costs_are_the_negative_part_and_pass_gradients() -> None:
    compiled = Margins(declare(PLATE, [SumConstraint("cap", "pump", "flow", "l/s", 12.0)]))
    wanted = torch.tensor([[[10.0, 0.0, 0.0, 0.0], [6.0, 0.0, 0.0, 0.0]], [[1.0, 0, 0, 0], [2.0, 0, 0, 0]]])
    wanted.requires_grad_()
    seen = {"pump": torch.zeros(2, 2, 2)}
    moment = Moment({"pump": torch.zeros(2, 2, 4)}, {"pump": wanted}, seen, DT_S)
    violation = compiled.violations(moment)["cap"]
    assert violation.tolist() == [4.0, 0.0]
    costs = compiled.costs(moment)
    assert costs["constraint/cap"].tolist() == pytest.approx([4.0 / 20.0, 0.0])
    assert costs["constraint/pump/flow range"].shape == (2, 2)
    violation.sum().backward()
    assert wanted.grad is not None
    assert wanted.grad[..., 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_the_monitor_names_the_worst_asset_and_takes_no_number_for_the_worst() -> None:
    compiled = Margins(declare(PLATE, [SumConstraint("cap", "pump", "flow", "l/s", 12.0)]))
    worst = compiled.worst(Moment(commands(), commands((9.0, 4.0)), measured(), DT_S))
    assert worst["cap"] == (-1.0, None)
    assert worst["pump/flow range"] == (1.0, "P1")
    lost = compiled.worst(Moment(commands(), commands((9.0, math.nan)), measured(), DT_S))
    assert lost["pump/flow range"] == (-math.inf, "P2")
    assert lost["cap"].margin == -math.inf


def test_a_missing_history_is_told() -> None:
    c = SwitchesConstraint("pump", "on", 2, "1")
    assert needs_history(declare(PLATE, [c]))
    assert not needs_history(declare(PLATE))
    with pytest.raises(ContractError, match="give the moment a history"):
        margin_of(c, commands())
