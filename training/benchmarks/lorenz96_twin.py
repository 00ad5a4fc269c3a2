"""Lorenz-96 as a twin: the chaotic ring on which ensemble filters are compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...envs import noise
from ...envs.errors import ContractError
from ...envs.estimation.mixable import mixed
from ...envs.nameplate import Group, Nameplate, Signal
from ...envs.twin import Parameter, Readings, Tensors

Tensor = torch.Tensor
GROUP = "ring"
STEP = 0.05
DT_S = 21_600.0
"""0.05 of Lorenz' time unit is six hours (Lorenz & Emanuel 1998)."""

_SPIN_UP_STEPS = 200
_FORCING = Parameter("forcing", "1", 4.0, 14.0, "drives the ring; chaotic from about 4 on")


class Lorenz96Twin:
    """``x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + forcing + push_i`` (Lorenz 1996), fourth-order Runge-Kutta.

    A replica starts on the attractor, where its seed and 200 steps of spin-up lead.
    """

    def __init__(self, n_replicas: int, n_sites: int = 40) -> None:
        self.n_replicas = n_replicas
        self.nameplate = Nameplate("lorenz96", DT_S, (_group(n_sites),))
        self.dt_s = DT_S
        self.device = torch.device("cpu")
        self.dtype = torch.float64
        self.parameter_specs = (_FORCING,)
        self._forcing = torch.full((n_replicas,), 8.0, dtype=torch.float64)
        self._x = torch.zeros(n_replicas, n_sites, dtype=torch.float64)
        self._steps = torch.zeros(n_replicas, dtype=torch.int64)

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        target = torch.arange(self.n_replicas) if rows is None else rows
        if len(target):
            zeros = torch.zeros_like(seeds)
            x = 8.0 + noise.normal(seeds, zeros, 801, self._x.shape[1], torch.float64)
            for _ in range(_SPIN_UP_STEPS):
                x = _runge_kutta(x, self._forcing[target, None])
            self._x, self._steps = self._x.clone(), self._steps.clone()
            self._x[target], self._steps[target] = x, 0
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        push = commands[GROUP][..., 0].to(torch.float64)
        if push.shape != self._x.shape:
            raise ContractError(
                f"step: commands['ring'] are {tuple(push.shape)}, expected {tuple(self._x.shape)} (B, N)"
            )
        self._x = _runge_kutta(self._x, self._forcing[:, None] + push.clamp(-1.0, 1.0))
        self._steps = self._steps + 1
        return self._readings()

    def mix(self, transform: Tensor) -> Readings:
        """Apply an analysis to the ring and the forcing."""
        self._x = mixed(self._x.T, transform).T
        self._forcing = mixed(self._forcing, transform).clamp(_FORCING.minimum, _FORCING.maximum)
        return self._readings()

    def snapshot(self) -> dict[str, Tensor]:
        return {"x": self._x.clone(), "forcing": self._forcing.clone(), "steps": self._steps.clone()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self._x, self._forcing, self._steps = (snapshot[k].clone() for k in ("x", "forcing", "steps"))

    def parameters(self) -> dict[str, Tensor]:
        return {"forcing": self._forcing.clone()}

    def set_parameters(self, values: Tensors) -> None:
        for name, value in values.items():
            if name != _FORCING.name:
                raise ContractError(f"parameter {name!r}: unknown; this twin has {_FORCING.name}")
            self._forcing = value.to(torch.float64).expand(self.n_replicas).clone()

    def _readings(self) -> Readings:
        present = torch.ones(self._x.shape, dtype=torch.bool)
        empty = self._x.new_zeros(*self._x.shape, 0)
        return Readings({GROUP: self._x[..., None].clone()}, {GROUP: empty}, {GROUP: empty}, {GROUP: present},
                        self._steps * DT_S)  # fmt: skip


def _group(n_sites: int) -> Group:
    value = Signal("value", "1", -60.0, 60.0, "state of the ring")
    push = Signal("push", "1", -1.0, 1.0, "added to the forcing")
    return Group(GROUP, tuple(f"S{k:02d}" for k in range(n_sites)), (value,), (push,))


def _slope(x: Tensor, forcing: Tensor) -> Tensor:
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + forcing


def _runge_kutta(x: Tensor, forcing: Tensor) -> Tensor:
    a = _slope(x, forcing)
    b = _slope(x + 0.5 * STEP * a, forcing)
    c = _slope(x + 0.5 * STEP * b, forcing)
    return x + STEP / 6.0 * (a + 2.0 * b + 2.0 * c + _slope(x + STEP * c, forcing))
