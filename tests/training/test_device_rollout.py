"""A rollout that stays on its device brings home the same numbers as the shard on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.lever_site import lever_configuration, lever_problem

from twinloop.agents.actor import ActorWeights
from twinloop.agents.networks import ActorCritic
from twinloop.agents.torch_actor import TorchActor
from twinloop.envs.errors import ConfigurationError, NumericalError
from twinloop.envs.twin import Readings
from twinloop.envs.wind_farm.config import WindFarmConfig
from twinloop.training import device_rollout
from twinloop.training.benchmarks.drift_site import (
    GROUP,
    DriftConfig,
    DriftSite,
    DriftTwin,
    drift_configuration,
    drift_problem,
)
from twinloop.training.configuration import EncoderChoice, TaskChoice, TrainConfiguration
from twinloop.training.device_guard import DeviceGuard
from twinloop.training.device_rollout import DeviceShard
from twinloop.training.problem import Problem
from twinloop.training.rollout import Rollout, Shard, ShardPlan
from twinloop.training.rollout_settings import ShieldedConfiguration

FARM: dict[str, Any] = {
    "layout": {"kind": "random", "n_min": 2, "n_max": 4},
    "dynamics": {"kind": "dynamic", "outage_rate_per_day": 2000.0},
    "inflow": {"wind_speed_mps": (5.0, 14.0), "turbulent": True, "direction_drift_std_deg": 5.0},
    "sensors": {"wind_speed_noise_pu": 0.02, "vane_bias_deg": 2.0, "power_noise_pu": 0.01},
}


def drift() -> Problem:
    return drift_problem(
        drift_configuration(site=DriftConfig(n_assets=3), task=TaskChoice(name="regulate", options={"horizon": 7}))
    )


class ChurnTwin(DriftTwin):
    """Asset 1 is away after steps 2 and 3 of an episode; what its sensors say in the end is no number."""

    def _read(self) -> Readings:
        readings = super()._read()
        away = ((self._steps == 2) | (self._steps == 3))[:, None] & (torch.arange(3) == 1)
        silent = away & (self._steps == 3)[:, None]
        measured = readings.measured[GROUP].masked_fill(silent[..., None], torch.nan)
        return replace(readings, measured={GROUP: measured}, present={GROUP: ~away})


class ChurnSite(DriftSite):
    def twin(self, config: DriftConfig, n_replicas: int, device: str, dtype: torch.dtype) -> DriftTwin:
        return ChurnTwin(config, n_replicas, device, dtype)


def churn() -> Problem:
    return replace(drift(), site=ChurnSite())


def farm(site: Mapping[str, Any] = FARM) -> Problem:
    return Problem.of(
        TrainConfiguration(
            site=WindFarmConfig.model_validate(site),
            task=TaskChoice(name="farm_power", options={"horizon": 9}),
            encoder=EncoderChoice(name="relational"),
            iterations=1,
        )
    )  # fmt: skip


def levers(commands: Any) -> Problem:
    return lever_problem(lever_configuration({"kind": "ppo"}, commands, crank=True))


PROBLEMS = {
    "drift": drift,
    "churn": churn,
    "farm": farm,
    "levels": lambda: levers("many"),
    "levels and numbers": lambda: levers("both"),
}


def actors(problem: Problem, stacks: bool, gru: bool) -> dict[str, ActorWeights]:
    plate, found = problem.nameplate(), {}
    encoders = problem.encoders(plate)
    for number, (name, layout) in enumerate(problem.layouts(plate).items()):
        n = encoders[name].n_features
        network = ActorCritic(
            n,
            layout.n_outputs,
            (8,),
            (4,),
            level_counts=layout.level_counts,
            n_stacks=plate.group(name).n_assets if stacks else 1,
            n_memory=5 if gru else 0,
        )
        network.initialise(-0.5, torch.Generator().manual_seed(number))
        network.parameters.mul_(2.0)
        found[name] = network.actor_weights(np.zeros(n, np.float32), np.ones(n, np.float32), 5.0)
    return found


def turned(acting: Mapping[str, ActorWeights]) -> dict[str, TorchActor]:
    return {name: TorchActor.of(actor) for name, actor in acting.items()}


def require_same(found: Rollout, expected: Rollout) -> None:
    def compare(one: Any, other: Any, what: str) -> None:
        if other is None:
            assert one is None, what
            return
        assert one.shape == other.shape, what
        assert one.dtype == other.dtype, what
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=what)

    assert found.groups.keys() == expected.groups.keys()
    for name, group in expected.groups.items():
        for key, value in vars(group).items():
            compare(getattr(found.groups[name], key), value, f"{name}.{key}")
    assert found.costs.keys() == expected.costs.keys()
    for name, values in expected.costs.items():
        compare(found.costs[name], values, name)
    for key in ("terminated", "truncated", "final_index", "episode_returns"):
        compare(getattr(found, key), getattr(expected, key), key)


@pytest.mark.parametrize(("stacks", "gru"), [(False, False), (True, True)])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_two_rollouts_in_a_row_equal_those_of_the_host(problem: Any, stacks: bool, gru: bool) -> None:
    made = problem()
    acting = actors(made, stacks, gru)
    host, device = Shard(made, ShardPlan(5, 2, 4)), DeviceShard(made, ShardPlan(5, 2, 4))
    for _ in range(2):
        require_same(device.collect(turned(acting), 11).to_host(), host.collect(acting, 11))


def test_assets_come_and_go_in_what_is_compared() -> None:
    for made in (churn(), farm()):
        rollout = DeviceShard(made, ShardPlan(5, 2, 4)).collect(turned(actors(made, False, False)), 22)
        (group,) = rollout.groups.values()
        assert not group.present.all()
        assert len(group.final_features) > 0
        if isinstance(made.site, ChurnSite):
            assert (group.present != group.present_after).any()


@pytest.mark.parametrize("changes", [{"explore": False}, {"bootstrap": False}])
def test_without_exploration_or_final_features_too(changes: dict[str, bool]) -> None:
    made, plan = levers("both"), ShardPlan(5, 0, 3, **changes)
    acting = actors(made, False, True)
    require_same(DeviceShard(made, plan).collect(turned(acting), 9).to_host(), Shard(made, plan).collect(acting, 9))


def test_a_snapshot_is_exact_and_a_host_shard_can_carry_on_from_it() -> None:
    made, plan = levers("both"), ShardPlan(5, 0, 3)
    acting = actors(made, True, True)
    first = DeviceShard(made, plan)
    first.collect(turned(acting), 5)
    state = first.snapshot()
    expected = first.collect(turned(acting), 8).to_host()
    again, host = DeviceShard(made, plan), Shard(made, plan)
    again.restore(state)
    host.restore(state)
    found = again.collect(turned(acting), 8).to_host()
    for name, group in expected.groups.items():
        assert all(np.array_equal(getattr(found.groups[name], k), v) for k, v in vars(group).items() if v is not None)
    require_same(host.collect(acting, 8), expected)


def test_a_nan_is_reported_as_on_the_host() -> None:
    config = lever_configuration({"kind": "ppo"}, task_options={"nan_at_step": 3})
    made, plan = lever_problem(config), ShardPlan(0, 10, 2)
    acting = actors(made, False, False)
    said = []
    for collect in (
        lambda: Shard(made, plan).collect(acting, 5),
        lambda: DeviceShard(made, plan).collect(turned(acting), 5),
    ):
        with pytest.raises(NumericalError, match=r"replica 10, lever/L1/reward: the task gave nan at step 3") as told:
            collect()
        said.append(str(told.value))
    assert said[0] == said[1]


class BlindGuard(DeviceGuard):
    """On a device without numbers there is nothing to look at."""

    def look(self, *seen: Any, **more: Any) -> bool:
        return False

    def look_at_features(self, features: torch.Tensor, name: str) -> None:
        pass


class UnwatchedShard(DeviceShard):
    def open(self) -> None:
        if not self._is_open:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(device_rollout, "DeviceGuard", BlindGuard)
                super().open()


@pytest.mark.parametrize(("stacks", "gru"), [(False, False), (True, True)])
@pytest.mark.parametrize("problem", [drift, lambda: farm({})], ids=["drift", "steady farm"])
def test_beside_the_guards_flags_no_number_of_a_step_leaves_the_device(problem: Any, stacks: bool, gru: bool) -> None:
    """A meta tensor has no numbers: whatever asked for one on the host would raise."""
    made = problem()
    acting = {name: TorchActor.of(actor, "meta") for name, actor in actors(made, stacks, gru).items()}
    rollout = UnwatchedShard(replace(made, device="meta"), ShardPlan(0, 0, 4)).collect(acting, 3)
    for group in rollout.groups.values():
        assert {t.device.type for t in vars(group).values() if t is not None} == {"meta"}
    assert rollout.truncated.device.type == rollout.episode_returns.device.type == "meta"


def test_what_needs_the_host_is_refused() -> None:
    made = drift()
    for problem, plan, options, words in (
        (replace(made, shield=ShieldedConfiguration()), ShardPlan(0, 0, 2), {}, "a shield works on the host"),
        (made, ShardPlan(0, 0, 2, wants_state=True), {}, "critic_view state works on the host"),
        (made, ShardPlan(0, 0, 2), {"is_compiled": True}, "compiling pays on a GPU alone"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            DeviceShard(problem, plan, **options)
