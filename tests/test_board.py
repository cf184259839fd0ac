"""The page: one file, no request, everything escaped, Hebrew from right to left, gaps shown as gaps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers import MODEL, key, method, steerboard

from harness.cells import cell_id, entry_of
from harness.records import CellScores, CellStatus, Generation, Manifest, Selection
from harness.scoring.metrics import macro_f1
from harness.store import Run
from harness.suite import load_suite
from leaderboard.build import build_board
from leaderboard.charts import PlotRow, interval_plot
from leaderboard.views import clean

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
HEBREW, AMHARIC = "המרק היה טעים", "ሾርባው ጣፋጭ ነበር።"
LANGUAGES = ["am", "he"]


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def write_run(
    folder: Path,
    scores: dict[tuple[str, str], float],
    narrowed: list[str],
    text: str = "",
    model: Any = MODEL,
) -> Run:
    """Write a run of (method, language) -> macro-F1, one seed, one text per label."""
    run = Run(folder)
    texts = {"am": text or AMHARIC, "he": text or HEBREW}
    names = sorted({name for name, _ in scores})
    keys = {
        (name, code): key(method=method(name), language=code, texts_per_label=1, model=model)
        for name in names
        for code in LANGUAGES
    }
    suite = load_suite("mini").dump()
    manifest = Manifest(
        suite={**suite, "description": text or "a toy"},
        suite_hash="abc",
        suite_source="toy",
        model=model,
        model_path=None,
        data_source="toy",
        entries=[entry_of(keys[name, "am"]) for name in names],
        selection=Selection(
            languages=LANGUAGES,
            tasks=["sentiment"],
            settings=["zero-shot"],
            seeds=[1],
            texts_per_label={"sentiment": 1},
            narrowed=narrowed,
        ),
        method_notes=dict.fromkeys(names, text or "a method"),
        commands=[["steerboard", "run", text]],
    )
    run.write_manifest(manifest)
    for (name, code), value in scores.items():
        write_cell(run, keys[name, code], texts[code], value)
    return run


def write_cell(run: Run, cell: Any, text: str, value: float) -> None:
    name = cell_id(cell)
    rows = [
        Generation(index=0, label=label, text=text, finish_reason="stop")
        for label in ("negative", "positive")
    ]
    run.write_cell(name, CellStatus(cell=cell, state="ok"), rows)
    score = macro_f1("tfidf").score(value, "recipe")
    scores = CellScores(cell_id=name, generations_sha256="0", protocol="p", scores=[score])
    run.write_scores(scores, {})


FULL = {
    ("zero-shot", "am"): 0.5,
    ("zero-shot", "he"): 0.4,
    ("language", "am"): 0.7,
    ("language", "he"): 0.5,
}


def page_of(run: Run, out: Path) -> str:
    return build_board([run], out).read_text(encoding="utf-8")


def test_the_page_shows_means_gains_and_completeness(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", FULL, []), tmp_path / "out")
    assert "0.600" in page  # language: (0.7 + 0.5) / 2
    assert "+0.150" in page  # against zero-shot: 0.600 - 0.450
    assert "2/2" in page
    assert page.index("language, 0.600") > 0


def test_an_incomplete_entry_has_no_mean_and_says_what_is_missing(tmp_path: Path) -> None:
    scores = {place: value for place, value in FULL.items() if place != ("language", "he")}
    page = page_of(write_run(tmp_path / "run", scores, []), tmp_path / "out")
    row = page[page.index('<th scope="row">language</th>') :]
    assert re.search(r'class="mean">\s*–', row[:400])
    assert "1/2" in row[:600]
    assert "sentiment, he, seed 1: not run" in page


def test_a_narrowed_run_is_marked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, ["2 of 11 languages (am, he)"])
    assert "2 of 11 languages (am, he)" in page_of(run, tmp_path / "out")
    full = write_run(tmp_path / "full", FULL, [])
    assert 'class="mark"' not in page_of(full, tmp_path / "out2")


def test_text_carries_its_language_and_direction(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", FULL, []), tmp_path / "out")
    assert f'<p lang="he" dir="rtl">{HEBREW}</p>' in page
    assert f'<p lang="am" dir="ltr">{AMHARIC}</p>' in page


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, [HOSTILE], HOSTILE)
    page = page_of(run, tmp_path / "out")
    tags = Page(page).tags
    assert not [tag for tag, _ in tags if tag in {"script", "img", "iframe", "object"}]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in page


def test_control_characters_and_lone_surrogates_do_not_reach_the_page() -> None:
    assert clean("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert clean("x" * 10_000_000) == "x" * 400 + "…"
    assert clean(HEBREW) == HEBREW


def test_the_page_names_no_other_file_or_host(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", FULL, []), tmp_path / "out")
    for _, attributes in Page(page).tags:
        for name in ("src", "href", "data", "srcset", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:,")) or not value, value
    assert "url(" not in page
    assert "@import" not in page
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_every_link_inside_the_page_has_its_target(tmp_path: Path) -> None:
    tags = Page(page_of(write_run(tmp_path / "run", FULL, []), tmp_path / "out")).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    links = [a["href"] for tag, a in tags if tag == "a" and a.get("href")]
    assert len(ids) == len(set(ids))
    assert {str(link)[1:] for link in links} <= set(ids)


def test_two_builds_are_equal_byte_for_byte(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, [])
    assert page_of(run, tmp_path / "a") == page_of(run, tmp_path / "b")


def test_a_run_without_scores_is_refused_in_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {}, [])
    shown = steerboard("board", "build", tmp_path / "run", "--out", tmp_path / "out").one_line()
    assert "nothing is scored" in shown


def test_the_axis_of_the_plot_holds_all_bars_on_round_ticks() -> None:
    rows = [PlotRow("a", -0.04, -0.09, 0.01, "−0.040"), PlotRow("b", 0.27, None, None, "+0.270")]
    plot = interval_plot(rows)
    assert plot is not None
    ticks = [label for _, label in plot.ticks]
    assert ticks == ["-0.10", "-0.05", "0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30"]
    ends = plot.ticks[0][0], plot.ticks[-1][0]
    assert all(ends[0] <= bar.low <= bar.x <= bar.high <= ends[1] for bar in plot.bars)
    assert plot.baseline == plot.ticks[2][0]  # where the axis says 0
    assert plot.bars[1].low == plot.bars[1].x == plot.bars[1].high


FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-quic --enable-logging=stderr
    --virtual-time-budget=3000"""


def browse(page: Path, folder: Path) -> tuple[str, str, list[str]]:
    """Open a page in Chromium; return its DOM, its console and the addresses that it asked for."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("NO CHROMIUM: the page was not opened in a browser")
    log = folder / "net.json"
    own = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--dump-dom"]
    done = subprocess.run(
        [browser, *FLAGS.split(), *own, page.as_uri()], capture_output=True, text=True, timeout=120
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser has errands of its own; what a page asks for has an origin as its initiator.
    asked = {
        e["url"] for e in events if "url" in e and e.get("initiator", "not an origin") != "not an origin"
    }
    return done.stdout, console, sorted(url for url in asked if url.startswith("http"))


@pytest.mark.slow
def test_a_real_browser_shows_the_page_without_any_request(tmp_path: Path) -> None:
    page_of(write_run(tmp_path / "run", FULL, []), tmp_path / "out")
    shown, console, asked = browse(tmp_path / "out" / "index.html", tmp_path)
    assert HEBREW in shown
    assert AMHARIC in shown
    assert not console
    assert not asked


@pytest.mark.slow
def test_the_browser_check_notices_a_page_that_asks_for_something(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://localhost:9/picture.png'><p>x", encoding="utf-8")
    assert browse(page, tmp_path)[2] == ["http://localhost:9/picture.png"]


def test_rows_of_two_models_are_told_apart(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", FULL, [])
    two = write_run(tmp_path / "two", FULL, [], model=MODEL.model_copy(update={"name": "other"}))
    page = build_board([one, two], tmp_path / "out").read_text(encoding="utf-8")
    assert "mini on toy, other" in page
    assert '<th scope="row">language, toy</th>' in page
    assert '<th scope="row">language, other</th>' in page


def test_a_full_and_a_narrowed_run_of_one_suite_have_anchors_of_their_own(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", FULL, []), write_run(tmp_path / "b", FULL, ["1 of 3 seeds (1)"])]
    tags = Page(build_board(runs, tmp_path / "out").read_text(encoding="utf-8")).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["human", "other-language of quality + few-shot", "x" * 200])
def test_the_plot_has_room_for_the_longest_name(name):
    from leaderboard.charts import LETTER

    rows = [PlotRow("language", 0.0, None, None, ""), PlotRow(name, 0.1, 0.0, 0.2, "")]
    plot = interval_plot(rows)
    assert plot is not None
    assert all(len(bar.name) * LETTER <= plot.labels - 12 + 1 for bar in plot.bars)
    assert name.startswith(plot.bars[1].name.rstrip("…"))
    assert all(plot.labels <= x <= plot.width for x, _ in plot.ticks)
