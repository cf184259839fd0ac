"""Building the site from result files: views, pages, downloads. Equal files and date give equal bytes."""

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
from leaderboard.downloads.records import ResultFile
from leaderboard.downloads.results import results
from leaderboard.downloads.writing import write_downloads
from leaderboard.inputs import Input, Refused, inputs
from leaderboard.pages import BoardPages, Facts, Page, index_page
from leaderboard.text import day_of, name_of
from leaderboard.views.sources import entry_origins

LISTING = "site.json"
"""Names the files of a site, so that the next build can remove what is no longer made."""


def build_site(paths: Sequence[Path], out: Path, date: str = "", lock: LockFile = NO_LOCK) -> Path:
    """Build the site of all runs at or below ``paths`` into ``out``; return its ``index.html``.

    ``date``: what the pages give as their date; by default the day of the newest run. ``lock``: what the
    maintainers checked of submissions. Pages make no request and need no server. Raises ``UserError`` for a
    path without runs, a broken file, an unwritable ``out``.
    """
    found = inputs(paths, lock)
    return build_board(found.items, out, date, found.refused)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector: of the millions of objects of a build nearly all live to its end."""
    held = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if held:
            gc.enable()


@_uncollected()
def build_board(runs: Sequence[Input | Run], out: Path, date: str = "", refused: Sequence[Refused] = ()) -> Path:
    """Build the site of these runs, see ``build_site``; it names the ``refused`` submissions."""
    given = [item if isinstance(item, Input) else Input(item) for item in runs]
    for item in given:
        check_folder(item.run, item.claimed)
    found = boards([item.run for item in given])
    facts = Facts(date or newest(found), __version__)
    published = results(found, facts.date)
    views = _views(found, given, published, facts)
    old = _listed(out)
    others = [page for view in views for page in view.pages()]
    index = index_page(views, facts, refused)  # it links to texts that the others hold
    _check_addresses([address for address, _ in others])
    written = [_write(out, page) for page in others]
    written += [path.relative_to(out).as_posix() for path in write_downloads(found, out, facts.date, published)]
    written.append(_write(out, index))  # last: a reader never finds a link before its page
    write_json(out / LISTING, {"schema": SCHEMA, "files": sorted(written)})
    _remove(out, old - set(written))
    for folder in {(out / name).parent for name in written}:
        sweep(folder, deep=False)
    return out / "index.html"


def newest(found: Sequence[Board]) -> str:
    """Return the day of the newest run, empty where no run says when it was made."""
    dates = (day_of(m.created) for board in found for m in board.cellset.manifests)
    return max(dates, default="")


def _views(found: Sequence[Board], given: Sequence[Input], published: ResultFile, facts: Facts) -> list[BoardPages]:
    bibtex = methods_bib(published)
    cited, methods = citations(published), method_citations(published)
    return [
        BoardPages(
            board, entry_origins(board, given), _surfaces(board), bibtex, facts, cited[board.id], methods[board.id]
        )
        for board in found
    ]


def _surfaces(board: Board) -> list[tuple[str, list[GridPoint]]]:
    """Return the sweeps of ``steerboard tune`` that lie in the runs of a board; broken ones are left out."""
    folders = dict.fromkeys(run.path for run, _ in board.cellset.cells.values())
    found = []
    for folder in folders:
        path = folder / "tuned.json"
        if not path.is_file():
            continue
        try:
            tuned = Tuned.model_validate(read_json(path, SCHEMA))
        except (UserError, ValidationError):
            continue
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
    """Remove files of the last build, and folders that are empty then; nothing outside of the site."""
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
