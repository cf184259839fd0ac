"""The files of the site: what stands there, escaped, Hebrew from right to left, gaps shown as gaps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.helpers import MODEL, contents, key, method, names_below, steerboard

from harness.core import workers
from harness.core.cells import cell_id, entry_of
from harness.core.errors import UserError
from harness.core.reading import read_json
from harness.core.records import CellScores, CellStatus, Generation, Manifest, Selection
from harness.core.schema import SCHEMA
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.ranking import cost, results, values
from harness.scoring.metrics import macro_f1
from leaderboard.build import build_board, build_site
from leaderboard.text import clean, direction_of, name_of, slug
from leaderboard.views import compare

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
HEBREW, AMHARIC = "המרק היה טעים", "ሾርባው ጣፋጭ ነበር።"
LANGUAGES = ["am", "he"]
Attributes = dict[str, str | None]


class Page(HTMLParser):
    """Collects what the tests ask about: tags, and the rows of the ranking as key of the cell -> text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, Attributes]] = []
        self.rows: dict[str, dict[str, str]] = {}
        self._row: dict[str, str] | None = None  # of the ranking, while it is read
        self._cell: str | None = None
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr" and "data-model" in found:
            self._row = {}
        elif tag == "th" and self._row is not None:
            self.rows[str(found["data-v"])] = self._row
        elif tag == "td" and self._row is not None:
            self._cell = str(found.get("class", "")).split()[0]
            self._row[self._cell] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None
        elif tag == "tr":
            self._row = None

    def handle_data(self, data: str) -> None:
        if self._cell and self._row is not None:
            self._row[self._cell] = (self._row[self._cell] + data).strip()

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]

    def links(self) -> list[str]:
        return [str(a["href"]) for tag, a in self.tags if tag == "a" and a.get("href")]


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
    rows = [Generation(index=0, label=label, text=text, finish_reason="stop") for label in ("negative", "positive")]
    steering = "toy" if cell.method.name == "language" else None
    run.write_cell(name, CellStatus(cell=cell, state="ok", steering=steering), rows)
    score = macro_f1("tfidf").score(value, "recipe")
    scores = CellScores(cell_id=name, generations_sha256="0", protocol="p", scores=[score])
    run.write_scores(scores, {})


FULL = {
    ("zero-shot", "am"): 0.5,
    ("zero-shot", "he"): 0.4,
    ("language", "am"): 0.7,
    ("language", "he"): 0.5,
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the full run."""
    folder = tmp_path_factory.mktemp("full")
    build_site([write_run(folder / "run", FULL, []).path], folder / "out")
    return folder / "out"


def index_of(run: Run, out: Path) -> Page:
    return Page(build_board([run], out))


def page_of(out: Path, name: str) -> Page:
    """Return a page of the only board."""
    [path] = out.glob(f"*/{name}")
    return Page(path)


# What stands there


def test_the_ranking_shows_means_gains_and_completeness(full: Path) -> None:
    page = Page(full / "index.html")
    row = page.rows["language"]
    assert row["k-macro-f1-tfidf"] == "0.600"  # (0.7 + 0.5) / 2
    assert row["k-gain"] == "+0.150"  # against zero-shot: 0.600 - 0.450
    assert row["k-cells"] == "2/2"
    assert page.rows["zero-shot"]["k-macro-f1-tfidf"] == "0.450"
    assert "no interval is available. language has the largest gain: +0.150 in macro-F1" in page.text
    assert "Highest mean macro-F1 (tfidf): language, 0.600." in page.text
    assert "Not ranked: 1 generation seed, 3 are needed." in page.text


def test_the_grid_shows_every_language(full: Path) -> None:
    text = Page(full / "index.html").text
    grid = text[text.index('class="grid') :]
    assert "+0.200</a><small>0.700</small>" in grid
    assert "+0.100</a><small>0.500</small>" in grid


def test_an_incomplete_entry_has_no_mean_and_says_what_is_missing(tmp_path: Path) -> None:
    scores = {place: value for place, value in FULL.items() if place != ("language", "he")}
    page = index_of(write_run(tmp_path / "run", scores, []), tmp_path / "out")
    row = page.rows["language"]
    assert row["k-macro-f1-tfidf"] == row["k-gain"] == "–"
    assert row["k-cells"] == "1/2"
    missing = page.text[page.text.index('class="missing"') :]
    assert "1 of 2 cells; no aggregate" in missing
    assert "sentiment, he, seed 1: not run" in missing


def test_a_narrowed_run_is_marked(full: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, ["2 of 11 languages (am, he)"])
    narrowed = index_of(run, tmp_path / "out").text
    assert 'class="mark"' in narrowed
    assert "Narrowed run: 2 of 11 languages (am, he)" in narrowed
    assert 'class="mark"' not in Page(full / "index.html").text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, True),
        ({"data_source": "/elsewhere/tasks/mini/data"}, True),
        ({"data_source": "/home/me/data"}, False),  # other texts, which people may have written
        ({"suite_hash": "abc"}, False),  # another suite of the name
        ({"suite": {**load_suite("steer11").dump()}}, False),
    ],
)
def test_the_page_says_that_machines_wrote_the_text_of_the_mini_suite(tmp_path, changed, said) -> None:
    run = write_run(tmp_path / "run", FULL, [])
    shipped = {"suite_hash": load_suite("mini").hash, "data_source": str(load_suite("mini").folder("data"))}
    run.write_manifest(run.manifest().model_copy(update={**shipped, **changed}))
    text = index_of(run, tmp_path / "out").text
    assert ("No people wrote the texts here, those called &#34;human&#34; included" in text) is said


def test_a_note_on_the_data_changes_no_hash() -> None:
    suite = load_suite("mini")
    assert suite.data_note
    assert suite.model_copy(update={"data_note": ""}).hash == suite.hash
    assert "data_note" not in suite.dump()


def test_a_column_without_any_value_is_not_shown(full: Path) -> None:
    text = Page(full / "index.html").text
    heads = re.findall(r'<th scope="col" data-key="([^"]+)" data-better', text)
    assert heads[:5] == ["tier", "entry", "gain", "macro_f1/tfidf", "wins"]
    assert not {"gap", "few", "mde", "vendi/tfidf", "seconds"} & set(heads)


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        (HEBREW, "rtl"),
        (f"iPhone: {HEBREW}", "rtl"),
        ("A very good product. Thanks!", "ltr"),
        (AMHARIC, "ltr"),
        ("5!", "rtl"),
    ],
)
def test_a_text_runs_in_the_direction_of_most_of_its_letters(text: str, direction: str) -> None:
    assert direction_of(text, "rtl") == direction


def test_text_carries_its_language_and_direction(full: Path) -> None:
    assert f'<p lang="he" dir="rtl">{HEBREW}</p>' in page_of(full, "samples-he.html").text
    assert f'<p lang="am" dir="ltr">{AMHARIC}</p>' in page_of(full, "samples-am.html").text


def test_rows_of_two_models_are_told_apart(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", FULL, [])
    two = write_run(tmp_path / "two", FULL, [], model=MODEL.model_copy(update={"name": "other"}))
    page = Page(build_board([one, two], tmp_path / "out"))
    assert "mini on toy, other" in page.text
    assert {"language, toy", "language, other", "zero-shot, toy", "zero-shot, other"} == set(page.rows)


# Text from outside


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, [HOSTILE], HOSTILE)
    build_board([run], tmp_path / "out")
    pages = [Page(path) for path in (tmp_path / "out").rglob("*.html")]
    assert len(pages) > 5
    for page in pages:
        assert not [tag for tag, _ in page.tags if tag in {"img", "iframe", "object", "embed", "base"}]
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
        assert kinds[-1] is None
        assert set(kinds[:-1]) <= {"application/json"}, "one script, and data"
    assert sum("&lt;script&gt;alert(1)" in page.text for page in pages) >= 4


def test_control_characters_and_lone_surrogates_do_not_reach_the_page() -> None:
    assert clean("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert clean("x" * 10_000_000) == "x" * 400 + "…"
    assert clean(HEBREW) == HEBREW


def test_a_name_is_one_line_that_turns_nothing() -> None:
    assert name_of("a\n b\t\tc") == "a b c"
    assert name_of("gpj.\u202eexe") == "gpj.\ufffdexe"
    assert name_of(HEBREW) == HEBREW


@pytest.mark.parametrize("text", ["a/../b", "A", "ሰላም", "x" * 300, "", "-", "a b", "con\x00"])
def test_a_slug_is_a_safe_name_of_its_own(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(text))
    assert slug(text) != slug(text + "'")
    assert slug("plain-name-2") == "plain-name-2"


# Files


def test_the_site_names_no_other_host(full: Path) -> None:
    for path in full.rglob("*.html"):
        page = Page(path)
        for _, attributes in page.tags:
            for name in ("src", "href", "data", "srcset", "action"):
                value = attributes.get(name) or ""
                assert not re.match(r"[a-z]+:|//", value) or value == "data:,", value
        assert "url(" not in page.text
        assert "@import" not in page.text


def test_every_link_has_its_file_and_its_target(full: Path) -> None:
    pages = {path.resolve(): Page(path) for path in full.rglob("*.html")}
    for path, page in pages.items():
        assert len(page.ids()) == len(set(page.ids()))
        for link in page.links():
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file(), link
            assert not anchor or anchor in pages[target].ids(), link


def test_a_full_and_a_narrowed_run_of_one_suite_have_anchors_of_their_own(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", FULL, []), write_run(tmp_path / "b", FULL, ["1 of 3 seeds (1)"])]
    ids = Page(build_board(runs, tmp_path / "out")).ids()
    assert len(ids) == len(set(ids))
    assert len(list((tmp_path / "out").glob("*/compare.html"))) == 2


@pytest.mark.parametrize("cores", [1, 2])
def test_two_builds_are_equal_byte_for_byte(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    """On one core and with a second process, which small boards do without for most of their work."""
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest itself may have threads
    monkeypatch.setattr(results, "_CELLS", 2)
    for module in (results, values, cost, compare):
        monkeypatch.setattr(module, "_MANY", 2)
    for _ in range(2):  # the second over the first, too
        build_site([full.parent / "run"], tmp_path)
        assert contents(tmp_path) == contents(full)


def test_the_listing_names_every_file(full: Path) -> None:
    listed = read_json(full / "site.json", SCHEMA)["files"]
    assert set(listed) == set(names_below(full)) - {"site.json"}


def test_what_is_no_longer_made_goes_and_what_others_put_there_stays(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [write_run(tmp_path / "a", FULL, []), write_run(tmp_path / "b", FULL, ["1 of 3 seeds (1)"])]
    build_site([run.path for run in runs], out)
    (out / "CNAME").write_text("example.org", encoding="utf-8")
    build_site([runs[0].path], out)
    assert set(names_below(out)) == {*names_below(full), "CNAME"}


def test_what_a_killed_build_wrote_goes_with_the_next(full: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    runs = [write_run(tmp_path / "a", FULL, []), write_run(tmp_path / "b", FULL, ["1 of 3 seeds (1)"])]

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt  # before the first page, after all others

    with monkeypatch.context() as patch:
        patch.setattr("leaderboard.build.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            build_site([run.path for run in runs], out)
    boards = [path for path in out.iterdir() if path.is_dir()]
    assert len(boards) > len([path for path in full.iterdir() if path.is_dir()])
    for folder in boards:
        (folder / ".index.html.abcdefgh.tmp").write_text("half", encoding="utf-8")
    build_site([runs[0].path], out)
    assert set(names_below(out)) == set(names_below(full))


def test_a_listing_from_elsewhere_removes_nothing_outside(tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept.txt"
    kept.write_text("x", encoding="utf-8")
    out.mkdir()
    for listing in ({"files": ["../kept.txt", str(kept), 3]}, {"files": "x"}, [], "no"):
        (out / "site.json").write_text(json.dumps(listing), encoding="utf-8")
        build_site([write_run(tmp_path / f"run{len(str(listing))}", FULL, []).path], out)
    assert kept.read_text(encoding="utf-8") == "x"


def test_the_date_is_given_or_that_of_the_newest_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FULL, [])
    assert "As of 2026-06-30" in Page(build_site([run.path], tmp_path / "a", "2026-06-30")).text
    manifest = run.manifest().model_copy(update={"created": "2026-03-04T05:06:07Z"})
    (tmp_path / "other").mkdir()
    Run(tmp_path / "other" / "dated").write_manifest(manifest)
    shutil.copytree(run.path / "cells", tmp_path / "other" / "dated" / "cells")
    assert "As of 2026-03-04" in Page(build_site([tmp_path / "other"], tmp_path / "b")).text


def test_a_run_without_scores_is_refused_in_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {}, [])
    shown = steerboard("board", "build", tmp_path / "run", "--out", tmp_path / "out").one_line()
    assert "nothing is scored" in shown


def test_a_folder_without_runs_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not contain a run .* Pass the directory"):
        build_site([tmp_path], tmp_path / "out")


# A browser that writes down what it asked the network for

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
    done = subprocess.run([browser, *FLAGS.split(), *own, page.as_uri()], capture_output=True, text=True, timeout=120)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser has errands of its own; what a page asks for has an origin as its initiator.
    asked = {e["url"] for e in events if "url" in e and e.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, console, sorted(url for url in asked if url.startswith("http"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "samples-he.html"])
def test_a_real_browser_shows_the_pages_without_any_request(full: Path, tmp_path: Path, name: str) -> None:
    [path] = full.rglob(name)
    shown, console, asked = browse(path, tmp_path)
    assert {"samples-he.html": HEBREW}.get(name, "language") in shown
    assert not console
    assert not asked


@pytest.mark.slow
def test_the_browser_check_notices_a_page_that_asks_for_something(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://localhost:9/picture.png'><p>x", encoding="utf-8")
    assert browse(page, tmp_path)[2] == ["http://localhost:9/picture.png"]
