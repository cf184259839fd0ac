"""Result files from strangers for the tests of the page: a run, payloads in it, and what no page may contain."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from harness.core import records, schema
from harness.core.files import write_json_gz
from harness.core.interventions import Intervention, Steering, load_steering
from harness.core.records import Generation, GridPoint, Selection
from harness.core.store import Run
from harness.scoring.metrics import VALID_SHARE, VENDI, Metric
from support.helpers import MODEL, Outcome, jsonl, steerboard
from support.toyruns import F1, ToyEntry, flat, plain, predicting, selection, toy, write_run

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


def shortly(value: Any) -> str:
    """Return what a test calls a value."""
    return ascii(value)[:12]


def spread(values: Iterable[Any], every: int) -> list[Any]:
    """Return the values as parameters of a test, of which all but every so many-th wait for the night."""
    return [
        value if i % every == 0 else pytest.param(value, marks=pytest.mark.nightly) for i, value in enumerate(values)
    ]


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
    if isinstance(kind, type) and issubclass(kind, schema.Record)
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


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
