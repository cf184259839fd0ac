"""What a reader sees of standings: the table in the terminal, the ranking and the sentence of the page."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from support.helpers import generations, jsonl
from support.toyruns import F1, ToyEntry, collect_results, flat, places, plain, selection, toy, write_run

from harness.core.store import Run
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import (
    answer,
    digits_of,
    format_interval,
    format_number,
    format_signed,
    gaps,
    in_words,
    p_equals,
    p_value,
    print_summary,
)
from harness.scoring.metrics import COPIED, SELF_CHRF, VALID_SHARE
from leaderboard.build import build_board

CHOSEN = selection(["am", "he"], ["sentiment", "topic"])


def entry(name: str, value: float, wobble=(0.0, 0.01, -0.01), **config: object) -> ToyEntry:
    made = toy(name, **config)
    made.scores[F1] = flat(value, CHOSEN, wobble)
    return made


def field(*more: ToyEntry) -> list[ToyEntry]:
    return [
        entry("zero-shot", 0.5),
        entry("language", 0.8, (0.01, -0.01, 0.0)),
        entry("quality", 0.801, (-0.02, 0.02, 0.0)),
        entry("human", 0.9, (0.0, 0.0, 0.02)),
        *more,
    ]


def shown(run: Run) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=160), collect_results(run))
    return out.getvalue()


def printed(tmp_path, entries: list[ToyEntry], chosen=CHOSEN, **options) -> str:
    return shown(write_run(tmp_path / "run", entries, chosen, **options))


def page_of(tmp_path, entries: list[ToyEntry]) -> str:
    suite = {"name": "toy", "classifiers": ["tfidf"], "description": "a toy", "version": 1}
    run = write_run(tmp_path / "run", entries, CHOSEN, suite=suite)
    for cell in run.cell_ids():
        row = generations({"good": ["ጥሩ"]})[0].model_dump(mode="json")
        jsonl(run.cell(cell) / "generations.jsonl", [row])
    return build_board([run], tmp_path / "site").read_text(encoding="utf-8")


def line_of(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if re.match(rf"\s*\S+\s+{re.escape(name)}\s", line)]
    return line.split()


def test_an_interval_is_written_with_true_minus_signs():
    assert format_interval(Estimate(-0.01, 0.01, 5, -0.03, 0.01)) == "−0.010 [−0.030, +0.010]"
    assert format_interval(Estimate(0.25), 2) == "+0.25"
    assert format_interval(None) == "–"
    assert format_number(-0.25, 2) == "−0.25"


def test_what_rounds_to_zero_has_no_sign():
    assert [format_signed(value) for value in (-0.0004, 0.0004, 0.0, -0.0)] == ["0.000"] * 4
    assert [format_signed(value) for value in (-0.0006, 0.0006)] == ["−0.001", "+0.001"]
    assert [format_signed(value, 0) for value in (-0.4, 0.4, -0.6)] == ["0", "0", "−1"]
    assert [format_number(value) for value in (-0.0004, -0.0, -0.0006)] == ["0.000", "0.000", "−0.001"]
    assert format_interval(Estimate(-0.0001, 0.01, 5, -0.0002, 0.0004)) == "0.000 [0.000, 0.000]"


def test_no_p_value_is_shown_as_zero():
    assert [p_value(p) for p in (0.0, 0.0009, 0.001, 0.0314, 1.0)] == [
        *("< 0.001", "< 0.001", "0.001", "0.031", "1.000")
    ]
    assert [p_value(p, 2) for p in (0.004, 0.01, 0.049)] == ["< 0.01", "0.01", "0.05"]
    assert (p_equals(0.0), p_equals(0.25), p_equals(0.004, 2)) == ("p < 0.001", "p = 0.250", "p < 0.01")
    assert p_value(None) == "–"


def test_every_metric_has_the_decimals_that_say_something():
    assert [digits_of(name) for name in ("macro_f1/tfidf", "self_chrf.valid", "vendi/tfidf", "length")] == [3, 1, 1, 0]


def test_the_terminal_shows_tiers_gains_and_gap(tmp_path):
    text = printed(tmp_path, field())
    assert line_of(text, "quality")[0] == line_of(text, "language")[0] == "1"
    assert line_of(text, "zero-shot")[0] == "2"
    assert line_of(text, "human")[0] == "–"
    assert line_of(text, "language")[2:5] == ["0.800", "0.800", "0.800"]  # two tasks and all
    assert "+0.300 [" in text
    assert "+74" in line_of(text, "language")  # 0.300 of 0.40667
    assert "minimum detectable difference" in text


def test_a_flagged_entry_says_so_and_why_instead_of_a_tier(tmp_path):
    cheat = entry("cheat", 0.95)
    cheat.scores[COPIED.for_provider("test")] = dict.fromkeys(places(CHOSEN), 1.0)
    text = printed(tmp_path, field(cheat))
    assert line_of(text, "cheat")[0] == "flag"
    assert "flag: cheat: copies of test text" in text


def test_one_seed_is_not_ranked_and_the_reason_stands_below(tmp_path):
    chosen = selection(["am", "he"], ["sentiment", "topic"], seeds=[1])
    entries = [toy("zero-shot"), toy("language")]
    for made, value in zip(entries, (0.5, 0.8), strict=True):
        made.scores[F1] = flat(value, chosen, (0.0,))
    text = printed(tmp_path, entries, chosen)
    assert line_of(text, "language")[0] == "–"
    assert "not ranked: 1 generation seed, 3 are needed" in text


def test_the_page_says_who_leads_and_who_does_not_differ_from_it(tmp_path):
    page = page_of(tmp_path, field())
    assert "Highest mean macro-F1 (tfidf): quality, 0.801" in page
    assert "It does not differ significantly from language: they share tier 1." in page
    assert "▲" in page  # a gain in a language that stands up to the correction


def test_a_flagged_entry_leads_no_headline(tmp_path):
    entries = [entry("zero-shot", 0.5), entry("cheat", 0.95)]
    entries[1].scores[COPIED.for_provider("test")] = dict.fromkeys(places(CHOSEN), 1.0)
    page = page_of(tmp_path, entries)
    assert "no steered entry with all its cells is available for comparison" in page
    assert "Highest mean macro-F1 (tfidf): zero-shot, 0.500." in page
    entries[0].scores[COPIED.for_provider("test")] = dict.fromkeys(places(CHOSEN), 1.0)
    page = page_of(tmp_path / "all", entries)
    assert "Every entry that has all its cells is flagged, so none is the best." in page


def test_the_page_shows_human_values_beside_and_no_column_without_values(tmp_path):
    entries = field()
    for made in entries:
        made.scores[SELF_CHRF] = flat(20.0, CHOSEN)
        made.scores[VALID_SHARE] = flat(1.0, CHOSEN, (0.0,))
        made.human = {SELF_CHRF: 17.3, VALID_SHARE: 0.99}
    page = page_of(tmp_path, entries)
    assert '<span class="figure">20.0</span> <small>17.3</small>' in page
    assert '<span class="figure">1.000</span> <small>0.990</small>' in page
    assert "small print: human-written text by the same measure" in page
    assert '<span class="head">Vendi</span>' not in page, "no entry has a value"
    [metric] = (tmp_path / "site").rglob("metric-self-chrf.html")
    foot = metric.read_text(encoding="utf-8").partition("<tfoot>")[2].partition("</tfoot>")[0]
    assert foot.count("<td>17.3</td>") == 3  # over all, and by language


# Entries with missing cells


def test_an_entry_that_lacks_cells_has_no_mean_but_their_number_and_the_reasons(tmp_path):
    unscored = entry("unscored", 0.9)
    unscored.scores[F1] = {**unscored.scores[F1], ("topic", "he", 3): None}
    entries = [entry("zero-shot", 0.5), entry("language", 0.8), entry("broken", 0.9), unscored]
    gone = [("broken", "topic", "he", seed) for seed in (1, 2)]
    text = printed(tmp_path, entries, drop=gone)
    assert line_of(text, "broken") == ["–", "broken", "0.900", "–", "–", "–", *"––––", "–", "10/12"]
    assert "no mean: broken: 10/12 cells; 2 × method_error: ValueError: no\n" in text
    assert "no mean: unscored: 11/12 cells; too few texts\n" in text
    assert text.count("no mean:") == 2


def test_a_reason_writes_no_control_characters_and_stays_on_one_line(tmp_path):
    gone = [("broken", "topic", "he", 1)]
    run = write_run(tmp_path / "run", [entry("zero-shot", 0.5), entry("broken", 0.9)], CHOSEN, drop=gone)
    [cell] = [cell for cell in run.cell_ids() if run.status(cell).reason]
    status = run.status(cell).model_copy(update={"reason": "KeyError:\n\x1b[2J\u202e"})
    plain(run.cell(cell) / "status.json", status.to_json())
    text = shown(run)
    assert "no mean: broken: 11/12 cells; method_error: KeyError: \ufffd[2J\ufffd\n" in text
    assert "\x1b" not in text


def test_of_many_reasons_the_most_frequent_stand_there(tmp_path):
    gone = [("broken", task, code, seed) for task in CHOSEN.tasks for code in CHOSEN.languages for seed in (1, 2)]
    run = write_run(tmp_path / "run", [entry("zero-shot", 0.5), entry("broken", 0.9)], CHOSEN, drop=gone)
    failed = [cell for cell in run.cell_ids() if run.status(cell).reason]
    for i, cell in enumerate(failed):
        reason = "twice" if i < 2 else f"reason {i}"
        plain(run.cell(cell) / "status.json", run.status(cell).model_copy(update={"reason": reason}).to_json())
    result_set = collect_results(run)
    [line] = gaps(rank_entries(result_set, result_set.headline))
    assert line.startswith("no mean: broken: 4/12 cells; 2 × method_error: twice; ")
    assert line.endswith("; and 4 more reasons")


# Whether any steering is better than zero-shot: the verdict, corrected by hand, and how it is said


def gain(mean: float, p: float | None) -> Estimate:
    return Estimate(mean) if p is None else Estimate(mean, 0.01, 5.0, mean - 0.05, mean + 0.05, p, 0.06)


def test_the_best_is_the_largest_gain_of_those_that_are_better():
    found = answer({"a": gain(0.1, 0.01), "b": gain(0.2, 0.03), "c": gain(-0.1, 0.5)}, "up")
    assert (found.verdict, found.best, found.compared, found.better) == ("yes", "a", 3, 1)
    assert found.p == pytest.approx(0.03)  # Holm: 3 x 0.01; that of b is 2 x 0.03
    assert found.gain.mean == 0.1


def test_a_gain_that_is_significant_alone_is_none_among_many():
    found = answer({"a": gain(0.1, 0.04), "b": gain(0.2, 0.03)}, "up")
    assert (found.verdict, found.best, found.better) == ("unknown", "b", 0)
    assert found.p == pytest.approx(0.06)
    assert answer({"b": gain(0.2, 0.03)}, "up").verdict == "yes"


def test_no_means_that_all_are_worse():
    worse = {"a": gain(-0.1, 0.01), "b": gain(-0.2, 0.02)}
    found = answer(worse, "up")
    assert (found.verdict, found.best, found.p) == ("no", "a", pytest.approx(0.02))
    assert answer({**worse, "c": gain(-0.01, 0.8)}, "up").verdict == "unknown"


def test_where_less_is_better_a_fall_is_a_gain():
    found = answer({"a": gain(-0.1, 0.01), "b": gain(0.2, 0.01)}, "down")
    assert (found.verdict, found.best, found.better) == ("yes", "a", 1)
    assert answer({"a": gain(0.1, 0.01)}, "down").verdict == "no"


def test_nothing_to_compare_and_no_direction_say_nothing():
    for found in (answer({}, "up"), answer({"a": gain(0.1, 0.001)}, "none")):
        assert (found.verdict, found.gain, found.compared) == ("unknown", None, 0)
        assert in_words(found, {}, "F1") == (
            "Inconclusive",
            "no steered entry with all its cells is available for comparison.",
        )


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {"a": gain(0.1, 0.0001), "b": gain(-0.2, 0.03)},
            "Yes: ጥሩ gains +0.100 [+0.050, +0.150] in F1 (p < 0.001, corrected for 2 compared entries). "
            "1 of 2 compared are better.",
        ),
        ({"a": gain(0.1, 0.01)}, "Yes: ጥሩ gains +0.100 [+0.050, +0.150] in F1 (p = 0.010)."),
        (
            {"a": gain(-0.1, 0.01), "b": gain(-0.2, 0.001)},
            "No: all 2 are worse, the least ጥሩ: −0.100 [−0.150, −0.050] in F1 (p = 0.010, corrected for 2 "
            "compared entries).",
        ),
        ({"a": gain(-0.1, 0.01)}, "No: ጥሩ is worse: −0.100 [−0.150, −0.050] in F1 (p = 0.010)."),
        (
            {"a": gain(0.04, 0.2), "b": gain(0.01, 0.9)},
            "Inconclusive: ጥሩ has the largest gain: +0.040 [−0.010, +0.090] in F1 (p = 0.400, "
            "corrected for 2 compared entries).",
        ),
        (
            {"a": gain(0.04, None), "b": gain(0.01, None)},
            "Inconclusive: no interval is available. ጥሩ has the largest gain: +0.040 in F1.",
        ),
    ],
)  # fmt: skip
def test_the_answer_in_words(gains, said):
    assert ": ".join(in_words(answer(gains, "up"), {"a": "ጥሩ", "b": "טוב"}, "F1")) == said
