"""Overlapped collection: the next rollout is gathered while the learner learns from this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from ..agents.actor import Actor
from .collector import Gatherer
from .rollout_batch import PolicyWeights, Rollout
from .shard import ShardState

_PENDING = "pending_weights"


class OverlappedCollector:
    """Iteration ``k`` learns from what the weights of iteration ``k - 1`` gathered; the first from its own.

    The order of rollouts and weights is fixed, so results depend neither on timing nor on who gathers. A state holds
    the shards as they were before the rollout under way, and in the first shard's state the weights that gather it:
    a run that resumes gathers it again.
    """

    def __init__(self, inner: Gatherer) -> None:
        self.inner = inner
        self._pending: PolicyWeights | None = None
        self._kept: list[np.ndarray[Any, Any]] | None = None  # of the weights that a restored run has to gather with

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.__exit__(kind, error, trace)

    def collect(self, weights: PolicyWeights) -> list[Rollout]:
        weights = with_leaves(weights, [leaf.copy() for leaf in leaves(weights)])  # the learner goes on with its own
        if self._pending is None:
            self.inner.start(weights if self._kept is None else with_leaves(weights, self._kept))
        rollouts = self.inner.finish()
        self.inner.start(weights)
        self._pending, self._kept = weights, None
        return rollouts

    def snapshots(self) -> Callable[[], list[ShardState]]:
        states = self.inner.snapshots()
        kept = self._kept if self._pending is None else leaves(self._pending)

        def fetch() -> list[ShardState]:
            first, *others = states()
            if kept is None:
                return [first, *others]
            return [{**first, _PENDING: [torch.from_numpy(leaf.copy()) for leaf in kept]}, *others]

        return fetch

    def restore(self, states: Sequence[ShardState]) -> None:
        first, *others = states
        kept = first.get(_PENDING)
        self.inner.restore([{k: v for k, v in first.items() if k != _PENDING}, *others])
        self._pending = None
        self._kept = None if kept is None else [tensor.numpy().copy() for tensor in kept]

    def figures(self) -> Mapping[str, float]:
        return self.inner.figures()


def leaves(weights: PolicyWeights) -> list[np.ndarray[Any, Any]]:
    """All arrays, numbers and flags of actors, in the order of their fields, as arrays."""
    return list(_leaves(dict(weights)))


def with_leaves(weights: PolicyWeights, arrays: Sequence[np.ndarray[Any, Any]]) -> dict[str, Actor]:
    """Actors like these with other arrays, numbers and flags in the place of theirs."""
    rest = iter(arrays)
    return {name: _rebuilt(actor, rest) for name, actor in weights.items()}


def _leaves(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray | bool | int | float):
        yield np.asarray(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name))


def _rebuilt(value: Any, rest: Iterator[np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        return next(rest)
    if isinstance(value, bool | int | float):
        return next(rest).item()
    if isinstance(value, Mapping):
        return {key: _rebuilt(part, rest) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_rebuilt(part, rest) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _rebuilt(getattr(value, f.name), rest) for f in fields(value) if f.init})
    return value
