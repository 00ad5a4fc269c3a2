"""What the falsifier plays against: a batch of replicas of a site, as numpy arrays, and a site's twin as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...envs.constraint import Declaration
from ...envs.twin import Parameter

if TYPE_CHECKING:
    from ...envs.registry import Site

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Model(Protocol):
    """``B`` replicas that start anew together; measured ``[B, N, O]`` and commands ``[B, N, A]`` a group."""

    @property
    def declaration(self) -> Declaration: ...
    @property
    def n_replicas(self) -> int: ...
    @property
    def parameters(self) -> tuple[Parameter, ...]: ...
    @property
    def present(self) -> Mapping[str, Bools]:
        """``[B, N]`` a group: which slots hold an asset in this episode."""
        ...

    def start(self, seeds: NDArray[np.int64], parameters: Mapping[str, Floats]) -> dict[str, Floats]: ...
    def step(self, commands: Mapping[str, Floats]) -> dict[str, Floats]: ...


class TwinModel:
    """The twin of a registered site. Raises what the site raises where its extra packages are missing."""

    def __init__(self, site: Site, config: Any, declaration: Declaration, n_replicas: int) -> None:
        import torch

        self.declaration = declaration
        self.n_replicas = n_replicas
        self._torch = torch
        self._twin = site.twin(config, n_replicas, "cpu", torch.float32)
        self.parameters = self._twin.parameter_specs
        self.present: dict[str, Bools] = {}

    def start(self, seeds: NDArray[np.int64], parameters: Mapping[str, Floats]) -> dict[str, Floats]:
        with self._torch.no_grad():
            self._twin.set_parameters(self._tensors(parameters))
            readings = self._twin.reset(self._torch.from_numpy(seeds))
        self.present = {name: value.cpu().numpy().copy() for name, value in readings.present.items()}
        return self._arrays(readings.measured)

    def step(self, commands: Mapping[str, Floats]) -> dict[str, Floats]:
        with self._torch.no_grad():
            return self._arrays(self._twin.step(self._tensors(commands)).measured)

    def _tensors(self, arrays: Mapping[str, Floats]) -> dict[str, Any]:
        return {name: self._torch.from_numpy(value).to(self._twin.dtype) for name, value in arrays.items()}

    def _arrays(self, measured: Mapping[str, Any]) -> dict[str, Floats]:
        return {name: value.detach().cpu().numpy().astype(np.float64) for name, value in measured.items()}
