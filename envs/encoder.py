"""From what an asset measures to the features that a network sees.

An encoder is a pure function over arrays that may be numpy or torch (``xp`` names the module), so that the
same lines run in the batched twin and on the edge, where torch is absent. It belongs to the site, because
only the site knows what its neighbours are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .nameplate import Nameplate

Array = Any
"""A numpy array or a torch tensor; encoders use only what both offer."""


@runtime_checkable
class Encoder(Protocol):
    """Features of one group.

    ``encode`` takes ``measured`` ``[B, N, O]``, ``statics`` ``[B, N, S]``, ``present`` ``[B, N]`` and the memory of the
    last call, and returns features ``[B, N, F]`` (roughly in [-1, 1], finite for any telemetry inside the
    nameplate's range, zero for absent assets) and the new memory. ``start`` returns the memory of ``B`` rows
    that have just been reset; its arrays lead with ``B``.
    """

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def n_features(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """What :meth:`Site.encoder` needs to build this encoder again; JSON types only."""
        ...

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]: ...
    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]: ...


@runtime_checkable
class MaskingEncoder(Encoder, Protocol):
    """An encoder that also knows which levels of discrete commands are legal now.

    ``legal`` returns bool ``[B, N, L]``: the levels of all discrete commands of the group side by side, in the order of
    the nameplate, True where a policy may choose the level. Of every command at least one level is legal, for every
    slot. It is a pure function of its three arguments, so that twin, plant and artifact mask alike. An encoder without
    this method leaves every level legal.
    """

    def legal(self, measured: Array, statics: Array, present: Array) -> Array: ...


@runtime_checkable
class SelectiveEncoder(Encoder, Protocol):
    """An encoder that can leave out what nobody asks for: a process that commands one of many assets needs no more.

    ``encode_some`` is ``encode`` with zero features where ``asked`` bool ``[N]`` is False too; None asks for all.
    """

    def encode_some(
        self,
        measured: Array,
        statics: Array,
        present: Array,
        memory: Mapping[str, Array],
        dt_s: float,
        asked: Array | None,
    ) -> tuple[Array, Mapping[str, Array]]: ...


def asked_of(nameplate: Nameplate, own: Collection[str] | None) -> dict[str, NDArray[np.bool_]]:
    """By group, which assets ``[N]`` are among the agents ``own``; empty where these are None, which stands for all."""
    if own is None:
        return {}
    return {g.name: np.array([f"{g.name}/{asset}" in own for asset in g.assets]) for g in nameplate.groups}


def encoded(
    encoder: Encoder,
    measured: Array,
    statics: Array,
    present: Array,
    memory: Mapping[str, Array],
    dt_s: float,
    asked: Array | None,
) -> tuple[Array, Mapping[str, Array]]:
    """Features of those ``asked`` ``[N]``; of all where that is None, and where the encoder can't leave any out."""
    some = None if asked is None else getattr(encoder, "encode_some", None)  # isinstance costs more than some networks
    if some is not None:
        found: tuple[Array, Mapping[str, Array]] = some(measured, statics, present, memory, dt_s, asked)
        return found
    return encoder.encode(measured, statics, present, memory, dt_s)


@runtime_checkable
class BlendingEncoder(Encoder, Protocol):
    """An encoder some of whose features are commands that it proposes, by name.

    ``motions``: of each proposal, the columns of its features, one a command of the group in the nameplate's order; a
    feature is a share of half the command's range, from its middle. A learner's ``blend`` makes commands of them.
    """

    @property
    def motions(self) -> Mapping[str, tuple[int, ...]]: ...
