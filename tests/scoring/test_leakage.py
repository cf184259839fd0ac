"""Copies are found, in every script and however they are disguised; what people write anew is none."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from harness.data.corpus import Corpus, word_noise
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.runner.human_text import ReferenceTexts
from harness.scoring.bounds import COPIED_BOUND, flagged, share_interval
from harness.scoring.folding import normalise_for_matching
from harness.scoring.leakage import CORPORA, CopyDetector, LeakageScorer, QueryNgrams
from harness.scoring.ngrams import NgramIndex, Ngrams, distinct
from harness.scoring.scorer import ScoringContext, TextSample

SPLITS = ["train", "validation", "test"]
ENGLISH = (
    "We came here on Saturday with my sister and her two children, and the soup was so good that "
    "nobody said a single word until every plate was empty and the waiter had asked us twice."
)
OTHER = (
    "The bus to the old harbour leaves every twenty minutes from behind the market hall, but in "
    "winter it often waits until the last passengers of the ferry have found their seats inside."
)
AMHARIC = (
    "ቅዳሜ ዕለት ከእህቴና ከሁለት ልጆቿ ጋር ወደዚህ ምግብ ቤት መጣን። ሾርባው በጣም ጣፋጭ ስለነበር ሁሉም ሳህን ባዶ እስኪሆን ድረስ ማንም ሰው "
    "አንድ ቃል እንኳ አልተናገረም፣ አስተናጋጁም ሁለት ጊዜ ጠየቀን።"
)
AMHARIC_OTHER = (
    "ወደ አሮጌው ወደብ የሚሄደው አውቶቡስ በየሃያ ደቂቃው ከገበያው አዳራሽ ጀርባ ይነሳል። በክረምት ግን የመጨረሻዎቹ ተሳፋሪዎች መቀመጫቸውን እስኪያገኙ ድረስ ብዙ ጊዜ ይጠብቃል።"
)
HEBREW = (
    "באנו לכאן בשבת עם אחותי ושני הילדים שלה, והמרק היה כל כך טעים שאף אחד לא אמר מילה אחת עד שכל "
    "הצלחות התרוקנו והמלצר שאל אותנו פעמיים אם אנחנו רוצים עוד."
)
HEBREW_OTHER = (
    "האוטובוס לנמל הישן יוצא כל עשרים דקות מאחורי אולם השוק, אבל בחורף הוא מחכה לעתים קרובות עד "
    "שאחרוני הנוסעים של המעבורת מוצאים את מקומותיהם בפנים."
)
POINTED = "שָׁלוֹם לְכֻלָּם, הָאֹכֶל הָיָה טָעִים מְאוֹד"
UNPOINTED = "שלום לכלם האכל היה טעים מאוד"

each_script = pytest.mark.parametrize(
    ("text", "other"),
    [(ENGLISH, OTHER), (AMHARIC, AMHARIC_OTHER), (HEBREW, HEBREW_OTHER)],
    ids=["Latin", "Ethiopic", "Hebrew"],
)


def context(**texts: object) -> ScoringContext:
    """Return a context with the texts of its roles, all of the label ``x`` but the demonstrations."""
    rows = {split: [(text, "x") for text in texts.get(split, ())] for split in SPLITS}
    given = {"vectors": texts.get("vectors", ()), "demonstrations": texts.get("demonstrations", {})}
    return ScoringContext(task="t", language="am", labels=["x", "y"], **rows, examples="", prompts={}, **given)


def sample(texts: list[str], labels: list[str] | None = None) -> TextSample:
    return TextSample(texts, labels or ["x"] * len(texts), np.ones(len(texts), dtype=bool))


def scores(texts: list[str], there: ScoringContext, labels: list[str] | None = None):
    """Return the part's scores by name."""
    return {score.metric: score for score in LeakageScorer().score(sample(texts, labels), there).scores}


def copied(texts: list[str], corpus: list[str]) -> list[bool]:
    return LeakageScorer().score(sample(texts), context(test=corpus)).artifacts["copied/test"]


def overlap(text: str, corpus: list[str]) -> float:
    return scores([text], context(test=corpus))["overlap/test"].value


# N-grams


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 50])
def test_equal_ngrams_have_equal_hashes_and_different_ones_do_not(size):
    draw = random.Random(size)
    texts = ["".join(draw.choices("abc ሀለאב", k=draw.choice([0, 1, 4, 7, 60]))) for _ in range(200)]
    plain = [
        [text[i : i + size] for i in range(len(text) - size + 1)] if len(text) >= size else [text] if text else []
        for text in texts
    ]
    grams = Ngrams.of(texts, size)
    flat = [gram for group in plain for gram in group]
    assert np.diff(grams.starts).tolist() == [len(group) for group in plain]
    pairs = set(zip(flat, grams.hashes.tolist(), strict=True))
    assert len(pairs) == len(set(flat)) == len(set(grams.hashes.tolist())) == distinct(grams.hashes).size


def share(index, texts):
    grams, known = index.known(texts)
    return grams.mean(known)


def test_an_ngram_never_crosses_the_end_of_a_text():
    assert share(NgramIndex(["ab", "cd"], 2), ["bc"]).tolist() == [0.0]
    assert share(NgramIndex(["abcd"], 2), ["bc"]).tolist() == [1.0]


def test_the_share_of_known_ngrams_is_counted_by_hand():
    index = NgramIndex(["Abcd  EF"], 3)  # abc bcd cd_ d_e _ef
    assert share(index, ["abcde", "ABC", "xyz", "ab", ""]).tolist() == [2 / 3, 1.0, 0.0, 0.0, 0.0]
    grams, known = index.known(["xabcd"])
    assert known.tolist() == [False, True, True]
    assert grams.starts.tolist() == [0, 3]


def test_a_text_shorter_than_n_is_one_ngram():
    index = NgramIndex(["ጥሩ", "טוב מאוד"], 8)
    assert share(index, ["ጥሩ", "ጥሩ ነው", "טוב", "טוב מאוד"]).tolist() == [1.0, 0.0, 0.0, 1.0]


def test_ngrams_of_words_do_not_know_the_order_of_words():
    def bag(text: str) -> set[int]:
        return set(Ngrams.of_words([text], 5).hashes.tolist())

    assert bag("መጣን ወደዚህ ምግብ ቤት") == bag("ቤት ምግብ መጣን ወደዚህ")
    assert bag("never") != bag("never mind")
    assert len(bag("never")) == 3  # " neve", "never", "ever "
    assert bag("an ox is in") == set()


def test_no_text_at_all_has_no_ngrams():
    assert Ngrams.of([], 8).starts.tolist() == [0]
    assert share(NgramIndex([], 4), ["abcd", ""]).tolist() == [0.0, 0.0]


# What is compared


def test_case_points_and_blanks_do_not_count():
    assert normalise_for_matching("  The SOUP,\n\twas “good”!! ") == "the soup was good"
    assert normalise_for_matching(POINTED) == UNPOINTED
    assert normalise_for_matching("ምግቡ፣ ጥሩ፡ ነው።።") == "ምግቡ ጥሩ ነው"
    assert normalise_for_matching("so\u200bup\u2060 wa\u00ads") == "soup was"
    assert normalise_for_matching("❤️ !!!") == "❤️ !!!"
    assert normalise_for_matching(" ") == ""


# Overlap


def test_overlap_is_the_share_of_eight_character_ngrams_that_stand_in_the_corpus():
    assert overlap("abcdefghij", ["xx abcdefghi xx"]) == pytest.approx(2 / 3)  # abcdefgh, bcdefghi of three
    assert overlap("abcdefghij", ["abcdefg", "hij"]) == 0.0


def test_overlap_is_the_mean_over_texts_with_its_interval():
    found = scores(["abcdefgh", "12345678", "ABCDEFGH!"], context(test=["abcdefgh"]))["overlap/test"]
    assert found.value == pytest.approx(2 / 3)
    half = 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # Student's t with 2 degrees of freedom, standard deviation 0.577
    assert found.interval == pytest.approx((2 / 3 - half, 2 / 3 + half), abs=1e-5)


@each_script
def test_unrelated_text_of_the_same_language_has_next_to_no_overlap_and_is_no_copy(text, other):
    found = scores(
        [text], context(**{split: [other] for split in SPLITS}, vectors=[other], demonstrations={"x": [other]})
    )
    for corpus in CORPORA:
        assert found[f"copied/{corpus}"].value == 0.0
        assert found[f"overlap/{corpus}"].value < 0.02


# Copies


def disguises(text: str, other: str) -> dict[str, str]:
    """Return copies of a text that somebody hopes will not be noticed."""
    words, foreign = text.split(), other.split()
    shuffled = words[:]
    random.Random(3).shuffle(shuffled)
    middle = len(words) // 2
    return {
        "as it is": text,
        "upper case": text.upper(),
        "other points and blanks": text.replace(",", " -").replace("።", "!\n").replace(".", "...").replace("፣", "፤"),
        "an invisible character in every word": "\u200b".join(text),
        "one word exchanged": " ".join([*words[:middle], foreign[0], *words[middle + 1 :]]),
        "last words left out": " ".join(words[:-3]),
        "every third word left out": " ".join(word for i, word in enumerate(words) if i % 3),
        "words shuffled": " ".join(shuffled),
        "words dropped, swapped and repeated": word_noise(text, 0.3, "k"),
        "halves exchanged": " ".join([*words[middle:], *words[:middle]]),
        "half of it before other text": " ".join([*words[:middle], *foreign[: len(words) - middle]]),
        "all of it before other text": f"{text} {other}",
    }


@pytest.mark.parametrize("disguise", disguises(ENGLISH, OTHER))
@each_script
def test_a_disguised_copy_is_found(text, other, disguise):
    made = disguises(text, other)[disguise]
    assert copied([made], [other[:40], text, "ab"]) == [True]


def test_hebrew_without_its_points_is_a_copy_of_the_pointed_text():
    assert copied([UNPOINTED], [POINTED]) == [True]


@each_script
def test_a_few_words_in_common_are_no_copy(text, other):
    mixed = " ".join([*other.split(), *text.split()[:3]])
    assert copied([mixed], [text]) == [False]


def test_a_short_text_is_a_copy_only_where_it_is_equal():
    assert copied(["Very good!", "very good food", "ጥሩ ነው።", "ጥሩ"], ["very GOOD", "ጥሩ ነው"]) == [
        True,
        False,
        True,
        False,
    ]


def test_a_third_of_a_text_in_runs_of_fifty_characters_makes_a_copy():
    run = normalise_for_matching(ENGLISH)[:50]
    foreign = normalise_for_matching(OTHER)
    assert copied([run + foreign[:100], run + foreign[:101]], [ENGLISH]) == [True, False]
    assert copied([run[:49] + foreign[:60]], [ENGLISH]) == [False]


def test_runs_of_two_texts_of_the_corpus_add_up():
    one, two = normalise_for_matching(ENGLISH)[:55], normalise_for_matching(OTHER)[:55]
    filler = " ".join(f"w{i}x{i * 7}" for i in range(40))
    assert copied([one + filler[:110] + two], [ENGLISH, OTHER]) == [True]
    assert copied([one + filler[:165]], [ENGLISH, OTHER]) == [False]


@pytest.fixture(params=["few texts", "many texts"])
def _either_way(request, monkeypatch):
    """Look for copies in both ways: count all that texts have in common, or look for candidates by rare n-grams."""
    monkeypatch.setattr("harness.scoring.leakage._FEW", 10**9 if request.param == "few texts" else 0)


@pytest.mark.usefixtures("_either_way")
def test_what_is_most_common_in_the_corpus_is_not_needed_to_find_a_copy():
    # Every text shares its commonest words with all others, as reviews do.
    draw = random.Random(0)

    def written(own: str) -> str:
        words = [f"ordinary{i}" for i in range(6)] + [f"{own}{draw.randrange(10**6)}" for _ in range(8)]
        return " ".join(draw.sample(words, len(words)))

    corpus, strangers = [written("own") for _ in range(300)], [written("other") for _ in range(50)]
    shuffled = [" ".join(draw.sample(words := text.split(), len(words))) for text in corpus]
    index = CopyDetector(corpus)
    assert index.copied(QueryNgrams.of(shuffled)).all()
    assert not index.copied(QueryNgrams.of(strangers)).any()


@pytest.mark.usefixtures("_either_way")
def test_a_copy_is_found_by_words_that_stand_everywhere_in_the_corpus():
    common = ["breakfast", "wonderful", "recommend", "especially"]
    corpus = [" ".join([*common, f"own{i}word", f"another{i}"]) for i in range(100)] + [" ".join(common)]
    text = "unheard recommend neverseen wonderful breakfast especially onlyhere"
    assert CopyDetector(corpus).copied(QueryNgrams.of([text])).tolist() == [True]


@pytest.mark.usefixtures("_either_way")
def test_the_search_for_copies_finds_what_comparing_all_pairs_finds():
    draw = random.Random(5)
    vocabulary = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 9))) for _ in range(60)]
    corpus = [" ".join(draw.choices(vocabulary, k=draw.randint(4, 14))) for _ in range(80)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(4, 14))) for _ in range(150)]
    texts += [" ".join(draw.sample(words := text.split(), len(words) - 2)) for text in corpus[:40]]

    def bag(text: str) -> set[str]:
        padded = [f" {word} " for word in text.split()]
        return {word[i : i + 5] for word in padded for i in range(len(word) - 4)}

    def alike(one: set[str], other: set[str]) -> bool:
        fewer, more = sorted([len(one), len(other)])
        return fewer >= 20 and more <= 2 * fewer and len(one & other) >= 0.7 * fewer

    bags = [bag(text) for text in corpus]
    expected = [text in corpus or any(alike(bag(text), other) for other in bags) for text in texts]
    found = CopyDetector(corpus).copied(QueryNgrams.of(texts)) | np.array([text in corpus for text in texts])
    assert found.tolist() == expected
    assert 40 <= sum(expected) < 150


# Scores of a cell


def test_the_share_of_copies_comes_with_its_count_and_interval():
    found = scores([ENGLISH, OTHER, HEBREW, AMHARIC], context(train=[ENGLISH.upper(), HEBREW]))["copied/train"]
    assert found.value == 0.5
    assert found.detail == {"copies": 2, "texts": 4}
    assert found.interval == pytest.approx((0.1500, 0.8500), abs=1e-4)


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe (1998, Statistics in Medicine 17), table I, score method without continuity correction.
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert share_interval(count, n) == pytest.approx((low, high), abs=5e-5)
    assert share_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_the_metrics_stand_by_corpus_and_what_is_a_copy_is_kept_per_text():
    there = context(train=[ENGLISH], test=[HEBREW], demonstrations={"x": [OTHER], "y": []}, validation=[AMHARIC])
    found = LeakageScorer().score(sample([ENGLISH, HEBREW, OTHER]), there)
    names = [f"{metric}/{corpus}" for corpus in CORPORA for metric in ("copied", "overlap")]
    assert [score.metric for score in found.scores] == names
    assert found.artifacts == {
        "copied/demonstrations": [False, False, True],
        "copied/train": [True, False, False],
        "copied/validation": [False, False, False],
        "copied/test": [False, True, False],
        "copied/vectors": [False, False, False],
    }


def test_a_corpus_without_text_has_no_value_and_says_so():
    for corpus in CORPORA:
        score = scores([ENGLISH], context())[f"copied/{corpus}"]
        assert (score.value, score.note, score.interval) == (None, f"no text of {corpus}", None)


def test_a_cell_without_texts_has_no_value():
    assert scores([], context(test=[ENGLISH]))["copied/test"].note == "no texts"


def test_an_echo_of_a_demonstration_is_seen_as_anchoring_for_its_own_label_alone():
    shown = {"x": ["ምግቡ ጥሩ ነበር።", "ጣፋጭ ሾርባ!"], "y": [HEBREW]}
    echo = "ጣፋጭ ሾርባ! ምግቡ ጥሩ ነበር። ጣፋጭ ሾርባ!"
    found = scores([echo, HEBREW], context(demonstrations=shown), ["x", "y"])
    assert found["overlap/demonstrations"].value > 0.5
    assert scores([HEBREW], context(demonstrations=shown), ["y"])["overlap/demonstrations"].value == 1.0
    assert scores([HEBREW], context(demonstrations=shown), ["x"])["overlap/demonstrations"].value == 0.0
    assert scores([AMHARIC_OTHER], context(demonstrations=shown), ["x"])["overlap/demonstrations"].value < 0.05


def test_the_order_of_texts_and_of_the_corpus_does_not_matter():
    texts = [ENGLISH, *disguises(HEBREW, HEBREW_OTHER).values(), AMHARIC, OTHER, "", "ab"]
    corpus = [HEBREW, ENGLISH, AMHARIC_OTHER, "ab"]
    one = scores(texts, context(test=corpus, demonstrations={"x": corpus}))
    other = scores(texts[::-1], context(test=corpus[::-1], demonstrations={"x": corpus[::-1]}))
    for name, score in one.items():
        assert other[name].value == pytest.approx(score.value) if score.value is not None else True


def test_the_next_place_is_not_held_against_the_text_of_the_last():
    part, one, two = LeakageScorer(), context(test=[ENGLISH]), context(test=[HEBREW])
    values = [part.score(sample([ENGLISH]), there).scores[6].value for there in (one, two, one)]
    assert values == [1.0, 0.0, 1.0]


def test_hostile_text_is_scored_as_any_other():
    hostile = [
        "a" * 100_000,
        "ab " * 33_000,
        "\ud800\udfff" * 500,
        "\x00\x07\x1b[31m" * 100,
        "".join(map(chr, range(0x300, 0x370))) * 20,
        "\U0010ffff" * 60,
        "\u202e" + HEBREW,
        "\ufdfa" * 1000,
        "",
        " \n\t ",
    ]
    begin = time.process_time()
    found = scores(hostile, context(test=[HEBREW, "\ud800", "a" * 3000], demonstrations={"x": [""]}))
    assert time.process_time() - begin < 5
    for score in found.values():
        assert score.value is None or 0 <= score.value <= 1
    kept = LeakageScorer().score(sample(hostile), context(test=[HEBREW])).artifacts["copied/test"]
    assert kept == [text.endswith(HEBREW) for text in hostile]


# The bound


def test_copies_are_flagged_where_the_whole_interval_lies_above_the_bound():
    assert [flagged(count, 16) for count in (0, 1, 3, 4, 16)] == [False, False, False, True, True]
    assert not flagged(100, 1000)
    assert flagged(130, 1000)
    assert not flagged(16, 16, usual=0.8)
    assert flagged(100, 100, usual=0.8)
    assert not flagged(0, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["sentiment", "topic"])
def test_what_people_write_stays_below_the_bound_in_all_languages(shared: Path, task):
    suite = load_suite("steer11")
    references, part = ReferenceTexts(suite, Corpus(suite, LocalData(shared / "data"))), LeakageScorer()
    human, shuffled = {}, {}
    for language in suite.languages:
        there = references.context(task, language)
        texts = [text for text, _ in there.train]
        shown = {text for group in there.demonstrations.values() for text in group}
        fresh = [row for row in there.train if row[0] not in shown]
        found = part.score(sample([t for t, _ in fresh], [label for _, label in fresh]), there)
        values = {score.metric: score.value for score in found.scores}
        assert values["copied/train"] == values["overlap/train"] == pytest.approx(1)
        assert values["overlap/demonstrations"] <= 0.035
        assert values["copied/demonstrations"] <= 0.005
        if task == "sentiment":  # the train sentences of the topic task are vector text by design
            assert values["copied/vectors"] == 0
        human[language] = max(values["copied/test"], values["copied/validation"])
        draw = random.Random(1)
        mixed = [" ".join(draw.sample(words := text.split(), len(words))) for text in texts[:300]]
        shuffled[language] = part.score(sample(mixed), there).artifacts["copied/train"]
    assert max(human.values()) < COPIED_BOUND
    assert np.mean(list(human.values())) < 0.02
    assert min(np.mean(found) for found in shuffled.values()) > 0.5  # the others have too few words
