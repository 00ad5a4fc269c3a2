"""The flat vector of all commands and the sum limits over it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from twinloop.deploy.shield.compiled import flat_commands, sum_rows
from twinloop.deploy.shield.sums import SumStatus
from twinloop.envs.errors import ConfigurationError, NameplateError
from twinloop.envs.nameplate import Group, Nameplate, Signal


class Limit(NamedTuple):
    name: str = "cap"
    group: str = "turbine"
    signal: str = "power_mw"
    weights: tuple[float, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


def _site() -> Nameplate:
    yaw = Signal("yaw_deg", "deg", -30.0, 30.0, rate_limit_per_s=0.5)
    power = Signal("power_mw", "MW", 0.0, 5.0, neutral=5.0)
    store = Signal("store_mw", "MW", -2.0, 2.0)
    measured = (Signal("speed_mps", "m/s", 0.0, 50.0),)
    return Nameplate(
        "mixed",
        1.0,
        (
            Group("battery", ("B1",), measured, (store,)),
            Group("meter", ("M1", "M2"), measured, ()),
            Group("turbine", ("T1", "T2", "T3"), measured, (yaw, power)),
        ),
    )


def test_the_flat_vector_is_in_the_order_of_the_nameplate() -> None:
    site = _site()
    flat = flat_commands(site)
    assert flat.names == site.signal_names("commanded")
    assert flat.n == 7
    np.testing.assert_array_equal(flat.lower, [-2, -30, 0, -30, 0, -30, 0])
    np.testing.assert_array_equal(flat.rate, [np.inf, 0.5, np.inf, 0.5, np.inf, 0.5, np.inf])
    np.testing.assert_array_equal(flat.neutral, [0, 0, 5, 0, 5, 0, 5])
    assert [site.agents[i] for i in flat.asset] == [n.rpartition("/")[0] for n in flat.names]
    assert [flat.names[i] for i in flat.index(site, "turbine", "power_mw")] == [
        "turbine/T1/power_mw",
        "turbine/T2/power_mw",
        "turbine/T3/power_mw",
    ]


def test_flat_and_grouped_are_inverses() -> None:
    flat = flat_commands(_site())
    vector = np.arange(7.0)
    grouped = flat.grouped(vector)
    assert {k: v.shape for k, v in grouped.items()} == {"battery": (1, 1), "meter": (2, 0), "turbine": (3, 2)}
    assert np.array_equal(flat.flat(grouped), vector)
    with pytest.raises(KeyError):
        flat.flat({})


def test_reach_is_range_and_rate_and_the_range_wins() -> None:
    flat = flat_commands(_site())
    applied = np.array([0.0, 29.9, 1.0, -40.0, 1.0, 0.0, 1.0])
    low, high = flat.reach(applied, 1.0)
    np.testing.assert_allclose(low[[1, 3, 5]], [29.4, -30.0, -0.5])
    np.testing.assert_allclose(high[[1, 3, 5]], [30.0, -30.0, 0.5])
    np.testing.assert_array_equal(high[[0, 2]], [2.0, 5.0])


def test_a_cap_is_kept_over_the_flat_vector() -> None:
    site = _site()
    flat = flat_commands(site)
    (row,) = sum_rows(site, flat, [Limit(maximum=9.0)])
    done = row.keep(flat.neutral, flat.lower, flat.upper)
    np.testing.assert_allclose(done.u, [[3.0, 3.0, 3.0]], rtol=0, atol=1e-15)
    assert done.status[0] == SumStatus.LIMITED
    assert row.margin(flat.neutral) == pytest.approx(-6.0)
    assert row.margin(np.zeros(7)) == pytest.approx(9.0)


def test_a_limit_is_tightened_at_run_time_and_never_widened() -> None:
    site = _site()
    (row,) = sum_rows(site, flat_commands(site), [Limit(maximum=9.0, minimum=1.0)])
    tight = row.tightened(maximum=6.0, minimum=2.0)
    assert (tight.minimum, tight.maximum) == (2.0, 6.0)
    for wide in (row.tightened(maximum=12.0, minimum=0.0), row.tightened(np.nan, np.nan), row.tightened()):
        assert (wide.minimum, wide.maximum) == (1.0, 9.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (1.0,), "maximum": 1.0}, "expected 3 finite numbers"),
        ({"weights": (1.0, np.nan, 1.0), "maximum": 1.0}, "expected 3 finite numbers"),
        ({"minimum": 2.0, "maximum": 1.0}, "swap or widen"),
        ({"maximum": np.nan}, "swap or widen"),
        ({"maximum": -1.0}, "no commands in range keep it"),
        ({"minimum": 15.1}, "no commands in range keep it"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    site = _site()
    with pytest.raises(ConfigurationError, match=message):
        sum_rows(site, flat_commands(site), [Limit(**change)])


def test_a_sum_over_an_unknown_signal_is_refused_with_the_known_ones() -> None:
    site = _site()
    with pytest.raises(NameplateError, match="power_mw"):
        sum_rows(site, flat_commands(site), [Limit(signal="heat_mw", maximum=1.0)])
