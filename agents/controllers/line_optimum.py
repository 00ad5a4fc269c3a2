"""Between policies and the exact decision process of a small line: play its optimum, and have it judge a policy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import ContractError
from ...envs.nameplate import Nameplate
from ...envs.production_line.config import LineConfig
from ...envs.production_line.exact_control import OFF, ON, STANDBY, ControlledLine, Rule, Worth
from ...envs.production_line.nameplate import MACHINE, line_nameplate
from ...envs.twin import Observation
from ..policy import Commands, Memory, Policy
from .reference import neutral_commands

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_RUNNING, _WARMING, _IN_STANDBY, _IS_OFF = 0, 4, 5, 6
_BESIDE_NO_BUFFER = 1e6


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

    What a policy is shown is a state of the process: shares of the last slot are nought, and a machine that is on and
    warm is shown as running. A policy that looks at how the last slot went is therefore judged wrongly.
    """
    nameplate = line_nameplate(config)
    group = nameplate.group(MACHINE)

    def rule(levels: Integers, mode: Integers, ready_in: Integers) -> tuple[Integers, Floats]:
        n, m = mode.shape
        capacities = group.statics_array()[:-1, 1]
        beside = np.full((n, 1), _BESIDE_NO_BUFFER)
        measured = np.zeros((n, m, len(group.measured)))
        columns = {
            "state": np.select(
                [mode == OFF, mode == STANDBY, ready_in > 0], [_IS_OFF, _IN_STANDBY, _WARMING], _RUNNING
            ),
            "parts_before": np.hstack((beside, levels)),
            "room_behind": np.hstack((capacities - levels, beside)),
            "ready_in_slots": ready_in,
            "price_per_kwh": np.full((n, m), config.tariff.prices_per_kwh[0]),
        }
        for name, values in columns.items():
            measured[:, :, group.index("measured", name)] = values
        statics = np.broadcast_to(group.statics_array(), (n, *group.statics_array().shape))
        present = np.ones((n, m), dtype=np.bool_)
        seen = Observation({MACHINE: measured}, {MACHINE: statics}, {MACHINE: present}, config.dt_s)
        commands = policy.act(seen, policy.start(n))[0][MACHINE]
        chosen = commands[:, :, group.index("commanded", "mode")]
        speed = commands[:, :, group.index("commanded", "speed_pu")]
        return np.asarray(chosen.round(), dtype=np.int64), np.asarray(speed, dtype=np.float64)

    return rule
