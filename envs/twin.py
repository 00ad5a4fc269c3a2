"""The batched model of a site: dynamics and noise, no reward.

Letters: ``B`` replicas, ``N`` assets of a group, ``O`` measured, ``H`` hidden, ``A`` commanded signals,
``S`` statics. Arrays are kept per group, in physical units, the replica always leading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .nameplate import Nameplate

if TYPE_CHECKING:  # a policy on the edge sees Observation through this module, where torch is not installed
    import torch

Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Observation:
    """What a policy may see, as numpy arrays per group.

    ``measured[g]``: ``[B, N, O]``; ``statics[g]``: ``[B, N, S]``; ``present[g]``: ``[B, N]`` bool, False for
    a slot without an asset; ``dt_s``: seconds since the policy was last asked.
    """

    measured: Mapping[str, NDArray[Any]]
    statics: Mapping[str, NDArray[Any]]
    present: Mapping[str, NDArray[np.bool_]]
    dt_s: float


@dataclass(frozen=True)
class Readings:
    """What a twin says after ``reset`` or ``step``.

    ``measured[g]``: ``[B, N, O]``; ``hidden[g]``: ``[B, N, H]``; ``statics[g]``: ``[B, N, S]``;
    ``present[g]``: ``[B, N]`` bool; ``time_s``: ``[B]``, seconds since the replica's reset.
    """

    measured: Tensors
    hidden: Tensors
    statics: Tensors
    present: Tensors
    time_s: torch.Tensor

    def observation(self, dt_s: float) -> Observation:
        """Drop what a plant would not show, and hand over numpy arrays (no copy on the CPU)."""

        def arrays(tensors: Tensors) -> dict[str, NDArray[Any]]:
            return {k: v.detach().cpu().numpy() for k, v in tensors.items()}

        return Observation(arrays(self.measured), arrays(self.statics), arrays(self.present), dt_s)


@dataclass(frozen=True)
class Parameter:
    """A number of the model that can be read, set, estimated and, where declared, explored."""

    name: str
    unit: str
    minimum: float
    maximum: float
    description: str = ""
    explorable: bool = False


Snapshot = Mapping[str, "torch.Tensor"]


@runtime_checkable
class Twin(Protocol):
    """A batched site model.

    ``reset`` touches only ``rows`` (all when None); ``seeds`` has one int64 a row reset. A replica's
    trajectory is a function of its own seed and commands alone: neither the batch size nor what happens to
    other rows changes a bit of it. ``restore(snapshot())`` is exact. ``step`` takes commands
    ``[B, N, A]`` per group, advances ``dt_s`` seconds, and clips nothing silently: commands outside the
    nameplate's range are limited as the real equipment would, and what was applied is in the readings.
    """

    @property
    def nameplate(self) -> Nameplate: ...
    @property
    def n_replicas(self) -> int: ...
    @property
    def dt_s(self) -> float: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def parameter_specs(self) -> tuple[Parameter, ...]: ...

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings: ...
    def step(self, commands: Tensors) -> Readings: ...
    def snapshot(self) -> Snapshot: ...
    def restore(self, snapshot: Snapshot) -> None: ...
    def parameters(self) -> dict[str, torch.Tensor]:
        """Present values, each ``[B]``."""
        ...

    def set_parameters(self, values: Tensors) -> None: ...
