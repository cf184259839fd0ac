"""What a terminal of 80 columns shows: no number is cut, what is left out is named, a sentence ends it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from support.helpers import ROOT, environment, second_process, steerboard
from support.toyruns import F1, ToyEntry, collect_results, flat, selection, toy, write_run

from harness.core.terminal import TerminalColumn, print_table
from harness.ranking.compare import compare
from harness.ranking.render import print_comparison
from harness.ranking.summary import print_summary

CHOSEN = selection(["am", "he"], ["sentiment", "topic"])
STEADY = (0.0, 0.01, -0.01)
COLUMNS = [
    TerminalColumn("entry", words=True),
    TerminalColumn("mean"),
    TerminalColumn("vs zero-shot [95 %]"),
    TerminalColumn("Vendi", drop=2),
    TerminalColumn("cells", drop=1),
]
ROWS = [
    ["אמהרית עם וקטור ארוך מאוד", "0.512", "+0.010 [−0.002, +0.022]", "1234.5", "66/66"],
    ["ቋንቋ", "0.498", "–", "17.0", "132/132"],
]


def entry(name: str, value: float, wobble=STEADY, **config: object) -> ToyEntry:
    made = toy(name, **config)
    made.scores[F1] = flat(value, CHOSEN, wobble)
    return made


def shown(width: int, draw) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=width))
    text = out.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    return text


def summary(tmp_path, *entries: ToyEntry, chosen=CHOSEN, width: int = 80) -> str:
    result_set = collect_results(write_run(tmp_path / "run", entries, chosen))
    return shown(width, lambda console: print_summary(console, result_set))


def in_one_line(text: str) -> str:
    return " ".join(text.split())


# Tables


@pytest.mark.parametrize("width", [200, 80, 60, 44, 30])
def test_a_number_is_whole_at_every_width_or_its_column_is_named_as_left_out(width):
    text = shown(width, lambda console: print_table(console, COLUMNS, ROWS))
    gone = re.findall(r"not shown at \d+ columns: ([^;]+);", in_one_line(text))
    for i, column in enumerate(COLUMNS[1:], 1):
        if column.head not in ", ".join(gone):
            assert all(row[i] == "–" or row[i] in in_one_line(text) for row in ROWS), column.head
    assert all(word in text for row in ROWS for word in row[0].split())


def test_columns_go_in_their_order_and_the_line_says_which_width_shows_all():
    for width, gone in ((65, ""), (64, "Vendi"), (57, "Vendi"), (56, "Vendi, cells"), (48, "Vendi, cells")):
        text = in_one_line(shown(width, lambda console: print_table(console, COLUMNS, ROWS)))
        words = f"not shown at {width} columns: {gone}; COLUMNS=65 shows all"
        assert text.endswith(words) if gone else "not shown" not in text


def test_where_not_even_the_numbers_that_stay_fit_rows_are_stacked():
    lines = shown(30, lambda console: print_table(console, COLUMNS, ROWS)).splitlines()
    assert lines[-4:] == ["ቋንቋ", "  mean: 0.498", "  Vendi: 17.0", "  cells: 132/132"]


# The summary of a run


def test_the_summary_fits_80_columns_with_numbers_whole(tmp_path):
    long = entry("a-method-with-a-rather-long-name", 0.8, (0.01, -0.01, 0.0), layer=0.21, strength=2.0)
    text = summary(tmp_path, entry("zero-shot", 0.5), long, entry("human", 0.9))
    [line] = [line for line in text.splitlines() if "+0.300 [" in line and "0.800" in line]
    assert re.search(r"0\.800 +0\.800 +0\.800 +\+0\.300 \[\+0\.\d{3}, \+0\.\d{3}\]", line)
    gone = "gap %, Vendi, self-chrF, valid, label"
    assert re.search(rf"not shown at 80 columns: {gone}; COLUMNS=\d+ shows all", in_one_line(text))


def test_the_summary_says_who_is_best_by_how_much_and_how_sure(tmp_path):
    text = in_one_line(summary(tmp_path, entry("zero-shot", 0.5), entry("language", 0.8, (0.01, -0.01, 0.0))))
    assert re.search(
        r"language is best by macro-F1 \(tfidf\), 0\.800, \+0\.300 against zero-shot \(95 % interval "
        r"\+0\.\d{3} to \+0\.\d{3}\), a significant difference\. It differs significantly from all others "
        r"that are ranked\.$",
        text,
    )


def test_the_summary_names_who_cannot_be_told_from_the_best(tmp_path):
    close = entry("quality", 0.801, (-0.02, 0.02, 0.0))
    entries = entry("zero-shot", 0.5), entry("language", 0.8, (0.01, -0.01, 0.0)), close
    text = in_one_line(summary(tmp_path, *entries))
    assert text.endswith("No significant difference was found between it and language.")
    assert "quality is best by macro-F1 (tfidf), 0.801" in text


def test_the_summary_does_not_call_a_tie_with_zero_shot_a_win(tmp_path):
    entries = entry("zero-shot", 0.5), entry("language", 0.502, (-0.02, 0.02, 0.0))
    text = in_one_line(summary(tmp_path, *entries))
    assert "No entry is shown to be better than zero-shot: language has the highest" in text
    assert "not a significant difference" in text


def test_the_summary_says_when_steering_only_hurts(tmp_path):
    text = in_one_line(summary(tmp_path, entry("zero-shot", 0.8), entry("language", 0.5, (0.01, -0.01, 0.0))))
    assert "zero-shot is best by macro-F1 (tfidf), 0.800, without any steering." in text


def test_one_seed_says_that_nothing_can_be_said_yet(tmp_path):
    chosen = selection(["am", "he"], ["sentiment", "topic"], seeds=[1])
    made = toy("zero-shot")
    made.scores[F1] = flat(0.5, chosen, (0.0,))
    text = in_one_line(summary(tmp_path, made, chosen=chosen))
    assert text.endswith("Nothing can be said yet about which entry is best: 1 generation seed, 3 are needed.")


# The other tables


@pytest.fixture
def pair(tmp_path):
    """Two runs: the second is better by 0.1 in an entry with a long name, the same in zero-shot."""
    name = "a-method-with-a-rather-long-name"
    zero = entry("zero-shot", 0.5)
    old = write_run(tmp_path / "a", [zero, entry(name, 0.6)], CHOSEN)
    return old, write_run(tmp_path / "b", [zero, entry(name, 0.7, (0.01, -0.01, 0.0))], CHOSEN)


def test_a_terminal_without_unicode_gets_escapes_instead_of_a_traceback(pair):
    env = environment(PYTHONIOENCODING="ascii")
    outcome = second_process("compare", pair[0].path, pair[1].path, env=env)
    assert (outcome.code, outcome.err) == (0, "")
    assert "B \\u2212 A" in outcome.out


@pytest.mark.parametrize("width", [140, 80, 40])
def test_a_comparison_fits_and_ends_in_a_sentence(pair, width):
    found = compare(*pair)
    text = in_one_line(shown(width, lambda console: print_comparison(console, found)))
    assert "+0.100" in text
    assert re.search(
        r"By macro-F1 \(tfidf\), B is better in a-method-with-a-rather-long-name by \+0\.100 "
        r"\(\+0\.\d{3} to \+0\.\d{3}, significant\); 2 entries were compared\.$",
        text,
    )


def test_a_comparison_of_equal_runs_says_that_they_are_identical(pair):
    found = compare(pair[0], pair[0])
    text = in_one_line(shown(80, lambda console: print_comparison(console, found)))
    assert text.endswith("A and B are identical in all 2 entries.")


def test_the_gate_fits_80_columns(pair, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = steerboard("gate", pair[1].path, "--against", pair[0].path)
    assert "…" not in done.out
    assert re.search(r"\+0\.100 \[\+0\.\d{3},\s+\+0\.\d{3}\]|\+0\.100", done.out)
    assert "not shown at 80 columns:" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_the_list_of_submissions_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    done = steerboard("submission", "list", ROOT / "submissions")
    assert all(len(line) <= 60 for line in done.out.splitlines())
    assert "132/132" in done.out
    assert "not shown at 60 columns: version" in in_one_line(done.out)
