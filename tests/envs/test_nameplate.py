from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.envs.errors import NameplateError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.wind_farm.nameplate import make_nameplate

SPEED = Signal("speed_mps", "m/s", 0.0, 60.0)
ANGLE = Signal("heading_deg", "deg", 0.0, 360.0, circular=True)
YAW = Signal("yaw_deg", "deg", -40.0, 40.0, neutral=1.0, rate_limit_per_s=0.3)
GEAR = Signal("gear", "1", 0.0, 2.0, levels=(0.0, 1.0, 2.0))
POSITION = Signal("x_m", "m", -1e6, 1e6)
GROUP = Group(
    "turbine",
    ("WT01", "WT02"),
    measured=(SPEED, ANGLE),
    commanded=(YAW, GEAR),
    statics=(POSITION,),
    static_values=((0.0,), (630.0,)),
)
SITE = Nameplate("farm", 10.0, (GROUP,), "two turbines", {"owner": "nobody"})


def changed_signal(kind: str, column: int, **changes: Any) -> Nameplate:
    signals = list(getattr(GROUP, kind))
    signals[column] = dataclasses.replace(signals[column], **changes)
    return changed_group(**{kind: tuple(signals)})


def changed_group(**changes: Any) -> Nameplate:
    return dataclasses.replace(SITE, groups=(dataclasses.replace(GROUP, **changes),))


def through_json(nameplate: Nameplate) -> Nameplate:
    return Nameplate.from_dict(json.loads(json.dumps(nameplate.to_dict())))


def test_that_a_signal_is_relayed_is_nothing_to_a_policy_and_travels_all_the_same() -> None:
    relayed = changed_signal("measured", 0, relayed=True)
    assert (relayed.hash, relayed.interface_hash) == (SITE.hash, SITE.interface_hash)
    assert relayed.differences(SITE) == []
    assert through_json(relayed) == relayed != SITE
    assert "relayed" not in json.dumps(SITE.to_dict())  # as those were written that know nothing of it


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
numbers = st.floats(-1e6, 1e6)
signals = st.builds(
    lambda name, low, width, levels, rate, circular: Signal(
        name, "u", low, low + width, "d", "T.t", low, rate, (low, low + width) if levels else None, circular
    ),
    names, numbers, st.floats(0.5, 1e3), st.booleans(), st.none() | st.floats(1e-3, 10), st.booleans(),
)  # fmt: skip
lists_of_signals = st.lists(signals, max_size=3, unique_by=lambda s: s.name).map(tuple)
groups = st.builds(
    lambda name, n, m, c, h, s: Group(
        name, tuple(f"A{i}" for i in range(n)), m, c, h, s, (tuple(x.minimum for x in s),) * n
    ),
    names, st.integers(1, 3), lists_of_signals, lists_of_signals, lists_of_signals, lists_of_signals,
)  # fmt: skip
sites = st.builds(
    lambda name, period_s, found: Nameplate(name, period_s, tuple(found)),
    names,
    st.floats(1e-3, 1e4),
    st.lists(groups, min_size=1, max_size=2, unique_by=lambda g: g.name),
)


@given(site=sites)
def test_json_and_back_keeps_a_nameplate_and_its_hashes(site: Nameplate) -> None:
    again = through_json(site)
    assert again == site
    assert (again.hash, again.interface_hash) == (site.hash, site.interface_hash)
    assert again.differences(site) == []


def test_the_wind_farm_goes_through_json() -> None:
    site = make_nameplate("farm", 10.0, 2, ((0.0, 0.0, 126.0, 90.0, 5000.0), (630.0, 0.0, 126.0, 90.0, 5000.0)))
    assert through_json(site) == site


def test_the_hash_is_that_of_the_canonical_json() -> None:
    # SHA-256 of the sorted, compact JSON of the declaration: artifacts of today must fit the sites of tomorrow.
    minimal = Nameplate("s", 1.0, (Group("g", ("A",), (), ()),))
    canonical = (
        '{"description":"","groups":[{"assets":["A"],"commanded":[],"hidden":[],"measured":[],"name":"g",'
        '"static_values":[],"statics":[]}],"labels":{},"period_s":1.0,"site":"s"}'
    )
    assert minimal.hash == hashlib.sha256(canonical.encode()).hexdigest()
    interface = '[{"commanded":[],"measured":[],"name":"g","statics":[]}]'
    assert minimal.interface_hash == hashlib.sha256(interface.encode()).hexdigest()


def test_equal_nameplates_have_one_hash() -> None:
    counted = dataclasses.replace(
        SITE, period_s=10, groups=(dataclasses.replace(GROUP, static_values=((-0.0,), (630,))),)
    )
    assert counted == SITE
    assert (counted.hash, counted.interface_hash) == (SITE.hash, SITE.interface_hash)
    assert through_json(counted).hash == SITE.hash


def test_agents_and_signals_have_full_names_in_the_order_of_the_arrays() -> None:
    assert SITE.agents == ("turbine/WT01", "turbine/WT02")
    assert SITE.signal_names("commanded") == (
        "turbine/WT01/yaw_deg", "turbine/WT01/gear", "turbine/WT02/yaw_deg", "turbine/WT02/gear",
    )  # fmt: skip


def test_limits_neutral_and_statics_are_columns_of_the_declaration() -> None:
    np.testing.assert_array_equal(GROUP.lower("commanded"), [-40.0, 0.0])
    np.testing.assert_array_equal(GROUP.upper("measured"), [60.0, 360.0])
    np.testing.assert_array_equal(GROUP.neutral(), [1.0, 0.0])
    np.testing.assert_array_equal(GROUP.statics_array(), [[0.0], [630.0]])
    assert GROUP.index("commanded", "gear") == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed_signal("measured", 0, maximum=50.0), "turbine/speed_mps: maximum 60.0 here, 50.0 there"),
        (changed_signal("commanded", 0, unit="rad"), "turbine/yaw_deg: unit 'deg' here, 'rad' there"),
        (changed_signal("commanded", 0, rate_limit_per_s=1.0), "turbine/yaw_deg: rate_limit_per_s 0.3 here, 1.0 there"),
        (changed_group(measured=(SPEED,)), "turbine/heading_deg: missing measured signal"),
        (changed_group(commanded=(YAW, GEAR, SPEED)), "turbine/speed_mps: unexpected commanded signal"),
        (changed_group(measured=(ANGLE, SPEED)), "turbine: measured signals stand in another order"),
        (changed_group(name="pump"), "turbine: missing group"),
    ],
)  # fmt: skip
def test_a_difference_that_any_policy_feels_names_its_signal(other: Nameplate, said: str) -> None:
    assert said in SITE.differences(other)
    assert said in SITE.differences(other, interface_only=True)
    assert SITE.interface_hash != other.interface_hash


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed_group(assets=("WT01", "WT03")), "turbine: assets ['WT01', 'WT02'] here, ['WT01', 'WT03'] there"),
        (changed_group(static_values=((0.0,), (700.0,))), "turbine: statics differ for WT02"),
        (dataclasses.replace(SITE, site="park"), "site: 'farm' here, 'park' there"),
        (dataclasses.replace(SITE, period_s=1.0), "period_s: 10.0 here, 1.0 there"),
    ],
)
def test_a_difference_between_sites_leaves_a_transferable_policy_alone(other: Nameplate, said: str) -> None:
    assert SITE.differences(other) == [said]
    assert SITE.differences(other, interface_only=True) == []
    assert SITE.hash != other.hash
    assert SITE.interface_hash == other.interface_hash


Declare = Callable[[], object]


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: Signal("yaw deg", "deg", 0, 1), "signal 'yaw deg': a name is a Python identifier"),
        (lambda: Signal("a", "1", 0, float("inf")), "signal 'a': range [0, inf] must be finite"),
        (lambda: Signal("a", "1", float("nan"), 1), "signal 'a': range [nan, 1] must be finite"),
        (lambda: Signal("a", "1", 2, 1), "signal 'a': minimum 2 is not below maximum 1"),
        (lambda: Signal("a", "1", 0, 1, rate_limit_per_s=0.0), "signal 'a': rate_limit_per_s 0.0 must be positive"),
        (lambda: Signal("a", "1", 0, 1, levels=(0.0, 2.0)), "signal 'a': levels (0.0, 2.0) leave the range [0, 1]"),
        (
            lambda: Group("g", ("A",), (), (Signal("a", "1", 0, 1, neutral=2.0),)),
            "group 'g': commanded 'a': neutral 2.0 leaves the range [0, 1]",
        ),
        (lambda: Signal("a", "1", 0, 1, levels=()), "signal 'a': levels () are empty"),
        (lambda: Signal("a", "1", 0, 1, rate_limit_per_s=float("inf")), "signal 'a': rate_limit_per_s inf must be"),
        (lambda: Group("g", (), (), ()), "group 'g': needs at least one asset"),
        (lambda: Group("g", ("A", "A"), (), ()), "group 'g': asset names repeat"),
        (
            lambda: Group("g", ("A",), (SPEED, SPEED), ()),
            "group 'g': measured names repeat: ['speed_mps', 'speed_mps']",
        ),
        (lambda: Group("g", ("A/B",), (), ()), "group 'g': asset 'A/B'"),
        (lambda: Group("g/h", ("A",), (), ()), "group 'g/h'"),
        (
            lambda: Group("g", ("A", "B"), (), (), statics=(POSITION,), static_values=((0.0,),)),
            "group 'g': static_values is (1, 1), expected (2, 1)",
        ),
        (
            lambda: Group("g", ("A", "B"), (), (), statics=(POSITION,), static_values=((0.0,), ())),
            "group 'g': static_values is (2, 0, 1), expected (2, 1)",
        ),
        (
            lambda: Group("g", ("A",), (), (), statics=(POSITION,), static_values=((float("nan"),),)),
            "group 'g': static_values of 'A': x_m nan leaves [-1000000.0, 1000000.0]",
        ),
        (lambda: Nameplate("s", 1.0, ()), "site 's': needs at least one group"),
        (lambda: Nameplate("s", 1.0, (GROUP, GROUP)), "site 's': group names repeat"),
        (lambda: Nameplate("s", 0.0, (GROUP,)), "site 's': period_s 0.0 must be a positive number"),
        (lambda: Nameplate("s", float("nan"), (GROUP,)), "site 's': period_s nan must be a positive number"),
        (lambda: SITE.group("pump"), "site 'farm' has no group 'pump'; it has ['turbine']"),
        (lambda: GROUP.index("measured", "yaw_deg"), "group 'turbine' has no measured signal 'yaw_deg'"),
        (lambda: Nameplate.from_dict({"site": "s"}), "not a nameplate: KeyError 'period_s'"),
        (lambda: Nameplate.from_dict({**SITE.to_dict(), "groups": [3]}), "not a nameplate: TypeError"),
        (
            lambda: dataclasses.replace(GROUP, static_values=()).statics_array(),
            "group 'turbine': statics differ per replica",
        ),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(declare: Declare, said: str) -> None:
    with pytest.raises(NameplateError) as caught:
        declare()
    assert str(caught.value).startswith(said)
