"""What a reader sees of standings: the table in the terminal, the ranking and the sentence of the page."""

from __future__ import annotations

import io
import re

from rich.console import Console
from support.helpers import generations, jsonl
from support.toyruns import F1, ToyEntry, cellset_of, flat, places, selection, toy, write_run

from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import (
    digits_of,
    format_interval,
    format_number,
    format_signed,
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


def printed(tmp_path, entries: list[ToyEntry], chosen=CHOSEN) -> str:
    out = io.StringIO()
    run = write_run(tmp_path / "run", entries, chosen)
    print_summary(Console(file=out, width=160), cellset_of(run))
    return out.getvalue()


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
    assert [digits_of(name) for name in ("macro_f1/tfidf", "self_chrf.valid", "vendi/tfidf", "length")] == [
        3,
        1,
        1,
        0,
    ]


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
    assert "no steering with all its cells is there to compare" in page
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
    assert "small print: human text by the same measure" in page
    assert '<span class="head">Vendi</span>' not in page, "no entry has a value"
    [metric] = (tmp_path / "site").rglob("metric-self-chrf.html")
    foot = metric.read_text(encoding="utf-8").partition("<tfoot>")[2].partition("</tfoot>")[0]
    assert foot.count("<td>17.3</td>") == 3  # over all, and by language
