"""Pages that show, and the stream that keeps them fresh. None of them changes anything."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ...envs.errors import ConfigurationError
from ...envs.nameplate import Group, Signal
from ..proposals.approval import Approval, second_person_fault
from ..proposals.folder import Execution, ProposalFolder, Recheck, proposal_ids
from ..proposals.proposal import SignedProposal
from .chain_watch import JournalRow, changes_of, recent_rows, whole_row
from .guard import Refused, desk_of, looking
from .live_values import BAR, bar_place
from .rendering import render
from .sessions import Session
from .sheet import main_signal, unit_text
from .stream import EVERYTHING

router = APIRouter()

_MOST_PROPOSALS = 100
MODES = ("shadow", "advise", "approved", "autonomous")


@dataclass(frozen=True)
class Bar:
    """An analog bar: a signal, and its normal band in the bar's units; ``source`` says where the band is from."""

    name: str
    signal: Signal
    low: float | None
    high: float | None
    source: str


@dataclass(frozen=True)
class Found:
    """A proposal and how it stands; ``trouble`` instead where its files are damaged."""

    id: str
    signed: SignedProposal | None = None
    approval: Approval | None = None
    execution: Execution | None = None
    recheck: Recheck | None = None
    trouble: str = ""

    def status(self, now_utc_s: float) -> str:
        if self.signed is None:
            return "damaged"
        if self.execution is not None:
            return str(self.execution.status)
        if now_utc_s >= self.signed.proposal.valid_until_utc_s:
            return "expired"
        if self.approval is None:
            return "waits for approval"
        return "approved" if now_utc_s < self.approval.expires_utc_s else "approval expired"


@router.get("/")
async def overview(request: Request) -> Response:
    """All assets at a glance."""
    session, desk = looking(request), desk_of(request)
    groups = []
    if desk.feed.sheet is not None:
        for group in desk.feed.sheet.nameplate.groups:
            rows = [(f"{group.name}/{a}", a, _bar(request, group, f"{group.name}/{a}")) for a in group.assets]
            groups.append((group, rows))
    return render(request, "overview.html", session, groups=groups, modes=MODES)


@router.get("/assets/{group}/{asset}")
async def asset_page(request: Request, group: str, asset: str) -> Response:
    """One asset: what it measures, what it is asked, told and obeys, and why."""
    session, desk = looking(request), desk_of(request)
    agent = f"{group}/{asset}"
    desk.require_sheet()
    sheet = desk.feed.sheet
    if sheet is None or agent not in sheet.agents:
        raise Refused(404, f"there is no asset {agent}")
    found, _ = sheet.group_of(agent)
    bars = [_band(request, agent, s) for s in found.measured]
    main = main_signal(found)
    shown = request.query_params.get("trend", f"measured:{agent}/{main.name}" if main else "")
    trends = [(f"measured:{agent}/{s.name}", s.name) for s in found.measured]
    trends += [(f"sent:{agent}/{s.name}", f"{s.name}, sent") for s in found.commanded]
    alarms = [a for a in desk.alarms.shown() if a.condition.asset == agent]
    return render(
        request, "asset.html", session, topic=agent, agent=agent, group=found, bars=bars, shown=shown, trends=trends,
        modes=MODES, alarms=alarms,
    )  # fmt: skip


@router.get("/signals")
async def signals_page(request: Request) -> Response:
    """Every signal of the site."""
    session, desk = looking(request), desk_of(request)
    desk.require_sheet()
    rows = []
    for group in desk.feed.sheet.nameplate.groups if desk.feed.sheet else ():
        rows += [(f"{group.name}/{a}", s, "value") for a in group.assets for s in group.measured]
        rows += [(f"{group.name}/{a}", s, "sent") for a in group.assets for s in group.commanded]
    return render(request, "signals.html", session, topic=EVERYTHING, rows=rows)


@router.get("/trend")
async def trend(request: Request, name: str) -> Response:
    """The last ten minutes of one signal: UTC seconds and values, for the page's own drawing."""
    looking(request)
    found = desk_of(request).trend
    if found is None or not found.knows(name):
        raise Refused(404, f"there is no signal {name}")
    times, values = found.series(name)
    return JSONResponse({"t": times, "v": values})


@router.get("/stream")
async def stream(request: Request, topic: str = "") -> Response:
    """Server-sent events: what changed."""
    looking(request)
    desk = desk_of(request)
    events = desk.broadcast.events(topic, lambda: desk.feed.age_s, lambda: desk.feed.stale_after_s)
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


@router.get("/proposals")
async def proposals_page(request: Request) -> Response:
    """All proposals, newest first."""
    session = looking(request)
    found = await asyncio.to_thread(_proposals, request)
    return render(request, "proposals.html", session, proposals=found, now_utc_s=_now(request))


@router.get("/proposals/{proposal_id}")
async def proposal_page(request: Request, proposal_id: str) -> Response:
    """One proposal in full, and what may be done with it."""
    session, desk = looking(request), desk_of(request)
    found = await asyncio.to_thread(find_proposal, request, proposal_id)
    if found is None:
        raise Refused(404, f"there is no proposal {proposal_id}")
    fault = second_person_fault(found.signed, desk.people(), session.name) if found.signed else "it is damaged"
    hash_now = (desk.feed.sheet.raw.get("nameplate_hash") if desk.feed.sheet else None) or ""
    return render(
        request, "proposal.html", session, found=found, fault=fault, hash_now=hash_now,
        now_utc_s=_now(request), standing=found.status(_now(request)),
    )  # fmt: skip


@router.get("/alarms")
async def alarms_page(request: Request) -> Response:
    """What stands, what is shelved, and how many there have been; alone the list where a page asks for it."""
    return _alarms(request, "alarms.html", looking(request))


@router.get("/alarms/list")
async def alarms_list(request: Request) -> Response:
    """The list alone, for a page that has it already."""
    return _alarms(request, "alarm_list.html", looking(request))


def _alarms(request: Request, template: str, session: Session) -> Response:
    book = desk_of(request).alarms
    shelved = [(key, shelf, book.alarms.get(key)) for key, shelf in sorted(book.shelves.items())]
    now_utc_s = _now(request)
    return render(
        request, template, session, alarms=book.shown(), shelved=shelved, n_recent=book.announced(now_utc_s),
        in_flood=book.in_flood, now_utc_s=now_utc_s,
    )  # fmt: skip


@router.get("/journal")
async def journal_page(
    request: Request, before: int | None = None, kind: str = "", text: str = "", of: str = "control"
) -> Response:
    """Rows of the journal, newest first, and whether its chain holds."""
    session, desk = looking(request), desk_of(request)
    path = desk.own_journal if of == "console" else desk.journal
    rows: list[JournalRow] = []
    older = None
    if path.is_file():
        rows, older = await asyncio.to_thread(recent_rows, path, before=before, kind=kind, text=text)
    return render(
        request, "journal.html", session, rows=rows, older=older, kind=kind, text=text, of=of, chain=desk.chain.state
    )


@router.get("/journal/{of}/{sequence}")
async def row_page(request: Request, of: str, sequence: int) -> Response:
    """One row in full."""
    session, desk = looking(request), desk_of(request)
    path = desk.own_journal if of == "console" else desk.journal
    found = await asyncio.to_thread(whole_row, path, sequence) if path.is_file() else None
    if found is None:
        raise Refused(404, f"there is no row {sequence}")
    record, own, previous = found
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
    return render(
        request, "row.html", session, sequence=sequence, of=of, record=record, own=own, previous=previous, text=text,
        changes=changes_of(record), checked=desk.chain.state.checked >= sequence and of == "control",
    )  # fmt: skip


@router.get("/orders/{order_id}")
async def order_result(request: Request, order_id: str) -> Response:
    """What became of an order; alone, for a page that waits for it."""
    session = looking(request)
    if not order_id.replace("-", "").isalnum() or len(order_id) > 64:
        raise Refused(404, "there is no such order")
    return render(
        request, "order.html", session, order={"id": order_id, "result": desk_of(request).asking.result(order_id)}
    )


def find_proposal(request: Request, proposal_id: str) -> Found | None:
    """A proposal by its id; None where there is none."""
    try:
        folder = ProposalFolder(desk_of(request).station, proposal_id)
    except ConfigurationError:
        return None
    if not folder.path.is_dir():
        return None
    try:
        return Found(proposal_id, folder.signed(), folder.approval(), folder.execution(), folder.recheck())
    except ConfigurationError as error:
        return Found(proposal_id, trouble=str(error))


def _proposals(request: Request) -> list[Found]:
    ids = proposal_ids(desk_of(request).station)[:_MOST_PROPOSALS]
    return [found for found in (find_proposal(request, i) for i in ids) if found is not None]


def _bar(request: Request, group: Group, agent: str) -> Bar | None:
    main = main_signal(group)
    return None if main is None else _band(request, agent, main)


def _band(request: Request, agent: str, signal: Signal) -> Bar:
    """The band is where nine tenths of the last ten minutes were; none while they are too few."""
    trend = desk_of(request).trend
    usual = trend.usual(f"measured:{agent}/{signal.name}") if trend else None
    name = f"{agent}/{signal.name}"
    if usual is None:
        return Bar(name, signal, None, None, "no usual band yet")
    low, high = (float(bar_place(v, signal.minimum, signal.maximum)) for v in usual)
    words = f"usually {usual[0]:.4g} to {usual[1]:.4g} {unit_text(signal)}".strip()
    return Bar(name, signal, low, min(high + 0.5, BAR), words)


def _now(request: Request) -> float:
    return desk_of(request).now_utc_s()
