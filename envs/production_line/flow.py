"""Who works in a slot: machines that are able to, have a part before them and find room behind them.

A machine's room may depend on what its successor does in the same slot, which may depend on the next one, and so on
down the line. For a serial line that is the carry of a binary addition: with a bit a machine, ``able`` and ``roomy``
words a replica, the carries out of ``able + (able & roomy)`` are the machines that work. One addition settles lines of
up to 62 machines. Lines that branch are settled by as many rounds as their longest way has machines.

Blocking after service: the level of a buffer then counts the parts that its producer has finished and its consumer has
not: those in its ``N`` places, one that the consumer works on, one that the producer holds; so at most ``N + 2``. A
part moves on by itself as soon as there is room. A machine holds one, and is blocked, iff a level behind it is
``N + 2``, or is ``N + 1`` while the consumer is blocked too, and has no place for it: that is a carry again.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor
MOST_MACHINES = 62
"""Bits of a word that an addition can carry through without its sign."""


def serial_work(able: Tensor, roomy: Tensor) -> Tensor:
    """Who works, ``[M, L]`` bool, in serial lines whose machines stand upstream first.

    ``able``: ``[M, L]``, could process a part that is there; ``roomy``: ``[M, L]``, has room whatever the next machine
    does, as the last one of a line always has. A machine works if it is able, and roomy or followed by one that works.
    """
    shifts = torch.arange(able.shape[0] - 1, -1, -1, dtype=torch.int64, device=able.device)[:, None]
    able_word = (able.to(torch.int64) << shifts).sum(0)
    sure_word = ((able & roomy).to(torch.int64) << shifts).sum(0)
    carries = ((able_word + sure_word) ^ able_word ^ sure_word) >> 1
    return ((carries >> shifts) & 1).to(torch.bool)


def branching_work(able: Tensor, roomy: Tensor, consumer: Tensor, producer: Tensor, rounds: int) -> Tensor:
    """Who works, ``[M, L]`` bool, where machines may have several buffers before and behind them.

    ``able``: ``[M, L]``, with a part in every buffer before it; ``roomy``: ``[K, L]``, a buffer has room whatever its
    consumer does; ``consumer``, ``producer``: ``[K, L]``, rows of machines; unused buffers are roomy, and name any
    machine. A machine works if it is able, and each buffer behind it is roomy or its consumer works: the greatest
    solution, reached from above in at most ``rounds``, the machines on the longest way.
    """
    working = able
    for _ in range(rounds):
        full = ~(roomy | working.gather(0, consumer))
        stopped = torch.zeros_like(able, dtype=torch.int8).scatter_reduce_(0, producer, full.to(torch.int8), "amax")
        working = able & (stopped == 0)
    return working


def serial_blocked(level: Tensor, capacity: Tensor) -> Tensor:
    """Who holds a finished part, ``[M, L]`` bool, in serial lines that are blocked after service; ``level`` and
    ``capacity`` ``[M - 1, L]``. The last machine of a line never does."""
    last = torch.zeros((1, level.shape[1]), dtype=torch.bool, device=level.device)
    over = level - capacity
    return serial_work(torch.cat((over >= 1, last)), torch.cat((over >= 2, last)))


def branching_blocked(over: Tensor, nobody: Tensor, consumer: Tensor, producer: Tensor, rounds: int) -> Tensor:
    """Who holds a finished part, ``[M, L]`` bool, where machines may have several buffers before and behind them.

    ``over``: ``[K, L]``, levels less capacities; ``nobody``: ``[M, L]``, all False; ``consumer``, ``producer``:
    ``[K, L]``, rows of machines. Settled in at most ``rounds``, the machines on the longest way.
    """
    blocked = nobody
    for _ in range(rounds - 1):
        held = (over >= 2) | ((over >= 1) & blocked.gather(0, consumer))
        count = torch.zeros_like(nobody, dtype=torch.int8).scatter_reduce_(0, producer, held.to(torch.int8), "amax")
        blocked = count != 0
    return blocked
