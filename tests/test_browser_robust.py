"""The page in a real Chromium: for all eyes and hands, with hostile texts, and when it fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from served_page import EVIL, EVIL_ID, Tab, chromium

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: chromium)"),
]
expect = playwright.expect
expect.set_options(timeout=20_000)  # a busy machine is no failure
QUERY = "whales in cold seas"


def test_everything_goes_by_keys(tab: Tab) -> None:
    page = tab.open(q=QUERY)
    expect(page.locator("#answer .hit")).to_have_count(10)
    links, dialog = page.locator(".hit-link"), page.locator("#detail")
    page.keyboard.press("ArrowDown")
    expect(links.nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".proof")).to_contain_text("This is rank 3 of 50")
    page.get_by_role("button", name="Result before").press("Enter")
    expect(page.locator(".proof")).to_contain_text("This is rank 2 of 50")
    expect(page.get_by_role("button", name="Result before")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("otter")  # in place of what stood there
    expect(page.locator("#q")).to_have_value("otter")


def test_scripts_in_documents_and_queries_are_text(tab: Tab) -> None:
    page = tab.open(q=f"scripts {EVIL}")
    link = page.locator(".hit-link").first
    expect(link).to_have_text(f"Scripts {EVIL}")
    expect(page.locator(".hit").first.locator(".chips")).to_contain_text("<b>key</b>")
    link.click()
    expect(page.locator("#detail-title")).to_have_text(f"Scripts {EVIL}")
    expect(page.locator(".detail-id")).to_have_text(EVIL_ID)
    expect(page.locator("#detail .text")).to_contain_text(EVIL)
    assert page.locator("#answer img, #detail img, #answer script, #detail script").count() == 0
    page.reload()
    expect(page.locator("#detail .text")).to_contain_text(EVIL)


def test_highlights_behind_an_emoji_are_in_place(tab: Tab) -> None:
    page = tab.open(q="scripts")
    page.locator(".hit mark").first.wait_for()
    marks = page.locator(".hit").first.locator("mark").all_inner_texts()
    assert [mark.lower() for mark in marks].count("scripts") == 2


VIEWS: dict[str, dict[str, Any]] = {
    "welcome": {},
    "answer": {"q": QUERY},
    "detail": {"q": QUERY, "doc": "whale-0"},
    "compare": {"q": QUERY, "mode": "compare"},
    "wrong": {"q": QUERY, "where": "year >"},
    "none": {"q": QUERY, "where": "year > 3000"},
    "hostile": {"q": "scripts", "doc": EVIL_ID},
}
READY = {
    "welcome": ".examples",
    "answer": ".facet",
    "detail": "tfoot",
    "compare": ".column .hit",
    "wrong": "#answer .card",
    "none": "#answer .card",
    "hostile": "tfoot",
}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_and_nothing_overflows(
    browser: Any, address: str, scheme: str, width: int
) -> None:
    opened = Tab(browser, address, color_scheme=scheme, viewport={"width": width, "height": 760})
    rules = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    for view, parameters in VIEWS.items():
        page = opened.open(**parameters)
        state = "attached" if READY[view] == ".facet" else "visible"
        page.locator(READY[view]).first.wait_for(state=state)
        page.evaluate(rules)
        found = page.evaluate("axe.run()")["violations"]
        assert [(view, each["id"], each["nodes"][0]["html"]) for each in found] == []
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        inside = page.evaluate("document.getElementById('detail').scrollWidth - innerWidth")
        assert (view, max(0, beyond), max(0, inside)) == (view, 0, 0)
    opened.close()


def test_another_index_is_asked(tab: Tab) -> None:
    page = tab.open(q=QUERY)
    page.get_by_label("Index").select_option("again")
    expect(page).to_have_url(re.compile("index=again"))
    with page.expect_request("**/search") as asked:
        page.reload()
    assert asked.value.post_data_json["index"] == "again"
    expect(page.get_by_label("Index")).to_have_value("again")


def test_what_is_typed_is_not_lost_by_a_click(tab: Tab) -> None:
    page = tab.open(q="otter")
    page.locator("#q").fill("viper")
    page.get_by_role("radio", name="Dense").check()
    expect(page).to_have_url(re.compile("q=viper&mode=dense"))
    expect(page.locator("#q")).to_have_value("viper")
    expect(page.locator("#answer .hit").first).to_have_attribute("data-doc", re.compile("viper"))


def test_the_theme_is_kept(tab: Tab) -> None:
    page = tab.open()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")


def test_it_waits_for_a_server_that_is_gone_or_busy(tab: Tab) -> None:
    page = tab.open()
    page.route("**/search", lambda route: route.abort())
    page.keyboard.type(QUERY)
    expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
    busy = {"error": {"code": "busy", "message": "too much to do"}}
    page.route(  # the last route goes first, and stays until what it leads to was seen
        "**/search",
        lambda route: route.fulfill(status=503, json=busy, headers={"Retry-After": "1"}),
    )
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("heading", name="The server is busy")).to_be_visible()
    page.unroute("**/search")
    expect(page.locator("#answer .hit")).to_have_count(10)
    expect(page.locator("#notice")).to_be_empty()


def test_it_asks_for_a_key_and_sends_it(tab: Tab) -> None:
    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer open sesame":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": {"code": "no_key", "message": "a key"}})

    tab.page.route(re.compile("/(search|facets|indexes)$"), guard)
    page = tab.open(q=QUERY)
    for key in ("wrong", "open sesame"):
        expect(page.locator("#key")).to_be_visible()
        page.get_by_role("textbox", name="API key").fill(key)
        page.keyboard.press("Enter")
    expect(page.locator("#answer .hit")).to_have_count(10)
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("Object.values(sessionStorage)") == ["open sesame"]


def test_what_fails_for_good_is_said(tab: Tab) -> None:
    page = tab.open(q=QUERY, index="absent")
    expect(page.locator("#answer .card")).to_contain_text("no index of that name is served")
    tab.open(q=QUERY, doc="absent")
    expect(page.locator("#detail")).to_contain_text("no document of the index has")
