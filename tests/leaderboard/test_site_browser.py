"""The site in a real browser: sorting, filters, addresses, pairs, texts, downloads, keys."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browsing import READ, Site, hash_of, pick, picked, rows
from support.toyruns import F1
from support.toysite import FORMULA, LANGUAGES, SEEDS, TASKS, TEXTS, small_run

from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.slices import Slice
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_interval, format_number, format_signed, tier_of
from leaderboard.boards import row_kind
from leaderboard.build import build_site
from leaderboard.views.compare import slice_name

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

FILTERS = ("q", "task", "model", "setting", "family")
ORDER = re.compile(r"[+−]?[\d,]+(?:\.\d+)?(?:/\d+)?")
TEXT_COLUMNS = {"entry", "badge", "date"}


def ranking(page: Any, site: Site) -> list[dict[str, str]]:
    return rows(page, f"{site.board.id}-ranking")


def ids(found: list[dict[str, str]]) -> list[str]:
    return [row["id"] for row in found]


def column(page: Any, site: Site, key: str) -> Any:
    return page.locator(f"#{site.board.id}-ranking th[data-key='{key}']")


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


def choose(page: Any, **values: str) -> None:
    """Set filters of the first board."""
    form = page.locator("form.filters").first
    for name, value in values.items():
        if name == "q":
            form.locator("[name=q]").fill(value)
        elif name == "language":
            pick(form, *value.split(","))
        else:
            form.locator(f"[name={name}]").select_option(value)


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


def test_the_first_click_brings_the_better_end_to_the_top(visit, site):
    page = visit()
    for key, way in (("tier", "ascending"), (F1.name, "descending"), ("seconds", "ascending")):
        column(page, site, key).locator("button").click()
        assert column(page, site, key).get_attribute("aria-sort") == way


def test_names_sort_as_words_and_back(visit, site):
    page = visit()
    button = column(page, site, "entry").locator("button")
    button.click()
    up = ids(ranking(page, site))
    named = [site.board.cellset.entries[name].name for name in up]
    assert named[0].startswith(FORMULA)
    methods = [name.split(",")[0].split(" ")[0] for name in named[1:]]
    assert methods == sorted(methods)
    button.click()
    assert ids(ranking(page, site)) == up[::-1]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_header_sorts_by_keyboard_and_keeps_the_focus(visit, site, key):
    page = visit()
    head = column(page, site, "gain")
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
    return {name for name, row in site.board.cellset.entries.items() if keep(row)}


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


@pytest.mark.parametrize("words", FILTERED)
def test_filters_of_rows_agree_with_python_and_the_grid_follows(visit, site, words):
    page = visit()
    choose(page, **dict(pair.split("=", 1) for pair in words.split("&")))
    wanted = expected_rows(site, FILTERED[words])
    assert wanted
    assert set(ids(ranking(page, site))) == wanted
    assert set(ids(rows(page, f"{site.board.id}-languages"))) == wanted
    total = len(site.board.cellset.entries)
    said = page.locator(".count").first.text_content()
    assert said == f"{len(wanted)} of {total} entries; tiers and corrections stay those of all"


def test_a_filter_of_rows_changes_no_number(visit, site):
    page = visit()
    before = {row["id"]: row for row in ranking(page, site)}
    choose(page, family="steering", model="beta")
    found = ranking(page, site)
    assert found
    assert all(row == before[row["id"]] for row in found)


def test_nothing_found_says_so_and_reset_brings_all_back(visit, site):
    page = visit()
    before = ranking(page, site)
    column(page, site, F1.name).locator("button").click()
    choose(page, q="no such method", task="topic", language="he", family="control")
    assert ranking(page, site) == []
    assert "no entry fits: reset the filters" in page.locator(".count").first.text_content()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("location.hash === ''")
    assert ranking(page, site) == before
    assert page.locator(".count").first.text_content() == f"{len(before)} entries"
    assert page.locator(f"#{site.board.id}-ranking [aria-sort]").count() == 0


def mean_by_hand(site: Site, name: str, task: str | None, code: str | None) -> float | None:
    """Return the plain mean of the scores as they were read, None where a cell of the scope lacks one."""
    lines = site.board.cellset.scores
    lines = lines[(lines["metric"] == F1.name) & (lines["entry"] == name)]
    for axis, value in (("task", task), ("language", code)):
        lines = lines[lines[axis] == value] if value else lines
    wanted = (1 if task else len(TASKS)) * (1 if code else len(LANGUAGES)) * len(SEEDS)
    values = lines["value"].dropna()
    return float(values.mean()) if len(values) == wanted else None


def gain_of(site: Site, scope: Any, name: str) -> Estimate | None:
    """Return an entry's gain over zero-shot in a scope, as the ranking computes it."""
    found = site.board.slice(scope.task, scope.language)
    return pair(found, name, site.board.zero_shot.get(name, ""))


def pair(found: Any, a: str, b: str) -> Estimate | None:
    if a not in found.entries or b not in found.entries:
        return None
    i, j = found.entries.index(a), found.entries.index(b)
    mean, half = float(found.difference[i, j]), float(found.ci_half_width[i, j])
    return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def test_task_and_language_show_the_numbers_that_python_computes(visit, site):
    page = visit()
    whole, axis = ranking(page, site), column(page, site, "gain").locator(".axis").inner_html()
    parts = [*itertools.product((None, *TASKS), (None, *LANGUAGES))][1:]
    for task, code in parts:
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


@pytest.mark.parametrize("task", TASKS)
def test_a_task_shows_what_standings_of_that_task_say(visit, site, task):
    page = visit(state=f"#task={task}")
    found = {row["id"]: row for row in ranking(page, site)}
    told = rank_entries(site.board.cellset, F1, [task])
    assert len(found) == len(told.rows)
    for standing in told.rows:
        row = found[standing.row.id]
        assert row[F1.name] == format_number(standing.mean.mean if standing.mean else None)
        gain = standing.over_zero_shot
        assert row["gain"].split(" ")[0] == format_signed(gain.mean if gain else None)
        assert row["tier"] == tier_of(standing)


def test_the_whole_shows_what_standings_say(visit, site):
    page = visit()
    told = site.board.standings.rows
    found = ranking(page, site)
    assert ids(found) == [row.row.id for row in told]
    for row, standing in zip(found, told, strict=True):
        assert row["gain"] == format_interval(standing.over_zero_shot)
        assert row["tier"] == tier_of(standing)
        assert row["cells"] == f"{standing.present}/{standing.expected}"
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
        reference = site.board.cellset.entries[name].entry.model is None
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


@pytest.mark.parametrize(
    "state",
    [
        "#task=nonsense&language=xx&model=gamma&setting=no&family=witch&sort=nothing&way=turned&columns=no",
        "#task=__proto__&sort=constructor&language=%00",
        "#=&&&=%E0%A4%A&q=",
    ],
)
def test_unknown_values_in_the_address_are_ignored(visit, site, state):
    page, plain_page = visit(state=state), visit()
    assert ranking(page, site) == ranking(plain_page, site)
    assert page.locator(f"#{site.board.id}-ranking [aria-sort]").count() == 0
    assert all(page.locator(f"form.filters [name={name}]").input_value() == "" for name in FILTERS[1:])
    assert picked(page) == []


def test_a_new_address_and_the_way_back_are_followed(visit, site):
    page = visit()
    before = ranking(page, site)
    page.evaluate("location.hash = '#task=topic&family=baseline'")
    page.wait_for_function("document.querySelector('[name=task]').value === 'topic'")
    assert set(ids(ranking(page, site))) == expected_rows(site, FILTERED["family=baseline&model=beta"]) | {
        name
        for name, row in site.board.cellset.entries.items()
        if row_kind(row.entry) == "baseline" and row.entry.model.name == "alpha"
    }
    page.go_back()
    page.wait_for_function("document.querySelector('[name=task]').value === ''")
    assert ranking(page, site) == before


def test_an_anchor_leaves_the_filters_as_they_are(visit, site):
    page = visit(state="#task=topic&family=steering&sort=gain")
    before = ranking(page, site)
    page.get_by_role("navigation").get_by_role("link", name="Downloads").click()
    page.wait_for_function("location.hash === '#downloads'")
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


# Head to head


def comparison_rows(page: Any) -> list[list[str]]:
    return page.locator("#comparison tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )


def comparison_expected(site: Site, a: str, b: str) -> list[tuple[str, str, str, Estimate | None]]:
    scopes = [*(Slice(task, None) for task in TASKS), *(Slice(None, code) for code in LANGUAGES)]
    found = []
    for scope in scopes:
        levels = [format_number(mean_by_hand(site, name, scope.task, scope.language)) for name in (a, b)]
        found.append((slice_name(scope), *levels, pair(site.board.slice(scope.task, scope.language), a, b)))
    return found


def holm_by_hand(values: list[float]) -> list[float]:
    """Return p-values adjusted by Holm, one by one: the k-th smallest of n times n - k + 1."""
    order, highest, adjusted = sorted(range(len(values)), key=lambda i: values[i]), 0.0, [0.0] * len(values)
    for k, i in enumerate(order):
        highest = max(highest, min(1.0, values[i] * (len(values) - k)))
        adjusted[i] = highest
    return adjusted


def corrected(fields: list[Any], a: str, b: str) -> list[float | None]:
    """Return p of a pair in some scopes, by Holm over all pairs that are known in any of them."""
    tests = [
        (k, one, other, float(field.pair_p[i, j]))
        for k, field in enumerate(fields)
        for i, one in enumerate(field.entries)
        for j, other in enumerate(field.entries)
        if i < j and field.pair_p[i, j] == field.pair_p[i, j]
    ]
    found = dict.fromkeys(range(len(fields)))
    adjusted = holm_by_hand([p for *_, p in tests])
    for (k, one, other, _), p in zip(tests, adjusted, strict=True):
        if {one, other} == {a, b}:
            found[k] = p
    return list(found.values())


def ends(text: str) -> list[float]:
    return [float(part.replace("−", "-")) for part in re.findall(r"[+−]\d\.\d{3}", text)]


def entries_named(site: Site, *names: str) -> list[str]:
    by_name = {row.name: name for name, row in site.board.cellset.entries.items()}
    return [by_name[name] for name in names]


PAIRS = [
    ("quality, alpha", "zero-shot, alpha"),
    ("random of language, beta", "quality, beta"),
    ("few-shot, beta", "human"),
    ("clas, beta", "constant"),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_a_deep_link_shows_the_pair_with_pythons_numbers(visit, site, left, right):
    a, b = entries_named(site, left, right)
    page = visit("compare.html", f"#a={a}&b={b}")
    assert page.locator("[name=a]").input_value() == a
    assert page.locator("[name=b]").input_value() == b
    shown, wanted = comparison_rows(page), comparison_expected(site, a, b)
    assert len(shown) == len(wanted) == 5
    single = [(task, None) for task in TASKS] + [(None, code) for code in LANGUAGES]
    chances = corrected([site.board.slice(*scope) for scope in single], a, b)
    words = []
    for (where, at_a, at_b, difference, p, said), (name, level_a, level_b, found), chance in zip(
        shown, wanted, chances, strict=True
    ):
        assert (where, at_a, at_b) == (name, level_a, level_b)
        assert difference.split(" ")[0] == format_signed(found.mean if found else None)
        if chance is None:
            assert (p, said) == ("–", "no interval" if found else "not measured")
        else:
            side = "A better" if found.mean > 0 else "B better"
            assert said == (side if chance <= 0.05 else "inconclusive")
            assert float(p.removeprefix("≤ ")) == pytest.approx(chance, abs=0.00101 if chance <= 0.1 else 0.0101)
        if found and found.low is not None:
            assert ends(difference) == pytest.approx([found.mean, found.low, found.high], abs=0.00056)
        words.append(said)
    told = page.locator("#verdict").text_content()
    over = page.locator("#comparison-metrics tbody tr").first.locator("td").last.text_content()
    assert left in told or over == "not measured"
    assert f"A better in {words.count('A better')}, B better in {words.count('B better')}" in told
    if over == "B better":
        assert told.startswith(f"Overall: {right} is better than {left}.")


def test_swapping_turns_signs_and_verdicts(visit, site):
    a, b = entries_named(site, "quality, alpha", "zero-shot, alpha")
    page = visit("compare.html", f"#a={a}&b={b}")
    before = comparison_rows(page)
    page.get_by_role("button", name="Swap A and B").click()
    assert hash_of(page) == f"#a={b}&b={a}"
    turned = {"A better": "B better", "B better": "A better"}
    for old, new in zip(before, comparison_rows(page), strict=True):
        assert new[:3] == [old[0], old[2], old[1]]
        mean, low, high = ends(old[3])
        assert ends(new[3]) == pytest.approx([-mean, -high, -low])
        assert new[4] == old[4]
        assert new[5] == turned.get(old[5], old[5])


def test_an_entry_against_itself_asks_for_another(visit, site):
    [a] = entries_named(site, "quality, alpha")
    page = visit("compare.html", f"#a={a}&b={a}")
    assert page.locator("#verdict").text_content() == "Choose two different entries."
    assert {row[5] for row in comparison_rows(page)} == {"inconclusive"}


def test_the_script_shows_what_the_page_was_built_with(visit, site):
    still = visit("compare.html", java_script_enabled=False)
    page = visit("compare.html")
    without, shown = comparison_rows(still), comparison_rows(page)
    assert [row[:3] + row[4:] for row in without] == [row[:3] + row[4:] for row in shown]
    for old, new in zip(without, shown, strict=True):
        assert ends(old[3]) == pytest.approx(ends(new[3]), abs=0.0011)
    assert still.locator("#verdict").text_content() == page.locator("#verdict").text_content()
    metrics = [other.locator("#comparison-metrics").inner_text() for other in (still, page)]
    assert metrics[0] == metrics[1]


def test_choosing_a_pair_lands_in_the_address_and_back_restores(visit, site):
    a, b = entries_named(site, "few-shot, beta", "human")
    page = visit("compare.html")
    opening = comparison_rows(page)
    page.evaluate(f"location.hash = '#a={a}&b={b}'")
    page.wait_for_function("document.querySelector('[name=b]').value === location.hash.split('b=')[1]")
    assert comparison_rows(page) != opening
    page.go_back()
    page.wait_for_function("location.hash === ''")
    page.wait_for_function("document.querySelector('#comparison tbody td').textContent !== ''")
    assert comparison_rows(page) == opening
    page.locator("[name=a]").select_option(a)
    assert f"a={a}" in hash_of(page)
    assert comparison_rows(visit("compare.html", "#a=nobody&b=toString")) == opening


# Texts


def texts_shown(page: Any) -> dict[tuple[str, str], list[str]]:
    """Return (heading of a block, entry) -> its texts, from left to right as they stand on the screen."""
    found = page.evaluate(
        """() => [...document.querySelectorAll(".block")].filter((block) => block.checkVisibility())
          .flatMap((block) => [...block.querySelectorAll("article")].filter((one) => one.checkVisibility())
          .map((one) => [block.querySelector("h2").textContent.trim(), one.dataset.entry,
            one.getBoundingClientRect().left, [...one.querySelectorAll("p")].map((p) => p.textContent)]))"""
    )
    return {(heading, entry): texts for heading, entry, _, texts in sorted(found, key=lambda it: (it[0], it[2]))}


def test_two_entries_stand_side_by_side_with_the_same_label_and_seed(visit, site):
    a, b = entries_named(site, "quality, beta", "human")
    page = visit("samples-am.html")
    page.locator("[name=a]").select_option(a)
    page.locator("[name=b]").select_option(b)
    page.locator("[name=task]").select_option("topic")
    page.locator("[name=seed]").select_option("2")
    found = texts_shown(page)
    assert [entry for _, entry in found] == [a, b, a, b]
    assert {heading for heading, _ in found} == {"topic: sport seed 2", "topic: health seed 2"}
    first, second = TEXTS["am", "sport"]
    assert found["topic: sport seed 2", a] == [f"{first} [quality 2]", second]
    assert found["topic: sport seed 2", b] == [f"{first} [human 2]", second]
    assert hash_of(page) == f"#a={a}&b={b}&task=topic&seed=2"
    fresh = visit("samples-am.html", hash_of(page))
    assert texts_shown(fresh) == found


def test_all_entries_can_be_read_at_once(visit, site):
    page = visit("samples-he.html")
    page.get_by_label("all entries").check()
    found = texts_shown(page)
    assert len({entry for _, entry in found}) == len(site.board.cellset.entries)
    assert {heading.split(" ")[-1] for heading, _ in found} == {"1"}
    assert page.locator("[name=a]").is_disabled()
    assert "all=1" in hash_of(page)
    fresh = visit("samples-he.html", hash_of(page))
    assert texts_shown(fresh) == found
    fresh.get_by_label("all entries").uncheck()
    assert len({entry for _, entry in texts_shown(fresh)}) == 2
    assert fresh.locator("[name=a]").is_enabled()


def test_unknown_values_in_the_address_of_texts_are_ignored(visit):
    opening = texts_shown(visit("samples-da.html"))
    assert texts_shown(visit("samples-da.html", "#a=nobody&b=x&task=none&seed=99&all=no")) == opening


@pytest.mark.parametrize(("code", "way"), [("am", "ltr"), ("he", "rtl"), ("da", "ltr")])
def test_texts_carry_their_language_and_run_their_way(visit, code, way):
    page = visit(f"samples-{code}.html")
    shown = page.locator(".sample p").evaluate_all(
        "nodes => nodes.map((node) => [node.lang, node.dir, getComputedStyle(node).direction,"
        " getComputedStyle(node).textAlign])"
    )
    assert {tuple(item[:3]) for item in shown} == {(code, way, way)}
    assert {item[3] for item in shown} == {"start"}
    heading = page.locator("h1 bdi")
    assert (heading.get_attribute("lang"), heading.get_attribute("dir")) == (code, way)


def test_hebrew_starts_at_the_right_edge(visit):
    page = visit("samples-he.html")
    left, right, box_left, box_right = page.locator(".sample p").filter(visible=True).nth(1).evaluate(
        """node => { const range = document.createRange(); range.selectNodeContents(node);
          const text = range.getBoundingClientRect(), box = node.getBoundingClientRect();
          return [text.left, text.right, box.left, box.right]; }"""
    )  # fmt: skip
    assert right == pytest.approx(box_right, abs=1)
    assert left > box_left + 20


@pytest.mark.parametrize(("code", "script", "letters"), [("am", "Ethi|Abyss", 20), ("he", "Hebr", 15)])
def test_letters_come_from_a_font_that_has_them(browser, site, code, script, letters):
    page = browser.new_page()  # not watched: from Chromium 150 on, the inspector itself asks for the page's style sheet
    page.goto(site.address(f"samples-{code}.html", ""))
    devtools = page.context.new_cdp_session(page)
    devtools.send("DOM.enable")
    devtools.send("CSS.enable")
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    node = devtools.send("DOM.querySelector", {"nodeId": root, "selector": ".sample p"})["nodeId"]
    fonts = devtools.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    if not any(re.search(script, font["familyName"]) for font in fonts):
        pytest.skip(f"NO FONT for {code} on this machine: {fonts}")
    assert sum(font["glyphCount"] for font in fonts if re.search(script, font["familyName"])) >= letters
    page.close()


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_copied_text_is_exactly_the_text(visit, site, code):
    page = visit(f"samples-{code}.html", "#seed=3&task=sentiment", permissions=["clipboard-read", "clipboard-write"])
    sample = page.locator(".sample").filter(visible=True).nth(1)
    button = sample.get_by_role("button")
    button.click()
    page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
    button.click()
    assert page.evaluate("navigator.clipboard.readText()") == TEXTS[code, "negative"][1]
    page.wait_for_function("button => button.textContent === 'Copy'", arg=button.element_handle())


def test_a_command_is_copied_ready_for_a_shell(visit):
    page = visit("method-language.html", permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy", exact=True).first
    button.click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("steerboard run --suite toy --model alpha")
    assert "\n" not in copied


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
    part = visit(state="#columns=all&task=topic")
    head, *_ = csv.reader(io.StringIO(saved(part, "CSV", tmp_path)[1], newline=""))
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


def test_json_holds_the_same_rows(visit, site, tmp_path):
    page = visit(state="#family=baseline&task=topic")
    name, text = saved(page, "JSON", tmp_path)
    found = json.loads(text)
    shown = ranking(page, site)
    assert name.endswith(".json")
    assert [row["gain over zero-shot"] for row in found] == [row["gain"] for row in shown]
    assert [row["tier"] for row in found] == [row["tier"] for row in shown]
    assert all("few-shot" in row["entry"] or "zero-shot" in row["entry"] for row in found)


def test_latex_is_a_table_with_its_signs_escaped(visit, site, tmp_path):
    page = visit(state="#family=control")
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


def test_bibtex_is_the_file_of_the_site(visit, site, tmp_path):
    name, text = saved(visit(), "BibTeX", tmp_path)
    assert name.endswith(".bib")
    assert text == (site.folder / "methods.bib").read_text(encoding="utf-8")
    assert "2606.18389" in text


@pytest.mark.parametrize("page", ["compare.html", "language-he.html", "metric-vendi-tfidf.html"])
def test_every_page_saves_its_table(visit, tmp_path, page):
    opened = visit(page)
    head, *lines = csv.reader(io.StringIO(saved(opened, "CSV", tmp_path)[1], newline=""))
    assert len(lines) >= 6
    assert all(len(line) == len(head) for line in lines)
    assert all(name for name in head)


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
    page.wait_for_function("document.activeElement.id === 'main'")
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
