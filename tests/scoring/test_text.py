"""Words and first characters of texts, in several scripts."""

from __future__ import annotations

from harness.scoring.text import prefixes, words

# Words


def test_words_are_runs_of_letters_and_single_marks_of_any_script():
    assert words("Ja, ja.") == ["Ja", ",", "ja", "."]
    assert words("ሰላም ለዓለም።") == ["ሰላም", "ለዓለም", "።"]
    assert words("שלום, עולם") == ["שלום", ",", "עולם"]


def test_vowel_signs_do_not_cut_a_word():
    assert words("తెలుగు భాష") == ["తెలుగు", "భాష"]
    assert words("नमस्ते।") == ["नमस्ते", "।"]


def test_hebrew_words_are_the_same_with_and_without_points():
    assert words("שָׁלוֹם עוֹלָם") == words("שלום עולם")


def test_words_do_not_show_how_an_accent_is_stored():
    assert words("cafe\u0301") == words("caf\u00e9") == ["café"]


# Windows


def test_a_window_is_the_beginning_of_a_text_that_is_long_enough():
    found, places = prefixes(["abcdef", "abc", "ab", ""], 3)
    assert found == ["abc", "abc"]
    assert places.tolist() == [0, 1]


def test_a_window_counts_a_run_of_blanks_once_and_an_accent_with_its_letter():
    assert prefixes(["  a \n\t b  c "], 4)[0] == ["a b "]
    assert prefixes(["e\u0301e\u0301"], 2)[0] == ["éé"]
    assert prefixes(["e\u0301"], 2)[0] == []


def test_no_texts_have_no_windows():
    found, places = prefixes([], 3)
    assert (found, places.tolist()) == ([], [])
