"""Near-duplicates against all pairs, in crowds and in any word order."""

from __future__ import annotations

import random
import time
from itertools import combinations

import numpy as np
import pytest
from datasketch import MinHash
from support.texts import AMHARIC, HEBREW, Zipf

from harness.scoring import duplicates
from harness.scoring.duplicates import Sketches, _buckets, jaccard, near_duplicates, shingles

# Near-duplicates


@pytest.mark.parametrize(
    ("addition", "index", "share"),
    [("n", 9 / 10, 1.0), ("nop", 9 / 12, 0.0)],
)
def test_texts_with_four_fifths_of_their_5_grams_in_common_are_near_duplicates(addition, index, share):
    one, other = "abcdefghijklm", "abcdefghijklm" + addition  # nine 5-grams
    assert jaccard(shingles(one), shingles(other)) == pytest.approx(index)
    assert near_duplicates([one, other]).value == share


def test_exactly_four_fifths_in_common_are_enough():
    one, other = "ሀለሐመሠረሰሸቀበተቸ", "ሀለሐመሠረሰሸቀበተቸኀነ"  # eight 5-grams of ten
    assert jaccard(shingles(one), shingles(other)) == 0.8
    assert near_duplicates([one, other]).value == 1


def test_case_width_and_blanks_make_no_difference():
    score = near_duplicates(["Das  Essen", "das essen\n", "ｄａｓ ｅｓｓｅｎ", "anderes hier"])
    assert score.value == 3 / 4
    assert score.detail == {"exact": 3 / 4}


def test_exact_repeats_are_told_apart_from_near_ones():
    text = AMHARIC[0]
    score = near_duplicates([text, text, f"{text}።", *AMHARIC[1:]])
    assert score.value == 3 / 5
    assert score.detail == {"exact": 2 / 5}


def test_texts_of_fewer_than_five_characters_are_one_gram():
    assert near_duplicates(["abc", "abcd"]).value == 0
    assert near_duplicates(["abc", "abc", "abcd"]).value == pytest.approx(2 / 3)


def test_empty_texts_repeat_one_another():
    assert near_duplicates(["", " ", "abc"]).value == pytest.approx(2 / 3)
    assert near_duplicates(["", "abc"]).value == 0


@pytest.mark.parametrize("texts", [AMHARIC, HEBREW], ids=["am", "he"])
def test_the_same_words_in_another_order_are_a_near_duplicate(texts):
    words_of = texts[0].split()
    turned = " ".join([*words_of[5:], *reversed(words_of[:5])])
    assert jaccard(shingles(texts[0]), shingles(turned)) < duplicates.ALIKE
    assert near_duplicates([*texts, turned]).value == 2 / 4


def test_one_text_gives_no_share_of_near_duplicates_and_says_why():
    score = near_duplicates(["a"])
    assert (score.value, score.note) == (None, "fewer than two texts")


def share_by_all_pairs(texts: list[str]) -> float:
    def alike(texts: list[str]) -> list[bool]:
        grams, found = [{text[i : i + 5] for i in range(len(text) - 4)} for text in texts], [False] * len(texts)
        for (i, one), (j, other) in combinations(enumerate(grams), 2):
            if not (found[i] and found[j]) and len(one & other) >= 0.8 * len(one | other):
                found[i] = found[j] = True
        return found

    in_order = [" ".join(sorted(text.split())) for text in texts]
    return sum(a or b for a, b in zip(alike(texts), alike(in_order), strict=True)) / len(texts)


def test_minhash_finds_the_near_duplicates_that_all_pairs_have():
    draw = random.Random(5)
    source = Zipf(words=500).texts(150, 14)
    texts = [*source]
    for text in source[:60]:
        place, cut = draw.randrange(len(text)), draw.randrange(12)
        texts.append(text[:place] + text[place + cut :])
    assert 0.3 < share_by_all_pairs(texts) < 0.7
    assert near_duplicates(texts).value == pytest.approx(share_by_all_pairs(texts))


def test_texts_that_are_compared_again_are_not_sketched_again(monkeypatch):
    asked, original = [], duplicates._grams
    monkeypatch.setattr(duplicates, "_grams", lambda texts: asked.extend(texts) or original(texts))
    texts, sketches = [*AMHARIC, *HEBREW, f"{AMHARIC[0]}።"], Sketches()
    assert near_duplicates(texts, sketches).value == near_duplicates(texts).value == 2 / 7
    first = len(asked)
    assert near_duplicates(texts[:3], sketches).value == 0
    assert len(asked) == first > 7


def test_minhash_values_are_those_of_datasketch():
    texts = [*AMHARIC, "abcde", *HEBREW, *Zipf(words=300).texts(20, 200)]  # some longer than a block
    for text, (grams, row) in zip(texts, Sketches()(texts), strict=True):
        assert len(shingles(text)) == len({text[i : i + 5] for i in range(len(text) - 4)})
        assert np.array_equal(np.unique(grams), shingles(text))
        expected = MinHash(num_perm=128, seed=1, scheme="affine32", hashfunc=int)
        expected.update_batch((grams >> np.uint64(32)).tolist())
        assert row.tolist() == expected.hashvalues.tolist()


def test_buckets_are_the_texts_that_share_a_band_in_the_order_of_their_first_texts():
    rows = np.arange(5 * 128, dtype=np.uint32).reshape(5, 128)
    rows[[4, 2], :4] = rows[0, :4]
    rows[3, :4] = rows[1, :4]
    rows[4, 124:] = rows[3, 124:]
    assert list(_buckets(rows)) == [[0, 2, 4], [1, 3], [3, 4]]


@pytest.mark.parametrize(
    ("kind", "n"),
    [("equal", 10_000), ("near", 3000), ("template", 1500)]
    + [pytest.param(kind, 10_000, marks=pytest.mark.nightly) for kind in ("near", "template")],
)
def test_thousands_of_texts_alike_take_seconds(kind, n):
    source = Zipf(words=2000).texts(n, 40)
    make = {
        "equal": lambda i: source[0][:200],
        "near": lambda i: f"{source[0][:100]}{i:05d}{source[0][105:200]}",
        "template": lambda i: source[0][:165] + source[i][165:200],
    }[kind]
    start = time.process_time()
    score = near_duplicates([make(i) for i in range(n)])
    assert time.process_time() - start < 60 * n / 10_000  # the 45 million pairs of 10,000 would take many minutes
    assert score.value == 1 if kind != "template" else 0.3 < score.value < 1


def crowd(n: int, common: int) -> list[str]:
    """Return different texts of 215 characters that begin alike."""
    source = Zipf(words=2000).texts(n, 60)
    return [source[0][:common] + text[: 215 - common] for text in source]


def test_a_text_in_a_crowd_finds_its_near_duplicate(monkeypatch):
    monkeypatch.setattr(duplicates, "_VERIFIED", 4)
    texts = crowd(200, 160)  # alike, but most of them below the bound
    texts += [f"qq{text[2:]}" for text in texts[:20]]  # sorted far from those that they are like
    assert near_duplicates(texts).value == pytest.approx(share_by_all_pairs(texts))


def test_in_a_crowd_too_the_order_of_the_texts_changes_nothing(monkeypatch):
    monkeypatch.setattr(duplicates, "_VERIFIED", 2)
    texts = crowd(150, 178)
    expected = near_duplicates(texts).value
    assert 0 < expected < 1
    for seed in range(5):
        random.Random(seed).shuffle(texts)
        assert near_duplicates(texts).value == expected
