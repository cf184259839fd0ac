"""What a reader does with a page in a real browser: downloads of what is on the screen, keys, tips and menus."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.browsing import FILTERS, choose, column, ids, ranking, rows
from support.toyruns import F1
from support.toysite import FORMULA

from harness.ranking.summary import format_interval

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

# Downloads of what is on the screen


def saved(page: Any, kind: str, folder: Path, table: str = ".tools") -> tuple[str, str]:
    """Press a button; return the name and text of the file."""
    with page.expect_download() as waiting:
        page.locator(table).first.get_by_role("button", name=kind, exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path.name, path.read_bytes().decode("utf-8")


def test_csv_holds_what_is_on_the_screen_in_its_order(visit, site, tmp_path):
    page = visit(state="#family=steering&sort=gain&way=turned&model=beta")
    name, text = saved(page, "CSV", tmp_path)
    assert name == f"{site.board.id}-ranking.csv"
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    shown = ranking(page, site)
    assert len(lines) == len(shown) > 3
    assert [line[head.index("gain over zero-shot")] for line in lines] == [row["gain"] for row in shown]
    assert [line[head.index("cells")] for line in lines] == [row["cells"] for row in shown]
    assert not {"Borda", "MDE", "vs few-shot"} & set(head), "hidden columns"
    assert not [line for line in lines if "zero-shot" in line[1] or "alpha" in line[1]], "hidden rows"
    assert all(len(line) == len(head) for line in lines)


def test_all_columns_reach_the_csv_when_they_are_shown(visit, tmp_path):
    page = visit(state="#columns=all")
    head, *_ = csv.reader(io.StringIO(saved(page, "CSV", tmp_path)[1], newline=""))
    assert {"Borda", "MDE", "vs few-shot", "mean rank", "win rate"} <= set(head)
    choose(page, task="topic")
    head, *_ = csv.reader(io.StringIO(saved(page, "CSV", tmp_path)[1], newline=""))
    assert not {"Borda", "cells", "date"} & set(head)


def test_no_cell_of_the_csv_is_a_formula(visit, site, tmp_path):
    page = visit(state=f"#q={FORMULA.replace('=', '%3D').replace('+', '%2B')}")
    _, text = saved(page, "CSV", tmp_path)
    head, line = csv.reader(io.StringIO(text, newline=""))
    assert line[head.index("entry")] == f"'{FORMULA}, beta"
    assert line[head.index("gain over zero-shot")].startswith("+0.")
    safe = page.evaluate(
        "cells => Saving.csv([cells])",
        ["=1+1", "+1+cmd|x", "-2+3", "@SUM(A1)", "＝1", "+0.1 [−0.2, +0.3]", "-1.5", "a,b", 'q"'],
    )
    assert next(csv.reader([safe])) == [
        *("'=1+1", "'+1+cmd|x", "'-2+3", "'@SUM(A1)", "'＝1"),
        *("+0.1 [−0.2, +0.3]", "-1.5", "a,b", 'q"'),
    ]


def test_json_and_latex_hold_the_rows_of_the_screen_and_bibtex_the_file_of_the_site(visit, site, tmp_path):
    page = visit(state="#family=baseline&task=topic")
    name, text = saved(page, "JSON", tmp_path)
    found = json.loads(text)
    shown = ranking(page, site)
    assert name.endswith(".json")
    assert [row["gain over zero-shot"] for row in found] == [row["gain"] for row in shown]
    assert [row["tier"] for row in found] == [row["tier"] for row in shown]
    assert all("few-shot" in row["entry"] or "zero-shot" in row["entry"] for row in found)
    name, text = saved(page, "BibTeX", tmp_path)
    assert name.endswith(".bib")
    assert text == (site.folder / "methods.bib").read_text(encoding="utf-8")
    assert "2606.18389" in text
    choose(page, task="", family="control")
    name, text = saved(page, "LaTeX", tmp_path)
    assert name.endswith(".tex")
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].strip().splitlines()[1:]
    assert len(body) == len(ranking(page, site)) == 2
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1)
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 for line in body)
    assert "gap closed \\%" in text
    assert "$-$0." in body[0]
    assert not re.search(r"(?<!\\)[%#_](?! needs)|−", text.split("\n", 1)[1])
    escaped = page.evaluate(r"""() => Saving.tex([["h"], ["a_b & 100% {x} \\ ~ ^ # $"]])""")
    assert r"a\_b \& 100\% \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} \# \$" in escaped


@pytest.mark.parametrize("page", ["compare.html", "language-he.html", "metric-vendi-tfidf.html"])
def test_every_page_saves_its_table(visit, tmp_path, page):
    opened = visit(page)
    head, *lines = csv.reader(io.StringIO(saved(opened, "CSV", tmp_path)[1], newline=""))
    assert len(lines) >= 6
    assert all(len(line) == len(head) for line in lines)
    assert all(name for name in head)


def test_a_command_is_copied_ready_for_a_shell(visit):
    page = visit("method-language.html", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy", exact=True).first
    button.click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("steerboard run --suite toy --model alpha")
    assert "\n" not in copied


# Keys


def focused(page: Any) -> dict[str, Any]:
    return page.evaluate(
        """() => {
          const node = document.activeElement;
          const style = getComputedStyle(node), box = node.getBoundingClientRect();
          const top = document.querySelector(".top").getBoundingClientRect().bottom;
          return {
            tag: node.tagName, id: node.id, name: node.name ?? "", key: node.closest("th")?.dataset.key ?? "",
            text: (node.getAttribute("aria-label") ?? node.textContent).trim(),
            top: box.top, high: box.height, page: innerHeight,
            ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
            clear: !!node.closest(".top, .skip") || box.bottom > top,
          };
        }"""
    )


def test_tab_goes_through_the_page_in_order_and_the_focus_is_seen(visit, site):
    page = visit(reduced_motion="reduce")  # no smooth scrolling: where a stop is, is where it stays
    stops = []
    for _ in range(45):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    assert stops[0]["text"] == "To the content"
    assert stops[0]["high"] > 20, "the skip link appears"
    for stop in stops:
        assert stop["ring"], stop
        assert stop["clear"], stop
        assert stop["top"] < stop["page"], stop
    named = [stop["name"] for stop in stops if stop["name"]]
    assert named == list(FILTERS)
    texts = [stop["text"] for stop in stops]
    assert texts.index("all") < texts.index("Reset"), "the menu of languages"
    order = ["steerboard", "Downloads", "Definitions", "Provenance", "Reset", "Copy link"]
    places = [texts.index(text) for text in order]
    assert places == sorted(places)
    heads = [stop["key"] for stop in stops if stop["tag"] == "BUTTON" and stop["key"]]
    assert heads[:4] == ["tier", "entry", "gain", F1.name]
    assert "borda" not in heads, "columns that are not shown are no stops"


def test_the_skip_link_leads_to_the_content(visit):
    page = visit()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'main'")
    page.keyboard.press("Tab")
    assert focused(page)["name"] == "q"


def test_arrows_walk_the_grid_and_every_cell_says_interval_and_n(visit, site):
    page = visit()
    table = f"{site.board.id}-languages"
    assert page.locator(f"#{table} td[tabindex='0']").count() == 1
    page.locator(f"#{table} td[tabindex='0']").focus()

    def place() -> list[int]:
        return page.evaluate("() => [document.activeElement.parentNode.rowIndex, document.activeElement.cellIndex]")

    assert place() == [1, 1]
    for key, wanted in (
        ("ArrowUp", [1, 1]),
        ("ArrowLeft", [1, 1]),
        ("ArrowRight", [1, 2]),
        ("ArrowDown", [2, 2]),
        ("ArrowRight", [2, 3]),
        ("ArrowRight", [2, 3]),
        ("ArrowLeft", [2, 2]),
    ):
        page.keyboard.press(key)
        assert place() == wanted, key
    assert page.locator(f"#{table} td[tabindex='0']").count() == 1
    said = page.get_by_role("tooltip").text_content()
    gain = site.board.standings.rows[1].languages["he"].gain
    assert said.startswith(format_interval(gain))
    assert "n = 6 cells" in said


def test_arrows_pass_by_hidden_rows_and_the_grid_keeps_its_stop(visit, site):
    page = visit()
    choose(page, family="baseline")
    table = f"{site.board.id}-languages"
    shown = ids(rows(page, table))
    stop = page.locator(f"#{table} td[tabindex='0']")
    assert stop.count() == 1
    assert stop.is_visible()
    stop.focus()
    seen = [page.evaluate("document.activeElement.parentNode.dataset.entry")]
    for _ in range(len(shown)):
        page.keyboard.press("ArrowDown")
        seen.append(page.evaluate("document.activeElement.parentNode.dataset.entry"))
    assert seen == [*shown, shown[-1]]


def test_a_header_says_what_its_column_is_by_key_and_escape_closes_it(visit, site):
    page = visit()
    tip, button = page.get_by_role("tooltip"), column(page, site, "gap").locator("button")
    button.focus()
    assert "zero-shot to human-written text" in tip.text_content()
    assert "zero-shot to human-written text" in button.get_attribute("aria-description")
    page.keyboard.press("Escape")
    assert tip.count() == 0, "hidden"
    assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Tab")
    assert "macro" not in tip.text_content()
    assert tip.is_visible()
    column(page, site, "entry").locator("button").focus()
    assert "Method, and its options" in tip.text_content()


def test_every_explanation_can_be_reached_by_key_and_none_is_a_title_alone(visit):
    page = visit(state="#columns=all")
    assert page.locator("[title], svg title").count() == 0
    lost = page.evaluate(
        "() => [...document.querySelectorAll('[data-tip]')].filter((node) => node.tabIndex < 0"
        " && !node.closest('.grid')).map((node) => node.outerHTML)"
    )
    assert lost == []
    assert page.locator("[data-tip]").count() > 60


def test_a_pointer_can_enter_an_explanation_and_leaves_it(visit, site):
    page = visit()
    tip = page.get_by_role("tooltip")
    column(page, site, "gain").locator(".way").hover()
    assert "Mean paired difference" in tip.text_content()
    tip.hover()
    page.wait_for_timeout(300)
    assert tip.is_visible()
    page.locator("h1").hover()
    tip.wait_for(state="hidden")


def test_a_touch_explains_a_cell_and_a_point_before_its_link_is_followed(visit, site):
    page = visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    tip, start = page.get_by_role("tooltip"), page.url
    page.locator("td[data-tip]").filter(visible=True).first.tap()
    assert "copies of test text" in tip.text_content()
    left, right = tip.evaluate("node => { const at = node.getBoundingClientRect(); return [at.left, at.right]; }")
    assert left >= 0
    assert right <= 390
    page.locator(".lead").tap()
    assert tip.count() == 0
    point = page.locator("a.point[aria-label*='quality, alpha'] .dot").first
    point.tap()
    assert "quality, alpha: Vendi" in tip.text_content()
    assert page.url == start
    point.tap()
    page.wait_for_url("**/method-quality.html*")


def test_menus_open_by_key_and_escape_closes_them(visit):
    page = visit("language-he.html")
    menu = page.locator("details.menu").first
    menu.locator("summary").focus()
    page.keyboard.press("Enter")
    assert menu.get_attribute("open") is not None
    assert page.get_by_role("link", name="Amharic").first.is_visible()
    page.keyboard.press("Tab")
    assert focused(page)["text"] == "Amharic"
    page.keyboard.press("Escape")
    assert menu.get_attribute("open") is None
    assert menu.locator("summary").evaluate("node => node === document.activeElement")


def test_a_click_beside_a_menu_closes_it(visit):
    page = visit("language-he.html")
    first, second = page.locator("details.menu").nth(0), page.locator("details.menu").nth(1)
    first.locator("summary").click()
    second.locator("summary").click()
    assert first.get_attribute("open") is None
    assert second.get_attribute("open") is not None
    page.get_by_role("button", name="entry").click()
    assert second.get_attribute("open") is None
