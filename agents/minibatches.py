"""What a group did in one iteration, and its shuffling into minibatches, asset by asset where weights are not shared.

An absent asset's rows are left out of every minibatch, so whatever lies in them has no effect at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch

from .distributions import constant


@dataclass(frozen=True, eq=False)
class View:
    """What critics see beside an asset's own features: rows of one table that all assets share.

    ``table``: ``[Q, V]``; ``row``: ``[S, R]``, each sample's row of it; ``slot``: ``[S, R]``, each sample's own asset,
    whose ``width`` columns from ``offset + slot * width`` on read zero (the asset sees itself already), or None.
    """

    table: torch.Tensor
    row: torch.Tensor
    slot: torch.Tensor | None = None
    offset: int = 0
    width: int = 0

    def take(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """``[(S,) n, V]`` of sample rows, see :func:`take`."""
        seen = self.table[take(self.row, rows)]
        if self.slot is not None:
            columns = torch.arange(self.offset, self.offset + self.width, device=seen.device)
            seen.scatter_(-1, take(self.slot, rows)[..., None] * self.width + columns, 0.0)
        return seen


@dataclass(frozen=True, eq=False)
class Samples:
    """One iteration of one group; ``S`` stacks of weights, ``R`` rows each, in the order of steps.

    ``features``: ``[S, R, F]``, normalised; ``actions``: ``[S, R, K]``, not clipped; ``log_prob``, ``advantages``,
    ``returns``: ``[S, R]``. Where they apply: ``present``: ``[S, R]``, rows that count (an absent asset's hold finite
    numbers); ``legal``: ``[S, R, L]``; ``factor``: ``[S, R]``, a positive weight of each advantage; ``view``.

    With a recurrent layer: ``keep``: ``[S, R, 1]``, 0 where the memory was zeroed before the row; ``memory``:
    ``[S, U, H]``, what each sequence of ``sequence_steps`` rows began with. There are ``R / steps`` sequences a stretch
    of so many steps, stretch after stretch.
    """

    features: torch.Tensor
    actions: torch.Tensor
    log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    present: torch.Tensor | None = None
    legal: torch.Tensor | None = None
    factor: torch.Tensor | None = None
    view: View | None = None
    keep: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    sequence_steps: int = 1
    rows_per_step: int = 1

    @property
    def n_stacks(self) -> int:
        return len(self.features)

    def __len__(self) -> int:
        """Agent-steps of present assets."""
        return self.log_prob.numel() if self.present is None else int(self.present.sum())

    def stack(self, index: int) -> Samples:
        """The samples of one stack, as those of a network of one stack."""

        def one(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor[index : index + 1]

        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {k: one(v) if isinstance(v, torch.Tensor) else v for k, v in parts.items()}
        if self.view is not None:
            row = self.view.row[index : index + 1]
            parts["view"] = replace(self.view, row=row, slot=one(self.view.slot))
        return Samples(**parts)

    def rows_of(self, units: torch.Tensor) -> torch.Tensor:
        """Rows ``[..., sequence_steps * n]``, step by step, of sequences ``[..., n]``; of rows, the rows themselves."""
        if self.memory is None:
            return units
        stretch = units // self.rows_per_step
        first = units + stretch * (self.sequence_steps - 1) * self.rows_per_step
        steps = torch.arange(self.sequence_steps, device=units.device)[:, None] * self.rows_per_step
        return (first.unsqueeze(-2) + steps).flatten(-2)


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch ``[(S,) n, ...]``, without a stack axis where there is one stack.

    ``weight``: ``[(S,) n]``, what each row counts in a mean (zero for rows that fill up), None where all count the
    same; ``n_rows``: ``[S]``, rows that count, None where all do. ``memory``: ``[(S,) sequences, H]``.
    """

    features: torch.Tensor
    actions: torch.Tensor
    log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    legal: torch.Tensor | None
    factor: torch.Tensor | None
    view: torch.Tensor | None
    keep: torch.Tensor | None
    memory: torch.Tensor | None
    weight: torch.Tensor | None
    n_rows: torch.Tensor | None

    @property
    def mean_weight(self) -> torch.Tensor:
        """What each row counts: ``[(S,) n]``, or a scalar where all count the same."""
        return constant(1.0 / self.features.shape[-2]) if self.weight is None else self.weight


def take(tensor: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
    """Rows of ``[S, R, ...]``: ``[n]`` the same ones of all stacks, ``[S, n]`` each stack's own; ``[(S,) n, ...]``."""
    if isinstance(rows, slice):
        return tensor[0, rows] if len(tensor) == 1 else tensor[:, rows]
    if rows.dim() == 1:
        return tensor[0].index_select(0, rows) if len(tensor) == 1 else tensor.index_select(1, rows)
    return tensor[torch.arange(len(tensor), device=tensor.device)[:, None], rows]


def gather(samples: Samples, units: torch.Tensor, valid: torch.Tensor | None) -> Batch:
    """The batch of rows, or of whole sequences, ``[n]`` or ``[S, n]``; ``valid`` ``[S, n]``: those that count."""
    rows = samples.rows_of(units)

    def at(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else take(tensor, rows)

    weight, n_rows = None, None
    if samples.memory is not None and samples.present is not None:
        counted = take(samples.present, rows)
        if valid is not None:
            counted = counted & valid.repeat(1, samples.sequence_steps)
        valid = counted
    if valid is not None:
        n_rows = valid.sum(-1, keepdim=True)
        weight = valid / n_rows.clamp(min=1)
    return Batch(
        features=take(samples.features, rows),
        actions=take(samples.actions, rows),
        log_prob=take(samples.log_prob, rows),
        advantages=take(samples.advantages, rows),
        returns=take(samples.returns, rows),
        legal=at(samples.legal),
        factor=at(samples.factor),
        view=None if samples.view is None else samples.view.take(rows),
        keep=at(samples.keep),
        memory=None if samples.memory is None else take(samples.memory, units),
        weight=weight,
        n_rows=None if n_rows is None else n_rows.reshape(-1),
    )


def everything(samples: Samples) -> tuple[Batch, torch.Tensor]:
    """All rows as one batch, and the row number of each of its rows."""
    n_units = samples.features.shape[1] if samples.memory is None else samples.memory.shape[1]
    units = torch.arange(n_units, device=samples.features.device)
    return gather(replace(samples, present=None), units, None), samples.rows_of(units)


def minibatches(samples: Samples, count: int, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch: every row, or sequence, of a present asset once, in ``count`` parts of nearly equal size.

    All stacks follow one random order and each skips what is not its own, so that an asset's minibatches do not depend
    on the others.
    """
    n_units = samples.features.shape[1] if samples.memory is None else samples.memory.shape[1]
    order = torch.randperm(n_units, generator=generator).to(samples.features.device)
    if samples.present is None:
        yield from (gather(samples, part, None) for part in _parts(order, count))
        return
    usable = samples.present
    if samples.memory is not None:
        usable = (
            usable[:, samples.rows_of(torch.arange(n_units, device=order.device))].view(len(usable), -1, n_units).any(1)
        )
    if len(usable) == 1:
        yield from (gather(samples, part, None) for part in _parts(order[usable[0][order]], count))
        return
    ordered = usable[:, order]
    own = order[torch.argsort(~ordered, dim=1, stable=True)]
    totals = ordered.sum(1, keepdim=True)
    for k in range(count):
        first, end = totals * k // count, totals * (k + 1) // count
        width = int((end - first).max())
        if width == 0:
            continue
        at = first + torch.arange(width, device=order.device)
        valid = at < end
        at = torch.minimum(at, (totals - 1).clamp(min=0))
        yield gather(samples, own.gather(1, at), None if bool(valid.all()) else valid)


def _parts(order: torch.Tensor, count: int) -> list[torch.Tensor]:
    n = len(order)
    bounds = [n * k // count for k in range(count + 1)]
    return [order[a:b] for a, b in itertools.pairwise(bounds) if b > a]
