"""The ensemble filter around a twin: what is mixed, what walks, what is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinloop.envs.conformance import check_twin
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.envs.estimation.ensemble import deterministic
from twinloop.envs.estimation.mixable import Following, Mixable, mixed, present_readings
from twinloop.envs.estimation.settings import FilterSettings, Prior, SignalError
from twinloop.envs.estimation.tracker import EnsembleFilter
from twinloop.envs.wind_farm.config import Dynamics, Inflow, NamedLayout, WindFarmConfig
from twinloop.envs.wind_farm.nameplate import MEASURED
from twinloop.envs.wind_farm.twin import WindFarmTwin
from twinloop.training.benchmarks.lorenz96 import CASES, track
from twinloop.training.benchmarks.lorenz96_twin import GROUP, Lorenz96Twin

Tensor = torch.Tensor
STILL = {GROUP: torch.zeros(8, 1, dtype=torch.float64)}
NAMES = [s.name for s in MEASURED]


def ring(n_members: int = 20, **changes: Any) -> EnsembleFilter:
    settings = {"signals": {"ring/value": SignalError(noise=1.0)}, **changes}
    return EnsembleFilter(Lorenz96Twin(n_members, 8), FilterSettings(**settings))


def farm(n_replicas: int, direction_deg: float = 268.0) -> WindFarmTwin:
    config = WindFarmConfig(
        layout=NamedLayout(name="row3_5d"),
        dt_s=10.0,
        inflow=Inflow(
            wind_speed_mps=(7.0, 9.0),
            wind_direction_deg=(direction_deg, direction_deg + 8.0),
            turbulence_pu=(0.05, 0.1),
            turbulent=True,
        ),
        dynamics=Dynamics(kind="dynamic"),
    )
    twin = WindFarmTwin(config, n_replicas, dtype=torch.float64)
    twin.set_parameters({"expansion_turbulence": torch.linspace(0.3, 0.5, n_replicas, dtype=torch.float64)})
    twin.reset(torch.arange(n_replicas))
    return twin


def steered(n_replicas: int) -> dict[str, Tensor]:
    commands = torch.zeros(n_replicas, 3, 2, dtype=torch.float64)
    commands[..., 0], commands[..., 1] = 15.0, 0.9
    return {"turbine": commands}


def test_mixing_is_the_analysis_and_keeps_what_is_shared_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    members = torch.randn(10, 5, generator=generator, dtype=torch.float64)
    noise = torch.ones(5, dtype=torch.float64)
    analysis = deterministic(members, torch.zeros(5, dtype=torch.float64), noise)
    torch.testing.assert_close(mixed(members.T, analysis.transform).T, analysis.of(members))
    shared = torch.full((3, 10), 0.1, dtype=torch.float64)
    assert torch.equal(mixed(shared, analysis.transform), shared)


def test_the_ring_keeps_the_twin_contract() -> None:
    check_twin(lambda n: Lorenz96Twin(n, 8), steps=4, batch_sizes=(2, 5))


@pytest.mark.parametrize("twin", [Lorenz96Twin(4, 8), farm(4)])
def test_twins_that_can_be_live_say_so(twin: Any) -> None:
    assert isinstance(twin, Mixable)
    assert isinstance(twin, Following) == isinstance(twin, WindFarmTwin)


def test_a_farm_mixed_with_the_identity_keeps_every_bit() -> None:
    twin = farm(5)
    for _ in range(3):
        twin.step(steered(5))
    before = twin.snapshot()
    twin.mix(torch.eye(5, dtype=torch.float64))
    after = twin.snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_farm_mixed_with_a_permutation_swaps_its_members_but_not_their_chance() -> None:
    twin, order = farm(5), torch.tensor([2, 0, 1, 4, 3])
    for _ in range(3):
        twin.step(steered(5))
    before = twin.snapshot()
    twin.mix(torch.eye(5, dtype=torch.float64)[order])
    after = twin.snapshot()
    for name in ("state/past", "state/path_m", "state/mean_direction_deg", "state/heading_deg", "state/gust",
                 "parameter/expansion_turbulence"):  # fmt: skip
        torch.testing.assert_close(after[name][..., :5], before[name][..., order], rtol=1e-12, atol=1e-9)
    for name in ("state/seed", "state/step", "state/kind", "state/turning", "state/outage_left_s"):
        assert torch.equal(after[name], before[name])


def test_a_wild_mixture_leaves_a_farm_physical() -> None:
    twin = farm(5)
    generator = torch.Generator().manual_seed(2)
    change = 20.0 * torch.randn(5, 5, generator=generator, dtype=torch.float64)
    twin.mix(torch.eye(5, dtype=torch.float64) + change - change.mean(1, keepdim=True))
    for spec in twin.parameter_specs:
        value = twin.parameters()[spec.name]
        assert (value >= spec.minimum).all()
        assert (value <= spec.maximum).all()
    assert all(value.isfinite().all() for value in twin.step(steered(5)).measured.values())


def test_a_farm_follows_the_outages_that_are_told() -> None:
    twin = farm(4)
    told = torch.full((3, len(NAMES)), torch.nan, dtype=torch.float64)
    told[1, NAMES.index("available_pu")] = 0.0
    twin.follow({"turbine": told})
    out = twin.step(steered(4)).measured["turbine"][..., NAMES.index("available_pu")]
    assert torch.equal(out, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(4, 3))
    told[1, NAMES.index("available_pu")] = 1.0
    twin.follow({"turbine": told})
    assert (twin.step(steered(4)).measured["turbine"][..., NAMES.index("available_pu")] == 1.0).all()


def test_a_filter_restored_goes_on_to_the_same_bits() -> None:
    def on(tracker: EnsembleFilter, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(n)
        for _ in range(n):
            tracker.advance(STILL)
            tracker.assimilate({GROUP: torch.randn(8, 1, generator=generator, dtype=torch.float64)})
        return present_readings(tracker.twin).measured[GROUP]

    settings: dict[str, Any] = {"parameters": {"forcing": Prior(std=0.5)}, "method": "stochastic"}
    first, second = ring(**settings), ring(**settings)
    first.start()
    on(first, 5)
    kept = first.snapshot()
    expected = on(first, 4)
    second.restore(kept)
    assert torch.equal(on(second, 4), expected)


def test_a_parameter_of_which_nothing_is_learnt_goes_back_to_its_prior_spread_and_no_further() -> None:
    tracker = ring(400, parameters={"forcing": Prior(std=0.5)}, memory_s=10 * 21_600.0)
    tracker.start()
    tracker.twin.set_parameters({"forcing": torch.tensor(8.0)})
    stds = []
    for _ in range(60):
        tracker.advance(STILL)
        stds.append(float(tracker.parameters()["forcing"].std()))
    # After k periods the variance is prior * (1 - exp(-2 k / 10)); the sample's standard error is 1 / sqrt(2 * 400).
    assert abs(stds[2] / (0.5 * (1 - 2.718281828 ** (-0.6)) ** 0.5) - 1.0) < 3.0 / 800**0.5
    assert abs(stds[-1] / 0.5 - 1.0) < 3.0 / 800**0.5


def test_one_far_value_is_left_out_and_many_are_not() -> None:
    tracker = ring()
    tracker.start()
    tracker.advance(STILL)
    near = tracker.spread().mean[GROUP].clone()
    one = near.clone()
    one[3] += 50.0
    kept = tracker.snapshot()
    found = tracker.assimilate({GROUP: one})
    assert found.outliers == ("ring/S03/value",)
    assert found.n == 7
    assert found.inside.sum() == 7
    tracker.restore(kept)
    assert tracker.assimilate({GROUP: near + 50.0}).n == 8


def test_headings_across_north_are_assimilated_the_short_way() -> None:
    twin = farm(32, direction_deg=356.0)  # members from 356 to 364 deg
    settings = FilterSettings(signals={"turbine/wind_direction_deg": SignalError(noise=0.5)})
    tracker = EnsembleFilter(twin, settings)
    tracker.start()
    column = NAMES.index("wind_direction_deg")
    for _ in range(3):
        tracker.advance({"turbine": torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64)})
        told = torch.full((3, len(NAMES)), torch.nan, dtype=torch.float64)
        told[:, column] = 1.0
        tracker.assimilate({"turbine": told})
    mean = tracker.spread().mean["turbine"][:, column]
    assert (torch.remainder(mean - 1.0 + 180.0, 360.0) - 180.0).abs().max() < 0.5


def test_what_the_twin_does_not_have_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'ring/value'"):
        ring(signals={"ring/valu": SignalError(noise=1.0)})
    with pytest.raises(ConfigurationError, match="did you mean 'forcing'"):
        ring(parameters={"forcin": Prior(std=1.0)})
    with pytest.raises(ContractError, match="2 members make no spread"):
        ring(2)


def test_the_benchmark_tracks_lorenz96() -> None:
    found = track(CASES[0], 1, 700, 40)
    assert found.error < 0.22
    assert 0.93 < found.coverage < 0.98
