"""The web application: routes, headers, and the round that keeps its desk fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...envs.errors import JournalError, TwinloopError
from . import routes_act, routes_enter, routes_view, third_party
from .desk import Desk
from .guard import Refused, session_of
from .rendering import FOLDER, render

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
OWN_FILES = {"console.css": "text/css", "console.js": "text/javascript"}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class _Headers:
    """Adds what every answer carries; what is not a file of the program is never kept by a browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = {name.lower() for name, _ in message["headers"]}
                more = {**HEADERS, "cache-control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in more.items() if n.encode() not in told),
                ]
            await send(message)

        await self._app(scope, receive, send_more if scope["type"] == "http" else send)


def make_app(desk: Desk, names: Sequence[str] = ()) -> FastAPI:
    """The application over an opened desk. ``names``: hosts under which it is reached, beside this machine's own.

    Raises :class:`~twinloop.envs.errors.TwinloopError` where a library of the pages is missing or not as published.
    """
    files = {name: (third_party.load(name), library.media_type) for name, library in third_party.LIBRARIES.items()}
    files |= {name: ((FOLDER / "static" / name).read_bytes(), kind) for name, kind in OWN_FILES.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(desk.keep())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk = desk
    app.include_router(routes_enter.router)
    app.include_router(routes_view.router)
    app.include_router(routes_act.router)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in files:
            raise Refused(404, "there is no such file")
        data, kind = files[name]
        return Response(data, media_type=kind, headers={"cache-control": "max-age=300"})

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _answer(request, error.status, error.words, login=error.login)

    @app.exception_handler(TwinloopError)
    async def not_possible(request: Request, error: TwinloopError) -> Response:
        if isinstance(error, JournalError):
            return _answer(request, 503, f"{error}")
        return _answer(request, 409, str(error))

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Any) -> Response:
        return _answer(request, error.status_code, "there is no such page")

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *names], www_redirect=False)
    app.add_middleware(_Headers)
    return app


def _answer(request: Request, status: int, words: str, *, login: bool = False) -> Response:
    if "text/html" not in request.headers.get("accept", "text/html"):
        return Response(words + "\n", status, media_type="text/plain")
    return render(request, "error.html", session_of(request), status, words=words, login=login)
