"""Head to head in numbers: p-values corrected over a table, verdicts, and what the page is handed."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from support.panels import differences
from support.toysite import SEEDS

from harness.ranking.stats.estimates import Estimate
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
    primary = [metric for metric in board.cellset.metrics if metric.primary]
    titles = [row.title for row in found["metrics"]]
    assert titles[0] == board.headline.title
    assert {metric.title for metric in primary} - set(titles) <= {"copied (test)"}  # of one entry alone
    names = [name for name, _ in found["names"]]
    metric = SELF_CHRF
    measured, evidence = pairs_in_metric(board, metric, names), collect_metric(board.cellset, metric)
    whole = [name for name in names if name in evidence.complete]
    wanted = differences(evidence.panel(whole))
    for i, one in enumerate(whole[:4]):
        for j, other in enumerate(whole[:4]):
            pair = names.index(one), names.index(other)
            assert measured.estimate(*pair).mean == pytest.approx(wanted.mean[i, j])
            assert measured.p[pair] == pytest.approx(wanted.p[i, j])
    assert len(SEEDS) == 3
    count = len(whole) * (len(whole) - 1) // 2
    assert found["metric_tests"] >= count * (len(titles) - 1)
