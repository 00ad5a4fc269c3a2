"""Prototypes of a line: the contract, and a prototype on the batch axis is the line that is built from it."""

from __future__ import annotations

import pytest
import torch

from twinloop.envs.conformance import check_twin
from twinloop.envs.errors import ConfigurationError
from twinloop.envs.production_line import SITE
from twinloop.envs.production_line.config import LineConfig
from twinloop.envs.production_line.nameplate import CREW
from twinloop.envs.production_line.prototypes import LinePrototypes
from twinloop.envs.production_line.twin import ProductionLineTwin
from twinloop.envs.prototype import Prototyped

BERNOULLI: list[dict[str, object]] = [{"model": {"kind": "bernoulli", "efficiency_pu": p}} for p in (0.9, 0.7, 0.8)]
WORN: dict[str, object] = {
    "model": {"kind": "geometric", "fails_pu": 0.02, "repairs_pu": 0.2},
    "upkeep": {"wear": {"kind": "weibull", "shape": 1.5, "scale_slots": 20.0}, "corrective_slots": 15},
}


def line(machines: list[dict[str, object]], **more: object) -> LineConfig:
    fixed = {"kind": "fixed", "machines": machines, "capacities": [3] * (len(machines) - 1)}
    return LineConfig.model_validate({"line": fixed, "slots_per_period": 20} | more)


@pytest.mark.parametrize("machines", [BERNOULLI, [WORN] * 3])
def test_prototypes_keep_the_contract_of_a_twin(machines: list[dict[str, object]]) -> None:
    check_twin(lambda n: LinePrototypes(line(machines), n), steps=3, batch_sizes=(2, 33))


def neutral(config: LineConfig, n: int) -> dict[str, torch.Tensor]:
    return {g.name: torch.tensor(g.neutral()).expand(n, g.n_assets, -1) for g in SITE.nameplate(config).groups}


@pytest.mark.parametrize(
    ("config", "designs"),
    [
        (
            line(BERNOULLI),
            [
                {},
                {"buffer1_capacity": 7.0, "buffer2_capacity": 1.0},
                {"M1_place": 2.5, "M3_place": 0.0, "M2_efficiency_pu": 0.95},
                {"M1_place": 1.0, "M2_place": 1.0, "M3_place": 1.0, "M3_efficiency_pu": 0.55},
            ],
        ),
        (line([WORN] * 4), [{}, {"crews": 3.0}, {"crews": 4.0, "buffer2_capacity": 5.0}]),
    ],
)  # fmt: skip
def test_a_prototype_is_the_line_that_is_built_from_it_bit_for_bit(
    config: LineConfig, designs: list[dict[str, float]]
) -> None:
    n = len(designs)
    prototypes = LinePrototypes(config, n)
    own = prototypes.parameters()
    names = {name for design in designs for name in design}
    prototypes.set_parameters({
        name: torch.tensor([d.get(name, float(own[name][0])) for d in designs], dtype=torch.float64) for name in names
    })  # fmt: skip
    seeds = torch.full((n,), 5)
    prototypes.reset(seeds)
    for _ in range(5):
        many = prototypes.step(neutral(config, n))
    for row, design in enumerate(designs):
        built = SITE.built(config, design)
        alone = ProductionLineTwin(built, 1)
        alone.reset(seeds[:1])
        for _ in range(5):
            one = alone.step(neutral(built, 1))
        for group in many.measured:
            assert torch.equal(many.measured[group][row], one.measured[group][0])
            assert torch.equal(many.hidden[group][row], one.hidden[group][0])


def test_more_crews_leave_fewer_machines_waiting() -> None:
    prototypes = LinePrototypes(line([WORN] * 6), 2)
    prototypes.set_parameters({"crews": torch.tensor([1.0, 6.0])})
    prototypes.reset(torch.tensor([3, 3]))
    waiting = torch.zeros(2)
    for _ in range(20):
        now = prototypes.step(neutral(line([WORN] * 6), 2))
        waiting += now.measured[CREW][:, 0, 1]
        assert (now.measured[CREW][:, 0, 0] + now.hidden[CREW][:, 0, 0]).tolist() == [1.0, 6.0]  # free and busy
    assert waiting[0] > 2.0 * waiting[1]


def test_machines_that_differ_in_more_than_rates_keep_their_places() -> None:
    config = line([BERNOULLI[0], {**BERNOULLI[1], "power": {"idle_kw": 20.0}}])
    assert not [s.name for s in LinePrototypes(config, 1).parameter_specs if s.name.endswith("_place")]
    assert [s.name for s in LinePrototypes(line(BERNOULLI), 1).parameter_specs if s.name.endswith("_place")]


def test_a_buffer_smaller_than_its_first_parts_is_not_feasible() -> None:
    buffers = [{"producer": 1, "consumer": 2, "capacity": 4, "initial": 3}]
    config = LineConfig.model_validate({"line": {"kind": "fixed", "machines": BERNOULLI[:2], "capacities": [],
                                                 "buffers": buffers}})  # fmt: skip
    assert SITE.feasible(config, {"buffer1_capacity": torch.tensor([2.0, 3.0])}).tolist() == [False, True]
    with pytest.raises(ConfigurationError, match="initial 3 exceeds"):
        SITE.built(config, {"buffer1_capacity": 2.0})


def test_a_line_that_draws_itself_has_no_prototypes() -> None:
    assert isinstance(SITE, Prototyped)
    with pytest.raises(ConfigurationError, match="give kind 'fixed'"):
        LinePrototypes(LineConfig.model_validate({"line": {"kind": "random"}}), 1)
    with pytest.raises(ConfigurationError, match="unknown; this line has M1_efficiency_pu"):
        SITE.built(line(BERNOULLI), {"M9_efficiency_pu": 0.5})
