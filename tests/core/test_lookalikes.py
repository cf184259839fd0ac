"""Names that could be taken for another's are refused, and names of people in their own script are not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.core.lookalikes import check_lookalikes, unseen
from harness.submissions.card import Author, CardItem, Method

GOOD = [
    "Ann Other",
    "José Ñandú-Müller",
    "Ju\u0308rgen",  # decomposed, as macOS has it
    "አበበ በቂላ",
    "דוד כהן",
    "Иван Петров",
    "Αλέξης",
    "山田たろう",
    "김철수",
    "李 (Li) 明",  # two scripts, each in its own word
    "O’Brien",
    "ʻOkina Hawaiʻi",
]
BAD = {
    "hum\u200ban": "not seen",  # zero width
    "a\u202eb": "not seen",  # right to left override
    "a\u2066b": "not seen",
    "a\u034fb": "not seen",  # grapheme joiner
    "a\ufe0fb": "not seen",  # variation selector
    "\u3164": "not seen",  # Hangul filler
    "a\u00adb": "not seen",  # soft hyphen
    "a\x07b": "not seen",
    "a\U000e0041b": "not seen",  # tag
    "a\u00a0b": "not seen",
    "\u0301a": "not seen",
    "\uff21nn": "only looks like",  # full width
    "\U0001d400nn": "only looks like",
    "\u0410nn Other": "mixes scripts",  # Cyrillic A
    "p\u0430ypal": "mixes scripts",
    "\u0391nn": "mixes scripts",  # Greek
    "አnn": "mixes scripts",
    "דavid": "mixes scripts",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_name_in_its_own_script_is_fine(name):
    check_lookalikes(name)
    assert Author(name=name).name == name


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_name_that_looks_like_another_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=BAD[name]):
        check_lookalikes(name)
    with pytest.raises(ValidationError):
        Author(name=name)
    with pytest.raises(ValidationError):
        Method(name=name, version="1", does="Adds a vector.")


def test_words_about_a_method_may_mix_scripts_but_hide_nothing():
    words = "ΔF1 of λ1 × 2, “Αα”\u00a0… ½"
    assert not unseen(words)
    assert Method(name="mine", version="1", does=words).does == words
    with pytest.raises(ValidationError, match="invisible"):
        Method(name="mine", version="1", does="Adds a vec\u200btor.")


def test_keys_of_a_config_are_names_too():
    from harness.submissions.card import Card

    check = Card.model_fields["config"].metadata[0].func
    assert check({"layer": {"deep": [1, {"שכבה": 2}]}}) == {"layer": {"deep": [1, {"שכבה": 2}]}}
    for config in ({"l\u0430yer": 1}, {"a": [{"stren\u200bgth": 2}]}):
        with pytest.raises(ValueError, match=r"the key '.*\\u.*' (mixes scripts|holds a character)"):
            check(config)
    assert issubclass(Card, CardItem)
