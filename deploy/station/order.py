"""What a person asks of a running loop: one small file, valid for seconds, followed once."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from ...envs.configuration import Strict
from .folder import StationFolder, write_whole

OrderKind = Literal["stop", "reset", "mode", "manual", "release", "execute", "pause", "resume", "rollback"]
"""``manual`` and ``release`` set and empty an asset's operator slot; the last four are about a proposal's roll-out."""

LASTS_S = 10.0
"""How long an order waits to be followed before it lapses."""

OrderId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


class Order(Strict):
    """``expires_utc_s``: refused from then on, and when ``utc_s`` lies ahead of the control process' clock."""

    id: OrderId
    kind: OrderKind
    by: Annotated[str, Field(min_length=1, max_length=64, description="who asks; 'local' from the machine itself")]
    utc_s: float
    expires_utc_s: float
    assets: tuple[str, ...] | None = Field(None, description="agents, group/asset; None is all")
    mode: Literal["shadow", "advise", "approved", "autonomous"] | None = None
    values: dict[str, float] = Field(default_factory=dict, description="group/asset/signal: value in its unit")
    lasts_s: PositiveFloat = Field(600.0, description="how long manual values stand before control falls back")
    proposal: str | None = None


class OrderResult(Strict):
    """What became of an order. ``why``: what was done, or why it was refused and what to do, in one sentence."""

    id: OrderId
    kind: str
    by: str
    accepted: bool
    why: str
    period: int
    utc_s: float


def new_id() -> str:
    """Sorts by time; also the key by which an order that is sent twice is followed once."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


def place(station: StationFolder, order: Order) -> Path:
    """Put an order into the inbox; one that was placed before, or is done, is not placed again."""
    path = station.inbox / f"{order.id}.json"
    if not path.exists() and not (station.done / path.name).exists():
        write_whole(path, order.model_dump(mode="json"))
    return path
