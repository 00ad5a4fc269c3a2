"""Prototypes of a farm: the contract, and a layout on the batch axis is the farm that is built from it."""

from __future__ import annotations

import pytest
import torch

from twinloop.envs.conformance import check_twin
from twinloop.envs.errors import ConfigurationError, ContractError, LayoutError
from twinloop.envs.wind_farm import SITE
from twinloop.envs.wind_farm.config import WindFarmConfig
from twinloop.envs.wind_farm.nameplate import GROUP
from twinloop.envs.wind_farm.prototypes import FarmPrototypes
from twinloop.envs.wind_farm.twin import WindFarmTwin


def row(kind: str = "steady", **more: object) -> WindFarmConfig:
    dynamics = {"kind": kind}
    return WindFarmConfig.model_validate({"layout": {"kind": "named", "name": "row3_5d"}, "dynamics": dynamics} | more)


@pytest.mark.parametrize("kind", ["steady", "dynamic"])
def test_prototypes_of_a_farm_keep_the_contract_of_a_twin(kind: str) -> None:
    inflow = {"wind_direction_deg": [260.0, 280.0], "wind_speed_mps": [7.0, 9.0]}
    layout = {"kind": "coordinates", "x_m": [0.0, 630.0], "y_m": [0.0, 40.0]}
    check_twin(
        lambda n: FarmPrototypes(row(kind, inflow=inflow, layout=layout, dt_s=30.0), n), steps=2, batch_sizes=(2, 33)
    )


@pytest.mark.parametrize("kind", ["steady", "dynamic"])
def test_a_layout_on_the_batch_axis_is_the_farm_built_from_it_bit_for_bit(kind: str) -> None:
    config = row(kind, dt_s=10.0)
    prototypes = FarmPrototypes(config, 2)
    away = torch.tensor([0.0, 333.25], dtype=torch.float64)
    prototypes.set_parameters({"WT02_y_m": away})
    many = prototypes.reset(torch.tensor([1, 1]))
    command = torch.tensor([0.0, 1.0]).expand(2, 3, 2)
    for _ in range(3):
        many = prototypes.step({GROUP: command})
    for k, y in enumerate(away.tolist()):
        built = SITE.built(config, {"WT02_y_m": y})
        alone = WindFarmTwin(built, 1)
        alone.reset(torch.tensor([1]))
        for _ in range(3):
            one = alone.step({GROUP: command[:1]})
        assert torch.equal(many.measured[GROUP][k], one.measured[GROUP][0])
        assert torch.equal(many.hidden[GROUP][k], one.hidden[GROUP][0])
    power = many.measured[GROUP][..., SITE.nameplate(config).group(GROUP).index("measured", "power_kw")]
    assert power[1, 1] > 1.2 * power[0, 1]  # out of the wake


def test_turbines_closer_than_a_rotor_are_not_feasible_and_not_built() -> None:
    config = row()
    x = torch.tensor([630.0, 100.0])
    assert SITE.feasible(config, {"WT02_x_m": x}).tolist() == [True, False]
    with pytest.raises(LayoutError, match=r"100\.0 m apart"):
        SITE.built(config, {"WT02_x_m": 100.0})


def test_farms_that_draw_their_layout_have_no_prototypes_and_farms_are_not_mixed() -> None:
    with pytest.raises(ConfigurationError, match="give named or coordinates"):
        FarmPrototypes(WindFarmConfig.model_validate({"layout": {"kind": "random"}}), 1)
    with pytest.raises(ContractError, match="cannot be mixed"):
        FarmPrototypes(row(), 2).mix(torch.eye(2))
