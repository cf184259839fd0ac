"""Head to head in numbers: p-values corrected over a table, verdicts, and what the page is handed."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest
from support.browsing import Site, entries_named, hash_of, mean_by_hand, paired_difference
from support.panels import differences, panel_of
from support.toysite import LANGUAGES, SEEDS, TASKS

from harness.ranking.slices import Slice
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_number, format_signed
from harness.ranking.values import collect_metric
from harness.scoring.metrics import SELF_CHRF, VENDI
from leaderboard.views.compare import (
    HeadToHeadRow,
    PairRow,
    head_to_head,
    p_words,
    pair_table,
    pairs_in_metric,
    sentence,
    slice_name,
    verdict,
)

pytest_plugins = ["support.windows"]

NAN = float("nan")


def square(ab: float, ac: float, bc: float) -> np.ndarray:
    return np.array([[1, ab, ac], [ab, 1, bc], [ac, bc, 1]], dtype=float)


def row(title: str, mean: list[float], p: np.ndarray) -> PairRow:
    return PairRow(title, VENDI.for_provider("tfidf"), np.array(mean), np.where(np.isnan(p), NAN, 0.5), p)


def test_p_is_corrected_over_all_pairs_and_rows_of_a_table():
    table = pair_table(
        [
            row("first", [1, 2, 3], square(0.001, 0.010, 0.5)),
            row("second", [1, 2, NAN], square(0.004, NAN, NAN)),
        ]
    )
    assert table.comparisons == 4
    # Holm: 0.001 * 4, 0.004 * 3, 0.010 * 2, 0.5 * 1
    assert [table.adjusted(0, *pair) for pair in ((0, 1), (0, 2), (1, 2))] == [0.004, 0.02, 0.5]
    assert table.adjusted(1, 0, 1) == table.adjusted(1, 1, 0) == 0.012
    assert table.adjusted(1, 0, 2) is None
    assert table.adjusted(0, 2, 2) == 1.0
    assert table.rows[0].estimate(2, 0) == Estimate(2.0, low=1.5, high=2.5)
    assert table.rows[1].estimate(2, 0) is None


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.0, 0.001), (0.0004, 0.001), (0.05, 0.05), (0.05001, 0.051), (0.1, 0.1), (0.101, 0.11), (1.0, 1.0)],
)
def test_a_p_is_rounded_up_and_never_becomes_significant(p, shown):
    table = pair_table([PairRow("x", SELF_CHRF, np.zeros(2), np.zeros((2, 2)), np.array([[1, p], [p, 1]]))])
    assert table.adjusted(0, 0, 1) == pytest.approx(shown)
    assert (table.adjusted(0, 0, 1) <= 0.05) == (p <= 0.05)


def test_the_page_is_handed_what_the_table_holds():
    [found] = pair_table([row("x", [1, NAN, 3], square(NAN, 0.01, NAN))]).encoded()
    assert found["means"] == [1.0, None, 3.0]
    assert list(base64.b64decode(found["p"])) == [255, 10, 255]
    halves = np.frombuffer(base64.b64decode(found["half"]), "<u2")
    assert [halves[0], halves[2]] == [65_535, 65_535]
    assert halves[1] * found["unit"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("found", "p", "direction", "words"),
    [
        (None, None, "up", "not measured"),
        (Estimate(1.0), None, "up", "no interval"),
        (Estimate(1.0), 0.05, "up", "A better"),
        (Estimate(1.0), 0.05, "down", "B better"),
        (Estimate(-1.0), 0.01, "up", "B better"),
        (Estimate(-1.0), 0.01, "down", "A better"),
        (Estimate(1.0), 0.01, "none", "A higher"),
        (Estimate(1.0), 0.051, "up", "inconclusive"),
        (Estimate(0.0), 0.01, "up", "inconclusive"),
    ],
)
def test_the_verdict_goes_by_the_corrected_p(found, p, direction, words):
    assert verdict(found, p, direction) == words


@pytest.mark.parametrize(("p", "words"), [(None, "–"), (0.001, "≤ 0.001"), (0.049, "0.049"), (1.0, "1.000")])
def test_no_p_is_shown_as_zero(p, words):
    assert p_words(p) == words


def test_the_sentence_says_who_is_better_where():
    def of(*verdicts: str) -> list[HeadToHeadRow]:
        return [HeadToHeadRow("x", "", "", "", "", "", words, None) for words in verdicts]

    assert sentence("clas", "quality", of("B better", "A better", "inconclusive"), of("A better")) == (
        "Overall: quality is better than clas. In parts: A better in 1, B better in 0, inconclusive in 0. "
        "In other metrics: A better in 1, B better in 0, inconclusive in 1."
    )
    assert sentence("clas", "quality", of("inconclusive"), []) == ("Overall: clas and quality cannot be distinguished.")


def test_all_primary_metrics_stand_there_with_the_differences_of_the_statistics(site):
    board, found = site.board, head_to_head(site.board)
    primary = [metric for metric in board.result_set.metrics if metric.primary]
    titles = [row.title for row in found["metrics"]]
    assert titles[0] == board.headline.title
    assert {metric.title for metric in primary} - set(titles) <= {"copied (test)"}  # of one entry alone
    names = [name for name, _ in found["names"]]
    metric = SELF_CHRF
    measured, evidence = pairs_in_metric(board, metric, names), collect_metric(board.result_set, metric)
    whole = [name for name in names if name in evidence.complete]
    wanted = differences(panel_of(evidence, whole))
    for i, one in enumerate(whole[:4]):
        for j, other in enumerate(whole[:4]):
            pair = names.index(one), names.index(other)
            assert measured.estimate(*pair).mean == pytest.approx(wanted.mean[i, j])
            assert measured.p[pair] == pytest.approx(wanted.p[i, j])
    assert len(SEEDS) == 3
    count = len(whole) * (len(whole) - 1) // 2
    assert found["metric_tests"] >= count * (len(titles) - 1)


# The page in a browser


def comparison_rows(page: Any) -> list[list[str]]:
    return page.locator("#comparison tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )


def comparison_expected(site: Site, a: str, b: str) -> list[tuple[str, str, str, Estimate | None]]:
    scopes = [*(Slice(task, None) for task in TASKS), *(Slice(None, code) for code in LANGUAGES)]
    found = []
    for scope in scopes:
        levels = [format_number(mean_by_hand(site, name, scope.task, scope.language)) for name in (a, b)]
        found.append(
            (slice_name(scope), *levels, paired_difference(site.board.slice(scope.task, scope.language), a, b))
        )
    return found


def holm_by_hand(values: list[float]) -> list[float]:
    """Return p-values adjusted by Holm, one by one: the k-th smallest of n times n - k + 1."""
    order, highest, adjusted = sorted(range(len(values)), key=lambda i: values[i]), 0.0, [0.0] * len(values)
    for k, i in enumerate(order):
        highest = max(highest, min(1.0, values[i] * (len(values) - k)))
        adjusted[i] = highest
    return adjusted


def corrected(fields: list[Any], a: str, b: str) -> list[float | None]:
    """Return p of a pair in some scopes, by Holm over all pairs that are known in any of them."""
    tests = [
        (k, one, other, float(field.pair_p[i, j]))
        for k, field in enumerate(fields)
        for i, one in enumerate(field.entries)
        for j, other in enumerate(field.entries)
        if i < j and field.pair_p[i, j] == field.pair_p[i, j]
    ]
    found = dict.fromkeys(range(len(fields)))
    adjusted = holm_by_hand([p for *_, p in tests])
    for (k, one, other, _), p in zip(tests, adjusted, strict=True):
        if {one, other} == {a, b}:
            found[k] = p
    return list(found.values())


def ends(text: str) -> list[float]:
    return [float(part.replace("−", "-")) for part in re.findall(r"[+−]\d\.\d{3}", text)]


PAIRS = [
    ("quality, alpha", "zero-shot, alpha"),
    ("random of language, beta", "quality, beta"),
    ("few-shot, beta", "human"),
    ("clas, beta", "constant"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_a_deep_link_shows_the_pair_with_pythons_numbers(visit, site, left, right):
    a, b = entries_named(site, left, right)
    page = visit("compare.html", f"#a={a}&b={b}")
    assert page.locator("[name=a]").input_value() == a
    assert page.locator("[name=b]").input_value() == b
    shown, wanted = comparison_rows(page), comparison_expected(site, a, b)
    assert len(shown) == len(wanted) == 5
    single = [(task, None) for task in TASKS] + [(None, code) for code in LANGUAGES]
    chances = corrected([site.board.slice(*scope) for scope in single], a, b)
    words = []
    for (where, at_a, at_b, difference, p, said), (name, level_a, level_b, found), chance in zip(
        shown, wanted, chances, strict=True
    ):
        assert (where, at_a, at_b) == (name, level_a, level_b)
        assert difference.split(" ")[0] == format_signed(found.mean if found else None)
        if chance is None:
            assert (p, said) == ("–", "no interval" if found else "not measured")
        else:
            side = "A better" if found.mean > 0 else "B better"
            assert said == (side if chance <= 0.05 else "inconclusive")
            assert float(p.removeprefix("≤ ")) == pytest.approx(chance, abs=0.00101 if chance <= 0.1 else 0.0101)
        if found and found.low is not None:
            assert ends(difference) == pytest.approx([found.mean, found.low, found.high], abs=0.00056)
        words.append(said)
    told = page.locator("#verdict").text_content()
    over = page.locator("#comparison-metrics tbody tr").first.locator("td").last.text_content()
    assert left in told or over == "not measured"
    assert f"A better in {words.count('A better')}, B better in {words.count('B better')}" in told
    if over == "B better":
        assert told.startswith(f"Overall: {right} is better than {left}.")


@pytest.mark.slow
def test_swapping_turns_signs_and_verdicts(visit, site):
    a, b = entries_named(site, "quality, alpha", "zero-shot, alpha")
    page = visit("compare.html", f"#a={a}&b={b}")
    before = comparison_rows(page)
    page.get_by_role("button", name="Swap A and B").click()
    assert hash_of(page) == f"#a={b}&b={a}"
    turned = {"A better": "B better", "B better": "A better"}
    for old, new in zip(before, comparison_rows(page), strict=True):
        assert new[:3] == [old[0], old[2], old[1]]
        mean, low, high = ends(old[3])
        assert ends(new[3]) == pytest.approx([-mean, -high, -low])
        assert new[4] == old[4]
        assert new[5] == turned.get(old[5], old[5])


@pytest.mark.slow
def test_an_entry_against_itself_asks_for_another(visit, site):
    [a] = entries_named(site, "quality, alpha")
    page = visit("compare.html", f"#a={a}&b={a}")
    assert page.locator("#verdict").text_content() == "Choose two different entries."
    assert {row[5] for row in comparison_rows(page)} == {"inconclusive"}


@pytest.mark.slow
def test_the_script_shows_what_the_page_was_built_with(visit, site):
    still = visit("compare.html", java_script_enabled=False)
    page = visit("compare.html")
    without, shown = comparison_rows(still), comparison_rows(page)
    assert [row[:3] + row[4:] for row in without] == [row[:3] + row[4:] for row in shown]
    for old, new in zip(without, shown, strict=True):
        assert ends(old[3]) == pytest.approx(ends(new[3]), abs=0.0011)
    assert still.locator("#verdict").text_content() == page.locator("#verdict").text_content()
    metrics = [other.locator("#comparison-metrics").inner_text() for other in (still, page)]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_choosing_a_pair_lands_in_the_address_and_back_restores(visit, site):
    a, b = entries_named(site, "few-shot, beta", "human")
    page = visit("compare.html")
    opening = comparison_rows(page)
    page.evaluate(f"location.hash = '#a={a}&b={b}'")
    page.wait_for_function("() => document.querySelector('[name=b]').value === location.hash.split('b=')[1]")
    assert comparison_rows(page) != opening
    page.go_back()
    page.wait_for_function("() => location.hash === ''")
    page.wait_for_function("() => document.querySelector('#comparison tbody td').textContent !== ''")
    assert comparison_rows(page) == opening
    page.locator("[name=a]").select_option(a)
    assert f"a={a}" in hash_of(page)
    assert comparison_rows(visit("compare.html", "#a=nobody&b=toString")) == opening
