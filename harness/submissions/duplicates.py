"""Whether a submission is another one: names that look alike, entries that exist, texts of other cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import regex

from harness.core.errors import UserError
from harness.core.records import CellKey
from harness.methods.registry import BUILT_IN
from harness.submissions.card import Card
from harness.submissions.files import CARD, InvalidSubmissionError
from harness.submissions.report import SubmissionReport, cell_title
from harness.submissions.submission import Submission

SHARED = 0.5
"""Share of a cell's distinct texts that appear in one other cell, above which they are copies of that one.

Honest cells of other seeds, settings and models share texts by chance where a model knows few: on the mini
suite, a quarter at most, on real text 15 %."""
EQUAL = 0.95
"""Share of texts that equal another submission's, cell by cell, above which they are that one's."""
LEAST = 5
"""Distinct texts that a cell must have to be looked at."""
_SHORT = 20  # letters; many shorter texts are written twice
_NO_LETTERS = regex.compile(r"[^\p{L}\p{N}]+")
_SEPARATORS = re.compile(r"[-_.]+")
_CONFUSABLE = str.maketrans("01I", "oll")


def skeleton(name: str) -> str:
    """Return what an ASCII name looks like: equal for names that a reader may confuse.

    As in the confusables of Unicode Technical Standard 39 for ASCII (0 and O, 1 and l and I, rn and m),
    without regard to case, and with one separator for all. Names of submissions have no other characters.
    """
    return _SEPARATORS.sub("-", name.translate(_CONFUSABLE).lower().replace("rn", "m"))


def clashes(card: Card, others: Iterable[Card]) -> Iterator[InvalidSubmissionError]:
    """Yield why a submission cannot stand next to built-in methods and other submissions."""
    names, own = [*BUILT_IN], _entries(card)
    for other in others:
        names += [other.name, other.method.name]
        if own & _entries(other):
            problem = f"its entry (method, version, options, suite and model) is that of submission {other.name}"
            yield InvalidSubmissionError(CARD, problem, "Submit a method or a model that is not there yet.")
    for kind, name in {"name": card.name, "method's name": card.method.name}.items():
        like = next((known for known in names if known != name and skeleton(known) == skeleton(name)), None)
        if like is not None:
            yield InvalidSubmissionError(CARD, f"the {kind} {name!r} looks like {like!r}", "Choose another name.")


def _entries(card: Card) -> set[str]:
    """Return what the board tells entries apart by, for every model."""
    method = card.identity.model_dump_json()
    models = [model.model_dump_json() for model in map(card.model, card.results) if model]
    return {f"{card.suite_title} {method} {model}" for model in (models or [""])}


@dataclass(frozen=True)
class _CellTexts:
    """The texts of a cell: label and index -> letters."""

    owner: str
    path: str
    key: CellKey
    texts: dict[tuple[str, int], str]

    def shares_noise(self, other: _CellTexts) -> bool:
        """Say whether two cells have the same sampling noise and the same model, in whatever precision."""
        a, b = self.key, other.key
        model = (a.model and (a.model.name, a.model.fingerprint)) == (b.model and (b.model.name, b.model.fingerprint))
        return model and (a.task, a.language, a.setting, a.seed) == (b.task, b.language, b.setting, b.seed)


def compare_texts(submission: Submission, others: Iterable[Submission], report: SubmissionReport) -> None:
    """Report cells whose texts are those of another cell, of this submission or of another one.

    Noise is keyed: methods that steer the same model a little write many of the same texts under the same
    task, language, setting, seed, label and index. That is expected. It does not explain the same texts under
    another model, seed, setting, label or index, nor texts without code or vectors that are another
    submission's from beginning to end.
    """
    own = list(_cell_texts(submission))
    copied: dict[str, list[str]] = {}
    equal: dict[str, int] = Counter()
    for cell, other in _pairs(own, others):
        if cell.shares_noise(other):
            equal[other.owner] += sum(other.texts.get(at) == text for at, text in cell.texts.items())
        if _is_copy(cell, other):
            copied.setdefault(cell.path, []).append(f"{cell_title(other.key)} of {other.owner}")
    hint = "Submit what this method and model generated in each cell."
    for path, titles in copied.items():
        more = f" (and of {len(titles) - 1} more cells)" if len(titles) > 1 else ""
        report.add("problem", path, f"most of its texts are those of {titles[0]}{more}", hint)
    total = sum(len(cell.texts) for cell in own)
    for owner, same in equal.items() if submission.card.type == "outputs" else ():
        if same > EQUAL * total:
            problem = f"{same} of {total} texts are those of {owner}, cell by cell"
            report.add("problem", "results", problem, "Submit texts of another method than that one's.")


def _pairs(own: Sequence[_CellTexts], others: Iterable[Submission]) -> Iterator[tuple[_CellTexts, _CellTexts]]:
    """Yield every own cell with every other cell that has a text of it."""
    holders: dict[str, set[int]] = {}
    for i, cell in enumerate(own):
        for text in {*cell.texts.values()}:
            holders.setdefault(text, set()).add(i)
    for cell in chain(own, chain.from_iterable(map(_cell_texts, others))):
        for i in sorted({i for text in {*cell.texts.values()} for i in holders.get(text, ())}):
            if own[i] is not cell:
                yield own[i], cell


def _is_copy(own: _CellTexts, other: _CellTexts) -> bool:
    """Say whether most texts of a cell appear in another one, in a way that equal noise does not explain."""
    texts = own.texts
    if own.shares_noise(other):
        texts = {at: text for at, text in texts.items() if other.texts.get(at) != text}
    n_distinct = len({*own.texts.values()})
    return n_distinct >= LEAST and len({*texts.values()} & {*other.texts.values()}) > SHARED * n_distinct


def _cell_texts(submission: Submission) -> Iterator[_CellTexts]:
    """Yield the cells that models wrote; what cannot be read is for another check to report."""
    for run in submission.runs:
        for cell in run.cell_ids():
            try:
                status = run.status(cell)
                if status is None or status.state != "ok" or status.cell.model is None:
                    continue
                letters = {
                    (row.label, row.index): _NO_LETTERS.sub("", row.text.casefold()) for row in run.generations(cell)
                }
            except UserError:
                continue
            texts = {at: text for at, text in letters.items() if len(text) >= _SHORT}
            yield _CellTexts(submission.card.name, f"results/{run.path.name}/{cell}", status.cell, texts)
