"""All replicas of a twin as a Gymnasium vector environment, stepped as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ..errors import ContractError
from ..task import Task
from ..twin import Readings, Twin
from .episodes import Episodes, Flags, Outcome
from .spaces import ActionMap, Float32, SignalView, Space, split_by_group

Step = tuple[Float32, NDArray[np.float64], Flags, Flags, dict[str, Any]]


class TwinVectorEnv(gymnasium.vector.VectorEnv[Float32, NDArray[Any], NDArray[Any]]):
    """``B`` replicas behind ``gymnasium.vector.VectorEnv``; each is what :class:`TwinEnv` is, value for value.

    ``autoreset_mode``: NEXT_STEP (Gymnasium's default: the step after an episode's end ignores that replica's action
    and resets it), SAME_STEP (resets at once; the last observation is in ``infos["final_obs"]``), or DISABLED (call
    ``reset(options={"reset_mask": done})``). ``reset(seed=s)`` gives replica ``i`` seed ``s + i``, a list one each.
    """

    def __init__(
        self,
        twin: Twin,
        task: Task,
        *,
        normalised_actions: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        self.twin, self.task = twin, task
        self.num_envs = twin.n_replicas
        self._mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self._episodes = Episodes(twin, task)
        self._view = SignalView(twin.nameplate)
        self._map = ActionMap.of_site(twin.nameplate, normalised=normalised_actions)
        self.single_observation_space: Space = self._view.space()
        self.single_action_space: Space = self._map.space()
        self.observation_space: Space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space: Space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start episodes in all replicas, or where ``options["reset_mask"]`` ``[B]`` is True."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        seeds = self._row_seeds(seed)
        mask = self._reset_mask(options)
        if mask.all():
            readings = self._episodes.begin(seeds=seeds)
        else:
            rows = np.flatnonzero(mask)
            readings = self._episodes.begin(rows, [seeds[int(row)] for row in rows])
        self._ended &= ~mask
        return self._view.joint(readings), self._present(readings, mask)

    def step(self, actions: NDArray[Any]) -> Step:
        """Advance all replicas by one step of the twin's ``dt_s``."""
        if not self._ended.any():
            outcome = self._advance(actions)
            self._ended = outcome.done
            return self._reset_ended(outcome) if self._mode is AutoresetMode.SAME_STEP else self._plain(outcome)
        if self._mode is AutoresetMode.DISABLED:
            raise ContractError(
                f"step was called although the episodes of replicas {np.flatnonzero(self._ended).tolist()} have ended; "
                "with autoreset disabled, reset them first: reset(options={'reset_mask': terminations | truncations})"
            )
        return self._step_and_reset(actions, self._ended)

    def _advance(self, actions: NDArray[Any]) -> Outcome:
        return self._episodes.step(split_by_group(self.twin.nameplate, self._map.commands(np.asarray(actions))))

    def _plain(self, outcome: Outcome) -> Step:
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos = self._present(outcome.readings, everywhere) | self._costs(outcome, everywhere)
        return self._view.joint(outcome.readings), outcome.team_reward(), outcome.terminated, outcome.truncated, infos

    def _step_and_reset(self, actions: NDArray[Any], waiting: Flags) -> Step:
        """NEXT_STEP: ``waiting`` replicas are reset, the others advance."""
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        if waiting.all():
            readings = self._episodes.begin()
            rewards, none = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
            infos = self._present(readings, everywhere)
            return self._view.joint(readings), rewards, none, none.copy(), infos
        # Whatever they were told, even a NaN, is not looked at.
        actions = np.where(waiting.reshape(-1, *(1,) * (np.ndim(actions) - 1)), np.zeros_like(actions), actions)
        outcome = self._advance(actions)
        readings = self._episodes.begin(np.flatnonzero(waiting))
        self._ended = outcome.done & ~waiting
        infos = self._present(readings, everywhere) | self._costs(outcome, ~waiting)
        return (
            self._view.joint(readings),
            np.where(waiting, 0.0, outcome.team_reward()),
            outcome.terminated & ~waiting,
            outcome.truncated & ~waiting,
            infos,
        )

    def _reset_ended(self, outcome: Outcome) -> Step:
        """SAME_STEP: replicas whose episode ended start the next one, and show its first observation."""
        done = outcome.done
        observations = self._view.joint(outcome.readings)
        infos: dict[str, Any] = {}
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        readings = outcome.readings
        if done.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(done):
                final[row] = observations[row].copy()
            final_info = self._present(readings, done) | self._costs(outcome, done)
            infos = {
                "final_obs": final,
                "_final_obs": done.copy(),
                "final_info": final_info,
                "_final_info": done.copy(),
            }
            readings = self._episodes.begin(np.flatnonzero(done))
            observations = self._view.joint(readings)
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        infos |= self._present(readings, everywhere)
        if not done.all():
            infos |= self._costs(outcome, ~done)
        return observations, outcome.team_reward(), outcome.terminated, outcome.truncated, infos

    def _present(self, readings: Readings, rows: Flags) -> dict[str, Any]:
        """Who is present, in Gymnasium's layout: the array, zero elsewhere, and the mask of ``rows``."""
        present = np.concatenate([p.cpu().numpy() for p in readings.present.values()], axis=1)
        return {"present": present & rows[:, None], "_present": rows.copy()}

    def _costs(self, outcome: Outcome, rows: Flags) -> dict[str, Any]:
        costs: dict[str, Any] = {}
        for name, cost in outcome.team_costs().items():
            costs[name], costs[f"_{name}"] = np.where(rows, cost, 0.0), rows.copy()
        return {"costs": costs, "_costs": rows.copy()}

    def _row_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ContractError(f"{len(seed)} seeds for {self.num_envs} replicas; give one each, or one number for all")
        return seed

    def _reset_mask(self, options: dict[str, Any] | None) -> Flags:
        if options is None or "reset_mask" not in options:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = options["reset_mask"]
        if (
            not isinstance(mask, np.ndarray)
            or mask.shape != (self.num_envs,)
            or mask.dtype != np.bool_
            or not mask.any()
        ):
            raise ContractError(
                f"options['reset_mask'] is {mask!r}; give a bool array ({self.num_envs},) with at least one True"
            )
        return mask
