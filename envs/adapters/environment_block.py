"""Copies of one PettingZoo or Gymnasium environment, stepped one after another between batched arrays.

This is the only place that touches an environment, in this process and in the processes of a pool alike, so that
both give the same bits. A copy is saved by pickling it whole, its random generators included, or, where that would lose
state, as its seed and actions since its reset, which :meth:`EnvironmentBlock.load` replays.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, ContractError
from ..nameplate import Nameplate
from .environment_declaration import MASK, OBSERVATION, AgentGroup, declare

SaveMode = Literal["auto", "pickle", "replay"]
MakeEnvironment = Callable[[], Any]
_SEED_MASK = 0x7FFFFFFF  # what older generators accept, numpy's RandomState among them
_PROBE_SEED = 0


@dataclass(frozen=True)
class EnvironmentRecipe:
    """How to make copies of an environment, picklable. ``make`` returns a Gymnasium ``Env`` or a PettingZoo
    ``ParallelEnv``; ``horizon`` None: as the environment itself says."""

    make: MakeEnvironment
    name: str = "environment"
    horizon: int | None = None
    dt_s: float = 1.0
    unbounded: float = 1e6
    save: SaveMode = "auto"
    early_truncation: Literal["refuse", "terminate"] = "refuse"


@dataclass(frozen=True)
class Declaration:
    """What one look at a copy tells: ``save`` is how copies are saved."""

    nameplate: Nameplate
    groups: tuple[AgentGroup, ...]
    horizon: int
    save: Literal["pickle", "replay"]


@dataclass
class RowReadings:
    """Numpy arrays a group of ``k`` rows: measured ``[k, N, O]``, hidden ``[k, N, 2]`` (reward, terminated), present
    ``[k, N]``; ``moved`` ``[k]``: False where an episode is over and nothing was done."""

    measured: list[NDArray[Any]]
    hidden: list[NDArray[Any]]
    present: list[NDArray[np.bool_]]
    moved: NDArray[np.bool_]


class SoloEnvironment:
    """A Gymnasium environment in the shape of a PettingZoo one, with the one agent ``agent``."""

    possible_agents = ("agent",)

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self.agents: list[str] = []

    @property
    def unwrapped(self) -> Any:
        return self.env.unwrapped

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space

    def action_space(self, agent: str) -> Any:
        return self.env.action_space

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed)
        self.agents = ["agent"]
        return {"agent": observation}, {"agent": info}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        observation, reward, terminated, truncated, info = self.env.step(actions["agent"])
        if terminated or truncated:
            self.agents = []
        return (
            {"agent": observation}, {"agent": reward}, {"agent": terminated}, {"agent": truncated}, {"agent": info},
        )  # fmt: skip

    def close(self) -> None:
        self.env.close()


def make_parallel(recipe: EnvironmentRecipe) -> Any:
    """A new copy in PettingZoo's shape."""
    made = recipe.make()
    if isinstance(made, gymnasium.Env):
        return SoloEnvironment(made)
    missing = [n for n in ("possible_agents", "reset", "step", "observation_space") if not hasattr(made, n)]
    if missing:
        raise ConfigurationError(
            f"{recipe.name}: {type(made).__name__} is neither a gymnasium.Env nor a pettingzoo.ParallelEnv "
            f"(it lacks {', '.join(missing)}); of a PettingZoo module take its parallel_env"
        )
    return made


def inspect(recipe: EnvironmentRecipe) -> Declaration:
    """Make one copy, look at it, and close it."""
    env = make_parallel(recipe)
    try:
        observations, infos = env.reset(seed=_PROBE_SEED)
        agents = list(env.possible_agents)
        nameplate, groups = declare(
            recipe.name,
            agents,
            {a: env.observation_space(a) for a in agents},
            {a: env.action_space(a) for a in agents},
            {a: _mask_of(observations.get(a), infos.get(a)) is not None for a in agents},
            dt_s=recipe.dt_s,
            unbounded=recipe.unbounded,
        )
        save = recipe.save
        if save == "auto":
            save = "pickle" if _pickles_whole(env) else "replay"
        return Declaration(nameplate, groups, _horizon(recipe, env), save)
    finally:
        env.close()


def _horizon(recipe: EnvironmentRecipe, env: Any) -> int:
    """Steps after which an episode is cut, from the recipe, Gymnasium's registration or PettingZoo's customary name."""
    if recipe.horizon is not None:
        return recipe.horizon
    told = None
    if isinstance(env, SoloEnvironment):
        told = env.env.spec.max_episode_steps if env.env.spec is not None else None
    for owner in (env, getattr(env, "unwrapped", None), getattr(getattr(env, "aec_env", None), "unwrapped", None)):
        told = told or getattr(owner, "max_cycles", None)
    if not isinstance(told, int) or told < 1:
        raise ConfigurationError(
            f"{recipe.name}: the environment does not say how long its episodes are; give horizon, in steps"
        )
    return told


def _mask_of(observation: Any, info: Any) -> Any:
    """An agent's action mask: beside its observation, as PettingZoo puts it, or in its info."""
    if isinstance(observation, dict) and MASK in observation and OBSERVATION in observation:
        return observation[MASK]
    return info.get(MASK) if isinstance(info, dict) else None


class _WholePickler(pickle.Pickler):
    """Refuses objects that would come back as new ones: EzPickle keeps no state but the constructor's arguments."""

    def reducer_override(self, thing: Any) -> Any:
        if "_ezpickle_args" in getattr(thing, "__dict__", ()):
            raise pickle.PicklingError(f"{type(thing).__name__} pickles its constructor's arguments alone")
        return NotImplemented


def _pickles_whole(env: Any) -> bool:
    try:
        _WholePickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(env)
    except Exception:  # noqa: BLE001 - simulators raise what they like where they can't be pickled
        return False
    return True


@dataclass
class _Row:
    """One copy. ``over``: it waits for a reset; ``saved``: its bytes where nothing happened since."""

    env: Any
    over: bool = True
    age: int = 0
    seed: int = 0
    actions: list[list[Any]] = field(default_factory=list)
    saved: bytes | None = None


class EnvironmentBlock:
    """``n_rows`` copies of an environment."""

    def __init__(
        self, recipe: EnvironmentRecipe, declaration: Declaration, n_rows: int, dtype: str = "float32"
    ) -> None:
        self._recipe, self._horizon, self._save_mode = recipe, declaration.horizon, declaration.save
        self._groups = declaration.groups
        self._n_agents = sum(len(g.agents) for g in self._groups)
        self._dtype = np.dtype(dtype)
        self._n_rows = n_rows
        self._rows: list[_Row] = []
        self._readers = [g.reader for g in self._groups]

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> RowReadings:
        """New episodes in ``rows``; readings of those rows, in that order."""
        self._open()
        out = self._allocate(len(rows))
        for k, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            copy = self._rows[row]
            copy.seed, copy.age, copy.over, copy.saved = seed & _SEED_MASK, 0, False, None
            copy.actions = []
            observations, infos = copy.env.reset(seed=copy.seed)
            live = set(copy.env.agents)
            for present, group in zip(out.present, self._groups, strict=True):
                present[k] = [agent in live for agent in group.agents]
            self._read(out, k, observations, infos)
        out.moved[:] = True
        return out

    def step(self, commands: Sequence[NDArray[Any]]) -> RowReadings:
        """One step of every row that is not over, with commands ``[rows, N, A]`` a group."""
        self._open()
        out = self._allocate(self._n_rows)
        actions = [g.actions(c) for g, c in zip(self._groups, commands, strict=True)]
        for k, copy in enumerate(self._rows):
            if not copy.over:
                self._step_row(copy, [a[k] for a in actions], out, k)
                out.moved[k] = True
        return out

    def _step_row(self, copy: _Row, actions: list[Any], out: RowReadings, k: int) -> None:
        env = copy.env
        given = dict(zip(self._groups[0].agents, actions[0], strict=True))
        for group, chosen in zip(self._groups[1:], actions[1:], strict=True):
            given.update(zip(group.agents, chosen, strict=True))
        if len(env.agents) != self._n_agents:
            given = {agent: given[agent] for agent in env.agents}
        observations, rewards, terminations, truncations, infos = env.step(given)
        copy.age += 1
        copy.saved = None
        if self._save_mode == "replay":
            copy.actions.append(actions)
        if len(env.agents) == self._n_agents and True not in terminations.values():
            for present in out.present:
                present[k] = True
        else:
            terminations = self._ends(copy, given, terminations, truncations, out, k)
        for hidden, group in zip(out.hidden, self._groups, strict=True):
            row = hidden[k]
            for i, agent in enumerate(group.agents):
                if agent in rewards:
                    row[i, 0] = rewards[agent]
                if agent in terminations:
                    row[i, 1] = terminations[agent]
        self._read(out, k, observations, infos)

    def _ends(
        self,
        copy: _Row,
        given: Collection[str],
        terminations: dict[str, Any],
        truncations: dict[str, Any],
        out: RowReadings,
        k: int,
    ) -> dict[str, Any]:
        """Who is still there after a step in which somebody left, and whose part ended; ``given``: who acted."""
        live = set(copy.env.agents)
        copy.over = not live
        cut = {agent for agent, flag in truncations.items() if flag and not terminations.get(agent)}
        if copy.over and cut and copy.age < self._horizon:
            if self._recipe.early_truncation == "refuse":
                raise ContractError(
                    f"{self._recipe.name}: the environment cut an episode after {copy.age} steps, where the horizon is "
                    f"{self._horizon}; set horizon to what the environment has, or early_truncation to terminate"
                )
            cut, truncations = set(), {}
        # A cut leaves agents in place, so that learners count on what would have come.
        there = cut if copy.over else live
        for present, group in zip(out.present, self._groups, strict=True):
            present[k] = [agent in there and not terminations.get(agent, False) for agent in group.agents]
        # Who is gone for no reason at all, or for a limit that is taken for an end, has ended.
        gone = {agent for agent in given if agent not in live | there and not truncations.get(agent)}
        return {**terminations, **dict.fromkeys(gone, True)}

    def _read(self, out: RowReadings, k: int, observations: dict[str, Any], infos: dict[str, Any]) -> None:
        for measured, group, read in zip(out.measured, self._groups, self._readers, strict=True):
            row, n = measured[k], group.n_observed
            if not group.n_mask:
                for i, agent in enumerate(group.agents):
                    if agent in observations:
                        row[i] = read(observations[agent])
                continue
            for i, agent in enumerate(group.agents):
                if agent not in observations:
                    continue
                seen = observations[agent]
                mask = _mask_of(seen, infos.get(agent))
                beside = isinstance(seen, dict) and MASK in seen and OBSERVATION in seen
                row[i, :n] = read(seen[OBSERVATION] if beside else seen)
                row[i, n:] = 1.0 if mask is None else np.concatenate([np.ravel(part) for part in _parts(mask)])

    def save(self) -> list[bytes]:
        """Every copy as bytes."""
        self._open()
        for copy in self._rows:
            if copy.saved is None:
                copy.saved = self._pack(copy)
        return [copy.saved for copy in self._rows if copy.saved is not None]

    def load(self, saved: Sequence[bytes]) -> None:
        """Inverse of :meth:`save`, in this block or in another one of the same recipe."""
        self._open()
        for copy, data in zip(self._rows, saved, strict=True):
            if copy.saved != data:
                self._unpack(copy, data)
                copy.saved = data

    def _pack(self, copy: _Row) -> bytes:
        if self._save_mode == "pickle":
            return pickle.dumps((copy.env, copy.over, copy.age), pickle.HIGHEST_PROTOCOL)
        history = [np.array([row[g] for row in copy.actions]) for g in range(len(self._groups))] if copy.actions else []
        return pickle.dumps((copy.seed, copy.over, copy.age, history), pickle.HIGHEST_PROTOCOL)

    def _unpack(self, copy: _Row, data: bytes) -> None:
        if self._save_mode == "pickle":
            copy.env, copy.over, copy.age = pickle.loads(data)
            return
        seed, over, age, history = pickle.loads(data)
        copy.seed, copy.over, copy.age, copy.actions = seed, over, 0, []
        if over and age == 0:
            return
        if over:
            # Nothing follows from an episode that is over but its next reset; what was done in it is kept for save().
            copy.actions, copy.age = [[h[t] for h in history] for t in range(age)], age
            return
        copy.env.reset(seed=seed)
        spare = self._allocate(1)
        for t in range(age):
            self._step_row(copy, [self._plain(g, h[t]) for g, h in enumerate(history)], spare, 0)

    def _plain(self, group: int, actions: NDArray[Any]) -> Any:
        """Actions of one row as :meth:`AgentGroup.actions` gives them."""
        return actions.tolist() if isinstance(self._groups[group].action_space, gymnasium.spaces.Discrete) else actions

    def close(self) -> None:
        """Close all copies; the next call makes new ones."""
        for copy in self._rows:
            copy.env.close()
        self._rows = []

    def _open(self) -> None:
        if not self._rows:
            self._rows = [_Row(make_parallel(self._recipe)) for _ in range(self._n_rows)]

    def _allocate(self, n_rows: int) -> RowReadings:
        sizes = [(n_rows, len(g.agents), g.n_observed + g.n_mask) for g in self._groups]
        return RowReadings(
            measured=[np.zeros(size, self._dtype) for size in sizes],
            hidden=[np.zeros((*size[:2], 2), self._dtype) for size in sizes],
            present=[np.zeros(size[:2], np.bool_) for size in sizes],
            moved=np.zeros(n_rows, np.bool_),
        )


def _parts(mask: Any) -> Sequence[Any]:
    return mask if isinstance(mask, tuple) else (mask,)
