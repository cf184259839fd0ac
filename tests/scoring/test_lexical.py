"""Diversity against numbers worked out by hand, and what must not move it: order, number, length, script."""

from __future__ import annotations

import math
import random
import zlib

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from support.texts import AMHARIC, HEBREW, Zipf

from harness.core.records import Score
from harness.data.suite import Budgets
from harness.scoring import lexical
from harness.scoring.closeness import bleu_of_groups, chrf_of_groups
from harness.scoring.lexical import (
    LexicalScorer,
    compression,
    length,
    lexical_scores,
    self_bleu,
    self_chrf,
    self_repetition,
)
from harness.scoring.metrics import METRICS, NEAR_DUPLICATES
from harness.scoring.scorer import ScoringContext, TextSample
from harness.scoring.text import words

SMALL = Budgets(texts=8, subsamples=20, window=40, ngrams=60, references=3, panel=200, characters=300)
LARGE = Budgets(texts=40, subsamples=30, window=40, ngrams=500, references=9, panel=200, characters=2000)
FIXED = {
    *("distinct_1", "distinct_2", "distinct_3", "self_chrf", "self_bleu"),
    *("compression_ratio", "self_repetition"),
}
"""Metrics with a fixed budget."""


def budgets(**fields: int) -> Budgets:
    return SMALL.model_copy(update=fields)


def scores(texts: list[str], limits: Budgets = SMALL) -> dict[str, Score]:
    return {score.metric: score for score in lexical_scores(texts, limits)}


def context() -> ScoringContext:
    return ScoringContext("topic", "am", [], [], [], [], "", [], {}, {})


# distinct-n


def distinct(texts: list[str], ngrams: int, k: int = 2, subsamples: int = 3) -> Score:
    return lexical.distinct(k, [words(text) for text in texts], budgets(ngrams=ngrams, subsamples=subsamples))


def test_distinct_n_is_the_share_of_different_n_grams():
    assert distinct(["a b a b"], 4, 1).value == pytest.approx(2 / 4)
    assert distinct(["a b a b"], 3, 2).value == pytest.approx(2 / 3)  # ab ba ab
    assert distinct(["a b a b a"], 3, 3).value == pytest.approx(2 / 3)  # aba bab aba


def test_distinct_2_counts_punctuation_and_case():
    assert distinct(["Ja, ja."], 3).value == 1.0  # "Ja ,"  ", ja"  "ja ."


def test_distinct_2_reads_amharic_and_hebrew_words():
    assert distinct(["ሰላም ለዓለም። ሰላም ለዓለም።"], 5).value == pytest.approx(3 / 5)  # two of five pairs come twice
    assert distinct(["שָׁלוֹם עולם שלום עולם"], 3).value == pytest.approx(2 / 3)


def test_n_grams_do_not_cross_from_one_text_to_the_next():
    assert distinct(["a b", "c d"], 2).value == 1.0
    assert distinct(["a b", "c d"], 3).value is None  # there would be three if "b c" counted
    assert distinct(["a", "b", "c"], 1).value is None


def test_too_few_n_grams_give_no_value_and_say_why():
    score = distinct(["a b c"], 5)
    assert (score.value, score.interval) == (None, None)
    assert score.note == "only 2 of the 5 word pairs of the budget"


def test_the_budget_bounds_the_n_grams_that_are_looked_at():
    assert distinct(["a b c d e"], 1).value == 1.0
    assert distinct(["a b a b a b a b"], 4).value == pytest.approx(2 / 4)


def test_constant_text_has_the_lowest_distinct_2_there_is():
    assert distinct(["a b c d"] * 10, 30).value == pytest.approx(3 / 30)


def test_distinct_2_says_how_it_was_computed():
    assert distinct(["a b"], 1).signature == (
        "distinct-2|budget:1|subsamples:3|tok:unicode-words|norm:NFC|case:mixed|seed:0|version:2"
    )


# self-chrF and self-BLEU

WEATHER = [
    "Das Essen war gut und der Kellner nett.",
    "Das Essen war kalt, der Kellner unhöflich.",
    "Wir kommen sicher bald wieder hierher.",
    "Das Wetter war gut und der Weg nicht weit.",
]


@pytest.mark.parametrize("texts", [AMHARIC, HEBREW], ids=["am", "he"])
def test_identical_texts_are_identical_under_every_metric(texts):
    found = scores([texts[0]] * 30, budgets(window=20, ngrams=20, characters=200))
    assert found["self_bleu"].value == pytest.approx(100)
    assert found["self_chrf"].value == pytest.approx(100)
    assert found["near_duplicates"].value == 1
    assert found["self_repetition"].value == pytest.approx(math.log(8))  # all seven others of a subsample
    assert found["compression_ratio"].value > 3


@pytest.mark.parametrize("texts", [AMHARIC, HEBREW], ids=["am", "he"])
def test_three_unrelated_sentences_are_not_identical_under_any_metric(texts):
    found = scores(
        texts,
        Budgets(
            **{
                **SMALL.model_dump(),
                "texts": 3,
                "window": 30,
                "ngrams": 15,
                "references": 2,
                "characters": 80,
            }
        ),
    )
    assert found["self_bleu"].value < 10
    assert found["self_chrf"].value < 20
    assert found["near_duplicates"].value == 0
    assert found["self_repetition"].value == 0
    assert found["distinct_2"].value == 1
    assert found["compression_ratio"].value < 1.5


def test_texts_without_a_common_letter_score_0():
    limits = budgets(window=2, references=2)
    assert self_chrf(["ab", "cd", "ef"], limits).value == 0
    assert self_bleu(["ab", "cd", "ef"], limits).value == 0


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        (self_chrf, CHRF()),
        (self_bleu, BLEU(tokenize="intl", effective_order=True, smooth_method="exp")),
    ],
    ids=["chrf", "bleu"],
)
def test_a_text_scores_what_sacrebleu_says_of_it_against_the_others(metric, measure):
    by_hand = [
        measure.sentence_score(text, [other for other in WEATHER if other is not text]).score for text in WEATHER
    ]
    score = metric(WEATHER, SMALL)
    assert score.value == pytest.approx(sum(by_hand) / 4)
    assert score.signature.endswith(measure.get_signature().format())
    assert "|nrefs:3|" in score.signature


def test_self_bleu_of_texts_of_two_words_sees_that_they_are_alike():
    assert self_bleu(["ሰላም ለዓለም"] * 4, budgets(window=8)).value == pytest.approx(100)


@pytest.fixture
def compared(monkeypatch) -> list[tuple[int, ...]]:
    """Return the positions of the texts of every comparison, filled as they are made: the text, then the others."""
    seen = []

    def watched(texts, groups):
        seen.extend((i, *(j for j in group if j != i)) for group in groups.tolist() for i in group)
        return chrf_of_groups(texts, groups)

    monkeypatch.setattr("harness.scoring.lexical.chrf_of_groups", watched)
    return seen


def test_of_many_texts_a_panel_is_compared_in_disjoint_groups(compared):
    score = self_chrf([f"text {i:02d}" for i in range(30)], budgets(window=7, references=3, panel=22))
    groups = {frozenset(texts) for texts in compared}
    assert [len(texts) for texts in compared] == [4] * 20  # the panel of 22 fills five groups
    assert [len(group) for group in groups] == [4] * 5
    assert len(frozenset().union(*groups)) == 20
    assert score.detail == {"texts": 30, "groups": 5}


def test_few_texts_are_dealt_into_groups_again_and_again_up_to_the_panel(compared):
    score = self_chrf([f"text {i:02d}" for i in range(9)], budgets(window=7, references=3, panel=30))
    assert score.detail == {"texts": 9, "groups": 6}  # three deals of two groups
    decks = [compared[i : i + 8] for i in range(0, 24, 8)]
    assert all(len({text for text, *_ in deck}) == 8 for deck in decks)
    assert len({frozenset(texts) for texts in compared}) == 6


def test_the_interval_of_similarity_is_that_of_the_means_of_the_groups(monkeypatch):
    means = np.array([[49.0], [50.0], [51.0]])
    monkeypatch.setattr("harness.scoring.lexical.chrf_of_groups", lambda texts, groups: means)
    score = self_chrf(["ab"] * 6, budgets(references=1, window=2, panel=6))
    assert score.value == 50
    half_width = 4.30265 / math.sqrt(3)  # the variance of the three is 1, t of two degrees 4.30265
    assert score.interval == pytest.approx((50 - half_width, 50 + half_width))


@pytest.mark.parametrize(("size", "together"), [(2, 400), (4, 400), (4, 9)])
def test_similarity_is_that_of_sacrebleu_bit_for_bit(size, together, monkeypatch):
    source = Zipf(words=60).texts(6, 12)  # with repeated words, n-grams and texts
    texts = [*AMHARIC, *HEBREW, *WEATHER, *source, source[0], "a", "a a a a", "...", "😀 (b)", "b\u2003c d"]
    chrf, bleu = CHRF(), BLEU(tokenize="intl", effective_order=True, smooth_method="exp")
    draw, whole = np.random.default_rng(0), len(texts) // size * size
    groups = np.concatenate([draw.permutation(len(texts))[:whole].reshape(-1, size) for _ in range(12)])
    monkeypatch.setattr("harness.scoring.closeness._TOGETHER", together)
    for measure, found in ((chrf, chrf_of_groups(texts, groups)), (bleu, bleu_of_groups(texts, groups, bleu))):
        for group, scores in zip(groups.tolist(), found.tolist(), strict=True):
            chosen = [texts[i] for i in group]
            rest = [[*chosen[:at], *chosen[at + 1 :]] for at in range(size)]
            assert scores == [measure.sentence_score(*pair).score for pair in zip(chosen, rest, strict=True)]


def test_one_group_has_no_interval():
    assert self_chrf(WEATHER, SMALL).interval is None


@pytest.mark.parametrize("metric", [self_chrf, self_bleu])
def test_too_few_texts_give_no_similarity_and_say_why(metric):
    score = metric(["a" * 40, "b" * 40], SMALL)
    assert (score.value, score.note) == (None, "only 2 of 4 texts with 40 characters")
    assert "|nrefs:3|" in score.signature


def test_a_short_text_is_left_out_of_what_is_compared():
    assert scores([*WEATHER, "Das Essen war gut."], budgets(window=30))["self_chrf"].detail["texts"] == 4


# Compression


def test_compression_is_that_of_one_byte_for_a_character():
    text = "abacabad" * 40
    ranks = {"a": 0, "b": 1, "c": 2, "d": 3}
    by_hand = 100 / len(zlib.compress(bytes(ranks[c] for c in text[:100]), 9))
    assert compression([text], budgets(characters=100)).value == pytest.approx(by_hand)


def test_what_repeats_compresses_more():
    varied, limits = " ".join(str(i * i) for i in range(1000)), budgets(characters=1000)
    assert compression(["ሰላም ለዓለም።"] * 300, limits).value > 10 * compression([varied], limits).value


@pytest.mark.parametrize("limits", [SMALL, LARGE], ids=["small", "large"])
def test_a_script_is_no_dearer_than_another(limits):
    latin = Zipf(words=300).texts(200, 20)
    table = {ord("a") + i: 0x1200 + 8 * i for i in range(26)}
    ethiopic = [text.translate(table) for text in latin]
    assert all(0x1200 <= ord(c) < 0x1380 or c == " " for c in ethiopic[0])
    one, other = compression(latin, limits), compression(ethiopic, limits)
    assert (one.value, one.interval) == (other.value, other.interval)


def test_characters_beyond_255_share_a_symbol():
    text = "".join(chr(0x4E00 + i) for i in range(600))
    symbols = bytes(min(i, 255) for i in range(600))
    assert compression([text], budgets(characters=600)).value == pytest.approx(600 / len(zlib.compress(symbols, 9)))


def test_too_little_text_gives_no_compression_and_says_why():
    score = compression(["abc", "de"], budgets(characters=100))
    assert (score.value, score.note) == (None, "only 7 of the 100 characters of the budget")


# Self-repetition


@pytest.mark.parametrize("shared", ["one two three four", "አንድ ሁለት ሦስት አራት", "אחת שתיים שלוש ארבע"])
def test_self_repetition_counts_the_other_texts_that_share_four_words(shared):
    texts = [f"a {shared} b", f"{shared} c", "one two three", "five six seven eight"]
    score = self_repetition(texts, budgets(texts=4))
    assert score.value == pytest.approx(2 * math.log(2) / 4)


def test_a_run_that_a_text_repeats_itself_does_not_count():
    assert self_repetition(["a b c d a b c d", "e f g h"], budgets(texts=2)).value == 0


def test_another_text_counts_once_however_many_runs_it_shares():
    assert self_repetition(["a b c d e f"] * 2, budgets(texts=2)).value == pytest.approx(math.log(2))


def test_too_few_texts_give_no_self_repetition_and_say_why():
    score = self_repetition(["x" * 40] * 7, SMALL)
    assert (score.value, score.note) == (None, "only 7 of 8 texts with 40 characters")


# Length


def test_length_tells_mean_and_distribution_in_characters():
    score = length(["a" * i for i in range(1, 102)])
    assert score.value == 51
    assert score.direction == "none"
    assert score.detail == {
        "p05": 6, "p25": 26, "p50": 51, "p75": 76, "p95": 96, "sd": pytest.approx(math.sqrt(101 * 102 / 12))
    }  # fmt: skip
    assert score.interval == pytest.approx(
        (51 - 1.98397 * 29.3002 / 101**0.5, 51 + 1.98397 * 29.3002 / 101**0.5), abs=1e-3
    )


def test_length_counts_a_letter_with_its_accent_once():
    assert scores(["e\u0301", "ሰላ"])["length"].value == 1.5


# The part


def test_the_part_scores_all_texts_and_the_valid_ones():
    texts = [*Zipf(words=200).texts(30, 15), "bad"]
    valid = np.array([True] * 30 + [False])
    found = {s.metric: s for s in LexicalScorer(SMALL).score(TextSample(texts, ["x"] * 31, valid), context()).scores}
    names = FIXED | {"near_duplicates", "length"}
    assert set(found) == names | {f"{name}.valid" for name in names}
    assert found["length"].value == scores(texts)["length"].value
    for name in names:
        assert found[f"{name}.valid"] == scores(texts[:30])[name].model_copy(update={"metric": f"{name}.valid"})
    assert all(METRICS[name].direction == found[f"{name}.valid"].direction for name in names)


def test_texts_that_are_all_valid_are_scored_once(monkeypatch):
    calls = []
    monkeypatch.setattr(lexical, "lexical_scores", lambda *given: calls.append(1) or [])
    LexicalScorer(SMALL).score(TextSample(["a"], ["x"], np.array([True])), context())
    assert len(calls) == 1


def test_the_signature_of_the_part_holds_every_budget():
    signature = LexicalScorer(SMALL).signature
    for name in Budgets.model_fields:
        assert LexicalScorer(budgets(**{name: 7})).signature != signature


def test_human_text_stands_beside_these_scores():
    assert LexicalScorer(SMALL).human


# What must not move a metric


class Stock(Zipf):
    """The same, where a third of the texts begin with one of a few stock phrases, and lengths differ."""

    def texts(self, n: int, length: int, seed: int = 1) -> list[str]:
        draw = np.random.default_rng(seed)
        phrases = Zipf.texts(self, 40, 5, seed=99)
        sizes = draw.integers(length // 2, length * 3 // 2, size=n)
        starts = draw.choice(40, size=n, p=(1 / np.arange(1, 41)) / (1 / np.arange(1, 41)).sum())
        return [
            (phrases[start] + " " if draw.random() < 1 / 3 else "") + " ".join(text.split()[:size])
            for text, size, start in zip(Zipf.texts(self, n, length * 2, seed), sizes, starts, strict=True)
        ]


def half(score: Score) -> float:
    assert score.interval, score.metric
    return (score.interval[1] - score.interval[0]) / 2


@pytest.mark.parametrize("limits", [SMALL, LARGE], ids=["small", "large"])
def test_the_order_of_the_texts_changes_nothing(limits):
    texts = [*Stock(words=300).texts(90, 15), *AMHARIC, *HEBREW, "", "", AMHARIC[0]]
    expected = lexical_scores(texts, limits)
    assert all(score.value is not None for score in expected)
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        assert lexical_scores(texts, limits) == expected


@pytest.fixture
def without_near_duplicates(monkeypatch) -> None:
    """Leave near-duplicates out, for the time that they take: they have no budget and no interval."""
    monkeypatch.setattr(lexical, "near_duplicates", lambda *given: NEAR_DUPLICATES.score(None, "", "not asked"))


def naive_distinct(texts: list[str]) -> float:
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / len(pairs)


@pytest.mark.usefixtures("without_near_duplicates")
def test_twice_the_same_corpus_moves_no_metric_beyond_its_interval():
    texts = Stock(words=300).texts(2000, 20)
    once, twice = scores(texts, LARGE), scores(texts * 2, LARGE)
    assert naive_distinct(texts * 2) == pytest.approx(naive_distinct(texts) / 2)  # what would have moved
    for name in FIXED:
        assert abs(twice[name].value - once[name].value) <= half(once[name]), name


@pytest.mark.usefixtures("without_near_duplicates")
def test_length_alone_moves_no_metric():
    source = Zipf(words=300)
    short, long = source.texts(2000, 20, seed=1), source.texts(2000, 80, seed=2)
    assert naive_distinct(short) > 1.5 * naive_distinct(long)  # what would have moved
    one, other = scores(short, LARGE), scores(long, LARGE)
    for name in FIXED:
        difference = abs(one[name].value - other[name].value)
        assert difference <= math.hypot(half(one[name]), half(other[name])), name


GARBAGE = {
    "nothing": [],
    "one text": ["ሰላም"],
    "one long text": ["ab c" * 25_000],
    "empty texts": [""] * 50,
    "control characters": ["".join(chr((i * j) % 32) for j in range(200)) for i in range(1, 50)],
    "lone surrogates": ["\ud800\udfff abc \udc00" * 20] * 50,
    "marks without letters": ["\u0301\u05b8\u093e" * 30] * 50,
    "no word at all": ["    \u200b\u2060" * 40] * 50,
    "other planes": ["\U0001f600\U0010ffff" * 60, "\U00012000" * 90] * 30,
    "all characters": ["".join(map(chr, range(1, 0xD800)))] * 2,
}


@pytest.mark.parametrize("limits", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("texts", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_gets_a_score_or_a_reason_and_no_error(texts, limits):
    for score in lexical_scores(texts, limits):
        assert (score.value is None) == bool(score.note), score.metric
        assert score.value is None or math.isfinite(score.value)


@pytest.mark.slow
@pytest.mark.usefixtures("without_near_duplicates")
@pytest.mark.parametrize(
    ("limits", "n", "corpora"),
    [
        pytest.param(SMALL, 32, 100, id="32 texts"),
        pytest.param(SMALL, 32, 300, id="32 texts, all corpora", marks=pytest.mark.nightly),
        pytest.param(LARGE, 100, 300, id="100 texts", marks=pytest.mark.nightly),
    ],
)
def test_intervals_cover_the_value_of_the_source(limits, n, corpora):
    """95 % is what they say; 300 corpora leave ± 2.5 points, 100 leave ± 4.4.

    The value of the source is that of 5,000 texts: fifty times a corpus, its own error makes that of a corpus
    1 % larger. For fewer corpora there are fewer texts in proportion.
    """
    source = Stock(words=2000)
    size = 5000 * corpora // 300
    many = limits.model_copy(update={"panel": size})
    truth = scores(source.texts(size, 20, seed=12345), many)
    hits: dict[str, list[bool]] = {name: [] for name in [*FIXED, "length"]}
    for seed in range(corpora):
        found = scores(source.texts(n, 20, seed=seed), limits)
        for name, inside in hits.items():
            span = found[name].interval
            if span:
                inside.append(span[0] <= truth[name].value <= span[1])
    shares = {name: round(100 * sum(inside) / len(inside), 1) for name, inside in hits.items()}
    print(shares, {name: len(inside) for name, inside in hits.items()})
    assert all(88 <= share <= 100 for share in shares.values()), shares
