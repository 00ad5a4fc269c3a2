"""What people do: orders, approvals, alarms. Each a form to an address of its own, done once, recorded, answered."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...envs.errors import JournalError
from ..proposals.approval import approve
from ..proposals.folder import ProposalFolder
from ..station.order import OrderKind
from .asking import Wish
from .guard import Refused, acting, desk_of, safe_path
from .rendering import see
from .routes_enter import unlock
from .sessions import Session

router = APIRouter()

_LONGEST_WAIT_S = 5.0
_SHORTEST_WAIT_S = 1.0
_ROLL_OUT: tuple[OrderKind, ...] = ("execute", "pause", "resume", "rollback")


@router.post("/orders")
async def order(request: Request) -> Response:
    """``mode``, ``manual``, ``release`` or ``reset``, of named assets or of all."""
    session, form = await acting(request, "operate")
    kind = str(form.get("kind", ""))
    asset = str(form.get("asset", ""))
    assets = (asset,) if asset else None
    sheet = desk_of(request).feed.sheet
    if asset and (sheet is None or asset not in sheet.agents):
        raise Refused(404, f"there is no asset {asset}; nothing was ordered")
    common: dict[str, Any] = {"assets": assets, "epoch": str(form.get("epoch", ""))}
    if kind == "mode":
        mode = str(form.get("mode", ""))
        if mode not in ("shadow", "advise", "approved", "autonomous"):
            raise Refused(422, f"mode {mode!r}: give shadow, advise, approved or autonomous; nothing was ordered")
        return await _ordered(
            request, session, form, Wish(session.id, kind="mode", by=session.name, mode=mode, **common)
        )
    if kind == "manual":
        wish = Wish(
            session.id,
            kind="manual",
            by=session.name,
            values=_values(form),
            lasts_s=_seconds(form, "minutes"),
            **common,
        )
        return await _ordered(request, session, form, wish)
    if kind in ("release", "reset"):
        chosen: OrderKind = "release" if kind == "release" else "reset"
        return await _ordered(request, session, form, Wish(session.id, kind=chosen, by=session.name, **common))
    raise Refused(422, f"order {kind!r}: give mode, manual, release or reset; nothing was ordered")


@router.post("/proposals/{proposal_id}/approve")
async def approve_proposal(request: Request, proposal_id: str) -> Response:
    """Approve in one's own name, with the password again: the signature is made with the key that it opens."""
    session, form = await acting(request, "approve")
    desk = desk_of(request)
    folder = ProposalFolder(desk.station, proposal_id)
    signed = folder.signed()
    if str(form.get("hash", "")) != signed.proposal.hash:
        raise Refused(409, "the proposal is not the one that was shown; look at it again. Nothing was approved")
    key = await unlock(request, session.name, str(form.get("password", "")))
    now_utc_s = desk.now_utc_s()
    approval = approve(signed, desk.people(), session.name, key, now_utc_s=now_utc_s)
    await desk.record(
        {"kind": "approve", "by": session.name, "proposal": proposal_id, "hash": signed.proposal.hash,
         "nonce": approval.nonce}
    )  # fmt: skip
    standing = await asyncio.to_thread(folder.file_approval, approval, now_utc_s)
    if standing.nonce != approval.nonce:
        await desk.record({"kind": "approved_already", "by": session.name, "proposal": proposal_id})
    return see(f"/proposals/{proposal_id}")


@router.post("/proposals/{proposal_id}/{kind}")
async def roll_out(request: Request, proposal_id: str, kind: str) -> Response:
    """Begin, hold, continue or take back a roll-out."""
    session, form = await acting(request, "operate")
    chosen = next((k for k in _ROLL_OUT if k == kind), None)
    if chosen is None:
        raise Refused(404, f"{kind!r}: a proposal can be approved, executed, paused, resumed and rolled back")
    ProposalFolder(desk_of(request).station, proposal_id).signed()
    wish = Wish(session.id, str(form.get("epoch", "")), chosen, session.name, proposal=proposal_id)
    return await _ordered(request, session, {**form, "back": f"/proposals/{proposal_id}"}, wish)


@router.post("/alarms/{what}")
async def alarm(request: Request, what: str) -> Response:
    """Acknowledge, shelve for a time, or show again."""
    session, form = await acting(request, "operate")
    desk, key = desk_of(request), str(form.get("alarm", ""))
    now_utc_s = desk.now_utc_s()
    record = {"kind": f"alarm_{what}", "alarm": key, "by": session.name}
    if what == "acknowledge":
        if key not in desk.alarms.alarms:
            return see("/alarms")  # gone, or acknowledged by the click before
        await desk.record(record)
        desk.alarms.acknowledge(key, session.name, now_utc_s)
    elif what == "shelve":
        lasts_s, reason = _seconds(form, "minutes"), str(form.get("reason", ""))
        desk.alarms.check_shelving(key, lasts_s, reason)
        await desk.record({**record, "lasts_s": lasts_s, "reason": reason})
        desk.alarms.shelve(key, session.name, lasts_s, reason, now_utc_s)
    elif what == "unshelve":
        if key not in desk.alarms.shelves:
            return see("/alarms")
        await desk.record(record)
        desk.alarms.unshelve(key)
    else:
        raise Refused(404, f"{what!r}: an alarm can be acknowledged, shelved and unshelved")
    desk.save_alarms()
    return see("/alarms")


async def _ordered(request: Request, session: Session, form: dict[str, Any], wish: Wish) -> Response:
    """Record and place the order, unless it was placed before, and go back with what became of it."""
    desk = desk_of(request)
    order_id, is_new = desk.asking.reserve(wish)
    record = {"by": session.name, "order": order_id, "what": wish.kind, "about": wish.about}
    try:
        await desk.record({**record, "kind": "order" if is_new else "order_again"})
        if is_new:
            desk.asking.place(order_id, wish)
    except (JournalError, OSError, ValueError) as error:
        if is_new:
            desk.asking.forget(wish)
        if isinstance(error, JournalError):
            raise
        if isinstance(error, OSError):
            raise Refused(507, f"the order could not be written ({error.strerror}); nothing was ordered") from error
        raise Refused(422, f"the order is not valid ({str(error).splitlines()[0]}); nothing was ordered") from error
    period_s = desk.feed.sheet.period_s if desk.feed.sheet else 1.0
    await desk.asking.wait(order_id, min(max(2.5 * period_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S))
    return see(f"{safe_path(str(form.get('back', '/')))}?order={order_id}")


def _values(form: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    found = []
    for name, text in sorted(form.items()):
        if not name.startswith("value:") or text == "":
            continue
        try:
            value = float(str(text))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Refused(422, f"{name[6:]}: {text!r} is no number; nothing was ordered")
        found.append((name[6:], value))
    if not found:
        raise Refused(422, "no value was given; nothing was ordered")
    return tuple(found)


def _seconds(form: dict[str, Any], name: str) -> float:
    try:
        minutes = float(str(form.get(name, "")))
    except ValueError:
        minutes = math.nan
    if not (math.isfinite(minutes) and minutes > 0.0):
        raise Refused(422, f"{name}: give a positive number; nothing was done")
    return 60.0 * minutes
