"""A station whose loop runs, its pages behind a real server, and people who log in there."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from twinloop.deploy.console.app import make_app
from twinloop.deploy.console.desk import Desk
from twinloop.deploy.console.server import ConsoleServer
from twinloop.deploy.station.order import Order, new_id, place
from twinloop.training.benchmarks.console_site import PASSWORD, LiveStation, running_station

PATIENCE_S = 30.0
"""How long a test waits for a fact; a busy machine may need it."""


def until(fact: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait for a fact and return it."""
    until_s = time.monotonic() + patience_s
    while not (found := fact()):
        assert time.monotonic() < until_s, "this did not become true in time"
        time.sleep(0.02)
    return found


class Site:
    """A running station with its pages."""

    def __init__(self, live: LiveStation, desk: Desk, server: ConsoleServer) -> None:
        self.live, self.desk, self.server = live, desk, server
        self.url = f"http://127.0.0.1:{server.port}"
        self.visitors: list[Visitor] = []
        self._known: dict[str | None, Visitor] = {}

    def visitor(self, name: str | None = None, *, fresh: bool = False) -> Visitor:
        """A browser's worth of cookies, logged in as ``name``; one that was before, unless it is to be ``fresh``."""
        if name in self._known and not fresh:
            return self._known[name]
        visitor = Visitor(self)
        self.visitors.append(visitor)
        if name is not None:
            assert visitor.log_in(name).status_code == 303
            self._known.setdefault(name, visitor)
        return visitor

    def calm(self) -> None:
        """All mills autonomous: a machine that is too busy may have tripped them, and each test may."""
        until_s = time.monotonic() + PATIENCE_S
        while set((self.desk.feed.state or {}).get("modes", {}).values()) != {"autonomous"}:
            assert time.monotonic() < until_s, "the mills do not get out of their trip"
            for more in ({"kind": "reset"}, {"kind": "mode", "mode": "autonomous"}):
                now_s = time.time()
                order = {"id": new_id(), "by": "rig", "utc_s": now_s, "expires_utc_s": now_s + 5.0, **more}
                place(self.live.folder, Order.model_validate(order))
            time.sleep(1.0)

    def placed(self) -> list[str]:
        """Ids of all orders that were ever placed, answered or not."""
        folder = self.live.folder
        return sorted({p.name for place in (folder.inbox, folder.done) for p in place.glob("*.json")})


class Visitor:
    """Fills forms as a browser does: with their hidden fields, their origin, and no more than they have."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.http = httpx.Client(base_url=site.url, headers={"accept": "text/html", "origin": site.url}, timeout=60.0)

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        entry = field(self.get("/login"), "entry")
        return self.http.post("/login", data={"name": name, "password": password, "entry": entry, "next": "/"})

    def get(self, path: str) -> str:
        return self.http.get(path).text

    def csrf(self) -> str:
        return field(self.get("/sessions"), "csrf")

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form with the session's token; its answer, not followed."""
        return self.http.post(path, data={"csrf": self.csrf(), "epoch": "0", **fields})


def field(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found is not None, f"no field {name} in the page"
    return found[1]


@contextmanager
def served_station(folder: Path, people: Path) -> Iterator[Site]:
    """A station with its loop and its pages, inside."""
    with running_station(folder) as live:
        shutil.copy(people, live.folder.people)
        until(live.folder.state.exists)
        desk = Desk(live.folder)
        desk.open()
        server = ConsoleServer(make_app(desk), "127.0.0.1", 0)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            site = Site(live, desk, server)
            try:
                yield site
            finally:
                for visitor in site.visitors:
                    visitor.http.close()
        finally:
            server.should_exit = True
            thread.join(20.0)
            desk.close()
