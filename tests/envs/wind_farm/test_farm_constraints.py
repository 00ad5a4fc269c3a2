"""A farm declares a power cap, ramps and a preference of its own, and nothing where none is set."""

from __future__ import annotations

from typing import Any

import pytest

from twinloop.envs.configuration import validate
from twinloop.envs.conformance import check_declaration
from twinloop.envs.constraint import constraints_of, declaration_of_site
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.registry import load_site
from twinloop.envs.wind_farm.config import WindFarmConfig
from twinloop.envs.wind_farm.constraints import farm_safe_states

SITE = load_site("wind_farm")
RATED_KW = 5000.0  # NREL 5 MW, three of them


def farm(layout: Any = None, **limits: float) -> WindFarmConfig:
    data: dict[str, Any] = {"kind": "wind_farm", "limits": limits}
    return validate(data | ({"layout": layout} if layout else {}), WindFarmConfig, "test")


def test_without_limits_the_nameplate_says_all() -> None:
    declaration = declaration_of_site(SITE, farm())
    assert declaration.constraints == constraints_of(declaration.nameplate)
    check_declaration(declaration)


def test_all_limits_together_conform_and_the_safe_state_is_an_equal_share_of_the_cap() -> None:
    config = farm(power_cap_kw=9000.0, power_rise_kw_per_s=50.0, power_fall_kw_per_s=100.0, preferred_yaw_deg=25.0)
    declaration = declaration_of_site(SITE, config)
    check_declaration(declaration)
    assert [row.limit for row in declaration.rows() if row.origin == "site"] == [
        "the sum over assets is at most 9000 kW",
        "the sum over assets rises by at most 50 and falls by at most 100 kW/s",
        "-25 to 25 deg",
    ]
    assert [c.priority for c in declaration.soft] == [0]
    (safe,) = {state.describe() for state in declaration.safe_states.values()}
    assert safe == "power_limit_pu 0.6"


def test_a_cap_that_no_turbine_can_keep_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="least sum that the ranges allow is 1500"):
        declaration_of_site(SITE, farm(power_cap_kw=1000.0))


def test_a_random_farm_is_capped_as_its_largest() -> None:
    config = farm({"kind": "random", "n_min": 2, "n_max": 4}, power_cap_kw=10000.0)
    check_declaration(declaration_of_site(SITE, config))
    assert farm_safe_states(config)["turbine"].values == {"power_limit_pu": 10000.0 / (4 * RATED_KW)}


def test_a_farm_of_several_types_has_no_fixed_sum() -> None:
    config = farm(power_cap_kw=9000.0).model_copy(update={"other_turbines": ("iea_10MW",)})
    with pytest.raises(ConfigurationError, match="other_turbines draws its rated power anew"):
        declaration_of_site(SITE, config)
