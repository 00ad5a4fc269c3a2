"""What the pages let whom do, over HTTP as a browser or a script speaks it, against a loop that runs."""

from __future__ import annotations

import re
import time

import httpx
import pytest
from tests.deploy.console.rig import Site, field, until

from twinloop.deploy.console.app import POLICY
from twinloop.deploy.console.guard import safe_path
from twinloop.deploy.journal import rows, verify
from twinloop.deploy.proposals.folder import ProposalFolder
from twinloop.envs.errors import JournalError
from twinloop.training.benchmarks.console_site import PASSWORD

PAGES = (
    "/",
    "/assets/mill/M01",
    "/signals",
    "/proposals",
    "/alarms",
    "/journal",
    "/sessions",
    "/stream",
    "/trend?name=x",
)


def result_of(site: Site, answer: httpx.Response) -> str:
    """What the page says that an order led to."""
    assert answer.status_code == 303, answer.text
    order_id = answer.headers["location"].partition("order=")[2]
    return str(until(lambda: site.desk.asking.result(order_id)).why)


@pytest.mark.parametrize("path", PAGES)
def test_who_is_not_logged_in_sees_nothing_and_still_has_the_stop(site: Site, path: str) -> None:
    answer = site.visitor().http.get(path)
    assert answer.status_code == 401
    assert 'action="/stop"' in answer.text
    assert "mill/M01" not in answer.text


def test_every_page_answers_and_carries_the_stop_and_a_strict_policy(site: Site) -> None:
    visitor = site.visitor("vera")
    proposal = site.live.propose("anna")
    paths = [p for p in PAGES if p not in ("/stream", "/trend?name=x")]
    for path in (*paths, f"/proposals/{proposal.id}", "/journal/control/1", "/journal?of=console"):
        answer = visitor.http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert 'action="/stop"' in answer.text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", answer.text), path
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text), path


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer_and_are_limited(site: Site) -> None:
    try:
        answers = [site.visitor().log_in(name, "not the password") for name in ("vera", "nobody", "vera")]
        assert [a.status_code for a in answers] == [401, 401, 401]
        assert len({a.text for a in answers}) == 1
        for _ in range(4):
            last = site.visitor().log_in("vera", "not the password")
        assert last.status_code == 429
        assert site.visitor().log_in("vera").status_code == 429
        kinds = [r["kind"] for r in rows(site.desk.own_journal)]
        assert kinds.count("login_refused") >= 5
    finally:
        site.desk.tries.succeeded("name vera", "name nobody", "address 127.0.0.1")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_changes_at_login(site: Site) -> None:
    visitor = site.visitor()
    first = visitor.log_in("vera").headers["set-cookie"]
    assert "HttpOnly" in first
    assert "SameSite=strict" in first
    second = visitor.log_in("vera").headers["set-cookie"]
    assert first.partition(";")[0] != second.partition(";")[0]


def test_a_viewer_may_look_and_order_nothing(site: Site) -> None:
    visitor = site.visitor("vera")
    before = site.placed()
    assert "<button>Set mode" not in visitor.get("/")
    answer = visitor.post("/orders", kind="mode", mode="shadow")
    assert answer.status_code == 403
    assert "vera is viewer and may not operate" in answer.text
    proposal = site.live.propose("anna")
    answer = visitor.post(f"/proposals/{proposal.id}/approve", hash=proposal.hash, password=PASSWORD)
    assert answer.status_code == 403
    assert visitor.post("/alarms/acknowledge", alarm="x").status_code == 403
    assert site.placed() == before
    assert ProposalFolder(site.live.folder, proposal.id).approval() is None
    assert "console_refused" in [r["kind"] for r in rows(site.desk.own_journal)]


@pytest.mark.parametrize(
    ("headers", "csrf", "status"),
    [
        ({"origin": "http://evil.example"}, True, 403),
        ({"origin": "null"}, True, 403),
        ({"sec-fetch-site": "cross-site", "origin": ""}, True, 403),
        ({}, False, 403),
    ],
)
def test_a_form_from_elsewhere_or_without_its_token_orders_nothing(
    site: Site, headers: dict[str, str], csrf: bool, status: int
) -> None:
    visitor = site.visitor("olga")
    before = site.placed()
    token = visitor.csrf() if csrf else "guessed"
    if not headers.get("origin", "x"):
        del visitor.http.headers["origin"]
        headers = {k: v for k, v in headers.items() if k != "origin"}
    answer = visitor.http.post("/orders", data={"csrf": token, "kind": "reset", "epoch": "0"}, headers=headers)
    assert answer.status_code == status
    assert site.placed() == before


def test_the_token_of_another_session_is_refused(site: Site) -> None:
    token = site.visitor("anna").csrf()
    answer = site.visitor("olga").http.post("/orders", data={"csrf": token, "kind": "reset", "epoch": "0"})
    assert answer.status_code == 403


def test_another_host_name_is_refused(site: Site) -> None:
    assert httpx.get(f"{site.url}/login", headers={"host": "rebound.example"}).status_code == 400


def test_modes_manual_values_and_their_release_reach_the_loop(site: Site) -> None:
    site.calm()
    visitor = site.visitor("olga")
    answer = visitor.post("/orders", kind="manual", asset="mill/M02", minutes="5", **{"value:mill/M02/speed_pu": "0.6"})
    assert "held for 300 s" in result_of(site, answer)
    state = until(lambda: (s := site.desk.feed.state) and s["groups"]["mill"]["slot"]["speed_pu"][1] == 8 and s)
    assert state["who"]["mill/M02"] == "olga"
    assert "8 operator" in visitor.get("/assets/mill/M02")
    assert "released" in result_of(site, visitor.post("/orders", kind="release", asset="mill/M02"))
    answer = visitor.post("/orders", kind="mode", mode="advise", asset="mill/M03")
    assert "advise" in result_of(site, answer)
    until(lambda: site.desk.feed.state and site.desk.feed.state["modes"]["mill/M03"] == "advise")
    page = visitor.get(answer.headers["location"])
    assert "Done: mode advise" in page
    answer = visitor.post("/orders", kind="mode", mode="autonomous", asset="mill/M03")
    assert "autonomous" in result_of(site, answer)


def test_a_refusal_of_the_loop_is_shown_in_its_own_words(site: Site) -> None:
    site.calm()
    visitor = site.visitor("olga")
    answer = visitor.post("/orders", kind="manual", minutes="5", **{"value:mill/M01/speed_pu": "7"}, asset="mill/M01")
    why = result_of(site, answer)
    assert "7" in why
    assert "Refused: " in visitor.get(answer.headers["location"])


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "manual", "minutes": "5", "value:mill/M01/speed_pu": "nan"},
        {"kind": "manual", "minutes": "5", "value:mill/M01/speed_pu": "fast"},
        {"kind": "manual", "minutes": "5"},
        {"kind": "manual", "minutes": "-1", "value:mill/M01/speed_pu": "0.5"},
        {"kind": "mode", "mode": "backup"},
        {"kind": "stop"},
        {"kind": "reset", "asset": "mill/M99"},
    ],
)
def test_what_is_no_order_is_refused_before_it_is_placed(site: Site, fields: dict[str, str]) -> None:
    before = site.placed()
    assert site.visitor("olga").post("/orders", **fields).status_code in (404, 422)
    assert site.placed() == before


def test_the_same_form_sent_again_is_one_order_and_a_new_form_another(site: Site) -> None:
    visitor = site.visitor("olga")
    before = len(site.placed())
    page = visitor.get("/assets/mill/M01")
    form = {"csrf": field(page, "csrf"), "epoch": field(page, "epoch"), "kind": "release", "asset": "mill/M01"}
    second_tab = field(visitor.get("/assets/mill/M01"), "epoch")
    answers = [
        visitor.http.post("/orders", data=form),
        visitor.http.post("/orders", data={**form, "epoch": second_tab}),
    ]
    assert len({a.headers["location"] for a in answers}) == 1
    assert len(site.placed()) == before + 1
    until(lambda: site.desk.asking.result(answers[0].headers["location"].partition("order=")[2]))
    page = visitor.get("/assets/mill/M01")
    assert field(page, "epoch") != form["epoch"]
    visitor.http.post("/orders", data={**form, "epoch": field(page, "epoch")})
    assert len(site.placed()) == before + 2


def test_a_second_person_approves_once_with_the_password_and_the_proposer_never(site: Site) -> None:
    proposal = site.live.propose("anna")
    folder, path = ProposalFolder(site.live.folder, proposal.id), f"/proposals/{proposal.id}"
    anna, ben = site.visitor("anna"), site.visitor("ben")
    assert "Approve exactly this" not in anna.get(path)
    answer = anna.post(f"{path}/approve", hash=proposal.hash, password=PASSWORD)
    assert answer.status_code == 409
    assert "anna proposed it himself" in answer.text
    assert ben.post(f"{path}/approve", hash=proposal.hash, password="not the password").status_code == 401
    assert ben.post(f"{path}/approve", hash="0" * 64, password=PASSWORD).status_code == 409
    assert folder.approval() is None
    page = ben.get(path)
    for words in (
        "mill/M01/speed_pu",
        "0.7",
        "between 120 and 200",
        "speed range",
        "waits for approval",
        proposal.hash,
    ):
        assert words in page
    answers = [ben.post(f"{path}/approve", hash=proposal.hash, password=PASSWORD) for _ in range(2)]
    assert [a.status_code for a in answers] == [303, 303]
    approval = folder.approval()
    assert approval is not None
    assert approval.by == "ben"
    assert approval.is_by(site.desk.people()["ben"].public_key)
    noted = [r for r in rows(site.desk.own_journal) if r.get("proposal") == proposal.id]
    assert [r["kind"] for r in noted] == ["approve", "approve", "approved_already"]
    assert noted[0]["nonce"] == approval.nonce
    assert "approved by ben" in ben.get(path)


def test_an_expired_proposal_is_refused(site: Site) -> None:
    proposal = site.live.propose("anna", valid_s=0.5)
    until(lambda: time.time() > proposal.valid_until_utc_s)
    ben = site.visitor("ben")
    assert "expired" in ben.get("/proposals")
    answer = ben.post(f"/proposals/{proposal.id}/approve", hash=proposal.hash, password=PASSWORD)
    assert answer.status_code == 409
    assert "propose anew" in answer.text
    assert ProposalFolder(site.live.folder, proposal.id).approval() is None


def test_execute_in_two_tabs_is_one_order(site: Site) -> None:
    proposal = site.live.propose("anna")
    ben = site.visitor("ben")
    ben.post(f"/proposals/{proposal.id}/approve", hash=proposal.hash, password=PASSWORD)
    pages = [ben.get(f"/proposals/{proposal.id}") for _ in range(2)]
    before = len(site.placed())
    for page in pages:
        form = {"csrf": field(page, "csrf"), "epoch": field(page, "epoch")}
        assert ben.http.post(f"/proposals/{proposal.id}/execute", data=form).status_code == 303
    assert len(site.placed()) == before + 1


def test_a_session_that_has_only_looked_may_look_on_and_not_act(site: Site) -> None:
    visitor = site.visitor("olga", fresh=True)
    token = visitor.csrf()
    session = next(s for s in site.desk.sessions.all() if s.csrf == token)
    session.acted_s -= 3600.0
    answer = visitor.http.post("/orders", data={"csrf": token, "kind": "reset", "epoch": "0"})
    assert answer.status_code == 401
    assert "log in again to act" in answer.text
    assert "<h1>Overview" in visitor.get("/")
    session.since_s -= 24 * 3600.0
    assert visitor.http.get("/").status_code == 401


def test_sessions_are_listed_and_ended_by_their_owner_or_an_admin(site: Site) -> None:
    olga, chief = site.visitor("olga", fresh=True), site.visitor("chief", fresh=True)
    token = olga.csrf()
    session = next(s for s in site.desk.sessions.all() if s.csrf == token)
    assert site.visitor("vera").post(f"/sessions/{session.id}/end").status_code == 403
    assert chief.post(f"/sessions/{session.id}/end").status_code == 303
    assert olga.http.get("/").status_code == 401
    assert chief.post("/logout").status_code == 303
    assert chief.http.get("/").status_code == 401


def test_alarms_are_acknowledged_shelved_for_a_time_and_recorded(site: Site) -> None:
    site.live.plant.bad = {2}
    try:
        olga = site.visitor("olga")
        until(lambda: "mill/M03/readings" in site.desk.alarms.alarms)
        assert "bad readings: power_kw" in olga.get("/alarms")
        assert olga.post("/alarms/acknowledge", alarm="mill/M03/readings").status_code == 303
        assert site.desk.alarms.alarms["mill/M03/readings"].acknowledged_by == "olga"
        assert olga.post("/alarms/shelve", alarm="mill/M03/readings", minutes="5", reason="").status_code == 409
        assert olga.post("/alarms/shelve", alarm="mill/M03/readings", minutes="9999", reason="x").status_code == 409
        assert olga.post("/alarms/shelve", alarm="mill/M03/readings", minutes="5", reason="mending").status_code == 303
        assert "mending" in olga.get("/alarms")
        assert "mill/M03/readings" not in [a.condition.key for a in site.desk.alarms.shown()]
        assert olga.post("/alarms/unshelve", alarm="mill/M03/readings").status_code == 303
        kinds = [r["kind"] for r in rows(site.desk.own_journal)]
        for kind in ("alarm_raised", "alarm_acknowledge", "alarm_shelve", "alarm_unshelve"):
            assert kind in kinds
    finally:
        site.live.plant.bad = set()


def test_the_journal_is_shown_filtered_and_found_whole(site: Site) -> None:
    visitor = site.visitor("vera")
    until(lambda: site.desk.chain.state.checked > 3)
    page = visitor.get("/journal?kind=start")
    assert "Chain of control&#39;s journal holds" in page or "Chain of control's journal holds" in page
    assert "/journal/control/1" in page
    assert "nameplate_hash" in visitor.get("/journal/control/1")
    assert "login" in visitor.get("/journal?of=console&kind=login&text=vera")
    assert visitor.http.get("/journal/control/999999999").status_code == 404
    assert verify(site.desk.own_journal).is_sound


def test_the_stop_needs_no_login_works_from_a_script_and_only_an_operator_resets_it(site: Site) -> None:
    answer = httpx.post(f"{site.url}/stop", timeout=60.0)  # curl -X POST
    assert answer.status_code in (200, 202)
    assert "emergency stop ordered by somebody at 127.0.0.1" in answer.text
    state = until(lambda: (s := site.desk.feed.state) and s["stop"] and set(s["modes"].values()) == {"tripped"} and s)
    assert set(state["groups"]["mill"]["slot"]["speed_pu"]) == {2}
    olga = site.visitor("olga")
    page = olga.get("/")
    assert "EMERGENCY STOP HELD" in page
    until(lambda: "site/stop" in site.desk.alarms.alarms)
    answer = olga.post("/alarms/shelve", alarm="site/stop", minutes="5", reason="noise")
    assert answer.status_code == 409
    assert "never shelved" in answer.text
    assert site.visitor("vera").post("/orders", kind="reset").status_code == 403
    assert "cleared" in result_of(site, olga.post("/orders", kind="reset"))
    until(lambda: site.desk.feed.state and not site.desk.feed.state["stop"])
    assert not site.live.folder.stop.exists()
    answer = olga.post("/orders", kind="mode", mode="autonomous", epoch=field(olga.get("/"), "epoch"))
    assert "mode autonomous" in result_of(site, answer)


def test_what_cannot_be_recorded_is_not_done_save_the_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    olga = site.visitor("olga")
    token, before = olga.csrf(), site.placed()

    def full(record: object) -> None:
        raise JournalError("console/journal.sqlite: cannot append: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(site.desk, "note", full)  # stands for a full disk, on which the rest of the test would fail too
        form = {"csrf": token, "epoch": "77", "kind": "release"}
        answer = olga.http.post("/orders", data=form)
        assert answer.status_code == 503
        assert "no space left" in answer.text
        assert site.placed() == before
        assert httpx.post(f"{site.url}/stop", timeout=60.0).status_code in (200, 202)
        assert site.live.folder.stop.exists()
    until(lambda: site.desk.feed.state and site.desk.feed.state["stop"])
    assert olga.http.post("/orders", data=form).status_code == 303
    assert len(site.placed()) == len(before) + 1
    result_of(site, olga.post("/orders", kind="reset", epoch="78"))
    until(lambda: site.desk.feed.state and not site.desk.feed.state["stop"])


def test_a_page_of_another_site_cannot_press_the_stop(site: Site) -> None:
    answer = httpx.post(f"{site.url}/stop", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert not site.live.folder.stop.exists()


def test_a_browser_that_presses_the_stop_comes_back_to_its_page(site: Site) -> None:
    visitor = site.visitor("olga")
    answer = visitor.http.post("/stop", headers={"referer": f"{site.url}/assets/mill/M01"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/assets/mill/M01")
    until(lambda: site.desk.feed.state and site.desk.feed.state["stop"])
    result_of(site, visitor.post("/orders", kind="reset", epoch="9"))


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\nb"])
def test_the_way_back_never_leaves_the_console(path: str) -> None:
    assert safe_path(path) == "/"
