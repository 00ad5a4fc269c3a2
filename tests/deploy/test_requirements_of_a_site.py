"""What a site requires over time is checked, watched in a run, and listed by `twinloop check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from twinloop.agents.controllers.reference import NeutralPolicy
from twinloop.deploy.commands.check import requirement_table
from twinloop.deploy.shield import Code, Mode, Shield
from twinloop.deploy.watching import watch
from twinloop.envs.constraint import MeasuredConstraint, declaration_of_site
from twinloop.envs.constraint.temporal import (
    And,
    Formula,
    HasRequirements,
    Historically,
    Kept,
    Not,
    Once,
    Or,
    Since,
    Within,
    describe_formula,
    requirements_of_site,
)
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.plant import Quality, Telemetry
from twinloop.envs.registry import load_site

SIGNALS = (Signal("heat", "1", 0.0, 1.0),), (Signal("gas", "1", 0.0, 1.0, neutral=0.5),)
PLATE = Nameplate("ovens", 1.0, (Group("oven", ("O1", "O2"), *SIGNALS), Group("vent", ("V1",), *SIGNALS)))
HOT = Within("oven", "heat", maximum=0.9)


class Ovens:
    """Only what is asked of a site here."""

    name = "ovens"

    def __init__(self, **required: Any) -> None:
        self._required = required

    def nameplate(self, config: Any) -> Nameplate:
        return PLATE

    def constraints(self, config: Any) -> tuple[MeasuredConstraint, ...]:
        return (MeasuredConstraint("warm", "oven", "heat", "1", minimum=0.1, priority=1),)

    def requirements(self, config: Any) -> Mapping[str, Formula]:
        return self._required


def required(**formulas: Any) -> dict[str, Formula]:
    site: Any = Ovens(**formulas)
    return requirements_of_site(site, None, declaration_of_site(site, None))


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        (Within("ofen", "heat", maximum=1.0), r"group 'ofen'; groups: oven, vent \(did you mean 'oven'\?\)"),
        (Historically(Within("oven", "heta", maximum=1.0), 5.0), r"measured signal 'heta'; there are heat"),
        (Kept("wram"), r"constraint 'wram'; declared: .*warm"),
        (Once(HOT, 2.5), "give whole periods of 1 s"),
        (And(HOT, Within("vent", "heat", maximum=0.5)), "is about the groups oven, vent; write one for each"),
        ("heat < 1", "str is no formula; give one of Within, Kept"),
        (Not("heat < 1"), "str is no formula"),  # type: ignore[arg-type]  # what a site may write all the same
    ],
)
def test_a_fault_names_the_requirement_and_says_what_is_allowed(formula: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"requirement 'rest': .*{told}"):
        required(rest=formula)


def test_all_faults_are_listed_at_once_and_a_constraints_name_is_taken() -> None:
    with pytest.raises(ConfigurationError) as found:
        required(warm=HOT, odd=Kept("none"), fine=HOT)
    assert [line.split(":")[0] for line in str(found.value).splitlines()] == ["requirement 'warm'", "requirement 'odd'"]


def test_a_site_that_requires_nothing_needs_no_method() -> None:
    site = load_site("wind_farm")
    assert not isinstance(site, HasRequirements)
    config = site.config_model()
    assert requirements_of_site(site, config, declaration_of_site(site, config)) == {}


def test_a_run_watches_them_and_only_the_oven_that_breaks_one_falls_back() -> None:
    site: Any = Ovens(cooled=Or(HOT, Once(Within("oven", "heat", maximum=0.5), 3.0)))
    declaration = declaration_of_site(site, None)
    policy = NeutralPolicy(PLATE)
    monitors = watch(declaration, policy, print, requirements_of_site(site, None, declaration))
    assert watch(declaration, policy, print) == ()
    shield = Shield(declaration, monitors=monitors)
    state, fell = shield.start(), []
    for k in range(8):
        heat = {"oven": np.array([[0.4], [0.4 if k < 2 else 0.95]]), "vent": np.array([[0.4]])}
        times = {n: np.full(v.shape, float(k)) for n, v in heat.items()}
        good = {n: np.full(v.shape, Quality.GOOD, np.int8) for n, v in heat.items()}
        asked = {n: np.full(v.shape, 0.6) for n, v in heat.items()}
        decision = shield.filter(Telemetry(heat, times, good, float(k), k), asked, float(k), state)
        state = decision.state
        assert decision.mode["oven/O1"] is decision.mode["vent/V1"] is Mode.AUTONOMOUS
        told = {r.asset for r in decision.reasons if r.code is Code.MONITOR_ROBUSTNESS}
        fell.append(decision.mode["oven/O2"] is Mode.BACKUP)
        assert told == ({"oven/O2"} if fell[-1] else set())
    assert fell == [False] * 5 + [True] * 3  # cool in period 1, which is 3 s ago until period 4


def test_check_lists_them_in_words() -> None:
    rows = required(calm=Historically(HOT, 30.0), back=Since(Kept("warm"), Not(HOT), 9.0, 2.0))
    table = requirement_table(rows)
    assert [[str(cell) for cell in column.cells] for column in table.columns] == [
        ["calm", "back"],
        [
            "always in the last 30 s: (oven/heat <= 0.9)",
            "('warm' kept) since 2 to 9 s ago: (not (oven/heat <= 0.9))",
        ],
    ]
    both = Within("oven", "heat", minimum=0.1, maximum=0.2)
    assert describe_formula(Or(both, And(HOT, Kept("warm")))) == (
        "(oven/heat >= 0.1 and <= 0.2) or ((oven/heat <= 0.9) and ('warm' kept))"
    )
