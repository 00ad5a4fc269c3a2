"""What the other arms have received of each: late by some periods, and at times nothing. The replica is last."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .. import noise
from .config import Peers

Tensor = torch.Tensor
State = dict[str, Tensor]

_DELAY, _LOSS = 361, 371  # streams; an arm's losses are the second plus its number


def fresh_hearing(peers: Peers, seeds: Tensor, message: Tensor) -> State:
    """At the start everybody knows ``message`` ``[N, 16, R]`` of everybody: joint angles, speeds, target, stall."""
    n, rows = message.shape[0], message.shape[-1]
    low, high = peers.delay_periods
    u = noise.uniform(seeds, torch.zeros_like(seeds), _DELAY, n, torch.float64).T
    zero = torch.zeros(n, rows, dtype=message.dtype, device=message.device)
    return {
        "heard": message,
        "heard_age_s": zero,
        "sent": message[None].repeat(high + 1, 1, 1, 1),  # newest first
        "delay": low + torch.floor(u * (high - low + 1)).to(torch.int64),
        "silent_s": zero,
    }


def hear(peers: Peers, state: Mapping[str, Tensor], message: Tensor, seeds: Tensor, step: Tensor, dt_s: float) -> State:
    """A period later: ``message`` is sent, what was sent ``delay`` periods ago arrives unless the arm is silent."""
    sent = torch.cat((message[None], state["sent"][:-1]))
    delay = state["delay"]
    arrived = sent[0]
    for periods in range(1, len(sent)):
        arrived = torch.where((delay == periods)[:, None], sent[periods], arrived)
    # Before the first message of the episode is this old, what arrives is what all knew at its start.
    age = torch.minimum(delay, step).to(message.dtype) * dt_s
    silent = state["silent_s"]
    if peers.losses_per_min > 0:
        chance = peers.losses_per_min / 60.0 * dt_s
        drawn = [noise.uniform(seeds, step, _LOSS + k, 1, torch.float64)[:, 0] for k in range(len(message))]
        begins = torch.stack(drawn) < chance
        silent = torch.where(begins, torch.full_like(silent, peers.loss_s), (silent - dt_s).clamp(min=0.0))
    lost = silent > 0.5 * dt_s
    return {
        "heard": torch.where(lost[:, None], state["heard"], arrived),
        "heard_age_s": torch.where(lost, state["heard_age_s"] + dt_s, age),
        "sent": sent,
        "delay": delay,
        "silent_s": silent,
    }
