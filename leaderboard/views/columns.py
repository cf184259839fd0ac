"""The columns of the ranking: what each one is, in which unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.languages import language
from harness.ranking.stats.multiplicity import CORRECTION
from harness.scoring.metrics import (
    LABEL_FIDELITY,
    LANGUAGE_FIDELITY,
    SELF_CHRF,
    VALID_SHARE,
    VENDI,
    Metric,
)
from leaderboard.boards import Board
from leaderboard.rendering import BETTER
from leaderboard.text import name_of

_OF_TEXTS = (VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY)

_ON_REQUEST = {SELF_CHRF.name}


@dataclass(frozen=True)
class RankingColumn:
    """A column of the ranking. ``more``: shown on request; ``whole``: only of all tasks and languages.

    ``hint`` says what it is, its unit and which way is better.
    """

    key: str
    title: str
    hint: str
    better: str = "none"
    more: bool = False
    whole: bool = False
    text: bool = False


_TIER = RankingColumn(
    "tier",
    "tier",
    "Entries of a tier do not differ significantly from its best: paired differences with two-way intervals "
    f"over seeds and test examples, {CORRECTION}, 5 %.",
    "down",
)
_ENTRY = RankingColumn("entry", "entry", "Method, and its options where several entries of a method differ.", text=True)
_TOGETHER = RankingColumn(
    "together",
    "forcing, all answers",
    "Harmonic mean of share and relevance, each averaged over all cells first (arXiv 2601.08331). Rows are "
    "ranked by the mean of the cells' own harmonic means, which has an interval. Higher is better.",
    "up",
    whole=True,
)
_SECONDARY = (
    RankingColumn(
        "wins",
        "wins %",
        "Share of cases (a task in a language) with a mean gain over zero-shot. Depends on the cases, hence "
        "secondary. Higher is better.",
        "up",
        more=True,
        whole=True,
    ),
    RankingColumn(
        "mde",
        "detectable",
        "The smallest true difference to zero-shot that such an experiment finds in 80 of 100 repeats. Lower "
        "is better.",
        "down",
        more=True,
        whole=True,
    ),
    RankingColumn(
        "borda",
        "Borda",
        "Over all cases, the number of ranked entries that it beats, ties for a half. Depends on the field "
        "shown, hence secondary. Higher is better.",
        "up",
        more=True,
        whole=True,
    ),
    RankingColumn(
        "rank",
        "mean rank",
        "Mean rank over the cases, 1 is best. Depends on the field shown, hence secondary. Lower is better.",
        "down",
        more=True,
        whole=True,
    ),
)
_COST = (
    RankingColumn(
        "seconds",
        "s / 1,000",
        "Seconds for 1,000 valid texts: generation with redraws, fits and tuning. Of different devices not "
        "comparable. Lower is better.",
        "down",
        whole=True,
    ),
    RankingColumn(
        "tokens",
        "tokens / 1,000",
        "Tokens for 1,000 valid texts: prompts, texts, fits and tuning. Lower is better.",
        "down",
        more=True,
        whole=True,
    ),
)
_ORIGIN = (
    RankingColumn(
        "cells",
        "cells",
        "Cells with a value of cells planned. A row without all of them has no mean. Higher is better.",
        "up",
        whole=True,
    ),
    RankingColumn(
        "badge",
        "checked",
        "How far the numbers were checked: 'own run' was generated and scored by whoever built this page; "
        "'self-reported' was submitted; 'rescored': its texts were rescored; 'reproduced': some texts, too.",
        text=True,
        whole=True,
    ),
    RankingColumn("date", "date", "When the newest run of the entry was started.", text=True, whole=True),
)


def secondary_metrics(board: Board) -> list[Metric]:
    """Return the metrics that stand beside the headline in the ranking."""
    if board.track == "generation":
        return list(_OF_TEXTS)
    return [m for m in board.cellset.metrics if m.group == board.track and m.primary and m != board.headline]


def columns(board: Board) -> list[RankingColumn]:
    """Return the columns of the ranking, in their order."""
    texts = board.track == "generation"
    return [
        _TIER,
        _ENTRY,
        *_of_headline(board.headline),
        *(_against_people(board.headline) if texts else ()),
        *(_of_check(code, board.headline) for code in board.checks),
        *(() if board.track != "forcing" else (_TOGETHER,)),
        *_SECONDARY,
        *(_of(side, side.name in _ON_REQUEST, texts) for side in secondary_metrics(board)),
        *(_COST if texts else ()),
        *_ORIGIN,
    ]


def _of_headline(metric: Metric) -> list[RankingColumn]:
    """Return the gain and the level of what entries are ranked by."""
    way, better = metric.direction, f"{BETTER[metric.direction].capitalize()}."
    return [
        RankingColumn(
            "gain",
            "gain over zero-shot",
            f"Mean paired difference in {metric.title} to unsteered zero-shot of the same model, task, "
            f"language and seed, with its 95 % interval. {better}",
            way,
        ),
        _of(metric, people=metric.group == "downstream"),
    ]


def _of_check(code: str, metric: Metric) -> RankingColumn:
    """Return the column of a language that must not get worse."""
    name = name_of(language(code).name)
    return RankingColumn(
        f"check-{code}",
        f"{name} check",
        f"Mean gain in {metric.title} in {name}, which is in no mean: a method must not pay for the others "
        f"with it. {BETTER[metric.direction].capitalize()}.",
        metric.direction,
        whole=True,
    )


def _against_people(metric: Metric) -> list[RankingColumn]:
    """Return the gains that take few-shot texts and human text."""
    way, better = metric.direction, f"{BETTER[metric.direction].capitalize()}."
    return [
        RankingColumn(
            "few",
            "vs few-shot",
            f"As the gain, against unsteered few-shot, in {metric.title}. {better}",
            way,
            more=True,
            whole=True,
        ),
        RankingColumn(
            "gap",
            "gap closed %",
            "Percent of the way from zero-shot to human text of the same size; nothing where human text is "
            "not clearly better. Higher is better.",
            "up",
            whole=True,
        ),
    ]


def _of(metric: Metric, more: bool = False, people: bool = True) -> RankingColumn:
    hint = f"{metric.definition} {metric.unit}; {BETTER[metric.direction]}."
    hint += " Small print: human text." if people else ""
    return RankingColumn(metric.name, metric.title.replace(" (tfidf)", ""), hint, metric.direction, more)
