"""The encoder gives a policy the same view wherever and in whatever type it runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinloop.envs.wind_farm.config import NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.farm import farm_nameplate
from twinloop.envs.wind_farm.nameplate import GROUP, MEASURED
from twinloop.envs.wind_farm.relational import RelationalEncoder

M = {signal.name: k for k, signal in enumerate(MEASURED)}


@pytest.mark.parametrize("layout", ["tcrwp32", "horns_rev_1", "ablaincourt"])
@pytest.mark.parametrize("direction_deg", [0.0, 90.0, 180.0, 270.0])
def test_training_and_edge_list_neighbours_equally_far_in_one_order(layout: str, direction_deg: float) -> None:
    """Float32 is what policies train on, float64 what telemetry holds; a regular farm has many ties."""
    nameplate = farm_nameplate(WindFarmConfig(layout=NamedLayout(name=layout)))
    group = nameplate.group(GROUP)
    measured = np.zeros((1, group.n_assets, len(MEASURED)))
    told = {"wind_speed_mps": 8.0, "wind_direction_deg": direction_deg, "turbulence_pu": 0.06, "available_pu": 1.0}
    for name, value in told.items():
        measured[..., M[name]] = value
    statics, present = group.statics_array()[None], np.ones((1, group.n_assets), dtype=np.bool_)
    encoder = RelationalEncoder(nameplate, exposure=True)
    edge = encoder.encode(measured, statics, present, encoder.start(1, group.n_assets, measured), 10.0)[0]
    views = []
    for dtype in (np.float32, np.float64):
        a, b = measured.astype(dtype), statics.astype(dtype)
        views.append(encoder.encode(a, b, present, encoder.start(1, group.n_assets, a), 10.0)[0])
        at, bt = torch.from_numpy(a), torch.from_numpy(b)
        memory = encoder.start(1, group.n_assets, at)
        views.append(encoder.encode(at, bt, torch.from_numpy(present), memory, 10.0)[0].numpy())
    for view in views:
        np.testing.assert_allclose(view, edge, rtol=0, atol=2e-3)


@pytest.mark.parametrize("n_downstream", [2, 12])
def test_everything_is_made_on_the_device_of_the_readings(n_downstream: int) -> None:
    """The device "meta" refuses tensors of any other device, as a GPU does, and is on every machine."""
    nameplate = farm_nameplate(WindFarmConfig(layout=NamedLayout(name="ablaincourt")))
    encoder = RelationalEncoder(nameplate, n_downstream=n_downstream, exposure=True)
    measured = torch.zeros((2, 7, len(MEASURED)), device="meta")
    statics, present = torch.zeros((2, 7, 5), device="meta"), torch.ones((2, 7), dtype=torch.bool, device="meta")
    features, memory = encoder.encode(measured, statics, present, encoder.start(2, 7, measured), 10.0)
    assert features.shape == (2, 7, encoder.n_features)
    assert {t.device.type for t in (features, *memory.values())} == {"meta"}
