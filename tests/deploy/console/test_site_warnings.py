"""What a site warns of becomes alarms of its assets, and costs no other alarm when it cannot be told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from twinloop.deploy.console import site_warnings
from twinloop.deploy.console.alarm_book import Priority
from twinloop.deploy.console.sheet import Sheet
from twinloop.deploy.console.site_warnings import SiteWarnings
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.production_line.config import FixedLine, LineConfig, Machine, Upkeep, WeibullWear
from twinloop.envs.production_line.nameplate import line_nameplate

WEARS = Machine(upkeep=Upkeep(wear=WeibullWear(shape=2.0, scale_slots=1000.0)))


def plate(name: str = "production_line") -> Nameplate:
    return line_nameplate(LineConfig(name=name, line=FixedLine(machines=(WEARS, WEARS, Machine()), capacities=(3, 3))))


def sheet(nameplate: Nameplate) -> Sheet:
    return Sheet(nameplate, 60.0, {}, frozenset(nameplate.agents))


def state(nameplate: Nameplate, age: float, **more: Any) -> dict[str, Any]:
    """All at rest; the first machine has worked for ``age`` slots."""
    groups: dict[str, Any] = {}
    for group in nameplate.groups:
        zeros = {s.name: [0.0] * group.n_assets for s in group.measured}
        groups[group.name] = {"measured": zeros, "quality": {n: [0] * len(v) for n, v in zeros.items()}}
    groups["machine"]["measured"]["age_slots"][0] = age
    return {"groups": groups, "ended": None, **more}


def test_a_machine_that_may_fail_is_an_alarm_of_its_asset_and_graver_when_it_is_likely() -> None:
    # the mean life is 886 slots, the horizon 89; hazard 2 a / 1000^2
    told, now = SiteWarnings(), plate()
    assert told.conditions(sheet(now), state(now, 400.0)) == []
    found = told.conditions(sheet(now), state(now, 900.0))
    assert [(c.key, c.asset, c.priority) for c in found] == [("machine/M1/failure", "machine/M1", Priority.LOW)]
    assert "within 89 slots of work with a chance above 10%" in found[0].text
    (late,) = told.conditions(sheet(now), state(now, 5000.0))
    assert (late.priority, "above 50%" in late.text) == (Priority.MEDIUM, True)


def test_an_alarm_changes_at_coarse_figures_alone() -> None:
    told, now = SiteWarnings(), plate()
    on = sheet(now)
    texts = [c.text for age in range(0, 12_000, 20) for c in told.conditions(on, state(now, float(age)))]
    assert len(texts) > 300
    assert len(set(texts)) == 4  # 10, 20, 50 and 80 %


def test_bad_readings_failed_machines_and_a_run_that_is_over_warn_of_nothing() -> None:
    told, now = SiteWarnings(), plate()
    bad = state(now, 900.0)
    bad["groups"]["machine"]["quality"]["age_slots"][0] = 2
    failed = state(now, 900.0)
    failed["groups"]["machine"]["measured"]["state"][0] = 3.0
    failed["groups"]["machine"]["measured"]["waits_for_crew"][0] = 1.0
    for nothing in (bad, failed, state(now, 900.0, ended="completed"), {"groups": None}):
        assert told.conditions(sheet(now), nothing) == []


def test_a_line_of_another_name_is_known_by_its_label_and_a_stranger_by_nothing() -> None:
    named = plate("north")
    assert named.labels["kind"] == "production_line"
    assert len(SiteWarnings().conditions(sheet(named), state(named, 900.0))) == 1
    stranger = Nameplate("north", named.period_s, named.groups)
    assert SiteWarnings().conditions(sheet(stranger), state(stranger, 900.0)) == []


def test_a_site_that_fails_is_logged_once_and_costs_no_other_alarm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def warnings(self, nameplate: Nameplate, measured: Mapping[str, Any]) -> tuple[()]:
            raise ValueError("a bug of its own")

    monkeypatch.setattr(site_warnings, "load_site", lambda name: Broken())
    told, now = SiteWarnings(), plate()
    on = sheet(now)
    with caplog.at_level(logging.ERROR):
        assert [told.conditions(on, state(now, 900.0)) for _ in range(3)] == [[], [], []]
    assert len(caplog.records) == 1
