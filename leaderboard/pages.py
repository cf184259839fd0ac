"""The pages of a site: which there are, under which address, from which template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.core.languages import Language, language
from harness.core.records import GridPoint
from harness.data.suite import data_note
from harness.scoring.metrics import VENDI
from harness.tracks.separation import Separation
from leaderboard.boards import Board
from leaderboard.inputs import Refused
from leaderboard.rendering import render
from leaderboard.text import name_of, slug
from leaderboard.views import plots
from leaderboard.views.duel import HeadToHead, head_to_head
from leaderboard.views.grid import GainGrid, grid
from leaderboard.views.headline import QUESTION
from leaderboard.views.languages import language_page
from leaderboard.views.matrix import Matrix, matrix
from leaderboard.views.methods import method_file, method_page, method_pages
from leaderboard.views.metrics import metric_file, metric_page
from leaderboard.views.origins import Origins, origins
from leaderboard.views.overview import Overview, overview
from leaderboard.views.samples import anchor, samples_page
from leaderboard.views.scopes import scope_data
from leaderboard.views.separation import stored
from leaderboard.views.sources import EntryOrigin
from leaderboard.views.tracks import TRACKS, TrackWords

Page = tuple[str, str]
"""Address within the site, and HTML."""


@dataclass(frozen=True)
class Facts:
    """What all pages say: when the site was built (given, never the clock), by which version."""

    date: str
    version: str


class BoardPages:
    """The views of one board, each made once, and its pages."""

    def __init__(
        self,
        board: Board,
        sources: dict[str, EntryOrigin],
        surfaces: Sequence[tuple[str, list[GridPoint]]],
        bibtex: str,
        facts: Facts,
        citation: str = "",
        citations: Mapping[str, str] | None = None,
    ) -> None:
        """``bibtex``: of all methods; ``citation``: of the board; ``citations``: by method, and the board."""
        self.board = board
        self.sources = sources
        self.surfaces = surfaces
        self.bibtex = bibtex
        self.citation = citation
        self._citations = citations or {}
        self.facts = facts
        self.addresses = method_pages(board)
        self._anchors: dict[str, set[str]] = {}

    @property
    def id(self) -> str:
        """The board's name in addresses."""
        return self.board.id

    @property
    def words(self) -> TrackWords:
        """What the board's track is called and measures."""
        return TRACKS[self.board.track]

    @cached_property
    def means(self) -> Matrix:
        """All metrics by entry, task and language."""
        return matrix(self.board.cube)

    @cached_property
    def overview(self) -> Overview:
        """The ranking."""
        return overview(self.board, self.means, self.sources, self.addresses)

    @cached_property
    def scopes(self) -> dict[str, object]:
        """The ranking by task and language."""
        return scope_data(self.board, self.means, self.addresses)

    @cached_property
    def data_note(self) -> str:
        """What readers must know of the data, such as that no people wrote it."""
        manifest = self.board.cellset.manifest
        return data_note(manifest.suite.get("name"), manifest.suite_hash, manifest.data_source)

    @cached_property
    def origins(self) -> Origins:
        """Provenance: what runs share, and in what they differ."""
        return origins(self.board.cellset.manifests)

    @cached_property
    def grid(self) -> GainGrid:
        """Entries by languages."""
        return grid(self.board, self.means)

    @cached_property
    def duel(self) -> HeadToHead | None:
        """Entries head to head."""
        return head_to_head(self.board)

    @cached_property
    def diversity(self) -> Any:
        """The scatter plot of diversity and use."""
        return plots.diversity(self.board, self.means, self.addresses)

    @cached_property
    def cost(self) -> Any:
        """The scatter plot of cost and gain."""
        return plots.cost(self.board, self.addresses)

    @cached_property
    def sweeps(self) -> list[plots.Sweep]:
        """The heatmaps."""
        return plots.sweeps(self.board, self.surfaces)

    @cached_property
    def separations(self) -> list[Separation]:
        """What was measured of how far apart languages lie."""
        return stored(self.board)

    @property
    def languages(self) -> list[Language]:
        """The languages of the board."""
        return [language(code) for code in self.board.cellset.manifest.selection.languages]

    @property
    def checked(self) -> list[str]:
        """The names of the languages that are in no mean."""
        return [name_of(language(code).name) for code in self.board.checks]

    @cached_property
    def methods(self) -> list[tuple[str, str]]:
        """Name and address of every method's page, in the order of the ranking."""
        names = (row.row.entry.method.name for row in self.board.standings.rows)
        return [(name_of(name), method_file(name)) for name in dict.fromkeys(names)]

    @cached_property
    def metrics(self) -> list[tuple[Any, str]]:
        """Every metric and the address of its page."""
        return [(metric, metric_file(metric)) for metric in self.board.cellset.metrics]

    def texts_of(self, entry: str, code: str, task: str = "") -> str:
        """Return the address of an entry's texts in the folder of the board; empty where no page has any.

        Known once ``pages`` has yielded the pages of texts.
        """
        there = self._anchors.get(code, set())
        found = next((name for name in (anchor(entry, task), anchor(entry)) if name in there), "")
        return f"samples-{slug(code)}.html#{found}" if found else ""

    def pages(self) -> Iterator[Page]:
        """Yield the pages in the folder of the board."""
        codes = self.board.cellset.manifest.selection.languages
        for code in codes if self.board.track != "understanding" else []:  # its answers are labels
            texts = samples_page(self.board, code, self.addresses)
            self._anchors[code] = texts.anchors
            yield self._page(f"samples-{slug(code)}.html", "samples.html.j2", "samples.js", page=texts)
        if self.duel:
            yield self._page("compare.html", "compare.html.j2", "compare.js", duel=self.duel)
        for code in codes:
            page = language_page(self.board, self.means, code, self.addresses)
            yield self._page(f"language-{slug(code)}.html", "language.html.j2", page=page)
        rows = {row.id: row for row in self.overview.rows}
        for name in dict.fromkeys(row.row.entry.method.name for row in self.board.standings.rows):
            own = method_page(
                self.board, self.means, name, rows, self.sources, self.grid, self.sweeps, self.separations
            )
            citation = self._citations.get(name, "")
            yield self._page(own.page, "method.html.j2", page=own, citation=citation)
        for metric, file in self.metrics:
            found = metric_page(self.board, self.means, metric, self.addresses)
            yield self._page(file, "metric.html.j2", page=found)

    def _page(self, file: str, template: str, script: str = "", **context: Any) -> Page:
        html = render(
            template,
            *([script] if script else []),
            here=file,
            root="../",
            view=self,
            facts=self.facts,
            **context,
        )
        return f"{self.id}/{file}", html


def index_page(views: Sequence[BoardPages], facts: Facts, refused: Sequence[Refused] = ()) -> Page:
    """Return the overview of all boards, track by track; ``refused``: what is named and not shown."""
    columns = {column.key: column for view in views for column in view.overview.columns}
    tracks = len({view.board.track for view in views})
    return "index.html", render(
        "index.html.j2",
        "plots.js",
        "columns.js",
        "overview.js",
        here="index.html",
        root="",
        views=views,
        facts=facts,
        definitions=list(columns.values()),
        several=tracks > 1,
        refused=refused,
        question=QUESTION,
        diversity=VENDI.for_provider("tfidf"),
    )
