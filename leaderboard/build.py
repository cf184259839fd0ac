"""Building the board: read result files, make the views, render one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import UserError
from harness.files import write_text
from harness.ranking.summary import plain, signed, spanned, tier_of
from harness.ranking.tables import collect
from harness.store import Run
from leaderboard.views import board_view

TEMPLATES = Path(__file__).parent / "templates"


def build_board(runs: Sequence[Run], out: Path) -> Path:
    """Write ``out/index.html`` from the files of ``runs`` and return its path.

    The page makes no network request. Text from runs is escaped by the templates. Raises
    ``UserError`` for a folder that holds no run, a broken file in it, and an unwritable ``out``.
    """
    cellsets = collect(runs)
    views = [board_view(cellset) for cellset in cellsets if not cellset.scores.empty]
    if not views:
        listed = ", ".join(str(run.path) for run in runs)
        raise UserError(f"nothing is scored in {listed}. Run 'steerboard score RUN' first.")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, signed=signed, spanned=spanned, tier_of=tier_of)
    # The only text put in unescaped: the style sheet that ships beside the templates.
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704
    page = environment.get_template("page.html.j2").render(views=views, style=style)
    target = out / "index.html"
    write_text(target, page)
    return target
