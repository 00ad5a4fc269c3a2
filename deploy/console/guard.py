"""Who asks, and may they: origin, session, token of the form, role; refused in words."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import Request

from ..station.people import MAY, Act
from .sessions import Session

if TYPE_CHECKING:
    from .desk import Desk

MOST_FIELDS = 200


class Refused(Exception):
    """An answer other than what was asked for. ``login``: whether logging in is the remedy."""

    def __init__(self, status: int, words: str, *, login: bool = False) -> None:
        super().__init__(words)
        self.status, self.words, self.login = status, words, login


def desk_of(request: Request) -> Desk:
    """The desk of the application."""
    found: Desk = request.app.state.desk
    return found


def is_tls(request: Request) -> bool:
    """Whether the request came through TLS."""
    return request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    """``__Host-`` makes a browser refuse it from any other host or without TLS (RFC 6265bis, 4.1.3)."""
    return "__Host-session" if is_tls(request) else "session"


def address_of(request: Request) -> str:
    """Where the request came from."""
    return request.client.host if request.client else "unknown"


def session_of(request: Request) -> Session | None:
    """The session of whoever asks, if there is one whose owner still is among the station's people."""
    desk = desk_of(request)
    session = desk.sessions.find(request.cookies.get(cookie_name(request)))
    return session if session is not None and session.name in desk.people() else None


def looking(request: Request) -> Session:
    """For pages that need no more than a login."""
    session = session_of(request)
    if session is None:
        raise Refused(401, "log in to see this", login=True)
    return session


def same_origin(request: Request) -> bool:
    """Whether a form was sent from one of our own pages; a browser always says where from, a script need not."""
    origin = request.headers.get("origin")
    if origin is not None:
        told = urlsplit(origin)
        return (told.scheme, told.netloc) == (request.url.scheme, request.headers.get("host", ""))
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


async def form_of(request: Request) -> dict[str, Any]:
    """Fields of a form; a name that is given again becomes a list. Files are refused."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise Refused(415, "send a form (application/x-www-form-urlencoded)")
    found: dict[str, Any] = {}
    form = await request.form(max_fields=MOST_FIELDS)
    for name in form:
        values = form.getlist(name)
        found[name] = values[0] if len(values) == 1 else values
    return found


async def acting(request: Request, act: Act) -> tuple[Session, dict[str, Any]]:
    """The session and the form of whoever may do ``act`` now; raises :class:`Refused`, and records that."""
    desk = desk_of(request)
    session = session_of(request)
    try:
        if not same_origin(request):
            raise Refused(403, "this form came from another site; nothing was done")
        if session is None:
            raise Refused(401, "log in first; nothing was done", login=True)
        form = await form_of(request)
        if not secrets.compare_digest(str(form.get("csrf", "")).encode(), session.csrf.encode()):
            raise Refused(403, "the form is not of this session; open the page again. Nothing was done")
        if not desk.sessions.may_act(session):
            raise Refused(401, "this session has only looked for a while; log in again to act", login=True)
        if not desk.people().may(session.name, act):
            roles = " or ".join(role for role, acts in MAY.items() if act in acts)
            raise Refused(403, f"{session.name} is {session.role} and may not {act}: needed is {roles}")
    except Refused as refused:
        who = session.name if session else ""
        await desk.record(
            {
                "kind": "console_refused", "path": request.url.path, "by": who, "from": address_of(request),
                "status": refused.status, "why": refused.words,
            }
        )  # fmt: skip
        raise
    desk.sessions.acted(session)
    return session, form


def safe_path(path: str) -> str:
    """A path of ours to go back to; the overview for anything else."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours else "/"
