"""Result files from strangers: what they say is shown as text or refused in words, and nothing of it runs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from support.helpers import MODEL, Outcome, jsonl, snapshot, steerboard
from support.toyruns import F1, ToyEntry, flat, plain, predicting, selection, toy, write_run

from harness.core import records
from harness.core.errors import UserError
from harness.core.files import write_json_gz
from harness.core.interventions import Intervention, Steering, load_steering
from harness.core.records import Generation, GridPoint, Selection
from harness.core.store import Run
from harness.scoring.metrics import VALID_SHARE, VENDI, Metric
from leaderboard.checks import MOST, check_folder
from leaderboard.text import clean, slug

HIT = "window.__hit=1"
PAYLOADS = [
    f"<script>{HIT}</script>",
    f'"><script>{HIT}</script>',
    f"'><img src=x onerror={HIT}>",
    f'" onmouseover="{HIT}" autofocus onfocus="{HIT}" x="',
    f"' onload='{HIT}' style='animation:x' onanimationstart='{HIT}",
    f"javascript:{HIT}",
    f'https://example.org/"onclick="{HIT}',
    f"data:text/html,<script>{HIT}</script>",
    f"</script><script>{HIT}</script>",
    f"<!--<script>{HIT}",
    f"]]><!-- --!><svg onload={HIT}>",
    f"</style><script>{HIT}</script>",
    f"</title><script>{HIT}</script>",
    f"</textarea></select></option><iframe srcdoc='<script>{HIT}</script>'>",
    f"<svg><animate onbegin={HIT} attributeName=x dur=1s>",
    f"<a href=javascript:{HIT}>a</a><form action=//example.org><button>",
    f"<math><mtext></form><mglyph><style></math><img src onerror={HIT}>",
    "<meta http-equiv=refresh content='0;url=https://example.org/'><base href=//example.org/>",
    "<link rel=stylesheet href=//example.org/x.css><style>*{background:url(//example.org/x)}</style>",
    "{{7*7}} {% for x in ().__class__.__mro__ %} {# x #} ${7*7} #{7*7} <%= 7*7 %>",
    "x;background:url(https://example.org/x);}*{display:none",
    "a\u2028b\u2029c\u0085d",
    "user\u202etxt.exe\u2066\u2067 \u200f\u061c end",
    "lone \ud800 half \udfff",
    "nul \x00 bell \x07 del \x7f",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \r\n over",
    "=cmd|' /C calc'!A0,\"x\"",
    "\\input{/etc/passwd} \\immediate\\write18{id} $x$ % & # _ ^ ~",
    "x}, author = {nobody}, url = {https://example.org/}} @misc{y,",
    "../../../etc/passwd",
    "&lt;script&gt; &#60;b&#62; &quot;",
    "%3Cscript%3E \\u003cscript\\u003e \\x3cscript",
]
LANGUAGES, SEEDS = ("am", "he"), (1, 2)
CHOSEN = selection(LANGUAGES, ("sentiment",), SEEDS)
ODD = Metric("odd", "odd", "none", "", "")  # no metric of this program
METHOD = "m-steer"
SUITE = {
    "name": "toy",
    "version": 1,
    "description": "A toy.",
    "classifiers": ["tfidf"],
    "definitions": {
        "sentiment": {
            code: {"labels": ["negative", "positive"], "prompts": {"zero-shot": "Write {label} {examples}"}}
            for code in LANGUAGES
        }
    },
    "tasks": {"sentiment": {"texts_per_label": 2}},
}
AUDIT = {
    "validity": {
        "valid": [True, False],
        "reasons": [[], ["an odd reason"]],
        "language": ["am", "an odd language"],
        "label": ["negative", "an odd label"],
    },
    "leakage": {"copied/train": [False, True]},
}
SECONDS = 10.0


REMOVED = object()


def shortly(value: Any) -> str:
    """Return what a test calls a value."""
    return "removed" if value is REMOVED else ascii(value)[:12]


EXHAUSTIVE = bool(os.environ.get("EXHAUSTIVE"))
"""Whether every value is tried in every field, which takes an hour; else a fixed sample of them."""


def spread(values: Iterable[Any], every: int) -> list[Any]:
    """Return every so many-th of the values; all of them in an exhaustive run."""
    return list(values) if EXHAUSTIVE else list(values)[::every]


# The run that is mutated


def entries(chosen: Selection) -> list[ToyEntry]:
    made = []
    for name, right, config in (
        ("zero-shot", 0.6, {}),
        (METHOD, 0.8, {"layer": 0.2, "words": "say it"}),
        (METHOD, 0.7, {"layer": 0.5, "words": "say it"}),
        ("m-broken", 0.7, {"of": METHOD}),
        ("human", 0.9, {}),
    ):
        own = predicting(toy(name, **config), right, chosen, n=30)
        for metric, value in ((VENDI.for_provider("tfidf"), 40 * right), (VALID_SHARE, 0.9), (ODD, 1.0)):
            own.scores[metric] = flat(value, chosen)
            own.human[metric] = value
        made.append(own)
    return made


def toy_run(folder: Path, chosen: Selection = CHOSEN) -> Run:
    """Write a run with every kind of file that a board reads, and no string empty."""
    fields = {
        "suite": SUITE,
        "created": "2026-03-04T05:06:07Z",
        "device": "cpu",
        "git_commit": "c0ffee",
        "model_path": "models/toy",
        "contrast": "contrast/toy",
        "versions": {"numpy": "2"},
        "data_revisions": {"org/data": "main"},
        "data_hashes": {"sentiment/am": "d1"},
        "method_notes": {METHOD: "Adds a vector. Source: https://example.org/a and arXiv 2606.18389."},
        "method_limits": {METHOD: "Needs text."},
        "plugins": ["p.py"],
        "commands": [["steerboard", "run"]],
    }
    run = write_run(folder, entries(chosen), chosen, [("m-broken", "sentiment", "am", 1)], **fields)
    for name in run.cell_ids():
        status = json.loads((run.cell(name) / "status.json").read_text())
        if status["state"] == "ok":
            write_texts(run, name, ["negative", "positive"], "a text")
            write_json_gz(run.cell(name) / "audit.json.gz", AUDIT)
            status |= {"seconds": 2.0, "device": "cpu", "prompt_tokens": 4, "new_tokens": 6, "reason": "none"}
            status |= {"fit": {"steering/v1": {"seconds": 1.0, "tokens": 2}}, "finished": "2026-03-04"}
            status |= {"demonstrations": {"negative": ["train:1"]}}
            status |= {"steering": "v1"} if status["cell"]["method"]["name"] == METHOD else {}
            plain(run.cell(name) / "status.json", status)
    edit(run.manifest_path, lambda body: body["selection"].update(narrowed=["2 of 3 languages"]))
    run.write_steering("v1", steering({"language": "am", "task": "sentiment", "fit": {"rule": "a mean"}}))
    points = [
        GridPoint(
            method=METHOD, options={"layer": layer, "words": words}, macro_f1=0.5, gain=0.1,
            valid=0.9, eligible=True, cells=1, cells_expected=1, texts=2, tokens=3, seconds=1.0,
        ).model_dump(mode="json")
        for layer in (0.2, 0.5)
        for words in ("few words", "more words")
    ]  # fmt: skip
    plain(
        run.path / "tuned.json",
        {
            "schema": 1, "suite": "toy", "suite_hash": "5u17e", "model": MODEL.model_dump(mode="json"),
            "data_hashes": {}, "selection": CHOSEN.model_dump(mode="json"), "rule": "best", "methods": {},
            "surface": points,
        },
    )  # fmt: skip
    return run


def steering(provenance: dict[str, Any]) -> Steering:
    change = Intervention("layer_output", 2, "add", np.ones(4, np.float32), 2.0, "raw", 1.0)
    return Steering((change,), provenance)


def write_texts(run: Run, cell: str, labels: list[str], text: str) -> None:
    rows = [Generation(index=i, label=label, text=text, finish_reason="stop") for i, label in enumerate(labels)]
    jsonl(run.cell(cell) / "generations.jsonl", [row.model_dump(mode="json") for row in rows])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run before anything is done to it."""
    return toy_run(tmp_path_factory.mktemp("good") / "run").path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is built sooner: one language, one seed."""
    return toy_run(tmp_path_factory.mktemp("tiny") / "run", selection(("am",), ("sentiment",), (1,))).path


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Run:
    """A copy to be mutated."""
    shutil.copytree(good, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def small(tiny: Path, tmp_path: Path) -> Run:
    """A copy of the small run to be mutated."""
    shutil.copytree(tiny, tmp_path / "run")
    return Run(tmp_path / "run")


def built(run: Run, look: bool = True) -> Outcome:
    """Build the board of a run by the command: shown, or refused in one line, and never slowly."""
    before = time.process_time()
    outcome = steerboard("board", "build", run.path, "--out", run.path.parent / "out")
    assert time.process_time() - before < SECONDS
    if outcome.code:
        line = outcome.one_line()
        assert len(line) < 3000
        assert line.isprintable()
    else:
        assert outcome.err == ""
    if outcome.code == 0 and look:
        check_site(run.path.parent / "out")
    assert {path.name for path in run.path.parent.iterdir()} <= {"out", "run"}
    return outcome


def shown(run: Run) -> Path:
    outcome = built(run)
    assert outcome.code == 0, outcome.err
    return run.path.parent / "out"


def refused(run: Run) -> str:
    return built(run).one_line()


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change the JSON of a file in place."""
    body = json.loads(path.read_text(encoding="utf-8"))
    change(body)
    path.write_text(json.dumps(body), encoding="utf-8")


def cells_of(run: Run, method: str = METHOD, state: str = "ok") -> list[Path]:
    """Return the folders of the cells of a method."""
    bodies = {name: json.loads((run.cell(name) / "status.json").read_text()) for name in run.cell_ids()}
    return [
        run.cell(name)
        for name, body in bodies.items()
        if body["cell"]["method"]["name"] == method and body["state"] == state
    ]


def edit_scores(run: Run, change: Callable[[dict[str, Any]], object], metric: str = F1.name) -> None:
    """Change the scores of a metric in all cells of the steered method."""
    for cell in cells_of(run):
        edit(
            cell / "scores.json",
            lambda body: [change(score) for score in body["scores"] if score["metric"] == metric],
        )


# Every page


class Page(HTMLParser):
    """Tags with their attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.ids: set[str] = set()
        self.within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.within = tag
        self.tags.append((tag, found))
        self.ids |= {found["id"] or ""} if "id" in found else set()
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self.within = ""


TAGS = """
a article bdi body button caption circle code dd defs details dl dt figcaption figure footer
form g h1 h2 h3 head header html input label li link main meta nav option p path pattern
polyline rect section select script small span strong style summary svg table tbody td text
tfoot th thead title tr ul div
"""
LARGEST = 3_000_000


def check_site(out: Path) -> None:
    out = out.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in out.rglob("*.html")}
    assert pages
    for path, page in pages.items():
        assert path.stat().st_size < LARGEST, path.name
        check_page(path, page)
        links = {
            (tag, str(found[name]), str(found.get("rel")))
            for tag, found in page.tags
            for name in ("href", "src")
            if name in found
        }
        for tag, link, relation in links:
            check_link(out, path, tag, link, relation, pages)


def check_page(path: Path, page: Page) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text), path.name
    assert {tag for tag, _ in page.tags} <= set(TAGS.split())
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (path.name, tag, attributes)
        assert not {"srcdoc", "action", "formaction", "srcset", "ping"} & set(attributes)
        style = attributes.get("style")
        assert style is None or re.fullmatch(r"--t:[0-9.]+", style)
    assert [sum(tag == name for tag, _ in page.tags) for name in ("title", "style", "base")][1:] == [1, 0]
    *data, (own, code) = page.scripts
    assert own == {}
    assert code.startswith('"use strict"')
    for attributes, body in data:
        assert attributes["type"] == "application/json"
        assert not set("<>&\u2028\u2029") & set(body)
        json.loads(body)
    assert sum(tag == "meta" and "http-equiv" in found for tag, found in page.tags) == 1


def check_link(out: Path, path: Path, tag: str, link: str, relation: str, pages: dict[Path, Page]) -> None:
    if (tag, link) == ("link", "data:,"):
        return
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        assert (tag, parts.scheme) == ("a", "https"), link
        assert "noopener" in relation
        return
    target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
    assert target.is_relative_to(out), link
    assert target.is_file(), link
    if parts.fragment and target in pages:
        assert unquote(parts.fragment) in pages[target].ids, link


def test_the_good_run_is_shown_whole(run):
    out = shown(run)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Head to head" in page
    assert "Layer and strength" in page
    assert "Missing cells" in page
    assert len(list(out.rglob("*.html"))) >= 13


# Payloads in every string


KEPT = {
    *("zero-shot", "few-shot", "none", "ok", "method_error", "up", "down", "stop", "human", "of", "v1"),
    *("macro_f1/tfidf", "vendi/tfidf", "valid_share", "tfidf", "classifier/tfidf", "0", "1", "2"),
    *("labels", "examples", "gold", "predictions", "p", "definitions", "tasks", "layer", "texts"),
    *("toy", "5u17e", "2026-03-04T05:06:07Z", "rule", "generation"),
    *("validity", "valid", "reasons", "language", "label", "leakage", "prompts"),
}
"""Words that must stay what they are: enumerations, and what is matched by its name."""

AXES = {"am", "he", "sentiment", "odd"}
FIELDS = {
    name
    for kind in vars(records).values()
    if isinstance(kind, type) and issubclass(kind, records.Record)
    for key, info in kind.model_fields.items()
    for name in (key, info.alias or key)
} | {"description", "classifiers", "name", "version"}
PRINTABLE = [payload for payload in PAYLOADS if payload.isprintable()]


def mapped(text: str, shift: int, kept: set[str] = KEPT) -> str:
    """Return the payload that stands for a text, the same wherever the text stands."""
    if text in kept or not text:
        return text
    some = PRINTABLE if text in AXES else PAYLOADS
    return f"{some[(zlib.crc32(text.encode()) + shift) % len(some)]} {text}"


def hostile(value: Any, shift: int) -> Any:
    """Return JSON with payloads for all its strings, and for keys that are no names of fields."""
    if isinstance(value, str):
        return mapped(value, shift)
    if isinstance(value, dict):
        return {key if key in FIELDS else mapped(key, shift): hostile(item, shift) for key, item in value.items()}
    return [hostile(item, shift) for item in value] if isinstance(value, list) else value


def fill(run: Run, shift: int) -> None:
    """Put payloads into every string of every file of a run."""
    for path in run.path.rglob("*.json"):
        plain_ascii(path, hostile(json.loads(path.read_text(encoding="utf-8")), shift))
    for path in run.path.rglob("*.jsonl"):
        rows = [hostile(json.loads(line), shift) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for path in run.path.rglob("*.json.gz"):
        body = hostile(json.loads(gzip.decompress(path.read_bytes())), shift)
        path.write_bytes(gzip.compress(json.dumps(body).encode()))
    found = load_steering(run.steering_path("v1"))
    words = json.loads(json.dumps(hostile(found.provenance, shift)).replace("\\ud", "\\\\ud"))
    run.write_steering("v1", steering(words))


def plain_ascii(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body), encoding="utf-8")  # halves of signs as escapes


@pytest.mark.parametrize("shift", spread(range(len(PAYLOADS)), 7))
def test_payloads_in_every_string_at_once_are_text(run, shift):
    fill(run, shift)
    check_shown_as_text(run, shift)


def check_shown_as_text(run: Run, shift: int) -> None:
    out = shown(run)
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


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


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
def test_no_payload_runs_in_a_browser(good, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: no page was opened")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("NO CHROMIUM: the pages were not opened in a browser")
    said: list[str] = []
    with playwright.sync_playwright() as engine:
        window = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = window.new_page()
        page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
        for shift in range(0, len(PAYLOADS), 8):
            run = Run(tmp_path / str(shift) / "run")
            shutil.copytree(good, run.path)
            fill(run, shift)
            for file in sorted(shown(run).rglob("*.html")):
                page.goto(file.as_uri())
                page.evaluate(USE)
                assert page.evaluate("window.__hit") is None, file.name
                assert said == [], file.name
                assert page.url.partition("#")[0] == file.as_uri()
        window.close()


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


@pytest.mark.parametrize("name", ["", " ", "\n", "x" * 201, "x" * 10_000_000])
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
        assert "signs" in refused(run) or "characters" in refused(run)
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
    for path in run.path.glob("cells/*/scores.json"):
        edit(path, lambda body: body["scores"].append({**body["scores"][-1], "metric": "o/dd"}))
        edit(path, lambda body: body["scores"].append({**body["scores"][-1], "metric": "o-dd"}))
        edit(path, lambda body: body["scores"].append({**body["scores"][-1], "metric": "o_dd"}))
        edit(path, lambda body: body["scores"].append({**body["scores"][-1], "metric": "vendi/tf-idf"}))
        edit(path, lambda body: body["scores"].append({**body["scores"][-1], "metric": "vendi/tf_idf"}))
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
    for name in ("../../secret", str(tmp_path / "secret"), "x" * 300, "a\x00b"):
        for cell in cells_of(run):
            edit(cell / "status.json", lambda body, name=name: body.update(steering=name))
        run.write_steering("v1", steering({"fit": {"rule": "SECRET"}}))
        shutil.copy(run.steering_path("v1"), tmp_path / "run" / "secret.safetensors")
        out = shown(run)
        page = read(next(out.rglob(f"method-{METHOD}.html")))
        assert "SECRET" not in page
        assert "not a name of a steering file" in page


# Sizes

LONG = "long words " * 1_000_000


def test_long_texts_are_cut(run):
    def change(body: dict[str, Any]) -> None:
        body["suite"]["description"] = body["device"] = body["created"] = body["suite_source"] = LONG
        body["selection"]["narrowed"] = body["plugins"] = [LONG]
        body["method_notes"] = {METHOD: "https://example.org/a " * 500_000}
        body["method_limits"] = {METHOD: LONG}
        body["data_revisions"] = body["versions"] = {f"v{i}": "1" * 100 for i in range(10_000)}

    edit(run.manifest_path, change)
    [failed] = cells_of(run, "m-broken", "method_error")
    edit(failed / "status.json", lambda body: body.update(reason=LONG))
    first, second, *_ = cells_of(run)
    edit(first / "status.json", lambda body: body.update(device=LONG, reason=LONG, finished=LONG))
    write_texts(run, second.name, [LONG, "negative"], LONG)
    edit(first / "scores.json", lambda body: body["scores"][-1].update(note=LONG, signature=LONG))
    edit(first / "scores.json", lambda body: body["scores"][1].update(value=None, note=LONG))
    out = shown(run)
    assert all(path.stat().st_size < 3_000_000 for path in out.glob("*.[bt][ie][bx]"))


def test_a_config_beyond_all_size_is_refused(run):
    edit(run.manifest_path, lambda body: body["entries"][1]["method"]["config"].update(words=LONG))
    assert "config of method" in refused(run)


def test_a_config_of_many_fields_is_cut(run):
    edit(
        run.manifest_path,
        lambda body: body["entries"][1]["method"].update(config={f"f{i}": i for i in range(3000)}),
    )
    shown(run)


@pytest.mark.parametrize("axis", ["languages", "tasks", "seeds"])
def test_more_than_a_board_can_hold_is_refused(run, axis):
    values = list(range(10_000)) if axis == "seeds" else [f"x{i}" for i in range(10_000)]
    edit(run.manifest_path, lambda body: body["selection"].update({axis: values}))
    assert f"10,000 {axis}; a board holds up to {MOST[axis]:,}" in refused(run)


def test_more_cells_and_entries_than_a_board_can_hold_are_refused(run):
    edit(run.manifest_path, lambda body: body["selection"].update(languages=[f"x{i}" for i in range(300)]))
    edit(run.manifest_path, lambda body: body["selection"].update(seeds=list(range(1000))))
    assert "1,500,000 cells" in refused(run)
    edit(run.manifest_path, lambda body: body.update(entries=body["entries"] * 200))
    assert "1,000 entries" in refused(run)


def test_more_metrics_than_a_board_can_hold_are_refused(run):
    for path in run.path.glob("cells/*/scores.json"):
        edit(
            path,
            lambda body: body.update(scores=[{**body["scores"][0], "metric": f"m{i}"} for i in range(10_000)]),
        )
    assert "10,000 metrics" in refused(run)


def test_ten_thousand_labels_leave_the_pages_small(run):
    labels = [f"label {i}" for i in range(10_000)]
    edit(
        run.manifest_path,
        lambda body: body["suite"].update(definitions={"sentiment": {"am": {"labels": labels}, "he": labels}}),
    )
    [cell, *_] = cells_of(run)
    write_texts(run, cell.name, labels, "a text " * 60)
    shown(run)


def test_ten_thousand_points_of_a_sweep_leave_the_pages_small(run):
    def change(body: dict[str, Any]) -> None:
        body["surface"] = [
            {**body["surface"][0], "options": {"layer": i // 100, "strength": i % 100}} for i in range(10_000)
        ]

    edit(run.path / "tuned.json", change)
    shown(run)


# Numbers

HUGE = 10**4000
NUMBERS = [
    *(HUGE, float("nan"), float("-inf"), 1e308, -1e308, 5e-324, -0.0),
    *(float("inf"), -HUGE, 2**63, 2**53, -1, True, "1"),
    *(None, "x", [], {}),
]


@pytest.mark.parametrize("number", spread(NUMBERS, 7), ids=shortly)
def test_numbers_of_scores_are_shown_or_refused(small, number):
    for field in ("value", "human", "interval", "by_seed", "detail"):
        before = {path: path.read_bytes() for path in small.path.glob("cells/*/scores.json")}
        value = {"interval": [number, number], "by_seed": {"0": number}, "detail": {"texts": number}}
        change = {field: value.get(field, number)}
        edit_scores(small, lambda score, change=change: score.update(change))
        built(small)
        for path, data in before.items():
            path.write_bytes(data)


@pytest.mark.parametrize("number", spread(NUMBERS[:13], 7), ids=shortly)
def test_numbers_of_all_metrics_are_shown_or_refused(small, number):
    for path in small.path.glob("cells/*/scores.json"):
        edit(path, lambda body: [score.update(value=number, human=number) for score in body["scores"]])
    built(small)


@pytest.mark.parametrize("number", spread([float("inf"), 1e308, float("-inf"), -1e200], 2))
def test_an_infinite_score_leaves_no_mean(run, number):
    edit_scores(run, lambda score: score.update(value=number))
    out = shown(run)
    body = json.loads(read(out / "results.json"))
    means = {entry["method"]["name"]: entry["standing"]["mean"] is not None for entry in body["boards"][0]["entries"]}
    assert means == {"zero-shot": True, METHOD: False, "m-broken": False, "human": True}


@pytest.mark.parametrize("number", spread(NUMBERS, 7), ids=shortly)
def test_numbers_of_a_status_are_shown_or_refused(small, number):
    for change in (
        lambda body: body.update(seconds=number),
        lambda body: body.update(prompt_tokens=number, new_tokens=number),
        lambda body: body.update(fit={"steering/v1": {"seconds": number, "tokens": number}}),
        lambda body: body["cell"].update(seed=number),
        lambda body: body["cell"].update(texts_per_label=number),
    ):
        before = {path: path.read_bytes() for path in small.path.glob("cells/*/status.json")}
        for path in before:
            edit(path, change)
        built(small, look=False)
        for path, data in before.items():
            path.write_bytes(data)


@pytest.mark.parametrize("number", spread(NUMBERS, 7), ids=shortly)
def test_numbers_of_a_manifest_are_shown_or_refused(small, number):
    for change in (
        lambda body: body["selection"].update(seeds=[number, 1]),
        lambda body: body["selection"].update(texts_per_label={"sentiment": number}),
        lambda body: body["suite"].update(version=number),
        lambda body: body["entries"][1]["method"]["config"].update(layer=number),
        lambda body: body["entries"][2]["method"]["config"].update(layer=[[number]]),
    ):
        before = small.manifest_path.read_bytes()
        edit(small.manifest_path, change)
        built(small, look=False)
        small.manifest_path.write_bytes(before)


@pytest.mark.parametrize("number", spread(NUMBERS, 7), ids=shortly)
def test_numbers_of_a_sweep_are_shown_or_left_out(small, number):
    def change(body: dict[str, Any]) -> None:
        body["surface"][0] |= {"gain": number, "macro_f1": number, "valid": number}
        body["surface"][1]["options"]["layer"] = number

    edit(small.path / "tuned.json", change)
    shown(small)


@pytest.mark.parametrize(
    ("examples", "labels"), [(0, 2), (1, 2), (2, 1), (2, 2), (30, 30), (30, 100_000), (100_000, 2)]
)
def test_predictions_of_any_size_are_used_or_not(small, examples, labels):
    numbers = [i % labels for i in range(examples)]
    part = {
        "examples": "e",
        "labels": [str(i) for i in range(labels)],
        "gold": numbers,
        "predictions": {F1.name: {"0": numbers}},
    }
    packed = gzip.compress(json.dumps({"classifier/tfidf": part}).encode(), 1)
    for path in small.path.glob("cells/*/predictions.json.gz"):
        path.write_bytes(packed)
    for path in small.path.glob("cells/*/scores.json"):
        edit(path, lambda body: body["scores"][0].update(value=1.0))
    built(small)


def test_the_last_of_two_equal_keys_counts(run):
    body = run.manifest_path.read_text()
    run.manifest_path.write_text(body.replace('"git_commit"', '"device": "abacus", "git_commit"'))
    assert "abacus" not in read(shown(run) / "index.html")


# Fields


def places_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in a JSON value, of lists the first alone."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places_of(item, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value with something else at a place; without it where ``new`` is REMOVED."""
    key, *rest = at
    made = value.copy()
    if rest:
        made[key] = changed(value[key], tuple(rest), new)
    elif new is REMOVED:
        del made[key]
    else:
        made[key] = new
    return made


FILES = (
    *("generations.jsonl", "scores.json", "manifest.json", "tuned.json"),
    *("predictions.json.gz", "status.json"),
)
WRONG = [None, "\u202e<b>", -1, 1.5, True, [], {}, [[]], {"a": {}}]


@pytest.mark.slow
@pytest.mark.parametrize("new", spread(WRONG, 6), ids=shortly)
@pytest.mark.parametrize("file", spread(FILES, 3))
def test_every_field_may_be_anything(small, file, new):
    try_fields(small, file, new)


@pytest.mark.parametrize("new", [*spread(WRONG, 4), REMOVED], ids=shortly)
def test_every_field_of_an_audit_may_be_anything(small, new):
    path = next(cell / "audit.json.gz" for cell in cells_of(small) if (cell / "audit.json.gz").is_file())
    for at in places_of(AUDIT):
        write_json_gz(path, changed(AUDIT, at, new))
        assert built(small, look=False).code == 0
        assert "\u202e" not in read(next((small.path.parent / "out").glob("*/samples-am.html")))
    check_site(small.path.parent / "out")


@pytest.mark.parametrize("file", spread(FILES, 9))
def test_every_field_may_be_missing(small, file):
    try_fields(small, file, REMOVED)


def try_fields(run: Run, file: str, new: Any) -> None:
    """Change one place of a file after the other; pages are looked at where they differ."""
    [path, *_] = [*run.path.glob(file), *(cell / file for cell in cells_of(run))]
    before = path.read_bytes()
    packed = file.endswith(".gz")
    body = json.loads((gzip.decompress(before) if packed else before).splitlines()[0])
    seen: set[str] = set()
    for at in places_of(body):
        data = json.dumps(changed(body, at, new)).encode()
        path.write_bytes(gzip.compress(data) if packed else data)
        outcome = built(run, look=False)
        if outcome.code == 0:
            index = read(run.path.parent / "out" / "index.html")
            assert "\u202e" not in index
            if index not in seen:
                check_site(run.path.parent / "out")
            seen.add(index)
        path.write_bytes(before)


@pytest.mark.parametrize("field", ["name", "classifiers"])
def test_a_suite_that_says_too_little_is_refused(run, field):
    edit(run.manifest_path, lambda body: body["suite"].pop(field))
    assert field in refused(run)


@pytest.mark.parametrize("field", ["version", "description", "definitions", "tasks"])
def test_a_suite_that_says_less_is_shown(run, field):
    edit(run.manifest_path, lambda body: body["suite"].pop(field))
    shown(run)


def test_a_cell_of_an_entry_that_the_manifest_lacks_counts_nowhere(run):
    edit(run.manifest_path, lambda body: body["entries"].pop(1))
    shown(run)


def test_a_language_of_which_nothing_is_there_yet_is_shown(run):
    for path in run.path.glob("cells/*/status.json"):
        if json.loads(path.read_text())["cell"]["language"] == "he":
            shutil.rmtree(path.parent)
    shown(run)


def test_a_run_without_entries_is_refused(run):
    edit(run.manifest_path, lambda body: body.update(entries=[]))
    assert "nothing is scored" in refused(run)


@pytest.mark.parametrize("axis", ["languages", "tasks", "seeds"])
def test_a_selection_of_nothing_or_of_one_thing_twice_is_refused(run, axis):
    edit(run.manifest_path, lambda body: body["selection"].update({axis: body["selection"][axis] * 2}))
    assert f"{axis} of the selection are named twice" in refused(run)
    edit(run.manifest_path, lambda body: body["selection"].update({axis: []}))
    assert f"{axis} of the selection are missing" in refused(run)


# Files

BROKEN = {
    "empty": b"",
    "half": b'{"schema": 1, "a',
    "no UTF-8": b"\xff\xfe{}",
    "list": b"[1]",
    "nested": b"[" * 200_000,
    "nested object": b'{"schema":' * 100_000,
    "schema": b'{"schema": 99}',
    "zeros": bytes(1000),
    "bomb": gzip.compress(bytes(150_000_000), 9),
    "binary": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("case", spread([(file, body) for file in [*FILES, "audit.json.gz"] for body in BROKEN], 6))
def test_a_broken_file_is_named_or_said(small, case):
    file, body = case
    for path in [*small.path.glob(file), *small.path.glob(f"cells/*/{file}")]:
        path.write_bytes(BROKEN[body])
    outcome = built(small)
    if file in {"manifest.json", "status.json", "scores.json"}:
        assert file in outcome.one_line()


@pytest.mark.parametrize("body", spread(BROKEN, 5))
def test_a_broken_sweep_or_steering_is_left_out_or_said(small, body):
    for path in (small.path / "tuned.json", small.steering_path("v1")):
        path.write_bytes(BROKEN[body])
    shown(small)


PLACES = (
    *("cells/X/scores.json", "manifest.json", "tuned.json", "steering/v1.safetensors"),
    *("cells/X/generations.jsonl", "cells/X/predictions.json.gz", "cells/X/status.json"),
)


@pytest.mark.parametrize("file", spread(PLACES, 4))
def test_pipes_and_folders_in_the_place_of_files_are_not_waited_for(small, file):
    path = small.path / file.replace("X", cells_of(small)[0].name)
    path.unlink()
    path.mkdir()
    built(small)
    path.rmdir()
    os.mkfifo(path)
    assert path.name in refused(small) or "no manifest.json" in refused(small)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert path.name in refused(small) or "no manifest.json" in refused(small)
    path.unlink()
    path.symlink_to(path.name)
    built(small)


def test_a_link_out_of_a_folder_that_was_handed_in_is_refused(small, tmp_path):
    [cell, *_] = cells_of(small)
    secret = tmp_path / "secret"
    (cell / "scores.json").rename(secret)
    (cell / "scores.json").symlink_to(secret)
    check_folder(small, claimed=False)
    with pytest.raises(UserError, match="is a link out of the directory"):
        check_folder(small, claimed=True)
    secret.rename(small.path / "secret")
    (cell / "scores.json").unlink()
    (cell / "scores.json").symlink_to(small.path / "secret")
    check_folder(small, claimed=True)
    (tmp_path / "handed" / "results").mkdir(parents=True)
    small.path.rename(tmp_path / "handed" / "results" / "x")
    (tmp_path / "handed" / "submission.yaml").write_text("name: x\n")
    steerboard("board", "build", tmp_path / "handed", "--out", tmp_path / "out").one_line()


# What lies in the folder of the site


STRANGE = ["../kept", "/x", "a/../../kept", "..", ".", "", "x" * 5000, "link", "deep/kept", "a\x00b", 1, None]
LISTINGS = [
    json.dumps({"files": STRANGE}).encode(),
    *(b"", b"[]", b"{}", b'{"files": 1}', b"[" * 100_000, b"\xff"),
    json.dumps({"files": ["site.json", "index.html", "results.json"]}).encode(),
]


@pytest.mark.parametrize("listing", spread(LISTINGS, 7))
def test_a_listing_of_an_earlier_build_removes_nothing_outside(small, tmp_path, listing):
    out, outside = tmp_path / "out", tmp_path / "run" / "outside"
    outside.mkdir()
    for path in (outside / "kept", tmp_path / "run" / "kept"):
        path.write_text("kept")
    out.mkdir()
    (out / "deep").symlink_to(outside)
    (out / "link").symlink_to(outside / "kept")
    (out / "site.json").write_bytes(listing)
    before = snapshot(tmp_path / "run")
    shown(small)
    assert snapshot(tmp_path / "run") == before
    assert (out / "site.json").is_file()


def test_a_pipe_in_the_place_of_the_listing_is_not_waited_for(small, tmp_path):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "site.json")
    shown(small)


# Two builds against each other


@pytest.mark.parametrize("form", ["table", "md", "json"])
def test_hostile_sites_are_compared_as_text_or_refused(run, tmp_path, form):
    before = shown(run)
    fill(run, 3)
    after = tmp_path / "after"
    assert steerboard("board", "build", run.path, "--out", after).code == 0
    outcome = steerboard("board", "diff", before, after, "--format", form)
    assert outcome.code == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", outcome.out)
    if form == "md":
        assert not re.search(r"<(?!/?(br|sub)>)[a-z/!]", outcome.out)


@pytest.mark.slow
@pytest.mark.parametrize("new", spread(WRONG, 6), ids=shortly)
def test_results_whose_fields_are_anything_are_compared_or_refused(tiny, tmp_path, new):
    steerboard("board", "build", tiny, "--out", tmp_path / "out")
    old, path = tmp_path / "out" / "results.json", tmp_path / "new.json"
    body = json.loads(read(old))
    for at in places_of(body):
        path.write_text(json.dumps(changed(body, at, new)))
        outcome = steerboard("board", "diff", old, path)
        assert outcome.code == 0 or outcome.one_line().isprintable()


@pytest.mark.parametrize("body", BROKEN)
def test_broken_results_are_refused(tmp_path, body):
    (tmp_path / "results.json").write_bytes(BROKEN[body])
    assert "results.json" in steerboard("board", "diff", tmp_path, tmp_path).one_line()


def test_a_pipe_in_the_place_of_results_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    assert "results.json" in steerboard("board", "diff", tmp_path, tmp_path).one_line()
    assert "not a regular file" in steerboard("board", "diff", *[tmp_path / "results.json"] * 2).one_line()
