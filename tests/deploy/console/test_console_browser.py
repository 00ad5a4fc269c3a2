"""The pages in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.deploy.console.rig import PATIENCE_S, Site, served_station, until

from twinloop.deploy.proposals.folder import ProposalFolder
from twinloop.training.benchmarks.console_site import PASSWORD

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; .ci/run installs Debian's")

STALE_MS = """() => new Promise(done => {
    const begun = performance.now();
    const look = () => {
        const waited = performance.now() - begun;
        if (document.body.dataset.stale || waited > 30000) done(waited); else setTimeout(look, 10);
    };
    look();
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def people_of(site: Site, browser: Browser) -> Iterator[dict[str, BrowserContext]]:
    """A browser of its own for each who is asked for, logged in by keyboard."""
    found: dict[str, BrowserContext] = {}
    for name in ("olga", "anna", "ben"):
        context = found[name] = browser.new_context()
        context.set_default_timeout(1000.0 * PATIENCE_S)
        page = context.new_page()
        until(partial(logged_in, page, site.url, name))
        page.close()
    yield found
    for context in found.values():
        context.close()


def logged_in(page: Page, url: str, name: str) -> bool:
    """Log in with the keyboard alone; false where a disk kept the pages from recording it, which they say with 503.

    Any other refusal fails, with its words.
    """
    page.goto(f"{url}/login")
    expect(page.locator("input[name=name]")).to_be_focused(timeout=1000.0 * PATIENCE_S)
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        page.keyboard.press("Enter")
    if answered.value.status == 503:
        return False
    assert answered.value.status == 303, f"{answered.value.status}: {page.inner_text('main')}"
    page.wait_for_url(f"{url}/")
    return True


def opened(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    """A page, and what the browser complains of."""
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(url)
    return page, complaints


def test_values_arrive_and_move_without_a_reload(site: Site, people_of: dict[str, BrowserContext]) -> None:
    page, complaints = opened(people_of["olga"], f"{site.url}/assets/mill/M01")
    value = page.locator('[data-k="value:mill/M01/power_kw"]').first
    marker = page.locator('[data-k="bar:mill/M01/power_kw"]').first
    first, place = value.inner_text(), marker.get_attribute("x")
    until(lambda: value.inner_text() != first)
    until(lambda: marker.get_attribute("x") != place)
    state = until(lambda: site.desk.feed.state)
    assert abs(float(value.inner_text()) - state["groups"]["mill"]["measured"]["power_kw"][0]) < 20.0
    page.wait_for_selector("#trend canvas")
    assert page.locator("#stale").is_hidden()
    assert complaints == []
    page.close()


def test_an_order_by_a_boosted_form_shows_its_answer_in_place(site: Site, people_of: dict[str, BrowserContext]) -> None:
    site.calm()
    page, complaints = opened(people_of["olga"], f"{site.url}/assets/mill/M02")
    page.evaluate("window.stays = 1")
    page.select_option("select[name=mode]", "advise")
    page.get_by_role("button", name="Set mode of mill/M02").click()
    page.wait_for_selector("#order.done")
    assert "mode advise" in page.inner_text("#order")
    assert page.evaluate("window.stays") == 1, "the page was loaded anew: HTMX did not work"
    expect(page.locator("[data-k='mode:mill/M02']").first).to_have_text("advise")
    assert complaints == []
    page.close()


def test_a_double_click_on_approve_is_one_approval(site: Site, people_of: dict[str, BrowserContext]) -> None:
    proposal = site.live.propose("anna")
    page, _ = opened(people_of["ben"], f"{site.url}/proposals/{proposal.id}")
    page.fill("input[name=password]", PASSWORD)
    page.get_by_role("button", name="Approve exactly this").dblclick()
    page.wait_for_selector("text=approved by ben")
    approval = ProposalFolder(site.live.folder, proposal.id).approval()
    assert approval is not None
    before = len(site.placed())
    page.get_by_role("button", name="Execute").dblclick()
    page.wait_for_selector("#order.done, #order.refused")
    assert len(site.placed()) == before + 1
    assert ProposalFolder(site.live.folder, proposal.id).approval() == approval
    page.close()


def test_two_tabs_approve_and_execute_once(site: Site, people_of: dict[str, BrowserContext]) -> None:
    proposal = site.live.propose("anna")
    tabs = [opened(people_of["ben"], f"{site.url}/proposals/{proposal.id}")[0] for _ in range(2)]
    for tab in tabs:
        tab.fill("input[name=password]", PASSWORD)
    for tab in tabs:
        tab.evaluate("document.querySelector('#approve').requestSubmit()")  # both at once, neither waited for
    for tab in tabs:
        tab.wait_for_selector("text=approved by ben")
    before = len(site.placed())
    for tab in tabs:
        tab.evaluate("document.querySelector('#execute').requestSubmit()")
    for tab in tabs:
        tab.wait_for_selector("#order.done, #order.refused")
    assert len(site.placed()) == before + 1
    for tab in tabs:
        tab.close()


def test_the_proposer_is_offered_no_approval(site: Site, people_of: dict[str, BrowserContext]) -> None:
    proposal = site.live.propose("anna")
    page, _ = opened(people_of["anna"], f"{site.url}/proposals/{proposal.id}")
    assert page.locator("#approve").count() == 0
    assert "another approver must approve it" in page.inner_text("main")
    page.close()


def test_the_page_says_within_two_seconds_that_the_stream_is_dead(
    site: Site, people_of: dict[str, BrowserContext]
) -> None:
    page, _ = opened(people_of["olga"], f"{site.url}/")
    expect(page.locator("[data-k='site:number']").first).not_to_be_empty()
    until(lambda: page.locator("#stale").is_hidden())
    # The server hangs with its connections open: nothing tells the browser so but the silence.
    site.server.servers[0].get_loop().call_soon_threadsafe(time.sleep, 4.0)
    assert page.evaluate(STALE_MS) < 2000.0
    assert page.locator("#stale").is_visible()
    assert "nothing heard from the console" in page.inner_text("#stale")
    page.wait_for_selector("#stale", state="hidden")
    page.close()


def test_the_stop_works_by_keyboard_alone(site: Site, people_of: dict[str, BrowserContext]) -> None:
    page, _ = opened(people_of["olga"], f"{site.url}/alarms")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Tab")
    assert "EMERGENCY STOP" in page.evaluate("document.activeElement.textContent")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2.0
    page.keyboard.press("Enter")
    until(lambda: site.desk.feed.state and site.desk.feed.state["stop"])
    page.wait_for_selector("text=EMERGENCY STOP HELD")
    assert page.url == f"{site.url}/alarms"
    page.close()


def test_everything_is_marked_stale_within_two_seconds_after_the_loop_falls_silent(
    browser: Browser, people: Path, tmp_path: Path
) -> None:
    with served_station(tmp_path / "mills", people) as site:
        context = browser.new_context()
        token = site.visitor("vera").http.cookies["session"]
        context.add_cookies([{"name": "session", "value": token, "url": site.url}])
        page, _ = opened(context, f"{site.url}/signals")
        until(lambda: page.locator("#stale").is_hidden())
        path, gone = site.live.folder.state, site.live.folder.path / "elsewhere.json"
        path.replace(gone)
        path.mkdir()  # nobody can write a state any more
        assert page.evaluate(STALE_MS) < 2000.0
        words = page.locator('[data-k="value:mill/M01/sensor1_degc"]').first
        assert "line-through" in words.evaluate("e => getComputedStyle(e).textDecorationLine")
        path.rmdir()
        page.wait_for_selector("#stale", state="hidden")
        context.close()


def test_no_page_asks_anybody_else_for_anything(site: Site, people_of: dict[str, BrowserContext]) -> None:
    page = people_of["olga"].new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("/", "/assets/mill/M01", "/journal"):
        page.goto(site.url + path)
    assert asked
    assert all(url.startswith(site.url) for url in asked)
    page.close()


def test_forms_work_without_scripts(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(1000.0 * PATIENCE_S)
    token = site.visitor("olga").http.cookies["session"]
    context.add_cookies([{"name": "session", "value": token, "url": site.url}])
    page = context.new_page()
    page.goto(f"{site.url}/assets/mill/M03")
    page.get_by_role("button", name="Release manual values").click()
    page.wait_for_selector("#order.done")
    context.close()
