"""Coming and going, and the emergency stop, which needs neither."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from ...envs.errors import JournalError
from ..station.people import MAY, WrongPasswordError
from .guard import (
    Refused,
    acting,
    address_of,
    cookie_name,
    desk_of,
    form_of,
    is_tls,
    looking,
    safe_path,
    same_origin,
    session_of,
)
from .rendering import render, see, set_cookie
from .stop_button import press

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

router = APIRouter()

_ENTRY = "entry"
_SHORTEST_WAIT_S = 2.0


@router.get("/login")
async def login_page(request: Request, next: str = "/") -> Response:
    """The form."""
    token = secrets.token_urlsafe(16)
    response = render(request, "login.html", session_of(request), entry=token, next=safe_path(next), words="")
    response.set_cookie(_ENTRY, token, httponly=True, samesite="strict", secure=is_tls(request), path="/login")
    return response


@router.post("/login")
async def login(request: Request) -> Response:
    """Begin a session with name and password; a session that was there ends."""
    desk = desk_of(request)
    if not same_origin(request):
        raise Refused(403, "this form came from another site; nobody was logged in")
    form = await form_of(request)
    name, password, entry = (str(form.get(k, "")) for k in ("name", "password", "entry"))
    if not entry or not secrets.compare_digest(entry.encode(), request.cookies.get(_ENTRY, "").encode()):
        raise Refused(403, "the form is too old, or cookies are off; open the login page again")
    await unlock(request, name, password)
    role = desk.people()[name].role
    before = session_of(request)
    if before is not None:
        desk.sessions.end(before.id)
    await desk.record({"kind": "login", "by": name, "from": address_of(request)})
    token, _ = desk.sessions.begin(name, role)
    response = see(safe_path(str(form.get("next", "/"))))
    set_cookie(request, response, token)
    return response


async def unlock(request: Request, name: str, password: str) -> Ed25519PrivateKey:
    """A person's private key; raises :class:`Refused`, and after too many wrong tries without looking."""
    desk = desk_of(request)
    names = (f"name {name}", f"address {address_of(request)}")
    wait_s = desk.tries.wait_s(*names)
    if wait_s > 0.0:
        await desk.record(
            {"kind": "login_refused", "by": name[:64], "from": address_of(request), "why": "too many tries"}
        )
        raise Refused(429, f"too many wrong passwords; try again in {wait_s:.0f} s", login=True)
    desk.tries.failed(*names)
    try:
        people = desk.people()
        async with desk.checking:
            key = await asyncio.to_thread(people.unlock, name, password)
    except WrongPasswordError:
        await desk.record(
            {"kind": "login_refused", "by": name[:64], "from": address_of(request), "why": "wrong password"}
        )
        raise Refused(401, "name and password do not belong together", login=True) from None
    desk.tries.succeeded(*names)
    return key


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End this session."""
    session, _ = await acting(request, "view")
    desk_of(request).sessions.end(session.id)
    await desk_of(request).record({"kind": "logout", "by": session.name})
    response = see("/login")
    response.delete_cookie(cookie_name(request), path="/")
    return response


@router.get("/sessions")
async def sessions_page(request: Request) -> Response:
    """Who is logged in, and who could be."""
    session, desk = looking(request), desk_of(request)
    people = desk.people()
    everybody = [(name, people[name].role, people[name].vouched_by) for name in people.names]
    every = [(s, desk.sessions.idle_s(s)) for s in desk.sessions.all()]
    return render(request, "sessions.html", session, everybody=everybody, every=every, may=MAY)


@router.post("/sessions/{session_id}/end")
async def end_session(request: Request, session_id: str) -> Response:
    """End one's own session anywhere, or, as an administrator, anybody's."""
    session, _ = await acting(request, "view")
    desk = desk_of(request)
    found = next((s for s in desk.sessions.all() if s.id == session_id), None)
    if found is None:
        raise Refused(404, "that session has ended already")
    if found.name != session.name and not desk.people().may(session.name, "people"):
        raise Refused(403, f"{session.name} may end only sessions of {session.name}; an admin may end others'")
    desk.sessions.end(session_id)
    await desk.record({"kind": "session_ended", "by": session.name, "of": found.name})
    return see("/sessions")


@router.post("/stop")
async def stop(request: Request) -> Response:
    """The emergency stop: no login, no token, one POST; only a page of another site may not press it."""
    if not same_origin(request):
        raise Refused(403, "this came from a page of another site; press the stop here, or use `twinloop stop`")
    desk, session = desk_of(request), session_of(request)
    by = session.name if session else f"somebody at {address_of(request)}"
    try:
        words = press(desk.station, f"{by}, by the console")
    except OSError as error:
        raise Refused(
            500, f"THE STOP COULD NOT BE WRITTEN ({error.strerror}): use the equipment's own stop, or `twinloop stop`"
        ) from error
    with suppress(JournalError):  # it has been ordered, whether or not that can be recorded
        await desk.record({"kind": "emergency_stop", "by": by, "from": address_of(request)})
    desk.round(slow=True)
    if "text/html" in request.headers.get("accept", ""):
        return see(_back(request))
    until_s = time.monotonic() + max(2.0 * (desk.feed.sheet.period_s if desk.feed.sheet else 1.0), _SHORTEST_WAIT_S)
    while time.monotonic() < until_s:
        state = desk.feed.state
        if state is not None and state.get("stop") is True and not desk.feed.is_stale:
            return PlainTextResponse(f"{words}; control carries it out, period {state.get('number')}\n")
        await asyncio.sleep(0.02)
    return PlainTextResponse(
        f"{words}; NOT SEEN to be carried out yet: use the equipment's own stop if it still moves\n", 202
    )


def _back(request: Request) -> str:
    """The page that it was pressed on, as a path of ours."""
    _, found, rest = request.headers.get("referer", "").partition(f"//{request.headers.get('host', '')}")
    path = safe_path(rest) if found else "/"
    return "/" if path.startswith(("/stop", "/login")) else path
