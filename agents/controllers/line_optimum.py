"""Between policies and the exact decision process of a small line: play its optimum, and have it judge a policy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ContractError
from ...envs.nameplate import Nameplate
from ...envs.production_line.config import LineConfig
from ...envs.production_line.exact_control import OFF, ON, STANDBY, ControlledLine, Rule, Worth
from ...envs.production_line.nameplate import MACHINE, line_nameplate
from ...envs.production_line.shown_state import shown
from ...envs.twin import Observation
from ..policy import Commands, Memory, Policy
from .reference import neutral_commands

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_IN_STANDBY, _IS_OFF = 5, 6


class ExactPolicy:
    """What the exact process decides in each state; it reads levels, modes and readiness of the whole line.

    Raises :class:`ContractError` for a nameplate of another number of machines.
    """

    def __init__(self, nameplate: Nameplate, line: ControlledLine, worth: Worth, name: str = "optimum") -> None:
        n = nameplate.group(MACHINE).n_assets
        if n != line.mode.shape[1]:
            raise ContractError(f"an exact policy of {line.mode.shape[1]} machines for a line of {n}")
        self._nameplate, self._line, self._worth, self._name = nameplate, line, worth, name

    @property
    def name(self) -> str:
        return self._name

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    def start(self, n_rows: int) -> Memory:
        return {}

    def act(self, observation: Observation, memory: Memory) -> tuple[Commands, Memory]:
        group = self._nameplate.group(MACHINE)
        measured = np.asarray(observation.measured[MACHINE], dtype=np.float64)

        def told(name: str) -> Integers:
            values = np.nan_to_num(measured[:, :, group.index("measured", name)])
            return np.asarray(values.round(), dtype=np.int64)

        doing = told("state")
        mode = np.where(doing == _IS_OFF, OFF, np.where(doing == _IN_STANDBY, STANDBY, ON))
        state = self._line.state_of(told("parts_before")[:, 1:], mode, told("ready_in_slots"))
        choice = self._worth.choice[state]
        commands = neutral_commands(self._nameplate, len(measured))
        commands[MACHINE][:, :, group.index("commanded", "mode")] = self._line.mode_of[choice]
        commands[MACHINE][:, :, group.index("commanded", "speed_pu")] = self._line.speed_of[choice]
        return commands, memory


def rule_of(policy: Policy, config: LineConfig) -> Rule:
    """The rule of a policy that remembers nothing, for :meth:`ControlledLine.worth_of`.

    What a policy is shown is a state of the process (:func:`shown`), and nothing of how the last slot went: a policy
    that looks at that is judged wrongly.
    """
    group = line_nameplate(config).group(MACHINE)

    def rule(levels: Integers, mode: Integers, ready_in: Integers) -> tuple[Integers, Floats]:
        seen = shown(config, levels, mode, ready_in)
        commands = policy.act(seen, policy.start(len(levels)))[0][MACHINE]
        chosen = commands[:, :, group.index("commanded", "mode")]
        speed = commands[:, :, group.index("commanded", "speed_pu")]
        return np.asarray(chosen.round(), dtype=np.int64), np.asarray(speed, dtype=np.float64)

    return rule
