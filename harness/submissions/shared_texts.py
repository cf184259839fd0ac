"""Whether the texts of a submission are those of another one, or of another of its own cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import regex

from harness.core.errors import UserError
from harness.core.records import CellKey
from harness.submissions.report import SubmissionReport
from harness.submissions.submission import Submission, find_all

SHARED = 0.5
"""Share of a cell's different texts that stand in one other cell, above which they are a copy of that one.

Honest cells of other seeds, settings and models share texts by chance where a model knows few: on the mini
suite, a quarter at most, on real text 15 %."""
EQUAL = 0.95
"""Share of texts that are equal to another submission's, cell by cell, above which they are that one's."""
LEAST = 5
"""Different texts that a cell must have to be looked at."""
_SHORT = 20  # letters; of shorter texts many are written twice
_REST = regex.compile(r"[^\p{L}\p{N}]+")
_TODO = "Submit what this method and model generated in each cell."


@dataclass(frozen=True)
class _Written:
    """The texts of a cell: label and index -> letters."""

    owner: str
    folder: str
    cell: str
    key: CellKey
    texts: dict[tuple[str, int], str]

    @property
    def title(self) -> str:
        """The cell in words."""
        key = self.key
        return f"{key.task}, {key.language}, {key.setting}, seed {key.seed} of {self.owner}"


def compare_texts(submission: Submission, report: SubmissionReport) -> None:
    """Report cells whose texts are those of another cell, of this submission or of one in the folder beside.

    Noise is keyed: methods that steer the same model a little write many of the same texts under the same
    task, language, setting, seed, label and index. That is how it should be. It does not explain the same
    texts under another model, seed, setting, label or index, nor texts without code or steering that are
    another submission's from beginning to end.
    """
    own = list(_written(submission))
    taken: dict[str, list[str]] = {}
    equal: dict[str, Counter[str]] = {}
    for one, other in _pairs(submission, own):
        if _alike(one.key, other.key):
            same = sum(other.texts.get(at) == text for at, text in one.texts.items())
            equal.setdefault(other.owner, Counter()).update(same=same, all=len(one.texts))
        if _taken(one, other):
            taken.setdefault(f"results/{one.folder}/{one.cell}", []).append(other.title)
    for where, titles in taken.items():
        more = f" (and of {len(titles) - 1} more cells)" if len(titles) > 1 else ""
        report.problem(where, f"most of its texts are those of {titles[0]}{more}", _TODO)
    total = sum(len(cell.texts) for cell in own)
    for owner, counts in equal.items() if submission.card.type == "outputs" else ():
        if counts["same"] > EQUAL * total:
            what = f"{counts['same']} of {total} texts are those of {owner}, cell by cell"
            report.problem("results", what, "Submit texts of another method than that one's.")


def _pairs(submission: Submission, own: Sequence[_Written]) -> Iterator[tuple[_Written, _Written]]:
    """Yield the cells of a submission with every other cell that has a text of theirs."""
    holders: dict[str, set[int]] = {}
    for i, cell in enumerate(own):
        for text in {*cell.texts.values()}:
            holders.setdefault(text, set()).add(i)
    others = (cell for other in _beside(submission) for cell in _written(other))
    for cell in chain(own, others):
        for i in sorted({i for text in {*cell.texts.values()} for i in holders.get(text, ())}):
            if own[i] is not cell:
                yield own[i], cell


def _taken(own: _Written, other: _Written) -> bool:
    """Return whether most of a cell's texts stand in another cell, in a way that equal noise explains not."""
    texts = own.texts
    if _alike(own.key, other.key):
        texts = {at: text for at, text in texts.items() if other.texts.get(at) != text}
    different, there = {*texts.values()}, {*other.texts.values()}
    count = len({*own.texts.values()})
    return count >= LEAST and len(different & there) > SHARED * count


def _alike(one: CellKey, other: CellKey) -> bool:
    """Return whether two cells share their noise and their model, in whatever precision."""
    places = [(key.task, key.language, key.setting, key.seed) for key in (one, other)]
    a, b = one.model, other.model
    same = a == b or (a is not None and b is not None and (a.name, a.fingerprint) == (b.name, b.fingerprint))
    return places[0] == places[1] and same


def _beside(submission: Submission) -> Iterable[Submission]:
    others, _ = find_all(submission.folder.resolve().parent)
    return [other for other in others if other.folder.resolve() != submission.folder.resolve()]


def _written(submission: Submission) -> Iterator[_Written]:
    """Yield the cells that models wrote; what cannot be read is for another check to say."""
    for run in submission.runs:
        for cell in run.cell_ids():
            try:
                status = run.status(cell)
                if status is None or status.state != "ok" or status.cell.model is None:
                    continue
                texts = {(row.label, row.index): _letters(row.text) for row in run.generations(cell)}
            except UserError:
                continue
            long = {at: text for at, text in texts.items() if len(text) >= _SHORT}
            yield _Written(submission.card.name, run.folder, cell, status.cell, long)


def _letters(text: str) -> str:
    letters: str = _REST.sub("", text.casefold())
    return letters
