"""The draws of a cell: what is empty or equals an earlier text is drawn again, in rounds over the whole cell.

The queue does not wait for a round to end. Here a plain loop does, over random vocabularies with so few texts that
duplicates are common, and both must give the same texts, counts and marks. No network is asked: a draw is a function
of its key.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from support.prompts import PROMPTS

from harness.core.interventions import Steering
from harness.data.corpus import normalise
from harness.data.suite import SamplingParams
from harness.engine import generate
from harness.engine.decoding import Row
from harness.engine.generate import CellRequest, GenerationQueue

WORDS = ["", "  ", "ጥሩ", "ጥሩ ", "መጥፎ", "טוב", "טוב  מאוד", "טוב מאוד", "Good day", "GOOD  day", "ｇｏｏｄ day", "no"]
_Name = tuple[str, int]


class KeyedBatch:
    """Stands in for the model: a text has as many tokens as its key says, all of them its word, and ends."""

    def __init__(self, words: int, order: random.Random) -> None:
        self._words, self._order, self._rows = words, order, list[Row]()

    @property
    def active(self) -> int:
        return len(self._rows)

    rows = active

    def shrink(self) -> None:
        pass

    def add(self, rows: Sequence[Row]) -> list[Row]:
        self._rows += rows
        return self._finish(0.2)

    def step(self) -> list[Row]:
        return self._finish(0.5)

    def _finish(self, share: float) -> list[Row]:
        """Complete a random share of the texts, in random order."""
        done = [row for row in self._rows if self._order.random() < share]
        self._order.shuffle(done)
        for row in done:
            row.tokens.extend(tokens_of(row.key, self._words))
            row.ended = row.key % 2 == 0
            self._rows.remove(row)
        return done


def tokens_of(key: int, words: int) -> list[int]:
    drawn = random.Random(key)
    return [drawn.randrange(words)] * drawn.randint(1, 5)


def plain_rounds(cell: CellRequest, words: Sequence[str], lengths: dict[str, int]) -> tuple[list[Any], list[int]]:
    """Draw all texts; then draw again, round after round, what is empty or equals an earlier one.

    Returns the texts, and the number of prompt tokens, new tokens and draws. (A text that an earlier one comes to equal
    is drawn in that one's round: its number of attempts is that of the round, and it was drawn less often.)
    """
    names = [(label, i) for label in cell.prompts for i in range(cell.texts_per_label)]
    texts: dict[_Name, tuple[str, int, int, str]] = {}
    usage = [0, 0, 0]
    pending = names
    for attempt in range(cell.sampling.max_attempts):
        for label, index in pending:
            key = cell.noise_key(label, index, attempt)
            tokens = tokens_of(key, len(words))
            usage = [usage[0] + lengths[label], usage[1] + len(tokens), usage[2] + 1]
            text = " ".join(words[tokens[0]].split())
            texts[label, index] = (text, attempt + 1, len(tokens), "length" if key % 2 else "stop")
        pending = repeats(names, texts)
        if not pending:
            break
    return [(*name, *texts[name], name in pending) for name in names], usage


def repeats(names: Iterable[_Name], texts: dict[_Name, tuple[str, int, int, str]]) -> list[_Name]:
    seen, found = {""}, []
    for name in names:
        form = normalise(texts[name][0])
        if form in seen:
            found.append(name)
        seen.add(form)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_draws_equal_plain_rounds_over_the_whole_cell(monkeypatch, new_tokenizer, seed):
    """Several cells share the rows; texts end in random order, and their number, attempts and words vary."""
    choice = random.Random(seed)
    words = choice.sample(WORDS, choice.randint(1, len(WORDS)))
    tokenizer = new_tokenizer()
    tokenizer.decode = lambda tokens, **options: words[tokens[0]]
    model: Any = SimpleNamespace(
        tokenizer=tokenizer,
        context_length=None,
        token_ids=lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
    )
    monkeypatch.setattr(generate, "open_batch", lambda model: KeyedBatch(len(words), choice))

    def cell(name: int) -> CellRequest:
        labels = choice.choice([list(PROMPTS), list(PROMPTS)[:1]])
        keys = random.Random(1000 * seed + name).getrandbits(60)
        return CellRequest(
            name,
            {label: PROMPTS[label] for label in labels},
            choice.randint(1, 9),
            Steering(),
            SamplingParams(temperature=1, top_p=1, max_new_tokens=9, max_attempts=choice.randint(1, 6)),
            lambda label, i, attempt: keys ^ hash((len(label), i, attempt)) & (2**60 - 1),
        )

    cells = [cell(name) for name in range(choice.randint(1, 4))]
    progress: list[int] = []
    queue = GenerationQueue(model, choice.randint(1, 12), progress.append)
    found = {request.name: texts for request, texts in queue.write(cells)}
    assert set(found) == {request.name for request in cells}
    lengths = {
        label: len(tokenizer(generate.render(tokenizer, prompt), add_special_tokens=False)["input_ids"])
        for label, prompt in PROMPTS.items()
    }
    draws = 0
    for request in cells:
        texts, usage = plain_rounds(request, words, lengths)
        assert [
            (t.label, t.index, t.text, t.attempts, t.n_new_tokens, t.finish_reason, t.duplicate)
            for t in found[request.name]
        ] == texts
        assert [request.usage.prompt_tokens, request.usage.new_tokens] == usage[:2]
        draws += usage[2]
    assert sum(progress) == draws


def test_the_random_cells_hold_what_they_are_for(new_tokenizer):
    """Texts that are drawn again and end well, and texts that stay duplicates to the last attempt."""
    request = CellRequest(
        "a",
        PROMPTS,
        4,
        Steering(),
        SamplingParams(temperature=1, top_p=1, max_new_tokens=9, max_attempts=3),
        lambda label, i, attempt: hash((len(label), i, attempt)) & (2**60 - 1),
    )
    texts, _ = plain_rounds(request, WORDS, dict.fromkeys(PROMPTS, 5))
    assert {attempts for _, _, _, attempts, *_ in texts} == {1, 2, 3}
    assert {True, False} == {duplicate for *_, duplicate in texts}
