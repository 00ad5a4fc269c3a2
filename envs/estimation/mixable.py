"""Twins whose replicas may be mixed, and how an analysis is applied to what has the replica as its last axis."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from ..twin import Readings, Tensors, Twin

Tensor = torch.Tensor


@runtime_checkable
class Mixable(Twin, Protocol):
    """A twin that can be a live twin: its replicas are members of an ensemble.

    ``mix(transform)`` takes the ``[B, B]`` matrix of an :class:`~.ensemble.Analysis` to all continuous state and to all
    parameters of all replicas, wakes on their way, filters and other memory included: what is left out keeps its old
    error and spoils the next forecast. Parameters stay inside their specs and state inside what is physical. What is
    discrete (seeds, counts, switches) stays with its replica. Returns the readings of the mixed state.
    """

    def mix(self, transform: Tensor) -> Readings: ...


@runtime_checkable
class Following(Protocol):
    """A twin that takes over discrete state that a plant tells, such as outages: no mixture gives it.

    ``measured[g]``: ``[N, O]``, NaN where nothing is known; whatever else stands there is ignored.
    """

    def follow(self, measured: Tensors) -> None: ...


@runtime_checkable
class Anchored(Protocol):
    """A twin that begins near what a plant tells, where its configuration allows anything: a filter is linear, and a
    compass seen from everywhere at once is not.

    ``measured[g]``: ``[N, O]``, NaN where nothing is known. Holds for the resets that follow.
    """

    def anchor(self, measured: Tensors) -> None: ...


def mixed(members: Tensor, transform: Tensor) -> Tensor:
    """``members`` ``[..., B]`` after ``transform`` ``[B, B]`` whose rows sum to one.

    What all members share comes back bit for bit: only differences from the first member are multiplied.
    """
    change = transform.to(members) - torch.eye(len(transform), dtype=members.dtype, device=members.device)
    return members + (members - members[..., :1]) @ change.T


def present_readings(twin: Twin) -> Readings:
    """What a twin says now; a reset of no rows touches nothing."""
    nothing = torch.zeros(0, dtype=torch.int64, device=twin.device)
    return twin.reset(nothing, nothing)
