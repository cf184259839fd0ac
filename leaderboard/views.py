"""What the page shows, as plain data: no HTML here, no numbers in the templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.files import digest
from harness.languages import Language, language
from harness.ranking.cost import Cost, costs
from harness.ranking.standings import Standing, Standings, standings
from harness.ranking.summary import digits_of, mark, remarks, signed, spanned
from harness.ranking.tables import Cellset, EntryRow, Table, Value, table
from harness.records import Manifest
from harness.scoring.metrics import (
    LABEL_FIDELITY,
    LANGUAGE_FIDELITY,
    SELF_CHRF,
    VALID_SHARE,
    VENDI,
    Metric,
)
from leaderboard.charts import IntervalPlot, PlotRow, interval_plot

SIDES = (VENDI.of("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY)
"""Metrics that stand beside the headline in the ranking."""

SAMPLES_PER_LABEL = 2
LONGEST_SAMPLE = 400  # characters
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Sample:
    """Texts of one entry for one label."""

    entry: str
    texts: list[str]


@dataclass(frozen=True)
class LabelSamples:
    """The texts of all entries for one label of one task."""

    task: str
    label: str
    samples: list[Sample]


@dataclass(frozen=True)
class LanguageSamples:
    """Texts of one language, of the first generation seed."""

    language: Language
    seed: int
    labels: list[LabelSamples]


@dataclass(frozen=True)
class Section:
    """One metric over some of the tasks."""

    title: str
    anchor: str
    table: Table
    digits: int

    @property
    def human(self) -> bool:
        """Whether values of human text stand beside."""
        return any(value.human is not None for _, value, _ in self.table.rows)


@dataclass(frozen=True)
class RankedRow:
    """A row of the ranking: its standing, the metrics of ``SIDES`` in their order, and what it cost."""

    standing: Standing
    sides: list[Value]
    cost: Cost | None


@dataclass(frozen=True)
class BoardView:
    """Everything about one set of comparable results."""

    title: str
    manifest: Manifest
    manifests: list[Manifest]
    suite: dict[str, Any]
    mark: str
    sentence: str
    remarks: list[str]
    standings: Standings
    ranking: list[RankedRow]
    sides: list[tuple[Metric, int]]
    plot: IntervalPlot | None
    main: list[Section]
    others: list[Section]
    languages: list[Language]
    samples: list[LanguageSamples]
    incomplete: list[EntryRow]
    entries: list[EntryRow]
    metrics: list[tuple[Metric, list[str]]]
    anchor: str


def board_view(cellset: Cellset) -> BoardView:
    """Return the view of one set of comparable results; the headline metric comes first."""
    headline = cellset.headline or cellset.metrics[0]
    kind = digest([cellset.manifest.suite_hash, cellset.manifest.selection.model_dump(mode="json")], 6)
    anchor = f"{clean(cellset.manifest.suite['name'])}-{kind}"
    tasks = list(cellset.manifest.selection.tasks)
    overall = table(cellset, headline)
    ranked = standings(cellset, headline)
    main = [_section(cellset, headline, tasks, anchor)]
    if len(tasks) > 1:
        main += [_section(cellset, headline, [task], anchor) for task in tasks]
    others = [_section(cellset, m, tasks, anchor) for m in cellset.metrics if m != headline]
    return BoardView(
        title=cellset.title,
        manifest=cellset.manifest,
        manifests=cellset.manifests,
        suite=cellset.manifest.suite,
        mark=mark(cellset),
        sentence=_sentence(ranked),
        remarks=remarks(ranked),
        standings=ranked,
        ranking=_ranking(cellset, ranked),
        sides=[(side, digits_of(side.name)) for side in SIDES],
        plot=_plot(ranked),
        main=main,
        others=others,
        languages=[language(code) for code in overall.languages],
        samples=[_samples(cellset, overall, code) for code in overall.languages],
        incomplete=[row for row, _, _ in overall.rows if not row.complete],
        entries=[row for row, _, _ in overall.rows],
        metrics=[(m, cellset.signatures.get(m.name, [])) for m in cellset.metrics],
        anchor=anchor,
    )


def clean(text: str, longest: int = LONGEST_SAMPLE) -> str:
    """Return ``text`` fit for a page: no control characters or lone surrogates, cut if very long."""
    shown = _UNPRINTABLE.sub("\ufffd", text[: longest + 1])
    return shown if len(shown) <= longest else shown[:longest] + "…"


def _section(cellset: Cellset, metric: Metric, tasks: Sequence[str], anchor: str) -> Section:
    whole = len(tasks) == len(cellset.manifest.selection.tasks)
    scope = "all tasks" if whole and len(tasks) > 1 else ", ".join(tasks)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{metric.name}-{scope}".lower()).strip("-")
    return Section(scope, f"{anchor}-{slug}", table(cellset, metric, tasks), digits_of(metric.name))


def _ranking(cellset: Cellset, ranked: Standings) -> list[RankedRow]:
    spent = costs(cellset)
    sides = [{row.id: value for row, value, _ in table(cellset, side).rows} for side in SIDES]
    return [
        RankedRow(standing, [side[standing.row.id] for side in sides], spent.get(standing.row.id))
        for standing in ranked.rows
    ]


def _sentence(ranked: Standings) -> str:
    """Say in one sentence who leads, by how much, and who cannot be told from it."""
    rows = [row for row in ranked.rows if not row.reference and row.mean is not None]
    if not rows:
        return "No entry has all its cells yet, so there is no mean to compare."
    first = next((row for row in rows if row.tier == 1), rows[0])
    assert first.mean is not None
    words = f"Highest mean {ranked.metric.title}: {first.row.name}, {first.mean.mean:.3f}"
    if first.over_zero_shot is not None:
        words += f", {spanned(first.over_zero_shot)} against zero-shot"
    if ranked.reason:
        return f"{words}. Not ranked: {ranked.reason}."
    peers = [row.row.name for row in rows if row.tier == 1 and row is not first]
    if not peers:
        return f"{words}. It differs significantly from every other entry."
    listed = ", ".join(peers[:3]) + (f" and {len(peers) - 3} more" if len(peers) > 3 else "")
    return f"{words}. It cannot be told from {listed}: they share tier 1."


def _plot(ranked: Standings) -> IntervalPlot | None:
    return interval_plot(
        [
            PlotRow(
                standing.row.name,
                gain.mean,
                gain.low,
                gain.high,
                f"{signed(gain.mean)}, tier {standing.tier}" if standing.tier else signed(gain.mean),
                "reference" if standing.reference else "flagged" if standing.flags else "ranked",
            )
            for standing in ranked.rows
            if (gain := standing.over_zero_shot) is not None
        ]
    )


def _samples(cellset: Cellset, overall: Table, code: str) -> LanguageSamples:
    seed = cellset.manifest.selection.seeds[0]
    groups = []
    for task in overall.tasks:
        shown: dict[str, list[Sample]] = {}
        for row, _, _ in overall.rows:
            place = (row.id, task, code, seed)
            if place in cellset.cells:
                run, cell = cellset.cells[place]
                for label, texts in _first_texts(run.generations(cell)).items():
                    shown.setdefault(label, []).append(Sample(row.name, texts))
        groups += [LabelSamples(task, label, samples) for label, samples in shown.items()]
    return LanguageSamples(language(code), seed, groups)


def _first_texts(generations: Sequence[Any]) -> dict[str, list[str]]:
    first: dict[str, list[str]] = {}
    for item in generations:
        texts = first.setdefault(item.label, [])
        if len(texts) < SAMPLES_PER_LABEL:
            texts.append(clean(item.text))
    return first
