"""Groupings by chance, for the control ``shuffled``."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from harness.core.errors import UserError
from harness.data.corpus import Contrast
from harness.methods.controls import permute_labels, permute_languages, swap_pairs

TEN = {
    "am": {f"s{i}": f"አማርኛ {i}" for i in range(40)},
    "he": {f"s{i}": f"עברית {i}" for i in range(40)},
    "en": {f"s{i}": f"English {i}" for i in range(40)},
}


def test_every_sentence_is_dealt_to_one_language_and_every_meaning_to_each():
    dealt = permute_languages(TEN)
    assert list(dealt) == ["am", "he", "en"]
    everything = sorted(text for pool in TEN.values() for text in pool.values())
    assert sorted(text for texts in dealt.values() for text in texts) == everything
    for texts in dealt.values():
        assert [text.split()[1] for text in texts] == [str(i) for i in range(40)]
        scripts = Counter(text.split()[0] for text in texts)
        assert all(4 <= scripts[word] <= 23 for word in ("አማርኛ", "עברית", "English"))


def test_the_deal_is_the_same_every_time_and_does_not_depend_on_the_other_sentences():
    part = {code: dict(list(pool.items())[5:]) for code, pool in TEN.items()}
    assert permute_languages(TEN) == permute_languages(TEN)
    assert permute_languages(part)["he"] == permute_languages(TEN)["he"][5:]


def test_a_sentence_that_one_language_lacks_is_left_out_of_all():
    lacking = {**TEN, "he": {i: text for i, text in TEN["he"].items() if i != "s3"}}
    dealt = permute_languages(lacking)
    assert all("3" not in [text.split()[1] for text in texts] for texts in dealt.values())
    assert {len(texts) for texts in dealt.values()} == {39}


def test_languages_without_a_common_sentence_cannot_be_shuffled():
    with pytest.raises(UserError, match="no sentence is there in all languages"):
        permute_languages({"am": {"a": "ሰላም"}, "he": {"b": "שלום"}})


def test_pairs_are_flipped_by_chance_and_stay_pairs():
    good, bad = [f"ጥሩ {i}" for i in range(60)], [f"לא {i}" for i in range(60)]
    flipped = swap_pairs(Contrast(good, bad, "noise"), "am")
    for i, pair in enumerate(zip(flipped.good, flipped.bad, strict=True)):
        assert set(pair) == {good[i], bad[i]}
    heads = sum(text in bad for text in flipped.good)
    assert 15 <= heads <= 45
    assert flipped.source == "noise, labels shuffled"
    assert swap_pairs(Contrast(good, bad, "noise"), "am") == flipped
    assert swap_pairs(Contrast(good, bad, "noise"), "he").good != flipped.good


def test_labels_are_dealt_anew_as_many_of_each_as_before():
    texts = {"positive": [f"ጥሩ {i}" for i in range(30)], "negative": [f"רע {i}" for i in range(10)]}
    dealt = permute_labels(texts, "sentiment/am")
    assert {label: len(group) for label, group in dealt.items()} == {"positive": 30, "negative": 10}
    assert sorted(chain(*dealt.values())) == sorted(chain(*texts.values()))
    assert any(text.startswith("רע") for text in dealt["positive"])
    assert dealt != texts
    assert permute_labels(texts, "sentiment/am") == dealt
    assert permute_labels(texts, "sentiment/he") != dealt
