from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from twinloop.envs.errors import ContractError, UnknownSiteError
from twinloop.envs.registry import Site, load_site, site_names


@pytest.fixture
def another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of somebody else, installed as pip leaves it, that announces one site and one object that is none."""
    (tmp_path / "brewery_twin.py").write_text(
        "from twinloop.envs.wind_farm.site import WindFarmSite\n"
        "class Brewery(WindFarmSite):\n    name = 'brewery'\n    summary = 'vats'\n"
        "SITE = Brewery()\nNOT_A_SITE = 3\n"
    )
    info = tmp_path / "brewery_twin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brewery-twin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[twinloop.sites]\nbrewery = brewery_twin:SITE\nbroken = brewery_twin:NOT_A_SITE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return "brewery"


def test_the_wind_farm_is_installed() -> None:
    assert "wind_farm" in site_names()
    assert load_site("wind_farm").name == "wind_farm"


@pytest.mark.parametrize("name", site_names())
def test_every_installed_site_is_a_site_that_is_declared_by_default_or_says_what_it_needs(name: str) -> None:
    site = load_site(name)
    assert isinstance(site, Site)
    assert site.config_model.model_config["extra"] == "forbid"
    assert site.plant_config_model.model_config["extra"] == "forbid"
    if name == "environment":  # the one that is whatever it is told to be
        with pytest.raises(ValidationError, match="give either id, for Gymnasium, or parallel, for PettingZoo"):
            site.config_model()
    else:
        assert site.nameplate(site.config_model()).groups


def test_another_package_adds_a_site(another_package: str) -> None:
    assert site_names() == tuple(sorted({*site_names(), another_package}))
    assert load_site(another_package).summary == "vats"


def test_what_is_no_site_is_refused_by_name(another_package: str) -> None:
    with pytest.raises(ContractError, match=r"entry point 'broken' in twinloop\.sites gives int, which is no Site"):
        load_site("broken")


def test_an_unknown_site_names_the_installed_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownSiteError) as caught:
        load_site("windfarm")
    assert str(caught.value) == (
        f"site 'windfarm' is not installed; installed sites: {', '.join(site_names())} (did you mean 'wind_farm'?)"
    )
