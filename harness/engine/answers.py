"""Exact counts where one answer of the model holds several texts. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

from harness.core.records import Generation
from harness.data.corpus import normalise

_Name = tuple[str, int]  # label and number of the answer


class AnswerRounds:
    """The texts of a cell from answers with several each: exactly ``texts_per_label`` for every label.

    Each round asks for as many answers as the missing texts need: by ``per_answer`` (label -> texts in an answer) in
    the first, later by what the answers of the label gave so far. When all answers of a round are there, new texts are
    kept in the order of labels and answers; what is beyond the number is dropped. After ``max_rounds``, duplicates and
    empty texts fill up the number, marked. The tokens of an answer are divided among its texts that were kept.
    """

    def __init__(self, per_answer: Mapping[str, int], texts_per_label: int, max_rounds: int) -> None:
        self._per_answer, self._wanted, self._max_rounds = dict(per_answer), texts_per_label, max_rounds
        self._asked = dict.fromkeys(per_answer, 0)
        self._kept: dict[str, list[Generation]] = {label: [] for label in per_answer}
        self._spare: dict[str, list[Generation]] = {label: [] for label in per_answer}
        self._seen = {""}
        self._names: list[_Name] = []
        self._answers: dict[_Name, tuple[Generation, list[str]]] = {}
        self._round = -1

    def ask(self) -> list[tuple[_Name, int]]:
        """Return the names of the next round's answers with its number; none where nothing more is asked for."""
        self._answers, self._names = {}, []
        self._round += 1
        if self._round < self._max_rounds:
            for label, missing in self._missing().items():
                asked = self._asked[label]
                expected = max(1.0, len(self._kept[label]) / asked) if asked else self._per_answer[label]
                self._asked[label] += ceil(missing / expected)
                self._names += [(label, number) for number in range(asked, self._asked[label])]
        return [(name, self._round) for name in self._names]

    def add(self, answer: Generation, texts: list[str]) -> list[tuple[_Name, int]]:
        """Take up an answer with the texts in it; return the answers that it shows to be needed."""
        self._answers[answer.label, answer.index] = answer, texts
        if len(self._answers) < len(self._names):
            return []
        for name in self._names:
            self._keep(*self._answers[name])
        return self.ask()

    def texts(self) -> list[Generation] | None:
        """Return all texts in order; None while answers are missing."""
        if self._names:
            return None
        return [text for label in self._kept for text in self._filled(label)]

    def _missing(self) -> dict[str, int]:
        return {label: self._wanted - len(kept) for label, kept in self._kept.items() if len(kept) < self._wanted}

    def _keep(self, answer: Generation, texts: list[str]) -> None:
        kept, new = self._kept[answer.label], list[str]()
        for text in texts:
            form = normalise(text)
            if form in self._seen:
                self._spare[answer.label].append(_text_of(answer, text))
            elif len(kept) + len(new) < self._wanted:
                self._seen.add(form)
                new.append(text)
        self._spare[answer.label].append(_text_of(answer, ""))  # the last resort
        written, read = (_shares(n, len(new)) for n in (answer.n_new_tokens, answer.n_prompt_tokens))
        kept += [_text_of(answer, text, next(written), next(read)) for text in new]

    def _filled(self, label: str) -> list[Generation]:
        kept = self._kept[label]
        spare = sorted(self._spare[label], key=lambda text: not text.text)  # those that are not empty first
        spare = [text.model_copy(update={"duplicate": True}) for text in spare[: self._wanted - len(kept)]]
        filled = [*kept, *spare]
        filled += spare[-1:] * (self._wanted - len(filled))
        return [text.model_copy(update={"index": index}) for index, text in enumerate(filled)]


def _text_of(answer: Generation, text: str, new_tokens: int = 0, prompt_tokens: int = 0) -> Generation:
    return answer.model_copy(update={"text": text, "n_new_tokens": new_tokens, "n_prompt_tokens": prompt_tokens})


def _shares(total: int, parts: int) -> Iterator[int]:
    """Yield whole numbers, as equal as they can be, that add up to ``total``."""
    for part in range(parts):
        yield total * (part + 1) // parts - total * part // parts
