"""Adam for stacked weights, where each stack takes its own steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.optim.adam import adam


class StackedAdam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) on the rows of one matrix ``[S, P]``.

    A row that does not step keeps its moments and its count of steps, as if it had an optimiser of its own.
    """

    def __init__(self, parameters: torch.Tensor, epsilon: float) -> None:
        self._epsilon = epsilon
        self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._counts = torch.zeros(len(parameters), device=parameters.device)
        self._in_step: bool | None = True  # whether all rows have taken the same number of steps; None: not known
        self._whole = tuple(x.view(-1) for x in (parameters.detach(), self._first, self._second))
        # views made once; a step then only picks from lists
        self._rows = list(parameters.detach())
        self._firsts, self._seconds = list(self._first), list(self._second)
        self._steps = list(self._counts)

    def step(self, rows: Sequence[int] | None, gradients: torch.Tensor, lr: float) -> None:
        """Move the rows of these numbers, None for all, along their gradients ``[len(rows), P]``."""
        if rows is None and self._in_step is None:
            self._in_step = self._are_in_step()
        if rows is None and self._in_step:
            # as one long row: the same arithmetic in one call
            parameters, first, second = self._whole
            self._move([parameters], [first], [second], [gradients.view(-1)], self._steps[:1], lr)
            self._counts[1:] = self._counts[0]
            return
        rows = range(len(self._rows)) if rows is None else rows
        if len(rows) == 0:
            return
        self._move(
            [self._rows[k] for k in rows],
            [self._firsts[k] for k in rows],
            [self._seconds[k] for k in rows],
            list(gradients),
            [self._steps[k] for k in rows],
            lr,
        )
        self._in_step = None

    def _move(
        self,
        parameters: list[torch.Tensor],
        first: list[torch.Tensor],
        second: list[torch.Tensor],
        gradients: list[torch.Tensor],
        steps: list[torch.Tensor],
        lr: float,
    ) -> None:
        adam(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=self._epsilon,
            maximize=False,
        )

    def _are_in_step(self) -> bool:
        return bool((self._counts == self._counts[0]).all())

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of both moments ``[S, P]`` and of the steps taken ``[S]``."""
        return {"first": self._first.clone(), "second": self._second.clone(), "steps": self._counts.clone()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Inverse of :meth:`state`."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._counts.copy_(state["steps"])
        self._in_step = self._are_in_step()
