"""The ranking and its grid in a real browser: sorting, filters, numbers of tasks and languages, addresses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.browsing import (
    FILTERS,
    READ,
    Site,
    choose,
    column,
    gain_of,
    hash_of,
    ids,
    mean_by_hand,
    pick,
    picked,
    ranking,
    rows,
)
from support.toyruns import F1
from support.toysite import FORMULA, LANGUAGES, TASKS, small_run

from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.rivals import row_kind
from harness.ranking.slices import Slice
from harness.ranking.summary import format_interval, format_number, format_signed, tier_of
from leaderboard.build import build_site

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

ORDER = re.compile(r"[+−]?[\d,]+(?:\.\d+)?(?:/\d+)?")
TEXT_COLUMNS = {"entry", "badge", "date"}


def number(text: str) -> float | None:
    """Return the number that a cell shows, None where it shows none."""
    found = ORDER.match(text)
    if not found:
        return None
    over, _, below = found.group().replace("−", "-").replace(",", "").partition("/")
    return float(over) / float(below) if below else float(over)


def in_order(values: list[Any], way: str) -> bool:
    """Say whether values are in order, with all that is unknown at the end."""
    known = [value for value in values if value not in (None, "")]
    if values[: len(known)] != known:
        return False
    return known == sorted(known, reverse=way == "descending")


# Sorting


SORT_TWICE = f"""(id) => {{
  const read = {READ}, table = document.getElementById(id);
  return [...table.tHead.rows[0].cells].map((head) => [head.dataset.key, [0, 1].map(() => {{
    head.querySelector("button").click();
    return [head.ariaSort, read(id), table.querySelectorAll("[aria-sort]").length];
  }})]);
}}"""
"""Click on every head of a table twice; return key -> direction, rows, and how many directions are said."""


def test_every_column_sorts_both_ways_with_unknown_values_last(visit, site):
    page = visit()
    page.get_by_label("all columns").check()
    sorted_by = page.evaluate(SORT_TWICE, f"{site.board.id}-ranking")
    assert len(sorted_by) >= 18
    blanks = 0
    for key, clicks in sorted_by:
        for way, found, said in clicks:
            shown = [row[key] for row in found]
            values = shown if key in TEXT_COLUMNS else [number(text) for text in shown]
            assert key == "entry" or in_order(values, way), (key, way, shown)
            assert key in TEXT_COLUMNS or any(value is not None for value in values), key
            blanks += values.count(None)
            assert said == 1
        assert {way for way, *_ in clicks} == {"ascending", "descending"}, key
    assert blanks


def test_a_click_sorts_the_better_end_to_the_top_and_names_as_words_and_back(visit, site):
    page = visit()
    for key, way in (("tier", "ascending"), (F1.name, "descending"), ("seconds", "ascending")):
        column(page, site, key).locator("button").click()
        assert column(page, site, key).get_attribute("aria-sort") == way
    button = column(page, site, "entry").locator("button")
    button.click()
    up = ids(ranking(page, site))
    named = [site.board.result_set.entries[name].name for name in up]
    assert named[0].startswith(FORMULA)
    methods = [name.split(",")[0].split(" ")[0] for name in named[1:]]
    assert methods == sorted(methods)
    button.click()
    assert ids(ranking(page, site)) == up[::-1]


def test_a_header_sorts_by_keyboard_and_keeps_the_focus(visit, site):
    page = visit()
    for name, key in (("gain", "Enter"), (F1.name, "Space")):
        head = column(page, site, name)
        head.locator("button").focus()
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == "descending"
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == "ascending"
        assert head.locator("button").evaluate("button => button === document.activeElement")


def test_the_grid_of_languages_sorts_by_gain(visit, site):
    page = visit()
    table = f"{site.board.id}-languages"
    for code in LANGUAGES:
        for way in ("descending", "ascending"):
            page.locator(f"#{table} th[data-key={code}] button").click()
            shown = [number(row[code]) if "·" not in row[code] else None for row in rows(page, table)]
            assert in_order(shown, way), (code, way, shown)
            assert None in shown
            assert sum(value is not None for value in shown) > 5


# Filters


def expected_rows(site: Site, keep: Any) -> set[str]:
    return {name for name, row in site.board.result_set.entries.items() if keep(row)}


FILTERED = {
    "family=steering": lambda row: row_kind(row.entry) == "steering",
    "family=control": lambda row: row_kind(row.entry) == "control",
    "family=baseline&model=beta": lambda row: row_kind(row.entry) == "baseline" and row.entry.model.name == "beta",
    "family=reference": lambda row: row.entry.model is None,
    "model=alpha": lambda row: row.entry.model is not None and row.entry.model.name == "alpha",
    "setting=few-shot": lambda row: row.entry.setting == "few-shot",
    "setting=none": lambda row: row.entry.setting == "none",
    "q=LAYER 0.53": lambda row: row.entry.method.config.get("layer") == 0.53,
    "q=lang beta": lambda row: "lang" in row.name and row.entry.model.name == "beta",
    "q==1": lambda row: row.entry.method.name == FORMULA,
}


def test_filters_of_rows_agree_with_python_change_no_number_and_the_grid_follows(visit, site):
    page = visit()
    before = {row["id"]: row for row in ranking(page, site)}
    for words, fits in FILTERED.items():
        page.get_by_role("button", name="Reset").click()
        page.wait_for_function("() => location.hash === ''")
        choose(page, **dict(pair.split("=", 1) for pair in words.split("&")))
        wanted = expected_rows(site, fits)
        assert wanted
        found = ranking(page, site)
        assert set(ids(found)) == wanted, words
        for row in found:  # of fewer rows more columns may fit
            assert {key: row.get(key) for key in before[row["id"]]} == before[row["id"]], words
        assert set(ids(rows(page, f"{site.board.id}-languages"))) == wanted, words
        said = page.locator(".count").first.text_content()
        assert said == f"{len(wanted)} of {len(before)} entries; tiers and corrections stay those of all", words


def test_nothing_found_says_so_and_reset_brings_all_back(visit, site):
    page = visit()
    before = ranking(page, site)
    column(page, site, F1.name).locator("button").click()
    choose(page, q="no such method", task="topic", language="he", family="control")
    assert ranking(page, site) == []
    assert "no entry fits: reset the filters" in page.locator(".count").first.text_content()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("() => location.hash === ''")
    assert ranking(page, site) == before
    assert page.locator(".count").first.text_content() == f"{len(before)} entries"
    assert page.locator(f"#{site.board.id}-ranking [aria-sort]").count() == 0


PARTS = [("sentiment", None), ("sentiment", "am"), (None, "am"), (None, "he"), ("topic", "he"), ("topic", "da")]
"""Every task and language, each alone or together."""


def test_task_and_language_show_the_numbers_that_python_computes(visit, site):
    page = visit()
    whole, axis = ranking(page, site), column(page, site, "gain").locator(".axis").inner_html()
    for task, code in PARTS:
        choose(page, task=task or "", language=code or "")
        found = ranking(page, site)
        assert not {"cells", "seconds", "date", "gap"} & set(found[0]), "they are of the whole"
        tiers = site.board.slice(task, code).tiers
        for row in found:
            name = row["id"]
            assert row[F1.name] == format_number(mean_by_hand(site, name, task, code)), (task, code, name)
            assert row["gain"] == format_interval(gain_of(site, Slice(task, code), name)), (task, code, name)
            flagged = name in flagged_of(site)
            assert row["tier"] == ("flag" if flagged else str(tiers.get(name, "–"))), (task, code, name)
        ranked = [row["tier"] for row in found if row["tier"].isdigit()]
        assert ranked == sorted(ranked)
        opened = opening(page, site)
        assert [i for i, row in enumerate(found) if row["id"] in opened] == [
            next(i for i, row in enumerate(found) if row["tier"] == tier) for tier in sorted(set(ranked))
        ]
    assert column(page, site, "gain").locator(".axis").inner_html() != axis
    choose(page, task="", language="")
    assert ranking(page, site) == whole
    assert column(page, site, "gain").locator(".axis").inner_html() == axis


def opening(page: Any, site: Site) -> list[str]:
    """Return the entries above which a rule is drawn."""
    lines = page.locator(f"#{site.board.id}-ranking tbody tr.opens")
    return lines.evaluate_all("rows => rows.map((row) => row.dataset.entry)")


def flagged_of(site: Site) -> set[str]:
    return {row.row.id for row in site.board.standings.rows if row.flags and not row.reference}


def test_the_whole_and_every_task_show_what_standings_say(visit, site):
    page = visit()
    for task in (None, *TASKS):
        choose(page, task=task or "")
        found = ranking(page, site)
        told = rank_entries(site.board.result_set, F1, [task]).rows if task else site.board.standings.rows
        assert set(ids(found)) == {standing.row.id for standing in told}
        by_id = {row["id"]: row for row in found}
        for standing in told:
            row, gain = by_id[standing.row.id], standing.over_zero_shot
            assert row[F1.name] == format_number(standing.mean.mean if standing.mean else None)
            assert row["gain"].split(" ")[0] == format_signed(gain.mean if gain else None)
            assert row["tier"] == tier_of(standing)
            if not task:
                assert row["gain"] == format_interval(gain)
                assert row["cells"] == f"{standing.present}/{standing.expected}"
        if not task:
            assert ids(found) == [row.row.id for row in told]
            assert {row["tier"] for row in found} >= {"1", "2", "flag", "–"}
            assert [row["cells"] for row in found if row["cells"] != "18/18"] == ["16/18"]


def test_the_strips_of_a_part_lie_where_its_axis_says(visit, site):
    page = visit(state="#task=topic&language=am")
    drawn = page.evaluate(
        """id => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => [
          row.dataset.entry, row.querySelector(".strip circle")?.getAttribute("cx"),
          row.querySelector(".strip .zero")?.getAttribute("d")])""",
        f"{site.board.id}-ranking",
    )
    ticks = page.locator(f"#{site.board.id}-ranking th[data-key=gain] .axis text").evaluate_all(
        "nodes => nodes.map((node) => [node.textContent, Number(node.getAttribute('x'))])"
    )
    (low, left), (high, right) = ((number(text), x) for text, x in (ticks[0], ticks[-1]))
    shown = 0
    for name, cx, zero in drawn:
        gain = gain_of(site, Slice("topic", "am"), name)
        reference = site.board.result_set.entries[name].entry.model is None
        if gain is None or reference:
            continue
        at = left + (gain.mean - low) / (high - low) * (right - left)
        assert float(cx) == pytest.approx(at, abs=0.11)
        at_zero = left - low / (high - low) * (right - left)
        assert float(zero.removeprefix("M").split(" ")[0]) == pytest.approx(at_zero, abs=0.06)
        shown += 1
    assert shown > 10


# The address


def test_the_state_lands_in_the_address_and_a_fresh_page_restores_it(visit, site):
    page = visit()
    choose(page, q="alpha", task="topic", language="he", model="alpha", family="steering")
    page.get_by_label("all columns").check()
    column(page, site, "gain").locator("button").click()
    column(page, site, "gain").locator("button").click()
    state = hash_of(page)
    for part in ("q=alpha", "task=topic", "language=he", "model=alpha", "family=steering", "columns=all"):
        assert part in state
    assert "sort=gain&way=turned" in state
    fresh = visit(state=state)
    assert ranking(fresh, site) == ranking(page, site) != []
    assert column(fresh, site, "gain").get_attribute("aria-sort") == "ascending"
    assert fresh.get_by_label("all columns").is_checked()
    kept = {name: fresh.locator(f"form.filters [name={name}]").input_value() for name in FILTERS}
    assert list(kept.values()) == ["alpha", "topic", "alpha", "", "steering"]
    assert picked(fresh) == ["he"]
    assert hash_of(fresh) == state


@pytest.fixture(scope="module")
def opening_rows(windows, site) -> list[dict[str, str]]:
    """The ranking as the page opens with it."""
    window = windows.open(viewport={"width": 1280, "height": 900})
    window.page.goto(site.address())
    found = ranking(window.page, site)
    windows.leave([window])
    return found


@pytest.mark.parametrize(
    "state",
    [
        "#task=nonsense&language=xx&model=gamma&setting=no&family=witch&sort=nothing&way=turned&columns=no",
        "#task=__proto__&sort=constructor&language=%00",
        "#=&&&=%E0%A4%A&q=",
    ],
)
def test_unknown_values_in_the_address_are_ignored(visit, site, opening_rows, state):
    page = visit(state=state)
    assert ranking(page, site) == opening_rows
    assert page.locator(f"#{site.board.id}-ranking [aria-sort]").count() == 0
    assert all(page.locator(f"form.filters [name={name}]").input_value() == "" for name in FILTERS[1:])
    assert picked(page) == []


def test_a_new_address_and_the_way_back_are_followed(visit, site):
    page = visit()
    before = ranking(page, site)
    page.evaluate("location.hash = '#task=topic&family=baseline'")
    page.wait_for_function("() => document.querySelector('[name=task]').value === 'topic'")
    assert set(ids(ranking(page, site))) == expected_rows(site, FILTERED["family=baseline&model=beta"]) | {
        name
        for name, row in site.board.result_set.entries.items()
        if row_kind(row.entry) == "baseline" and row.entry.model.name == "alpha"
    }
    page.go_back()
    page.wait_for_function("() => document.querySelector('[name=task]').value === ''")
    assert ranking(page, site) == before


def test_an_anchor_leaves_the_filters_as_they_are(visit, site):
    page = visit(state="#task=topic&family=steering&sort=gain")
    before = ranking(page, site)
    page.get_by_role("navigation").get_by_role("link", name="Downloads").click()
    page.wait_for_function("() => location.hash === '#downloads'")
    assert page.locator("#downloads").evaluate(
        "async node => { await new Promise((done) => setTimeout(done, 50)); return node.checkVisibility(); }"
    )
    assert ranking(page, site) == before
    assert page.locator("[name=task]").input_value() == "topic"


def test_a_link_to_a_row_finds_it(visit, site):
    name = site.board.standings.rows[3].row.id
    page = visit(state=f"#{site.board.id}-{name}")
    assert page.locator("tr:target").get_attribute("data-entry") == name
    assert len(ranking(page, site)) == len(site.board.standings.rows)


def test_copy_link_gives_the_address_with_its_state(visit, site):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    choose(page, task="topic")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == site.address(state="#task=topic")


def test_two_boards_on_a_page_keep_their_states_apart(visit, tmp_path):
    runs = [small_run(tmp_path / name, name, ("am", "he")).path for name in ("one", "two")]
    out = build_site(runs, tmp_path / "out")
    page = visit(out.as_uri())
    sections = page.locator("section.board")
    assert sections.count() == 2
    second = sections.nth(1)
    pick(second, "he")
    second.locator("[name=family]").select_option("steering")
    name = second.get_attribute("id")
    assert hash_of(page) == f"#board={name}&language=he&family=steering"
    fresh = visit(out.as_uri() + hash_of(page))
    shown = fresh.locator("section.board").evaluate_all(
        "boards => boards.map((board) => [...board.querySelectorAll('.ranking tbody tr')]"
        ".filter((row) => row.checkVisibility()).length)"
    )
    assert shown == [2, 1]
