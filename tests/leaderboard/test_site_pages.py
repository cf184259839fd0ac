"""All pages of the site in a browser: links, silence, accessibility, colours, paper, phones, no script."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browsing import EMPTY, Watch, rows
from support.toysite import LANGUAGES, TASKS, TEXTS, small_run

from harness.ranking.summary import format_interval
from leaderboard.build import build_site

if TYPE_CHECKING:
    from support.windows import Window

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

KINDS = [
    "index.html",
    "compare.html",
    "language-he.html",
    "samples-am.html",
    "samples-he.html",
    "method-language.html",
    "method-copier.html",
    "metric-vendi-tfidf.html",
]
"""One page of every template, and both scripts that are not Latin."""

FACTS = """() => ({
  ids: [...document.querySelectorAll("[id]")].map((node) => node.id),
  links: [...document.querySelectorAll("a[href]")].map((a) =>
    [new URL(a.getAttribute("href"), location.href).href, a.rel ?? "", a.ariaLabel ?? a.textContent.trim()]),
  lang: document.documentElement.lang,
  title: document.title,
  headings: document.querySelectorAll("h1").length,
  mains: document.querySelectorAll("main").length,
  other: [...document.querySelectorAll("[lang]")].map((node) => [node.lang, node.dir]),
  refers: ["for", "aria-labelledby", "aria-describedby", "aria-controls"].flatMap((name) =>
    [...document.querySelectorAll(`[${name}]`)].map((node) => node.getAttribute(name))),
  heading: document.querySelector("h1").innerText,
  current: [...document.querySelectorAll("[aria-current=page]")].map((node) => node.href),
})"""

WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}


@dataclass(frozen=True)
class Crawl:
    """What every page holds, by its address, and what was said and asked for meanwhile."""

    pages: dict[str, dict[str, Any]]
    watch: Watch


@pytest.fixture(scope="module")
def crawl(windows, site) -> Crawl:
    """Open every page once."""
    window, found = windows.open(**WIDE), {}
    for path in site.pages():
        window.page.goto(path.as_uri())
        found[path.as_uri()] = {**window.page.evaluate(FACTS), "empty": window.page.evaluate(EMPTY)}
    return Crawl(found, windows.leave([window]))


@pytest.fixture
def attacked(windows) -> Iterator[Window]:
    """An empty window for a page that says something: what it says is the test's to judge."""
    window = windows.open(**WIDE)
    yield window
    windows.leave([window])


def file_of(address: str) -> Path:
    return Path(address.partition("#")[0].removeprefix("file://"))


# Every page


def test_there_is_a_page_for_everything(crawl, site):
    names = {Path(address).name for address in crawl.pages}
    assert {"index.html", "compare.html"} <= names
    assert {f"{kind}-{code}.html" for kind in ("language", "samples") for code in LANGUAGES} <= names
    assert len([name for name in names if name.startswith("method-")]) == 10
    assert len([name for name in names if name.startswith("metric-")]) == len(site.board.result_set.metrics)


def test_no_page_says_or_asks_for_anything(crawl):
    assert crawl.watch.said == []
    assert crawl.watch.asked == []


def test_no_id_stands_twice_on_a_page(crawl):
    for address, facts in crawl.pages.items():
        assert len(facts["ids"]) == len(set(facts["ids"])), address


def test_every_link_has_its_page_and_its_anchor(crawl, site):
    inside = 0
    for address, facts in crawl.pages.items():
        for href, rel, words in facts["links"]:
            assert words, (address, href)
            if href.startswith("https:"):
                assert rel == "noopener noreferrer", href
                continue
            target, _, anchor = href.partition("#")
            path = file_of(href)
            assert path.is_file(), (address, href)
            assert path.is_relative_to(site.folder)
            if anchor:
                assert anchor in crawl.pages[target]["ids"], (address, href)
            inside += 1
    assert inside > 500


def test_every_page_is_reached_from_the_first(crawl, site):
    seen, todo = set(), [site.address()]
    while todo:
        address = todo.pop()
        if address not in seen and address in crawl.pages:
            seen.add(address)
            todo += [href.partition("#")[0] for href, _, _ in crawl.pages[address]["links"]]
    assert seen == set(crawl.pages)


def test_every_page_has_a_language_a_title_and_one_main_heading(crawl):
    titles = set()
    for address, facts in crawl.pages.items():
        assert facts["lang"] == "en"
        assert (facts["headings"], facts["mains"]) == (1, 1), address
        titles.add(facts["title"])
        assert set(facts["refers"]) <= set(facts["ids"]), address
        assert len(facts["current"]) == (0 if address.endswith("index.html") else 1), address
    assert len(titles) == len(crawl.pages)


def test_text_in_another_language_says_so_and_which_way_it_runs(crawl):
    ways = {"am": "ltr", "he": "rtl", "da": "ltr"}
    marked = [tuple(item) for facts in crawl.pages.values() for item in facts["other"] if item[0] != "en"]
    assert {code for code, _ in marked} == set(ways)
    assert all(ways[code] == way for code, way in marked)


def test_no_table_or_column_is_empty(crawl):
    found = {Path(address).name: facts["empty"] for address, facts in crawl.pages.items()}
    assert len(found) > 20
    assert {name: words for name, words in found.items() if words and name != "index.html"} == {}


# Accessibility


COLOURS = ("color-contrast", "link-in-text-block")
"""The rules that hang on the colour scheme."""


@pytest.fixture
def violations() -> Callable[..., list[str]]:
    """Return what axe finds on a page, by all rules, by some or by all others (``but``): rule, impact, places."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE: nothing was checked")

    def found(page: Any, *rules: str, but: bool = False) -> list[str]:
        some = {"rules": {rule: {"enabled": False} for rule in rules}} if but else {"runOnly": list(rules)}
        options = {"resultTypes": ["violations"], "selectors": False}  # places as HTML: sooner found
        response = module.Axe().run(page, options={**options, **(some if rules else {})}).response
        assert len(response["passes"]) >= (10 if but or not rules else 1), "the engine ran"
        return [
            f"{item['id']} ({item['impact']}): {[node['html'][:80] for node in item['nodes'][:3]]}"
            for item in response["violations"]
        ]

    return found


PAPER = 1047
"""Pixels of A4 landscape without its margins."""

CUT = """() => [...document.querySelectorAll("table, svg, pre, p")]
  .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1)
  .map((node) => node.id || node.outerHTML.slice(0, 80))"""


DARK = ("compare.html", "language-he.html", "method-language.html")
"""Pages whose dark colours are looked at as they open; those of the others once somebody worked with them."""


@pytest.mark.parametrize("name", KINDS)
def test_axe_finds_nothing_by_day_or_night_and_nothing_is_cut_off_on_paper(visit, violations, name):
    page = visit(name, color_scheme="light", viewport={"width": PAPER, "height": 720})
    assert violations(page) == []
    if name in DARK:
        page.emulate_media(color_scheme="dark")
        assert violations(page, *COLOURS) == []
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate(CUT) == []


def test_axe_finds_nothing_once_somebody_worked_with_the_page(visit, site, violations):
    page = visit(state="#task=topic&columns=all&sort=gain", color_scheme="dark")
    page.locator(f"#{site.board.id}-languages th[data-key=he] button").click()
    page.locator(f"#{site.board.id}-languages td[tabindex='0']").focus()
    page.locator(".missing summary").click()
    page.locator(".pick summary").click()
    page.locator(".columns summary").click()
    page.locator(".columns").get_by_label("Vendi").uncheck()
    page.locator(f"#{site.board.id}-ranking th[data-key=gain] button").focus()
    assert page.get_by_role("tooltip").is_visible()
    assert violations(page) == []
    page = visit("samples-he.html", color_scheme="dark")
    for summary in page.locator("main summary").filter(visible=True).all():
        summary.click()
    assert violations(page) == []
    page = visit("compare.html", color_scheme="light")
    page.get_by_role("button", name="Swap A and B").click()
    page.locator("details.menu summary").first.click()
    assert violations(page) == []


def test_axe_finds_nothing_on_a_phone(visit, violations):
    assert violations(visit(viewport={"width": 390, "height": 800}), *COLOURS, but=True) == []


def test_the_check_notices_what_is_wrong(visit, violations):
    page = visit("compare.html")
    page.evaluate("document.querySelector('[name=a]').closest('label').replaceWith(document.createElement('input'))")
    page.evaluate("document.querySelector('.lead').style.color = '#ddd'")
    found = violations(page, "label", "color-contrast", "list")
    assert any(item.startswith("label (critical)") for item in found)
    assert any(item.startswith("color-contrast (serious)") for item in found)


# Colours, paper, phones


def colours(page: Any) -> list[str]:
    return page.evaluate(
        """() => [["body", "backgroundColor"], ["body", "color"], [".scroll", "backgroundColor"],
          ["a", "color"], ["select", "backgroundColor"], [".lead", "color"]]
          .map(([query, name]) => getComputedStyle(document.querySelector(query))[name])"""
    )


def light(colour: str) -> float:
    """Return how light a colour is, 0 to 255."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3


def test_the_dark_scheme_is_dark(visit):
    day, night = colours(visit(color_scheme="light")), colours(visit(color_scheme="dark"))
    assert all(a != b for a, b in zip(day, night, strict=True))
    assert light(day[0]) > 200 > 60 > light(day[1])
    assert light(night[0]) < 60 < 200 < light(night[1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_holds_the_tables_without_controls(visit, site, scheme):
    page = visit(state="#family=steering", color_scheme=scheme)
    page.emulate_media(media="print", color_scheme=scheme)
    assert light(colours(page)[0]) == 255
    assert light(colours(page)[1]) == 0
    for gone in (".filters", ".tools", ".top nav", ".choice", ".status"):
        assert page.locator(gone).filter(visible=True).count() == 0, gone
    for kept in (
        f"#{site.board.id}-ranking",
        f"#{site.board.id}-languages",
        ".sentence",
        ".plot",
        "#definitions",
    ):
        assert page.locator(kept).first.is_visible(), kept
    names = {row["id"] for row in rows(page, f"{site.board.id}-ranking")}
    assert 0 < len(names) < len(site.board.standings.rows), "what is filtered out is not printed"
    ink = page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter((node) => node.checkVisibility()"
        " && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))"
        ".map((node) => [node.tagName, node.className, getComputedStyle(node).color])"
    )
    assert not [item for item in ink if light(item[2]) > 150], "pale ink"


def test_a_page_becomes_a_pdf(visit):
    pdf = visit().pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-")
    [box] = set(re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", pdf))
    assert float(box[0]) > float(box[1]), "landscape"
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) >= 3


@pytest.mark.parametrize("name", KINDS)
def test_a_phone_never_scrolls_sideways(visit, name):
    page = visit(name, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    across, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert across <= inner == 390
    if page.locator(".scroll table").count():
        assert page.locator(".scroll").first.evaluate("node => getComputedStyle(node).overflowX") == "auto"


# Without JavaScript


def test_without_script_the_ranking_is_all_there(visit, site):
    page = visit(java_script_enabled=False)
    board = site.board
    lines = page.locator(f"#{board.id}-ranking tbody tr")
    assert lines.count() == len(board.standings.rows)
    for i, standing in enumerate(board.standings.rows):
        text = lines.nth(i).inner_text()
        assert standing.row.name.split(",")[0] in text
        assert format_interval(standing.over_zero_shot) in text
    grid = page.locator(f"#{board.id}-languages td")
    assert grid.count() == len(board.standings.rows) * len(LANGUAGES)
    assert grid.filter(has_text="▲").first.is_visible()
    for there in ("#definitions dd", "#provenance", "#downloads a", ".sentence", ".plot", ".remarks"):
        assert page.locator(there).first.is_visible(), there


def test_without_script_more_columns_still_open(visit):
    page = visit(java_script_enabled=False)
    head = page.locator(".ranking th[data-key=borda]")
    assert not head.is_visible()
    page.get_by_label("all columns").check()
    assert head.is_visible()


@pytest.mark.parametrize("name", KINDS)
def test_without_script_no_control_is_shown_that_needs_one(visit, crawl, site, name):
    page = visit(name, java_script_enabled=False)
    assert page.locator("button, select, [type=search]").filter(visible=True).count() == 0
    assert page.locator("main").inner_text().strip()
    assert page.locator("h1").inner_text() == crawl.pages[site.address(name)]["heading"]


def test_without_script_all_texts_can_be_read(visit):
    page = visit("samples-he.html", java_script_enabled=False)
    shown = page.locator(".sample p").filter(visible=True)
    assert shown.count() == page.locator(".sample p").count() > 100
    assert page.get_by_text(TEXTS["he", "sport"][1]).first.is_visible()


def test_without_script_the_pair_says_what_it_is(visit):
    page = visit("compare.html", java_script_enabled=False)
    assert "Without JavaScript" in page.locator("main").inner_text()
    assert page.locator("#comparison tbody tr").count() == len(TASKS) + len(LANGUAGES)
    assert page.locator("#comparison-metrics tbody tr").count() > 5


def test_without_script_links_and_menus_work(visit):
    page = visit(java_script_enabled=False)
    page.get_by_role("link", name="any two entries").click()
    page.wait_for_url("**/compare.html")
    page.locator("details.menu summary").first.click()
    page.get_by_role("link", name="Hebrew").first.click()
    page.wait_for_url("**/language-he.html")
    page.get_by_role("link", name="Overview").click()
    page.wait_for_url("**/index.html#*")
    page.get_by_role("link", name="Definitions").click()
    assert page.url.endswith("#definitions")


# The policy


BREAK = "document.title = 'broken'"
ATTACKS = [
    f"<script>{BREAK}</script>",
    f'<script src="data:text/javascript,{BREAK}"></script>',
    "<script src='https://example.org/a.js'></script>",
    f'<img src="data:image/png;base64,x" onerror="{BREAK}">',
    "<img src='https://example.org/a.png'>",
    f'<svg onload="{BREAK}"></svg>',
    f'<a class="bad" href="javascript:{BREAK}">x</a>',
    f'<iframe srcdoc="<script>top.{BREAK}</script>"></iframe>',
    "<iframe src='https://example.org/'></iframe>",
    "<link rel='stylesheet' href='https://example.org/a.css'>",
    "<style>.lead { background: url(https://example.org/a.png) }</style>",
    "<base href='https://example.org/'>",
]


def test_no_script_but_the_own_one_runs_and_nothing_is_fetched(attacked, site, tmp_path):
    page, answered = attacked.page, []
    page.on("response", hear := lambda response: answered.append(response.url))
    html = (site.folder / "index.html").read_text(encoding="utf-8")
    path = tmp_path / "index.html"
    path.write_text(html.replace("</main>", f"{''.join(ATTACKS)}</main>"), encoding="utf-8")
    page.goto(path.as_uri())
    for link in page.locator(".bad").all():
        link.dispatch_event("click")
    page.wait_for_timeout(50)
    assert page.title().startswith("steerboard")
    assert page.evaluate("document.baseURI") == page.url
    assert page.locator("form.filters").first.is_visible(), "the page's own script ran"
    assert [address for address in answered if not address.startswith(("file:", "data:"))] == []
    policed = [line for line in attacked.watch.said if "Content Security Policy" in line]
    assert len(policed) >= len(ATTACKS), policed
    page.remove_listener("response", hear)


def test_no_form_can_be_sent_and_no_script_can_fetch(attacked, site):
    page = attacked.page
    page.goto(site.address())
    for way in ("fetch('https://example.org/')", "fetch('results.json')"):
        assert page.evaluate(f"{way}.then(() => 'fetched', () => 'refused')") == "refused"
    page.evaluate(
        "() => { const form = document.createElement('form'); form.action = 'https://example.org/';"
        " document.body.append(form); form.submit(); }"
    )
    page.wait_for_timeout(50)
    assert len([line for line in attacked.watch.said if "Content Security Policy" in line]) >= 3
    assert page.url.partition("#")[0] == site.address()


def test_a_changed_script_does_not_run(attacked, site, tmp_path):
    html = (site.folder / "index.html").read_text(encoding="utf-8")
    path = tmp_path / "index.html"
    path.write_text(html.replace('"use strict";', '"use strict"; document.title = "broken";'), encoding="utf-8")
    page = attacked.page
    page.goto(path.as_uri())
    assert page.title() != "broken"
    assert not page.locator("form.filters").first.is_visible()


# Two boards


def test_two_boards_share_the_first_page(visit, violations, tmp_path):
    runs = [small_run(tmp_path / name, name).path for name in ("one", "two")]
    page = visit(build_site(runs, tmp_path / "out").as_uri())
    facts = page.evaluate(FACTS)
    assert len(facts["ids"]) == len(set(facts["ids"]))
    assert all(file_of(href).is_file() for href, _, _ in facts["links"] if href.startswith("file:"))
    assert page.locator("nav a").count() == 5
    assert violations(page, *COLOURS, but=True) == []
