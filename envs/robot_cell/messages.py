"""What the arms hear of each other over a link that is late, loses bursts of messages, or repeats an old one.

A time stamp says when a message was sent on, not that anybody lives behind it. So who receives one that is, to the last
bit, the one before takes it for no news, whatever its stamp: an arm that lives moves, or its stall grows.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .plant_config import RobotCellPlantConfig

Floats = NDArray[np.float64]


class PeerLink:
    """One message of each arm a period; ``heard`` ``[N, 16]`` is what has arrived, ``sent_s`` ``[N]`` when the newest
    that was news was sent."""

    def __init__(
        self, settings: RobotCellPlantConfig, period_s: float, first: Floats, rng: np.random.Generator
    ) -> None:
        self._settings, self._period_s, self._rng = settings, period_s, rng
        self._under_way: deque[tuple[float, Floats]] = deque()
        self._burst_until_s = np.full(len(first), -1.0)
        self.heard = first.copy()
        self.sent_s = np.zeros(len(first))

    def step(self, now_s: float, said: Floats) -> None:
        """Arms say ``said`` ``[N, 16]`` now; hear what arrives now."""
        settings = self._settings
        starts = self._rng.random(len(said)) < settings.peer_losses_per_min / 60.0 * self._period_s
        self._burst_until_s = np.where(
            starts & (self._burst_until_s <= now_s), now_s + settings.peer_loss_s, self._burst_until_s
        )
        self._under_way.append((now_s, said.copy()))
        if len(self._under_way) <= settings.peer_delay_periods:
            return
        sent_s, words = self._under_way.popleft()
        arrives = self._burst_until_s <= now_s
        is_news = arrives & (words != self.heard).any(1)
        self.heard[arrives] = words[arrives]
        self.sent_s[is_news] = sent_s
        if settings.peer_stamps_trusted:
            self.sent_s[arrives | settings.peer_frozen] = sent_s
