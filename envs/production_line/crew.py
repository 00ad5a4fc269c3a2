"""Which waiting machine gets a crew, and which renewal a spare part: first come, first served, save for a dispatcher's
word."""

from __future__ import annotations

import torch

Tensor = torch.Tensor
_NEVER = 1 << 40


def crews_given(waiting: Tensor, since: Tensor, renews: Tensor, free: Tensor, stock: Tensor, first: Tensor) -> Tensor:
    """``[M, L]`` bool: who gets a crew now.

    ``waiting``: ``[M, L]``; ``since``: ``[M, L]``, the slot in which each began to wait; ``renews``: ``[M, L]``, whose
    work uses up a spare; ``free``: ``[L]`` crews; ``stock``: ``[L]`` spares; ``first``: ``[L]``, the machine that the
    dispatcher puts first, from 1, 0 for none. Ties go to the machine upstream. Renewals without a spare wait, and hold
    no crew.
    """
    n = waiting.shape[0]
    place = torch.arange(n, device=waiting.device)[:, None]
    key = since * n + place
    key = torch.where(place + 1 == first, -1, key)
    renewing = waiting & renews
    supplied = waiting & (~renews | (_rank(key, renewing) < stock))
    return supplied & (_rank(key, supplied) < free)


def _rank(key: Tensor, among: Tensor) -> Tensor:
    """``[M, L]``: how many of ``among`` come before each machine."""
    keys = torch.where(among, key, _NEVER)
    return (keys[None, :, :] < key[:, None, :]).sum(1)


def spares_taken(due: Tensor, now: Tensor, taken: Tensor, lead: int) -> Tensor:
    """The store's ``[S, L]`` slots at which each spare is there, after ``taken`` ``[L]`` of those that are there have
    been used up and ordered again."""
    there = due <= now
    used = there & (there.to(torch.int64).cumsum(0) <= taken)
    return torch.where(used, now + lead, due)
