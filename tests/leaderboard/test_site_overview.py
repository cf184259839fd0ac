"""The overview in a real browser: what a choice of languages changes, plots by geometry, columns, notes."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from support.browsing import Site, change_state, hash_of, pick, picked, rows
from support.toyruns import F1
from support.toysite import LANGUAGES

from harness.ranking.summary import format_interval, format_number, format_signed
from leaderboard.build import SiteInfo, index_page, view_of
from leaderboard.views.slices import headline

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}


def said(page: Any, query: str) -> str:
    return " ".join(page.locator(query).first.text_content().split())


# The headline and the rules


def test_a_choice_changes_the_headline_and_the_rules(visit, site):
    page, names = visit(), {"am": "Amharic", "he": "Hebrew"}
    for task, code in (("", ""), ("topic", ""), ("", "am"), ("sentiment", "he")):
        change_state(page, f"#task={task}&language={code}")
        words = headline(site.board, site.board.slice(task or None, code or None))
        part = " in ".join(filter(None, [task, names.get(code, "")]))
        part = f" ({part})" if part else ""
        question = "Is any steering better than zero-shot?"
        assert said(page, ".sentence p") == f"{question} {words.verdict}{part}: {words.words}"
        assert said(page, ".lead-entry") == words.ranking
        assert said(page, ".rules") == f"{words.rules} {words.note}".strip()
        marked = page.locator("tr:has(.dagger)").evaluate_all("rows => rows.map((row) => row.dataset.entry)")
        assert sorted(marked) == sorted(words.marked)


def test_an_interval_beside_the_tier_of_zero_shot_is_explained_and_saved_without_its_mark(visit, site):
    page = visit(state="#task=topic&language=he")
    field = site.board.slice("topic", "he")
    sign = page.locator(".dagger").first
    name = sign.evaluate("node => node.closest('tr').dataset.entry")
    gain = field.gains[name]
    assert gain.low > 0 or gain.high < 0
    assert field.tiers[name] == field.tiers[site.board.zero_shot[name]]
    sign.focus()
    tip = page.get_by_role("tooltip").text_content()
    count = len(field.tiers)
    assert tip == (
        "† The interval excludes 0 although the entry shares the tier of zero-shot: tiers are corrected for "
        f"{count * (count - 1) // 2} comparisons, intervals are not."
    )
    row = page.locator("tr:has(.dagger)").first
    saved = page.evaluate(f"Saving.rows(document.getElementById('{site.board.id}-ranking'))")
    gains = [line[saved[0].index("gain over zero-shot")] for line in saved[1:]]
    assert row.locator(".k-gain .figure").text_content() in gains, "saved without the mark"


def test_only_steering_is_asked_about(site):
    field = site.board.slice()
    words = headline(site.board, field)
    compared = [
        row.row.name
        for row in site.board.standings.rows
        if row.row.id in field.gains and not row.flags and row.row.entry.method.name in WRITERS
    ]
    assert len(compared) == 7
    assert "copier" not in words.words
    assert f"corrected for {len(compared)} compared entries" in words.words


WRITERS = {"language", "quality", "clas", "=1+1"}


# Several languages at once


def test_several_languages_show_their_mean_without_interval_and_say_so(visit, site):
    page = visit()
    pick(page, "am", "he")
    assert hash_of(page) == "#language=am%2Che"
    found = rows(page, f"{site.board.id}-ranking")
    assert len(found) == len(site.board.standings.rows)
    fields = [site.board.slice(language=code) for code in ("am", "he")]
    shown = 0
    for row in found:
        name = row["id"]
        gains = [field.gains.get(name) for field in fields]
        mean = sum(gain.mean for gain in gains) / 2 if all(gains) else None
        assert row["gain"] == format_signed(mean)
        whole = [field.mean[field.position[name]] for field in fields if name in field.position]
        assert row[F1.name] == format_number(sum(whole) / 2 if len(whole) == 2 else None)
        assert row["tier"] in ("–", "flag")
        shown += mean is not None
    assert shown > 10
    assert "intervals and tiers are computed for one language or for all" in said(page, ".sentence p")
    assert said(page, ".sentence .part") == "(Amharic, Hebrew)"
    assert said(page, ".pick summary") == "2 languages"
    assert "no interval, no tier" in said(page, ".rules")
    assert page.locator(".ranking .strip .span, .ranking .dagger").count() == 0
    fresh = visit(state=hash_of(page))
    assert picked(fresh) == ["am", "he"]
    assert rows(fresh, f"{site.board.id}-ranking") == found


def test_a_language_with_more_tasks_weighs_more(visit, site):
    page = visit()
    page.evaluate("for (const scope of overviews[0].data.scopes) scope.cells = scope.language === 'am' ? 6 : 2;")
    pick(page, "am", "he")
    gains = [site.board.slice(language=code).gains for code in ("am", "he")]
    shown = {row["id"]: row["gain"] for row in rows(page, f"{site.board.id}-ranking")}
    [name] = [name for name, row in site.board.result_set.entries.items() if row.name == "quality, alpha"]
    assert shown[name] == format_signed((6 * gains[0][name].mean + 2 * gains[1][name].mean) / 8)
    assert shown[name] != format_signed((gains[0][name].mean + gains[1][name].mean) / 2)


@pytest.mark.parametrize("codes", [["he"], ["am", "he"]])
def test_a_task_that_a_language_does_not_have_shows_no_number(visit, site, codes):
    page = visit()
    page.evaluate(
        "() => { const data = overviews[0].data; data.scopes = data.scopes"
        ".filter((scope) => scope.task !== 'topic' || scope.language !== 'he'); }"
    )
    page.locator("[name=task]").select_option("topic")
    pick(page, *codes)
    found = rows(page, f"{site.board.id}-ranking")
    assert {row["gain"] for row in found} == {row[F1.name] for row in found} == {"–"}
    assert "does not have this task in every language that is chosen" in said(page, ".sentence p")
    assert page.locator("svg.plot a.point").count() == 0


def test_all_languages_are_the_whole_and_one_is_that_language(visit, site):
    page = visit()
    whole = rows(page, f"{site.board.id}-ranking")
    pick(page, "am", "he")
    pick(page, *LANGUAGES)
    assert rows(page, f"{site.board.id}-ranking") == whole
    assert said(page, ".pick summary") == "all"
    pick(page, "he")
    gains = {row["id"]: row["gain"] for row in rows(page, f"{site.board.id}-ranking")}
    field = site.board.slice(language="he")
    assert gains == {name: format_interval(field.gains.get(name)) for name in gains}


# Plots

GEOMETRY = """(query) => [...document.querySelectorAll(query)].map((svg) => {
  const at = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left, box.top, box.right, box.bottom];
  };
  const texts = (query) => [...svg.querySelectorAll(query)].map((node) => [node.textContent, ...at(node)]);
  const dots = [...svg.querySelectorAll(".point .dot")].map(at);
  return { frame: at(svg), names: texts(".point text"), dots, ticks: texts(".tick, .title") };
})"""


def overlap(one: list[float], other: list[float], slack: float) -> bool:
    return (
        one[0] < other[2] - slack
        and other[0] < one[2] - slack
        and one[1] < other[3] - slack
        and other[1] < one[3] - slack
    )


@pytest.mark.parametrize(
    ("states", "options"),
    [
        (["", "#task=topic&language=he", "#language=am,da"], {"viewport": {"width": 1400, "height": 900}}),
        ([""], {"viewport": {"width": 1000, "height": 900}}),
        ([""], {"java_script_enabled": False}),
        ([""], PHONE),
    ],
)
def test_no_label_of_a_plot_lies_on_another_on_a_point_or_outside(visit, states, options):
    page = visit(**options)
    for state in states:
        if state:
            change_state(page, state)
        check_labels(page)


def check_labels(page: Any) -> None:
    plots = page.evaluate(GEOMETRY, "svg.plot")
    assert len(plots) == 2
    for plot in plots:
        assert len(plot["names"]) >= 8
        slack = 2.0  # pixels: the box of a text is higher than its letters
        for i, (name, *box) in enumerate(plot["names"]):
            assert not [other for other in plot["names"][:i] if overlap(box, other[1:], slack)], name
            assert not [dot for dot in plot["dots"] if overlap(box, dot, 1.0)], name
            assert not [tick for tick in plot["ticks"] if overlap(box, tick[1:], slack)], name
            assert box[0] >= plot["frame"][0] - 1, name
            assert box[2] <= plot["frame"][2] + 1, name
        for (name, *box), (other, *beside) in itertools.combinations(plot["ticks"], 2):
            assert not overlap(box, beside, slack), (name, other)


def test_points_and_whiskers_of_a_part_lie_where_its_numbers_are(visit, site):
    page = visit(state="#language=he")
    field = site.board.slice(language="he")
    svg = page.locator(f"#{site.board.id}-cost svg.plot")
    ticks = svg.locator(".tick[text-anchor=end]").evaluate_all(
        "nodes => nodes.map((node) => [node.textContent, Number(node.getAttribute('y')) - 4])"
    )
    (low, bottom), (high, top) = ((float(text.replace("−", "-")), y) for text, y in (ticks[0], ticks[-1]))

    def pixel(value: float) -> float:
        return bottom + (min(max(value, low), high) - low) / (high - low) * (top - bottom)

    drawn = svg.locator("a.point.steering").evaluate_all(
        "nodes => nodes.map((node) => [node.ariaLabel, node.querySelector('circle').getAttribute('cy'),"
        " node.querySelector('.span').getAttribute('d')])"
    )
    by_name = {site.board.result_set.entries[name].name: gain for name, gain in field.gains.items()}
    assert len(drawn) == 7
    for words, y, whisker in drawn:
        name, _, rest = words.partition(": ")
        gain = by_name[name]
        assert rest.endswith(f"gain {format_interval(gain)}")
        assert float(y) == pytest.approx(pixel(gain.mean), abs=0.1)
        ends = whisker.removeprefix("M").split("M")[0].split(" ")[1].split("V")
        assert [float(end) for end in ends] == pytest.approx([pixel(gain.low), pixel(gain.high)], abs=0.1)
    assert page.locator(".of-all").first.is_visible()


def test_without_a_choice_the_script_draws_the_plot_of_the_build(visit, site):
    labels = "nodes => nodes.map((node) => node.getAttribute('aria-label')).sort()"
    still, page = visit(java_script_enabled=False), visit()
    for kind in ("diversity", "cost"):
        query = f"#{site.board.id}-{kind} a.point"
        assert page.locator(query).evaluate_all(labels) == still.locator(query).evaluate_all(labels)
        front = f"#{site.board.id}-{kind} a.best"
        assert page.locator(front).evaluate_all(labels) == still.locator(front).evaluate_all(labels)


# Columns


def clipped(page: Any, site: Site) -> int:
    """Return by how many pixels the ranking is wider than what is seen of it."""
    return page.locator(f".scroll:has(#{site.board.id}-ranking)").evaluate(
        "node => node.scrollWidth - node.clientWidth"
    )


@pytest.mark.parametrize(
    ("width", "states"), [(1400, [""]), (1000, ["", "#language=he"]), (390, ["", "#language=am,he"])]
)
def test_no_usual_column_is_clipped(visit, site, width, states):
    page = visit(viewport={"width": width, "height": 900})
    for state in states:
        if state:
            change_state(page, state)
        assert clipped(page, site) == 0
        shown = set(rows(page, f"{site.board.id}-ranking")[0])
        assert {"tier", "entry", "gain"} <= shown
        assert width < 1000 or {F1.name, "vendi/tfidf"} <= shown
        if width == 390:
            assert "default columns do not fit this screen" in said(page, ".fitted")


def test_columns_can_be_chosen_and_the_choice_is_in_the_address(visit, site):
    page = visit(viewport={"width": 1000, "height": 900})
    page.locator(".columns summary").click()
    page.locator(".columns").get_by_label("Borda").check()
    page.locator(".columns").get_by_label("Vendi").uncheck()
    shown = set(rows(page, f"{site.board.id}-ranking")[0])
    assert "borda" in shown
    assert "vendi/tfidf" not in shown
    fresh = visit(state=hash_of(page), viewport={"width": 1000, "height": 900})
    assert set(rows(fresh, f"{site.board.id}-ranking")[0]) == shown
    fresh.get_by_label("all columns").check()
    assert {"borda", "vendi/tfidf", "date"} <= set(rows(fresh, f"{site.board.id}-ranking")[0])
    assert "columns=all" in hash_of(fresh)
    fresh.get_by_label("all columns").uncheck()
    assert "borda" not in rows(fresh, f"{site.board.id}-ranking")[0]
    assert "columns" not in hash_of(fresh)


def test_where_nothing_fits_the_filter_no_empty_table_stands(visit, site):
    page = visit(state="#q=no such method")
    assert page.locator("table").filter(visible=True).count() == 0
    assert "no entry fits" in said(page, ".count")


# Numbers


def test_the_script_writes_numbers_as_python_does(visit):
    page = visit()
    values = [0.0, -0.0, 0.0004, -0.0004, 0.0006, -0.0006, -1.25, 12.0, None]
    assert page.evaluate("values => values.map((value) => Figures.signed(value))", values) == [
        format_signed(value) for value in values
    ]
    assert page.evaluate("values => values.map((value) => Figures.plain(value))", values) == [
        format_number(value) for value in values
    ]


def test_no_page_shows_a_signed_zero(site):
    for path in site.pages():
        text = path.read_text(encoding="utf-8")
        for sign in "+−":
            for zero in ("0.000", "0.00", "0.0"):
                for before, after in itertools.product(">[ ", "<,] "):
                    assert f"{before}{sign}{zero}{after}" not in text, path.name


# What is known of entries


def test_a_note_on_an_entry_opens_in_its_row(visit, site, tmp_path):
    board, note = site.board, "seeds are <b>correlated</b>; הערה"
    first, *others = board.standings.rows
    noted = dataclasses.replace(board.standings, rows=[dataclasses.replace(first, note=note), *others])
    info = SiteInfo("2026-01-02", "0")
    view = view_of(dataclasses.replace(board, standings=noted), [], [], info)
    path = tmp_path / "index.html"
    path.write_text(index_page([view], info)[1], encoding="utf-8")
    page = visit(path.as_uri())
    assert page.locator(".notes summary").all_text_contents() == ["1 note"]
    row = page.locator(f"#{board.id}-{first.row.id}")
    row.locator(".notes summary").focus()
    page.keyboard.press("Enter")
    assert row.locator(".notes li").all_text_contents() == [note]
    assert row.locator(".notes li").is_visible()
    pick(page, "he")
    assert row.locator(".notes li").is_visible(), "still open"
