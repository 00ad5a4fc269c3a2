"""Two small plants in this process, and what their actuators may do to a command.

They are not the sites' physics in full: enough of it that inputs move, that heat and carts obey what is sent, and that
a fault of an actuator shows in what the plant reads back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.constraint import Declaration
from ....envs.errors import PlantError
from ....envs.nameplate import Nameplate
from ....envs.plant import Arrays, Quality, Telemetry
from ....envs.wind_farm.nameplate import GROUP
from .sites import AMBIENT_DEGC, CART, COOL_DEGC_PER_KWS, HEAT_DEGC_PER_KWS, LOSS_PER_S, OVEN, PUMP

Floats = NDArray[np.float64]
EPOCH_S = 1_735_689_600.0

Actuator = Callable[[int, dict[str, Floats], dict[str, Floats]], dict[str, Floats]]
"""From the period's number, what the plant obeys and what is written, to what it obeys then."""


class SmallPlant:
    """A plant with a clock, a counter of readings and noise that a seed decides.

    ``mismatch``: factor on what commands do. ``deaf(period)``: whether writes raise in that period.
    ``answer``: what a write tells that is obeyed.
    """

    def __init__(
        self,
        declaration: Declaration,
        actuator: Actuator | None = None,
        mismatch: float = 1.0,
        deaf: Callable[[int], bool] = lambda period: False,
        answer: Callable[[int, dict[str, Floats]], Any] = lambda period, obeyed: obeyed,
    ) -> None:
        self.nameplate: Nameplate = declaration.nameplate
        self.period = 0
        self.commands = {g.name: np.tile(g.neutral(), (g.n_assets, 1)) for g in self.nameplate.groups}
        self.history: list[dict[str, Floats]] = []
        self._actuator, self._mismatch, self._deaf, self._answer = actuator, mismatch, deaf, answer
        self._rng = np.random.default_rng(7)
        self._sequence = 0
        self.state = self._start()

    @property
    def clock_s(self) -> float:
        return EPOCH_S + self.period * self.nameplate.period_s

    def read(self) -> Telemetry:
        """All values, good and fresh."""
        self._sequence += 1
        values = self._values()
        times = {n: np.full(v.shape, self.clock_s) for n, v in values.items()}
        quality = {n: np.full(v.shape, Quality.GOOD, dtype=np.int8) for n, v in values.items()}
        return Telemetry(values, times, quality, self.clock_s, self._sequence)

    def write(self, commands: Arrays) -> Arrays:
        """Obey, as the actuators let it, and tell what is obeyed."""
        if self._deaf(self.period):
            raise PlantError(f"no answer to a write in period {self.period}")
        told = {n: np.array(c, dtype=np.float64) for n, c in commands.items()}
        self.commands = told if self._actuator is None else self._actuator(self.period, self.commands, told)
        self.history.append({n: c.copy() for n, c in self.commands.items()})
        told_back: Arrays = self._answer(self.period, {n: c.copy() for n, c in self.commands.items()})
        return told_back

    def advance(self) -> None:
        self._move(self.nameplate.period_s)
        self.period += 1

    def close(self) -> None:
        """Nothing is held open."""

    def _start(self) -> dict[str, Floats]:
        return {}

    def _values(self) -> dict[str, Floats]:
        raise NotImplementedError

    def _move(self, dt_s: float) -> None:
        raise NotImplementedError

    def _noise(self, *shape: int) -> Floats:
        return self._rng.normal(0.0, 1.0, shape)


class FarmPlant(SmallPlant):
    """Turbines in a steady wind, whose power falls with misalignment."""

    def _values(self) -> dict[str, Floats]:
        yaw, limit = self.commands[GROUP].T
        n = len(yaw)
        wind = 8.0 + 0.1 * self._noise(n)
        power = 1700.0 * np.minimum(np.cos(np.radians(yaw)) ** 3, limit / 0.4) + 5.0 * self._noise(n)
        columns = (
            wind,
            200.0 + 0.5 * self._noise(n),
            200.0 - yaw + 0.5 * self._noise(n),
            power,
            0.06 + 0.001 * self._noise(n),
            0.3 + 0.001 * self._noise(n),
            2.0 + 0.01 * self._noise(n),
            np.ones(n),
        )
        return {GROUP: np.column_stack(columns)}

    def _move(self, dt_s: float) -> None:
        """The wind stays as it is."""


class YardPlant(SmallPlant):
    """Pumps, ovens and carts; ``state``: oven temperatures ``[N]`` and cart positions ``[N, 2]``."""

    def _start(self) -> dict[str, Floats]:
        return {OVEN: np.array([60.0, 55.0]), CART: np.array([[0.0, 0.0], [8.0, 0.5], [0.5, 9.0]])}

    def _values(self) -> dict[str, Floats]:
        step = self.commands[PUMP]
        flow = 6.0 * step + 4.0 + 0.1 * self._noise(*step.shape)
        temperature = self.state[OVEN] + 0.05 * self._noise(2)
        door = np.clip(0.5 + 0.01 * self._noise(2), 0.0, 1.0)
        carts = self.state[CART] + 0.002 * self._noise(3, 2)
        return {PUMP: flow, OVEN: np.column_stack([temperature, door]), CART: carts}

    def _move(self, dt_s: float) -> None:
        heat, cool = self.commands[OVEN].T
        gain = HEAT_DEGC_PER_KWS * heat - COOL_DEGC_PER_KWS * cool
        # exact for commands that stand still: an oven tends to where its loss equals its gain
        rest = AMBIENT_DEGC + self._mismatch * gain / LOSS_PER_S
        self.state[OVEN] = rest + (self.state[OVEN] - rest) * math.exp(-LOSS_PER_S * dt_s)
        self.state[CART] = self.state[CART] + self._mismatch * dt_s * self.commands[CART]


def plant_of(declaration: Declaration, **options: Any) -> SmallPlant:
    """The plant of one of the suite's sites."""
    kinds: Mapping[str, type[SmallPlant]] = {"farm": FarmPlant, "yard": YardPlant}
    return kinds[declaration.nameplate.site](declaration, **options)


def policy_of(declaration: Declaration, period: int) -> dict[str, Floats]:
    """What a sound policy asks: slow, inside all limits, never still."""
    wave = math.sin(0.3 * period)
    if declaration.nameplate.site == "farm":
        n = declaration.nameplate.groups[0].n_assets
        return {GROUP: np.column_stack([np.full(n, 5.0 * wave), np.full(n, 0.9 + 0.05 * wave)])}
    return {
        PUMP: np.array([[1.0], [1.0], [float(1 + period // 10 % 2)]]),
        OVEN: np.array([[min(1.5 * period, 12.0 + wave), 0.0], [min(1.5 * period, 9.0 + wave), 0.0]]),
        CART: np.array([[0.1 * wave, 0.0], [0.0, 0.1 * wave], [-0.1 * wave, 0.0]]),
    }
