"""Stable-Baselines3 straight on the batch: each asset of each replica is one of its environments.

from stable_baselines3 import PPO
from twinloop.agents.stable_baselines import TwinVecEnv

env = TwinVecEnv(twin, task, encoder=encoder)
PPO("MlpPolicy", env).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from ..envs.errors import ContractError, MissingExtraError, NameplateError, NumericalError
from ..envs.nameplate import Group, Nameplate
from ..envs.task import Task
from ..envs.twin import Readings, Twin

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
except ImportError as error:
    raise MissingExtraError("stable-baselines3", "sb3", "TwinVecEnv") from error

from ..envs.adapters.episodes import Episodes, Outcome
from ..envs.adapters.spaces import ActionMap, Float32, SignalView
from ..envs.encoder import Encoder
from .action_layout import ActionLayout

_ALL = slice(None)
OnStep = Callable[[Outcome], None]
RewardOf = Callable[[Outcome], NDArray[np.float64]]


class Stepping(Protocol):
    """What runs episodes, as :class:`~twinloop.envs.adapters.episodes.Episodes` does."""

    @property
    def readings(self) -> Readings: ...
    def begin(self, rows: NDArray[np.int64] | None = None, seeds: Sequence[int | None] | None = None) -> Readings: ...
    def step(self, commands: Mapping[str, NDArray[np.float64]]) -> Outcome: ...
    def snapshot(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class TwinVecEnv(VecEnv):
    """``B`` replicas of ``N`` like assets as ``B * N`` environments; slot ``b * N + n`` is asset n of replica b.

    The learner's one policy is shared by all assets. Each slot observes its own measured signals (the ``encoder``'s
    features where one is given), commands its own asset, and gets its own reward. Continuous commands are in [-1, 1]
    (physical units with ``normalised_actions=False``); where all have levels, actions are numbers of levels in the
    nameplate's order. Only the signals ``controlled`` are commanded, the others stay neutral.

    ``group`` names the group of a site that has several, and ``assets`` (columns) picks some of its assets as slots;
    all that is no slot stays neutral. ``episodes`` replaces the one that steps ``twin``; ``on_step`` hears of every
    step before finished rows restart; ``reward_of`` says what the group's assets earn ``[B, N]``, by default what the
    task says.

    All slots of a replica end together; at a truncation their infos have ``TimeLimit.truncated`` and
    ``terminal_observation``, from which SB3 bootstraps. Costs of the last step are in :attr:`costs`, ``[B, N]`` each.
    ``restore(snapshot())`` is exact. ``action_masks``, as MaskablePPO asks for, are the encoder's legal levels.

    Stable-Baselines3 has no mask of agents: a slot without an asset shows zeros (or, without encoder, the end of its
    range nearest to zero) and gets zero reward, and is learnt from all the same; better keep the number of assets
    fixed.

    Raises :class:`~twinloop.envs.errors.NameplateError` for a site of several groups when ``group`` names none.
    """

    def __init__(
        self,
        twin: Twin,
        task: Task,
        *,
        encoder: Encoder | None = None,
        group: str | None = None,
        assets: Sequence[int] | None = None,
        controlled: Sequence[str] | None = None,
        normalised_actions: bool = True,
        episodes: Stepping | None = None,
        on_step: OnStep | None = None,
        reward_of: RewardOf | None = None,
    ) -> None:
        served = _only_group(twin.nameplate) if group is None else twin.nameplate.group(group)
        if encoder is not None and encoder.group != served.name:
            raise ContractError(
                f"encoder {encoder.name!r} is for group {encoder.group!r}, the site has {served.name!r}"
            )
        self.render_mode = None
        self.twin, self.task, self.encoder = twin, task, encoder
        self.costs: Mapping[str, NDArray[np.float64]] = {}
        self._group = served
        self._assets = list(range(served.n_assets)) if assets is None else list(assets)
        self._is_whole = self._assets == list(range(served.n_assets))
        self._shape = (twin.n_replicas, len(self._assets))
        columns = [served.index("commanded", s.name) for s in served.commanded]
        if controlled is not None:
            columns = [served.index("commanded", name) for name in controlled]
        self._columns = columns
        commands = [served.commanded[column] for column in columns]
        self._map = ActionMap(commands, [f"{served.name}/{s.name}" for s in commands], normalised=normalised_actions)
        self._layout = ActionLayout.of(served, [s.name for s in commands]) if self._map.discrete else None
        self._neutral = {g.name: np.tile(g.neutral(), (twin.n_replicas, g.n_assets, 1)) for g in twin.nameplate.groups}
        self._view = SignalView(twin.nameplate)
        self._episodes: Stepping = Episodes(twin, task) if episodes is None else episodes
        self._on_step = on_step
        self._reward_of = reward_of
        self._memory: Mapping[str, Any] = {}
        self._actions: NDArray[Any] | None = None
        self._row_seeds: list[int | None] = [None] * twin.n_replicas
        observed: gymnasium.Space[Any] = self._view.group_space(served.name)
        if encoder is not None:
            observed = spaces.Box(-np.inf, np.inf, (encoder.n_features,), dtype=np.float32)
        super().__init__(self._shape[0] * self._shape[1], observed, self._map.space())

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Replica ``b`` starts its next reset from ``seed + b``; returns the seed of each slot."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._row_seeds = [seed + row for row in range(self._shape[0])]
        return [row_seed for row_seed in self._row_seeds for _ in range(self._shape[1])]

    def reset(self) -> Float32:
        """Start new episodes everywhere; observations ``[B * N, ...]``."""
        readings = self._episodes.begin(seeds=self._row_seeds)
        self._row_seeds = [None] * self._shape[0]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        features, self._memory = self._observe(readings, None)
        return self._flat(features)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions ``[B * N, ...]`` for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Advance all replicas; those whose episode ends are reset at once."""
        if self._actions is None:
            raise ContractError("step_wait was called without step_async; call step(actions)")
        name = self._group.name
        commands = {g: neutral.copy() for g, neutral in self._neutral.items()}
        commands[name][:, self._assets] = self._commands(self._actions)
        outcome = self._episodes.step(commands)
        self.costs = {key: cost[:, self._assets] for key, cost in outcome.costs[name].items()}
        earned = outcome.rewards[name] if self._reward_of is None else self._reward_of(outcome)
        rewards = earned[:, self._assets]
        features, self._memory = self._observe(outcome.readings, self._memory)
        self._check_rewards(rewards)
        if self._on_step is not None:
            self._on_step(outcome)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if outcome.done.any():
            features = self._restart(np.flatnonzero(outcome.done), outcome.truncated, features, infos)
        dones = np.repeat(outcome.done, self._shape[1])
        return self._flat(features), rewards.reshape(-1).astype(np.float32), dones, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Which levels each slot may choose now, ``[B * N, levels of the controlled commands]``.

        All of them without an encoder that tells (``legal``). Raises ContractError for continuous commands.
        """
        if self._layout is None:
            raise ContractError(
                f"group {self._group.name!r}: the controlled commands are continuous, and masks are for levels; "
                "control commands with levels only"
            )
        legal = getattr(self.encoder, "legal", None)
        if legal is None:
            return np.ones((self.num_envs, self._layout.n_levels), np.bool_)
        measured, statics, present = self._arrays(self._episodes.readings)
        told = self._layout.legal(np.asarray(legal(measured, statics, present), np.bool_), present)
        masks: NDArray[np.bool_] = told[:, self._assets].reshape(self.num_envs, -1)
        return masks

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {
            "episodes": self._episodes.snapshot(),
            "memory": {name: torch.from_numpy(np.array(array)) for name, array in self._memory.items()},
            "row_seeds": list(self._row_seeds),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`snapshot`."""
        self._episodes.restore(state["episodes"])
        self._memory = {name: tensor.numpy().copy() for name, tensor in state["memory"].items()}
        self._row_seeds = list(state["row_seeds"])
        self._actions = None

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this object, once per slot: all slots are the same twin."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute of this object; slots have none of their own."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of this object once; the result stands for each slot (masks: each its own)."""
        method: Callable[..., Any] = getattr(self, method_name)
        result = method(*method_args, **method_kwargs)
        if method_name == "action_masks":
            return [result[slot] for slot in self._get_indices(indices)]
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No slot is wrapped: there is no environment object per slot."""
        return [False for _ in self._get_indices(indices)]

    def _observe(
        self, readings: Readings, memory: Mapping[str, Any] | None, rows: NDArray[np.int64] | slice = _ALL
    ) -> tuple[Float32, Mapping[str, Any]]:
        """Observations ``[rows, N, ...]`` and the encoder's memory; without ``memory`` the rows are new."""
        if self.encoder is None:
            return self._view.groups(readings)[self._group.name][rows][:, self._assets], {}
        measured, statics, present = (array[rows] for array in self._arrays(readings))
        if memory is None:
            memory = self.encoder.start(len(measured), self._group.n_assets, measured)
        encoded, after = self.encoder.encode(measured, statics, present, memory, self.twin.dt_s)
        features: Float32 = np.array(encoded, dtype=np.float32)
        features[~present] = 0.0
        # An encoder may clip an infinity away, so the readings are looked at too.
        if not np.isfinite(features.sum(dtype=np.float64) + measured.sum(dtype=np.float64)):
            self._view.groups(readings)  # raises and names the signal, if the twin is to blame
            if not np.isfinite(features).all():
                raise NumericalError(
                    f"encoder {self.encoder.name!r} gave a NaN or infinity for finite readings; check_encoder"
                )
        return features if self._is_whole else features[:, self._assets], after

    def _arrays(self, readings: Readings) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Measured signals, statics and presence of the group."""
        name = self._group.name
        kinds = (readings.measured, readings.statics, readings.present)
        measured, statics, present = (tensors[name].detach().cpu().numpy() for tensors in kinds)
        return measured, statics, present

    def _commands(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Commands ``[B, N, A]`` of the slots' actions."""
        shaped = actions.reshape(*self._shape, -1)
        if self._layout is not None:
            return self._layout.commands(shaped.astype(np.float32))
        commands = np.tile(self._group.neutral(), (*self._shape, 1))
        commands[..., self._columns] = self._map.commands(shaped)
        return commands

    def _check_rewards(self, rewards: NDArray[np.float64]) -> None:
        if not np.isfinite(rewards.sum()):
            row, slot = (int(i) for i in np.argwhere(~np.isfinite(rewards))[0])
            asset = self._group.assets[self._assets[slot]]
            raise NumericalError(
                f"{self._group.name}/{asset}/reward of replica {row} is {rewards[row, slot]}; "
                f"a learner needs finite numbers, so mend the task {self.task.name!r}"
            )

    def _restart(
        self, rows: NDArray[np.int64], truncated: NDArray[np.bool_], features: Float32, infos: list[dict[str, Any]]
    ) -> Float32:
        """Reset ``rows``, note their last observations in ``infos``, and return observations with their first ones."""
        n = self._shape[1]
        for row in rows:
            for asset in range(n):
                infos[row * n + asset] = {
                    "terminal_observation": features[row, asset].copy(),
                    "TimeLimit.truncated": bool(truncated[row]),
                }
        readings = self._episodes.begin(rows)
        # Only the rows that were reset are encoded again: the others' memory must not advance twice.
        fresh, memory = self._observe(readings, None, rows)
        features = features.copy()
        features[rows] = fresh
        merged = {}
        for name, array in self._memory.items():
            merged[name] = np.array(array)
            merged[name][rows] = memory[name]
        self._memory = merged
        return features

    def _flat(self, features: Float32) -> Float32:
        return features.reshape(self.num_envs, -1)


def _only_group(nameplate: Nameplate) -> Group:
    if len(nameplate.groups) != 1:
        raise NameplateError(
            f"site {nameplate.site!r} has the groups {', '.join(g.name for g in nameplate.groups)}; Stable-Baselines3 "
            "shares one policy among assets of one group; name one with group=, use `twinloop train`, which gives each "
            "group a learner, or TwinEnv for one joint agent"
        )
    return nameplate.groups[0]
