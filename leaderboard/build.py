"""Build the site from result files: views, pages, downloads. Builds are reproducible."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import sweep, write_bytes, write_json, write_text
from harness.core.languages import language
from harness.core.reading import read_json
from harness.core.records import GridPoint, Tuned
from harness.core.schema import SCHEMA
from harness.core.store import Run
from harness.core.version import __version__
from harness.core.workers import map_forked
from harness.data.suite import data_note
from harness.scoring.metrics import VENDI, Metric
from harness.submissions.lockfile import NO_LOCK, LockFile
from leaderboard.boards import Board, boards, method_file
from leaderboard.checks import check_folder
from leaderboard.downloads.bibtex import citations, method_citations, methods_bib
from leaderboard.downloads.files import downloads
from leaderboard.downloads.results import results
from leaderboard.inputs import Input, Refused, inputs
from leaderboard.rendering import render
from leaderboard.text import WORDS, day_of, name_of, slug
from leaderboard.views import plots
from leaderboard.views.compare import head_to_head
from leaderboard.views.curves import index_curves, language_curves, method_curves
from leaderboard.views.doses import doses
from leaderboard.views.methods import method_page
from leaderboard.views.origins import entry_origins, run_groups
from leaderboard.views.ranking import overview
from leaderboard.views.samples import anchor, samples_page
from leaderboard.views.separation import separations, stored
from leaderboard.views.slices import QUESTION, slice_data
from leaderboard.views.tables import gain_grid, language_page, metric_file, metric_page

LISTING = "site.json"
"""Names the files of a site, so that the next build can remove those that are no longer made."""

_WRITERS = 8  # files at once

Page = tuple[str, str]
"""Address within the site, and HTML."""

PageFile = tuple[str, bytes]
"""Address within the site, and HTML in UTF-8, which takes half the memory."""


class SiteInfo(NamedTuple):
    """What all pages show: the date of the site (given, never the clock) and the version that built it."""

    date: str
    version: str


def build_site(paths: Sequence[Path], out: Path, date: str = "", lock: LockFile = NO_LOCK) -> Path:
    """Build the site of all runs at or below ``paths`` into ``out``; return its ``index.html``.

    ``date``: the date on the pages; by default the day of the newest run. ``lock``: the maintainers' checks of
    submissions. Pages make no network requests and need no server. Raises ``UserError`` for a path without runs,
    a broken file, an unwritable ``out``.
    """
    found = inputs(paths, lock)
    return build_board(found.items, out, date, found.refused)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Hold the garbage collector: nearly all of the millions of objects of a build live to its end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_gc()
def build_board(runs: Sequence[Input | Run], out: Path, date: str = "", refused: Sequence[Refused] = ()) -> Path:
    """Build the site of these runs, see ``build_site``; it names the ``refused`` submissions."""
    given = [item if isinstance(item, Input) else Input(item) for item in runs]
    map_forked(lambda item: check_folder(item.run, claimed=item.submission is not None), given)
    found = boards([item.run for item in given])
    dates = (day_of(manifest.created) for board in found for manifest in board.result_set.manifests)
    info = SiteInfo(date or max(dates, default=""), __version__)
    published = results(found, info.date, values=False)
    views = [view_of(board, given, _surfaces(board), info) for board in found]
    old, cited = _listed(out), method_citations(published)
    pages = [page for view in views for page in text_pages(view)]
    makes = [make for view in views for make in board_pages(view, cited[view["id"]])]
    everything: list[Callable[[], Any]] = [partial(downloads, found, info.date), *makes]
    files, *made = map_forked(lambda make: make(), everything)
    pages += made
    # after the pages that it links to
    index = index_page(views, info, refused, citations(published), methods_bib(published))
    _check_addresses([address for address, _ in pages])
    files.update(pages)
    _list(out, old.union(files))  # should this build be killed, the next one removes what it has written
    with ThreadPoolExecutor(_WRITERS) as pool:  # each waits for the disk
        list(pool.map(lambda name: write_bytes(out / name, files[name]), files))
    written = [*files]
    write_text(out / index[0], index[1])  # last: a reader never finds a link before its page
    written.append(index[0])
    for folder in _folders(out):  # first, so that what is then empty can be removed
        sweep(folder, deep=False)
    _remove(out, old - set(written))
    _list(out, written)
    return out / "index.html"


def _surfaces(board: Board) -> list[tuple[str, list[GridPoint]]]:
    """Return the results of ``steerboard tune`` in the runs of a board; broken ones are left out."""
    found = []
    for folder in dict.fromkeys(run.path for run, _ in board.result_set.cells.values()):
        path = folder / "tuned.json"
        with contextlib.suppress(UserError, ValidationError):
            if path.is_file():
                tuned = Tuned.model_validate(read_json(path, SCHEMA))
                found.append((name_of(tuned.model.name), tuned.surface))
    return found


def _check_addresses(addresses: Sequence[str]) -> None:
    """Refuse names that would give two pages one address: one of them would show the other's numbers."""
    address, count = Counter(addresses).most_common(1)[0]
    if count > 1:
        raise UserError(f"{count} pages would be {address}: rename the method, language or metric of that name.")


def _listed(out: Path) -> set[str]:
    """Return the files of the last build; none where there is no readable listing."""
    try:
        files = read_json(out / LISTING)["files"]
    except (UserError, KeyError):
        return set()
    listed = files if isinstance(files, list) else []
    return {name for name in listed if isinstance(name, str) and name.isprintable()}


def _list(out: Path, names: Iterable[str]) -> None:
    write_json(out / LISTING, {"schema": SCHEMA, "files": sorted(names)})


def _folders(out: Path) -> Iterator[Path]:
    """Yield a site's directory, and those in it."""
    yield out
    with os.scandir(out) as found:
        yield from (out / entry.name for entry in found if entry.is_dir(follow_symlinks=False))


def _remove(out: Path, names: set[str]) -> None:
    """Remove files of the last build, and directories that are empty then; nothing outside of the site."""
    root = out.resolve()
    for name in sorted(names - {LISTING}):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            continue
        path = out / name
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            if path.is_file() and path.resolve().is_relative_to(root):
                path.unlink()
                if path.parent != out and not any(path.parent.iterdir()):
                    path.parent.rmdir()


# Pages


def view_of(
    board: Board, inputs: Sequence[Input], surfaces: Sequence[tuple[str, list[GridPoint]]], info: SiteInfo
) -> dict[str, Any]:
    """Return what the pages of a board have in common; ``surfaces``: grid results, each with its model.

    ``anchors``: of the pages of texts, by language, which ``board_pages`` adds; ``texts_of`` links to them.
    """
    manifest, sources = board.result_set.manifest, entry_origins(board, inputs)
    methods = dict.fromkeys(row.row.entry.method.name for row in board.standings.rows)
    anchors: dict[str, set[str]] = {}
    return {
        "board": board,
        "id": board.id,
        "info": info,
        "words": WORDS["tracks"][board.track],
        "sources": sources,
        "overview": overview(board, sources),
        "scopes": slice_data(board),
        "data_note": data_note(manifest.suite, manifest.suite_hash, manifest.data_source),
        "origins": run_groups(board.result_set.manifests),
        "grid": gain_grid(board),
        "comparison": head_to_head(board),
        "diversity": plots.diversity(board),
        "cost": plots.cost(board),
        "curves": index_curves(board),
        "sweeps": plots.sweeps(surfaces),
        "doses": doses(board, surfaces),
        "languages": [language(code) for code in manifest.selection.languages],
        "checked": [name_of(language(code).name) for code in board.checks],
        "methods": [(name_of(name), method_file(name)) for name in methods],
        "metrics": [(metric, metric_file(metric)) for metric in board.result_set.metrics],
        "anchors": anchors,
        "texts_of": partial(_texts_of, anchors),
    }


def _texts_of(anchors: Mapping[str, set[str]], entry: str, code: str, task: str = "") -> str:
    """Return the address of an entry's texts in the directory of the board; empty where no page has any."""
    there = anchors.get(code, set())
    found = next((name for name in (anchor(entry, task), anchor(entry)) if name in there), "")
    return f"samples-{slug(code)}.html#{found}" if found else ""


def _page(view: Mapping[str, Any], file: str, template: str, *scripts: str, **context: Any) -> PageFile:
    """Return a page in the directory of a board."""
    html = render(template, *scripts, here=file, root="../", view=view, info=view["info"], **context)
    return f"{view['board'].id}/{file}", html.encode()


def text_pages(view: dict[str, Any]) -> list[PageFile]:
    """Return the pages of texts; they come first, as links to texts (``texts_of`` of the view) need their anchors."""
    board: Board = view["board"]

    def of_language(code: str) -> tuple[PageFile, set[str]]:
        texts = samples_page(board, code)
        return _page(view, f"samples-{slug(code)}.html", "samples.html.j2", "samples.js", page=texts), texts["anchors"]

    codes = board.axes["language"] if board.track != "understanding" else []  # its answers are labels
    made = map_forked(of_language, codes)
    view["anchors"].update({code: anchors for code, (_, anchors) in zip(codes, made, strict=True)})
    return [page for page, _ in made]


def board_pages(view: dict[str, Any], citations: Mapping[str, str]) -> list[Callable[[], PageFile]]:
    """Return what makes the other pages in the directory of a board; ``citations``: by method."""
    board: Board = view["board"]
    measured = stored(board)

    def of_language(code: str) -> PageFile:
        page = language_page(board, code)
        page["curves"] = language_curves(board, code, [row["id"] for row in page["rows"]])
        return _page(view, f"language-{slug(code)}.html", "language.html.j2", page=page)

    def of_method(name: str) -> PageFile:
        own = {**method_page(board, name, view), "separation": separations(board, name, measured)}
        own["curves"] = method_curves(board, name)
        return _page(view, method_file(name), "method.html.j2", page=own, citation=citations.get(name, ""))

    def of_metric(metric: Metric, file: str) -> PageFile:
        return _page(view, file, "metric.html.j2", page=metric_page(board, metric))

    dosage = partial(_page, view, "doses.html", "doses.html.j2", doses=view["doses"])
    pairs = partial(_page, view, "compare.html", "compare.html.j2", "compare.js", comparison=view["comparison"])
    names = dict.fromkeys(row.row.entry.method.name for row in board.standings.rows)
    return [
        *([pairs] if view["comparison"] else []),
        *([dosage] if view["doses"] else []),
        *(partial(of_language, code) for code in board.axes["language"]),
        *(partial(of_method, name) for name in names),
        *(partial(of_metric, metric, file) for metric, file in view["metrics"]),
    ]


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
