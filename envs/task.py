"""What is wanted of a site: a frozen, pure scoring of (before, commands, after)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .twin import Readings, Tensors

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Score:
    """Scores of one step.

    ``reward[g]``: ``[B, N]``; ``costs[name]``: ``[B, N]``, never folded into the reward; ``terminated``: ``[B]`` bool.
    ``cut[g]``: ``[B, N]`` bool, assets that left in this step because a limit of their own cut their part short, not
    because it ended, whatever became of the others: what would have come counts, and ``after`` holds what they saw
    last. None where a task knows of no such thing; for all steps or for none.
    """

    reward: Tensors
    terminated: torch.Tensor
    costs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    cut: Tensors | None = None


@runtime_checkable
class Task(Protocol):
    """Scoring of one step. ``horizon`` is the episode's length in steps (truncation, not termination)."""

    @property
    def name(self) -> str: ...
    @property
    def horizon(self) -> int: ...

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score: ...
