"""Memory, masks, the site's state and a shield in rollouts, on the tank battery whose tanks come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tests.linear_site import HoldTemperature, TankEncoder, TankTwin, tank_nameplate

from twinloop.agents.action_layout import ActionLayout
from twinloop.agents.actor import ActorWeights
from twinloop.agents.layers import GruWeights
from twinloop.envs.configuration import Strict
from twinloop.envs.encoder import Encoder
from twinloop.envs.errors import ConfigurationError, NumericalError
from twinloop.envs.nameplate import Nameplate
from twinloop.envs.plant import Plant
from twinloop.envs.task import Score
from twinloop.envs.twin import Readings, Tensors
from twinloop.training.problem import Problem
from twinloop.training.rollout import GroupRollout, Rollout, Shard, ShardPlan, concatenate
from twinloop.training.rollout_settings import ShieldedConfiguration
from twinloop.training.seeds import episode_seeds, row_seeds
from twinloop.training.shielded_twin import ShieldedTwin

N, H = 3, 5
HORIZON = 6


class Tanks(TankTwin):
    """Tank 2 of every replica is out of service in steps 2 and 3 of an episode. What is absent says NaN."""

    nan_in_hidden = False

    def _read(self, fresh: torch.Tensor) -> Readings:
        readings = super()._read(fresh)
        away = (self._steps == 2) | (self._steps == 3)
        readings.present["tank"][:, 1] = ~away
        readings.measured["tank"][away, 1] = torch.nan
        readings.hidden["tank"][away, 1] = torch.nan
        readings.measured["tank"][~away, 1, 1] = self._heater_kw[~away, 1]
        readings.measured["tank"][~away, 1, 0] = self._tank_degc[~away, 1]
        readings.hidden["tank"][~away, 1, 0] = self._tank_degc[~away, 1]
        readings.hidden["tank"][~away, 1, 1] = self._room_degc[~away]
        if self.nan_in_hidden and int(self._steps[0]) == 4:
            readings.hidden["tank"][0, 0, 1] = torch.nan
        return readings


class NanInHidden(Tanks):
    nan_in_hidden = True


class NanAtReset(TankTwin):
    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        readings = super().reset(seeds, rows)
        readings.measured["pump"][1, 0, 0] = torch.inf
        return readings


class SlowOnly:
    """The pump's own speed; its fastest level is legal above half speed alone."""

    name, group, n_features = "slow_only", "pump", 1

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self, n_rows: int, n_assets: int, like: Any) -> Mapping[str, Any]:
        return {}

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        return measured * 1.0, memory

    def legal(self, measured: Any, statics: Any, present: Any) -> Any:
        flags = np.ones((*present.shape, 3), bool)
        flags[..., 2] = measured[..., 0] > 0.5
        return flags


class FarEncoder(TankEncoder):
    """Divides by the distance to the room's temperature, which may be nothing."""

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        features, new = super().encode(measured, statics, present, memory, dt_s)
        features = np.array(features)
        features[1, 2, 3] = np.inf
        return features, new


class LatePenalty(HoldTemperature):
    """NaN rewards for whoever was absent before the step: nobody learns from those."""

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        score = super().score(before, commands, after)
        score.reward["tank"][~before.present["tank"]] = torch.nan
        return Score({**score.reward, "tank": score.reward["tank"].nan_to_num(nan=7.0)}, score.terminated)


class TankConfig(Strict):
    pump: bool = True


class TankSite:
    name = "tank_battery"
    summary = "heated tanks"
    config_model: type[BaseModel] = TankConfig
    plant_config_model: type[BaseModel] = TankConfig

    def __init__(self, twin: type[TankTwin] = Tanks, encoder: type[TankEncoder] = TankEncoder) -> None:
        self._twin, self._encoder = twin, encoder

    def nameplate(self, config: TankConfig) -> Nameplate:
        return tank_nameplate(N, pump=config.pump)

    def twin(self, config: TankConfig, n_replicas: int, device: str, dtype: torch.dtype) -> TankTwin:
        return self._twin(n_replicas, N, pump=config.pump, dtype=dtype)

    def tasks(self) -> tuple[str, ...]:
        return ("hold",)

    def task(self, name: str, config: TankConfig, options: Mapping[str, Any]) -> HoldTemperature:
        return LatePenalty(HORIZON)

    def encoders(self) -> tuple[str, ...]:
        return ("tank", "slow_only")

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        return SlowOnly() if name == "slow_only" else self._encoder()

    def plant(self, config: TankConfig, plant_config: TankConfig) -> Plant:
        raise ConfigurationError("no plant here")


def problem(site: TankSite | None = None, encoder: str = "tank", pump: bool = True, **options: Any) -> Problem:
    return Problem(site or TankSite(), TankConfig(pump=pump), "hold", encoder_name=encoder, **options)


def weights(found: Problem, *, gru: bool = False, seed: int = 0) -> dict[str, ActorWeights]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return (rng.normal(size=shape) * 0.5).astype(np.float32)

    nameplate = found.nameplate()
    actors = {}
    for name, encoder in found.encoders(nameplate).items():
        layout, f = found.layouts(nameplate)[name], encoder.n_features
        width = f + H if gru else f
        actors[name] = ActorWeights(
            feature_mean=np.zeros(f, np.float32),
            feature_std=np.ones(f, np.float32),
            feature_clip=10.0,
            weights=(draw(1, width, 8), draw(1, 8, layout.n_outputs)),
            biases=(draw(1, 8), draw(1, layout.n_outputs)),
            log_std=draw(1, len(layout.continuous)),
            n_continuous=len(layout.continuous),
            level_counts=layout.level_counts,
            gru=GruWeights(draw(1, f, 3 * H), draw(1, H, 3 * H), draw(1, 3 * H), draw(1, 3 * H)) if gru else None,
        )
    return actors


def collect(found: Problem, n_steps: int, *, gru: bool = False, **plan: Any) -> Rollout:
    return Shard(found, ShardPlan(1, 0, 2, **plan)).collect(weights(found, gru=gru), n_steps)


def arrays(group: GroupRollout) -> dict[str, Any]:
    return {key: value for key, value in vars(group).items() if value is not None}


def test_memory_is_zero_at_a_reset_and_for_who_is_or_was_away_and_runs_on_elsewhere() -> None:
    found = problem()
    group = collect(found, 15, gru=True).groups["tank"]
    assert group.fresh is not None
    step = np.arange(15) % HORIZON
    expected = np.zeros((15, 2, N), bool)
    expected[step == 0] = True
    expected[np.isin(step, [2, 3, 4]), :, 1] = True  # absent, absent, back after absence
    assert np.array_equal(group.fresh, expected)
    # The reference: torch's own GRU cell, driven by the features that were recorded.
    gru = weights(found, gru=True)["tank"].gru
    assert gru is not None
    cell = torch.nn.GRUCell(4, H)
    for parameter, array in ((cell.weight_ih, gru.input), (cell.weight_hh, gru.recurrent)):
        parameter.data = torch.from_numpy(array[0].T.copy())
    cell.bias_ih.data, cell.bias_hh.data = torch.from_numpy(gru.input_bias[0]), torch.from_numpy(gru.recurrent_bias[0])
    assert group.first_memory is not None
    memory = torch.from_numpy(group.first_memory).reshape(-1, H)
    shard = Shard(found, ShardPlan(1, 0, 2))
    for t in range(15):
        memory = memory * torch.from_numpy(~group.fresh[t]).reshape(-1, 1)
        memory = cell(torch.from_numpy(group.features[t]).reshape(-1, 4), memory).detach()
        memory = memory * torch.from_numpy(group.present[t]).reshape(-1, 1)
        shard.collect(weights(found, gru=True), 1)
        kept = shard.snapshot()["minds"]["tank"]["memory"]
        np.testing.assert_allclose(kept.numpy().reshape(-1, H), memory.numpy(), atol=1e-5)
    # What comes next begins where this ended.
    following = shard.collect(weights(found, gru=True), 2).groups["tank"]
    assert following.first_memory is not None
    assert following.fresh is not None
    assert not following.fresh[0, :, 0].any()
    np.testing.assert_allclose(
        following.first_memory, memory.numpy().reshape(2, N, H) * ~following.fresh[0][..., None], atol=1e-5
    )


def test_a_recurrent_shard_resumes_bit_for_bit_at_any_step() -> None:
    found = problem(encoder="slow_only")
    actors = weights(found, gru=True)
    for n_before in range(8):
        shard = Shard(found, ShardPlan(1, 0, 2, wants_state=True))
        if n_before:
            shard.collect(actors, n_before)
        kept = shard.snapshot()
        whole = shard.collect(actors, 9)
        other = Shard(found, ShardPlan(1, 0, 2, wants_state=True))
        other.restore(kept)
        again = other.collect(actors, 9)
        for name, group in whole.groups.items():
            for key, array in arrays(group).items():
                assert np.array_equal(array, getattr(again.groups[name], key)), (n_before, name, key)
        assert np.array_equal(whole.state, again.state)  # type: ignore[arg-type]  # asked for above


def test_without_memory_or_masks_nothing_of_either_is_kept() -> None:
    group = collect(problem(), 3).groups["tank"]
    left_out = {key for key, value in vars(group).items() if value is None}
    assert left_out == {"fresh", "first_memory", "legal", "executed", "penalty", "cut"}


def test_an_illegal_level_is_never_chosen_and_masks_are_those_of_the_encoder() -> None:
    found = problem(encoder="slow_only")
    rollout = collect(found, 40)
    pump = rollout.groups["pump"]
    assert pump.legal is not None
    assert np.array_equal(pump.legal[..., 2], pump.features[..., 0] > 0.5)
    assert pump.legal[..., :2].all()
    chosen = pump.actions[..., 0].astype(int)
    assert np.take_along_axis(pump.legal, chosen[..., None], -1).all()
    assert np.isfinite(pump.log_prob).all()
    assert rollout.groups["tank"].legal is None


def test_levels_are_drawn_by_a_hash_of_run_replica_and_step() -> None:
    found = problem()
    whole = Shard(found, ShardPlan(1, 0, 4)).collect(weights(found), 12).groups["pump"]
    parts = concatenate([Shard(found, ShardPlan(1, k, 2)).collect(weights(found), 12) for k in (0, 2)]).groups["pump"]
    assert np.array_equal(whole.actions, parts.actions)
    assert len(np.unique(whole.actions)) == 3
    other = Shard(found, ShardPlan(2, 0, 4)).collect(weights(found), 12).groups["pump"]
    assert not np.array_equal(whole.actions, other.actions)


def test_the_state_is_what_the_twin_said_in_shares_of_its_ranges_with_zeros_for_who_is_away() -> None:
    rollout = collect(problem(), 14, wants_state=True)
    assert rollout.state is not None
    assert rollout.last_state is not None
    assert rollout.final_state is not None
    names = [s.name for kind in ("measured", "hidden") for s in getattr(tank_nameplate().groups[0], kind)]
    assert rollout.state.shape[-1] == N * (len(names) + 1) + 2  # and the pump's speed and presence
    tanks = rollout.state[..., : N * 5].reshape(14, 2, N, 5)
    present = rollout.groups["tank"].present
    assert np.array_equal(tanks[..., 4], present.astype(np.float32))
    assert not tanks[~present].any()
    thermometer = rollout.groups["tank"].features[..., 0]  # degC / 50 - 1, as the range 0 to 100 has it
    np.testing.assert_allclose(tanks[..., 0], thermometer, atol=1e-6)
    # The room's 20 degC and a little, of a range from -50 to 100.
    assert np.abs(tanks[..., 3][present] + 5 / 75).max() < 0.02
    assert np.array_equal(rollout.final_index[:, 0], [5, 5, 11, 11])
    assert rollout.final_state.shape == (4, rollout.state.shape[-1])
    # Episodes ended after step 5: what they ended with is not what came next.
    assert not np.array_equal(rollout.final_state[0], rollout.state[6, 0])
    np.testing.assert_allclose(rollout.final_state[:2, 0], rollout.groups["tank"].final_features[:2, 0, 0], atol=1e-6)
    joined = concatenate([rollout, collect(problem(), 14, wants_state=True)])
    assert joined.state is not None
    assert joined.final_state is not None
    assert (joined.state.shape[1], len(joined.final_state)) == (4, 8)


def test_a_nan_of_an_absent_asset_harms_nobody() -> None:
    """The absent tank of this twin says NaN in every signal."""
    rollout = collect(problem(), 14, wants_state=True, gru=True)
    for group in rollout.groups.values():
        for key, array in arrays(group).items():
            assert np.isfinite(array).all(), key
    assert np.isfinite(rollout.state).all()  # type: ignore[arg-type]  # asked for above


def test_a_nan_in_a_hidden_signal_is_an_error_where_a_critic_sees_it() -> None:
    found = problem(TankSite(NanInHidden))
    collect(found, 6)
    with pytest.raises(NumericalError, match=r"replica 0, tank/T1/room_degc: the twin gave nan at step 4 of episode 0"):
        collect(found, 6, wants_state=True)


def test_an_infinity_at_a_reset_is_an_error_too() -> None:
    with pytest.raises(NumericalError, match=r"replica 1, pump/P1/speed_pu: the twin gave inf at step 0 of episode 0"):
        collect(problem(TankSite(NanAtReset)), 6)


def test_a_feature_that_is_no_number_names_the_encoder() -> None:
    with pytest.raises(NumericalError, match=r"replica 1, tank/T3/feature 3: the encoder gave inf at step 0"):
        collect(problem(TankSite(encoder=FarEncoder)), 6)


def test_behind_a_shield_what_was_obeyed_is_kept_beside_what_was_chosen() -> None:
    plain = problem(TankSite(TankTwin))
    found = replace(plain, shield=ShieldedConfiguration(intervention_penalty=2.0))
    rollout = collect(found, 12)
    tanks, pump = rollout.groups["tank"], rollout.groups["pump"]
    assert tanks.executed is not None
    assert tanks.penalty is not None
    assert pump.executed is not None
    # A second shielded twin, driven by the same raw actions.
    twin, nameplate = found.twin(2), found.nameplate()
    assert isinstance(twin, ShieldedTwin)
    layouts = {g.name: ActionLayout.of(g, None) for g in nameplate.groups}
    rows = row_seeds(1, torch.arange(2))
    for t in range(12):
        if t % HORIZON == 0:
            twin.reset(episode_seeds(rows, torch.full_like(rows, t // HORIZON)))
        twin.step({n: torch.from_numpy(layouts[n].commands(g.actions[t])) for n, g in rollout.groups.items()})
        made = twin.last()
        np.testing.assert_allclose(layouts["tank"].commands(tanks.executed[t]), made.sent["tank"], atol=1e-5)
        assert np.array_equal(layouts["pump"].commands(pump.executed[t]), made.sent["pump"])
        np.testing.assert_allclose(tanks.penalty[t], 2.0 * made.change["tank"], rtol=1e-6)
        untouched = ~made.intervened["tank"]
        assert np.array_equal(tanks.executed[t][untouched], tanks.actions[t][untouched].clip(-1, 1))
        assert rollout.costs["shield/intervened"][t] == np.float32(made.costs()["shield/intervened"])
    assert (tanks.penalty > 0).any(), "the rate limit of the heaters should have bound"
    assert collect(plain, 12).groups["tank"].executed is None
