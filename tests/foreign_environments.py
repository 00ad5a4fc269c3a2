"""Small environments of the two foreign kinds, for the pool's tests; importable in a Ray actor too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

N_SCOUTS = 3


class Rescue(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # PettingZoo publishes no types
    """Scouts that may die and come back, and a base that never does; unlike spaces, a mask, noise of its own.

    Scout k dies in step 2 + k where its action is 1, and is back two steps later. Reward: the step's number, and 100
    for a death. ``leave_at``: the step in which scout 2 is truncated and scout 1 vanishes without a word.
    """

    metadata = {"name": "rescue_v0", "render_modes": []}
    render_mode = None

    def __init__(self, max_cycles: int = 8, cut_at: int | None = None, leave_at: int = 0) -> None:
        self.max_cycles, self.cut_at, self.leave_at = max_cycles, cut_at, leave_at
        self.scouts = [f"scout_{k}" for k in range(N_SCOUTS)]
        self.possible_agents = [*self.scouts, "base"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        if agent == "base":
            return spaces.Box(-np.inf, np.inf, (2, 2), np.float32)
        seen = spaces.Box(-1.0, 1.0, (4,), np.float32)
        return spaces.Dict({"observation": seen, "action_mask": spaces.Box(0, 1, (3,), np.int8)})

    def action_space(self, agent: str) -> Any:
        return spaces.Box(-2.0, 3.0, (1,), np.float32) if agent == "base" else spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.rng = np.random.default_rng(seed)
        self.t, self.gone = 0, dict.fromkeys(self.scouts, 0)
        self.agents = list(self.possible_agents)
        return {a: self._see(a) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: Any) -> Any:
        assert set(actions) == set(self.agents), (sorted(actions), self.agents)
        assert all(self.action_space(a).contains(x) for a, x in actions.items()), actions
        self.t += 1
        acted = list(self.agents)
        dead = {a for k, a in enumerate(self.scouts) if a in actions and self.t == 2 + k and actions[a] == 1}
        for scout in self.scouts:
            self.gone[scout] = 2 if scout in dead else max(0, self.gone[scout] - 1)
        there = [a for a in self.possible_agents if a == "base" or not self.gone[a]]
        over = self.t >= (self.cut_at or self.max_cycles)
        told = [a for a in self.possible_agents if a in acted or a in there]
        left = self.scouts[2] if self.t == self.leave_at else None
        if self.leave_at and self.t >= self.leave_at:
            there = [a for a in there if a not in self.scouts[1:]]
            told = [a for a in told if a in there or a == left]
        self.agents = [] if over else there
        return (
            {a: self._see(a) for a in told},
            {a: self.t + 100.0 * (a in dead) for a in told},
            {a: a in dead for a in told},
            {a: (over or a == left) and a not in dead for a in told},
            {a: {} for a in told},
        )

    def _see(self, agent: str) -> Any:
        if agent == "base":
            return self.rng.normal(size=(2, 2)).astype(np.float32)
        mask = np.array([1, self.t % 2, 0], np.int8)
        return {"observation": self.rng.uniform(-1, 1, 4).astype(np.float32), "action_mask": mask}


def parallel_env(**options: Any) -> Rescue:
    return Rescue(**options)


class Unpicklable(gymnasium.Env[Any, Any]):
    """A random walk that can't be pickled: it holds a lambda."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(3, start=-1)

    def __init__(self) -> None:
        self.forward: Any = lambda x, u: x + u

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.normal()
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> Any:
        self.x = self.forward(self.x, float(action)) + self.np_random.normal()
        return np.array([self.x], np.float32), float(self.x), False, False, {}


class Faulty(Unpicklable):
    """Fails in its third step, once: the marker file tells the next process that it happened. Pickles its constructor's
    arguments alone, as many simulators do."""

    def __init__(self, marker: str, fault: str) -> None:
        super().__init__()
        self.marker, self.fault, self.t = Path(marker), fault, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t == 3 and self.fault != "none" and not self.marker.exists():
            self.marker.touch()
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hung":
                time.sleep(3600)
            raise RuntimeError("the simulator fell over")
        return super().step(action)


def make_unpicklable() -> Unpicklable:
    return Unpicklable()
