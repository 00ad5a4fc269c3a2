"""Pages from templates: what every page has, and the session's cookie."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..station.people import MAY
from .alarm_book import MARKS, Priority
from .guard import cookie_name, desk_of, is_tls
from .live_values import SITE, clock_text
from .sessions import Session
from .sheet import unit_text
from .words import duration_words

FOLDER = Path(__file__).parent


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock_text
    environment.filters["duration"] = duration_words
    environment.filters["unit"] = unit_text
    return environment


def render(
    request: Request, template: str, session: Session | None, status: int = 200, topic: str = "", **more: Any
) -> Response:
    """A page. ``topic``: what its stream wants beside the site's texts."""
    desk = desk_of(request)
    live = dict(desk.broadcast.live.get(SITE, {}))
    if topic == "all":
        for texts in desk.broadcast.live.values():
            live.update(texts)
    elif topic:
        live.update(desk.broadcast.live.get(topic, {}))
    sheet = desk.feed.sheet
    acts = MAY[session.role] if session is not None and desk.sessions.may_act(session) else frozenset()
    context: dict[str, Any] = {
        "session": session,
        "acts": acts,
        "csrf": session.csrf if session else "",
        "live": live,
        "topic": topic,
        "path": request.url.path,
        "sheet": sheet,
        "site": sheet.nameplate.site if sheet else desk.station.path.name,
        "is_stale": desk.feed.is_stale,
        "age_s": desk.feed.age_s if desk.feed.state is not None else None,
        "limit_s": desk.feed.stale_after_s,
        "marks": {p.value: mark for p, mark in MARKS.items()},
        "priorities": [p.value for p in Priority],
        "epoch": desk.asking.epoch,
        "order": None,
    }
    order_id = request.query_params.get("order", "")
    if order_id.replace("-", "").isalnum() and len(order_id) <= 64:
        context["order"] = {"id": order_id, "result": desk.asking.result(order_id)}
    response = HTMLResponse(_environment().get_template(template).render({**context, **more}), status)
    if session is not None and request.method == "GET":
        token = request.cookies.get(cookie_name(request), "")
        fresh = desk.sessions.rotated(token, session)
        if fresh is not None:
            set_cookie(request, response, fresh)
    return response


def set_cookie(request: Request, response: Response, token: str) -> None:
    """The session's cookie: for this host alone, out of scripts' reach, never with a request from another site."""
    response.set_cookie(cookie_name(request), token, httponly=True, samesite="strict", secure=is_tls(request), path="/")


def see(path: str) -> RedirectResponse:
    """After a form: look there (303), so that a reload sends nothing again."""
    return RedirectResponse(path, 303)
