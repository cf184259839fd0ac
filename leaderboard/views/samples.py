"""Texts side by side: one page per language, all entries, the same labels and seeds, nothing chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.languages import Language, language
from harness.records import Generation
from leaderboard.boards import Board
from leaderboard.text import clean, name_of

_LABELS = 60  # of a cell
_TEXTS = 3  # of an entry, a label and a seed, the first ones
_BUDGET = 6_000  # texts on a page, about: beyond, fewer seeds and fewer texts are shown


@dataclass(frozen=True)
class Sample:
    """The first texts of one entry for one label and seed."""

    entry: str
    name: str
    page: str
    texts: list[str]


@dataclass(frozen=True)
class Block:
    """One label of one task and seed, all entries."""

    id: str
    task: str
    label: str
    seed: int
    samples: list[Sample]


@dataclass(frozen=True)
class SamplesPage:
    """The texts of one language. ``entries``: id and name, in the order of the ranking."""

    language: Language
    entries: list[tuple[str, str]]
    tasks: list[str]
    seeds: list[int]
    seeds_left_out: int
    blocks: list[Block]


def samples_page(board: Board, code: str, pages: dict[str, str]) -> SamplesPage:
    """Return the texts of a language. ``UserError`` for a broken file of texts."""
    selection = board.cellset.manifest.selection
    labels = _labels(board, code)
    places = len(board.cellset.entries) * sum(min(len(own), _LABELS) for own in labels.values())
    seeds, texts = _room(places, list(selection.seeds))
    found: dict[tuple[str, str, int], list[Sample]] = {}
    entries = []
    for standing in board.standings.rows:
        name, title = standing.row.id, name_of(standing.row.name, 160)
        any_text = False
        for task in selection.tasks:
            for seed in seeds:
                for label, own in _first(board, (name, task, code, seed), texts).items():
                    any_text = True
                    sample = Sample(name, title, pages[name], own)
                    found.setdefault((task, label, seed), []).append(sample)
        entries += [(name, title)] if any_text else []
    order = {task: i for i, task in enumerate(selection.tasks)}
    ordered = sorted(found, key=lambda place: (order[place[0]], _at(labels, place), place[1], place[2]))
    blocks = [
        Block(f"block-{i}", name_of(task), name_of(label), seed, found[task, label, seed])
        for i, (task, label, seed) in enumerate(ordered, 1)
    ]
    left = len(selection.seeds) - len(seeds)
    tasks = [name_of(task) for task in selection.tasks]
    return SamplesPage(language(code), entries, tasks, seeds, left, blocks)


def _room(places: int, seeds: list[int]) -> tuple[list[int], int]:
    """Return the seeds and the number of texts that a page has room for."""
    for count in range(len(seeds), 0, -1):
        if places * count * _TEXTS <= _BUDGET or count == 1:
            return seeds[:count], max(1, min(_TEXTS, _BUDGET // max(places * count, 1)))
    return seeds, _TEXTS


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


def _at(labels: dict[str, list[str]], place: tuple[str, str, int]) -> int:
    known = labels[place[0]]
    return known.index(place[1]) if place[1] in known else len(known)


def _first(board: Board, place: tuple[str, str, str, int], count: int) -> dict[str, list[str]]:
    """Return label -> its first texts of one cell."""
    if place not in board.cellset.cells:
        return {}
    run, cell = board.cellset.cells[place]
    return _by_label(run.generations(cell), count)


def _by_label(generations: Sequence[Generation], count: int) -> dict[str, list[str]]:
    first: dict[str, list[str]] = {}
    for item in generations:
        if item.label not in first and len(first) == _LABELS:
            continue
        texts = first.setdefault(item.label, [])
        if len(texts) < count:
            texts.append(clean(item.text))
    return first
