"""Roles of text: what vectors, demonstrations and contrast may see, and noise that is the same each time."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from harness.core.errors import UserError
from harness.data.corpus import Corpus, contrast_kind, normalise, word_noise
from harness.data.sources import Example, LocalData, Sentence
from harness.data.suite import load_suite

AMHARIC = "ምግቡ በጣም ጥሩ ነበር። እንደገና እመጣለሁ።"
HEBREW = "האוכל היה טעים מאוד, ואני עוד אחזור לכאן."


def sentences(*pairs: tuple[str, str]) -> list[Sentence]:
    return [Sentence(name, text) for name, text in pairs]


def held_out(split: str, name: str, text: str) -> dict[Any, list[Example]]:
    return {("sentiment", "am", split): [Example(name, text, "positive")]}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_sentence_is_dropped_from_vector_text_by_its_id(corpus_of, split):
    parallel = {"am": sentences(("s1", "ሀ"), ("s2", "ለ"))}
    corpus = corpus_of(parallel, held_out(split, "s2", "another wording"))
    assert [row.id for row in corpus.parallel("am")] == ["s1"]
    assert corpus.dropped == {"am": 1}


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("text", ["Good  Food", "good food", "ＧＯＯＤ food ", "good\u00a0food"])
def test_a_held_out_sentence_is_dropped_from_vector_text_by_its_text(corpus_of, split, text):
    parallel = {"am": sentences(("s1", "ሀ"), ("s2", text))}
    corpus = corpus_of(parallel, held_out(split, "t9", "Good food"))
    assert [row.id for row in corpus.parallel("am")] == ["s1"]
    assert corpus.dropped == {"am": 1}


def test_train_sentences_stay_in_the_vector_text(corpus_of):
    parallel = {"am": sentences(("s1", "ሀ"), ("s2", "ለ"))}
    corpus = corpus_of(parallel, held_out("train", "s2", "ለ"))
    assert len(corpus.parallel("am")) == 2
    assert corpus.dropped == {"am": 0}


def test_every_task_of_the_language_holds_sentences_out(corpus_of):
    rows = {
        ("sentiment", "am", "test"): [Example("s1", "ሀ", "positive")],
        ("topic", "am", "validation"): [Example("s2", "ለ", "sports")],
    }
    corpus = corpus_of({"am": sentences(("s1", "x"), ("s2", "y"), ("s3", "z"))}, rows)
    assert [row.id for row in corpus.parallel("am")] == ["s3"]


def test_another_languages_test_set_holds_nothing_out(corpus_of):
    corpus = corpus_of({"he": sentences(("s1", "א"))}, held_out("test", "s1", "א"))
    assert len(corpus.parallel("he")) == 1


def test_a_language_whose_sentences_are_all_held_out_is_refused(corpus_of):
    corpus = corpus_of({"am": sentences(("s1", "ሀ"))}, held_out("test", "s1", "ሀ"))
    with pytest.raises(UserError, match="no parallel text of 'am' is left outside of test data"):
        corpus.parallel("am")


def test_contrast_text_holds_no_held_out_sentence_on_either_side(corpus_of):
    parallel = {"am": sentences(("s1", "ሀ"), ("s2", "ለ"))}
    degraded = {("noise", "am"): sentences(("s1", "ሀ ሀ"), ("s2", "ለ ለ"))}
    contrast = corpus_of(parallel, held_out("test", "s2", "ለ"), degraded).contrast("am")
    assert (contrast.good, contrast.bad) == (["ሀ"], ["ሀ ሀ"])


def test_contrast_pairs_go_by_id_in_the_order_of_the_human_text(corpus_of):
    parallel = {"am": sentences(("s1", "one"), ("s2", "two"), ("s3", "three"))}
    degraded = {("noise", "am"): sentences(("s3", "THREE"), ("s1", "ONE"), ("s9", "NINE"))}
    contrast = corpus_of(parallel, degraded=degraded).contrast("am")
    assert (contrast.good, contrast.bad) == (["one", "three"], ["ONE", "THREE"])
    assert contrast.source == "translations:noise"


def test_contrast_text_of_two_kinds_for_vectors_is_said_once(corpus_of, capsys):
    parallel = {code: sentences(("s1", "ሰላም ነው"), ("s2", "שלום")) for code in ("am", "he", "en")}
    corpus = corpus_of(parallel, degraded={("noise", "am"): sentences(("s1", "ነው ሰላም"))})
    for code in ("he", "en", "he"):
        corpus.contrast_for_fit(code)
    corpus.contrast("am")  # for scores
    assert capsys.readouterr().err == ""
    for _ in range(2):
        corpus.contrast_for_fit("am")
    assert capsys.readouterr().err == (
        "warning: contrast text is not of one kind: word-noise:0.3 (such as he), translations:noise (such as am). "
        "Means over these languages mix them.\n"
    )


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("translations:nllb", "translations:nllb"),
        ("word-noise:0.3", "word-noise:0.3"),
        ("contrast:nib:0123abcd (7 held out)", "contrast:nib"),  # the recipe's hash is of the language, too
    ],
)
def test_the_kind_of_a_contrast_is_what_its_languages_share(source, kind):
    assert contrast_kind(source) == kind


def test_the_first_translation_system_that_has_the_language_is_taken(corpus_of, small_suite):
    vectors = small_suite.vectors.model_copy(update={"systems": ["a", "b", "c"]})
    suite = small_suite.model_copy(update={"vectors": vectors})
    degraded = {(system, "am"): sentences(("s1", system)) for system in ("c", "b")}
    contrast = corpus_of({"am": sentences(("s1", "x"))}, degraded=degraded, suite=suite).contrast("am")
    assert (contrast.bad, contrast.source) == (["b"], "translations:b")


@pytest.mark.parametrize("degraded", [{}, {("noise", "am"): [Sentence("other", "x")]}], ids=["none", "no pair"])
def test_contrast_falls_back_to_word_noise(corpus_of, degraded):
    contrast = corpus_of({"am": sentences(("s1", AMHARIC), ("s2", "ሀ"))}, degraded=degraded).contrast("am")
    assert contrast.good == [AMHARIC, "ሀ"]
    assert contrast.bad == [word_noise(AMHARIC, 0.3, "am/s1"), word_noise("ሀ", 0.3, "am/s2")]
    assert contrast.source == "word-noise:0.3"


@pytest.fixture
def sixty(corpus_of):
    """Sixty train texts of 1 to 60 characters, in no order; the longest ten are outside of the pool."""
    rows = [Example(f"r{99 - n}", "ሀ" * n, "positive") for n in range(1, 61)]
    rows += [Example(f"n{n}", "ለ" * n, "negative") for n in range(1, 7)]
    random.Random(3).shuffle(rows)
    return corpus_of({}, {("sentiment", "am", "train"): rows})


def test_demonstrations_are_five_different_ones_of_the_fifty_shortest(sixty):
    chosen = sixty.demonstrations("sentiment", "am")
    lengths = [len(text) for text in chosen["positive"]]
    assert len(set(lengths)) == 5
    assert max(lengths) <= 50
    assert len(chosen["negative"]) == 5


def test_all_of_the_pool_and_no_more_can_be_a_demonstration(sixty, small_suite):
    lengths = set()
    for seed in range(120):
        rule = small_suite.few_shot.model_copy(update={"seed": seed})
        sixty.suite = small_suite.model_copy(update={"few_shot": rule})
        lengths |= {len(text) for text in sixty.demonstrations("sentiment", "am")["positive"]}
    assert lengths == set(range(1, 51))


def test_demonstrations_are_the_same_each_time_and_in_any_order_of_the_file(sixty, corpus_of):
    rows = sixty.split("sentiment", "am", "train")
    again = corpus_of({}, {("sentiment", "am", "train"): rows[::-1]})
    assert again.demonstrations("sentiment", "am") == sixty.demonstrations("sentiment", "am")


def test_demonstrations_are_drawn_apart_for_every_label_and_language(corpus_of):
    rows = {
        ("sentiment", code, "train"): [
            Example(f"{label}{n}", f"{n:02}", label) for label in ("positive", "negative") for n in range(50)
        ]
        for code in ("am", "he")
    }
    corpus = corpus_of({}, rows)
    draws = [tuple(texts) for code in ("am", "he") for texts in corpus.demonstrations("sentiment", code).values()]
    assert len(set(draws)) == 4


def test_too_few_train_texts_for_demonstrations_are_refused(corpus_of):
    rows = [Example(f"{label}{n}", "x", label) for label in ("positive", "negative") for n in range(4)]
    corpus = corpus_of({}, {("sentiment", "am", "train"): rows})
    with pytest.raises(UserError, match=r"few-shot needs 5 train texts of '.*' \(sentiment, am\); there are 4"):
        corpus.demonstrations("sentiment", "am")


def test_labels_come_in_the_order_of_the_task(corpus_of, small_suite):
    rows = [Example("1", "x", "negative"), Example("2", "y", "positive"), Example("3", "z", "negative")]
    grouped = corpus_of({}, {("sentiment", "am", "train"): rows}).by_label("sentiment", "am", "train")
    assert list(grouped) == small_suite.task("sentiment", "am").labels
    assert [row.id for row in grouped["negative"]] == ["1", "3"]


def test_the_reference_language_is_a_vector_language_once(corpus_of, small_suite):
    assert corpus_of({}).vector_languages == ["am", "he", "en"]
    suite = small_suite.model_copy(update={"languages": ["en", "am"]})
    assert corpus_of({}, suite=suite).vector_languages == ["en", "am"]


def test_text_is_compared_without_case_width_and_blanks_but_with_its_letters():
    assert normalise("  Straße\tＡ\u00a0b\n") == "strasse a b"
    assert normalise("ሰላም") != normalise("ሠላም")
    assert normalise("שלום") != normalise("שלומ")


@pytest.mark.parametrize("text", [AMHARIC, HEBREW, "The food was very good."])
def test_word_noise_is_the_same_each_time_and_another_for_another_key(text):
    noisy = {word_noise(text, 0.5, "k") for _ in range(5)}
    assert len(noisy) == 1
    assert len({word_noise(text, 0.5, f"k{n}") for n in range(20)}) > 5


@pytest.mark.parametrize(
    ("text", "noisy"),
    [
        (AMHARIC, "ምግቡ ጥሩ በጣም ነበር። እንደገና እመጣለሁ። እመጣለሁ።"),
        (HEBREW, "האוכל היה טעים ואני מאוד, עוד אחזור לכאן. לכאן."),
    ],
    ids=["Amharic", "Hebrew"],
)
def test_word_noise_never_changes_between_versions(text, noisy):
    assert word_noise(text, 0.5, "golden") == noisy


@pytest.mark.parametrize("text", [AMHARIC, HEBREW])
def test_word_noise_makes_up_no_words_and_breaks_none(text):
    for n in range(200):
        assert set(word_noise(text, 0.5, f"{n}").split()) <= set(text.split())


def test_word_noise_drops_swaps_and_repeats_a_third_of_the_hits_each():
    """Of three words, hit at random: one kind of change alone tells itself by the result."""
    results = Counter(word_noise("a b c", 0.01, f"{n}") for n in range(60_000))
    drops = results["b c"] + results["a c"] + results["a b"]
    repeats = results["a a b c"] + results["a b b c"] + results["a b c c"]
    swaps = results["b a c"] + results["a c b"]  # the last word has no next one
    assert drops == pytest.approx(600, abs=4.5 * 600**0.5)
    assert repeats == pytest.approx(600, abs=4.5 * 600**0.5)
    assert swaps == pytest.approx(400, abs=4.5 * 400**0.5)
    assert sum(results.values()) - results["a b c"] - drops - repeats - swaps < 60


def test_a_text_never_becomes_empty():
    assert {word_noise("ሀ", 0.99, f"{n}") for n in range(50)} == {"ሀ", "ሀ ሀ"}


def test_the_vector_text_of_the_mini_suite_holds_no_test_sentence(mini):
    corpus = Corpus(mini, LocalData(mini.folder("data")))
    for language in mini.languages:
        for task in mini.tasks:
            rows = [*corpus.split(task, language, "validation"), *corpus.split(task, language, "test")]
            vector = corpus.parallel(language)
            assert not {row.id for row in rows} & {row.id for row in vector}
            assert not {normalise(row.text) for row in rows} & {normalise(row.text) for row in vector}


@pytest.mark.slow
def test_the_vector_text_of_the_full_suite_holds_no_test_sentence(shared):
    suite = load_suite("steer11")
    corpus = Corpus(suite, LocalData(shared / "data"))
    for language in suite.languages:
        texts = {normalise(row.text) for row in corpus.parallel(language)}
        for task in suite.tasks:
            for split in ("validation", "test"):
                assert not texts & {normalise(row.text) for row in corpus.split(task, language, split)}
        assert len(texts) > 1000
