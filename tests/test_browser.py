"""The page in a real Chromium, over the real server and encoder: what is found and shown."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from served_page import Tab, chromium

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: chromium)"),
]
expect = playwright.expect
expect.set_options(timeout=20_000)  # a busy machine is no failure
QUERY = "whales in cold seas"


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


def test_a_second_pick_does_not_forget_the_first_before_its_counts_are_there(tab: Tab) -> None:
    page = tab.open(q="an animal that sleeps", k=20)
    otter, viper = (page.get_by_role("checkbox", name=name) for name in ("otter", "viper"))
    expect(viper).to_be_visible()
    page.route("**/facets", lambda route: None)  # is never answered: the boxes stay as they are
    otter.check()
    expect(page.locator("#where")).to_have_value('kind = "otter"')
    viper.check()
    expect(page.locator("#where")).to_have_value('kind in ("otter", "viper")')


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
