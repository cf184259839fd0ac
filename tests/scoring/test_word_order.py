"""Words in an order that a language has are told from the same words shuffled; numbers to check by hand."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from support.helpers import MINI

from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.scoring.word_order import SHUFFLES, WordOrder, word_order

SUITE = load_suite("mini")


def shuffled(texts: list[str]) -> list[str]:
    draw = random.Random(11)
    return [" ".join(draw.sample(words, len(words))) for words in map(str.split, texts)]


def mean(found: np.ndarray) -> float:
    return float(np.nanmean(found))


def human(corpus: Corpus, task: str, code: str, sentences: int) -> tuple[WordOrder, list[str]]:
    known = [row.text for row in corpus.split(task, code, "train")]
    order = WordOrder([*known, *(row.text for row in corpus.parallel(code)[:sentences])])
    return order, [row.text for row in corpus.split(task, code, "test")]


SEEN = ["ቤቱ ትልቅ እና ውብ ነው", "ቤቱ ትልቅ እና ሰፊ ነው", "ቤቱ ትልቅ እና አሮጌ ነው"]
BEST = (7 + 0.5) / 8  # one of the eight shuffles of five words is the order itself: a tie
HEBREW = ["הבית גדול וגם יפה מאוד", "הבית גדול וגם רחב מאוד", "הבית גדול וגם ישן מאוד"]


@pytest.mark.parametrize("texts", [SEEN, HEBREW])
def test_an_order_that_was_seen_beats_every_other_and_its_reverse_none(texts):
    order = WordOrder(texts[:2])
    backwards = " ".join(reversed(texts[2].split()))
    assert order.above([texts[2]]).tolist() == [BEST]
    assert order.above([backwards])[0] < 0.5


def test_a_text_lends_itself_no_evidence():
    """Without its own counts nothing is known of it: all orders tie."""
    assert WordOrder([SEEN[0]]).above([SEEN[0], SEEN[1]]).tolist() == [0.5, BEST]
    assert WordOrder([SEEN[0], HEBREW[0]]).above([HEBREW[0]]).tolist() == [0.5]


def test_a_language_that_was_never_seen_has_no_order():
    assert WordOrder(SEEN).above(["one two three four five"]).tolist() == [0.5]


def test_texts_of_under_four_words_do_not_count():
    found = WordOrder(SEEN).above(["", "ቤቱ ትልቅ ነው", "1 2 3 4 5 !", SEEN[0]])
    assert np.isnan(found).tolist() == [True, True, True, False]
    score = word_order(found)
    assert (score.value, score.detail) == (found[3], {"texts": 1.0})
    nothing = word_order(found[:3])
    assert (nothing.value, nothing.note) == (None, "no text of 4 words or more")


def test_marks_points_case_and_numbers_make_no_difference():
    order = WordOrder(["The house is big and old.", "The house is big, and new!", *HEBREW])
    plain, marked = "the house is big and red", "THE house -- is (big) and 12 red!!!"
    assert order.above([plain]).tolist() == order.above([marked]).tolist()
    assert order.above(["הבית גדול וגם נקי מאוד"]).tolist() == order.above(["הַבַּיִת גָּדוֹל, וְגַם נקי מאוד."]).tolist()


def test_a_word_with_a_hyphen_is_one_word():
    """Else shuffling, which leaves ``il-qattus`` whole, would look like the order of the language."""
    found = WordOrder(SEEN).above(["il-qattus ta-ġara sabiħ"])
    assert np.isnan(found).all()


def test_texts_are_judged_alone_and_alike_in_any_company(corpus):
    order, texts = human(corpus, "topic", "de", 100)
    together, alone = order.above(texts), np.concatenate([order.above([text]) for text in texts[:10]])
    assert together[:10].tolist() == alone.tolist()
    assert set(np.round(together * SHUFFLES * 2) / 2 / SHUFFLES) == set(together)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(SUITE, LocalData(MINI / "data"))


@pytest.mark.parametrize("code", SUITE.languages)
def test_shuffled_words_are_told_from_text(corpus, code):
    order, texts = human(corpus, "topic", code, 100)
    assert mean(order.above(texts)) > 0.9
    assert mean(order.above(shuffled(texts))) < 0.6


@pytest.mark.parametrize("code", ["am", "he", "mt"])
def test_copied_text_has_no_advantage(corpus, code):
    """Without its own counts a train text reads as an unseen one does, shuffled train text as shuffled."""
    order, texts = human(corpus, "topic", code, 100)
    train = [row.text for row in corpus.split("topic", code, "train")]
    assert mean(order.above(train)) == pytest.approx(mean(order.above(texts)), abs=0.05)
    assert mean(order.above(shuffled(train))) < 0.6


# Real human text: the ranges that the documentation states


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=[] if code in {"am", "he", "id"} else pytest.mark.nightly)
        for code in load_suite("steer11").languages
    ],
)
@pytest.mark.parametrize("task", ["sentiment", "topic"])
def test_cells_of_forty_real_texts_are_told_from_shuffled_ones(shared: Path, task: str, code: str) -> None:
    order, texts = human(Corpus(load_suite("steer11"), LocalData(shared / "data")), task, code, 1000)
    draw, found = np.random.default_rng(3), []
    for rows in (texts, shuffled(texts)):
        values = order.above(rows)
        values = values[~np.isnan(values)]
        found.append([values[draw.permutation(values.size)[:40]].mean() for _ in range(500)])
    assert min(found[0]) > 0.7 > max(found[1])
    assert np.mean(found[1]) == pytest.approx(0.5, abs=0.07)
