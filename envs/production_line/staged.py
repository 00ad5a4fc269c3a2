"""Damage in stages that nobody sees: how it grows, what an inspection shows, and what may be believed of it.

The belief is the exact forward filter of a hidden Markov chain (Rabiner 1989, section III.A): a slot of work moves it
by the chances to advance, a failure that has not been announced rules the failed stage out, and an inspection weighs it
by the chance to have seen what was seen. It depends on what is known alone, so that it may be handed to policies.
"""

from __future__ import annotations

import torch

from .config import Machine, StagedWear

Tensor = torch.Tensor
State = dict[str, Tensor]


class Stages:
    """The staged machines of a plan; ``None`` from :meth:`of` where there are none. Arrays ``[M, L]``; beliefs
    ``[S, M, L]``, ``S`` the most stages of any machine, the failed one counted."""

    def __init__(self, machines: tuple[Machine, ...], device: torch.device) -> None:
        wears = [m.upkeep.wear if m.upkeep is not None else None for m in machines]
        staged = [w if isinstance(w, StagedWear) else None for w in wears]
        n, depth = len(machines), n_beliefs(machines)
        self._depth, self._device = depth, device
        advance = torch.zeros(depth, n, dtype=torch.float64)
        sees = torch.zeros(depth, depth, n, dtype=torch.float64)  # [true, seen, M]
        failed_at = torch.full((n,), torch.inf, dtype=torch.float64)
        for i, wear in enumerate(staged):
            if wear is None:
                continue
            k = len(wear.advance_pu)
            failed_at[i] = k
            advance[:k, i] = torch.tensor(wear.advance_pu, dtype=torch.float64)
            sees[:k, :k, i] = torch.tensor(wear.error_matrix, dtype=torch.float64)
            sees[k, k, i] = 1.0  # who looks at a failed machine sees that it has failed
        self.is_staged = torch.tensor([w is not None for w in staged], device=device)[:, None]
        self.announces = torch.tensor([w is None or w.announces for w in staged], device=device)[:, None]
        cost = [w.unnoticed_cost if w is not None else 0.0 for w in staged]
        self.unnoticed_cost = torch.tensor(cost, dtype=torch.float64, device=device)[:, None]
        self._advance, self._sees, self._failed_at = advance.to(device), sees.to(device), failed_at.to(device)[:, None]

    @staticmethod
    def of(machines: tuple[Machine, ...], device: torch.device) -> Stages | None:
        return Stages(machines, device) if n_beliefs(machines) else None

    def fresh(self, n: int, lanes: int) -> State:
        """New machines, known to be so."""
        belief = torch.zeros(self._depth, n, lanes, dtype=torch.float64, device=self._device)
        belief[0] = 1.0
        return {
            "belief": belief * self.is_staged,
            "silent": torch.zeros(n, lanes, dtype=torch.bool, device=self._device),
            "look": torch.full((n, lanes), 0.5, dtype=torch.float64, device=self._device),
        }

    def grown(self, stage: Tensor, worked: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """``(stage, failed)`` after a slot: those that worked advance with their stage's chance."""
        at = stage.to(torch.int64).clamp(max=self._depth - 1)
        chance = torch.gather(self._advance[:, :, None].expand(-1, -1, stage.shape[1]), 0, at[None])[0]
        after = torch.where(self.is_staged & worked & (u < chance), stage + 1.0, stage)
        return after, after >= self._failed_at

    def believed(self, belief: Tensor, worked: Tensor) -> Tensor:
        """The filter's step over a slot of work in which no failure was announced."""
        moves = belief * self._advance[..., None]
        after = belief - moves
        after[1:] = after[1:] + moves[:-1]
        level = torch.arange(self._depth, device=self._device)[:, None, None]
        ruled_out = self.announces & (level >= self._failed_at)
        after = torch.where(ruled_out, 0.0, after)
        total = after.sum(0)
        after = after / torch.where(total > 0, total, 1.0)
        return torch.where(worked & self.is_staged, after, belief)

    def seen(self, stage: Tensor, u: Tensor) -> Tensor:
        """What an inspection shows of the true stage."""
        at = stage.to(torch.int64).clamp(max=self._depth - 1)
        rows = self._sees[..., None].expand(-1, -1, -1, stage.shape[1])
        row = torch.gather(rows, 0, at[None, None].expand(1, self._depth, -1, -1))[0]
        return (row.cumsum(0) <= u).sum(0).clamp(max=self._depth - 1).to(stage.dtype)

    def weighed(self, belief: Tensor, seen: Tensor) -> Tensor:
        """The filter's step over an inspection that has shown ``seen``."""
        at = seen.to(torch.int64)[None, None].expand(self._depth, 1, -1, -1)
        rows = self._sees[..., None].expand(-1, -1, -1, seen.shape[1])
        after = belief * torch.gather(rows, 1, at)[:, 0]
        total = after.sum(0)
        return torch.where(total > 0, after / torch.where(total > 0, total, 1.0), belief)

    def certain(self, belief: Tensor, stage: int, where: Tensor) -> Tensor:
        """The belief where a machine is known to be in a stage."""
        sure = torch.zeros_like(belief)
        sure[stage] = 1.0
        return torch.where(where & self.is_staged, sure, belief)


def n_beliefs(machines: tuple[Machine, ...]) -> int:
    """Stages of the machine with the most, the failed one counted; 0 where none is staged."""
    wears = [m.upkeep.wear for m in machines if m.upkeep is not None]
    return max((len(w.advance_pu) + 1 for w in wears if isinstance(w, StagedWear)), default=0)
