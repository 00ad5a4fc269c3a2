"""From the spaces of somebody else's environment to a nameplate, and arrays to and fro.

Agents with equal spaces make a group. A Box observation becomes measured signals as it is; any other space is flattened
as Gymnasium does it (a Discrete one one-hot). An action mask, in the observation or in the info, becomes measured
signals ``may_...`` behind them, one a level. Box actions become commands with a range, Discrete, MultiDiscrete and
MultiBinary ones commands with levels. What a space leaves unbounded gets the range ``+-unbounded``: nothing is clipped
to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ..errors import ConfigurationError, NumericalError
from ..nameplate import Group, Nameplate, Signal
from .environment_encoder import MASK_PREFIX

Space = spaces.Space[Any]
MASK, OBSERVATION = "action_mask", "observation"


@dataclass(frozen=True, eq=False)
class AgentGroup:
    """Agents with equal spaces. ``agents``: the environment's own names; ``n_mask``: mask columns, 0 without."""

    name: str
    agents: tuple[str, ...]
    observation_space: Space
    action_space: Space
    n_observed: int
    n_mask: int
    signals: Group

    @property
    def reader(self) -> Callable[[Any], Any]:
        """A function from one agent's observation to its values ``[O]``, without the mask."""
        space = self.observation_space
        if isinstance(space, spaces.Box):
            return _as_it_is if len(space.shape) == 1 else np.ravel
        return lambda observation: spaces.flatten(space, observation)

    def actions(self, commands: NDArray[Any]) -> Any:
        """Actions ``[rows][agents]`` of commands ``[rows, N, A]``, limited to the space; NumericalError for a NaN."""
        if not np.isfinite(commands.sum()):
            row, asset, column = (int(i) for i in np.argwhere(~np.isfinite(commands))[0])
            raise NumericalError(
                f"command {self.name}/{self.agents[asset]}/{self.signals.commanded[column].name} of row {row} is "
                f"{commands[row, asset, column]}; commands are finite numbers, look for a diverged policy"
            )
        space = self.action_space
        if isinstance(space, spaces.Box):
            lower, upper = space.low.reshape(-1), space.high.reshape(-1)
            limited = np.minimum(np.maximum(commands.astype(space.dtype), lower), upper)
            return limited.reshape(*limited.shape[:2], *space.shape)
        lower, upper = self.signals.lower("commanded"), self.signals.upper("commanded")
        levels = np.minimum(np.maximum(np.rint(commands), lower), upper).astype(np.int64)
        if isinstance(space, spaces.Discrete):
            return levels[..., 0].tolist()
        return levels.astype(space.dtype)


def _as_it_is(observation: Any) -> Any:
    return observation


def declare(
    site: str,
    agents: Sequence[str],
    observation_spaces: Mapping[str, Space],
    action_spaces: Mapping[str, Space],
    masked: Mapping[str, bool],
    *,
    dt_s: float,
    unbounded: float,
) -> tuple[Nameplate, tuple[AgentGroup, ...]]:
    """The nameplate of an environment and its groups, in the order in which their first agents come.

    ``masked``: who has an action mask. Raises :class:`ConfigurationError` for spaces that commands can't stand for.
    """
    classes: list[tuple[tuple[Space, Space, bool], list[str]]] = []
    for agent in agents:
        key = (_plain(observation_spaces[agent]), action_spaces[agent], masked[agent])
        members = next((names for known, names in classes if known == key), None)
        if members is None:
            classes.append((key, [agent]))
        else:
            members.append(agent)
    names = _group_names([members for _, members in classes])
    groups = []
    for name, ((seen, acting, has_mask), members) in zip(names, classes, strict=True):
        measured = _measured(name, seen, unbounded)
        commanded = _commanded(name, acting, unbounded)
        mask = _mask(commanded) if has_mask else ()
        hidden = (
            Signal("reward", "1", -unbounded, unbounded, "reward of the step"),
            Signal("terminated", "1", 0.0, 1.0, "1 in the step in which the environment ended this agent's part"),
        )
        signals = Group(name, tuple(a.replace("/", "_") for a in members), (*measured, *mask), commanded, hidden)
        groups.append(AgentGroup(name, tuple(members), seen, acting, len(measured), len(mask), signals))
    return Nameplate(site=site, period_s=dt_s, groups=tuple(g.signals for g in groups)), tuple(groups)


def _plain(space: Space) -> Space:
    """The observation without the mask that PettingZoo puts beside it."""
    if isinstance(space, spaces.Dict) and OBSERVATION in space.spaces and MASK in space.spaces:
        return space.spaces[OBSERVATION]
    return space


def _measured(group: str, space: Space, unbounded: float) -> tuple[Signal, ...]:
    try:
        flat = space if isinstance(space, spaces.Box) else spaces.flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, spaces.Box):
        raise ConfigurationError(
            f"group {group!r}: observations of {space} have no fixed size; wrap the environment so that they do"
        )
    return _signals("x", flat, unbounded)


def _commanded(group: str, space: Space, unbounded: float) -> tuple[Signal, ...]:
    if isinstance(space, spaces.Box):
        return tuple(
            Signal(s.name, s.unit, s.minimum, s.maximum, neutral=min(max(0.0, s.minimum), s.maximum))
            for s in _signals("u", space, unbounded)
        )
    if isinstance(space, spaces.Discrete):
        counts, starts = [int(space.n)], [int(space.start)]
    elif isinstance(space, spaces.MultiDiscrete):
        counts, starts = space.nvec.reshape(-1).tolist(), space.start.reshape(-1).tolist()
        if space.nvec.ndim > 1:
            raise ConfigurationError(f"group {group!r}: actions of {space} have two axes; wrap them flat")
    elif isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        counts, starts = [2] * int(space.shape[0]), [0] * int(space.shape[0])
    else:
        raise ConfigurationError(
            f"group {group!r}: actions of {space} are not supported; there are Box, Discrete, MultiDiscrete and "
            "MultiBinary, so wrap the environment's actions into one of them"
        )
    return tuple(_choice(f"u{k}", start, n) for k, (n, start) in enumerate(zip(counts, starts, strict=True)))


def _choice(name: str, start: int, n: int) -> Signal:
    levels = tuple(float(start + k) for k in range(n))
    # A single level is no range; the level stays the only one that is allowed.
    return Signal(name, "1", levels[0], max(levels[-1], levels[0] + 1.0), neutral=levels[0], levels=levels)


def _mask(commanded: Sequence[Signal]) -> tuple[Signal, ...]:
    return tuple(
        Signal(f"{MASK_PREFIX}{s.name}_{k}", "1", 0.0, 1.0, f"1 where {s.name} may be {level:g}")
        for s in commanded
        for k, level in enumerate(s.levels or ())
    )


def _signals(letter: str, box: spaces.Box, unbounded: float) -> tuple[Signal, ...]:
    lower = np.clip(box.low.reshape(-1).astype(np.float64), -unbounded, unbounded)
    upper = np.clip(box.high.reshape(-1).astype(np.float64), -unbounded, unbounded)
    upper = np.where(upper > lower, upper, lower + 1.0)  # a constant is no range
    return tuple(
        Signal(f"{letter}{k}", "1", float(a), float(b)) for k, (a, b) in enumerate(zip(lower, upper, strict=True))
    )


def _group_names(classes: Sequence[Sequence[str]]) -> list[str]:
    """What the agents of a group are called without their number, made unique: ``adversary``, ``agent_2``."""
    found: list[str] = []
    for members in classes:
        stems = {re.sub(r"[_\-. /]*\d*$", "", agent) for agent in members}
        stem = stems.pop().replace("/", "_") if len(stems) == 1 else ""
        stem = stem or "agent"
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}_{number}", number + 1
        found.append(name)
    return found
