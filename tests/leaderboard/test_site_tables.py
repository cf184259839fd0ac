"""Tables of all pages but the first, in a browser: none is empty or cut off, all words are explained."""

from __future__ import annotations

import pytest
from support.browsing import EMPTY, Site
from support.toyruns import F1, selection, toy, write_run
from support.toysite import ALPHA, SUITE

from leaderboard.boards import boards
from leaderboard.build import build_board

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

WIDE = """() => [...document.querySelectorAll(".scroll:not(:has(.grid))")]
  .filter((box) => box.checkVisibility())
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.ariaLabel)"""
"""Return the tables that are cut off at the side; the heat map of languages is scrolled."""

PAGES = [
    "language-he.html",
    "metric-vendi-tfidf.html",
    "metric-copied-test.html",
    "method-language.html",
    "method-clas.html",
    "method-human.html",
    "compare.html",
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A board of which little is there yet: one of two entries has one of four cells."""
    chosen = selection(("am", "he"), ("sentiment",), (1, 2))
    first, second = toy("zero-shot", ALPHA), toy("language", ALPHA)
    places = [("sentiment", code, seed) for code in ("am", "he") for seed in (1, 2)]
    first.scores[F1] = {place: 0.5 if place == places[0] else None for place in places}
    second.scores[F1] = dict.fromkeys(places)
    folder = tmp_path_factory.mktemp("bare")
    run = write_run(folder / "run", [first, second], chosen, suite=SUITE, model=ALPHA)
    for cell in run.cell_ids():
        (run.cell(cell) / "generations.jsonl").write_text("", encoding="utf-8")
    return Site(build_board([run], folder / "out").parent, boards([run])[0])


def test_where_nothing_is_known_yet_words_stand_and_no_table(visit, bare):
    page, words = visit(bare.address()), {}
    for path in bare.pages():
        page.goto(path.as_uri())
        assert path.name == "index.html" or page.evaluate(EMPTY) == [], path.name
        words[path.name] = page.locator("main").inner_text()
    assert "No entry has all its Hebrew cells yet." in words["language-he.html"]
    assert "No entry has a complete value of it in any language yet." in words["metric-macro-f1-tfidf.html"]


@pytest.mark.parametrize("width", [1400, 390])
def test_no_table_is_cut_off_and_all_columns_come_on_request(visit, width):
    page = visit("compare.html", viewport={"width": width, "height": 900})
    folder = page.url.rpartition("/")[0]
    for name in PAGES:
        page.goto(f"{folder}/{name}")
        assert page.evaluate(WIDE) == [], name
    page.goto(f"{folder}/language-he.html")
    button = page.get_by_role("button", name="Show all")
    shown = page.locator("#language-ranking thead th").filter(visible=True).count()
    assert button.count() == (1 if width == 390 else 0)
    if width == 390:
        assert 3 <= shown < page.locator("#language-ranking thead th").count()
        button.click()
        assert page.locator("#language-ranking thead th").filter(visible=True).count() > shown
        page.get_by_role("button", name="Show only the columns that fit").click()
        assert page.locator("#language-ranking thead th").filter(visible=True).count() == shown


@pytest.mark.parametrize("how", ["paper", "no script"])
def test_all_columns_are_there_on_paper_and_without_a_script(visit, how):
    options = {"viewport": {"width": 390, "height": 800}}
    page = visit("language-he.html", java_script_enabled=how == "paper", **options)
    if how == "paper":
        page.emulate_media(media="print")
    heads = page.locator("#language-ranking thead th")
    assert heads.filter(visible=True).count() == heads.count() > 5


def test_every_explanation_can_be_reached_by_key_and_touch_on_every_page(visit):
    page = visit("compare.html", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    folder, count = page.url.rpartition("/")[0], 0
    for name in PAGES:
        page.goto(f"{folder}/{name}")
        assert page.locator("main [title], main svg title").count() == 0, name
        lost = page.evaluate(
            "() => [...document.querySelectorAll('[data-tip]')]"
            ".filter((node) => node.tabIndex < 0 && !node.closest('.grid')).map((node) => node.outerHTML)"
        )
        assert lost == [], name
        count += page.locator("[data-tip]").count()
    assert count > 20
    page.goto(f"{folder}/method-language.html")
    link = page.locator("#scores-table tbody a[data-tip]").first
    link.focus()
    page.get_by_role("tooltip").wait_for()  # once the page has scrolled to the link
    page.keyboard.press("Escape")
    assert page.get_by_role("tooltip").count() == 0
