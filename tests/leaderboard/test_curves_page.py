"""Data-size curves on the board: the charts' geometry, the words and tables, and where they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.helpers import jsonl
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.records import Generation
from harness.core.store import Run
from harness.ranking.curves import Curve, CurvePoint, CurveSet
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import Estimate
from leaderboard.boards import Board, boards
from leaderboard.build import build_site
from leaderboard.views.curve_charts import curve_axes, curve_chart
from leaderboard.views.curves import curve_cells, index_curves, language_curves, method_curves

pytest_plugins = ["support.windows"]
SIZES = (10, 20, 50, 100)
SETTINGS = {"metrics": {"curve": {"sizes": list(SIZES), "human": 10, "classifiers": ["tfidf"]}}}
CODES, TASKS = ("am", "he"), ("sentiment", "topic")
HIT = "<script>window.__hit=1</script>"
HEBREW = "שיטה"
LEFT, RIGHT, TOP, BOTTOM = 36, 210, 22, 154  # pixels of the axes


def spread(mean: float, half: float | None = 0.02) -> Estimate:
    return Estimate(mean) if half is None else Estimate(mean, half / 2, 4, mean - half, mean + half)


def line(
    values: dict[int, Estimate | None],
    mixed: dict[int, Estimate | None] | None = None,
    equivalent: Estimate | None = None,
    censored: Any = "",
    entry: str | None = "a",
) -> Curve:
    """Return a curve, whose area is its first value."""
    points = [CurvePoint(n, value, (mixed or {}).get(n)) for n, value in values.items()]
    return Curve(entry, points, points[0].value, equivalent, censored)


HUMAN = line({n: spread(0.5 + 0.2 * math.log10(n / 10), 0.03) for n in SIZES}, entry=None)  # 0.5 to 0.7


# The chart


def test_numbers_lie_where_the_log_axis_says():
    own, human = line({10: Estimate(0.0), 100: Estimate(1.0)}), line({1: Estimate(0.5), 10: Estimate(0.25)})
    found = curve_chart(own, human, curve_axes([own, human]), "10")
    assert found["lines"]["own"] == f"M123.0 {BOTTOM}.0L{RIGHT}.0 {TOP}.0", "10 is the middle between 1 and 100"
    assert found["lines"]["human"] == "M36.0 88.0L123.0 121.0"  # half and a quarter of 132 pixels up
    assert found["dots"] == [(123.0, 154.0), (210.0, 22.0)]
    assert curve_axes([own, human]).ticks == [(36.0, "1"), (123.0, "10"), (210.0, "100")]


def test_the_ticks_of_a_suite_are_its_numbers_of_texts():
    assert curve_axes([HUMAN]).ticks == [(36.0, "10"), (88.4, "20"), (157.6, "50"), (210.0, "100")]
    close = line({n: Estimate(0.5) for n in (10, 11, 12, 100)})
    assert [text for _, text in curve_axes([close]).ticks] == ["10", "100"], "11 and 12 would lie on 10"


def test_a_band_goes_along_its_upper_and_back_along_its_lower_ends():
    own = line({10: Estimate(0.5, low=0.0, high=1.0), 100: Estimate(0.5, low=0.25, high=0.75)})
    found = curve_chart(own, None, curve_axes([own]), "")
    assert found["bands"]["own"] == "M36.0 22.0L210.0 55.0L210.0 121.0L36.0 154.0Z"


def test_the_axis_stays_within_macro_f1_where_an_interval_does_not():
    own = line({10: Estimate(0.5, low=-0.2, high=1.2), 100: Estimate(0.5, low=0.5, high=0.5)})
    axes = curve_axes([own])
    assert (axes.y.start, axes.y.stop) == (0.0, 1.0)
    assert curve_chart(own, None, axes, "")["bands"]["own"] == "M36.0 22.0L210.0 88.0L210.0 88.0L36.0 154.0Z"


def test_one_seed_has_a_line_without_a_band():
    own = line({10: Estimate(0.0), 100: Estimate(1.0)})
    found = curve_chart(own, None, curve_axes([own]), "")
    assert (found["bands"]["own"], found["lines"]["mixed"]) == ("", "")


def test_a_missing_value_breaks_the_line():
    own = line({10: Estimate(0.0), 20: Estimate(0.0), 50: None, 100: Estimate(1.0)})
    found = curve_chart(own, None, curve_axes([own]), "")
    assert found["lines"]["own"] == "M36.0 154.0L88.4 154.0M210.0 22.0"
    assert len(found["dots"]) == 3


def test_a_single_number_of_texts_stands_in_the_middle():
    own = line({50: Estimate(0.5, low=0.0, high=1.0)})
    assert curve_chart(own, None, curve_axes([own]), "")["dots"] == [(123.0, 88.0)]


@pytest.mark.parametrize("ends", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.9, 0.95, 0.1)])
def test_names_at_the_ends_of_lines_never_lie_on_one_another_or_outside(ends):
    low, high = Estimate(0.0), Estimate(1.0)
    own = line({10: low, 100: Estimate(ends[0])}, {10: high, 100: Estimate(ends[1])})
    human = line({10: low, 100: Estimate(ends[2])})
    labels = curve_chart(own, human, curve_axes([own, human]), "10")["labels"]
    assert {label.text for label in labels} == {"synthetic", "10 human + n", "human"}
    heights = [label.y for label in labels]
    assert all(lower - upper >= 13 for upper, lower in pairwise(heights))
    assert min(heights) > TOP
    assert max(heights) <= BOTTOM


def test_a_chart_says_all_its_numbers():
    own = line({10: spread(0.41), 100: spread(0.5)}, {10: spread(0.45)})
    words = curve_chart(own, HUMAN, curve_axes([own, HUMAN]), "10")["words"]
    assert words == (
        "Synthetic: 0.410 at 10, 0.500 at 100. 10 human + n: 0.450 at 10. "
        "Human: 0.500 at 10, 0.560 at 20, 0.640 at 50, 0.700 at 100."
    )


# The board


def made(name: str, equivalent: Estimate | None, censored: str, shift: float = 0.0) -> Curve:
    values = {n: spread(0.45 + shift + 0.1 * math.log10(n / 10)) for n in SIZES}
    return line(values, {n: spread(0.52 + shift) for n in SIZES}, equivalent, censored, name)


def fake(results: ResultSet, classifier: str, task: str | None = None, language: str | None = None) -> CurveSet:
    """Return curves by hand: clas is worth fewer than 10 texts, quality more than 100, language 17, all others 31."""
    special = {
        "clas": (Estimate(10.0, low=10.0, high=10.0), "below"),
        "quality": (Estimate(100.0, low=80.0, high=100.0), "above"),
        "language": (Estimate(17.0), ""),
    }
    shift = {"topic": 0.1}.get(task or "", 0.0) + {"he": 0.2}.get(language or "", 0.0)
    entries = {}
    for name, row in results.entries.items():
        known = special.get(row.entry.method.name, (Estimate(31.2, low=24.4, high=40.0), ""))
        entries[name] = made(name, *known, shift)
    return CurveSet(classifier, HUMAN, entries)


def toy_run(folder: Path, suite: dict[str, Any], more: int = 0) -> Run:
    chosen = selection(CODES, TASKS)
    names = ["zero-shot", "clas", "quality", "language", HIT, HEBREW, "human", *(f"m{i}" for i in range(more))]
    entries = []
    for i, name in enumerate(names):
        entry = toy(name)
        entry.scores[F1] = flat(0.5 + i / 100, chosen)
        entries.append(entry)
    definitions = {task: {code: {"labels": ["a"]} for code in CODES} for task in TASKS}
    named = {"name": "curved", "classifiers": ["tfidf"], "definitions": definitions, **suite}
    run = write_run(folder, entries, chosen, suite=named)
    for name in run.cell_ids():
        row = Generation(index=0, label="a", text="ሰላም שלום", finish_reason="stop")
        jsonl(run.cell(name) / "generations.jsonl", [row.model_dump(mode="json")])
    return run


@pytest.fixture(scope="module", autouse=True)
def curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leaderboard.boards.curves_of", fake)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return toy_run(tmp_path_factory.mktemp("curved") / "run", SETTINGS)


@pytest.fixture(scope="module")
def board(run, curves) -> Board:
    [found] = boards([run])
    return found


@pytest.fixture(scope="module")
def site(run, curves, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curves") / "site"
    build_site([run.path], folder)
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def id_of(board: Board, method: str) -> str:
    [name] = [name for name, row in board.result_set.entries.items() if row.entry.method.name == method]
    return name


def under(board: Board, method: str) -> str:
    """Return what stands under the chart of a method."""
    [panel] = [panel for panel in index_curves(board)["groups"][0]["panels"] if panel["id"] == id_of(board, method)]
    return panel["equivalent"].replace("\N{NO-BREAK SPACE}", " ")


def test_the_human_equivalent_stands_in_words_under_a_chart(board):
    assert under(board, "zero-shot") == "as good as 31 human texts per label [24, 40]"
    assert under(board, "clas") == "as good as fewer than 10 human texts per label", "no interval: it says no more"
    assert under(board, "quality") == "as good as more than 100 human texts per label [80, > 100]"
    assert under(board, "language") == "as good as 17 human texts per label", "one seed has no interval"


def test_the_ranking_has_columns_that_sort_beyond_the_curve_at_its_ends(board):
    cells = {name: curve_cells(board, id_of(board, name)) for name in ("zero-shot", "clas", "quality", "human")}
    figures = {name: own["equivalent"].text.replace("\N{NO-BREAK SPACE}", " ") for name, own in cells.items()}
    assert figures["zero-shot"] == "31 [24, 40]"
    assert (figures["clas"], figures["quality"]) == ("< 10", "> 100 [80, > 100]")
    order = [float(cells[name]["equivalent"].sort) for name in ("clas", "zero-shot", "quality")]
    assert order == sorted(order)
    assert cells["zero-shot"]["area"] == ("0.450 [0.430, 0.470]", "0.45", "", "")


def test_of_all_texts_references_have_no_chart(board):
    [group] = index_curves(board)["groups"]
    assert id_of(board, "human") not in {panel["id"] for panel in group["panels"]}
    assert [cell.text for cell in group["table"]["human"][:4]] == [
        "0.500 [0.470, 0.530]", "0.560 [0.530, 0.590]", "0.640 [0.610, 0.670]", "0.700 [0.670, 0.730]",
    ]  # fmt: skip


def test_a_method_has_its_curves_by_task_and_all_charts_one_axis(board):
    found = method_curves(board, "clas")
    assert [group["title"] for group in found["groups"]] == ["sentiment", "topic"]
    one, two = (group["panels"][0] for group in found["groups"])
    assert one["lines"]["human"] == two["lines"]["human"]
    assert float(one["dots"][0][1]) > float(two["dots"][0][1]), "0.45 is below 0.55"
    assert two["title"] == "clas, topic: macro-F1 by texts per label"


def test_a_language_has_the_best_entries_there(board):
    order = [id_of(board, name) for name in ("quality", "human", "clas")]
    [group] = language_curves(board, "he", order)["groups"]
    assert [panel["name"] for panel in group["panels"]] == ["quality", "clas"]
    assert group["panels"][0]["title"] == "quality, Hebrew: macro-F1 by texts per label"
    assert group["table"]["rows"][0]["cells"][0].text == "0.650 [0.630, 0.670]"


def test_of_many_entries_twelve_have_a_chart_and_all_are_in_the_table(tmp_path):
    [board] = boards([toy_run(tmp_path / "run", SETTINGS, more=10)])
    [group] = index_curves(board)["groups"]
    assert (len(group["panels"]), group["more"], len(group["table"]["rows"])) == (12, 4, 16)


def test_the_curves_of_every_task_and_language_are_computed_once(run, monkeypatch):
    asked: list[tuple[str | None, str | None]] = []

    def counting(results, classifier, task=None, language=None):
        asked.append((task, language))
        return fake(results, classifier, task, language)

    monkeypatch.setattr("leaderboard.boards.curves_of", counting)
    monkeypatch.setattr("leaderboard.boards.map_forked", lambda work, items: [work(item) for item in items])
    [board] = boards([run])
    for _ in range(2):
        index_curves(board)
        for method in ("clas", "quality"):
            method_curves(board, method)
        for code in CODES:
            language_curves(board, code, board.axes["entry"])
    assert sorted(asked, key=str) == sorted(
        [(None, None), *((task, None) for task in TASKS), *((None, code) for code in CODES)], key=str
    )


def test_the_classifier_is_that_of_the_ranking_or_the_first_with_a_curve(run, tmp_path):
    [board] = boards([run])
    assert board.curves().classifier == "tfidf"
    other = {"metrics": {"curve": {"sizes": [10], "classifiers": ["hf:other", "hf:third"]}}}
    [board] = boards([toy_run(tmp_path / "run", other)])
    assert board.curves().classifier == "hf:other"


# The pages


def test_the_overview_shows_small_multiples_with_titles_and_a_table(pages, board):
    page = pages["index.html"]
    assert page.count('<svg class="plot curve"') == 6  # all but human
    assert "How much text it saves</h3>" in page
    titles = re.findall(r'<title id="(\S+)-title">(.*?): macro-F1 by texts per label</title>', page)
    assert {title for _, title in titles} >= {"clas", "zero-shot", HEBREW}
    for name, _ in titles:
        assert f'aria-labelledby="{name}-title" aria-describedby="{name}-desc"' in page
        assert f'<desc id="{name}-desc">Synthetic: 0.450 at 10, 0.480 at 20, 0.520 at 50, 0.550 at 100.' in page
    assert "as good as 31 human texts per label [24,\N{NO-BREAK SPACE}40]" in page
    assert '<th scope="col" data-key="mixed-20" data-better="up">10 human + 20</th>' in page
    assert page.count('<td data-v="0.45">0.450 [0.430, 0.470]</td>') >= 6
    assert 'data-key="equivalent"' in page
    assert re.search(r'class="k-equivalent more whole ?"', page), "shown on request"


def test_no_id_stands_twice(pages):
    for page in pages.values():
        ids = re.findall(r' id="([^"]+)"', page)
        assert len(ids) == len(set(ids))


def test_pages_of_methods_and_languages_have_the_section(pages):
    method = pages["method-clas.html"]
    assert '<h2 id="curves">How much text it saves</h2>' in method
    assert ("<h3>sentiment</h3>" in method, "<h3>topic</h3>" in method) == (True, True)
    for code, native in (("am", "አማርኛ"), ("he", "עברית")):
        page = pages[f"language-{code}.html"]
        assert native in page
        assert page.count('<svg class="plot curve"') == 6
    assert f"<bdi>{HEBREW}</bdi>" in pages["index.html"]


def test_markup_in_a_name_is_shown_as_text(pages):
    assert all(HIT not in page for page in pages.values())
    assert "&lt;script&gt;window.__hit=1&lt;/script&gt;: macro-F1 by texts per label</title>" in pages["index.html"]


@pytest.mark.parametrize("suite", [{}, {"metrics": {}}, {"metrics": {"curve": None}}, {"metrics": [HIT]}])
def test_a_suite_without_a_curve_has_no_section(tmp_path, suite):
    run = toy_run(tmp_path / "run", suite)
    [board] = boards([run])
    assert (board.curves(), index_curves(board), method_curves(board, "clas")) == (None, None, None)
    if not suite:
        build_site([run.path], tmp_path / "site")
        for path in (tmp_path / "site").rglob("*.html"):
            page = path.read_text(encoding="utf-8")
            assert "How much text it saves" not in page
            assert "equivalent" not in page


# In a browser


@pytest.mark.slow
def test_the_section_is_readable_in_every_scheme_and_width(windows, site):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE")
    window = windows.open(viewport={"width": 1280, "height": 900})
    page = window.page
    page.goto((site / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('main details:not(.menu)').forEach((node) => { node.open = true; })")
    section = {"include": [[".curves"], [".curves ~ details"]]}
    others = {"rules": {"color-contrast": {"enabled": False}}}
    for scheme, width, rules in (
        ("light", 1280, {}),
        ("dark", 1280, {"runOnly": ["color-contrast"]}),
        ("light", 390, others),
    ):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page, section, {"resultTypes": ["violations"], "selectors": False, **rules})
        assert [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        inside = """() => [...document.querySelectorAll(".curve text")].filter((text) => {
          const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
          return own.right > all.right || own.left < all.left || own.bottom > all.bottom;
        }).map((text) => text.textContent)"""
        assert page.evaluate(inside) == []
    told = windows.leave([window])
    assert (told.said, told.asked) == ([], [])
