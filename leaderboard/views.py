"""What the page shows, as plain data: no HTML here, no numbers in the templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.files import digest
from harness.languages import Language, language
from harness.ranking.summary import mark
from harness.ranking.tables import BASELINE, Cellset, EntryRow, Table, table
from harness.records import Manifest
from harness.scoring.metrics import Metric
from leaderboard.charts import IntervalPlot, interval_plot

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


@dataclass(frozen=True)
class BoardView:
    """Everything about one set of comparable results."""

    title: str
    manifest: Manifest
    manifests: list[Manifest]
    suite: dict[str, Any]
    mark: str
    sentence: str
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
        sentence=_sentence(overall),
        plot=_plot(overall),
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
    digits = 1 if "100" in metric.unit else 3
    return Section(scope, f"{anchor}-{slug}", table(cellset, metric, tasks), digits)


def _is_reference(row: EntryRow) -> bool:
    return row.entry.setting == "none"


def _sentence(overall: Table) -> str:
    """Say in one sentence who leads, by how much, and that this is not yet a test."""
    ranked = [(row, value) for row, value, _ in overall.rows if not _is_reference(row)]
    done = [(row, value) for row, value in ranked if value.mean is not None]
    if not done:
        return "No entry has all its cells yet, so there is no mean to compare."
    row, best = done[0]
    words = f"Highest mean {overall.metric.title}: {row.name}, {best.mean:.3f}"
    if best.gain is not None:
        words += f", {best.gain:+.3f} against zero-shot".replace("-0", "−0")
    if len(done) > 1:
        words += f"; next is {done[1][0].name} with {done[1][1].mean:.3f}"
    return words + ". Whether such a difference is more than chance is not tested on this page."


def _plot(overall: Table) -> IntervalPlot | None:
    rows = [
        (row.name, value.mean, value.spread, _is_reference(row))
        for row, value, _ in overall.rows
        if value.mean is not None
    ]
    base = [
        value.mean
        for row, value, _ in overall.rows
        if row.entry.method.name == BASELINE and value.mean is not None
    ]
    return interval_plot(rows, base[0] if len(base) == 1 else None)


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
