"""Two policies that fit any site: leave everything alone, and do anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.nameplate import Nameplate
from ...envs.twin import Observation
from ..policy import Commands, Memory

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def neutral_commands(nameplate: Nameplate, n_rows: int) -> dict[str, NDArray[np.float64]]:
    """The command that hands every asset back to its own controller, ``[B, N, A]`` per group."""
    return {g.name: np.tile(g.neutral(), (n_rows, g.n_assets, 1)) for g in nameplate.groups}


class NeutralPolicy:
    """Every asset is left to its own controller."""

    def __init__(self, nameplate: Nameplate, name: str = "neutral") -> None:
        self._nameplate = nameplate
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        group = self._nameplate.groups[0].name
        return neutral_commands(self._nameplate, observation.measured[group].shape[0]), memory


class RandomPolicy:
    """Commands uniform in their range, a hash of (seed, row, step): the same seed gives the same commands.

    The hash is the splitmix64 finaliser (Steele, Lea & Flood 2014, section 4). Discrete commands draw a level.
    """

    def __init__(self, nameplate: Nameplate, seed: int = 0) -> None:
        self._nameplate = nameplate
        self._seed = seed

    @property
    def name(self) -> str:
        return "random"

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        """``key`` tells the rows apart and travels with them; ``step`` counts the calls."""
        rows = np.arange(1, n_rows + 1, dtype=np.uint64) * _GOLDEN
        key = _mix(rows ^ np.uint64(self._seed % 2**64))
        return {"key": key, "step": np.zeros(n_rows, dtype=np.int64)}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        step = memory["step"]
        row = _mix(memory["key"] + (step.astype(np.uint64) + np.uint64(1)) * _MIX_1)
        commands: dict[str, NDArray[np.float64]] = {}
        offset = 0
        for group in self._nameplate.groups:
            n_commands = len(group.commanded)
            n = group.n_assets * n_commands
            index = np.arange(offset + 1, offset + n + 1, dtype=np.uint64) * _GOLDEN
            share = (_mix(row[:, None] + index[None, :]) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            share = share.reshape(-1, group.n_assets, n_commands)
            lower, upper = group.lower("commanded"), group.upper("commanded")
            drawn = lower + share * (upper - lower)
            for column, signal in enumerate(group.commanded):
                if signal.levels is not None:
                    levels = np.array(signal.levels)
                    drawn[..., column] = levels[(share[..., column] * len(levels)).astype(np.intp)]
            commands[group.name] = drawn
            offset += n
        return commands, {"key": memory["key"], "step": step + 1}


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
