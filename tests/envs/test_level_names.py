"""Names of levels, as the sites that are shipped describe them."""

from __future__ import annotations

import pytest

from twinloop.envs.level_names import level_names
from twinloop.envs.nameplate import Nameplate, Signal
from twinloop.envs.plant_file import load_plant_file

YES = {0: "no", 1: "yes"}


def plate_of(file: str) -> Nameplate:
    site, config, _ = load_plant_file(f"configs/{file}")
    return site.nameplate(config)


@pytest.mark.parametrize(
    ("file", "group", "kind", "name", "names"),
    [
        (
            "production_line/plant_wear.yaml",
            "machine",
            "measured",
            "state",
            {0: "running", 2: "starved", 7: "in service"},
        ),
        ("production_line/plant_wear.yaml", "machine", "measured", "waits_for_crew", YES),
        ("production_line/plant_wear.yaml", "machine", "commanded", "mode", {0: "off", 1: "stand-by", 2: "on"}),
        ("production_line/plant_wear.yaml", "machine", "commanded", "service", {0: "none", 2: "inspection"}),
        ("production_line/plant_wear.yaml", "crew", "measured", "call_1", {0: "nothing", 1: "preventive service"}),
        ("robot_cell/plant_cell.yaml", "arm", "measured", "holds", YES),
        ("wind_farm/plant_ablaincourt.yaml", "turbine", "measured", "available_pu", YES),
    ],
)
def test_signals_that_describe_their_levels_have_names(
    file: str, group: str, kind: str, name: str, names: dict[int, str]
) -> None:
    found = plate_of(file).group(group)
    signal = getattr(found, kind)[found.index(kind, name)]
    assert names.items() <= level_names(signal).items()


@pytest.mark.parametrize("file", ["production_line/plant_wear.yaml", "robot_cell/plant_cell.yaml"])
def test_counts_and_quantities_have_none(file: str) -> None:
    named = {s.name for g in plate_of(file).groups for s in (*g.measured, *g.commanded) if level_names(s)}
    assert {name for name in named if not name.startswith("call_")} <= {
        "state", "waits_for_crew", "mode", "service", "holds",
    }  # fmt: skip


def test_levels_outside_the_range_or_of_a_unit_are_no_levels() -> None:
    assert not level_names(Signal("x", "1", 0.0, 1.0, "0 off, 2 on"))
    assert not level_names(Signal("x", "kW", 0.0, 2.0, "0 off, 2 on"))
