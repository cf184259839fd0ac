"""Flags: what breaks a bound loses its tier, and what keeps it does not."""

from __future__ import annotations

import pytest
from support.helpers import MODEL
from support.rankings import AM, BOTH, VENDI_TFIDF, field_of, rows, scored
from support.toyruns import F1, ToyEntry, collect_results, flat, places, selection, toy, write_run

from harness.ranking.flags import RULES
from harness.ranking.leaderboard_rows import rank_entries
from harness.scoring.metrics import (
    COPIED,
    DEGENERATE,
    DISTINCT_1,
    HIDDEN,
    LABEL_FIDELITY,
    LANGUAGE_FIDELITY,
    LENGTH,
    MEMBERSHIP,
    NEAR_DUPLICATES,
    OVERLAP,
    VALID_SHARE,
    WORD_ORDER,
)


def flagged(tmp_path, metric, value, human=None, name="a", **suite):
    entry = scored(name, flat(value, BOTH, (0,)), metric)
    entry.scores[F1] = flat(0.9, BOTH)
    entry.human = {} if human is None else {metric: human}
    zero = scored("zero-shot", flat(0.5, BOTH))
    body = {"suite": {"name": "toy", "classifiers": ["tfidf"], **suite}}
    return rows(field_of(tmp_path, BOTH, entry, zero, **body))[name]


BAD = [
    (NEAR_DUPLICATES, 0.35, 0.1, "texts repeat one another: near-duplicates 0.35 in sentiment, above 0.3"),
    (VENDI_TFIDF, 3.9, 8.0, "collapsed: less than half as varied as human text: Vendi (tfidf) 3.9 in sent"),
    (DISTINCT_1, 0.3, 0.7, "collapsed: less than half as many words as human text: distinct-1 0.3"),
    (DEGENERATE, 0.25, None, "degenerate texts: degenerate 0.25 in sentiment, above 0.2"),
    (VALID_SHARE, 0.4, None, "most texts are not valid: valid 0.4 in sentiment, below 0.5"),
    (LANGUAGE_FIDELITY, 0.4, 0.9, "written in another language: language 0.4 in sentiment, below 0.45"),
    (WORD_ORDER, 0.55, None, "words in random order: word order 0.55 in sentiment, below 0.65"),
    (COPIED.for_provider("test"), 0.11, None, "copies of test text: copied (test) 0.11 in sentiment, above 0.1"),
    (COPIED.for_provider("validation"), 0.11, None, "copies of validation text"),
    (OVERLAP.for_provider("test"), 0.51, 0.3, "pieces of test text: overlap (test) 0.51 in sentiment, above 0.5"),
    (OVERLAP.for_provider("validation"), 0.51, 0.3, "pieces of validation text"),
    (HIDDEN, 0.13, 0.02, "hidden characters: hidden characters 0.13 in sentiment, above 0.12"),
    (LENGTH, 301.0, 100.0, "much longer than human text: length 301 in sentiment, above 300"),
    (MEMBERSHIP.for_provider("test"), 0.035, 0.0, "made of test text: too near to it: membership (test) 0.035 in sen"),
    (MEMBERSHIP.for_provider("validation"), 0.035, 0.0, "made of validation text: too near to it"),
    (COPIED.for_provider("train"), 0.11, None, "copies of train text"),
    (COPIED.for_provider("vectors"), 0.11, None, "copies of vector text"),
    (COPIED.for_provider("demonstrations"), 0.11, None, "copies of few-shot demonstrations"),
]


@pytest.mark.parametrize(("metric", "value", "human", "words"), BAD, ids=lambda p: getattr(p, "name", None))
def test_what_breaks_a_bound_is_flagged_keeps_its_numbers_and_has_no_tier(tmp_path, metric, value, human, words):
    row = flagged(tmp_path, metric, value, human)
    [flag] = row.flags
    assert flag.words.startswith(words)
    assert flag.metric == metric
    assert (row.tier, row.reason) == (None, flag.words)
    assert row.mean.mean == pytest.approx(0.9)


GOOD = [
    (NEAR_DUPLICATES, 0.29, 0.1),
    (NEAR_DUPLICATES, 0.9, None),  # no human text beside it: not known whether the task itself repeats
    (VENDI_TFIDF, 4.1, 8.0),
    (VENDI_TFIDF.on_valid_texts, 1.0, 8.0),
    (DISTINCT_1, 0.4, 0.7),
    (DEGENERATE, 0.2, None),
    (VALID_SHARE, 0.5, None),
    (LANGUAGE_FIDELITY, 0.5, 0.9),
    (WORD_ORDER, 0.66, 0.95),
    (LABEL_FIDELITY, 0.5, 0.9),  # a weak method is ranked low, not left out
    (LENGTH, 1.0, 100.0),
    (LENGTH, 300.0, 100.0),
    (LENGTH, 900.0, None),
    (OVERLAP.for_provider("test"), 0.5, 0.3),
    (OVERLAP.for_provider("train"), 1.0, 0.3),  # the model's own texts are not known to hold less
    (HIDDEN, 0.12, 0.02),
    (MEMBERSHIP.for_provider("test"), 0.03, 0.0),  # 600 texts: 0.02 + 0.25 / 24.5 = 0.0302
]


@pytest.mark.parametrize(("metric", "value", "human"), GOOD)
def test_what_keeps_the_bounds_is_not_flagged(tmp_path, metric, value, human):
    row = flagged(tmp_path, metric, value, human)
    assert row.flags == []
    assert row.tier == 1


def test_the_field_is_ranked_without_flagged_entries(tmp_path):
    row = flagged(tmp_path / "one", VALID_SHARE, 0.1)
    assert row.tier is None
    bad = scored("bad", flat(0.9, BOTH))
    bad.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path / "two", BOTH, bad, scored("zero-shot", flat(0.5, BOTH))))
    assert (found["zero-shot"].tier, found["zero-shot"].mean_rank) == (1, 1)


def test_a_flagged_baseline_is_compared_with_nothing(tmp_path):
    zero = scored("zero-shot", flat(0.1, BOTH))
    zero.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path, BOTH, scored("a", flat(0.5, BOTH)), zero))
    assert found["zero-shot"].flags
    assert (found["a"].tier, found["a"].over_zero_shot, found["a"].win_rate) == (1, None, None)


def test_a_flagged_entry_wins_nothing(tmp_path):
    entry = scored("a", flat(0.9, BOTH))
    entry.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path, BOTH, entry, scored("zero-shot", flat(0.5, BOTH))))["a"]
    assert (found.win_rate, found.borda, found.mean_rank) == (None, None, None)
    assert found.over_zero_shot.mean == pytest.approx(0.4)  # its numbers are shown


def test_one_task_that_breaks_a_bound_is_enough(tmp_path):
    chosen = selection(["am"], ["sentiment", "topic"])
    entry = scored("a", flat(0.9, chosen))
    entry.scores[VALID_SHARE] = {place: 0.3 if place[0] == "topic" else 1.0 for place in places(chosen)}
    [flag] = rows(field_of(tmp_path, chosen, entry))["a"].flags
    assert flag.task == "topic"


ELEVEN = selection(["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"])


def copying(name: str, corpus: str, **shares: float) -> ToyEntry:
    """Return an entry that copies a share of its texts in some of eleven languages."""
    entry = scored(name, flat(0.5, ELEVEN))
    copied = {place: shares.get(place[1], 0.0) for place in places(ELEVEN)}
    entry.scores[COPIED.for_provider(corpus)] = copied
    return entry


def test_copies_in_a_single_language_do_not_hide_in_the_mean(tmp_path):
    entries = [copying("a", "test", am=1.0), copying("zero-shot", "test")]
    row = rows(field_of(tmp_path, ELEVEN, *entries))["a"]
    [flag] = row.flags
    assert flag.words == "copies of test text: 300 of 300 texts in sentiment/am, above 0.1 of them"
    assert row.tier is None


def test_copies_of_a_single_language_are_held_against_what_the_model_copies_there(tmp_path):
    entries = [copying("a", "train", am=0.9, he=0.9), copying("zero-shot", "train", am=0.9)]
    found = rows(field_of(tmp_path, ELEVEN, *entries))
    assert [flag.words for flag in found["a"].flags] == [
        "copies of train text: 270 of 300 texts in sentiment/he, above 0.1 of them"
    ]
    assert found["zero-shot"].flags == []


def test_as_many_copies_as_human_text_has_by_chance_are_no_flag(tmp_path):
    entries = [copying("a", "test", de=0.12), copying("zero-shot", "test")]  # 36 of 300: 0.088 to 0.161
    assert rows(field_of(tmp_path, ELEVEN, *entries))["a"].flags == []


def test_collapsed_references_are_flagged_too(tmp_path):
    row = flagged(tmp_path, VENDI_TFIDF, 1.0, 8.0, name="constant")
    assert [flag.metric for flag in row.flags] == [VENDI_TFIDF]


def test_a_reference_that_is_test_text_is_called_flagged_and_the_floor_is_not(tmp_path):
    """Texts of no model have no tier: a table without their flags would show a cheat at its top."""
    floor = flagged(tmp_path / "floor", VENDI_TFIDF, 1.0, 8.0, name="constant")
    cheat = flagged(tmp_path / "cheat", COPIED.for_provider("test"), 0.9, name="human")
    assert floor.reference and cheat.reference
    assert floor.flags and not floor.flagged
    assert cheat.flagged


def test_what_a_model_copies_without_the_method_is_not_held_against_the_method(tmp_path):
    entries = {name: scored(name, flat(0.5, BOTH)) for name in ("zero-shot", "few-shot", "same", "more", "human")}
    for name, train, test in (
        ("zero-shot", 0.1, 0.0),
        ("few-shot", 0.3, 0.3),
        ("same", 0.4, 0.0),
        ("more", 0.41, 0.0),
        ("human", 1.0, 0.0),
    ):
        entries[name].scores[COPIED.for_provider("train")] = flat(train, BOTH, (0,))
        entries[name].scores[COPIED.for_provider("test")] = flat(test, BOTH, (0,))
    found = rows(field_of(tmp_path, BOTH, *entries.values()))
    assert {name: [flag.metric.name for flag in row.flags] for name, row in found.items()} == {
        "zero-shot": [],
        "few-shot": ["copied/test"],  # nothing excuses copies of what is tested on
        "same": [],
        "more": ["copied/train"],
        "human": [],  # it is train text
    }


def test_another_model_excuses_no_copies(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    sides = []
    for model, copied in ((MODEL, 0.9), (other, 0.0)):
        entries = [toy("zero-shot", model), toy("a", model)]
        for entry, value in zip(entries, (copied, 0.5), strict=True):
            entry.scores = {F1: flat(0.5, AM), COPIED.for_provider("train"): flat(value, AM, (0,))}
        sides.append(write_run(tmp_path / model.name, entries, AM, model=model))
    found = rows(rank_entries(collect_results(*sides), F1))
    assert (found["a, toy"].flags, len(found["a, other"].flags)) == ([], 1)


def beside_zero_shot(tmp_path, metric, value, usual, human):
    """Return the flags of an entry and of zero-shot of its model, which has ``usual``."""
    entries = [scored(name, flat(0.5, BOTH)) for name in ("a", "zero-shot")]
    for entry, level in zip(entries, (value, usual), strict=True):
        entry.scores[metric] = flat(level, BOTH, (0,))
        entry.human = {metric: human}
    found = rows(field_of(tmp_path, BOTH, *entries))
    return [[flag.metric for flag in found[name].flags] for name in ("a", "zero-shot")]


def test_a_model_that_writes_long_texts_anyway_is_not_flagged_for_it(tmp_path):
    assert beside_zero_shot(tmp_path / "a", LENGTH, 590.0, 400.0, 100.0) == [[], []]
    assert beside_zero_shot(tmp_path / "b", LENGTH, 610.0, 400.0, 100.0) == [[LENGTH], []]


def test_pieces_of_train_text_are_flagged_beyond_what_the_model_recites(tmp_path):
    pieces = OVERLAP.for_provider("train")
    assert beside_zero_shot(tmp_path / "a", pieces, 0.69, 0.4, 1.0) == [[], []]
    assert beside_zero_shot(tmp_path / "b", pieces, 0.71, 0.4, 1.0) == [[pieces], []]


def test_signs_of_test_text_in_a_single_language_do_not_hide_in_the_mean(tmp_path):
    entry = scored("a", flat(0.5, ELEVEN))
    near = {place: 0.06 if place[1] == "he" else 0.0 for place in places(ELEVEN)}
    entry.scores[MEMBERSHIP.for_provider("test")] = near
    [flag] = rows(field_of(tmp_path, ELEVEN, entry, scored("zero-shot", flat(0.5, ELEVEN))))["a"].flags
    # 300 texts: 0.02 + 0.25 / 17.3
    assert flag.words.endswith("membership (test) 0.06 in sentiment/he, above 0.0344")


def above(tmp_path, entry, human, zero=0.5, noise=(0.01, -0.01, 0.0)):
    """Return the flags of entry ``a``; ``noise``: its difference to human text by seed."""
    chosen = selection(["am", "he", "sk"])
    one = {place: entry + noise[place[2] - 1] for place in places(chosen)}
    found = [scored("a", one), scored("human", flat(human, chosen)), scored("zero-shot", flat(zero, chosen))]
    return rows(field_of(tmp_path, chosen, *found))["a"].flags


def test_better_training_data_than_human_text_is_flagged_where_that_is_clear(tmp_path):
    [flag] = above(tmp_path / "a", 0.8, 0.7)
    assert flag.words == (
        "better training data than human text: macro-F1 (tfidf) 0.8 in sentiment, clearly more than 0.05 above 0.7"
    )
    assert above(tmp_path / "b", 0.76, 0.7, noise=(0.1, -0.1, 0.0)) == []  # the interval reaches below
    assert above(tmp_path / "c", 0.74, 0.7) == []
    assert above(tmp_path / "d", 0.8, 0.7, zero=0.78) == []  # the model is that good without the method


def test_every_rule_says_why_in_words():
    assert all(rule.why and rule.why[0].islower() for rule in RULES)
