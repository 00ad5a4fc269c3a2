"""Stable-Baselines3 straight on the batch: each asset of each replica is one of its environments.

from stable_baselines3 import PPO
from twinloop.agents.stable_baselines import TwinVecEnv

env = TwinVecEnv(twin, task, encoder=encoder)
PPO("MlpPolicy", env).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ..envs.errors import ContractError, MissingExtraError, NameplateError, NumericalError
from ..envs.nameplate import Nameplate
from ..envs.task import Task
from ..envs.twin import Readings, Twin

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
except ImportError as error:
    raise MissingExtraError("stable-baselines3", "sb3", "TwinVecEnv") from error

from ..envs.adapters.episodes import Episodes
from ..envs.adapters.spaces import ActionMap, Float32, SignalView
from ..envs.encoder import Encoder

_ALL = slice(None)


class TwinVecEnv(VecEnv):
    """``B`` replicas of ``N`` like assets as ``B * N`` environments; slot ``b * N + n`` is asset n of replica b.

    The learner's one policy is shared by all assets. Each slot observes its own measured signals (the ``encoder``'s
    features where one is given), commands its own asset in [-1, 1] (physical units with
    ``normalised_actions=False``; only the signals ``controlled``, the others stay neutral), and gets its own reward.
    All slots of a replica end together; at a truncation their infos have ``TimeLimit.truncated`` and
    ``terminal_observation``, from which SB3 bootstraps. Costs of the last step are in :attr:`costs`, ``[B, N]`` each.

    Stable-Baselines3 has no mask: a slot without an asset shows zeros (or, without encoder, the end of its range
    nearest to zero) and gets zero reward, and is learnt from all the same; better keep the number of assets fixed.

    Raises :class:`~twinloop.envs.errors.NameplateError` for a site of several groups, which one policy can't serve.
    """

    def __init__(
        self,
        twin: Twin,
        task: Task,
        *,
        encoder: Encoder | None = None,
        controlled: Sequence[str] | None = None,
        normalised_actions: bool = True,
    ) -> None:
        group = _only_group(twin.nameplate)
        if encoder is not None and encoder.group != group.name:
            raise ContractError(f"encoder {encoder.name!r} is for group {encoder.group!r}, the site has {group.name!r}")
        self.render_mode = None
        self.twin, self.task, self.encoder = twin, task, encoder
        self.costs: Mapping[str, NDArray[np.float64]] = {}
        self._group = group
        self._shape = (twin.n_replicas, group.n_assets)
        self._columns = [group.index("commanded", s.name) for s in group.commanded]
        if controlled is not None:
            self._columns = [group.index("commanded", name) for name in controlled]
        commands = [group.commanded[column] for column in self._columns]
        self._map = ActionMap(commands, [f"{group.name}/{s.name}" for s in commands], normalised=normalised_actions)
        self._view = SignalView(twin.nameplate)
        self._episodes = Episodes(twin, task)
        self._memory: Mapping[str, Any] = {}
        self._actions: NDArray[Any] | None = None
        self._row_seeds: list[int | None] = [None] * twin.n_replicas
        observed: gymnasium.Space[Any] = self._view.group_space(group.name)
        if encoder is not None:
            observed = spaces.Box(-np.inf, np.inf, (encoder.n_features,), dtype=np.float32)
        super().__init__(twin.n_replicas * group.n_assets, observed, self._map.space())

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
        shaped = self._actions.reshape(*self._shape, *self._actions.shape[1:])
        commands = np.tile(self._group.neutral(), (*self._shape, 1))
        commands[..., self._columns] = self._map.commands(shaped)
        outcome = self._episodes.step({self._group.name: commands})
        self.costs = outcome.costs[self._group.name]
        features, self._memory = self._observe(outcome.readings, self._memory)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if outcome.done.any():
            features = self._restart(np.flatnonzero(outcome.done), outcome.truncated, features, infos)
        rewards = outcome.rewards[self._group.name].reshape(-1).astype(np.float32)
        return self._flat(features), rewards, np.repeat(outcome.done, self._shape[1]), infos

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
        """Call a method of this object once; the result stands for each slot."""
        method: Callable[..., Any] = getattr(self, method_name)
        result = method(*method_args, **method_kwargs)
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
        name = self._group.name
        if self.encoder is None:
            return self._view.groups(readings)[name][rows], {}
        measured, statics, present = (
            tensors[name].detach().cpu().numpy()[rows]
            for tensors in (readings.measured, readings.statics, readings.present)
        )
        if memory is None:
            memory = self.encoder.start(len(measured), self._shape[1], measured)
        encoded, after = self.encoder.encode(measured, statics, present, memory, self.twin.dt_s)
        features: Float32 = np.array(encoded, dtype=np.float32)
        if not np.isfinite(features.sum(dtype=np.float64)):
            self._view.groups(readings)  # raises and names the signal, if the twin is to blame
            raise NumericalError(
                f"encoder {self.encoder.name!r} gave a NaN or infinity for finite readings; check_encoder"
            )
        return features, after

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


def _only_group(nameplate: Nameplate) -> Any:
    if len(nameplate.groups) != 1:
        raise NameplateError(
            f"site {nameplate.site!r} has the groups {', '.join(g.name for g in nameplate.groups)}; Stable-Baselines3 "
            "shares one policy among assets of one group; use twinloop's own learner, or TwinEnv for one joint agent"
        )
    return nameplate.groups[0]
