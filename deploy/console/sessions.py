"""Who sits before a browser: sessions that end, tokens that change, and a limit on guessing passwords.

Kept in memory only: a restart of the pages ends all sessions, and changes nothing at the plant.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..station.people import Role

LASTS_S = 12 * 3600.0
"""A shift; then the browser must log in again to see anything."""
ACTS_S = 900.0
"""Without an action for so long, a session may only look: a display must not go dark, nor may a passer-by act."""
ROTATES_S = 600.0
_OVERLAP_S = 30.0
"""How long the token before a rotation still counts, for requests that were under way."""

TRIES = 5
TRIES_WINDOW_S = 60.0
_MOST_SESSIONS = 200


@dataclass
class Session:
    """``csrf`` stands in every form of the session, and is not in its cookie."""

    name: str
    role: Role
    since_s: float
    rotated_s: float
    acted_s: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    id: str = field(default_factory=lambda: secrets.token_hex(4))


class Sessions:
    """By the SHA-256 of their tokens. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_token: dict[str, Session] = {}
        self._until_s: dict[str, float] = {}

    def begin(self, name: str, role: Role) -> tuple[str, Session]:
        """A new session with a new token; the oldest one goes where there are too many."""
        now_s = self._clock()
        self._sweep(now_s)
        while len({id(s) for s in self._by_token.values()}) >= _MOST_SESSIONS:
            self.end(min(self._by_token.values(), key=lambda s: s.since_s).id)
        session = Session(name, role, now_s, now_s, now_s)
        return self._issue(session), session

    def find(self, token: str | None) -> Session | None:
        """The session of a token, if it still stands."""
        self._sweep(self._clock())
        return self._by_token.get(_digest(token)) if token else None

    def may_act(self, session: Session) -> bool:
        """Whether it has acted or begun lately enough."""
        return self._clock() - session.acted_s < ACTS_S

    def acted(self, session: Session) -> None:
        """Note that a person did something with it."""
        session.acted_s = self._clock()

    def rotated(self, token: str, session: Session) -> str | None:
        """A new token where it is time for one; the old one soon ends."""
        now_s = self._clock()
        if now_s - session.rotated_s < ROTATES_S:
            return None
        session.rotated_s = now_s
        self._until_s[_digest(token)] = now_s + _OVERLAP_S
        return self._issue(session)

    def end(self, session_id: str) -> bool:
        """End a session by its id; False where there is none."""
        tokens = [token for token, session in self._by_token.items() if session.id == session_id]
        for token in tokens:
            self._forget(token)
        return bool(tokens)

    def all(self) -> list[Session]:
        """All that stand, newest first."""
        self._sweep(self._clock())
        found = {s.id: s for s in self._by_token.values()}
        return sorted(found.values(), key=lambda s: s.since_s, reverse=True)

    def idle_s(self, session: Session) -> float:
        return self._clock() - session.acted_s

    def _issue(self, session: Session) -> str:
        token = secrets.token_urlsafe(32)
        self._by_token[_digest(token)] = session
        return token

    def _forget(self, digest: str) -> None:
        self._by_token.pop(digest, None)
        self._until_s.pop(digest, None)

    def _sweep(self, now_s: float) -> None:
        over = [t for t, s in self._by_token.items() if now_s - s.since_s >= LASTS_S]
        over += [t for t, until_s in self._until_s.items() if now_s >= until_s]
        for token in over:
            self._forget(token)


class Tries:
    """How often a password was wrong lately, by whatever names are given: a person's and an address'."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, deque[float]] = defaultdict(deque)

    def wait_s(self, *names: str) -> float:
        """Seconds until another try is allowed; 0 where it is now."""
        return max((self._wait_s(name) for name in names), default=0.0)

    def failed(self, *names: str) -> None:
        """Note a try, before it is known to be wrong, so that tries at the same time count too."""
        for name in names:
            self._failed[name].append(self._clock())
        if len(self._failed) > 10_000:  # names that somebody made up
            self._failed = defaultdict(deque, {n: t for n, t in self._failed.items() if self._wait_s(n) > 0.0})

    def succeeded(self, *names: str) -> None:
        for name in names:
            self._failed.pop(name, None)

    def _wait_s(self, name: str) -> float:
        now_s, times = self._clock(), self._failed.get(name)
        while times and now_s - times[0] >= TRIES_WINDOW_S:
            times.popleft()
        return times[0] + TRIES_WINDOW_S - now_s if times and len(times) >= TRIES else 0.0


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
