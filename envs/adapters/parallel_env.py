"""One replica of a site as a PettingZoo parallel environment: one agent per asset."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from ..errors import ContractError, nearest
from ..task import Task
from ..twin import Readings, Twin
from .episodes import Episodes, Outcome
from .spaces import ActionMap, Float32, SignalView, Space


class TwinParallelEnv(ParallelEnv[str, Float32, Any]):  # type: ignore[misc]  # PettingZoo publishes no types
    """A site behind ``pettingzoo.ParallelEnv``.

    Agents are ``group/asset``; :attr:`possible_agents` are all slots, :attr:`agents` those that the episode has. Each
    sees its own measured signals and gives its own commands, in physical units (or [-1, 1] with
    ``normalised_actions``), and gets its own reward; ``infos[agent]["costs"]`` are its costs. :meth:`state` adds
    what the plant does not measure, for a central critic. All agents end together, by the task's end (termination) or
    its horizon (truncation).

    ``twin`` has one replica; the environment owns it. Seeds work as in :class:`TwinEnv`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "name": "twinloop", "is_parallelizable": True}
    render_mode: str | None = None

    def __init__(self, twin: Twin, task: Task, *, normalised_actions: bool = False) -> None:
        if twin.n_replicas != 1:
            raise ContractError(f"TwinParallelEnv wraps one replica, this twin has {twin.n_replicas}; make it with one")
        self.twin, self.task = twin, task
        nameplate = twin.nameplate
        self.possible_agents = list(nameplate.agents)
        self.agents: list[str] = []
        self._episodes = Episodes(twin, task)
        self._view, self._state = SignalView(nameplate), SignalView(nameplate, ("measured", "hidden"))
        self._maps = {g.name: ActionMap.of_asset(g, normalised=normalised_actions) for g in nameplate.groups}
        self._slots = {f"{g.name}/{a}": (g.name, i) for g in nameplate.groups for i, a in enumerate(g.assets)}
        self.observation_spaces = {agent: self._view.group_space(g) for agent, (g, _) in self._slots.items()}
        self.action_spaces = {agent: self._maps[g].space() for agent, (g, _) in self._slots.items()}
        self.state_space: gymnasium.spaces.Box = self._state.space()

    def observation_space(self, agent: str) -> Space:
        """The agent's own measured signals."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        """The agent's own commands."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, dict[str, Any]]]:
        """Start an episode; ``options`` are not used."""
        readings = self._episodes.begin(seeds=[seed])
        self.agents = self._present(readings)
        return self._observations(readings), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Float32], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """Advance by one step of the twin's ``dt_s``; every live agent gives an action."""
        if not self.agents:
            return {}, {}, {}, {}, {}
        outcome = self._episodes.step(self._commands(actions))
        alive, present = self.agents, set(self._present(outcome.readings))
        over, late = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        observations = self._observations(outcome.readings)
        rewards = {agent: self._own(outcome.rewards, agent) for agent in alive}
        terminations = {agent: over or agent not in present for agent in alive}
        truncations = {agent: late and agent in present for agent in alive}
        infos = {agent: {"costs": self._own_costs(outcome, agent)} for agent in alive}
        self.agents = [] if over or late else [agent for agent in alive if agent in present]
        return observations, rewards, terminations, truncations, infos

    def state(self) -> Float32:
        """Measured and hidden signals of all slots, in the order of :attr:`possible_agents`."""
        first: Float32 = self._state.joint(self._episodes.readings)[0]
        return first

    def close(self) -> None:
        """Nothing to release."""

    def _commands(self, actions: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
        unknown = [agent for agent in actions if agent not in self._slots]
        missing = [agent for agent in self.agents if agent not in actions]
        if unknown or missing:
            hint = nearest(str(unknown[0]), self._slots) if unknown else ""
            raise ContractError(
                f"step got actions for unknown agents {unknown}{hint}, and none for {missing}; give one to each of "
                f"{self.agents}"
            )
        commands = {g.name: np.tile(g.neutral(), (1, g.n_assets, 1)) for g in self.twin.nameplate.groups}
        for agent in self.agents:
            group, asset = self._slots[agent]
            commands[group][0, asset] = self._maps[group].commands(np.asarray(actions[agent]))
        return commands

    def _present(self, readings: Readings) -> list[str]:
        present = {g: p.cpu().numpy()[0] for g, p in readings.present.items()}
        return [agent for agent, (group, asset) in self._slots.items() if present[group][asset]]

    def _observations(self, readings: Readings) -> dict[str, Float32]:
        views = self._view.groups(readings)
        found = {}
        for agent in self.agents:
            group, asset = self._slots[agent]
            found[agent] = views[group][0, asset]
        return found

    def _own(self, values: Any, agent: str) -> float:
        group, asset = self._slots[agent]
        return float(values[group][0, asset])

    def _own_costs(self, outcome: Outcome, agent: str) -> dict[str, float]:
        group, asset = self._slots[agent]
        return {name: float(cost[0, asset]) for name, cost in outcome.costs[group].items()}
