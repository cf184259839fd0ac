"""Texts side by side: one page per language, all entries, the same labels and seeds, nothing chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from harness.core.languages import Language, language
from leaderboard.boards import Board
from leaderboard.text import clean, name_of, slug
from leaderboard.views.marks import Marks, marks
from leaderboard.views.prompts import Prompts, prompts, settings_of

MOST = 20
"""Texts of an entry, a label and a seed that a page shows at most, the first ones."""

BYTES = 2_500_000
"""Of the texts of a page with their markup, about: beyond, seeds, then texts, then labels are left out."""

_FEW = 5  # texts of a label: a page shows fewer seeds rather than less
_LABELS = 60  # of a cell
_MARKUP, _USUAL = 240, 400  # bytes around a text, and of a text with them, about

Place = tuple[str, str, int]
"""Task, label and seed."""


@dataclass(frozen=True)
class SampleText:
    """One text and what the scoring found of it."""

    text: str
    marks: Marks

    @property
    def size(self) -> int:
        """Bytes that it takes on a page, about."""
        return _MARKUP + len(self.text.encode("utf-8", "replace"))


@dataclass
class SampleCell:
    """The first texts of one entry for one label and seed.

    ``anchors``: ids by which links find the first texts of the entry, and of the entry in the task.
    """

    entry: str
    name: str
    page: str
    setting: str
    texts: list[SampleText]
    anchors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """One label of one task and seed: what was asked, and the texts of all entries."""

    id: str
    task: str
    label: str
    seed: int
    prompts: Prompts
    samples: list[SampleCell]


@dataclass(frozen=True)
class SamplesPage:
    """The texts of one language.

    ``entries``: id, name and the id of its zero-shot, in the order of the ranking. ``count``: texts of a
    label that are shown, or all where there are no more. ``marked``: whether any text has marks.
    """

    language: Language
    entries: list[tuple[str, str, str]]
    tasks: list[str]
    seeds: list[int]
    seeds_left_out: int
    labels_left_out: int
    count: int
    marked: bool
    blocks: list[Block]

    @property
    def anchors(self) -> set[str]:
        """The ids that links to texts can name."""
        return {name for block in self.blocks for sample in block.samples for name in sample.anchors}


def anchor(entry: str, task: str = "") -> str:
    """Return the hash of an entry's texts, in a task or all: state for the script, and else an id."""
    return f"a={entry}&task={task}" if task else f"a={entry}"


def samples_page(board: Board, code: str, pages: dict[str, str]) -> SamplesPage:
    """Return the texts of a language. ``UserError`` for a broken file of texts."""
    selection = board.cellset.manifest.selection
    labels = _labels(board, code)
    places = len(board.cellset.entries) * sum(min(len(own), _LABELS) for own in labels.values())
    seeds = _seeds(places, list(selection.seeds))
    found: dict[Place, list[SampleCell]] = {}
    entries = []
    for standing in board.standings.rows:
        name, title = standing.row.id, name_of(standing.row.name, 160)
        setting = standing.row.entry.setting if standing.row.entry.model else ""
        any_text = False
        for task in selection.tasks:
            for seed in seeds:
                for label, own in _first(board, (name, task, code, seed)).items():
                    any_text = True
                    sample = SampleCell(name, title, pages[name], name_of(setting), own)
                    found.setdefault((task, label, seed), []).append(sample)
        entries += [(name, title, board.zero_shot.get(name, ""))] if any_text else []
    order = {task: i for i, task in enumerate(selection.tasks)}
    ordered = sorted(found, key=lambda place: (order[place[0]], _at(labels, place), place[1], place[2]))
    count = _fit(found)
    kept = _within(ordered, found)
    _anchor(kept, found)
    settings = settings_of([row.row for row in board.standings.rows])
    blocks = [
        Block(
            id=f"block-{i}",
            task=name_of(task),
            label=name_of(label),
            seed=seed,
            prompts=prompts(board, task, code, label, settings),
            samples=found[task, label, seed],
        )
        for i, (task, label, seed) in enumerate(kept, 1)
    ]
    return SamplesPage(
        language=language(code),
        entries=entries,
        tasks=[name_of(task) for task in selection.tasks],
        seeds=seeds,
        seeds_left_out=len(selection.seeds) - len(seeds),
        labels_left_out=len(ordered) - len(kept),
        count=count,
        marked=any(text.marks for block in blocks for sample in block.samples for text in sample.texts),
        blocks=blocks,
    )


def _seeds(places: int, seeds: list[int]) -> list[int]:
    """Return the first seeds, as many as leave room for some texts of every label."""
    room = BYTES // (_USUAL * _FEW * max(places, 1))
    return seeds[: max(1, room)]


def _fit(found: Mapping[Place, list[SampleCell]]) -> int:
    """Cut all samples to as many texts as a page has room for; return how many these are."""
    sizes = [0] * MOST
    samples = [sample for own in found.values() for sample in own]
    for sample in samples:
        for i, text in enumerate(sample.texts):
            sizes[i] += text.size
    count = max(1, sum(total <= BYTES for total in accumulate(sizes)))
    for sample in samples:
        del sample.texts[count:]
    return count


def _within(ordered: list[Place], found: Mapping[Place, list[SampleCell]]) -> list[Place]:
    """Return the first places, as many as a page has room for; the first in any case."""
    sizes = (sum(text.size for sample in found[place] for text in sample.texts) for place in ordered)
    return [place for place, total in zip(ordered, accumulate(sizes), strict=True) if total <= BYTES] or (ordered[:1])


def _anchor(kept: list[Place], found: Mapping[Place, list[SampleCell]]) -> None:
    """Give every entry's first sample, and its first of a task, the ids that links name."""
    seen: set[str] = set()
    for place in kept:
        for sample in found[place]:
            named = [anchor(sample.entry)]
            if slug(place[0]) == place[0]:  # other names of tasks would be no ids
                named.append(anchor(sample.entry, place[0]))
            sample.anchors = [name for name in named if name not in seen]
            seen.update(named)


def _labels(board: Board, code: str) -> dict[str, list[str]]:
    """Return task -> its labels in the suite's order; empty where the manifest does not say."""
    definitions = board.cellset.manifest.suite.get("definitions")
    found = {}
    for task in board.cellset.manifest.selection.tasks:
        try:
            found[task] = [str(label) for label in definitions[task][code]["labels"][:1000]]  # type: ignore[index]
        except (KeyError, TypeError):
            found[task] = []
    return found


def _at(labels: dict[str, list[str]], place: Place) -> int:
    known = labels[place[0]]
    return known.index(place[1]) if place[1] in known else len(known)


def _first(board: Board, place: tuple[str, str, str, int]) -> dict[str, list[SampleText]]:
    """Return label -> its first texts of one cell, with what was found of them."""
    if place not in board.cellset.cells:
        return {}
    run, cell = board.cellset.cells[place]
    texts = run.generations(cell)
    reference = board.cellset.entries[place[0]].entry.model is None
    found = marks(run, cell, [text.label for text in texts], place[2], reference)
    first: dict[str, list[SampleText]] = {}
    for item, own in zip(texts, found, strict=True):
        if item.label not in first and len(first) == _LABELS:
            continue
        shown = first.setdefault(item.label, [])
        if len(shown) < MOST:
            shown.append(SampleText(clean(item.text), own))
    return first
