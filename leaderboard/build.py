"""Build the site from result files: views, pages, downloads. Builds are reproducible."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from harness import __version__
from harness.core.errors import UserError
from harness.core.files import sweep, write_json, write_text
from harness.core.reading import read_json
from harness.core.records import SCHEMA, GridPoint, Tuned
from harness.core.store import Run
from harness.submissions.lockfile import NO_LOCK, LockFile
from leaderboard.boards import Board, boards
from leaderboard.checks import check_folder
from leaderboard.downloads.bibtex import citations, method_citations, methods_bib
from leaderboard.downloads.files import write_downloads
from leaderboard.downloads.results import results
from leaderboard.inputs import Input, Refused, inputs
from leaderboard.pages import Page, SiteInfo, board_pages, index_page, view_of
from leaderboard.text import day_of, name_of

LISTING = "site.json"
"""Names the files of a site, so that the next build can remove those that are no longer made."""


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
    for item in given:
        check_folder(item.run, claimed=item.submission is not None)
    found = boards([item.run for item in given])
    dates = (day_of(manifest.created) for board in found for manifest in board.cellset.manifests)
    info = SiteInfo(date or max(dates, default=""), __version__)
    published = results(found, info.date)
    views = [view_of(board, given, _surfaces(board), info) for board in found]
    old, cited = _listed(out), method_citations(published)
    pages = [page for view in views for page in board_pages(view, cited[view["id"]])]
    # after the pages that it links to
    index = index_page(views, info, refused, citations(published), methods_bib(published))
    _check_addresses([address for address, _ in pages])
    written = [_write(out, page) for page in pages]
    written += [path.relative_to(out).as_posix() for path in write_downloads(found, out, info.date, published)]
    written.append(_write(out, index))  # last: a reader never finds a link before its page
    write_json(out / LISTING, {"schema": SCHEMA, "files": sorted(written)})
    _remove(out, old - set(written))
    for folder in {(out / name).parent for name in written}:
        sweep(folder, deep=False)
    return out / "index.html"


def _surfaces(board: Board) -> list[tuple[str, list[GridPoint]]]:
    """Return the results of ``steerboard tune`` in the runs of a board; broken ones are left out."""
    found = []
    for folder in dict.fromkeys(run.path for run, _ in board.cellset.cells.values()):
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


def _write(out: Path, page: Page) -> str:
    address, html = page
    write_text(out / address, html)
    return address


def _listed(out: Path) -> set[str]:
    """Return the files of the last build; none where there is no readable listing."""
    try:
        files = read_json(out / LISTING)["files"]
    except (UserError, KeyError):
        return set()
    return {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()


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
