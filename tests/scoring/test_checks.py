"""Checks of single texts: loops, echoes, refusals and gibberish are detected, human-written text passes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from harness.scoring import checks
from harness.scoring.checks import (
    CharacterNgramModel,
    PromptEchoDetector,
    empty,
    is_repetition_loop,
    loop_share,
    repeated_words,
    script_of,
    script_share,
)
from harness.scoring.refusals import has_chat_preamble, is_refusal

# Empty, script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        (" \n\t", True),
        ("123 - 4.5", True),
        ("👍!!!", True),
        ("።", True),
        ("a", False),
        ("ሰ", False),
    ],
)
def test_a_text_without_letters_is_empty(text, expected):
    assert empty(text) is expected


@pytest.mark.parametrize(
    ("text", "script", "share"),
    [
        ("ሰላም ለዓለም። 2024!", "Ethi", 1.0),
        ("ሰላም abcd", "Ethi", 3 / 7),
        ("שָׁלוֹם", "Hebr", 1.0),  # points are no letters
        ("שלום abcd", "Hebr", 0.5),
        ("Čeština, ħobż, égy", "Latn", 1.0),
        ("Привет ab", "Latn", 2 / 8),
        ("中文ab", "Hans", 0.5),
    ],
)
def test_the_script_share_counts_letters_alone(text, script, share):
    assert script_share(text, script) == pytest.approx(share)


@pytest.mark.parametrize(("text", "script"), [("12 !?", "Latn"), ("abc", "Zyyy"), ("abc", "Wxyz")])
def test_there_is_no_script_share_without_letters_or_without_a_known_script(text, script):
    assert script_share(text, script) is None


def test_the_script_of_a_language_comes_from_its_code():
    assert [script_of(code) for code in ("am", "he", "su", "zh", "tlh")] == [
        "Ethi",
        "Hebr",
        "Latn",
        "Hans",
        "Zyyy",
    ]


# Loops

GOOD, AGAIN = "the food was very good here ", "we will surely come again soon "


@pytest.mark.parametrize(
    "text",
    [
        "abc abc abc abc",
        "aaaaaaa",
        "word word word",
        "No, no. No!",
        "Positive positive positive positive",
        "ቤት ቤት ቤት",
        "ምግቡ ጥሩ ነው። ምግቡ ጥሩ ነው። ምግቡ ጥሩ ነው።",
        "שלום שלום שלום",
        "האוכל טעים. האוכל טעים. האוכל טעים.",
        "1. The food is good. 20. The food is good. 300. The food is good.",
        "A fine beginning of a text that then goes on and on and on and on and on and on and on.",
        "The end" + "." * 60,
        GOOD + AGAIN + GOOD + GOOD + AGAIN + GOOD + AGAIN + AGAIN,
    ],
)
def test_a_loop_is_found_in_every_script(text):
    assert is_repetition_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "ha ha",
        "Super, super food!",
        "It was gooood!!!",
        "He said that he said so, and so he did.",
        "Trains 20, 25, 30, 32, 33, 34, 40 and 42 do not run.",
        "ምግቡ ጥሩ ነው፣ አገልግሎቱም ጥሩ ነው፣ ቦታውም ጥሩ ነው።",
        "האוכל טוב, השירות טוב, והמקום טוב.",
        GOOD + AGAIN + GOOD,
    ],
)
def test_repetition_as_people_use_it_is_no_loop(text):
    assert not is_repetition_loop(text)


def test_the_share_of_a_run_is_what_it_covers():
    assert loop_share("abc abc abc abc", 0.3) == 1.0
    assert loop_share("aaaaaaa", 0.3) == 7 / 8  # with the blank that ends it
    assert loop_share("xyz aaaaaaaa", 0.3) == 8 / 13
    assert loop_share("abcabc", 0.3) == 0.0  # twice is no loop


def test_runs_of_four_words_that_come_again_are_counted():
    assert repeated_words(list("ababab")) == pytest.approx(1 / 3)  # abab baba abab
    assert repeated_words(list("abcdef")) == 0.0
    assert repeated_words(list("abc")) == 0.0


def test_the_quick_look_before_the_search_for_loops_misses_none(monkeypatch):
    draw = random.Random(0)
    texts = []
    for i in range(1500):
        alphabet = "ab " if i % 2 else "abcdefg "
        piece = "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 15)))
        begin = "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 60)))
        texts.append(begin + piece * draw.randrange(1, 6))
    quick = [loop_share(text, least) for text in texts for least in (1 / 3, 1 / 2)]
    monkeypatch.setattr(checks, "_may_loop", lambda text, least: True)
    assert quick == [loop_share(text, least) for text in texts for least in (1 / 3, 1 / 2)]
    assert 0.1 < np.mean(np.array(quick) > 0) < 0.9


def test_a_loop_at_the_end_of_a_very_long_text_is_found():
    draw = random.Random(1)
    begin = "".join(draw.choice("abcdefgh ") for _ in range(50_000))
    assert not is_repetition_loop(begin)
    assert is_repetition_loop(begin + "ምግቡ ጥሩ ነው። " * 300)


# Echo

PROMPT = "Generate a review with positive sentiment in Amharic language. Output only the text and nothing else."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROMPT, True),
        ("ሰላም። OUTPUT ONLY THE TEXT\nAND nothing else", True),
        ("review, with positive: sentiment in", True),  # five words
        ("with positive sentiment of", False),
        ("xgenerate a review with positive", True),  # thirty characters, the last word cut
        ("generate a review with posit", False),
        ("ምግቡ በጣም ጥሩ ነበር።", False),
        ("", False),
    ],
)
def test_five_words_or_thirty_characters_of_the_prompt_are_an_echo(text, expected):
    assert PromptEchoDetector([PROMPT]).echoed(text) is expected


def test_a_prompt_in_hebrew_echoes_too():
    echo = PromptEchoDetector(["כתוב ביקורת חיובית על מסעדה בשפה העברית"])
    assert echo.echoed("הנה: כתוב ביקורת חיובית על מסעדה טובה")
    assert not echo.echoed("ביקורת חיובית על האוכל")


# Refusals and talk to the user


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I'm sorry, but I can't write that.", "am"),
        ("I’m sorry, I cannot help with that request.", "he"),
        ('"As an AI language model, I do not have opinions."', "jv"),
        ("I cannot fulfill this request.", "mt"),
        ("I apologize, but I am unable to write in Sundanese.", "su"),
        ("Unfortunately, I can't do this.", "cs"),
        ("ይቅርታ፣ ይህን ግምገማ መጻፍ አልችልም።", "am"),
        ("Omlouvám se, ale nemohu napsat takovou recenzi.", "cs"),
        ("Beklager, men jeg kan ikke skrive den anmeldelse.", "da"),
        ("Es tut mir leid, aber ich kann keine solche Bewertung schreiben.", "de"),
        ("אני מצטער, אבל אני לא יכול לכתוב ביקורת כזאת.", "he"),
        ("Maaf, saya tidak bisa menulis ulasan itu.", "id"),
        ("Nyuwun pangapunten, kula mboten saged nulis ulasan punika.", "jv"),
        ("Jiddispjaċini, ma nistax nikteb din ir-reċensjoni.", "mt"),
        ("Prepáčte, ale nemôžem napísať takú recenziu.", "sk"),
        ("Oprostite, vendar ne morem napisati take ocene.", "sl"),
        ("Hapunten, abdi teu tiasa nulis ulasan éta.", "su"),
        ("Jako jazykový model nemám názory.", "cs"),
    ],
)
def test_a_refusal_is_known_in_english_and_in_the_language(text, code):
    assert is_refusal(text, code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Sure! Here is a positive review in Amharic:\n\nምግቡ ጥሩ ነበር።", "am"),
        ("Here's a review: ምግቡ ጥሩ ነበር።", "am"),
        ("Here is a long wiki style sentence on the topic of health:\nהרופא בא.", "he"),
        ("**Review:** האוכל טעים.", "he"),
        ("Amharic review: ምግቡ ጥሩ ነበር።", "am"),
        ("Okay, I will write a review. Makanane enak.", "jv"),
        ("ምግቡ ጥሩ ነበር። (Translation: The food was good.)", "am"),
        ("האוכל טעים.\n\nNote: this is a positive review.", "he"),
        ("Il-ħobż kien tajjeb. Let me know if you need more!", "mt"),
        ("<|im_start|>assistant\nሰላም ለዓለም", "am"),
        ("assistant: Hrana je bila dobra.", "sl"),
        ("Jídlo bylo dobré.<end_of_turn>", "cs"),
        ("እነሆ አዎንታዊ ግምገማ፦ ምግቡ ጥሩ ነበር።", "am"),
        ("Zde je pozitivní recenze: Jídlo bylo dobré.", "cs"),
        ("Her er en positiv anmeldelse: Maden var god.", "da"),
        ("Hier ist eine positive Bewertung:\nDas Essen war gut.", "de"),
        ("הנה ביקורת חיובית:\nהאוכל היה טעים.", "he"),
        ("Berikut adalah ulasan positif: Makanannya enak.", "id"),
        ("Ing ngisor iki ulasan positif: Panganane enak.", "jv"),
        ("Hawn reċensjoni pożittiva: L-ikel kien tajjeb.", "mt"),
        ("Tu je pozitívna recenzia: Jedlo bolo dobré.", "sk"),
        ("Tukaj je pozitivna ocena: Hrana je bila dobra.", "sl"),
        ("Di handap ieu ulasan positip: Dahareunana ngeunah.", "su"),
    ],
)
def test_words_to_the_user_are_known_in_english_and_in_the_language(text, code):
    assert has_chat_preamble(text, code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I'm sorry I ever came to this place. Sorry!", "en"),
        ("We were sorry to leave, here is a place to stay.", "en"),
        ("Great food: we had soup.", "en"),
        ("Leider kann ich das Essen nicht empfehlen.", "de"),
        ("Es tut mir leid für die Kellner, die nichts dafür können.", "de"),
        ("Hier ist das Essen gut und die Bedienung nett.", "de"),
        ("Bohužel nemůžu přijít, je mi líto.", "cs"),
        ("ይቅርታ ግን ምግቡ አልጣመኝም።", "am"),
        ("סליחה, אבל האוכל לא היה טעים. הנה, אמרתי.", "he"),
        ("Maaf, makanannya tidak enak.", "id"),
        ("The model said: assistant.", "en"),
    ],
)
def test_reviews_may_be_sorry_and_point_at_things(text, code):
    assert not is_refusal(text, code)
    assert not has_chat_preamble(text, code)


# Gibberish


def test_the_bound_lies_two_fifths_of_the_way_from_scrambled_to_human_text():
    known = CharacterNgramModel(["the cat sat on the mat and the dog lay on the rug"], ["the cat lay on the mat"])
    assert known.human == pytest.approx(17 / 19)  # all but "at l" and "t la"
    assert known.bound == pytest.approx(known.random + 0.4 * (known.human - known.random))


def test_four_letters_that_nobody_wrote_are_no_proof():
    known = CharacterNgramModel(["abcdefgh" * 20], ["abcdefgh" * 5])
    assert (known.human, known.gibberish(["hgfe"]).tolist()) == (1.0, [False])  # (0 + 5) / (1 + 5)
    assert known.gibberish(["hgfedcba" * 5, "abcdefgh" * 2]).tolist() == [True, False]


def test_without_any_human_text_nothing_is_gibberish():
    assert CharacterNgramModel([], []).gibberish(["abc def", ""]).tolist() == [False, False]
