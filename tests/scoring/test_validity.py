"""Text that was not asked for is detected, and human-written text passes, in every script."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.helpers import MINI

from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.scoring import validity
from harness.scoring.checks import (
    CharacterNgramModel,
)
from harness.scoring.identification import LanguageIdentifier
from harness.scoring.scorer import ScoringContext, TextSample
from harness.scoring.text import pieces, sentences
from harness.scoring.validity import REASONS, IdentifierScorer, ValidityScorer, main_language, wilson

SUITE = load_suite("mini")

# Validity


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(SUITE, LocalData(MINI / "data"))


def place_of(corpus: Corpus, task: str, code: str) -> ScoringContext:
    """Return the human text of a task and language, with the suite's prompts."""
    definition = corpus.suite.task(task, code)
    train, held_out, test = (
        [(row.text, row.label) for row in corpus.split(task, code, split)] for split in ("train", "validation", "test")
    )
    prompts = {label: definition.prompts["zero-shot"].format(label=label, language=code) for label in definition.labels}
    return ScoringContext(task, code, definition.labels, train, held_out, test, "digest", [], prompts, {})


def identifier_of(corpus: Corpus) -> LanguageIdentifier:
    return LanguageIdentifier(
        {code: [row.text for row in corpus.parallel(code)[:1000]] for code in corpus.vector_languages}
    )


def sample(rows: list[tuple[str, str]]) -> TextSample:
    return TextSample([text for text, _ in rows], [label for _, label in rows], np.ones(len(rows), dtype=bool))


@pytest.fixture(scope="module")
def identifier(corpus) -> LanguageIdentifier:
    return identifier_of(corpus)


@pytest.fixture(scope="module")
def part(identifier) -> ValidityScorer:
    return ValidityScorer(lambda: identifier)


@pytest.fixture(scope="module")
def amharic(corpus) -> ScoringContext:
    return place_of(corpus, "sentiment", "am")


def by_name(part: ValidityScorer | IdentifierScorer, rows: list[tuple[str, str]], place: ScoringContext) -> dict:
    return {score.metric: score for score in part.score(sample(rows), place).scores}


@pytest.mark.parametrize("code", SUITE.languages)
def test_human_text_is_valid(part, corpus, code):
    places = [place_of(corpus, task, code) for task in SUITE.tasks]
    valid = [part.check(*zip(*place.test, strict=True), place).valid for place in places]
    assert np.mean(np.concatenate(valid)) >= 0.99


FINE = {
    "am": "ትናንት ከመላው ቤተሰብ ጋር እዚህ ምሳ በላን፤ ምግቡም በጣም ጥሩ ነበር።",
    "he": "אתמול אכלנו כאן צהריים עם כל המשפחה, והאוכל היה טעים מאוד.",
    "id": "Kemarin kami makan siang di sini bersama keluarga, dan makanannya sangat enak.",
}
BAD = {
    "am": [
        ("", ["empty"]),
        ("?!... 12", ["empty"]),
        ("We had lunch here with the whole family, and the food was very good.", ["language", "script"]),
        ("אתמול אכלנו כאן צהריים עם כל המשפחה, והאוכל היה טעים מאוד.", ["language", "script"]),
        ("ጥሩ ጥሩ ጥሩ ጥሩ ጥሩ", ["loop"]),
        ("positive positive positive positive", ["language", "script", "loop"]),
        ("ዠጶፏኧ ቯኟዡ ፗጨጴዦ ቿዉኴፐ ጿቜኜፃ ዃጱቮ ሏፒኧዣ", ["gibberish"]),
        ("ይቅርታ፣ ይህን ግምገማ መጻፍ አልችልም።", ["refusal"]),
        (f"Review: {FINE['am']}", ["preamble"]),
        (f"Output only the text and nothing else. {FINE['am']} {FINE['am']}", ["echo"]),
    ],
    "he": [
        ("The food was very good and the soup was warm.", ["language", "script"]),
        ("טעים טעים טעים טעים", ["loop"]),
        ("צפקחט גסדןך עטאםץ רדפך הגקשצ זסבהנ מצתחק", ["gibberish"]),
        (f"הנה ביקורת חיובית: {FINE['he']}", ["preamble"]),
    ],
    "id": [
        ("Yesterday we had lunch here with the whole family, and the food was very good.", ["language"]),
        ("enak enak enak enak", ["loop"]),
        ("qzxv wkjq xzpf vqjx zkwq pxvj qfzk xwvq jzpx", ["gibberish"]),
    ],
}


@pytest.mark.parametrize(("code", "text", "expected"), [(c, t, r) for c, rows in BAD.items() for t, r in rows])
def test_a_text_that_was_not_asked_for_is_found_out(part, corpus, code, text, expected):
    _, [found], _ = part.check([text], ["positive"], place_of(corpus, "sentiment", code))
    assert set(expected) <= set(found)


@pytest.mark.parametrize("code", FINE)
def test_a_text_as_it_was_asked_for_passes(part, corpus, code):
    found = part.check([FINE[code]], ["positive"], place_of(corpus, "sentiment", code))
    assert (found.valid.tolist(), found.reasons, found.languages) == ([True], [[]], [code])


def test_a_text_mostly_in_another_language_is_invalid_and_with_a_few_foreign_words_valid(part, amharic):
    english = "We had lunch here with the whole family."
    mostly, hardly = f"ምግቡ ጥሩ ነበር እንላለን በእውነት። {english} {english}", f"{FINE['am']} {FINE['am']} {english}"
    found = part.check([mostly, hardly], ["positive"] * 2, amharic)
    assert "language" in found.reasons[0]
    assert found.reasons[1] == []
    assert found.languages == ["en", "am"]


@pytest.mark.parametrize("code", ["am", "he", "id"])
def test_shuffled_words_pass_the_checks_of_single_texts_and_show_in_the_word_order(part, corpus, code):
    """A single text says too little of its order (docs/metrics.md); a cell of texts does."""
    place = place_of(corpus, "topic", code)
    draw = random.Random(3)
    mixed = [(" ".join(draw.sample(text.split(), len(text.split()))), label) for text, label in place.test]
    human, shuffled = by_name(part, place.test, place), by_name(part, mixed, place)
    assert shuffled["valid_share"].value >= 0.95
    assert shuffled["word_order"].value < 0.6 < 0.9 < human["word_order"].value
    assert shuffled["word_order"].detail["texts"] == len(place.test)


ENGLISH = "Yesterday we had lunch here with the whole family."
FOUR = [(FINE["am"], "positive"), (FINE["am"][:38], "positive"), (ENGLISH, "negative"), ("", "negative")]


def test_scores_are_means_over_texts(part, amharic):
    scores = by_name(part, FOUR, amharic)
    values = {name: score.value for name, score in scores.items() if name != "label_fidelity"}
    assert values == {
        "valid_share": 0.5,
        "language_fidelity": 0.5,
        "language_sentences": 0.5,
        "script_share": 0.5,
        "word_order": scores["word_order"].value,  # tests/scoring/test_word_order.py
        "degenerate": 0.25,
        "refusals": 0.0,
    }
    assert scores["valid_share"].detail == {
        **dict.fromkeys(REASONS, 0.0),
        "language": 0.25,
        "script": 0.25,
        "empty": 0.25,
    }
    assert scores["language_fidelity"].detail == {"am": 0.5, "en": 0.25}
    assert scores["degenerate"].detail == {"empty": 0.25, "loop": 0.0, "echo": 0.0, "gibberish": 0.0}
    assert scores["refusals"].detail == {"refusal": 0.0, "preamble": 0.0}
    assert scores["valid_share"].interval == pytest.approx(wilson(0.5, 4))


def test_characters_and_sentences_are_counted_apart(part, amharic):
    scores = by_name(part, [(f"{FINE['am']} {ENGLISH}", "positive")], amharic)
    own, other = len(FINE["am"]), len(ENGLISH)
    assert scores["language_fidelity"].value == pytest.approx(own / (own + other))
    assert scores["language_sentences"].value == 0.5


def test_the_label_score_is_the_share_with_the_asked_label(part, amharic):
    rows = [(text, label) for text, label in amharic.train[:50]]
    turned = [(text, "negative" if label == "positive" else "positive") for text, label in rows]
    assert by_name(part, rows, amharic)["label_fidelity"].value == 1.0
    half = by_name(part, rows + turned, amharic)["label_fidelity"]
    assert half.value == 0.5
    assert set(half.detail) <= {"positive", "negative"}


def test_a_place_without_train_text_has_no_label_score_and_says_why(part, amharic):
    score = by_name(part, FOUR, replace(amharic, train=[]))["label_fidelity"]
    assert (score.value, score.note) == (None, "fewer than 5 train texts of negative, positive")


def test_a_language_of_unknown_script_has_no_script_score_and_fails_no_text_for_it(part, amharic):
    place = replace(amharic, language="tlh", prompts={})
    score = by_name(part, FOUR, place)["script_share"]
    assert (score.value, score.note) == (None, "the script of 'tlh' is not known")
    assert all("script" not in found for found in part.check(*zip(*FOUR, strict=True), place).reasons)


def test_no_texts_have_no_scores_and_say_why(part, amharic):
    found = part.score(sample([]), amharic)
    notes = {score.metric: score.note for score in found.scores if score.value is None}
    assert notes.pop("word_order") == "no text of 4 words or more"
    assert (set(notes.values()), len(notes)) == ({"no texts"}, len(found.scores) - 1)
    assert found.artifacts == {"valid": [], "reasons": [], "language": [], "label": []}


def test_what_was_found_is_kept_per_text_as_json(part, amharic):
    found = part.score(sample(FOUR), amharic)
    kept = json.loads(json.dumps(found.artifacts))
    judged = kept.pop("label")
    assert kept == {
        "valid": [True, True, False, False],
        "reasons": [[], [], ["language", "script"], ["empty"]],
        "language": ["am", "am", "en", ""],
    }
    fidelity = next(score.value for score in found.scores if score.metric == "label_fidelity")
    asked = [label for _, label in FOUR]
    assert fidelity == pytest.approx(sum(a == b for a, b in zip(judged, asked, strict=True)) / 4)
    assert judged[3] == ""  # of an empty text there is none


def test_without_enough_train_text_no_label_is_kept(part, amharic):
    few = replace(amharic, train=amharic.train[:3])
    assert "label" not in part.score(sample(FOUR), few).artifacts


def test_the_order_of_the_texts_makes_no_difference(part, amharic):
    rows = [*FOUR, *amharic.test]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    for name, score in by_name(part, rows, amharic).items():
        assert by_name(part, shuffled, amharic)[name].value == pytest.approx(score.value)


def test_texts_are_checked_once_for_the_mask_and_the_scores(identifier, amharic, monkeypatch):
    calls = []
    monkeypatch.setattr(validity, "is_repetition_loop", lambda text: calls.append(text))
    part = ValidityScorer(lambda: identifier)
    human = [row for row in amharic.test if row[0]][:3]
    for rows in (FOUR, human, FOUR, human):
        part.check(*zip(*rows, strict=True), amharic)
        part.score(sample(rows), amharic)
    assert len(calls) == 6  # the empty text is not looked at


def test_texts_of_another_place_are_checked_anew(part, corpus, amharic):
    hebrew = place_of(corpus, "sentiment", "he")
    assert part.check([FINE["am"]], ["positive"], amharic).valid.all()
    assert not part.check([FINE["am"]], ["positive"], hebrew).valid.any()
    assert part.check([FINE["am"]], ["positive"], amharic).valid.all()


def test_the_identifier_is_trained_once_and_not_before_it_is_needed(identifier, amharic):
    trained = []
    part = ValidityScorer(lambda: trained.append(1) or identifier)
    assert (part.name, part.human, trained) == ("validity", True, [])
    for _ in range(2):
        part.check([FINE["am"]], ["positive"], amharic)
    assert trained == [1]


@pytest.mark.parametrize("code", ["am", "he", "id"])
def test_worthless_text_does_not_pass(part, corpus, code):
    place, draw = place_of(corpus, "sentiment", code), random.Random(5)
    rows = place.test[:20]
    characters = [c for text, _ in place.train for c in text]
    english = [row.text for row in corpus.parallel("en")][:20]
    cheats = {
        "random characters": ["".join(draw.choice(characters) for _ in range(80)) for _ in rows],
        "letters of a text in random order": ["".join(draw.sample(text, len(text))) for text, _ in rows],
        "the label again and again": [" ".join([label] * 12) for _, label in rows],
        "the prompt": [place.prompts[label] for _, label in rows],
        "another language": english,
        "one word again and again": [" ".join([text.split()[0]] * 10) for text, _ in rows],
    }
    passed = {
        name: part.check(texts, [label for _, label in rows][: len(texts)], place).valid.mean()
        for name, texts in cheats.items()
    }
    assert passed == dict.fromkeys(cheats, 0.0)


def test_hostile_texts_are_checked_in_time(part, amharic):
    size = 20_000
    hostile = [
        "!" * size + "x",
        '"!' * size,
        "\n" * size,
        "( " * size,
        "a." * size,
        ". " * size,
        "a" * size,
        "፡" * size,
    ]
    hostile += ["sorry " * size, "\ud800" * 50, "a\u0301" * size, "ሰ\x00" * size, "here is " * size]
    before = time.process_time()
    assert not part.check(hostile, ["positive"] * len(hostile), amharic).valid.any()
    assert time.process_time() - before < 6


# Intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)


# Another identifier


class Scripted:
    """An identifier that reads what it was told, and calls all else Danish."""

    name, signature = "scripted", "scripted"

    def __init__(self, **known: str) -> None:
        self.known = known

    def read(self, texts, asked):
        return [(next((code for code, piece in self.known.items() if piece in text), "da"), 0.9) for text in texts]


def test_another_identifier_scores_under_its_own_name(amharic):
    part = IdentifierScorer(Scripted(am="ምሳ"))
    scores = by_name(part, FOUR, amharic)
    assert part.name == "language/scripted"
    assert {name: score.value for name, score in scores.items()} == {
        "language_fidelity/scripted": 0.5,
        "language_sentences/scripted": 0.5,
    }
    assert scores["language_fidelity/scripted"].detail == {"am": 0.5, "da": 0.25}
    assert part.score(sample(FOUR), amharic).artifacts == {"language": ["am", "am", "da", ""]}
    assert part.score(sample([]), amharic).scores[0].note == "no texts"


def test_the_agreement_of_two_identifiers_is_the_share_of_texts(part, amharic):
    scores = by_name(IdentifierScorer(Scripted(am="ምሳ"), part), FOUR, amharic)
    assert scores["language_fidelity/scripted"].detail["agreement"] == 0.75  # the empty text among them


def test_the_main_language_has_most_characters():
    assert main_language([("am", 10), ("en", 12), ("am", 5)]) == "am"
    assert main_language([]) == ""


# Real human text: the ranges that the documentation states


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[Corpus, LanguageIdentifier]:
    corpus = Corpus(load_suite("steer11"), LocalData(shared / "data"))
    return corpus, identifier_of(corpus)


@pytest.mark.slow
@pytest.mark.parametrize("code", load_suite("steer11").languages)
def test_real_human_text_lies_in_the_documented_ranges(real, code):
    corpus, identifier = real
    part = ValidityScorer(lambda: identifier)
    for task, valid, label in (("sentiment", 0.95, (0.70, 0.95)), ("topic", 0.99, (0.58, 0.80))):
        place = place_of(corpus, task, code)
        scores = by_name(part, place.test, place)
        reasons = scores["valid_share"].detail
        assert scores["valid_share"].value >= valid
        assert scores["language_fidelity"].value >= valid - 0.01
        assert scores["script_share"].value >= 0.97
        assert label[0] <= scores["label_fidelity"].value <= label[1]
        assert reasons["loop"] < 0.01
        assert reasons["gibberish"] < 0.01
        assert reasons["refusal"] + reasons["preamble"] + reasons["echo"] <= 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=[] if code in {"am", "he", "de", "mt"} else pytest.mark.nightly)
        for code in load_suite("steer11").languages
    ],
)
def test_scrambled_real_text_is_gibberish(real, code):
    corpus, identifier = real
    for task in ("sentiment", "topic"):
        place, draw = place_of(corpus, task, code), random.Random(2)
        known = CharacterNgramModel(
            [t for t, _ in place.train] + list(identifier.texts[code]), [t for t, _ in place.validation]
        )
        scrambled = ["".join(draw.sample(text, len(text))) for text, _ in place.test if len(text) >= 30]
        assert known.gibberish(scrambled).mean() >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_thousands_of_texts_are_scored_in_seconds(real, n):
    corpus, identifier = real
    place = place_of(corpus, "sentiment", "de")
    rows = ([(text[:200], label) for text, label in place.train if len(text) >= 200] * 10)[:n]
    part = ValidityScorer(lambda: identifier)
    part.score(sample(rows[:1]), place)  # what is made once for a context is not counted
    before = time.process_time()
    part.check(*zip(*rows, strict=True), place)
    part.score(sample(rows), place)
    assert len(rows) == n
    assert time.process_time() - before < 20 * n / 10_000


@pytest.mark.slow
def test_short_sentences_are_read_with_their_neighbours_for_a_reason(real):
    """Alone, sentences under twenty letters of real Indonesian are taken for a neighbour's far too often."""
    corpus, identifier = real
    texts = [row.text for row in corpus.split("sentiment", "id", "test")]
    alone = [piece for text in texts for piece in sentences(text) if 5 <= len(piece) < 20]
    joined = [piece for text in texts for piece in pieces(text)]

    def right(found: list[str]) -> float:
        return float(np.mean([code == "id" for code, _ in identifier.read(found, "id")]))

    assert right(alone) < 0.85 < 0.9 < right(joined)
