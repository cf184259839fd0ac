"""The pages of a site: their addresses, templates and views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.core.languages import language
from harness.core.records import GridPoint, Track
from harness.data.suite import data_note
from harness.scoring.metrics import VENDI
from leaderboard.boards import Board, method_file
from leaderboard.inputs import Input, Refused
from leaderboard.rendering import render
from leaderboard.text import name_of, slug
from leaderboard.views import plots
from leaderboard.views.compare import head_to_head
from leaderboard.views.methods import method_page
from leaderboard.views.origins import entry_origins, run_groups
from leaderboard.views.ranking import overview
from leaderboard.views.samples import anchor, samples_page
from leaderboard.views.separation import separations, stored
from leaderboard.views.slices import QUESTION, slice_data
from leaderboard.views.tables import gain_grid, language_page, metric_file, metric_page

Page = tuple[str, str]
"""Address within the site, and HTML."""


class SiteInfo(NamedTuple):
    """What all pages show: the date of the site (given, never the clock) and the version that built it."""

    date: str
    version: str


TRACKS: dict[Track, dict[str, str]] = {
    "generation": {
        "name": "Generation",
        "question": "Which steering method writes the best training data?",
        "lead": "A model writes labelled text in a language. A small classifier is trained on that text alone and "
        "tested on human-written text, unless a table says otherwise. Each row is one way to steer the model; "
        "every difference has its 95 % interval.",
        "texts": "texts",
    },
    "understanding": {
        "name": "Understanding",
        "question": "Which steering method makes the model understand better?",
        "lead": "The steered model itself answers tasks of lm-eval, by log-likelihood or in words. Nothing is sampled: "
        "intervals are over test examples, paired between rows. A check language such as English is excluded from "
        "averages: a method must not pay for the others with it.",
        "texts": "answers",
    },
    "forcing": {
        "name": "Language forcing",
        "question": "Which steering method makes the model answer in another language?",
        "lead": "A plain question in one language, no word about the language of the answer, and the steering of "
        "another language: how many answers are in that language, and how many still answer the question. "
        "The score is the harmonic mean of both shares.",
        "texts": "answers",
    },
}
"""What a track is called, asks and measures; ``texts``: what a model writes in it."""


def view_of(
    board: Board, inputs: Sequence[Input], surfaces: Sequence[tuple[str, list[GridPoint]]], info: SiteInfo
) -> dict[str, Any]:
    """Return what the pages of a board have in common; ``surfaces``: grid results, each with its model.

    ``texts_of``: see ``board_pages``, which completes it.
    """
    manifest, sources = board.cellset.manifest, entry_origins(board, inputs)
    methods = dict.fromkeys(row.row.entry.method.name for row in board.standings.rows)
    return {
        "board": board,
        "id": board.id,
        "info": info,
        "words": TRACKS[board.track],
        "sources": sources,
        "overview": overview(board, sources),
        "scopes": slice_data(board),
        "data_note": data_note(manifest.suite.get("name"), manifest.suite_hash, manifest.data_source),
        "origins": run_groups(board.cellset.manifests),
        "grid": gain_grid(board),
        "comparison": head_to_head(board),
        "diversity": plots.diversity(board),
        "cost": plots.cost(board),
        "sweeps": plots.sweeps(surfaces),
        "languages": [language(code) for code in manifest.selection.languages],
        "checked": [name_of(language(code).name) for code in board.checks],
        "methods": [(name_of(name), method_file(name)) for name in methods],
        "metrics": [(metric, metric_file(metric)) for metric in board.cellset.metrics],
        "texts_of": _links_to({}),
    }


def _links_to(anchors: Mapping[str, set[str]]) -> Callable[..., str]:
    def texts_of(entry: str, code: str, task: str = "") -> str:
        """Return the address of an entry's texts in the directory of the board; empty where no page has any."""
        there = anchors.get(code, set())
        found = next((name for name in (anchor(entry, task), anchor(entry)) if name in there), "")
        return f"samples-{slug(code)}.html#{found}" if found else ""

    return texts_of


def board_pages(view: dict[str, Any], citations: Mapping[str, str]) -> Iterator[Page]:
    """Yield the pages in the directory of a board; ``citations``: by method.

    Pages of texts come first: links to texts (``texts_of`` of the view) need their anchors.
    """
    board: Board = view["board"]
    codes = board.axes["language"]
    anchors: dict[str, set[str]] = {}
    view["texts_of"] = _links_to(anchors)

    def page(file: str, template: str, script: str = "", **context: Any) -> Page:
        scripts = [script] if script else []
        html = render(template, *scripts, here=file, root="../", view=view, info=view["info"], **context)
        return f"{board.id}/{file}", html

    for code in codes if board.track != "understanding" else []:  # its answers are labels
        texts = samples_page(board, code)
        anchors[code] = texts["anchors"]
        yield page(f"samples-{slug(code)}.html", "samples.html.j2", "samples.js", page=texts)
    if view["comparison"]:
        yield page("compare.html", "compare.html.j2", "compare.js", comparison=view["comparison"])
    for code in codes:
        yield page(f"language-{slug(code)}.html", "language.html.j2", page=language_page(board, code))
    measured = stored(board)
    for name in dict.fromkeys(row.row.entry.method.name for row in board.standings.rows):
        own = {**method_page(board, name, view), "separation": separations(board, name, measured)}
        yield page(method_file(name), "method.html.j2", page=own, citation=citations.get(name, ""))
    for metric, file in view["metrics"]:
        yield page(file, "metric.html.j2", page=metric_page(board, metric))


def index_page(
    views: Sequence[Mapping[str, Any]],
    info: SiteInfo,
    refused: Sequence[Refused] = (),
    citations: Mapping[str, str] | None = None,
    bibtex: str = "",
) -> Page:
    """Return the overview of all boards, track by track.

    ``refused``: submissions that are named and not shown. ``citations``: by board id; ``bibtex``: of all methods.
    """
    columns = {column.key: column for view in views for column in view["overview"]["columns"]}
    return "index.html", render(
        "index.html.j2",
        "plots.js",
        "columns.js",
        "overview.js",
        here="index.html",
        root="",
        views=views,
        info=info,
        definitions=list(columns.values()),
        several=len({view["board"].track for view in views}) > 1,
        refused=refused,
        question=QUESTION,
        diversity=VENDI.for_provider("tfidf"),
        citations=citations or {},
        bibtex=bibtex,
    )
