"""A board: one set of comparable results, with everything that pages and downloads show computed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import numpy as np

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import Track
from harness.core.store import Run
from harness.core.types import FloatArray
from harness.core.workers import map_forked
from harness.ranking.cost import Cost, costs
from harness.ranking.curves import CurveSet, curves_of
from harness.ranking.eligibility import Eligibility
from harness.ranking.gains import baselines, gains
from harness.ranking.leaderboard_rows import Ranking, rank_entries
from harness.ranking.results import BASELINE, ResultSet, collect, to_array
from harness.ranking.rivals import Rivalry, RowKind, find_rivalry, row_kind
from harness.ranking.slices import Slice, SliceRanking, rank_slices
from harness.ranking.stats.estimates import Estimate
from harness.ranking.values import collect_metric
from harness.scoring.metrics import LABEL_FIDELITY, LANGUAGE_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI, Metric
from leaderboard.checks import check_manifest, drop_invalid
from leaderboard.text import name_of, slug


def method_file(method: str) -> str:
    """Return the file name of a method's page."""
    return f"method-{slug(method)}.html"


@dataclass(frozen=True)
class Board:
    """One suite, selection and data: only these entries are compared with one another.

    ``id`` is stable over builds: it names the directory of the board's pages and depends on suite, selection
    and data alone. ``headline`` is what entries are ranked by. ``costs``: entry id -> its cost. ``slices``:
    the ranking of every task and language. ``checks``: language that is excluded from averages, such as
    English -> entry id -> its gain over zero-shot there. ``rivalry``: the best steering against the best entry without
    access to activations.
    """

    id: str
    result_set: ResultSet
    headline: Metric
    standings: Ranking
    costs: dict[str, Cost]
    slices: list[SliceRanking] = field(default_factory=list)
    checks: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    rivalry: Rivalry | None = None
    _means: dict[tuple[str, str | None, str | None], list[list[float | None]]] = field(default_factory=dict)

    @property
    def track(self) -> Track:
        """What was measured: texts as training data, understanding, or language forcing."""
        return self.result_set.track

    def slice(self, task: str | None = None, language: str | None = None) -> SliceRanking | None:
        """Return the ranking in one task, language, both or all; None where the suite has no such slice."""
        return self._by_slice.get(Slice(task, language))

    @cached_property
    def _by_slice(self) -> dict[Slice, SliceRanking]:
        tasks, languages = self.result_set.manifest.selection.tasks, self.result_set.manifest.selection.languages
        found = {ranking.scope: ranking for ranking in self.slices}
        for ranking in self.slices:  # a suite of one task or language has no second slice of equal content
            for task in {ranking.scope.task, *(tasks if len(tasks) == 1 else [])}:
                for code in {ranking.scope.language, *(languages if len(languages) == 1 else [])}:
                    found.setdefault(Slice(task, code), ranking)
        return found

    def curves(self, task: str | None = None, language: str | None = None) -> CurveSet | None:
        """Return the data-size curves of one task or language, or of all; None where the suite has none."""
        chosen = self.result_set.manifest.selection
        one = len(chosen.tasks) == 1, len(chosen.languages) == 1  # the only one is all
        return self._curves.get(Slice(None if one[0] else task, None if one[1] else language))

    @cached_property
    def curve_settings(self) -> dict[str, Any]:
        """What the suite says about its data-size curves; empty where it has none."""
        metrics = self.result_set.manifest.suite.get("metrics")
        found = metrics.get("curve") if isinstance(metrics, dict) else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def _curves(self) -> dict[Slice, CurveSet]:
        named: list[str] = self.curve_settings.get("classifiers") or [""]
        own = self.headline.name.partition("/")[2]
        classifier = own if own in named else named[0]
        whole = curves_of(self.result_set, classifier) if classifier else None
        if whole is None:
            return {}
        chosen = self.result_set.manifest.selection
        parts = [*(Slice(task, None) for task in chosen.tasks), *(Slice(None, code) for code in chosen.languages)]
        made = map_forked(lambda part: curves_of(self.result_set, classifier, part.task, part.language), parts)
        found = {part: curves for part, curves in zip(parts, made, strict=True) if curves is not None}
        return {Slice(None, None): whole, **found}

    @cached_property
    def zero_shot(self) -> dict[str, str]:
        """Entry id -> the unsteered zero-shot entry of its model, for those that have one without a flag."""
        flagged = {standing.row.id for standing in self.standings.rows if standing.flags}
        return {name: base for name, base in baselines(self.result_set, BASELINE).items() if base not in flagged}

    @property
    def secondary(self) -> list[Metric]:
        """The metrics that are shown next to the headline in the ranking."""
        if self.track == "generation":
            return [VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY]
        return [m for m in self.result_set.metrics if m.group == self.track and m.primary and m != self.headline]

    def kind(self, entry: str) -> RowKind:
        """Return what an entry is on the board for."""
        return row_kind(self.result_set.entries[entry].entry, self.result_set.steered.get(entry))

    def page(self, entry: str) -> str:
        """Return the address of the page of an entry's method, in the directory of the board."""
        return method_file(self.result_set.entries[entry].entry.method.name)

    @cached_property
    def names(self) -> dict[str, str]:
        """Entry id -> its name as pages show it."""
        return {name: name_of(row.name, 160) for name, row in self.result_set.entries.items()}

    @cached_property
    def title(self) -> str:
        """The suite and the models: what a heading says."""
        return name_of(self.result_set.title, 300)

    @cached_property
    def axes(self) -> dict[str, list[Any]]:
        """Names along the axes of ``array``: entries in the order of the ranking, metrics, and the selection."""
        chosen = self.result_set.manifest.selection
        return {
            "entry": [standing.row.id for standing in self.standings.rows],
            "metric": [metric.name for metric in self.result_set.metrics],
            "task": list(chosen.tasks),
            "language": list(chosen.languages),
            "seed": list(chosen.seeds),
        }

    def array(self, column: str) -> FloatArray:
        """Return all values, or those of ``human``-written text, along ``axes``; NaN where unknown."""
        return to_array(self.result_set.scores, self.axes, column)

    @cached_property
    def strata(self) -> list[tuple[str, str]]:
        """The tasks and languages that there is data of."""
        return self.result_set.manifest.selection.task_languages()

    @cached_property
    def _by_stratum(self) -> dict[str, FloatArray]:
        """Means over the seeds (metric, entry, stratum) by column, NaN where a seed has no value."""
        tasks, languages = self.axes["task"], self.axes["language"]
        flat = [tasks.index(task) * len(languages) + languages.index(code) for task, code in self.strata]
        shape = len(self.axes["metric"]), len(self.axes["entry"]), -1
        return {
            column: self.array(column).mean(axis=-1).swapaxes(0, 1).reshape(shape)[:, :, flat]
            for column in ("value", "human")
        }

    def chosen(self, task: str | None, language: str | None) -> list[int]:
        """Return the positions of the strata of a task, a language, or both."""
        return [i for i, (own, code) in enumerate(self.strata) if task in (None, own) and language in (None, code)]

    def level(
        self, metric: Metric, entry: str, task: str | None = None, language: str | None = None, column: str = "value"
    ) -> float | None:
        """Return an entry's mean over the strata; None where a cell in them has no value.

        ``column``: ``human`` for human-written text of the same cells.
        """
        key = (column, task, language)
        if key not in self._means:  # one page asks for the same strata in every cell of a table
            strata = self.chosen(task, language)
            means = self._by_stratum[column][:, :, strata].mean(axis=2).tolist() if strata else []
            self._means[key] = [[None if x != x else x for x in row] for row in means]
        row = self._places["metric"].get(metric.name)
        found = self._means[key]
        return found[row][self._places["entry"][entry]] if row is not None and found else None

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        """Metric and entry -> its index along ``axes``."""
        return {axis: {name: i for i, name in enumerate(self.axes[axis])} for axis in ("metric", "entry")}

    def human(self, metric: Metric, language: str | None = None) -> float | None:
        """Return the metric of human-written text, of the first entry that has it in all cells."""
        found = (self.level(metric, name, None, language, "human") for name in self.result_set.entries)
        return next((value for value in found if value is not None), None)

    def measured(self, metric: str) -> bool:
        """Return whether a metric has a complete value in any task and language."""
        row = self._places["metric"].get(metric)
        return row is not None and bool(np.isfinite(self._by_stratum["value"][row]).any())


def boards(runs: Sequence[Run]) -> list[Board]:
    """Return the boards of runs, track by track, those with the most entries first.

    Raises ``UserError`` for a directory without a run, a broken file in it, and where nothing is scored.
    """
    for run in runs:
        check_manifest(run.manifest_path, run.manifest())
    result_sets = [drop_invalid(result_set) for result_set in collect(runs)]
    found = [board(result_set) for result_set in result_sets if not result_set.scores.empty]
    if not found:
        listed = ", ".join(str(run.path) for run in runs)
        raise UserError(f"nothing is scored in {listed}. Run 'steerboard score RUN' first.")
    tracks = list(get_args(Track))
    return sorted(found, key=lambda item: (tracks.index(item.track), -len(item.result_set.entries), item.id))


def board(result_set: ResultSet) -> Board:
    """Return the board of one set of comparable results."""
    headline = result_set.headline or result_set.metrics[0]
    array, rules = collect_metric(result_set, headline), Eligibility(result_set)
    chosen, bases = result_set.manifest.selection, baselines(result_set, BASELINE)
    checked = [code for code in chosen.checked if chosen.task_languages(languages=[code])]
    return Board(
        board_id(result_set),
        result_set,
        headline,
        rank_entries(result_set, headline, array=array, eligibility=rules),
        costs(result_set),
        rank_slices(result_set, headline, array, rules),
        {code: gains(collect_metric(result_set, headline, languages=[code]), bases) for code in checked},
        find_rivalry(array, rules) if result_set.track == "generation" else None,
    )


def board_id(result_set: ResultSet) -> str:
    """Return the name of a board in addresses and files: the suite's name and a short hash."""
    manifest = result_set.manifest
    kind = [manifest.suite_hash, manifest.selection.identity(), manifest.data_hashes]
    name = re.sub(r"[^a-z0-9]+", "-", str(manifest.suite["name"])[:40].lower()).strip("-") or "suite"
    return f"{name}-{digest(kind, 6)}"
