"""Server-sent events: to each viewer what has changed since it was last told, and a sign of life in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from .live_values import SITE, Live

BEAT_S = 0.5
"""Seconds between two messages at most; a browser that hears nothing for longer marks all as stale."""
EVERYTHING = "all"


class Viewer:
    """One open stream. What it has not taken yet is merged: a slow one gets the latest, never a backlog."""

    def __init__(self, wants: str) -> None:
        self.wants = wants
        self.pending: dict[str, str] = {}
        self.t: float | None = None
        self.fresh = asyncio.Event()

    def takes(self, topic: str) -> bool:
        return topic == SITE or self.wants in (EVERYTHING, topic)


class Broadcast:
    """Keeps what all viewers have been told, and tells them what differs."""

    def __init__(self) -> None:
        self.live: Live = {}
        self.utc_s: float | None = None
        self._viewers: set[Viewer] = set()
        self._is_over = False

    @property
    def n_viewers(self) -> int:
        return len(self._viewers)

    def tell(self, live: Live, utc_s: float | None) -> None:
        """The texts that hold now, by topic; topics that are not in ``live`` stay as they are."""
        changed: Live = {}
        for topic, texts in live.items():
            before = self.live.get(topic)
            self.live[topic] = texts
            changed[topic] = texts if before is None else {k: v for k, v in texts.items() if before.get(k) != v}
        self.utc_s = utc_s
        for viewer in self._viewers:
            for topic, texts in changed.items():
                if texts and viewer.takes(topic):
                    viewer.pending.update(texts)
            viewer.t = utc_s
            viewer.fresh.set()

    def end(self) -> None:
        """Let all streams end; browsers then ask again, for as long as nobody answers."""
        self._is_over = True
        for viewer in self._viewers:
            viewer.fresh.set()

    async def events(
        self, wants: str, age_s: Callable[[], float], limit_s: Callable[[], float]
    ) -> AsyncIterator[bytes]:
        """Messages for one viewer: all texts first, then changes.

        ``t``: UTC of the state; ``age`` and ``limit``: its age now, and where it is stale; ``c``: texts by key.
        """
        viewer = Viewer(wants)
        for topic, texts in self.live.items():
            if viewer.takes(topic):
                viewer.pending.update(texts)
        viewer.t = self.utc_s
        self._viewers.add(viewer)
        try:
            yield b"retry: 500\n\n"
            while not self._is_over:
                told, viewer.pending = viewer.pending, {}
                viewer.fresh.clear()
                message = {"t": viewer.t, "age": round(age_s(), 3), "limit": limit_s(), "c": told}
                yield b"data: " + json.dumps(message, separators=(",", ":")).encode() + b"\n\n"
                try:
                    await asyncio.wait_for(viewer.fresh.wait(), BEAT_S)
                except TimeoutError:
                    continue
        finally:
            self._viewers.discard(viewer)
