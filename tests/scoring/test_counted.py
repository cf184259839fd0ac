"""chrF and BLEU with n-grams counted once: to the last bit what sacrebleu's public functions say."""

from __future__ import annotations

import pytest
from sacrebleu.metrics import BLEU, CHRF

from harness.scoring.cached_sacrebleu import CachedBLEU, CachedCHRF, multiset

OPTIONS = {"tokenize": "intl", "effective_order": True, "smooth_method": "exp"}
TEXTS = {
    "latin": [
        "Der Hund bellt, der Hund beißt.",
        "Der Hund schläft heute.",
        "aaa aaaa aaa aa",
        "Preis: 3,50 €!",
    ],
    "ethiopic": ["ዛሬ ጠዋት ወንዙ አጠገብ ያለው ዛፍ ወደቀ።", "ዛሬ ጠዋት ዝናብ ዘነበ፤ ዛሬ ጠዋት።", "ሰላም ሰላም ሰላም", "ሰላም ለዓለም።"],
    "hebrew": ["הכלב של השכנים נבח כל הלילה.", "הכלב נבח, הכלב ישן.", "שָׁלוֹם שלום", "מחיר הדלק יעלה ב-5%."],
    "empty": ["", "", "ab", ""],
    "one character": ["a", "a", "b", "።"],
    "shorter than six": ["abc", "abcabc", "ab", "abcd e"],
    "blanks": ["a  b", " a b ", "ab", "a\u00a0b"],
    "equal": ["gut, gut", "gut, gut", "gut, gut", "gut, gut"],
}
MEASURES = [
    pytest.param(CachedCHRF(), CHRF(), id="chrf"),
    pytest.param(CachedBLEU(**OPTIONS), BLEU(**OPTIONS), id="bleu"),
]


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("ours", "theirs"), MEASURES)
def test_every_text_against_the_others_scores_what_sacrebleu_says(ours, theirs, texts):
    for i, text in enumerate(texts):
        others = [*texts[:i], *texts[i + 1 :]]
        assert ours.sentence_score(text, others).score == theirs.sentence_score(text, others).score


@pytest.mark.parametrize(("ours", "theirs"), MEASURES)
def test_texts_of_all_kinds_against_one_and_against_many_score_what_sacrebleu_says(ours, theirs):
    everything = [text for texts in TEXTS.values() for text in texts]
    for i, text in enumerate(everything):
        for others in ([everything[i - 1]], everything[: i + 1], everything[::-1]):
            assert ours.sentence_score(text, others).score == theirs.sentence_score(text, others).score


@pytest.mark.parametrize(("ours", "theirs"), MEASURES)
def test_the_signature_is_sacrebleus(ours, theirs):
    for measure in (ours, theirs):
        measure.sentence_score("a b", ["a", "b", "c"])
    assert ours.get_signature().format() == theirs.get_signature().format()
    assert "nrefs:3" in ours.get_signature().format()


def test_chrf_of_aab_and_abb_by_hand():
    """One character: a b in common of 3; two: ab of 2; three: none of 1. Precision and recall are 7/18."""
    assert CachedCHRF().sentence_score("aab", ["abb"]).score == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_bleu_counts_a_word_as_often_as_the_one_reference_that_has_it_most():
    """Three of four words, and one of three pairs: "x x"; triples 1 / (2 · 2), fours 1 / (4 · 1)."""
    found = CachedBLEU(**OPTIONS).sentence_score("x x x y", ["x z y w", "x x v w"]).score
    assert found == pytest.approx(100 * (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25)


def test_an_n_gram_that_comes_again_is_another_element():
    assert multiset({"a": 1, "b": 3}) == {"a", "b", ("b", 1), ("b", 2)}
    assert multiset({}) == set()
