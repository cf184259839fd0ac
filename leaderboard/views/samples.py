"""Texts side by side: one page per language, all entries, the same labels and seeds, nothing selected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from typing import Any, NamedTuple

from harness.core.errors import UserError
from harness.core.languages import language
from harness.core.store import Run
from leaderboard.boards import Board
from leaderboard.text import WORDS, clean, name_of, slug

MOST = 20
"""Texts of an entry, a label and a seed that a page shows at most, the first ones."""

BYTES = 2_500_000
"""Approximate bytes of the texts of a page with their markup: beyond, seeds, then texts, then labels are left out."""

_FEW = 5  # texts of a label: a page shows fewer seeds rather than less
_LABELS = 60  # of a cell
_MARKUP, _USUAL = 240, 400  # approximate bytes around a text, and of a text with them
_PROMPT = 2000  # characters of a prompt
_SETTINGS = 6
_COPIED = "copied/"
_NAMES = 8  # of reasons and corpora of a text

BlockKey = tuple[str, str, int]
"""Task, label and seed."""


class Mark(NamedTuple):
    """One finding of the scoring in words; ``off``: not what was asked for."""

    words: str
    off: bool


class SampleText(NamedTuple):
    """One text and the findings of the scoring."""

    text: str
    marks: tuple[Mark, ...]

    @property
    def size(self) -> int:
        """Approximate bytes on a page."""
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


def anchor(entry: str, task: str = "") -> str:
    """Return the hash of an entry's texts, in a task or all: state for the script, else an id."""
    return f"a={entry}&task={task}" if task else f"a={entry}"


def samples_page(board: Board, code: str) -> dict[str, Any]:
    """Return the texts of a language.

    ``entries``: id, name and the id of its zero-shot, in the order of the ranking. ``count``: texts of a
    label that are shown, or all where there are no more. ``marked``: whether any text has marks. Raises
    ``UserError`` for a broken file of texts.
    """
    selection = board.result_set.manifest.selection
    labels = _labels(board, code)
    n = len(board.result_set.entries) * sum(min(len(own), _LABELS) for own in labels.values())
    room = BYTES // (_USUAL * _FEW * max(n, 1))
    seeds = list(selection.seeds)[: max(1, room)]  # as many as leave room for some texts of every label
    found: dict[BlockKey, list[SampleCell]] = {}
    entries: dict[str, tuple[str, str, str]] = {}
    for standing in board.standings.rows:
        name, title = standing.row.id, board.names[standing.row.id]
        setting = name_of(standing.row.entry.setting) if standing.row.entry.model else ""
        for task, seed in product(selection.tasks, seeds):
            for label, own in _first(board, (name, task, code, seed)).items():
                sample = SampleCell(name, title, board.page(name), setting, own)
                found.setdefault((task, label, seed), []).append(sample)
                entries[name] = (name, title, board.zero_shot.get(name, ""))
    tasks = list(selection.tasks)
    ordered = sorted(found, key=lambda k: (tasks.index(k[0]), (*labels[k[0]], k[1]).index(k[1]), k[1], k[2]))
    count = _fit(found)
    kept = _within(ordered, found)
    _anchor(kept, found)
    entries_asked = [row.row.entry for row in board.standings.rows if row.row.entry.model]
    settings = list(dict.fromkeys(str(entry.setting) for entry in entries_asked))[:_SETTINGS]
    blocks = [
        {
            "id": f"block-{i}",
            "task": name_of(task),
            "label": name_of(label),
            "seed": seed,
            "prompts": prompts(board, task, code, label, settings),
            "samples": found[task, label, seed],
        }
        for i, (task, label, seed) in enumerate(kept, 1)
    ]
    return {
        "language": language(code),
        "entries": list(entries.values()),
        "tasks": [name_of(task) for task in selection.tasks],
        "seeds": seeds,
        "seeds_left_out": len(selection.seeds) - len(seeds),
        "labels_left_out": len(ordered) - len(kept),
        "count": count,
        "marked": any(text.marks for key in kept for sample in found[key] for text in sample.texts),
        "blocks": blocks,
        "anchors": {name for key in kept for sample in found[key] for name in sample.anchors},
    }


def _fit(found: Mapping[BlockKey, list[SampleCell]]) -> int:
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


def _within(ordered: list[BlockKey], found: Mapping[BlockKey, list[SampleCell]]) -> list[BlockKey]:
    """Return the first blocks, as many as a page has room for; the first in any case."""
    sizes = (sum(text.size for sample in found[key] for text in sample.texts) for key in ordered)
    return [key for key, total in zip(ordered, accumulate(sizes), strict=True) if total <= BYTES] or ordered[:1]


def _anchor(kept: list[BlockKey], found: Mapping[BlockKey, list[SampleCell]]) -> None:
    """Give every entry's first sample, and its first of a task, the ids that links name."""
    seen: set[str] = set()
    for key in kept:
        for sample in found[key]:
            named = [anchor(sample.entry)]
            if slug(key[0]) == key[0]:  # other names of tasks are not valid as ids
                named.append(anchor(sample.entry, key[0]))
            sample.anchors = [name for name in named if name not in seen]
            seen.update(named)


def _labels(board: Board, code: str) -> dict[str, list[str]]:
    """Return task -> its labels in the suite's order; empty where the manifest does not name them."""
    definitions = board.result_set.manifest.suite.get("definitions")
    found = {}
    for task in board.result_set.manifest.selection.tasks:
        try:
            found[task] = [str(label) for label in definitions[task][code]["labels"][:1000]]  # type: ignore[index]
        except (KeyError, TypeError):
            found[task] = []
    return found


def _first(board: Board, index: tuple[str, str, str, int]) -> dict[str, list[SampleText]]:
    """Return label -> its first texts of one cell, with the findings of the scoring."""
    if index not in board.result_set.cells:
        return {}
    run, cell = board.result_set.cells[index]
    texts = run.generations(cell)
    reference = board.result_set.entries[index[0]].entry.model is None
    found = marks(run, cell, [text.label for text in texts], index[2], reference)
    first: dict[str, list[SampleText]] = {}
    for item, own in zip(texts, found, strict=True):
        if item.label not in first and len(first) == _LABELS:
            continue
        shown = first.setdefault(item.label, [])
        if len(shown) < MOST:
            shown.append(SampleText(clean(item.text), tuple(own)))
    return first


def prompts(board: Board, task: str, code: str, label: str, settings: Sequence[str]) -> list[tuple[str, str]]:
    """Return setting and prompt of a label as the suite defines them; without those that the manifest does not have.

    Demonstrations are human-written text, which no page shows: their number takes their place.
    """
    suite = board.result_set.manifest.suite
    try:
        templates = suite["definitions"][task][code]["prompts"]
        found = [(setting, templates[setting]) for setting in settings if setting in templates]
    except (KeyError, TypeError):
        return []
    few_shot = suite.get("few_shot")
    given = few_shot.get("shots") if isinstance(few_shot, dict) else None
    shots = given if type(given) is int and 0 < given < 10_000 else None
    examples = f"[{f'{shots} ' if shots else ''}human-written texts of this label, not shown]"
    items = {"few-shot": f'{examples}\n{shots + 1 if shots else "…"}. "'}  # as ``suite_prompt`` writes them
    values = {"{label}": label, "{language}": language(code).name, "{examples}": examples}
    filled = []
    for setting, template in found:
        text = str(template)[:_PROMPT]
        for name, value in {**values, "{items}": items.get(setting, '1. "')}.items():
            text = text.replace(name, value)
        filled.append((name_of(setting), clean(text, _PROMPT)))
    return filled


def marks(run: Run, cell: str, labels: Sequence[str], code: str, reference: bool = False) -> list[list[Mark]]:
    """Return the findings of the scoring for every text of a cell; none without a readable audit file.

    ``labels``: the requested label of each text; ``code``: the requested language; ``reference``: whether no
    model wrote the texts, so that they may be human-written text. The file may come from strangers: lists of
    another length than the texts, and values of other types, are ignored.
    """
    try:
        audit = run.text_checks(cell)
    except (UserError, OSError, ValueError):
        return [[] for _ in labels]
    validity, leakage = (_columns(audit.get(key), len(labels)) for key in ("validity", "leakage"))
    copied = {name.removeprefix(_COPIED): flags for name, flags in leakage.items() if _COPIED in name}
    found = []
    for i, asked in enumerate(labels):
        text = {name: column[i] for name, column in validity.items()}
        own = [*_of_text(text, asked, code)]
        named = [name_of(name, 40) for name, flags in copied.items() if flags[i] is True][:_NAMES]
        found.append([*own, Mark(f"copied from {', '.join(named)}", off=not reference)] if named else own)
    return found


def _columns(part: object, n: int) -> dict[str, list[object]]:
    """Return the lists of a part that are as long as the texts."""
    columns = part.items() if isinstance(part, Mapping) else ()
    return {name: column for name, column in columns if isinstance(column, list) and len(column) == n}


def _of_text(text: Mapping[str, object], asked: str, code: str) -> Iterator[Mark]:
    """Yield validity, language and label of one text."""
    reasons, spoken, judged = text.get("reasons"), text.get("language"), text.get("label")
    if text.get("valid") is True:
        yield Mark("valid", off=False)
    elif text.get("valid") is False:
        listed = reasons[:_NAMES] if isinstance(reasons, list) else []
        words = ", ".join(WORDS["reasons"].get(str(reason)) or name_of(reason, 40) for reason in listed)
        yield Mark(f"not valid: {words}" if words else "not valid", off=True)
    if isinstance(spoken, str):
        name = name_of(language(spoken).name, 40) if spoken else ""
        words = "no language found" if not spoken else name if name != spoken else f"language {name}"
        yield Mark(words, off=spoken != code)
    if isinstance(judged, str) and judged:  # a blank text has no label
        yield Mark(f"judged {name_of(judged, 60)}", off=judged != asked)
