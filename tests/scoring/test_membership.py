"""Texts made of test text are nearer to it than to validation text; what is not seen makes no other text."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from harness.scoring.bounds import membership_bound
from harness.scoring.duplicates import near_duplicates
from harness.scoring.folding import hides, normalise_for_matching, plain
from harness.scoring.leakage import HiddenTextScorer
from harness.scoring.membership import MembershipScorer, _weights, independent
from harness.scoring.scorer import ScoringContext, TextSample

AMHARIC = "ምግቡ በጣም ጥሩ ነበር፣ አስተናጋጁም ሁለት ጊዜ ጠየቀን።"
HEBREW = "האוכל היה טעים מאוד, והמלצר שאל אותנו פעמיים."
LATIN = "Polévka byla výborná a číšník se nás dvakrát zeptal."
each_script = pytest.mark.parametrize("text", [AMHARIC, HEBREW, LATIN], ids=["Ethiopic", "Hebrew", "Latin"])


# The form in which texts are compared

UNSEEN = {
    "combining grapheme joiner": "\u034f",
    "variation selector": "\ufe00",
    "supplementary variation selector": "\U000e0100",
    "Hangul filler": "\u3164",
    "half-width Hangul filler": "\uffa0",
    "zero width space": "\u200b",
    "soft hyphen": "\u00ad",
    "tag": "\U000e0041",
    "control": "\x08",
    "private use": "\ue000",
    "mark below": "\u0353",
    "overlay": "\u0336",
}


@each_script
@pytest.mark.parametrize("sign", UNSEEN.values(), ids=UNSEEN)
def test_what_is_not_seen_makes_no_other_text(text, sign):
    assert plain(sign.join(text)) == plain(text)
    assert normalise_for_matching(f"{text[:9]}{sign}{text[9:]}") == normalise_for_matching(text)


def test_look_alikes_are_the_letters_that_they_look_like():
    assert plain("сеrvіzіo еccеllеntе") == "cervizio eccellente"  # с, е, і of Cyrillic
    assert plain("ɑnnɑ ɡrund ıdea") == "anna grund idea"  # Latin letters of phonetics and of Turkish
    assert plain("ｆｕｌｌ 𝐛𝐨𝐥𝐝") == "full bold"
    assert plain("молоко с сахаром") == "молоко с сахаром"  # Russian is not Latin
    assert plain("хoрошее мoлоко") == "хорошее молоко"  # o of Latin
    assert plain("Ոጣም ጥሩ") == "Ոጣም ጥሩ".replace("Ո", "በ").casefold()  # a letter of Armenian


def test_english_words_in_another_script_stay_what_they_are():
    assert plain(f"Output only the text. {AMHARIC}").startswith("output only the text. ")
    assert plain(f"{HEBREW} Facebook").endswith(" facebook")


def test_composition_and_letters_of_one_sound_make_no_difference():
    assert plain(LATIN) == plain(unicodedata.normalize("NFD", LATIN))
    assert plain("ሠላም ሐገር ዐይን ፀሐይ") == plain("ሰላም ሀገር አይን ጸሀይ")
    assert plain("שָׁלוֹם") == plain("שלום")


def test_accents_that_belong_to_a_letter_are_kept():
    assert plain("Výborná obsluha") != plain("Vyborna obsluha")


def test_letters_of_a_script_whose_marks_are_vowels_are_kept():
    assert plain("नमस्ते दुनिया") == "नमस्ते दुनिया"
    assert plain("สวัสดีครับ") == unicodedata.normalize("NFKC", "สวัสดีครับ")


@pytest.mark.parametrize(
    "text",
    [
        AMHARIC,
        HEBREW,
        LATIN,
        unicodedata.normalize("NFD", LATIN),
        "שָׁלוֹם לְכֻלָּם",
        "\u200fשלום\u200f 123\u200e",
        "Super ❤️ ☺️ 👍🏽 👩‍👩‍👧 🇩🇰 1️⃣ 🏴\U000e0067\U000e0062\U000e007f",
        "ምግቡ፣ ጥሩ፡ ነው።።",
        "բարև world мир iPhone",
        "\ufeffText",
        "İstanbul naïve Žižek Għawdex",
        "",
        "...",
    ],
)
def test_what_people_write_hides_nothing(text):
    assert not hides(text)


@each_script
@pytest.mark.parametrize("name", [name for name in UNSEEN if name not in {"private use"}])
def test_what_is_not_seen_is_hidden(text, name):
    assert hides(f"{text[:9]}{UNSEEN[name]}{text[9:]}")


def test_marks_and_letters_of_another_script_are_hidden():
    assert hides("ק\u0331ול")
    assert hides("ምግ\u0e31ብ")
    assert hides("сервис servіce")  # і of Cyrillic in a word of Latin
    assert not hides("сервис service")


def test_the_share_of_hiding_texts_stands_beside_its_interval():
    sample = TextSample(["a\u034fb", "ab", "b", "c"], ["x"] * 4, np.ones(4, dtype=bool))
    found = HiddenTextScorer().score(sample, context([], [], []))
    [score] = found.scores
    assert (score.metric, score.value, score.detail) == ("hidden_characters", 0.25, {"texts": 4})
    assert score.interval == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert found.artifacts == {"hides": [True, False, False, False]}


@each_script
def test_texts_that_differ_in_what_is_not_seen_are_duplicates(text):
    texts = [text, *("".join(f"{c}{sign}" for c in text) for sign in ("\u034f", "\u3164", "\ufe0e"))]
    score = near_duplicates(texts)
    assert (score.value, score.detail) == (1.0, {"exact": 1.0})


# Membership


def context(train: list[str], validation: list[str], test: list[str]) -> ScoringContext:
    rows = {
        name: [(text, "x") for text in texts]
        for name, texts in (("train", train), ("validation", validation), ("test", test))
    }
    return ScoringContext(
        task="t",
        language="am",
        labels=["x"],
        **rows,
        examples="",
        vectors=[],
        prompts={},
        demonstrations={},
    )


def written(letters: str, count: int, seed: int) -> list[str]:
    """Return texts of made-up words; every one is about something of its own."""
    draw = random.Random(seed)
    common = ["".join(draw.choices(letters, k=4)) for _ in range(20)]
    texts = []
    for i in range(count):
        draw.seed(f"{seed}/{i}")
        own = ["".join(draw.choices(letters, k=6)) for _ in range(6)]
        texts.append(" ".join(draw.sample([*own, *draw.sample(common, 6)], 12)))
    return texts


LETTERS = {
    "Ethiopic": "ሀለመረሰበተነአከወዘየደገጠፈ",
    "Hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "Latin": "abcdefghijklmnoprstuvz",
}
each_alphabet = pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS)


def nearness(texts: list[str], there: ScoringContext):
    sample = TextSample(texts, ["x"] * len(texts), np.ones(len(texts), dtype=bool))
    return {score.metric: score for score in MembershipScorer().score(sample, there).scores}


@each_alphabet
def test_pieces_of_test_text_are_nearer_to_it_and_other_text_is_not(letters):
    texts = written(letters, 400, 1)
    there = context(texts[:160], texts[160:220], texts[220:340])
    draw = random.Random(2)
    pieces = [" ".join(t[10:40] for t in draw.sample(texts[220:340], 3)) for _ in range(40)]
    honest = nearness(texts[340:], there)["membership/test"]
    found = nearness(pieces, there)["membership/test"]
    assert abs(honest.value) < 0.03
    assert found.value > membership_bound(found.detail["texts"]) + 0.05
    assert found.interval[0] < found.value < found.interval[1]
    of_both = [f"{a} {b[10:40]}" for a, b in zip(pieces, texts[160:220], strict=False)]
    assert nearness(of_both, there)["membership/validation"].value > 0.1
    # What is made of train text is as near to one as to the other.
    assert abs(nearness([text[5:50] for text in texts[:60]], there)["membership/test"].value) < 0.03


@each_alphabet
def test_a_piece_in_a_long_text_is_found(letters):
    texts = written(letters, 400, 3)
    there = context(texts[:160], texts[160:220], texts[220:340])
    around = written(letters, 400, 4)
    buried = [
        " ".join([*around[5 * i : 5 * i + 3], text, *around[5 * i + 3 : 5 * i + 5]])
        for i, text in enumerate(texts[220:260])
    ]
    assert nearness(buried, there)["membership/test"].value > 0.2


def test_the_same_size_is_compared_whatever_the_splits_have():
    """Of four texts of which two are drawn, the nearest is the best in half of the draws, and so on."""
    assert _weights(4, 2) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert _weights(3, 3) == pytest.approx([1.0])
    assert _weights(1000, 500).sum() == pytest.approx(1.0, abs=1e-5)
    texts = written(LETTERS["Latin"], 460, 5)
    honest = nearness(texts[400:], context(texts[:100], texts[100:130], texts[130:400]))["membership/test"]
    assert abs(honest.value) < 0.03  # nine times as many test texts


def test_texts_that_say_the_same_count_once():
    assert independent(np.array([1, 2, 3, 4])) == 4
    assert independent(np.array([7, 7, 7, 7])) == 1
    assert independent(np.array([1, 1, 2, 2, 3, 3])) == 3
    texts = written(LETTERS["Latin"], 100, 6)
    there = context(texts[:40], texts[40:60], texts[60:])
    assert nearness([texts[70]] * 30, there)["membership/test"].detail == {"texts": 1.0}


def test_the_bound_falls_with_the_number_of_texts():
    assert [round(membership_bound(n), 4) for n in (0, 1, 25, 100, 10_000)] == [
        0.27,
        0.27,
        0.07,
        0.045,
        0.0225,
    ]


def test_nothing_is_said_without_texts_or_without_held_out_text():
    there = context(["abc def"], ["abd efg"], ["xyz uvw"])
    assert nearness([], there)["membership/test"].note == "no texts"
    assert nearness(["", " "], there)["membership/test"].note == "no texts"
    assert nearness(["abc"], context(["abc"], [], ["xyz"]))["membership/test"].note == "no held-out text"
    assert nearness(["abc"], context([], ["abc"], ["xyz"]))["membership/validation"].note == "no train text"


def test_hostile_text_has_a_value():
    there = context(written("abcdef", 20, 1), written("abcdef", 10, 2), written("abcdef", 10, 3))
    hostile = [
        "a" * 50_000,
        "\ud800" * 100,
        "\u034f" * 5000,
        "\U0010ffff" * 60,
        "ab " * 15_000,
        "\ufdfa" * 500,
    ]
    score = nearness(hostile, there)["membership/test"]
    assert -1 <= score.value <= 1
