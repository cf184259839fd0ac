"""Does steering beat what needs no access to activations: the best entry of each side, on the same cells."""

from __future__ import annotations

import pytest
from support.helpers import MODEL
from support.toyruns import F1, ToyEntry, collect_results, flat, selection, toy, write_run

from harness.ranking.eligibility import Eligibility
from harness.ranking.rivals import Rivalry, find_rivalry, row_kind
from harness.ranking.summary import describe_rivalry
from harness.ranking.values import collect_metric

CHOSEN = selection(["am", "he"])
OTHER = MODEL.model_copy(update={"name": "org/other"})


def entry(name: str, value: float, steered: bool = True, model=MODEL, wobble=(0, 0.01, -0.01)) -> ToyEntry:
    found = toy(name, model)
    found.scores[F1], found.steered = flat(value, CHOSEN, wobble), steered
    return found


def rivalry(tmp_path, *entries: ToyEntry) -> tuple[Rivalry | None, str]:
    """Return the comparison with what is said about it."""
    results = collect_results(write_run(tmp_path / "run", entries, CHOSEN))
    found = find_rivalry(collect_metric(results, F1), Eligibility(results))
    return found, describe_rivalry(found, {name: row.name for name, row in results.entries.items()}, F1)


def test_what_no_cell_was_steered_for_is_prompting(tmp_path):
    entries = [entry("language", 0.5), entry("persona", 0.5, steered=False), entry("zero-shot", 0.4)]
    results = collect_results(write_run(tmp_path / "run", entries, CHOSEN))
    kinds = {
        row.entry.method.name: row_kind(row.entry, results.steered.get(row.id)) for row in results.entries.values()
    }
    assert kinds == {"language": "steering", "persona": "prompting", "zero-shot": "baseline"}


@pytest.mark.parametrize(
    ("steering", "prompting", "mean", "said"),
    [
        (0.6, 0.4, 0.2, "Steering wins: language"),
        (0.3, 0.5, -0.2, "Steering loses: language"),
        (0.4, 0.401, -0.001, "Not decided between steering and prompting: language"),
    ],
)
def test_the_best_of_both_sides_are_compared(tmp_path, steering, prompting, mean, said):
    found, words = rivalry(
        tmp_path,
        entry("language", steering, wobble=(0, 0.02, -0.02)),
        entry("quality", steering - 0.1),
        entry("persona", prompting, steered=False),
        entry("zero-shot", prompting - 0.1),
    )
    assert found is not None
    assert found.pairs == 4
    assert found.difference.mean == pytest.approx(mean)
    assert words.startswith(said)
    assert ", the best steering, against persona" in words
    assert "corrected for 4 pairs" in words
    assert ("is found in four of five such runs" in words) == said.startswith("Not decided")


def test_p_is_corrected_for_the_choice_of_both_sides(tmp_path):
    """Holm's smallest p of two is twice as large."""
    wide = (0, 0.02, -0.02)
    entries = [entry("language", 0.41, wobble=wide), entry("persona", 0.4, steered=False)]
    alone, _ = rivalry(tmp_path / "alone", *entries)
    among, _ = rivalry(tmp_path / "more", *entries, entry("quality", 0.402, wobble=wide))
    assert alone is not None
    assert among is not None
    assert (alone.pairs, among.pairs) == (1, 2)
    assert alone.difference == among.difference
    assert alone.p == alone.difference.p
    assert among.p == pytest.approx(2 * alone.p)


def test_a_rival_is_of_the_model_of_the_best_steering(tmp_path):
    found, words = rivalry(
        tmp_path,
        entry("language", 0.5),
        entry("zero-shot", 0.4),
        entry("language", 0.3, model=OTHER),
        entry("zero-shot", 0.6, model=OTHER),
    )
    assert found is not None
    assert found.difference.mean == pytest.approx(0.1)
    assert "other" not in words.partition("against")[2]


def test_without_one_of_the_sides_nothing_is_said(tmp_path):
    assert rivalry(tmp_path / "a", entry("language", 0.5)) == (None, "")
    assert rivalry(tmp_path / "b", entry("zero-shot", 0.5), entry("persona", 0.5, steered=False)) == (None, "")


def test_one_seed_decides_nothing(tmp_path):
    one = selection(["am", "he"], seeds=(1,))
    entries = [toy("language"), toy("zero-shot")]
    for each, value in zip(entries, (0.6, 0.4), strict=True):
        each.scores[F1] = flat(value, one, (0,))
    results = collect_results(write_run(tmp_path / "run", entries, one))
    found = find_rivalry(collect_metric(results, F1), Eligibility(results))
    names = {name: row.name for name, row in results.entries.items()}
    assert describe_rivalry(found, names, F1).startswith("Not decided, as no interval is available: language")
