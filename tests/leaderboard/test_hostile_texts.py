"""Texts from strangers in every string of a run: shown as text or refused in words, and nothing of it runs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.helpers import steerboard
from support.hostile import (
    HIT,
    METHOD,
    PAYLOADS,
    Page,
    built,
    cells_of,
    edit,
    fill,
    mapped,
    read,
    refused,
    shown,
    spread,
    steering,
)

from harness.core.store import Run
from leaderboard.text import clean, slug

pytest_plugins = ["support.windows", "support.hostile_runs"]


@pytest.fixture(scope="module")
def site_of(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int | None], Path | None]:
    """Build the site of the good run, or of one with payloads shifted by so many; each once.

    None where half a character stands in a text: then the run is refused in words.
    """
    made: dict[int | None, Path | None] = {}

    def build(shift: int | None) -> Path | None:
        if shift not in made:
            run = Run(tmp_path_factory.mktemp("payloads") / "run")
            shutil.copytree(good, run.path)
            if shift is not None:
                fill(run, shift)
            outcome = built(run)
            assert outcome.code == 0 or "half a character" in outcome.one_line()
            made[shift] = run.path.parent / "out" if outcome.code == 0 else None
        return made[shift]

    return build


def test_the_good_run_is_shown_whole(site_of):
    out = site_of(None)
    page = read(out / "index.html")
    assert "Head to head" in page
    assert "Layer and strength" in page
    assert "Missing cells" in page
    assert len(list(out.rglob("*.html"))) >= 13


# Payloads in every string


SHIFTS = spread(range(len(PAYLOADS)), 8)


@pytest.mark.parametrize("shift", SHIFTS)
def test_payloads_in_every_string_at_once_are_text(site_of, shift):
    if (out := site_of(shift)) is None:
        return
    for path in out.rglob("*.html"):
        assert HIT not in "".join(code for attributes, code in Page(read(path)).scripts if not attributes)
    texts = {path.name.split("-")[0]: read(path) for path in out.rglob("*.html")}
    whole = [("index.html", "A toy.", 400), ("samples", "a text", 400)]
    short = [("samples", word, 25) for word in ("an odd reason", "an odd language", "an odd label")]
    for kind, word, longest in (*whole, *short):  # short ones are cut
        said = clean(mapped(word, shift))[:longest]
        words = [part for part in re.split(r"[^ -~]+", said) if len(part) > 3]
        page = " ".join(text_of(texts[kind]).split())
        assert all(" ".join(part.split()) in page for part in words), (kind, words)
    for name in ("results.json", "results-schema.json"):
        json.loads(read(out / name))
    check_downloads(out)


def check_downloads(out: Path) -> None:
    for row in csv.reader(io.StringIO(read(out / "results.csv"))):
        assert not [cell for cell in row if cell.startswith(("=", "@", "+"))]
    tex, bib = read(next(out.glob("toy-*.tex"))), read(out / "methods.bib")
    assert not re.search(r"\\(input|immediate|write)", tex + bib)
    assert bib.count("{") == bib.count("}")
    assert len(re.findall(r"^@", bib, re.MULTILINE)) == bib.count("\n@") + 1 == 5


def text_of(page: str) -> str:
    """Return what a reader sees, and what the tips say."""
    found: list[str] = []

    class Text(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    reader = Text()
    reader.feed(page)
    return "".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("shift", SHIFTS)
def test_no_payload_runs_in_a_browser(browser, site_of, shift):
    said: list[str] = []
    page = browser.new_page()
    page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
    out = site_of(shift)
    for file in sorted(out.rglob("*.html")) if out else []:
        page.goto(file.as_uri())
        page.evaluate(USE)
        assert page.evaluate("window.__hit") is None, file.name
        assert said == [], file.name
        assert page.url.partition("#")[0] == file.as_uri()
    page.close()


USE = """() => {
  const some = (what, most) => [...document.querySelectorAll(what)].slice(0, most)
    .filter((node) => node.checkVisibility());
  for (const box of some("select", 6)) {
    box.selectedIndex = box.options.length - 1;
    for (const event of ["input", "change"]) box.dispatchEvent(new Event(event, { bubbles: true }));
  }
  for (const button of some("th button", 3)) button.click();
  for (const cell of some("table.grid td", 2)) {
    for (const event of ["pointerover", "mouseover"]) {
      cell.dispatchEvent(new PointerEvent(event, { bubbles: true }));
    }
    cell.focus();
  }
}"""
"""Move through everything that a script draws anew: filters, pairs, sorting, tips."""


# Names that become files and anchors


def rename_language(run: Run, code: str) -> None:
    """Call the language ``am`` something else in all files."""
    edit(run.manifest_path, lambda body: body["selection"].update(languages=[code, "he"]))
    for path in run.path.glob("cells/*/status.json"):
        edit(path, lambda body: body["cell"]["language"] == "am" and body["cell"].update(language=code))


def rename_method(run: Run, name: str, old: str = METHOD) -> None:
    def change(body: dict[str, Any]) -> None:
        for entry in body["entries"]:
            if entry["method"]["name"] == old:
                entry["method"]["name"] = name

    edit(run.manifest_path, change)
    for cell in cells_of(run, old):
        edit(cell / "status.json", lambda body: body["cell"]["method"].update(name=name))


NAMES = [
    "../../x", "/etc/passwd", "..", ".", "a/b/c", "C:\\x", "con", "x.html", "%2e%2e%2f", "#a?b=c&d",
    "a b", "ü", "אב", "index", "-", "--", "~", "*", "x" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", spread(NAMES, 6))
def test_a_name_like_a_path_stays_in_the_site(run, name):
    rename_language(run, name)
    rename_method(run, name)
    edit(run.manifest_path, lambda body: body["suite"].update(name=name))
    out = shown(run)
    assert {path.parent.name for path in out.rglob("language-*")} == {next(out.glob("*.tex")).stem}


@pytest.mark.parametrize("name", ["", " ", "\n", "x" * 201, "x" * 1_000_000])
def test_a_name_that_is_none_is_refused(run, name):
    for change in (
        lambda body: body["selection"].update(languages=["he", name]),
        lambda body: body["selection"].update(tasks=[name]),
        lambda body: body["suite"].update(name=name),
        lambda body: body["entries"][1]["method"].update(name=name),
        lambda body: body["entries"][1]["model"].update(name=name),
    ):
        before = run.manifest_path.read_bytes()
        edit(run.manifest_path, change)
        assert "character" in refused(run)
        run.manifest_path.write_bytes(before)


@pytest.mark.parametrize("sign", ["\u202e", "\u2028", "\x00", "\x1b", "\ud800"])
def test_the_name_of_a_language_shows_all_its_signs(run, sign):
    edit(run.manifest_path, lambda body: body["selection"].update(languages=["he", f"a{sign}m"]))
    if sign == "\ud800":
        shown(run)  # it was made a question mark
    else:
        assert "language" in refused(run)


def test_names_that_look_alike_in_an_address_have_pages_of_their_own(run):
    rename_method(run, "M steer")
    rename_method(run, "m_steer", "m-broken")
    alike = ("o/dd", "o-dd", "o_dd", "vendi/tf-idf", "vendi/tf_idf")
    for path in run.path.glob("cells/*/scores.json"):
        edit(path, lambda body: body["scores"].extend({**body["scores"][-1], "metric": name} for name in alike))
    out = shown(run)
    names = [path.name for path in out.rglob("*.html")]
    assert sum(name.startswith("method-m-steer") for name in names) == 2
    assert sum(name.startswith("metric-o-dd") for name in names) == 3
    assert sum(name.startswith("metric-vendi-tf-idf") for name in names) == 2


def test_an_address_that_two_pages_would_have_is_refused(run):
    rename_method(run, "M steer")
    rename_method(run, slug("M steer"), "m-broken")
    assert f"method-{slug('M steer')}.html" in refused(run)


def test_nothing_is_empty_in_an_address():
    assert slug("")
    assert len({slug(text) for text in ("", " ", "-", "A", "a", "ä", "a" * 41, "a" * 42)}) == 8


def test_the_name_of_a_steering_file_is_no_path(run, tmp_path):
    names = ("../../secret", str(tmp_path / "secret"), "x" * 300, "a\x00b")
    for cell, name in zip(cells_of(run), names, strict=False):
        edit(cell / "status.json", lambda body, name=name: body.update(steering=name))
    run.write_steering("v1", steering({"fit": {"rule": "SECRET"}}))
    shutil.move(run.steering_path("v1"), tmp_path / "run" / "secret.safetensors")
    page = read(next(shown(run).rglob(f"method-{METHOD}.html")))
    assert "SECRET" not in page
    assert page.count("not a name of a steering file") == len(names)


# Two builds against each other


@pytest.mark.parametrize("form", ["table", "md", "json"])
def test_hostile_sites_are_compared_as_text_or_refused(site_of, form):
    outcome = steerboard("board", "diff", site_of(None), site_of(8), "--format", form)
    assert outcome.code == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", outcome.out)
    if form == "md":
        assert not re.search(r"<(?!/?(br|sub)>)[a-z/!]", outcome.out)
