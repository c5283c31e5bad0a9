"""The page in a real Chromium, over the real server and the shipped encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_page import ARGUMENTS, EVIL, EVIL_ID, Tab, chromium, index_documents, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: chromium)"),
]
expect = playwright.expect
expect.set_options(timeout=20_000)  # a busy machine is no failure
QUERY = "whales in cold seas"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    index = index_documents(tmp_path_factory.mktemp("served"))
    with serving(f"animals={index}", f"again={index}") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    opened = Tab(browser, address, viewport={"width": 1280, "height": 860})
    yield opened
    opened.close()


def hit_ids(page: Any) -> list[str]:
    found: list[str] = page.locator("#answer .hit").evaluate_all(
        "all => all.map(e => e.dataset.doc)"
    )
    return found


def shown_values(page: Any, selector: str) -> list[float]:
    """Return the exact numbers behind those shown."""
    return page.locator(f"{selector}:visible").evaluate_all("all => all.map(e => Number(e.value))")


def test_it_answers_as_one_types_and_marks_terms(tab: Tab) -> None:
    page = tab.open()
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(QUERY, delay=20)
    expect(page.locator("#answer .hit")).to_have_count(10)
    expect(page).to_have_url(re.compile(r"\?q=whales\+in\+cold\+seas$"))
    expect(page.get_by_role("status")).to_contain_text("Best 10 of 50 documents")
    expect(page.get_by_role("status")).to_contain_text("Proven: none of the other 40 scores more")
    expected = tab.ask("/search", {"query": QUERY, "dense_weight": 1, "sparse_weight": 1})
    assert hit_ids(page) == [hit["id"] for hit in expected["hits"]]
    snippets = [hit["snippet"] for hit in expected["hits"]]
    heaviest = max(mark["weight"] for snippet in snippets for mark in snippet["highlights"])
    for snippet, hit in zip(snippets, page.locator("#answer .hit").all(), strict=True):
        assert hit.locator("mark").all_inner_texts() == [
            snippet["text"][mark["start"] : mark["end"]]
            for mark in snippet["highlights"]
            if mark["weight"] >= 0.1 * heaviest
        ]
    page.go_back()
    expect(page.locator(".welcome")).to_be_visible()


def test_a_hit_of_a_split_document_names_its_passage(tab: Tab) -> None:
    def split(route: Any) -> None:
        answer = route.fetch().json()
        answer["hits"][1]["passage"] = {
            "number": 1203,
            "start": 2,
            "end": 13,
            "text": "of cold sea",
        }
        route.fulfill(json=answer)

    tab.page.route("**/search", split)
    chips = tab.open(q=QUERY).locator("#answer .hit .chips")
    expect(chips).to_have_count(10)
    expect(chips.nth(1)).to_contain_text("passage 1,203")
    expect(chips.nth(1).locator(".chip-id + li")).to_have_text("passage 1,203")
    expect(chips.filter(has_text="passage")).to_have_count(1)


def test_an_answer_that_comes_late_is_not_shown(tab: Tab) -> None:
    page = tab.page
    page.add_init_script("""
        const ask = window.fetch;
        window.asked = [];
        window.fetch = async (path, options) => {
          const query = options.body && JSON.parse(options.body).query;
          if (query) window.asked.push(query);
          if (query !== "viper") return ask(path, options);
          await new Promise((done) => setTimeout(done, 900));
          return ask(path, { ...options, signal: null });  // as if it could not be cancelled
        };
    """)
    tab.open()
    page.get_by_role("searchbox").fill("viper")
    expect(page).to_have_url(re.compile("q=viper"))
    assert page.evaluate("window.asked") == ["viper"]
    page.get_by_role("searchbox").fill("otter")
    expect(page.locator("#answer .hit").first).to_have_attribute("data-doc", re.compile("otter"))
    page.wait_for_timeout(1200)
    expect(page.locator("#answer .hit").first).to_have_attribute("data-doc", re.compile("otter"))


def test_bars_split_scores_and_the_opened_sum_is_exact(tab: Tab) -> None:
    page = tab.open(q=QUERY)
    hit = tab.ask("/search", {"query": QUERY, "dense_weight": 1, "sparse_weight": 1})["hits"][0]
    widths = (
        page.locator(".hit")
        .first.locator(".bar span")
        .evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    )
    assert widths[0] / widths[1] == pytest.approx(hit["dense"] / hit["sparse"], rel=0.02)
    page.locator(".hit-link").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Part by part")).to_be_visible()
    assert shown_values(page, ".equation .total data") == [hit["score"]]
    assert math.fsum(shown_values(page, "tbody .adds data")) == pytest.approx(hit["score"], 1e-12)
    if (unfold := dialog.get_by_role("button", name="Show all")).count():
        unfold.click()
    explained = tab.ask(
        "/explain", {"query": QUERY, "id": hit["id"], "dense_weight": 1, "sparse_weight": 1}
    )
    parts = shown_values(page, "tbody .adds data")
    assert len(parts) == 1 + len(explained["terms"])
    assert math.fsum(parts) == pytest.approx(hit["score"], 1e-12)
    assert shown_values(page, "tfoot data") == [explained["score"]]
    for term, row in zip(explained["terms"], page.locator("tr.row-terms").all(), strict=True):
        weights = row.locator("td:not(.adds) data").evaluate_all("all => all.map(e => +e.value)")
        assert weights == [term["query_weight"], term["document_weight"]]
    expect(dialog.locator(".proof")).to_contain_text("This is rank 1 of 50")
    expect(dialog.locator(".text")).to_contain_text("looks for food")


def test_compare_shows_three_rankings_and_links_them(tab: Tab) -> None:
    page = tab.open(q=QUERY)
    page.get_by_role("radio", name="Compare").check()
    expect(page.locator(".column")).to_have_count(3)
    ids = {}
    for mode, weights in {"dense": (1, 0), "hybrid": (1, 1), "sparse": (0, 1)}.items():
        body = {"query": QUERY, "dense_weight": weights[0], "sparse_weight": weights[1]}
        ids[mode] = [hit["id"] for hit in tab.ask("/search", body)["hits"]]
        shown = page.locator(f"[data-mode={mode}] .hit")
        assert shown.evaluate_all("all => all.map(e => e.dataset.doc)") == ids[mode]
    both = len({*ids["dense"]} & {*ids["hybrid"]}) + len({*ids["sparse"]} & {*ids["hybrid"]})
    expect(page.locator(".lines path")).to_have_count(both)
    page.locator("[data-mode=hybrid] .hit-link").first.hover()
    followed = page.locator(".followed").evaluate_all(
        "all => [...new Set(all.map(e => e.dataset.doc))]"
    )
    assert followed == ids["hybrid"][:1]


def test_facets_write_the_filter(tab: Tab) -> None:
    page = tab.open(q="an animal that sleeps", k=20)
    page.get_by_role("checkbox", name="otter").check()
    expect(page.locator("#where")).to_have_value('kind = "otter"')
    expect(page.locator("#answer .hit")).to_have_count(5)
    page.get_by_role("checkbox", name="viper").check()
    expect(page.locator("#where")).to_have_value('kind in ("otter", "viper")')
    expect(page.locator("#answer .hit")).to_have_count(10)
    assert all(re.match("otter|viper", found) for found in hit_ids(page))
    page.get_by_role("button", name="Remove the facet tags").click()
    page.get_by_role("checkbox", name="2003").check()
    expect(page.locator("#answer .hit")).to_have_count(2)
    page.reload()
    expect(page.get_by_role("checkbox", name="viper")).to_be_checked()
    page.locator("#facet-key").fill("tags")
    page.keyboard.press("Enter")
    expect(page.get_by_role("checkbox", name="mountains")).to_be_visible()
    page.get_by_role("button", name="Remove the facet kind").click()
    expect(page.locator("#where")).to_have_value("year = 2003")
    expect(page.locator("#answer .hit")).to_have_count(9)
    page.get_by_role("button", name="Remove the filter").click()
    expect(page.locator("#answer .hit")).to_have_count(20)


CHECKED = [
    ("", "kind", '"a"', True, 'kind = "a"'),
    ("year > 1", "kind", '"a"', True, 'year > 1 and kind = "a"'),
    ("year > 1 or kind exists", "kind", "1", True, "(year > 1 or kind exists) and kind = 1"),
    ("kind = 'x' and year > 1", "kind", '"y"', True, 'kind in ("x", "y") and year > 1'),
    ('kind IN ("x", "y") and z = 1', "kind", '"x"', False, 'kind = "y" and z = 1'),
    ('kind = "x"', "kind", '"x"', False, ""),
    ('title = "a and b" and k = true', "k", "true", False, 'title = "a and b"'),
    ('"a b".c = null', '"a b".c', "2", True, '"a b".c in (null, 2)'),
    ('t = "\\" and (" and k = 1', "k", "2", True, 't = "\\" and (" and k in (1, 2)'),
]
"""A filter, a key, a value as JSON, whether it is checked or unchecked, and the filter after it."""


def test_checked_values_and_expressions_agree(tab: Tab) -> None:
    page = tab.open()
    script = """async (cases) => {
        const { withPick } = await import("/assets/where.js");
        return cases.map((given) => withPick(...given));
    }"""
    changed = page.evaluate(script, [case[:-1] for case in CHECKED])
    assert changed == [case[-1] for case in CHECKED]


def test_a_wrong_filter_is_said_beside_it(tab: Tab) -> None:
    page = tab.open(q=QUERY)
    expect(page.locator("#answer .hit")).to_have_count(10)
    page.locator("#where").fill("year >")
    error = page.locator("#where-error")
    expect(error).to_contain_text("At character 7: expected a string in quotes or a number")
    expect(page.locator("#where")).to_have_attribute("aria-invalid", "true")
    page.locator("#where").fill("year > 2003")
    expect(error).to_be_empty()
    expect(page.get_by_role("status")).to_contain_text("of 9 documents")
    page.locator("#where").fill("year > 3003")
    expect(page.get_by_role("heading", name="No document matches the filter")).to_be_visible()
    page.get_by_role("button", name="Search without the filter").click()
    expect(page.locator("#answer .hit")).to_have_count(10)


def test_addresses_lead_back_and_forward_and_survive_a_reload(tab: Tab) -> None:
    page = tab.open(q=QUERY, k=5)
    expect(page.locator(".hit .rank").first).to_contain_text("1")
    page.get_by_role("link", name="Further").click()
    expect(page).to_have_url(re.compile("offset=5"))
    expect(page.locator(".hit .rank").first).to_contain_text("6")
    page.locator(".hit-link").nth(1).click()
    heading = page.locator("#detail-title")
    expect(page.locator(".proof")).to_contain_text("This is rank 7 of 50")
    title = heading.inner_text()
    page.reload()
    expect(page.locator(".proof")).to_contain_text("This is rank 7 of 50")
    assert heading.inner_text() == title
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.go_forward()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.go_back()
    expect(page.locator(".hit .rank").first).to_contain_text("1")


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
    page.unroute("**/search")
    busy = {"error": {"code": "busy", "message": "too much to do"}}
    page.route(
        "**/search",
        lambda route: route.fulfill(status=503, json=busy, headers={"Retry-After": "1"}),
        times=1,
    )
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("heading", name="The server is busy")).to_be_visible()
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
